"""What a reload changes: each key of the model, changed on a running service, beside the table `AT_START`."""

import asyncio
import copy
import gc
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import pytest
import structlog
import trustme

from authz.config import Config, ConfigSource, ConfigWatch
from authz.config.effect import AT_START
from authz.config.sections.section import Section
from authz.observe.output import LogOutput
from authz.process.app import App
from support.fakes.held_values import held
from support.programs.stack import Client, Process, World, authorization, problem, until

pytestmark = pytest.mark.thorough

GUIDS: Final = tuple(
    f"{number:08x}-3c1d-4b6e-9f20-5d7a8b9c0e1f" for number in range(0xA1B2C301, 0xA1B2C321)
)
SPIFFE: Final = "spiffe://cluster.example/ns/agents/sa/"


def settings(model: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """The path of each key that has a value; `*` stands for names that users choose."""
    for name, field in model.model_fields.items():
        inner = list(_sections(field.annotation))
        if not inner:
            yield f"{prefix}{name}"
        for path, section in inner:
            yield from settings(section, f"{prefix}{name}{path}.")


def _sections(annotation: Any) -> Iterator[tuple[str, type[Section]]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield "", annotation
    elif get_origin(annotation) is Mapping:
        yield from ((f".*{path}", found) for path, found in _sections(get_args(annotation)[1]))
    elif get_origin(annotation) in {Union, UnionType, Annotated}:
        for option in get_args(annotation):
            yield from _sections(option)


def waits(setting: str) -> str | None:
    """The key of the table that a setting comes under, or None."""
    return next((key for key in AT_START if f"{setting}.".startswith(f"{key}.")), None)


class Files:
    """Files that a configuration names, each in two versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.authority = trustme.CA()

    def bundle(self) -> str:
        """Certificate authorities."""
        path = self._new("pem")
        trustme.CA().cert_pem.write_to_path(path)
        return str(path)

    def pair(self) -> tuple[str, str]:
        """A certificate and its key."""
        leaf = self.authority.issue_cert("localhost")
        certificate, key = self._new("crt"), self._new("key")
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def secret(self) -> str:
        """A client secret."""
        path = self._new("secret")
        path.write_text("what only Entra knows")
        return str(path)

    def nothing(self) -> str:
        """A place for a file that the service writes."""
        return str(self._new("out"))

    def _new(self, kind: str) -> Path:
        self.number += 1
        return self.folder / f"file-{self.number:03d}-of-the-test.{kind}"


def by_tcp(files: Files) -> dict[str, Any]:
    """A configuration in which each key can be told by its value."""
    certificate, key = files.pair()
    return {
        "listen": {
            "grpc": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "api": "127.0.0.1:0",
            "tls": {
                "certificate_file": certificate,
                "key_file": key,
                "client_ca_file": files.bundle(),
            },
            "workers": 1,
            "max_connection_age": 1701.25,
            "max_connection_age_grace": 31.375,
            "drain_delay": 0.015625,
            "drain_timeout": 0.28125,
            "direction": "egress",
            "inbound_route": "front-entrance",
        },
        "entra": {
            "authority": "https://127.0.0.1:1",
            "trusted_hosts": ["first.trusted.example"],
            "ca_file": files.bundle(),
            "proxy": "http://127.0.0.1:2",
            "connect_timeout": 3.0625,
            "timeout": 10.0625,
            "exchange_timeout": 15.0625,
            "keys": {
                "refresh_interval": 3601.25,
                "retry_interval": 3500.25,
                "unknown_key_interval": 5.0625,
            },
        },
        "blueprints": {
            "support": {
                "tenant_id": GUIDS[0],
                "client_id": GUIDS[1],
                "audiences": ["api://first-audience-of-blueprint"],
                "credentials": [{"client_secret": {"file": files.secret()}}],
            },
            "sales": {
                "tenant_id": GUIDS[2],
                "client_id": GUIDS[3],
                "credentials": [{"client_secret": {"file": files.secret()}}],
            },
        },
        "applications": {
            "reports": {
                "tenant_id": GUIDS[4],
                "client_id": GUIDS[5],
                "audiences": ["api://first-audience-of-application"],
                "credentials": [{"client_secret": {"file": files.secret()}}],
            },
            "charts": {
                "tenant_id": GUIDS[20],
                "client_id": GUIDS[21],
                "credentials": [{"client_secret": {"file": files.secret()}}],
            },
        },
        "agents": {
            "desk": {
                "blueprint": "support",
                "agent_identity": GUIDS[6],
                "agent_user": GUIDS[7],
                "workloads": [f"{SPIFFE}workload-of-desk"],
            },
            "clerk": {"blueprint": "sales", "agent_identity": GUIDS[8]},
        },
        "inbound": {
            "front-entrance": {
                "agent": "desk",
                "scopes": ["first_scope_of_route"],
                "roles": ["First.Role"],
                "user_roles": ["First.User.Role"],
                "actors": [GUIDS[10]],
                "actor_blueprints": [GUIDS[24]],
                "auth_context": "c11",
                "public_paths": ["/first-public-path"],
                "cors": {
                    "origins": ["https://first-origin.example"],
                    "headers": ["first-header-of-pages"],
                    "expose": ["first-header-for-pages"],
                    "max_age": 601.25,
                },
                "leeway": 61.25,
            },
            "back-entrance": {"blueprint": "sales", "scopes": ["scope_of_back_entrance"]},
            "side-entrance": {
                "application": "reports",
                "tenants": [GUIDS[23], GUIDS[9]],
                "audiences": ["api://first-audience-of-route"],
                "scopes": ["scope_of_side_entrance"],
                "resource": "https://first-agent.example/mcp",
                "mcp": {"paths": ["/first-endpoint"], "max_body": 65_111, "bind_sessions": False},
                "rules": [{"name": "first-rule-of-entrance", "tools": ["first_tool"]}],
            },
        },
        "egress": {
            "first-api": {
                "hosts": ["first-host.example"],
                "flow": "on_behalf_of",
                "agent": "desk",
                "scopes": ["api://first-resource/.default"],
                "claims": {"first_claim": {"essential": True}},
                "requires": {
                    "scopes": ["first_required_scope"],
                    "user_roles": ["First.Required.Role"],
                    "actors": [GUIDS[11]],
                    "auth_context": "c13",
                },
                "leeway": 62.25,
                "remove_headers": ["x-first-removed-header"],
                "downstream": {
                    "base_url": "https://first-base.example",
                    "path": "first-path-of-api",
                    "accept": "application/first",
                    "content_type": "text/first",
                    "headers": {"x-first": "first-value-of-header"},
                    "query": {"first": "first-value-of-query"},
                },
            },
            "blueprint-api": {
                "flow": "blueprint",
                "blueprint": "support",
                "scopes": ["api://a/.default"],
            },
            "application-api": {
                "flow": "app",
                "application": "reports",
                "scopes": ["api://b/.default"],
                "workloads": [f"{SPIFFE}first-workload-of-route"],
            },
            "plain-api": {"flow": "none", "hosts": ["plain-host.example"]},
            "ruled-api": {
                "flow": "none",
                "hosts": ["ruled-host.example"],
                "mcp": {"paths": ["/api-endpoint-that-is-first"], "max_body": 65_222},
                "rules": [{"name": "first-rule-of-api", "tools": ["first_tool_of_api"]}],
            },
        },
        "api": {
            "peers": ["10.11.12.0/24"],
            "hosts": ["first-name-of-api"],
            "timeout": 30.0625,
            "max_calls": 9_111,
            "max_request": 4_000_111,
            "max_answer": 4_000_222,
            "ca_file": files.bundle(),
        },
        "subject": {"max_age": 1802.25, "max_entries": 10_333, "max_bytes": 70_000_111},
        "cache": {
            "tokens": {"max_entries": 10_444, "max_bytes": 70_000_222, "margin": 63.25},
            "principals": {"max_entries": 10_555, "max_bytes": 70_000_333},
            "failures": {"max_entries": 10_666},
            "answers": {"max_entries": 10_777, "max_bytes": 70_000_444},
            "edge": {"max_ttl": 33.375},
        },
        "limits": {
            "max_token_bytes": 17_111,
            "exchanges": 613,
            "max_flights": 10_888,
            "prefetches": 617,
            "mcp_sessions": 10_111,
            "check_timeout": 11.0625,
            "deadline_margin": 0.0546875,
        },
        "reload_interval": 0,
    }


def changes_by_tcp(files: Files) -> dict[str, dict[str, Any]]:
    """Another value for each key, by the path of the setting; where it must not change alone, with others."""
    certificate, key = files.pair()
    front, first = "inbound.front-entrance", "egress.first-api"
    one = {
        "listen.grpc": "localhost:0",
        "listen.admin": "localhost:0",
        "listen.api": "localhost:0",
        "listen.tls.client_ca_file": files.bundle(),
        "listen.max_connection_age": 1901.25,
        "listen.max_connection_age_grace": 33.875,
        "listen.drain_delay": 0.0234375,
        "listen.drain_timeout": 0.296875,
        "listen.direction": "inbound",
        "listen.inbound_route": "back-entrance",
        "listen.readiness": "all",
        "listen.workload_identity": "source_principal",
        "entra.authority": "https://127.0.0.1:3",
        "entra.trusted_hosts": ["second.trusted.example"],
        "entra.ca_file": files.bundle(),
        "entra.proxy": "http://127.0.0.1:4",
        "entra.connect_timeout": 3.1875,
        "entra.timeout": 10.1875,
        "entra.exchange_timeout": 15.1875,
        "entra.prove_credentials": False,
        "entra.keys.refresh_interval": 3602.25,
        "entra.keys.retry_interval": 3501.25,
        "entra.keys.unknown_key_interval": 5.1875,
        "blueprints.support.tenant_id": GUIDS[12],
        "blueprints.support.client_id": GUIDS[13],
        "blueprints.support.audiences": ["api://second-audience-of-blueprint"],
        "blueprints.support.credentials": [{"client_secret": {"file": files.secret()}}],
        "blueprints.support.any_agent": True,
        "applications.reports.tenant_id": GUIDS[14],
        "applications.reports.client_id": GUIDS[15],
        "applications.reports.audiences": ["api://second-audience-of-application"],
        "applications.reports.credentials": [{"client_secret": {"file": files.secret()}}],
        "agents.desk.blueprint": "sales",
        "agents.desk.agent_identity": GUIDS[16],
        "agents.desk.agent_user": GUIDS[17],
        "agents.desk.workloads": [f"{SPIFFE}second-workload"],
        f"{front}.agent": "clerk",
        "inbound.back-entrance.blueprint": "support",
        "inbound.side-entrance.application": "charts",
        "inbound.side-entrance.audiences": ["api://second-audience-of-route"],
        "inbound.side-entrance.tenants": [GUIDS[23], GUIDS[18]],
        "inbound.side-entrance.resource": "https://second-agent.example/mcp",
        "inbound.side-entrance.mcp.paths": ["/second-endpoint"],
        "inbound.side-entrance.mcp.max_body": 65_333,
        "inbound.side-entrance.mcp.bind_sessions": True,
        "inbound.side-entrance.rules": [{"name": "second-rule-of-entrance", "tools": ["tool"]}],
        "egress.ruled-api.mcp.paths": ["/api-endpoint-that-is-second"],
        "egress.ruled-api.mcp.max_body": 65_444,
        "egress.ruled-api.rules": [{"name": "second-rule-of-api", "tools": ["tool_of_api"]}],
        f"{front}.scopes": ["second_scope_of_route"],
        f"{front}.roles": ["Second.Role"],
        f"{front}.user_roles": ["Second.User.Role"],
        f"{front}.actors": [GUIDS[19]],
        f"{front}.actor_blueprints": [GUIDS[26]],
        f"{front}.auth_context": "c12",
        f"{front}.forward": "strip",
        f"{front}.prefetch": ["first-api"],
        f"{front}.public_paths": ["/second-public-path"],
        f"{front}.cors.origins": ["https://second-origin.example"],
        f"{front}.cors.methods": ["GET"],
        f"{front}.cors.headers": ["second-header-of-pages"],
        f"{front}.cors.expose": ["second-header-for-pages"],
        f"{front}.cors.credentials": True,
        f"{front}.cors.max_age": 602.25,
        f"{front}.leeway": 61.5,
        f"{first}.hosts": ["second-host.example"],
        f"{first}.agent": "clerk",
        f"{first}.scopes": ["api://second-resource/.default"],
        f"{first}.claims": {"second_claim": {"essential": True}},
        f"{first}.requires.scopes": ["second_required_scope"],
        f"{first}.requires.user_roles": ["Second.Required.Role"],
        f"{first}.requires.actors": [GUIDS[22]],
        f"{first}.requires.actor_blueprints": [GUIDS[25]],
        f"{first}.requires.auth_context": "c14",
        f"{first}.leeway": 62.5,
        f"{first}.remove_headers": ["x-second-removed-header"],
        f"{first}.downstream.base_url": "https://second-base.example",
        f"{first}.downstream.path": "second-path-of-api",
        f"{first}.downstream.method": "POST",
        f"{first}.downstream.accept": "application/second",
        f"{first}.downstream.content_type": "text/second",
        f"{first}.downstream.headers": {"x-second": "second-value-of-header"},
        f"{first}.downstream.query": {"second": "second-value-of-query"},
        "egress.blueprint-api.blueprint": "sales",
        "egress.application-api.application": "charts",
        "egress.application-api.workloads": [f"{SPIFFE}second-workload-of-route"],
        "egress.application-api.push": False,
        "egress.application-api.token_over_plain_http": True,
        "egress.application-api.token_to_loopback": True,
        "egress.plain-api.tunnel": False,
        "api.peers": ["10.11.13.0/24"],
        "api.hosts": ["second-name-of-api"],
        "api.overrides": ["downstream_api"],
        "api.any_resource": True,
        "api.follow_redirects": True,
        "api.timeout": 30.1875,
        "api.max_calls": 9_222,
        "api.max_request": 4_000_333,
        "api.max_answer": 4_000_444,
        "api.ca_file": files.bundle(),
        "subject.max_age": 1803.25,
        "subject.max_entries": 10_334,
        "subject.max_bytes": 70_001_111,
        "cache.tokens.max_entries": 10_445,
        "cache.tokens.max_bytes": 70_001_222,
        "cache.tokens.margin": 63.5,
        "cache.principals.max_entries": 10_556,
        "cache.principals.max_bytes": 70_001_333,
        "cache.failures.max_entries": 10_667,
        "cache.answers.max_entries": 10_778,
        "cache.answers.max_bytes": 70_001_444,
        "cache.edge.max_ttl": 33.5,
        "limits.max_token_bytes": 17_222,
        "limits.exchanges": 619,
        "limits.max_flights": 10_889,
        "limits.prefetches": 631,
        "limits.mcp_sessions": 10_113,
        "limits.check_timeout": 11.1875,
        "limits.deadline_margin": 0.05859375,
        "log.level": "warning",
        "log.decisions": "none",
        "log.format": "console",
        "reload_interval": 1234.5,
    }
    return {
        **{path: {path: value} for path, value in one.items()},
        "listen.tls.certificate_file": {
            "listen.tls.certificate_file": certificate,
            "listen.tls.key_file": key,
        },
        "listen.tls.key_file": {
            "listen.tls.certificate_file": certificate,
            "listen.tls.key_file": key,
        },
        "listen.workers": {"listen.workers": 2, "listen.api": None},
        f"{first}.flow": {
            f"{first}.flow": "autonomous",
            f"{first}.requires": None,
            f"{first}.leeway": None,
        },
        f"{first}.subject": {
            f"{first}.subject": ["bearer", "none"],
            f"{first}.requires.auth_context": None,
        },
        f"{front}.subjects": {f"{front}.subjects": ["user", "agent_user"], f"{front}.roles": []},
    }


def by_socket(files: Files) -> dict[str, Any]:
    """A configuration on a Unix socket, with HTTPS."""
    return {
        "listen": {"grpc": f"unix:{files.folder}/authz.sock", "admin": None},
        "https": {
            "ca_file": files.nothing(),
            "bundle_file": files.nothing(),
            "truststore_file": files.nothing(),
            "key_file": files.nothing(),
            "lifetime": 86401.25,
        },
        "egress": {"plain": {"flow": "none", "hosts": ["first-host.example"]}},
        "reload_interval": 0,
    }


def changes_by_socket(files: Files) -> dict[str, dict[str, Any]]:
    """As `changes_by_tcp`."""
    group = {"listen.socket_mode": "0660", "listen.socket_group": "987654"}
    return {
        "listen.checks": {"listen.checks": "unix:/run/authz/other-checks.sock"},
        "listen.socket_mode": group,
        "listen.socket_group": group,
        "https.lifetime": {"https.lifetime": 86402.25},
        **{
            f"https.{name}": {f"https.{name}": files.nothing()}
            for name in ("ca_file", "bundle_file", "truststore_file", "key_file")
        },
    }


@pytest.fixture(autouse=True)
def log_settings() -> Iterator[None]:
    """Put the log as it was."""
    kept, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**kept)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class Running:
    """A service in this process, and its file."""

    def __init__(self, app: App, file: Path, document: dict[str, Any]) -> None:
        self.app = app
        self.file = file
        self.document = document

    async def reload(self, changes: Mapping[str, Any]) -> str | None:
        """Change keys of the document that it started with; returns why the version is refused."""
        write(self.file, changed(self.document, changes))
        watch = self.app._watch
        digest = watch.source.digest()
        watch.refused = None
        self.app._reload.soon()
        await until(lambda: settled(watch, digest))
        await until(lambda: not self.app._reload._now.is_set() and not self.app._engine._retiring)
        return watch.refused

    @property
    def waiting(self) -> list[str]:
        """What `/status` says."""
        found: list[str] = self.app._status.document()["configuration"]["waits_for_start"]
        return found

    def holding(self, values: set[Any]) -> set[Any]:
        """Which values the service holds: those it started with aside, and what was measured so far."""
        app = self.app
        numbers: set[float] = set()
        texts: list[str] = []
        for one in held(
            app,
            without=(
                app._reload._first,
                app._status._metrics,
                app._status._registry,
                app._engine._workshop.endpoints,
            ),
        ):
            if isinstance(one, str):
                texts.append(one)
            elif isinstance(one, bytes):
                texts.append(one.decode("latin-1"))
            elif isinstance(one, int | float) and not isinstance(one, bool):
                numbers.add(one)
        text = "\n".join(texts)
        return {
            each for each in values if (each in text if isinstance(each, str) else each in numbers)
        }


def settled(watch: ConfigWatch, digest: str) -> bool:
    """Whether the newest version is refused or in use."""
    return watch.refused is not None or watch.current.digest == digest


def write(file: Path, document: Mapping[str, Any]) -> None:
    """Replace the file as a whole."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.replace(file)


def changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with values set at paths, or left out where they are None."""
    data = copy.deepcopy(dict(document))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = data
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value
        if value is None:
            del place[last]
    return data


@asynccontextmanager
async def running(folder: Path, document: dict[str, Any]) -> AsyncIterator[Running]:
    """Run a service through the block."""
    file = folder / "authz.yaml"
    write(file, document)
    app = App(ConfigSource(file, {}), output=LogOutput(None, tell=lambda _: b""))
    task = asyncio.create_task(app.run())
    try:
        await until(lambda: app._started or task.done())
        yield Running(app, file, document)
    finally:
        app._told_to_stop()
        app._told_to_stop()
        await task


def scalars(value: Any) -> Iterator[Any]:
    """Values that can be told from any other: long texts, and numbers that nobody else uses."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(key)
            yield from scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    elif (isinstance(value, str) and len(value) > 14) or (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value > 600 or value % 1)
    ):
        yield value


def at(document: Mapping[str, Any], path: str) -> Any:
    """The value at a path, or None."""
    place: Any = document
    for part in path.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def key_of(path: str) -> str:
    """The setting of a path of the document."""
    parts = path.split(".")
    if parts[0] in {"blueprints", "applications", "agents", "inbound", "egress"}:
        parts[1] = "*"
    return ".".join(parts)


def test_each_setting_of_the_model_has_a_change() -> None:
    """A new key needs one here; and each key of the table is one of the model's."""
    files = Files(Path("/nowhere"))
    files.bundle = files.secret = files.nothing  # type: ignore[method-assign]
    files.pair = lambda: ("", "")  # type: ignore[method-assign]
    keys = [key_of(path) for path in (*changes_by_tcp(files), *changes_by_socket(files))]

    assert sorted(settings()) == sorted(keys)
    assert [] == [
        key for key in AT_START if not any(f"{s}.".startswith(f"{key}.") for s in settings())
    ]


@pytest.mark.parametrize(
    ("base", "changes"),
    [(by_tcp, changes_by_tcp), (by_socket, changes_by_socket)],
    ids=["tcp", "socket"],
)
async def test_each_setting_is_in_effect_when_the_table_says_so(
    base: Any, changes: Any, tmp_path: Path
) -> None:
    """Nothing holds the old value where it counts at once; nothing the new one where it waits."""
    files = Files(tmp_path)
    document = base(files)
    wrong: dict[str, Any] = {}
    async with running(tmp_path, document) as service:
        for setting, change in changes(files).items():
            expected = sorted({key for path in change if (key := waits(key_of(path)))})
            if refused := await service.reload(change):
                wrong[setting] = refused
                continue
            if expected != sorted(service.waiting):
                wrong[setting] = f"says that {service.waiting} wait"
            gone = set()
            for path, value in change.items():
                old, new = set(scalars(at(document, path))), set(scalars(value))
                gone |= new - old if waits(key_of(path)) else old - new
            # What was missing is said again each tenth of a second.
            for _ in range(100):
                if not (still := service.holding(gone)):
                    break
                gc.collect()
                await asyncio.sleep(0.05)
            else:
                wrong[setting] = f"{still} is held"

    assert "" == "\n".join(f"{setting}: {what}" for setting, what in wrong.items())


async def test_what_does_not_go_with_a_key_that_waits_is_refused(tmp_path: Path) -> None:
    """Workloads whose proof would begin at the next start: nothing is applied, and the fault says why."""
    document = by_tcp(Files(tmp_path))
    del document["listen"]["tls"]["client_ca_file"]
    del document["agents"]["desk"]["workloads"]
    del document["egress"]["application-api"]["workloads"]
    async with running(tmp_path, document) as service:
        refused = await service.reload(
            {
                "listen.workload_identity": "source_principal",
                "agents.desk.workloads": [f"{SPIFFE}desk"],
            }
        )

        assert refused is not None
        assert "agents.desk.workloads: no workload could prove itself" in refused
        assert "until the next start, which listen.workload_identity waits for" in refused
        assert () == service.app._engine.config.agents["desk"].workloads


async def test_further_hosts_wait_where_the_authority_cannot_vouch_for_them(tmp_path: Path) -> None:
    """The pod's authority names its hosts, and the app has read it."""
    async with running(tmp_path, by_socket(Files(tmp_path))) as service:
        assert None is await service.reload(
            {"egress.plain.hosts": ["first-host.example", "more.example"]}
        )
        assert ["https"] == service.waiting
        assert None is await service.reload({})
        assert [] == service.waiting


async def test_direction_and_inbound_route_change_without_a_restart(
    world: World, serve: Any, write: Any
) -> None:
    """Requests for which Envoy says nothing are of the new direction, and of the new route."""
    listen = {"grpc": f"unix:{world.folder}/authz.sock", "admin": "127.0.0.1:0"}
    inbound = {
        "agent": {"agent": "desk", "scopes": ["access_agent"]},
        "closed": {"agent": "desk", "roles": ["Nobody.Has.It"]},
    }
    more = {"reload_interval": "0s", "inbound": inbound}
    process: Process = serve(listen=listen, **more)
    async with Client(f"unix:{world.folder}/authz.sock") as client:

        async def reloaded(**changes: str) -> Any:
            count = len(
                [each for each in process.events() if each["event"] == "configuration applied"]
            )
            write(world.config(listen={**listen, **changes}, **more))
            process.signal(signal.SIGHUP)
            await until(
                lambda: (
                    count
                    < len(
                        [
                            each
                            for each in process.events()
                            if each["event"] == "configuration applied"
                        ]
                    )
                )
            )
            return await client.check(None, None, world.token())

        first = await client.check(None, None, world.token())
        egress = await reloaded(direction="egress")
        agent = await reloaded(direction="inbound", inbound_route="agent")
        closed = await reloaded(direction="inbound", inbound_route="closed")

    assert "unknown_route" == problem(first)["reason"]
    assert world.agent["client_id"] == authorization(egress)["appid"]
    assert agent.HasField("ok_response")
    assert closed.HasField("denied_response")
    assert [] == [each for each in process.events() if each["event"].startswith("takes effect at")]


async def test_a_supervisor_logs_as_the_newest_version_says(serve: Any, write: Any) -> None:
    """Its own records change with those of its workers: the loss of a worker is said in the new format."""
    listen = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": 2}
    process: Process = serve(listen=listen, reload_interval="0s")
    write(listen=listen, reload_interval="0s", log={"format": "console"})
    process.signal(signal.SIGHUP)
    await until(lambda: process.log().count("configuration applied") == 2)
    for number in range(1, 5):
        # It reads the same file at the same moment as its workers, and says nothing of it.
        os.kill(process.admin("/status").json()["workers"]["0"]["pid"], signal.SIGKILL)
        await until(lambda number=number: process.log().count("worker ended") == number)
        if any(
            "worker ended" in line and not line.startswith("{")
            for line in process.log().split("\n")
        ):
            return
        await asyncio.to_thread(process.wait_ready)
    pytest.fail(process.log())
