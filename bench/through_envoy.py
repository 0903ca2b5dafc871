"""The rows through Envoy: alone, with a pushed token, with its own cache, with a Check for each request."""

import http.client
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from authz_dev.demo.processes import StartFailure
from bench import documents
from bench.bootstraps import Bootstrap
from bench.documents import (
    APP_ONLY,
    APP_ONLY_HOST,
    DELEGATED,
    DELEGATED_HOST,
    RULED,
    RULED_HOST,
)
from bench.envoys import Envoy
from bench.load import LoadError, Target
from bench.programs import Measured, until, wait
from bench.rows import Lane
from bench.scene import Scene
from bench.upstream import GUARDED

RATIOS: Final[Mapping[str, tuple[str, str]]] = {
    "pushed_vs_envoy": ("pushed", "envoy"),
    "edge_vs_envoy": ("edge_hit", "envoy"),
    "edge_rules_vs_envoy": ("edge_rules", "envoy"),
    "check_vs_envoy": ("check_hit", "envoy"),
    "floor_vs_envoy": ("floor", "envoy"),
    "check_vs_floor": ("check_hit", "floor"),
    "check_vs_grpc_aio": ("check_door", "floor"),
    "pushed_vs_envoy_upstream": ("pushed_upstream", "envoy_upstream"),
    "edge_vs_envoy_upstream": ("edge_upstream", "envoy_upstream"),
    "check_vs_envoy_upstream": ("check_upstream", "envoy_upstream"),
    "pushed_vs_envoy_fast_upstream": ("pushed_fast_upstream", "envoy_fast_upstream"),
    "edge_vs_envoy_fast_upstream": ("edge_fast_upstream", "envoy_fast_upstream"),
}

_OK: Final = 200
_HOSTS: Final = {DELEGATED: DELEGATED_HOST, RULED: RULED_HOST, APP_ONLY: APP_ONLY_HOST}


class UpstreamServer(Enum):
    """What stands behind Envoy."""

    UVICORN = "uvicorn"
    """As APIs in Python are: slower than Envoy."""
    ENVOY = "envoy"
    """Faster than an Envoy that proxies."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way through Envoy.

    Attributes:
        name: Name of the row.
        route: Egress route that the request takes.
        checks: Checks that each request should cost.
        alone: Whether Envoy is without our filters.
        edge: Whether Envoy may repeat decisions by itself.
        upstream: Which upstream server answers; None where the route answers by itself.
        address: Where the Checks go, if not to the service.
        door: Whether they go to the service's Check door.
        change: What else is changed of Envoy's configuration.
    """

    name: str
    route: str
    checks: int
    alone: bool = False
    edge: bool = True
    upstream: UpstreamServer | None = None
    address: str | None = None
    door: bool = False
    change: Callable[[Bootstrap], None] | None = None


WAYS: Final = (
    Way("envoy", DELEGATED, checks=0, alone=True),
    Way("pushed", APP_ONLY, checks=0),
    Way("edge_hit", DELEGATED, checks=0),
    Way("edge_rules", RULED, checks=0),
    Way("check_hit", DELEGATED, checks=1, edge=False),
    Way("check_door", DELEGATED, checks=1, edge=False, door=True),
    Way("envoy_upstream", DELEGATED, checks=0, alone=True, upstream=UpstreamServer.UVICORN),
    Way("pushed_upstream", APP_ONLY, checks=0, upstream=UpstreamServer.UVICORN),
    Way("edge_upstream", DELEGATED, checks=0, upstream=UpstreamServer.UVICORN),
    Way("check_upstream", DELEGATED, checks=1, edge=False, upstream=UpstreamServer.UVICORN),
    Way("envoy_fast_upstream", DELEGATED, checks=0, alone=True, upstream=UpstreamServer.ENVOY),
    Way("pushed_fast_upstream", APP_ONLY, checks=0, upstream=UpstreamServer.ENVOY),
    Way("edge_fast_upstream", DELEGATED, checks=0, upstream=UpstreamServer.ENVOY),
)


def floor(scene: Scene) -> Way:
    """Return the way of `check_hit`, to the server that does nothing."""
    return asking("floor", f"unix:{scene.floor_socket}")


def asking(name: str, address: str) -> Way:
    """Return the way of `check_hit`, to any ext_authz server."""
    return Way(name, DELEGATED, checks=1, edge=False, address=address)


def lanes(scene: Scene, ways: Iterable[Way]) -> list[Lane]:
    """Start an Envoy for each way, and return what to measure.

    Raises:
        LoadError: An Envoy does not let the request through.
    """
    ways = tuple(ways)
    envoys = [scene.envoy(way.name, _bootstrap(scene, way).text) for way in ways]
    wait(envoys)
    return [_lane(scene, way, envoy) for way, envoy in zip(ways, envoys, strict=True)]


def _bootstrap(scene: Scene, way: Way) -> Bootstrap:
    more: dict[str, Any] = {} if way.edge else {"cache": {"edge": {"max_ttl": 0}}}
    if way.door:
        more["listen"] = scene.listen
    config = documents.of_envoy(scene.config, ruled=way.route == RULED, **more)
    is_fast = way.upstream is UpstreamServer.ENVOY
    bootstrap = Bootstrap(
        json.dumps(config),
        authz_address=way.address,
        upstream=scene.fast_upstream if is_fast else scene.upstream,
    )
    if way.alone:
        bootstrap.without_us()
    if way.upstream is None:
        bootstrap.answer_directly(_HOSTS[way.route])
    if way.change is not None:
        way.change(bootstrap)
    return bootstrap


def _lane(scene: Scene, way: Way, envoy: Envoy) -> Lane:
    # The upstream server looks at each token, but must not expect one from an Envoy without us.
    where = "/any" if way.alone else GUARDED
    target = Target(
        f"{envoy.url()}{where}",
        {
            ":authority": _HOSTS[way.route],
            "authorization": f"Bearer {scene.user_token}",
            "user-agent": "agent/1.0",
        },
    )
    _wait_for_answer(way.name, target)
    return Lane(way.name, target, envoy, _server(scene, way), way.checks)


def _server(scene: Scene, way: Way) -> Measured | None:
    if way.alone:
        return None
    if way.address is None:
        return scene.service
    return scene.floor if way.name == "floor" else None


def _wait_for_answer(name: str, target: Target) -> None:
    """Send the request until it is let through: a token may still be on its way to Envoy."""
    last = ""

    def answered() -> bool:
        nonlocal last
        try:
            status, body = _ask(target)
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
            return False
        last = f"{status} {body[:300].decode(errors='replace')}"
        return status == _OK

    try:
        until(answered, name, seconds=10)
    except StartFailure as error:
        raise LoadError(f"{name}: the request was answered with {last}") from error


def _ask(target: Target) -> tuple[int, bytes]:
    url = urlsplit(target.url)
    headers = {"host" if name == ":authority" else name: v for name, v in target.headers.items()}
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    try:
        connection.request("GET", url.path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
