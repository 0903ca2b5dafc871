"""`kubernetes/client-secret/deploy.sh`: what it prints, what it asks for, and where the secret goes.

kind, docker and kubectl's cluster are stand-ins on PATH; rendering and certificates are real. What a real
API server makes of it is in `tests/cluster`.
"""

import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.config import load
from authz.envoy_config.bootstrap import render as render_envoy
from authz.envoy_config.settings import SidecarSettings
from authz_dev.emulator import default_directory
from authz_dev.emulator.description import describe_tenants
from support.kubernetes.kind import Kind, publish
from support.kubernetes.manifests import KUBERNETES
from support.kubernetes.schemas import check
from support.kubernetes.sidecar_demo import part
from support.programs.transcript import settled

pytestmark = pytest.mark.thorough

SECRET: Final = "q8~Not.A-Real$Secret"
SECRET_KEY: Final = "AzureAd__ClientCredentials__0__ClientSecret"
AGENT: Final = "33333333-3333-4333-8333-333333333333"
INPUTS: Final = {
    "TENANT_ID": "11111111-1111-4111-8111-111111111111",
    "CLIENT_ID": "22222222-2222-4222-8222-222222222222",
    "CLIENT_SECRET": SECRET,
}
IMAGE: Final = "registry.example/entra-authz:0.1.0"
LINES: Final = [
    "Creating namespace: entra-demo",
    "namespace/entra-demo created",
    "Deploying to namespace: entra-demo",
    "Applying sidecar-config...",
    "configmap/sidecar-config created",
    "Applying sidecar-secret...",
    "secret/sidecar-secret serverside-applied",
    "Applying deployment...",
    "deployment.apps/demo-app created",
    "Deployment complete!",
]
"""The walk-through's, but that `kubectl` says there "secret/sidecar-secret created"."""


@pytest.fixture
def script(tmp_path: Path, kubectl: str) -> Path:
    """Return the script in a copy of the manifests, so that no `.env` of a user takes part."""
    shutil.copytree(
        KUBERNETES, tmp_path / "kubernetes", ignore=shutil.ignore_patterns(".env", ".up")
    )
    return tmp_path / "kubernetes/client-secret/deploy.sh"


@pytest.fixture
def issuer(tmp_path: Path) -> Path:
    """Return the documents of a kind cluster."""
    name = "https://kubernetes.default.svc.cluster.local"
    metadata = {"issuer": name, "jwks_uri": "https://172.18.0.2:6443/openid/v1/jwks"}
    key = {"use": "sig", "kty": "RSA", "kid": "cluster", "alg": "RS256", "n": "sXch", "e": "AQAB"}
    publish(tmp_path / "issuer", metadata, [key])
    return tmp_path / "issuer"


@pytest.fixture
def desktop(tmp_path: Path, kubectl: str, issuer: Path) -> Kind:
    """Return stand-ins with the walk-through's cluster as the current context."""
    return Kind(tmp_path / "desktop", kubectl, issuer, context="kind-entra-desktop")


@pytest.fixture
def elsewhere(tmp_path: Path, kubectl: str, issuer: Path) -> Kind:
    """Return stand-ins with a context that is not kind's, and without docker and kind."""
    return Kind(tmp_path / "elsewhere", kubectl, issuer, context="production", tools=("kubectl",))


def data_of(kind: Kind) -> Mapping[str, Any]:
    """Return the ConfigMap that the script has applied."""
    found: Mapping[str, Any] = kind.applied("entra-demo").find("ConfigMap", "sidecar-config")
    return dict(found["data"])


def test_shellcheck_finds_nothing() -> None:
    """Plain POSIX sh, where ShellCheck is installed to tell."""
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")

    options = ["--external-sources", "--source-path=SCRIPTDIR"]
    files = [KUBERNETES / "client-secret/deploy.sh", KUBERNETES / "deploy.sh"]
    result = subprocess.run(
        [shellcheck, *options, *files], capture_output=True, text=True, check=False
    )

    assert "" == result.stdout


def test_help_explains_and_does_nothing(script: Path, desktop: Kind) -> None:
    """Status 0, usage on standard output, no tool asked."""
    result = desktop.run(script, "--help")

    assert (0, "", []) == (result.returncode, result.stderr, desktop.calls)
    assert result.stdout.startswith("usage: deploy.sh ")


