"""The running program: doors, permissions, health, metrics, logs, exit statuses."""

import asyncio
import grp
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.cli import VERBS
from authz_dev.emulator import Fault, Match
from support.programs import program
from support.programs.stack import Client, Process, World, authorization, problem, until
from support.proxy.envoy import validate

Serve = Callable[..., Process]


async def test_unix_socket_is_for_its_owner_only_and_answers(world: World, serve: Serve) -> None:
    """The default door: a socket that nobody else may open, and a Check through it."""
    serve()
    place = world.folder / "authz.sock"
    async with Client(f"unix:{place}") as client:
        answer = await client.check("egress", "graph", world.token())

    assert 0o600 == stat.S_IMODE(place.stat().st_mode)
    assert authorization(answer)["appid"] == world.agent["client_id"]


@pytest.mark.parametrize("name", ["by name", "by number"])
def test_unix_socket_is_given_to_a_group(world: World, serve: Serve, name: str) -> None:
    """For an Envoy that runs as another user: mode 0660 and a group, which need not have a name."""
    number = os.getgid()
    group = grp.getgrgid(number).gr_name if name == "by name" else str(number)
    place = world.folder / "authz.sock"
    serve(
        listen={
            "grpc": f"unix:{place}",
            "admin": "127.0.0.1:0",
            "socket_mode": "0660",
            "socket_group": group,
        }
    )

    assert (0o660, number) == (stat.S_IMODE(place.stat().st_mode), place.stat().st_gid)


async def test_a_second_socket_answers_checks_alone(world: World, serve: Serve) -> None:
    """With the mode and the group of the first; it is made again, and gone at the end."""
    place = world.folder / "checks.sock"
    listen = {
        "grpc": f"unix:{world.folder}/authz.sock",
        "admin": "127.0.0.1:0",
        "checks": f"unix:{place}",
        "socket_mode": "0660",
        "socket_group": str(os.getgid()),
    }
    process = serve(listen=listen)
    async with Client(f"unix:{place}") as client:
        token = world.token()
        answer = await client.check("egress", "graph", token)
        place.unlink()
        await until(place.exists, seconds=30)
        again = await client.check("egress", "graph", token)
    mode = stat.S_IMODE(place.stat().st_mode)
    with Process("serve", "--config", str(world.folder / "authz.yaml")) as second:
        second.wait()
        cause = second.log()
    process.signal(signal.SIGTERM)
    process.wait()

    assert listen["checks"] == process.event("serving")["checks"]
    assert authorization(answer) == authorization(again)
    assert (0o660, False) == (mode, place.exists())
    assert "another process serves there" in cause


async def test_a_socket_left_behind_is_replaced(world: World, serve: Serve) -> None:
    """A killed process leaves its socket; the next one starts all the same."""
    serve().signal(signal.SIGKILL)
    serve()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        assert problem(await client.check("inbound", "agent"))["reason"] == "missing_token"


def test_a_file_in_the_sockets_place_is_left_alone(
    world: World, write: Callable[..., Path]
) -> None:
    """What is no socket is not removed: the start fails with the reason."""
    (world.folder / "authz.sock").write_text("precious")
    with Process("serve", "--config", str(write())) as process:
        assert 1 == process.wait()
        assert "the path exists and is no socket" in process.log()
    assert "precious" == (world.folder / "authz.sock").read_text()


def test_port_in_use_is_said(world: World, serve: Serve, write: Callable[..., Path]) -> None:
    """Two servers never share a port silently."""
    first = serve(listen={"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"})
    address = first.event("serving")["grpc"]
    file = write(listen={"grpc": address, "admin": None})
    with Process("serve", "--config", str(file)) as second:
        assert 1 == second.wait()
        assert f"cannot listen on {address}: Address already in use\n" in second.log()


@pytest.mark.parametrize("where", ["unix:/proc/authz.sock", "198.51.100.7:0"])
def test_an_address_that_cannot_be_had_is_said_with_its_cause(
    write: Callable[..., Path], where: str
) -> None:
    """As the system has it, and by the key; not as gRPC does, which keeps it to itself."""
    file = write(listen={"grpc": where, "admin": None})
    with pytest.raises(OSError) as refused:  # noqa: PT011 - whatever this system says
        _bind(where)
    with Process("serve", "--config", str(file)) as process:
        assert 1 == process.wait()
        said = [line for line in process.log().splitlines() if not line.startswith("{")]

    cause = os.strerror(refused.value.errno or 0)
    assert [f"authz: listen.grpc: cannot listen on {where}: {cause}"] == said


