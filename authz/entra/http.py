"""HTTPS to Entra with every bound that a security product needs, in the shape that MSAL asks for.

No redirects, no plain HTTP, a limit on size and on total time (`connections` keeps to it), and a second
request only where a kept connection turned out to be dead. What is not a usable answer leaves here as an
`AuthzError`, so MSAL sees only JSON objects with a status below 500.
"""

import json
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from authz.config.reading.variables import ENTRA_AUTHORITIES
from authz.core.errors import ExchangeThrottled, ExchangeUnavailable
from authz.entra.calls import current
from authz.entra.connections import POOLS, Allowance, hold, socket_options, within
from authz.system import connection_fault

MAX_HEAD_BYTES: Final = 64 * 1024
"""Entra's heads have some 2 KiB. Also what chunk lines and trailers may take beside the body."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Entra's largest regular answer is a JWKS of some 20 KiB."""
LEAST_PATIENCE: Final = 1.0
MOST_PATIENCE: Final = 2.5
"""Seconds for which an answer may take to begin on a kept connection, before a new one is tried."""
SLOW_FOR: Final = 60.0
"""Seconds for which kept connections are waited for after all, where a new one was no quicker."""
MOST_PLACES: Final = 1000
LONGEST_THROTTLE: Final = 3600.0
LONGEST_OUTAGE: Final = 120.0
"""Most seconds of `Retry-After` that are believed, of status 429 and of any other. An outage may end sooner
than somebody thought; who is throttled and asks early is throttled for longer."""
_CHUNK: Final = 65536
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_REDIRECT: Final = range(300, 400)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return whom this package trusts: the system's authorities (`SSL_CERT_FILE`), and a file's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    return context


class EndpointUnavailable(ExchangeUnavailable):
    """No answer, or one of status 5xx: about the endpoint, and not about what was asked."""


class Answer:
    """An HTTP answer with a JSON object in it; has the members that MSAL reads."""

    def __init__(self, status_code: int, text: str, headers: Mapping[str, str]) -> None:
        self.status_code = status_code
        self.text = text
        self.headers = headers

    def raise_for_status(self) -> None:
        """Exist for MSAL, which calls it where `HttpClient` has raised already."""

    def __repr__(self) -> str:
        return f"Answer({self.status_code})"


