"""Calls to an API: to its base URL only, whole, bounded, and never with more than the caller may send."""

import asyncio
import base64
import gzip
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from authz.config.sections.api import Api, Downstream
from authz.core.errors import BadOverride, DownstreamBusy, DownstreamUnavailable
from authz.core.secret import Secret
from authz.doors.sidecar_api.downstream import (
    MOST_HELD,
    DownstreamAnswer,
    DownstreamClient,
    target_of,
)
from authz.doors.sidecar_api.parameters import Call
from sidecar_api.conftest import SomeApi
from support.fakes.properties import thorough

TOKEN = Secret("the-agents-token")
BASE = Downstream(base_url="https://api.example/v1.0")


def client(api: SomeApi, **settings: Any) -> DownstreamClient:
    """A client that trusts the API."""
    return DownstreamClient(Api(ca_file=api.ca_file, **settings))


async def ask(
    api: SomeApi,
    call: Call | None = None,
    *,
    body: bytes = b"",
    content_type: str | None = None,
    settings: dict[str, Any] | None = None,
    **profile: Any,
) -> DownstreamAnswer:
    """Call the API below `/v1.0`."""
    asking = client(api, **(settings or {}))
    try:
        return await asking.call(
            Downstream(base_url=f"{api.url}/v1.0", **profile),
            call or Call(),
            TOKEN,
            body,
            content_type,
        )
    finally:
        await asking.retire()


async def test_a_plain_call(api: SomeApi) -> None:
    """With the token, and with nothing of anybody else."""
    answer = await ask(api, Call(path="/me?$select=id"))
    assert (200, b'{"ok":true}') == (answer.status, answer.content)
    seen = api.seen[-1]
    assert ("GET", "/v1.0/me?$select=id") == (seen.method, seen.target)
    assert {
        "host": api.url.removeprefix("https://"),
        "user-agent": "authz",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "authorization": "Bearer the-agents-token",
    } == dict(seen.headers)


async def test_what_is_configured_and_what_the_caller_says(api: SomeApi) -> None:
    """The caller goes before; headers and parameters of both are sent."""
    configured: dict[str, Any] = {
        "path": "a",
        "method": "POST",
        "accept": "text/csv",
        "headers": {"X-One": "1", "X-Two": "2"},
        "query": {"v": "1", "w": "2"},
    }
    await ask(api, **configured)
    assert ("POST", "/v1.0/a?v=1&w=2") == (api.seen[-1].method, api.seen[-1].target)
    assert (["text/csv"], ["1"]) == (api.header("accept"), api.header("x-one"))
    call = Call("b?x=y", "PUT", "text/html", None, {"x-two": "3"}, {"w": "4"})
    await ask(api, call, **configured)
    assert ("PUT", "/v1.0/b?x=y&v=1&w=4") == (api.seen[-1].method, api.seen[-1].target)
    assert (["text/html"], ["1"], ["3"]) == (
        api.header("accept"), api.header("x-one"), api.header("x-two"),
    )  # fmt: skip


async def test_bodies_arrive_byte_by_byte(api: SomeApi) -> None:
    """The sidecar makes text of them."""
    body = bytes(range(256)) * 100
    await ask(api, Call(method="POST"), body=body, content_type="application/octet-stream")
    assert body == api.seen[-1].body
    assert (["application/octet-stream"], [str(len(body))]) == (
        api.header("content-type"), api.header("content-length"),
    )  # fmt: skip
    await ask(api, Call(method="POST", content_type="text/x"), body=b"x", content_type="text/y")
    assert ["text/x"] == api.header("content-type")
    await ask(api, Call(method="POST"), content_type="text/y")
    assert ([], b"") == (api.header("content-type"), api.seen[-1].body)


@pytest.mark.parametrize(
    ("response", "content", "encoding"),
    [
        (Response("héllo", media_type="text/plain"), "héllo", None),
        (Response("é".encode("latin-1"), headers={"content-type": "text/x; charset=latin1"}), "é", None),
        (Response(b"\xff\xfe\x00", media_type="image/png"), "//4A", "base64"),
        (Response(b"x", headers={"content-type": "text/x; charset=unheard"}), "eA==", "base64"),
        (Response(b"+2AA-", headers={"content-type": "text/x; charset=utf-7"}), "KzJBQS0=", "base64"),
        (Response(b"x", headers={"content-type": "text/x; charset=undefined"}), "eA==", "base64"),
        (Response(b"x-", headers={"content-type": "text/x; charset=punycode"}), "eC0=", "base64"),
        (Response(b"x", headers={"content-type": "text/x; charset=idna"}), "eA==", "base64"),
        (Response(b"x", headers={"content-type": "text/x; charset=unicode_escape"}), "eA==", "base64"),
        *(
            (Response("é".encode(charset), headers={"content-type": f"text/x; charset={charset}"}), "é", None)
            for charset in ("UTF-8", "utf8", "iso-8859-1", "ISO-8859-15", "windows-1252", "Cp1252", "utf-16", "UTF-16LE", "gb18030")
        ),
        (Response(b"", status_code=204), None, None),
    ],
)  # fmt: skip
async def test_answers_are_whole(
    api: SomeApi, response: Response, content: str | None, encoding: str | None
) -> None:
    """Text where it is text; else base64, and a word that it is."""
    api.answers["/v1.0/x"] = response
    body = (await ask(api, Call(path="x"))).body()
    assert (response.status_code, content) == (body["statusCode"], body["content"])
    assert encoding == body.get("contentEncoding")


