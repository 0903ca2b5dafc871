"""The monitoring component fits the pods, and names only what authz exposes.

What needs Prometheus itself is in `test_alerts.py` and `tests/app/test_monitored.py`.
"""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from authz.config.sections.settings import Keys
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.record import CacheName, CacheResult
from authz.doors.envoy.pairing import Match
from authz.doors.problem import FACES
from authz.entra.aadsts import MEANINGS
from authz.injection.parts import Additions
from authz.injection.pod import inject
from authz.observe.gauges import Gauges
from authz.observe.labels import OTHER
from authz.observe.metrics import Metrics
from authz.observe.registry import own_registry
from support.kubernetes import custom_resources
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, Manifests, render
from support.kubernetes.monitoring import (
    COMPONENT,
    Matcher,
    alerts,
    bare,
    dashboard,
    names_of,
    queries,
    texts,
)

pytestmark = pytest.mark.thorough

TARGET = {"job", "namespace", "pod", "container", "instance"}
"""Labels that Prometheus gives to what it scrapes by a PodMonitor."""
_MANAGER = {"envoy_http_conn_manager_prefix"}
FOREIGN = {
    "up": TARGET,
    "container_memory_working_set_bytes": TARGET,
    "envoy_http_downstream_rq_xx": TARGET | _MANAGER | {"envoy_response_code_class"},
    "envoy_http_downstream_rq_time_bucket": TARGET | _MANAGER | {"le"},
    **{
        f"envoy_http_{name}": TARGET | _MANAGER
        for name in (
            *("ext_authz_ok", "ext_authz_denied", "ext_authz_disabled", "ext_authz_error"),
            *("ext_authz_failure_mode_allowed", "lua_errors"),
        )
    },
}
"""Metrics of Prometheus, of the kubelet and of Envoy, with the labels they have."""
_OF_THE_OTHERS = {"authz_ready": {"kind", "name"}}
"""Labels that a metric lacks which only says of which pods others count (`and on (namespace, pod)`)."""
DECISIONS, DIRECTIONS = {"allow", "deny", "reply"}, {"inbound", "egress", "none"}
REASONS = {reason.value for reason in Reason}
VALUES = {
    ("authz_checks_total", "decision"): DECISIONS,
    ("authz_checks_total", "direction"): DIRECTIONS,
    ("authz_checks_total", "reason"): REASONS | {"none"},
    ("authz_check_duration_seconds_bucket", "decision"): DECISIONS,
    ("authz_exchanges_total", "outcome"): REASONS | {"issued"},
    ("authz_exchanges_total", "flow"): {flow.value for flow in Flow},
    ("authz_entra_errors_total", "code"): {str(number) for number in MEANINGS} | {OTHER},
    ("authz_envoy_configurations", "match"): {match.value for match in Match},
    ("authz_cache_lookups_total", "cache"): {name.value for name in CacheName},
    ("authz_cache_lookups_total", "result"): {result.value for result in CacheResult},
    ("authz_cache_entries", "cache"): {name.value for name in CacheName},
    ("authz_cache_evictions_total", "cache"): {name.value for name in CacheName},
}
"""The closed sets that matchers may name a value of."""
EXPRESSIONS = {
    **{name: rule["expr"] for name, rule in alerts().items()},
    **{f"{query.panel} {number}": query.filled("5m") for number, query in enumerate(queries())},
}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Return the name of each overlay in turn."""
    return str(request.param)


@pytest.fixture
def monitored(overlay: str, kubectl: str, tmp_path: Path) -> Manifests:
    """Return the overlay with the component, as the kustomization of a user has it."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    mine = tmp_path / "mine"
    mine.mkdir()
    kustomization = {
        "resources": [f"../kubernetes/{overlay}"],
        "components": ["../kubernetes/components/monitoring"],
        "namespace": "agents",
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(mine)


def _exposed() -> dict[str, set[str]]:
    """Return the labels of every series that authz exposes, by name."""
    registry = own_registry()
    Metrics(registry, frozenset())
    Gauges(registry)
    found: dict[str, set[str]] = {}
    families = [
        (family, set(getattr(collector, "_labelnames", ())))
        for collector in set(registry._collector_to_names)
        for family in collector.collect()
    ]
    for family, labels in families:
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = labels
            case "histogram":
                found[f"{family.name}_bucket"] = labels | {"le"}
                found[f"{family.name}_count"] = found[f"{family.name}_sum"] = labels
            case _:
                found[family.name] = labels
    return {name: labels | TARGET for name, labels in found.items()} | FOREIGN


def test_the_component_adds_three_objects_and_changes_none(
    monitored: Manifests, overlay: str
) -> None:
    """A PodMonitor, a PrometheusRule and the dashboard, all in the namespace of the overlay."""
    manifests = render(KUBERNETES / overlay)
    added = sorted(
        (item["kind"], item["metadata"]["name"])
        for item in monitored.objects
        if item["kind"] in {"PodMonitor", "PrometheusRule"}
        or item["metadata"]["name"] == "authz-dashboard"
    )

    assert added == [
        ("ConfigMap", "authz-dashboard"),
        ("PodMonitor", "authz"),
        ("PrometheusRule", "authz"),
    ]
    assert {item["metadata"]["namespace"] for item in monitored.objects} == {"agents"}
    assert len(monitored.objects) == len(manifests.objects) + 3
    assert monitored.pod == manifests.pod
    assert monitored.find("NetworkPolicy")["spec"] == manifests.find("NetworkPolicy")["spec"]


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_custom_resources_are_valid(monitored: Manifests, kind: str) -> None:
    """They fit the operator's definitions, and a key that those do not know would be found."""
    item = monitored.find(kind)
    file = f"{kind.lower()}s.yaml"
    custom_resources.validate(item, file)

    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        custom_resources.validate({**item, "spec": {**item["spec"], "surprise": 1}}, file)


def test_prometheus_reaches_the_metrics(monitored: Manifests) -> None:
    """Name, port and network policy lead to authz's own container, and to no other port of it."""
    monitor = monitored.find("PodMonitor")["spec"]
    rules = monitored.find("NetworkPolicy")["spec"]["ingress"]
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }

    assert monitor["selector"] == {}
    assert [("admin", "/metrics"), ("statistics", "/stats/prometheus")] == [
        (endpoint["port"], endpoint["path"]) for endpoint in monitor["podMetricsEndpoints"]
    ]
    for port, container in {"admin": "authz", "statistics": "envoy"}.items():
        having = [name for name, item in monitored.containers.items() if port in item.ports]
        # With Istio, Envoy is Istio's own, which it has scraped itself.
        assert having in ([container], [])
        sources = [
            rule["from"] for rule in rules if port in {each["port"] for each in rule["ports"]}
        ]
        assert sources == [[monitoring]] * len(having)


