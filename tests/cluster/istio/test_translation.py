"""What pilot makes of the Istio overlay, as Envoy took it; and whether `support.istio` imagines the same."""

import json
from typing import Any, Final

import pytest
import yaml

from support.istio.istio import Istio
from support.istio.mesh import AGENTS, ELSEWHERE, OVERLAY
from support.istio.meshed import NEIGHBOUR, TRUST_BUNDLE, MeshedPod
from support.istio.pilot import Pilot
from support.kubernetes.manifests import Manifests, Object, render
from support.peers.internet import GRAPH, LOGIN

pytestmark = pytest.mark.cluster

MANAGER: Final = "envoy.filters.network.http_connection_manager"
CHECK: Final = "envoy.filters.http.ext_authz"
ROUTER: Final = "envoy.filters.http.router"


@pytest.fixture
def imagined(overlay: Manifests) -> Istio:
    """Return what the tests that need no pilot imagine."""
    settings = yaml.safe_load((OVERLAY / "mesh" / "meshconfig.yaml").read_text())
    return Istio(overlay, render(OVERLAY / "mesh"), settings)


def test_the_patches_are_on_the_way_of_the_agents_calls(pod: MeshedPod) -> None:
    """Both filters are in front of the router, in the order of the overlay, on port 80 and nowhere else."""
    with_filters = {
        name: [entry["name"] for entry in manager["http_filters"]]
        for name, listener in pod.listeners().items()
        for manager in _managers(listener)
        if "authz" in json.dumps(manager["http_filters"][1:])
    }

    inbound = with_filters["virtualInbound"]
    assert ["authz.callers", ROUTER] == inbound[-2:]
    found = with_filters.pop("0.0.0.0_80")
    assert ["authz.headers", "authz.egress", ROUTER] == found[-3:]
    assert {"virtualInbound"} == set(with_filters)
    assert not {"authz.headers", "authz.egress"} & set(with_filters["virtualInbound"])


def test_the_answer_without_a_decision_is_given_on_both_ways(pod: MeshedPod) -> None:
    """Every connection manager of the way in, and that of port 80 on the way out, and no other."""
    with_replies = {
        name: ["local_reply_config" in manager for manager in _managers(listener)]
        for name, listener in pod.listeners().items()
    }

    assert all(with_replies.pop("virtualInbound"))
    assert [True] == with_replies.pop("0.0.0.0_80")
    assert not any(found for each in with_replies.values() for found in each)


def test_the_host_is_patched_and_no_other(pod: MeshedPod) -> None:
    """The virtual host has the name that the EnvoyFilter looks for, and says what the Check is about."""
    hosts = {host["name"]: host for host in pod.routes()["80"]["virtual_hosts"]}
    patched = [name for name, host in hosts.items() if "typed_per_filter_config" in host]

    assert [f"{GRAPH}:80"] == patched
    assert {"authz.headers", "authz.egress"} == set(hosts[f"{GRAPH}:80"]["typed_per_filter_config"])


def test_a_token_is_sent_once_and_answers_may_last(pod: MeshedPod) -> None:
    """Without a timeout in the VirtualService there is none, and no retry is left of Istio's two."""
    (host,) = [one for one in pod.routes()["80"]["virtual_hosts"] if one["name"] == f"{GRAPH}:80"]
    refusal, route = host["routes"]

    assert 405 == refusal["direct_response"]["status"]
    assert "0s" == route["route"]["timeout"]
    assert "retry_policy" not in route["route"]


def test_tls_to_the_api_demands_its_name(pod: MeshedPod) -> None:
    """The connection to port 443 has SNI, authorities, and the name of the certificate."""
    cluster = pod.clusters()[f"outbound|80||{GRAPH}"]
    settings = cluster["transport_socket"]["typed_config"]
    trust = settings["common_tls_context"]["combined_validation_context"]

    assert GRAPH == settings["sni"]
    assert [{"exact": GRAPH}] == trust["default_validation_context"]["match_subject_alt_names"]
    assert f"file-root:{TRUST_BUNDLE}" == trust["validation_context_sds_secret_config"]["name"]
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    assert {"address": GRAPH, "port_value": 443} == endpoint["endpoint"]["address"][
        "socket_address"
    ]


