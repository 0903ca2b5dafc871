"""The scalar types of the configuration: GUIDs, durations, sizes, addresses, hosts, scopes.

Each says in one sentence what it expects; what was found is added where faults are written. The
sections made of these are in `listen`, `clients`, `routes` and `settings`.
"""

import math
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from authz.config.sections.host_spelling import NoHost, spelling
from authz.config.sections.hosts import HTTP, HTTPS, EgressHost
from authz.config.sections.mistakes import in_address, in_guid, in_host
from authz.config.shown import shown
from authz.core import grammar
from authz.core.address import LARGEST_PORT, LONGEST_PATH, UNIX

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES: Final = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,15})(|B|KiB|MiB|GiB)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


class Expected(ValueError):
    """A value is not what it should be; the message says what was expected."""


# Compared by identity: typing needs annotations it can hash.
@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A pydantic annotation: one value, read by one function.

    Attributes:
        read: Returns the value, or raises `Expected`.
        schema: The value in JSON Schema; `x-kind` is its name in the reference.
    """

    read: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate with `read` alone."""
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the value in JSON Schema."""
        return dict(self.schema)


def text(
    pattern: str,
    *,
    kind: str,
    expected: str,
    make: Callable[[str], Any] = str,
    usual: Callable[[str], str] = lambda _: "",
) -> Scalar:
    """Return the type of a text that matches a pattern as a whole.

    Args:
        pattern: A regular expression in the dialect that Python and JSON Schema share.
        kind: Name of the type in the reference.
        expected: What a fault says was expected.
        make: Turns the matching text into the value; may raise `Expected`.
        usual: Returns the end of that sentence for a text that does not match.
    """
    compiled = re.compile(pattern, re.ASCII)

    def read(value: Any) -> Any:
        given = str(value) if isinstance(value, Path) else value
        if not isinstance(given, str) or compiled.fullmatch(given) is None:
            hint = usual(str(given)) if isinstance(given, str | int) else ""
            raise Expected(f"expected {expected}{hint}")
        return make(given)

    return Scalar(read, {"type": "string", "pattern": f"^(?:{pattern})$", "x-kind": kind})


def duration(*, least: float = 0.0, most: float = 86400.0) -> Scalar:
    """Return the type of a time span, in seconds once read."""
    expected = (
        "expected a duration such as 30s, 5m, 1h or 250ms, or a number of seconds, "
        f"from {span(least)} to {span(most)}"
    )

    def read(value: Any) -> float:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match:
            found = float(match[1]) * _SECONDS[match[2]]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            # An integer of any length may stand in the document; float() fails on the largest.
            found = float(value) if abs(value) <= most else math.inf
        else:
            raise Expected(expected)
        if not least <= found <= most:
            raise Expected(expected)
        return found

    return Scalar(
        read,
        {
            "anyOf": [
                {"type": "number", "minimum": least, "maximum": most},
                {"type": "string", "pattern": f"^(?:{_DURATION.pattern})$"},
            ],
            "x-kind": "duration",
        },
    )


def size(*, least: int = 0, most: int = 2**40) -> Scalar:
    """Return the type of an amount of memory, in bytes once read."""
    expected = (
        "expected a size such as 16KiB, 64MiB or 1GiB, or a number of bytes, "
        f"from {least} to {most}"
    )

    def read(value: Any) -> int:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        found = int(match[1]) * _BYTES[match[2]] if match else value
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise Expected(expected)
        return found

    return Scalar(
        read,
        {
            "anyOf": [
                {"type": "integer", "minimum": least, "maximum": most},
                {"type": "string", "pattern": f"^(?:{_SIZE.pattern})$"},
            ],
            "x-kind": "size",
        },
    )


def count(*, least: int = 1, most: int = 10**9) -> Scalar:
    """Return the type of a number of things."""

    def read(value: Any) -> int:
        # Text, because an environment reference always gives text.
        found = int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise Expected(f"expected a whole number from {least} to {most}")
        return found

    return Scalar(read, {"type": "integer", "minimum": least, "maximum": most, "x-kind": "number"})


def _switch(value: Any) -> bool:
    found = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise Expected("expected true or false")
    return found


def span(value: float) -> str:
    """Write a number of seconds the way the configuration does."""
    for unit in ("h", "m", "s"):
        if value and value % _SECONDS[unit] == 0:
            return f"{value / _SECONDS[unit]:.0f}{unit}"
    return f"{value * 1000:.0f}ms" if value else "0s"


def _address(value: str) -> str:
    if value.startswith(UNIX):
        if len(value.removeprefix(UNIX).encode()) > LONGEST_PATH:
            raise Expected(f"expected a socket path of at most {LONGEST_PATH} bytes")
        # One spelling, so that two keys with the same socket are seen to have it.
        path = value.removeprefix(UNIX)
        right = posixpath.normpath(f"/{path.lstrip('/')}")
        if path != right:
            raise Expected(f"expected the path as {right}")
    elif int(value.rpartition(":")[2]) > LARGEST_PORT:
        raise Expected(f"expected a port from 0 to {LARGEST_PORT}")
    return value


def _host(value: str) -> str:
    port = value.rpartition("]")[2].partition(":")[2]
    if port and not 0 < int(port) <= LARGEST_PORT:
        raise Expected(f"expected a port from 1 to {LARGEST_PORT}")
    return value.lower()


def _egress_host(value: str) -> str:
    _host(value.removeprefix(HTTPS).removeprefix(HTTP))
    return str(EgressHost.of(value))


def _read_egress_host(value: Any) -> str:
    """Read a host that is written in its one spelling; for another one the fault has the text to write."""
    try:
        right = spelling(value) if isinstance(value, str) else None
    except NoHost as error:
        if str(error):
            raise Expected(str(error)) from None
        right = None
    if isinstance(value, str) and (expected := in_host(value)):
        raise Expected(expected)
    if right is None or not right.expected:
        read: str = _EGRESS_HOST.read(value)
        return read
    _EGRESS_HOST.read(right.text)
    raise Expected(f"expected {' and '.join(right.expected)}: {shown(right.text)}")


_OTHER_PRODUCTS: Final = {
    ".ciamlogin.com": "Microsoft Entra External ID",
    ".b2clogin.com": "Azure AD B2C",
}
"""Login hosts, by their endings, of products that are not Microsoft Entra ID."""


def _authority(value: str) -> str:
    return value.rstrip("/").lower()


def _login_host(value: str) -> str:
    authority = _authority(value)
    host = authority.removeprefix("https://").partition(":")[0]
    for ending, product in _OTHER_PRODUCTS.items():
        if host.endswith(ending):
            raise Expected(
                f"expected the login endpoint of Microsoft Entra ID: {host} belongs to {product}, which has no "
                "agent identities, and whose tokens name issuers other than this endpoint's"
            )
    return authority


_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_IPV6: Final = r"\[[0-9a-fA-F:.]{2,45}\]"

Name = Annotated[
    str,
    text(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        kind="name",
        expected="a name of at most 64 letters, digits, '.', '_' and '-'",
    ),
]
GUID: Final = text(
    grammar.GUID,
    kind="GUID",
    expected="a GUID such as 11111111-2222-3333-4444-555555555555",
    make=str.lower,
    usual=in_guid,
)
USER_PRINCIPAL_NAME: Final = text(
    grammar.USER_PRINCIPAL_NAME, kind="user principal name", expected="a user principal name"
)
Guid = Annotated[str, GUID]
Authority = Annotated[
    str,
    text(
        rf"https://(?:{_DOMAIN}|{_IPV6})(?::[0-9]{{1,5}})?/?",
        kind="https URL",
        expected="an https URL without tenant or path, such as https://login.microsoftonline.com",
        make=_login_host,
    ),
]
VaultUrl = Annotated[
    str,
    text(
        rf"https://{_DOMAIN}(?::[0-9]{{1,5}})?/?",
        kind="https URL",
        expected="the https URL of a vault without path, such as https://NAME.vault.azure.net",
        make=_authority,
    ),
]
VaultName = Annotated[
    str,
    text(
        "[0-9A-Za-z-]{1,127}",
        kind="name",
        expected="a name of at most 127 letters, digits and '-'",
    ),
]
Proxy = Annotated[
    str,
    text(
        rf"http://(?:{_DOMAIN}|{_IPV6}):[0-9]{{1,5}}/?",
        kind="http URL",
        expected="an http URL with a port and no credentials, such as http://proxy.internal:3128",
        make=_authority,
    ),
]
Address = Annotated[
    str,
    text(
        rf"unix:/[^\u0000-\u001f]+|(?:{_DOMAIN}|{_IPV6}):[0-9]{{1,5}}",
        kind="address",
        expected="an address: host:port or unix:/PATH",
        make=_address,
        usual=in_address,
    ),
]
UnixSocket = Annotated[
    str,
    text(
        r"unix:/[^\u0000-\u001f]+",
        kind="address",
        expected="the address of a Unix socket: unix:/PATH",
        make=_address,
    ),
]
PlainHost = Annotated[
    str,
    text(
        rf"(?:{_DOMAIN}|{_IPV6})(?::[0-9]{{1,5}})?",
        kind="host",
        expected="a host without scheme and path: host or host:port",
        make=lambda value: _host(value).removesuffix(":443"),
    ),
]
_EGRESS_HOST: Final = text(
    rf"(?:https?://)?(?:\*|\*\.{_DOMAIN}|(?:{_DOMAIN}|{_IPV6})(?::[0-9]{{1,5}})?)",
    kind="host",
    expected="a host without path: host, host:port, *.suffix or *, with http:// before it where it has no TLS",
    make=_egress_host,
)
HOST: Final = Scalar(_read_egress_host, _EGRESS_HOST.schema)
Host = Annotated[str, HOST]
Scope = Annotated[
    str,
    text(
        grammar.SCOPE,
        kind="scope",
        expected="one scope without blanks (RFC 6749 section 3.3)",
    ),
]
Audience = Annotated[
    str,
    text(r"[^\s*]+", kind="audience", expected="an audience: a client id or URI, without wildcard"),
]
SpiffeId = Annotated[
    str,
    text(
        r"spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)+",
        kind="SPIFFE id",
        expected="a SPIFFE id such as spiffe://cluster.local/ns/default/sa/agent",
    ),
]
File = Annotated[
    Path, text(r"[^\u0000-\u001f]+", kind="path", expected="the path of a file", make=Path)
]
EnvironmentName = Annotated[
    str,
    text(
        "[A-Za-z_][A-Za-z0-9_.:-]*",
        kind="environment variable",
        expected="the name of an environment variable",
    ),
]
GroupName = Annotated[
    str,
    text("[A-Za-z0-9_][A-Za-z0-9_.-]*", kind="group", expected="the name or number of a group"),
]
Switch = Annotated[bool, Scalar(_switch, {"type": "boolean", "x-kind": "true or false"})]
