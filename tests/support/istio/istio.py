"""`Proxy`: an Envoy as Istio configures one beside a workload, from the objects of an overlay.

It is our own reading of what Istio makes of them, as far as these tests need it: routes and clusters of
ServiceEntries with their DestinationRule and VirtualService, the CUSTOM policy's Check, and the patches of
EnvoyFilters. `tests/cluster/istio` compares it with what Istio's pilot makes, where that is at hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import yaml

from support.kubernetes.manifests import Manifests, Object
from support.peers.upstream import EchoUpstream
from support.proxy.envoy import EnvoyProcess

MANAGER: Final = "envoy.filters.network.http_connection_manager"
ROUTER: Final = "envoy.filters.http.router"
_TYPES: Final = "type.googleapis.com/envoy.extensions"
_RBAC: Final = "envoy.filters.http.rbac"
_STATUS_NAMES: Final = {"503": "ServiceUnavailable"}
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class UnknownPatchError(AssertionError):
    """An EnvoyFilter has a patch that this stand-in for Istio does not know, or that fits nowhere."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a test puts in the place of the world outside.

    Attributes:
        socket: Where authz listens, in place of the path that the mesh has.
        app: `host:port` of the agent.
        apis: `host:port` of each API by its name.
        neighbour: `host:port` of a service of the mesh that needs no authz.
        ca_file: The authorities of the APIs' certificates.
    """

    socket: str
    app: str
    apis: Mapping[str, str]
    neighbour: str
    ca_file: Path


NAMESPACE: Final = "agents"
"""Where the pod is."""
NEIGHBOUR: Final = f"neighbour.{NAMESPACE}.svc.cluster.local"


class Istio:
    """What Istio would configure for the pod of an overlay.

    Args:
        pod: The overlay.
        mesh: The objects for the mesh as a whole.
        settings: The mesh's own configuration.
    """

    def __init__(self, pod: Manifests, mesh: Manifests, settings: Object) -> None:
        self._pod = pod
        self._mesh = mesh
        self._settings = settings

    def bootstrap(self, around: Surroundings) -> str:
        """Return the proxy's configuration, on free loopback ports."""
        outbound, inbound = self.outbound_manager(), self.inbound_manager()
        self.patch(80, outbound)
        self.patch(None, inbound)
        managers = {"outbound": outbound, "inbound": inbound}
        return yaml.safe_dump(
            {
                "admin": {"address": _address("127.0.0.1:0")},
                "static_resources": {
                    "listeners": [_listener(name, manager) for name, manager in managers.items()],
                    "clusters": list(self._clusters(around)),
                },
            }
        )

    def outbound_manager(self) -> Object:
        """Return the connection manager of port 80, as it is before any patch."""
        hosts = [self._virtual_host(entry) for entry in self._entries(80)]
        hosts.append(_virtual_host(f"{NEIGHBOUR}:80", NEIGHBOUR))
        # What REGISTRY_ONLY makes of a host that nobody has registered.
        refused = {
            "name": "block_all",
            "match": {"prefix": "/"},
            "direct_response": {"status": 502},
        }
        hosts.append(
            {
                "name": "block_all",
                "domains": ["*"],
                "routes": [refused],
                "include_request_attempt_count": True,
            }
        )
        return _manager("outbound", hosts, [])

    def patch(self, port: int | None, manager: Object) -> None:
        """Apply the patches of the overlay's EnvoyFilters to a connection manager.

        Args:
            port: Of the outbound one; None for the inbound one.
            manager: Is changed.

        Raises:
            UnknownPatchError: A patch would not be applied.
        """
        for item in self._pod.all("EnvoyFilter"):
            for patch in item["spec"]["configPatches"]:
                if (patch["match"]["context"] == "SIDECAR_INBOUND") == (port is None):
                    _apply(deepcopy(patch), port, manager)

    @property
    def provider(self) -> Object:
        """The settings of the provider that the CUSTOM policy names."""
        (found,) = [
            item["envoyExtAuthzGrpc"]
            for item in self._settings["meshConfig"]["extensionProviders"]
            if item["name"] == self.provider_name
        ]
        settings: Object = found
        return settings

    @property
    def provider_name(self) -> str:
        """The provider that the CUSTOM policy names."""
        name: str = self._pod.find("AuthorizationPolicy", "agent")["spec"]["provider"]["name"]
        return name

    def inbound_manager(self) -> Object:
        """Return the connection manager in front of the agent, with the Check of the CUSTOM policy."""
        provider = self.provider
        check: Object = {
            "@type": f"{_TYPES}.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {
                    "cluster_name": _cluster_name(
                        provider["service"].rpartition("/")[2], int(provider["port"])
                    ),
                    "authority": provider["service"].rpartition("/")[2],
                },
                "timeout": provider["timeout"],
            },
            "status_on_error": {"code": _STATUS_NAMES[provider["statusOnError"]]},
            "filter_enabled_metadata": {
                "filter": _RBAC,
                "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": f"istio-ext-authz-{self.provider_name}"}},
            },
        }
        if provider["failOpen"]:
            check["failure_mode_allow"] = True
        everything = {"name": "inbound|http|8000", "domains": ["*"], "routes": [_route("app")]}
        filters = [
            {"name": _RBAC, "typed_config": self._rules()},
            {"name": "envoy.filters.http.ext_authz", "typed_config": check},
            {"name": _RBAC, "typed_config": self._denials()},
        ]
        return _manager("inbound", [everything], filters)

    def _rules(self) -> Object:
        """Rules that decide nothing: they note which requests the Check is for."""
        policy = self._pod.find("AuthorizationPolicy", "agent")
        ((ports,),) = [
            [rule["operation"]["notPorts"] for rule in rules["to"]]
            for rules in policy["spec"]["rules"]
        ]
        numbers = [{"destination_port": int(port)} for port in ports]
        rule = {
            "permissions": [
                {"and_rules": {"rules": [{"not_rule": {"or_rules": {"rules": numbers}}}]}}
            ],
            "principals": [{"and_ids": {"ids": [{"any": True}]}}],
        }
        name = f"ns[{NAMESPACE}]-policy[{policy['metadata']['name']}]-rule[0]"
        return {
            "@type": f"{_TYPES}.filters.http.rbac.v3.RBAC",
            "shadow_rules": {
                "action": "DENY",
                "policies": {f"istio-ext-authz-{self.provider_name}-{name}": rule},
            },
            "shadow_rules_stat_prefix": "istio_ext_authz_",
        }

    def _denials(self) -> Object:
        """Rules of the policies that deny."""
        policies = {}
        for item in self._pod.all("AuthorizationPolicy"):
            if item["spec"]["action"] != "DENY":
                continue
            ((operation,),) = [[to["operation"] for to in r["to"]] for r in item["spec"]["rules"]]
            methods = [
                {"header": {"name": ":method", "string_match": {"exact": method}}}
                for method in operation["notMethods"]
            ]
            ports = [{"destination_port": int(port)} for port in operation["notPorts"]]
            rules = [
                {"not_rule": {"or_rules": {"rules": methods}}},
                {"not_rule": {"or_rules": {"rules": ports}}},
            ]
            name = f"ns[{NAMESPACE}]-policy[{item['metadata']['name']}]-rule[0]"
            policies[name] = {
                "permissions": [{"and_rules": {"rules": rules}}],
                "principals": [{"and_ids": {"ids": [{"any": True}]}}],
            }
        return {
            "@type": f"{_TYPES}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": policies},
            "shadow_rules_stat_prefix": "istio_dry_run_allow_",
        }

    def _entries(self, port: int) -> Iterator[Object]:
        for item in self._pod.all("ServiceEntry"):
            if item["spec"]["ports"][0]["number"] == port:
                yield item["spec"]

    def _virtual_host(self, entry: Object) -> Object:
        (host,), number = entry["hosts"], entry["ports"][0]["number"]
        made = _virtual_host(f"{host}:{number}", host)
        for item in self._pod.all("VirtualService"):
            if host in item["spec"]["hosts"]:
                *refusals, rule = item["spec"]["http"]
                action = made["routes"][0]["route"]
                action["timeout"] = rule.get("timeout", "0s")
                if rule["retries"]["attempts"] == 0:
                    del action["retry_policy"]
                made["routes"][:0] = [_direct_response(refusal) for refusal in refusals]
        return made

    def _clusters(self, around: Surroundings) -> Iterator[Object]:
        yield _cluster("app", _address(around.app))
        yield _cluster(_cluster_name(NEIGHBOUR, 80), _address(around.neighbour))
        entry = self._mesh.find("ServiceEntry")["spec"]
        yield _cluster(
            _cluster_name(entry["hosts"][0], entry["ports"][0]["number"]),
            {"pipe": {"path": around.socket}},
            http2=entry["ports"][0]["protocol"] == "GRPC",
        )
        for entry in self._entries(80):
            (host,) = entry["hosts"]
            made = _cluster(_cluster_name(host, 80), _address(around.apis[host]))
            made["transport_socket"] = self._tls(host, around.ca_file)
            yield made

    def _tls(self, host: str, ca_file: Path) -> Object:
        (rule,) = [
            item["spec"]
            for item in self._pod.all("DestinationRule")
            if item["spec"]["host"] == host
        ]
        (settings,) = rule["trafficPolicy"]["portLevelSettings"]
        tls = settings["tls"]
        assert (settings["port"]["number"], tls["mode"]) == (80, "SIMPLE")
        names = [{"san_type": "DNS", "matcher": {"exact": name}} for name in tls["subjectAltNames"]]
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": tls["sni"],
                "common_tls_context": {
                    "validation_context": {
                        "trusted_ca": {"filename": str(ca_file)},
                        "match_typed_subject_alt_names": names,
                    }
                },
            },
        }


