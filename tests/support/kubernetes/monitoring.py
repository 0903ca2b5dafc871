"""The monitoring component as data: its alerts, the dashboard's queries, and the names that PromQL text uses.

Nothing here judges, and nothing here evaluates PromQL: promtool and Prometheus do.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from support.kubernetes.manifests import KUBERNETES, Object

COMPONENT: Final = KUBERNETES / "components/monitoring"
_SELECTOR: Final = re.compile(r"([a-z]\w*)\{([^}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_ZERO: Final = re.compile(r" or (?:vector\(0\)|label_replace\(vector\(0\), [^)]*\))$")
_VARIABLES: Final = {"$namespace": ".*", "$pod": ".*"}


@cache
def rules() -> Object:
    """Return the `spec` of the PrometheusRule: a rule file of Prometheus."""
    spec: Object = yaml.safe_load((COMPONENT / "prometheusrule.yaml").read_text())["spec"]
    return spec


def alerts() -> dict[str, Object]:
    """Return the alerting rules by name, in the order of the file."""
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


@cache
def dashboard() -> Object:
    """Return the dashboard."""
    parsed: Object = json.loads((COMPONENT / "dashboard.json").read_text())
    return parsed


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        panel: Title of the panel.
        expression: PromQL with Grafana's variables in it.
        legend: How its series are named.
        no_value: What the panel shows where no query of it has a series; None for Grafana's own words.
    """

    panel: str
    expression: str
    legend: str
    no_value: str | None = None

    def own(self, interval: str) -> str:
        """Return the same without the zero that it draws where there is no series."""
        return _ZERO.sub("", self.filled(interval))

    def filled(self, interval: str) -> str:
        """Return the PromQL that Grafana sends when everything is selected."""
        text = self.expression.replace("$__rate_interval", interval)
        for name, value in _VARIABLES.items():
            text = text.replace(name, value)
        return text


def queries() -> list[Query]:
    """Return every query of the dashboard."""
    return [
        Query(
            panel["title"],
            target["expr"],
            target["legendFormat"],
            panel["fieldConfig"]["defaults"].get("noValue"),
        )
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a selector says of one label."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Names:
    """What a PromQL text names.

    Attributes:
        selectors: Metrics with their matchers.
        groupings: Labels of `by`, `on` and their kin.
    """

    selectors: tuple[tuple[str, tuple[Matcher, ...]], ...]
    groupings: frozenset[str]


def names_of(expression: str) -> Names:
    """Return what a PromQL text names. Each of its selectors has braces, which a test sees to."""
    return Names(
        tuple(
            (metric, tuple(Matcher(*found) for found in _MATCHER.findall(inside)))
            for metric, inside in _SELECTOR.findall(expression)
        ),
        frozenset(
            label.strip()
            for inside in _GROUPING.findall(expression)
            for label in inside.split(",")
            if label.strip()
        ),
    )


def bare(expression: str) -> set[str]:
    """Return the names of metrics that stand without a selector."""
    unquoted = re.sub(r'"[^"]*"', '""', expression)
    return set(
        re.findall(
            r"\b(authz_\w+|container_\w+|envoy_http_(?!conn_manager)\w+|up)\b(?!\{)", unquoted
        )
    )


def envoys_parameters() -> dict[str, list[str]]:
    """Return with which parameters the PodMonitor asks Envoy."""
    monitor: Object = yaml.safe_load((COMPONENT / "podmonitor.yaml").read_text())
    (found,) = [
        endpoint["params"]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        if endpoint["port"] == "statistics"
    ]
    return dict(found)


def texts(node: Any) -> Iterator[str]:
    """Return every text inside plain data."""
    match node:
        case dict():
            for value in node.values():
                yield from texts(value)
        case list():
            for value in node:
                yield from texts(value)
        case str():
            yield node


def write_rules(folder: Path) -> Path:
    """Write the alerts as a rule file; return its path."""
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump(rules(), sort_keys=False))
    return file