@pytest.mark.parametrize(
    "arguments", [("kustomize",), ("--delete", "--emulator"), ("--dry-run", "--emulator")]
)
def test_a_wrong_call_explains_itself(
    script: Path, desktop: Kind, arguments: tuple[str, ...]
) -> None:
    """The status of a wrong call, and no tool is asked."""
    result = desktop.run(script, *arguments, **INPUTS)

    assert (2, "", []) == (result.returncode, result.stdout, desktop.calls)
    assert "deploy.sh: " in result.stderr


def test_it_prints_what_the_walk_through_shows(script: Path, desktop: Kind) -> None:
    """Line by line; what it says of its own accord is on standard error."""
    result = desktop.run(script, **INPUTS)

    assert (0, LINES) == (result.returncode, result.stdout.splitlines())
    assert "==> building and loading entra-authz:0.1.0\n" in result.stderr


def test_a_second_run_changes_nothing(script: Path, desktop: Kind) -> None:
    """Every object is what it was, and the namespace is said to be there."""
    desktop.run(script, **INPUTS)
    before = desktop.applied("entra-demo").objects

    result = desktop.run(script, **INPUTS)

    again = [line.replace(" created", " unchanged") for line in LINES[2:]]
    assert ["Namespace 'entra-demo' already exists", *again] == result.stdout.splitlines()
    assert before == desktop.applied("entra-demo").objects


def test_what_is_applied_is_valid_and_has_the_inputs(script: Path, desktop: Kind) -> None:
    """The namespace admits restricted pods alone; tenant and blueprint are in the ConfigMap."""
    desktop.run(script, **INPUTS)
    applied = desktop.applied("entra-demo")
    for item in applied.objects:
        check(item)
    labels = applied.find("Namespace")["metadata"]["labels"]
    data = data_of(desktop)

    assert {"pod-security.kubernetes.io/enforce": "restricted"} == labels
    assert INPUTS["TENANT_ID"] == data["AzureAd__TenantId"]
    assert INPUTS["CLIENT_ID"] == data["AzureAd__ClientId"]
    assert "replace-me" not in yaml.safe_dump(applied.objects)


def test_the_secret_goes_through_a_pipe_alone(script: Path, desktop: Kind) -> None:
    """Into one object: on no command line, in no environment, in no output, and in no annotation."""
    result = desktop.run(script, **INPUTS)
    applied = desktop.applied("entra-demo")
    (applying,) = [
        call for call in desktop.told("kubectl", "apply") if "kind: Secret" in call.input
    ]

    assert {SECRET_KEY: base64.b64encode(SECRET.encode()).decode()} == applied.find("Secret")[
        "data"
    ]
    assert [] == [call for call in desktop.calls if SECRET in " ".join(call.arguments)]
    assert [] == [call for call in desktop.calls if SECRET in call.environ.values()]
    assert SECRET not in result.stdout + result.stderr
    # Client-side apply would keep a copy of it; the last one may have been another tool's.
    assert "--server-side" in applying.arguments
    assert desktop.told("annotate", "kubectl.kubernetes.io/last-applied-configuration-")


def test_a_kind_cluster_gets_the_image(script: Path, desktop: Kind) -> None:
    """That of the current context, by its name; no other cluster is spoken to."""
    desktop.run(script, **INPUTS)
    (loaded,) = desktop.told("kind", "load")
    spoken = [
        call.arguments[:2]
        for call in desktop.told("kubectl")
        if call.arguments[0] not in {"kustomize", "config"}
    ]

    assert [call.arguments[3] for call in desktop.told("docker", "build")] == ["entra-authz:0.1.0"]
    assert ["--name", "entra-desktop", "entra-authz:0.1.0"] == loaded.arguments[2:]
    assert all(["--context", "kind-entra-desktop"] == start for start in spoken)


def test_a_named_image_is_neither_built_nor_loaded(script: Path, elsewhere: Kind) -> None:
    """In any cluster, without docker."""
    result = elsewhere.run(script, **INPUTS, AUTHZ_IMAGE=IMAGE)

    assert (0, LINES) == (result.returncode, result.stdout.splitlines()), result.stderr
    assert (
        IMAGE
        == elsewhere.applied("entra-demo").find("Deployment")["spec"]["template"]["spec"][
            "containers"
        ][1]["image"]
    )


