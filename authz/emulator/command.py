"""`authz emulator`: runs the emulator until it is told to end."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from authz.emulator.service import Emulator

_LAST_PORT = 65_535


def run(listen: str, out: Path) -> int:
    """Serve on `listen` (HOST:PORT), leave `ca.pem` and `emulator.json` in `out`, and block.

    Prints one line when ready. Returns 0 after SIGTERM or SIGINT, 2 (with one line on standard
    error) when the address or the directory cannot be used.
    """
    try:
        host, port = _address(listen)
    except ValueError as error:
        return _fail(f"--listen {listen}: {error}")
    done = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: done.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        emulator = Emulator(host=host, port=port)
        try:
            emulator.start()
        except OSError as error:
            return _fail(f"--listen {listen}: {error.strerror or error}")
        try:
            emulator.write(out)
        except OSError as error:
            emulator.stop()
            return _fail(f"--out {out}: {error.strerror or error}")
        click.echo(f"emulator ready: {emulator.authority} (files in {out})")
        done.wait()
        emulator.stop()
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host:
        raise ValueError("must be HOST:PORT")
    if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise ValueError("the port must be a number from 0 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _fail(message: str) -> int:
    click.echo(f"authz emulator: {message}", err=True)
    return 2
