"""`kubernetes/deploy.sh` against a real API server: what is there afterwards, who may run it, how it fails.

Pods are made by the controllers. There is no kubelet, so `Readiness` says of them that they are ready.
"""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

import pytest
import yaml

from support.kubernetes.apiserver import ADMIN, ApiServer, written
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, ROOT

pytestmark = pytest.mark.cluster

SECRET: Final = "q8~Not.A-Real$Secret"
INPUTS: Final = {
    "TENANT_ID": "11111111-1111-4111-8111-111111111111",
    "CLIENT_ID": "22222222-2222-4222-8222-222222222222",
    "AGENT_IDENTITY": "33333333-3333-4333-8333-333333333333",
    "CLIENT_SECRET": SECRET,
    "AGENT_IMAGE": "registry.example/agent:1.0.0",
    "AUTHZ_IMAGE": "registry.example/entra-authz:0.1.0",
    "ROLLOUT_TIMEOUT": "60s",
}
KINDS: Final = (
    "serviceaccounts,configmaps,secrets,services,deployments,poddisruptionbudgets,networkpolicies"
)


class Readiness:
    """Stands in for what a kubelet says: every pod of a namespace is ready. A context manager."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server, self._pods = server, f"/api/v1/namespaces/{namespace}/pods"
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
        content = json.dumps({"status": ready})
        merge = {"content-type": "application/merge-patch+json"}
        while not self._ended.wait(0.1):
            for pod in (self._server.get(self._pods) or {"items": []})["items"]:
                if pod["status"]["phase"] == "Pending":
                    path = f"{self._pods}/{pod['metadata']['name']}/status"
                    self._server.http.patch(path, content=content, headers=merge)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return the script in a copy of its folder, so that no `.env` of a user takes part."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns(".env"))
    return folder / "deploy.sh"


@pytest.fixture
def name() -> str:
    """Return the name of a namespace that is not there."""
    return f"deployed-{uuid4().hex[:8]}"


def deploy(
    server: ApiServer,
    script: Path,
    overlay: str,
    *arguments: str,
    user: str = ADMIN,
    **inputs: str,
) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(
        [script, overlay, *arguments],
        env={**server.environ(user), **INPUTS, **inputs},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def stored(server: ApiServer, namespace: str) -> dict[str, Any]:
    """Return what is in a namespace, with everything that the server keeps of it."""
    found = server.kubectl(
        *("get", f"{KINDS},replicasets", f"--namespace={namespace}", "--output=json"),
        "--show-managed-fields",
    )
    assert found.returncode == 0, found.stderr
    return {
        f"{item['kind']}/{item['metadata']['name']}": item
        for item in json.loads(found.stdout)["items"]
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_deploys_and_a_second_run_changes_nothing(
    controllers: ApiServer, script: Path, name: str, overlay: str
) -> None:
    """Namespace, Secret and overlay; it ends when the roll-out is complete."""
    with Readiness(controllers, name):
        first = deploy(controllers, script, overlay, NAMESPACE=name)
        before = stored(controllers, name)
        second = deploy(controllers, script, overlay, NAMESPACE=name)
        after = stored(controllers, name)

    assert (0, 0) == (first.returncode, second.returncode), first.stderr + second.stderr
    assert 'deployment "agent" successfully rolled out' in first.stdout
    assert (overlay == "client-secret-file") == ("Secret/agent-credential" in before)
    assert before.keys() == after.keys()
    assert all(written(item) == written(after[key]) for key, item in before.items())
    assert {"NetworkPolicy/agent", "Service/agent", "Deployment/agent"} <= before.keys()
    labels = controllers.get(f"/api/v1/namespaces/{name}")["metadata"]["labels"]
    assert "restricted" == labels["pod-security.kubernetes.io/enforce"]


def test_the_secret_is_in_its_object_alone(controllers: ApiServer, script: Path, name: str) -> None:
    """In no annotation, no managed field, no event, nothing that the script prints."""
    with Readiness(controllers, name):
        done = deploy(controllers, script, "client-secret-file", NAMESPACE=name)
    assert done.returncode == 0, done.stderr
    encoded = base64.b64encode(SECRET.encode()).decode()
    items = stored(controllers, name)
    events = controllers.get(f"/api/v1/namespaces/{name}/events")

    assert {"client-secret": encoded} == items["Secret/agent-credential"].pop("data")
    for text in (json.dumps([items, events]), done.stdout, done.stderr):
        assert SECRET not in text
        assert encoded not in text
    assert "annotations" not in items["Secret/agent-credential"]["metadata"]


def test_a_changed_identity_rolls_the_pods_and_a_changed_secret_does_not(
    controllers: ApiServer, script: Path, name: str
) -> None:
    """ConfigMaps have new names; the secret's new value is read by authz itself."""
    other = "44444444-4444-4444-8444-444444444444"
    with Readiness(controllers, name):
        assert 0 == deploy(controllers, script, "client-secret-file", NAMESPACE=name).returncode
        first = stored(controllers, name)
        deploy(
            controllers, script, "client-secret-file", NAMESPACE=name, CLIENT_SECRET="another~one"
        )
        second = stored(controllers, name)
        changed = {"NAMESPACE": name, "CLIENT_SECRET": "another~one", "AGENT_IDENTITY": other}
        done = deploy(controllers, script, "client-secret-file", **changed)
        third = stored(controllers, name)

    def of_kind(kind: str, items: Mapping[str, Any]) -> set[str]:
        return {key for key in items if key.startswith(f"{kind}/")}

    assert done.returncode == 0, done.stderr
    key = "Secret/agent-credential"
    assert first[key]["data"] != second[key]["data"]
    assert of_kind("ReplicaSet", first) == of_kind("ReplicaSet", second)
    assert 2 == len(of_kind("ReplicaSet", third))
    (new,) = of_kind("ConfigMap", third) - of_kind("ConfigMap", second)
    assert other == third[new]["data"]["AGENT_IDENTITY"]
    assert of_kind("ConfigMap", second) < of_kind("ConfigMap", third)


