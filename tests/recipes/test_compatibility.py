"""Unmodified clients through Envoy in both directions: the rows of docs/compatibility.md."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from recipes.a2a_trial import Conversation, talking
from recipes.compatibility import A2A_CLIENTS, CLIENTS, RPC_CLIENTS, Client
from recipes.trial import Trial, running
from support.programs.stack import claims
from support.proxy.envoy import EnvoyProcess
from support.proxy.sidecar import Authority

ANSWERING: Final = """\
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: inbound
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""
"""An Envoy without authz, agent or API."""


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    """Envoy, `authz serve` and an emulated Entra, between an agent and an API."""
    with (
        tempfile.TemporaryDirectory(prefix="authz-") as folder,
        running(Authority.create(Path(folder))) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def conversation() -> Iterator[Conversation]:
    """The same between an agent of the A2A SDK and its clients."""
    with (
        tempfile.TemporaryDirectory(prefix="authz-") as folder,
        talking(Authority.create(Path(folder))) as found,
    ):
        yield found


def rows(clients: tuple[Client, ...]) -> list[object]:
    """Return the parameters of a test for each client in each direction."""
    return [
        pytest.param(
            client,
            direction,
            marks=getattr(pytest.mark, client.needs.value),
            id=f"{client.name}-{direction}",
        )
        for client in clients
        for direction in client.http
    ]


@pytest.mark.parametrize(("client", "direction"), rows(CLIENTS))
def test_what_an_ordinary_client_sends_is_served(
    trial: Trial, client: Client, direction: str
) -> None:
    """With the user's token all that the client does works, for that user; without it nothing arrives."""
    before = trial.connections(direction)

    printed, arrived = trial.run(client, direction)

    assert client.was_tried_in(printed.pop("version"))
    assert trial.expected(client, direction) == printed
    own = client.own and direction == "egress"
    decided = [seen for seen in arrived if seen.path != "/healthz"]
    assert {"the agent" if own else "alice"} == {trial.whose(seen, direction) for seen in decided}
    underscore = [["x"]] if direction == "egress" else [[]]
    assert underscore == [
        seen.values("client_id") for seen in arrived if seen.path == "/underscore"
    ]
    after = trial.connections(direction)
    opened = {version: after[version] - before[version] for version in after}
    (spoken,) = [version for version, number in opened.items() if number]
    assert client.http[direction].startswith(f"HTTP/{spoken}")
    assert ("kept" in client.without) == (opened[spoken] >= len(decided))


@pytest.mark.parametrize(("client", "direction"), rows(RPC_CLIENTS))
def test_every_kind_of_grpc_call_is_served(trial: Trial, client: Client, direction: str) -> None:
    """To an agent that speaks gRPC, and from it to an API that gets the agent's token."""
    printed, arrived = trial.run_rpc(client, direction)

    assert client.was_tried_in(printed.pop("version"))
    expected = {
        "denied": "UNAUTHENTICATED",
        "unary": "HELLO",
        "collect": "ab",
        "tell": ["x0", "x1", "x2"],
        "talk": ["A", "B"],
    }
    assert expected == printed
    assert ["alice"] * 4 == [trial.whose(seen, direction) for seen in arrived]


@pytest.mark.parametrize(("client", "direction"), rows(A2A_CLIENTS))
def test_agents_of_the_a2a_sdk_talk(
    conversation: Conversation, client: Client, direction: str
) -> None:
    """The agent behind Envoy learns who calls; the one that is called gets an agent token for the user."""
    printed = conversation.run(client, direction)

    assert client.was_tried_in(printed["version"])
    denied = "UNAUTHENTICATED" if "GRPC" in client.name else "401"
    assert denied in printed["denied"]
    assert ("first", "first") == (printed["whole"], printed["stream"])
    user = conversation.world.users["alice"]["object_id"]
    seen = printed["seen"]
    if direction == "inbound":
        assert user == seen["x-authz-subject"]
    else:
        token = claims(seen["authorization"].removeprefix("Bearer "))
        agent = conversation.world.agent["client_id"]
        assert (agent, user) == (token["appid"], token["oid"])


@pytest.mark.system
def test_curl_uses_no_connection_of_http2_twice_without_authz_either(tmp_path: Path) -> None:
    """What its row says is not possible is no fault of ours: here Envoy answers all by itself."""
    if shutil.which("curl") is None:
        pytest.skip("needs the program curl")
    with EnvoyProcess(ANSWERING) as envoy:
        url = f"http://127.0.0.1:{envoy.port('inbound')}/"
        statuses = {
            option: subprocess.run(
                ["curl", "--silent", option, "--write-out", "%{http_code} ", url, url],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            ).stdout
            for option in ("--http2-prior-knowledge", "--http1.1")
        }

    assert {"--http2-prior-knowledge": "200 000 ", "--http1.1": "200 200 "} == statuses
