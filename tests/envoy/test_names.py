"""How Envoy finds an address for a name: as the pod's own resolver does, whatever search domains answer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest
import yaml

from authz.config import Config
from authz.config.reading.document import parse
from authz.doors.envoy.grpc_server import ServerSettings
from authz.envoy_config.settings import SidecarSettings
from support.peers.name_server import Code, NameServer, Said
from support.peers.upstream import EchoUpstream
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

pytestmark = pytest.mark.thorough

NODES: Final = "corp.test"
"""The search domain that a pod has of its node."""
CLUSTERS: Final = "cluster.test"
NAMESPACES: Final = "agents.svc.cluster.test"
"""Those that it has of its cluster, and of its namespace."""
TENANT: Final = "11111111-0000-4000-8000-000000000001"
API: Final = "api.contoso.test"
HERE: Final = ["127.0.0.1"]
ELSEWHERE: Final = ["127.0.0.9"]
ALSO_BY_6: Final = ["127.0.0.1", "::1"]

ANSWERS: Final[Mapping[str, Said]] = {
    "no such name": Code.NXDOMAIN,
    "refusal": Code.REFUSED,
    "failure": Code.SERVFAIL,
    "no address": Code.NOERROR,
    "wildcard": ELSEWHERE,
}


def config(*hosts: str) -> Config:
    """Return a configuration with these destinations."""
    caller = {"tenants": [TENANT], "audiences": ["agent"], "scopes": ["chat"]}
    document = {
        "inbound": {"chat": caller},
        "egress": {"api": {"flow": "none", "hosts": list(hosts)}},
    }
    return parse(yaml.safe_dump(document), {})


def resolvers(node: Any) -> Iterator[dict[str, Any]]:
    """Return what says how names are resolved, at any depth; where nothing does, it is put there."""
    if isinstance(node, list):
        for item in node:
            yield from resolvers(item)
    if not isinstance(node, dict):
        return
    if str(node.get("@type", "")).endswith(".DnsCluster") or "max_hosts" in node:
        plain = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
            },
        }
        yield node.setdefault("typed_dns_resolver_config", plain)["typed_config"]
        return
    for value in node.values():
        yield from resolvers(value)


class Pod(Sidecar):
    """A sidecar that resolves names by the test's server and a search domain.

    Args:
        names: The server.
        search: The domain.
    """

    def __init__(self, names: NameServer, search: str, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._names, self._search = names, search

    def settings(self) -> SidecarSettings:
        """Return the settings, with names where others have addresses."""
        return replace(super().settings(), upstreams={})

    def bootstrap(self) -> str:
        """Return the configuration with the address of the server, which a pod has in a file."""
        document = yaml.safe_load(super().bootstrap())
        where = {"socket_address": {"address": "127.0.0.1", "port_value": self._names.port}}
        for resolver in resolvers(document["static_resources"]):
            resolver["resolvers"] = [where]
        return yaml.safe_dump(document)

    def environ(self) -> dict[str, str]:
        """Return the search domain and the dots below which it counts first, as pods have them in a file."""
        return {"LOCALDOMAIN": self._search, "RES_OPTIONS": "ndots:5"}


Run = Callable[..., Any]


@pytest.fixture
def run(authority: Authority, service: ExtAuthzServer) -> Run:
    """Return what runs a pod whose server knows some names, and gives the pod and the server."""
    service.start()
    service.answer = lambda _: allow()

    @contextmanager
    def start(
        names: Mapping[str | tuple[str, str], Said],
        *hosts: str,
        search: str = NODES,
        authz_address: str = service.address,
    ) -> Iterator[tuple[Sidecar, NameServer]]:
        with ExitStack() as stack:
            server = stack.enter_context(NameServer(names))
            pod = Pod(
                server,
                search,
                config(*hosts),
                authz_address=authz_address,
                authority=authority,
                certificates={},
            )
            yield stack.enter_context(pod), server

    return start


@pytest.fixture
def api(authority: Authority) -> Iterator[EchoUpstream]:
    """The destination, by IPv4, under each of its names."""
    names = (API, "api", "api.apis.svc", "b.contoso.test")
    with EchoUpstream(authority.server_context(*names)) as server:
        yield server


def ask(pod: Sidecar, api: EchoUpstream, host: str = API) -> httpx.Response:
    """Call the destination."""
    return pod.agent.get(f"http://{host}:{api.port}/")


@pytest.mark.parametrize("said", ANSWERS)
@pytest.mark.parametrize("wildcard", [False, True])
def test_a_destination_is_found_whatever_a_search_domain_says(
    run: Run, api: EchoUpstream, wildcard: bool, said: str
) -> None:
    """A name with a dot is the whole name: no search domain is asked, with a wildcard route neither."""
    hosts = "*" if wildcard else f"{API}:{api.port}"

    with run({API: HERE, f"*.{NODES}": ANSWERS[said]}, hosts) as (pod, server):
        assert 200 == ask(pod, api).status_code

    assert {API} == server.asked


@pytest.fixture
def other() -> Iterator[ExtAuthzServer]:
    """A service that is reached over the network."""
    with ExtAuthzServer(ServerSettings("127.0.0.1:0")) as server:
        yield server


@pytest.mark.parametrize("said", ANSWERS)
def test_the_service_is_found_whatever_a_search_domain_says(
    run: Run, api: EchoUpstream, other: ExtAuthzServer, said: str
) -> None:
    """A whole name likewise."""
    where = f"authz.contoso.test:{other.address.rpartition(':')[2]}"
    names = {"authz.contoso.test": HERE, API: HERE, f"*.{NODES}": ANSWERS[said]}

    with run(names, f"{API}:{api.port}", authz_address=where) as (pod, server):
        assert 200 == ask(pod, api).status_code

    assert (1, {"authz.contoso.test", API}) == (len(other.requests), server.asked)


SHORT: Final = [("", NAMESPACES, NAMESPACES), (".apis.svc", CLUSTERS, f"apis.svc.{CLUSTERS}")]
"""What stands behind a Service's name, the domain that completes it, and both together."""


