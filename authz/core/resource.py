"""`ProtectedResource`: what a client may learn of a route before it has a token (RFC 9728).

The document is public. It names where to sign in and which scopes to ask for, and nothing of anybody.
"""

import json
from dataclasses import dataclass, replace
from typing import Final

from authz.core.decision import Deny, Reply
from authz.core.errors import Reason
from authz.core.request import CheckRequest

METADATA: Final = "/.well-known/oauth-protected-resource"
"""Where the metadata is: the path of the resource comes behind it (RFC 9728 section 3.1)."""

_MAX_AGE: Final = 300
"""Seconds for which a client may keep the document: a changed configuration reaches it after that."""
_ORIGINS: Final = ("access-control-allow-origin", "*")
"""The document is public, so every web page may read it."""
_DOCUMENT_HEADERS: Final = (
    ("content-type", "application/json"),
    # Not for caches that clients share: to a request that says it is gRPC, Envoy gives another answer.
    ("cache-control", f"private, max-age={_MAX_AGE}"),
    _ORIGINS,
)
_PREFLIGHT: Final = Reply(
    204,
    (
        _ORIGINS,
        ("access-control-allow-methods", "GET, HEAD"),
        # The wildcard does not stand for Authorization (Fetch standard, "CORS-preflight fetch").
        ("access-control-allow-headers", "*, Authorization"),
        ("access-control-max-age", str(_MAX_AGE)),
    ),
)


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """A resource as its metadata describes it.

    Attributes:
        identifier: Its URL: scheme, host and path, without query and fragment.
        issuers: The authorization servers that issue its tokens.
        scopes: Scopes by which a client asks one of them for a token.
    """

    identifier: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] = ()

    @property
    def metadata_url(self) -> str:
        """Where a client finds the metadata."""
        scheme, _, rest = self.identifier.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}{self.metadata_paths[0]}"

    @property
    def metadata_paths(self) -> tuple[str, ...]:
        """The paths of the metadata: the resource's own, and the bare one, where clients look next."""
        path = self.identifier.partition("://")[2].partition("/")[2]
        return (f"{METADATA}/{path}", METADATA) if path else (METADATA,)

    def reply_to(self, request: CheckRequest) -> Reply | None:
        """Return the answer to a request for the metadata; None for any other request."""
        if request.path.partition("?")[0] not in self.metadata_paths:
            return None
        match request.method:
            # Envoy leaves the body out of an answer to HEAD.
            case "GET" | "HEAD":
                return Reply(200, _DOCUMENT_HEADERS, self._document())
            case "OPTIONS":
                return _PREFLIGHT
            case _:
                return None

    def challenge(self, denial: Deny) -> Deny:
        """Return a denial that says where its caller learns how to get a token, if another one helps."""
        match denial.reason:
            case Reason.MISSING_TOKEN | Reason.INVALID_TOKEN:
                return replace(denial, metadata_url=self.metadata_url, ask_for=self.scopes)
            case Reason.INSUFFICIENT_SCOPE:
                return replace(denial, metadata_url=self.metadata_url)
            case _:
                return denial

    def _document(self) -> str:
        """Return the metadata (RFC 9728 section 2, where a list without elements is left out)."""
        members = {
            "resource": self.identifier,
            "authorization_servers": self.issuers,
            "scopes_supported": self.scopes,
            "bearer_methods_supported": ("header",),
        }
        return json.dumps({name: value for name, value in members.items() if value})
