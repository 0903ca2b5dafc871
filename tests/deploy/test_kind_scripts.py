"""The scripts of `kubernetes/kind`: inputs first, nothing twice, no secret in sight, and the documents right.

kind, docker, kubectl's cluster and curl are stand-ins on PATH; rendering and certificates are real.
`test_kind_pods` runs what is applied here.
"""

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from authz_dev.emulator import default_directory
from authz_dev.emulator.federation import KEYS, METADATA, trust
from support.kubernetes.kind import TOKEN, Kind, publish
from support.kubernetes.manifests import KUBERNETES, OVERLAYS
from support.kubernetes.schemas import check

pytestmark = pytest.mark.thorough

SCRIPTS = ("up.sh", "ask.sh", "issuer.sh")
ISSUER = "https://kubernetes.default.svc.cluster.local"
PUBLIC = "https://site.example/cluster"
KEY = {"use": "sig", "kty": "RSA", "kid": "cluster", "alg": "RS256", "n": "sXch" * 86, "e": "AQAB"}
SECRET = (
    next(
        one
        for one in default_directory(1).applications(default_directory(1).tenants()[0].tenant_id)
        if one.is_blueprint
    )
    .secrets[0]
    .value
)


@dataclass(frozen=True)
class Run:
    """The script's first run, with what it left.

    Attributes:
        kind: The stand-ins.
        result: Its outputs.
        before: Files of the folder before.
        folder: The folder.
        scratch: Where it had its temporary files.
    """

    kind: Kind
    result: subprocess.CompletedProcess[str]
    before: frozenset[Path]
    folder: Path
    scratch: Path


@pytest.fixture(scope="module", params=OVERLAYS)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kubectl: str
) -> Run:
    """Return a run for each overlay, from nothing to the end; nobody changes it."""
    place = tmp_path_factory.mktemp("kind")
    folder, kind = _copy(place), Kind(place / "kind", kubectl, _published(place / "issuer"))
    (scratch := place / "scratch").mkdir()
    before = frozenset(folder.rglob("*"))
    result = kind.run(folder / "up.sh", str(request.param), TMPDIR=str(scratch))
    assert result.returncode == 0, result.stderr
    return Run(kind, result, before, folder, scratch)


def _copy(place: Path) -> Path:
    """Copy the folder, so that no cluster of a user takes part."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates are made")
    shutil.copytree(KUBERNETES, place / "kubernetes", ignore=shutil.ignore_patterns(".env", ".up"))
    return place / "kubernetes/kind"


def _published(folder: Path) -> Path:
    """Write the documents of a kind cluster, as its API server publishes them."""
    metadata = {"issuer": ISSUER, "jwks_uri": "https://172.18.0.2:6443/openid/v1/jwks"}
    publish(folder, metadata, [KEY])
    return folder


@pytest.fixture
def folder(tmp_path: Path, kubectl: str) -> Path:
    """Return a copy of the folder."""
    return _copy(tmp_path)


@pytest.fixture
def issuer(tmp_path: Path) -> Path:
    """Return the documents of a kind cluster."""
    return _published(tmp_path / "issuer")


@pytest.fixture
def kind(tmp_path: Path, kubectl: str, issuer: Path) -> Kind:
    """Return the stand-ins."""
    return Kind(tmp_path / "kind", kubectl, issuer)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    """Plain POSIX sh, where ShellCheck is installed to tell."""
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")

    file = KUBERNETES / "kind" / script
    result = subprocess.run(
        [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (file.read_text().splitlines()[0], result.stdout) == ("#!/bin/sh", "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_and_does_nothing(folder: Path, kind: Kind, script: str) -> None:
    """Status 0, usage on standard output, no tool asked."""
    result = kind.run(folder / script, "--help")

    assert (result.returncode, result.stderr, kind.calls) == (0, "", [])
    assert result.stdout.startswith(f"usage: {script} ")


@pytest.mark.parametrize("arguments", [("kustomize",), ("client-secret-file", "--delete")])
def test_a_wrong_call_explains_itself(folder: Path, kind: Kind, arguments: tuple[str, ...]) -> None:
    """Usage on standard error, and the status of a wrong call."""
    result = kind.run(folder / "up.sh", *arguments)

    assert (result.returncode, result.stdout, kind.calls) == (2, "", [])
    assert result.stderr.startswith("usage: up.sh ")


def test_all_missing_tools_are_named_at_once(
    folder: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """Before anything happens."""
    kind = Kind(tmp_path / "kind", kubectl, issuer, tools=("kubectl",))
    for tool in ("sh", "dirname", "cat"):
        (kind.path / tool).symlink_to(str(shutil.which(tool)))

    result = kind.run(folder / "up.sh", PATH=str(kind.path))

    assert (result.returncode, kind.calls) == (2, [])
    assert result.stderr == "up.sh: not installed: docker kind openssl curl\n"


def test_a_docker_that_does_not_answer_is_named(
    folder: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """Rather than a failure of kind's, minutes later."""
    kind = Kind(tmp_path / "kind", kubectl, issuer, docker_answers=False)

    result = kind.run(folder / "up.sh")

    assert (result.returncode, result.stderr) == (2, "up.sh: docker does not answer\n")
    assert kind.told("kind") == []


