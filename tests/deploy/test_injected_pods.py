"""What becomes of a pod that asks for injection; and which pods are refused."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from authz.injection.annotations import INJECTED
from authz.injection.parts import Additions, Object
from authz.injection.pod import InjectionError, inject, is_wanted
from support.manifests import KUBERNETES, Manifests, intercepted, render, with_https
from support.schemas import VERSIONS, check_core

APP: Object = {"name": "agent", "image": "agent:1"}
METADATA: Object = {"name": "a", "labels": {"authz/inject": "enabled"}}
PLAIN = Additions()
REDIRECTING = Additions(intercept_image="intercept:replace-me")
CONFINED: Object = {"runAsUser": 10001, "allowPrivilegeEscalation": False}
"""What a container needs where connections are redirected by user."""
CONFINED_APP: Object = {"containers": [{**APP, "securityContext": CONFINED}]}
EVERYTHING = {"interception": "enabled", "https": "enabled"}


def injected(
    spec: Object | None = None, *, additions: Additions = PLAIN, **annotations: str
) -> tuple[Object, Object]:
    """Inject a pod with one container, or that of the spec."""
    names = {name.replace("_", "-"): value for name, value in annotations.items()}
    metadata = {**METADATA, "annotations": {f"authz/{name}": v for name, v in names.items()}}
    return inject(metadata, {"containers": [APP], **(spec or {})}, additions)


def named(items: list[Object]) -> dict[str, Object]:
    """Items by their names."""
    return {item["name"]: item for item in items}


@pytest.mark.parametrize("overlay", ["workload-identity", "client-secret"])
@pytest.mark.usefixtures("kubectl")
def test_what_is_added_is_what_the_overlays_have(overlay: str) -> None:
    """Containers, volumes and the app's variables: there is no second truth."""
    expected = render(KUBERNETES / overlay).pod
    _, spec = (
        injected() if overlay == "workload-identity" else injected(client_secret="agent-credential")
    )
    for key in ("initContainers", "containers"):
        theirs, ours = named(expected[key]), named(spec[key])
        for name in ours.keys() - {"agent"}:
            assert _settled(theirs[name]) == _settled(ours[name]), name
    ours_by_name = named(spec["volumes"])
    theirs_by_name = named(expected["volumes"])
    assert {name: _kind(theirs_by_name[name]) for name in ours_by_name} == {
        name: _kind(volume) for name, volume in ours_by_name.items()
    }
    assert theirs_by_name["credential"] == ours_by_name["credential"]
    app = named(spec["containers"])["agent"]
    assert named(expected["containers"])["agent"]["env"] == app["env"]
    for key in ("fsGroup", "fsGroupChangePolicy"):
        assert expected["securityContext"][key] == spec["securityContext"][key]
    assert expected["terminationGracePeriodSeconds"] == spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", ["workload-identity", "client-secret"])
@pytest.mark.parametrize("https", [False, True])
@pytest.mark.usefixtures("kubectl")
def test_what_is_added_is_what_the_components_have(overlay: str, https: bool) -> None:
    """With interception, and with HTTPS: containers, volumes, the app's variables and mounts."""
    expected = (with_https if https else intercepted)(overlay)
    asked = EVERYTHING if https else {"interception": "enabled"}
    secret = {"client_secret": "agent-credential"} if overlay == "client-secret" else {}
    _, spec = injected(CONFINED_APP, additions=REDIRECTING, **asked, **secret)
    _compare(expected, spec)
    # First, so that the init containers after it are redirected as well.
    assert ["intercept", "check-config"] == [each["name"] for each in spec["initContainers"]]


