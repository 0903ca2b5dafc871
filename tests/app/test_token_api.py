"""The Entra SDK sidecar's endpoints of the running program, by the commands of the public walk-through.

The keys are those of its ConfigMap and Secret. Two of them lead to the emulator, which cannot have the names
of Microsoft's hosts.
"""

import asyncio
import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz_dev.emulator.faults import Fault
from support.peers.upstream import EchoUpstream
from support.programs.stack import Process, World, claims, until
from support.programs.token_api import Sidecar
from support.proxy.sidecar import Authority

APP = "/AuthorizationHeaderUnauthenticated/graph"
USER = "/AuthorizationHeader/graph"


def test_the_commands_of_the_walk_through(world: World, start: Callable[..., Sidecar]) -> None:
    """Health, the blueprint's token, an agent's, a call by an agent, and an agent's for a user."""
    sidecar = start()
    agent, user = world.agent["client_id"], world.token()

    health = sidecar.get("/healthz")
    blueprint = sidecar.token(APP)
    autonomous = sidecar.token(APP, AgentIdentity=agent)
    for_user = sidecar.token(
        USER, token=user, AgentIdentity=agent, **{"optionsOverride.RequestAppToken": "false"}
    )
    call = sidecar.http.post(
        "/DownstreamApiUnauthenticated/graph",
        params={"AgentIdentity": agent, "optionsOverride.RelativePath": "whoami"},
    ).json()

    assert (200, "Healthy") == (health.status_code, health.text)
    assert (world.blueprint["client_id"], "app") == (blueprint["appid"], blueprint["idtyp"])
    assert (agent, "app") == (autonomous["appid"], autonomous["idtyp"])
    assert (agent, "user", world.users["alice"]["object_id"]) == (
        for_user["appid"], for_user["idtyp"], for_user["oid"],
    )  # fmt: skip
    assert (200, agent) == (call["statusCode"], json.loads(call["content"])["appid"])
    assert ["application/json"] == call["headers"]["Content-Type"]


