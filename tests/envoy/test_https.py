"""HTTPS that the app starts itself: real Envoy ends it with the pod's certificates, and the token goes in."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from click.testing import CliRunner

from authz.cli import main
from authz.config.reading.document import parse
from support.programs.stack import Process, World, claims
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
ORDERS: Final = "orders.example"


class Pod:
    """The service, its Envoy, and clients that trust the pod's authority and nobody else."""

    def __init__(self, world: World, sidecar: Sidecar, process: Process) -> None:
        self.world = world
        self.sidecar = sidecar
        self.process = process
        self.context = ssl.create_default_context(cafile=world.folder / "ca.pem")

    @property
    def port(self) -> int:
        """Where TLS of the app is ended."""
        return self.sidecar.envoy.port("https")

    def client(self, host: str, *, http2: bool = False, **more: Any) -> httpx.Client:
        """A client whose connections lead to Envoy, as interception makes them; nothing else is changed."""
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"host": host},
            verify=self.context,
            http2=http2,
            trust_env=False,
            timeout=20,
            **more,
        )

    def call(self, host: str, path: str = "/x", **request: Any) -> httpx.Response:
        """Make one call, asking for the host by TLS as well."""
        sni = request.pop("sni", host)
        http2 = request.pop("http2", False)
        with self.client(host, http2=http2) as client:
            method = request.pop("method", "GET")
            return client.request(method, path, extensions={"sni_hostname": sni}, **request)


def document(world: World) -> dict[str, Any]:
    """A pushed route and one for users, with the pod's authority in the test's folder."""
    found = world.config()
    routes = found["egress"]
    files = {name: str(world.folder / file) for name, file in _FILES.items()}
    egress = {"graph": routes["graph"], "orders": {**routes["autonomous"], "hosts": [ORDERS]}}
    return {**found, "egress": egress, "https": files}


_FILES: Final = {"ca_file": "ca.pem", "bundle_file": "bundle.pem", "key_file": "ca.key"}


