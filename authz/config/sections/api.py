"""Section `api`, the HTTP API of the Entra SDK sidecar, and `downstream`, an API as it calls it."""

import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field

from authz.config.sections.section import Section
from authz.config.sections.values import Expected, File, Scalar, Switch, count, duration, size, text
from authz.core import grammar

Network = IPv4Network | IPv6Network


class Endpoint(StrEnum):
    """Endpoints that give or use a token."""

    AUTHORIZATION_HEADER = "authorization_header"
    AUTHORIZATION_HEADER_UNAUTHENTICATED = "authorization_header_unauthenticated"
    DOWNSTREAM_API = "downstream_api"
    DOWNSTREAM_API_UNAUTHENTICATED = "downstream_api_unauthenticated"


def _network(value: str) -> Network:
    try:
        return ip_network(value)
    except ValueError:
        raise Expected("expected a network such as 10.1.0.0/16, without bits behind it") from None


_NETWORK: Final = text(
    "[0-9a-fA-F.:]+(?:/[0-9]{1,3})?",
    kind="network",
    expected="a network such as 10.1.0.0/16",
    make=_network,
)


HOST_NAME: Final = "[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?"
"""Pattern of a name in `Host`, without port."""
_HOST_NAME: Final = text(
    HOST_NAME,
    kind="host name",
    expected="a host name such as sidecar or authz.agents.svc, without port",
    make=str.lower,
)


def _endpoint(value: Any) -> Endpoint:
    if isinstance(value, str) and value in frozenset(Endpoint):
        return Endpoint(value)
    raise Expected(f"expected one of {', '.join(Endpoint)}")


_ENDPOINT: Final = Scalar(
    _endpoint, {"type": "string", "enum": list(Endpoint), "x-kind": "endpoint"}
)


class Api(Section):
    """What callers of `listen.api` may do. Programs of the same machine may call, and no others."""

    peers: tuple[Annotated[Network, _NETWORK], ...] = Field(
        default=(),
        description="Networks whose programs may call as well. They send and receive tokens, and the API "
        "has no TLS of its own: only for networks that encrypt and authenticate, such as a mesh.",
    )
    hosts: tuple[Annotated[str, _HOST_NAME], ...] = Field(
        default=(),
        description="Names by which programs of the same machine may call as well, without port. "
        "`localhost` and loopback addresses need no entry. A web page can make its own name lead to "
        "loopback (DNS rebinding), so other names are refused.",
    )
    overrides: tuple[Annotated[Endpoint, _ENDPOINT], ...] = Field(
        default=tuple(Endpoint),
        description="Endpoints at which a request may change what is configured: name an agent or its "
        "user account, other scopes, another kind of token. Elsewhere such a request is refused.",
        json_schema_extra={"x-default": "all of them"},
    )
    any_resource: Switch = Field(
        default=False,
        description="Whether a request for a token may name scopes of another resource than the one "
        "configured, and scopes for an API that is not configured: then the client of the default inbound "
        "route gets the token. What is sent to an API is for that API's own resource in any case.",
    )
    follow_redirects: Switch = Field(
        default=False,
        description="Whether redirects of an API are followed, within its own origin only. Others, and "
        "all of them by default, are handed to the caller.",
    )
    timeout: Annotated[float, duration(least=0.1, most=600)] = Field(
        default=30.0, description="Time of one call to an API."
    )
    max_calls: Annotated[int, count(most=10_000)] = Field(
        default=100, description="Most calls to APIs at a time; one more is refused."
    )
    max_request: Annotated[int, size(least=1024)] = Field(
        default=4 * 1024**2, description="Largest body that is taken from a caller."
    )
    max_answer: Annotated[int, size(least=1024)] = Field(
        default=4 * 1024**2, description="Largest body that is taken from an API."
    )
    ca_file: File | None = Field(
        default=None,
        description="Certificate authorities for calls to APIs, PEM. Default: the system's.",
    )


METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _method(value: Any) -> str:
    if isinstance(value, str) and value.upper() in METHODS:
        return value.upper()
    raise Expected(f"expected one of {', '.join(METHODS)}")


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fits = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise Expected("expected a URL with scheme and host, without user, query and fragment")
    return value.rstrip("/")


_METHOD: Final = Scalar(_method, {"type": "string", "enum": list(METHODS), "x-kind": "HTTP method"})
_BASE_URL: Final = text(
    r"https?://[!-~]+",
    kind="URL",
    expected="a URL with scheme and host, such as https://graph.microsoft.com/v1.0",
    make=_base_url,
)
RESERVED_HEADERS: Final = re.compile(
    # What carries a credential, what frames a message, and what belongs to the connection.
    r"authorization|cookie|host|content-(?:length|encoding|type)|accept|accept-encoding|connection"
    r"|keep-alive|te|trailer|transfer-encoding|upgrade|expect|proxy-.*"
    # What APIs take from the proxy before them: who is calling, and for which address.
    r"|forwarded|x-(?:forwarded-|authz-|ms-token-).*|x-original-url"
    r"|x-ms-client-principal(?:-id|-name|-idp)?",
    re.IGNORECASE,
)
"""Headers that cannot be added to a call: they have keys of their own, or are never the caller's."""


def _header_name(value: str) -> str:
    if RESERVED_HEADERS.fullmatch(value):
        raise Expected(
            "expected a header that can be added: not a credential, nor one with its own key"
        )
    return value.lower()


_HEADER_NAME: Final = text(
    grammar.HEADER_NAME,
    kind="header name",
    expected="the name of a header",
    make=_header_name,
)
_HEADER_VALUE: Final = text(
    grammar.HEADER_VALUE,
    kind="header value",
    expected="printable ASCII, without line breaks, and without blanks around it",
)
_TEXT: Final = text(r"[^\u0000-\u001f]*", kind="text", expected="text without control characters")


class Downstream(Section):
    """The API itself, for callers that have the service call it (`/DownstreamApi` of `listen.api`)."""

    base_url: Annotated[str, _BASE_URL] = Field(
        description="Where the API is. Nothing is sent anywhere else."
    )
    path: Annotated[str, _TEXT] = Field(
        default="",
        description="Path below `base_url`, perhaps with a query, where a request has none.",
    )
    method: Annotated[str, _METHOD] = Field(
        default="GET", description="HTTP method, where a request names none."
    )
    accept: Annotated[str, _HEADER_VALUE] = Field(
        default="application/json", description="Value of `Accept`."
    )
    content_type: Annotated[str, _HEADER_VALUE] | None = Field(
        default=None,
        description="Value of `Content-Type` for bodies that come without one.",
    )
    headers: Mapping[Annotated[str, _HEADER_NAME], Annotated[str, _HEADER_VALUE]] = Field(
        default_factory=dict, description="Further headers."
    )
    query: Mapping[Annotated[str, _TEXT], Annotated[str, _TEXT]] = Field(
        default_factory=dict, description="Further query parameters."
    )
