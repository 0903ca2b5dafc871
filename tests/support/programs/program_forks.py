"""The interpreter behind `program`: imports what the verbs need, and forks for each start."""

import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

IMPORTED: Final = (
    "authz.cli.check_config",
    "authz.cli.envoy",
    "authz.cli.serve",
    "authz.envoy_config.bootstrap",
    "authz.process.app",
    "authz.process.supervisor",
)
"""What children have, with all that it imports."""


def serve(orders: socket.socket) -> bool:
    """Fork for each order until the other side is gone; True in a child, which is to run the program."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    reports: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(reports)
        if orders.fileno() in ready:
            text, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 3)
            if not text:
                return False
            stdout, stderr, report = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                become(json.loads(text), stdout, stderr)
                return True
            os.close(stdout)
            os.close(stderr)
            reports[pid] = socket.socket(fileno=report)
            reports[pid].send(str(pid).encode())


def _report(reports: dict[int, socket.socket]) -> None:
    """Tell the exit status of each child that has ended."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        # Nobody may wait any more.
        with reports.pop(pid) as report, suppress(BrokenPipeError):
            report.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(order: dict[str, Any], stdout: int, stderr: int) -> None:
    """Take over the descriptors, the environment, the folder and the arguments of a program."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    sys.argv = ["authz", *order["arguments"]]
    # A fresh interpreter draws its own numbers.
    random.seed()


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    # A collection in a child would copy every page of what all have.
    gc.collect()
    gc.freeze()
    sys.path[0] = str(Path.cwd())
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        runpy.run_module("authz", run_name="__main__", alter_sys=True)
