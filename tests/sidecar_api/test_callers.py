"""Who may talk to the API at all: programs of this machine and of configured networks, no web pages."""

from ipaddress import ip_network
from typing import Any

import orjson
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message
from structlog.testing import capture_logs

from authz.doors.sidecar_api.callers import SILENCE, KnownCallers
from support.fakes.clock import Clock

PATHS = ["healthz", "Validate", "AuthorizationHeader"]


async def status(
    client: tuple[str, int] | None,
    headers: dict[str, str] | None = None,
    path: str = "/Validate",
    peers: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
) -> tuple[int, str]:
    """Return the status of a request and the path by which the application saw it."""
    seen: list[str] = []
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await PlainTextResponse("in")(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    callers = KnownCallers(app, PATHS, timer=Clock().timer)
    callers.peers = [ip_network(peer) for peer in peers]
    callers.hosts = hosts
    raw = [
        (k.lower().encode(), v.encode())
        for k, v in {"host": "localhost:5000", **(headers or {})}.items()
    ]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "client": client}
    await callers(scope, receive, send)
    return sent[0]["status"], "".join(seen)


LOCAL = ("127.0.0.1", 4000)


@pytest.mark.parametrize(
    "client", [LOCAL, ("127.8.8.8", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), ("::1%lo", 1), None]
)
async def test_this_machine_may_call(client: tuple[str, int] | None) -> None:
    """By either version of IP, or by a Unix socket."""
    assert (200, "/Validate") == await status(client)


@pytest.mark.parametrize("client", [("10.0.0.7", 1), ("::ffff:10.0.0.7", 1), ("fe80::1%eth0", 1)])
async def test_others_may_not(client: tuple[str, int]) -> None:
    """But they may ask for health: the kubelet does."""
    assert (403, "") == await status(client)
    assert (200, "/healthz") == await status(client, path="/healthz")


async def test_networks_that_are_configured_may_call() -> None:
    """By whatever name they call us."""
    peers = ("10.0.0.0/24", "fd00::/8")
    headers = {"host": "authz.default.svc:5000"}
    assert (200, "/Validate") == await status(("10.0.0.7", 1), headers, peers=peers)
    assert (200, "/Validate") == await status(("fd00::7", 1), headers, peers=peers)
    assert (403, "") == await status(("10.0.1.7", 1), headers, peers=peers)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000", "[::1]", "[::FFFF:127.0.0.1]:5000",
     "sidecar", "Sidecar:5000", "authz.agents.svc"],
)  # fmt: skip
async def test_programs_call_by_the_names_of_this_machine(host: str) -> None:
    """`localhost`, a loopback address, and the names that are configured."""
    hosts = ("sidecar", "authz.agents.svc")
    assert (200, "/Validate") == await status(LOCAL, {"host": host}, hosts=hosts)


@pytest.mark.parametrize(
    "host",
    ["evil", "evil:5000", "rebound.example", "rebound.example:5000", "127.0.0.1.rebound.example:5000",
     "localhost.rebound.example", "2130706433", "0x7f000001", "127.1", "127.0.0.1.", "0.0.0.0:5000", "8.8.8.8",
     "[::]", "::1", "[fe80::1]", "localhost:5000:5000", "localhost:", "localhost@evil", "localhost evil",
     "löcalhost", "sidecar.evil", "", ","],
)  # fmt: skip
async def test_any_other_name_is_refused(host: str) -> None:
    """A web page that made its own name lead to loopback has that name in `Host`; a single label too."""
    assert (403, "") == await status(LOCAL, {"host": host}, hosts=("sidecar",))
    assert (200, "/healthz") == await status(LOCAL, {"host": host}, path="/healthz")


async def test_two_names_are_refused() -> None:
    """Whichever of them is ours, another program may read the other."""
    twice = {"host": "localhost", "Host": "evil"}
    assert (403, "") == await status(LOCAL, twice)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
async def test_web_pages_may_not(headers: dict[str, str], expected: int) -> None:
    """A browser on this machine reaches loopback for any page that asks."""
    assert expected == (await status(LOCAL, headers))[0]


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/validate", "/Validate"),
        ("/VALIDATE/", "/Validate"),
        ("/authorizationheader/Graph", "/AuthorizationHeader/Graph"),
        ("/HealthZ", "/healthz"),
        ("/other/x", "/other/x"),
        ("/", "/"),
    ],
)
async def test_paths_are_taken_in_any_case(path: str, seen: str) -> None:
    """As ASP.NET Core takes them; names of APIs stay as they are."""
    assert (200, seen) == await status(LOCAL, path=path)


@pytest.mark.parametrize(
    ("client", "headers", "cause", "setting"),
    [
        (LOCAL, {"host": "sidecar:5600"}, "host", "api.hosts"),
        (LOCAL, {"origin": "https://evil.example"}, "origin", "web pages"),
        (("10.0.0.7", 1), {"host": "desk:5000"}, "peer", "api.peers"),
    ],
)
async def test_who_is_refused_reads_why_and_the_log_names_the_setting(
    client: tuple[str, int], headers: dict[str, str], cause: str, setting: str
) -> None:
    """A problem body for the caller; for the operator one record a minute and cause."""
    clock, sent = Clock(), list[Message]()

    async def app(*_: Any) -> None:
        raise AssertionError("nobody may get here")

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    callers = KnownCallers(app, PATHS, timer=clock.timer)
    raw = [(k.encode(), v.encode()) for k, v in {"host": "localhost", **headers}.items()]
    scope = {"type": "http", "method": "GET", "path": "/Validate", "headers": raw, "client": client}
    with capture_logs() as logs:
        for seconds in (0.0, 1.0, SILENCE - 1.0):
            clock.advance(seconds)
            await callers(dict(scope), receive, send)
    body = orjson.loads(sent[1]["body"])

    assert (403, "caller_not_allowed") == (sent[0]["status"], body["reason"])
    assert setting in body["detail"]
    assert [("caller refused", cause, client[0])] * 2 == [
        (line["event"], line["cause"], line["peer"]) for line in logs
    ]
    assert (headers.get("host", "localhost"), headers.get("origin")) == (
        logs[0]["host"],
        logs[0]["origin"],
    )
    assert setting in logs[0]["setting"]
