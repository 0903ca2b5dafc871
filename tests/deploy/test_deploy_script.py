"""`kubernetes/deploy.sh`: it checks its inputs, renders without a cluster, and keeps the secret to itself.

The cluster is a stand-in on PATH; rendering is the real kubectl's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

import authz
from support.kubernetes.cluster import Cluster
from support.kubernetes.manifests import KUBERNETES, OVERLAYS

pytestmark = pytest.mark.thorough

PROGRAMS = Path(sys.executable).parent
SECRET = "q8~Not.A-Real$Secret"


@pytest.fixture
def inputs(identity: dict[str, str]) -> dict[str, str]:
    """Return complete inputs."""
    images = {
        "AGENT_IMAGE": "registry.example/agent:1.0.0",
        "AUTHZ_IMAGE": "registry.example/entra-authz:0.1.0",
    }
    return {**identity, **images, "CLIENT_SECRET": SECRET}


@pytest.fixture
def script(tmp_path: Path, kubectl: str) -> Path:
    """Return the script in a copy of its folder, so that no `.env` of a user takes part."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns(".env"))
    return folder / "deploy.sh"


def _run(
    script: Path, *arguments: str, environ: Mapping[str, str], path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # Without this checkout's programs: few who deploy have authz installed.
    others = [one for one in os.environ["PATH"].split(os.pathsep) if one != str(PROGRAMS)]
    search = os.pathsep.join([*([str(path)] if path else []), *others])
    # HOME, because some kubectl keep notes there.
    base = {"PATH": search, "HOME": str(script.parent)}
    return subprocess.run(
        [script, *arguments], env={**base, **environ}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_dry_run_prints_the_manifests_with_the_inputs(
    script: Path, inputs: dict[str, str], identity: dict[str, str], overlay: str
) -> None:
    """Identity, image and namespace arrive; the secret does not."""
    environ = {**inputs, "NAMESPACE": "team-a"}

    result = _run(script, overlay, "--dry-run", environ=environ)
    objects = list(yaml.safe_load_all(result.stdout))
    data = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    (pod,) = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]

    assert (result.returncode, result.stderr) == (0, "")
    assert identity in data
    assert {item["metadata"]["namespace"] for item in objects} == {"team-a"}
    assert inputs["AGENT_IMAGE"] in [container["image"] for container in pod["containers"]]
    assert SECRET not in result.stdout


@pytest.mark.parametrize(
    ("overlay", "name"),
    [
        *((overlay, name) for overlay in OVERLAYS for name in ("TENANT_ID", "CLIENT_ID")),
        *((overlay, name) for overlay in OVERLAYS for name in ("AGENT_IDENTITY", "AGENT_IMAGE")),
        *((overlay, "AUTHZ_IMAGE") for overlay in OVERLAYS),
        ("client-secret-file", "CLIENT_SECRET"),
    ],
)
def test_a_missing_input_is_named(
    script: Path, inputs: dict[str, str], overlay: str, name: str
) -> None:
    """One input less, one fault, and nothing is printed as if it were a manifest."""
    del inputs[name]

    result = _run(script, overlay, "--dry-run", environ=inputs)
    faults = result.stderr.splitlines()[1:]

    assert (result.returncode, result.stdout) == (2, "")
    assert [fault.strip().startswith(f"{name} is not set") for fault in faults] == [True]


def test_all_faults_are_reported_at_once(script: Path) -> None:
    """Five inputs that are missing cost one attempt, and that there is no cluster comes first."""
    result = _run(script, "client-secret-file", environ={})
    printed = _run(script, "client-secret-file", "--dry-run", environ={})

    first, *others = result.stderr.splitlines()[1:]
    assert first.strip().startswith("no cluster: kubectl has no current context")
    assert others == printed.stderr.splitlines()[1:]
    assert [line.split()[0] for line in others] == [
        "AGENT_IDENTITY",
        "CLIENT_ID",
        "TENANT_ID",
        "CLIENT_SECRET",
        "AGENT_IMAGE",
        "AUTHZ_IMAGE",
    ]


def test_the_image_of_a_node_is_asked_for(script: Path, inputs: dict[str, str]) -> None:
    """No cluster has it by itself, so whoever has loaded it says so."""
    del inputs["AUTHZ_IMAGE"]

    result = _run(script, "client-secret-file", "--local-image", "--dry-run", environ=inputs)

    assert (result.returncode, result.stderr) == (0, "")
    assert f"image: entra-authz:{authz.__version__}\n" in result.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "access_agent access_as_user"), ("access_as_user", "access_as_user")],
)
def test_the_accepted_scope_is_an_input(
    script: Path, inputs: dict[str, str], given: str | None, expected: str
) -> None:
    """By default that of docs/entra.md and that of the Entra SDK sidecar's walk-through."""
    del inputs["SCOPE"]

    result = _run(
        script,
        "workload-identity",
        "--dry-run",
        environ={**inputs, **({} if given is None else {"SCOPE": given})},
    )
    scopes = [
        item["data"]["SCOPE"]
        for item in yaml.safe_load_all(result.stdout)
        if item["kind"] == "ConfigMap" and "SCOPE" in item["data"]
    ]

    assert (result.returncode, scopes) == (0, [expected])


