"""`kubernetes/client-secret/deploy.sh` against a real API server: what is there afterwards, and was before.

There is no kubelet: `Readiness` says of pods that they are ready. `node` has the pods.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster.test_deploying import Readiness
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import KUBERNETES

pytestmark = pytest.mark.cluster

SECRET: Final = "q8~Not.A-Real$Secret"
ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
NAMESPACE: Final = "/api/v1/namespaces/entra-demo"
INPUTS: Final = {
    "TENANT_ID": "11111111-1111-4111-8111-111111111111",
    "CLIENT_ID": "22222222-2222-4222-8222-222222222222",
    "CLIENT_SECRET": SECRET,
    "AUTHZ_IMAGE": "registry.example/entra-authz:0.1.0",
    "ROLLOUT_TIMEOUT": "60s",
}
PRINTED: Final = """\
Creating namespace: entra-demo
namespace/entra-demo created
Deploying to namespace: entra-demo
Applying sidecar-config...
configmap/sidecar-config created
Applying sidecar-secret...
secret/sidecar-secret serverside-applied
Applying deployment...
deployment.apps/demo-app created
Deployment complete!
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return the script in a copy of the manifests, so that no `.env` of a user takes part."""
    shutil.copytree(
        KUBERNETES, tmp_path / "kubernetes", ignore=shutil.ignore_patterns(".env", ".up")
    )
    return tmp_path / "kubernetes/client-secret/deploy.sh"


@pytest.fixture
def emptied(controllers: ApiServer) -> Iterator[ApiServer]:
    """Return the server, whose namespace `entra-demo` is empty before and after."""

    def empty() -> None:
        for kind in ("deployments", "replicasets"):
            controllers.http.delete(f"/apis/apps/v1/namespaces/entra-demo/{kind}")
        for kind in ("configmaps", "secrets", "pods"):
            controllers.http.delete(f"{NAMESPACE}/{kind}")

    empty()
    yield controllers
    empty()


def deploy(server: ApiServer, script: Path, *arguments: str, **inputs: str) -> str:
    """Run the script to its good end, and return what it has printed."""
    with Readiness(server, "entra-demo"):
        done = subprocess.run(
            [script, *arguments],
            env={**server.environ(), **INPUTS, **inputs},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stdout


def secret(server: ApiServer) -> Any:
    """Return the Secret, with everything that the server keeps of it."""
    return server.get(f"{NAMESPACE}/secrets/sidecar-secret")


def test_it_prints_what_the_walk_through_shows(emptied: ApiServer, script: Path) -> None:
    """Line by line; the secret is in its object alone, and a second run leaves the pod as it is."""
    if emptied.get(NAMESPACE) is not None:
        pytest.fail("the namespace is there already: this test has to be the first")
    first = deploy(emptied, script)
    stored = secret(emptied)
    pods = [item["metadata"]["name"] for item in emptied.get(f"{NAMESPACE}/pods")["items"]]

    again = deploy(emptied, script)

    assert first == PRINTED
    assert {
        "AzureAd__ClientCredentials__0__ClientSecret": base64.b64encode(SECRET.encode()).decode()
    } == stored.pop("data")
    assert SECRET not in json.dumps(stored)
    assert again.startswith("Namespace 'entra-demo' already exists\n")
    assert "deployment.apps/demo-app unchanged\n" in again
    assert pods == [item["metadata"]["name"] for item in emptied.get(f"{NAMESPACE}/pods")["items"]]


def test_it_takes_over_what_another_script_has_applied(emptied: ApiServer, script: Path) -> None:
    """The walk-through's own objects, applied by a client that keeps the secret in an annotation."""
    deploy(emptied, script)
    emptied.http.delete(f"{NAMESPACE}/secrets/sidecar-secret")
    older = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "sidecar-secret", "namespace": "entra-demo"},
        "stringData": {"AzureAd__ClientCredentials__0__ClientSecret": "an-older-one"},
    }
    applied = emptied.kubectl("apply", "--filename=-", given=yaml.safe_dump(older))
    assert applied.returncode == 0, applied.stderr
    assert "an-older-one" in secret(emptied)["metadata"]["annotations"][ANNOTATION]

    deploy(emptied, script)

    found = secret(emptied)
    (value,) = found["data"].values()
    assert SECRET == base64.b64decode(value).decode()
    assert ANNOTATION not in found["metadata"].get("annotations", {})


def test_one_step_further_and_back(emptied: ApiServer, script: Path) -> None:
    """Envoy joins and leaves again, and the ConfigMap with it has the keys of the moment."""

    def there() -> tuple[list[str], bool]:
        deployment = emptied.get("/apis/apps/v1/namespaces/entra-demo/deployments/demo-app")
        config = emptied.get(f"{NAMESPACE}/configmaps/sidecar-config")["data"]
        pod = deployment["spec"]["template"]["spec"]
        return [one["name"] for one in pod["containers"]], "AUTHZ_LISTEN_API" in config

    seen = []
    for arguments in ((), ("--transparent",), ()):
        deploy(emptied, script, *arguments, AGENT_IDENTITY="33333333-3333-4333-8333-333333333333")
        seen.append(there())

    apart = (["app", "sidecar"], False)
    assert seen == [apart, (["app", "sidecar", "envoy"], True), apart]


def test_it_waits_for_a_namespace_that_is_being_deleted(emptied: ApiServer, script: Path) -> None:
    """A server takes no objects into one; and `--delete` ends when both are gone."""
    deploy(emptied, script)
    deleted = emptied.kubectl("delete", "namespace", "entra-demo", "--wait=false")
    assert deleted.returncode == 0, deleted.stderr

    again = deploy(emptied, script)
    deleting = deploy(emptied, script, "--delete")

    assert again == PRINTED
    assert deleting == 'namespace "entra-demo" deleted\n'
    assert emptied.get(NAMESPACE) is None


def test_a_server_that_refuses_is_named(emptied: ApiServer, script: Path) -> None:
    """Before anything is said to be created."""
    environ = {**emptied.environ(), **INPUTS}
    config = script.parent / "config"
    known = yaml.safe_load(Path(environ["KUBECONFIG"]).read_text())
    known["users"] = [{**user, "user": {"token": "stale"}} for user in known["users"]]
    config.write_text(yaml.safe_dump(known))

    done = subprocess.run(
        [script], env={**environ, "KUBECONFIG": str(config)}, capture_output=True, text=True, check=False
    )  # fmt: skip

    assert (2, "") == (done.returncode, done.stdout)
    assert f"the current context is {known['current-context']}\n" in done.stderr
