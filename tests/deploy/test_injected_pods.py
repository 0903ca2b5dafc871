"""What becomes of a pod that asks for injection; and which pods are refused."""

import json
import re
from copy import deepcopy
from dataclasses import replace

import pytest

from authz.injection.annotations import INJECTED
from authz.injection.containment import breaches
from authz.injection.parts import Additions, Object, all_parts
from authz.injection.pod import InjectionError, add, inject, is_wanted
from authz.injection.rules import RULES, Scope
from support.kubernetes.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifests,
    composed,
    intercepted,
    render,
    with_https,
)
from support.kubernetes.schemas import VERSIONS, check_core
from support.kubernetes.uncontained import (
    ADMITTED,
    GUID,
    REFUSED,
    SECRET,
    Case,
    capable,
    token,
    volume,
)

APP: Object = {
    "name": "agent",
    "image": "agent:1",
    "securityContext": {"capabilities": {"drop": ["ALL"]}},
}
"""What every app needs to be injected."""
METADATA: Object = {"name": "a", "labels": {"authz/inject": "enabled"}}
PLAIN = Additions()
REDIRECTING = Additions(intercept_image="intercept:replace-me")
CONFINED: Object = {
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
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


@pytest.mark.parametrize("overlay", ["workload-identity", "client-secret-file"])
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


@pytest.mark.parametrize("overlay", ["workload-identity", "client-secret-file"])
@pytest.mark.parametrize("https", [False, True])
@pytest.mark.usefixtures("kubectl")
def test_what_is_added_is_what_the_components_have(overlay: str, https: bool) -> None:
    """With interception, and with HTTPS: containers, volumes, the app's variables and mounts."""
    expected = (with_https if https else intercepted)(overlay)
    asked = EVERYTHING if https else {"interception": "enabled"}
    secret = {"client_secret": "agent-credential"} if overlay == "client-secret-file" else {}
    _, spec = injected(CONFINED_APP, additions=REDIRECTING, **asked, **secret)
    _compare(expected, spec)
    # First, so that the init containers after it are redirected as well.
    assert ["intercept", "check-config"] == [each["name"] for each in spec["initContainers"]]


@pytest.mark.usefixtures("kubectl")
def test_tls_may_be_ended_where_nothing_is_redirected() -> None:
    """The app's proxy variables lead it to Envoy: the pod needs no rule, and no right to set one."""
    _, spec = injected(CONFINED_APP, https="enabled")
    _compare(composed("workload-identity", "https"), spec)
    assert ["check-config"] == [each["name"] for each in spec["initContainers"]]
    again = injected(spec, https="enabled", injected="0")[1]
    assert spec == again


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
    for name, item in ours.items():
        if "configMap" not in item:
            assert theirs[name] == item
        else:
            generated = theirs[name]["configMap"]["name"]
            assert item["configMap"]["name"] == generated.rpartition("-")[0]


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
        "initContainers": [{**APP, "name": "prepare"}],
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
    spec = {"containers": [APP], "initContainers": [{**APP, "name": "prepare"}]}
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


def judged(case: Case, additions: Additions, *, redirected: bool = False) -> list[str]:
    """The faults that injection finds in a pod."""
    try:
        inject(*case.pod(redirected=redirected), additions)
    except InjectionError as error:
        return error.faults
    return []


def fields(faults: list[str]) -> list[str]:
    """The fields that faults are about."""
    return [each.partition(": ")[0] for each in faults]


@pytest.mark.parametrize("additions", [PLAIN, Additions(native=True)], ids=["plain", "native"])
@pytest.mark.parametrize("case", [case for case in REFUSED if not case.redirected], ids=str)
def test_a_pod_whose_app_could_get_at_a_credential_is_refused(
    case: Case, additions: Additions
) -> None:
    """By the one field that should change."""
    assert [case.field] == fields(judged(case, additions))


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_it_is_refused_where_connections_are_redirected_too(case: Case) -> None:
    """With the same words, and what depends on users besides."""
    assert case.field in fields(judged(case, REDIRECTING, redirected=True))


@pytest.mark.parametrize("case", [case for case in REFUSED if case.redirected], ids=str)
def test_users_count_only_where_connections_are_redirected(case: Case) -> None:
    """Without that, a user of its own is nothing that a container needs."""
    assert [] == judged(case, REDIRECTING)


def test_every_rule_has_a_pod_that_it_refuses() -> None:
    """A row of the table that nothing is tried with could be wrong for ever."""
    tried = {re.sub(r"\[[^]]*\]", "[]", case.field) for case in REFUSED}
    rows = {
        re.sub(r"{.*}", "[]", f"{rule.scope}.{rule.field}")
        for rule in RULES
        # The others are tried with what is added to a pod that is there, and with drivers that are named.
        if rule.scope is not Scope.EPHEMERAL and not rule.field.startswith("csi.")
    }
    assert set() == rows - tried


@pytest.mark.parametrize("case", ADMITTED, ids=str)
def test_ordinary_pods_are_injected(case: Case) -> None:
    """Nothing that an app usually has is in the way."""
    assert [] == judged(case, PLAIN)
    assert [] == judged(case, REDIRECTING, redirected=True)


def test_a_driver_that_the_installation_names_may_bring_volumes() -> None:
    """No other may: a pod does not show what a driver hands out. The credential itself it never hands out."""
    vault = {"driver": "vault.example", "readOnly": True}
    naming = Additions(csi_drivers=("other.example", "vault.example"))
    direct = {**vault, "nodePublishSecretRef": {"name": SECRET}}
    assert [] == judged(Case("", volume(csi=vault)), naming)
    assert ["spec.volumes[0].csi"] == fields(judged(Case("", volume(csi=vault)), PLAIN))
    assert ["spec.volumes[0].csi.nodePublishSecretRef.name"] == fields(
        judged(Case("", volume(csi=direct)), naming)
    )


@pytest.mark.parametrize("case", [case for case in REFUSED if not case.before], ids=str)
def test_nothing_is_excused_by_a_pod_that_claims_to_be_injected(case: Case) -> None:
    """Neither by the annotation alone, nor by one that was injected and changed afterwards."""
    metadata, spec = case.pod(redirected=True)
    claimed = {**metadata, "annotations": {**metadata["annotations"], INJECTED: "0.1.0"}}
    changed = add(*case.pod(redirected=True), REDIRECTING)
    for each in ((claimed, spec), changed):
        with pytest.raises(InjectionError) as caught:
            inject(*each, REDIRECTING)
        assert [] != [fault for fault in caught.value.faults if _is_of(fault, case.field)]


def _is_of(fault: str, field: str) -> bool:
    # What is injected comes first in a list, or is there before.
    return re.sub(r"\[\d+\]", "[]", fault.partition(": ")[0]) == re.sub(r"\[\d+\]", "[]", field)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"containers": []}, "spec.containers"),
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
    ],
)
def test_a_pod_that_could_not_work_is_refused(spec: Object, fault: str) -> None:
    """By the field that should change."""
    with pytest.raises(InjectionError) as caught:
        injected(spec)
    assert [fault] == fields(caught.value.faults)