def test_the_overlays_earlier_name_says_where_it_went(script: Path, inputs: dict[str, str]) -> None:
    """`client-secret` is another demo now; nothing is deployed in its place."""
    result = _run(script, "client-secret", environ=inputs)

    assert (result.returncode, result.stdout) == (2, "")
    assert "is called client-secret-file now" in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("TENANT_ID", "contoso.example", "TENANT_ID is not a GUID"),
        ("CLIENT_ID", "22222222-2222-4222-8222-222222222222\nx", "CLIENT_ID is not a GUID"),
        ("CLIENT_SECRET", "44444444-4444-4444-8444-444444444444", "that is the secret's id"),
        ("AGENT_IMAGE", "registry.example/agent", "AGENT_IMAGE has neither a tag nor a digest"),
        ("AGENT_IMAGE", "registry.example:5000/agent", "neither a tag nor a digest"),
        ("AGENT_IMAGE", "registry.example/agent:latest", "AGENT_IMAGE has the tag latest"),
        ("AGENT_IMAGE", "agent:1'}", "AGENT_IMAGE is not the name of an image"),
        *(
            (
                "AGENT_IMAGE",
                image,
                "AGENT_IMAGE is not the name of an image: expected one such as registry.example/team/agent:1.2.3",
            )
            for image in (
                "a:b@c",
                "registry.example/Team/app:1",
                "https://registry.example/app:1",
                "registry.example/app:1:2",
                "registry.example//app:1",
                "registry.example/app:-1",
                "registry.example/app@sha256:abc",
                "registry.example/-app:1",
                "/app:1",
            )
        ),
        ("AUTHZ_IMAGE", "entra-authz", "AUTHZ_IMAGE has neither"),
        ("NAMESPACE", "Team_A", "NAMESPACE is not a name"),
        ("AGENT_USER", "agent@contoso.example", "AGENT_USER is set, but"),
        ("ROLLOUT_TIMEOUT", "soon", "ROLLOUT_TIMEOUT is not a time"),
        ("SCOPE", "api://one/access_agent", "SCOPE has a scope with its resource"),
        ("SCOPE", "read 'write'", "SCOPE holds more than names of scopes"),
    ],
)
def test_a_wrong_input_is_refused(
    script: Path, inputs: dict[str, str], name: str, value: str, complaint: str
) -> None:
    """What cannot be right is said before anything happens, and the value itself is not repeated."""
    result = _run(script, "client-secret-file", "--dry-run", environ={**inputs, name: value})

    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr
    assert value not in result.stderr


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("registry.example:5000/team/entra-authz:0.1.0-rc1", None),
        (f"registry.example/entra-authz@sha256:{'a' * 64}", None),
        (
            f"registry.example:5000/entra-authz:0.1.0@sha256:{'a' * 64}",
            f"registry.example:5000/entra-authz@sha256:{'a' * 64}",
        ),
    ],
)
def test_images_may_have_ports_tags_and_digests(
    script: Path, inputs: dict[str, str], image: str, expected: str | None
) -> None:
    """Every usual form of an image's name reaches the containers that use it."""
    result = _run(
        script, "client-secret-file", "--dry-run", environ={**inputs, "AUTHZ_IMAGE": image}
    )
    (pod,) = [
        item["spec"]["template"]["spec"]
        for item in yaml.safe_load_all(result.stdout)
        if item["kind"] == "Deployment"
    ]
    images = {
        container["name"]: container["image"]
        for container in [*pod["initContainers"], *pod["containers"]]
    }

    assert images["authz"] == images["check-config"] == (expected or image)