@pytest.fixture(scope="module")
def running(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A running pod."""
    world = shared_world
    found = document(world)
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(found))
    folder = tmp_path_factory.mktemp("destinations")
    sidecar = Sidecar(
        parse(json.dumps(found), {}),
        authz_address=found["listen"]["grpc"],
        authority=Authority.create(folder),
        certificates={host: (host,) for host in (GRAPH, ORDERS)},
    )
    with Process("serve", "--config", str(file)) as process:
        process.wait_ready()
        with sidecar:
            yield Pod(world, sidecar, process)


@pytest.fixture
def pod(running: Pod) -> Pod:
    """The running pod, with nothing on record."""
    running.sidecar.forget()
    return running


def arrived(answer: httpx.Response) -> dict[str, Any]:
    """The claims of the one token that arrived at the destination."""
    assert answer.status_code == 200, answer.text
    (value,) = [value for name, value in answer.json()["headers"] if name == "authorization"]
    return claims(value.removeprefix("Bearer "))


@pytest.mark.parametrize("http2", [False, True])
def test_the_agents_token_goes_out_in_place_of_the_apps(pod: Pod, http2: bool) -> None:
    """For the user by a Check, and pushed; HTTP/1.1 and HTTP/2; large bodies whole."""
    user = {"authorization": f"Bearer {pod.world.token()}"}
    body = "x" * 3_000_000
    for_user = pod.call(GRAPH, http2=http2, headers=user, method="POST", content=body)
    pushed = pod.call(ORDERS, http2=http2, headers=user)
    assert ("HTTP/2" if http2 else "HTTP/1.1") == for_user.http_version
    agent = pod.world.agent["client_id"]
    assert (agent, "user") == (arrived(for_user)["appid"], arrived(for_user)["idtyp"])
    assert (agent, "app") == (arrived(pushed)["appid"], arrived(pushed)["idtyp"])
    assert body == for_user.json()["body"]


def test_a_call_without_the_user_is_refused_as_ever(pod: Pod) -> None:
    """What follows TLS is the egress listener's."""
    refused = pod.call(GRAPH)
    assert (401, "missing_token") == (refused.status_code, refused.json()["reason"])
    assert [] == pod.sidecar.destinations[GRAPH].received


@pytest.mark.parametrize("name", ["evil.example", "login.microsoftonline.com", None])
def test_a_connection_for_another_name_ends_before_it_has_begun(pod: Pod, name: str | None) -> None:
    """No certificate is shown for it, and nothing goes anywhere."""

    async def connect() -> None:
        context = ssl.create_default_context(cafile=pod.world.folder / "ca.pem")
        context.check_hostname = name is not None
        await asyncio.open_connection(
            "127.0.0.1", pod.port, ssl=context, server_hostname=name or ""
        )

    with pytest.raises((ssl.SSLError, ConnectionError)):
        asyncio.run(connect())


def test_another_host_on_an_open_connection_has_no_way(pod: Pod) -> None:
    """Whichever name TLS was begun with, the host of the request decides, and only configured ones count."""
    refused = pod.call("stranger.example", sni=GRAPH)
    assert (403, "unknown_route") == (refused.status_code, refused.json()["reason"])


def test_the_files_are_for_whom_they_are(pod: Pod) -> None:
    """The app reads whom to trust, and nobody else the key. Names and expiries are told, keys are not."""
    folder = pod.world.folder
    assert [0o644, 0o644, 0o600] == [
        (folder / file).stat().st_mode & 0o777 for file in _FILES.values()
    ]
    pod.call(ORDERS)
    metrics = pod.process.admin("/metrics").text
    assert f'authz_pushed_secret_expiry_seconds{{secret="https/{ORDERS}"}}' in metrics
    assert "PRIVATE KEY" not in pod.process.log() + metrics


def test_trust_outlives_a_restart_of_the_service(world: World) -> None:
    """The app does not read it again."""
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(document(world)))
    seen = set()
    for _ in range(2):
        with Process("serve", "--config", str(file)) as process:
            process.wait_ready()
            seen.add((world.folder / "ca.pem").read_text())
    assert 1 == len(seen)


def test_what_an_init_container_has_prepared_is_taken_up(world: World) -> None:
    """`check-config --prepare` writes the files, so that the app may start before the service."""
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(document(world)))
    done = CliRunner().invoke(main, ["check-config", "--prepare", str(file)])
    assert (0, "") == (done.exit_code, done.stderr)
    prepared = {name: (world.folder / name).read_text() for name in _FILES.values()}
    with Process("serve", "--config", str(file)) as process:
        process.wait_ready()
        assert prepared == {name: (world.folder / name).read_text() for name in _FILES.values()}


def test_checking_alone_writes_nothing(world: World) -> None:
    """Whoever checks a file on his own machine keeps it as it is; what cannot be prepared is a fault."""
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(document(world)))
    before = sorted(world.folder.iterdir())
    assert 0 == CliRunner().invoke(main, ["check-config", str(file)]).exit_code
    assert before == sorted(world.folder.iterdir())
    faulty = document(world)
    faulty["https"]["key_file"] = "/proc/nowhere/ca.key"
    file.write_text(json.dumps(faulty))
    done = CliRunner().invoke(main, ["check-config", "--prepare", str(file)])
    assert 2 == done.exit_code
    assert "https: /proc/nowhere" in done.stderr


def test_a_folder_that_cannot_be_written_is_a_fault(world: World) -> None:
    """Named, at the start: an app would trust nobody otherwise."""
    found = document(world)
    found["https"]["ca_file"] = "/proc/nowhere/ca.pem"
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(found))
    with Process("serve", "--config", str(file)) as process:
        assert 2 == process.wait()
        assert "https: /proc/nowhere" in process.log()
