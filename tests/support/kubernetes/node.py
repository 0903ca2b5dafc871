"""`Node`: runs Deployments by `podman play kube`, each in a network namespace of its own, and Services.

It stands for a cluster's one node. What podman cannot do, or what is a kubelet's, a network's or a DNS
server's part, is done here and nowhere else:

- `_playable`: a Deployment becomes a Pod, its volumes folders of this machine with the content, modes and
  group that a kubelet would give them; variables of whole ConfigMaps and Secrets are written out; images are
  those of the test's store; probes and delays of stopping are left out, as are the numbers of ports, which
  podman takes for mappings;
- `_Network`: addresses, names, Services by address and by node port, and NetworkPolicies, as rules of
  netfilter inside of the node's own namespace.

Commands, arguments, variables, users, rights, limits and mounts stay as they are written.
"""

import base64
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Self

import yaml

from support.kubernetes.engine import Engine
from support.kubernetes.manifests import Manifests, Object
from support.kubernetes.namespaces import Namespace

_LEFT_OUT: Final = (
    *("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"),
    "envFrom",
)
_TABLE: Final = """\
table inet node {{
  chain services {{
    {services}
  }}
  chain arriving {{ type nat hook prerouting priority dstnat; jump services; }}
  chain local {{ type nat hook output priority -100; jump services; {node_ports} }}
  chain leaving {{ type nat hook postrouting priority srcnat; ip saddr 127.0.0.1 masquerade; }}
  chain policies {{
    type filter hook forward priority filter;
    ct state established,related accept
    {policies}
  }}
}}
"""


