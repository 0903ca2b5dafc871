"""The webhook as a real API server asks it: what becomes of pods, and of their creation while it is away.

Reviews and patches are those of Kubernetes, and so is the admission that judges the pods afterwards.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from cryptography import x509

from authz.injection.manifests import inject_manifest
from authz.injection.parts import Additions
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.injector import Injector
from support.kubernetes.manifests import ROOT, Object
from support.kubernetes.uncontained import ADMITTED, REFUSED, Case

pytestmark = pytest.mark.cluster

ASKING: Final = {"authz/inject": "enabled"}
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
APP: Final[Object] = {
    "name": "app",
    "image": "app:1",
    "securityContext": {
        "runAsUser": 10001,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    },
}
SPEC: Final = {
    "containers": [APP],
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
}
PARTS: Final = {"check-config", "envoy", "authz"}


@pytest.fixture(scope="module")
def injector(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """A webhook with the options of the shipped Deployment."""
    with Injector(server, tmp_path_factory.mktemp("injector")) as running:
        yield running


@pytest.fixture(scope="module")
def native(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """A webhook that injects native sidecars."""
    with Injector(server, tmp_path_factory.mktemp("native"), "--native-sidecars") as running:
        yield running


@pytest.fixture(scope="module")
def redirecting(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """A webhook whose pods may ask to be redirected."""
    folder, option = tmp_path_factory.mktemp("redirecting"), "--intercept-image=intercept:1"
    with Injector(server, folder, option) as running:
        yield running


@pytest.fixture
def anywhere(redirecting: Injector) -> str:
    """Return a namespace in which nobody else refuses a pod."""
    return redirecting.namespace({"pod-security.kubernetes.io/enforce": "privileged"})


@pytest.fixture
def place(injector: Injector) -> str:
    """Return a namespace that the webhook is for, and that enforces the restricted profile."""
    return injector.namespace(RESTRICTED)


def pod(
    spec: Mapping[str, Any] = SPEC,
    *,
    labels: Mapping[str, str] = ASKING,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """Return a pod that asks for injection."""
    metadata = {"name": "app", "labels": {**labels}, "annotations": {**(annotations or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec}}


def deployment(template: Mapping[str, Any]) -> Object:
    """Return a Deployment of two such pods."""
    labels = {"app": "app"}
    metadata = {**template["metadata"], "labels": {**template["metadata"]["labels"], **labels}}
    del metadata["name"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def create(server: ApiServer, namespace: str, item: Object, **parameters: str) -> httpx.Response:
    """Create a pod."""
    return server.post(f"/api/v1/namespaces/{namespace}/pods", item, **parameters)


def pods_of(server: ApiServer, namespace: str, count: int = 2) -> list[Object]:
    """Wait for the pods of a controller, and return them."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    server.wait(lambda: len(server.get(path)["items"]) == count)
    found: list[Object] = server.get(path)["items"]
    return found


def names(item: Object, key: str = "containers") -> list[str]:
    """Return the names of a pod's containers, or of what else it has."""
    return [each["name"] for each in item["spec"].get(key, ())]


def injected(item: Object, image: str | None = None) -> Object:
    """Return what the server should have made of a pod, but for what it adds by itself."""
    text, _ = inject_manifest(yaml.safe_dump(item), Additions(image=image))
    found: Object = yaml.safe_load(text)
    return found


