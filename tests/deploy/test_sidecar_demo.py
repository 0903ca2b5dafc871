"""`kubernetes/client-secret` and `client-secret-transparent`: the Entra SDK sidecar's demo, and with Envoy.

The rendered objects are valid and fit one another, authz reads what they hold, and Envoy's configuration is
the rendered one. `test_sidecar_demo_script` has what deploys them, `test_sidecar_demo_pods` how the pods run.
"""

from pathlib import Path
from typing import Final

import pytest
import yaml

import authz
from authz.config import Config, load
from authz.core.exchange import Flow
from authz.envoy_config.bootstrap import render as render_envoy
from authz.envoy_config.settings import SidecarSettings
from support.kubernetes.manifests import KUBERNETES, Manifests, render
from support.kubernetes.schemas import VERSIONS, check_core
from support.proxy.envoy import validate

DEMO: Final = "client-secret"
TRANSPARENT: Final = "client-secret-transparent"
SECRET_KEY: Final = "AzureAd__ClientCredentials__0__ClientSecret"
GUID: Final = "22222222-2222-4222-8222-222222222222"
KEYS: Final = {
    "AzureAd__Instance": "https://login.microsoftonline.com/",
    "AzureAd__TenantId": "replace-me",
    "AzureAd__ClientId": "replace-me",
    "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
    "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0/",
    "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
    "DownstreamApis__graph__RequestAppToken": "true",
    "ASPNETCORE_ENVIRONMENT": "Production",
    "ASPNETCORE_URLS": "http://+:5000",
}


