"""`KnownCallers`: who may talk to the API at all, before anything is read. And paths in any case.

Programs of this machine may (loopback, or a Unix socket), by a name that only this machine has, and those of
configured networks. Not a web page in somebody's browser, which reaches loopback as well.
"""

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.config.sections.api import Network

HEALTH: Final = "/healthz"
_FORBIDDEN: Final = 403
_LOCALHOST: Final = "localhost"
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(?::[0-9]{1,5})?", re.ASCII)
"""`Host` (RFC 9110 section 7.2), in lower case."""


class KnownCallers:
    """Turns others away with an empty 403, but for health checks.

    Args:
        app: Serves those who may.
        paths: First segments of its paths, as it spells them; the sidecar takes them in any case.
    """

    def __init__(self, app: ASGIApp, paths: Sequence[str]) -> None:
        self._app = app
        self._spelled = {path.lower(): path for path in paths}
        self.peers: Sequence[Network] = ()
        """Networks beside this machine; may be changed at any time."""
        self.hosts: Collection[str] = ()
        """Names of this machine beside `localhost`, in lower case; may be changed at any time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http":
            scope["path"] = self._canonical(scope["path"])
            if scope["path"] != HEALTH and not self._may_call(scope):
                await Response(status_code=_FORBIDDEN)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _may_call(self, scope: Scope) -> bool:
        client = scope.get("client")
        if client is None:
            # A Unix socket has no peer address; its permissions say who may connect.
            return True
        address = _address(client[0])
        if any(address in network for network in self.peers):
            return True
        return address.is_loopback and not _is_cross_site(scope) and self._is_called_by_name(scope)

    def _is_called_by_name(self, scope: Scope) -> bool:
        """Whether `Host` is a name that nobody but this machine answers to.

        A web page whose own name was made to lead to loopback (DNS rebinding) has that name there.
        """
        values = [value for name, value in scope["headers"] if name == b"host"]
        if len(values) != 1:
            return False
        found = _HOST.fullmatch(values[0].decode("latin-1").lower())
        if found is None:
            return False
        host = found[1]
        return host == _LOCALHOST or host in self.hosts or _is_loopback(host)

    def _canonical(self, path: str) -> str:
        _, _, rest = path.partition("/")
        first, slash, after = rest.partition("/")
        after = after.rstrip("/")
        return f"/{self._spelled.get(first.lower(), first)}{slash if after else ''}{after}"


def _is_cross_site(scope: Scope) -> bool:
    """Whether a browser says that a web page sent a request."""
    headers = dict(scope["headers"])
    return b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none"


def _is_loopback(host: str) -> bool:
    try:
        # Only as RFC 3986 writes addresses: others are names, which a name server can have too.
        return _address(host[1:-1] if host.startswith("[") else host).is_loopback
    except ValueError:
        return False


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
