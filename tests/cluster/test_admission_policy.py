"""The admission policy for redirected pods, by a real API server: what it refuses, and what it says.

It counts in namespaces with its label, for pods as they are created and for what `kubectl debug` adds.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from support.apiserver import ApiServer
from support.manifests import KUBERNETES, OVERLAYS, Manifests, Object, intercepted, with_https

pytestmark = pytest.mark.cluster

POLICY: Final = KUBERNETES / "components" / "interception" / "admission-policy.yaml"
LABELS: Final = {
    "authz-interception": "enforced",
    "pod-security.kubernetes.io/enforce": "privileged",
}
SECURITY: Final = {"runAsUser": 10001, "allowPrivilegeEscalation": False}
GOOD: Final = {"name": "good", "image": "app:1", "securityContext": SECURITY}
USERS: Final = "securityContext.runAsUser of its own: not root, and not 65532 or 65533"
RIGHTS: Final = "may be privileged, add a capability, or allow privilege escalation"
NODE: Final = "may not share the node's network, processes or memory, or mount its files"


@pytest.fixture(scope="module")
def policy(server: ApiServer) -> ApiServer:
    """Return the server with the policy in force."""
    made = server.kubectl("apply", "--server-side", "--validate=strict", "--filename", POLICY)
    assert made.returncode == 0, made.stderr
    namespace = server.namespace(LABELS)
    root = container(runAsUser=0)
    # It counts a moment after it is stored.
    server.wait(lambda: create(server, namespace, pod(root)).status_code == 422)
    return server


@pytest.fixture
def enforced(policy: ApiServer) -> str:
    """Return a namespace in which it counts."""
    return policy.namespace(LABELS)


def container(name: str = "app", **security: Any) -> Object:
    """Return a container that differs in its securityContext from one that is admitted."""
    merged = {key: value for key, value in {**SECURITY, **security}.items() if value is not None}
    return {"name": name, "image": "app:1", "securityContext": merged}


def pod(*containers: Object, **spec: Any) -> Object:
    """Return a pod."""
    return {"metadata": {"name": "app"}, "spec": {"containers": [*containers], **spec}}


def create(server: ApiServer, namespace: str, item: Object) -> httpx.Response:
    """Ask whether a pod would be admitted."""
    return server.post(f"/api/v1/namespaces/{namespace}/pods", item, dryRun="All")


@pytest.mark.parametrize("redirected", [intercepted, with_https])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_components_own_pod_is_admitted(
    policy: ApiServer, enforced: str, overlay: str, redirected: Callable[[str], Manifests]
) -> None:
    """Root with NET_ADMIN in `intercept`, the reserved users in Envoy and authz."""
    made = redirected(overlay).find("Deployment")["spec"]["template"]
    policy.post(f"/api/v1/namespaces/{enforced}/serviceaccounts", {"metadata": {"name": "agent"}})

    answer = create(policy, enforced, {**made, "metadata": {**made["metadata"], "name": "agent"}})

    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (container(runAsUser=None), USERS),
        (container(runAsUser=0), USERS),
        (container(runAsUser=65532), USERS),
        (container(runAsUser=65533), USERS),
        (container(privileged=True, allowPrivilegeEscalation=None), RIGHTS),
        (container(capabilities={"add": ["NET_ADMIN"]}), RIGHTS),
        (container(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}), RIGHTS),
        (container(allowPrivilegeEscalation=True), RIGHTS),
        (container(allowPrivilegeEscalation=None), RIGHTS),
        ({"name": "app", "image": "app:1"}, USERS),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_what_a_container_may_not_is_refused_by_name(
    policy: ApiServer, enforced: str, bad: Mapping[str, Any], message: str, place: str
) -> None:
    """Wherever in the pod it is; the message says what to change."""
    item = pod(GOOD, initContainers=[])
    item["spec"][place].append(deepcopy(dict(bad)))

    answer = create(policy, enforced, item)

    assert answer.status_code == 422
    assert message in answer.json()["message"]
    assert "ValidatingAdmissionPolicy 'authz-interception'" in answer.json()["message"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hostNetwork": True}, NODE),
        ({"hostPID": True}, NODE),
        ({"hostIPC": True}, NODE),
        ({"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, NODE),
    ],
    ids=str,
)
def test_what_a_pod_may_not_is_refused_by_name(
    policy: ApiServer, enforced: str, spec: Mapping[str, Any], message: str
) -> None:
    """With the node's network there is nothing to redirect; with its files or processes, no wall."""
    answer = create(policy, enforced, pod(GOOD, **spec))

    assert (422, True) == (answer.status_code, message in answer.json()["message"])


