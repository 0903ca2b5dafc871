"""`ApiServer`: a real kube-apiserver with etcd, and kube-controller-manager where it is found, on loopback.

The programs are found as envtest finds them. There is no kubelet and no scheduler: pods are admitted and
kept, and never run, unless a `worker` is added. What is asked of it is the business of `tests/cluster`.
"""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import httpx
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.kubernetes.machine import Machine
from support.proxy.envoy import free_port

ASSETS: Final = "KUBEBUILDER_ASSETS"
"""The variable of a folder with all of the programs."""
SERVER: Final = ("kube-apiserver", "etcd")
CONTROLLERS: Final = "kube-controller-manager"
ADMIN: Final = "admin"
_TESTS: Final = Path(__file__).parents[2]
_MASTERS: Final = "system:masters"
_PATIENCE: Final = 60.0
_END_PATIENCE: Final = 10.0
_PAUSE: Final = 0.1
_RUNNING_CONTROLLERS: Final = (
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "validatingadmissionpolicy-status-controller",
)


def variable(program: str) -> str:
    """Return the name of the variable that names a program."""
    return f"TEST_ASSET_{program.upper().replace('-', '_')}"


def find(program: str) -> Path | None:
    """Return a program's file, if a variable leads to it.

    Raises:
        FileNotFoundError: A variable names what is not there, which is a mistake and no reason to skip.
    """
    if named := os.environ.get(variable(program)):
        file = Path(named)
    elif folder := os.environ.get(ASSETS):
        file = Path(folder) / program
        if Path(folder).is_dir() and not file.exists():
            return None
    else:
        return None
    if not file.is_file():
        raise FileNotFoundError(f"{variable(program)} or {ASSETS}: there is no {file}")
    return file.resolve()


