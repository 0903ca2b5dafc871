"""No spelling of a host goes around the Check, or takes what belongs to another host (laws 3 and 4)."""

from collections.abc import Iterator

import pytest
from hypothesis import given

from authz.config import Config
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.doors.envoy.ext_authz import encode
from support.fakes.properties import brief
from support.fakes.records import record_of
from support.peers.http2_peer import http2_call
from support.proxy.edge import Eager
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.proxy.host_spellings import fixed, send, spellings
from support.proxy.sidecar import Authority, Sidecar

GRAPH = "graph.microsoft.com"
INVENTORY = "inventory.internal:8443"
DENIED = encode(record_of(Deny(Reason.UNKNOWN_ROUTE)))


@pytest.fixture(scope="module")
def eager(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A running one."""
    certificates = {GRAPH: (GRAPH,), INVENTORY: ("inventory.internal",)}
    with Eager(
        example, authz_address=service.address, authority=authority, certificates=certificates
    ) as sidecar:
        yield sidecar


@given(written=spellings(GRAPH))
@brief
def test_what_is_denied_reaches_no_destination(
    eager: Sidecar, service: ExtAuthzServer, written: str
) -> None:
    """Whatever leads to a host with a Check was asked about."""
    service.answer = lambda _: DENIED
    eager.forget()

    send(eager.egress_port, GRAPH, written)

    assert [] == eager.destinations[GRAPH].received


@given(written=spellings(INVENTORY))
@brief
def test_a_host_with_a_pushed_token_gets_no_other(
    eager: Sidecar, service: ExtAuthzServer, written: str
) -> None:
    """There nobody is asked, so whatever arrives there has the route's own token."""
    service.answer = lambda _: DENIED
    eager.forget()

    send(eager.egress_port, INVENTORY, written)

    received = eager.destinations[INVENTORY].received
    assert [PUSHED] * len(received) == [
        value for seen in received for value in seen.values("authorization")
    ]


@pytest.mark.parametrize("host", [GRAPH, INVENTORY])
def test_some_spellings_arrive(eager: Sidecar, service: ExtAuthzServer, host: str) -> None:
    """Else the tests above could not fail."""
    service.answer = lambda _: allow(headers={"authorization": "Bearer agent-token"})
    eager.forget()

    for written in fixed(host):
        http2_call(eager.egress_port, written)

    assert 3 <= len(eager.destinations[host].received)
