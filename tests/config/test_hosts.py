"""Hosts of egress routes: which of them are on loopback, and which deserve a notice."""

from typing import Any

import pytest

from authz.config.consistency.advice import advice
from authz.config.faults import Fault, Notice
from authz.config.sections.hosts import is_loopback
from authz.core.exchange import Flow
from config.samples import changed, faults_of, load_data

ADDRESS = (
    "found {}: expected a name, or an IPv4 address as four numbers without leading zeros: 127.0.0.1"
)
NONE = {"flow": "none"}


def notices(changes: dict[str, Any]) -> list[Notice]:
    """Return the notices about hosts."""
    found = advice(load_data(changed(changes)))
    return [
        notice for notice in found if ".hosts" in notice.path or "token_to_loopback" in notice.path
    ]


@pytest.mark.parametrize(
    "host",
    [
        "http://127.0.0.1:8000",
        "127.255.0.9",
        "localhost:8443",
        "http://LocalHost",
        "http://api.localhost:8000",
        "*.localhost",
        "http://ip6-localhost:8000",
        "ip6-loopback",
        "localhost.localdomain",
        "[::1]",
        "http://0.0.0.0:8000",
        "[::]:8443",
    ],
)
def test_a_token_to_loopback_is_a_fault(host: str) -> None:
    """Containers of a pod share it, so the agent can listen there and receive its own token (law 2)."""
    changes = {"egress.graph.hosts": ["a.example", host]}
    (fault,) = faults_of(lambda: load_data(changed(changes)))

    shown = host.lower()
    assert ("egress.graph.hosts.1", shown) == (fault.path, fault.message.split("'")[1])
    assert fault.message.endswith(
        ", where any container of the pod may listen, the agent too, and would receive the token of flow "
        "on_behalf_of: expected a host outside of the pod, or `token_to_loopback: true`"
    )


@pytest.mark.parametrize("host", ["127.1", "http://0x7f.0.0.1:8000", "2130706433", "0177.0.0.1"])
def test_no_other_form_of_an_address_is_a_host(host: str) -> None:
    """Name resolution takes each of them for 127.0.0.1, and nobody reads them so."""
    faults = faults_of(lambda: load_data(changed({"egress.graph.hosts": [host]})))
    assert [Fault("egress.graph.hosts.0", ADDRESS.format(repr(host)), 1)] == faults


@pytest.mark.parametrize("host", ["*.1", "*.0.0.1"])
def test_no_wildcard_is_of_addresses(host: str) -> None:
    """A suffix of numbers would match loopback."""
    faults = faults_of(lambda: load_data(changed({"egress.graph.hosts": [host]})))
    assert [Fault("egress.graph.hosts.0", ADDRESS.format(repr(host)), 1)] == faults


@pytest.mark.parametrize("flow", ["autonomous", "on_behalf_of"])
def test_a_switch_lets_a_token_go_to_loopback_with_a_notice(flow: str) -> None:
    """An API beside the agent is a use; `check-config` and the start still say what it means."""
    changes = {
        "egress.graph.hosts": ["graph.microsoft.com", "http://127.0.0.1:8000"],
        "egress.graph.flow": flow,
        "egress.graph.token_to_loopback": True,
    }
    expected = (
        "any program of the pod or of this machine can listen on http://127.0.0.1:8000, the agent too, and receive the token of "
        "egress.graph: expected hosts outside of it"
    )
    assert [Notice("egress.graph.token_to_loopback", expected)] == notices(changes)


def test_routes_to_loopback_have_one_notice_together() -> None:
    """Their operator has said it on each of them."""
    second = {
        "flow": "autonomous",
        "agent": "assistant",
        "scopes": ["api://x/.default"],
        "hosts": ["http://127.0.0.1:8000", "localhost:9000"],
        "token_to_loopback": True,
    }
    changes = {
        "egress.graph.hosts": ["http://127.0.0.1:7000"],
        "egress.graph.token_to_loopback": True,
        "egress.stock": second,
    }

    (notice,) = notices(changes)

    assert "egress.graph.token_to_loopback" == notice.path
    assert (
        "http://127.0.0.1:7000, http://127.0.0.1:8000, localhost:9000, the agent" in notice.message
    )
    assert "the token of egress.graph, egress.stock: expected" in notice.message


def test_without_a_token_loopback_is_a_host_like_any_other() -> None:
    """There is nothing to receive, and no notice."""
    assert [] == notices({"egress.tools": {**NONE, "hosts": ["http://localhost:4318"]}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"egress.graph.token_to_loopback": True}, "has no effect: no host is on loopback"),
        (
            {"egress.graph": {**NONE, "hosts": ["localhost"], "token_to_loopback": True}},
            "does not go with flow none, which gives no token",
        ),
    ],
)
def test_a_switch_that_switches_nothing_is_a_fault(changes: dict[str, Any], message: str) -> None:
    """It would look as if it did."""
    (fault,) = faults_of(lambda: load_data(changed(changes)))
    assert ("egress.graph.token_to_loopback", message) == (fault.path, fault.message)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("127.0.0.1:80", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("[::FFFF:7f00:1]", True),
        ("localhost", True),
        ("a.b.localhost:1", True),
        ("notlocalhost", False),
        ("0.0.0.0:9191", False),
        ("[::ffff:10.0.0.1]", False),
        ("[::", False),
    ],
)
def test_loopback_is_known_in_each_form(authority: str, expected: bool) -> None:
    """A mapped address is the one that it stands for. What listens on every address is not on loopback."""
    assert expected is is_loopback(authority)


