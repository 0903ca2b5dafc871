"""`REFUSED` and `ADMITTED`: pods by what their app could get at, for all who judge them.

Each is a change of one ordinary pod, which is admitted. Who judges, and how, is for the tests.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from support.kubernetes.manifests import Object

SECRET: Final = "agent-credential"
GUID: Final = "fb60f99c-7a34-4190-8149-302f77469936"
_SECURITY: Final[Object] = {
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
_APP: Final[Object] = {"name": "agent", "image": "agent:1", "securityContext": _SECURITY}


@dataclass(frozen=True, slots=True)
class Case:
    """One pod.

    Attributes:
        name: What its app would have.
        spec: What of the ordinary pod's spec differs.
        field: The field that should change; none of a pod that is admitted.
        metadata: What of its metadata differs.
        redirected: Whether it is judged so only where connections are redirected.
        before: Whether it can be seen only before something is injected: by a name that is taken.
        invalid: Whether the API server takes no such pod from anybody, so that no policy is asked.
    """

    name: str
    spec: Object
    field: str = ""
    metadata: Object | None = None
    redirected: bool = False
    before: bool = False
    invalid: bool = False

    def pod(self, *, redirected: bool = False) -> tuple[Object, Object]:
        """Return metadata and spec as the author wrote them: with a client secret, asking for injection."""
        metadata: Object = {
            "name": "agent",
            "labels": {"authz/inject": "enabled"},
            "annotations": {"authz/client-secret": SECRET},
        }
        if redirected:
            metadata["annotations"]["authz/interception"] = "enabled"
        for key, more in (self.metadata or {}).items():
            metadata[key] |= more
        return metadata, deepcopy({"containers": [_APP], **self.spec})

    def __str__(self) -> str:
        return self.name


def app(**changes: Any) -> Object:
    """Return the spec of a pod whose app differs so."""
    return {"containers": [{**_APP, **changes}]}


def secure(**changes: Any) -> Object:
    """Return the spec of a pod whose app differs so in its securityContext; None takes a field away."""
    merged = {**_SECURITY, **changes}
    return app(securityContext={key: value for key, value in merged.items() if value is not None})


def capable(*added: str) -> Object:
    """Return the spec of a pod whose app adds capabilities, and drops all others."""
    return secure(capabilities={"drop": ["ALL"], "add": [*added]})


def volume(**source: Any) -> Object:
    """Return the spec of a pod whose app mounts such a volume under a name of its own."""
    return {
        **app(volumeMounts=[{"name": "own", "mountPath": "/own"}]),
        "volumes": [{"name": "own", **source}],
    }


def mounting(**mount: Any) -> Object:
    """Return the spec of a pod whose app mounts what is injected."""
    return app(volumeMounts=[{"mountPath": "/x", **mount}])


def variable(source: Object) -> Object:
    """Return the spec of a pod whose app has a variable from somewhere."""
    return app(env=[{"name": "X", "valueFrom": source}])


def token(audience: str) -> Object:
    """Return a projected volume with a token of the pod's account."""
    own = {"serviceAccountToken": {"audience": "own", "path": "own"}}
    wanted = {"serviceAccountToken": {"audience": audience, "path": "token"}}
    return volume(projected={"sources": [own, wanted]})


def port(**changes: Any) -> Object:
    """Return the spec of a pod whose app has such a port."""
    return app(ports=[{"containerPort": 8000, **changes}])


def _everywhere(name: str, changed: Object, field: str, **more: Any) -> Iterator[Case]:
    """The app, an init container and a native sidecar that differ in the same way."""
    (container,) = changed["containers"]
    rest = {key: value for key, value in changed.items() if key != "containers"}
    yield Case(name, changed, f"spec.containers[0].{field}", **more)
    for kind, lasting in (("init container", {}), ("native sidecar", {"restartPolicy": "Always"})):
        other = {**container, "name": "other", **lasting}
        yield Case(
            f"{name}, {kind}",
            {**rest, "initContainers": [other]},
            f"spec.initContainers[0].{field}",
            **more,
        )


