"""`Worker`: a real node beside the API server: kubelet, containerd, kube-proxy and kube-scheduler.

Pods get their network from the reference plugins of CNI. Names of Services are those of `service_names`. A
NetworkPolicy does nothing: these plugins know none.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from support.kubernetes.apiserver import ADMIN, ApiServer, find, missing
from support.kubernetes.images import SANDBOX
from support.kubernetes.machine import ADDRESS, SERVICE, Machine

PROGRAMS: Final = ("kubelet", "kube-proxy", "kube-scheduler", "containerd")
"""containerd's shim and `ctr` are looked for beside it."""
CONTROLLERS: Final = ("endpointslice-controller", "node-lifecycle-controller")
"""Those that a node needs beyond the usual ones."""
_PLUGINS: Final = Path("/usr/lib/cni")
_PATIENCE: Final = 120.0


def reason_for_none() -> str | None:
    """Return why there can be no node here; None if there can."""
    if os.geteuid() != 0:
        return "only root can make a node"
    if not (_PLUGINS / "bridge").exists() or shutil.which("runc") is None:
        return "not installed: containernetworking-plugins, runc"
    return missing(*PROGRAMS)


class Worker:
    """One node. A context manager; what it started ends with the server's machine.

    Args:
        server: The API server.
        machine: Where it is, and the node too.
        folder: For containers, volumes, sockets and logs; its path must be short.
    """

    def __init__(self, server: ApiServer, machine: Machine, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._machine = machine
        self._started = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start_containerd(stack)
            self._start_kubelet(stack)
            config = f"--kubeconfig={self._server.kubeconfig()}"
            unshared = ["--leader-elect=false", "--secure-port=0"]
            self._start(stack, "kube-scheduler", config, *unshared)
            self._start_proxy(stack)
            names = [sys.executable, "-m", "support.peers.service_names", SERVICE]
            self._server.start(stack, "names", *names)
            self._started = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._started.close()

    def wait_until_ready(self) -> None:
        """Wait until the node takes pods."""

        def ready() -> bool:
            found = self._server.get("/api/v1/nodes/node") or {}
            conditions = found.get("status", {}).get("conditions", ())
            states = {one["type"]: one["status"] for one in conditions}
            return states.get("Ready") == "True" and not found["spec"].get("taints")

        self._server.wait(ready, _PATIENCE)

    def load(self, archive: Path, images: Sequence[str]) -> None:
        """Take images from an archive; those of this machine's store get the names that pods have."""
        self._ctr("images", "import", archive)
        for image in images:
            name = image.removeprefix("localhost/")
            if name != image:
                self._ctr("images", "tag", image, f"docker.io/library/{name}")

    def _ctr(self, *arguments: str | Path) -> None:
        containerd = find("containerd")
        assert containerd is not None
        socket = self._folder / "containerd.sock"
        where = ["--address", str(socket), "--namespace", "k8s.io"]
        tool = containerd.with_name("ctr")
        process = self._server.start(self._started, "ctr", tool, *where, *arguments)
        assert process.wait(_PATIENCE) == 0, self._server.log("ctr")

    def _start(self, stack: ExitStack, program: str, *arguments: str | Path) -> None:
        file = find(program)
        assert file is not None, missing(program)
        # containerd finds its shim, and the plugins their programs, by PATH.
        search = f"PATH={file.parent}:{os.environ['PATH']}"
        self._server.start(stack, program, "env", search, file, *arguments)

    def _write(self, name: str, content: Any) -> Path:
        file = self._folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return file

    def _start_containerd(self, stack: ExitStack) -> None:
        bridge = {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
        file = self._write("cni/10-pods.conflist", json.dumps(network))
        config = self._write(
            "containerd.toml",
            f"""
version = 3
root = "{self._folder / "containers"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{self._folder / "containerd.sock"}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{SANDBOX}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{_PLUGINS}"]
conf_dir = "{file.parent}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
""",
        )
        self._start(stack, "containerd", "--config", config)
        self._server.wait((self._folder / "containerd.sock").exists)

    def _start_kubelet(self, stack: ExitStack) -> None:
        nothing = "0%"
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._machine.group}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._folder / 'containerd.sock'}",
            "clusterDNS": [SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self._write("resolv.conf", f"nameserver {SERVICE}\n")),
            "podLogsDir": str(self._folder / "logs"),
            "volumePluginDir": str(self._folder / "plugins"),
            # A build machine's disk may be nearly full.
            "evictionHard": {
                "memory.available": nothing,
                "nodefs.available": nothing,
                "nodefs.inodesFree": nothing,
                "imagefs.available": nothing,
            },
            "imageGCHighThresholdPercent": 100,
            # Nor may its root lower the score by which the kernel chooses what to end.
            "featureGates": {"KubeletInUserNamespace": True},
        }
        self._start(
            stack,
            "kubelet",
            f"--config={self._write('kubelet.yaml', config)}",
            f"--kubeconfig={self._server.kubeconfig(ADMIN)}",
            f"--root-dir={self._folder / 'kubelet'}",
            f"--cert-dir={self._folder / 'keys'}",
            "--hostname-override=node",
            f"--node-ip={ADDRESS}",
        )

    def _start_proxy(self, stack: ExitStack) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._server.kubeconfig())},
            "clusterCIDR": "10.244.0.0/24",
            "hostnameOverride": "node",
            # Its default is a setting of the whole machine.
            "conntrack": {"maxPerCore": 0},
        }
        self._start(stack, "kube-proxy", f"--config={self._write('proxy.yaml', config)}")
