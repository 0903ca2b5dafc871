"""Every alert fires on what it is for, and on nothing like it: promtool's unit tests of the shipped rules.

Needs promtool, of Debian's package `prometheus`.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubernetes.monitoring import COMPONENT, alerts, rules, write_rules
from support.programs.prometheus import installed

pytestmark = pytest.mark.system

POD = 'job="authz", namespace="agents", pod="agent-1"'
OTHER_POD = POD.replace("agent-1", "agent-2")
DAY = 86400

Series = Mapping[str, str]
"""Values of series in promtool's notation, one a minute; `_` is a scrape without the series."""


@dataclass(frozen=True)
class Case:
    """What an alert is for.

    Attributes:
        at: When it is looked at.
        fires: Series on which it then fires.
        summary: What it says.
        labels: Labels that it has beside its name and severity.
        quiet: Series on each of which it does not fire, at any of the minutes up to `at`.
    """

    at: int
    fires: Series
    summary: str
    quiet: tuple[Series, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: {"namespace": "agents"})


def envoys(name: str, direction: str = "egress", *, pod: str = POD) -> str:
    """Name a series of Envoy's own."""
    target = pod.replace('job="authz"', 'job="authz-envoy"')
    return f'envoy_http_{name}{{{target}, envoy_http_conn_manager_prefix="{direction}"}}'


IN_POD = {"namespace": "agents", "pod": "agent-1"}


def checks(reason: str = "none", *, pod: str = POD, **labels: str) -> str:
    """Name a series of decided Checks."""
    decision = "allow" if reason == "none" else "deny"
    more = "".join(
        f', {name}="{value}"'
        for name, value in {"direction": "egress", "route": "graph", **labels}.items()
    )
    return f'authz_checks_total{{{pod}, decision="{decision}", reason="{reason}"{more}}}'


def exchanges(outcome: str) -> str:
    """Name a series of exchanges."""
    return f'authz_exchanges_total{{{POD}, flow="on_behalf_of", outcome="{outcome}"}}'


def cache(kind: str, name: str, more: str = "") -> str:
    """Name a series of a cache."""
    return f'authz_cache_{kind}_total{{{POD}, cache="{name}"{more}}}'


def durations(slow: int) -> Series:
    """Return the histogram of a hundred Checks a minute, some of them longer than a second."""
    name = f'authz_check_duration_seconds_bucket{{{POD}, direction="egress", route="graph", decision="allow"'
    return {
        f'{name}, le="0.1"}}': f"0+{100 - slow}x60",
        f'{name}, le="1.0"}}': f"0+{100 - slow}x60",
        f'{name}, le="2.5"}}': "0+100x60",
        f'{name}, le="+Inf"}}': "0+100x60",
    }


def gauge(name: str, labels: str, values: str) -> Series:
    """Return one series of a gauge."""
    return {f"{name}{{{POD}{labels}}}": values}


ISSUER = ', issuer="https://issuer.example/v2.0"'
CERTIFICATE = ', client="desk", kind="certificate"'
SECRET = ', secret="mail"'
CREDENTIAL = ', client="desk", kind="client_secret"'
NAMED_FILE = ', key="listen.tls.key_file"'
CIRCUIT = ', tenant="contoso"'
UNSERVED = ', kind="credential", name="desk"'
PLACE = {"namespace": "agents"}
TARGET = {"job": "authz", "namespace": "agents", "pod": "agent-1"}

ENVOY = f"up{{{POD.replace('authz', 'authz-envoy')}}}"
HEARD = gauge("authz_envoy_configurations", ', match="matched"', "1x30")

