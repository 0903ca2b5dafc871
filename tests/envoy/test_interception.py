"""What is rendered for connections that the kernel redirects to Envoy. What comes of it: tests/deploy."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from authz.cli import main
from authz.config import Config
from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import RenderError, SidecarSettings, Transparent
from support.proxy.envoy import validate
from support.proxy.sidecar import Authority

TENANT = "11111111-0000-4000-8000-000000000001"
HTTP = "envoy.filters.network.http_connection_manager"
PASS = SidecarSettings(transparent=Transparent.PASS_TLS)
REFUSE = SidecarSettings(transparent=Transparent.REFUSE_TLS)


def config(*hosts: str) -> Config:
    """Return a configuration with one egress route for these hosts."""
    route = {"api": {"flow": "none", "hosts": list(hosts)}} if hosts else {}
    inbound = {"tenants": [TENANT], "audiences": ["a"]}
    document = {"inbound": {"chat": {**inbound, "scopes": ["s"]}}, "egress": route}
    return parse(yaml.safe_dump(document), {})


def egress(config: Config, settings: SidecarSettings) -> dict[str, Any]:
    """Return the egress listener, as data."""
    listeners = yaml.safe_load(render(config, settings))["static_resources"]["listeners"]
    found: dict[str, Any]
    (found,) = (entry for entry in listeners if entry["name"] == "egress")
    return found


def chains(listener: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the condition of each chain for TLS beyond that, and the name of its filter."""
    found = {}
    for chain in listener["filter_chains"]:
        condition = dict(chain["filter_chain_match"])
        assert condition.pop("transport_protocol") == "tls"
        (filter_,) = chain["filters"]
        found[chain["name"]] = (condition, filter_["name"])
    return found


ALERT = "envoy.filters.network.direct_response"
PROXY = "envoy.filters.network.tcp_proxy"
HOSTS = ["api.example:8443", "*.corp.example", "http://tools.example:8000"]
LOOPBACK = [
    {"address_prefix": "127.0.0.0", "prefix_len": 8},
    {"address_prefix": "::1", "prefix_len": 128},
]


def test_without_the_option_nothing_of_it_is_rendered() -> None:
    """Who uses a proxy gets no listener filter, and no way past the routes."""
    plain = yaml.safe_load(render(config("api.example"), SidecarSettings()))
    (listener,) = (
        each for each in plain["static_resources"]["listeners"] if each["name"] == "egress"
    )

    for word in ("original_dst", "tls_inspector"):
        assert word not in str(listener)
    assert "ORIGINAL_DST" not in str(plain)


@pytest.mark.parametrize("settings", [PASS, REFUSE])
def test_plain_http_meets_the_filters_and_routes_of_the_proxy(settings: SidecarSettings) -> None:
    """The chain for whatever is no TLS is the very one of the explicit form."""
    ours = egress(config("api.example"), settings)["default_filter_chain"]
    (plain,) = egress(config("api.example"), SidecarSettings())["filter_chains"]

    assert ours == {**plain, "name": "http"}
    assert [HTTP] == [entry["name"] for entry in ours["filters"]]


def test_hosts_with_a_route_and_loopback_are_not_passed_on() -> None:
    """By name, by wildcard and by address; these are answered with an alert of TLS."""
    hosts = (
        "API.example",
        "inventory.internal:8443",
        "*.corp.example",
        "192.0.2.7",
        "[2001:db8::7]",
    )

    found = chains(egress(config(*hosts), PASS))

    addresses = [
        {"address_prefix": "192.0.2.7", "prefix_len": 32},
        {"address_prefix": "2001:db8::7", "prefix_len": 128},
    ]
    plain = ["api.example", "inventory.internal", "*.corp.example"]
    names = [*plain, *(f"{name}." for name in plain)]
    assert found == {
        "refused": ({"prefix_ranges": [*LOOPBACK, *addresses]}, ALERT),
        "routed": ({"server_names": names}, ALERT),
        "untouched": ({}, PROXY),
    }


def test_tls_to_a_host_of_plain_http_without_a_token_is_another_service() -> None:
    """Its route could not serve that; it goes on as it would without the route."""
    found = chains(
        egress(config("http://mcp.tools.svc:8000", "http://192.0.2.7", "http://*"), PASS)
    )

    assert found == {"refused": ({"prefix_ranges": LOOPBACK}, ALERT), "untouched": ({}, PROXY)}


def test_tls_to_a_host_of_plain_http_with_a_token_is_refused() -> None:
    """The agent meant to have the token."""
    client = {"tenant_id": TENANT, "client_id": TENANT}
    secret = {"client_secret": {"file": "/run/secret"}}
    document = {
        "applications": {"a": {**client, "credentials": [secret]}},
        "egress": {
            "api": {
                "flow": "app",
                "application": "a",
                "scopes": ["api://x/.default"],
                "hosts": ["http://orders.svc:8080"],
                "token_over_plain_http": True,
            }
        },
    }

    found = chains(egress(parse(yaml.safe_dump(document), {}), PASS))

    assert found["routed"] == ({"server_names": ["orders.svc", "orders.svc."]}, ALERT)


