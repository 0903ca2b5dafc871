"""Headers that a route takes off: on each path to a destination, and never one that a law rests on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.config import ConfigError
from authz.config.document import parse
from support.sidecar import Authority, Sidecar
from support.stack import Process, World

REMOVED = ["Api-Key", "x-api-key", "cookie"]
HOSTS = {"graph": "graph.microsoft.com", "orders": "orders.example", "plain": "plain.example"}
SENT = {"api-key": "of the agent", "X-API-Key": "of the agent", "Cookie": "a=b", "x-other": "stays"}


def document(world: World, removed: list[str]) -> dict[str, Any]:
    """A route that is checked and repeated at the edge, one that is pushed, and one without a token."""
    found = world.config()
    routes = found["egress"]
    chosen = {"graph": routes["graph"], "orders": routes["autonomous"], "plain": routes["plain"]}
    found["egress"] = {
        name: {**route, "hosts": [HOSTS[name]], "remove_headers": removed}
        for name, route in chosen.items()
    }
    return found


@pytest.fixture
def pod(world: World, tmp_path: Path) -> Iterator[Sidecar]:
    """A service and its Envoy."""
    found = document(world, REMOVED)
    file = tmp_path / "authz.yaml"
    file.write_text(json.dumps(found))
    with Process("serve", "--config", str(file)) as process:
        # Envoy opens its door without a pushed token when the service is not there in time.
        process.wait_ready()
        with Sidecar(
            parse(file.read_text(), {}),
            authz_address=found["listen"]["grpc"],
            authority=Authority.create(tmp_path),
            certificates={host: (host,) for host in HOSTS.values()},
        ) as sidecar:
            yield sidecar


@pytest.mark.parametrize("route", HOSTS)
def test_what_is_removed_never_arrives(pod: Sidecar, world: World, route: str) -> None:
    """By a Check, by Envoy's edge cache which repeats it, and where Envoy holds the token."""
    host = HOSTS[route]
    for _ in range(3):
        headers = {**SENT, "authorization": f"Bearer {world.token()}"}
        assert 200 == pod.agent.get(f"http://{host}/", headers=headers).status_code

    received = pod.destinations[host].received
    assert 3 == len(received)
    for seen in received:
        names = {name.lower() for name, _ in seen.headers}
        assert set() == names & {name.lower() for name in REMOVED}
        assert ["stays"] == seen.values("x-other")
        assert ([] if route == "plain" else 1) == (seen.values("authorization") and 1)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "baggage",
        "x-authz-subject",
        "host",
        ":path",
        "content-length",
        "te",
        "x-envoy-y",
    ],
)
def test_a_header_that_a_law_rests_on_cannot_be_removed(world: World, name: str) -> None:
    """In Envoy removal wins, so the agent's token would be gone; or the request would not be one."""
    with pytest.raises(ConfigError, match=r"egress\.graph\.remove_headers\.0"):
        parse(json.dumps(document(world, [name])), {})
