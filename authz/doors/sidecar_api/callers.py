"""`KnownCallers`: who may talk to the API at all, before anything is read. And paths in any case.

Programs of this machine may (loopback, or a Unix socket), by a name that only this machine has, and those of
configured networks. Not a web page in somebody's browser, which reaches loopback as well.
"""

import re
from collections.abc import Collection, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.config.sections.api import Network
from authz.core.decision import Deny
from authz.core.errors import CallerNotAllowed
from authz.doors.sidecar_api.answers import problem
from authz.ports import Timer

HEALTH: Final = "/healthz"
SILENCE: Final = 60.0
"""Seconds after a log record in which none says the same: anybody can be refused as often as they like."""
_MOST_SHOWN: Final = 100
"""Characters of what a caller sent that the log shows."""
_LOCALHOST: Final = "localhost"
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(?::[0-9]{1,5})?", re.ASCII)
"""`Host` (RFC 9110 section 7.2), in lower case."""


class Cause(StrEnum):
    """Why somebody may not call."""

    PEER = "peer"
    ORIGIN = "origin"
    HOST = "host"


_DETAILS: Final = {
    Cause.PEER: "The call comes from another machine. An operator allows its network: api.peers in the configuration file.",
    Cause.ORIGIN: "A web page sent the call (Origin, Sec-Fetch-Site), and web pages may not. Call from a program, without these.",
    Cause.HOST: "The name in Host is not localhost, nor a loopback address. Call localhost, or an operator adds the name: "
    "api.hosts in the configuration file, AllowedHosts by environment variable.",
}
_SETTINGS: Final = {
    Cause.PEER: "api.peers",
    Cause.ORIGIN: "none: web pages may not call",
    Cause.HOST: "api.hosts (AllowedHosts by environment)",
}
"""What an operator can change, for the log."""
_log = structlog.get_logger(__name__)


class KnownCallers:
    """Turns others away with a 403, but for health checks.

    Args:
        app: Serves those who may.
        paths: First segments of its paths, as it spells them; the sidecar takes them in any case.
        timer: Monotonic seconds.
    """

    def __init__(self, app: ASGIApp, paths: Sequence[str], *, timer: Timer) -> None:
        self._app = app
        self._timer = timer
        self._logged: dict[Cause, float] = {}
        self._spelled = {path.lower(): path for path in paths}
        self.peers: Sequence[Network] = ()
        """Networks beside this machine; may be changed at any time."""
        self.hosts: Collection[str] = ()
        """Names of this machine beside `localhost`, in lower case; may be changed at any time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http":
            scope["path"] = self._canonical(scope["path"])
            cause = None if scope["path"] == HEALTH else self._refusal(scope)
            if cause is not None:
                await self._refused(cause, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Cause | None:
        """Return why a caller may not call; None where it may."""
        client = scope.get("client")
        if client is None:
            # A Unix socket has no peer address; its permissions say who may connect.
            return None
        address = _address(client[0])
        if any(address in network for network in self.peers):
            return None
        if not address.is_loopback:
            return Cause.PEER
        if _is_cross_site(scope):
            return Cause.ORIGIN
        return None if self._is_called_by_name(scope) else Cause.HOST

    def _refused(self, cause: Cause, scope: Scope) -> Response:
        now = self._timer()
        if now - self._logged.get(cause, -SILENCE) >= SILENCE:
            self._logged[cause] = now
            _log.warning(
                "caller refused",
                cause=cause.value,
                host=_shown(scope, b"host"),
                origin=_shown(scope, b"origin"),
                peer=scope["client"][0],
                setting=_SETTINGS[cause],
            )
        return problem(Deny.because(CallerNotAllowed(cause.value)), detail=_DETAILS[cause])

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


def _shown(scope: Scope, name: bytes) -> str | None:
    """Return what a caller sent as a header, for the log; None where it sent none."""
    values = [value for found, value in scope["headers"] if found == name]
    return ascii(b",".join(values).decode("latin-1")[:_MOST_SHOWN])[1:-1] if values else None


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
