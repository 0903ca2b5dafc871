"""Two network namespaces of a test, joined by a wire: a pod, and all that is outside of it.

Rules of netfilter are set in here and nowhere else. What runs inside is started by `Namespace.command`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

POD: Final = ("10.200.0.1", "fd00:200::1")
ENTRA: Final = "10.200.0.2"
"""Entra, and Graph."""
OTHER: Final = ("10.200.0.3", "fd00:200::3")
"""A host that no route names."""

_TESTS: Final = Path(__file__).parents[2]
_TOOLS: Final = ("ip", "nft", "iptables", "setpriv", "curl")


def missing() -> str | None:
    """Return why there can be no namespaces here; None if there can."""
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return None if os.geteuid() == 0 else "only root makes namespaces"


@dataclass(frozen=True, slots=True)
class User:
    """Who runs a program, with what rights.

    Attributes:
        number: Of user and group.
        groups: Further groups.
        capabilities: Names without `cap_`. Only root has any.
    """

    number: int
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that he runs."""
        rights = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        groups = f"--groups={','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        return [
            "setpriv",
            *(f"--reuid={self.number}", f"--regid={self.number}", groups),
            *(f"--bounding-set={rights}", "--inh-caps=-all", "--no-new-privs"),
        ]


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace.

    Attributes:
        name: As `ip netns` knows it.
        hosts: A hosts file that counts for every command in it.
    """

    name: str = field(default_factory=lambda: f"authz-{uuid4().hex[:8]}")
    hosts: Path | None = None

    def add(self) -> None:
        """Make it."""
        subprocess.run(["ip", "netns", "add", self.name], check=True)

    def remove(self) -> None:
        """Remove it, and with it what it holds of the network."""
        subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def command(self, argv: Sequence[str | Path], user: User | None = None) -> list[str]:
        """Return a command that runs in here. Its process is the one that is started: it stays the same."""
        inside = [*(user.prefix if user else []), *map(str, argv)]
        if self.hosts is not None:
            bound = 'mount --bind "$0" /etc/hosts && exec "$@"'
            inside = ["sh", "-c", bound, str(self.hosts), *inside]
        return ["ip", "netns", "exec", self.name, *inside]

    @contextmanager
    def serving(self, module: str, *arguments: str | Path) -> Iterator[str]:
        """Run a module of the tests in here until the block ends; give the first line that it prints."""
        command = self.command([sys.executable, "-m", module, *arguments])
        with subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield process.stdout.readline().strip()
            finally:
                process.terminate()

    def run(
        self,
        *argv: str | Path,
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in here to its end, with no variable but the given ones and `PATH`."""
        return subprocess.run(
            self.command(argv, user),
            env={"PATH": os.environ["PATH"], **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    def do(self, *argv: str) -> str:
        """Run a command in here that must succeed, and return its output."""
        return self.run(*argv, check=True).stdout

    def set(self, setting: str, value: int) -> None:
        """Change a setting of the kernel's network for this namespace, named below `net`."""
        self.do("sh", "-c", 'echo "$0" > "/proc/sys/net/$1"', str(value), setting)


class Wire:
    """Both namespaces with their addresses, as a context manager.

    Args:
        hosts: Content of the pod's hosts file: address and name in each line.
        folder: Where the file goes; every user must be able to read it.

    Attributes:
        pod: Where the agent, Envoy and authz run.
        outside: Where servers run; the pod's default route leads there.
    """

    def __init__(self, hosts: Mapping[str, Sequence[str]], folder: Path) -> None:
        file = folder / "hosts"
        lines = [f"{address} {name}\n" for name, found in hosts.items() for address in found]
        file.write_text("127.0.0.1 localhost\n::1 localhost\n" + "".join(lines))
        self.pod = Namespace(hosts=file)
        self.outside = Namespace()

    def __enter__(self) -> Self:
        for namespace in (self.pod, self.outside):
            namespace.add()
        ends = ["eth0", "netns", self.pod.name, "type", "veth"]
        peer = ["peer", "name", "eth0", "netns", self.outside.name]
        subprocess.run(["ip", "link", "add", *ends, *peer], check=True)
        for namespace, addresses in ((self.pod, POD), (self.outside, (ENTRA, *OTHER))):
            namespace.do("ip", "link", "set", "lo", "up")
            namespace.do("ip", "link", "set", "eth0", "up")
            for address in addresses:
                length = "/64" if ":" in address else "/24"
                # Without the search for duplicates an address counts at once.
                more = ["nodad"] if ":" in address else []
                namespace.do("ip", "address", "add", address + length, "dev", "eth0", *more)
        for gateway, family in zip(OTHER, ("-4", "-6"), strict=True):
            self.pod.do("ip", family, "route", "add", "default", "via", gateway)
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (self.pod, self.outside):
            namespace.remove()
