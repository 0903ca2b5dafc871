"""`MsalTransport`: what MSAL sends through, and what of MSAL is switched off.

Caching, joining and repeating of failures are ours (`authz.tokens.caching`), so all three are switched off in
MSAL here, and nothing of one answer is left in it for the next request. Whose clients are made of it, and by
which credential, is in `authz.entra.clients`.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msal

from authz.core.errors import ExchangeMisconfigured, ExchangeThrottled
from authz.core.throttle import ApplicationThrottled
from authz.entra.answers import reduced
from authz.entra.calls import current
from authz.entra.discovery import Metadata
from authz.entra.http import Answer, EndpointUnavailable, HttpClient
from authz.ports import Timer

# MSAL logs answers that it cannot read, and they may hold tokens (law 5).
logging.getLogger("msal").addHandler(logging.NullHandler())
logging.getLogger("msal").propagate = False


class NoTokenCache(msal.TokenCache):  # type: ignore[misc]
    """A token cache that keeps nothing: MSAL's own grows with every user and never shrinks."""

    def add(self, event: Mapping[str, Any], now: float | None = None) -> None:
        """Forget the event."""


_NO_TOKENS: Final = NoTokenCache()
"""For every client: MSAL's constructor of it makes cycles, which only a full garbage collection frees."""


class NoHttpCache(dict[str, Any]):
    """An HTTP cache that keeps nothing.

    MSAL keeps failures under a key without the user's assertion and without `fmi_path`, and would
    replay one user's or agent's failure to all others (law 8).
    """

    def __setitem__(self, key: str, value: object) -> None:
        """Forget the entry."""


class _Noting:
    """Sends requests to Entra, and notes in the thread's call whether the endpoint answers."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def get(self, url: str) -> Answer:
        """Fetch a document. That it is throttled is not about what somebody wants to ask next."""
        with _noted():
            try:
                return self._http.get(url)
            except ExchangeThrottled as error:
                raise ApplicationThrottled(error.detail, retry_after=error.retry_after) from error

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a form."""
        with _noted():
            try:
                return self._http.post(url, **arguments)
            except ExchangeThrottled as error:
                current().throttled = error.retry_after
                raise


@contextmanager
def _noted() -> Iterator[None]:
    call = current()
    call.answered = call.throttled = None
    call.begun()
    try:
        yield
    except EndpointUnavailable:
        call.answered = False
        raise
    except ExchangeThrottled:
        call.answered = True
        raise
    else:
        call.answered = True


class MsalTransport:
    """What MSAL sends its requests through: ours, with discovery documents that are looked at and kept.

    Every agent has an MSAL client of its own, and each asks for the same document first.

    Args:
        http: Sends requests.
        hosts: Hosts beside its own that a discovery document may name.
        timer: Monotonic seconds.
    """

    def __init__(
        self, http: HttpClient, *, hosts: Collection[str] = (), timer: Timer = time.monotonic
    ) -> None:
        self._noting = _Noting(http)
        self._documents = Metadata(self._noting, hosts=hosts, timer=timer)

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a token request, and return what is used of the answer.

        Raises:
            TokenRefused: Entra refused. MSAL does not get to see it.
            EntraError: There is no usable answer.
        """
        return reduced(self._noting.post(url, **arguments))

    def get(self, url: str, **_: Any) -> Answer:
        """Fetch a discovery document, or repeat it."""
        return self._documents.get(url)

    def close(self) -> None:
        """Do nothing: the connections are shared."""


def build(
    authority: str, tenant_id: str, client_id: str, credential: object, transport: MsalTransport
) -> msal.ConfidentialClientApplication:
    """Make an MSAL client that keeps nothing, and is freed with its last reference.

    Asks for the tenant's discovery document.

    Raises:
        EntraError: The document could not be had.
    """
    try:
        application = msal.ConfidentialClientApplication(
            client_id,
            client_credential=credential,
            authority=f"{authority}/{tenant_id}",
            instance_discovery=False,
            http_client=transport,
            token_cache=_NO_TOKENS,
            http_cache=NoHttpCache(),
        )
    except (ValueError, KeyError) as error:
        raise ExchangeMisconfigured(
            f"no usable discovery document of tenant {tenant_id} at {authority}"
        ) from error
    # It would hand each token to the cache that keeps none. As it refers to the client, and the client to it,
    # the clients of a configuration that was replaced would stay until a full garbage collection.
    application.client.on_obtaining_tokens = _keep_nothing
    # So would its throttle's wrappers of these methods. They would hash each request, tokens and all, for a
    # key under which nothing is kept.
    for wrapper in ("get", "post"):
        vars(application.http_client).pop(wrapper, None)
    return application


def _keep_nothing(event: Mapping[str, Any]) -> None:
    """Forget the event."""