_IN_NODE: Final = ("/", "/var/lib/kubelet/pods", "/run/containerd", "/proc")
_AUDIENCES: Final = (
    "api://AzureADTokenExchange",
    "API://azureadtokenexchange",
    "api://AzureADTokenExchangeUSGov",
    "api://AzureADTokenExchangeChina",
    GUID,
    GUID.upper(),
    f"api://{GUID}",
)
_CAPABILITIES: Final = (
    "ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BPF", "CAP_SYS_PTRACE", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "LINUX_IMMUTABLE", "MAC_ADMIN",
    "MKNOD", "NET_ADMIN", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "net_raw",
)  # fmt: skip
_ADD: Final = "securityContext.capabilities.add[0]"
_DROP: Final = "securityContext.capabilities.drop"
_USER: Final = "securityContext.runAsUser"
_ESCALATION: Final = "securityContext.allowPrivilegeEscalation"
_KINDS: Final[dict[str, Object]] = {
    "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True},
    "nfs": {"server": "10.0.0.1", "path": "/"},
    "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.example:x", "lun": 0},
    "flexVolume": {"driver": "example/driver"},
    "azureFile": {"secretName": SECRET, "shareName": "x"},
    "cephfs": {"monitors": ["10.0.0.1"], "secretRef": {"name": SECRET}},
}
_CREDENTIAL_FILE: Final = {"volumeName": "authz-ca", "path": "ca.key", "key": "X"}

