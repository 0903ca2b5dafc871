"""A pod whose connections are redirected: authz and Envoy in it with their users, and the shipped script.

Users, variables and script are those that `interception` and `https` of `kubernetes/components`
render; folders of the pod are folders of the test.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, Self

from support.kubernetes.manifests import Manifests
from support.kubernetes.namespaces import ENTRA, OTHER, Namespace, User, Wire
from support.proxy.envoy import envoy_binary

AGENT: Final = "agent"
TOOLS: Final = "tools.example"
"""A service without TLS, which the configuration of these pods has beside Graph."""
_PATIENCE: Final = 30.0
_ADMIN: Final = "http://127.0.0.1:15000"
_READY: Final = "http://127.0.0.1:9902/readyz"
_NEVER: Final = Event()
_HOSTS: Final = MappingProxyType(
    {"graph.microsoft.com": [ENTRA], "other.example": OTHER, TOOLS: OTHER}
)
_CHANGES: Final = MappingProxyType(
    {
        # What the agent sends is then what must not leave.
        "forward: placeholder": "forward: bearer",
        "subject: [placeholder]": "subject: [bearer]",
        "\negress:\n": f"\negress:\n  tools: {{flow: none, hosts: ['http://{TOOLS}']}}\n",
    }
)


class RedirectedPod:
    """The pod, and what is outside of it. A context manager; Envoy is started by `envoy`.

    Args:
        manifests: An overlay with both components.
        folder: For files of the pod; every user must be able to read it.
        hosts: Addresses by name, of what is outside.
        outside: Module of the program that serves there.
        changes: What stands in authz.yaml in place of what the manifests have.
        options: Further ones of `authz envoy`.

    Attributes:
        users: Who runs each container.
        token: A user's token for the agent.
        prepared: What the agent trusts, by file, before anything of the pod has started.
        pod: The pod's namespace.
        outside: The other one.
    """

    def __init__(
        self,
        manifests: Manifests,
        folder: Path,
        *,
        hosts: Mapping[str, Sequence[str]] = _HOSTS,
        outside: str = "support.peers.outside",
        changes: Mapping[str, str] = _CHANGES,
        options: Sequence[str] = (),
    ) -> None:
        group = manifests.pod["securityContext"]["fsGroup"]
        self.users = {
            name: User(
                number=container.security["runAsUser"],
                groups=(group,),
                capabilities=tuple(
                    name.lower() for name in container.security["capabilities"].get("add", ())
                ),
            )
            for name, container in manifests.containers.items()
        }
        self.token = ""
        self.prepared: dict[str, bytes] = {}
        self._manifests = manifests
        self._folder = folder
        self._script = folder / "intercept.sh"
        self._volumes = {name: folder / name for name in ("authz-trust", "authz-ca")}
        self._wire = Wire(hosts, folder)
        self._served_by = outside
        self._changes = changes
        self._options = tuple(options)
        self.pod, self.outside = self._wire.pod, self._wire.outside
        self._stack, self._envoy = ExitStack(), ExitStack()
        self._kind: tuple[str | None, bool] = (None, False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._wire)
            self.token = stack.enter_context(self.outside.serving(self._served_by, self._folder))
            self._count()
            self._write()
            self._prepare()
            command = self._program("authz")
            stack.enter_context(self._running("authz", command))
            self._wait_for(_READY, "authz")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._envoy.close()
        self._stack.close()

    @contextmanager
    def envoy(self, transparent: str | None, *, https: bool = False) -> Iterator[None]:
        """Run Envoy as `authz envoy` renders it, in place of the one that runs.

        Args:
            transparent: What becomes of TLS; empty where the agent knows its proxy; None for no Envoy at
                all until the end.
            https: Whether Envoy ends TLS to hosts with a route.
        """
        before, self._kind = self._kind, (transparent, https)
        self._replace_envoy()
        try:
            yield
        finally:
            self._kind = before
            self._replace_envoy()

    def _replace_envoy(self) -> None:
        self._envoy.close()
        transparent, https = self._kind
        if transparent is None:
            return
        file = self._folder / "envoy.yaml"
        file.write_text(self._rendered(transparent, https=https))
        command = [
            *(str(envoy_binary()), "--config-path", str(file)),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
            # The access log is read back right away.
            *("--file-flush-interval-msec", "20"),
        ]
        self._envoy.enter_context(self._running("envoy", command))
        self._wait_for(f"{_ADMIN}/ready", "envoy")

    def intercept(
        self, *arguments: str, path: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the init container: its command, with its user, rights and variables.

        Args:
            arguments: Further arguments.
            path: Folder whose programs come first.
            variables: Changed ones.
        """
        container = self._manifests.containers["intercept"]
        command = [*container.spec["command"][:-1], str(self._script), *arguments]
        search = os.pathsep.join(filter(None, [path, os.environ["PATH"]]))
        user = self.users["intercept"]
        if path:
            # What is there is the older iptables, which speaks to the kernel by a raw socket.
            user = User(user.number, user.groups, (*user.capabilities, "net_raw"))
        env = {"PATH": search, **container.variables, **variables}
        return self.pod.run(*command, user=user, env=env)

    def _prepare(self) -> None:
        """Run the init container that checks the configuration. The agent could start from here on."""
        done = self.pod.run(
            *self._program("check-config"),
            user=self.users["check-config"],
            env={**self._identity, **self._files_of("check-config")},
        )
        assert done.returncode == 0, done.stderr
        self.prepared = {file.name: file.read_bytes() for file in self.trust.iterdir()}

    def _program(self, container: str) -> list[str | Path]:
        arguments = self._manifests.containers[container].spec["args"]
        config = self._folder / "authz.yaml"
        return [Path(sys.executable).with_name("authz"), *arguments, "--config", config]

    def _files_of(self, container: str) -> dict[str, str]:
        """The variables of a container that name files in its volumes for TLS, as they are here."""
        found = self._manifests.containers[container]
        folders = {
            found.mounts[name]["mountPath"]: folder
            for name, folder in self._volumes.items()
            if name in found.mounts
        }
        return {
            name: value.replace(place, str(folder))
            for name, value in found.variables.items()
            for place, folder in folders.items()
            if value.startswith(f"{place}/")
        }

    def as_agent(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the agent, with the variables that its container has."""
        env = {**self._files_of(AGENT), **variables}
        assert env.keys() >= self._manifests.containers[AGENT].variables.keys()
        return self.pod.run(*command, user=self.users[AGENT], env=env)

    def curl(
        self, *arguments: str, user: str = AGENT, namespace: Namespace | None = None
    ) -> tuple[int, str]:
        """Return exit status and output of curl as one of the pod's users, without any variable."""
        result = (namespace or self.pod).run(
            *("curl", "--silent", "--max-time", "10", *arguments),
            user=self.users[user],
        )
        return result.returncode, result.stdout

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as the agent, without any variable."""
        return self.pod.run(sys.executable, "-c", code, *arguments, user=self.users[AGENT])

    def rules(self) -> str:
        """Return every rule of the pod's namespace, of all forms, as the kernel has them."""
        tables = self.pod.do("nft", "list", "ruleset")
        saves = ("iptables-legacy-save", "ip6tables-legacy-save")
        saved = "".join(self.pod.run(save).stdout for save in saves)
        lines = (tables + saved).splitlines()
        counted = re.compile(r" \[\d+:\d+\]$|counter packets \d+ bytes \d+ ")
        return "\n".join(counted.sub("", line) for line in lines if "#" not in line)

    def arrived(self, kind: str) -> int:
        """Return how many packets of a kind have reached the outside."""
        listed = json.loads(
            self.outside.do("nft", "--json", "list", "counter", "inet", "watch", kind)
        )
        (packets,) = [
            item["counter"]["packets"] for item in listed["nftables"] if "counter" in item
        ]
        return int(packets)

    def statistic(self, name: str) -> int:
        """Return one of Envoy's counters."""
        _, text = self.curl(f"{_ADMIN}/stats?filter=^{name}$")
        return int(text.rpartition(":")[2])

    def _count(self) -> None:
        # What the agent could send: authz and Envoy speak to Entra's port 443 only, and two ports of the
        # pod answer to the outside.
        matches = {
            "segments": [
                "tcp dport != 443",
                f"ip daddr {OTHER[0]} meta l4proto tcp",
                f"ip6 daddr {OTHER[1]} meta l4proto tcp",
            ],
            "quic": ["udp dport 443"],
            "datagrams": ["udp dport 8125"],
        }
        counters = [f"counter {kind} {{ }}" for kind in matches]
        rules = [
            f"{match} counter name {kind} accept" for kind in matches for match in matches[kind]
        ]
        lines = [
            "table inet watch {",
            *counters,
            "chain arriving {",
            "type filter hook prerouting priority -300;",
            'iifname != "eth0" accept',
            "tcp sport { 9000, 9902 } accept",
            *rules,
            "}",
            "}",
        ]
        self.outside.do("nft", "\n".join(lines))

    def _write(self) -> None:
        described = json.loads((self._folder / "emulator.json").read_text())
        tenant = described["tenants"][0]
        blueprint = tenant["blueprints"][0]
        self._identity: dict[str, str] = {
            "TENANT_ID": tenant["tenant_id"],
            "CLIENT_ID": blueprint["client_id"],
            "AGENT_IDENTITY": blueprint["agents"][0]["client_id"],
            "SCOPE": "access_agent access_as_user",
            "AZURE_AUTHORITY_HOST": described["authority"],
            "SSL_CERT_FILE": str(self._folder / "ca.pem"),
        }
        sockets = self._folder / "run"
        owner = self.users["authz"].number
        for folder in (sockets, *self._volumes.values()):
            folder.mkdir()
            os.chown(folder, owner, owner)
        secret = self._folder / "client-secret"
        secret.write_text(blueprint["client_secret"])
        # As the overlay's credential does, by another path.
        self._identity["AUTHZ_CLIENT_SECRET_FILE"] = str(secret)
        config = self._manifests.files["authz.yaml"]
        for theirs, ours in (
            ("/run/authz/", f"{sockets}/"),
            ("socket_group: authz", f'socket_group: "{owner}"'),
            *self._changes.items(),
        ):
            assert theirs in config
            config = config.replace(theirs, ours)
        (self._folder / "authz.yaml").write_text(config)
        self._script.write_text(self._manifests.files.get("intercept.sh", ""))

    @property
    def trust(self) -> Path:
        """Folder of what the agent trusts."""
        return self._volumes["authz-trust"]

    @property
    def agent_identity(self) -> str:
        """Client id of the agent identity, which its tokens name."""
        return self._identity["AGENT_IDENTITY"]

    @cache  # noqa: B019 - one pod a module
    def _rendered(self, transparent: str, *, https: bool) -> str:
        options = {
            "--config": self._folder / "authz.yaml",
            **({"--transparent": transparent} if transparent else {}),
            "--upstream-ca": self._folder / "ca.pem",
        }
        flat = [str(part) for option in options.items() for part in option]
        command = [str(Path(sys.executable).with_name("authz")), "envoy", *flat, *self._options]
        return subprocess.run(
            command,
            env={
                "PATH": os.environ["PATH"],
                **self._identity,
                **(self._files_of("authz") if https else {}),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    @contextmanager
    def _running(self, container: str, argv: list[Any]) -> Iterator[None]:
        command = self.pod.command(argv, self.users[container])
        env = {"PATH": os.environ["PATH"], **self._identity, **self._files_of(container)}
        with (self._folder / f"{container}.log").open("ab") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            yield
        finally:
            # At once: what the tests ask is what happens without it, not how it ends.
            process.kill()
            process.wait()

    def passed_on(self, destination: str) -> Mapping[str, Any]:
        """Return the entry in Envoy's log of a connection that went on, once it has ended."""
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline:
            # The last line may still be half written.
            lines = self.log("envoy").split("\n")[:-1]
            entries = [json.loads(line) for line in lines if line.startswith("{")]
            for entry in entries:
                if entry.get("destination") == destination:
                    found: Mapping[str, Any] = entry
                    return found
            _NEVER.wait(0.02)
        raise TimeoutError(self.log("envoy"))

    def log(self, container: str) -> str:
        """Return what a program of the pod has printed."""
        return (self._folder / f"{container}.log").read_text(errors="replace")

    def _wait_for(self, url: str, container: str) -> None:
        deadline = monotonic() + _PATIENCE
        while self.curl("--fail", "--retry-connrefused", "--retry", "3", url)[0]:
            assert monotonic() < deadline, self.log(container)