def test_all_faults_are_reported_at_once(script: Path, elsewhere: Kind) -> None:
    """Those of inputs, and how to get an image; nothing has happened."""
    result = elsewhere.run(script, "--transparent")
    words = [
        line.split()[0] for line in result.stderr.splitlines()[1:] if not line.startswith("    ")
    ]

    assert (2, "") == (result.returncode, result.stdout)
    assert ["CLIENT_ID", "TENANT_ID", "CLIENT_SECRET", "AGENT_IDENTITY", "AUTHZ_IMAGE"] == words
    assert "docker push registry.example/entra-authz:0.1.0" in result.stderr
    assert [["config", "current-context"]] == [call.arguments for call in elsewhere.calls]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "TENANT_ID",
            "common",
            "TENANT_ID is not a GUID: the tenant of the blueprint, by its id or a",
        ),
        ("TENANT_ID", "contoso.example\nx", "TENANT_ID is not a GUID"),
        ("CLIENT_ID", "22222222-2222-4222-8222-222222222222\nx", "CLIENT_ID is not a GUID"),
        ("CLIENT_SECRET", AGENT, "that is the secret's id"),
        ("AUTHZ_IMAGE", "registry.example/entra-authz", "AUTHZ_IMAGE has neither a tag"),
        ("ROLLOUT_TIMEOUT", "soon", "ROLLOUT_TIMEOUT is not a time"),
    ],
)
def test_a_wrong_input_is_refused(
    script: Path, elsewhere: Kind, name: str, value: str, complaint: str
) -> None:
    """Before anything happens, and without repeating it."""
    result = elsewhere.run(script, **{"AUTHZ_IMAGE": IMAGE, **INPUTS, name: value})

    assert (2, "") == (result.returncode, result.stdout)
    assert complaint in result.stderr
    assert value not in result.stderr