class HttpClient:
    """A pooled, thread-safe HTTPS client.

    Args:
        ca_file: PEM file of trusted authorities; None uses the system's, or `SSL_CERT_FILE`.
        connect_timeout: Seconds for a connection: name resolution, TCP and TLS handshake.
        timeout: Seconds for a whole call, however slowly any part of the answer drips.
        pool_size: Connections kept per host; one for each thread that calls.
        plain_http: Allow `http`. For the metadata service of the host and nothing else.
        proxy: URL of an HTTP proxy that TLS goes through.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None,
        connect_timeout: float,
        timeout: float,
        pool_size: int,
        plain_http: bool = False,
        proxy: str | None = None,
    ) -> None:
        context = hold(tls_context(ca_file))
        self._trusted_since = 0.0
        self._slow: dict[str, float] = {}
        """Places whose answers take long, and the monotonic second until which that is believed."""
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._schemes = ("https", "http") if plain_http else ("https",)
        pool: dict[str, Any] = {
            "maxsize": pool_size,
            "ssl_context": context,
            "retries": False,
            "num_pools": 10,
            "socket_options": socket_options(dead_after=min(connect_timeout, timeout / 2)),
        }
        self._pool = (
            urllib3.PoolManager(**pool) if proxy is None else urllib3.ProxyManager(proxy, **pool)
        )
        self._pool.pool_classes_by_scheme = dict(POOLS)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Answer:
        """Fetch a document.

        Raises:
            EndpointUnavailable: No answer, or one of status 5xx.
            ExchangeUnavailable: No usable answer.
            ExchangeThrottled: Status 429.
        """
        query = f"?{urlencode(params)}" if params else ""
        return self._call("GET", url + query, body=None, headers=dict(headers or {}))

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Answer:
        """Send a form.

        Raises:
            EndpointUnavailable: No answer, or one of status 5xx.
            ExchangeUnavailable: No usable answer.
            ExchangeThrottled: Status 429.
        """
        query = f"?{urlencode(params)}" if params else ""
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._call("POST", url + query, body=urlencode(data or {}).encode(), headers=form)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def _call(
        self, method: str, url: str, *, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        host = urlsplit(url).hostname
        if urlsplit(url).scheme not in self._schemes:
            raise ExchangeUnavailable(f"refusing to talk to {host} without TLS")
        now, call = time.monotonic(), current()
        if now >= call.ends:
            raise ExchangeUnavailable(f"{host}: no time was left to ask")
        allowance = Allowance(
            end=min(now + self._timeout, call.ends),
            bytes_left=MAX_HEAD_BYTES,
            trusted_since=self._trusted_since,
        )
        try:
            with within(allowance):
                answer = self._send(method, url, body, headers, allowance)
                allowance.bytes_left = MAX_ANSWER_BYTES + MAX_HEAD_BYTES
                try:
                    content = self._read(answer, host)
                except BaseException:
                    # The rest of an unread answer must not be taken for the next one.
                    answer.close()
                    raise
                answer.release_conn()
        except (HTTPError, OSError) as error:
            detail = f"{host}: {self._cause(error, allowance)}"
            if allowance.bytes_left <= 0 or self._was_cut_short(allowance):
                raise ExchangeUnavailable(detail) from error
            raise EndpointUnavailable(detail) from error
        return _usable(answer, content, host)

    def _was_cut_short(self, allowance: Allowance) -> bool:
        """Whether there was less time than an endpoint may take: its end shows nothing of the endpoint."""
        enough = min(self._timeout, self._connect_timeout)
        return time.monotonic() >= allowance.end and allowance.seconds_given < enough

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str],
        allowance: Allowance,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, a second time if the first one went out on a kept connection that is dead.

        A server may close an idle connection at the very moment at which it is used again. What is between
        may forget it without a word; then no answer begins for a while. Token requests change nothing, so
        they may be repeated.
        """

        def send() -> urllib3.BaseHTTPResponse:
            return self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self._connect_timeout, read=self._timeout),
            )

        place, started = _place(url), time.monotonic()
        if started >= self._slow.get(place, 0.0):
            allowance.begins_by = started + _patience(allowance)
        try:
            return send()
        except HTTPError:
            again = time.monotonic()
            if not allowance.reused or allowance.received or again >= allowance.end:
                raise
        # What has taken this connection may have taken all that were idle with it.
        allowance.trusted_since = again
        if again < allowance.begins_by:
            self._trusted_since = again
            return send()
        # It is dead, or the endpoint is slow: a new connection decides.
        try:
            answer = send()
        except HTTPError:
            self._is_slow(place)
            raise
        if time.monotonic() - again < again - started:
            self._trusted_since = again
        else:
            self._is_slow(place)
        return answer

    def _is_slow(self, place: str) -> None:
        """Wait for answers of this place as long as they take, for a while: each would be asked for twice."""
        self._slow.pop(place, None)
        self._slow[place] = time.monotonic() + SLOW_FOR
        with suppress(KeyError, StopIteration):
            if len(self._slow) > MOST_PLACES:
                del self._slow[next(iter(self._slow))]

    def _read(self, answer: urllib3.BaseHTTPResponse, host: str | None) -> bytes:
        content = bytearray()
        while chunk := answer.read1(_CHUNK):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise ExchangeUnavailable(f"{host}: the answer exceeds {MAX_ANSWER_BYTES} bytes")
        return bytes(content)

    def _cause(self, error: Exception, allowance: Allowance) -> str:
        """Name the fault without what it may quote: urllib3's messages can hold the whole URL."""
        if time.monotonic() >= allowance.end:
            return f"the answer took over {allowance.seconds_given:.3g} s"
        if allowance.bytes_left <= 0:
            return f"the answer has a head of over {MAX_HEAD_BYTES} bytes, or is too large"
        return connection_fault.words(error, ca_file=ENTRA_AUTHORITIES)


def _place(url: str) -> str:
    """Return host and tenant of an address of Entra: what is slow at one tenant is no sign of another."""
    parts = urlsplit(url)
    return f"{parts.netloc}/{parts.path.removeprefix('/').partition('/')[0]}"


def _patience(allowance: Allowance) -> float:
    """Return the seconds for which to wait for the first byte on a kept connection.

    They leave time for a new connection while the Check still waits.
    """
    left = min(allowance.end, current().needed_by) - time.monotonic()
    return min(max(LEAST_PATIENCE, left / 4), MOST_PATIENCE)


def _usable(answer: urllib3.BaseHTTPResponse, content: bytes, host: str | None) -> Answer:
    throttled = answer.status == _TOO_MANY_REQUESTS
    retry_after = _retry_after(answer.headers, LONGEST_THROTTLE if throttled else LONGEST_OUTAGE)
    if throttled:
        raise ExchangeThrottled(f"{host}: status 429", retry_after=retry_after or 1.0)
    if answer.status >= _SERVER_ERROR:
        raise EndpointUnavailable(f"{host}: status {answer.status}", retry_after=retry_after)
    if answer.status in _REDIRECT:
        raise ExchangeUnavailable(f"{host}: status {answer.status}", retry_after=retry_after)
    try:
        text = content.decode()
        # MSAL logs an answer that is no JSON, tokens and all; it must not get to see one.
        if not isinstance(json.loads(text), dict):
            raise ExchangeUnavailable(f"{host}: the answer is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ExchangeUnavailable(f"{host}: the answer is not JSON") from error
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Answer(answer.status, text, headers)


def _retry_after(headers: Mapping[str, str], longest: float) -> float | None:
    """Read `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3). None for anything else.

    A date is compared with the answer's own `Date`: our clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), longest)
    until = _date(text) if text else None
    if until is None:
        return None
    now = _date(headers.get("date", ""))
    return min(max(0.0, until - (time.time() if now is None else now)), longest)


def _date(text: str) -> float | None:
    """Return the epoch second of an HTTP date (RFC 9110 section 5.6.7); None for anything else."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