REFUSED: Final[tuple[Case, ...]] = (
    # The credential's Secret, by another way than the injected volume.
    Case("secret volume", volume(secret={"secretName": SECRET}), "spec.volumes[0].secret.secretName"),
    Case(
        "projected secret",
        volume(projected={"sources": [{"secret": {"name": "own"}}, {"secret": {"name": SECRET}}]}),
        "spec.volumes[0].projected.sources[1].secret.name",
    ),
    *_everywhere(
        "secret variable",
        variable({"secretKeyRef": {"name": SECRET, "key": "client-secret"}}),
        "env[0].valueFrom.secretKeyRef.name",
    ),
    *_everywhere(
        "all variables of the secret",
        app(envFrom=[{"configMapRef": {"name": "own"}}, {"secretRef": {"name": SECRET}}]),
        "envFrom[1].secretRef.name",
    ),
    Case("pull secret", {"imagePullSecrets": [{"name": SECRET}]}, "spec.imagePullSecrets[0].name"),
    # A token that Entra exchanges.
    *(
        Case(
            f"token for {each}",
            token(each),
            "spec.volumes[0].projected.sources[1].serviceAccountToken.audience",
        )
        for each in _AUDIENCES
    ),
    # Volumes that are injected.
    *_everywhere("credential", mounting(name="credential"), "volumeMounts[0].name"),
    *_everywhere("socket", mounting(name="authz-socket", readOnly=True), "volumeMounts[0].name"),
    Case(
        "socket by a sub-path",
        mounting(name="authz-socket", subPath="authz.sock"),
        "spec.containers[0].volumeMounts[0].name",
    ),
    Case(
        "credential by an expression",
        mounting(name="credential", subPathExpr="$(X)") | {},
        "spec.containers[0].volumeMounts[0].name",
    ),
    Case(
        "credential as a device",
        app(volumeDevices=[{"name": "credential", "devicePath": "/dev/x"}]),
        "spec.containers[0].volumeDevices[0].name",
        invalid=True,
    ),
    Case(
        "variable of an injected file",
        variable({"fileKeyRef": {**_CREDENTIAL_FILE, "volumeName": "authz-socket"}}),
        "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName",
    ),
    Case(
        "the place of what is injected",
        mounting(name="own", mountPath="//run/authz-trust/") | {"volumes": [{"name": "own", "emptyDir": {}}]},
        "spec.containers[0].volumeMounts[0].mountPath",
        before=True,
    ),
    # The node.
    *(
        Case(f"node's {each}", volume(hostPath={"path": each}), "spec.volumes[0].hostPath")
        for each in _IN_NODE
    ),
    *(
        Case(f"volume {kind}", volume(**{kind: source}), f"spec.volumes[0].{kind}")
        for kind, source in _KINDS.items()
    ),
    *(
        Case(key, {key: True}, f"spec.{key}")
        for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
    ),
    Case(
        "host process",
        {"securityContext": {"windowsOptions": {"hostProcess": True}}},
        "spec.securityContext.windowsOptions.hostProcess",
        invalid=True,
    ),
    Case(
        "host process of the app",
        secure(windowsOptions={"hostProcess": True}),
        "spec.containers[0].securityContext.windowsOptions.hostProcess",
        invalid=True,
    ),
    *_everywhere(
        "privileged",
        secure(privileged=True, allowPrivilegeEscalation=None),
        "securityContext.privileged",
    ),
    # Capabilities.
    *(
        Case(f"capability {each}", capable(each), f"spec.containers[0].{_ADD}")
        for each in _CAPABILITIES
    ),
    *_everywhere("capability", capable("BPF"), _ADD),
    Case(
        "a second capability",
        capable("NET_BIND_SERVICE", "SETUID"),
        "spec.containers[0].securityContext.capabilities.add[1]",
    ),
    *_everywhere("default capabilities", secure(capabilities=None), _DROP),
    *(
        Case(f"drop {dropped}", secure(capabilities={"drop": dropped}), f"spec.containers[0].{_DROP}")
        for dropped in ([], ["NET_RAW"], ["all"], ["CAP_ALL"])
    ),
    # Users.
    *_everywhere("user of authz", secure(runAsUser=65532), _USER),
    *_everywhere("user of Envoy", secure(runAsUser=65533), _USER),
    Case(
        "the pod's user",
        {**secure(runAsUser=None), "securityContext": {"runAsUser": 65532}},
        f"spec.containers[0].{_USER}",
    ),
    *_everywhere("image's user", secure(runAsUser=None), _USER, redirected=True),
    *_everywhere("root", secure(runAsUser=0), _USER, redirected=True),
    Case(
        "root by the pod",
        {**secure(runAsUser=None), "securityContext": {"runAsUser": 0}},
        f"spec.containers[0].{_USER}",
        redirected=True,
    ),
    *_everywhere(
        "escalation", secure(allowPrivilegeEscalation=True), _ESCALATION, redirected=True
    ),
    *_everywhere(
        "escalation by default", secure(allowPrivilegeEscalation=None), _ESCALATION, redirected=True
    ),
    # Walls around containers.
    Case(
        "unmasked /proc",
        {**secure(procMount="Unmasked"), "hostUsers": False},
        "spec.containers[0].securityContext.procMount",
    ),
    *_everywhere(
        "no seccomp",
        secure(seccompProfile={"type": "Unconfined"}),
        "securityContext.seccompProfile.type",
    ),
    *_everywhere(
        "no AppArmor",
        secure(appArmorProfile={"type": "Unconfined"}),
        "securityContext.appArmorProfile.type",
    ),
    *_everywhere(
        "SELinux type", secure(seLinuxOptions={"type": "spc_t"}), "securityContext.seLinuxOptions.type"
    ),
    Case(
        "SELinux user",
        secure(seLinuxOptions={"user": "system_u"}),
        "spec.containers[0].securityContext.seLinuxOptions.user",
    ),
    Case(
        "SELinux role",
        secure(seLinuxOptions={"role": "system_r"}),
        "spec.containers[0].securityContext.seLinuxOptions.role",
    ),
    *(
        Case(f"pod's {key}", {"securityContext": {key: {field: value}}}, f"spec.securityContext.{key}.{field}")
        for key, field, value in (
            ("seccompProfile", "type", "Unconfined"),
            ("appArmorProfile", "type", "Unconfined"),
            ("seLinuxOptions", "type", "spc_t"),
            ("seLinuxOptions", "user", "root"),
            ("seLinuxOptions", "role", "sysadm_r"),
        )
    ),
    Case(
        "no AppArmor by annotation",
        {},
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/agent]",
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}},
    ),
    Case(
        "sysctl",
        {"securityContext": {"sysctls": [{"name": "net.ipv4.conf.all.route_localnet", "value": "1"}]}},
        "spec.securityContext.sysctls[0].name",
    ),
    Case(
        "mounts on the node",
        {
            **mounting(name="own", mountPropagation="Bidirectional"),
            "volumes": [{"name": "own", "emptyDir": {}}],
        },
        "spec.containers[0].volumeMounts[0].mountPropagation",
        invalid=True,
    ),
    # Ports.
    *(
        Case(f"port {number}", port(containerPort=number), "spec.containers[0].ports[0].containerPort")
        for number in (8080, 9902, 15001)
    ),
    *(
        Case(f"port name {name}", port(name=name), "spec.containers[0].ports[0].name")
        for name in ("http", "admin")
    ),
    Case("node's port", port(hostPort=8000), "spec.containers[0].ports[0].hostPort"),
    # Names that are taken, and what happens to pods after injection.
    Case("name of a container", app(name="envoy"), "spec.containers[0].name", before=True),
    Case(
        "name of an init container",
        {"initContainers": [{**_APP, "name": "intercept"}]},
        "spec.initContainers[0].name",
        before=True,
    ),
    Case(
        "name of a volume",
        {"volumes": [{"name": "authz-ca", "emptyDir": {}}]},
        "spec.volumes[0].name",
        before=True,
    ),
    Case(
        "Azure's webhook",
        {},
        "metadata.labels[azure.workload.identity/use]",
        {"labels": {"azure.workload.identity/use": "true"}},
        before=True,
    ),
)  # fmt: skip

