"""The Entra SDK sidecar's environment keys alone configure the same engine."""

from hashlib import sha256

import pytest

from support.programs import program
from support.programs.stack import Client, Process, World, authorization, problem


def environment(world: World, **more: str) -> dict[str, str]:
    """The keys of the well-known sidecar demo, pointed at the emulator."""
    return {
        "AzureAd__Instance": world.emulator.authority + "/",
        "AzureAd__TenantId": world.tenant_id,
        "AzureAd__ClientId": world.blueprint["client_id"],
        "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
        "AzureAd__ClientCredentials__0__ClientSecret": world.blueprint["client_secret"],
        "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0",
        "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
        "DownstreamApis__graph__RequestAppToken": "true",
        "SSL_CERT_FILE": str(world.emulator.ca_file),
        "AUTHZ_LISTEN_GRPC": f"unix:{world.folder}/authz.sock",
        "AUTHZ_LISTEN_ADMIN": "127.0.0.1:0",
        "AUTHZ_LISTEN_API": "127.0.0.1:0",
        "AUTHZ_LISTEN_DIRECTION": "egress",
        **more,
    }


@pytest.mark.parametrize("named", ["blueprint", "agent", "agent user"])
async def test_the_demos_keys_start_the_service(world: World, named: str) -> None:
    """Each DownstreamApi is an egress route by its host; naming an agent makes it the agent's."""
    more = {
        "blueprint": {},
        "agent": {"AzureAd__AgentIdentity": world.agent["client_id"]},
        "agent user": {
            "AzureAd__AgentIdentity": world.agent["client_id"],
            "DownstreamApis__graph__AgentUsername": world.agent["agent_user"],
            "DownstreamApis__graph__RequestAppToken": "false",
        },
    }[named]
    with Process("serve", environ=environment(world, **more)) as process:
        process.wait_ready()
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            issued = authorization(await client.check("egress", ""))

    expected = world.blueprint if named == "blueprint" else world.agent
    assert expected["client_id"] == issued["appid"]
    assert ("user" if named == "agent user" else "app") == issued["idtyp"]
    assert world.blueprint["client_secret"] not in process.last_log


async def test_on_behalf_of_by_environment(world: World) -> None:
    """Without RequestAppToken the route acts for the user, and refuses to act without one."""
    more = {
        "AzureAd__AgentIdentity": world.agent["client_id"],
        "DownstreamApis__graph__RequestAppToken": "false",
    }
    with Process("serve", environ=environment(world, **more)) as process:
        process.wait_ready()
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            issued = authorization(await client.check("egress", "graph", world.token()))
            without = problem(await client.check("egress", "graph"))

    assert world.users["alice"]["object_id"] == issued["oid"]
    assert "missing_token" == without["reason"]


def test_the_status_has_a_digest_of_what_the_variables_say(world: World) -> None:
    """Another one with other scopes, and the same with another secret: none can be tried against it."""

    def digest(**more: str) -> str:
        with Process("serve", environ=environment(world, **more)) as process:
            process.event("serving")
            found: str = process.admin("/status").json()["configuration"]["digest"]
        return found

    first = digest()
    secret = digest(AzureAd__ClientCredentials__0__ClientSecret="another")
    scopes = digest(DownstreamApis__graph__Scopes__0="https://other.example/.default")

    assert (first, 64) == (secret, len(first))
    assert first != scopes
    assert sha256(b"").hexdigest() not in (first, scopes)


def test_envoy_is_rendered_with_the_authorities_of_the_http_api(world: World) -> None:
    """From the same variables, so that both doors trust the same APIs; the option goes before them."""
    given = environment(world, AUTHZ_API_CA_FILE=str(world.emulator.ca_file))
    given["AUTHZ_LISTEN_DIRECTION"] = "inbound"
    by_variable = program.run("envoy", environ=given)
    by_option = program.run("envoy", "--upstream-ca", "/other.pem", environ=given)
    ours = f"filename: {world.emulator.ca_file}"

    assert (0, True) == (by_variable.returncode, ours in by_variable.stdout), by_variable.stderr
    assert (False, True) == (ours in by_option.stdout, "filename: /other.pem" in by_option.stdout)