def test_it_goes_from_nothing_to_an_answer(ran: Run) -> None:
    """Cluster, images, emulator, API, agent; in the end the agent is asked, and the API what it saw."""
    rollouts = [call.arguments[4] for call in ran.kind.told("rollout")]

    assert len(ran.kind.told("kind", "create")) == 1
    assert [call.arguments[3] for call in ran.kind.told("docker", "build")] == [
        f"{name}:{_version(ran.folder)}" for name in ("entra-authz", "entra-authz-development")
    ]
    assert rollouts == ["deployment/emulator", "deployment/orders", "deployment/agent"]
    assert "answer of http://127.0.0.1:8080/my-orders" in ran.result.stdout
    assert "answer of https://orders.apis.svc.cluster.local/calls" in ran.result.stdout


def _version(folder: Path) -> str:
    deployment = yaml.safe_load((folder.parent / "base/deployment.yaml").read_text())
    image: str = deployment["spec"]["template"]["spec"]["initContainers"][0]["image"]
    return image.partition(":")[2]


def test_no_other_cluster_is_touched(ran: Run) -> None:
    """Whatever the current context is, every call that reaches a cluster names the context."""
    calls = [call for call in ran.kind.told("kubectl") if call.arguments[0] != "kustomize"]

    assert {tuple(call.arguments[:2]) for call in calls} == {("--context", "kind-authz")}


def test_a_second_run_changes_nothing(folder: Path, kind: Kind) -> None:
    """No new cluster and no new certificate: every object is what it was."""
    kind.run(folder / "up.sh")
    before = [kind.applied(name).objects for name in ("entra-emulator", "apis", "agent")]

    result = kind.run(folder / "up.sh")

    assert result.returncode == 0, result.stderr
    assert len(kind.told("kind", "create")) == 1
    assert [kind.applied(name).objects for name in ("entra-emulator", "apis", "agent")] == before


def test_certificates_are_good_for_their_services(ran: Run) -> None:
    """Every Service by name, of one authority, which is what the agent's pod trusts; its key is nowhere."""
    trusted = ran.kind.applied("agent").find("ConfigMap", "development-ca")["data"]
    authority = x509.load_pem_x509_certificate(trusted["ca.crt"].encode())
    for namespace, secret in (("entra-emulator", "emulator-tls"), ("apis", "orders-tls")):
        applied = ran.kind.applied(namespace)
        data = {
            key: base64.b64decode(text)
            for key, text in applied.find("Secret", secret)["data"].items()
        }
        leaf = x509.load_pem_x509_certificate(data["tls.crt"])
        verifier = PolicyBuilder().store(Store([authority]))
        for service in applied.all("Service"):
            name = f"{service['metadata']['name']}.{namespace}.svc.cluster.local"
            verifier.build_server_verifier(x509.DNSName(name)).verify(leaf, [])
        assert data.keys() == {"tls.crt", "tls.key", "ca.crt"}
        assert data["ca.crt"].decode() == trusted["ca.crt"]
    assert trusted.keys() == {"ca.crt"}
    assert (ran.folder / ".up/ca.crt").read_text() == trusted["ca.crt"]


