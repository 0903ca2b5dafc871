"""Who a workload is, through real Envoys: the URI name of its certificate, and no other text (law 2)."""

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme
import yaml
from cryptography import x509

from authz.config.reading.document import parse
from authz.envoy_config.settings import AuthzTls
from support.fakes.workload import workload_certificate
from support.peers.upstream import EchoUpstream
from support.programs.stack import Process, World, claims
from support.proxy.envoy import EnvoyProcess
from support.proxy.sidecar import Authority, Sidecar

DESK: Final = "spiffe://cluster.local/ns/agents/sa/desk"
OTHER: Final = "spiffe://cluster.local/ns/agents/sa/other"
GRAPH: Final = "graph.microsoft.com"
ORDERS: Final = "orders.example"
Names = tuple[str | x509.GeneralName, ...]
NO_IDENTITY: Final[dict[str, Names]] = {
    "another workload": (OTHER,),
    "DNS": (x509.DNSName(DESK),),
    "DNS beside a URI": (OTHER, x509.DNSName(DESK)),
    "two URIs": (DESK, OTHER),
}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Process]]:
    """Start the service with a configuration; ended after the test."""
    running: list[Process] = []

    def start(document: dict[str, Any]) -> Process:
        file = tmp_path / "authz.yaml"
        file.write_text(json.dumps(document))
        running.append(Process("serve", "--config", str(file)))
        return running[-1].wait_ready()

    yield start
    for process in running:
        process.close()


def written(folder: Path, chain: bytes, key: bytes) -> tuple[Path, Path]:
    """Write a certificate and its key."""
    folder.mkdir()
    files = folder / "tls.crt", folder / "tls.key"
    for file, content in zip(files, (chain, key), strict=True):
        file.write_bytes(content)
    return files


@pytest.mark.parametrize("names", [(DESK,), *NO_IDENTITY.values()], ids=["right", *NO_IDENTITY])
def test_an_envoys_own_certificate_says_who_it_is(
    world: World, serve: Callable[[dict[str, Any]], Process], tmp_path: Path, names: Names
) -> None:
    """Checks and secrets: the agent's token is for the workload that the configuration names."""
    authority, workloads = Authority.create(tmp_path), trustme.CA()
    leaf = authority.ca.issue_cert("localhost")
    certificate, key = written(
        tmp_path / "server", leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
    )
    workloads.cert_pem.write_to_path(tmp_path / "clients.pem")
    document = world.config()
    document["listen"] = {
        "grpc": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "tls": {
            "certificate_file": str(certificate),
            "key_file": str(key),
            "client_ca_file": str(tmp_path / "clients.pem"),
        },
    }
    document["agents"]["desk"]["workloads"] = [DESK]
    routes = document["egress"]
    document["egress"] = {
        "graph": routes["graph"],
        "orders": {**routes["autonomous"], "hosts": [ORDERS]},
    }
    process = serve(document)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    client = written(tmp_path / "client", *workload_certificate(workloads, *names))
    with Sidecar(
        parse(json.dumps(document), {}),
        authz_address=address,
        authority=authority,
        certificates={host: (host,) for host in (GRAPH, ORDERS)},
        authz_tls=AuthzTls(authority.file, "localhost", *client),
    ) as sidecar:
        headers = {"authorization": f"Bearer {world.token()}"}
        checked = sidecar.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers)
        pushed = sidecar.agent.get(f"http://{ORDERS}/items", headers=headers)
        arrived = [len(server.received) for server in sidecar.destinations.values()]

    right = names == (DESK,)
    # Who has no identity at all is not told what a workload may have.
    identified = sum(isinstance(name, str) for name in names) == 1
    assert [1, 1] if right else [0, 0] == arrived
    assert (
        (200, 200)
        if right
        else (403, 403 if identified else 503) == (checked.status_code, pushed.status_code)
    )
    assert right or "workload_not_allowed" == checked.json()["reason"]


def gateway(authz: str, app: EchoUpstream, folder: Path, *, hands_on: bool) -> str:
    """Return the configuration of a gateway whose clients are workloads with certificates."""
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }

    def endpoint(name: str, address: dict[str, Any], **more: Any) -> dict[str, Any]:
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return {
            "name": name,
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
            **more,
        }

    def port(address: str) -> dict[str, Any]:
        host, _, number = address.rpartition(":")
        return {"socket_address": {"address": host, "port_value": int(number)}}

    filters = [
        {
            "name": "envoy.filters.http.ext_authz",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                "transport_api_version": "V3",
                "include_peer_certificate": hands_on,
                "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"},
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
            },
        },
    ]
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "app"},
        "typed_per_filter_config": {
            "envoy.filters.http.ext_authz": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3"
                ".ExtAuthzPerRoute",
                "check_settings": {
                    "context_extensions": {
                        "authz.direction": "egress",
                        "authz.route": "autonomous",
                    }
                },
            }
        },
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "egress",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(folder / "server/tls.crt")},
                    "private_key": {"filename": str(folder / "server/tls.key")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(folder / "clients.pem")}},
        },
    }
    document = {
        "admin": {"address": port("127.0.0.1:0")},
        "static_resources": {
            "listeners": [
                {
                    "name": "egress",
                    "address": port("127.0.0.1:0"),
                    "filter_chains": [
                        {
                            "filters": [{"name": "http", "typed_config": manager}],
                            "transport_socket": {"name": "tls", "typed_config": tls},
                        }
                    ],
                }
            ],
            "clusters": [
                endpoint("app", port(app.address)),
                endpoint(
                    "authz", {"pipe": {"path": authz}}, typed_extension_protocol_options=http2
                ),
            ],
        },
    }
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("names", "hands_on", "right"),
    [
        ((DESK,), True, True),
        ((DESK, x509.DNSName(OTHER)), True, True),
        *((names, True, False) for names in NO_IDENTITY.values()),
        ((x509.DNSName(DESK),), False, False),
        ((DESK,), False, False),
    ],
)
def test_a_gateways_word_for_its_client_is_the_certificate_itself(
    world: World,
    serve: Callable[[dict[str, Any]], Process],
    tmp_path: Path,
    names: Names,
    hands_on: bool,
    right: bool,
) -> None:
    """Envoy's `principal` is a DNS name where there is no URI, so without the certificate nobody is known."""
    authority, workloads = Authority.create(tmp_path), trustme.CA()
    leaf = authority.ca.issue_cert("localhost")
    written(tmp_path / "server", leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
    workloads.cert_pem.write_to_path(tmp_path / "clients.pem")
    document = world.config()
    document["listen"]["workload_identity"] = "source_principal"
    document["agents"]["desk"]["workloads"] = [DESK]
    serve(document)
    socket = str(world.folder / "authz.sock")
    context = ssl.create_default_context(cafile=authority.file)
    client = written(tmp_path / "client", *workload_certificate(workloads, *names))
    context.load_cert_chain(*client)
    with (
        EchoUpstream() as app,
        EnvoyProcess(gateway(socket, app, tmp_path, hands_on=hands_on)) as envoy,
        httpx.Client(verify=context, trust_env=False) as caller,
    ):
        answers = [caller.get(f"https://localhost:{envoy.port('egress')}/") for _ in range(2)]
        arrived = [received.values("authorization")[0] for received in app.received]

    assert [200 if right else 403] * 2 == [answer.status_code for answer in answers]
    assert [world.agent["client_id"]] * (2 if right else 0) == [
        claims(value.removeprefix("Bearer "))["appid"] for value in arrived
    ]
    assert right or "workload_not_allowed" == answers[0].json()["reason"]
