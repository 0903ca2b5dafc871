"""The injector's manifests: valid, and each name leads to what it means."""

import re
from pathlib import Path
from typing import Any

import pytest

from authz.cli import VERBS
from authz.injection.pod import LABEL, WANTED
from authz.injection.webhook import PATH
from support.kubernetes.manifests import KUBERNETES, Manifests, render
from support.kubernetes.schemas import VERSIONS, check, check_core


@pytest.fixture(scope="module")
def injector() -> Manifests:
    """The rendered folder."""
    return render(KUBERNETES / "injector")


pytestmark = pytest.mark.usefixtures("kubectl")


def test_every_object_is_valid(injector: Manifests) -> None:
    """By the strict schemas of the oldest and the newest version, and ours of cert-manager's kinds."""
    for item in injector.objects:
        check(item)


def test_the_webhook_leads_to_the_pods(injector: Manifests) -> None:
    """Configuration, Service, Deployment, certificate: one chain of names and ports."""
    (webhook,) = injector.find("MutatingWebhookConfiguration")["webhooks"]
    where = webhook["clientConfig"]["service"]
    service = injector.find("Service")
    assert (where["namespace"], where["name"]) == (
        service["metadata"]["namespace"],
        service["metadata"]["name"],
    )
    (port,) = service["spec"]["ports"]
    deployment = injector.find("Deployment")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert (where["port"], where["path"]) == (port["port"], PATH)
    assert port["targetPort"] in {each["name"] for each in container["ports"]}
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        injector.find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        injector.find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        deployment["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    certificate = injector.find("Certificate", "authz-injector")
    assert [f"{where['name']}.{where['namespace']}.svc"] == certificate["spec"]["dnsNames"]
    (volume,) = deployment["template"]["spec"]["volumes"]
    assert certificate["spec"]["secretName"] == volume["secret"]["secretName"]
    annotation = injector.find("MutatingWebhookConfiguration")["metadata"]["annotations"]
    name = f"{certificate['metadata']['namespace']}/{certificate['metadata']['name']}"
    assert name == annotation["cert-manager.io/inject-ca-from"]


def test_the_pages_patch_names_the_image_of_interception(tmp_path: Path) -> None:
    """It makes a valid Deployment, whose arguments the program takes."""
    page = (KUBERNETES / "injector" / "README.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "kubernetes").symlink_to(KUBERNETES)
    (tmp_path / "kustomization.yaml").write_text(block.replace("path/to/", ""))
    deployment = render(tmp_path).find("Deployment")
    for version in VERSIONS:
        check_core(deployment, version)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    verb, *arguments = container["args"]
    command = VERBS[verb].load().make_context(verb, arguments)
    assert command.params["intercept_image"].startswith("registry.example/intercept@sha256:")


def test_only_pods_that_ask_depend_on_it(injector: Manifests) -> None:
    """They are not created without it; and its own pods never wait for it."""
    (webhook,) = injector.find("MutatingWebhookConfiguration")["webhooks"]
    assert {LABEL: WANTED} == webhook["objectSelector"]["matchLabels"]
    assert ("Fail", "None", "IfNeeded") == (
        webhook["failurePolicy"],
        webhook["sideEffects"],
        webhook["reinvocationPolicy"],
    )
    created, changed = webhook["rules"]
    assert (["CREATE"], ["pods"]) == (created["operations"], created["resources"])
    # Of these, only what could undo an injection.
    assert (["UPDATE"], ["pods", "pods/ephemeralcontainers"]) == (
        changed["operations"],
        changed["resources"],
    )
    (condition,) = webhook["matchConditions"]
    assert f"[?'{LABEL}'].orValue('') != '{WANTED}'" in condition["expression"]
    excluded: Any = webhook["namespaceSelector"]["matchExpressions"][0]
    assert injector.find("Deployment")["metadata"]["namespace"] in excluded["values"]


def test_the_authority_outlives_the_certificates_that_it_signs(injector: Manifests) -> None:
    """A renewed certificate reaches the pods late: what the API server trusts must not change with it."""
    signed = injector.find("Certificate", "authz-injector")["spec"]
    issuer = injector.find("Issuer", signed["issuerRef"]["name"])["spec"]
    authority = injector.find("Certificate", issuer["ca"]["secretName"])["spec"]

    assert authority["isCA"] is True
    assert issuer["ca"]["secretName"] == authority["secretName"]
    assert int(signed["duration"].rstrip("h")) < int(authority["duration"].rstrip("h"))
    assert "isCA" not in signed