def _bind(where: str) -> None:
    if where.startswith("unix:"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(where.removeprefix("unix:"))
    else:
        with socket.socket() as sock:
            sock.bind((where.partition(":")[0], 0))


@pytest.mark.parametrize("taken", ["grpc", "admin", "api"])
def test_start_without_its_address_ends_at_once(
    world: World, write: Callable[..., Path], taken: str
) -> None:
    """With status 1 and one line, also where Entra never answers and a request to it could last minutes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        address = f"127.0.0.1:{other.getsockname()[1]}"
        free = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "api": "127.0.0.1:0"}
        document = world.config(listen={**free, taken: address})
        document["entra"] |= {
            "authority": f"https://127.0.0.1:{silent.getsockname()[1]}",
            "connect_timeout": "300s",
            "timeout": "300s",
            "exchange_timeout": "300s",
        }
        with Process("serve", str(write(document))) as process:
            assert 1 == process.wait()
            said = [line for line in process.log().splitlines() if not line.startswith("{")]

    assert 1 == len(said)
    assert said[0].endswith(f"cannot listen on {address}: Address already in use")


def test_serve_takes_its_file_as_check_config_does(
    world: World, write: Callable[..., Path]
) -> None:
    """As an argument; a file with faults is refused with the same status by all that read one."""
    file = write()
    with Process("serve", str(file)) as process:
        process.wait_ready()
        assert 0 == process.stop()
    file.write_text("egress: 1\n")
    for verb in ("serve", "check-config", "envoy"):
        with Process(verb, str(file)) as process:
            assert 2 == process.wait()
            assert "egress (line 1)" in process.log()


async def test_health_service_follows_readiness(world: World, serve: Serve) -> None:
    """Envoy's gRPC health checks see what the kubelet sees."""
    process = serve()
    async with grpc.aio.insecure_channel(f"unix:{world.folder}/authz.sock") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        process.event("ready")
        answer = await health.Check(
            health_pb2.HealthCheckRequest(service="envoy.service.auth.v3.Authorization")
        )

    assert health_pb2.HealthCheckResponse.SERVING == answer.status


async def test_health_service_says_when_checks_cannot_be_answered(
    world: World, write: Callable[..., Path]
) -> None:
    """Without credentials, and from the first moment of a stop, Envoy turns to another replica."""
    files = (world.secret_file, world.app_secret_file)
    contents = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    status = health_pb2.HealthCheckResponse
    with Process("serve", "--config", str(write())) as process:
        process.event("not ready")
        async with grpc.aio.insecure_channel(f"unix:{world.folder}/authz.sock") as channel:
            watches = [
                health_pb2_grpc.HealthStub(channel).Watch(
                    health_pb2.HealthCheckRequest(service=service), timeout=60
                )
                for service in ("", "envoy.service.auth.v3.Authorization")
            ]
            before = [(await watch.read()).status for watch in watches]
            for file, content in zip(files, contents, strict=True):
                file.write_text(content)
            ready = [(await watch.read()).status for watch in watches]
            process.signal(signal.SIGTERM)
            stopping = [(await watch.read()).status for watch in watches]

        assert 0 == process.wait()
    assert [status.NOT_SERVING] * 2 == before
    assert [status.SERVING] * 2 == ready
    assert [status.NOT_SERVING] * 2 == stopping


async def test_a_check_is_answered_a_margin_before_its_callers_deadline(
    world: World, serve: Serve
) -> None:
    """Envoy would answer with its own 503 at its timeout; ours, with `Retry-After`, must be there before."""
    serve(limits={"check_timeout": "30s", "deadline_margin": "10s"})
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        world.emulator.faults.add(Fault("hang", match=Match(leg="autonomous")))
        # Less than the margin is no time at all; without it, this is more than an exchange may take.
        late = problem(await client.check("egress", "autonomous", seconds=9))
        world.emulator.faults.clear()
        in_time = authorization(await client.check("egress", "autonomous-clerk", seconds=19))

    assert "deadline_exceeded" == late["reason"]
    assert world.sibling["client_id"] == in_time["appid"]


def test_not_ready_without_credential_and_why(world: World, write: Callable[..., Path]) -> None:
    """`/readyz` names what is missing; `/livez` says that the process lives."""
    world.secret_file.unlink()
    world.app_secret_file.unlink()
    with Process("serve", "--config", str(write())) as process:
        missing = process.event("not ready")
        answer = process.admin("/readyz")

        assert 503 == answer.status_code
        assert ("warning", answer.json()["missing"]["credentials"]) == (
            missing["level"],
            missing["credentials"],
        )
        assert "support" in answer.json()["missing"]["credentials"]
        assert 200 == process.admin("/livez").status_code
        world.secret_file.write_text(world.blueprint["client_secret"])
        process.wait_ready()


def test_a_start_that_takes_its_time_is_no_warning(serve: Serve) -> None:
    """What every start waits for is information; the warning is for what is missing for longer."""
    process = serve()
    process.event("ready")
    records = process.events()
    names = [record["event"] for record in records]
    before = records[: names.index("ready")]

    # Notices about the configuration itself are warnings.
    assert {"info"} == {each["level"] for each in before if each["event"] != "configuration"}
    waiting = next(record for record in before if record["event"] == "not ready yet")
    assert "not read yet" == waiting["credentials"]


async def test_the_way_back_to_the_version_in_use_is_logged(
    serve: Serve, write: Callable[..., Path]
) -> None:
    """A file that is put back after a refusal is a change, though nothing has to be applied."""
    process = serve(reload_interval="50ms")
    write(reload_interval="50ms", surprise=1)
    await asyncio.to_thread(process.event, "configuration refused, the previous one stays in use")
    write(reload_interval="50ms")
    back = await asyncio.to_thread(process.event, "configuration is again the one in use")
    status = process.admin("/status").json()["configuration"]

    assert (status["digest"], None) == (back["digest"], status["refused"])


async def test_metrics_and_status_tell_what_happened_and_no_secret(
    world: World, serve: Serve
) -> None:
    """The contract's metrics are there; neither they nor log nor status hold a token."""
    process = serve()
    token = world.token()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "graph", token)
        await client.check("egress", "graph", token)
        await client.check("egress", "graph", world.token("bob"))
        await client.check("egress", "nowhere")
    failed = process.event("exchange failed")
    metrics = process.admin("/metrics").text
    status = process.admin("/status").text

    for line in (
        'authz_checks_total{decision="allow",direction="egress",reason="none",route="graph"} 2.0',
        'authz_checks_total{decision="deny",direction="none",reason="unknown_route",route="none"} 1.0',
        'authz_exchanges_total{flow="on_behalf_of",outcome="issued"} 1.0',
        'authz_exchanges_total{flow="blueprint_assertion",outcome="issued"} 1.0',
        'authz_entra_errors_total{code="65001"} 1.0',
        'authz_cache_lookups_total{cache="answers",result="hit"} 1.0',
        'authz_cache_lookups_total{cache="tokens",result="miss"} 2.0',
        'authz_build_info{version="',
        "authz_check_duration_seconds_bucket{",
        "authz_exchange_duration_seconds_bucket{",
        "authz_signing_keys_age_seconds{",
        'authz_cache_entries{cache="tokens"}',
        "authz_ready 1.0",
        "authz_config_refused 0.0",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_cpu_seconds_total ",
        "\nprocess_open_fds ",
        "\npython_info{",
        'python_gc_collections_total{generation="0"}',
    ):
        assert line in metrics, line
    assert ("graph", "support", "desk", "on_behalf_of") == tuple(
        failed[name] for name in ("route", "client", "agent", "flow")
    )
    for text in (metrics, status, process.log()):
        assert "eyJ" not in text
        assert world.blueprint["client_secret"] not in text


