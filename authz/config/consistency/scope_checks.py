"""What the scopes of egress routes must keep to: one resource, and `/.default` without a user."""

import re
from collections.abc import Iterator
from typing import Final

from authz.config.faults import Fault
from authz.config.sections.routes import Egress
from authz.config.shown import cut, shown
from authz.core.exchange import Flow
from authz.core.scopes import default_of, fits_app_token, is_default, resource_of

_RESERVED_SCOPES: Final = frozenset({"openid", "profile", "offline_access"})
_IS_RESOURCE: Final = re.compile("(?:api|https)://[^/]+/?")


def check_scopes(path: str, route: Egress, *, may_lack: bool) -> Iterator[Fault]:
    """Return the faults of an egress route's scopes.

    Args:
        path: The route's.
        route: The route.
        may_lack: Whether callers may name scopes in place of it.
    """
    path = f"{path}.scopes"
    scopes = route.scopes
    if route.flow is Flow.NONE:
        if scopes:
            yield Fault(path, "does not go with flow none, which gives no token")
        return
    if not scopes:
        for_checks = bool(route.hosts) or route.push or route.subject is not None
        if for_checks or not may_lack:
            yield Fault(path, f"is missing: flow {route.flow} needs at least one scope")
        return
    for index, scope in enumerate(scopes):
        yield from _check_scope(f"{path}.{index}", scope)
    resources = sorted({resource_of(scope) for scope in scopes})
    if len(resources) > 1:
        yield Fault(
            path, f"found scopes of {' and '.join(map(cut, resources))}: expected one resource"
        )
    defaults = [scope for scope in scopes if is_default(scope)]
    if route.flow.is_app_only and not fits_app_token(scopes):
        yield Fault(
            path,
            f"found {len(scopes)} ({', '.join(map(cut, scopes))}): flow {route.flow} takes exactly one "
            "scope, which ends in /.default",
        )
    elif defaults and len(scopes) > 1:
        yield Fault(
            path, f"found {shown(defaults[0])} beside others: expected it alone, or the others"
        )


def _check_scope(path: str, scope: str) -> Iterator[Fault]:
    if scope.lower() in _RESERVED_SCOPES:
        yield Fault(path, f"found {shown(scope)}, which is added where it is needed")
    elif _IS_RESOURCE.fullmatch(scope):
        whole = default_of(scope)
        yield Fault(
            path,
            f"found {shown(scope)}, a resource without a permission: expected {shown(whole)}, or the name of "
            "one permission in place of .default",
        )
