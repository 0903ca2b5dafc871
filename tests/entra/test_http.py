"""The client of Entra's endpoints: one deadline and one allowance for a whole answer, whatever drips."""

import ctypes
import re
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import trustme

from authz.core.errors import EntraError, ExchangeUnavailable, Reason
from authz.entra import connections
from authz.entra.calls import Call
from authz.entra.http import MAX_ANSWER_BYTES, MAX_HEAD_BYTES, HttpClient
from authz_dev.emulator import Fault
from support.programs.stack import World, stack

TIMEOUT = 1.0


def client(ca_file: Path | str, *, timeout: float = TIMEOUT, **more: Any) -> HttpClient:
    """A client that trusts one authority."""
    more = {"connect_timeout": 5.0, "pool_size": 4, **more}
    return HttpClient(ca_file=Path(ca_file), timeout=timeout, **more)


def keys_url(world: World) -> str:
    """A document that every tenant has."""
    return f"{world.emulator.authority}/{world.tenant_id}/discovery/v2.0/keys"


def fault_of(call: Callable[[], object]) -> str:
    """What a call that fails says."""
    with pytest.raises(ExchangeUnavailable) as caught:
        call()
    return caught.value.detail


@pytest.mark.parametrize("part", ["head", "chunk", "body"])
def test_a_part_that_drips_ends_with_the_calls_time(world: World, part: str) -> None:
    """Each byte comes well in time, the answer does not: the call ends, and says why."""
    http = client(world.emulator.ca_file)
    world.emulator.faults.add(Fault("drip", "jwks", part=part, seconds=0.05))
    started = time.monotonic()

    fault = fault_of(lambda: http.get(keys_url(world)))

    assert "127.0.0.1: the answer took over 1 s" == fault
    assert time.monotonic() - started < 10 * TIMEOUT


@pytest.mark.parametrize(
    ("lines", "width"), [(90, 60_000), (2, MAX_HEAD_BYTES), (100_000, 20)], ids=str
)
def test_heads_are_bounded_together(world: World, lines: int, width: int) -> None:
    """Long lines and many lines: no more is read than a head may take."""
    http = client(world.emulator.ca_file, timeout=30)
    world.emulator.faults.add(Fault("heads", "jwks", lines=lines, width=width, count=1))
    world.emulator.faults.add(Fault("down", "jwks", count=1))

    assert fault_of(lambda: http.get(keys_url(world))).startswith("127.0.0.1: ")
    assert ["down"] == [fault.kind for fault in world.emulator.faults.active()]


def test_a_head_that_is_large_but_sane_is_taken(world: World) -> None:
    """The bound is far from what servers send."""
    http = client(world.emulator.ca_file, timeout=30)
    world.emulator.faults.add(Fault("heads", "jwks", lines=30, width=1000))

    assert "{}" == http.get(keys_url(world)).text


class Wire:
    """A TLS server of one test: what it does with a connection is the test's."""

    def __init__(self, serve: Callable[[ssl.SSLSocket, int], None], folder: Path) -> None:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes()
        self.ca_file = folder / "wire-ca.pem"
        self.ca_file.write_bytes(self.ca_pem)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self.accepted = 0
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/"
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            number, self.accepted = self.accepted, self.accepted + 1
            Thread(target=self._answer, args=(plain, number), daemon=True).start()

    def _answer(self, plain: socket.socket, number: int) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as wire:
                self._serve(wire, number)
        except OSError:
            pass

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


@contextmanager
def wire(serve: Callable[[ssl.SSLSocket, int], None], folder: Path) -> Iterator[Wire]:
    """A server for the block."""
    server = Wire(serve, folder)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def dripping(start: bytes) -> Iterator[int]:
    """The port of a server that sends a start at once, and then a byte now and then, for ever."""
    over = Event()

    def drip() -> None:
        peer, _ = listener.accept()
        with peer, suppress(OSError):
            peer.sendall(start)
            while not over.wait(0.05):
                peer.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=drip, daemon=True).start()
        yield listener.getsockname()[1]
        over.set()