OPEN = (
    "the token of flow {} goes to any host that {!r} matches, and strangers can get such a name and a certificate "
    "for it: expected the hosts of the API by name, or a wildcard of a domain that is yours"
)


@pytest.mark.parametrize("flow", [Flow.ON_BEHALF_OF, Flow.AUTONOMOUS])
@pytest.mark.parametrize(
    "host",
    [
        "*",
        "*.com",
        "*.co.uk",
        "*.azurewebsites.net",
        "*.blob.core.windows.net",
        "*.westeurope.azurecontainerapps.io",
        "*.github.io",
    ],
)
def test_a_wildcard_that_strangers_can_match_is_a_notice(host: str, flow: Flow) -> None:
    """Anyone with a name below it and a certificate for that would receive the token."""
    changes = {"egress.graph.hosts": ["a.example", host], "egress.graph.flow": flow.value}
    expected = [Notice("egress.graph.hosts.1", OPEN.format(flow, host))]
    assert expected == notices(changes)


@pytest.mark.parametrize(
    "host", ["*.contoso.com", "*.orders.internal", "*.contoso.co.uk", "*.a.b.azurewebsites.net"]
)
def test_a_wildcard_of_a_domain_of_ones_own_is_none(host: str) -> None:
    """Its owner gives out the names."""
    assert [] == notices({"egress.graph.hosts": [host]})


def test_a_wildcard_without_a_token_is_none() -> None:
    """Nothing of worth goes there."""
    assert [] == notices({"egress.tools": {**NONE, "hosts": ["*.com", "*"]}})


def test_an_empty_list_of_hosts_is_a_notice() -> None:
    """Its author may think that it matches, or that it is gone."""
    expected = (
        "no host is listed, so Envoy sends no request to this route: expected the API's hosts, or no hosts key "
        "for a route of listen.api alone"
    )
    assert [Notice("egress.tools.hosts", expected)] == notices(
        {"egress.tools": {**NONE, "hosts": []}}
    )


def test_tls_on_the_port_of_plain_http_is_a_notice() -> None:
    """Hardly any host has it: the scheme was forgotten."""
    changes = {"egress.tools": {**NONE, "hosts": ["tools.svc:80", "[fd00::80]", "http://a:80"]}}
    expected = (
        "Envoy speaks TLS to tools.svc:80 on the port of plain HTTP: expected http://tools.svc for a host "
        "without TLS"
    )
    assert [Notice("egress.tools.hosts.0", expected)] == notices(changes)


TUNNELS = (
    "the app may open tunnels through Envoy to any host and port, for any protocol, and nobody sees what is sent in "
    "them: expected hosts by name, tunnel: false to refuse them, or tunnel: true if this is wanted"
)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [Notice("egress.tools.hosts.1", TUNNELS)]),
        ({"tunnel": False}, []),
        ({"tunnel": True}, []),
        ({"hosts": ["*.example"]}, []),
    ],
)
def test_tunnels_to_any_host_are_a_notice_where_nobody_asked_for_them(
    keys: dict[str, Any], expected: list[Notice]
) -> None:
    """By default a route without a token has tunnels, and `*` then is every port of every host."""
    route = {**NONE, "hosts": ["a.example", "*"], **keys}
    changes = {"inbound.chat.forward": "placeholder", "egress.tools": route}
    assert expected == notices(changes)


def test_plain_http_at_a_name_whose_tls_is_ended_is_a_fault() -> None:
    """Envoy would take the app's TLS to that port for the other host's, and send it on without."""
    https = {"ca_file": "/run/trust/ca.pem", "key_file": "/run/ca/ca.key"}
    changes = {
        "listen.grpc": "unix:/run/authz.sock",
        "https": https,
        "egress.tools": {"flow": "none", "hosts": ["http://graph.microsoft.com:8080"]},
    }

    assert ["egress.tools.hosts.0"] == [
        fault.path for fault in faults_of(lambda: load_data(changed(changes)))
    ]
    del changes["https"]
    assert load_data(changed(changes)).https is None


def test_a_wildcard_of_header_names_is_a_fault() -> None:
    """It would be taken for a name that no header has."""
    changes = {"egress.graph.remove_headers": ["x-*"]}

    assert ["egress.graph.remove_headers.0"] == [
        fault.path for fault in faults_of(lambda: load_data(changed(changes)))
    ]