class Proxy:
    """The running proxy of a pod, its agent, its API and its neighbour, as a context manager.

    Args:
        istio: What it is configured with.
        socket: Where authz listens.
        apis: The APIs by host.
        ca_file: The authorities of their certificates.

    Attributes:
        app: The agent.
        neighbour: A service of the mesh that has nothing to do with authz.
        caller: A client of the agent.
    """

    def __init__(
        self, istio: Istio, *, socket: str, apis: Mapping[str, EchoUpstream], ca_file: Path
    ) -> None:
        self._istio = istio
        self._socket = socket
        self._apis = apis
        self._ca_file = ca_file
        self._stack = ExitStack()
        self.app = EchoUpstream()
        self.neighbour = EchoUpstream()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.app, self.neighbour, *self._apis.values()):
                stack.enter_context(server)
            around = Surroundings(
                socket=self._socket,
                app=self.app.address,
                apis={host: server.address for host, server in self._apis.items()},
                neighbour=self.neighbour.address,
                ca_file=self._ca_file,
            )
            self.envoy = stack.enter_context(EnvoyProcess(self._istio.bootstrap(around)))
            inbound = f"http://127.0.0.1:{self.envoy.port('inbound')}"
            outbound = f"http://127.0.0.1:{self.envoy.port('outbound')}"
            self.caller = stack.enter_context(httpx.Client(base_url=inbound, trust_env=False))
            self._agent = stack.enter_context(httpx.Client(base_url=outbound, trust_env=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def call(self, host: str, headers: Sequence[tuple[str, str]] = ()) -> httpx.Response:
        """Call a host as the agent does, whose connections the pod's network rules redirect."""
        return self._agent.get("/v1.0/me", headers=[("host", host), *headers])


def _apply(patch: Object, port: int | None, manager: Object) -> None:
    match, change = patch["match"], patch["patch"]
    if match["context"] not in {"SIDECAR_OUTBOUND", "SIDECAR_INBOUND"}:
        raise UnknownPatchError(f"context {match['context']}")
    match patch["applyTo"], change["operation"]:
        case "HTTP_FILTER", "INSERT_BEFORE":
            chosen = match["listener"]["filterChain"]["filter"]
            names = [entry["name"] for entry in manager["http_filters"]]
            before = chosen["subFilter"]["name"]
            if (match["listener"].get("portNumber"), chosen["name"]) != (port, MANAGER):
                raise UnknownPatchError(f"listener {match['listener']}")
            manager["http_filters"].insert(names.index(before), change["value"])
        case "NETWORK_FILTER", "MERGE":
            chosen = match["listener"]["filterChain"]["filter"]
            if (match["listener"].get("portNumber"), chosen["name"]) != (port, MANAGER):
                raise UnknownPatchError(f"listener {match['listener']}")
            _merge(manager, change["value"]["typed_config"])
        case "VIRTUAL_HOST", "MERGE":
            name = match["routeConfiguration"]["vhost"]["name"]
            hosts = [host for host in _hosts(manager) if host["name"] == name]
            if not hosts:
                raise UnknownPatchError(f"virtual host {name}")
            _merge(hosts[0], change["value"])
        case other:
            raise UnknownPatchError(str(other))


def _hosts(manager: Object) -> list[Object]:
    found: list[Object] = manager["route_config"]["virtual_hosts"]
    return found


def _merge(target: Object, value: Object) -> None:
    """Merge as protobuf does: messages and maps by key, lists one after the other."""
    for key, new in value.items():
        old = target.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            _merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(new)
        else:
            target[key] = new


def _manager(name: str, hosts: list[Object], filters: list[Object]) -> Object:
    router = {
        "name": ROUTER,
        "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
    }
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "name": name,
            "virtual_hosts": hosts,
            "ignore_port_in_host_matching": True,
        },
        "http_filters": [*filters, router],
        "normalize_path": True,
        "use_remote_address": False,
        # A second by itself, which tests would wait for after each piece of nonsense.
        "delayed_close_timeout": "0.02s",
    }


