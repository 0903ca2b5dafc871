"""Everything that is measured, running: emulated Entra, service, floor, upstream server, Envoys.

What is sent to it, and what becomes of the answers, is in the modules of each measurement.
"""

import http.client
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from authz_dev.demo.processes import free_ports, stop_all
from bench import documents, fast_upstream
from bench.entra import READY, Entra
from bench.envoys import Envoy
from bench.machine import Cores
from bench.programs import Measured, wait
from bench.upstream import DIGEST_VARIABLE, digest

_ROOT: Final = Path(__file__).resolve().parents[1]
_OK: Final = 200
_GROUPS: Final = [f"{n:08x}-0000-4000-8000-{n:012x}" for n in range(3)]
"""Make a user's token 1.5 kB long, as those of people in a few groups are."""


class Scene:
    """The running programs. Leaving it ends each and removes every file.

    Args:
        cores: Who runs where.

    Attributes:
        entra: The emulated Entra.
        user_token: A user's token, 1.5 kB long.
        config: The configuration of the service.
        service: The service; on the Unix socket `socket`.
        logging_service: The same with `log.decisions: all`; on `logging_socket`.
        listen: Where the service listens, the Check door included.
        floor: The server that does nothing; on `floor_socket`.
        api: The service's HTTP API, `host:port`.
        bytes_at_rest: Resident memory of the service before anybody has asked anything.
        upstream: The upstream server's `host:port`.
        fast_upstream: That of the fast one.

    Raises:
        StartFailure: A program did not come up.
    """

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self._programs: list[Measured] = []
        with ExitStack() as cleanup:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))
            cleanup.callback(stop_all, self._programs)
            self.folder = Path(folder)
            self.socket = self.folder / "authz.sock"
            self.logging_socket = self.folder / "logging.sock"
            self.checks_socket = self.folder / "checks.sock"
            self.floor_socket = self.folder / "floor.sock"
            entra = self.module("entra", folder, ready=(self.folder / READY).exists)
            self.floor = self.module(
                "floor", f"unix:{self.floor_socket}", ready=self.floor_socket.exists
            )
            wait([entra, self.floor])
            self.entra = Entra(self.folder)
            cleanup.callback(self.entra.close)
            self.user_token = self.entra.mint(claims={"groups": _GROUPS})
            self.config = documents.document(
                self.entra,
                self.folder,
                grpc=f"unix:{self.socket}",
                agents=self.entra.cold_agents,
            )
            self.api = f"127.0.0.1:{free_ports(1)[0]}"
            self.listen = {**self.config["listen"], "checks": f"unix:{self.checks_socket}"}
            listen = {**self.listen, "api": self.api}
            self.service = self.serve("authz", {**self.config, "listen": listen})
            logging = documents.document(
                self.entra,
                self.folder,
                grpc=f"unix:{self.logging_socket}",
                agents=self.entra.cold_agents,
            )
            self.logging_service = self.serve(
                "authz_logging", {**logging, "log": {"decisions": "all"}}
            )
            port = free_ports(1)[0]
            self.upstream = f"127.0.0.1:{port}"
            upstream = self._serve_upstream(port)
            fast = self.envoy(
                "fast_upstream",
                fast_upstream.bootstrap(f"Bearer {self.user_token}"),
                cores=cores.others,
            )
            wait([self.service, self.logging_service, upstream, fast])
            self.fast_upstream = fast.url().removeprefix("http://")
            self.bytes_at_rest = self.service.resident_bytes()
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def serve(
        self,
        name: str,
        config: dict[str, Any],
        *,
        cores: frozenset[int] | None = None,
        module: str | None = None,
    ) -> Measured:
        """Start the service with a configuration, without waiting; or a module that stands for it."""
        file = str(documents.write(config, self.folder / f"{name}.json"))
        command = ["authz", "serve", "--config", file] if module is None else [module, file]
        return self.start(
            name,
            [sys.executable, "-m", *command],
            ready=lambda: _answers(config["listen"]["admin"], "/readyz"),
            cores=cores,
        )

    def envoy(self, name: str, bootstrap: str, *, cores: frozenset[int] | None = None) -> Envoy:
        """Start an Envoy, without waiting; where nothing is said, on the core of its own."""
        envoy = Envoy(name, bootstrap, self.folder, cores or self.cores.envoy)
        self._programs.append(envoy)
        envoy.start()
        return envoy

    def _serve_upstream(self, port: int) -> Measured:
        command = ["uvicorn", "bench.upstream:app", "--port", str(port), "--loop", "uvloop"]
        command += ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        # It must not close a connection between two turns, just when Envoy uses it again.
        command += ["--timeout-keep-alive", "600"]
        return self.start(
            "upstream",
            [sys.executable, "-m", *command],
            ready=lambda: _answers(f"127.0.0.1:{port}", "/"),
            environ={DIGEST_VARIABLE: digest(f"Bearer {self.user_token}".encode())},
        )

    def module(self, name: str, *arguments: str, ready: Callable[[], bool]) -> Measured:
        """Start a module of the bench as a program, without waiting."""
        return self.start(name, [sys.executable, "-m", f"bench.{name}", *arguments], ready=ready)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        cores: frozenset[int] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Measured:
        """Start a program, without waiting; where nothing is said, beside the Envoys."""
        program = Measured(
            name,
            command,
            log=self.folder / f"{name}.log",
            cores=cores or self.cores.others,
            ready=ready,
            environ={"PYTHONPATH": str(_ROOT), **(environ or {})},
        )
        self._programs.append(program)
        program.start()
        return program

    def stop(self, *programs: Measured) -> None:
        """End programs that are no longer needed."""
        stop_all(programs)
        for program in programs:
            self._programs.remove(program)

    def forget_logs(self) -> None:
        """Empty every log."""
        for program in self._programs:
            program.forget_log()


def _answers(where: str, path: str) -> bool:
    host, _, port = where.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
