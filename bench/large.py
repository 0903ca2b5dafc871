"""A service with very many routes, agents and blueprints: idle, scraped, reloaded, and rendered for Envoy.

And an Envoy with as many routes whose tokens are pushed, from its start until it holds them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from authz.config.reading.document import parse
from authz.config.rendered import mark_of
from bench import documents
from bench.checks import request, target
from bench.documents import DELEGATED
from bench.load import LoadError, run
from bench.programs import Measured, until, wait
from bench.scene import Scene
from bench.stalls import slowest

_WARM_UP: Final = 0.2
_APPLIED: Final = "configuration applied"
_HELD: Final = re.compile(r"^authz_pushed_secret_expiry_seconds\{.*\} (?!0\.0$)", re.MULTILINE)
_PATIENCE: Final = 60.0


def measure(
    scene: Scene,
    number: int,
    *,
    turns: int,
    idle: float,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Return the figures.

    Args:
        scene: Where it runs.
        number: Of routes, of agents and of blueprints.
        turns: How often it is scraped and reloaded.
        idle: Seconds for which nobody asks.
        announce: Hears what is measured.

    Raises:
        LoadError: A hit was not answered, Envoy's configuration was not rendered, or Envoy got no token.
        StartFailure: The service did not come up, or did not apply a configuration; or Envoy did not come up.
    """
    socket = scene.folder / "large.sock"
    config = documents.large(scene.entra, scene.folder, grpc=f"unix:{socket}", number=number)
    announce(f"rendering {number:,} routes")
    figures = {f"render_{number}_s": _rendering(documents.write(config, scene.folder / "r.json"))}
    announce(f"{number:,} pushed tokens")
    figures[f"secrets_held_{number}_s"] = _holding(scene, number)
    service = scene.serve("large", config)
    try:
        announce(f"{number:,} routes, idle")
        wait([service])
        # Envoys say which configuration they were rendered from.
        mark = mark_of(parse(json.dumps(config), {}))
        hits = target(socket, request("egress", DELEGATED, scene.user_token, mark))
        run(hits, seconds=_WARM_UP, in_flight=1)
        figures[f"idle_cpu_ms_per_s_{number}"] = _idle(service, idle)
        figures |= slowest(hits).figures(f"quiet_{number}")
        announce(f"{number:,} routes, scraped")
        admin = config["listen"]["admin"]
        figures |= slowest(hits, lambda: _scrape(admin, turns)).figures(f"scrape_{number}")
        announce(f"{number:,} routes, reloaded")
        reloads = _Reloads(scene, service, config)
        return figures | slowest(hits, lambda: reloads.times(turns)).figures(f"reload_{number}")
    finally:
        scene.stop(service)


def _rendering(file: Path, *options: str) -> float:
    command = [sys.executable, "-m", "authz", "envoy", "--config", str(file), *options]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"Envoy's configuration was not rendered: {done.stderr[-1000:]}")
    return round(time.perf_counter() - started, 2)


def _holding(scene: Scene, number: int) -> float:
    """Return the seconds from the start of an Envoy until it holds the tokens of all its routes."""
    socket, rendered = scene.folder / "pushed.sock", scene.folder / "rendered.json"
    config = documents.pushed(scene.entra, scene.folder, grpc=f"unix:{socket}", number=number)
    addresses = ("--egress", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    files = ("--upstream-ca", str(scene.entra.ca_file), "--output", str(rendered))
    _rendering(documents.write(config, scene.folder / "p.json"), *addresses, *files)
    service = scene.serve("pushed", config)
    try:
        wait([service])
        admin, bootstrap = config["listen"]["admin"], rendered.read_text()
        # The first one leaves the service with all tokens.
        _until_held(scene, "first_holder", bootstrap, admin, number)
        return _until_held(scene, "holder", bootstrap, admin, number)
    finally:
        scene.stop(service)


def _until_held(scene: Scene, name: str, bootstrap: str, admin: str, number: int) -> float:
    started = time.perf_counter()
    envoy = scene.envoy(name, bootstrap)
    try:
        # Two of each route: the token, and why there is none.
        until(lambda: envoy.secrets() == 2 * number, f"{2 * number} secrets", _PATIENCE)
        seconds = time.perf_counter() - started
        held = len(_HELD.findall(_metrics(admin)))
        if held != number:
            raise LoadError(f"Envoy holds {held} tokens: expected {number}")
        return round(seconds, 2)
    finally:
        scene.stop(envoy)


def _idle(service: Measured, seconds: float) -> float:
    """Return the milliseconds of processor time that a service without requests takes each second."""
    before = service.cpu_seconds()
    threading.Event().wait(seconds)
    return round((service.cpu_seconds() - before) / seconds * 1e3, 1)


def _scrape(admin: str, times: int) -> None:
    for _ in range(times):
        _metrics(admin)


def _metrics(admin: str) -> str:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=_PATIENCE) as answer:
        found: bytes = answer.read()
    return found.decode()


class _Reloads:
    """Gives a service one version of its configuration after another.

    Args:
        scene: Where its file is.
        service: The service.
        config: The version in use.
    """

    def __init__(self, scene: Scene, service: Measured, config: dict[str, Any]) -> None:
        self._file = scene.folder / f"{service.name}.json"
        self._service = service
        self._config = config

    def times(self, number: int) -> None:
        """Change the route of each agent, and wait until the service has applied that."""
        for turn in range(number):
            scope = f"api://turn-{turn}/.default"
            egress = {
                name: {**route, "scopes": [scope]} if name.startswith("route-") else route
                for name, route in self._config["egress"].items()
            }
            self._service.forget_log()
            documents.write({**self._config, "egress": egress}, self._file)
            os.kill(self._service.pid, signal.SIGHUP)
            until(self._is_applied, "the configuration", _PATIENCE)

    def _is_applied(self) -> bool:
        return _APPLIED in self._service.log.read_text()
