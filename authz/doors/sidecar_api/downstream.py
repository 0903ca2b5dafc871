"""`DownstreamClient`: calls an API with a token, for a caller who leaves the call to the service.

A token goes to the API's own base URL and nowhere else (law 4): not to another host, not above the base
path, not through a proxy of the environment, not after a redirect to another origin.
"""

import asyncio
import base64
import contextlib
import re
import ssl
import unicodedata
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from encodings.aliases import aliases
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import httpx

from authz.config.reading.variables import API_AUTHORITIES
from authz.config.sections.api import Api, Downstream
from authz.core.errors import BadOverride, DownstreamBusy, DownstreamUnavailable
from authz.core.secret import Secret
from authz.doors.sidecar_api.parameters import OPTIONS, Call
from authz.system import connection_fault

_RELATIVE_PATH: Final = f"{OPTIONS}RelativePath"
MOST_HELD: Final = 16 * 1024**2
"""Bytes of all answers at a time, or those of one where that may have more. Each is held twice or three times
until its caller has read it."""
_MOST_REDIRECTS: Final = 5
_CONNECT_TIMEOUT: Final = 5.0
_RETRY_SOON: Final = 1.0
_OF_THE_CONNECTION: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that speak of one connection (RFC 9110 section 7.6.1) and mean nothing to the caller."""
_SPELLED: Final = {"www-authenticate": "WWW-Authenticate", "etag": "ETag"}
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\\#]")
_MOST_ENCODINGS: Final = 4
_OF_IIS: Final = re.compile("%u[0-9a-f]{4}", re.IGNORECASE)
_TO_UNDERSCORES: Final = str.maketrans("-.", "__")
_CODECS: Final = frozenset(
    {
        "ascii", "utf_8", "utf_8_sig", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le",
        "latin_1", *(f"iso8859_{part}" for part in range(2, 17)), *(f"cp{page}" for page in range(1250, 1259)),
        "koi8_r", "koi8_u", "big5", "euc_jp", "euc_kr", "gb2312", "gbk", "gb18030", "iso2022_jp", "shift_jis",
    }
)  # fmt: skip
"""Python's names of charsets whose reading takes time in proportion to the text.

It is the API that names one, and Python has others: reading some takes the square of the length."""


class Hold:
    """Bytes of an answer. They count until nobody refers to this any more."""


@dataclass(frozen=True, slots=True)
class DownstreamAnswer:
    """What an API answered.

    Attributes:
        status: HTTP status.
        headers: Values by name, names as HTTP documents spell them.
        content: The body as it came over the wire, bytes untouched.
        hold: To be kept for as long as the content is, in whatever form.
    """

    status: int
    headers: dict[str, list[str]]
    content: bytes
    hold: Hold = field(compare=False, repr=False)

    def body(self) -> dict[str, Any]:
        """Return it as the sidecar's JSON. Content that is no text is base64, and says so."""
        found: dict[str, Any] = {"statusCode": self.status, "headers": self.headers}
        if not self.content:
            return {**found, "content": None}
        try:
            return {**found, "content": self._text()}
        except (UnicodeError, LookupError):
            content = base64.b64encode(self.content).decode()
            return {**found, "content": content, "contentEncoding": "base64"}

    def _text(self) -> str:
        if "Content-Encoding" in self.headers:
            raise LookupError("compressed")
        kind = ";".join(self.headers.get("Content-Type", []))
        charset = re.search(r"charset=\"?([A-Za-z0-9._-]{1,40})", kind, re.IGNORECASE)
        text = self.content.decode(_codec(charset[1]) if charset else "utf-8")
        # Some of Python's encodings make halves of characters, which JSON cannot hold.
        text.encode()
        return text


def _codec(charset: str) -> str:
    """Return Python's name of a charset.

    Raises:
        LookupError: It is none that an answer may have.
    """
    label = charset.lower().translate(_TO_UNDERSCORES)
    codec = aliases.get(label, label)
    if codec not in _CODECS:
        raise LookupError("no charset of answers")
    return codec


