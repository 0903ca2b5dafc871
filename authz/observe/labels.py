"""Values of metrics' labels. All come from closed sets: never a user, a token or a host."""

from typing import Final, assert_never

from authz.core.errors import AuthzError
from authz.core.request import Direction
from authz.core.route import EgressRoute, InboundRoute, Route

NONE: Final = "none"
"""Label value where there is nothing to say: a route that was not found, the reason of no denial."""
OTHER: Final = "other"


def ending(outcome: int | AuthzError) -> str:
    """Return how a call to an API ended: the class of its status, or the reason why there is none."""
    return outcome.reason.value if isinstance(outcome, AuthzError) else f"{outcome // 100}xx"


def check_labels(route: Route | None, decision: str, reason: str) -> tuple[str, str, str, str]:
    """Return direction, route, decision and reason."""
    match route:
        case InboundRoute():
            return Direction.INBOUND.value, route.name, decision, reason
        case EgressRoute():
            return Direction.EGRESS.value, route.name, decision, reason
        case None:
            return NONE, NONE, decision, reason
        case _ as unreachable:
            assert_never(unreachable)
