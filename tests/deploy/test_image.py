"""The image is built, and the rendered pod runs: this project's image, a real Envoy, an agent, an Entra.

Needs root and packages of the operating system; takes some two minutes, one of them for a stand-in of the
public base image, made of Debian's packages. So this proves the Dockerfile's stages, paths, user and entry
point, and that the pod's containers can work together with the rights that the manifests leave them. It
does not prove the published base image, nor anything that a cluster does.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import authz
from support.kubernetes.engine import Engine
from support.kubernetes.images import AUTHZ as IMAGE
from support.kubernetes.images import base_image
from support.kubernetes.kubelet import Given, Kubelet
from support.kubernetes.manifests import ROOT, composed

pytestmark = pytest.mark.system

CONTAINED = (
    "--rm",
    "--network=none",
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)

AGENT = """\
import http.server
import urllib.error
import urllib.request


class Agent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        token = self.headers.get("Authorization", "")
        graph = urllib.request.Request(
            "http://graph.microsoft.com/v1.0/me", headers={"Authorization": token}
        )
        try:
            answer = urllib.request.urlopen(graph, timeout=15)
        except urllib.error.HTTPError as error:
            answer = error
        self.send_response(answer.status)
        self.end_headers()
        self.wfile.write(answer.read())


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Agent).serve_forever()
"""

ENTRA = """\
import signal, sys
from pathlib import Path
from authz_dev.emulator import Emulator

with Emulator(host="127.0.0.1", port=443, names=("graph.microsoft.com",)) as entra:
    entra.write(Path(sys.argv[1]))
    print(entra.mint_user_token(), flush=True)
    signal.sigwait({signal.SIGTERM})
"""


@pytest.fixture(scope="module")
def engine(images: Engine) -> Engine:
    """Return an engine that has built every image of the pod."""
    _build_agent(images, base_image())
    return images


def _build_agent(engine: Engine, base: str) -> None:
    (context := engine.folder / "agent").mkdir()
    (context / "agent.py").write_text(AGENT)
    text = f'FROM {base}\nCOPY agent.py /agent.py\nENTRYPOINT ["python3", "/agent.py"]\n'
    engine.build(context, "localhost/agent:replace-me", text)


def _python(engine: Engine, code: str) -> subprocess.CompletedProcess[str]:
    return engine.attempt("run", *CONTAINED, "--entrypoint=python", IMAGE, "-c", code)


def test_the_image_says_how_it_runs(engine: Engine) -> None:
    """User by number, entry point, command, and no setting of the machine that built it."""
    config = engine.inspect(IMAGE)
    names = {variable.partition("=")[0] for variable in config["Env"]}

    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["authz"]
    assert config["Cmd"] == ["serve"]
    assert names == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def test_the_program_runs_without_any_right(engine: Engine) -> None:
    """No capability, no network, nothing writable, not even /tmp."""
    result = engine.attempt("run", *CONTAINED, IMAGE, "--version")

    assert (result.returncode, result.stdout) == (0, f"authz, version {authz.__version__}\n")


def test_nothing_that_installs_is_in_its_environment(engine: Engine) -> None:
    """Neither pip nor setuptools can be imported by the interpreter that serves."""
    code = "import importlib.util as u; print([n for n in ('pip', 'setuptools', 'hatchling', 'envoy') if u.find_spec(n)])"

    assert _python(engine, code).stdout == "[]\n"


def test_bytecode_is_there_from_the_start(engine: Engine) -> None:
    """Every module of the package has been compiled; a read-only root could not be added to."""
    code = (
        "import authz, pathlib; root = pathlib.Path(authz.__file__).parent;"
        "print(len([*root.rglob('*.py')]) - len([*root.rglob('*.pyc')]), len([*root.rglob('*.py')]) > 50)"
    )

    assert _python(engine, code).stdout == "0 True\n"


def test_the_root_file_system_cannot_be_written(engine: Engine) -> None:
    """Not where the program is, nor anywhere else."""
    for path in ("/opt/authz/x", "/tmp/x", "/run/authz/x"):  # noqa: S108
        result = _python(engine, f"open({path!r}, 'w')")
        assert "Read-only file system" in result.stderr or "Permission denied" in result.stderr


@pytest.fixture(scope="module", params=[(), ("https",)], ids=["plain", "https"])
def components(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the components on top of the overlay, in turn."""
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture(scope="module")
def volumes(engine: Engine, components: tuple[str, ...]) -> Path:
    """Return the folder of the pod's volumes."""
    folder = engine.folder / f"volumes-{len(components)}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def pod(
    engine: Engine, components: tuple[str, ...], volumes: Path
) -> Iterator[tuple[Kubelet, str]]:
    """Return the running pod of the client secret overlay, and the token of a user who may call it."""
    out = engine.folder / f"entra-{len(components)}"
    with Kubelet(engine, volumes) as kubelet:
        command = kubelet.inside([sys.executable, "-c", ENTRA, str(out)])
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as entra:
            try:
                assert entra.stdout is not None
                token = entra.stdout.readline().strip()
                described = json.loads((out / "emulator.json").read_text())
                given = _given(described, out / "ca.pem")
                kubelet.start(composed("client-secret-file", *components), given)
                _wait_until_ready(kubelet)
                yield kubelet, token
            finally:
                entra.terminate()


