"""The admission policy for redirected pods, by a real API server: what it refuses, and what it says.

It counts in namespaces with its label, for pods as they are created and for what `kubectl debug` adds. It
refuses what injection refuses: both judge the same pods here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from authz.injection.parts import Additions
from authz.injection.pod import InjectionError, add, inject
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifests,
    Object,
    intercepted,
    with_https,
)
from support.kubernetes.uncontained import ADMITTED, REFUSED, SECRET, Case

pytestmark = pytest.mark.cluster

POLICY: Final = KUBERNETES / "components" / "interception" / "admission-policy.yaml"
LABELS: Final = {
    "authz-interception": "enforced",
    "pod-security.kubernetes.io/enforce": "privileged",
}
SECURITY: Final = {
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
GOOD: Final = {"name": "good", "image": "app:1", "securityContext": SECURITY}
USER: Final = "runAsUser (of every container): expected"
REDIRECTING: Final = Additions(intercept_image="intercept:replace-me")
NATIVE: Final = Additions(intercept_image="intercept:replace-me", native=True)
IMAGES: Final = {
    "envoy": "docker.io/envoyproxy/envoy:distroless-v1.40.0",
    "authz": "entra-authz:0.1.0",
    "check-config": "entra-authz:0.1.0",
    "intercept": "intercept:replace-me",
}


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


@pytest.mark.parametrize("case", [case for case in REFUSED if not case.before], ids=str)
def test_what_injection_refuses_the_policy_refuses(
    policy: ApiServer, enforced: str, case: Case
) -> None:
    """The same pods, as they are once Envoy and authz are in them, and in the same words."""
    with pytest.raises(InjectionError) as refused:
        inject(*case.pod(redirected=True), REDIRECTING)
    (fault,) = (each for each in refused.value.faults if each.startswith(f"{case.field}: "))

    answer = create(policy, enforced, unjudged(case))

    assert answer.status_code == 422, answer.text
    if not case.invalid:
        message = answer.json()["message"]
        assert "ValidatingAdmissionPolicy 'authz-interception'" in message
        assert fault[fault.index("expected ") :] in message


@pytest.mark.parametrize("additions", [REDIRECTING, NATIVE], ids=["plain", "native"])
@pytest.mark.parametrize("case", ADMITTED, ids=str)
def test_what_injection_admits_the_policy_admits(
    policy: ApiServer, enforced: str, case: Case, additions: Additions
) -> None:
    """Ordinary pods stay ordinary: as injection makes them."""
    metadata, spec = inject(*case.pod(redirected=True), additions)

    answer = create(policy, enforced, {"metadata": metadata, "spec": spec})

    assert answer.status_code == 201, answer.text


def unjudged(case: Case) -> Object:
    """Return a pod with Envoy and authz in it, though injection refuses it."""
    metadata, spec = add(*case.pod(redirected=True), REDIRECTING)
    return {"metadata": metadata, "spec": spec}


def part(name: str, **security: Any) -> Object:
    """Return one of the injected containers, with other rights."""
    _, spec = inject(*ADMITTED[0].pod(redirected=True), REDIRECTING)
    (found,) = (
        each for each in (*spec["initContainers"], *spec["containers"]) if each["name"] == name
    )
    return {
        **found,
        "securityContext": {**found["securityContext"], **security},
        "volumeMounts": [],
        "envFrom": [],
    }


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_a_name_gives_no_right(policy: ApiServer, enforced: str, name: str) -> None:
    """Neither a user nor a capability: whoever calls a container of his own by it gets nothing."""
    own = {key: part(name)[key] for key in ("name", "securityContext")}

    for key in ("containers", "initContainers"):
        item = pod(GOOD, initContainers=[])
        item["spec"][key].append({**own, "image": "own:1"})
        answer = create(policy, enforced, item)

        assert answer.status_code == 422
        assert "ValidatingAdmissionPolicy 'authz-interception'" in answer.json()["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "registry.example/entra-authz:0.1.0"},
        {"image": "entra-authz:5000/own:1"},
        {"image": "entra-authz-own:1"},
        {"command": ["python", "-c", "own"]},
        {"args": ["inject-webhook"]},
        {"lifecycle": {"postStart": {"exec": {"command": ["own"]}}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["own"]}}}},
        {"livenessProbe": {"exec": {"command": ["own"]}}},
        {"readinessProbe": {"exec": {"command": ["own"]}}},
        {"startupProbe": {"exec": {"command": ["own"]}}},
    ],
    ids=str,
)
def test_authz_is_what_runs_as_authz(
    policy: ApiServer, enforced: str, changes: Mapping[str, Any]
) -> None:
    """By image and program: any other is somebody's own, and may not have authz's user."""
    real = create(policy, enforced, pod(GOOD, part("authz")))
    other = create(policy, enforced, pod(GOOD, {**part("authz"), **changes}))

    assert (201, 422) == (real.status_code, other.status_code), real.text
    assert USER in other.json()["message"]


def test_the_name_of_a_container_of_ours_is_free(policy: ApiServer, enforced: str) -> None:
    """Its image says what it is, with a digest too."""
    image = f"entra-authz@sha256:{'0' * 64}"

    answer = create(policy, enforced, pod(GOOD, {**part("authz"), "name": "n", "image": image}))

    assert answer.status_code == 201, answer.text


def test_only_a_container_that_ends_may_change_the_rules(policy: ApiServer, enforced: str) -> None:
    """The shipped init container, and the same nowhere else, nor with anything more."""
    mighty = part("intercept")
    more = part("intercept", capabilities={"drop": ["ALL"], "add": ["NET_ADMIN", "BPF"]})

    first = create(policy, enforced, pod(GOOD, initContainers=[mighty]))
    refused = [
        create(policy, enforced, each).status_code
        for each in (
            pod(GOOD, mighty),
            pod(GOOD, initContainers=[{**mighty, "restartPolicy": "Always"}]),
            pod(GOOD, initContainers=[{**mighty, "command": ["/bin/sh"]}]),
            pod(GOOD, initContainers=[more]),
        )
    ]

    assert (201, [422] * 4) == (first.status_code, refused), first.text


def test_the_image_of_a_running_container_cannot_be_another(
    policy: ApiServer, enforced: str
) -> None:
    """The API lets images change in a pod that is there, authz's as well."""
    made = policy.post(f"/api/v1/namespaces/{enforced}/pods", pod(GOOD, part("authz")))
    assert made.status_code == 201, made.text

    refused = policy.kubectl("set", "image", "pod/app", "authz=own:1", f"--namespace={enforced}")
    taken = policy.kubectl("set", "image", "pod/app", "good=app:2", f"--namespace={enforced}")

    assert (1, 0) == (refused.returncode, taken.returncode), taken.stderr
    assert USER in refused.stderr