async def test_compressed_answers_stay_compressed(api: SomeApi) -> None:
    """They cannot grow beyond the bound on their way to the caller."""
    packed = gzip.compress(b"x" * 10_000_000)
    api.answers["/v1.0/x"] = Response(packed, headers={"content-encoding": "gzip"})
    body = (await ask(api, Call(path="x"))).body()
    assert (["gzip"], "base64") == (body["headers"]["Content-Encoding"], body["contentEncoding"])
    assert packed == base64.b64decode(body["content"])


async def test_headers_that_tell_what_to_do_come_along(api: SomeApi) -> None:
    """The sidecar loses all but those of the content."""
    headers = {"retry-after": "7", "www-authenticate": "Bearer", "etag": '"1"', "x-request-id": "r"}
    api.answers["/v1.0/x"] = Response("slow down", 429, headers=headers, media_type="text/plain")
    body = (await ask(api, Call(path="x"))).body()
    assert 429 == body["statusCode"]
    expected = {"Retry-After": ["7"], "WWW-Authenticate": ["Bearer"], "ETag": ['"1"'], "X-Request-Id": ["r"]}  # fmt: skip
    assert expected.items() <= body["headers"].items()
    assert "Content-Type" in body["headers"]
    assert "Connection" not in body["headers"]


REDIRECTS = {"/v1.0/near": "/v1.0/there", "/v1.0/far": "https://127.0.0.1:1/v1.0/there"}


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", ["near", "far", "loop"])
async def test_redirects(api: SomeApi, path: str, follow: bool) -> None:
    """Handed to the caller; within the origin they are followed where that is configured, so many times."""
    for source, target in {**REDIRECTS, "/v1.0/loop": "/v1.0/loop"}.items():
        api.answers[source] = Response(status_code=307, headers={"location": target})
    settings = {"follow_redirects": follow}
    if follow and path == "loop":
        with pytest.raises(DownstreamUnavailable, match="redirects"):
            await ask(api, Call(path=path), settings=settings)
        return
    answer = await ask(api, Call(path=path), settings=settings)
    followed = follow and path == "near"
    assert (200 if followed else 307) == answer.status
    assert ["Bearer the-agents-token"] == api.header("authorization")
    assert (2 if followed else 1) == len(api.seen)


async def test_an_answer_that_is_too_large(api: SomeApi) -> None:
    """Is given up at the bound."""
    with pytest.raises(DownstreamUnavailable, match="exceeds 1024"):
        await ask(api, Call(path="large"), settings={"max_answer": 1024})


async def test_an_api_that_does_not_answer(api: SomeApi) -> None:
    """Is waited for only so long; one that is not there, not at all."""
    with pytest.raises(DownstreamUnavailable):
        await ask(api, Call(path="silent"), settings={"timeout": 0.1})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = Downstream(base_url=f"https://127.0.0.1:{port}")
    with pytest.raises(DownstreamUnavailable, match="connection refused"):
        await client(api).call(nobody, Call(), TOKEN, b"", None)


async def test_an_api_that_cannot_prove_itself_gets_no_token(api: SomeApi) -> None:
    """Its certificate is of an authority that nobody here trusts."""
    asking = DownstreamClient(Api())
    with pytest.raises(DownstreamUnavailable, match="name its authority in api"):
        await asking.call(Downstream(base_url=api.url), Call(), TOKEN, b"", None)
    assert [] == api.seen
    await asking.retire()


