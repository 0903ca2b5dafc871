"""`MeshedPod`: the pod of the Istio overlay, with a real Envoy that is configured by the real pilot.

Agent, authz and Envoy run with their users in a network namespace, where connections are redirected as by
Istio's own rules. What stands in for Istio's agent is `proxy_agent`; there is no kubelet, and Envoy is
upstream's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Final, Self, TypeVar

import trustme
import yaml

from support.fakes.workload import workload_certificate
from support.istio.proxy_agent import ProxyAgent
from support.kubernetes.manifests import Manifests, Object
from support.kubernetes.namespaces import ENTRA, OTHER, POD, Namespace, User, Wire
from support.peers.internet import FURTHER, GRAPH, GRAPH_PORT, LOGIN
from support.proxy.envoy import envoy_binary

Found = TypeVar("Found")

NAME: Final = "agent-0"
NEIGHBOUR: Final = "neighbour"
"""A service of the mesh that has nothing to do with authz."""
NEIGHBOUR_IP: Final = "10.96.0.77"
"""Its address in the cluster; nobody answers there but by way of the proxy."""
TRUST_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
ADMIN: Final = "http://127.0.0.1:15000"
GRAPH_URL: Final = f"http://{GRAPH}/v1.0/me"
OPEN_PORT: Final = 8001
"""A port on which the agent listens though nothing names it."""
ISTIO_PROXY: Final = 1337
_PATIENCE: Final = 30.0
_PAUSE: Final = 0.05
_TESTS: Final = Path(__file__).parents[2]
_PROXY: Final = """
import http.client, ssl, sys
host, port, path, pem = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain(pem)
context.set_alpn_protocols(["istio-http/1.1", "istio"])
connection = http.client.HTTPSConnection(host, int(port), timeout=15, context=context)
connection.request("GET", path)
print(connection.getresponse().status)
"""
_MOUNTED: Final = (
    'mount -t tmpfs run /run && mkdir /run/authz && mount --bind "$0" /run/authz && exec "$@"'
)
# What Istio's init container, or its CNI plugin, sets: all but the proxy's own connections.
_REDIRECTED: Final = f"""
table ip istio {{
  chain outbound {{
    type nat hook output priority -100;
    meta skuid {ISTIO_PROXY} accept
    meta skgid {ISTIO_PROXY} accept
    oifname "lo" accept
    meta l4proto tcp redirect to :15001
  }}
  chain inbound {{
    type nat hook prerouting priority -100;
    tcp dport {{ 15008, 15020, 15021, 15090 }} accept
    meta l4proto tcp redirect to :15006
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Status 0 is no answer."""

    status: int
    body: str

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class MeshedPod:
    """The running pod and what is around it, as a context manager.

    Args:
        manifests: The overlay.
        namespace: Where the pod is in the cluster.
        folder: For files of the pod; every user must be able to read it.
        pilot: `host:port` of pilot's discovery service.

    Attributes:
        token: A user's token for the agent.
        pod: The pod's network namespace.
        outside: The other one.
        proxy: The stand-in for Istio's agent.
        tenant: What the emulator says of its first tenant.
    """

    def __init__(self, manifests: Manifests, namespace: str, folder: Path, pilot: str) -> None:
        group = manifests.pod["securityContext"]["fsGroup"]
        self._users = {
            name: User(number=container.security["runAsUser"], groups=(group,))
            for name, container in manifests.containers.items()
        }
        self._users["istio-proxy"] = User(number=ISTIO_PROXY, groups=(group,))
        self._manifests = manifests
        self._namespace = namespace
        self._folder = folder
        self._pilot = pilot
        self._mesh = trustme.CA()
        hosts = {
            GRAPH: [OTHER[0]],
            FURTHER: [OTHER[0]],
            LOGIN: [ENTRA],
            # What the cluster's DNS would say.
            f"{NEIGHBOUR}.{namespace}": [NEIGHBOUR_IP],
            "api.example": [OTHER[0]],
        }
        self._wire = Wire(hosts, folder)
        self.pod, self.outside = self._wire.pod, self._wire.outside
        self.token = ""
        self.tenant: Object = {}
        self._stack, self._authz = ExitStack(), ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._wire)
            self.pod.do("nft", _REDIRECTED)
            self.outside.do("nft", _graph_at(f"{OTHER[0]}:{GRAPH_PORT}"))
            self.token = stack.enter_context(
                self.outside.serving("support.peers.internet", self._folder)
            )
            self._write()
            certificate = self._certificate("agent")
            self._caller.write_bytes(b"".join(self._certificate("portal")))
            authorities = {
                "ROOTCA": self._mesh.cert_pem.bytes(),
                f"file-root:{TRUST_BUNDLE}": (self._folder / "ca.pem").read_bytes(),
            }
            self.proxy = stack.enter_context(
                ProxyAgent(
                    self._folder,
                    pilot=self._pilot,
                    certificate=certificate,
                    authorities=authorities,
                )
            )
            stack.enter_context(self._running("istio-proxy", self._envoy(), mounted=True))
            self.wait(lambda: self.curl("--fail", f"{ADMIN}/ready").status or None, "Envoy")
            stack.enter_context(self._running("agent", self._agent()))
            at_home = f"http://127.0.0.1:{OPEN_PORT}/"
            self.wait(lambda: self.curl(at_home).status or None, "agent")
            stack.callback(self.stop_authz)
            self.start_authz()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- authz

    def start_authz(self) -> None:
        """Start authz and wait until it is ready, for which it has to reach Entra through the proxy."""
        command = [str(Path(sys.executable).with_name("authz")), "serve"]
        environ = self._identity | {"AUTHZ_CONFIG": str(self._folder / "authz.yaml")}
        self._authz.enter_context(self._running("authz", command, environ, mounted=True))
        ready = "http://127.0.0.1:9902/readyz"
        self.wait(lambda: self.curl("--fail", ready).status or None, "authz")

    def stop_authz(self) -> None:
        """End authz."""
        self._authz.close()

    @contextmanager
    def configured(self, **egress: Object) -> Iterator[None]:
        """Give authz further routes, of which it hears by itself."""
        file = self._folder / "authz.yaml"
        before = file.read_text()
        config = yaml.safe_load(before)
        config["egress"] |= egress
        file.write_text(yaml.safe_dump(config))
        try:
            yield
        finally:
            file.write_text(before)

    # ---- Calls

    def curl(self, *arguments: str, user: str = "agent") -> Answer:
        """Call as one of the pod's users, without any variable."""
        return _curl(self.pod, self._users[user], *arguments)

    def call(
        self, *arguments: str, port: int = 8000, scheme: str = "https", known: bool = True
    ) -> Answer:
        """Call the pod from outside, by `https` as another workload of the mesh does, if it is known."""
        path, *more = arguments
        certificate = ("--cert", str(self._caller)) if known else ()
        # A workload would look for a SPIFFE id in the pod's own certificate, which curl cannot.
        flags = ("--insecure", "--http1.1", *certificate)
        return _curl(self.outside, User(0), *flags, f"{scheme}://{POD[0]}:{port}{path}", *more)

    def call_by_proxy(self, port: int, path: str = "/") -> int:
        """Return the status of a call from another workload as its own Istio proxy makes it, without token.

        Unlike curl, such a proxy says by ALPN that it is one, which counts where TLS is not the only choice.
        """
        code = [sys.executable, "-c", _PROXY, POD[0], str(port), path, str(self._caller)]
        ended = self.outside.run(*code)
        return int(ended.stdout or 0)

    @contextmanager
    def graph_answered_by_entra(self) -> Iterator[None]:
        """Let connections to Graph lead to a server that has a good certificate, but no such name."""
        self.outside.do("nft", _graph_at(f"{ENTRA}:443"))
        try:
            yield
        finally:
            self.outside.do("nft", _graph_at(f"{OTHER[0]}:{GRAPH_PORT}"))

    def reference(self) -> str:
        """Return what the agent receives in place of a user's token."""
        answer = self.call("/", *headers(f"Bearer {self.token}"))
        assert answer.status == 200, answer.body
        value: str = answer.json()["headers"]["authorization"]
        return value

    def relay(self) -> Object:
        """Let a user call the agent, which calls Graph; return what the agent tells of both."""
        answer = self.call(f"/?url={GRAPH_URL}", *headers(f"Bearer {self.token}"))
        assert answer.status == 200, answer.body
        told: Object = answer.json()
        return told

    # ---- What Envoy took from pilot

    def listeners(self) -> Mapping[str, Object]:
        """Return listeners by name."""
        found = self._dump("dynamic_listeners")
        return {one["name"]: one["active_state"]["listener"] for one in found}

    def clusters(self) -> Mapping[str, Object]:
        """Return clusters by name."""
        found = self._dump("dynamic_active_clusters")
        return {one["cluster"]["name"]: one["cluster"] for one in found}

    def routes(self) -> Mapping[str, Object]:
        """Return route configurations by name."""
        found = self._dump("dynamic_route_configs")
        return {one["route_config"]["name"]: one["route_config"] for one in found}

    def _dump(self, kind: str) -> list[Object]:
        return list(self.curl(f"{ADMIN}/config_dump?resource={kind}").json().get("configs", ()))

    def statistic(self, name: str) -> int:
        """Return one of Envoy's counters; 0 where it has none of that name."""
        stats = self.curl(f"{ADMIN}/stats?format=json").json()["stats"]
        found: list[int] = [entry["value"] for entry in stats if entry.get("name") == name]
        return sum(found)

    def wait(self, look: Callable[[], Found | None], what: str) -> Found:
        """Look until there is something."""
        deadline, pause = monotonic() + _PATIENCE, Event()
        while (found := look()) is None:
            assert monotonic() < deadline, f"no {what}: {self.log('istio-proxy')[-3000:]}"
            pause.wait(_PAUSE)
        return found

    def log(self, program: str) -> str:
        """Return what a program of the pod has printed."""
        file = self._folder / f"{program}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    # ---- Programs

    def _envoy(self) -> list[str]:
        file = self._folder / "envoy.json"
        file.write_text(json.dumps(self._bootstrap()))
        more = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        return [str(envoy_binary()), "--config-path", str(file), *more]

    def _agent(self) -> list[str]:
        (port,) = self._manifests.containers["agent"].ports.values()
        program = str(_TESTS / "support" / "plain_agent.py")
        # An agent that is not as careful as it should be, and one port too many.
        return [sys.executable, program, "0.0.0.0", str(port), str(OPEN_PORT)]  # noqa: S104

    def _bootstrap(self) -> Object:
        template = self._manifests.find("Deployment")["spec"]["template"]
        metadata = {
            "NAME": NAME,
            "NAMESPACE": self._namespace,
            "SERVICE_ACCOUNT": self._manifests.pod["serviceAccountName"],
            "WORKLOAD_NAME": self._manifests.find("Deployment")["metadata"]["name"],
            "LABELS": template["metadata"]["labels"],
            "ANNOTATIONS": template["metadata"]["annotations"],
            "INSTANCE_IPS": POD[0],
            "INTERCEPTION_MODE": "REDIRECT",
            "ISTIO_VERSION": "1.31.0",
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
        }
        domain = f"{self._namespace}.svc.cluster.local"
        ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        return {
            "node": {
                "id": f"sidecar~{POD[0]}~{NAME}.{self._namespace}~{domain}",
                "cluster": f"agent.{self._namespace}",
                "metadata": metadata,
            },
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
            "dynamic_resources": {
                "lds_config": ads,
                "cds_config": ads,
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "set_node_on_first_message_only": True,
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {
                "clusters": [
                    _socket("xds-grpc", self._folder / "xds"),
                    _socket("sds-grpc", self._folder / "sds"),
                ]
            },
        }

    @contextmanager
    def _running(
        self,
        name: str,
        argv: list[str],
        environ: Mapping[str, str] | None = None,
        *,
        mounted: bool = False,
    ) -> Iterator[None]:
        inside = [*self._users[name].prefix, *argv]
        if mounted:
            inside = ["sh", "-c", _MOUNTED, str(self._folder / "run"), *inside]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.pod.command(inside),
                env={"PATH": os.environ["PATH"], **(environ or {})},
                stdout=log,
                stderr=log,
            )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    # ---- Files

    def _write(self) -> None:
        described = json.loads((self._folder / "emulator.json").read_text())
        self.tenant = described["tenants"][0]
        blueprint = self.tenant["blueprints"][0]
        self._identity: dict[str, str] = {
            "TENANT_ID": self.tenant["tenant_id"],
            "CLIENT_ID": blueprint["client_id"],
            "AGENT_IDENTITY": blueprint["agents"][0]["client_id"],
            "SCOPE": "access_agent access_as_user",
            "SSL_CERT_FILE": str(self._folder / "ca.pem"),
        }
        owner = self._users["authz"].number
        (self._folder / "run").mkdir()
        os.chown(self._folder / "run", owner, owner)
        secret = self._folder / "client-secret"
        secret.write_text(blueprint["client_secret"])
        config = yaml.safe_load(self._manifests.files["authz.yaml"])
        # The image's group has a name. And the emulator has no federated credential.
        config["listen"]["socket_group"] = str(owner)
        config["blueprints"]["agent"]["credentials"] = [{"client_secret": {"file": str(secret)}}]
        (self._folder / "authz.yaml").write_text(yaml.safe_dump(config))

    def _certificate(self, account: str) -> tuple[bytes, bytes]:
        name = f"spiffe://cluster.local/ns/{self._namespace}/sa/{account}"
        return workload_certificate(self._mesh, name)

    @property
    def _caller(self) -> Path:
        return self._folder / "caller.pem"


def headers(authorization: str, *others: str) -> list[str]:
    """Return curl's arguments for header lines."""
    lines = [f"authorization: {authorization}", *others]
    return [part for line in lines for part in ("--header", line)]


def _socket(name: str, path: Path) -> Object:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _graph_at(address: str) -> str:
    return f"""
table ip graph
flush table ip graph
table ip graph {{
  chain arriving {{
    type nat hook prerouting priority -100;
    ip daddr {OTHER[0]} tcp dport 443 dnat to {address}
  }}
}}
"""


def _curl(namespace: Namespace, user: User, *arguments: str) -> Answer:
    ended = namespace.run(
        *("curl", "--silent", "--max-time", "15", "--write-out", "\n%{http_code}", *arguments),
        user=user,
    )
    body, _, status = ended.stdout.rpartition("\n")
    # With `--fail` the status alone would not tell.
    return Answer(int(status) if ended.returncode == 0 else 0, body)
