"""`KnownCallers`: who may talk to the API at all, before anything is read. And paths in any case.

Programs of this machine may (loopback, or a Unix socket), and those of configured networks. Not a web page
in somebody's browser, which reaches loopback as well.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.config.sidecar_api import Network

HEALTH: Final = "/healthz"
_FORBIDDEN: Final = 403


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
        return address.is_loopback and not _is_of_a_browser(scope)

    def _canonical(self, path: str) -> str:
        _, _, rest = path.partition("/")
        first, slash, after = rest.partition("/")
        after = after.rstrip("/")
        return f"/{self._spelled.get(first.lower(), first)}{slash if after else ''}{after}"


def _is_of_a_browser(scope: Scope) -> bool:
    """Whether a web page sent a request to loopback.

    Pages of other sites say so by `Origin` or `Sec-Fetch-Site`. One that made its own name lead to
    loopback (DNS rebinding) has that name in `Host`: a name with a dot, which no caller here needs.
    """
    headers = dict(scope["headers"])
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
        return True
    host = headers.get(b"host", b"").decode("latin-1")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    try:
        _address(name.strip("[]"))
    except ValueError:
        return "." in name
    return False


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