ADMITTED: Final[tuple[Case, ...]] = (
    Case("ordinary", {}),
    Case("low ports", capable("NET_BIND_SERVICE")),
    Case("secret of its own", volume(secret={"secretName": "own"})),
    Case("projected secret of its own", volume(projected={"sources": [{"secret": {"name": "own"}}]})),
    Case("variable of its own", variable({"secretKeyRef": {"name": "own", "key": "k"}})),
    Case("variables of its own", app(envFrom=[{"secretRef": {"name": "own"}}])),
    Case("identities, which are no secret", app(envFrom=[{"configMapRef": {"name": "agent-identity"}}])),
    Case("token for another audience", token("https://vault.example")),
    Case(
        "token for the API server",
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
    ),
    Case("token by default", {"automountServiceAccountToken": True}),
    Case("configuration", volume(configMap={"name": "own"})),
    Case("memory", volume(emptyDir={"medium": "Memory"})),
    Case("storage", volume(persistentVolumeClaim={"claimName": "own"})),
    Case(
        "storage for one pod",
        volume(
            ephemeral={
                "volumeClaimTemplate": {
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}},
                    }
                }
            }
        ),
    ),
    Case(
        "the pod's own fields",
        volume(downwardAPI={"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}),
    ),
    Case(
        "part of a volume",
        {
            **mounting(name="own", subPath="part", mountPropagation="HostToContainer"),
            "volumes": [{"name": "own", "emptyDir": {}}],
        },
    ),
    Case("a port", port(name="web", protocol="TCP")),
    Case("user of the pod", {**secure(runAsUser=None), "securityContext": {"runAsUser": 1000}}),
    Case("groups of the socket", {"securityContext": {"fsGroup": 65532, "supplementalGroups": [65532]}}),
    Case("another group", {"securityContext": {"fsGroup": 2000}}),
    Case("users of its own", {"hostUsers": False}),
    Case("seccomp profile", secure(seccompProfile={"type": "Localhost", "localhostProfile": "x"})),
    Case("AppArmor profile", secure(appArmorProfile={"type": "RuntimeDefault"})),
    Case("SELinux level", secure(seLinuxOptions={"level": "s0:c1,c2", "type": "container_t"})),
    Case(
        "sysctl",
        {
            "securityContext": {
                "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "32768 60999"}]
            }
        },
    ),
    Case("init container", {"initContainers": [{**_APP, "name": "prepare"}]}),
    Case("native sidecar", {"initContainers": [{**_APP, "name": "s", "restartPolicy": "Always"}]}),
    Case("the rules of *restricted*", {
        **secure(runAsNonRoot=True, readOnlyRootFilesystem=True),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }),
)  # fmt: skip
"""Ordinary pods, redirected or not."""
