"""`python -m authz` as a process of its own: a fresh interpreter, or a fork of one with imports done.

Imports are most of what a start costs. With `--quick` an interpreter of each pytest process imports what the
verbs need, and forks: a child has its own arguments, environment, descriptors and memory, and runs the same
`__main__`. `make test-all` starts a fresh interpreter each time.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from hypothesis import settings

_TESTS: Final = Path(__file__).parents[2]
_EARLY: Final = ("PYTHON", "MALLOC", "GRPC_", "LD_", "OPENSSL", "PROMETHEUS")
"""Variables that count when an interpreter starts or imports, and so need a fresh one."""


class Running(Protocol):
    """What tests do with a process; as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


def start(
    *arguments: str,
    stdout: int,
    stderr: int,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    forked: bool | None = None,
) -> Running:
    """Start `authz` with these arguments.

    Args:
        arguments: Arguments of the program.
        stdout: Descriptor for standard output.
        stderr: Descriptor for standard error.
        environ: Environment variables on top of this process's.
        folder: Where it starts; None for this process's folder.
        forked: Whether it is a fork; None for what the tests were started for.
    """
    more = environ or {}
    env = {**os.environ, **more}
    where = folder or Path.cwd()
    fork = quick() if forked is None else forked
    if fork and not any(name.startswith(_EARLY) for name in more):
        return _Fork(_interpreter().orders, arguments, env, where, stdout, stderr)
    command = [sys.executable, "-m", "authz", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=env, cwd=where)


def run(
    *arguments: str | Path,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    forked: bool | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `authz` with these arguments to its end and return what it printed."""
    command = list(map(str, arguments))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(
            *command,
            stdout=out.fileno(),
            stderr=err.fileno(),
            environ=environ,
            folder=folder,
            forked=forked,
        )
        try:
            status = process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def quick() -> bool:
    """Whether these are the tests of `make test`."""
    return settings.get_current_profile_name() == "quick"


class _Interpreter:
    """The interpreter that forks. It ends when its socket is closed."""

    def __init__(self) -> None:
        self.orders, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.programs.program_forks", str(its.fileno())],
                cwd=_TESTS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )

    def close(self) -> None:
        """End it; its children have been waited for."""
        self.orders.close()
        self._process.wait(20)


@cache
def _interpreter() -> _Interpreter:
    return _Interpreter()


def close() -> None:
    """End what starts programs here, if something does."""
    if _interpreter.cache_info().currsize:
        _interpreter().close()
        _interpreter.cache_clear()


class _Fork:
    """A fork of the interpreter, which tells its exit status through a socket."""

    def __init__(
        self,
        interpreter: socket.socket,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        folder: Path,
        stdout: int,
        stderr: int,
    ) -> None:
        self._told, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"arguments": arguments, "environ": env, "folder": str(folder)}
        with its:
            descriptors = [stdout, stderr, its.fileno()]
            socket.send_fds(interpreter, [json.dumps(order).encode()], descriptors)
        self.pid = int(self._told.recv(16))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("authz", timeout or 0)
            self.returncode = int(self._told.recv(16))
            self._told.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)