@pytest.fixture(params=[DEMO, TRANSPARENT])
def made(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each of the two pods."""
    return render(KUBERNETES / str(request.param))


@pytest.fixture
def demo(kubectl: str) -> Manifests:
    """Return the demo as the walk-through has it."""
    return render(KUBERNETES / DEMO)


@pytest.fixture
def transparent(kubectl: str) -> Manifests:
    """Return the demo with Envoy."""
    return render(KUBERNETES / TRANSPARENT)


def read(made: Manifests) -> Config:
    """Return the configuration that authz reads from the pod's variables."""
    data = made.find("ConfigMap", "sidecar-config")["data"]
    filled = {key: GUID if value == "replace-me" else value for key, value in data.items()}
    return load(None, {**filled, SECRET_KEY: "any"}).config


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(made: Manifests, version: str) -> None:
    """Each fits its kind's schema, of the oldest and of the newest version, without an extra key."""
    for item in made.objects:
        check_core(item, version)


def test_the_objects_are_those_of_the_walk_through(demo: Manifests) -> None:
    """Their names, the keys of the ConfigMap, and what each container is."""
    app, sidecar = demo.containers["app"], demo.containers["sidecar"]

    assert [("ConfigMap", "sidecar-config"), ("Deployment", "demo-app")] == [
        (item["kind"], item["metadata"]["name"]) for item in demo.objects
    ]
    assert {"entra-demo"} == {item["metadata"]["namespace"] for item in demo.objects}
    assert KEYS == demo.find("ConfigMap")["data"]
    assert ["app", "sidecar"] == [container["name"] for container in demo.pod["containers"]]
    assert app.spec["image"].startswith("docker.io/curlimages/curl:")
    assert ["sleep", "infinity"] == app.spec["command"]
    assert {"SIDECAR_URL": "http://localhost:5000"} == app.variables
    assert f"entra-authz:{authz.__version__}" == sidecar.spec["image"]
    assert {"api": 5000} == sidecar.ports


def test_the_sidecar_reads_both_objects_and_the_app_neither(made: Manifests) -> None:
    """By `envFrom`, as the Entra SDK sidecar does."""
    assert [
        {"configMapRef": {"name": "sidecar-config"}},
        {"secretRef": {"name": "sidecar-secret"}},
    ] == made.containers["sidecar"].spec["envFrom"]
    assert ["sidecar"] == [
        name for name, container in made.containers.items() if "envFrom" in container.spec
    ]


def test_every_container_meets_the_restricted_profile(made: Manifests) -> None:
    """As the namespace enforces it, with a read-only root and bounds beyond it."""
    assert made.pod["securityContext"]["runAsNonRoot"] is True
    assert made.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made.pod["automountServiceAccountToken"] is False
    for container in made.containers.values():
        assert container.security["runAsUser"] > 0
        assert container.security["allowPrivilegeEscalation"] is False
        assert container.security["readOnlyRootFilesystem"] is True
        assert container.security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container.spec["resources"]["limits"]


def test_mounts_volumes_and_probes_fit(made: Manifests) -> None:
    """Every mount has its volume and every volume a mount; probes ask ports that the container has."""
    volumes = {volume["name"] for volume in made.pod["volumes"]}

    assert volumes == {name for one in made.containers.values() for name in one.mounts}
    for container in made.containers.values():
        for probe in container.probes.values():
            (kind,) = {"httpGet", "tcpSocket"} & probe.keys()
            assert probe[kind]["port"] in container.ports
    assert "authz-socket" not in made.containers["app"].mounts


def test_the_sidecar_serves_where_the_app_asks(demo: Manifests) -> None:
    """On the port of SIDECAR_URL, and for the kubelet's probes; without a configured agent."""
    config = read(demo)

    assert "[::]:5000" == config.listen.api
    assert (Flow.APP, ["graph"]) == (config.egress["graph"].flow, [*config.egress])
    assert {} == config.agents
    assert {"startup", "readiness"} == {
        kind
        for kind, probe in demo.containers["sidecar"].probes.items()
        if probe.get("httpGet", {}).get("path") == "/healthz"
    }


def test_one_step_further_nothing_asks_the_sidecar(transparent: Manifests) -> None:
    """The same objects; the app knows a proxy instead, and there is no API that would give it a token."""
    config = read(transparent)
    changed = {
        "AzureAd__AgentIdentity": "replace-me",
        "DownstreamApis__graph__RequestAppToken": "false",
        "AUTHZ_LISTEN_CHECKS": "unix:/run/authz/checks.sock",
        "AUTHZ_LISTEN_API": "off",
        "AUTHZ_LISTEN_ADMIN": "[::]:9902",
    }

    assert {**KEYS, **changed} == transparent.find("ConfigMap", "sidecar-config")["data"]
    assert ["app", "sidecar", "envoy"] == [one["name"] for one in transparent.pod["containers"]]
    assert config.listen.api is None
    assert Flow.ON_BEHALF_OF is config.egress["graph"].flow
    assert config.listen.admin is not None
    assert {"admin": 9902} == transparent.containers["sidecar"].ports
    assert "SIDECAR_URL" not in transparent.containers["app"].variables


def test_envoy_and_the_app_agree_on_the_proxy(transparent: Manifests) -> None:
    """The app's variables name Envoy's egress listener; Envoy's user may use authz's socket."""
    envoy = yaml.safe_load(transparent.files["envoy.yaml"])
    (egress,) = [
        one["address"]["socket_address"]
        for one in envoy["static_resources"]["listeners"]
        if one["name"] == "egress"
    ]
    app = transparent.containers["app"].variables
    users = {name: one.security["runAsUser"] for name, one in transparent.containers.items()}

    assert {f"http://{egress['address']}:{egress['port_value']}"} == {
        app["HTTP_PROXY"],
        app["http_proxy"],
    }
    assert "0600" == read(transparent).listen.socket_mode
    assert users["envoy"] == users["sidecar"] != users["app"]


def test_envoys_configuration_is_the_rendered_one(transparent: Manifests) -> None:
    """`envoy.yaml` is what `authz envoy` makes of the variables of the pod."""
    rendered = yaml.safe_load(render_envoy(read(transparent), SidecarSettings()))

    assert rendered == yaml.safe_load(transparent.files["envoy.yaml"])


def test_the_agents_own_token_needs_no_other_configuration_of_envoy(
    transparent: Manifests,
) -> None:
    """`RequestAppToken` may be changed in the ConfigMap alone: Envoy asks about each request anyway."""
    data = transparent.find("ConfigMap", "sidecar-config")["data"]
    data = {key: GUID if value == "replace-me" else value for key, value in data.items()}
    own = {**data, SECRET_KEY: "any", "DownstreamApis__graph__RequestAppToken": "true"}
    text = transparent.files["envoy.yaml"]

    assert Flow.AUTONOMOUS is load(None, own).config.egress["graph"].flow
    assert "credential_injector" not in text
    assert "authz.route: graph" in text


def test_envoy_accepts_its_configuration(transparent: Manifests, tmp_path: Path) -> None:
    """`envoy --mode validate` finds nothing."""
    result = validate(transparent.files["envoy.yaml"], tmp_path)

    assert result.returncode == 0, result.stderr


def test_what_is_needed_is_three_names(kubectl: str) -> None:
    """`env.example` asks for those of the walk-through; git ignores what is filled in."""
    folder = KUBERNETES / DEMO
    lines = (folder / "env.example").read_text().splitlines()

    assert ["CLIENT_ID=", "TENANT_ID=", "CLIENT_SECRET="] == [
        line for line in lines if line and not line.startswith("#")
    ]
    assert ".env\n" == (folder / ".gitignore").read_text()
