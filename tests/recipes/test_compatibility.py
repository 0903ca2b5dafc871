"""Unmodified clients through Envoy in both directions: the rows of docs/compatibility.md."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.compatibility import CLIENTS, RPC_CLIENTS, Client
from recipes.trial import Trial, running
from support.sidecar import Authority


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    """Envoy, `authz serve` and an emulated Entra, between an agent and an API."""
    with (
        tempfile.TemporaryDirectory(prefix="authz-") as folder,
        running(Authority.create(Path(folder))) as found,
    ):
        yield found


def rows(clients: tuple[Client, ...]) -> list[object]:
    """Return the parameters of a test for each client in each direction."""
    return [
        pytest.param(
            client,
            direction,
            marks=getattr(pytest.mark, client.needs),
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
