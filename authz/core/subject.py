"""How the user's identity crosses the app: references to tokens, what carries them, who may use them.

A reference is 256 random bits. It stands for a token that was verified on an inbound route, and means
something only to the service that gave it. Where tokens are kept is `authz.tokens.references`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from authz.core.baggage import MEMBER, Baggage
from authz.core.errors import AmbiguousSubject, ForeignSubject, MissingToken
from authz.core.moment import Moment
from authz.core.request import Authorization, BearerToken, parse_bearer
from authz.core.secret import Secret

REFERENCE_BYTES: Final = 32
PLACEHOLDER: Final = "authz_placeholder_"
"""How a placeholder begins: in `Authorization`, in place of a token. Scanners of secrets find it by this."""
_REFERENCE: Final = r"[A-Za-z0-9_-]{43}"
_PLACEHOLDER: Final = re.compile(
    rf"bearer +{PLACEHOLDER}({_REFERENCE}) *", re.IGNORECASE | re.ASCII
)
_MEMBER: Final = re.compile(rf"{MEMBER}=({_REFERENCE})", re.ASCII)


class SubjectSource(StrEnum):
    """Where an egress route finds for whom the agent calls."""

    BEARER = "bearer"
    PLACEHOLDER = "placeholder"
    HANDLE = "handle"
    NONE = "none"


REFERENCES: Final = frozenset({SubjectSource.PLACEHOLDER, SubjectSource.HANDLE})
"""The sources that have a reference and not the token itself."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a reference was given out, and so where alone it counts.

    Attributes:
        route: The inbound route.
        called: Client id of the agent or application that the route calls; None where it names none.
        peer: SPIFFE id that the Envoy which asked had proved; None on a socket of its own.
    """

    route: str
    called: str | None
    peer: str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A user's token that was verified on an inbound route.

    Attributes:
        token: The token.
        origin: Where the user came in.
        expires_at: From when on it must not be used: the token's end, or earlier.
    """

    token: Secret
    origin: Origin
    expires_at: Moment


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands for a `Subject` while it crosses the app.

    Attributes:
        secret: 43 characters of base64url.
        expires_at: When it ends.
        renew_at: From when on the next request gets another one.
    """

    secret: Secret
    expires_at: Moment
    renew_at: Moment


def placeholder(reference: Secret) -> Secret:
    """Return the value that stands in `Authorization`, after the scheme."""
    return Secret(f"{PLACEHOLDER}{reference.reveal()}")


def find_subject(
    sources: Sequence[SubjectSource],
    authorization: Authorization | None,
    baggage: Baggage,
    *,
    max_bytes: int,
) -> BearerToken | Secret | None:
    """Return the user's token, or the reference to it, from the first source that has something.

    What a source has is believed or refused; no later one is asked then.

    Args:
        sources: Where to look, in order.
        authorization: The `Authorization` value.
        baggage: The `baggage` header.
        max_bytes: Longest bearer token accepted.

    Returns:
        None where nothing was found and the route says that it does without.

    Raises:
        MissingToken: Nothing was found.
        AmbiguousSubject: A reference is there twice, or in a form in which none is given out.
        MalformedRequest: `Authorization` is not exactly one bearer value.
        TokenTooLarge: The token is longer than `max_bytes`.
    """
    for source in sources:
        match source:
            case SubjectSource.BEARER:
                found: BearerToken | Secret | None = _bearer(authorization, max_bytes)
            case SubjectSource.PLACEHOLDER:
                found = _placeholder(authorization)
            case SubjectSource.HANDLE:
                found = _handle(baggage)
            case SubjectSource.NONE:
                return None
            case _ as unreachable:
                assert_never(unreachable)
        if isinstance(found, Secret):
            _refuse_another(found, sources, authorization, baggage)
        if found is not None:
            return found
    raise MissingToken(_what_is_missing(sources, authorization))


def _what_is_missing(sources: Sequence[SubjectSource], authorization: Authorization | None) -> str:
    expected = f"expected {' or '.join(sources)} (subject)"
    if authorization is None:
        return f"found no Authorization: {expected}"
    if SubjectSource.BEARER not in sources and not _is_placeholder(authorization):
        # The usual cause: the app got the token before its route gave out references.
        return (
            f"found a token or another value in Authorization, where this route takes no token: {expected}, "
            "which the app receives where its inbound route has it in forward"
        )
    return f"found no user: {expected}"


def authorize_reference(
    origin: Origin, *, peer: str | None, accepted: Mapping[str, str | None]
) -> None:
    """Check that a reference is used by the peer that it was given to, and for the agent that was called.

    Args:
        origin: Where it was given out.
        peer: SPIFFE id that the Envoy which asks now has proved.
        accepted: The inbound routes that the egress route belongs to, with the client id each calls.

    Raises:
        ForeignSubject: It was given to somebody else.
    """
    if origin.peer != peer:
        raise ForeignSubject(f"it was given to peer {origin.peer}, and {peer} uses it")
    if origin.route not in accepted or accepted[origin.route] != origin.called:
        raise ForeignSubject(f"it was given out on inbound route {origin.route!r}")


def _refuse_another(
    found: Secret,
    sources: Sequence[SubjectSource],
    authorization: Authorization | None,
    baggage: Baggage,
) -> None:
    """Refuse a placeholder and a handle that are not the same: nobody can tell whose request it is."""
    if REFERENCES.issubset(sources):
        for other in (_placeholder(authorization), _handle(baggage)):
            if other is not None and other != found:
                raise AmbiguousSubject("placeholder and handle differ")


def _bearer(authorization: Authorization | None, max_bytes: int) -> BearerToken | None:
    if authorization is None or _is_placeholder(authorization):
        return None
    try:
        return parse_bearer(authorization, max_bytes=max_bytes)
    except MissingToken:
        return None


def _placeholder(authorization: Authorization | None) -> Secret | None:
    if authorization is None or not _is_placeholder(authorization):
        return None
    match = _PLACEHOLDER.fullmatch(authorization.reveal())
    if match is None:
        raise AmbiguousSubject("Authorization is not exactly one placeholder")
    return Secret(match[1])


def _is_placeholder(authorization: Authorization) -> bool:
    return PLACEHOLDER in authorization.reveal().lower()


def _handle(baggage: Baggage) -> Secret | None:
    if not baggage.own:
        return None
    match = _MEMBER.fullmatch(baggage.own[0].reveal())
    if match is None or len(baggage.own) > 1:
        raise AmbiguousSubject(f"{len(baggage.own)} members of ours, or one in another form")
    return Secret(match[1])