def test_pods_are_replaced_when_the_authority_is(folder: Path, kind: Kind, tmp_path: Path) -> None:
    """The manifests are the same, so the pods' annotation is what differs."""
    kind.run(folder / "up.sh")
    before = _made_of(kind)
    (tmp_path / "kind/objects/apis+secret+orders-tls").unlink()

    kind.run(folder / "up.sh")

    assert len({*before, *_made_of(kind)}) == 2


def _made_of(kind: Kind) -> list[str]:
    return [
        kind.applied(name).find("Deployment")["spec"]["template"]["metadata"]["annotations"][
            "authz/made-of"
        ]
        for name in ("entra-emulator", "apis", "agent")
    ]


def test_the_emulator_gets_what_the_cluster_publishes(ran: Run) -> None:
    """Both documents, unchanged, where the emulator's pod has them mounted from."""
    data = ran.kind.applied("entra-emulator").find("ConfigMap", "issuer")["data"]

    assert json.loads(data["openid-configuration"])["issuer"] == ISSUER
    assert json.loads(data["jwks"]) == {"keys": [KEY]}


def test_the_secret_goes_through_a_pipe_alone(ran: Run) -> None:
    """From the emulator into the Secret: on no command line, in no environment, in no output."""
    secrets = ran.kind.applied("agent").all("Secret")
    found = [base64.b64decode(one["data"]["client-secret"]).decode() for one in secrets]
    calls = ran.kind.calls

    # With workload identity there is nothing to steal.
    assert found == ([SECRET] if "deploying client-secret-file" in ran.result.stdout else [])
    assert [call for call in calls if SECRET in " ".join(call.arguments)] == []
    assert [call for call in calls if SECRET in call.environ.values()] == []
    assert SECRET not in ran.result.stdout + ran.result.stderr


def test_the_users_token_is_on_no_command_line(ran: Run) -> None:
    """The program reads it from its standard input; what is printed has a variable in its place."""
    (asked,) = ran.kind.told("curl", "http://127.0.0.1:8080/my-orders")

    assert asked.input == f"Authorization: Bearer {TOKEN}\n"
    assert [call for call in ran.kind.calls if TOKEN in " ".join(call.arguments)] == []
    assert TOKEN not in ran.result.stdout + ran.result.stderr


