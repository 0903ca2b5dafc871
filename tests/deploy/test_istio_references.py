"""Istio's objects, its mesh configuration, the pod and authz' configuration name the same things."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.config import Config, load
from authz.core.route import Forward
from support.istio.istio import Istio
from support.kubernetes.manifests import KUBERNETES, Manifests, Object, render

OVERLAY = KUBERNETES / "istio-sidecar"


@pytest.fixture
def overlay(kubectl: str) -> Manifests:
    """Return the overlay for a pod."""
    return render(OVERLAY)


@pytest.fixture
def mesh(kubectl: str) -> Manifests:
    """Return the objects for the mesh."""
    return render(OVERLAY / "mesh")


@pytest.fixture
def settings() -> Object:
    """Return the mesh's own configuration."""
    found: Object = yaml.safe_load((OVERLAY / "mesh" / "meshconfig.yaml").read_text())
    return found


@pytest.fixture
def config(overlay: Manifests, identity: dict[str, str], tmp_path: Path) -> Config:
    """Return the configuration of the pod, as authz reads it there."""
    file = tmp_path / "authz.yaml"
    file.write_text(overlay.files["authz.yaml"])
    return load(file, {**overlay.containers["authz"].variables, **identity}).config


def _check_filter(overlay: Manifests) -> Object:
    (found,) = [
        patch["patch"]["value"]["typed_config"]
        for patch in overlay.find("EnvoyFilter")["spec"]["configPatches"]
        if patch["applyTo"] == "HTTP_FILTER" and patch["patch"]["value"]["name"] == "authz.egress"
    ]
    made: Object = found
    return made


def _virtual_hosts(overlay: Manifests) -> dict[str, Object]:
    return {
        patch["match"]["routeConfiguration"]["vhost"]["name"]: patch["patch"]["value"]
        for patch in overlay.find("EnvoyFilter")["spec"]["configPatches"]
        if patch["applyTo"] == "VIRTUAL_HOST"
    }


def _apis(config: Config) -> set[str]:
    return {host for route in config.egress.values() for host in route.hosts}


def test_the_provider_is_the_service_of_the_mesh(
    overlay: Manifests, mesh: Manifests, settings: Object
) -> None:
    """Policy, mesh configuration and ServiceEntry: one name, one namespace, one port."""
    provider = Istio(overlay, mesh, settings).provider
    entry = mesh.find("ServiceEntry")
    (port,) = entry["spec"]["ports"]

    assert overlay.find("AuthorizationPolicy", "agent")["spec"]["action"] == "CUSTOM"
    assert provider["service"] == f"{entry['metadata']['namespace']}/{entry['spec']['hosts'][0]}"
    assert provider["port"] == str(port["number"])
    assert port["protocol"] == "GRPC"


def test_the_egress_check_asks_the_same_service(overlay: Manifests, mesh: Manifests) -> None:
    """The cluster that Istio makes of the ServiceEntry, by the name that Istio gives it."""
    entry = mesh.find("ServiceEntry")["spec"]
    service = _check_filter(overlay)["extension_config"]["typed_config"]["grpc_service"]

    assert service["envoy_grpc"] == {
        "cluster_name": f"outbound|{entry['ports'][0]['number']}||{entry['hosts'][0]}",
        "authority": entry["hosts"][0],
    }


def test_the_socket_is_the_same_for_all(
    overlay: Manifests, mesh: Manifests, config: Config
) -> None:
    """The mesh leads to the path where authz listens, which the proxy mounts, read-only."""
    (endpoint,) = mesh.find("ServiceEntry")["spec"]["endpoints"]
    metadata = overlay.find("Deployment")["spec"]["template"]["metadata"]
    (mount,) = json.loads(metadata["annotations"]["sidecar.istio.io/userVolumeMount"])
    own = overlay.containers["authz"].mounts["authz-socket"]

    assert endpoint["address"] == f"unix://{config.listen.socket_path}"
    assert mount == {"name": "authz-socket", "mountPath": own["mountPath"], "readOnly": True}
    assert config.listen.socket_mode == "0660"
    # A rule of Istio's: a Unix socket has no port, and so exactly one that it is known by.
    assert "ports" not in endpoint


def test_the_agent_cannot_reach_authz(overlay: Manifests, mesh: Manifests) -> None:
    """Neither by the socket nor by the name that the mesh has for it."""
    holders = [name for name, one in overlay.containers.items() if "authz-socket" in one.mounts]
    (host,) = mesh.find("ServiceEntry")["spec"]["hosts"]
    closed = mesh.find("VirtualService")["spec"]

    assert holders == ["authz"]
    assert closed["hosts"] == [host]
    # No match: every request, whatever it is.
    assert closed["http"] == [{"directResponse": {"status": 403}}]
    assert closed["exportTo"] == mesh.find("ServiceEntry")["spec"]["exportTo"] == ["*"]


