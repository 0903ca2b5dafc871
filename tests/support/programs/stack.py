"""A whole service against an emulated Entra: `Engine` in this process, and `authz serve` as a program."""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import httpx
import jwt

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.config.reading.document import parse
from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.record import CheckRecord
from authz.core.request import Authorization, CheckRequest
from authz.core.secret import Secret
from authz.entra.exchange import EntraExchange
from authz.entra.key_vault import KeyVaults
from authz.process.engine import Engine
from authz_dev.emulator import Emulator
from support.fakes.recorder import Recorder
from support.programs import program
from support.proxy.plain_http import NO_TLS

GRAPH = "https://graph.microsoft.com/.default"


class Clock:
    """Epoch and monotonic seconds that a test moves by hand; MSAL and the emulator's TLS see the real ones.

    Attributes:
        ahead: Seconds that have passed beyond the real ones, on both clocks.
        set_by: Seconds by which somebody has set the wall clock.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.set_by = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return time.time() + self.ahead + self.set_by

    def timer(self) -> float:
        """Tell the monotonic second, which nobody sets."""
        return time.monotonic() + self.ahead


class World:
    """Names of the emulator's first tenant, and a configuration for them.

    Args:
        emulator: The running emulator.
        folder: Where files of the configuration go.
    """

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        tenant, self.other_tenant = emulator.describe()["tenants"][:2]
        self.tenant = tenant
        self.tenant_id: str = tenant["tenant_id"]
        self.blueprint, self.other_blueprint = tenant["blueprints"]
        self.agent, self.sibling = self.blueprint["agents"]
        self.portal, self.reports = tenant["apps"]
        self.users = {user["username"].split("@")[0]: user for user in tenant["users"]}
        self.secret_file = folder / "secret"
        self.secret_file.write_text(self.blueprint["client_secret"])
        self.app_secret_file = folder / "app-secret"
        self.app_secret_file.write_text(self.reports["client_secret"])

    def token(self, user: str = "alice", **order: Any) -> str:
        """What a client application got for a user, to call the blueprint."""
        order.setdefault("audience", self.blueprint["client_id"])
        return self.emulator.mint_user_token(user=self.users[user]["object_id"], **order)

    def config(self, **changes: Any) -> dict[str, Any]:
        """A configuration with a route for each flow; top-level sections may be replaced.

        Credentials are not shown to Entra ahead, since many tests count what a request costs.
        """
        graph = {"scopes": [GRAPH]}
        return {
            "listen": {"grpc": f"unix:{self.folder}/authz.sock", "admin": "127.0.0.1:0"},
            "entra": {
                "authority": self.emulator.authority,
                "ca_file": str(self.emulator.ca_file),
                "timeout": "5s",
                "exchange_timeout": "8s",
                "prove_credentials": False,
            },
            "blueprints": {
                "support": {
                    "tenant_id": self.tenant_id,
                    "client_id": self.blueprint["client_id"],
                    "credentials": [{"client_secret": {"file": str(self.secret_file)}}],
                }
            },
            "applications": {
                "reports": {
                    "tenant_id": self.tenant_id,
                    "client_id": self.reports["client_id"],
                    "credentials": [{"client_secret": {"file": str(self.app_secret_file)}}],
                }
            },
            "agents": {
                "desk": {
                    "blueprint": "support",
                    "agent_identity": self.agent["client_id"],
                    "agent_user": self.agent["agent_user"],
                },
                "clerk": {"blueprint": "support", "agent_identity": self.sibling["client_id"]},
            },
            "inbound": {"agent": {"agent": "desk", "scopes": ["access_agent"]}},
            "egress": {
                "graph": {
                    "hosts": ["graph.microsoft.com"],
                    "flow": "on_behalf_of",
                    "agent": "desk",
                    **graph,
                },
                "graph-clerk": {"flow": "on_behalf_of", "agent": "clerk", **graph},
                "autonomous": {"flow": "autonomous", "agent": "desk", **graph},
                "autonomous-clerk": {"flow": "autonomous", "agent": "clerk", **graph},
                "agent-user": {"flow": "agent_user", "agent": "desk", **graph},
                "blueprint": {"flow": "blueprint", "blueprint": "support", **graph},
                "app-obo": {"flow": "app_on_behalf_of", "application": "reports", **graph},
                "app": {"flow": "app", "application": "reports", **graph},
                "plain": {"hosts": ["plain.example"], "flow": "none"},
            },
            **changes,
        }


def claims(token: Secret | str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    text = token.reveal() if isinstance(token, Secret) else token
    return dict(jwt.decode(text, options={"verify_signature": False}))


class Stack:
    """An `Engine` in this process, with keys fetched."""

    def __init__(self, world: World, engine: Engine, seen: Recorder, clock: Clock) -> None:
        self.world = world
        self.engine = engine
        self.seen = seen
        self.clock = clock

    async def egress(
        self, route: str, token: str | None = None, *, seconds: float = 10.0, **more: Any
    ) -> CheckRecord:
        """Check a call from the agent to an API."""
        return await self._check("egress", route, token, seconds, more)

    async def inbound(
        self, token: str | None = None, *, route: str = "agent", seconds: float = 10.0, **more: Any
    ) -> CheckRecord:
        """Check a call from a user to the agent."""
        return await self._check("inbound", route, token, seconds, more)

    async def _check(
        self, direction: str, route: str, token: str | None, seconds: float, more: dict[str, Any]
    ) -> CheckRecord:
        request = CheckRequest(
            method="GET",
            host="graph.microsoft.com",
            path="/v1.0/me",
            authorization=Authorization(f"Bearer {token}") if token is not None else None,
            direction=direction,
            route=route,
            **more,
        )
        service = self.engine.service
        record = service.repeat(request)
        if record is not None:
            return record
        return await service.decider()(request, deadline=self.clock.timer() + seconds)

    @property
    def entra(self) -> EntraExchange:
        """What asks Entra, behind the cache."""
        exchange = self.engine.service._snapshot.tokens._exchange
        assert isinstance(exchange, EntraExchange)
        return exchange

    @property
    def calls(self) -> dict[str, int]:
        """Token calls so far, by leg, without those that did not happen."""
        counts = self.world.emulator.calls.snapshot()
        return {leg: count for leg, count in counts.items() if count and leg != "total"}


def issued(record: CheckRecord) -> dict[str, Any]:
    """The claims of the token that a Check gave."""
    assert isinstance(record.decision, Allow), (record.decision, record.error, record.fault)
    assert record.decision.authorization is not None
    return claims(record.decision.authorization)


def denied(record: CheckRecord) -> Reason:
    """The reason of a denial."""
    assert isinstance(record.decision, Deny), record.decision
    return record.decision.reason


@asynccontextmanager
async def stack(
    world: World,
    *,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    document: Mapping[str, Any] | None = None,
    keys: bool = True,
    vaults: KeyVaults | None = None,
) -> AsyncIterator[Stack]:
    """Run an engine until its keys are there (unless it must go without), and through the block."""
    environ = environ or {}
    config = parse(json.dumps(document or world.config()), environ)
    seen, clock = Recorder(), clock or Clock()
    engine = Engine(
        config, environ=environ, observer=seen, clock=clock, timer=clock.timer, vaults=vaults
    )
    engine.start()
    try:
        if keys:
            await until(lambda: "signing_keys" not in engine.missing())
        world.emulator.calls.reset()
        yield Stack(world, engine, seen, clock)
    finally:
        await engine.stop()


async def missing(engine: Engine) -> dict[str, Any]:
    """Return what is missing, with a fresh look at the credentials."""
    await engine.look_at_credentials()
    return engine.missing()


async def reload(engine: Engine, document: Mapping[str, Any]) -> None:
    """Let an engine decide by another configuration."""
    await engine.apply(engine.prepare(parse(json.dumps(document), {})))


async def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait for a condition; its last value is the failure's message."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)


class Process:
    """`authz serve` as a program.

    Args:
        arguments: Arguments of the program.
        environ: Environment variables on top of this process's.
        output: Descriptor for standard output in place of the log.
        admin: Address of its admin endpoint, where the log does not say it.
    """

    def __init__(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        output: int | None = None,
        admin: str | None = None,
    ) -> None:
        self._admin = admin
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at exit
        self._process = program.start(
            *arguments,
            stdout=self._log.fileno() if output is None else output,
            stderr=self._log.fileno(),
            environ=environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and forget its log.

        `make test` does not wait for the drain of each service; tests of an end ask for it (`stop`, `wait`).
        """
        if program.quick() and self._process.poll() is None:
            self._process.kill()
        self.stop()
        self.last_log = self.log()
        self._log.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log(self) -> str:
        """Everything printed so far."""
        self._log.flush()
        return os.pread(self._log.fileno(), 10**8, 0).decode()

    def events(self) -> list[dict[str, Any]]:
        """The log's records."""
        # The last line may still be half written.
        lines = self.log().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def event(self, name: str, seconds: float = 15.0) -> dict[str, Any]:
        """Wait for a record and return it."""
        end = time.monotonic() + seconds
        while True:
            for record in self.events():
                if record["event"] == name:
                    return record
            self.paused()
            assert time.monotonic() < end, f"no record {name!r} in:\n{self.log()}"

    def admin(self, path: str) -> httpx.Response:
        """Ask the admin endpoint."""
        address = self._admin
        if address is None:
            serving = next(r for r in self.events() if r["event"] in ("serving", "supervising"))
            address = serving["admin"]
        return httpx.get(f"http://{address}{path}", trust_env=False, verify=NO_TLS)

    def wait_ready(self, seconds: float = 60.0) -> Self:
        """Wait until the service says that it is ready."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.admin("/readyz").status_code == 200:
                    return self
            except (httpx.HTTPError, StopIteration):
                pass
            self.paused()
            assert time.monotonic() < end, f"not ready:\n{self.log()}"

    def paused(self) -> None:
        """Leave the core to the process for a moment; fail if it ends."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.01)
            raise AssertionError(f"ended early:\n{self.log()}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 40.0) -> int:
        """Wait for the end and return the exit status."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Client:
    """A client of the ext_authz door.

    Args:
        address: gRPC target.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        # As Envoy does: ask for health, and turn to another address when told NOT_SERVING.
        service_config = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": ""},
        }
        options = [("grpc.service_config", json.dumps(service_config))]
        if credentials:
            options.append(("grpc.ssl_target_name_override", "localhost"))
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )
        self._call = self._channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=WireRequest.SerializeToString,
            response_deserializer=WireResponse.FromString,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def asked_to_go_away(self) -> None:
        """Wait until the server has ended the connection, which must be there."""
        await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    async def check(
        self,
        direction: str | None,
        route: str | None,
        token: str | None = None,
        *,
        seconds: float = 10.0,
        headers: Mapping[str, str] | None = None,
    ) -> WireResponse:
        """Ask for a decision; direction and route are left out where they are None."""
        request = WireRequest()
        http = request.attributes.request.http
        http.method, http.host, http.path = "GET", "graph.microsoft.com", "/v1.0/me"
        if token is not None:
            http.headers["authorization"] = f"Bearer {token}"
        for name, value in (headers or {}).items():
            http.headers[name] = value
        extensions = request.attributes.context_extensions
        for key, extension in (("authz.direction", direction), ("authz.route", route)):
            if extension is not None:
                extensions[key] = extension
        return await self._call(request, timeout=seconds, wait_for_ready=True)


def authorization(response: WireResponse) -> dict[str, Any]:
    """The claims of the token that an answer sets."""
    assert response.WhichOneof("http_response") == "ok_response", response
    headers = {option.header.key: option.header.value for option in response.ok_response.headers}
    return claims(headers["authorization"].removeprefix("Bearer "))


def problem(response: WireResponse) -> dict[str, Any]:
    """The problem body of a denial."""
    assert response.WhichOneof("http_response") == "denied_response", response
    return dict(json.loads(response.denied_response.body))