def test_addresses_alone_leave_no_condition_on_names() -> None:
    """An empty list of names would match every name."""
    found = chains(egress(config("192.0.2.7"), PASS))

    assert list(found) == ["refused", "untouched"]


@pytest.mark.parametrize(
    ("hosts", "settings"), [(("api.example",), REFUSE), (("*", "api.example"), PASS)]
)
def test_all_tls_is_refused(hosts: tuple[str, ...], settings: SidecarSettings) -> None:
    """On request, and where every host has a route."""
    assert chains(egress(config(*hosts), settings)) == {"refused": ({}, ALERT)}


@pytest.mark.parametrize("settings", [PASS, REFUSE])
def test_tls_that_envoy_may_end_is_ended_here(settings: SidecarSettings) -> None:
    """With `https`: by a chain for each name. A wildcard has no certificate, and is refused as ever.

    A host of plain HTTP has none either: TLS to it would be promised and not kept.
    """
    document = {
        "listen": {"grpc": "unix:/run/authz.sock"},
        "https": {"ca_file": "/a", "bundle_file": "/b", "key_file": "/k"},
        "egress": {"api": {"flow": "none", "hosts": HOSTS}},
    }
    text = render(parse(yaml.safe_dump(document), {}), settings)
    listener, _ = yaml.safe_load(text)["static_resources"]["listeners"]

    ended, *others = listener["filter_chains"]

    assert ended["name"] == "api.example"
    assert ended["filter_chain_match"] == {"server_names": ["api.example"]}
    assert ended["filters"] == listener["default_filter_chain"]["filters"]
    routed = [each for each in others if each["name"] == "routed"]
    refused = ["*.corp.example", "api.example.", "*.corp.example."]
    assert [refused] * (settings is PASS) == [
        each["filter_chain_match"]["server_names"] for each in routed
    ]


def test_only_what_was_redirected_goes_where_it_was_going() -> None:
    """No header and no metadata names the address: the kernel does."""
    clusters = yaml.safe_load(render(config("api.example"), PASS))["static_resources"]["clusters"]

    (untouched,) = (entry for entry in clusters if entry["name"] == "untouched")
    assert untouched["type"] == "ORIGINAL_DST"
    assert not {"original_dst_lb_config", "transport_socket"} & untouched.keys()
    refusing = yaml.safe_load(render(config("api.example"), REFUSE))["static_resources"]["clusters"]
    assert "untouched" not in [entry["name"] for entry in refusing]


@pytest.mark.parametrize("settings", [PASS, REFUSE])
@pytest.mark.parametrize(
    "hosts",
    [
        ("api.example", "a.example:8443"),
        ("*",),
        ("*.a.example", "192.0.2.7"),
        ("http://*", "http://a"),
    ],
)
def test_envoy_accepts_it(
    authority: Authority, hosts: tuple[str, ...], settings: SidecarSettings, tmp_path: Path
) -> None:
    """`envoy --mode validate` has no error and no warning."""
    trusting = replace(settings, upstream_ca_file=authority.file)
    text = render(config(*hosts), trusting)

    outcome = validate(text, tmp_path)

    assert (0, "") == (outcome.returncode, outcome.stderr)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:15001", "[::1]:15001", "localhost:15001", "127.0.0.1:0", "unix:/run/e.sock"],
)
def test_egress_address_must_be_where_the_kernel_redirects_to(address: str) -> None:
    """127.0.0.1 with a real port, since ::1 gets the same one."""
    with pytest.raises(RenderError, match="egress_address"):
        SidecarSettings(egress_address=address, transparent=Transparent.PASS_TLS)


def test_there_must_be_a_destination() -> None:
    """Without an egress route nothing listens where the connections arrive."""
    with pytest.raises(RenderError, match="no egress route"):
        render(config(), PASS)


@pytest.mark.parametrize("transparent", list(Transparent))
def test_option_of_the_command(transparent: Transparent, tmp_path: Path) -> None:
    """`authz envoy --transparent` renders the same, and knows each choice."""
    file = tmp_path / "authz.yaml"
    file.write_text("egress: {api: {flow: none, hosts: [api.example]}}\n")
    command = ["envoy", "--config", str(file), "--transparent", transparent.value]

    outcome = CliRunner().invoke(main, command)

    expected = render(parse(file.read_text(), {}), SidecarSettings(transparent=transparent))
    assert (0, expected) == (
        outcome.exit_code,
        "".join(line for line in outcome.stdout.splitlines(keepends=True) if line[0] != "#"),
    )
