"""Section `inbound.<route>.cors`: which web pages may call the agent (Fetch standard, "CORS protocol").

Envoy answers for it; the service has no part in it.
"""

from typing import Annotated, Final

from pydantic import Field

from authz.config.sections.resource_identifier import HOST, PORT
from authz.config.sections.rules import Method
from authz.config.sections.section import Section
from authz.config.sections.values import Expected, Switch, duration, text

ANY_ORIGIN: Final = "*"

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS: Final = (
    "authorization",
    "content-type",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "last-event-id",
)
"""What clients of MCP and A2A send from a web page, beside what every page may send."""
EXPOSED: Final = ("www-authenticate", "mcp-session-id")
"""What they read of an answer: where to sign in, and the session that was begun."""

_MOST: Final = 64

_DEFAULT_PORTS: Final = (("http://", ":80"), ("https://", ":443"))


def _origin(value: str) -> str:
    for scheme, port in _DEFAULT_PORTS:
        if value.startswith(scheme) and value.endswith(port):
            raise Expected(f"expected no port: browsers leave {port} out")
    return value


Origin = Annotated[
    str,
    text(
        rf"\*|[a-z][a-z0-9+.-]*://{HOST}{PORT}",
        kind="origin",
        expected="an origin as browsers send it, such as https://app.example.com: scheme and host in lower case, a port "
        "that is not the scheme's own, no path; or * for every origin",
        make=_origin,
    ),
]
HeaderName = Annotated[
    str,
    text(
        "[A-Za-z0-9_-]{1,128}", kind="header name", expected="the name of a header", make=str.lower
    ),
]


def _listed(names: tuple[str, ...]) -> str:
    """Return names as the reference shows a default."""
    return f"`[{', '.join(names)}]`"


class Cors(Section):
    """Web pages of other origins: which may call the agent, and how."""

    origins: tuple[Origin, ...] = Field(
        min_length=1,
        max_length=_MOST,
        description='Origins of these pages, to the letter, such as `https://app.example.com`. `"*"`: every one.',
    )
    methods: tuple[Method, ...] = Field(
        default=METHODS,
        min_length=1,
        description="Methods that they may use.",
        json_schema_extra={"x-default": _listed(METHODS)},
    )
    headers: tuple[HeaderName, ...] = Field(
        default=HEADERS,
        max_length=_MOST,
        description="Request headers that they may send.",
        json_schema_extra={"x-default": _listed(HEADERS)},
    )
    expose: tuple[HeaderName, ...] = Field(
        default=EXPOSED,
        max_length=_MOST,
        description="Headers of answers that they may read.",
        json_schema_extra={"x-default": _listed(EXPOSED)},
    )
    credentials: Switch = Field(
        default=False,
        description="Whether browsers may send cookies and client certificates. A bearer token needs no such permission.",
    )
    max_age: Annotated[float, duration()] = Field(
        default=600.0, description="How long a browser may remember the answer to a preflight."
    )