def read_request(wire: ssl.SSLSocket) -> bytes:
    """Read one request with its body; nothing once there is none."""
    request = b""
    while part := wire.recv(65536):
        request += part
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request


class Tempting:
    """A server that would take whatever a redirect brings, and remembers it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def serve(self, wire: ssl.SSLSocket, _: int) -> None:
        """Answer everything."""
        while request := read_request(wire):
            self.received.append(request)
            wire.sendall(OK)


def trusting(folder: Path, *authorities: bytes) -> Path:
    """A file of several authorities."""
    file = folder / "authorities.pem"
    file.write_bytes(b"".join(authorities))
    return file


def asking(http: HttpClient, method: str, url: str) -> Callable[[], object]:
    """A request as MSAL makes it: a document, or a form with a secret."""
    return (
        (lambda: http.get(url))
        if method == "GET"
        else (lambda: http.post(url, data={"client_secret": "the secret"}))
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int, method: str) -> None:
    """Not to another host, and not to another path of the same one: the target listens, and hears nothing."""
    asked: list[bytes] = []
    tempting, location = Tempting(), [""]

    def redirect(wire: ssl.SSLSocket, _: int) -> None:
        while request := read_request(wire):
            asked.append(request)
            head = f"HTTP/1.1 {status} Elsewhere\r\nlocation: {location[0]}\r\n"
            wire.sendall(f"{head}content-length: 0\r\n\r\n".encode())

    with wire(redirect, tmp_path) as server, wire(tempting.serve, tmp_path) as target:
        http = client(trusting(tmp_path, server.ca_pem, target.ca_pem))
        asking(http, method, target.url)()
        reached = len(tempting.received)
        faults = []
        for elsewhere in (target.url, f"{server.url}elsewhere"):
            location[0] = elsewhere
            faults.append(fault_of(asking(http, method, server.url)))

    assert 1 == reached == len(tempting.received)
    assert [f"127.0.0.1: status {status}"] * 2 == faults
    assert 2 == len(asked)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("token", [Reason.EXCHANGE_UNAVAILABLE, Reason.EXCHANGE_UNAVAILABLE]),
        ("discovery", [Reason.KEYS_UNAVAILABLE, Reason.EXCHANGE_UNAVAILABLE]),
        ("jwks", [Reason.KEYS_UNAVAILABLE, None]),
    ],
)
async def test_a_redirect_by_entra_gets_no_secret(
    world: World, tmp_path: Path, endpoint: str, expected: list[Reason | None]
) -> None:
    """With MSAL and the whole service: no secret, no user's token and no trust in keys moves."""
    tempting = Tempting()
    with wire(tempting.serve, tmp_path) as target:
        document = world.config()
        document["entra"]["ca_file"] = str(
            trusting(tmp_path, world.emulator.ca_file.read_bytes(), target.ca_pem)
        )
        world.emulator.faults.add(Fault("redirect", endpoint, location=target.url))
        async with stack(world, document=document, keys=endpoint == "token") as service:
            token = world.token(audience=world.reports["client_id"], scopes=None)
            records = [await service.egress("app-obo", token), await service.egress("autonomous")]

    assert [] == tempting.received
    assert expected == [getattr(record.decision, "reason", None) for record in records]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("scheme", ["http", "HTTP", "ftp"])
def test_nothing_is_sent_without_tls(world: World, scheme: str, method: str) -> None:
    """A server that listens for plain HTTP is not even connected to, unless it is the host's own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/token"

        fault = fault_of(asking(client(world.emulator.ca_file), method, url))

        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "refusing to talk to 127.0.0.1 without TLS" == fault


def test_only_a_client_for_the_host_itself_speaks_plain_http(world: World) -> None:
    """The metadata service has no TLS; such a client is made for nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        fault_of(lambda: client(world.emulator.ca_file, plain_http=True).get(url))

        listener.setblocking(False)
        accepted, _ = listener.accept()
        accepted.close()


