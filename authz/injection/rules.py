"""`RULES`: what the author's part of a pod must be like, so that its app cannot get at a credential.

One table for all who ask: `containment` compares pods with it, for `authz inject` and for the webhook, and
`policy` makes the admission policy of kubernetes/components/interception from it. A rule goes by where
something comes from and by what it gives, never by a name alone. How a rule is evaluated is not here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from authz.core.scopes import EXCHANGE_RESOURCES

CAPABILITIES: Final = ("NET_BIND_SERVICE",)
"""What a container may add: of all capabilities, the one that reaches nothing beyond its own listeners."""
VOLUMES: Final = (
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
"""Kinds of volumes whose content the pod shows, or that are storage of the app's own.

Not the node's files. Not what a driver hands out (`csi`) either: a pod does not show what that is, so the
installation has to name the drivers.
"""
_SYSCTLS: Final = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
"""Those of the Pod Security Standard *baseline*."""
_PROFILES: Final = ("RuntimeDefault", "Localhost")
_LABELS_OF_CONTAINERS: Final = (
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
)
"""SELinux types of the Pod Security Standard *baseline*."""


class Scope(StrEnum):
    """What a rule's field is a part of. The values are how a path of such a field begins."""

    METADATA = "metadata"
    POD = "spec"
    VOLUME = "spec.volumes[]"
    """A volume of the author's."""
    CONTAINER = "spec.containers[]"
    """A container of the author's: init containers, native sidecars and ephemeral containers as well."""
    EPHEMERAL = "spec.ephemeralContainers[]"


class Known(StrEnum):
    """Sets that a pod decides, or what is added to it."""

    CONTAINERS = "containers"
    """Names of the containers that are added."""
    VOLUMES = "volumes"
    """Names of the volumes that are added, and hold more than configuration."""
    SECRETS = "secrets"
    """Names of the Secrets that hold the credential."""
    USERS = "users"
    """Users of Envoy and authz."""
    PORTS = "ports"
    """Ports of Envoy and authz."""
    PORT_NAMES = "port_names"
    """Names of these ports."""


@dataclass(frozen=True, slots=True)
class Only:
    """One of these values."""

    values: tuple[Any, ...]
    required: bool = False
    """Whether the field must be there."""


@dataclass(frozen=True, slots=True)
class Holds:
    """A list in which this value is. The field must be there."""

    value: str