def is_part(expected: Any, actual: Any) -> bool:
    """Whether all that is expected is there: the server adds defaults, and its token's volume."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and is_part(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(actual, list) and all(
            any(is_part(one, other) for other in actual) for one in expected
        )
    # Quantities come back as they were written.
    return bool(expected == actual)


def test_a_pod_comes_out_as_the_command_makes_it(injector: Injector, place: str) -> None:
    """The webhook and `authz inject` do the same, and restricted admission takes the result."""
    made = create(injector.server, place, pod())

    assert made.status_code == 201, made.text
    assert is_part(injected(pod()), made.json())
    assert ["app", "envoy", "authz"] == names(made.json())
    assert ["check-config"] == names(made.json(), "initContainers")


def test_deployments_make_injected_pods(
    injector: Injector, place: str, controllers: ApiServer
) -> None:
    """By way of a ReplicaSet; the templates of both stay as their author wrote them."""
    path = f"/apis/apps/v1/namespaces/{place}"
    made = controllers.post(f"{path}/deployments", deployment(pod()))
    assert made.status_code == 201, made.text

    found = pods_of(controllers, place)
    templates = [
        item["spec"]["template"]
        for kind in ("deployments", "replicasets")
        for item in controllers.get(f"{path}/{kind}")["items"]
    ]

    assert [["app", "envoy", "authz"]] * 2 == [names(each) for each in found]
    assert [["app"]] * 2 == [names(each) for each in templates]


def test_injecting_what_is_injected_changes_nothing(
    injector: Injector, place: str, controllers: ApiServer
) -> None:
    """A template of `authz inject` passes the webhook too, and has each container and volume once."""
    template = injected(pod())
    made = controllers.post(f"/apis/apps/v1/namespaces/{place}/deployments", deployment(template))
    assert made.status_code == 201, made.text

    for each in pods_of(controllers, place):
        assert ["app", "envoy", "authz"] == names(each)
        assert ["check-config"] == names(each, "initContainers")
        assert is_part({"spec": template["spec"]}, each)
        assert len(names(each, "volumes")) == len(set(names(each, "volumes")))


def test_a_second_webhook_may_do_it_again(
    injector: Injector, server: ApiServer, tmp_path: Path
) -> None:
    """Each is asked once more after the other changed the pod; each part is there once, of one webhook."""
    image = "registry.example/authz:other"
    with Injector(server, tmp_path, "--image", image) as other:
        namespace = injector.namespace({**other.labels, **RESTRICTED})
        made = create(server, namespace, pod())

    assert made.status_code == 201, made.text
    assert ["app", "envoy", "authz"] == names(made.json())
    assert any(is_part(injected(pod(), each), made.json()) for each in (None, image))
    volumes = names(made.json(), "volumes")
    assert len(volumes) == len(set(volumes))


def test_native_sidecars_are_taken(native: Injector) -> None:
    """Jobs end with them, so their pods are taken too; they start before the app's own init containers."""
    prepare = {**APP, "name": "prepare"}
    spec = {**SPEC, "restartPolicy": "Never", "initContainers": [prepare]}

    made = create(native.server, native.namespace(RESTRICTED), pod(spec))

    assert made.status_code == 201, made.text
    assert ["app"] == names(made.json())
    found = made.json()["spec"]["initContainers"]
    assert ["check-config", "authz", "envoy", "prepare"] == [each["name"] for each in found]
    assert [None, "Always", "Always", None] == [each.get("restartPolicy") for each in found]


def test_a_job_makes_injected_pods(native: Injector, controllers: ApiServer) -> None:
    """By way of its controller."""
    namespace = native.namespace(RESTRICTED)
    template = {"metadata": {"labels": ASKING}, "spec": {**SPEC, "restartPolicy": "Never"}}
    job = {"metadata": {"name": "job"}, "spec": {"template": template}}
    made = controllers.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job)
    assert made.status_code == 201, made.text

    (found,) = pods_of(controllers, namespace, 1)

    assert ["check-config", "authz", "envoy"] == names(found, "initContainers")


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_pods_whose_app_could_get_at_a_credential_are_refused_by_the_server(
    redirecting: Injector, anywhere: str, case: Case
) -> None:
    """Whoever creates one reads the webhook's own words: the field that should change."""
    metadata, spec = case.pod(redirected=case.redirected)

    refused = create(redirecting.server, anywhere, {"metadata": metadata, "spec": spec})

    assert refused.status_code in {403, 422}, refused.text
    message = refused.json()["message"]
    assert (
        'admission webhook "inject.authz-injector.authz-system.svc" denied the request' in message
    )
    assert f"{case.field}: " in message
    assert redirecting.server.get(f"/api/v1/namespaces/{anywhere}/pods")["items"] == []


