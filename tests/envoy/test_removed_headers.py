"""Headers that a route takes off: on each path to a destination, and never one that a law rests on."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from authz.config import ConfigError
from authz.config.reading.document import parse
from support.programs.stack import Process, World
from support.proxy.sidecar import Authority, Sidecar

REMOVED = ["Api_Key", "x-api-key", "cookie", "key!#$%&'*+.^|~`9"]
"""One with an underscore, and one with each other letter that a name may have (RFC 9110 section 5.6.2)."""
HOSTS = {"graph": "graph.microsoft.com", "orders": "orders.example", "plain": "plain.example"}
SPELLINGS = ("api-key", "API_KEY", "X-API-Key", "x_api_key", "x-api_key", "X_Api-Key", "Cookie")
SENT = {**dict.fromkeys((*SPELLINGS, REMOVED[-1]), "of the agent"), "x-other": "stays"}


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


class Pod(NamedTuple):
    """A service and its Envoy."""

    process: Process
    sidecar: Sidecar

    def checks(self, route: str) -> int:
        """Return how many Checks the service allowed on an egress route."""
        labels = f'decision="allow",direction="egress",reason="none",route="{route}"'
        found = re.search(
            rf"^authz_checks_total{{{labels}}} (\d+)",
            self.process.admin("/metrics").text,
            re.MULTILINE,
        )
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def pod(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A running one. Each test calls a route of its own."""
    tmp_path = tmp_path_factory.mktemp("pod")
    found = document(shared_world, REMOVED)
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
            yield Pod(process, sidecar)


@pytest.mark.parametrize("route", HOSTS)
def test_what_is_removed_never_arrives(pod: Pod, shared_world: World, route: str) -> None:
    """In each spelling: by a Check, by Envoy's edge cache which repeats it, where Envoy holds the token."""
    host = HOSTS[route]
    headers = {**SENT, "authorization": f"Bearer {shared_world.token()}"}
    for _ in range(3):
        assert 200 == pod.sidecar.agent.get(f"http://{host}/", headers=headers).status_code

    received = pod.sidecar.destinations[host].received
    assert 3 == len(received)
    for seen in received:
        assert [] == [name for name, value in seen.headers if value == "of the agent"]
        assert ["stays"] == seen.values("x-other")
        assert ([] if route == "plain" else 1) == (seen.values("authorization") and 1)
    assert (0 if route == "orders" else 1) == pod.checks(route)


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
        "X_Authz_Subject",
        "content_length",
    ],
)
def test_a_header_that_a_law_rests_on_cannot_be_removed(world: World, name: str) -> None:
    """In Envoy removal wins, so the agent's token would be gone; or the request would not be one."""
    with pytest.raises(ConfigError, match=r"egress\.graph\.remove_headers\.0"):
        parse(json.dumps(document(world, [name])), {})


def test_names_with_very_many_spellings_are_refused(world: World) -> None:
    """Each hyphen doubles them, and Envoy takes names off one by one."""
    with pytest.raises(ConfigError, match=r"remove_headers\.0.*at most 64 spellings"):
        parse(json.dumps(document(world, ["a-b-c-d-e-f-g-h"])), {})
    with pytest.raises(ConfigError, match=r"found 2 names with 65 spellings, .*: expected 64"):
        parse(json.dumps(document(world, ["a-b-c-d-e-f-g", "cookie"])), {})
    assert parse(json.dumps(document(world, ["a-b-c-d-e-f-g", "A_b_c-d-e-f-g"])), {}).egress