def _virtual_host(name: str, host: str) -> Object:
    route = _route(_cluster_name(host, 80))
    # Istio's defaults, unless a VirtualService says something else.
    route["route"]["retry_policy"] = {
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
    }
    return {
        "name": name,
        "domains": [host, f"{host}."],
        "routes": [route],
        "include_request_attempt_count": True,
    }


def _direct_response(rule: Object) -> Object:
    (match,) = rule["match"]
    answer = rule["directResponse"]
    method = {"safe_regex": {"regex": match["method"]["regex"]}}
    added = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in rule["headers"]["response"]["set"].items()
    ]
    return {
        "match": {"prefix": "/", "headers": [{"name": ":method", "string_match": method}]},
        "direct_response": {
            "status": answer["status"],
            "body": {"inline_string": answer["body"]["string"]},
        },
        "response_headers_to_add": added,
    }


def _route(cluster: str) -> Object:
    action: dict[str, Any] = {"cluster": cluster, "timeout": "0s"}
    return {"name": "default", "match": {"prefix": "/"}, "route": action}


def _cluster_name(host: str, port: int) -> str:
    return f"outbound|{port}||{host}"


def _cluster(name: str, where: Object, *, http2: bool = False) -> Object:
    endpoint = {"endpoint": {"address": where}}
    protocol = "http2_protocol_options" if http2 else "http_protocol_options"
    return {
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": f"type.googleapis.com/{_HTTP}",
                "explicit_http_config": {protocol: {}},
            }
        },
    }


def _address(text: str) -> Object:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _listener(name: str, manager: Object) -> Object:
    return {
        "name": name,
        "address": _address("127.0.0.1:0"),
        "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
    }
