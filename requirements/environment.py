"""Makes a virtual environment and installs pinned, hashed packages into it: `environment.py demo`.

uv installs them: it is pinned by hash itself, and pip fetches it. Where there is no uv, pip installs, by the
same hashes. Each step is named before it starts, and says every few seconds how far it is. `machine` has the
supported machines, `failures` what can go wrong, `terminal` what is shown meanwhile. The standard library
alone is used: this runs before anything is installed.
"""

from __future__ import annotations

import ast
import os
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

import machine
from failures import CommandFailure, Failure, is_untrusted, raise_if_changed, raise_if_clear, reason
from terminal import QUIET, Terminal

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements"


class Packages(NamedTuple):
    """A set of packages.

    Attributes:
        folder: The environment that they are installed into.
        file: Their pins, in `requirements/`.
        project: Whether the project itself is installed as well, editable.
        alone: Whether everything else is removed from the environment.
    """

    folder: str
    file: str
    project: bool
    alone: bool


SETS = {
    "demo": Packages(".venv", "demo.txt", project=True, alone=False),
    "dev": Packages(".venv", "dev.txt", project=True, alone=True),
    "system": Packages(".venv", "system.txt", project=False, alone=False),
    "recipes": Packages(".venv-recipes", "recipes.txt", project=False, alone=True),
}