@pytest.mark.parametrize("name", ["intercept", "envoy", "authz", "check-config"])
def test_a_name_gives_no_right_to_change_the_rules(
    policy: ApiServer, enforced: str, name: str
) -> None:
    """`intercept` may do so as an init container that ends, and nobody else at all."""
    right = {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}
    mighty = container(name, **right)

    beside = create(policy, enforced, pod(GOOD, mighty))
    lasting = create(
        policy, enforced, pod(GOOD, initContainers=[{**mighty, "restartPolicy": "Always"}])
    )
    first = create(policy, enforced, pod(GOOD, initContainers=[mighty]))

    assert (422, 422) == (beside.status_code, lasting.status_code)
    assert (201 if name == "intercept" else 422) == first.status_code


def test_what_it_allows_is_admitted(policy: ApiServer, enforced: str) -> None:
    """Users of their own, dropped capabilities, volumes that are not the node's."""
    plain = container(capabilities={"drop": ["ALL"]}, privileged=False)
    more = {"hostNetwork": False, "volumes": [{"name": "own", "emptyDir": {}}]}

    answer = create(policy, enforced, pod(plain, initContainers=[GOOD], **more))

    assert answer.status_code == 201, answer.text


def test_other_namespaces_are_not_touched(policy: ApiServer) -> None:
    """Without the label, or with another value of it, everything goes."""
    everything = pod(container(runAsUser=0, privileged=True, allowPrivilegeEscalation=None))
    everything["spec"] |= {"hostNetwork": True, "hostPID": True}
    for labels in ({}, {"authz-interception": "no"}):
        answer = create(policy, policy.namespace(labels), everything)

        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("user", [65532, 65533, 0, None])
def test_debugging_containers_are_refused(
    policy: ApiServer, enforced: str, tmp_path: Path, user: int | None
) -> None:
    """As `kubectl debug` adds them: with a user whose connections are not redirected, or with none."""
    made = policy.post(f"/api/v1/namespaces/{enforced}/pods", pod(GOOD))
    assert made.status_code == 201, made.text

    refused = _debug(policy, enforced, tmp_path, user)

    assert refused.returncode == 1
    assert USERS in refused.stderr


def test_a_debugging_container_with_a_user_of_its_own_is_admitted(
    policy: ApiServer, enforced: str, tmp_path: Path
) -> None:
    """So nobody has to switch the policy off to look into a pod."""
    made = policy.post(f"/api/v1/namespaces/{enforced}/pods", pod(GOOD))
    assert made.status_code == 201, made.text

    admitted = _debug(policy, enforced, tmp_path, 20000)
    found = policy.get(f"/api/v1/namespaces/{enforced}/pods/app")["spec"]["ephemeralContainers"]

    assert admitted.returncode == 0, admitted.stderr
    assert [20000] == [each["securityContext"]["runAsUser"] for each in found]


def _debug(server: ApiServer, namespace: str, folder: Path, user: int | None) -> Any:
    custom = folder / "container.yaml"
    security = {"allowPrivilegeEscalation": False, **({} if user is None else {"runAsUser": user})}
    custom.write_text(yaml.safe_dump({"securityContext": security}))
    return server.kubectl(
        *("debug", "app", f"--namespace={namespace}", "--image=busybox:1", "--target=good"),
        *("--profile=restricted", f"--custom={custom}", "--attach=false"),
    )


def test_the_server_finds_no_fault_in_its_expressions(
    policy: ApiServer, controllers: ApiServer
) -> None:
    """The controller compares each expression with the types of what it is asked about."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/authz-interception"
    policy.wait(lambda: "typeChecking" in (policy.get(path).get("status") or {}))

    assert {} == policy.get(path)["status"]["typeChecking"]