async def test_calls_are_bounded_in_number_and_end_before_connections_do(api: SomeApi) -> None:
    """One more is refused at once; a client that is retired lets those under way finish."""
    asking = client(api, max_calls=1, timeout=5)

    async def call_slowly() -> None:
        async with asking.in_use():
            await asking.call(Downstream(base_url=api.url), Call(path="silent"), TOKEN, b"", None)

    slow = asyncio.create_task(call_slowly())
    await api.asked.wait()
    with pytest.raises(DownstreamBusy):
        await asking.call(Downstream(base_url=api.url), Call(), TOKEN, b"", None)
    await asking.retire()
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_answers_are_bounded_together_until_they_are_let_go(api: SomeApi) -> None:
    """Each may be as large as it may, and all of them have no more than a few."""
    asking = client(api, max_answer=MOST_HELD // 2)
    api.answers["/half"] = Response(b"x" * (MOST_HELD // 2))
    api.answers["/more"] = Response(b"y")

    async def get(path: str) -> DownstreamAnswer:
        return await asking.call(Downstream(base_url=api.url), Call(path=path), TOKEN, b"", None)

    held = [await get("half"), await get("half")]
    with pytest.raises(DownstreamBusy) as caught:
        await get("more")
    del held[0]

    assert caught.value.retry_after
    assert b"y" == (await get("more")).content
    await asking.retire()


async def test_variables_of_the_environment_lead_nowhere(
    api: SomeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would be another host, and in a pod it is the agent's own Envoy."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert 200 == (await ask(api)).status


@pytest.mark.parametrize(
    "path",
    ["../beta/me", "a/../../b", "%2e%2e/beta", "a/%2E%2e/b", "..%2fbeta", "%252e%252e/x", "./a", "..\\x",
     "a\\..\\b", "a#b", "a\x00b", "a%00b", "a\r\nHost: x", "a/..", "%5c..%5cx",
     # Path parameters, which many servers take off a segment before they resolve it (RFC 3986 section 3.3).
     "..;/admin", "%2e%2e;/admin", "..;a=b/admin", "a/..%3b/admin", "..%253b/admin", ".;/a", "a/..;",
     # What lenient decoders read as dots and slashes.
     "%c0%ae%c0%ae/admin", "..%c0%af", "%e0%80%ae%e0%80%ae/x", "%ff", "%u002e%u002e/x", "%25u002e%25u002e/x",
     "%25252e%25252e/x", "%2525252525252e/x", "..%20/x", ".. /x", "..%09/x", "%ef%bc%8e%ef%bc%8e/x", "\uff0e\uff0e/x",
     "..\uff0fx", "..%ef%bc%8fx", "\u2025/x", ".../x", "a/....;/x"],
)  # fmt: skip
def test_paths_that_would_leave_the_base_url(path: str) -> None:
    """However they are written, for whatever server reads them."""
    with pytest.raises(BadOverride, match="RelativePath"):
        target_of(BASE, Call(path=path))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "https://api.example/v1.0"),
        ("/", "https://api.example/v1.0"),
        ("me", "https://api.example/v1.0/me"),
        ("/me/", "https://api.example/v1.0/me/"),
        ("//evil.example/x", "https://api.example/v1.0/evil.example/x"),
        ("https://evil.example/", "https://api.example/v1.0/https://evil.example/"),
        ("@evil.example", "https://api.example/v1.0/@evil.example"),
        (":81/x", "https://api.example/v1.0/:81/x"),
        ("a b", "https://api.example/v1.0/a%20b"),
        ("a%2Fb", "https://api.example/v1.0/a%2Fb"),
        ("a;v=1/b..c/.well-known/x..", "https://api.example/v1.0/a;v=1/b..c/.well-known/x.."),
        ("100%25", "https://api.example/v1.0/100%25"),
        ("h%C3%A9", "https://api.example/v1.0/h%C3%A9"),
        ("users?$filter=a eq 'b'", "https://api.example/v1.0/users?$filter=a%20eq%20'b'"),
        ("?a=../x", "https://api.example/v1.0?a=../x"),
    ],
)
def test_paths_below_the_base_url(path: str, target: str) -> None:
    """Whatever looks like another host is a path."""
    assert target == str(target_of(BASE, Call(path=path)))


@thorough
@given(
    path=st.text(max_size=30) | st.text("./;%2e3b\\a ", max_size=20),
    query=st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
)
def test_no_path_leads_to_another_host(path: str, query: dict[str, str]) -> None:
    """Any text at all: below the base URL, or refused."""
    try:
        url = target_of(BASE, Call(path=path, query=query))
    except BadOverride:
        return
    assert ("https", "api.example", None) == (url.scheme, url.host, url.port)
    assert url.path == "/v1.0" or url.path.startswith("/v1.0/")
    assert not url.userinfo
    segments = {part.partition(";")[0] for part in url.path.split("/")}
    assert segments.isdisjoint({".", ".."})