OK = b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"a": 1}'


def answer_once_then(
    end: Callable[[ssl.SSLSocket], None],
) -> Callable[[ssl.SSLSocket, int], None]:
    """Answer the first request of the first connection, and end its second; serve the others."""

    def serve(wire: ssl.SSLSocket, number: int) -> None:
        while wire.recv(65536):
            wire.sendall(OK)
            if number == 0 and wire.recv(65536):
                end(wire)
                return

    return serve


def test_a_kept_connection_that_died_costs_a_second_request(tmp_path: Path) -> None:
    """It is closed as it is used again, before any byte of an answer: nobody sees it."""
    with wire(answer_once_then(lambda _: None), tmp_path) as server:
        http = client(server.ca_file)

        answers = [http.get(server.url).text for _ in range(3)]

        assert ['{"a": 1}'] * 3 == answers
        assert 2 == server.accepted


def forget(wire: ssl.SSLSocket) -> None:
    """Drop whatever comes for a connection, as a middlebox does that has forgotten it: no reset, no word."""
    drop_everything = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop_everything))
    wire.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's filters of sockets")
def test_a_kept_connection_that_was_forgotten_costs_a_second_request(tmp_path: Path) -> None:
    """Nothing comes back, not even a reset: the kernel notices, long before the call's time is over."""
    over = Event()

    def serve(wire: ssl.SSLSocket, number: int) -> None:
        while wire.recv(65536):
            wire.sendall(OK)
            if number == 0:
                forget(wire)
                over.wait(60)

    with wire(serve, tmp_path) as server:
        http = client(server.ca_file, timeout=60, connect_timeout=0.5)

        answers = [http.get(server.url).text for _ in range(2)]
        over.set()

        assert ['{"a": 1}'] * 2 == answers
        assert 2 == server.accepted


def test_a_kept_connection_that_swallows_requests_costs_a_second_one(tmp_path: Path) -> None:
    """Something on the way confirms what is sent and passes nothing on: no kernel notices, only the time."""
    over = Event()

    def serve(wire: ssl.SSLSocket, number: int) -> None:
        while wire.recv(65536):
            wire.sendall(OK)
            if number == 0:
                over.wait(60)

    with wire(serve, tmp_path) as server:
        http = client(server.ca_file, timeout=60)
        answers = [http.get(server.url).text]
        with Call.within(needed_in=2.0, ends_in=60.0).running():
            answers.append(http.get(server.url).text)
        over.set()

        assert ['{"a": 1}'] * 2 == answers
        assert 2 == server.accepted