CASES = {
    "AuthzAbsent": Case(
        at=15,
        fires={'up{job="other"}': "1x30"},
        labels={"job": "authz"},
        summary="Prometheus knows no authz to scrape",
        # There, down, and away for the time of a roll-out.
        quiet=(gauge("up", "", "1x30"), gauge("up", "", "0x30"), gauge("up", "", "1 1 _x5 1x30")),
    ),
    "AuthzDown": Case(
        at=8,
        fires=gauge("up", "", "1 0x30"),
        labels=TARGET,
        summary="authz in agents/agent-1 cannot be scraped",
        quiet=(gauge("up", "", "1x30"), gauge("up", "", "1 0x3 1x30"), {'up{job="other"}': "0x30"}),
    ),
    "AuthzEnvoyAbsent": Case(
        at=15,
        fires=gauge("authz_envoy_configurations", ', match="matched"', "1x4 0x30"),
        labels={},
        summary="Envoys ask authz, and Prometheus knows none of them to scrape",
        quiet=(
            # There, or down, in whatever namespace.
            {**HEARD, ENVOY: "1x30"},
            {**HEARD, ENVOY: "0x30"},
            {**HEARD, ENVOY.replace("agents", "others"): "1x30"},
            # Away for the time of a roll-out.
            {**HEARD, ENVOY: "1 1 _x5 1x30"},
            # A mesh's Envoy, or none at all.
            gauge("authz_envoy_configurations", ', match="unknown"', "1x30"),
            gauge("authz_envoy_configurations", ', match="matched"', "0x30"),
        ),
    ),
    "AuthzEnvoyDown": Case(
        at=8,
        fires={ENVOY: "1 0x30"},
        labels={**TARGET, "job": "authz-envoy"},
        summary="Envoy in agents/agent-1 cannot be scraped",
        quiet=({ENVOY: "1x30"}, {ENVOY: "1 0x3 1x30"}, gauge("up", "", "0x30")),
    ),
    "AuthzNotReady": Case(
        at=15,
        # The container starts again and again, and is not scraped in between.
        fires=gauge("authz_ready", "", "0 0 _ 0 _ 0 0 _ 0 0 _ 0 0 0 0 0 0"),
        labels=TARGET,
        summary="authz in agents/agent-1 is not ready",
        # A slow start, a short loss, the end of a pod.
        quiet=(
            gauge("authz_ready", "", "0x3 1x30"),
            gauge("authz_ready", "", "1x5 0x3 1x30"),
            gauge("authz_ready", "", "1x5 0 stale _x30"),
        ),
    ),
    "AuthzPartlyServing": Case(
        at=15,
        fires={
            **gauge("authz_unserved", UNSERVED, "0 0 1x30"),
            **gauge("authz_ready", "", "1x30"),
        },
        labels={**PLACE, "kind": "credential", "name": "desk"},
        summary="authz in agents cannot serve credential desk",
        # A slow start, a rotation.
        quiet=(
            {
                **gauge("authz_unserved", UNSERVED, "0x30"),
                **gauge("authz_ready", "", "1x30"),
            },
            {
                **gauge("authz_unserved", UNSERVED, "1x5 0x30"),
                **gauge("authz_ready", "", "1x30"),
            },
            # A pod that serves nobody has an alert of its own, whatever other pods do.
            {
                **gauge("authz_unserved", UNSERVED, "1x30"),
                **gauge("authz_ready", "", "0x30"),
                f"authz_ready{{{OTHER_POD}}}": "1x30",
            },
        ),
    ),
    "AuthzConfigRefused": Case(
        at=10,
        fires=gauge("authz_config_refused", "", "0 0 1x30"),
        summary="authz in agents refuses its newest configuration",
        quiet=(
            gauge("authz_config_refused", "", "0x30"),
            gauge("authz_config_refused", "", "0 1x3 0x30"),
        ),
    ),
    "AuthzEnvoyOutdated": Case(
        at=15,
        fires=gauge("authz_envoy_configurations", ', match="outdated"', "0 0 1x30"),
        labels={**PLACE, "pod": "agent-1"},
        summary="Envoy of agents/agent-1 was rendered from another configuration",
        quiet=(
            # The two are replaced one after the other; an Envoy that was written by hand.
            gauge("authz_envoy_configurations", ', match="outdated"', "0 1x8 0x30"),
            gauge("authz_envoy_configurations", ', match="unknown"', "1x30"),
            gauge("authz_envoy_configurations", ', match="matched"', "1x30"),
        ),
    ),
    "AuthzInternalErrors": Case(
        at=12,
        # The series begins with its first error.
        fires={checks("internal"): "_x8 1x30", checks(): "0+60x60"},
        labels={**PLACE, "route": "graph"},
        summary="Checks of route graph in agents ended in a defect of authz",
        quiet=({checks(): "0+60x60", checks("missing_token"): "0+60x60"},),
    ),
    "AuthzLogRecordsDropped": Case(
        at=12,
        fires=gauge("authz_log_records_dropped_total", "", "0x8 5x30"),
        labels={**PLACE, "pod": "agent-1"},
        summary="Log records of agent-1 in agents are lost",
        quiet=(gauge("authz_log_records_dropped_total", "", "5x60"),),
    ),
    "AuthzNoDecision": Case(
        at=12,
        fires={envoys("ext_authz_error"): "0 0 0+1x20"},
        summary="Envoy in agents/agent-1 gets no decisions from authz",
        labels=IN_POD,
        quiet=(
            {envoys("ext_authz_error"): "7x20"},
            {envoys("ext_authz_denied"): "0+1x20"},
            {envoys("ext_authz_error", "admin"): "0+1x20"},
            # A pod that starts.
            {envoys("ext_authz_error"): "0 3 3x20"},
        ),
    ),
    "AuthzAllowedWithoutDecision": Case(
        at=5,
        fires={envoys("ext_authz_failure_mode_allowed", "inbound"): "0 1x20"},
        summary="Envoy in agents/agent-1 let requests pass that authz did not decide on",
        labels=IN_POD,
        quiet=(
            {envoys("ext_authz_failure_mode_allowed"): "0x20"},
            {envoys("ext_authz_ok"): "0+1x20"},
        ),
    ),
    "AuthzEdgeCacheErrors": Case(
        at=8,
        fires={envoys("lua_errors"): "0 0 0 1x20"},
        summary="The edge cache of Envoy in agents/agent-1 has errors",
        labels=IN_POD,
        quiet=({envoys("lua_errors"): "5x20"}, {envoys("ext_authz_error"): "0x20"}),
    ),
    "AuthzDenials": Case(
        at=40,
        fires={checks(): "0+90x60", checks("actor_not_allowed"): "0+10x60"},
        labels={**PLACE, "reason": "actor_not_allowed"},
        summary="10% of the Checks in agents are denied for actor_not_allowed",
        quiet=(
            {checks(): "0+99x60", checks("actor_not_allowed"): "0+1x60"},
            # Callers' own.
            {checks(): "0+50x60", checks("invalid_token"): "0+50x60"},
            {checks(): "0+50x60", checks("missing_token", direction="inbound"): "0+50x60"},
            {checks(): "0+50x60", checks("interaction_required"): "0+50x60"},
            # A few, once, where there is hardly any traffic.
            {checks(): "0+1x60", checks("unknown_route"): "0x10 3x60"},
            # Another namespace's traffic does not make a share smaller, nor its denials it larger.
            {
                checks(): "0+90x60",
                checks("unknown_route", pod=POD.replace("agents", "others")): "0+4x60",
                checks(pod=POD.replace("agents", "others")): "0+96x60",
            },
        ),
    ),
    "AuthzTokensRefused": Case(
        at=20,
        fires={
            checks("invalid_token", direction="inbound", route="desk"): "0+9x60",
            checks(direction="inbound", route="desk"): "0+1x60",
            checks(): "0+900x60",
        },
        labels={**PLACE, "route": "desk"},
        summary="90% of the callers' tokens on route desk in agents are refused",
        quiet=(
            # Half of them, which other callers' good ones outweigh.
            {
                checks("invalid_token", direction="inbound"): "0+5x60",
                checks(direction="inbound"): "0+5x60",
            },
            # A single bad token now and then where hardly anybody calls.
            {checks("invalid_token", direction="inbound"): "0+1x60"},
            # A client whose tokens had ended, for a moment.
            {
                checks("invalid_token", direction="inbound"): "0 60x60",
                checks(direction="inbound"): "0+5x60",
            },
            {checks("missing_token", direction="inbound"): "0+60x60"},
        ),
    ),
    "AuthzClockDiffers": Case(
        at=10,
        fires=gauge("authz_clock_difference_seconds", "", "0 -600x30"),
        labels={"namespace": "agents", "pod": "agent-1", "job": "authz"},
        summary="The clock of agents/agent-1 is 10m 0s from Entra's",
        quiet=(
            gauge("authz_clock_difference_seconds", "", "59x30"),
            gauge("authz_clock_difference_seconds", "", "600x3 0x30"),
        ),
    ),
    "AuthzForeignSubject": Case(
        at=32,
        # The second one, of a series that has long been there.
        fires={checks("foreign_subject"): "1x28 2x60", checks(): "0+60x60"},
        labels={**PLACE, "route": "graph"},
        summary="A reference to another's user was used on route graph in agents",
        quiet=({checks("unknown_subject"): "0+1x60"},),
    ),
    "AuthzSlowChecks": Case(
        at=40,
        fires=durations(slow=5),
        labels={**PLACE, "direction": "egress"},
        summary="One in a hundred egress Checks in agents takes 2.2s or more",
        quiet=(durations(slow=0), {checks(): "0+60x60"}),
    ),
    "AuthzExchangeMisconfigured": Case(
        at=12,
        fires={exchanges("exchange_misconfigured"): "_x8 1x30", exchanges("issued"): "0+9x60"},
        labels={**PLACE, "flow": "on_behalf_of"},
        summary="Entra refuses what is configured for on_behalf_of in agents",
        quiet=({exchanges("issued"): "0+9x60", exchanges("consent_required"): "0+9x60"},),
    ),
    "AuthzEntraUnavailable": Case(
        at=15,
        fires={exchanges("exchange_unavailable"): "0+1x60", exchanges("issued"): "0+3x60"},
        summary="25% of the exchanges in agents do not reach Entra",
        quiet=(
            {exchanges("exchange_unavailable"): "0+1x60", exchanges("issued"): "0+19x60"},
            {exchanges("exchange_unavailable"): "0x5 9x60", exchanges("issued"): "0+1x60"},
            {exchanges("exchange_rejected"): "0+9x60", exchanges("issued"): "0+1x60"},
        ),
    ),
    "AuthzEntraCircuitOpen": Case(
        at=10,
        fires=gauge("authz_entra_circuit_open", CIRCUIT, "0 0 1x30"),
        labels={**PLACE, "tenant": "contoso"},
        summary="The token endpoint of tenant contoso keeps failing in agents",
        # Closed, and open for a moment.
        quiet=(
            gauge("authz_entra_circuit_open", CIRCUIT, "0x30"),
            gauge("authz_entra_circuit_open", CIRCUIT, "0 0 1 0x30"),
        ),
    ),
    "AuthzEntraThrottled": Case(
        at=20,
        fires={exchanges("exchange_throttled"): "0+1x60"},
        summary="Entra throttles the exchanges in agents",
        quiet=(
            {exchanges("exchange_throttled"): "0x5 4x60"},
            {exchanges("exchange_unavailable"): "0+1x60"},
        ),
    ),
    "AuthzUsersRefused": Case(
        at=55,
        fires={checks(): "0+10x60", checks("consent_required"): "0+10x60"},
        labels={**PLACE, "reason": "consent_required"},
        summary="50% of the agent's calls in agents are refused: consent_required",
        quiet=(
            {checks(): "0+90x60", checks("consent_required"): "0+10x60"},
            # Callers who come without a token are not the agent's calls.
            {checks(): "0+10x60", checks("exchange_rejected", direction="inbound"): "0+10x60"},
            {checks(): "0+10x60", checks("interaction_required"): "0x5 20x60"},
        ),
    ),
    "AuthzEntraErrorsUnknown": Case(
        at=30,
        fires=gauge("authz_entra_errors_total", ', code="other"', "0+1x60"),
        summary="Entra refuses exchanges in agents with a number that authz does not know",
        quiet=(
            gauge("authz_entra_errors_total", ', code="65001"', "0+1x60"),
            gauge("authz_entra_errors_total", ', code="other"', "0x5 1x60"),
        ),
    ),
    "AuthzSigningKeysOld": Case(
        at=240,
        fires=gauge("authz_signing_keys_age_seconds", ISSUER, "0+60x240"),
        labels={**PLACE, "issuer": "https://issuer.example/v2.0"},
        summary="Signing keys of https://issuer.example/v2.0 in agents were fetched 4h 0m 0s ago",
        # Two refreshes missed; an hour and a half is nothing.
        quiet=(
            gauge("authz_signing_keys_age_seconds", ISSUER, "0+60x179 0+60x61"),
            gauge("authz_signing_keys_age_seconds", ISSUER, "5400x240"),
        ),
    ),
    "AuthzCredentialExpiring": Case(
        at=70,
        fires={
            **gauge("authz_credential_expiry_seconds", CERTIFICATE, f"{10 * DAY}x70"),
            f"authz_credential_expiry_seconds{{{OTHER_POD}{CERTIFICATE}}}": f"{90 * DAY}x70",
        },
        labels={**PLACE, "client": "desk", "kind": "certificate"},
        summary="The certificate of desk in agents expires in 10d 0h 0m 0s",
        # Long enough; renewed; in use no more.
        quiet=(
            gauge("authz_credential_expiry_seconds", CERTIFICATE, f"{15 * DAY}x70"),
            gauge("authz_credential_expiry_seconds", CERTIFICATE, f"{DAY}x50 {90 * DAY}x20"),
            gauge("authz_credential_expiry_seconds", CERTIFICATE, "inf " * 70),
        ),
    ),
    "AuthzCredentialExpiringSoon": Case(
        at=20,
        # It has been over for an hour.
        fires=gauge("authz_credential_expiry_seconds", CERTIFICATE, "-3600x30"),
        labels={**PLACE, "client": "desk", "kind": "certificate"},
        summary="The certificate of desk in agents expires in -1h 0m 0s",
        quiet=(
            gauge("authz_credential_expiry_seconds", CERTIFICATE, f"{3 * DAY}x30"),
            gauge("authz_credential_expiry_seconds", CERTIFICATE, "inf " * 30),
        ),
    ),
    "AuthzCredentialRefused": Case(
        at=8,
        fires=gauge("authz_credential_refused", CERTIFICATE, "0 0 1x30"),
        labels={**PLACE, "client": "desk", "kind": "certificate"},
        summary="Entra refuses the certificate of desk in agents",
        # Accepted; mended while it reaches all of Entra.
        quiet=(
            gauge("authz_credential_refused", CERTIFICATE, "0x30"),
            gauge("authz_credential_refused", CERTIFICATE, "0 1x4 0x30"),
        ),
    ),
    "AuthzCredentialUnproved": Case(
        at=20,
        fires=gauge("authz_credential_accepted", CREDENTIAL, "1 1 0x30"),
        labels={**PLACE, "client": "desk", "kind": "client_secret"},
        summary="Whether Entra takes the client_secret of desk in agents is not known",
        quiet=(
            gauge("authz_credential_accepted", CREDENTIAL, "0x10 1x30"),
            # That is another alert.
            {
                **gauge("authz_credential_accepted", CREDENTIAL, "0x30"),
                **gauge("authz_credential_refused", CREDENTIAL, "1x30"),
            },
        ),
    ),
    "AuthzCredentialUnreadable": Case(
        at=8,
        fires=gauge("authz_credential_unreadable", CREDENTIAL, "0 0 1x30"),
        labels={**PLACE, "client": "desk", "kind": "client_secret"},
        summary="The client_secret of desk in agents cannot be read",
        # There; replaced by way of nothing.
        quiet=(
            gauge("authz_credential_unreadable", CREDENTIAL, "0x30"),
            gauge("authz_credential_unreadable", CREDENTIAL, "0 1x4 0x30"),
        ),
    ),
    "AuthzFileUnusable": Case(
        at=8,
        fires=gauge("authz_file_unusable", NAMED_FILE, "0 0 1x30"),
        labels={**PLACE, "key": "listen.tls.key_file"},
        summary="The file of listen.tls.key_file in agents cannot be used",
        # In order; in the middle of a rotation.
        quiet=(
            gauge("authz_file_unusable", NAMED_FILE, "0x30"),
            gauge("authz_file_unusable", NAMED_FILE, "0 1x4 0x30"),
        ),
    ),
    "AuthzPushedSecretExpiring": Case(
        at=5,
        fires=gauge("authz_pushed_secret_expiry_seconds", SECRET, "420-60x7"),
        labels={**PLACE, "secret": "mail"},
        summary="What Envoys in agents hold for mail expires in 2m 0s",
        # None at the very start; in time; nobody asks any more.
        quiet=(
            gauge("authz_pushed_secret_expiry_seconds", SECRET, "0 3600x10"),
            gauge("authz_pushed_secret_expiry_seconds", SECRET, "420-60x1 3600x10"),
            gauge("authz_pushed_secret_expiry_seconds", SECRET, "inf " * 10),
        ),
    ),
    "AuthzSecretsRejected": Case(
        at=12,
        fires=gauge("authz_secret_nacks_total", SECRET, "_x8 1x30"),
        labels={**PLACE, "secret": "mail"},
        summary="An Envoy in agents cannot use what it was given for mail",
        quiet=(gauge("authz_secret_pushes_total", f'{SECRET}, outcome="token"', "0+1x60"),),
    ),
    "AuthzCacheThrash": Case(
        at=60,
        fires={
            cache("evictions", "tokens"): "0+10x60",
            cache("lookups", "tokens", ', result="miss"'): "0+20x60",
            cache("lookups", "tokens", ', result="hit"'): "0+20x60",
        },
        labels={**PLACE, "cache": "tokens"},
        summary="25% of the look-ups in cache tokens in agents throw a live entry out",
        quiet=(
            {
                cache("evictions", "tokens"): "0+1x60",
                cache("lookups", "tokens", ', result="hit"'): "0+40x60",
            },
            {
                cache("evictions", "tokens"): "0x60",
                cache("lookups", "tokens", ', result="miss"'): "0+40x60",
            },
            {
                cache("evictions", "subjects"): "0+9x60",
                cache("lookups", "subjects", ', result="hit"'): "0+9x60",
            },
        ),
    ),
    "AuthzSubjectsEvicted": Case(
        at=40,
        fires={cache("evictions", "subjects"): "0+1x60"},
        summary="References to users in agents end early for want of room",
        quiet=(
            {cache("evictions", "tokens"): "0+1x60"},
            {cache("evictions", "subjects"): "0x60"},
        ),
    ),
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Return the path of promtool, or skip."""
    return installed("promtool")


def _run(promtool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [promtool, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _block(series: Series, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": expected,
    }


def _firing(name: str, at: int, case: Case) -> dict[str, Any]:
    rule = alerts()[name]
    return {
        "eval_time": f"{at}m",
        "alertname": name,
        "exp_alerts": [
            {
                "exp_labels": {**rule["labels"], **case.labels},
                "exp_annotations": {**rule["annotations"], "summary": case.summary},
            }
        ],
    }


def _silence(name: str, until: int) -> list[dict[str, Any]]:
    return [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for minute in range(until + 1)
    ]


def _verdict(promtool: str, folder: Path, *blocks: dict[str, Any]) -> tuple[int, str]:
    tests = {
        "rule_files": [str(write_rules(folder))],
        "evaluation_interval": "1m",
        "tests": list(blocks),
    }
    file = folder / "tests.yml"
    file.write_text(yaml.safe_dump(tests, sort_keys=False))
    result = _run(promtool, "test", "rules", file)
    return result.returncode, result.stdout + result.stderr


def test_the_rules_are_well_formed(promtool: str, tmp_path: Path) -> None:
    """`promtool check rules` finds nothing, lint included, and all of them."""
    result = _run(promtool, "check", "rules", "--lint-fatal", write_rules(tmp_path))
    number = sum(len(group["rules"]) for group in rules()["groups"])

    assert result.returncode == 0, result.stderr
    assert f"SUCCESS: {number} rules found" in result.stdout


def test_the_readmes_command_makes_links_of_the_runbooks(
    promtool: str, kubectl: str, tmp_path: Path
) -> None:
    """With what kubectl renders: each alert has `runbook_url` and no `runbook`, and the rules stay good."""
    readme = (COMPONENT / "README.md").read_text()
    address, command = readme.partition("\n```sh\n")[2].partition("\n```")[0].splitlines()
    render, edit, _ = command.split(" | ")
    shown = subprocess.run(
        ["sh", "-c", f"{address}\n{render} | {edit}"],
        cwd=COMPONENT,
        env={**os.environ, "PATH": f"{Path(kubectl).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    (item,) = [each for each in yaml.safe_load_all(shown) if each["kind"] == "PrometheusRule"]
    file = tmp_path / "linked.yml"
    file.write_text(yaml.safe_dump(item["spec"], sort_keys=False))
    linked = {
        rule["alert"]: rule["annotations"]
        for group in item["spec"]["groups"]
        for rule in group["rules"]
    }
    base = address.partition("=")[2]

    assert _run(promtool, "check", "rules", "--lint-fatal", file).returncode == 0
    assert list(linked) == list(alerts())
    assert {name: f"{base}#{name.lower()}" for name in alerts()} == {
        name: notes.get("runbook_url") for name, notes in linked.items()
    }
    assert [name for name, notes in linked.items() if "runbook" in notes] == []


def test_every_alert_has_a_case() -> None:
    """Each is shown to fire and not to fire."""
    assert list(CASES) == list(alerts())
    assert all(case.quiet for case in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires(promtool: str, tmp_path: Path, name: str) -> None:
    """With its labels and its words, and not at the first minute of trouble."""
    case = CASES[name]
    status, said = _verdict(
        promtool, tmp_path, _block(case.fires, [*_silence(name, 0), _firing(name, case.at, case)])
    )

    assert status == 0, said


@pytest.mark.parametrize("name", CASES)
def test_an_alert_keeps_quiet(promtool: str, tmp_path: Path, name: str) -> None:
    """At no minute of what looks alike and is none of its business."""
    case = CASES[name]
    blocks = [_block(series, _silence(name, case.at)) for series in case.quiet]
    status, said = _verdict(promtool, tmp_path, *blocks)

    assert status == 0, said


def test_a_loss_of_readiness_is_told_after_five_minutes(promtool: str, tmp_path: Path) -> None:
    """As docs/operations.md has it: also where the pod was ready before, and is scraped all the while."""
    case = CASES["AuthzNotReady"]
    lost = gauge("authz_ready", "", "1x20 0x20")
    status, said = _verdict(
        promtool,
        tmp_path,
        _block(lost, [*_silence("AuthzNotReady", 25), _firing("AuthzNotReady", 26, case)]),
    )

    assert status == 0, said


def test_a_wrong_expectation_would_be_found(promtool: str, tmp_path: Path) -> None:
    """The verdicts that these tests rely on can be bad."""
    case = CASES["AuthzDown"]
    unheard = _block(case.fires, _silence("AuthzDown", case.at))
    invented = _block(case.quiet[0], [_firing("AuthzDown", case.at, case)])

    assert [1, 1] == [_verdict(promtool, tmp_path, block)[0] for block in (unheard, invented)]
