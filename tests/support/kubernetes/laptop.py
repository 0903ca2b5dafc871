"""`Laptop`: what a person has after `kubernetes/kind/up.sh`, with pods that podman plays.

The script runs with stand-ins for kind, docker and kubectl (`kind`); what it applied runs on a `Node`. The
token of the service account is signed by a key of the test, whose public half the stand-in for the API server
publishes: the emulator trusts it by the same documents as in a cluster.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from support.kubernetes.engine import Engine
from support.kubernetes.kind import Kind, publish
from support.kubernetes.manifests import KUBERNETES, Manifests
from support.kubernetes.node import Node

_CLUSTER: Final = "https://kubernetes.default.svc.cluster.local"
_EXCHANGE: Final = "api://AzureADTokenExchange"
_LOGIN: Final = "https://login.entra-emulator.svc.cluster.local"
_ORDERS: Final = "https://orders.apis.svc.cluster.local"
_NAMESPACES: Final = ("entra-emulator", "apis", "agent")
_PATIENCE: Final = 90.0


def missing() -> str | None:
    """Return why nothing can be called here; None if it can."""
    absent = [tool for tool in ("curl", "nft", "openssl", "nsenter") if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Laptop:
    """What a person at the machine can do: mint, ask, and look, through the mapped ports."""

    def __init__(self, node: Node, script: Path) -> None:
        self.node = node
        self.script = script
        self.authority = script.parent / ".up/ca.crt"

    def mint(self, user: str | None = "alice", **order: Any) -> str:
        """Return a token that a user was given for the agent."""
        name = None if user is None else f"{user}@contoso.example"
        token: str = self.emulator("mint", {"user": name, **order})["access_token"]
        return token

    def ask(self, path: str, token: str | None = None, *headers: str) -> tuple[int, Any]:
        """Return status and body of a request to the agent."""
        sent = [*headers, *([f"Authorization: Bearer {token}"] if token else [])]
        return self._curl(f"http://127.0.0.1:8080{path}", headers=sent)

    def emulator(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what an endpoint of the emulator's own answers."""
        status, answer = self._tls(f"{_LOGIN}/emulator/{path}", 8443, body)
        assert status < 300, answer
        return answer

    def calls(self) -> list[dict[str, Any]]:
        """Return what the API saw, oldest first."""
        found: list[dict[str, Any]] = self._tls(f"{_ORDERS}/calls", 8444)[1]
        return found

    def entra_calls(self) -> int:
        """Return how many tokens have been asked for."""
        total: int = self.emulator("calls")["total"]
        return total

    def admin(self, path: str) -> tuple[int, Any]:
        """Return what authz tells of itself, as the kubelet hears it."""
        return self._curl(f"http://{self.node.address('agent')}:9902{path}")

    def routes_asked_about(self) -> set[str]:
        """Return the names of the egress routes that Envoy has asked for a decision about."""
        counts = str(self.admin("/metrics")[1])
        return set(re.findall(r'authz_checks_total\{.*direction="egress".*route="([^"]+)"', counts))

    def pushed(self) -> set[str]:
        """Return the names of the egress routes whose tokens Envoy has."""
        found = re.findall(
            r'authz_pushed_secret_expiry_seconds\{secret="([^"]+)"\} (\S+)',
            str(self.admin("/metrics")[1]),
        )
        return {name for name, seconds in found if float(seconds) > 0}

    def api_is_up(self) -> bool:
        """Tell whether the API answers."""
        return self._tls(f"{_ORDERS}/calls", 8444)[0] == 200

    def app_calls(self) -> int:
        """Return how many requests the agent has seen, by its own log."""
        return self.node.logs("agent")["agent"].count('"GET /')

    def _tls(self, url: str, port: int, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        options = ["--cacert", str(self.authority), "--connect-to", f"::127.0.0.1:{port}"]
        if body is not None:
            options += ["--data", json.dumps(body)]
        return self._curl(url, *options)

    def _curl(self, url: str, *options: str, headers: list[str] | None = None) -> tuple[int, Any]:
        told = "".join(f"{header}\n" for header in headers or [])
        command = ["curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}"]
        result = subprocess.run(
            self.node.command(*command, "--header", "@-", *options, url),
            input=told,
            capture_output=True,
            text=True,
            check=False,
        )
        body, _, status = result.stdout.rpartition("\n")
        try:
            return int(status), json.loads(body)
        except ValueError:
            return int(status or 0), body


def checkout(folder: Path) -> Path:
    """Copy the manifests, so that no cluster of a user takes part."""
    shutil.copytree(KUBERNETES, folder / "kubernetes", ignore=shutil.ignore_patterns(".env", ".up"))
    return folder


@contextmanager
def up(images: Engine, kubectl: str, checkout: Path) -> Iterator[Laptop]:
    """Run the script of a checkout, and what it applies, until the end of the block."""
    cluster_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    script = checkout / "kubernetes/kind/up.sh"
    kind = Kind(checkout / "stand-ins", kubectl, _published(checkout / "issuer", cluster_key))
    result = kind.run(script, "workload-identity")
    assert result.returncode == 0, result.stderr
    applied = [kind.applied(namespace) for namespace in _NAMESPACES]
    (volumes := checkout / "volumes").mkdir()
    with Node(images, volumes, _ports(script.with_name("cluster.yaml"))) as node:
        node.run(applied, {_EXCHANGE: _service_account_token(cluster_key, applied[2])})
        found = Laptop(node, script)
        _wait_until_ready(found)
        yield found


def _published(folder: Path, key: rsa.RSAPrivateKey) -> Path:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    metadata = {"issuer": _CLUSTER, "jwks_uri": "https://172.18.0.2:6443/openid/v1/jwks"}
    publish(folder, metadata, [{**public, "use": "sig", "alg": "RS256", "kid": "cluster"}])
    return folder


def _ports(cluster: Path) -> dict[int, int]:
    (node,) = yaml.safe_load(cluster.read_text())["nodes"]
    return {one["containerPort"]: one["hostPort"] for one in node["extraPortMappings"]}


def _service_account_token(key: rsa.RSAPrivateKey, manifests: Manifests) -> str:
    """Return what the kubelet would write: the claims of a projected token."""
    (volume,) = [one for one in manifests.pod["volumes"] if "projected" in one]
    asked = volume["projected"]["sources"][0]["serviceAccountToken"]
    namespace = manifests.find("Deployment")["metadata"]["namespace"]
    account = manifests.pod["serviceAccountName"]
    now = int(time.time())
    claims = {
        "aud": [asked["audience"]],
        "exp": now + asked["expirationSeconds"],
        "iat": now,
        "nbf": now,
        "iss": _CLUSTER,
        "sub": f"system:serviceaccount:{namespace}:{account}",
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account}},
    }
    return jwt.encode(claims, key, "RS256", headers={"kid": "cluster"})


def _wait_until_ready(laptop: Laptop) -> None:
    """Wait for all three, and for the tokens that Envoy is given ahead."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        ready = [laptop.admin("/readyz")[0], laptop.ask("/healthz")[0], laptop.pushed()]
        if (
            ready == [200, 200, {"directory", "nightly-orders", "desk-orders"}]
            and laptop.api_is_up()
        ):
            return
        logs = "\n".join(
            f"--- {name}\n{text[-3000:]}"
            for pod in ("emulator", "orders", "agent")
            for name, text in laptop.node.logs(pod).items()
        )
        assert time.monotonic() < deadline, f"not ready: {ready}\n{logs}"
