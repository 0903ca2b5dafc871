"""Every overlay and component as a real API server sees it: stored without a warning, and its pods admitted.

The server knows what no schema says: names that are there twice, mounts without volumes, quantities, ports,
selectors, and for custom resources the rules in their definitions. Of kinds that nobody defines here nothing
is asked; each of them is skipped by name.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support.kubernetes.apiserver import ApiServer, written
from support.kubernetes.custom_resources import DEFINITIONS
from support.kubernetes.manifests import (
    CREDENTIALS,
    KUBERNETES,
    OVERLAYS,
    TOPOLOGIES,
    Manifests,
    Object,
    composed,
    intercepted,
    render,
    with_https,
)

pytestmark = pytest.mark.cluster

UNDEFINED: Final = {
    ("cert-manager.io/v1", "Certificate"),
    ("cert-manager.io/v1", "Issuer"),
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyProxy"),
    ("gateway.networking.k8s.io/v1", "BackendTLSPolicy"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
}
"""Kinds of which no definition is at hand."""
WITH_MONITORING: Final = (*OVERLAYS, "istio-sidecar", "shared")
COMBINATIONS: Final = (
    *((overlay,) for overlay in (*OVERLAYS, "istio-sidecar", "shared", "shared/client")),
    *((overlay, "monitoring") for overlay in WITH_MONITORING),
    *(("base", f"credentials/{credential}") for credential in CREDENTIALS),
    ("shared", "cert-manager"),
)
"""Those that say of themselves that they pass the Pod Security Standard restricted."""
KIND: Final = ("kind/emulator", "kind/orders", "kind/workload-identity", "kind/client-secret-file")
ELSEWHERE: Final = ("istio-sidecar/mesh", "envoy-gateway", "injector", *KIND)
"""Those whose namespaces are part of them."""
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
"""Where it stands, the server also warns of Deployments whose pods it would refuse."""
RESTRICTED: Final = {ENFORCE: "restricted"}


@pytest.fixture(scope="session")
def defined(server: ApiServer) -> ApiServer:
    """Return the server with every definition that is at hand."""
    files = sorted(DEFINITIONS.glob("*.yaml"))
    if not files:
        pytest.skip("there is nothing in ../shared/data/crds: custom resources are not asked about")
    for file in files:
        made = server.kubectl("apply", "--server-side", "--filename", file)
        assert made.returncode == 0, made.stderr
    waited = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    assert waited.returncode == 0, waited.stderr
    return server


def kind(item: Object) -> tuple[str, str]:
    """Return what an object is."""
    return item["apiVersion"], item["kind"]


def as_list(objects: Sequence[Object]) -> str:
    """Return the objects that are defined here, as one for kubectl."""
    items = [item for item in objects if kind(item) not in UNDEFINED]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def apply(
    server: ApiServer, objects: Sequence[Object], *more: str
) -> tuple[str, list[dict[str, Any]]]:
    """Apply objects, which must succeed; return the warnings, and what the server made of them."""
    arguments = ["apply", "--server-side", "--validate=strict", "--output=json", *more]
    done = server.kubectl(*arguments, "--filename=-", given=as_list(objects))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return done.stderr, found["items"] if found["kind"] == "List" else [found]


def template(manifests: Manifests) -> Object:
    """Return the pod that the Deployment would make."""
    made = manifests.find("Deployment")["spec"]["template"]
    return {"metadata": {**made["metadata"], "name": "made"}, "spec": made["spec"]}


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_every_object_is_stored_without_a_warning(
    defined: ApiServer, combination: tuple[str, ...]
) -> None:
    """Applied for real in a namespace that enforces the profile; applied again, nothing changes."""
    namespace = defined.namespace(RESTRICTED)
    objects = composed(*combination, namespace=namespace).objects

    warnings, stored = apply(defined, objects)
    again, same = apply(defined, objects)

    assert ("", "") == (warnings, again)
    assert [written(each) for each in stored] == [written(each) for each in same]


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_pods_pass_the_restricted_profile(defined: ApiServer, combination: tuple[str, ...]) -> None:
    """By the server's own admission, with the service account that comes with them."""
    namespace = defined.namespace(RESTRICTED)
    manifests = composed(*combination, namespace=namespace)
    apply(defined, manifests.all("ServiceAccount"))

    made = defined.post(f"/api/v1/namespaces/{namespace}/pods", template(manifests))

    assert made.status_code == 201, made.text
    assert "warning" not in made.headers


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("overlay", ["istio-sidecar", "shared"])
def test_each_credential_is_stored_with_each_topology(
    defined: ApiServer, tmp_path: Path, overlay: str, credential: str
) -> None:
    """With the one line changed that an overlay has for it, the pod is admitted too."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns(".env"))
    file = folder / overlay / "kustomization.yaml"
    namespace = defined.namespace(RESTRICTED)
    document = yaml.safe_load(file.read_text())
    document["components"] = [f"../components/credentials/{credential}"]
    document["namespace"] = namespace
    file.write_text(yaml.safe_dump(document))
    manifests = render(folder / overlay)

    warnings, _ = apply(defined, manifests.objects)
    made = defined.post(f"/api/v1/namespaces/{namespace}/pods", template(manifests))

    assert warnings == ""
    assert made.status_code == 201, made.text


@pytest.mark.parametrize("redirected", [intercepted, with_https])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_redirected_pods_need_the_label_that_the_documentation_names(
    defined: ApiServer, overlay: str, redirected: Callable[[str], Manifests]
) -> None:
    """Root with NET_ADMIN: refused where `restricted` or `baseline` is enforced, admitted as `privileged`."""
    manifests = redirected(overlay)
    answers = {}
    for level in ("restricted", "baseline", "privileged"):
        namespace = defined.namespace({ENFORCE: level})
        warnings, _ = apply(defined, manifests.objects, f"--namespace={namespace}")
        pods = f"/api/v1/namespaces/{namespace}/pods"
        answers[level] = defined.post(pods, template(manifests))
        assert (warnings == "") == (level == "privileged")

    assert [403, 403, 201] == [answer.status_code for answer in answers.values()]
    for level in ("restricted", "baseline"):
        message = answers[level].json()["message"]
        assert f'violates PodSecurity "{level}:latest"' in message
        assert 'container "intercept" must not include "NET_ADMIN"' in message


@pytest.mark.parametrize("overlay", ELSEWHERE)
def test_what_has_namespaces_of_its_own_is_taken(defined: ApiServer, overlay: str) -> None:
    """Tried by the server, and nothing is kept but the namespaces."""
    manifests = render(KUBERNETES / overlay)
    for name in {item["metadata"].get("namespace") for item in manifests.objects} - {None}:
        made = {item["metadata"]["name"]: item for item in manifests.all("Namespace")}
        item = made.get(name, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        apply(defined, [item])

    warnings, _ = apply(defined, manifests.objects, "--dry-run=server")

    assert warnings == ""


def test_the_injectors_pods_pass_the_profile_of_its_namespace(server: ApiServer) -> None:
    """The namespace that is shipped with them enforces it."""
    manifests = render(KUBERNETES / "injector")
    name = manifests.find("Namespace")["metadata"]["name"]
    apply(server, [*manifests.all("Namespace"), *manifests.all("ServiceAccount")])

    made = server.post(f"/api/v1/namespaces/{name}/pods", template(manifests), dryRun="All")

    assert made.status_code == 201, made.text


@pytest.mark.parametrize("overlay", KIND)
def test_kinds_pods_pass_the_profile_of_their_namespaces(server: ApiServer, overlay: str) -> None:
    """What is for development only is held to the same: the namespaces that come with it enforce it."""
    namespaces = [
        item
        for file in ("namespaces.yaml", "emulator/namespace.yaml")
        for item in yaml.safe_load_all((KUBERNETES / "kind" / file).read_text())
    ]
    manifests = render(KUBERNETES / overlay)
    apply(server, [*namespaces, *manifests.all("ServiceAccount")])
    name = manifests.find("Deployment")["metadata"]["namespace"]

    made = server.post(f"/api/v1/namespaces/{name}/pods", template(manifests), dryRun="All")

    assert made.status_code == 201, made.text
    assert "warning" not in made.headers


@pytest.mark.parametrize("version_and_kind", sorted(UNDEFINED), ids=" ".join)
def test_kinds_without_a_definition_are_left_out(
    defined: ApiServer, version_and_kind: tuple[str, str]
) -> None:
    """The server does not know them, so nothing here says that it would take them."""
    overlays = (*OVERLAYS, *TOPOLOGIES, "injector")
    rendered = [item for overlay in overlays for item in render(KUBERNETES / overlay).objects]
    rendered += composed("shared", "cert-manager").objects
    assert version_and_kind in {kind(item) for item in rendered}
    version, name = version_and_kind
    known = defined.get(f"/apis/{version}") or {"resources": []}
    assert name not in {each["kind"] for each in known["resources"]}

    pytest.skip(f"no definition at hand: {name} of {version} is not asked about")


def test_what_is_wrong_would_be_found(server: ApiServer, namespace: str) -> None:
    """A field too many, and a mount of no volume: neither passes for stored."""
    manifests = render(KUBERNETES / OVERLAYS[0])
    container: Any = json.loads(json.dumps(manifests.find("Deployment")))
    pod = container["spec"]["template"]["spec"]
    pod["containers"][0]["volumeMounts"] = [{"name": "nothing", "mountPath": "/x"}]
    faulty = {**manifests.find("Service"), "spec": {"ports": [{"port": 80, "prot": "TCP"}]}}
    arguments = ("apply", "--server-side", "--validate=strict", f"--namespace={namespace}")

    said = [
        server.kubectl(*arguments, "--filename=-", given=as_list([item])).stderr
        for item in (container, faulty)
    ]

    assert 'volumeMounts[0].name: Not found: "nothing"' in said[0]
    assert 'unknown field "prot"' in said[1]
