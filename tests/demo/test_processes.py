"""Programs that the demo starts: what is said when one fails, and that each one ends."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authz_dev.demo.processes import (
    Interrupted,
    Interruption,
    Program,
    StartFailure,
    free_ports,
    wait_until_ready,
)


def program(folder: Path, code: str, ready: Callable[[], bool] = lambda: False) -> Program:
    """Return a program made of a piece of Python."""
    return Program("example", [sys.executable, "-c", code], log=folder / "log", ready=ready)


def test_program_that_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The message names the program, its status, and what it said last."""
    one = program(tmp_path, "import sys; print('first'); sys.exit('no such database')")
    one.start()

    with Interruption() as interruption, pytest.raises(StartFailure) as failure:
        wait_until_ready([one], interruption)

    assert str(failure.value) == (
        "example ended with status 1. The end of its log:\n  first\n  no such database"
    )


def test_command_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    """There is no process then, and a message instead of a traceback."""
    one = Program("example", [str(tmp_path / "none")], log=tmp_path / "log", ready=lambda: True)

    with pytest.raises(StartFailure, match="example cannot be run"):
        one.start()


def test_program_that_ignores_sigterm_is_ended_by_force(tmp_path: Path) -> None:
    """Nothing that was started outlives the demo."""
    marker = tmp_path / "deaf"
    one = program(
        tmp_path,
        "import signal, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(marker)!r}).touch(); signal.pause()",
        marker.exists,
    )
    one.start()
    with Interruption() as interruption:
        wait_until_ready([one], interruption)

    one.stop(0.2)

    assert one.status == -signal.SIGKILL


def test_signal_is_noticed_where_we_look_and_nowhere_else() -> None:
    """No handler raises, so no program can be lost between its start and the note of it."""
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as interrupted:
            interruption.pause(5)

    assert interrupted.value.number == signal.SIGTERM


def test_program_gets_no_proxy_and_no_settings_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the person's shell says of proxies and of this service is not the demo's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("AUTHZ_LISTEN_GRPC", "127.0.0.1:1")
    done = tmp_path / "done"
    one = program(
        tmp_path,
        f"import os, pathlib; print(sorted(os.environ)); pathlib.Path({str(done)!r}).touch(); "
        "import signal; signal.pause()",
        done.exists,
    )
    one.start()
    with Interruption() as interruption:
        wait_until_ready([one], interruption)
    one.stop()

    text = (tmp_path / "log").read_text()
    assert [name for name in ("HTTPS_PROXY", "AUTHZ_LISTEN_GRPC") if name in text] == []


def test_free_ports_are_different() -> None:
    """Each port of one call can be used beside the others."""
    ports = free_ports(20)

    assert len(set(ports)) == 20


def test_a_free_port_is_given_to_no_outgoing_connection() -> None:
    """A program may take a while to listen, and a load generator beside it opens many connections."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    assert [] == [port for port in free_ports(50) if first <= port <= last]