class Slow:
    """A server that takes its time for one path, and counts what is asked."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.asked: Counter[str] = Counter()

    def __call__(self, wire: ssl.SSLSocket, _: int) -> None:
        """Serve one connection."""
        while request := wire.recv(65536):
            path = request.split(b" ")[1].decode()
            self.asked[path] += 1
            if path.startswith("/slow"):
                Event().wait(self._seconds)
            wire.sendall(OK)


def test_an_endpoint_that_is_slow_is_not_asked_twice_each_time(tmp_path: Path) -> None:
    """A new connection was no quicker, so kept ones are waited for, until the endpoint may be quick again."""
    slow = Slow(2.0)
    with wire(slow, tmp_path) as server:
        http = client(server.ca_file, timeout=60)
        with Call.within(needed_in=2.0, ends_in=60.0).running():
            http.get(f"{server.url}slow/1")
            http.get(f"{server.url}slow/2")
        with Call.within(needed_in=2.0, ends_in=60.0).running():
            http.get(f"{server.url}slow/3")

    assert {"/slow/1": 1, "/slow/2": 2, "/slow/3": 1} == slow.asked


@pytest.mark.parametrize("needed_in", [0.1, -1.0])
def test_a_check_that_is_nearly_over_makes_nobody_impatient(
    tmp_path: Path, needed_in: float
) -> None:
    """The answer is on its way, and is kept for the next Check: it is asked for once."""
    slow = Slow(0.3)
    with wire(slow, tmp_path) as server:
        http = client(server.ca_file, timeout=60)
        http.get(f"{server.url}quick")
        with Call.within(needed_in=needed_in, ends_in=60.0).running():
            http.get(f"{server.url}slow")

    assert {"/quick": 1, "/slow": 1} == slow.asked


def test_an_endpoint_that_is_slow_costs_no_other_its_connections(tmp_path: Path) -> None:
    """Law 8: only a connection that was proved dead casts doubt on those beside it."""
    slow = Slow(2.0)
    with wire(slow, tmp_path) as server:
        http = client(server.ca_file, timeout=60)
        http.get(f"{server.url}quick")
        with Call.within(needed_in=2.0, ends_in=60.0).running():
            http.get(f"{server.url}slow/1")
        before = server.accepted
        http.get(f"{server.url}quick")

    assert [2, 2] == [before, server.accepted]
    assert {"/quick": 2, "/slow/1": 2} == slow.asked


def test_an_answer_that_began_is_not_asked_for_again(tmp_path: Path) -> None:
    """After its first byte a server may have done what was asked."""
    with wire(answer_once_then(lambda w: w.sendall(b"HTTP/1.1 200")), tmp_path) as server:
        http = client(server.ca_file)
        http.get(server.url)

        fault_of(lambda: http.get(server.url))

        assert 1 == server.accepted


def test_a_new_connection_that_dies_is_not_repeated_here(tmp_path: Path) -> None:
    """Only a kept one may have been dead before the request: whoever asks decides about all else."""

    def hang_up(wire: ssl.SSLSocket, _: int) -> None:
        wire.recv(65536)

    with wire(hang_up, tmp_path) as server:
        fault_of(lambda: client(server.ca_file).get(server.url))

        assert 1 == server.accepted


def test_kept_connections_are_all_distrusted_when_one_was_dead(tmp_path: Path) -> None:
    """What takes one idle connection takes those that were idle beside it."""
    together = 4
    all_are_there = Barrier(together)
    tried_again: list[int] = []

    def serve(wire: ssl.SSLSocket, number: int) -> None:
        wire.recv(65536)
        if number < together:
            all_are_there.wait(10)
        wire.sendall(OK)
        while wire.recv(65536):
            tried_again.append(number)
            if number < together:
                return
            wire.sendall(OK)

    with wire(serve, tmp_path) as server:
        http = client(server.ca_file, timeout=10)
        threads = [Thread(target=http.get, args=(server.url,)) for _ in range(together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        answers = [http.get(server.url).text for _ in range(together)]

        assert ['{"a": 1}'] * together == answers
        assert 1 == len([number for number in tried_again if number < together])


def test_a_connection_is_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was idle for longer than networks remember is replaced, not tried."""

    def serve(wire: ssl.SSLSocket, _: int) -> None:
        while wire.recv(65536):
            wire.sendall(OK)

    with wire(serve, tmp_path) as server:
        http = client(server.ca_file)
        http.get(server.url)
        http.get(server.url)
        before = server.accepted
        monkeypatch.setattr(connections, "LONGEST_IDLE", 0.0)
        http.get(server.url)

        assert [1, 2] == [before, server.accepted]


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
        pytest.param(b"1;" + b"x" * 1000 + b"\r\nx\r\n", id="chunk lines"),
        pytest.param(b"0\r\n" + b"x: y\r\n" * 1000, id="trailers"),
    ],
)
def test_whatever_comes_without_an_end_is_given_up(tmp_path: Path, flood: bytes) -> None:
    """Bytes count wherever they stand, also where they are no part of head or body."""

    def serve(wire: ssl.SSLSocket, _: int) -> None:
        wire.recv(65536)
        if not flood.startswith(b"HTTP"):
            wire.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            wire.sendall(flood)

    with wire(serve, tmp_path) as server:
        fault = fault_of(lambda: client(server.ca_file, timeout=60).get(server.url))

        assert "too large" in fault or str(MAX_ANSWER_BYTES) in fault


