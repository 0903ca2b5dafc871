"""`PushedScene`: pushed tokens over a fake Entra, whose time a test moves."""

from dataclasses import replace
from typing import Any, Final

from authz.core.exchange import Flow
from authz.core.grant import NoToken
from authz.core.moment import Moment
from authz.core.policy import Policy
from authz.core.route import EgressRoute
from authz.tokens.pushing import PushedTokens
from support.fakes.clock import AlarmClock
from support.fakes.routes import regranted, route_of, target_of
from support.fakes.scene import Scene

LIFETIME: Final = 3600.0
REFRESH: Final = 1800.0
MARGIN: Final = 60.0


def route(name: str = "api", **changes: Any) -> EgressRoute:
    """Return a route of the agent itself, pushed."""
    mine = {key: changes.pop(key) for key in ("workloads", "peer_source") if key in changes}
    push, flow = changes.pop("push", True), changes.pop("flow", Flow.AUTONOMOUS)
    if flow is Flow.NONE or flow.is_delegated:
        return route_of(name, flow, own=mine, **changes)
    return route_of(name, flow, own=mine, push=push, **changes)


def policy(*routes: EgressRoute, version: str = "v1") -> Policy:
    """Return a policy with these routes, each asking under its version."""
    egress = {}
    for one in routes:
        same = isinstance(one.grant, NoToken)
        egress[one.name] = (
            one if same else regranted(one, target=replace(target_of(one), policy_version=version))
        )
    return Policy(version=version, egress=egress)


class PushedScene(Scene):
    """A scene with pushed tokens, whose time a test moves."""

    def __init__(self, *routes: EgressRoute, behind: float = 0.0) -> None:
        self.alarm = AlarmClock()
        super().__init__(clock=self.alarm)
        self.entra.lifetime, self.entra.refresh_after = LIFETIME, REFRESH
        self.pushed = PushedTokens(
            policy(*(routes or (route(),))),
            self.tokens,
            clock=self.alarm,
            timer=lambda: self.alarm.timer() - behind,
            margin=MARGIN,
            wait=lambda end: self.alarm.wait(Moment(end.wall, end.steady + behind)),
            jitter=lambda: 1.0,
        )

    async def swap(self, *routes: EgressRoute, version: str = "v2") -> None:
        """Apply another configuration."""
        self.pushed.swap(policy(*routes, version=version), self.tokens)
        await self.alarm.forward()