def test_injected_containers_are_found_by_the_same_port() -> None:
    """What is put into other pods has the name and the port that the PodMonitor asks for."""
    app = {"name": "app", "securityContext": {"capabilities": {"drop": ["ALL"]}}}
    _, spec = inject({}, {"containers": [app]}, Additions())
    ports = {
        each["name"]: [port["name"] for port in each["ports"]]
        for each in spec["containers"]
        if each["name"] != "app"
    }

    assert {"authz": ["admin"], "envoy": ["http", "statistics"]} == ports


def test_the_job_is_the_one_that_rules_and_dashboard_ask_for(monitored: Manifests) -> None:
    """The PodMonitor keeps our containers, and gives each a job whatever its own name becomes."""
    endpoints = monitored.find("PodMonitor")["spec"]["podMetricsEndpoints"]

    assert [endpoint["relabelings"] for endpoint in endpoints] == [
        [
            {
                "action": "keep",
                "sourceLabels": ["__meta_kubernetes_pod_container_name"],
                "regex": container,
            },
            {"action": "replace", "targetLabel": "job", "replacement": job},
        ]
        for container, job in {"authz": "authz", "envoy": "authz-envoy"}.items()
    ]


def test_the_dashboard_is_loaded_as_it_is(monitored: Manifests) -> None:
    """The ConfigMap has the label that Grafana's sidecar looks for, and the file's content."""
    config_map = monitored.find("ConfigMap", "authz-dashboard")

    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {"authz.json": dashboard()} == {
        name: json.loads(text) for name, text in config_map["data"].items()
    }


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    """Severity, a patience, a summary with the place, a fixed description, and a page to read."""
    alert = alerts()[name]
    notes = alert["annotations"]

    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"[1-9]\d*[mh]", alert["for"])
    assert set(notes) == {"summary", "description", "runbook"}
    assert notes["runbook"] == f"docs/alerts.md#{name.lower()}"
    assert "{{" not in notes["description"]
    assert notes["description"].endswith(".")
    assert not notes["summary"].endswith(".")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_metrics_and_labels_exist(name: str) -> None:
    """Each metric is one that authz, Prometheus or the kubelet exposes, with each label that is used."""
    exposed = _exposed()
    names = names_of(EXPRESSIONS[name])

    assert names.selectors
    assert bare(EXPRESSIONS[name]) == set()
    for metric, matchers in names.selectors:
        assert metric in exposed
        assert {matcher.label for matcher in matchers} <= exposed[metric]
        assert names.groupings - _OF_THE_OTHERS.get(metric, set()) <= exposed[metric]
        for matcher in matchers:
            allowed = VALUES.get((metric, matcher.label))
            if allowed is not None:
                assert set(matcher.value.split("|")) <= allowed
        # Neither counts somebody else's pods.
        mine = Matcher("container" if metric.startswith("container_") else "job", "=", "authz")
        if metric.startswith("envoy_"):
            mine = Matcher("job", "=", "authz-envoy")
        # Whether there is a target is asked of both.
        other = Matcher("job", "=", "authz-envoy") if metric == "up" else mine
        assert {mine, other} & set(matchers)