def test_every_way_in_is_checked_and_fails_closed(pod: MeshedPod) -> None:
    """The CUSTOM policy's Check is on each inbound chain, over the mesh's name for the pod's own socket."""
    managers = _managers(pod.listeners()["virtualInbound"])
    checks = [
        entry["typed_config"]
        for manager in managers
        for entry in manager["http_filters"]
        if entry["name"] == CHECK
    ]

    assert len(managers) == len(checks)
    assert 1 < len(checks)
    for check in checks:
        assert (
            "outbound|9901||authz.internal" == (check["grpc_service"]["envoy_grpc"]["cluster_name"])
        )
        assert "failure_mode_allow" not in check
        assert {"code": "ServiceUnavailable"} == check["status_on_error"]
    # And where it is not HTTP that comes in.
    for chain in pod.listeners()["virtualInbound"]["filter_chains"]:
        names = [entry["name"] for entry in chain["filters"]]
        if MANAGER not in names and "blackhole" not in chain["name"]:
            assert "envoy.filters.network.ext_authz" in names


def test_the_pod_reaches_what_its_namespace_has_entries_for(pod: MeshedPod) -> None:
    """A service of another namespace is unknown to the proxy, and nothing unknown is passed on."""
    outbound = {name.split("|")[3] for name in pod.clusters() if name.startswith("outbound|")}
    own = {f"{name}.{AGENTS}.svc.cluster.local" for name in ("agent", NEIGHBOUR)}
    targets = [
        entry["typed_config"].get("cluster")
        for chain in pod.listeners()["virtualOutbound"]["filter_chains"]
        for entry in chain["filters"]
    ]

    assert {GRAPH, LOGIN, "authz.internal", *own} == outbound
    assert {"BlackHoleCluster"} == set(targets)


def test_pilot_knows_what_the_pod_does_not(pod: MeshedPod, pilot: Pilot) -> None:
    """The service of the other namespace is there: it is the Sidecar that hides it."""
    assert f"{ELSEWHERE}.{ELSEWHERE}.svc.cluster.local" in pilot.debug("registryz").text


def test_the_imagined_routes_are_pilots(pod: MeshedPod, imagined: Istio) -> None:
    """What the tests without a control plane patch is what pilot makes: hosts, routes, refusals."""
    theirs = pod.routes()["80"]
    ours = imagined.outbound_manager()["route_config"]

    assert theirs["ignore_port_in_host_matching"] is ours["ignore_port_in_host_matching"] is True
    for name in (f"{GRAPH}:80", f"{NEIGHBOUR}.{AGENTS}.svc.cluster.local:80", "block_all"):
        real, made = _host(theirs, name), _host(ours, name)
        assert set(made["domains"]) <= set(real["domains"])
        for key in ("timeout", "cluster", "retry_policy"):
            assert _action(real, key) == _action(made, key)
        for host in (real, made):
            assert host["include_request_attempt_count"] is True
    assert _host(theirs, f"{GRAPH}:80")["domains"] == _host(ours, f"{GRAPH}:80")["domains"]


def test_the_imagined_check_is_pilots(pod: MeshedPod, imagined: Istio) -> None:
    """The policies become the filters that the other tests run: the Check, what it is for, denials."""
    real = _inbound(pod.listeners()["virtualInbound"])
    made = imagined.inbound_manager()

    for name in ("envoy.filters.http.rbac", CHECK):
        assert _filters(real, name) == _filters(made, name)


def _managers(listener: Object) -> list[Object]:
    return [
        entry["typed_config"]
        for chain in listener.get("filter_chains", ())
        for entry in chain["filters"]
        if entry["name"] == MANAGER
    ]


def _inbound(listener: Object) -> Object:
    (chain,) = [
        chain
        for chain in listener["filter_chains"]
        if chain.get("filter_chain_match", {}).get("destination_port") == 8000
    ]
    found: Object = chain["filters"][0]["typed_config"]
    return found


def _filters(manager: Object, name: str) -> list[Object]:
    return [each["typed_config"] for each in manager["http_filters"] if each["name"] == name]


def _host(routes: Object, name: str) -> Object:
    (found,) = [host for host in routes["virtual_hosts"] if host["name"] == name]
    host: Object = found
    return host


def _action(host: Object, key: str) -> Any:
    value = host["routes"][-1].get("route", host["routes"][-1].get("direct_response")).get(key)
    return (
        {name: value[name] for name in ("retry_on", "num_retries")}
        if key == "retry_policy" and value
        else value
    )