def test_a_variable_that_the_configuration_names_becomes_an_input(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """Once authz.yaml refers to AGENT_USER it is required, and handed over."""
    config = script.parent / "base/authz.yaml"
    config.write_text(config.read_text().replace("# agent_user:", "agent_user:"))
    user = "agent-user@contoso.example"

    missing = _run(script, "client-secret-file", "--dry-run", environ=inputs)
    given = _run(
        script,
        "client-secret-file",
        "--dry-run",
        environ={**inputs, "AGENT_USER": user},
        path=_with_program(tmp_path),
    )

    assert missing.returncode == 2
    assert "AGENT_USER is not set" in missing.stderr
    assert given.returncode == 0
    assert f"AGENT_USER: {user}" in given.stdout


def test_inputs_may_stand_in_a_file(script: Path, inputs: dict[str, str]) -> None:
    """A filled-in copy of env.example is enough."""
    file = script.parent / "client-secret-file/.env"
    file.write_text("".join(f"{name}='{value}'\n" for name, value in inputs.items()))

    result = _run(script, "client-secret-file", "--dry-run", environ={})

    assert (result.returncode, result.stderr) == (0, "")


def test_an_input_of_the_environment_is_preferred_and_said_so(
    script: Path, inputs: dict[str, str]
) -> None:
    """Where the file has another value; not where it has the same, or none. No value is repeated."""
    other = "99999999-9999-4999-8999-999999999999"
    lines = {**inputs, "TENANT_ID": other, "CLIENT_SECRET": "another", "AUTHZ_IMAGE": ""}
    file = script.parent / "client-secret-file/.env"
    file.write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))

    result = _run(script, "client-secret-file", "--dry-run", environ=inputs)

    assert result.returncode == 0
    assert sorted(result.stderr.splitlines()) == [
        "CLIENT_SECRET: from the environment, not from .env",
        "TENANT_ID: from the environment, not from .env",
    ]
    assert f"TENANT_ID: {inputs['TENANT_ID']}" in result.stdout


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("AGENT_IDENTIY", "AGENT_IDENTIY is no input: did you mean AGENT_IDENTITY?\n"),
        ("SCOPES", "SCOPES is no input: did you mean SCOPE?\n"),
        ("HTTP_TIMEOUT_SECONDS", "HTTP_TIMEOUT_SECONDS is no input\n"),
    ],
)
def test_a_misspelt_input_of_the_file_is_named(
    script: Path, inputs: dict[str, str], name: str, complaint: str
) -> None:
    """It would have no effect, and the default would count in its place."""
    file = script.parent / "workload-identity/.env"
    file.write_text(f"{name}=anything\n")

    result = _run(script, "workload-identity", "--dry-run", environ=inputs)

    assert (result.returncode, result.stdout) == (2, "")
    assert f"workload-identity/.env: {complaint}" in result.stderr