@pytest.mark.parametrize("case", ADMITTED, ids=str)
def test_ordinary_pods_are_taken_by_the_server(
    redirecting: Injector, anywhere: str, case: Case
) -> None:
    """As it makes them, with its own defaults, its account's token and its volumes."""
    for redirected in (False, True):
        metadata, spec = case.pod(redirected=redirected)

        made = create(
            redirecting.server, anywhere, {"metadata": metadata, "spec": spec}, dryRun="All"
        )

        assert made.status_code == 201, made.text
        assert {"envoy", "authz"} < set(names(made.json()))


def test_a_pod_that_can_never_end_is_refused(injector: Injector) -> None:
    """With plain containers Envoy would outlast a Job."""
    refused = create(injector.server, injector.namespace(), pod({**SPEC, "restartPolicy": "Never"}))

    assert (422, True) == (
        refused.status_code,
        "authz: spec.restartPolicy: Never" in refused.json()["message"],
    )


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, None),
        ({"securityContext": {}}, "securityContext.capabilities.drop: expected [ALL]"),
        (
            {"volumeMounts": [{"name": "credential", "mountPath": "/x"}]},
            "volumeMounts[0].name: found credential",
        ),
        (
            {"envFrom": [{"secretRef": {"name": "hidden"}}]},
            "envFrom[0].secretRef.name: found hidden",
        ),
        ({"targetContainerName": "authz"}, "targetContainerName: found authz"),
        (
            {"securityContext": {**APP["securityContext"], "runAsUser": 65532}},
            "securityContext.runAsUser: found 65532",
        ),
        (
            {"securityContext": {"privileged": True, "capabilities": {"drop": ["ALL"]}}},
            "securityContext.privileged: expected false",
        ),
    ],
    ids=str,
)
def test_debugging_containers_are_judged_as_the_apps_are(
    injector: Injector, more: Mapping[str, Any], fault: str | None
) -> None:
    """`kubectl debug` adds them to a pod that is there, also where annotations have changed since."""
    server, namespace = injector.server, injector.namespace()
    made = create(server, namespace, pod(annotations={"authz/client-secret": "hidden"}))
    assert made.status_code == 201, made.text
    path = f"/api/v1/namespaces/{namespace}/pods/app"
    taken = patch(server, path, {"annotations": {"authz/client-secret": None}})
    assert taken.status_code == 200, taken.text
    changed = server.get(path)
    changed["spec"]["ephemeralContainers"] = [{**APP, "name": "debugger", **more}]

    answer = server.http.put(f"{path}/ephemeralcontainers", json=changed)

    if fault is None:
        assert answer.status_code == 200, answer.text
        assert ["app", "envoy", "authz"] == names(answer.json())
    else:
        assert answer.status_code == 422
        assert f"authz: spec.ephemeralContainers[0].{fault}" in answer.json()["message"]


def patch(server: ApiServer, path: str, metadata: Mapping[str, Any]) -> httpx.Response:
    """Change the metadata of a pod."""
    merge = {"content-type": "application/merge-patch+json"}
    return server.http.patch(path, content=json.dumps({"metadata": metadata}), headers=merge)


def test_the_label_stays_while_the_pod_is_there(injector: Injector, place: str) -> None:
    """Without it nobody would judge what is added to the pod; other labels are free."""
    server, path = injector.server, f"/api/v1/namespaces/{place}/pods/app"
    create(server, place, pod())

    removed = patch(server, path, {"labels": {"authz/inject": None}})
    other = patch(server, path, {"labels": {"authz/inject": "disabled"}})
    beside = patch(server, path, {"labels": {"mine": "yes"}})

    assert (422, 422, 200) == (removed.status_code, other.status_code, beside.status_code)
    assert "metadata.labels[authz/inject]: expected enabled" in removed.json()["message"]