def _compare(expected: Manifests, spec: Object) -> None:
    """The pod of an overlay, and an injected one: the same but for the app itself."""
    for key in ("initContainers", "containers"):
        theirs, ours = named(expected.pod[key]), named(spec[key])
        assert theirs.keys() == ours.keys()
        for name in ours.keys() - {"agent"}:
            assert _settled(theirs[name]) == _settled(ours[name]), name
    agent, app = (named(pod["containers"])["agent"] for pod in (expected.pod, spec))
    assert named(agent["env"]) == named(app["env"])
    mounts = named(agent["volumeMounts"])
    del mounts["agent-tmp"]
    assert mounts == named(app.get("volumeMounts", []))
    theirs, ours = named(expected.pod["volumes"]), named(spec["volumes"])
    assert theirs.keys() - {"agent-tmp"} == ours.keys()
    for name, volume in ours.items():
        if "configMap" not in volume:
            assert theirs[name] == volume
        else:
            generated = theirs[name]["configMap"]["name"]
            assert volume["configMap"]["name"] == generated.rpartition("-")[0]


def _settled(container: Object) -> Object:
    """A container without the hash in the names of its ConfigMaps, and without the order of its lists."""
    variables, mounts = container.get("env", []), container.get("volumeMounts", [])
    settled = {"env": named(variables), "volumeMounts": named(mounts), "envFrom": None}
    return {**container, **settled}


def _kind(volume: Object) -> set[str]:
    return volume.keys() - {"name"}


def test_the_result_is_a_valid_pod() -> None:
    """Of every form, by the strict schemas of the oldest and the newest version."""
    forms = [
        injected(),
        injected(additions=Additions(native=True)),
        injected(CONFINED_APP, additions=REDIRECTING, **EVERYTHING),
        injected(CONFINED_APP, additions=replace(REDIRECTING, native=True), **EVERYTHING),
    ]
    for metadata, spec in forms:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        for version in VERSIONS:
            check_core(pod, version)


@pytest.mark.parametrize("additions", [PLAIN, Additions(native=True)])
def test_twice_is_once(additions: Additions) -> None:
    """And the arguments stay as they are."""
    spec = {
        "containers": [APP],
        "volumes": [{"name": "own", "emptyDir": {}}],
        "initContainers": [{"name": "prepare", "image": "x"}],
        "securityContext": {"fsGroup": 2000},
    }
    kept = deepcopy(spec)
    once = inject(METADATA, spec, additions)
    assert kept == spec
    assert "annotations" not in METADATA
    assert once == inject(*once, additions)


def test_another_form_replaces_the_first() -> None:
    """Plain to native, one secret to another: no container and no volume of the first stays."""
    metadata, spec = injected(client_secret="one")
    del metadata["annotations"]["authz/client-secret"]
    _, native = inject(metadata, spec, Additions(native=True))
    _, expected = injected(additions=Additions(native=True))
    assert {**expected, "terminationGracePeriodSeconds": 30} == native


@pytest.mark.parametrize("native", [False, True])
def test_twice_is_once_with_everything(native: bool) -> None:
    """The app's own mounts and variables stay where they are."""
    app = {
        **CONFINED_APP["containers"][0],
        "env": [{"name": "SSL_CERT_FILE", "value": "/own.pem"}],
        "volumeMounts": [{"name": "own", "mountPath": "/own"}],
    }
    spec = {"containers": [app], "volumes": [{"name": "own", "emptyDir": {}}]}
    additions = replace(REDIRECTING, native=native)
    once = injected(spec, additions=additions, **EVERYTHING)
    assert once == inject(*once, additions)
    changed = once[1]["containers"][0]
    assert "/own.pem" == named(changed["env"])["SSL_CERT_FILE"]["value"]
    assert ["own", "authz-trust"] == [each["name"] for each in changed["volumeMounts"]]


def test_what_is_not_asked_for_any_more_is_gone() -> None:
    """Nothing of the other form stays in the app either: neither a proxy nor files that are not there."""
    plain = injected(CONFINED_APP, additions=REDIRECTING)
    full = injected(CONFINED_APP, additions=REDIRECTING, **EVERYTHING)
    for (metadata, spec), other in ((plain, full), (full, plain)):
        annotations = {**other[0]["annotations"]}
        again = inject({**metadata, "annotations": annotations}, spec, REDIRECTING)
        app, expected = (pod["containers"][0] for pod in (again[1], other[1]))
        assert expected["env"] == app["env"]
        assert expected.get("volumeMounts", []) == app.get("volumeMounts", [])
        for key in ("initContainers", "volumes"):
            assert named(other[1][key]) == named(again[1][key])


