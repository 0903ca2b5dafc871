"""The type of a resource identifier (RFC 9728 section 1.2), in the spelling that clients compare."""

from typing import Annotated, Final

from authz.config.sections.values import Expected, text
from authz.core.address import LARGEST_PORT

_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])"
_LOOPBACK: Final = r"(?:localhost|127\.0\.0\.1|\[::1\])"
PORT: Final = "(?::[1-9][0-9]{0,4})?"
_PATH: Final = r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?"
"""Nothing that Envoy writes differently: no segment that is empty, `.` or `..`, and no escape."""
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def _identifier(value: str) -> str:
    scheme, _, rest = value.partition("://")
    port = rest.partition("/")[0].rpartition("]")[2].partition(":")[2]
    if port and int(port) > LARGEST_PORT:
        raise Expected(f"expected a port from 1 to {LARGEST_PORT}")
    if port and int(port) == _DEFAULT_PORTS[scheme]:
        raise Expected(f"expected no port: {port} is that of {scheme}://")
    return value


ResourceIdentifier = Annotated[
    str,
    text(
        f"(?:https://{HOST}|http://{_LOOPBACK}){PORT}{_PATH}",
        kind="https URL",
        expected="the https URL that clients call, such as https://agent.example.com/mcp: host in lower case, no "
        "user, query, fragment, escapes or empty segments; http:// for localhost, 127.0.0.1 and [::1] alone",
        make=_identifier,
    ),
]