class Node:
    """One node. A context manager: at its end the pods and the namespaces are gone.

    Args:
        engine: Has the images.
        folder: Where volumes are; every user must be able to read it.
        ports: Ports of 127.0.0.1 by the node port that they lead to.
    """

    def __init__(self, engine: Engine, folder: Path, ports: Mapping[int, int]) -> None:
        self._engine = engine
        self._folder = folder
        self._network = _Network(ports)

    def __enter__(self) -> Self:
        self._network.namespace.add()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.attempt("rm", "--force", "--all", "--time", "0")
        self._network.remove()

    def run(self, manifests: Sequence[Manifests], tokens: Mapping[str, str]) -> None:
        """Start the Deployments of several namespaces, all at the same time.

        Args:
            manifests: The objects of each.
            tokens: What the cluster signs, by audience, for volumes that project one.
        """
        self._network.connect(manifests)
        started = []
        for one in manifests:
            name = one.find("Deployment")["metadata"]["name"]
            (folder := self._folder / name).mkdir()
            hosts = folder / "hosts"
            hosts.write_text(self._network.hosts)
            pod = _playable(one, folder, hosts, tokens)
            file = folder / "pod.yaml"
            file.write_text(yaml.safe_dump(pod))
            file.chmod(0o600)
            started.append((name, self._network.pods[name].name, file))
        for name, namespace, file in started:
            try:
                self._engine.podman("play", "kube", file, namespace=namespace)
            except RuntimeError as error:
                raise RuntimeError(f"{error}\n{self.logs(name)}") from error

    def command(self, *argv: str | Path) -> list[str]:
        """Return a command, to be run on the node: there the mapped ports of 127.0.0.1 are."""
        return self._network.namespace.command(argv)

    def address(self, name: str) -> str:
        """Return the address of a Deployment's pod."""
        return self._network.addresses[name]

    def within(self, name: str, container: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        # It joins the namespaces that the container has of its own, and this one is not among them.
        namespace = self._network.pods[name].name
        return self._engine.attempt("exec", f"{name}-{container}", *argv, namespace=namespace)

    def entering(self, name: str, container: str) -> list[str]:
        """Return what stands before a command, to be run in a container by a program of the test's own."""
        namespace = self._network.pods[name].name
        return self._engine.command("exec", f"{name}-{container}", namespace=namespace)

    def stop(self, name: str, container: str) -> int:
        """Tell a container to end, as a kubelet does, and return its exit status."""
        self._engine.podman("stop", f"{name}-{container}")
        found = self._engine.podman(
            "inspect", "--format", "{{.State.ExitCode}}", f"{name}-{container}"
        )
        return int(found)

    def kill(self, name: str, container: str) -> None:
        """End a container at once."""
        self._engine.podman("kill", f"{name}-{container}")

    def logs(self, name: str) -> Mapping[str, str]:
        """Return what each container of a Deployment's pod has printed."""
        listed = self._engine.podman("ps", "--all", "--format", "{{.Names}}").split()
        names = [one for one in listed if one.startswith(f"{name}-")]
        outputs = {one: self._engine.attempt("logs", one) for one in names}
        return {one.partition("-")[2]: log.stdout + log.stderr for one, log in outputs.items()}


def _playable(manifests: Manifests, folder: Path, hosts: Path, tokens: Mapping[str, str]) -> Object:
    """Return a Deployment's pod in the form that podman can play."""
    deployment = manifests.find("Deployment")
    template = deployment["spec"]["template"]
    security = dict(template["spec"]["securityContext"])
    # Podman knows the members of the group, and not that its volumes are the group's: see `_fill`.
    group = security.pop("fsGroup")
    spec = {
        **template["spec"],
        # Podman would begin an init container anew, again and again, where a Deployment demands `Always`.
        "restartPolicy": "Never",
        # The network of the namespace that podman is started in.
        "hostNetwork": True,
        "securityContext": {**security, "supplementalGroups": [group]},
        "volumes": [
            *(
                _volume(volume["name"], _fill(volume, folder, manifests, group, tokens))
                for volume in template["spec"].get("volumes", ())
            ),
            _volume("hosts", hosts),
        ],
    }
    for kind in ("initContainers", "containers"):
        spec[kind] = [
            {
                **{key: value for key, value in container.items() if key not in _LEFT_OUT},
                "env": [*_variables(container, manifests), *container.get("env", ())],
                "image": _stored(container["image"]),
                "imagePullPolicy": "Never",
                "volumeMounts": [
                    *container.get("volumeMounts", ()),
                    {"name": "hosts", "mountPath": "/etc/hosts", "readOnly": True},
                ],
            }
            for container in spec.get(kind, ())
        ]
    metadata = {"name": deployment["metadata"]["name"], "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _variables(container: Object, manifests: Manifests) -> Iterator[Object]:
    """Return the variables that whole objects give."""
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            data = manifests.find("ConfigMap", source["configMapRef"]["name"])["data"]
            yield from ({"name": name, "value": value} for name, value in data.items())
        else:
            data = manifests.find("Secret", source["secretRef"]["name"])["data"]
            for name, value in data.items():
                yield {"name": name, "value": base64.b64decode(value).decode()}


def _stored(image: str) -> str:
    return image if "/" in image else f"localhost/{image}"


def _volume(name: str, path: Path) -> Object:
    kind = "Directory" if path.is_dir() else "File"
    return {"name": name, "hostPath": {"path": str(path), "type": kind}}


def _fill(
    volume: Object, folder: Path, manifests: Manifests, group: int, tokens: Mapping[str, str]
) -> Path:
    """Make the folder of a volume as a kubelet does for a pod with fsGroup."""
    (root := folder / str(volume["name"])).mkdir()
    for path, data, mode in _content(volume, manifests, tokens):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
        os.chown(file, 0, group)
    os.chown(root, 0, group)
    root.chmod(0o2777 if "emptyDir" in volume else 0o2755)
    return root


def _content(
    volume: Object, manifests: Manifests, tokens: Mapping[str, str]
) -> Iterator[tuple[str, bytes, int]]:
    if "projected" in volume:
        for source in volume["projected"]["sources"]:
            token = source["serviceAccountToken"]
            yield (
                token["path"],
                tokens[token["audience"]].encode(),
                volume["projected"]["defaultMode"],
            )
    elif "emptyDir" not in volume:
        kind, name = ("ConfigMap", "name") if "configMap" in volume else ("Secret", "secretName")
        source = volume["configMap" if kind == "ConfigMap" else "secret"]
        data = manifests.find(kind, source[name])["data"]
        paths = {item["key"]: item["path"] for item in source.get("items", ())}
        for key, text in data.items():
            content = text.encode() if kind == "ConfigMap" else base64.b64decode(text)
            if not paths or key in paths:
                yield paths.get(key, key), content, source.get("defaultMode", 0o644)


class _Network:
    """The node's network: a wire to each pod, and the rules that make Services and policies of it."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self.namespace = Namespace()
        self.pods: dict[str, Namespace] = {}
        self.addresses: dict[str, str] = {}
        self.hosts = "127.0.0.1 localhost\n::1 localhost\n"
        self._ports = ports

    def connect(self, manifests: Sequence[Manifests]) -> None:
        """Make a namespace for each Deployment, and the rules for all."""
        names = [one.find("Deployment")["metadata"]["name"] for one in manifests]
        for number, name in enumerate(names):
            self._wire(name, number)
        rules: dict[str, list[str]] = {"services": [], "node_ports": [], "policies": []}
        spaces = {
            one.find("Deployment")["metadata"]["namespace"]: self.addresses[name]
            for name, one in zip(names, manifests, strict=True)
        }
        services = [(one, service) for one in manifests for service in one.all("Service")]
        for number, (one, service) in enumerate(services, start=1):
            self._serve(one, service, f"10.96.0.{number}", rules)
        for one in manifests:
            rules["policies"] += _policy(one, spaces)
        self._apply(_TABLE.format(**{key: "\n    ".join(lines) for key, lines in rules.items()}))

    def remove(self) -> None:
        """Remove every namespace, and with them wires and rules."""
        for namespace in (*self.pods.values(), self.namespace):
            namespace.remove()

    def _wire(self, name: str, number: int) -> None:
        pod = self.pods[name] = Namespace()
        pod.add()
        end, address = f"pod{number}", f"10.244.{number}.2"
        wire = ["eth0", "netns", pod.name, "type", "veth", "peer", "name", end, "netns"]
        subprocess.run(["ip", "link", "add", *wire, self.namespace.name], check=True)
        for namespace, link, own in (
            (pod, "eth0", address),
            (self.namespace, end, f"10.244.{number}.1"),
        ):
            namespace.do("ip", "link", "set", "lo", "up")
            namespace.do("ip", "address", "add", f"{own}/24", "dev", link)
            namespace.do("ip", "link", "set", link, "up")
        pod.do("ip", "route", "add", "default", "via", f"10.244.{number}.1")
        self.addresses[name] = address

    def _serve(
        self, manifests: Manifests, service: Object, address: str, rules: Mapping[str, list[str]]
    ) -> None:
        pod = self.addresses[manifests.find("Deployment")["metadata"]["name"]]
        metadata = service["metadata"]
        self.hosts += f"{address} {metadata['name']}.{metadata['namespace']}.svc.cluster.local\n"
        named = {
            name: number
            for container in manifests.containers.values()
            for name, number in container.ports.items()
        }
        for port in service["spec"]["ports"]:
            target = f"dnat ip to {pod}:{named[port['targetPort']]}"
            rules["services"].append(f"ip daddr {address} tcp dport {port['port']} {target}")
            if "nodePort" in port:
                mapped = self._ports[port["nodePort"]]
                rules["node_ports"].append(f"ip daddr 127.0.0.1 tcp dport {mapped} {target};")

    def _apply(self, table: str) -> None:
        self.namespace.set("ipv4/ip_forward", 1)
        # For node ports: what comes from 127.0.0.1 may leave by a wire.
        self.namespace.set("ipv4/conf/all/route_localnet", 1)
        subprocess.run(
            self.namespace.command(["nft", "--file", "-"]), input=table, text=True, check=True
        )


def _policy(manifests: Manifests, spaces: Mapping[str, str]) -> Iterator[str]:
    """What the NetworkPolicy of a namespace's pod lets pass, and then that nothing else does."""
    own = spaces[manifests.find("Deployment")["metadata"]["namespace"]]
    if not manifests.all("NetworkPolicy"):
        return
    spec = manifests.find("NetworkPolicy")["spec"]
    named = {
        name: number
        for container in manifests.containers.values()
        for name, number in container.ports.items()
    }
    for direction, here, there in (("ingress", "daddr", "saddr"), ("egress", "saddr", "daddr")):
        if direction.capitalize() not in spec["policyTypes"]:
            continue
        for rule in spec.get(direction, ()):
            peers = [
                match
                for peer in rule.get("to" if direction == "egress" else "from", [None])
                for match in _peer(peer, there, spaces)
            ]
            for port in rule["ports"]:
                number = named.get(port["port"], port["port"])
                for match in peers:
                    yield f"ip {here} {own} {match} {port['protocol'].lower()} dport {number} accept"
        yield f"ip {here} {own} reject"


def _peer(peer: Mapping[str, Any] | None, side: str, spaces: Mapping[str, str]) -> Iterator[str]:
    if peer is None:
        yield ""
    elif "namespaceSelector" in peer:
        name = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        if name in spaces:
            yield f"ip {side} {spaces[name]}"
    elif ip_network(peer["ipBlock"]["cidr"]).version == 4:
        excluded = ", ".join(peer["ipBlock"].get("except", ()))
        yield f"ip {side} {peer['ipBlock']['cidr']} ip {side} != {{ {excluded} }}"