def test_native_sidecars_start_before_the_app_and_stop_after_it() -> None:
    """In this order; what the pod has of its own comes after."""
    spec = {"containers": [APP], "initContainers": [{"name": "prepare", "image": "x"}]}
    _, native = injected(spec, additions=Additions(native=True))
    assert ["check-config", "authz", "envoy", "prepare"] == [
        each["name"] for each in native["initContainers"]
    ]
    assert ["agent"] == [each["name"] for each in native["containers"]]
    assert [None, "Always", "Always", None] == [
        each.get("restartPolicy") for each in native["initContainers"]
    ]
    # The kubelet runs every hook at once and lets sidecars wait for their turn: Envoy needs none then.
    assert "lifecycle" not in native["initContainers"][2]
    assert "exec" in native["initContainers"][1]["lifecycle"]["preStop"]
    # Envoy is there by then, so they call through it as well.
    assert named(native["initContainers"][3]["env"]).keys() >= {"HTTP_PROXY", "NO_PROXY"}
    ending = {"containers": [APP], "restartPolicy": "Never"}
    assert "Never" == injected(ending, additions=Additions(native=True))[1]["restartPolicy"]


def test_annotations_name_what_is_the_pods_own() -> None:
    """Configurations, identity and secret; only authz gets the credential."""
    _, spec = injected(
        config="bot-authz", envoy_config="bot-envoy", identity="bot", client_secret="bot-secret"
    )
    volumes = named(spec["volumes"])
    assert ("bot-authz", "bot-envoy", "bot-secret") == (
        volumes["authz-config"]["configMap"]["name"],
        volumes["envoy-config"]["configMap"]["name"],
        volumes["credential"]["secret"]["secretName"],
    )
    everyone = [*spec["initContainers"], *spec["containers"]]
    assert ["authz"] == [
        each["name"]
        for each in everyone
        if "credential" in {mount["name"] for mount in each.get("volumeMounts", [])}
    ]
    identities = [each["envFrom"] for each in everyone if each["name"] in ("check-config", "authz")]
    assert [[{"configMapRef": {"name": "bot"}}]] * 2 == identities


def test_annotations_change_the_script_and_what_it_leaves_alone() -> None:
    """Of the container that redirects, and of no other."""
    _, spec = injected(
        CONFINED_APP,
        additions=REDIRECTING,
        interception="enabled",
        interception_config="rules",
        exclude_cidrs="10.96.0.0/12,fd00::1",
        exclude_ports="53,5432",
    )
    variables = {each["name"]: each["value"] for each in spec["initContainers"][0]["env"]}
    assert ("10.96.0.0/12,fd00::1", "53,5432") == (
        variables["EXCLUDE_CIDRS"],
        variables["EXCLUDE_PORTS"],
    )
    assert "rules" == named(spec["volumes"])["interception"]["configMap"]["name"]


def test_images_are_those_that_were_asked_for() -> None:
    """Of all containers of each."""
    wanted = Additions(
        image="r/entra-authz:2", envoy_image="r/envoy:3", intercept_image="r/intercept:4"
    )
    _, redirecting = injected(CONFINED_APP, additions=wanted, interception="enabled")
    assert "r/intercept:4" == redirecting["initContainers"][0]["image"]
    _, spec = injected(additions=wanted)
    images = {
        each["name"]: each["image"] for each in (*spec["initContainers"], *spec["containers"])
    }
    assert {
        "check-config": "r/entra-authz:2", "authz": "r/entra-authz:2", "envoy": "r/envoy:3", "agent": "agent:1",
    } == images  # fmt: skip