def test_every_api_has_all_its_parts(overlay: Manifests, config: Config) -> None:
    """Hosts of egress routes, and the objects that lead there: none has more, none has less."""
    apis = _apis(config)
    entries = {
        host
        for item in overlay.all("ServiceEntry")
        for host in item["spec"]["hosts"]
        if item["spec"]["ports"][0]["protocol"] == "HTTP"
    }
    rules = {item["spec"]["host"] for item in overlay.all("DestinationRule")}
    services = {host for item in overlay.all("VirtualService") for host in item["spec"]["hosts"]}

    assert apis == entries == rules == services
    assert {f"{host}:80" for host in apis} == set(_virtual_hosts(overlay))


def test_the_check_is_skipped_for_the_mesh_alone(overlay: Manifests, config: Config) -> None:
    """What leads to an API is asked about; services of the mesh and refusals are not."""
    (matcher,) = _check_filter(overlay)["xds_matcher"]["matcher_list"]["matchers"]
    skipped = dict(map(_expression, matcher["predicate"]["or_matcher"]["predicate"]))
    by_cluster, by_host = skipped.pop("cluster_name"), skipped.pop("virtual_host_name")

    assert {} == skipped
    for host in _apis(config):
        assert not re.search(by_cluster, f"outbound|80||{host};")
        assert not re.search(by_host, f"{host}:80")
    for other in ("PassthroughCluster", "outbound|80||api.example;", "outbound|443||a.svc.example"):
        assert not re.search(by_cluster, other)
    assert not re.search(by_host, "allow_any")
    assert re.search(by_cluster, "outbound|80||neighbour.agents.svc.cluster.local;")
    assert re.search(by_cluster, "outbound|80|v2|neighbour.agents.svc.cluster.local")
    assert re.search(by_host, "block_all")


def _expression(predicate: Object) -> tuple[str, str]:
    """Return attribute and expression of `xds.ATTRIBUTE.matches('EXPRESSION')`."""
    matched = predicate["single_predicate"]["custom_match"]["typed_config"]["expr_match"]
    call = matched["cel_expr_parsed"]["expr"]["call_expr"]
    (argument,) = call["args"]
    chosen = call["target"]["select_expr"]
    assert ("matches", {"ident_expr": {"name": "xds"}}) == (call["function"], chosen["operand"])
    return chosen["field"], argument["const_expr"]["string_value"]


def test_every_host_names_its_route(overlay: Manifests, config: Config) -> None:
    """The Check says direction and route; filters are named as they are inserted."""
    for name, value in _virtual_hosts(overlay).items():
        (route,) = [key for key, one in config.egress.items() if name[:-3] in one.hosts]
        settings = value["typed_per_filter_config"]["authz.egress"]["check_settings"]
        assert settings["context_extensions"] == {"authz.direction": "egress", "authz.route": route}
        assert set(value["typed_per_filter_config"]) == {"authz.headers", "authz.egress"}


def test_the_check_is_that_of_our_own_envoy(overlay: Manifests) -> None:
    """Same time, same answer on failure, same headers as in the rendered configuration of the base."""
    envoy = yaml.safe_load((KUBERNETES / "base" / "envoy.yaml").read_text())
    (egress,) = [one for one in envoy["static_resources"]["listeners"] if one["name"] == "egress"]
    manager = egress["filter_chains"][0]["filters"][0]["typed_config"]
    (ours,) = [
        one["typed_config"]
        for one in manager["http_filters"]
        if one["name"] == "envoy.filters.http.ext_authz"
    ]
    theirs = _check_filter(overlay)["extension_config"]["typed_config"]
    here = {"grpc_service": None, "filter_enabled_metadata": None}

    assert {**ours, **here} == {**theirs, **here}
    assert ours["grpc_service"]["timeout"] == theirs["grpc_service"]["timeout"]
    removed = _virtual_hosts(overlay)["graph.microsoft.com:80"]["request_headers_to_remove"]
    assert {*manager["route_config"]["request_headers_to_remove"]} <= {*removed}