def test_pods_that_were_there_before_are_not_held_up(policy: ApiServer) -> None:
    """Their controllers change their metadata, and free them to end; what they run is judged again."""
    namespace = policy.namespace({"pod-security.kubernetes.io/enforce": "privileged"})
    path = f"/api/v1/namespaces/{namespace}"
    bad = pod(container(capabilities=None), GOOD)
    made = policy.post(f"{path}/pods", bad)
    assert made.status_code == 201, made.text
    label = policy.kubectl("label", "namespace", namespace, "authz-interception=enforced")
    assert label.returncode == 0, label.stderr
    policy.wait(lambda: create(policy, namespace, bad).status_code == 422)

    marked = policy.kubectl("annotate", "pod/app", "mine=yes", f"--namespace={namespace}")
    changed = policy.kubectl("set", "image", "pod/app", "good=app:2", f"--namespace={namespace}")

    assert (0, 1) == (marked.returncode, changed.returncode), marked.stderr
    assert "securityContext.capabilities.drop" in changed.stderr


@pytest.mark.parametrize(
    ("volume", "reference", "field"),
    [
        (
            {"secret": {"secretName": "own-name"}},
            {"envFrom": [{"secretRef": {"name": "own-name"}}]},
            "envFrom[].secretRef.name",
        ),
        (
            {"projected": {"sources": [{"secret": {"name": "own-name"}}]}},
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "own-name", "key": "k"}}}]},
            "env[].valueFrom.secretKeyRef.name",
        ),
        (
            {"secret": {"secretName": "own-name"}},
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}]},
            "volumeMounts[].name",
        ),
    ],
)  # fmt: skip
def test_what_authz_has_is_the_credential_whatever_its_name(
    policy: ApiServer, enforced: str, volume: Object, reference: Object, field: str
) -> None:
    """In pods that nobody injected, the policy goes by what is mounted in authz."""
    holder = {**part("authz"), "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volumes = [{"name": "v", **volume}]

    kept = create(policy, enforced, pod(GOOD, holder, volumes=volumes))
    shared = create(policy, enforced, pod({**GOOD, **reference}, holder, volumes=volumes))

    assert (201, 422) == (kept.status_code, shared.status_code), kept.text
    assert field in shared.json()["message"]


def test_the_administrators_images_and_drivers_count(policy: ApiServer) -> None:
    """In place of the shipped ones, as the head of the file asks for."""
    text = POLICY.read_text().replace("authz-interception", "authz-own")
    text = text.replace(
        "'authz': ['entra-authz']", "'authz': ['registry.example:5000/entra-authz']"
    )
    text = text.replace("drivers, expression: '[]'", "drivers, expression: '[\"vault.example\"]'")
    made = policy.kubectl("apply", "--server-side", "--filename=-", given=text)
    assert made.returncode == 0, made.stderr
    namespace = policy.namespace({"authz-own": "enforced"})
    policy.wait(lambda: create(policy, namespace, pod(container(runAsUser=0))).status_code == 422)
    own = {**part("authz"), "image": "registry.example:5000/entra-authz:1"}
    volume = {"name": "v", "csi": {"driver": "vault.example"}}
    other = {"name": "v", "csi": {"driver": "other.example"}}

    codes = [
        create(policy, namespace, each).status_code
        for each in (
            pod(GOOD, own, volumes=[volume]),
            pod(GOOD, part("authz")),
            pod(GOOD, volumes=[other]),
        )
    ]

    assert [201, 422, 422] == codes


def test_the_account_s_token_may_be_everywhere(policy: ApiServer, enforced: str) -> None:
    """It is for the API server, and no credential by itself; the server mounts it where nobody said no."""
    agent = "/api/v1/namespaces/{}/serviceaccounts"
    policy.post(agent.format(enforced), {"metadata": {"name": "agent"}})

    made = create(policy, enforced, pod(GOOD, part("authz"), serviceAccountName="agent"))

    assert made.status_code == 201, made.text
    mounts = [[m["name"] for m in c["volumeMounts"]] for c in made.json()["spec"]["containers"]]
    assert mounts[0] == mounts[1]


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ({"resources": ["serviceaccounts/token"], "verbs": ["create"]}, True),
        (
            {
                "resources": ["serviceaccounts/token"],
                "verbs": ["create"],
                "resourceNames": ["other"],
            },
            False,
        ),
        (
            {
                "resources": ["serviceaccounts/token"],
                "verbs": ["create"],
                "resourceNames": ["agent"],
            },
            True,
        ),
        ({"resources": ["secrets"], "verbs": ["get"]}, True),
        ({"resources": ["secrets"], "verbs": ["get"], "resourceNames": [SECRET]}, True),
        ({"resources": ["secrets"], "verbs": ["get"], "resourceNames": ["own"]}, False),
        ({"resources": ["secrets"], "verbs": ["list"]}, True),
        ({"resources": ["pods"], "verbs": ["create"]}, True),
        ({"resources": ["pods/exec"], "verbs": ["create"]}, True),
        ({"resources": ["pods/exec"], "verbs": ["get"]}, True),
        ({"resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch"]}, False),
    ],
    ids=str,
)
def test_an_account_that_could_fetch_the_credential_is_refused(
    policy: ApiServer, enforced: str, rule: Object, refused: bool
) -> None:
    """By the rights that it has as the pod is created; without its token in the app they do not count."""
    metadata, spec = inject(*ADMITTED[0].pod(redirected=True), REDIRECTING)
    account = {"kind": "ServiceAccount", "name": "agent", "namespace": enforced}
    named = {"metadata": {"name": "agent"}}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{enforced}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent"}
    for path, item in (
        (f"/api/v1/namespaces/{enforced}/serviceaccounts", named),
        (f"{rbac}/roles", {**named, "rules": [{"apiGroups": [""], **rule}]}),
        (f"{rbac}/rolebindings", {**named, "roleRef": role, "subjects": [account]}),
    ):
        made = policy.post(path, item)
        assert made.status_code == 201, made.text
    speaking = {"metadata": metadata, "spec": {**spec, "serviceAccountName": "agent"}}
    silent = {**speaking, "spec": {**speaking["spec"], "automountServiceAccountToken": False}}

    wanted = 422 if refused else 201
    # The server's authorizer knows of a Role a moment after it is stored.
    policy.wait(lambda: create(policy, enforced, speaking).status_code == wanted)

    assert create(policy, enforced, silent).status_code == 201
    if refused:
        said = create(policy, enforced, speaking).json()["message"]
        assert f"may not {rule['verbs'][0]} {rule['resources'][0]}" in said