def test_a_foreign_agent_is_a_refusal_and_no_other_token(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """Entra's refusal is one here: neither the blueprint's token nor another agent's comes instead."""
    sidecar = start()
    foreign = world.other_blueprint["agents"][0]["client_id"]
    answer = sidecar.get(APP, AgentIdentity=foreign)
    assert (403, "agent_not_allowed") == (answer.status_code, answer.json()["reason"])
    assert "authorizationHeader" not in answer.text


def test_an_agents_user_account(world: World, start: Callable[..., Sidecar]) -> None:
    """By name and by object id; the profile's RequestAppToken gives way to the user that is named."""
    sidecar = start()
    agent = world.agent["client_id"]
    by_name = sidecar.token(APP, AgentIdentity=agent, AgentUsername=world.agent["agent_user"])
    by_id = sidecar.token(APP, AgentIdentity=agent, AgentUserId=by_name["oid"])
    assert ("user", agent, by_name["oid"]) == (by_id["idtyp"], by_id["appid"], by_id["oid"])
    assert world.agent["agent_user"] == by_name["upn"]


@pytest.mark.parametrize(
    ("parameters", "status", "reason"),
    [
        ({"AgentUsername": "a@b.example"}, 400, "bad_parameter"),
        ({"AgentIdentity": "desk"}, 400, "bad_parameter"),
        ({"AgentIdentity": "", "AgentUsername": "a@b.example"}, 400, "bad_parameter"),
        ({"optionsOverride.RequestAppToken": "false"}, 401, "missing_token"),
        ({"optionsOverride.AcquireTokenOptions.FmiPath": "x"}, 400, "bad_parameter"),
        ({"optionsOverride.Scopes": "api://unknown/.default"}, 400, "bad_parameter"),
    ],
)
def test_what_cannot_be_is_a_problem(
    start: Callable[..., Sidecar], parameters: dict[str, str], status: int, reason: str
) -> None:
    """As RFC 9457 has it, with our reason."""
    answer = start().get(APP, **parameters)
    assert (status, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    body = answer.json()
    assert (status, reason) == (body["status"], body["reason"])
    assert {"type", "title", "detail"} <= body.keys()


def test_callers_are_verified(world: World, start: Callable[..., Sidecar]) -> None:
    """On every authenticated route: no token, a wrong one, one without the scope that is asked for."""
    sidecar = start(AzureAd__Scopes="access_agent")
    strange = world.emulator.mint_user_token(
        user=world.users["alice"]["object_id"], audience=world.other_blueprint["client_id"]
    )
    for path in ("/Validate", USER):
        without = sidecar.get(path)
        assert (401, 'Bearer realm="authz"') == (
            without.status_code,
            without.headers["www-authenticate"],
        )
        wrong = sidecar.get(path, token=strange)
        assert 401 == wrong.status_code
        assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    post = sidecar.http.post("/DownstreamApi/graph")
    assert (401, "missing_token") == (post.status_code, post.json()["reason"])

    other_scope = start(AzureAd__Scopes="another_scope")
    for path in ("/Validate", USER):
        refused = other_scope.get(path, token=world.token())
        assert (403, "insufficient_scope") == (refused.status_code, refused.json()["reason"])
        # As a client asks Entra for it: the name alone would be a permission of Microsoft Graph.
        wanted = f'scope="api://{world.blueprint["client_id"]}/another_scope"'
        assert wanted in refused.headers["www-authenticate"]


def test_validate_returns_the_claims_as_they_are(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """With the token, and for nobody to store."""
    token = world.token()
    answer = start().get("/validate", token=token)
    assert {"protocol": "Bearer", "token": token, "claims": claims(token)} == answer.json()
    assert "no-cache, no-store, must-revalidate" == answer.headers["cache-control"]
    assert ("0", "no-cache") == (answer.headers["expires"], answer.headers["pragma"])


def test_tokens_are_verified_without_a_credential(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """Microsoft's README calls the credentials optional: `/Validate` needs none."""
    names = ("SourceType", "ClientSecret")
    without = {f"AzureAd__ClientCredentials__0__{name}": "" for name in names}
    apis = {
        f"DownstreamApis__graph__{name}": "" for name in ("BaseUrl", "Scopes__0", "RequestAppToken")
    }
    sidecar = start(**without, **apis)
    assert 200 == sidecar.get("/Validate", token=world.token()).status_code
    assert (401, 404) == (sidecar.get("/Validate").status_code, sidecar.get(APP).status_code)


def test_a_gate_that_is_shut_refuses_what_is_wished(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """The sidecar passes the agent over, and gives the blueprint's token."""
    sidecar = start(Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated="false")
    refused = sidecar.get(APP, AgentIdentity=world.agent["client_id"])
    assert (403, "override_not_allowed") == (refused.status_code, refused.json()["reason"])
    assert world.blueprint["client_id"] == sidecar.token(APP)["appid"]
    open_gate = sidecar.token(
        USER, token=world.token(), AgentIdentity=world.agent["client_id"],
        **{"optionsOverride.RequestAppToken": "false"},
    )  # fmt: skip
    assert world.agent["client_id"] == open_gate["appid"]


def test_entras_troubles_keep_their_status(world: World, start: Callable[..., Sidecar]) -> None:
    """The sidecar makes a 401 of each: callers' retries never see that they should wait."""
    sidecar = start()
    world.emulator.faults.add(Fault("status", status=429, retry_after=7))
    # The first token is there already: it has proved the credential.
    force = {"optionsOverride.AcquireTokenOptions.ForceRefresh": "true"}
    throttled = sidecar.get(APP, **force)
    assert (503, "exchange_throttled", "7") == (
        throttled.status_code,
        throttled.json()["reason"],
        throttled.headers["retry-after"],
    )


def test_a_claims_challenge_reaches_the_caller(world: World, start: Callable[..., Sidecar]) -> None:
    """Of the user who must do something at Entra first."""
    sidecar = start(DownstreamApis__graph__RequestAppToken="false")
    answer = sidecar.get(USER, token=world.token("carol"), AgentIdentity=world.agent["client_id"])
    assert 401 == answer.status_code
    assert "claims=" in answer.headers["www-authenticate"]


def test_a_refresh_is_forced(world: World, start: Callable[..., Sidecar]) -> None:
    """Else a token comes from the cache, for as long as it holds."""
    sidecar = start()
    force = {"optionsOverride.AcquireTokenOptions.ForceRefresh": "true"}
    first, again = sidecar.token(APP), sidecar.token(APP)
    forced, after = sidecar.token(APP, **force), sidecar.token(APP)
    assert first["uti"] == again["uti"] != forced["uti"] == after["uti"]


def test_metrics_and_log_tell_of_each(world: World, start: Callable[..., Sidecar]) -> None:
    """Like those of Checks: which API, which agent, and never the token."""
    sidecar = start()
    agent = world.agent["client_id"]
    header = sidecar.get(APP, AgentIdentity=agent).json()["authorizationHeader"]
    sidecar.http.post("/DownstreamApiUnauthenticated/graph?optionsOverride.RelativePath=whoami")
    metrics = sidecar.process.admin("/metrics").text
    checks = (
        'authz_checks_total{decision="allow",direction="egress",reason="none",route="graph"} 2.0'
    )
    assert checks in metrics
    assert 'authz_downstream_duration_seconds_count{outcome="2xx",route="graph"} 1.0' in metrics
    record = sidecar.process.event("check")
    assert ("graph", agent, "autonomous") == (record["route"], record["agent"], record["flow"])
    assert header.removeprefix("Bearer ") not in sidecar.process.log()


CALL = "/DownstreamApiUnauthenticated/graph"


def test_calls_that_cannot_be_made_are_problems(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """Before a token is asked for where that can be known; and no token is in any of them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"https://127.0.0.1:{free.getsockname()[1]}"
    sidecar = start(
        DownstreamApis__nowhere__BaseUrl=nowhere,
        DownstreamApis__nowhere__Scopes="https://graph.microsoft.com/.default",
        DownstreamApis__nowhere__RequestAppToken="true",
        DownstreamApis__unplaced__Scopes="https://graph.microsoft.com/.default",
        DownstreamApis__unplaced__RequestAppToken="true",
        Sidecar__AllowOverrides__CallDownstreamApiUnauthenticated="true",
    )
    world.emulator.calls.reset()
    leave = {"optionsOverride.RelativePath": "../x"}
    foreign = {"optionsOverride.Scopes": "api://other/.default"}
    refused = [
        sidecar.http.post(CALL, params=leave),
        sidecar.http.post(CALL, params=foreign),
        sidecar.http.post("/DownstreamApiUnauthenticated/unplaced"),
        sidecar.http.post("/DownstreamApiUnauthenticated/unheard"),
    ]
    assert 0 == world.emulator.calls.snapshot()["total"]
    large = sidecar.http.post(CALL, content=b"x" * (4 * 1024**2 + 1))
    unreachable = sidecar.http.post("/DownstreamApiUnauthenticated/nowhere")
    assert [
        (400, "bad_parameter"), (400, "bad_parameter"), (400, "bad_parameter"), (404, "unknown_api"),
        (413, "request_too_large"), (502, "downstream_unavailable"),
    ] == [
        (answer.status_code, answer.json()["reason"]) for answer in (*refused, large, unreachable)
    ]  # fmt: skip
    failure = sidecar.process.event("call failed")
    assert ("graph", "request_too_large") == (failure["route"], failure["reason"])


def test_scopes_make_up_for_what_is_not_configured(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """An API that is not configured, and one without scopes: as the sidecar serves them, and no further."""
    graph = f"{world.emulator.authority}/v1.0"
    sidecar = start(DownstreamApis__bare__BaseUrl=graph)
    scopes = {"optionsOverride.Scopes": "https://graph.microsoft.com/.default"}
    app = {**scopes, "optionsOverride.RequestAppToken": "true"}
    path = "/AuthorizationHeaderUnauthenticated"
    agent = world.agent["client_id"]
    for name in ("unheard", "bare"):
        assert world.blueprint["client_id"] == sidecar.token(f"{path}/{name}", **app)["appid"]
        assert agent == sidecar.token(f"{path}/{name}", AgentIdentity=agent, **app)["appid"]
        delegated = sidecar.token(
            f"/AuthorizationHeader/{name}", token=world.token(), AgentIdentity=agent, **scopes
        )
        assert ("user", agent) == (delegated["idtyp"], delegated["appid"])
    whoami = {**app, "optionsOverride.RelativePath": "whoami"}
    called = sidecar.http.post("/DownstreamApiUnauthenticated/bare", params=whoami).json()
    assert world.blueprint["client_id"] == json.loads(called["content"])["appid"]
    refused = [
        sidecar.get(f"{path}/bare"),
        sidecar.get(f"{path}/unheard"),
        sidecar.get(f"{path}/unheard", **scopes),
        sidecar.http.post("/DownstreamApiUnauthenticated/unheard", params=app),
    ]
    assert [
        (400, "bad_parameter"), (404, "unknown_api"), (401, "missing_token"), (404, "unknown_api"),
    ] == [(answer.status_code, answer.json()["reason"]) for answer in refused]  # fmt: skip
    assert 'route="unheard"' not in sidecar.process.admin("/metrics").text


def test_names_are_taken_in_any_case(start: Callable[..., Sidecar]) -> None:
    """As ASP.NET Core takes paths, and .NET the keys of a configuration."""
    sidecar = start()
    for path in (APP.lower(), APP.upper(), f"{APP}/"):
        assert 200 == sidecar.get(path).status_code
    assert [404, 405] == [
        sidecar.get("/AuthorizationHeaders/graph").status_code,
        sidecar.http.post(APP).status_code,
    ]


def test_the_callers_method_stands_for_the_apis_where_nothing_else_does(
    start: Callable[..., Sidecar],
) -> None:
    """PUT, PATCH and DELETE, of which the sidecar's documents speak; POST is the sidecar's own."""
    sidecar = start(DownstreamApis__graph__RelativePath="whoami")
    statuses = [
        sidecar.http.request(method, CALL).json()["statusCode"]
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    ]
    # The emulator's Graph knows only GET there.
    assert [200, 200, 405, 405, 405] == statuses
    method = {"optionsOverride.HttpMethod": "get"}
    assert 200 == sidecar.http.put(CALL, params=method).json()["statusCode"]


def test_a_new_configuration_counts_for_the_api_as_well(
    world: World, serve: Callable[..., Process], write: Callable[..., Path]
) -> None:
    """Without a restart: another agent may be named, another API is there."""
    listen = {**world.config()["listen"], "api": "127.0.0.1:0"}
    agents = world.config()["agents"]
    process = serve(listen=listen, agents={"desk": agents["desk"]}, egress=_graph("desk"))
    sidecar = Sidecar(process)
    sibling = agents["clerk"]["agent_identity"]
    refused = sidecar.get(APP, AgentIdentity=sibling)
    assert (403, "agent_not_allowed") == (refused.status_code, refused.json()["reason"])

    write(listen=listen, agents=agents, egress=_graph("desk"))
    process.signal(signal.SIGHUP)
    process.event("configuration applied")
    assert sibling == sidecar.token(APP, AgentIdentity=sibling)["appid"]
    sidecar.http.close()


async def test_a_reload_leaves_a_call_that_waits_for_entra_alone(
    world: World, serve: Callable[..., Process], write: Callable[..., Path]
) -> None:
    """The new version brings another client of APIs; the request's own is there until it has called."""
    graph = _graph("desk")
    graph["graph"]["downstream"] = {"base_url": f"{world.emulator.authority}/v1.0"}
    own = {
        "listen": {**world.config()["listen"], "api": "127.0.0.1:0"},
        "entra": {**world.config()["entra"], "timeout": "20s", "exchange_timeout": "20s"},
        "limits": {"check_timeout": "30s"},
        "egress": graph,
    }
    api = {"ca_file": str(world.emulator.ca_file)}
    sidecar = Sidecar(process := serve(api=api, **own))
    world.emulator.faults.add(Fault("latency", "token", seconds=5, count=1))
    parameters = {"optionsOverride.RelativePath": "whoami"}
    calling = asyncio.create_task(asyncio.to_thread(sidecar.get, CALL, **parameters))
    await until(lambda: not world.emulator.faults.active())
    write(api={**api, "timeout": "29s"}, **own)
    process.signal(signal.SIGHUP)
    await asyncio.to_thread(process.event, "configuration applied")
    early = calling.done()
    answer = await calling
    sidecar.http.close()

    assert not early
    assert (200, 200) == (answer.status_code, answer.json().get("statusCode"))


def _graph(agent: str) -> dict[str, Any]:
    scopes = ["https://graph.microsoft.com/.default"]
    return {"graph": {"flow": "autonomous", "agent": agent, "scopes": scopes}}


def test_a_header_that_a_route_removes_is_not_added_by_a_caller(
    world: World, serve: Callable[..., Process]
) -> None:
    """In any case, with hyphen or underscore; what else a caller adds goes out."""
    authority = Authority.create(world.folder)
    with EchoUpstream(authority.server_context("127.0.0.1")) as upstream:
        route = world.config()["egress"]["autonomous"]
        downstream = {"base_url": f"https://{upstream.address}"}
        process = serve(
            listen={**world.config()["listen"], "api": "127.0.0.1:0"},
            api={"ca_file": str(authority.file)},
            egress={"orders": {**route, "downstream": downstream, "remove_headers": ["x-api-key"]}},
        )
        name = "optionsOverride.ExtraHeaderParameters."
        sidecar = Sidecar(process)
        answer = sidecar.get(
            "/DownstreamApiUnauthenticated/orders",
            **{f"{name}X-API-Key": "mine", f"{name}x_api-key": "mine", f"{name}X-Other": "1"},
        )
        sidecar.http.close()

    assert 200 == answer.json()["statusCode"]
    (seen,) = upstream.received
    assert ["1"] == seen.values("x-other")
    assert [] == [name for name, value in seen.headers if value == "mine"]
    assert ["x-api-key", "x_api-key"] == process.event("headers not sent")["headers"]


FOR_A_USER = {"optionsOverride.RequestAppToken": "false"}


@pytest.mark.parametrize("api", ["graph", "unheard"])
def test_an_endpoint_without_users_says_which_one_takes_them(
    world: World, start: Callable[..., Sidecar], api: str
) -> None:
    """However good the bearer token is that was sent there, and whether or not the API is configured."""
    answer = start().get(
        f"/AuthorizationHeaderUnauthenticated/{api}",
        token=world.token(),
        AgentIdentity=world.agent["client_id"],
        **FOR_A_USER,
        **{"optionsOverride.Scopes": "https://graph.microsoft.com/User.Read"},
    )
    detail = answer.json()["detail"]

    assert (401, "missing_token") == (answer.status_code, answer.json()["reason"])
    assert "This endpoint takes no user's token: call /AuthorizationHeader/" in detail
    assert "RequestAppToken=true" in detail


def test_a_user_without_an_agent_is_told_to_name_one(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """The client of the sidecar's variables is a blueprint, which Entra lets act for nobody."""
    answer = start().get(USER, token=world.token(), **FOR_A_USER)

    assert (
        400,
        "AgentIdentity: name an agent: a blueprint cannot act on behalf of a user",
    ) == (answer.status_code, answer.json()["detail"])


def test_another_agents_user_account_is_refused_at_once(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """As the caller's error, without a second try: the account will not be this agent's in a moment."""
    sidecar = start()
    agents = world.blueprint["agents"]
    answer = sidecar.get(
        APP, AgentIdentity=agents[1]["client_id"], AgentUsername=agents[0]["agent_user"]
    )
    asked = world.emulator.calls.snapshot()["user_fic"]

    assert (403, "agent_not_allowed") == (answer.status_code, answer.json()["reason"])
    assert "the user account is of another agent" in answer.json()["detail"]
    assert 1 == asked


def test_a_callers_typo_is_no_misconfiguration_in_the_metrics(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """A critical alert counts `exchange_misconfigured`; what a request named is the caller's."""
    sidecar = start()
    agents = world.blueprint["agents"]
    stranger = world.other_blueprint["agents"][0]["client_id"]
    sidecar.get(APP, AgentIdentity=stranger)
    sidecar.get(APP, AgentIdentity=agents[1]["client_id"], AgentUsername=agents[0]["agent_user"])
    sidecar.get(APP, **{"optionsOverride.Scopes": "https://nowhere.example/.default"})
    sidecar.get(USER, token=world.token(), **FOR_A_USER)
    counted = re.findall(
        r'authz_exchanges_total\{flow="(\w+)",outcome="(\w+)"\} [1-9]',
        sidecar.process.admin("/metrics").text,
    )

    outcomes = {outcome for _, outcome in counted}
    assert {"agent_not_allowed", "bad_parameter"} <= outcomes, counted
    assert "exchange_misconfigured" not in outcomes, counted