@dataclass(frozen=True, slots=True)
class Lacks:
    """A text in which none of these is, whatever the case of its letters."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """No member of a set."""

    known: Known


@dataclass(frozen=True, slots=True)
class Positive:
    """A number above zero. The field must be there."""


Test = Only | Holds | Lacks | Outside | Positive


@dataclass(frozen=True, slots=True)
class Rule:
    """One field, and what is expected of it.

    Attributes:
        scope: What the field is a part of.
        field: Its path. `name[]` are all items of a list, `name{text}` all values whose key begins so.
        test: What is expected.
        expected: The same in words, and why; it follows the field in messages.
        redirected: Whether the rule is for pods whose connections are redirected, and no others.
        before: Whether it is about the pod as its author wrote it, and cannot be asked of an injected one.
    """

    scope: Scope
    field: str
    test: Test
    expected: str
    redirected: bool = False
    before: bool = False


_SHARED: Final = "expected false: what is shared is not contained"
_FALSE: Final = Only((False,))
_NODE: Final = "expected false: it reaches every credential of the node"
_WALL: Final = "expected RuntimeDefault or Localhost: it takes away a wall around the container"
_SELINUX: Final = "expected none, or a type of ordinary containers: it takes away a wall around it"
_CREDENTIAL: Final = "expected another Secret: this one holds the credential"
_VOLUME: Final = "expected a volume of the app's own: this one is Envoy's or authz's"

_OF_BOTH: Final = (
    ("securityContext.seccompProfile.type", Only(_PROFILES), _WALL),
    ("securityContext.appArmorProfile.type", Only(_PROFILES), _WALL),
    ("securityContext.seLinuxOptions.type", Only(_LABELS_OF_CONTAINERS), _SELINUX),
    ("securityContext.seLinuxOptions.user", Only(("",)), "expected none"),
    ("securityContext.seLinuxOptions.role", Only(("",)), "expected none"),
    ("securityContext.windowsOptions.hostProcess", _FALSE, _NODE),
)
"""Fields that a pod has for all of its containers, and each container for itself."""

RULES: Final[tuple[Rule, ...]] = (
    *(
        Rule(Scope.POD, field, _FALSE, _SHARED)
        for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
    ),
    *(
        Rule(scope, field, test, expected)
        for scope in (Scope.POD, Scope.CONTAINER)
        for field, test, expected in _OF_BOTH
    ),
    Rule(
        Scope.POD,
        "securityContext.sysctls[].name",
        Only(_SYSCTLS),
        "expected one that Pod Security baseline allows: it changes the network of Envoy as well",
    ),
    Rule(Scope.POD, "imagePullSecrets[].name", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(
        Scope.METADATA,
        "annotations{container.apparmor.security.beta.kubernetes.io/}",
        Lacks(("unconfined",)),
        _WALL,
    ),
    Rule(
        Scope.METADATA,
        "labels{azure.workload.identity/use}",
        Lacks(("true",)),
        "leave it out: Azure's webhook gives the credential to the app as well",
        before=True,
    ),
    Rule(
        Scope.VOLUME,
        "name",
        Outside(Known.VOLUMES),
        "expected another name: it is the name of an injected volume",
        before=True,
    ),
    Rule(Scope.VOLUME, "secret.secretName", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(Scope.VOLUME, "csi.nodePublishSecretRef.name", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(Scope.VOLUME, "projected.sources[].secret.name", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(
        Scope.VOLUME,
        "projected.sources[].serviceAccountToken.audience",
        Lacks(EXCHANGE_RESOURCES),
        "expected another audience: a token for this one is the credential itself",
    ),
    Rule(
        Scope.CONTAINER,
        "name",
        Outside(Known.CONTAINERS),
        "expected another name: it is the name of an injected container",
        before=True,
    ),
    Rule(Scope.CONTAINER, "securityContext.privileged", _FALSE, _NODE),
    Rule(
        Scope.CONTAINER,
        "securityContext.capabilities.add[]",
        Only(CAPABILITIES),
        f"expected no other than {', '.join(CAPABILITIES)}: it may reach past Envoy, or out of the container",
    ),
    Rule(
        Scope.CONTAINER,
        "securityContext.capabilities.drop",
        Holds("ALL"),
        "expected [ALL]: the runtime's defaults read the callers' tokens off the pod's network",
    ),
    Rule(
        Scope.CONTAINER,
        "securityContext.procMount",
        Only(("Default",)),
        "expected Default: it takes away a wall around the container",
    ),
    Rule(
        Scope.CONTAINER,
        "securityContext.runAsUser",
        Outside(Known.USERS),
        "expected another user: this one is Envoy's or authz's",
    ),
    Rule(
        Scope.CONTAINER,
        "securityContext.runAsUser",
        Positive(),
        "expected a number above 0, here or in the pod's securityContext: the image's user is not known, root "
        "can become another, and connections are redirected by user",
        redirected=True,
    ),
    Rule(
        Scope.CONTAINER,
        "securityContext.allowPrivilegeEscalation",
        Only((False,), required=True),
        "expected false: it is a way to another user",
        redirected=True,
    ),
    Rule(
        Scope.EPHEMERAL,
        "targetContainerName",
        Outside(Known.CONTAINERS),
        "expected a container of the app: it would see the processes of Envoy or authz",
    ),
    Rule(Scope.CONTAINER, "volumeMounts[].name", Outside(Known.VOLUMES), _VOLUME),
    Rule(
        Scope.CONTAINER,
        "volumeMounts[].mountPropagation",
        Only(("None", "HostToContainer")),
        "expected no mounts of the container's own on the node",
    ),
    Rule(Scope.CONTAINER, "volumeDevices[].name", Outside(Known.VOLUMES), _VOLUME),
    Rule(Scope.CONTAINER, "env[].valueFrom.fileKeyRef.volumeName", Outside(Known.VOLUMES), _VOLUME),
    Rule(Scope.CONTAINER, "env[].valueFrom.secretKeyRef.name", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(Scope.CONTAINER, "envFrom[].secretRef.name", Outside(Known.SECRETS), _CREDENTIAL),
    Rule(
        Scope.CONTAINER,
        "ports[].containerPort",
        Outside(Known.PORTS),
        "expected another port: this one is Envoy's or authz's",
    ),
    Rule(
        Scope.CONTAINER,
        "ports[].name",
        Outside(Known.PORT_NAMES),
        "expected another name: a Service or NetworkPolicy means Envoy's or authz's port by it",
    ),
    Rule(
        Scope.CONTAINER,
        "ports[].hostPort",
        Only((0,)),
        "expected none: callers would reach the app past Envoy",
    ),
)
KINDS_EXPECTED: Final = (
    f"expected one of {', '.join(VOLUMES)}, or csi with a driver that the installation names"
)
"""What is expected of a volume whose kind is none of `VOLUMES`."""
