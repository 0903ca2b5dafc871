"""What Envoy configuration follows from which configuration of the service, and what is refused."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from hypothesis import given
from hypothesis import strategies as st

from authz.config import Config, ConfigError, compile_policy, load
from authz.config.reading.document import parse
from authz.config.sections.settings import EdgeCache
from authz.core.baggage import CARRIERS
from authz.core.request import CheckRequest
from authz.envoy_config.bootstrap import render
from authz.envoy_config.destinations import destinations, left_on_checks
from authz.envoy_config.edge_cache import EDGE, EDGE_CACHE, script
from authz.envoy_config.settings import (
    AuthzTls,
    RenderError,
    SidecarSettings,
    Upstream,
    socket_address,
)
from shipped.render import unmarked
from support.fakes.properties import thorough
from support.programs import program
from support.proxy.envoy import validate
from support.proxy.sidecar import EXAMPLE_ENVIRONMENT, Authority

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
SHIPPED = ROOT / "envoy" / "sidecar.yaml"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
DECIDES = (EXT_AUTHZ, EDGE_CACHE)
FAILS_OPEN = (
    "failure_mode_allow",
    "failure_mode_allow_header_add",
    "shadow_mode",
    "filter_enabled:",
    "deny_at_disable",
    "allow_request_without_credential",
)
SENDS_TWICE = (
    "hedge_policy",
    "internal_redirect_policy",
    "request_mirror_policies",
)
OVERRIDES = ("http-method-override", "http-method", "method-override")
REVEALS = ("with_request_body", "include_peer_certificate", "key_log")
DEFAULTS = SidecarSettings()


def config(
    egress: Mapping[str, list[str]] | None = None,
    *,
    inbound: tuple[str, ...] = ("chat",),
    listen: str = "",
) -> Config:
    """Return a configuration with the hosts of each egress route, and these inbound routes."""
    caller = "{tenants: [11111111-0000-4000-8000-000000000001], audiences: [a], scopes: [s]}"
    document = {
        "listen": yaml.safe_load(listen) or {},
        "inbound": {name: yaml.safe_load(caller) for name in inbound},
        "egress": {
            name: {"flow": "none", "hosts": names} for name, names in (egress or {}).items()
        },
    }
    return parse(yaml.safe_dump(document), {})


def rendered(config: Config, settings: SidecarSettings = DEFAULTS) -> dict[str, Any]:
    """Return a rendered configuration as data."""
    data: dict[str, Any] = yaml.safe_load(render(config, settings))
    return data


def settings_for(
    path: Path, config: Config, authority: Authority, directory: Path
) -> SidecarSettings:
    """Return settings with which an example can be rendered and validated on any machine."""
    tls = None
    if config.listen.tls is not None:
        certificate, key = directory / "client.pem", directory / "client.key"
        issued = authority.ca.issue_cert("envoy.example")
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        tls = AuthzTls(authority.file, "authz.example", certificate, key)
    return SidecarSettings(
        inbound_route=next(iter(config.inbound)),
        authz_tls=tls,
        upstream_ca_file=authority.file,
    )


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Return every key with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def listener(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the HTTP connection manager of a listener."""
    for entry in data["static_resources"]["listeners"]:
        if entry["name"] == name:
            manager: dict[str, Any] = entry["filter_chains"][0]["filters"][0]["typed_config"]
            return manager
    raise LookupError(name)


