"""`Worker`: one of several processes that serve: started, watched, and replaced when it ends or hangs.

How many there are, and what they have in common, is `authz.process.supervisor`'s business.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import structlog

from authz.config import ConfigSource
from authz.process.seat import VARIABLE, WorkerSeat

FIRST_RESTART_DELAY: Final = 0.5
LONGEST_RESTART_DELAY: Final = 30.0
SILENCE: Final = 10.0
"""Seconds without a report after which a worker counts as not ready. It reports each second."""
MOST_SILENCES: Final = 3
"""Of these in a row, after which it is killed: as many failures as Kubernetes' liveness probe allows."""
LONGEST_START: Final = 300.0
"""Seconds until its first report: imports, and what the configuration needs."""
_MOMENT: Final = 0.5
_log = structlog.get_logger("authz.process.supervisor")


class Worker:
    """The process at one seat.

    Args:
        number: Of the seat.
        source: Where the configuration comes from, and the environment, which the process inherits.
        variables: More of the environment.
        address: Where it listens.
        lifeline: File descriptor that ends when the supervisor does.
        stopping: Set when no process is to be started any more.
        forget: Called with the id of a process that has ended.

    Attributes:
        ready: Whether it answers Checks, by its last report.
    """

    def __init__(
        self,
        number: int,
        source: ConfigSource,
        *,
        variables: Mapping[str, str],
        address: str,
        lifeline: int,
        stopping: asyncio.Event,
        forget: Callable[[int], None],
    ) -> None:
        self.number = number
        self.ready = False
        self._source = source
        self._variables = variables
        self._address = address
        self._lifeline = lifeline
        self._stopping = stopping
        self._forget = forget
        self._process: asyncio.subprocess.Process | None = None
        self._reports = False
        """Whether it has reported yet. Before that it has no handler for SIGHUP."""
        self._reload_wanted = False

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def keep_running(self) -> None:
        """Have a process at the seat until `stopping` is set and it has ended."""
        delay, loop = FIRST_RESTART_DELAY, asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            try:
                end: dict[str, Any] = {"status": await self._run()}
            except OSError as error:
                # No process, no memory or no descriptor is left, perhaps for a moment.
                end = {"cause": os.strerror(error.errno) if error.errno else type(error).__name__}
            self.ready = False
            if self._stopping.is_set():
                return
            lived = loop.time() - started
            delay = FIRST_RESTART_DELAY if lived > LONGEST_RESTART_DELAY else delay * 2
            delay = min(delay, LONGEST_RESTART_DELAY)
            what = "worker ended" if "status" in end else "worker not started"
            _log.error(what, seat=self.number, **end, restart_in=delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def reload(self) -> None:
        """Have the process look at the configuration, as soon as it handles SIGHUP."""
        if self._reports:
            self.signal(signal.SIGHUP)
        else:
            self._reload_wanted = True

    async def _run(self) -> int:
        """Start a process and wait for its end.

        Returns:
            Its exit status; negative for the signal that ended it.

        Raises:
            OSError: It cannot be started, or not be listened to.
        """
        self._reports = self._reload_wanted = False
        reading, writing = os.pipe()
        reports = os.fdopen(reading, "rb")
        try:
            process = self._process = await self._start(writing)
        except BaseException:
            reports.close()
            raise
        finally:
            os.close(writing)
        try:
            if self._stopping.is_set():
                process.terminate()
            await self._listen(reports)
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            self._process = None
            try:
                self._forget(process.pid)
            except OSError as error:
                cause = type(error).__name__
                _log.error("metrics of a worker are lost", seat=self.number, cause=cause)

    async def _start(self, writing: int) -> asyncio.subprocess.Process:
        arguments = ["-m", "authz", "serve"]
        if self._source.path is not None:
            arguments += ["--config", str(self._source.path)]
        seat = WorkerSeat(self._address, writing, self._lifeline)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            pass_fds=[writing, self._lifeline],
            env={**self._source.environ, **self._variables, VARIABLE: str(seat)},
        )

    async def _listen(self, reports: BinaryIO) -> None:
        """Note what the process reports until it closes its end. Kill it if it hangs."""
        stream = asyncio.StreamReader()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), reports
            )
        except BaseException:
            reports.close()
            raise
        # From now on it is the transport that closes the pipe.
        silences = 0
        try:
            while (line := await self._line(stream)) != b"":
                if line is None:
                    silences += 1
                    self._is_silent(silences)
                    continue
                silences = 0
                self.ready = line == b"1\n"
                self._reports = True
                if self._reload_wanted:
                    self._reload_wanted = False
                    self.reload()
        finally:
            transport.close()

    async def _line(self, stream: asyncio.StreamReader) -> bytes | None:
        """Return the next report, None if none comes in time, or an empty one at the end."""
        # The second wait is for reports that are there: this process may have been stopped itself.
        for patience in (SILENCE if self._reports else LONGEST_START, _MOMENT):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    return await stream.readline()
        return None

    def _is_silent(self, silences: int) -> None:
        self.ready = False
        killed = silences == MOST_SILENCES or not self._reports
        if killed:
            self.signal(signal.SIGKILL)
        if killed or silences == 1:
            _log.error("worker hangs", seat=self.number, pid=self.pid, killed=killed)
