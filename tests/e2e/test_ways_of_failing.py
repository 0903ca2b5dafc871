"""Ten ways in which a first installation fails: the caller's body, the log or `/status` names the fix."""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_dev.emulator import Fault
from support.programs.stack import Process, World, until
from support.programs.token_api import Sidecar, environment
from support.proxy.pod import GRAPH, Pod, pod_of

pytestmark = pytest.mark.thorough

Start = Callable[..., Pod]


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Start]:
    """Run a pod, with sections of its configuration changed."""
    with ExitStack() as running:
        yield lambda **changes: running.enter_context(pod_of(world, tmp_path, **changes))


def asked(pod: Pod, url: str = GRAPH, **order: Any) -> httpx.Response:
    """Call as a user's agent does."""
    headers = {"authorization": f"Bearer {pod.world.token(**order)}"}
    proxy = f"http://127.0.0.1:{pod.sidecar.egress_port}"
    with httpx.Client(proxy=proxy, trust_env=False, timeout=20) as client:
        return client.get(url, headers=headers)


async def told(process: Process, text: str) -> None:
    """Wait until the service has told an operator a text, in its log or its status."""
    await until(lambda: text in process.log() or text in process.admin("/status").text)


def with_agent(world: World, **changes: Any) -> dict[str, Any]:
    """Return section `agents` with its first agent changed."""
    agents = world.config()["agents"]
    return {**agents, "desk": {**agents["desk"], **changes}}


async def test_a_wrong_secret(world: World, start: Start) -> None:
    """The log names the credential's file and what belongs into it."""
    pod = start()
    world.secret_file.write_text("wrong")
    answer = asked(pod)

    assert "exchange_misconfigured" == answer.json()["reason"]
    await told(pod.authz, "put the secret's value into the file, not its id")
    await told(pod.authz, str(world.secret_file))


async def test_an_agent_identity_of_another_blueprint(world: World, start: Start) -> None:
    """Entra's number says little; the log says what to compare."""
    other = world.other_blueprint["agents"][0]["client_id"]
    pod = start(agents=with_agent(world, agent_identity=other))

    assert "exchange_misconfigured" == asked(pod).json()["reason"]
    await told(pod.authz, "compare `agent_identity` with the agent identities of this blueprint")


async def test_consent_that_nobody_gave(start: Start) -> None:
    """The body says who must consent, the log to what."""
    pod = start()
    answer = asked(pod, user="bob")

    assert "The user or an administrator must consent" in answer.json()["detail"]
    await told(pod.authz, "https://graph.microsoft.com/.default")


async def test_a_token_for_another_audience(world: World, start: Start) -> None:
    """The log has the audience that was found and those that would have done."""
    pod = start()
    answer = asked(pod, audience=world.reports["client_id"])

    assert "invalid_token" == answer.json()["reason"]
    await told(pod.authz, f"found '{world.reports['client_id']}', expected '")


async def test_entra_that_is_away(world: World, start: Start) -> None:
    """The body says when to try again, the log what did not answer."""
    pod = start()
    world.emulator.faults.add(Fault("down"))
    answer = asked(pod)

    assert ("exchange_unavailable", "1") == (
        answer.json()["reason"],
        answer.headers["retry-after"],
    )
    await told(pod.authz, "127.0.0.1")


async def test_an_authority_that_nobody_trusts(world: World, tmp_path: Path) -> None:
    """The log names the key, and the variable that stands for it."""
    entra = {**world.config()["entra"]}
    del entra["ca_file"]
    file = tmp_path / "authz.yaml"
    file.write_text(json.dumps(world.config(entra=entra)))
    with Process("serve", "--config", str(file)) as process:
        await asyncio.to_thread(process.event, "serving")
        await told(
            process,
            "its certificate is not trusted: name its authority in entra.ca_file or AUTHZ_CA_FILE",
        )


async def test_authz_that_is_away(start: Start) -> None:
    """Envoy says by itself who has not answered, and when to try again."""
    pod = start()
    pod.authz.stop()
    answer = asked(pod)

    assert (503, "authz_unavailable", "1") == (
        answer.status_code,
        answer.json()["reason"],
        answer.headers["retry-after"],
    )


async def test_https_through_the_proxy(start: Start) -> None:
    """Envoy's refusal of the tunnel says what to call instead."""
    pod = start()
    with socket.create_connection(("127.0.0.1", pod.sidecar.egress_port), timeout=20) as connection:
        connection.sendall(
            b"CONNECT graph.microsoft.com:443 HTTP/1.1\r\nhost: graph.microsoft.com:443\r\n\r\n"
        )
        with connection.makefile("rb") as answer:
            status = answer.readline()
            headers = dict(http.client.parse_headers(answer))
            body = answer.read(int(headers["content-length"]))

    assert b"403" in status
    assert "Call http:// instead" in json.loads(body)["detail"]


async def test_a_wrong_secret_of_a_pushed_route(world: World, start: Start) -> None:
    """The caller hears that an operator is needed, and the status has reason and detail."""
    world.secret_file.write_text("wrong")
    route = {
        **world.config()["egress"]["autonomous"],
        "hosts": ["graph.microsoft.com"],
        "push": True,
    }
    pod = start(egress={"graph": route})

    await until(lambda: asked(pod).json()["reason"] == "exchange_misconfigured", seconds=20)
    await told(pod.authz, "put the secret's value into the file, not its id")


async def test_an_agent_identity_over_the_http_api_that_entra_does_not_know(world: World) -> None:
    """The configuration allows it, and the answer does not say otherwise; the log says what to compare."""
    unknown = "99999999-0000-4000-8000-000000000009"
    process = Process("serve", environ=environment(world))
    try:
        with Sidecar(process).http as client:
            answer = client.get(
                "/AuthorizationHeaderUnauthenticated/graph", params={"AgentIdentity": unknown}
            )
        assert "Entra knows no such agent identity" in answer.json()["detail"]
        await told(process, "compare `agent_identity`")
    finally:
        process.close()