def test_other_namespaces_are_not_touched(policy: ApiServer) -> None:
    """Without the label, or with another value of it, everything goes."""
    everything = pod(container(runAsUser=0, privileged=True, allowPrivilegeEscalation=None))
    everything["spec"] |= {"hostNetwork": True, "hostPID": True}
    for labels in ({}, {"authz-interception": "no"}):
        answer = create(policy, policy.namespace(labels), everything)

        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"securityContext": {**SECURITY, "runAsUser": 65532}}, USER),
        ({"securityContext": {**SECURITY, "runAsUser": 65533}}, USER),
        ({"securityContext": {**SECURITY, "runAsUser": 0}}, USER),
        ({"securityContext": {"allowPrivilegeEscalation": False}}, "capabilities.drop"),
        (
            {"securityContext": {**SECURITY, "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}},
            "capabilities.add[]",
        ),
        ({"volumeMounts": [{"name": "credential", "mountPath": "/x"}]}, "volumeMounts[].name"),
        ({"envFrom": [{"secretRef": {"name": SECRET}}]}, "envFrom[].secretRef.name"),
        ({"targetContainerName": "authz"}, "targetContainerName: expected a container of the app"),
        ({"name": "check", "image": IMAGES["authz"], "args": ["serve"],
          "securityContext": {**SECURITY, "runAsUser": 65532}}, USER),
    ],
    ids=str,
)  # fmt: skip
def test_debugging_containers_are_refused(
    policy: ApiServer, enforced: str, more: Mapping[str, Any], field: str
) -> None:
    """As `kubectl debug` adds them, to a pod with a credential."""
    metadata, spec = inject(*ADMITTED[0].pod(redirected=True), REDIRECTING)
    path = f"/api/v1/namespaces/{enforced}/pods"
    made = policy.post(path, {"metadata": metadata, "spec": spec})
    assert made.status_code == 201, made.text

    refused = debug(policy, f"{path}/agent", {**GOOD, "name": "debugger", **more})

    assert refused.status_code == 422
    assert field in refused.json()["message"]


