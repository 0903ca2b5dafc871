"""Connections that the app asks its proxy for (CONNECT): the service decides on them by route alone."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.grant import NoToken
from authz.core.record import CheckRecord
from authz.core.request import CONNECT, Direction
from authz.core.route import EgressRoute
from support.fakes.scene import EGRESS_FLOWS, INBOUND, Scene

OPEN: Final = EgressRoute("open", ("*",), NoToken(tunnel=True))
WEATHER: Final = EgressRoute("weather", ("weather.example",), NoToken(tunnel=True))
LEGACY: Final = EgressRoute("legacy", ("legacy.example",), NoToken())


@pytest.fixture
def scene() -> Scene:
    """Return a scene with a route for each flow, one that allows tunnels, and one that is for any host."""
    scene = Scene()
    scene.configure(OPEN, WEATHER, LEGACY)
    return scene


async def connect(scene: Scene, route: str, host: str, **more: Any) -> CheckRecord:
    """Ask for a connection."""
    return await scene.egress(route, method=CONNECT, host=host, path="", **more)


def reason(record: CheckRecord) -> Reason:
    """Return why it was refused."""
    assert isinstance(record.decision, Deny)
    return record.decision.reason


async def test_a_connection_needs_a_route_that_allows_it(scene: Scene) -> None:
    """And nothing else: there is no token in it, and none is looked for."""
    record = await connect(scene, "weather", "weather.example:443")

    assert Allow(remove=("authorization", "baggage")) == record.decision
    assert (WEATHER, Direction.EGRESS) == (record.route, record.direction)
    assert [] == scene.entra.calls


@pytest.mark.parametrize("flow", EGRESS_FLOWS)
async def test_no_flow_has_a_tunnel_by_itself(scene: Scene, flow: Flow) -> None:
    """Not for a user either, whose token would have been exchanged for a plain request."""
    host = scene.egress_routes[flow.value].hosts[0]
    token = scene.tenant.user_token()

    record = await connect(scene, flow.value, f"{host}:443")
    with_token = await scene.egress(flow.value, token, method=CONNECT, host=f"{host}:443")

    assert [Reason.TUNNEL_REFUSED] * 2 == [reason(record), reason(with_token)]
    assert [] == scene.entra.calls


async def test_an_answer_to_a_request_is_none_to_a_connection(scene: Scene) -> None:
    """Both look the same in all that decides on requests, and neither is taken for the other."""
    requested = await scene.egress("legacy", host="legacy.example")
    connected = await connect(scene, "legacy", "legacy.example")
    again = await scene.egress("legacy", host="legacy.example")

    assert isinstance(requested.decision, Allow)
    assert Reason.TUNNEL_REFUSED == reason(connected)
    assert again.repeated
    await connect(scene, "weather", "weather.example")
    assert not (await scene.egress("weather", host="weather.example")).repeated


@pytest.mark.parametrize(
    "host",
    ["legacy.example:443", "LEGACY.example.:0443", "legacy.example:8443", "autonomous.example:443"],
)
async def test_a_route_for_any_host_is_no_way_around_a_hosts_own(scene: Scene, host: str) -> None:
    """Whatever spelling had Envoy take the other route."""
    record = await connect(scene, "open", host)
    assert Reason.TUNNEL_REFUSED == reason(record)
    own = "autonomous" if "autonomous" in host else "legacy"
    assert own == (record.route.name if record.route else None)
    assert isinstance((await connect(scene, "open", "elsewhere.example:443")).decision, Allow)
    assert isinstance((await connect(scene, "open", "weather.example:443")).decision, Allow)


async def test_a_route_without_hosts_is_found_by_its_name(scene: Scene) -> None:
    """Where Envoy is told its hosts when it is rendered."""
    scene.configure(replace(WEATHER, hosts=()))

    assert isinstance((await connect(scene, "weather", "weather.example:443")).decision, Allow)


async def test_an_unknown_host_is_an_unknown_route(scene: Scene) -> None:
    """As for any request: an operator has to add it."""
    scene.configure(WEATHER)
    record = await scene.check(
        scene.request("egress", "", None, method=CONNECT, host="evil.example:443", route=None)
    )

    assert Reason.UNKNOWN_ROUTE == reason(record)


async def test_nobody_connects_through_the_agent(scene: Scene) -> None:
    """An Envoy that asks about CONNECT on the way in is not one that was rendered here."""
    record = await scene.inbound(scene.tenant.user_token(), method=CONNECT)

    assert Reason.TUNNEL_REFUSED == reason(record)
    assert INBOUND == (record.route.name if record.route else None)