def _given(described: Mapping[str, Any], authorities: Path) -> Given:
    tenant = described["tenants"][0]
    blueprint = tenant["blueprints"][0]
    trusted = f"--volume={authorities}:/etc/ssl/certs/ca-certificates.crt:ro"
    identity = {
        "TENANT_ID": tenant["tenant_id"],
        "CLIENT_ID": blueprint["client_id"],
        "AGENT_IDENTITY": blueprint["agents"][0]["client_id"],
        "SCOPE": "access_agent access_as_user",
    }
    return Given(
        identity=identity,
        secrets={"agent-credential": {"client-secret": blueprint["client_secret"]}},
        options={
            "envoy": [trusted, "--add-host=graph.microsoft.com:127.0.0.1"],
            "authz": [
                trusted,
                f"--env=AZURE_AUTHORITY_HOST={described['authority']}",
                "--env=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            ],
        },
    )


def _wait_until_ready(kubelet: Kubelet) -> None:
    deadline = monotonic() + 30
    while True:
        try:
            status, body = kubelet.fetch("http://127.0.0.1:9902/readyz")
            kubelet.fetch("http://127.0.0.1:8080/healthz")
        except ConnectionError as error:
            status, body = 0, str(error)
        if status == 200:
            return
        assert monotonic() < deadline, f"not ready: {status} {body}\n{kubelet.logs()}"


def test_a_user_reaches_graph_through_the_pod(pod: tuple[Kubelet, str]) -> None:
    """Caller, Envoy, agent, Envoy, Graph: each check over the shared socket, each token from Entra."""
    kubelet, token = pod

    status, body = kubelet.fetch("http://127.0.0.1:8080/", Authorization=f"Bearer {token}")

    assert status == 200, body
    assert json.loads(body)["userPrincipalName"].startswith("alice@")


def test_a_caller_without_token_does_not_reach_the_agent(pod: tuple[Kubelet, str]) -> None:
    """The refusal is authz's own, so Envoy was able to ask."""
    kubelet, _ = pod

    status, body = kubelet.fetch("http://127.0.0.1:8080/")

    assert (status, json.loads(body)["reason"]) == (401, "missing_token")


@pytest.mark.parametrize("name", ["authz.sock", "checks.sock"])
def test_the_socket_is_open_to_the_group_alone(
    engine: Engine, pod: tuple[Kubelet, str], volumes: Path, name: str
) -> None:
    """Another user cannot connect, even with the folder in view; a member of the group can."""
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/authz/{name}')"
    folder = f"--volume={volumes / 'authz-socket'}:/run/authz:ro"
    ask = ("run", *CONTAINED, folder, "--entrypoint=python")
    code = (IMAGE, "-c", connect)

    member = engine.attempt(*ask, "--user=65533:65533", "--group-add=65532", *code)
    stranger = engine.attempt(*ask, "--user=10001:10001", *code)

    assert (member.returncode, member.stderr) == (0, "")
    assert "PermissionError" in stranger.stderr


def test_the_agent_reads_whom_to_trust_and_nobody_else_the_key(
    engine: Engine, pod: tuple[Kubelet, str], components: tuple[str, ...], volumes: Path
) -> None:
    """The files of the component `https`, as the containers' users see them where they are mounted."""
    if "https" not in components:
        assert not (volumes / "authz-ca").exists()
        return
    agent = composed("client-secret-file", *components).containers["agent"]
    place = agent.mounts["authz-trust"]["mountPath"]
    trust = f"--volume={volumes / 'authz-trust'}:{place}:ro"
    # As if a manifest gave it to him by mistake.
    key = f"--volume={volumes / 'authz-ca'}:/run/authz-ca:ro"
    variable = f"--env=SSL_CERT_FILE={agent.variables['SSL_CERT_FILE']}"
    ask = ("run", *CONTAINED, trust, key, variable, "--entrypoint=python")
    user = ("--user=10001:10001", "--group-add=65532", IMAGE, "-c")
    known = "import ssl; print([str(n) for c in ssl.create_default_context().get_ca_certs() for n in c['subject']])"

    trusted = engine.attempt(*ask, *user, known)
    stolen = engine.attempt(*ask, *user, "open('/run/authz-ca/ca.key')")
    changed = engine.attempt(*ask, *user, f"open('{place}/ca.pem', 'w')")

    assert "authz, for this pod only" in trusted.stdout, trusted.stderr
    assert "PermissionError" in stolen.stderr
    assert "Read-only file system" in changed.stderr
    assert (volumes / "authz-ca" / "ca.key").stat().st_mode & 0o777 == 0o600
