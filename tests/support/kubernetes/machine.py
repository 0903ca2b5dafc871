"""`Machine`: network, mounts and processes of one's own, for programs that take a whole machine for theirs.

What is started by `Machine.command` ends with it, however it was started; interfaces, netfilter rules, mounts
and control groups are gone then too. What is written to `/run` and `/var` stays in its folder.
"""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

ADDRESS: Final = "10.250.0.1"
"""The machine's address, on a wire that leads nowhere."""
SERVICE: Final = "10.96.0.10"
"""A second one, among those of Services."""

_CGROUPS: Final = Path("/sys/fs/cgroup")
_REMOVED_WITHIN: Final = 10.0
_TESTS: Final = Path(__file__).parents[2]
_SETUP: Final = """
set -e
mkdir -p "$0/var" "$0/work"
mount -t overlay -o "lowerdir=/var,upperdir=$0/var,workdir=$0/work" overlay /var
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount --make-rshared /
ip link set lo up
ip link add wire type veth peer name nowhere
ip link set nowhere up
ip link set wire up
ip address add "$1/24" dev wire
ip address add "$2/32" dev lo
ip route add default dev wire
echo 1 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
"""


class Machine:
    """A context manager. Only root can make one.

    Args:
        folder: Keeps what is written to `/var`.

    Attributes:
        group: Name of its control group, below the root of each controller.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._init: subprocess.Popen[str] | None = None
        self._number = ""
        self.group = f"authz-{uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        spaces = ["--mount", "--net", "--pid", "--propagation", "private"]
        command = ["unshare", *spaces, "--fork", "--kill-child", "--mount-proc", "sh", "-c", _SETUP]
        self._init = subprocess.Popen(
            [*command, str(self._folder), ADDRESS, SERVICE], stdout=subprocess.PIPE, text=True
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            raise RuntimeError(f"no namespaces: exit status {self._init.wait()}")
        parent = self._init.pid
        for controller in _controllers():
            (controller / self.group).mkdir()
        self._number = Path(f"/proc/{parent}/task/{parent}/children").read_text().strip()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._init is not None:
            with self._init:
                self._init.kill()
            self._remove_groups()

    def _remove_groups(self) -> None:
        """Remove them as soon as the last process is out of them."""
        end, pause = monotonic() + _REMOVED_WITHIN, Event()
        left = [controller / self.group for controller in _controllers()]
        while left and monotonic() < end:
            for root in left:
                for folder in (*sorted(root.rglob("*/"), reverse=True), root):
                    with suppress(OSError):
                        folder.rmdir()
            left = [root for root in left if root.exists()]
            pause.wait(0.05)

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """Return a command that runs on this machine, in the folder of the tests."""
        enter = ["nsenter", "--target", self._number, "--mount", "--net", "--pid"]
        enter.append(f"--wdns={_TESTS}")
        return [*enter, "--", *map(str, argv)]


def _controllers() -> list[Path]:
    """Return the roots of control groups, of either version."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path.parent for path in _CGROUPS.glob("*/cgroup.procs")]
