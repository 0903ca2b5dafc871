"""What is passed on after a decision: to the app, who is calling and what stands for the token.

Pure, but not part of `authz.core`: headers are how Envoy speaks to an app, and no rule depends on them.
"""

from typing import Final
from urllib.parse import quote

from authz.core.baggage import Baggage, is_plain
from authz.core.decision import Allow
from authz.core.principal import Principal
from authz.core.request import Authorization, CheckRequest
from authz.core.route import Forward, InboundRoute
from authz.core.rules.overriding import OVERRIDING, SESSION
from authz.core.secret import Secret
from authz.core.subject import Reference, placeholder

AUTHORIZATION: Final = "authorization"
BAGGAGE: Final = "baggage"
IDENTITY_HEADERS: Final = (
    "x-authz-subject",
    "x-authz-subject-type",
    "x-authz-tenant",
    "x-authz-actor",
    "x-authz-actor-blueprint",
    "x-authz-scopes",
    "x-authz-roles",
)
_OVERRIDING: Final = tuple(sorted(OVERRIDING))
_VISIBLE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


def forwarded(
    request: CheckRequest, route: InboundRoute, principal: Principal, reference: Reference | None
) -> Allow:
    """Return what the app receives: who is calling, and what its route gives it for the token.

    Args:
        request: What the client sent.
        route: The inbound route.
        principal: The verified caller.
        reference: What stands for the token, on routes that give one.
    """
    headers = identity_headers(principal)
    # What is not set is removed, whether or not Envoy told us that the client sent it: an empty
    # value would leave it to Envoy what becomes of a forged one.
    named = {name for name, _ in headers}
    unset = dict.fromkeys((*IDENTITY_HEADERS, *request.own_headers))
    remove = tuple(name for name in unset if name not in named)
    # No client is a sidecar of ours, so a member of ours is forged.
    baggage = Baggage.parse(request.baggage).admitted()
    authorization, (carried, gone) = None, _admitted(request.baggage, baggage)
    if reference is not None and Forward.HANDLE in route.forward:
        carried, gone = baggage.with_own(reference.secret.reveal()), ()
    if reference is not None and Forward.PLACEHOLDER in route.forward:
        authorization = placeholder(reference.secret)
    elif Forward.BEARER not in route.forward:
        gone = (*gone, AUTHORIZATION)
    return Allow(authorization, carried, headers, (*remove, *gone))


def anonymous(request: CheckRequest) -> Allow:
    """Return what becomes of a request that needs no token: nobody has looked at who sent it.

    The headers by which a server takes it for another one, or for one of somebody's session, are removed
    whether or not Envoy shows them to us.
    """
    unset = dict.fromkeys((*IDENTITY_HEADERS, *request.own_headers))
    return Allow(remove=(AUTHORIZATION, BAGGAGE, *unset, *_OVERRIDING, SESSION))


def received(request: CheckRequest, route: InboundRoute, allow: Allow) -> Authorization | None:
    """Return the `Authorization` value that the app receives with an allowance."""
    if allow.authorization is not None:
        return Authorization(f"Bearer {allow.authorization.reveal()}")
    return request.authorization if Forward.BEARER in route.forward else None


def _admitted(header: Secret | None, admitted: Baggage) -> tuple[Secret | None, tuple[str, ...]]:
    """Return what replaces a caller's `baggage`, and what is to be removed. What is plain stays as it is."""
    if header is None or is_plain(header):
        return None, ()
    kept = admitted.without_own()
    return kept, (BAGGAGE,) if kept is None else ()


def without_reference(baggage: Baggage) -> tuple[Secret | None, tuple[str, ...]]:
    """Return what replaces `baggage` so that no member of ours is passed on, and what is to be removed."""
    kept = baggage.without_own() if baggage.own else None
    return kept, (BAGGAGE,) if baggage.own and kept is None else ()


def identity_headers(principal: Principal) -> tuple[tuple[str, str], ...]:
    """Return what the app may know of its caller: those `IDENTITY_HEADERS` that have a value."""
    values = (
        principal.subject.object_id,
        principal.subject.type.value,
        principal.subject.tenant_id,
        principal.actor.client_id,
        principal.actor.blueprint or "",
        _header_list(principal.scopes),
        _header_list(principal.roles),
    )
    pairs = zip(IDENTITY_HEADERS, values, strict=True)
    return tuple((name, value) for name, value in pairs if value)


def _header_list(names: frozenset[str]) -> str:
    # A role's name is free text. A blank inside it would read as two roles, a line break as a header.
    return " ".join(sorted(quote(name, safe=_VISIBLE) for name in names))