def test_what_the_app_says_itself_stays() -> None:
    """Its variables, its default container, its group, a longer grace."""
    app = {**APP, "env": [{"name": "HTTP_PROXY", "value": "http://own"}]}
    spec: Object = {
        "containers": [app],
        "terminationGracePeriodSeconds": 120,
        "securityContext": {"fsGroup": 2000, "supplementalGroups": [7]},
    }
    metadata = {**METADATA, "annotations": {"kubectl.kubernetes.io/default-container": "x"}}
    metadata, spec = inject(metadata, spec, PLAIN)
    variables = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    assert ("http://own", "http://127.0.0.1:15001") == (
        variables["HTTP_PROXY"],
        variables["http_proxy"],
    )
    assert ("x", 120) == (
        metadata["annotations"]["kubectl.kubernetes.io/default-container"],
        spec["terminationGracePeriodSeconds"],
    )
    assert {"fsGroup": 2000, "supplementalGroups": [7, 65532]} == spec["securityContext"]


def app(**changes: Any) -> Object:
    """A pod whose app is like this."""
    return {"containers": [{**APP, **changes}]}


TOKEN = {"serviceAccountToken": {"audience": "api://AzureADTokenExchange", "path": "t"}}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"hostNetwork": True}, "spec.hostNetwork"),
        ({"hostPID": True}, "spec.hostPID"),
        ({"shareProcessNamespace": True}, "spec.shareProcessNamespace"),
        ({"containers": []}, "spec.containers"),
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
        ({"volumes": [{"name": "credential"}]}, "spec.volumes[0].name"),
        ({"volumes": [{"name": "t", "projected": {"sources": [TOKEN]}}]}, "spec.volumes[0].projected"),
        ({"securityContext": {"runAsUser": 65533}}, "spec.containers[0].securityContext.runAsUser"),
        (app(name="envoy"), "spec.containers[0].name"),
        (app(volumeMounts=[{"name": "credential", "mountPath": "/x"}]), "volumeMounts[0].name"),
        (app(volumeMounts=[{"name": "authz-socket", "mountPath": "/x"}]), "volumeMounts[0].name"),
        (app(securityContext={"privileged": True}), "securityContext.privileged"),
        (app(securityContext={"runAsUser": 65532}), "securityContext.runAsUser"),
        (app(securityContext={"capabilities": {"add": ["CAP_SYS_PTRACE"]}}), "capabilities.add"),
        (app(ports=[{"containerPort": 8080}]), "ports[0].containerPort"),
        (app(ports=[{"containerPort": 15001}]), "ports[0].containerPort"),
        ({"initContainers": [{"name": "authz"}]}, "spec.initContainers[0].name"),
        ({"initContainers": [{"name": "intercept"}]}, "spec.initContainers[0].name"),
        ({"volumes": [{"name": "authz-ca"}]}, "spec.volumes[0].name"),
        (app(volumeMounts=[{"name": "authz-trust", "mountPath": "/x"}]), "volumeMounts[0].name"),
        (app(volumeMounts=[{"name": "own", "mountPath": "/run/authz-trust"}]), "[0].mountPath"),
        (
            {**app(securityContext={"runAsUser": None}), "securityContext": {"runAsUser": 65532}},
            "securityContext.runAsUser",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_cannot_be_contained_is_refused(spec: Object, fault: str) -> None:
    """By the field that should change."""
    with pytest.raises(InjectionError) as caught:
        injected(spec)
    assert [fault] == [fault for each in caught.value.faults if fault in each.partition(": ")[0]]
    assert 1 == len(caught.value.faults)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"runAsUser": None}, "runAsUser"),
        ({"runAsUser": 0}, "runAsUser"),
        ({"runAsUser": 65533}, "runAsUser"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
        ({"allowPrivilegeEscalation": None}, "allowPrivilegeEscalation"),
        ({"capabilities": {"add": ["CHOWN"]}}, "capabilities.add"),
        ({"capabilities": {"add": ["NET_ADMIN"]}}, "capabilities.add"),
    ],
)
@pytest.mark.parametrize("key", ["containers", "initContainers"])
def test_a_container_that_could_escape_the_rules_is_refused(
    key: str, changes: Object, fault: str
) -> None:
    """Connections are redirected by user, so each container has one, and no way to another's."""
    other = {"name": "other", "image": "x", "securityContext": {**CONFINED, **changes}}
    spec = {**CONFINED_APP, key: [*CONFINED_APP.get(key, []), other]}
    with pytest.raises(InjectionError) as caught:
        injected(spec, additions=REDIRECTING, interception="enabled")
    index = len(spec[key]) - 1
    path = f"spec.{key}[{index}].securityContext.{fault}"
    assert [path] == [each.partition(": ")[0] for each in caught.value.faults]