def test_pods_that_are_there_do_not_depend_on_the_webhook(
    server: ApiServer, tmp_path: Path
) -> None:
    """While it is away, controllers change them (the finalizers of a Job's pods), and they can be deleted."""
    with Injector(server, tmp_path) as gone:
        namespace = gone.namespace()
        path = f"/api/v1/namespaces/{namespace}/pods/app"
        made = create(server, namespace, pod())
        assert made.status_code == 201, made.text
        gone.process.stop()
        changed = patch(server, path, {"finalizers": ["example.com/x"]})
        freed = patch(server, path, {"finalizers": None})
        label = patch(server, path, {"labels": {"authz/inject": None}})
        deleted = server.http.delete(path)

    assert (200, 200, 500) == (changed.status_code, freed.status_code, label.status_code)
    assert deleted.status_code == 200, deleted.text


def test_a_deployment_says_why_it_has_no_pods(injector: Injector, controllers: ApiServer) -> None:
    """The refusal is where one looks: in the conditions of the ReplicaSet's owner."""
    namespace = injector.namespace()
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    controllers.post(path, deployment(pod({**SPEC, "hostNetwork": True})))

    def reasons() -> list[str]:
        found = controllers.get(f"{path}/app").get("status", {}).get("conditions", ())
        return [each["message"] for each in found if each["type"] == "ReplicaFailure"]

    controllers.wait(lambda: bool(reasons()))
    assert "authz: spec.hostNetwork: expected false" in reasons()[0]


def test_an_unknown_annotation_is_refused(injector: Injector, place: str) -> None:
    """A slip in a name would otherwise mean the default."""
    refused = create(injector.server, place, pod(annotations={"authz/konfig": "a"}))

    assert (422, True) == (refused.status_code, "authz/konfig" in refused.json()["message"])


def test_names_of_annotations_count(injector: Injector, place: str) -> None:
    """ConfigMaps and Secret of the pod are those that it names."""
    annotations = {"authz/config": "mine", "authz/client-secret": "hidden"}

    made = create(injector.server, place, pod(annotations=annotations)).json()
    volumes = {each["name"]: each for each in made["spec"]["volumes"]}

    assert "mine" == volumes["authz-config"]["configMap"]["name"]
    assert "hidden" == volumes["credential"]["secret"]["secretName"]


def test_pods_that_do_not_ask_stay_as_they_are(injector: Injector, place: str) -> None:
    """Without the label, or with another value of it."""
    for labels in ({}, {"authz/inject": "disabled"}):
        made = create(injector.server, place, pod(labels=labels), dryRun="All")

        assert (201, ["app"]) == (made.status_code, names(made.json()))


def test_the_systems_namespace_is_left_alone(injector: Injector, server: ApiServer) -> None:
    """Even where a pod asks: a cluster that cannot start its own parts cannot start the webhook."""
    label = "/api/v1/namespaces/kube-system"
    merge = {"content-type": "application/merge-patch+json"}
    body = json.dumps({"metadata": {"labels": injector.labels}})
    changed = server.http.patch(label, content=body, headers=merge)
    assert changed.status_code == 200, changed.text
    account = {"metadata": {"name": "default"}}
    server.post("/api/v1/namespaces/kube-system/serviceaccounts", account)

    made = create(server, "kube-system", pod(), dryRun="All")

    assert (201, ["app"]) == (made.status_code, names(made.json()))


def test_a_dry_run_shows_the_result_and_keeps_nothing(injector: Injector, place: str) -> None:
    """The webhook has no side effects, so a server's dry run asks it too."""
    server = injector.server
    given = yaml.safe_dump(pod())

    shown = server.kubectl(
        *("apply", f"--namespace={place}", "--dry-run=server", "--output=json", "--filename=-"),
        given=given,
    )

    assert shown.returncode == 0, shown.stderr
    assert ["app", "envoy", "authz"] == names(json.loads(shown.stdout))
    assert server.get(f"/api/v1/namespaces/{place}/pods")["items"] == []