@pytest.mark.parametrize(("behind", "search", "domain"), SHORT)
def test_a_service_of_the_cluster_is_found_by_its_short_name(
    run: Run, api: EchoUpstream, behind: str, search: str, domain: str
) -> None:
    """Alone, or with its namespace: only search domains say what these mean."""
    host = f"api{behind}"

    with run({f"api.{domain}": HERE}, f"{host}:{api.port}", search=search) as (pod, _):
        assert 200 == ask(pod, api, host).status_code


@pytest.mark.parametrize(
    ("host", "search"),
    [
        ("mcp", NAMESPACES),
        ("mcp.agents", f"svc.{CLUSTERS}"),
        ("mcp.agents.svc", CLUSTERS),
        (f"mcp.{NAMESPACES}", NODES),
    ],
)
def test_a_service_without_tls_is_found_by_each_of_its_names(
    run: Run, host: str, search: str
) -> None:
    """With its namespace and no more, too: what has no TLS is seldom of the Internet."""
    with (
        EchoUpstream() as service,
        run({f"mcp.{NAMESPACES}": HERE}, f"http://{host}:{service.port}", search=search) as (
            pod,
            _,
        ),
    ):
        assert 200 == ask(pod, service, host).status_code


@pytest.mark.parametrize(("behind", "search", "domain"), SHORT)
def test_the_service_is_found_by_its_short_name(
    run: Run, api: EchoUpstream, other: ExtAuthzServer, behind: str, search: str, domain: str
) -> None:
    """It keeps what the overlays say of it."""
    where = f"authz{behind}:{other.address.rpartition(':')[2]}"
    names = {f"authz.{domain}": HERE, API: HERE}

    with run(names, f"{API}:{api.port}", search=search, authz_address=where) as (pod, _):
        assert 200 == ask(pod, api).status_code

    assert 1 == len(other.requests)


@pytest.mark.parametrize("wildcard", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        {API: HERE},
        {API: ALSO_BY_6},
        {("4", API): HERE, ("6", API): Code.NXDOMAIN},
        {("4", API): HERE, ("6", API): Code.SERVFAIL},
        {("4", API): HERE, ("6", API): Code.REFUSED},
    ],
)
def test_a_destination_without_ipv6_is_reached(
    run: Run, api: EchoUpstream, names: dict[Any, Said], wildcard: bool
) -> None:
    """By its address of IPv4, whether there is another that leads nowhere, or whatever is said of others."""
    hosts = "*" if wildcard else f"{API}:{api.port}"
    with run(names, hosts) as (pod, _):
        assert 200 == ask(pod, api).status_code


@pytest.mark.parametrize("wildcard", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        {API: ["::1"]},
        {API: [*ELSEWHERE, "::1"]},
        {("6", API): ["::1"], ("4", API): Code.NXDOMAIN},
        {("6", API): ["::1"], ("4", API): Code.SERVFAIL},
    ],
)
def test_a_destination_without_ipv4_is_reached(
    run: Run, authority: Authority, names: dict[Any, Said], wildcard: bool
) -> None:
    """By its address of IPv6, likewise."""
    with EchoUpstream(authority.server_context(API), host="::1") as api:
        hosts = "*" if wildcard else f"{API}:{api.port}"
        with run(names, hosts) as (pod, _):
            assert 200 == ask(pod, api).status_code
