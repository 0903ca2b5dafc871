"""What Envoy Gateway makes of our objects, by its own translator (`egctl`), and an Envoy that runs it.

The translator has no cluster: what is not in the overlay (GatewayClass, Services, Secrets) is given here, and
Services get addresses, since it looks at no EndpointSlice.
"""

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trustme
import yaml

from support.kubernetes.apiserver import find
from support.kubernetes.manifests import Object

PROGRAM: Final = "egctl"
_CLASS: Final = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "envoy"},
    "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
}


def tls_secret(namespace: str, name: str, chain: bytes, key: bytes) -> Object:
    """Return a Secret with a certificate."""
    files = {"tls.crt": chain, "tls.key": key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {file: base64.b64encode(content).decode() for file, content in files.items()},
    }


def authorities(namespace: str, name: str, authority: trustme.CA) -> Object:
    """Return a ConfigMap with an authority's certificate."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"ca.crt": authority.cert_pem.bytes().decode()},
    }


def with_address(service: Object, address: str) -> Object:
    """Return a Service with an address of its own."""
    return {**service, "spec": {**service["spec"], "clusterIP": address}}


class Translation:
    """Objects of Gateway API as Envoy Gateway translates them.

    Args:
        objects: The objects, all that they refer to included.
        folder: For the translator's input.

    Attributes:
        listener: The listener of callers.
        routes: Its route configuration.
        clusters: By name.
        statuses: The conditions of every object, after the translation.
    """

    def __init__(self, objects: Sequence[Object], folder: Path) -> None:
        self._file = folder / "objects.yaml"
        self._file.write_text(yaml.safe_dump_all([_CLASS, *objects]))
        (self._gateway,) = self._translate("xds")["xds"].values()
        listeners = self._dumped("Listeners", "dynamicListeners")
        (self.listener,) = [
            found["activeState"]["listener"]
            for found in listeners
            # The other one is for the kubelet.
            if "ready" not in found["activeState"]["listener"]["name"]
        ]
        ((self.routes),) = [
            found["routeConfig"] for found in self._dumped("Routes", "dynamicRouteConfigs")
        ]
        self.clusters: dict[str, Object] = {
            found["cluster"]["name"]: found["cluster"]
            for found in self._dumped("Clusters", "dynamicActiveClusters")
        }
        self.statuses = [*_conditions(self._translate("gateway-api"))]

    @property
    def connection_manager(self) -> Object:
        """The HTTP connection manager of callers."""
        ((chain),) = self.listener["filterChains"]
        (manager,) = chain["filters"]
        found: Object = manager["typedConfig"]
        return found

    def bootstrap(
        self, secrets: Sequence[Object], trusted: Object, reached: Mapping[str, str]
    ) -> str:
        """Return it as the configuration of an Envoy without a control plane.

        Args:
            secrets: What is fetched by name, as Secrets.
            trusted: The same, as the ConfigMap of authorities.
            reached: `host:port` by the beginning of a cluster's name: where its endpoints really are.
        """
        listener = json.loads(json.dumps(self.listener))
        listener["address"] = _address("127.0.0.1:0")
        ((chain),) = listener["filterChains"]
        manager = chain["filters"][0]["typedConfig"]
        del manager["rds"]
        manager["routeConfig"] = _plain(self.routes)
        manager.pop("accessLog", None)
        listener.pop("accessLog", None)
        clusters = [
            self._static(cluster, next(w for n, w in reached.items() if name.startswith(n)))
            for name, cluster in self.clusters.items()
        ]
        document = {
            "admin": {"address": _address("127.0.0.1:0")},
            "staticResources": {
                "listeners": [_by_name(_plain(listener))],
                "clusters": [_by_name(cluster) for cluster in clusters],
                "secrets": [*map(_certificate, secrets), _validation(trusted)],
            },
        }
        return yaml.safe_dump(document)

    def _static(self, cluster: Object, where: str) -> Object:
        (assignment,) = [
            json.loads(json.dumps(_plain(found["endpointConfig"])))
            for found in self._dumped("Endpoints", "dynamicEndpointConfigs")
            if found["endpointConfig"]["clusterName"] == cluster["name"]
        ]
        for locality in assignment["endpoints"]:
            for endpoint in locality["lbEndpoints"]:
                endpoint["endpoint"]["address"] = _address(where)
        left = {name: v for name, v in cluster.items() if name not in ("@type", "edsClusterConfig")}
        return {**left, "type": "STATIC", "loadAssignment": assignment}

    def _dumped(self, kind: str, member: str) -> list[Any]:
        (dump,) = [
            one for one in self._gateway["configs"] if one["@type"].endswith(f"{kind}ConfigDump")
        ]
        found: list[Any] = dump[member]
        return found

    def _translate(self, target: str) -> Any:
        program = find(PROGRAM)
        assert program is not None
        command = [str(program), "x", "translate", "--from=gateway-api", f"--to={target}"]
        done = subprocess.run(
            [*command, "--output=json", f"--file={self._file}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return json.loads(done.stdout)


def _conditions(found: Any) -> list[Object]:
    if isinstance(found, list):
        return [condition for each in found for condition in _conditions(each)]
    if not isinstance(found, dict):
        return []
    own = found.get("conditions", []) if isinstance(found.get("conditions"), list) else []
    return [*own, *(c for name, v in found.items() if name != "conditions" for c in _conditions(v))]


def _plain(resource: Object) -> Object:
    """Return what was packed with its type."""
    return {name: value for name, value in resource.items() if name != "@type"}


def _address(where: str) -> Object:
    host, _, port = where.rpartition(":")
    return {"socketAddress": {"address": host, "portValue": int(port)}}


def _by_name(resource: Any) -> Any:
    """Have secrets come from the configuration itself."""
    if isinstance(resource, list):
        return [_by_name(each) for each in resource]
    if isinstance(resource, dict):
        return {name: _by_name(v) for name, v in resource.items() if name != "sdsConfig"}
    return resource


def _certificate(secret: Object) -> Object:
    metadata, data = secret["metadata"], secret["data"]
    return {
        "name": f"{metadata['namespace']}/{metadata['name']}",
        "tlsCertificate": {
            "certificateChain": {"inlineBytes": data["tls.crt"]},
            "privateKey": {"inlineBytes": data["tls.key"]},
        },
    }


def _validation(trusted: Object) -> Object:
    metadata = trusted["metadata"]
    return {
        "name": f"{metadata['namespace']}/{metadata['name']}",
        "validationContext": {"trustedCa": {"inlineString": trusted["data"]["ca.crt"]}},
    }
