"""`authz inject` on manifests, and the webhook on reviews, over real TLS."""

import base64
import json
import ssl
import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml
from click.testing import CliRunner
from cryptography import x509
from structlog.testing import capture_logs

from authz.cli import main
from authz.doors.http_server import ServerTls
from authz.injection.manifests import ManifestError, inject_manifest
from authz.injection.parts import Additions
from authz.injection.pod import inject
from authz.injection.webhook import MOST_BYTES, InjectionWebhook, answer_to
from support.kubernetes.uncontained import ADMITTED, REFUSED, Case
from support.programs.stack import Process

SERVICE = """\
# Stays as it is, comment and all.
apiVersion: v1
kind: Service
metadata: {name: bot}  # and this one
"""
POD: dict[str, Any] = {
    "metadata": {"name": "bot", "labels": {"authz/inject": "enabled"}},
    "spec": {
        "containers": [
            {
                "name": "bot",
                "image": "bot:1",
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }
        ]
    },
}


def workload(kind: str, pod: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object of a kind with a pod in it."""
    pod = POD if pod is None else pod
    metadata = {"name": "bot"}
    match kind:
        case "Pod":
            return {"kind": kind, **pod}
        case "PodTemplate":
            return {"kind": kind, "metadata": metadata, "template": pod}
        case "CronJob":
            spec: dict[str, Any] = {"jobTemplate": {"spec": {"template": pod}}}
        case _:
            spec = {"template": pod}
    return {"kind": kind, "metadata": metadata, "spec": spec}


def containers(item: dict[str, Any]) -> list[str]:
    """The names of the containers of an object's pod."""
    spec = item.get("spec", item)
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    spec = spec["template"]["spec"] if "template" in spec else spec
    return [each["name"] for each in spec["containers"]]


@pytest.mark.parametrize(
    "kind",
    [
        "Pod", "PodTemplate", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet",
        "ReplicationController", "Job", "CronJob",
    ],
)  # fmt: skip
def test_each_kind_of_workload(kind: str) -> None:
    """Its pod is where that kind has it."""
    text, done = inject_manifest(yaml.dump(workload(kind)), Additions())
    assert [f"{kind} bot"] == done
    assert ["bot", "envoy", "authz"] == containers(yaml.safe_load(text))


def test_documents_without_such_a_pod_stay_byte_by_byte() -> None:
    """Comments, order, spelling; and the number of documents."""
    other = workload("Deployment", {**POD, "metadata": {"labels": {"app": "x"}}})
    manifest = "---\n".join([SERVICE, yaml.dump(workload("Job")), yaml.dump(other)])
    text, done = inject_manifest(manifest, Additions())
    parts = text.split("---\n")
    assert ["Job bot"] == done
    assert (SERVICE, yaml.dump(other)) == (parts[0], parts[2])
    assert inject_manifest(text, Additions()) == (text, done)


@pytest.mark.parametrize(
    ("first", "between"),
    [
        ("", "---\n"),
        ("", "--- # the job\n"),
        ("# ours\n", "---  \n# the job\n"),
        ("", "---\r\n"),
        ("%YAML 1.1\n---\n", "...\n%YAML 1.1\n---\n"),
        ("# ours\n--- !!map\n", "...\n# the job\n---\n"),
    ],
)
def test_documents_begin_in_every_way_that_yaml_knows(first: str, between: str) -> None:
    """With a comment, a directive or a tag; what is not injected keeps its own."""
    other = yaml.dump(workload("Deployment", {**POD, "metadata": {"labels": {"app": "x"}}}))
    manifest = f"{first}{SERVICE}{between}{yaml.dump(workload('Job'))}{between}{other}"
    text, done = inject_manifest(manifest, Additions())

    assert ["Job bot"] == done
    assert text.startswith(f"{first}{SERVICE}")
    assert text.endswith(f"---{between.rpartition('---')[2]}{other}")
    kinds = [item["kind"] for item in yaml.safe_load_all(text)]
    assert ["Service", "Job", "Deployment"] == kinds
    assert (text, done) == inject_manifest(text, Additions())


@pytest.mark.parametrize("above", ["", "# ours\n", "\n"])
def test_a_document_may_be_indented(above: str) -> None:
    """As what a template has put in."""
    manifest = above + textwrap.indent(yaml.dump(workload("Job")), "  ")
    text, done = inject_manifest(manifest + "---\n" + SERVICE, Additions())

    assert ["Job bot"] == done
    assert ["Job", "Service"] == [item["kind"] for item in yaml.safe_load_all(text)]


@pytest.mark.parametrize("kind", ["List", "DeploymentList"])
def test_a_list_is_looked_through(kind: str) -> None:
    """As `kubectl get -o yaml` and the API write it."""
    items = {"kind": kind, "items": [workload("Deployment"), {"kind": "Service"}]}
    text, done = inject_manifest(yaml.dump(items), Additions())
    assert ["Deployment bot"] == done
    assert 2 == len(yaml.safe_load(text)["items"])


@pytest.mark.parametrize("nested", [False, True])
def test_a_pod_that_asks_in_an_unknown_kind_is_a_fault(nested: bool) -> None:
    """It would be deployed without Envoy and authz, and nobody would notice."""
    rollout = {**workload("Deployment"), "kind": "Rollout"}
    item = {"kind": "Bundle", "spec": {"objects": [rollout]}} if nested else rollout
    manifest = "---\n".join([yaml.dump(workload("Deployment")), yaml.dump(item)])
    done = CliRunner().invoke(main, ["inject", "-f", "-"], input=manifest)
    assert (2, "") == (done.exit_code, done.stdout)
    assert f"kind {item['kind']} has the label authz/inject: enabled" in done.stderr


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "CronJob"])
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_the_command_refuses_what_injection_refuses(kind: str, case: Case) -> None:
    """Wherever the pod is; nothing is printed but the object and the field that should change."""
    metadata, spec = case.pod(redirected=case.redirected)
    manifest = yaml.dump(workload(kind, {"metadata": metadata, "spec": spec}))
    option = ["--intercept-image", "r/intercept:1"]
    done = CliRunner().invoke(main, ["inject", "-f", "-", *option], input=manifest)
    assert (2, "") == (done.exit_code, done.stdout)
    name = "agent" if kind == "Pod" else "bot"
    assert f"{kind} {name}: {case.field}: " in done.stderr


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_the_webhook_refuses_what_injection_refuses(case: Case) -> None:
    """With every fault in its answer, and no patch."""
    metadata, spec = case.pod(redirected=case.redirected)
    asked = review({"metadata": metadata, "spec": spec})
    answer = answer_to(asked, Additions(intercept_image="r/intercept:1"))["response"]
    assert (False, 422) == (answer["allowed"], answer["status"]["code"])
    assert f"{case.field}: " in answer["status"]["message"]
    assert "patch" not in answer


