"""What Envoy asks, in our own words, and the grammar of the one bearer value it may carry.

The wire message stays in `authz.doors.envoy`; after `parse_bearer` nobody looks at header text again.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from authz.core.errors import MalformedRequest, MissingToken, TokenTooLarge
from authz.core.operation import Body
from authz.core.secret import Secret, digest_of

# RFC 9110 section 11.1: the scheme is case-insensitive. RFC 6750 section 2.1: one b64token follows.
# A comma is in neither, so two Authorization headers that a proxy joined cannot match.
_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9\-._~+/]+=*) *", re.IGNORECASE | re.ASCII)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_BEARER_PREFIX: Final = "Bearer "
_SCHEME: Final = re.compile(r"bearer(?: |$)", re.IGNORECASE | re.ASCII)


CONNECT: Final = "CONNECT"
"""Method that asks a proxy for a connection, whose content it does not see (RFC 9110 section 9.3.6)."""


class Direction(StrEnum):
    """Which way the request goes, seen from the agent."""

    INBOUND = "inbound"
    EGRESS = "egress"


class Authorization:
    """The value of `Authorization` (RFC 9110 section 11.4): a scheme, and credentials that are hashed once.

    It does not print. What one bearer value must look like is `parse_bearer`'s to say.
    """

    __slots__ = ("_credentials", "_digest", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._digest: bytes | None = None
        self._credentials: Secret | None = None

    @property
    def credentials(self) -> Secret:
        """What follows the scheme. A bearer token's digest is that of the value."""
        if self._credentials is None:
            text = self._value.partition(" ")[2]
            self._credentials = Secret(text, digest=self._digest if self._is_bearer else None)
        return self._credentials

    @property
    def _is_bearer(self) -> bool:
        return self._value.startswith(_BEARER_PREFIX)

    def reveal(self) -> str:
        """Return the whole value. Each call of this method is a place to review."""
        return self._value

    def digest(self) -> bytes:
        """Return a digest of the whole value; where the scheme is `Bearer`, that of the token."""
        if self._digest is None:
            if not self._is_bearer:
                # Longer than a token's, so that the value of another scheme is never taken for a token.
                self._digest = digest_of(self._value) + b"\0"
            elif self._credentials is not None:
                self._digest = self._credentials.digest()
            else:
                self._digest = digest_of(self._value[len(_BEARER_PREFIX) :])
        return self._digest

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Authorization):
            return NotImplemented
        return self.digest() == other.digest()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Authorization(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret does not leave its process")


Situation = tuple[
    str, str | None, str | None, str | None, str | None, tuple[str, ...], bool, bool, str
]
"""All that a decision depends on but `Authorization` and `baggage`. Many requests share one."""


class CheckRequest(NamedTuple):
    """One HTTP request that Envoy holds back until we decide.

    Attributes:
        method: HTTP method.
        host: Authority as the client sent it, possibly with a port.
        path: Path with query.
        authorization: The `Authorization` value, or None when there is none.
        baggage: The `baggage` value, or None when there is none.
        request_id: Envoy's `x-request-id`.
        traceparent: W3C `traceparent`, any text.
        direction: From `context_extensions["authz.direction"]`, any text; None when Envoy did not say.
        route: From `context_extensions["authz.route"]`; None when Envoy did not say.
        peer: SPIFFE id that the peer of this connection proved by its certificate.
        source_principal: SPIFFE id in the certificate that Envoy saw of its own client.
        own_headers: Names of headers in the request that no client sends: those that start with `x-authz-`
            and, where handles are given out, those that carry baggage beside `baggage`. An underscore
            counts as a hyphen.
        at_edge: Whether Envoy's own cache stands before us on this route and may repeat our answer.
        outdated: Whether Envoy says that it was rendered from another configuration than ours. Then the route
            that it names is not believed for any host: the host may have been taken out of it.
        reads_otherwise: Name of a header in the request by which some servers take it for another method or
            path; empty where there is none, or where no route has rules.
        edge_knows_rules: Whether the edge cache tells requests of this route apart by method and path.
        body: The body, where rules ask for it and Envoy has sent it.
        session: The `mcp-session-id` value, where some route has rules; None where there is none.
    """

    method: str = ""
    host: str = ""
    path: str = ""
    authorization: Authorization | None = None
    baggage: Secret | None = None
    request_id: str = ""
    traceparent: str = ""
    direction: str | None = None
    route: str | None = None
    peer: str | None = None
    source_principal: str | None = None
    own_headers: tuple[str, ...] = ()
    at_edge: bool = False
    outdated: bool = False
    reads_otherwise: str = ""
    edge_knows_rules: bool = False
    body: Body | None = None
    session: Secret | None = None

    def situation(self, rule: str = "") -> Situation:
        """Return all that a decision depends on but `authorization` and `baggage`.

        Args:
            rule: Name of the rule that allows the request; empty where its route has none.
        """
        host = self.host
        # A route that Envoy names is not looked up by host. A request without a host is refused.
        if self.route and host:
            host = f"={host}" if self.outdated else "*"
        return (
            host,
            self.direction,
            self.route,
            self.peer,
            self.source_principal,
            self.own_headers,
            self.at_edge,
            self.edge_knows_rules,
            rule,
        )

    @property
    def opens_tunnel(self) -> bool:
        """Whether what it asks for is a connection. It looks like any other request in all that decides."""
        return self.method == CONNECT

    @property
    def trace_id(self) -> str:
        """Trace id of a well-formed `traceparent` (32 hexadecimal digits), else empty."""
        trace = _TRACEPARENT.fullmatch(self.traceparent)
        return trace[1] if trace else ""


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token as RFC 6750 carries it: syntactically fine, not verified at all."""

    secret: Secret


def parse_bearer(authorization: Authorization | None, *, max_bytes: int) -> BearerToken:
    """Read the one bearer token of an `Authorization` value (RFC 6750 section 2.1).

    Args:
        authorization: The header's value, or None when it is absent.
        max_bytes: Longest token accepted; checked before anything is parsed.

    Raises:
        MissingToken: There is no value, or it belongs to another scheme.
        MalformedRequest: It is not exactly one bearer value.
        TokenTooLarge: The token is longer than `max_bytes`.
    """
    if authorization is None or not len(authorization):
        raise MissingToken
    text = authorization.reveal()
    if is_oversized(authorization, max_bytes):
        raise TokenTooLarge(f"{len(text)} bytes")
    match = _BEARER.fullmatch(text)
    if match is None:
        if _SCHEME.match(text) is None and "," not in text:
            raise MissingToken("the Authorization value belongs to another scheme")
        raise MalformedRequest("Authorization is not exactly one bearer value")
    # The credentials are nearly always the token. Sharing their Secret hashes it once for all caches.
    credentials = authorization.credentials
    return BearerToken(credentials if match[1] == credentials.reveal() else Secret(match[1]))


def is_oversized(authorization: Authorization, max_bytes: int) -> bool:
    """Whether a value is longer than a bearer token of `max_bytes` makes it."""
    return len(authorization) > max_bytes + len(_BEARER_PREFIX)


def normalize_host(authority: str) -> tuple[str, str]:
    """Split an authority into (`host:port`, bare host).

    Both are in lower case and without the dot at the end of a host. The port has no leading zeros, and an
    empty one is none (RFC 3986 section 3.2.3).
    """
    whole = authority.lower()
    if whole.startswith("["):
        end = whole.find("]") + 1 or len(whole)
    else:
        end = len(whole.partition(":")[0])
    bare, rest = whole[:end].rstrip("."), whole[end:]
    digits = rest.removeprefix(":")
    if digits.isascii() and digits.isdecimal():
        rest = f":{digits.lstrip('0') or '0'}"
    return bare + ("" if rest == ":" else rest), bare
