"""Programs that the demo starts: each with a log, a wait until it is ready, and a certain end."""

import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, Self

LONGEST_START: Final = 20.0
"""Seconds after which a program that is not ready will not become so."""

POLL: Final = 0.02
TAIL_LINES: Final = 20
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST_PORT: Final = 10_240
_GIVEN_OUT: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_FIRST_GIVEN_OUT: Final = 32_768
"""Of Linux; other systems begin higher."""
_ATTEMPTS: Final = 1000
_CHANCE: Final = random.SystemRandom()
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


class StartFailure(Exception):
    """A program did not come up; the message says which, why, and what its log says."""


class Interrupted(Exception):
    """We were asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered; `check` turns them into `Interrupted`.

    A handler that raises could do so between the start of a program and the note that it was started,
    or in the middle of cleaning up. So nothing is raised but where we look. And we wait for a socket that
    the interpreter writes to: a handler runs in the thread that waits, which might never get to it.
    """

    def __init__(self) -> None:
        self._asked, self._asking = socket.socketpair()
        self._number = 0
        self._before: dict[int, signal.Handlers | Callable[..., object] | int | None] = {}

    def __enter__(self) -> Self:
        self._asking.setblocking(False)
        signal.set_wakeup_fd(self._asking.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in _ENDING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._asked.close()
        self._asking.close()

    def check(self) -> None:
        """Go on, unless we were asked to end.

        Raises:
            Interrupted: We were.
        """
        if self._number:
            raise Interrupted(self._number)

    def pause(self, seconds: float) -> None:
        """Wait; raises Interrupted as soon as we are asked to end."""
        select.select([self._asked], [], [], seconds)
        self.check()

    def wait(self) -> None:
        """Wait until we are asked to end."""
        select.select([self._asked], [], [])

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = number


class Program:
    """One program that we start and stop, as often as needed.

    Args:
        name: What it is called in messages.
        command: What to run.
        log: File that takes its output.
        ready: Whether it can be used; asked until it is.
        environ: Its environment, besides the few variables every program needs.
        group: The process group that it joins; by default it gets a session of its own.
        folder: Where it is started; by default where its log is.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
        group: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._ready = ready
        self._environ = {**_inherited(), "PYTHONUNBUFFERED": "1", **(environ or {})}
        self._group = group
        self._folder = folder or log.parent
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self) -> None:
        """Run it, without waiting.

        Raises:
            StartFailure: There is no such program.
        """
        self._started_at = time.monotonic()
        with self.log.open("ab") as log:
            try:
                # In another process group: Ctrl-C is for us, and we end the programs in order.
                self._process = subprocess.Popen(  # noqa: S603 - of the demo itself
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    cwd=self._folder,
                    start_new_session=self._group is None,
                    process_group=self._group,
                )
            except OSError as error:
                raise StartFailure(f"{self.name} cannot be run: {error}") from error

    def came_up(self) -> float | None:
        """Return the seconds from start to readiness, or None when it is not ready yet.

        Raises:
            StartFailure: It ended, or takes too long.
        """
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise self._failure(f"ended with status {status}")
        ready = self._ready()
        seconds = time.monotonic() - self._started_at
        if not ready and seconds > LONGEST_START:
            raise self._failure(f"was not ready after {LONGEST_START:.0f} s")
        return seconds if ready else None

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, seconds: float = 5.0) -> None:
        """End it, by force if it takes longer."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def status(self) -> int | None:
        """Its exit status, or None when it has not ended or not begun."""
        return None if self._process is None else self._process.poll()

    def _failure(self, what: str) -> StartFailure:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        tail = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        return StartFailure(f"{self.name} {what}. The end of its log:\n{tail}")


def wait_until_ready(
    programs: Sequence[Program],
    interruption: Interruption,
    announce: Callable[[Program, float], None] = lambda _, __: None,
) -> None:
    """Wait until every program can be used; `announce` is called for each, with its seconds.

    Raises:
        StartFailure: One ended, or took too long.
        Interrupted: We were asked to end.
    """
    awaited = list(programs)
    while awaited:
        for program in tuple(awaited):
            seconds = program.came_up()
            if seconds is not None:
                awaited.remove(program)
                announce(program, seconds)
        interruption.pause(POLL)


def wait_until(condition: Callable[[], bool], program: Program, interruption: Interruption) -> None:
    """Wait for something that a running program is about to do.

    Raises:
        StartFailure: It ended, or takes too long.
        Interrupted: We were asked to end.
    """
    deadline = time.monotonic() + LONGEST_START
    while not condition():
        if program.status is not None or time.monotonic() > deadline:
            raise StartFailure(f"{program.name} did not take the new configuration")
        interruption.pause(POLL)


def stop_all(programs: Sequence[Program]) -> None:
    """End every program, all at the same time."""
    for program in programs:
        program.terminate()
    for program in programs:
        program.stop()


def free_ports(count: int) -> list[int]:
    """Return that many different TCP ports of the loopback address which nobody uses now.

    The system gives none of them to a connection that goes out, so they are free a moment later too.

    Raises:
        StartFailure: There are not that many.
    """
    found: set[int] = set()
    below = _first_given_out()
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            break
        port = _CHANCE.randrange(_FIRST_PORT, below)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    if len(found) < count:
        raise StartFailure(f"found {len(found)} free ports of 127.0.0.1: expected {count}")
    return list(found)


def _first_given_out() -> int:
    """Return the first of the ports that the system gives to outgoing connections."""
    try:
        first = int(_GIVEN_OUT.read_text().split()[0])
    except OSError:
        first = _USUAL_FIRST_GIVEN_OUT
    return max(first, _FIRST_PORT + 1000)


def _inherited() -> dict[str, str]:
    """Return what programs need of our own environment: no proxies, no credentials, no settings."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
