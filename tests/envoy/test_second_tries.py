"""A connection ends before an answer: what may be sent once more is, and no effect happens twice."""

from collections.abc import Iterator
from typing import Final

import h2.events
import httpx
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from authz.config import Config
from support.peers.http2_peer import Http2Message, Http2Upstream, http2_call
from support.peers.upstream import EchoUpstream, Seen
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
PUSHED_HOST: Final = "inventory.internal:8443"
READING: Final = ("GET", "HEAD", "OPTIONS")
CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE", "PURGE")


class HangsUp:
    """Has a server end connections in place of the next answers.

    Args:
        server: The server.
        times: Answers that it does not give.
    """

    def __init__(self, server: EchoUpstream, times: int = 1) -> None:
        self._left = times
        server.before_answer = self

    def __call__(self, _: Seen) -> None:
        """End the connection, the request having arrived whole."""
        if self._left > 0:
            self._left -= 1
            raise ConnectionError


@pytest.fixture
def breaking(sidecar: Sidecar) -> Iterator[Sidecar]:
    """A sidecar whose app and destinations may be told to hang up, with a connection to each that is kept."""
    sidecar.caller.get("/chat")
    sidecar.agent.get(f"http://{GRAPH}/")
    sidecar.forget()
    yield sidecar
    for server in (sidecar.app, *sidecar.destinations.values()):
        server.before_answer = lambda _: None


def servers(sidecar: Sidecar) -> dict[str, tuple[EchoUpstream, httpx.Client, str]]:
    """Return each server with who calls it, and how."""
    return {
        "app": (sidecar.app, sidecar.caller, "/chat"),
        "graph": (sidecar.destinations[GRAPH], sidecar.agent, f"http://{GRAPH}/chat"),
    }


@pytest.mark.parametrize("method", READING)
@pytest.mark.parametrize("where", ["app", "graph"])
def test_what_only_reads_is_sent_once_more(
    breaking: Sidecar, service: ExtAuthzServer, where: str, method: str
) -> None:
    """An idle connection that is closed just then costs nobody an answer; one decision is for both tries."""
    server, client, url = servers(breaking)[where]
    HangsUp(server)
    service.requests.clear()

    answer = client.request(method, url)

    assert 200 == answer.status_code
    assert [method, method] == [seen.method for seen in server.received]
    assert 1 == len(service.requests)


@pytest.mark.parametrize("method", CHANGING)
@pytest.mark.parametrize("where", ["app", "graph"])
def test_what_changes_something_is_sent_once(
    breaking: Sidecar, service: ExtAuthzServer, where: str, method: str
) -> None:
    """It may have had its effect: who sent it decides."""
    server, client, url = servers(breaking)[where]
    HangsUp(server)

    answer = client.request(method, url, content=b"order")

    assert (502, None) == (answer.status_code, answer.headers.get("retry-after"))
    assert [method] == [seen.method for seen in server.received]


@pytest.mark.parametrize("where", ["app", "graph"])
def test_there_is_no_third_try(breaking: Sidecar, where: str) -> None:
    """A server that answers nothing is asked twice."""
    server, client, url = servers(breaking)[where]
    HangsUp(server, 100)

    answer = client.get(url)

    assert 502 == answer.status_code
    assert 2 == len(server.received)


def test_a_body_is_sent_once(breaking: Sidecar) -> None:
    """Nothing of it is kept for a second try, whatever the method."""
    server, client, url = servers(breaking)["graph"]
    HangsUp(server)

    answer = client.request("GET", url, content=b"query")

    assert 502 == answer.status_code
    assert ["query"] == [seen.body for seen in server.received]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"])
@pytest.mark.parametrize("where", ["app", "graph", "pushed"])
def test_another_method_in_a_header_is_sent_once(
    breaking: Sidecar, service: ExtAuthzServer, where: str, name: str
) -> None:
    """To many a framework such a GET is a POST; it arrives with the header, and has its decision."""
    pushed = (breaking.destinations[PUSHED_HOST], breaking.agent, f"http://{PUSHED_HOST}/")
    server, client, url = {**servers(breaking), "pushed": pushed}[where]
    HangsUp(server)
    service.requests.clear()

    answers = [client.get(url, headers={name: "POST"}).status_code for _ in range(2)]

    assert [502, 200] == answers
    assert [["POST"], ["POST"]] == [seen.values(name.lower()) for seen in server.received]
    assert (0 if where == "pushed" else 2) == len(service.requests)


def test_a_health_check_is_sent_once_more(breaking: Sidecar) -> None:
    """It only reads."""
    HangsUp(breaking.app)

    assert 200 == breaking.caller.get("/healthz").status_code


def test_a_pushed_token_is_on_both_tries(breaking: Sidecar) -> None:
    """Envoy injects it each time: what the agent sent goes out on neither."""
    server = breaking.destinations[PUSHED_HOST]
    HangsUp(server)

    answer = breaking.agent.get(
        f"http://{PUSHED_HOST}/", headers={"authorization": "Bearer user-token"}
    )

    assert 200 == answer.status_code
    assert [[PUSHED], [PUSHED]] == [seen.values("authorization") for seen in server.received]


class Refusing(Http2Upstream):
    """An HTTP/2 server that takes no part of the first request that it sees, and says so.

    Attributes:
        closes: Whether it ends the whole connection with that, as a server does that stops.
        refused: How often it refused.
    """

    closes = False
    refused = 0
    _on: H2Connection | None = None

    def _take(
        self, http: H2Connection, under_way: dict[int, Http2Message], event: h2.events.Event
    ) -> None:
        stream = getattr(event, "stream_id", None)
        if (http, stream) == (self._on, 1):
            return
        if self.refused or not isinstance(event, h2.events.RequestReceived):
            super()._take(http, under_way, event)
            return
        self._on, self.refused = http, 1
        if self.closes:
            http.close_connection(last_stream_id=0)
        else:
            http.reset_stream(1, ErrorCodes.REFUSED_STREAM)


@pytest.mark.parametrize("closes", [False, True])
def test_what_was_refused_whole_is_sent_once_more(
    example: Config, authority: Authority, service: ExtAuthzServer, closes: bool
) -> None:
    """REFUSED_STREAM, and GOAWAY before it: no server has looked at the request, whatever its method."""
    service.start()
    service.answer = lambda _: allow(headers={"authorization": "Bearer graph-token"})
    service.requests.clear()
    with Refusing(authority.server_context(GRAPH)) as graph:
        graph.closes = closes
        with Sidecar(
            example,
            authz_address=service.address,
            authority=authority,
            certificates={},
            servers={GRAPH: graph.address},
        ) as sidecar:
            answer = http2_call(sidecar.egress_port, GRAPH, body=b"order")

    assert 200 == answer.status
    assert (1, [b"order"]) == (graph.refused, [seen.body for seen in graph.received])
    assert ["Bearer graph-token"] == graph.received[0].values("authorization")
    assert 1 == len(service.requests)