def test_a_variable_of_the_configuration_is_an_input_of_the_file(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """Whatever its name is."""
    config = script.parent / "base/authz.yaml"
    config.write_text(config.read_text().replace("drain_timeout: 5s", "drain_timeout: ${DRAIN}"))
    (script.parent / "workload-identity/.env").write_text("DRAIN=6s\n")

    result = _run(
        script, "workload-identity", "--dry-run", environ=inputs, path=_with_program(tmp_path)
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert "DRAIN: 6s" in result.stdout


def test_a_file_of_inputs_is_taken_literally(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """As another machine wrote it: the secret is not expanded, and no line end becomes a part of it."""
    cluster = Cluster(tmp_path, kubectl)
    secret = "q8~$HOME`id`$(id)=;&#"
    lines = [f"{name} = {value}" for name, value in {**inputs, "CLIENT_SECRET": secret}.items()]
    (script.parent / "client-secret-file/.env").write_bytes("\r\n".join(lines).encode())

    result = _run(script, "client-secret-file", environ={}, path=cluster.path)

    assert result.returncode == 0, result.stderr
    assert cluster.call("create", "secret").input == secret


def test_a_line_that_is_no_input_is_a_fault_by_its_number(
    script: Path, inputs: dict[str, str]
) -> None:
    """It may be the secret, so it is not repeated."""
    (script.parent / "client-secret-file/.env").write_text(f"CLIENT_SECRET: {SECRET}")

    result = _run(script, "client-secret-file", "--dry-run", environ=inputs)

    assert (result.returncode, result.stdout) == (2, "")
    assert "client-secret-file/.env: line 1 is not NAME=VALUE\n" in result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize("arguments", [(), ("kustomize",), ("client-secret-file", "--force")])
def test_a_wrong_call_explains_itself(script: Path, arguments: tuple[str, ...]) -> None:
    """Usage on standard error, and the status of a wrong call."""
    result = _run(script, *arguments, environ={})

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: deploy.sh client-secret-file|workload-identity")


def test_the_secret_goes_through_a_pipe_alone(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """No command line and no environment holds it, where other users or processes could read it."""
    cluster = Cluster(tmp_path, kubectl)

    result = _run(script, "client-secret-file", environ=inputs, path=cluster.path)
    calls = cluster.calls

    assert result.returncode == 0, result.stderr
    assert cluster.call("create", "secret").input == SECRET
    assert [call for call in calls if SECRET in " ".join(call.arguments)] == []
    assert [call for call in calls if SECRET in call.environ.values()] == []
    assert SECRET not in result.stdout + result.stderr


def test_the_secret_is_there_before_the_pods(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """Namespace, secret, manifests, and then it waits; all applied so that a second run is the same."""
    cluster = Cluster(tmp_path, kubectl)

    _run(script, "client-secret-file", environ=inputs, path=cluster.path)
    calls = cluster.calls
    namespace = yaml.safe_load(cluster.call("create", "--filename").input)
    applied = [call for call in calls if call.arguments[0] == "apply"]

    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert [call.arguments[-1] == "-" for call in applied] == [True, False]
    assert applied[0].input == "kind: Secret\n"
    # Client-side apply would keep a copy of the secret in an annotation.
    assert all("--server-side" in call.arguments for call in applied)
    assert calls[-1].arguments[:3] == ["rollout", "status", "deployment/agent"]


def test_an_existing_namespace_is_left_as_it_is(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """Its labels are its owner's business."""
    cluster = Cluster(tmp_path, kubectl, namespace_exists=True)

    result = _run(script, "client-secret-file", environ=inputs, path=cluster.path)

    assert result.returncode == 0, result.stderr
    assert [call for call in cluster.calls if call.arguments[:2] == ["create", "--filename"]] == []


def test_workload_identity_makes_no_secret_and_says_what_to_federate(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """The three values of the federated credential, as this cluster and namespace have them."""
    cluster = Cluster(tmp_path, kubectl)
    del inputs["CLIENT_SECRET"]

    result = _run(
        script, "workload-identity", environ={**inputs, "NAMESPACE": "team-a"}, path=cluster.path
    )

    assert result.returncode == 0, result.stderr
    assert [call for call in cluster.calls if "secret" in call.arguments] == []
    assert "issuer    https://issuer.example/cluster\n" in result.stdout
    assert "subject   system:serviceaccount:team-a:agent\n" in result.stdout
    assert "audience  api://AzureADTokenExchange\n" in result.stdout


def test_pods_that_do_not_get_ready_are_a_failure(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """The exit status says so, and what the cluster and the pods say is shown."""
    cluster = Cluster(tmp_path, kubectl, ready=False)

    result = _run(script, "client-secret-file", environ=inputs, path=cluster.path)

    assert result.returncode == 1
    asked = [call.arguments for call in cluster.calls][-3:]
    assert ["get pods", "get events", "logs deployment/agent"] == [" ".join(a[:2]) for a in asked]
    for arguments in asked:
        assert f"$ kubectl {' '.join(arguments)}\n" in result.stderr


def test_nothing_is_left_behind(script: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    """The folder for rendering goes, and the checkout stays as it was."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = sorted(script.parent.rglob("*"))

    _run(script, "client-secret-file", "--dry-run", environ={**inputs, "TMPDIR": str(scratch)})

    assert list(scratch.iterdir()) == []
    assert sorted(script.parent.rglob("*")) == before


def test_an_unmatched_pair_is_not_deployed(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """A host was added and Envoy's configuration was not rendered: nothing happens, in no form."""
    cluster = Cluster(tmp_path, kubectl)
    _add_host(script)

    results = [
        _run(script, overlay, *arguments, environ=inputs, path=path)
        for overlay in OVERLAYS
        for arguments in ((), ("--dry-run",))
        for path in (cluster.path, _with_program(tmp_path, cluster.path))
    ]

    assert {(2, "")} == {(result.returncode, result.stdout) for result in results}
    assert all("deploy.sh: cannot deploy" in result.stderr for result in results)
    assert [
        f"kubernetes/deploy.sh {overlay} --render" for overlay in OVERLAYS for _ in range(4)
    ] == [result.stderr.splitlines()[1].rpartition(": ")[2] for result in results]
    assert [] == cluster.calls


def test_with_the_program_the_hosts_that_differ_are_named(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """It compares what counts: a changed comment is no reason to render."""
    program = _with_program(tmp_path)
    config = script.parent / "base/authz.yaml"
    config.write_text(f"# A remark of ours.\n{config.read_text()}")
    remark = _run(script, "workload-identity", "--dry-run", environ=inputs, path=program)
    _add_host(script)
    host = _run(script, "workload-identity", "--dry-run", environ=inputs, path=program)

    assert (0, "") == (remark.returncode, remark.stderr)
    assert "it lacks the host api.example" in host.stderr


def test_one_command_renders_and_deploys_the_pair(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """After it Envoy has the host, and its other options still; the pair deploys without the program too."""
    program = _with_program(tmp_path, Cluster(tmp_path, kubectl).path)
    _add_host(script)

    rendered = _run(
        script, "workload-identity", "--render", "--dry-run", environ=inputs, path=program
    )
    deployed = _run(script, "workload-identity", "--render", environ=inputs, path=program)
    later = _run(script, "workload-identity", "--dry-run", environ=inputs)
    without = _run(script, "workload-identity", "--render", "--dry-run", environ=inputs)

    assert (0, "") == (rendered.returncode, rendered.stderr)
    assert 0 == deployed.returncode, deployed.stderr
    assert "- name: api.example\n" in rendered.stdout
    assert "- name: statistics\n" in rendered.stdout
    assert (0, rendered.stdout) == (later.returncode, later.stdout)
    assert (2, True) == (without.returncode, "--render needs the program" in without.stderr)


def test_what_is_rendered_names_no_folder_of_this_machine(
    script: Path, inputs: dict[str, str], kubectl: str, tmp_path: Path
) -> None:
    """It is kept in a repository; and with --dry-run it is printed, and the checkout stays as it was."""
    cluster_and_program = _with_program(tmp_path, Cluster(tmp_path, kubectl).path)
    _add_host(script)
    envoy = script.parent / "base/envoy.yaml"
    before = {file: file.read_bytes() for file in script.parent.rglob("*") if file.is_file()}
    arguments = ("workload-identity", "--render")

    printed = _run(script, *arguments, "--dry-run", environ=inputs, path=cluster_and_program)
    after = {file: file.read_bytes() for file in script.parent.rglob("*") if file.is_file()}
    deployed = _run(script, *arguments, environ=inputs, path=cluster_and_program)

    assert (0, 0) == (printed.returncode, deployed.returncode), printed.stderr + deployed.stderr
    assert before == after
    assert "- name: api.example\n" in printed.stdout
    assert envoy.read_text().splitlines()[1] == (
        "#   authz envoy --config kubernetes/base/authz.yaml --statistics 0.0.0.0:9903 --no-values"
    )
    assert str(tmp_path) not in envoy.read_text() + printed.stdout


def test_warnings_of_check_config_are_shown(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """A configuration may be valid and not what its author wants: it is deployed, and the warning is read."""
    config = script.parent / "base/authz.yaml"
    config.write_text(config.read_text().replace('scopes: ["${SCOPE}"]', "scopes: []"))

    results = [
        _run(script, "workload-identity", *more, environ=inputs, path=_with_program(tmp_path))
        for more in (("--dry-run",), ("--dry-run", "--render"))
    ]

    assert [0, 0] == [result.returncode for result in results]
    assert all(
        re.match(r"warning: inbound\.agent\.scopes \(line \d+\): ", result.stderr)
        and len(result.stderr.splitlines()) == 1
        for result in results
    ), results


DESTINATIONS = {
    "api.example:8443": "api.example port 8443",
    "http://mcp.tools:8000": "mcp.tools port 8000",
    "http://*.tools.svc.cluster.local": "*.tools.svc.cluster.local port 80",
    "10.1.2.3": "10.1.2.3 port 443",
    "orders.shop.svc": "orders.shop.svc port 443",
    "172.32.0.1": None,
    "*.api.example": None,
    "api.example": None,
}
"""Hosts of a route, with what the base's NetworkPolicy does not allow of them."""

RULE = """\
  egress:
    - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: tools
      ports:
        - port: 8000
          protocol: TCP
        - port: 8440
          endPort: 8450
          protocol: TCP
"""


def test_destinations_that_the_networkpolicy_does_not_allow_are_named(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """On another port, or at a private address; until a rule of the policy has their port."""
    config = script.parent / "base/authz.yaml"
    with config.open("a") as file:
        file.write(f"  other: {{flow: none, hosts: {json.dumps(list(DESTINATIONS))}}}\n")
    policy = script.parent / "base/networkpolicy.yaml"
    command = (script, "workload-identity", "--render", "--dry-run")

    closed = _run(*command, environ=inputs, path=_with_program(tmp_path))
    policy.write_text(policy.read_text().replace("  egress:\n", RULE))
    opened = _run(*command, environ=inputs, path=_with_program(tmp_path))

    assert (0, 0) == (closed.returncode, opened.returncode), closed.stderr + opened.stderr
    expected = {place for place in DESTINATIONS.values() if place}
    assert expected == _not_allowed(closed.stderr)
    assert expected - {"mcp.tools port 8000", "api.example port 8443"} == _not_allowed(
        opened.stderr
    )


def _not_allowed(stderr: str) -> set[str]:
    start, end = "note: no egress rule of the NetworkPolicy allows ", ": docs/kubernetes.md#"
    notes = [line for line in stderr.splitlines() if line.startswith(start)]
    assert notes == stderr.splitlines()
    return {line.removeprefix(start).split(end)[0] for line in notes}


def test_a_faulty_configuration_is_no_unmatched_pair(
    script: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    """Rendering again would not mend it."""
    file = script.parent / "base/authz.yaml"
    file.write_text(file.read_text().replace("flow: on_behalf_of", "flow: on_behalf"))

    result = _run(
        script, "workload-identity", "--dry-run", environ=inputs, path=_with_program(tmp_path)
    )

    assert 2 == result.returncode
    assert "authz.yaml has faults:\n" in result.stderr
    assert "does not belong" not in result.stderr


def test_a_configuration_of_envoy_written_by_hand_is_deployed(
    script: Path, inputs: dict[str, str]
) -> None:
    """It does not say what it belongs to, so nobody can say that it does not."""
    (script.parent / "base/envoy.yaml").write_text("static_resources: {}\n")
    _add_host(script)

    result = _run(script, "workload-identity", "--dry-run", environ=inputs)

    assert (0, "") == (result.returncode, result.stderr)


def _add_host(script: Path) -> None:
    config = script.parent / "base/authz.yaml"
    text = config.read_text()
    assert "[graph.microsoft.com]" in text
    config.write_text(text.replace("[graph.microsoft.com]", "[graph.microsoft.com, api.example]"))


def _with_program(folder: Path, path: Path | None = None) -> Path:
    """Return a folder for PATH with the program of this checkout in it, and what another folder has."""
    found = folder / f"with-program{'' if path is None else '-and-cluster'}"
    if not found.exists():
        found.mkdir()
        (found / "authz").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m authz "$@"\n')
        (found / "authz").chmod(0o755)
        for one in path.iterdir() if path is not None else ():
            (found / one.name).symlink_to(one)
    return found