def missing(*programs: str) -> str | None:
    """Return why there can be no server, or not these programs of it; None if there can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not on PATH (make setup-system)"
    absent = [program for program in programs if find(program) is None]
    if not absent:
        return None
    wanted = ", ".join(variable(program) for program in absent)
    return f"no {', '.join(absent)}: set {wanted}, or {ASSETS} (CONTRIBUTING.md)"


def written(item: Mapping[str, Any]) -> Any:
    """Return what differs once somebody has written an object again: its version.

    Of objects that controllers write to as well, it is all but what they write.
    """
    metadata: Mapping[str, Any] = item["metadata"]
    if "replicas" not in item.get("spec", {}):
        return metadata["resourceVersion"]
    theirs = {"resourceVersion": None, "managedFields": None}
    annotations = {**metadata.get("annotations", {}), "deployment.kubernetes.io/revision": None}
    return {
        **item,
        "status": None,
        "metadata": {**metadata, **theirs, "annotations": annotations},
    }


class ApiServer:
    """A control plane of one's own, as a context manager.

    Args:
        folder: For data, keys, logs and kubeconfig files.
        issuer: What service account tokens name as theirs.
        controllers: Whether kube-controller-manager runs too. It must have been found.
        more: Names of further controllers.
        machine: Where the programs run, if not on this one. The folder's path must be short enough for a
            Unix socket in it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        issuer: str = "https://issuer.example/cluster",
        controllers: bool = False,
        more: Sequence[str] = (),
        machine: Machine | None = None,
    ) -> None:
        self.folder = folder
        self.issuer = issuer
        self._controllers = controllers
        self._more = more
        self._machine = machine
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.url = ""
        self._kubeconfigs: dict[str, Path] = {}
        self._started = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._write_keys()
            etcd = self._start_etcd(stack)
            self._start_server(stack, etcd)
            self.wait(lambda: self.get("/api/v1/namespaces/default") is not None)
            if self._controllers:
                self._start_controllers(stack)
                account = "/api/v1/namespaces/default/serviceaccounts/default"
                self.wait(lambda: self.get(account) is not None)
            self._started = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._started.close()

    # ---- Users

    def kubeconfig(self, user: str = ADMIN, *groups: str) -> Path:
        """Return the kubeconfig file of a user, who is known by a client certificate.

        The groups count when the user is asked for the first time. Only `admin` has a right from the start.
        """
        found = self._kubeconfigs.get(user)
        if found is not None:
            return found
        # A certificate of trustme has one organization: one group.
        (group,) = groups or ((_MASTERS,) if user == ADMIN else ("plain",))
        # And none of its certificates is without another name: Go takes no empty list of them.
        issued = self._authority.issue_cert(
            f"{user}.example", common_name=user, organization_name=group
        )
        pem, file = self.folder / f"{user}.pem", self.folder / f"{user}.kubeconfig"
        issued.private_key_and_cert_chain_pem.write_to_path(pem)
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        keys = {"client-certificate": str(pem), "client-key": str(pem)}
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": user, "user": keys}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                    "current-context": "test",
                }
            )
        )
        return self._kubeconfigs.setdefault(user, file)

    def environ(self, user: str = ADMIN) -> dict[str, str]:
        """Return the variables with which kubectl, or a program that calls it, speaks for a user."""
        return {**_environ(self.folder), "KUBECONFIG": str(self.kubeconfig(user))}

    def kubectl(
        self, *arguments: str | Path, user: str = ADMIN, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, with some text as its input, and return how it ended."""
        return subprocess.run(
            self.command("kubectl", *arguments),
            env=self.environ(user),
            input=given,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    def command(self, *argv: str | Path) -> list[str]:
        """Return a command, to be run where the server is."""
        return list(map(str, argv)) if self._machine is None else self._machine.command(argv)

    # ---- Objects

    @cached_property
    def http(self) -> httpx.Client:
        """A client that speaks for the administrator."""
        self.kubeconfig()
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.folder / f"{ADMIN}.pem")
        there = None if self._machine is None else str(self._relay)
        transport = httpx.HTTPTransport(verify=context, trust_env=False, uds=there)
        return httpx.Client(base_url=self.url, transport=transport, timeout=_PATIENCE)

    def get(self, path: str, **parameters: str) -> Any:
        """Return what a path has; None if it is not there."""
        answer = self.http.get(path, params=parameters)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, item: Mapping[str, Any], **parameters: str) -> httpx.Response:
        """Create an object as the administrator, without the checks that kubectl makes before."""
        # What the server would drop is a fault.
        strict = {"fieldValidation": "Strict", **parameters}
        return self.http.post(path, json=item, params=strict)

    def namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace whose pods can be created at once, and return its name."""
        name = f"ns-{uuid4().hex[:8]}"
        metadata = {"name": name, "labels": dict(labels or {})}
        made = self.post("/api/v1/namespaces", {"metadata": metadata})
        assert made.status_code == httpx.codes.CREATED, made.text
        account = {"metadata": {"name": "default"}}
        # The controller may have been faster.
        self.post(f"/api/v1/namespaces/{name}/serviceaccounts", account)
        return name

    def wait(self, condition: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Ask until something is so."""
        end = monotonic() + seconds
        pause = Event()
        while not condition():
            assert monotonic() < end, f"not so within {seconds} s"
            pause.wait(_PAUSE)

    def log(self, program: str) -> str:
        """Return what a program has printed."""
        return (self.folder / f"{program}.log").read_text()

    # ---- Programs

    @property
    def _relay(self) -> Path:
        return self.folder / "relay"

    def _write_keys(self) -> None:
        self._authority.cert_pem.write_to_path(self.ca_file)
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = signer.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / "signer.pem").write_bytes(pem)

    def _start_etcd(self, stack: ExitStack) -> str:
        url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        process = self._start(
            stack,
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        if self._machine is not None:
            # The server asks for it until it is there.
            return url
        with httpx.Client(trust_env=False) as client:
            self._await(process, "etcd", lambda: client.get(f"{url}/health").is_success)
        return url

    def _start_server(self, stack: ExitStack, etcd: str) -> None:
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        signer, server = self.folder / "signer.pem", self.folder / "server.pem"
        self.kubeconfig()
        process = self._start(
            stack,
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.folder}",
            f"--tls-cert-file={server}",
            f"--tls-private-key-file={server}",
            f"--client-ca-file={self.ca_file}",
            f"--service-account-issuer={self.issuer}",
            f"--service-account-signing-key-file={signer}",
            f"--service-account-key-file={signer}",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            # As clusters do: what may be privileged is for admission to say.
            "--allow-privileged=true",
            f"--kubelet-client-certificate={self.folder / 'admin.pem'}",
            f"--kubelet-client-key={self.folder / 'admin.pem'}",
            "--kubelet-preferred-address-types=InternalIP",
        )
        if self._machine is not None:
            address = self.url.removeprefix("https://")
            self.start(
                stack, "relay", sys.executable, "-m", "support.peers.relay", self._relay, address
            )
            self.wait(self._relay.exists)
        stack.callback(self.http.close)
        self._await(process, "kube-apiserver", lambda: self.http.get("/readyz").is_success)

    def _start_controllers(self, stack: ExitStack) -> None:
        signer = self.folder / "signer.pem"
        self._start(
            stack,
            CONTROLLERS,
            f"--kubeconfig={self.kubeconfig()}",
            f"--controllers={','.join([*_RUNNING_CONTROLLERS, *self._more])}",
            f"--root-ca-file={self.ca_file}",
            f"--service-account-private-key-file={signer}",
            f"--cert-dir={self.folder}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _start(self, stack: ExitStack, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        file = find(program)
        assert file is not None, missing(program)
        return self.start(stack, program, file, *arguments)

    def start(self, stack: ExitStack, name: str, *argv: str | Path) -> subprocess.Popen[bytes]:
        """Start a program where the server is, to end with the stack; `log` has what it prints."""
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                self.command(*argv),
                cwd=_TESTS,
                # No variable of this machine takes part, those of proxies least of all.
                env=self.environ() if self._kubeconfigs else _environ(self.folder),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        # What runs on another machine ends with it.
        stack.callback(_end if self._machine is None else _forget, process)
        return process

    def _await(
        self, process: subprocess.Popen[bytes], program: str, ready: Callable[[], bool]
    ) -> None:
        def answers() -> bool:
            assert process.poll() is None, f"{program} ended early:\n{self.log(program)[-4000:]}"
            try:
                return ready()
            except httpx.TransportError:
                return False

        self.wait(answers)


def _environ(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder)}


def _forget(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