def test_pods_that_do_not_get_ready_are_a_failure(
    controllers: ApiServer, script: Path, name: str
) -> None:
    """With the script's own message and status, after as long as one is ready to wait."""
    done = deploy(controllers, script, "client-secret-file", NAMESPACE=name, ROLLOUT_TIMEOUT="1s")

    assert 1 == done.returncode
    assert "deploy.sh: the pods are not ready" in done.stderr
    assert f"kubectl logs --namespace {name} deployment/agent --container authz" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_dry_run_touches_no_cluster(server: ApiServer, script: Path, name: str) -> None:
    """It prints, and the namespace is still not there."""
    done = deploy(server, script, "client-secret-file", "--dry-run", NAMESPACE=name)

    assert done.returncode == 0, done.stderr
    assert {name} == {item["metadata"]["namespace"] for item in yaml.safe_load_all(done.stdout)}
    assert server.get(f"/api/v1/namespaces/{name}") is None


@pytest.fixture
def rights(controllers: ApiServer, name: str) -> str:
    """Return a user who has the Role of the documentation in a namespace that an administrator made."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = re.findall(r"```yaml\n(apiVersion: rbac[^`]*)```", text)
    user = f"user-{name}"
    controllers.kubeconfig(user)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    labels = {"metadata": {"name": name, "labels": restricted}}
    assert 201 == controllers.post("/api/v1/namespaces", labels).status_code
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"
    role = yaml.safe_load(block)
    role["metadata"].pop("namespace", None)
    assert 201 == controllers.post(f"{path}/roles", role).status_code
    binding = {
        "metadata": {"name": "deployer"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": role["metadata"]["name"],
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    assert 201 == controllers.post(f"{path}/rolebindings", binding).status_code
    return user


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_role_of_the_documentation_is_enough(
    controllers: ApiServer, script: Path, name: str, rights: str, overlay: str
) -> None:
    """For the first run and for further ones, in a namespace that is there."""
    with Readiness(controllers, name):
        runs = [deploy(controllers, script, overlay, user=rights, NAMESPACE=name) for _ in range(2)]

    assert [0, 0] == [run.returncode for run in runs], runs[0].stderr + runs[1].stderr
    assert "orbidden" not in "".join(run.stderr for run in runs)


def test_the_role_gives_nothing_beside(controllers: ApiServer, name: str, rights: str) -> None:
    """No secret can be read, no pod entered, and nothing be had of another namespace."""
    questions = [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("delete", "deployments"),
        ("create", "roles"),
    ]
    answers = [
        controllers.kubectl("auth", "can-i", *each, f"--namespace={name}", user=rights).stdout
        for each in questions
    ]
    elsewhere = controllers.kubectl(
        *("auth", "can-i", "patch", "deployments", "--namespace=default"), user=rights
    )

    assert ["no\n"] * len(questions) == answers
    assert "no\n" == elsewhere.stdout


def test_a_namespace_that_one_may_not_make_is_said_so(
    server: ApiServer, script: Path, name: str
) -> None:
    """Nothing else is tried."""
    server.kubeconfig("nobody")

    done = deploy(server, script, "client-secret-file", user="nobody", NAMESPACE=name)

    assert done.returncode != 0
    assert 'User "nobody" cannot create resource "namespaces"' in done.stderr
    assert "secrets" not in done.stderr