def test_missing_tools_are_faults_like_others(
    script: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """Those that the image takes, in a kind cluster."""
    kind = Kind(tmp_path / "poor", kubectl, issuer, tools=("kubectl",), context="kind-x")
    for tool in ("sh", "dirname", "cat", "grep"):
        (kind.path / tool).symlink_to(str(shutil.which(tool)))

    result = kind.run(script, **INPUTS, PATH=str(kind.path))

    assert ["  docker is not installed", "  kind is not installed"] == result.stderr.splitlines()[
        1:
    ]


def test_kubectl_is_asked_for_before_all_else(
    script: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """Without it nothing else can be found out."""
    kind = Kind(tmp_path / "bare", kubectl, issuer, tools=())
    for tool in ("sh", "dirname", "cat", "grep"):
        (kind.path / tool).symlink_to(str(shutil.which(tool)))

    result = kind.run(script, **INPUTS, PATH=str(kind.path))

    assert (2, "", "deploy.sh: kubectl is not installed\n") == (
        result.returncode,
        result.stdout,
        result.stderr,
    )


def test_inputs_may_stand_in_a_file(script: Path, elsewhere: Kind) -> None:
    """A filled-in copy of env.example is enough."""
    filled = (script.parent / "env.example").read_text()
    for name in ("TENANT_ID", "CLIENT_ID"):
        filled = filled.replace(f"\n{name}=\n", f"\n{name}={INPUTS[name]}\n")
    filled = filled.replace("\nCLIENT_SECRET=\n", f"\nCLIENT_SECRET='{SECRET}'\n")
    (script.parent / ".env").write_text(filled)

    result = elsewhere.run(script, AUTHZ_IMAGE=IMAGE)

    assert (0, LINES) == (result.returncode, result.stdout.splitlines()), result.stderr


def test_a_tenant_may_be_named_by_a_domain(script: Path, elsewhere: Kind) -> None:
    """As in the Entra SDK sidecar."""
    domain = "contoso.onmicrosoft.com"

    result = elsewhere.run(script, **{**INPUTS, "TENANT_ID": domain}, AUTHZ_IMAGE=IMAGE)

    assert (0, LINES) == (result.returncode, result.stdout.splitlines()), result.stderr
    assert domain == data_of(elsewhere)["AzureAd__TenantId"]


HOSTILE: Final = """~q8$HOME`id`$(id)"'=;&|#!*%"""
"""Characters with which shells do something. Entra's own secrets have `~` among them."""


def stored_secret(kind: Kind) -> str:
    """Return the secret that the script has applied."""
    found = kind.applied("entra-demo").find("Secret", "sidecar-secret")["data"][SECRET_KEY]
    return base64.b64decode(found).decode()


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"CLIENT_SECRET={HOSTILE}", HOSTILE),
        ("CLIENT_SECRET='q8~$a\\b'  # of the blueprint", "q8~$a\\b"),
        ('CLIENT_SECRET="q8~$a # b"'.replace(" # ", "#"), "q8~$a#b"),
        ("export CLIENT_SECRET=q8~a", "q8~a"),
        (" CLIENT_SECRET = q8~a # of the blueprint", "q8~a"),
        ("CLIENT_SECRET=old\nCLIENT_SECRET=q8~a==", "q8~a=="),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_inputs_is_taken_literally(
    script: Path, elsewhere: Kind, line: str, secret: str, end: str
) -> None:
    """Nothing in it is expanded or run; blanks, quotes and a byte order mark around values are left out."""
    lines = ["\ufeff# mine", f"CLIENT_ID={INPUTS['CLIENT_ID']}", *line.splitlines(), ""]
    lines.append(f"TENANT_ID={INPUTS['TENANT_ID']}")
    (script.parent / ".env").write_bytes(end.join(lines).encode())

    result = elsewhere.run(script, AUTHZ_IMAGE=IMAGE)

    assert (0, LINES) == (result.returncode, result.stdout.splitlines()), result.stderr
    assert secret == stored_secret(elsewhere)
    assert INPUTS["TENANT_ID"] == data_of(elsewhere)["AzureAd__TenantId"]


def test_a_secret_in_the_environment_may_hold_any_character(script: Path, elsewhere: Kind) -> None:
    """As in the file."""
    elsewhere.run(script, **{**INPUTS, "CLIENT_SECRET": HOSTILE}, AUTHZ_IMAGE=IMAGE)

    assert HOSTILE == stored_secret(elsewhere)


def test_the_environment_goes_before_the_file(script: Path, elsewhere: Kind) -> None:
    """A value for one run; what the environment has empty is still read."""
    lines = [f"{name}={value}" for name, value in INPUTS.items()]
    (script.parent / ".env").write_text("\n".join(lines))

    elsewhere.run(script, AUTHZ_IMAGE=IMAGE, CLIENT_ID=AGENT, TENANT_ID="")

    assert (AGENT, INPUTS["TENANT_ID"]) == (
        data_of(elsewhere)["AzureAd__ClientId"],
        data_of(elsewhere)["AzureAd__TenantId"],
    )


def test_lines_that_cannot_be_read_are_faults_by_number(script: Path, elsewhere: Kind) -> None:
    """Not one of them is quoted: it may hold the secret."""
    lines = ["CLIENT_ID: q8~a", "client_secret=q8~a", "CLIENT_SECRET='q8~a", 'X="q8~\\a"', "q8~a"]
    lines += ["CLIENT_SECRET='q8~'a", "X=q8~\\a", "=q8~a"]
    (script.parent / ".env").write_text("\n".join(lines))

    result = elsewhere.run(script, **INPUTS, AUTHZ_IMAGE=IMAGE)
    complaints = [line.partition(".env: ")[2] for line in result.stderr.splitlines()[1:]]

    assert (2, "") == (result.returncode, result.stdout)
    unread = "is not NAME=VALUE"
    misread = "has quotes or a backslash to be misread: write NAME='VALUE'"
    whys = [unread, unread, misread, misread, unread, misread, misread, unread]
    assert [f"line {number} {why}" for number, why in enumerate(whys, 1)] == complaints
    assert "q8~" not in result.stderr


@pytest.mark.parametrize("value", [" q8~a", "q8~a\r", "q8~a\nb", "'q8~a'", '"q8~a"'])
def test_a_secret_that_was_not_copied_as_it_is_is_refused(
    script: Path, elsewhere: Kind, value: str
) -> None:
    """Before Entra does, in words that do not tell why."""
    result = elsewhere.run(script, **{**INPUTS, "CLIENT_SECRET": value}, AUTHZ_IMAGE=IMAGE)

    assert (2, "") == (result.returncode, result.stdout)
    assert "CLIENT_SECRET h" in result.stderr
    assert "q8~a" not in result.stderr


@pytest.mark.parametrize("context", ["", "kind-gone"])
@pytest.mark.parametrize("arguments", [(), ("--delete",)])
def test_a_cluster_that_does_not_answer_is_a_failure_at_once(
    script: Path, tmp_path: Path, kubectl: str, issuer: Path, context: str, arguments: list[str]
) -> None:
    """Which context that is, before an image is built for it or a namespace is said to be created."""
    kind = Kind(tmp_path / "silent", kubectl, issuer, context=context, silent=True)

    result = kind.run(script, *arguments, **INPUTS, **({} if context else {"AUTHZ_IMAGE": IMAGE}))

    assert (2, "") == (result.returncode, result.stdout)
    assert f"the current context is {context or 'not set'}\n" in result.stderr
    assert "The connection to the server 127.0.0.1:6443 was refused" in result.stderr
    assert [] == [call for call in kind.told("docker") if "build" in call.arguments]


def test_the_context_is_named_before_anything_is_done_to_it(script: Path, elsewhere: Kind) -> None:
    """It may be another than the person believes."""
    deploying = elsewhere.run(script, **INPUTS, AUTHZ_IMAGE=IMAGE)
    deleting = elsewhere.run(script, "--delete")

    assert "==> deploying to the cluster of the context production\n" in deploying.stderr
    assert "==> deleting entra-demo and entra-emulator: context production\n" in deleting.stderr


def test_a_namespace_on_its_way_out_is_waited_for(script: Path, desktop: Kind) -> None:
    """`--delete` that somebody did not wait for, and then again: the emulator's likewise."""
    desktop.run(script, "--emulator")
    desktop.being_deleted("entra-demo", "entra-emulator")

    result = desktop.run(script, "--emulator")

    assert (0, LINES) == (result.returncode, result.stdout.splitlines()[: len(LINES)])
    assert [["entra-demo"], ["entra-emulator"]] == [
        [word for word in call.arguments if word.startswith("entra-") and "=" not in word][:1]
        for call in desktop.told("kubectl", "wait")
    ]


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(
    script: Path, desktop: Kind, tmp_path: Path
) -> None:
    """^C in the longest step: no folder with keys stays behind, and nothing was applied."""
    docker = (desktop.path / "docker").read_text()
    interrupt = (
        "import os, signal, sys\nif 'build' in sys.argv: os.kill(os.getppid(), signal.SIGINT)\n"
    )
    (desktop.path / "docker").write_text(docker.replace("\n", f"\n{interrupt}", 1))
    (scratch := tmp_path / "scratch").mkdir()

    interrupted = desktop.run(script, **INPUTS, TMPDIR=str(scratch))
    (desktop.path / "docker").write_text(docker)
    again = desktop.run(script, **INPUTS, TMPDIR=str(scratch))

    assert (130, "", []) == (interrupted.returncode, interrupted.stdout, list(scratch.iterdir()))
    assert (0, LINES) == (again.returncode, again.stdout.splitlines())


def test_a_dry_run_prints_manifests_without_the_secret(script: Path, elsewhere: Kind) -> None:
    """And asks no cluster."""
    result = elsewhere.run(script, "--dry-run", **INPUTS, AUTHZ_IMAGE=IMAGE)
    objects = [item for item in yaml.safe_load_all(result.stdout) if item]

    assert ["Deployment", "ConfigMap"] == [item["kind"] for item in objects]
    assert SECRET not in result.stdout
    assert [["config", "current-context"]] == [
        call.arguments for call in elsewhere.calls if call.arguments[0] != "kustomize"
    ]


def test_a_pod_that_does_not_get_ready_is_a_failure(
    script: Path, tmp_path: Path, kubectl: str, issuer: Path
) -> None:
    """It is not complete then, and the message says where to look: an image that is not there has no log."""
    broken = ("deployment/demo-app",)
    kind = Kind(tmp_path / "broken", kubectl, issuer, broken=broken, context="kind-x")

    result = kind.run(script, **INPUTS)

    assert (1, LINES[:-1]) == (result.returncode, result.stdout.splitlines())
    assert "$ kubectl --context kind-x get pods --namespace entra-demo\n" in result.stderr
    assert "$ kubectl --context kind-x get events --namespace entra-demo " in result.stderr
    assert (
        "$ kubectl --context kind-x logs deployment/demo-app --namespace entra-demo "
        in result.stderr
    )


@pytest.mark.parametrize("changed", [{}, {"CLIENT_SECRET": "other"}, {"TENANT_ID": AGENT}])
def test_the_pod_is_replaced_when_what_it_read_has_changed(
    script: Path, desktop: Kind, changed: dict[str, str]
) -> None:
    """Variables are read at the start. The annotation holds versions of objects, nothing of the secret."""

    def annotation() -> str:
        template = desktop.applied("entra-demo").find("Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["authz/made-of"])

    desktop.run(script, **INPUTS)
    before = annotation()

    desktop.run(script, **{**INPUTS, **changed})

    assert bool(changed) == (before != annotation())


def test_nothing_is_left_behind(script: Path, desktop: Kind, tmp_path: Path) -> None:
    """The folder for rendering goes, and the checkout stays as it was."""
    (scratch := tmp_path / "scratch").mkdir()
    before = sorted(script.parents[1].rglob("*"))

    desktop.run(script, "--emulator", "--transparent", TMPDIR=str(scratch))

    assert [] == list(scratch.iterdir())
    assert before == sorted(script.parents[1].rglob("*"))


def test_delete_deletes_both_namespaces(script: Path, desktop: Kind) -> None:
    """Those of the demo and of its emulator, and nothing else."""
    result = desktop.run(script, "--delete")

    assert 0 == result.returncode, result.stderr
    assert desktop.calls[-1].arguments == [
        *("--context", "kind-entra-desktop", "delete", "namespace"),
        *("entra-demo", "entra-emulator", "--ignore-not-found"),
    ]


# ---- Without a tenant


def test_the_page_shows_what_is_printed(script: Path, desktop: Kind) -> None:
    """Both deployments of docs/walk-through.md, one after the other, to the letter."""
    for title, arguments in (
        ("Asking the sidecar", ["--emulator"]),
        ("Not asking at all", ["--emulator", "--transparent"]),
    ):
        shown = part(title)[0]
        assert f"$ {shown.command}".endswith(" ".join(arguments))
        assert shown.output == settled(desktop.run(script, *arguments).stdout.rstrip("\n"))


def test_the_emulator_is_for_kind_alone(script: Path, elsewhere: Kind) -> None:
    """Whoever reaches it gets tokens for anybody."""
    result = elsewhere.run(script, "--emulator", AUTHZ_IMAGE=IMAGE)

    assert (2, "") == (result.returncode, result.stdout)
    assert "--emulator is for kind clusters, and the current context is production" in result.stderr


def test_without_a_tenant_it_prints_the_same_and_then_the_ids(script: Path, desktop: Kind) -> None:
    """What was asked for as inputs comes from the emulator's directory."""
    result = desktop.run(script, "--emulator")
    blueprint = describe_tenants(default_directory(1))[0]["blueprints"][0]
    lines = result.stdout.splitlines()
    data = data_of(desktop)
    stored = desktop.applied("entra-demo").find("Secret")["data"][SECRET_KEY]

    assert (0, LINES) == (result.returncode, lines[: len(LINES)])
    assert f"  AGENT_ID={blueprint['agents'][0]['client_id']}" in lines
    assert blueprint["client_id"] == data["AzureAd__ClientId"]
    assert blueprint["client_secret"] == base64.b64decode(stored).decode()
    assert blueprint["client_secret"] not in result.stdout + result.stderr
    assert "https://login.entra-emulator.svc.cluster.local/" == data["AzureAd__Instance"]
    assert [] == [
        call for call in desktop.calls if blueprint["client_secret"] in " ".join(call.arguments)
    ]


def test_a_tenant_after_the_emulator_takes_the_emulator_out_of_the_pod(
    script: Path, desktop: Kind
) -> None:
    """The emulator itself stays, and the script says how it goes."""
    desktop.run(script, "--emulator")

    result = desktop.run(script, **INPUTS)
    sidecar = desktop.applied("entra-demo").containers["sidecar"]

    assert "https://login.microsoftonline.com/" == data_of(desktop)["AzureAd__Instance"]
    assert (SECRET, False) == (stored_secret(desktop), "SSL_CERT_FILE" in sidecar.variables)
    assert "kubectl --context kind-entra-desktop delete namespace entra-emulator" in result.stderr


def test_an_emulator_that_does_not_answer_ends_the_run(script: Path, desktop: Kind) -> None:
    """No pod is made for a tenant without a name."""
    (desktop.path.parent / "emulator.json").write_text("{}")

    result = desktop.run(script, "--emulator")

    assert (2, "") == (result.returncode, result.stdout)
    assert "the emulator does not say who is in its directory" in result.stderr


def test_the_pod_trusts_the_emulators_authority(script: Path, desktop: Kind) -> None:
    """The sidecar and the app's curl, by the ConfigMap that the script makes."""
    desktop.run(script, "--emulator")
    applied = desktop.applied("entra-demo")
    theirs = desktop.applied("entra-emulator").find("Secret", "emulator-tls")["data"]["ca.crt"]

    assert base64.b64decode(theirs).decode() == applied.files["ca.crt"]
    for name, variable in (("sidecar", "SSL_CERT_FILE"), ("app", "CURL_CA_BUNDLE")):
        container = applied.containers[name]
        folder = container.mounts["development-ca"]["mountPath"]
        assert f"{folder}/ca.crt" == container.variables[variable]


def test_envoy_is_told_of_the_emulator_as_authz_envoy_would(script: Path, desktop: Kind) -> None:
    """Its file is changed by the script, and still is the rendered one, without a mark."""
    desktop.run(script, "--emulator", "--transparent")
    applied = desktop.applied("entra-demo")
    folder = applied.containers["envoy"].mounts["envoy-config"]["mountPath"]
    settings = SidecarSettings(upstream_ca_file=Path(folder, "ca.crt"))
    config = load(None, {**data_of(desktop), SECRET_KEY: "any"}).config

    rendered = re.sub("\n *authz[.]rendered: .*", "", render_envoy(config, settings))

    assert yaml.safe_load(rendered) == yaml.safe_load(applied.files["envoy.yaml"])
    agent = describe_tenants(default_directory(1))[0]["blueprints"][0]["agents"][0]["client_id"]
    assert agent == data_of(desktop)["AzureAd__AgentIdentity"]


def test_an_api_that_envoy_does_not_know_is_not_deployed(
    script: Path, elsewhere: Kind, tmp_path: Path
) -> None:
    """`--transparent`, dry or not: the host is named, with the command that renders; nothing has happened."""
    variables = script.parents[1] / "client-secret-transparent/sidecar-config.yaml"
    more = "DownstreamApis__more__BaseUrl: https://api.example/v1/\n"
    variables.write_text(f"{variables.read_text()}  {more}  {more.replace('BaseUrl', 'Scopes__0')}")
    agent = "33333333-3333-4333-8333-333333333333"
    inputs = {**INPUTS, "AGENT_IDENTITY": agent, "AUTHZ_IMAGE": IMAGE}

    results = [
        elsewhere.run(script, "--transparent", *more, **inputs) for more in ((), ("--dry-run",))
    ]

    assert [2, 2] == [result.returncode for result in results]
    assert all("envoy.yaml lacks the host api.example: make render" in r.stderr for r in results)
    assert {"config", "kustomize"} == {call.arguments[0] for call in elsewhere.calls}


def test_variables_that_change_routes_alone_are_compared_where_the_program_is(
    script: Path, elsewhere: Kind
) -> None:
    """A host that is gone, which only the program sees; the shipped pair is one."""
    program = elsewhere.path / "authz"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m authz "$@"\n')
    program.chmod(0o755)
    agent = "33333333-3333-4333-8333-333333333333"
    inputs = {**INPUTS, "AGENT_IDENTITY": agent, "AUTHZ_IMAGE": IMAGE}
    shipped = elsewhere.run(script, "--transparent", "--dry-run", **inputs)
    envoy = script.parents[1] / "client-secret-transparent/envoy.yaml"
    text = envoy.read_text()
    (mark,) = set(re.findall("authz.rendered: (.*)", text))
    envoy.write_text(text.replace(mark, "another"))

    changed = elsewhere.run(script, "--transparent", "--dry-run", **inputs)

    assert 0 == shipped.returncode
    # check-config's, of the walk-through's own variables.
    assert ["ASPNETCORE_ENVIRONMENT", "inbound.default.scopes"] == [
        line.removeprefix("warning: ").partition(": ")[0] for line in shipped.stderr.splitlines()
    ]
    assert 2 == changed.returncode
    assert "envoy.yaml does not belong to sidecar-config.yaml: make render" in changed.stderr
