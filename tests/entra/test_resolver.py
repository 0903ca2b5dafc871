"""Name resolution: however long the system's resolver takes, a call waits as long as it may."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from authz.core.errors import ExchangeUnavailable
from authz.entra.http import HttpClient
from authz.entra.resolver import addresses
from support.programs.stack import World

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


class Resolver:
    """The system's resolver, which does not answer until it is released."""

    def __init__(self) -> None:
        self.answering = Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *_: Any, flags: int = 0, **__: Any) -> list[Any]:
        """Resolve a name."""
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        self.asked.append(host)
        self.answering.wait(30)
        if host == "unknown.example":
            raise socket.gaierror("no such name")
        return FOUND


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """A resolver that hangs."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answering.set()


def soon(seconds: float = 0.05) -> float:
    """The monotonic second until which to wait."""
    return time.monotonic() + seconds


def test_a_resolver_that_hangs_holds_no_call_past_its_time(
    world: World, resolver: Resolver
) -> None:
    """The call ends with the time to connect; what is said names the fault and not the whole address."""
    http = HttpClient(
        ca_file=Path(world.emulator.ca_file), connect_timeout=0.1, timeout=60, pool_size=2
    )
    with pytest.raises(ExchangeUnavailable) as caught:
        http.get("https://login.example/tenant")

    assert "login.example: DNS does not answer" == caught.value.detail


def test_callers_share_one_resolution(resolver: Resolver) -> None:
    """However many ask, one thread hangs; those who can still wait get its answer."""
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(addresses, "login.example", 443, end=soon(30)) for _ in range(4)]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                addresses("login.example", 443, end=soon())
        resolver.answering.set()
        found = [future.result() for future in waiting]

    assert [FOUND] * 4 == found
    assert ["login.example"] == resolver.asked


def test_an_answer_is_not_kept(resolver: Resolver) -> None:
    """The next connection asks again: addresses change."""
    resolver.answering.set()
    for _ in range(2):
        addresses("login.example", 443, end=soon(30))

    assert ["login.example"] * 2 == resolver.asked


def test_what_is_wrong_with_a_name_reaches_who_asked(resolver: Resolver) -> None:
    """Also the next time."""
    resolver.answering.set()
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="no such name"):
            addresses("unknown.example", 443, end=soon(30))


def test_an_address_needs_no_resolver() -> None:
    """It is read at once, however little time there is."""
    ((*_, address),) = addresses("127.0.0.1", 443, end=0.0)

    assert ("127.0.0.1", 443) == address


def test_a_thread_that_cannot_be_started_once_is_started_the_next_time() -> None:
    """Where the pod has used up its processes for a moment, the name is looked up again afterwards."""
    before = threading.stack_size(2**46)
    try:
        with pytest.raises(OSError, match="no thread"):
            addresses("localhost", 443, end=soon(10))
    finally:
        threading.stack_size(before)

    assert addresses("localhost", 443, end=soon(10))