def test_faulty_configuration_ends_with_status_2_and_every_fault(
    world: World, write: Callable[..., Path]
) -> None:
    """All faults at once, each with its path, and nothing is served."""
    document = world.config()
    document["egress"]["graph"]["agent"] = "nobody"
    document["inbound"]["agent"]["surprise"] = 1
    with Process("serve", "--config", str(write(document))) as process:
        assert 2 == process.wait()
        assert "egress.graph.agent" in process.log()
        assert "inbound.agent.surprise" in process.log()


@pytest.mark.parametrize(
    "verb",
    [
        ["--help"],
        ["serve", "--help"],
        ["check-config", "--help"],
        ["emulator", "--help"],
        ["envoy", "--help"],
        ["demo", "--help"],
        ["--version"],
    ],
)
def test_every_verb_explains_itself(verb: list[str]) -> None:
    """`--help` and `--version` work without any configuration."""
    with Process(*verb, environ={"AUTHZ_CONFIG": ""}) as process:
        assert 0 == process.wait()
        assert process.log()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_list_of_verbs_has_a_whole_summary_of_each(name: str) -> None:
    """One line in a terminal of 80 columns, not cut."""
    with Process("--help", environ={"COLUMNS": "80"}) as process:
        assert 0 == process.wait()
        listed = process.log().partition("Commands:\n")[2].splitlines()
    (summary,) = [line for line in listed if line.split()[0] == name]

    assert summary.endswith(f"  {VERBS[name].summary}")
    assert len(summary) <= 80