def test_what_does_not_run_is_a_failure(
    folder: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """The exit status says so, the message where to look, and nothing later is done."""
    kind = Kind(tmp_path / "kind", kubectl, issuer, broken=("deployment/orders",))

    result = kind.run(folder / "up.sh")

    assert result.returncode == 1
    assert (
        "$ kubectl --context kind-authz logs deployment/orders --namespace apis " in result.stderr
    )
    assert kind.applied("agent").all("Deployment") == []


def test_nothing_is_left_behind(ran: Run) -> None:
    """Keys of certificates lie in a folder that goes; one file stays, which git ignores."""
    there = {*ran.folder.rglob("*")}

    assert list(ran.scratch.iterdir()) == []
    assert there - ran.before == {ran.folder / ".up", ran.folder / ".up/ca.crt"}
    assert (ran.folder / ".gitignore").read_text() == ".up\n"


def test_delete_deletes(folder: Path, kind: Kind) -> None:
    """The cluster, and what the script left here."""
    kind.run(folder / "up.sh")

    result = kind.run(folder / "up.sh", "--delete")

    assert result.returncode == 0, result.stderr
    assert kind.calls[-1].arguments == ["delete", "cluster", "--name", "authz"]
    assert not (folder / ".up").exists()


@pytest.mark.parametrize(
    "arguments", [("alice;id",), ("alice", "/a b"), ('a"',), ("a", "http://x")]
)
def test_asking_takes_names_and_paths_alone(
    folder: Path, kind: Kind, arguments: tuple[str, ...]
) -> None:
    """They go into commands that a person pastes."""
    result = kind.run(folder / "ask.sh", *arguments)

    assert (result.returncode, result.stdout, kind.calls) == (2, "", [])


def test_asking_without_a_cluster_says_what_to_do(folder: Path, kind: Kind) -> None:
    """One line."""
    result = kind.run(folder / "ask.sh")

    assert (result.returncode, result.stderr) == (2, "ask.sh: run up.sh first\n")


def test_a_public_issuer_is_a_patch_of_the_cluster(folder: Path, kind: Kind) -> None:
    """The same cluster, with issuer and key set address, in both forms that kubeadm has had."""
    result = kind.run(folder / "issuer.sh", "config", PUBLIC)
    cluster = yaml.safe_load(result.stdout)
    patches = [yaml.safe_load(text) for text in cluster["kubeadmConfigPatches"]]
    for item in (cluster, *patches):
        check(item)
    older, newer = (patch["apiServer"]["extraArgs"] for patch in patches)

    assert cluster["nodes"] == yaml.safe_load((folder / "cluster.yaml").read_text())["nodes"]
    assert older == {one["name"]: one["value"] for one in newer}
    assert older == {
        "service-account-issuer": PUBLIC,
        "service-account-jwks-uri": f"{PUBLIC}/openid/v1/jwks",
    }


@pytest.mark.parametrize(
    "url", ["http://a.example", "https://", f"{PUBLIC}/", "https://a.example/?x", "https://a b", ""]
)
def test_an_issuer_that_entra_would_not_match_is_refused(
    folder: Path, kind: Kind, url: str
) -> None:
    """Nothing is printed as if it were a configuration."""
    result = kind.run(folder / "issuer.sh", "config", url)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("issuer.sh: URL ")


def test_documents_are_written_as_a_site_serves_them(
    folder: Path, tmp_path: Path, kubectl: str
) -> None:
    """Two files under their paths; the fields of the federated credential; the emulator takes them too."""
    publish(tmp_path / "public", {"issuer": PUBLIC, "jwks_uri": f"{PUBLIC}/openid/v1/jwks"}, [KEY])
    kind = Kind(tmp_path / "kind", kubectl, tmp_path / "public")

    result = kind.run(folder / "issuer.sh", "documents", tmp_path / "site", NAMESPACE="team-a")
    site = {
        path.relative_to(tmp_path / "site")
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }

    assert (result.returncode, result.stderr) == (0, "")
    assert site == {METADATA, KEYS}
    assert f"issuer    {PUBLIC}\n" in result.stdout
    assert "subject   system:serviceaccount:team-a:agent\n" in result.stdout
    assert "audience  api://AzureADTokenExchange\n" in result.stdout
    assert trust(tmp_path / "site", "system:serviceaccount:team-a:agent").issuer == PUBLIC


@pytest.mark.parametrize(
    ("metadata", "keys", "status", "complaint"),
    [
        ({}, [KEY], 2, "names no issuer"),
        ({"issuer": PUBLIC}, [], 2, "has no RSA key"),
        ({"issuer": PUBLIC}, [{"kty": "EC"}], 2, "has no RSA key"),
        ({"issuer": ISSUER}, [KEY], 0, "only the emulator can read that issuer"),
        ({"issuer": PUBLIC, "jwks_uri": "https://172.18.0.2:6443/x"}, [KEY], 0, "jwks_uri"),
    ],
)
def test_documents_of_no_use_are_named(
    folder: Path,
    tmp_path: Path,
    kubectl: str,
    metadata: dict[str, str],
    keys: list[dict[str, str]],
    status: int,
    complaint: str,
) -> None:
    """Before somebody publishes them and waits for Entra."""
    publish(tmp_path / "odd", metadata, keys)
    kind = Kind(tmp_path / "kind", kubectl, tmp_path / "odd")

    result = kind.run(folder / "issuer.sh", "documents", tmp_path / "site")

    assert result.returncode == status
    assert complaint in result.stderr


def test_the_scripts_can_be_run() -> None:
    """They are executable in the checkout."""
    assert [name for name in SCRIPTS if not os.access(KUBERNETES / "kind" / name, os.X_OK)] == []