@pytest.mark.parametrize("name", alerts())
def test_a_summary_uses_labels_that_the_alert_has(name: str) -> None:
    """What the expression sums up by is all that is left to tell."""
    alert = alerts()[name]
    used = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    names = names_of(alert["expr"])
    kept = names.groupings or set.intersection(
        *(_exposed()[metric] for metric, _ in names.selectors)
    )

    assert used <= kept


def test_callers_own_faults_are_no_alarm() -> None:
    """Denials leave out what is answered with 401 or was no valid request, and nothing else.

    A reference that is unknown is a 401 as well, but what makes many of them is here.
    """
    names = names_of(alerts()["AuthzDenials"]["expr"])
    ((excluded,), *_) = [
        [set(matcher.value.split("|")) for matcher in matchers if matcher.operator == "!~"]
        for _, matchers in names.selectors
    ]
    answered_401 = {reason.value for reason in Reason if FACES[reason].http_status == 401}

    assert excluded == answered_401 - {Reason.UNKNOWN_SUBJECT} | {Reason.MALFORMED_REQUEST}


def test_keys_are_old_after_three_missed_refreshes() -> None:
    """The alert's bound follows the default of the configuration."""
    bound = 3 * int(Keys().refresh_interval)

    assert alerts()["AuthzSigningKeysOld"]["expr"].endswith(f"> {bound}")


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """A fixed uid, unique panels that do not overlap, the data source a variable, and no host."""
    board = dashboard()
    panels = board["panels"]
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    drawn = [panel for panel in panels if panel["type"] != "row"]
    sources = {
        json.dumps(part["datasource"]) for panel in drawn for part in [panel, *panel["targets"]]
    }

    assert board["uid"] == "authz"
    assert board["schemaVersion"] >= 41
    assert "id" not in board
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    assert [variable["name"] for variable in board["templating"]["list"]] == [
        "datasource",
        "namespace",
        "pod",
    ]
    assert all(panel["description"].endswith(".") for panel in drawn)
    assert [text for text in texts(board) if "://" in text] == []


def test_a_panel_without_series_says_why_or_draws_zero() -> None:
    """Counts and states are zero then; times, ages and shares are not, and have words instead."""
    zero = {query.panel for query in queries() if query.own("5m") != query.filled("5m")}
    words = {query.panel: query.no_value for query in queries() if query.no_value is not None}

    assert set() == zero & words.keys()
    assert all(words.values())
    for query in queries():
        is_time = "histogram_quantile" in query.expression or "_expiry_" in query.expression
        assert query.panel in words or not is_time, query.panel


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    """A legend with a label that is summed away is blank."""
    for query in queries():
        used = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert used <= names_of(query.expression).groupings, query.panel


def test_the_component_is_as_its_readme_says() -> None:
    """Ten lines or so, which name each file's purpose; no file is left over."""
    files = sorted(path.name for path in COMPONENT.iterdir())
    readme = (COMPONENT / "README.md").read_text()

    assert files == [
        "README.md",
        "dashboard.json",
        "kustomization.yaml",
        "podmonitor.yaml",
        "prometheusrule.yaml",
    ]
    assert "components: [path/to/kubernetes/components/monitoring]" in readme
