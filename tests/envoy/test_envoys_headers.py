"""Headers by which Envoys steer one another: a caller's have no effect, and reach nobody (laws 2 and 3)."""

from collections.abc import Iterator
from threading import Event

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from authz.config import Config
from support.fakes.properties import brief
from support.peers.upstream import Seen
from support.proxy.edge import managers
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

GRAPH = "graph.microsoft.com"
DOCUMENTED = {
    "x-envoy-attempt-count": "7",
    "x-envoy-decorator-operation": "other",
    "x-envoy-downstream-service-cluster": "other",
    "x-envoy-downstream-service-node": "other",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-external-address": "10.0.0.1",
    "x-envoy-force-trace": "true",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-internal": "true",
    "x-envoy-ip-tags": "trusted",
    "x-envoy-is-timeout-retry": "true",
    "x-envoy-max-retries": "3",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-original-host": "other.example",
    "x-envoy-original-method": "DELETE",
    "x-envoy-original-path": "/admin",
    "x-envoy-peer-metadata": "other",
    "x-envoy-peer-metadata-id": "other",
    "x-envoy-retriable-header-names": "x-retry",
    "x-envoy-retriable-status-codes": "200",
    "x-envoy-retry-grpc-on": "unavailable",
    "x-envoy-retry-on": "5xx,reset,connect-failure,retriable-status-codes",
    "x-envoy-upstream-alt-stat-name": "other",
    "x-envoy-upstream-canary": "true",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-upstream-rq-timeout-alt-response": "1",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-stream-duration-ms": "1",
}
"""What Envoy's documentation has, each with a value that would show if it counted."""
ADDRESSES = ("10.0.0.1", "127.0.0.1", "192.168.1.1", "172.16.0.1", "fd00::1", "::1", "169.254.0.1")
FORWARDED = st.lists(st.sampled_from([*ADDRESSES, "8.8.8.8", "unknown", ""]), max_size=4)


@pytest.fixture
def slow(sidecar: Sidecar, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A sidecar whose app and destination take longer to answer than a caller's headers would let them."""
    pause = Event()

    def wait(_: Seen) -> None:
        pause.wait(0.2)

    servers = (sidecar.app, sidecar.destinations[GRAPH])
    for server in servers:
        server.before_answer = wait
    yield sidecar
    pause.set()
    for server in servers:
        server.before_answer = lambda _: None


def called(sidecar: Sidecar, headers: dict[str, str]) -> dict[str, httpx.Response]:
    """Send the same request in both directions."""
    return {
        "inbound": sidecar.caller.get("/chat", headers=headers),
        "health": sidecar.caller.get("/healthz", headers=headers),
        "egress": sidecar.agent.get(f"http://{GRAPH}/", headers=headers),
    }


def arrived(sidecar: Sidecar) -> list[str]:
    """The names of Envoy's own headers that reached anybody."""
    servers = (sidecar.app, *sidecar.destinations.values())
    return [
        name
        for server in servers
        for seen in server.received
        for name, _ in seen.headers
        if name.startswith("x-envoy-")
    ]


@pytest.mark.parametrize("forwarded", [None, *ADDRESSES])
def test_none_of_them_counts_or_arrives(slow: Sidecar, forwarded: str | None) -> None:
    """All at once, from wherever a caller says it is: no timeout, no second try, no forged answer."""
    headers = DOCUMENTED | ({"x-forwarded-for": forwarded} if forwarded else {})

    answers = called(slow, headers)

    assert {"inbound": 200, "health": 200, "egress": 200} == {
        where: answer.status_code for where, answer in answers.items()
    }
    assert (2, 1) == (len(slow.app.received), len(slow.destinations[GRAPH].received))
    assert [] == arrived(slow)


@given(
    name=st.sampled_from(sorted(DOCUMENTED)) | st.from_regex(r"\Ax-envoy-[a-z0-9-]{0,12}\Z"),
    value=st.sampled_from(["1", "true", "10.0.0.1", "/", "5xx"]),
    upper=st.booleans(),
    forwarded=FORWARDED,
    lines=st.booleans(),
)
@brief
def test_no_header_of_that_prefix_arrives(
    running: Sidecar,
    service: ExtAuthzServer,
    name: str,
    value: str,
    upper: bool,
    forwarded: list[str],
    lines: bool,
) -> None:
    """Whatever follows it, however it is written, and whatever a caller says of where it is."""
    service.answer = lambda _: allow()
    running.forget()
    said = (
        [("x-forwarded-for", one) for one in forwarded]
        if lines
        else [("x-forwarded-for", ",".join(forwarded))]
    )
    headers = [(name.upper() if upper else name, value), *said]

    inbound = running.caller.get("/chat", headers=headers)
    egress = running.agent.get(f"http://{GRAPH}/", headers=headers)

    assert (200, 200) == (inbound.status_code, egress.status_code)
    assert [] == arrived(running)


class Trusting(Sidecar):
    """An Envoy that takes private addresses for those of its own, as those before 1.33 do by themselves."""

    def bootstrap(self) -> str:
        """Return the rendered configuration with the setting."""
        document = yaml.safe_load(super().bootstrap())
        for manager in managers(document):
            manager["internal_address_config"] = {}
            # Else nothing of what follows would be seen.
            manager.pop("early_header_mutation_extensions", None)
        return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def trusting(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A running one."""
    with Trusting(
        example, authz_address=service.address, authority=authority, certificates={GRAPH: (GRAPH,)}
    ) as sidecar:
        yield sidecar


@pytest.mark.parametrize("forwarded", ADDRESSES)
def test_no_caller_is_believed_where_it_comes_from(
    trusting: Sidecar, service: ExtAuthzServer, forwarded: str
) -> None:
    """No address of `x-forwarded-for` counts, whichever Envoy trusts; it is passed on as it came."""
    service.answer = lambda _: allow()
    trusting.forget()
    headers = {"x-forwarded-for": forwarded, "x-envoy-force-trace": "1"}

    trusting.caller.get("/chat", headers=headers)

    (seen,) = trusting.app.received
    assert [forwarded] == seen.values("x-forwarded-for")
    # Envoy says the one and lets the other pass for callers of its own only.
    assert ([], []) == (seen.values("x-envoy-internal"), seen.values("x-envoy-force-trace"))