def test_the_app_has_to_meet_the_profile_itself(injector: Injector, place: str) -> None:
    """What is added passes; the server names the app's container and no other."""
    dropping = {"capabilities": {"drop": ["ALL"]}}
    app = {"name": "app", "image": "app:1", "securityContext": dropping}

    refused = create(injector.server, place, pod({**SPEC, "containers": [app]}))

    assert refused.status_code == 403
    message = refused.json()["message"]
    assert 'container "app" must set securityContext.allowPrivilegeEscalation=false' in message
    assert [] == [part for part in PARTS if f'"{part}"' in message]


def test_no_injected_container_gets_a_token_of_the_api(injector: Injector, place: str) -> None:
    """The account's own token is mounted in the app, where its author did not say otherwise."""
    made = create(injector.server, place, pod()).json()
    accounts = "/var/run/secrets/kubernetes.io/serviceaccount"
    spec = made["spec"]
    holders = [
        each["name"]
        for each in (*spec["initContainers"], *spec["containers"])
        if accounts in {mount["mountPath"] for mount in each.get("volumeMounts", ())}
    ]

    assert ["app"] == holders


@pytest.mark.parametrize("allowed", [False, True])
def test_the_pages_questions_are_answered(injector: Injector, place: str, allowed: bool) -> None:
    """What docs/injection.md asks about an account: `no` four times, and `yes` where it may."""
    page = (ROOT / "docs" / "injection.md").read_text()
    (block,) = (
        each
        for each in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "auth can-i" in each
    )
    server, name = injector.server, f"system:serviceaccount:{place}:agent"
    if allowed:
        made = server.kubectl(
            *(
                "create",
                "rolebinding",
                "all",
                f"--namespace={place}",
                "--clusterrole=cluster-admin",
            ),
            f"--serviceaccount={place}:agent",
        )
        assert made.returncode == 0, made.stderr
    questions = block.replace("$account", name).splitlines()[1:]

    def answers() -> list[str]:
        asked = (shlex.split(each.replace(" agents ", f" {place} ")) for each in questions)
        return [server.kubectl(*words[1:]).stdout.strip() for words in asked]

    server.wait(lambda: answers() == ["yes" if allowed else "no"] * 4)


def test_while_it_is_away_only_pods_that_ask_wait(server: ApiServer, tmp_path: Path) -> None:
    """They are not created, without Envoy and authz least of all; others do not depend on it."""
    with Injector(server, tmp_path) as gone:
        namespace = gone.namespace(RESTRICTED)
        gone.process.stop()
        asking = create(server, namespace, pod())
        other = create(server, namespace, pod(labels={}))

    assert (500, 201) == (asking.status_code, other.status_code)
    message = asking.json()["message"]
    assert 'failed calling webhook "inject.authz-injector.authz-system.svc"' in message


def test_it_is_asked_by_the_name_of_its_service(server: ApiServer, tmp_path: Path) -> None:
    """Path and name are the shipped ones, and the certificate is for the name that cert-manager is given."""
    with Injector(server, tmp_path, by_service=True) as named:
        made = create(server, named.namespace(RESTRICTED), pod())

    assert made.status_code == 201, made.text
    assert ["app", "envoy", "authz"] == names(made.json())


def test_a_renewed_certificate_is_taken_without_a_restart(
    server: ApiServer, tmp_path: Path
) -> None:
    """The API server trusts the authority, and asks on; the certificate that it is shown is the new one."""
    with Injector(server, tmp_path) as renewing:
        namespace = renewing.namespace(RESTRICTED)
        before = create(server, namespace, pod(), dryRun="All")
        renewing.renew()
        shown = renewing.shown_certificate()
        # The API server keeps a connection; for several reviews at a time it needs new ones.
        with ThreadPoolExecutor(8) as pool:
            work = [pool.submit(create, server, namespace, pod(), dryRun="All") for _ in range(8)]
        after = [each.result().status_code for each in work]
        in_file = x509.load_pem_x509_certificate(renewing.certificate.read_bytes())

    assert (201, [201] * 8) == (before.status_code, after)
    assert in_file.serial_number == shown.serial_number