def test_a_handshake_that_drips_ends_with_the_time_to_connect(tmp_path: Path) -> None:
    """TLS is part of connecting, however slowly its records come."""
    with wire(lambda *_: None, tmp_path) as server, dripping(b"\x16\x03\x03\x40\x00") as port:
        http = client(server.ca_file, timeout=30, connect_timeout=0.5)
        started = time.monotonic()

        fault_of(lambda: http.get(f"https://127.0.0.1:{port}/"))

        assert time.monotonic() - started < 15


def test_a_proxy_that_drips_ends_with_the_calls_time(tmp_path: Path) -> None:
    """The proxy's answer to CONNECT is an answer like any other."""
    start = b"HTTP/1.1 200 OK\r\nx: "
    with wire(lambda *_: None, tmp_path) as server, dripping(start) as port:
        http = client(server.ca_file, proxy=f"http://127.0.0.1:{port}")

        assert "the answer took over 1 s" in fault_of(lambda: http.get(server.url))


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with a dead address first is reached by its second one, in the time of one attempt."""
    dead = socket.create_server(("127.0.0.2", 0), backlog=0)
    with dead, socket.create_connection(dead.getsockname()):
        port = int(world.emulator.authority.rpartition(":")[2])
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", dead.getsockname()),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        http = client(world.emulator.ca_file, timeout=10, connect_timeout=2)

        assert "keys" in http.get(keys_url(world)).text


HOUR = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:37 GMT"


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        pytest.param(429, {"retry-after": "17"}, 17, id="seconds"),
        pytest.param(429, {"retry-after": "7200"}, 3600, id="an hour at most"),
        pytest.param(503, {"retry-after": "7200"}, 120, id="of an outage two minutes"),
        pytest.param(429, {"retry-after": "9" * 5000}, 3600, id="endless digits"),
        pytest.param(429, {"retry-after": "1784-01-01"}, 1, id="no HTTP date"),
        pytest.param(429, {"retry-after": "-3"}, 1, id="less than nothing"),
        pytest.param(429, {"retry-after": "soon"}, 1, id="words"),
        pytest.param(429, {}, 1, id="nothing"),
        pytest.param(503, {}, None, id="nothing, of an outage"),
        pytest.param(429, {"retry-after": HOUR[1], "date": HOUR[0]}, 3600, id="a date"),
        pytest.param(503, {"retry-after": HOUR[0], "date": HOUR[1]}, 0, id="a date before now"),
        pytest.param(503, {"retry-after": HOUR[0], "date": "now"}, 0, id="a date, by our own clock"),
        pytest.param(
            429, {"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359", "date": HOUR[0]}, 3600, id="the last date"
        ),
        pytest.param(
            429, {"retry-after": "Fri, 31 Dec 99999999999999 23:59:59 GMT"}, 1, id="beyond dates"
        ),
    ],
)  # fmt: skip
def test_each_form_of_retry_after_is_understood_or_ignored(
    tmp_path: Path, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    """Seconds or a date (RFC 9110 section 10.2.3), which is counted from the answer's own date."""
    lines = [f"HTTP/1.1 {status} No", "content-length: 2", *map(": ".join, headers.items())]
    answer = "".join(f"{line}\r\n" for line in lines) + "\r\n{}"

    def refuse(wire: ssl.SSLSocket, _: int) -> None:
        read_request(wire)
        wire.sendall(answer.encode())

    with wire(refuse, tmp_path) as server, pytest.raises(EntraError) as caught:
        client(server.ca_file).get(server.url)

    assert seconds == caught.value.retry_after
