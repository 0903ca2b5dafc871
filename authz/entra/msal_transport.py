"""`MsalTransport`: what MSAL sends through, and what of MSAL is switched off.

Caching, joining and repeating of failures are ours (`authz.tokens.caching`), so all three are switched off in
MSAL here, and nothing of one answer is left in it for the next request. Whose clients are made of it, and by
which credential, is in `authz.entra.clients`.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msal

from authz.core.errors import ExchangeMisconfigured, ExchangeThrottled, ExchangeUnavailable
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
        noting = _Noting(http)
        self._connected: tuple[_Noting, Metadata] | None = (
            noting,
            Metadata(noting, hosts=hosts, timer=timer),
        )

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a token request, and return what is used of the answer.

        Raises:
            TokenRefused: Entra refused. MSAL does not get to see it.
            EntraError: There is no usable answer.
        """
        return reduced(self._connection()[0].post(url, **arguments))

    def get(self, url: str, **_: Any) -> Answer:
        """Fetch a discovery document, or repeat it."""
        return self._connection()[1].get(url)

    def close(self) -> None:
        """Do nothing: the connections are shared."""

    def retire(self) -> None:
        """Send nothing from now on, and let go of the connections.

        What still holds this, such as a call under way, holds no connections then: their trusted authorities
        alone take most of a megabyte.
        """
        self._connected = None

    def _connection(self) -> tuple[_Noting, Metadata]:
        if self._connected is None:
            raise ExchangeUnavailable("the configuration that asks has been replaced")
        return self._connected


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
            token_cache=NoTokenCache(),
            http_cache=NoHttpCache(),
        )
    except (ValueError, KeyError) as error:
        raise ExchangeMisconfigured(
            f"no usable discovery document of tenant {tenant_id} at {authority}"
        ) from error
    # It would hand each token to the cache that keeps none. As it refers to the client that refers to it, each
    # client of a configuration that was replaced would stay until a full garbage collection.
    application.client.on_obtaining_tokens = _keep_nothing
    # The same of its throttle. That is a wrapper around each method of the class, and would hash each request,
    # tokens and all, for a key under which nothing is kept.
    for wrapper in ("get", "post"):
        vars(application.http_client).pop(wrapper, None)
    return application


def _keep_nothing(event: Mapping[str, Any]) -> None:
    """Forget the event."""