def test_envoys_configuration_is_printed_and_valid(tmp_path: Path) -> None:
    """`authz envoy` prints what Envoy accepts, with the addresses that were asked for."""
    example = Path(__file__).resolve().parents[2] / "docs/examples/applications.yaml"
    with Process(
        "envoy", "--config", str(example), "--egress", "127.0.0.1:15999",
        "--upstream-ca", "/etc/ssl/certs/ca-certificates.crt",
    ) as process:  # fmt: skip
        assert 0 == process.wait()
        bootstrap = process.log()

    outcome = validate(bootstrap, tmp_path)
    assert 0 == outcome.returncode, outcome.stderr
    assert "port_value: 15999" in bootstrap


def test_envoys_configuration_follows_what_app_and_node_need() -> None:
    """`--paths-as-sent` leaves paths alone, and `--no-ipv6` names no address of IPv6; neither by itself."""
    example = Path(__file__).resolve().parents[2] / "docs/examples/sidecar.yaml"
    ids = dict.fromkeys(("TENANT_ID", "BLUEPRINT_CLIENT_ID", "AGENT_CLIENT_ID"), str(UUID(int=1)))

    def printed(*options: str) -> tuple[bool, bool]:
        with Process("envoy", "--config", str(example), *options, environ=ids) as process:
            assert 0 == process.wait(), process.log()
            text = process.log()
        return "merge_slashes: true" in text, "::1" in text

    assert (True, True) == printed()
    assert (False, False) == printed("--paths-as-sent", "--no-ipv6")


def test_envoys_configuration_notes_what_could_be_pushed_and_is_not(tmp_path: Path) -> None:
    """On standard error, so that the configuration itself stays what Envoy reads."""
    example = Path(__file__).resolve().parents[2] / "docs/examples/applications.yaml"
    options = ["--config", str(example), "--upstream-ca", "/etc/ssl/certs/ca-certificates.crt"]
    found = [
        program.run("envoy", *options, *more)
        for more in ([], ["--authz-address", "127.0.0.1:9901"])
    ]

    assert [0, 0] == [each.returncode for each in found]
    assert "" == found[0].stderr
    assert "credential_injector" in found[0].stdout
    assert found[1].stderr.startswith("note: egress.graph: checked for each request: Envoy proves")
    assert "credential_injector" not in found[1].stdout
    assert 0 == validate(found[1].stdout, tmp_path).returncode


@pytest.mark.parametrize(("where", "is_noted"), [("run/authz", False), ("run/other", True)])
def test_an_envoy_that_asks_elsewhere_is_noted(where: str, *, is_noted: bool) -> None:
    """`listen.checks` has no effect then."""
    example = Path(__file__).resolve().parents[2] / "docs/examples/sidecar.yaml"
    address = ("--authz-address", f"unix:/{where}/authz.sock")
    found = program.run("envoy", "--config", str(example), "--no-values", *address)

    assert 0 == found.returncode
    assert is_noted == ("note: listen.checks: Envoy asks at --authz-address" in found.stderr)


def test_envoys_configuration_says_what_does_not_fit(tmp_path: Path) -> None:
    """A wrong option is a message that names it, not a traceback."""
    example = Path(__file__).resolve().parents[2] / "docs/examples/applications.yaml"
    with Process("envoy", "--config", str(example), "--app", "nowhere") as process:
        assert 1 == process.wait()
        assert "Error: --app: found 'nowhere': expected host:port" in process.log()