def test_methods_and_trailers_are_those_of_our_own_envoy(overlay: Manifests) -> None:
    """The same methods are refused, with the same answer, and the same is removed."""
    envoy = yaml.safe_load((KUBERNETES / "base" / "envoy.yaml").read_text())
    (egress,) = [one for one in envoy["static_resources"]["listeners"] if one["name"] == "egress"]
    manager = egress["filter_chains"][0]["filters"][0]["typed_config"]
    ours = manager["route_config"]["virtual_hosts"][0]["routes"][0]
    (method,) = ours["match"]["headers"]
    answers = {
        option["header"]["key"]: option["header"]["value"]
        for option in ours["response_headers_to_add"]
    }
    (policy,) = [
        item["spec"]
        for item in overlay.all("AuthorizationPolicy")
        if item["spec"]["action"] == "DENY"
    ]
    (rule,) = policy["rules"]
    allowed = rule["to"][0]["operation"]["notMethods"]

    for item in overlay.all("VirtualService"):
        refusal, _ = item["spec"]["http"]
        assert refusal["match"] == [
            {"method": {"regex": method["string_match"]["safe_regex"]["regex"]}}
        ]
        assert refusal["directResponse"] == {
            "status": ours["direct_response"]["status"],
            "body": {"string": ours["direct_response"]["body"]["inline_string"]},
        }
        assert refusal["headers"]["response"]["set"].items() <= answers.items()
        assert answers["allow"].split(", ") == allowed
    trailers = manager["http_filters"][-2]["typed_config"]["mutations"][
        "request_trailers_mutations"
    ]
    for value in _virtual_hosts(overlay).values():
        mutations = value["typed_per_filter_config"]["authz.headers"]["mutations"]
        assert mutations["request_trailers_mutations"] == trailers


def test_answers_without_a_decision_are_those_of_our_own_envoy(
    overlay: Manifests, mesh: Manifests, settings: Object
) -> None:
    """The same status, body and headers, in both directions."""
    envoy = yaml.safe_load((KUBERNETES / "base" / "envoy.yaml").read_text())
    istio = Istio(overlay, mesh, settings)
    theirs = {"inbound": (None, istio.inbound_manager()), "egress": (80, istio.outbound_manager())}

    listeners = {one["name"]: one for one in envoy["static_resources"]["listeners"]}
    for name, (port, manager) in theirs.items():
        istio.patch(port, manager)
        ours = listeners[name]["filter_chains"][0]["filters"][0]["typed_config"]
        (mapper,) = manager["local_reply_config"]["mappers"]
        assert mapper in ours["local_reply_config"]["mappers"]
        assert "ext_authz_error" in json.dumps(mapper["filter"])


def test_tokens_go_to_who_proves_the_name(overlay: Manifests) -> None:
    """TLS with name and authorities demanded, from port 80 to port 443, and never twice."""
    for item in overlay.all("DestinationRule"):
        (settings,) = item["spec"]["trafficPolicy"]["portLevelSettings"]
        tls = settings["tls"]
        assert (settings["port"]["number"], tls["mode"]) == (80, "SIMPLE")
        assert [tls["sni"]] == tls["subjectAltNames"] == [item["spec"]["host"]]
        assert tls["caCertificates"]
        assert "insecureSkipVerify" not in tls
    for item in overlay.all("ServiceEntry"):
        (port,) = item["spec"]["ports"]
        assert (port["number"], port.get("targetPort", 443)) in {(80, 443), (443, 443)}
    for item in overlay.all("VirtualService"):
        _, rule = item["spec"]["http"]
        assert rule["retries"] == {"attempts": 0}


def test_authz_reaches_entra_and_others_reach_nothing_else(
    overlay: Manifests, config: Config
) -> None:
    """The authority of the configuration has an entry, and the pod has no way to unregistered hosts."""
    tls = [
        host
        for item in overlay.all("ServiceEntry")
        for host in item["spec"]["hosts"]
        if item["spec"]["ports"][0]["protocol"] == "TLS"
    ]

    assert [f"https://{host}" for host in tls] == [config.entra.authority]
    assert overlay.find("Sidecar")["spec"]["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}


def test_the_agent_is_reached_through_the_proxy(overlay: Manifests) -> None:
    """The Service's port is the Sidecar's, which leads to loopback; the policy exempts metrics alone."""
    (ingress,) = overlay.find("Sidecar")["spec"]["ingress"]
    (port,) = overlay.find("Service")["spec"]["ports"]
    (rule,) = overlay.find("AuthorizationPolicy", "agent")["spec"]["rules"]
    admin = overlay.containers["authz"].ports["admin"]
    metrics: Any = overlay.find("PeerAuthentication")["spec"]["portLevelMtls"]

    assert ingress["port"]["number"] == overlay.containers["agent"].ports[port["targetPort"]]
    assert ingress["defaultEndpoint"] == f"127.0.0.1:{ingress['port']['number']}"
    assert rule == {"to": [{"operation": {"notPorts": [str(admin)]}}]}
    assert {int(key) for key in metrics} == {admin}


def test_the_agent_holds_no_token(overlay: Manifests, config: Config) -> None:
    """References in, references out: what is lost when Istio applies no patch is worth nothing."""
    assert config.inbound["agent"].forward == (Forward.PLACEHOLDER,)
    for route in config.egress.values():
        assert [str(source) for source in route.sources] == ["placeholder"]
    assert set(overlay.containers["agent"].mounts) == {"agent-tmp"}
    assert overlay.containers["agent"].variables == {}