def cluster(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a cluster."""
    found: dict[str, Any]
    (found,) = (entry for entry in data["static_resources"]["clusters"] if entry["name"] == name)
    return found


def with_script(text: str) -> str:
    """Return the shipped configuration with the script in it, which it takes from a file beside it."""
    # What stands there once, and by name again, is apart from here on.
    document = json.loads(json.dumps(yaml.safe_load(text)))
    for key, value in walk(document):
        if key == "source_code":
            assert {"filename": "/etc/envoy/edge_cache.lua"} == value
            value.clear()
            value["inline_string"] = script()
    return yaml.safe_dump(document)


def injected(data: dict[str, Any], name: str) -> str | None:
    """Return the secret that a cluster injects; None if it injects none."""
    (options,) = cluster(data, name)["typed_extension_protocol_options"].values()
    filters = options.get("http_filters")
    if filters is None:
        return None
    why, injector, mutation, codec = (entry["typed_config"] for entry in filters)
    assert codec["@type"].endswith("UpstreamCodec")
    assert injector["overwrite"] is why["overwrite"] is True
    reason = why["credential"]["typed_config"]
    assert {"request_mutations": [{"remove": reason["header"]}]} == mutation["mutations"]
    generic = injector["credential"]["typed_config"]
    assert generic.keys() == {"@type", "credential"}
    secret: str = generic["credential"]["name"]
    assert f"refusal/{secret}" == reason["credential"]["name"]
    for source in (generic, reason):
        asked = source["credential"]["sds_config"]["api_config_source"]["grpc_services"]
        # Else a secret is missing for half a minute after the service has come back.
        assert ["2s"] == [
            each["envoy_grpc"]["retry_policy"]["retry_back_off"]["max_interval"] for each in asked
        ]
    return secret


def names(data: dict[str, Any], kind: str) -> list[str]:
    """Return the names of all listeners or clusters."""
    return [entry["name"] for entry in data["static_resources"].get(kind, [])]


@pytest.fixture(scope="module")
def every_configuration(
    example: Config, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The shipped configuration, and what is rendered for each example of the documentation."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority.create(directory)
    texts = {"shipped": with_script(SHIPPED.read_text())}
    for path in EXAMPLES:
        loaded = load(path, EXAMPLE_ENVIRONMENT).config
        texts[path.stem] = render(loaded, settings_for(path, loaded, authority, directory))
    return texts


KINDS = ["shipped", *(path.stem for path in EXAMPLES)]


@pytest.mark.parametrize("name", KINDS)
def test_envoy_accepts_the_configuration_and_finds_nothing_outdated(
    every_configuration: dict[str, str], authority: Authority, tmp_path: Path, name: str
) -> None:
    """`envoy --mode validate` has no error and no warning."""
    text = every_configuration[name].replace(
        str(SidecarSettings().upstream_ca_file), str(authority.file)
    )

    outcome = validate(text, tmp_path)

    assert (0, "") == (outcome.returncode, outcome.stderr)


def test_validation_finds_a_misspelt_field(example: Config, tmp_path: Path) -> None:
    """The tests with `validate` can fail."""
    text = with_script(SHIPPED.read_text()).replace("stat_prefix: inbound", "stat_prefixx: inbound")

    outcome = validate(text, tmp_path)

    assert 1 == outcome.returncode
    assert "stat_prefixx" in outcome.stderr


def test_script_beside_the_shipped_configuration_is_the_one_that_is_rendered() -> None:
    """`envoy/edge_cache.lua` is the package's own file."""
    assert script() == (ROOT / "envoy" / "edge_cache.lua").read_text()


def test_script_is_in_the_wheel(tmp_path: Path) -> None:
    """`authz envoy` renders it wherever the package was installed."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*command, tmp_path], cwd=ROOT, check=True, capture_output=True)

    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert script() == archive.read("authz/envoy_config/edge_cache.lua").decode()


def test_shipped_configuration_is_what_is_rendered_for_the_example(example: Config) -> None:
    """Field by field, read through the full schema: neither can drift from the other."""
    ours = Bootstrap.from_dict(yaml.safe_load(with_script(SHIPPED.read_text())))

    # But for the mark of what it was rendered from: people write this file.
    expected = Bootstrap.from_dict(unmarked(render(example, DEFAULTS))).to_dict()
    assert expected == ours.to_dict()


@pytest.mark.parametrize("field", [*FAILS_OPEN, *SENDS_TWICE, *REVEALS])
@pytest.mark.parametrize("name", KINDS)
def test_configuration_has_no_dangerous_knob(
    every_configuration: dict[str, str], name: str, field: str
) -> None:
    """Nothing fails open, sends a token twice, or gives the service more than it needs; not even as false."""
    assert field not in every_configuration[name]


@pytest.mark.parametrize("name", KINDS)
def test_only_what_reads_is_sent_twice_after_it_was_sent(
    every_configuration: dict[str, str], name: str
) -> None:
    """What changes something may go again only where nobody has taken it; a Check, never."""
    data = yaml.safe_load(every_configuration[name])

    for entry in data["static_resources"]["listeners"]:
        for host in listener(data, entry["name"])["route_config"]["virtual_hosts"]:
            for route in (route for route in host["routes"] if "route" in route):
                if "connect_matcher" in route["match"]:
                    # Nobody knows what has been sent in a connection.
                    assert "retry_policy" not in route["route"]
                    continue
                names = [item["name"] for item in route["match"].get("headers", [])]
                reads = ":method" in names
                # A framework may take another method from one of these; on a health path they are removed.
                exact = "path" in route["match"]
                assert not reads or exact or all(f"x-{name}" in names for name in OVERRIDES)
                assert {
                    "retry_on": "reset" if reads else "refused-stream",
                    "num_retries": 1,
                } == route["route"]["retry_policy"]
                assert "retry_policy" not in host
    for each in data["static_resources"]["clusters"]:
        (bounds,) = each["circuit_breakers"]["thresholds"]
        never = each["name"] in ("authz", "authz-checks", "connect") or each["name"].startswith(
            "tunnel"
        )
        assert (0 if never else 100) == bounds["max_retries"]


def test_no_yaml_of_the_project_fails_open() -> None:
    """Whatever is shipped, for Envoy itself or inside a Kubernetes object."""
    files = [
        file for place in ("envoy", "kubernetes", "docs") for file in ROOT.glob(f"{place}/**/*")
    ]
    yaml_files = [file for file in files if file.suffix in (".yaml", ".yml")]

    assert SHIPPED in yaml_files
    # Rules of Prometheus speak of it.
    key = re.compile(r"failure_mode_allow['\"]?\s*:")
    assert [] == [file for file in yaml_files if key.search(file.read_text())]


@pytest.mark.parametrize("name", KINDS)
def test_only_health_checks_and_pushed_tokens_go_without_a_decision(
    every_configuration: dict[str, str], name: str
) -> None:
    """Every other route has its direction, and every listener its filter, before all but the edge cache.

    Where a token is pushed, the cluster replaces whatever the agent sent by the route's own secret.
    """
    data = yaml.safe_load(every_configuration[name])

    exempt, pushed = [], []
    for entry in data["static_resources"]["listeners"]:
        manager = listener(data, entry["name"])
        names = [entry["name"] for entry in manager["http_filters"]]
        assert EXT_AUTHZ == next(name for name in names if name != EDGE_CACHE)
        for host in manager["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                settings = route["typed_per_filter_config"][EXT_AUTHZ]
                if settings.get("disabled") and route.get("direct_response"):
                    # The second is for loopback, which a wildcard with a token spares.
                    assert (route["name"], route["direct_response"]["status"]) in {
                        ("refused-method", 405),
                        ("not-configured", 403),
                    }
                elif settings.get("disabled") and route["name"] == "connect":
                    # What is inside is asked about: the listener has these very filters and routes.
                    inside = listener(data, "connect")
                    assert inside == listener(data, "egress")
                    assert "connect_matcher" in route["match"]
                elif settings.get("disabled") and entry["name"] in ("egress", "connect"):
                    pushed.append((route["name"], injected(data, route["route"]["cluster"])))
                elif settings.get("disabled"):
                    exempt.append(route["match"]["path"])
                else:
                    extensions = settings["check_settings"]["context_extensions"]
                    direction = "egress" if entry["name"] == "connect" else entry["name"]
                    assert direction == extensions["authz.direction"]

    assert ["/healthz", "/readyz", "/livez"] == exempt
    assert all(route == secret for route, secret in pushed)


@pytest.mark.parametrize("name", KINDS)
def test_both_listeners_ask_in_the_same_way(every_configuration: dict[str, str], name: str) -> None:
    """There is one configuration of the filter, whichever way a request goes."""
    data = yaml.safe_load(every_configuration[name])

    filters = [
        [
            entry
            for entry in listener(data, each["name"])["http_filters"]
            if entry["name"] in DECIDES
        ]
        for each in data["static_resources"]["listeners"]
    ]
    assert all(filters[0] == other for other in filters)


@pytest.mark.parametrize("name", KINDS)
def test_ext_authz_is_switched_off_for_what_the_edge_cache_answered_and_nothing_else(
    every_configuration: dict[str, str], name: str
) -> None:
    """The matcher is inverted: without metadata, and with any other, the service is asked."""
    data = yaml.safe_load(every_configuration[name])

    for entry in data["static_resources"]["listeners"]:
        filters = listener(data, entry["name"])["http_filters"]
        names = [each["name"] for each in filters]
        assert [EDGE_CACHE, EXT_AUTHZ, EDGE_CACHE] == names[:3]
        where = {"filter": "authz.edge", "path": [{"key": "decision"}]}
        value = {"string_match": {"exact": "allow"}}
        when = filters[1]["typed_config"]["filter_enabled_metadata"]
        assert {**where, "value": value, "invert": True} == when
        # The second is the first, but where ext_authz was switched off there is nothing to learn.
        second = filters[2]["typed_config"]
        assert filters[0] == second["extension_config"]
        (rule,) = second["xds_matcher"]["matcher_list"]["matchers"]
        predicate = rule["predicate"]["single_predicate"]
        assert where.items() <= predicate["input"]["typed_config"].items()
        assert value == predicate["custom_match"]["typed_config"]["value"]
        assert rule["on_match"]["action"]["typed_config"]["@type"].endswith("v3.SkipFilter")


@pytest.mark.parametrize("name", KINDS)
def test_edge_cache_knows_each_route_by_the_name_that_the_service_is_told(
    every_configuration: dict[str, str], name: str
) -> None:
    """Or is off on it: on health checks and on the dead end of unknown hosts. The log knows it so, too."""
    data = yaml.safe_load(every_configuration[name])

    for entry in data["static_resources"]["listeners"]:
        for host in listener(data, entry["name"])["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                filters = route["typed_per_filter_config"]
                check = filters[EXT_AUTHZ].get("check_settings", {}).get("context_extensions", {})
                told = route.get("metadata", {}).get("filter_metadata", {}).get(EDGE, {})
                if "authz.edge" in check:
                    assert check["authz.route"] == route["name"] == told["route"]
                    assert EDGE_CACHE not in filters
                else:
                    assert {} == told
                    assert filters[EDGE_CACHE]["disabled"]


def test_without_a_time_to_live_there_is_no_edge_cache(example: Config) -> None:
    """`cache.edge.max_ttl: 0` leaves nothing of it in Envoy."""
    words = ("edge", "repeats what")
    assert "repeats what" in script()
    assert "edge" in render(example, DEFAULTS)

    off = example.model_copy(
        update={"cache": example.cache.model_copy(update={"edge": EdgeCache(max_ttl=0)})}
    )

    for word in words:
        assert word not in render(off, DEFAULTS).lower()


def test_route_whose_caller_only_the_service_can_tell_apart_is_not_repeated() -> None:
    """Workloads that Envoy vouches for are no part of what its cache goes by: each request is asked about."""
    tenant = "11111111-0000-4000-8000-000000000001"
    route = {"flow": "app", "application": "a", "scopes": ["https://graph.microsoft.com/.default"]}
    document = {
        "listen": {"workload_identity": "source_principal"},
        "applications": {
            "a": {
                "tenant_id": tenant,
                "client_id": tenant,
                "credentials": [{"client_secret": {"file": "/run/secret"}}],
            }
        },
        "egress": {
            "bound": {**route, "hosts": ["bound.example"], "workloads": ["spiffe://a/b"]},
            "free": {"flow": "none", "hosts": ["free.example"]},
        },
    }
    found = parse(yaml.safe_dump(document), {})

    assert {"bound": False, "free": True} == {
        target.route: target.repeated
        for target in destinations(found, compile_policy(found), DEFAULTS)
    }


def test_every_destination_is_reached_by_tls_with_its_own_name(example: Config) -> None:
    """SNI and the name demanded of the certificate are the host of the route."""
    data = rendered(example)

    for host in ("graph.microsoft.com", "inventory.internal:8443", "api.weather.example"):
        name = host.partition(":")[0]
        tls = cluster(data, f"egress/{host}")["transport_socket"]["typed_config"]
        validation = tls["common_tls_context"]["validation_context"]
        assert name == tls["sni"]
        assert [{"san_type": "DNS", "matcher": {"exact": name}}] == (
            validation["match_typed_subject_alt_names"]
        )


def test_ip_address_is_demanded_as_address_and_not_sent_as_name() -> None:
    """RFC 6066 section 3: no SNI for an address; the certificate must hold it as an address."""
    data = rendered(config({"addresses": ["192.0.2.7", "[2001:db8::7]:8443"]}))

    for host, address, port in (
        ("192.0.2.7", "192.0.2.7", 443),
        ("[2001:db8::7]:8443", "2001:db8::7", 8443),
    ):
        found = cluster(data, f"egress/{host}")
        tls = found["transport_socket"]["typed_config"]
        names = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
        endpoint = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        assert "sni" not in tls
        assert [{"san_type": "IP_ADDRESS", "matcher": {"exact": address}}] == names
        assert {"address": address, "port_value": port} == endpoint["address"]["socket_address"]


def test_configuration_without_egress_has_no_egress_listener() -> None:
    """A gateway in front of agents needs the one direction only."""
    data = rendered(config())

    assert ["inbound"] == names(data, "listeners")
    assert ["authz", "app"] == names(data, "clusters")


def test_configuration_without_inbound_has_no_inbound_listener() -> None:
    """An agent that nobody calls needs no open port."""
    data = rendered(config({"graph": ["graph.microsoft.com"]}, inbound=()))

    assert ["egress", "connect"] == names(data, "listeners")
    assert ["authz", "egress/graph.microsoft.com", "connect"] == names(data, "clusters")


def test_route_that_is_found_by_name_only_gives_nothing_to_listen_for() -> None:
    """Without a host, Envoy cannot know what is meant."""
    with pytest.raises(RenderError, match="nothing to listen for"):
        render(config({"unnamed": []}, inbound=()), DEFAULTS)


def test_wildcard_route_takes_the_place_of_the_dead_end() -> None:
    """With host `*` everything goes through that route; there is no second host for the rest."""
    data = rendered(config({"everything": ["*"]}))

    hosts = listener(data, "egress")["route_config"]["virtual_hosts"]
    assert [["*"]] == [host["domains"] for host in hosts]
    assert ["authz", "app", "egress", "connect"] == names(data, "clusters")


def test_wildcards_are_resolved_by_the_request_and_checked_against_it() -> None:
    """One cluster for all wildcards asks for, and demands, the name that the request has."""
    data = rendered(config({"internal": ["*.internal", "*.corp.example"]}))

    found = cluster(data, "egress")
    (options,) = found["typed_extension_protocol_options"].values()
    assert {"auto_sni": True, "auto_san_validation": True} == (
        options["upstream_http_protocol_options"]
    )
    assert "envoy.filters.http.dynamic_forward_proxy" in [
        entry["name"] for entry in listener(data, "egress")["http_filters"]
    ]


HOST = st.builds(
    "{}{}".format,
    st.sampled_from(["a", "b.a", "c.b.a", "*.a", "*.b.a", "*", "[::1]", "192.0.2.1"]),
    st.sampled_from(["", "", ":443", ":80", ":8443"]),
).filter(lambda host: not (host.startswith("*") and ":" in host))


@thorough
@given(
    st.dictionaries(st.sampled_from("pqrs"), st.lists(HOST, max_size=3, unique=True), min_size=1)
)
def test_envoy_and_the_service_read_hosts_alike(routes: dict[str, list[str]]) -> None:
    """No authority leads to two hosts in Envoy, and each to the route the service would choose by host."""
    try:
        found = config(routes)
    except ConfigError:
        return  # a host in two routes
    policy = compile_policy(found)

    targets = destinations(found, compile_policy(found), DEFAULTS)

    domains = [domain for target in targets for domain in target.domains]
    assert len(domains) == len(set(domains))
    for target in targets:
        for domain in target.domains:
            host = domain.replace("*", "x")
            if host == domain or host not in domains:
                asked = CheckRequest(host=host, direction="egress")
                assert target.route == policy.find(asked).name


APP_ROUTE = """
listen: {listen}
applications:
  portal:
    tenant_id: 11111111-0000-4000-8000-000000000001
    client_id: 66666666-0000-4000-8000-000000000001
    credentials: [{{client_secret: {{env: PORTAL_CLIENT_SECRET}}}}]
egress:
  api:
    flow: app
    application: portal
    scopes: [api://orders/.default]
    hosts: [{hosts}]
    {more}
  other: {{flow: none, hosts: ["*.plain"]}}
"""
ON_SOCKET = "{grpc: 'unix:/run/authz.sock'}"
ON_TCP = "{grpc: 'localhost:9901'}"
MUTUAL = "{grpc: 'localhost:9901', tls: {certificate_file: c, key_file: k, client_ca_file: a}}"
ONE_SIDED = "{grpc: 'localhost:9901', tls: {certificate_file: c, key_file: k}}"
OWN = AuthzTls(Path("ca"), "authz", Path("cert"), Path("key"))


def app_route(listen: str = ON_SOCKET, *, hosts: str = "api.example", more: str = "") -> Config:
    """Return a configuration with one route whose token can be pushed, and one without token."""
    text = APP_ROUTE.format(listen=listen, hosts=hosts, more=more)
    return parse(text, {"PORTAL_CLIENT_SECRET": "s"})


@pytest.mark.parametrize(
    ("listen", "settings", "pushed"),
    [
        (ON_SOCKET, {}, True),
        (ON_SOCKET, {"authz_address": "localhost:9901"}, False),
        (ON_TCP, {}, False),
        (ON_TCP, {"authz_address": "unix:/run/forwarder.sock"}, False),
        (ONE_SIDED, {"authz_tls": AuthzTls(Path("ca"), "authz")}, False),
        (ONE_SIDED, {"authz_tls": OWN}, False),
        (MUTUAL, {"authz_tls": OWN}, True),
        (
            "{grpc: 'unix:/run/authz.sock', workload_identity: source_principal}",
            {},
            False,
        ),
    ],
)
def test_token_is_pushed_only_where_the_service_would_give_it(
    listen: str, settings: dict[str, Any], pushed: bool
) -> None:
    """Law 2: Envoy must prove itself. Else the route stays on Checks, and the operator is told."""
    found, given = app_route(listen), SidecarSettings(**settings)

    data = rendered(found, given)

    _, *routes = listener(data, "egress")["route_config"]["virtual_hosts"][0]["routes"]
    assert {pushed} == {
        route["typed_per_filter_config"][EXT_AUTHZ].get("disabled", False)
        for route in routes
        if "connect_matcher" not in route["match"]
    }
    assert ("api" if pushed else None) == injected(data, "egress/api.example")
    assert ([] if pushed else ["api"]) == left_on_checks(found, given)
    assert pushed == ("node" in data)
    told = yaml.safe_dump(listener(data, "egress")["local_reply_config"])
    assert pushed == ("failed_to_inject_credential" in told)


def test_route_with_push_off_stays_on_checks() -> None:
    """For who wants each request on record; that is no mistake to be told of."""
    found = app_route(more="push: false")

    data = rendered(found)

    assert injected(data, "egress/api.example") is None
    assert [] == left_on_checks(found, DEFAULTS)


def test_pushed_wildcards_have_a_cluster_of_their_own_and_one_dns_cache() -> None:
    """A token is injected into requests of its own route only; names are resolved in one place."""
    data = rendered(app_route(hosts="'*.api', '*.api.example', api.example"))

    expected = ["authz", "egress/api.example", "pushed/api", "egress", "connect"]
    assert expected == names(data, "clusters")
    assert ["api", "api", None] == [
        injected(data, name) for name in ("egress/api.example", "pushed/api", "egress")
    ]
    caches = [
        cluster(data, name)["cluster_type"]["typed_config"]["dns_cache_config"]
        for name in ("pushed/api", "egress")
    ]
    assert caches[0] == caches[1]


def test_envoy_accepts_pushed_wildcards(tmp_path: Path) -> None:
    """`envoy --mode validate` has no error and no warning."""
    authority = Authority.create(tmp_path)
    text = render(
        app_route(hosts="'*.api', api.example"), SidecarSettings(upstream_ca_file=authority.file)
    )

    outcome = validate(text, tmp_path)

    assert (0, "") == (outcome.returncode, outcome.stderr)


def test_service_on_tcp_is_health_checked_and_left_out_when_sick() -> None:
    """GRPC health decides; panic would send Checks to sick replicas."""
    data = rendered(
        config(listen="{grpc: 'localhost:9901'}"),
        SidecarSettings(authz_address="authz.ns.svc:9901"),
    )

    found = cluster(data, "authz")
    (check,) = found["health_checks"]
    service = {"service_name": "envoy.service.auth.v3.Authorization"}
    assert service == check["grpc_health_check"]
    assert {"healthy_panic_threshold": {}} == found["common_lb_config"]
    assert "all_addresses_in_single_endpoint" not in found["cluster_type"]["typed_config"]


@pytest.mark.parametrize(
    ("where", "asked"),
    [
        (None, "authz-checks"),
        ("unix:/run/authz.sock", "authz-checks"),
        ("unix:/run/forwarder.sock", "authz"),
        ("authz.ns.svc:9901", "authz"),
    ],
)
def test_checks_go_to_their_own_socket_where_envoy_shares_the_pod(
    where: str | None, asked: str
) -> None:
    """Secrets stay where they are; an Envoy that finds the service elsewhere has one way to it."""
    data = rendered(
        config(listen="{grpc: 'unix:/run/authz.sock', checks: 'unix:/run/checks.sock'}"),
        SidecarSettings(authz_address=where),
    )

    listeners = json.dumps(data["static_resources"]["listeners"])
    names = {found["name"] for found in data["static_resources"]["clusters"]}
    assert {asked} == set(re.findall(r'"envoy_grpc": {"cluster_name": "([^"]+)"', listeners))
    assert ("authz-checks" in names) == (asked == "authz-checks")


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("127.0.0.1:9901", ("127.0.0.1", 9901)),
        ("0.0.0.0:9901", ("127.0.0.1", 9901)),
        ("[::]:9901", ("::1", 9901)),
        ("[::1]:9901", ("::1", 9901)),
    ],
)
def test_service_that_listens_everywhere_is_reached_on_loopback(
    listens: str, reached: tuple[str, int]
) -> None:
    """The wildcard address is one to listen on, not one to connect to."""
    data = rendered(config(listen=f"{{grpc: '{listens}'}}"))

    endpoint = cluster(data, "authz")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert reached == (address["address"], address["port_value"])


def test_name_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    """Envoy's YAML parser and ours differ in what they take for text; quoted text is text for both."""
    names = ["y", "N", "no", "Yes", "on", "null", "1e3", "0x1f", "012", "1_0", "1.5"]
    authority = Authority.create(tmp_path)
    routes = {name: [f"{index}.example"] for index, name in enumerate(names)}

    outcome = validate(
        render(config(routes), SidecarSettings(upstream_ca_file=authority.file)), tmp_path
    )

    assert (0, "") == (outcome.returncode, outcome.stderr)


@pytest.mark.parametrize(
    ("found", "settings", "message"),
    [
        (config(inbound=("one", "two")), {}, "there are several: one, two"),
        (config(), {"inbound_route": "other"}, "'other' is no inbound route"),
        (config(listen="{grpc: 'localhost:0'}"), {}, "real port"),
        (
            config({"a": ["a.example"]}),
            {"upstreams": {"b.example": Upstream("127.0.0.1:1")}},
            "'b.example' is not a host",
        ),
        (config({"a": ["*.a"]}), {"upstreams": {"*.a": Upstream("127.0.0.1:1")}}, "is not a host"),
        (
            config({"a": ["http://a"]}),
            {"upstreams": {"a": Upstream("127.0.0.1:1")}},
            "'a' is not a host",
        ),
        (config(), {"authz_tls": AuthzTls(Path("ca"), "authz")}, "has no listen.tls"),
        (
            config(listen="{grpc: 'localhost:1', tls: {certificate_file: c, key_file: k}}"),
            {},
            "is missing, and the service has listen.tls",
        ),
        (
            config(
                listen="{grpc: 'localhost:1', "
                "tls: {certificate_file: c, key_file: k, client_ca_file: a}}"
            ),
            {"authz_tls": AuthzTls(Path("ca"), "authz")},
            "certificate_file is missing",
        ),
        (config(), {"app_address": "localhost"}, "expected host:port"),
        (config(), {"inbound_address": "localhost:80"}, "expected an IP address"),
        (
            config(),
            {"inbound_address": "0.0.0.0:8000"},
            "app_address: found 127.0.0.1:8000, which inbound_address has",
        ),
        (
            config(),
            {"statistics_address": "127.0.0.1:15000"},
            "statistics_address: found 127.0.0.1:15000, which admin_address has",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    found: Config, settings: dict[str, Any], message: str
) -> None:
    """Each refusal names the setting and says why."""
    with pytest.raises(RenderError, match=message):
        render(found, SidecarSettings(**settings))


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_unlimited_wait_for_a_decision_is_refused(timeout: float) -> None:
    """Envoy reads a timeout of 0 as none at all."""
    with pytest.raises(RenderError, match="authz_timeout"):
        SidecarSettings(authz_timeout=timeout)


@pytest.mark.parametrize("path", ["/", "", "healthz"])
def test_exemption_of_everything_is_refused(path: str) -> None:
    """A health path is a path of its own."""
    with pytest.raises(RenderError, match="health_paths"):
        SidecarSettings(health_paths=(path,))


def test_destination_of_plain_http_has_no_tls(tmp_path: Path) -> None:
    """By name and by wildcard, at port 80 unless another is named; nobody else's TLS is touched by it."""
    hosts = {
        "a": ["http://mcp.tools.svc:8000", "http://ollama", "http://*.tools"],
        "b": ["*.b", "mcp"],
    }
    authority = Authority.create(tmp_path)

    text = render(config(hosts), SidecarSettings(upstream_ca_file=authority.file))

    data = yaml.safe_load(text)
    found = {
        each["name"]: "transport_socket" in each for each in data["static_resources"]["clusters"]
    }
    del found["authz"], found["app"], found["connect"]
    assert {
        "egress/mcp.tools.svc:8000": False,
        "egress/ollama": False,
        "egress-plain": False,
        "egress/mcp": True,
        "egress": True,
    } == found
    domains = {
        host["name"]: host["domains"]
        for host in listener(data, "egress")["route_config"]["virtual_hosts"]
    }
    assert ["mcp.tools.svc:8000"] == domains["mcp.tools.svc:8000"]
    assert ["ollama", "ollama:80"] == domains["ollama"]
    assert ["*.tools", "*.tools:80"] == domains["*.tools"]
    endpoint = cluster(data, "egress/ollama")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    where = endpoint["endpoint"]["address"]["socket_address"]
    assert ("ollama", 80) == (where["address"], where["port_value"])
    outcome = validate(text, tmp_path)
    assert (0, "") == (outcome.returncode, outcome.stderr)


def test_destination_can_have_its_own_authority() -> None:
    """An internal destination is verified against an internal authority, the others as before."""
    settings = SidecarSettings(upstreams={"A.example": Upstream(ca_file=Path("/etc/internal.pem"))})

    data = rendered(config({"a": ["a.example", "b.example"]}), settings)

    trusted = {
        host: cluster(data, f"egress/{host}")["transport_socket"]["typed_config"][
            "common_tls_context"
        ]["validation_context"]["trusted_ca"]["filename"]
        for host in ("a.example", "b.example")
    }
    assert {
        "a.example": "/etc/internal.pem",
        "b.example": "/etc/ssl/certs/ca-certificates.crt",
    } == trusted


def test_certificate_without_key_is_refused() -> None:
    """Half of a pair proves nothing."""
    with pytest.raises(RenderError, match="go together"):
        AuthzTls(Path("ca.pem"), "authz", certificate_file=Path("client.pem"))


def test_secrets_come_from_a_folder_in_place_of_others() -> None:
    """Envoy follows renewed files only where one secret names them; two ways at once are refused."""
    with pytest.raises(RenderError, match="either ca_file or secrets_folder"):
        AuthzTls(Path("ca.pem"), "authz", secrets_folder=Path("names"))
    with pytest.raises(RenderError, match="either ca_file or secrets_folder"):
        AuthzTls(None, "authz")
    with pytest.raises(RenderError, match="named in secrets_folder"):
        AuthzTls(None, "authz", Path("crt"), Path("key"), Path("names"))


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:http", "host:65536", "::1:80", "[host]:80", "host:٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Only `host:port` is read, with brackets around an IPv6 address and nothing else."""
    with pytest.raises(RenderError, match="expected host:port"):
        socket_address(text)


@pytest.mark.parametrize(
    ("forward", "dropped"),
    [("bearer", False), ("placeholder", False), ("[placeholder, handle]", True)],
)
def test_where_a_token_is_pushed_nobody_takes_a_handle_out_so_no_baggage_goes_out(
    forward: str, dropped: bool
) -> None:
    """Elsewhere the service takes out its own member and leaves the others."""
    tenant = "11111111-0000-4000-8000-000000000001"
    found = parse(
        f"""
applications:
  a: {{tenant_id: {tenant}, client_id: {tenant}, credentials: [client_secret: {{file: /run/secret}}]}}
inbound:
  chat: {{application: a, forward: {forward}}}
egress:
  pushed: {{flow: app, application: a, scopes: [api://x/.default], hosts: [pushed.example]}}
  asked: {{flow: none, hosts: [asked.example]}}
""",
        {},
    )
    egress = listener(rendered(found), "egress")
    removed = {
        route["name"]: route.get("request_headers_to_remove", [])
        for host in egress["route_config"]["virtual_hosts"]
        for route in host["routes"]
    }

    assert ["baggage"] * dropped == removed["pushed"]
    assert [] == removed["asked"]


@pytest.mark.parametrize(("forward", "taken"), [("bearer", False), ("[strip, handle]", True)])
def test_where_handles_are_given_no_other_header_carries_baggage(
    forward: str, *, taken: bool
) -> None:
    """Neither to the agent, where one could name a user, nor to an API, where one could hold a handle."""
    tenant = "11111111-0000-4000-8000-000000000001"
    found = parse(
        f"""
applications:
  a: {{tenant_id: {tenant}, client_id: {tenant}, credentials: [client_secret: {{file: /run/secret}}]}}
inbound:
  chat: {{application: a, forward: {forward}}}
egress:
  asked: {{flow: none, hosts: [asked.example]}}
""",
        {},
    )
    for direction in ("inbound", "egress"):
        (early,) = listener(rendered(found), direction)["early_header_mutation_extensions"]
        removed = [
            entry["remove_on_match"]["key_matcher"]["prefix"]
            for entry in early["typed_config"]["mutations"]
        ]

        assert [name for name in CARRIERS if taken] == [
            name for name in removed if name in CARRIERS
        ]
        assert "x-authz-" in removed


def test_the_service_is_shown_baggage(example: Config) -> None:
    """Of which it takes out what is its own, in both directions."""
    for direction in ("inbound", "egress"):
        (check,) = [
            entry["typed_config"]
            for entry in listener(rendered(example), direction)["http_filters"]
            if entry["name"] == EXT_AUTHZ
        ]
        assert {"exact": "baggage"} in check["allowed_headers"]["patterns"]


def test_routes_without_hosts_are_rendered_with_those_of_one_agent() -> None:
    """A shared service: its routes name no hosts, and this Envoy is given its own agent's alone."""
    found = config({"mine": [], "theirs": []})
    settings = SidecarSettings(egress_hosts={"mine": ("API.example", "api.example:8443")})

    domains = {
        target.authority: target.route
        for target in destinations(found, compile_policy(found), settings)
    }
    (listener,) = [
        item
        for item in rendered(found, settings)["static_resources"]["listeners"]
        if item["name"] == "egress"
    ]

    assert {"api.example": "mine", "api.example:8443": "mine"} == domains
    assert "theirs" not in yaml.safe_dump(listener)


@pytest.mark.parametrize(
    ("hosts", "complaint"),
    [
        ({"other": ("api.example",)}, "'other' is no egress route"),
        ({"mine": ("https://api.example/",)}, "expected no path: 'https://api.example'"),
        ({"mine": ("api.example:08443",)}, "expected the port without leading zeros"),
        ({"mine": ("",)}, "expected a host without path"),
        (
            {"mine": ("http://api.example", "api.example")},
            "'api.example' is there as 'http://api.example' already",
        ),
        (
            {"mine": ("api.example",), "theirs": ("API.example",)},
            "'API.example' belongs to 'mine' already",
        ),
        (
            {"mine": ("http://api.example:443",), "theirs": ("api.example",)},
            "'api.example' belongs to 'mine' already",
        ),
        (
            {"mine": ("api.example", "api.example:80")},
            "'api.example:80' is there as 'api.example' already",
        ),
    ],
)
def test_hosts_of_one_agent_are_checked(hosts: dict[str, tuple[str, ...]], complaint: str) -> None:
    """What leads nowhere, or to two routes, is refused and not rendered."""
    with pytest.raises(RenderError, match=complaint):
        render(config({"mine": [], "theirs": []}), SidecarSettings(egress_hosts=hosts))


def test_hosts_of_one_agent_do_not_go_with_the_pods_own_authority() -> None:
    """Certificates are made for the configuration's own hosts, so others would be served by nobody."""
    files = {"ca_file": "/ca.pem", "bundle_file": "/bundle.pem", "key_file": "/ca.key"}
    routes = {"mine": {"flow": "none", "hosts": ["api.example"]}}
    found = parse(yaml.safe_dump({"https": files, "egress": routes}), {})

    with pytest.raises(RenderError, match="the service has https"):
        render(found, SidecarSettings(egress_hosts={"mine": ("other.example",)}))


def test_the_command_takes_routes_with_their_hosts(tmp_path: Path) -> None:
    """`--egress-route ROUTE=HOST`, as often as there are hosts; nonsense is one line on standard error."""
    file = tmp_path / "authz.yaml"
    file.write_text("egress: {mine: {flow: none}, theirs: {flow: none}}")
    command = ["envoy", "--config", str(file)]
    asked = [*command, "--egress-route", "mine=api.example", "--egress-route", "mine=b.example"]

    told = program.run(*asked)
    refused = program.run(*command, "--egress-route", "mine")

    settings = SidecarSettings(egress_hosts={"mine": ("api.example", "b.example")})
    made_by, rest = told.stdout.splitlines()[:3], told.stdout.splitlines(keepends=True)[3:]
    assert "".join(rest) == render(load(file, {}).config, settings)
    assert ["authz", *asked] == shlex.split(made_by[1].removeprefix("#"))
    assert f"# authz.yaml: sha256 {sha256(file.read_bytes()).hexdigest()}" == made_by[2]
    assert 1 == refused.returncode
    assert "a host without path" in refused.stderr


def test_token_is_not_sent_without_tls_to_hosts_of_one_agent() -> None:
    """They are no part of the configuration, and the same rule holds for them."""
    route = "{flow: app, application: a, scopes: [api://x/.default]%s}"
    settings = SidecarSettings(egress_hosts={"api": ("http://orders.svc:8080",)})

    with pytest.raises(
        RenderError, match=r"egress_hosts: api: found 'http://orders\.svc:8080', where"
    ):
        render(with_application(route % ""), settings)

    assert "orders.svc" in render(
        with_application(route % ", token_over_plain_http: true"), settings
    )


def test_token_is_not_sent_to_loopback_by_hosts_of_one_agent() -> None:
    """The agent could listen there and receive its token."""
    route = "{flow: app, application: a, scopes: [api://x/.default]%s}"
    settings = SidecarSettings(egress_hosts={"api": ("127.0.0.1:8443",)})

    with pytest.raises(RenderError, match=r"egress_hosts: api: found '127\.0\.0\.1:8443', where"):
        render(with_application(route % ""), settings)

    assert "127.0.0.1:8443" in render(
        with_application(route % ", token_to_loopback: true"), settings
    )


def with_application(route: str) -> Config:
    """Return a configuration with one egress route of an application."""
    tenant = "11111111-0000-4000-8000-000000000001"
    secret = "{client_secret: {file: /run/secret}}"
    return parse(
        f"""
applications: {{a: {{tenant_id: {tenant}, client_id: {tenant}, credentials: [{secret}]}}}}
egress: {{api: {route}}}
""",
        {},
    )
