"""No spelling of a host goes around the Check, or takes what belongs to another host (laws 3 and 4)."""

from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given

from authz.config import Config
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.request import CheckRequest
from authz.envoy.ext_authz import encode
from authz.ports import CheckRecord
from support.edge import first_line, managers
from support.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.host_spellings import fixed, requests, spellings
from support.http2_peer import http2_call
from support.properties import brief
from support.sidecar import Authority, Sidecar

GRAPH = "graph.microsoft.com"
INVENTORY = "inventory.internal:8443"
USER = "authorization: Bearer user-token\r\n"
DENIED = encode(
    CheckRecord(request=CheckRequest(), started=0.0, decision=Deny(Reason.UNKNOWN_ROUTE))
)


class Eager(Sidecar):
    """A sidecar that closes a connection with nonsense at once; Envoy waits for a second by itself."""

    def bootstrap(self) -> str:
        """Return the rendered configuration with that setting."""
        document = yaml.safe_load(super().bootstrap())
        for manager in managers(document):
            manager["delayed_close_timeout"] = "0.02s"
        return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def eager(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A running one."""
    certificates = {GRAPH: (GRAPH,), INVENTORY: ("inventory.internal",)}
    with Eager(
        example, authz_address=service.address, authority=authority, certificates=certificates
    ) as sidecar:
        yield sidecar


def send(sidecar: Sidecar, host: str, written: str) -> None:
    """Send a host as it is written, in every place where it can stand, by HTTP/1.1 and HTTP/2."""
    for request in requests(host, written, USER):
        first_line(sidecar.egress_port, request)
    token = ("authorization", "Bearer user-token")
    http2_call(sidecar.egress_port, written, headers=[token])
    http2_call(sidecar.egress_port, host, headers=[token, ("host", written)])
    http2_call(sidecar.egress_port, "elsewhere.example", headers=[token, ("host", written)])


@given(written=spellings(GRAPH))
@brief
def test_what_is_denied_reaches_no_destination(
    eager: Sidecar, service: ExtAuthzServer, written: str
) -> None:
    """Whatever leads to a host with a Check was asked about."""
    service.answer = lambda _: DENIED
    eager.forget()

    send(eager, GRAPH, written)

    assert [] == eager.destinations[GRAPH].received


@given(written=spellings(INVENTORY))
@brief
def test_a_host_with_a_pushed_token_gets_no_other(
    eager: Sidecar, service: ExtAuthzServer, written: str
) -> None:
    """There nobody is asked, so whatever arrives there has the route's own token."""
    service.answer = lambda _: DENIED
    eager.forget()

    send(eager, INVENTORY, written)

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