def debug(server: ApiServer, path: str, container: Object) -> httpx.Response:
    """Add an ephemeral container to a pod, by way of its subresource."""
    found = server.get(path)
    found["spec"]["ephemeralContainers"] = [container]
    return server.http.put(f"{path}/ephemeralcontainers", json=found)


def test_a_debugging_container_with_a_user_of_its_own_is_admitted(
    policy: ApiServer, enforced: str, tmp_path: Path
) -> None:
    """So nobody has to switch the policy off to look into a pod."""
    made = policy.post(f"/api/v1/namespaces/{enforced}/pods", pod(GOOD))
    assert made.status_code == 201, made.text
    custom = tmp_path / "container.yaml"
    security = {"allowPrivilegeEscalation": False, "runAsUser": 20000}
    custom.write_text(yaml.safe_dump({"securityContext": security}))

    admitted = policy.kubectl(
        *("debug", "app", f"--namespace={enforced}", "--image=busybox:1", "--target=good"),
        *("--profile=restricted", f"--custom={custom}", "--attach=false"),
    )
    found = policy.get(f"/api/v1/namespaces/{enforced}/pods/app")["spec"]["ephemeralContainers"]

    assert admitted.returncode == 0, admitted.stderr
    assert [20000] == [each["securityContext"]["runAsUser"] for each in found]


def test_the_server_finds_no_fault_in_its_expressions(
    policy: ApiServer, controllers: ApiServer
) -> None:
    """The controller compares each expression with the types of what it is asked about."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/authz-interception"
    policy.wait(lambda: "typeChecking" in (policy.get(path).get("status") or {}))

    assert {} == policy.get(path)["status"]["typeChecking"]
