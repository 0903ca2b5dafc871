"""OpenID Connect discovery documents: which are taken, for how long, and which hosts they may name.

A document decides where secrets are sent and whose keys are believed. So it may name its own host, and those
that it is configured to, and nothing that it says wrongly is kept. MSAL and `signing_keys` read them.
"""

import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

import structlog

from authz.core.errors import EntraError, ExchangeUnavailable
from authz.entra.http import Answer
from authz.ports import Timer

LIFETIME: Final = 3600.0
"""Seconds for which a good document is repeated without asking."""
MOST_OF_AN_ISSUER: Final = 200
"""Characters of an unexpected issuer that are shown."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0
"""Seconds until a document is asked for again that was unusable; the pause doubles."""
MOST_DOCUMENTS: Final = 1000
"""Documents remembered: one for each tenant."""
_OK: Final = 200
_HTTPS_PORT: Final = 443
_log = structlog.get_logger(__name__)


class DiscoveryFault(Exception):
    """A discovery document that cannot be used, and why."""


class Documents(Protocol):
    """Where documents come from: `HttpClient`, or what a test puts in its place."""

    def get(self, url: str) -> Answer:
        """Fetch a JSON document; blocking."""


def read_document(answer: Answer, url: str) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        DiscoveryFault: The answer is none.
    """
    if answer.status_code != _OK:
        raise DiscoveryFault(f"{url} answered with status {answer.status_code}")
    document: dict[str, Any] = json.loads(answer.text)
    return document


def endpoint(
    document: Mapping[str, Any], member: str, *, url: str, hosts: Collection[str]
) -> SplitResult:
    """Return an address that a document names.

    Args:
        document: The document.
        member: `jwks_uri`, `token_endpoint` or another.
        url: Where the document comes from. It may name addresses of the same host.
        hosts: Further hosts that it may name, each with its port if that is not 443.

    Raises:
        DiscoveryFault: There is no https address, or it is another host's.
    """
    named = document.get(member)
    try:
        parts = urlsplit(named) if isinstance(named, str) else None
        place = None if parts is None else _place(parts)
    except ValueError:
        parts = place = None
    if parts is None or parts.scheme != "https" or not place:
        raise DiscoveryFault(f"{url} names no https {member}")
    if place != _place(urlsplit(url)) and place not in hosts:
        raise DiscoveryFault(
            f"{url} names a {member} of {place}, which is not in entra.trusted_hosts"
        )
    return parts


def _tenant(path: str) -> str:
    return path.removeprefix("/").partition("/")[0].lower()


def _place(parts: SplitResult) -> str:
    """Return `host`, or `host:port` where the port is another than that of https."""
    host = (parts.hostname or "").rstrip(".")
    # A name before an "@" belongs to no address that Entra gives out.
    if not host or "@" in parts.netloc:
        return ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in {None, _HTTPS_PORT} else f"{host}:{parts.port}"


@dataclass(slots=True)
class _Known:
    """What is known of one document: what to answer until it is due, and the last good one."""

    answer: Answer | str = ""
    good: Answer | None = None
    failures: int = 0
    due: float = 0.0


class Metadata:
    """The documents that MSAL asks for: each good one repeated for an hour, each bad one for seconds.

    The last good one stays in use while there is no new one: a tenant's token endpoint does not move.

    Args:
        http: Fetches documents; blocking, from several threads.
        hosts: Hosts that documents may name beside their own.
        timer: Monotonic seconds.
    """

    def __init__(self, http: Documents, *, hosts: Collection[str], timer: Timer) -> None:
        self._http = http
        self._hosts = hosts
        self._timer = timer
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def get(self, url: str) -> Answer:
        """Return a document, or Entra's answer that there is none.

        Raises:
            EntraError: There is no answer, or it is no document that can be used.
        """
        with self._lock:
            known = self._known.pop(url, None) or _Known()
            self._known[url] = known
            if len(self._known) > MOST_DOCUMENTS:
                del self._known[next(iter(self._known))]
        if self._timer() >= known.due:
            try:
                self._ask(known, url)
            except EntraError as error:
                # Without an answer there is nothing to repeat. Who may try again is decided elsewhere.
                if known.good is None:
                    raise
                self._settle(known, known.good, url, str(error))
        if isinstance(known.answer, str):
            wait = max(FIRST_PAUSE, known.due - self._timer())
            raise ExchangeUnavailable(known.answer, retry_after=wait)
        return known.answer

    def _ask(self, known: _Known, url: str) -> None:
        answer = self._http.get(url)
        if answer.status_code != _OK:
            self._settle(known, known.good or answer, url, f"status {answer.status_code}")
            return
        try:
            self._look_at(answer, url)
        except DiscoveryFault as fault:
            self._settle(known, known.good or str(fault), url, str(fault))
        else:
            known.answer = known.good = answer
            known.failures, known.due = 0, self._timer() + LIFETIME

    def _look_at(self, answer: Answer, url: str) -> None:
        """Refuse what MSAL could not use, and what would send secrets elsewhere."""
        document = read_document(answer, url)
        if not isinstance(document.get("authorization_endpoint"), str):
            raise DiscoveryFault(f"{url} names no authorization_endpoint")
        named = endpoint(document, "token_endpoint", url=url, hosts=self._hosts)
        # MSAL reads the tenant there, and keeps it.
        if _tenant(named.path) != _tenant(urlsplit(url).path):
            raise DiscoveryFault(f"{url} names a token_endpoint of another tenant")

    def _settle(self, known: _Known, answer: Answer | str, url: str, cause: str) -> None:
        """Answer so until the document is asked for again, which is soon."""
        have = known.good is not None
        _log.warning("discovery document refused", url=url, cause=cause, have_document=have)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(known.failures, 10))
        known.failures += 1
        known.answer, known.due = answer, self._timer() + pause