def test_a_message_has_the_value_where_that_is_the_fault() -> None:
    """As far as it fits a line; what is there or not needs none."""
    texts = [
        judged(Case("", spec), PLAIN)[0]
        for spec in (capable("BPF"), token(f"{GUID}{'x' * 100}"), {"hostPID": True})
    ]
    where = "spec.volumes[0].projected.sources[1].serviceAccountToken.audience"
    assert texts[0].startswith(
        "spec.containers[0].securityContext.capabilities.add[0]: found BPF, expected no other than "
        "NET_BIND_SERVICE"
    )
    assert f"{where}: found {GUID}{'x' * 44}, expected another audience" in texts[1]
    assert "spec.hostPID: expected false: what is shared is not contained" == texts[2]


FOLDERS = (*OVERLAYS, *(f"kind/{overlay}" for overlay in OVERLAYS), "shared/client")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.usefixtures("kubectl")
def test_the_overlays_own_agent_needs_no_change_to_be_injected(folder: str) -> None:
    """What the manifests have is what the rules want: one truth for written and injected pods."""
    made = intercepted(folder) if folder in OVERLAYS else render(KUBERNETES / folder)
    (found,) = (
        each["spec"]["template"]
        for each in made.all("Deployment")
        if "agent" in named(each["spec"]["template"]["spec"]["containers"])
    )
    agent = named(found["spec"]["containers"])["agent"]
    mounted = {mount["name"] for mount in agent.get("volumeMounts", ())}
    own = {
        **found["spec"],
        "containers": [agent],
        "initContainers": [],
        "volumes": [each for each in found["spec"]["volumes"] if each["name"] in mounted],
    }
    annotations = {"authz/client-secret": "agent-credential"}
    metadata = {**found["metadata"], "annotations": annotations}
    assert [] == list(breaches(metadata, own, all_parts(), redirected=True))


def test_the_pods_user_counts_for_containers_without_one() -> None:
    """As Kubernetes has it."""
    security = {key: value for key, value in CONFINED.items() if key != "runAsUser"}
    unnamed = {"containers": [{**APP, "securityContext": security}]}
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