class DownstreamClient:
    """A pooled client with every bound of the configuration.

    Args:
        settings: Section `api` of the configuration.
    """

    def __init__(self, settings: Api) -> None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.ca_file is not None:
            context.load_verify_locations(cafile=str(Path(settings.ca_file)))
        self._settings = settings
        self._users = self._under_way = self._held = 0
        self._retired = False
        self._client = httpx.AsyncClient(
            verify=context,
            # Proxy variables lead the agent to Envoy; `.netrc` holds credentials.
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(settings.timeout, connect=_CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=settings.max_calls, max_keepalive_connections=32),
        )

    async def call(
        self, api: Downstream, call: Call, token: Secret, body: bytes, content_type: str | None
    ) -> DownstreamAnswer:
        """Call an API, in a block of `in_use`.

        Args:
            api: Where it is, and how it is called unless the caller says otherwise.
            call: What the caller says; `target_of` has accepted it.
            token: Its bearer token.
            body: What to send; empty for nothing.
            content_type: What the caller's own `Content-Type` says of the body.

        Raises:
            DownstreamBusy: `max_calls` calls are under way, or answers take as much memory as they may.
            DownstreamUnavailable: There is no answer, or one that is too large.
        """
        if self._under_way >= self._settings.max_calls:
            raise DownstreamBusy("as many calls are under way as may be", retry_after=_RETRY_SOON)
        request = self._client.build_request(
            call.method or api.method,
            target_of(api, call),
            headers=_headers(api, call, token, content_type if body else None),
            content=body or None,
        )
        self._under_way += 1
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._send(request)
        except TimeoutError as error:
            raise DownstreamUnavailable(f"no answer in {self._settings.timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Not its message, which can quote the URL.
            cause = connection_fault.words(error, ca_file=API_AUTHORITIES)
            raise DownstreamUnavailable(cause) from error
        finally:
            self._under_way -= 1

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Be there for a request until it has ended. It may call only after Entra has answered."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            await self._close_when_idle()

    async def retire(self) -> None:
        """Close connections, once the requests under way have ended. No further ones are expected."""
        self._retired = True
        await self._close_when_idle()

    async def _close_when_idle(self) -> None:
        if self._retired and not self._users:
            await self._client.aclose()

    async def _send(self, request: httpx.Request) -> DownstreamAnswer:
        origin = _origin(request.url)
        for _ in range(_MOST_REDIRECTS):
            response = await self._client.send(request, stream=True)
            try:
                onward = response.next_request
                if (
                    onward is None
                    or not self._settings.follow_redirects
                    or _origin(onward.url) != origin
                ):
                    content, hold = await self._read(response)
                    headers = _shown(response.headers)
                    return DownstreamAnswer(response.status_code, headers, content, hold)
            finally:
                await response.aclose()
            request = onward
        raise DownstreamUnavailable(f"more than {_MOST_REDIRECTS} redirects")

    async def _read(self, response: httpx.Response) -> tuple[bytes, Hold]:
        content = bytearray()
        try:
            # Raw: what is compressed stays so, and cannot grow beyond the bound.
            async for chunk in response.aiter_raw():
                content += chunk
                self._held += len(chunk)
                self._check(len(content))
        except BaseException:
            self._let_go(len(content))
            raise
        hold = Hold()
        weakref.finalize(hold, self._let_go, len(content))
        return bytes(content), hold

    def _check(self, size: int) -> None:
        """Raise where an answer, or all of them together, have more bytes than they may."""
        largest = self._settings.max_answer
        if size > largest:
            raise DownstreamUnavailable(f"the answer exceeds {largest} bytes")
        if self._held > max(MOST_HELD, largest):
            raise DownstreamBusy("answers take as much memory as they may", retry_after=_RETRY_SOON)

    def _let_go(self, size: int) -> None:
        self._held -= size


def target_of(api: Downstream, call: Call) -> httpx.URL:
    """Return the URL that a call goes to.

    Raises:
        BadOverride: The path would leave the API's base URL.
    """
    path, mark, query = (api.path if call.path is None else call.path).partition("?")
    if _may_climb(path):
        raise BadOverride(f"{_RELATIVE_PATH}: expected a path below the API's base URL")
    below = path.lstrip("/")
    try:
        base = httpx.URL(api.base_url)
        url = httpx.URL(f"{api.base_url}{'/' if below else ''}{below}{mark}{query}")
        more = {**api.query, **call.query}
        url = url.copy_merge_params(more) if more else url
    except (httpx.InvalidURL, ValueError):
        raise BadOverride(f"{_RELATIVE_PATH}: expected a path and perhaps a query") from None
    if _origin(url) != _origin(base) or not url.path.startswith(base.path.rstrip("/")):
        raise BadOverride(f"{_RELATIVE_PATH}: expected a path below the API's base URL")
    return url


def _may_climb(path: str) -> bool:
    """Whether some server could read a path as one that leaves its base.

    Servers differ: they decode once or several times, take path parameters (`..;x`) off a segment, read
    overlong UTF-8 or `%uXXXX`, fold wide forms of dots and slashes, strip blanks, take backslashes for
    slashes.
    """
    for _ in range(_MOST_ENCODINGS):
        try:
            decoded = unquote(path, errors="strict")
        except UnicodeDecodeError:
            return True
        folded = unicodedata.normalize("NFKC", decoded)
        if _CONTROLS.search(folded) or _OF_IIS.search(folded):
            return True
        if any(_is_dots(segment) for segment in folded.split("/")):
            return True
        if decoded == path:
            return False
        path = decoded
    return True


def _is_dots(segment: str) -> bool:
    name = segment.partition(";")[0].strip()
    return bool(name) and not name.strip(".")


def _headers(
    api: Downstream, call: Call, token: Secret, content_type: str | None
) -> dict[str, str]:
    kind = call.content_type or content_type or api.content_type
    return {
        "user-agent": "authz",
        **api.headers,
        **call.headers,
        "accept": call.accept or api.accept,
        "accept-encoding": "identity",
        **({"content-type": kind} if kind else {}),
        # Last: nothing that a caller or a configuration adds stands in its place.
        "authorization": f"Bearer {token.reveal()}",
    }


def _shown(headers: httpx.Headers) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for name, value in headers.multi_items():
        lower = name.lower()
        if lower not in _OF_THE_CONNECTION:
            spelled = _SPELLED.get(lower) or "-".join(p.capitalize() for p in lower.split("-"))
            shown.setdefault(spelled, []).append(value)
    return shown


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