@pytest.mark.parametrize("case", ADMITTED, ids=str)
def test_the_webhook_patches_ordinary_pods(case: Case) -> None:
    """Every one of them, redirected or not."""
    for redirected in (False, True):
        metadata, spec = case.pod(redirected=redirected)
        asked = review({"metadata": metadata, "spec": spec})
        answer = answer_to(asked, Additions(intercept_image="r/intercept:1"))["response"]
        assert answer["allowed"], answer
        assert "JSONPatch" == answer["patchType"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": {}}, "metadata.labels[authz/inject]: expected enabled"),
        ({"labels": {"authz/inject": "no"}}, "metadata.labels[authz/inject]: expected enabled"),
        ({"name": "agent", "labels": {"authz/inject": "enabled"}}, None),
        # What was injected counts, not what the annotations say by now.
        (
            {"labels": {"authz/inject": "enabled"}, "annotations": {}},
            "spec.ephemeralContainers[0].envFrom[0].secretRef.name: found agent-credential",
        ),
    ],
)
def test_a_pod_that_is_there_cannot_undo_its_injection(changes: Any, fault: str | None) -> None:
    """Neither by its label, nor by a container that is added to it; no patch changes it either way."""
    metadata, spec = inject(*ADMITTED[0].pod(), Additions())
    changed = {"metadata": {**metadata, **changes}, "spec": spec}
    if fault is not None and "ephemeral" in fault:
        mounted = {**spec["containers"][0], "name": "debugger"}
        mounted["envFrom"] = [{"secretRef": {"name": "agent-credential"}}]
        changed["spec"] = {**spec, "ephemeralContainers": [mounted]}
    asked = review(changed)
    asked["request"] |= {"operation": "UPDATE", "oldObject": {"metadata": metadata, "spec": spec}}
    answer = answer_to(asked, Additions())["response"]
    assert (fault is None) == answer["allowed"]
    assert (fault or "") in answer.get("status", {}).get("message", "")
    assert "patch" not in answer


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"kind: \xff\xfe", "is no text in UTF-8"), (b"# " + b"x" * 2**24, "has more than 16 MiB")],
)
def test_what_is_no_manifest_at_all_is_a_fault(content: bytes, expected: str) -> None:
    """One line, and the exit status of a fault."""
    done = CliRunner().invoke(main, ["inject", "-f", "-"], input=content)
    assert (2, f"authz: --file: {expected}\n") == (done.exit_code, done.output)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("a: [", "line 1 is no YAML"),
        ("[" * 3000 + "]" * 3000, "the document from line 1 is no YAML"),
        (f"{SERVICE}---\na: *b\n", f"line {SERVICE.count(chr(10)) + 2} is no YAML"),
        (
            f"{SERVICE}---\na: 2026-13-45\n",
            f"the document from line {SERVICE.count(chr(10)) + 1} is no",
        ),
        (
            yaml.dump({"kind": "Deployment", "metadata": {"name": "a"}, "spec": {}}),
            "Deployment a: has no complete pod in it",
        ),
        (
            yaml.dump({"kind": "Deployment", "metadata": 5, "spec": {}}),
            "Deployment without a name: has no complete pod in it",
        ),
        (
            yaml.dump(workload("Pod", {**POD, "spec": {**POD["spec"], "hostNetwork": True}})),
            "Pod bot: spec.hostNetwork",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(manifest: str, expected: str) -> None:
    """Nothing is half injected."""
    with pytest.raises(ManifestError, match=expected):
        inject_manifest(manifest, Additions())


def test_the_command(tmp_path: Path) -> None:
    """The manifest on standard output, what was done on standard error; 2 where there is nothing to do."""
    file = tmp_path / "bot.yaml"
    file.write_text(yaml.dump(workload("Deployment")))
    done = CliRunner().invoke(main, ["inject", "-f", str(file), "--image", "r/entra-authz:9"])
    assert (0, "injected: Deployment bot\n") == (done.exit_code, done.stderr)
    assert "r/entra-authz:9" in done.stdout
    again = CliRunner().invoke(main, ["inject", "-f", "-"], input=done.stdout)
    assert ["bot", "envoy", "authz"] == containers(yaml.safe_load(again.stdout))
    nothing = CliRunner().invoke(main, ["inject", "-f", "-"], input=SERVICE)
    assert (2, "") == (nothing.exit_code, nothing.stdout)
    assert "authz/inject: enabled" in nothing.stderr


def test_the_command_redirects_pods_that_ask() -> None:
    """With the image that it is given; the refusal names the field, and the option where that is missing."""
    annotations = {"authz/interception": "enabled", "authz/https": "enabled"}
    security = {
        "runAsUser": 10001,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = {
        "metadata": {**POD["metadata"], "annotations": annotations},
        "spec": {"containers": [{**POD["spec"]["containers"][0], "securityContext": security}]},
    }
    option = ["--intercept-image", "r/intercept:1"]
    manifest = yaml.dump(workload("Deployment", pod))
    done = CliRunner().invoke(main, ["inject", "-f", "-", *option], input=manifest)
    assert 0 == done.exit_code
    assert "r/intercept:1" in done.stdout
    again = CliRunner().invoke(main, ["inject", "-f", "-", *option], input=done.stdout)
    assert yaml.safe_load(done.stdout) == yaml.safe_load(again.stdout)
    without = CliRunner().invoke(main, ["inject", "-f", "-"], input=manifest)
    unconfined = yaml.dump(workload("Deployment", {**pod, "spec": POD["spec"]}))
    refused = CliRunner().invoke(main, ["inject", "-f", "-", *option], input=unconfined)
    assert (2, 2) == (without.exit_code, refused.exit_code)
    assert "Deployment bot: metadata.annotations[authz/interception]" in without.stderr
    assert "spec.containers[0].securityContext.runAsUser: expected a number" in refused.stderr


def review(pod: Any = POD, kind: str = "Pod") -> dict[str, Any]:
    """What the API server sends."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": kind},
            "operation": "CREATE",
            "object": pod,
        },
    }


class Keys:
    """Certificate and key in files, and an authority that signs further ones."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self._authority = trustme.CA()
        self.context = ssl.create_default_context()
        self._authority.configure_trust(self.context)
        self.renew()

    def renew(self) -> int:
        """Put another certificate there, and return its number."""
        issued = self._authority.issue_cert("127.0.0.1")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return self.number(self.certificate.read_text())

    @staticmethod
    def number(pem: str) -> int:
        """The serial number of a certificate."""
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A server's certificate."""
    return Keys(tmp_path)


async def test_the_webhook_patches_pods_that_ask(keys: Keys) -> None:
    """Its patch makes of the pod what `inject` makes; others are let through as they are."""
    webhook = InjectionWebhook("127.0.0.1:0", ServerTls(keys.certificate, keys.key), Additions())
    await webhook.start()
    url = f"https://127.0.0.1:{webhook.port}"
    async with httpx.AsyncClient(base_url=url, verify=keys.context, trust_env=False) as client:
        health = await client.get("/healthz")
        patched = (await client.post("/inject", json=review())).json()
        plain: dict[str, Any] = {"metadata": {"labels": {}}, "spec": {}}
        untouched = (await client.post("/inject", json=review(plain))).json()
        deleted = (await client.post("/inject", json=review(None))).json()
        asking = {"authz/interception": "enabled", "authz/https": "yes"}
        metadata = {**POD["metadata"], "annotations": asking}
        unmet = (await client.post("/inject", json=review({**POD, "metadata": metadata}))).json()
        bad = {**POD, "spec": {**POD["spec"], "hostPID": True}}
        refused = (await client.post("/inject", json=review(bad))).json()["response"]
        wrong = [
            (await client.post("/inject", content=content)).status_code
            for content in (b"", b"[]", b'{"kind":"x"}', b"x" * (MOST_BYTES + 1))
        ]
    await webhook.stop()

    metadata, spec = inject(POD["metadata"], POD["spec"], Additions())
    patch = json.loads(base64.b64decode(patched["response"]["patch"]))
    assert {"/metadata": metadata, "/spec": spec} == {each["path"]: each["value"] for each in patch}
    assert ("u-1", "JSONPatch") == (patched["response"]["uid"], patched["response"]["patchType"])
    for answer in (untouched, deleted):
        assert {"uid": "u-1", "allowed": True} == answer["response"]
    assert (False, 422) == (refused["allowed"], refused["status"]["code"])
    assert "spec.hostPID" in refused["status"]["message"]
    for expectation in (
        "metadata.annotations[authz/https]: expected enabled",
        "metadata.annotations[authz/interception]: there is no image",
        "spec.containers[0].securityContext.runAsUser: expected a number",
        "spec.containers[0].securityContext.allowPrivilegeEscalation: expected false",
    ):
        assert expectation in unmet["response"]["status"]["message"]
    assert (200, [400, 400, 400, 413]) == (health.status_code, wrong)


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(keys: Keys) -> None:
    """Without a restart; cert-manager replaces them long before they end."""
    webhook = InjectionWebhook("127.0.0.1:0", ServerTls(keys.certificate, keys.key), Additions())
    await webhook.start()

    async def number() -> int:
        async with (
            httpx.AsyncClient(verify=keys.context, trust_env=False) as client,
            client.stream("GET", f"https://127.0.0.1:{webhook.port}/healthz") as answer,
        ):
            connection = answer.extensions["network_stream"].get_extra_info("ssl_object")
            pem = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))
            return Keys.number(pem)

    renewed = keys.renew()
    assert renewed == await number()
    aside = keys.certificate.with_suffix(".aside")
    with capture_logs() as logs:
        keys.certificate.rename(aside)
        assert [renewed] * 3 == [await number() for _ in range(3)]
        aside.rename(keys.certificate)
        assert [renewed] * 2 == [await number() for _ in range(2)]
        keys.certificate.write_text("half a certi")
        assert [renewed] * 3 == [await number() for _ in range(3)]
        assert keys.renew() == await number()
    await webhook.stop()

    # Once each, and not at each connection.
    assert [
        "certificate not usable",
        "certificate usable again",
        "certificate not usable",
        "certificate renewed",
    ] == [entry["event"] for entry in logs]


def test_the_webhook_as_a_program(keys: Keys) -> None:
    """It serves until told to end; faults of its files are one line."""
    arguments = ["--certificate", str(keys.certificate), "--key", str(keys.key)]
    with Process("inject-webhook", "--listen", "127.0.0.1:0", *arguments) as process:
        address = process.event("serving")["listen"]
        answer = httpx.post(
            f"https://{address}/inject", json=review(), verify=keys.context, trust_env=False
        )
        assert answer.json()["response"]["allowed"]
        assert 0 == process.stop()
    keys.key.write_text("none")
    broken = CliRunner().invoke(main, ["inject-webhook", *arguments])
    assert 1 == broken.exit_code
    assert "--certificate, --key" in broken.stderr
