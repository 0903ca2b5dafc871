"""An Envoy that somebody set to let requests pass when the service fails: our denials hold all the same."""

from collections.abc import Iterator

import pytest
import yaml
from envoy_data_plane.envoy.service.auth import v3 as auth

from authz._pb.external_auth_pb2 import CheckResponse
from authz.config import Config
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.doors.envoy.ext_authz import encode
from support.fakes.records import record_of
from support.proxy.ext_authz_server import ExtAuthzServer
from support.proxy.sidecar import Authority, Sidecar

GRAPH = "graph.microsoft.com"
FILTER = "envoy.filters.http.ext_authz"


class Careless(Sidecar):
    """A sidecar with `failure_mode_allow`, which what we ship never sets."""

    def bootstrap(self) -> str:
        """Return the rendered configuration with the careless setting."""
        document = yaml.safe_load(super().bootstrap())
        for listener in document["static_resources"]["listeners"]:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            for entry in manager["http_filters"]:
                if entry["name"] == FILTER:
                    entry["typed_config"]["failure_mode_allow"] = True
        return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def careless(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A careless sidecar in front of the scripted service."""
    with Careless(
        example, authz_address=service.address, authority=authority, certificates={GRAPH: (GRAPH,)}
    ) as sidecar:
        yield sidecar


@pytest.mark.parametrize("reason", Reason)
def test_no_denial_is_taken_for_a_failure(
    careless: Sidecar, service: ExtAuthzServer, reason: Reason
) -> None:
    """Law 4: `error_response` would have let the request go on, with the user's token."""
    record = record_of(Deny(reason))
    service.answer = lambda _: encode(record)
    careless.forget()

    answer = careless.agent.get(
        f"http://{GRAPH}/v1.0/me", headers={"authorization": "Bearer user-token"}
    )

    assert reason.value == answer.json()["reason"]
    assert [] == careless.destinations[GRAPH].received


def test_what_we_never_send_would_have_been_let_through(
    careless: Sidecar, service: ExtAuthzServer
) -> None:
    """The control of the test above: the switch is on, and `error_response` is what it is about."""
    refused = encode(record_of(Deny(Reason.EXCHANGE_UNAVAILABLE)))
    full = auth.CheckResponse.parse(refused.SerializeToString())
    failed = auth.CheckResponse(status=full.status, error_response=full.denied_response)
    service.answer = lambda _: CheckResponse.FromString(bytes(failed))
    careless.forget()

    careless.agent.get(f"http://{GRAPH}/v1.0/me", headers={"authorization": "Bearer user-token"})

    (request,) = careless.destinations[GRAPH].received
    assert ["Bearer user-token"] == request.values("authorization")