class Environment:
    """A virtual environment.

    Args:
        folder: Where it is.
        terminal: Where steps are named.
    """

    def __init__(self, folder: Path, terminal: Terminal) -> None:
        self._folder = folder
        self._terminal = terminal
        self._python = str(folder / "bin/python")
        # While it is there, nothing is known about what is in the folder.
        self._unfinished = folder / ".unfinished"
        self._trust: dict[str, str] = {}
        self.is_new = False

    def prepare(self) -> None:
        """Make it, unless a complete one of the same Python is there.

        Raises:
            Failure: This Python cannot make one.
        """
        version = ".".join(map(str, sys.version_info[:3]))
        self._terminal.step(f"virtual environment {self._folder.name} (Python {version})")
        if not self._is_usable():
            self.make()
        self._unfinished.touch()

    def make(self) -> None:
        """Make it, empty.

        Raises:
            Failure: This Python cannot make one.
        """
        # Make puts the environment's own folder first in the path: its Python is no start for a new one.
        base = getattr(sys, "_base_executable", None) or sys.executable
        self._folder.mkdir(exist_ok=True)
        try:
            self._run([base, "-m", "venv", "--clear", str(self._folder)], "making it")
        except CommandFailure as failure:
            advice = "this Python cannot make virtual environments; on Debian install python3-venv"
            raise Failure(f"{advice}\n{failure}") from failure
        self._unfinished.touch()
        self.is_new = True

    def finish(self) -> None:
        """Note that all is there."""
        self._unfinished.unlink()

    def has_uv(self) -> bool:
        """Fetch the pinned uv, unless it is there; tell whether it can be used.

        Raises:
            Failure: No package index can be reached, or what it sent is not what is pinned.
        """
        self._terminal.step("the installer uv, pinned by its hash")
        pins = PINS / "installer.txt"
        if self._is_uv(re.findall(r"^uv==(\S+)", pins.read_text(), re.MULTILINE)):
            return True
        try:
            self._pip(pins, "fetching it")
        except CommandFailure as failure:
            raise_if_clear(failure)
            print("    not for this machine: pip installs, which takes longer", flush=True)
            return False
        return True

    def install_by_uv(self, pins: Path, *, alone: bool) -> bool:
        """Install; tell whether that worked.

        Raises:
            Failure: What the index sent is not what is pinned.
        """
        verb = "sync" if alone else "install"
        arguments = ["pip", verb, "--require-hashes", "--only-binary", ":all:"]
        arguments += [] if verb == "sync" else ["--requirement"]
        try:
            self._uv([*arguments, str(pins)])
        except CommandFailure as failure:
            raise_if_changed(failure)
            print(f"    uv failed ({reason(failure)}): pip tries, which takes longer", flush=True)
            return False
        return True

    def install_by_pip(self, pins: Path, *, alone: bool) -> None:
        """Install by pip.

        Raises:
            Failure: It did not work.
        """
        if alone and not self.is_new:
            self.make()
        try:
            self._pip(pins, "reading the list")
        except CommandFailure as failure:
            raise_if_clear(failure)
            raise Failure(f"pip could not install {pins.name}:\n{failure}") from failure

    def install_project(self, *, by_uv: bool) -> None:
        """Install the project itself, as a link to this folder.

        Raises:
            Failure: It did not work.
        """
        self._terminal.step("authz itself, as a link to this folder")
        options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        try:
            if by_uv:
                self._uv(["pip", "install", *options])
            else:
                self._run([self._python, "-m", "pip", "install", *options], "linking it")
        except CommandFailure as failure:
            raise Failure(f"this project could not be installed:\n{failure}") from failure

    def _is_usable(self) -> bool:
        if self._unfinished.exists() or not (self._folder / "pyvenv.cfg").exists():
            return False
        code = "import pip, sys; print(*sys.version_info[:2])"
        try:
            done = subprocess.run(
                [self._python, "-c", code],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except OSError:
            return False
        return done.stdout.decode().split() == [str(part) for part in sys.version_info[:2]]

    def _is_uv(self, versions: list[str]) -> bool:
        try:
            done = subprocess.run(
                [str(self._folder / "bin/uv"), "--version"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except OSError:
            return False
        return done.stdout.decode().split()[1:2] == versions

    def _pip(self, pins: Path, at_first: str) -> None:
        total = count(pins)
        collected: list[str] = []

        def shown(line: str) -> str | None:
            if line.startswith("Installing collected"):
                return f"installing {named(total)}"
            if line.startswith("Collecting "):
                name = re.split(r"[=\s]", line)[1]
                collected.append(name)
                return f"{len(collected)} of {total}: {name}"
            return None

        self._run(
            [self._python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2",
             "--progress-bar", "off", "--only-binary", ":all:", "--require-hashes", "--requirement", str(pins)],
            at_first,
            shown,
        )  # fmt: skip

    def _uv(self, arguments: list[str]) -> None:
        def shown(line: str) -> str | None:
            words = line.split()
            return (
                " ".join(words)
                if (words and words[0].endswith("ed")) or "ownload" in line
                else None
            )

        environ = {
            **os.environ,
            **self._index(),
            **self._trust,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
        }
        environ.setdefault("UV_HTTP_RETRIES", "2")
        command = [str(self._folder / "bin/uv"), *arguments, "--python", self._python]
        try:
            self._run(command, "reading the list", shown, environ)
        except CommandFailure as failure:
            if self._trust or not is_untrusted(failure):
                raise
            # As pip does: companies that look into TLS install their authority in the system.
            self._trust = {"UV_SYSTEM_CERTS": "1"}
            self._uv(arguments)

    def _index(self) -> dict[str, str]:
        """Return what pip is set to, as uv takes it: else a company's mirror would serve one of them only."""
        if any(name in os.environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")):
            return {}
        done = subprocess.run(
            [self._python, "-m", "pip", "config", "list"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return as_uv_takes_it(done.stdout.decode(), os.environ)

    def _run(
        self,
        command: list[str],
        at_first: str,
        shown: Callable[[str], str | None] = lambda _: None,
        environ: dict[str, str] | None = None,
    ) -> None:
        """Run a command; show what `shown` makes of its lines.

        Raises:
            CommandFailure: It failed.
        """
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ,
            cwd=str(ROOT),
        )  # fmt: skip
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        output: list[str] = []
        now = at_first
        try:
            while True:
                try:
                    line = lines.get(timeout=QUIET / 10)
                except queue.Empty:
                    pass
                else:
                    if line is None:
                        break
                    output.append(line)
                    now = shown(line) or now
                self._terminal.progress(now)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
            status = process.wait()
            self._terminal.done()
        if status != 0:
            raise CommandFailure("".join(output))


def as_uv_takes_it(settings: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment variables for what `pip config list` prints."""
    found: dict[str, str] = {}
    # As pip weighs them: for all commands, for installing, the environment. It lists them by the alphabet.
    for section in ("global", "install", ":env:"):
        for line in settings.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.rpartition(".")[0] == section:
                found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "trusted-host": "UV_INSECURE_HOST",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
        "no-index": "UV_NO_INDEX",
    }
    taken = {names[name]: value for name, value in found.items() if name in names and value}
    if "UV_FIND_LINKS" in taken:
        # pip passes over a folder that is not there.
        places = taken["UV_FIND_LINKS"].split()
        taken["UV_FIND_LINKS"] = " ".join(p for p in places if "://" in p or Path(p).exists())
    for name, between in (("UV_FIND_LINKS", ","), ("UV_INDEX", " "), ("UV_INSECURE_HOST", " ")):
        if name in taken:
            taken[name] = between.join(taken[name].split())
    if "UV_INDEX" in taken:
        # Hashes say what a package is, whichever index it comes from.
        taken["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in taken.items() if value and name not in environ}


def count(pins: Path) -> int:
    """Return how many packages a file pins."""
    return len(re.findall(r"^[\w.\[\],-]+==", pins.read_text(), re.MULTILINE))


def named(packages: int) -> str:
    """Return a number of packages in words."""
    return "1 package" if packages == 1 else f"{packages} packages"


def set_up(packages: Packages) -> None:
    """Make the environment of a set of packages, or add the set to it.

    Raises:
        Failure: It did not work.
    """
    began = time.monotonic()
    if (refusal := machine.refusal(machine.this_machine())) is not None:
        raise Failure(refusal)
    terminal = Terminal(4 if packages.project else 3)
    environment = Environment(ROOT / packages.folder, terminal)
    pins = PINS / packages.file
    environment.prepare()
    by_uv = environment.has_uv()
    terminal.step(f"{named(count(pins))} of requirements/{pins.name}, pinned by hashes")
    by_uv = by_uv and environment.install_by_uv(pins, alone=packages.alone)
    if not by_uv:
        environment.install_by_pip(pins, alone=packages.alone)
    if packages.project:
        environment.install_project(by_uv=by_uv)
    environment.finish()
    print(f"==> ready: {packages.folder} ({time.monotonic() - began:.0f} s)", flush=True)


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.decode(errors="replace"))
    lines.put(None)


def main() -> int:
    """Set up what the first argument names; return the exit status."""
    try:
        set_up(SETS[sys.argv[1]])
    except Failure as failure:
        print(f"authz: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("authz: interrupted; the next try starts over", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