def test_the_pods_user_counts_for_containers_without_one() -> None:
    """As Kubernetes has it."""
    unnamed = {"containers": [{**APP, "securityContext": {"allowPrivilegeEscalation": False}}]}
    pod = {**unnamed, "securityContext": {"runAsUser": 10001}}
    _, spec = injected(pod, additions=REDIRECTING, interception="enabled")
    assert "intercept" == spec["initContainers"][0]["name"]
    with pytest.raises(InjectionError, match=r"runAsUser: expected a number"):
        injected(unnamed, additions=REDIRECTING, interception="enabled")


@pytest.mark.parametrize(
    ("annotations", "fault"),
    [
        ({"interception": "true"}, "authz/interception]: expected enabled"),
        ({"https": "disabled"}, "authz/https]: expected enabled"),
        ({"https": "enabled"}, "authz/https]: expected authz/interception"),
        ({"exclude_ports": "53"}, "authz/exclude-ports]: expected authz/interception"),
        (EVERYTHING | {"exclude_cidrs": "0.0.0.0/0"}, "authz/exclude-cidrs]: expected addresses"),
        (EVERYTHING | {"exclude_cidrs": "10.0.0.0/8,"}, "authz/exclude-cidrs]: expected addresses"),
        (EVERYTHING | {"exclude_ports": "0"}, "authz/exclude-ports]: expected ports"),
        (EVERYTHING | {"exclude_ports": "053"}, "authz/exclude-ports]: expected ports"),
        (EVERYTHING | {"exclude_ports": "53 54"}, "authz/exclude-ports]: expected ports"),
    ],
)
def test_an_annotation_that_cannot_be_met_is_refused(
    annotations: dict[str, str], fault: str
) -> None:
    """With its name, and what is expected."""
    with pytest.raises(InjectionError) as caught:
        injected(CONFINED_APP, additions=REDIRECTING, **annotations)
    assert any(each.startswith(f"metadata.annotations[{fault}") for each in caught.value.faults)


def test_without_an_image_nobody_is_redirected() -> None:
    """There is none that could be the default: it is the installation's own."""
    with pytest.raises(InjectionError, match=r"authz/interception\]: .*--intercept-image"):
        injected(CONFINED_APP, interception="enabled")


def test_azures_webhook_would_give_the_app_the_credential() -> None:
    """Its label is refused; ours gives the token to authz alone."""
    labels = {**METADATA["labels"], "azure.workload.identity/use": "true"}
    with pytest.raises(InjectionError, match=r"azure\.workload\.identity/use"):
        inject({**METADATA, "labels": labels}, {"containers": [APP]}, PLAIN)


def test_annotations_that_nobody_knows_are_refused() -> None:
    """A misspelt one would leave a default in force."""
    with pytest.raises(InjectionError, match="authz/secret"):
        injected(secret="x")
    with pytest.raises(InjectionError, match="expected a name"):
        injected(config="")


def test_an_annotation_alone_proves_nothing() -> None:
    """Who writes ours by hand gets the real containers in place of his own."""
    own = {"containers": [APP, {"name": "envoy", "image": "evil"}]}
    _, spec = inject({**METADATA, "annotations": {INJECTED: "0.1.0"}}, own, PLAIN)
    assert "evil" not in json.dumps(spec)


def test_only_pods_that_ask_are_wanted() -> None:
    """By the one value of the label."""
    assert is_wanted(METADATA)
    for labels in (None, {}, {"authz/inject": "true"}, {"authz/inject": "disabled"}):
        assert not is_wanted({"labels": labels})
