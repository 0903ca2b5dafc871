"""What the containers may do, what each of them can reach, and what may reach the pod."""

from ipaddress import ip_address, ip_network

import pytest

from support.kubernetes.manifests import Manifests


def test_every_container_meets_the_restricted_profile(manifests: Manifests) -> None:
    """Pod Security Standards, profile restricted, and a read-only root beyond it; init containers too."""
    pod = manifests.pod

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in manifests.containers.values():
        context = container.security
        assert context["runAsUser"] > 0
        assert context["runAsGroup"] > 0
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "procMount", "seccompProfile", "runAsNonRoot"} & context.keys()


def test_the_pod_shares_nothing_with_its_node(manifests: Manifests) -> None:
    """No host namespace, host path or host port, and no process sees another container's."""
    pod = manifests.pod
    sharing = {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostAliases"}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}

    assert not sharing & pod.keys()
    assert kinds <= {"configMap", "emptyDir", "secret", "projected"}
    for container in manifests.containers.values():
        assert all("hostPort" not in port for port in container.spec.get("ports", []))


def test_every_container_has_bounds(manifests: Manifests) -> None:
    """Requests for the scheduler, a memory limit for the neighbours."""
    for container in manifests.containers.values():
        resources = container.spec["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert "memory" in resources["limits"]


def test_no_container_can_call_the_kubernetes_api(manifests: Manifests) -> None:
    """Neither pod nor service account mounts the account's own token."""
    assert manifests.pod["automountServiceAccountToken"] is False
    assert manifests.find("ServiceAccount")["automountServiceAccountToken"] is False


def test_the_credential_is_in_authz_alone(manifests: Manifests) -> None:
    """Not in the agent, not in Envoy, not in the container that only checks the configuration."""
    holders = [
        name for name, container in manifests.containers.items() if "credential" in container.mounts
    ]
    (volume,) = [item for item in manifests.pod["volumes"] if item["name"] == "credential"]

    assert holders == ["authz"]
    assert manifests.containers["authz"].mounts["credential"]["readOnly"] is True
    assert volume.get("secret", volume.get("projected"))["defaultMode"] == 0o440


def test_the_agent_cannot_reach_authz(manifests: Manifests) -> None:
    """Whoever reaches the socket can ask for tokens: Envoy and authz, and not the agent."""
    holders = {
        name
        for name, container in manifests.containers.items()
        if "authz-socket" in container.mounts
    }
    agent = manifests.containers["agent"]

    assert holders == {"envoy", "authz"}
    assert set(agent.mounts) == {"agent-tmp"}
    assert {name.lower() for name in agent.variables} == {"http_proxy", "https_proxy", "no_proxy"}
    assert "envFrom" not in agent.spec


def test_users_differ_and_share_a_group(manifests: Manifests) -> None:
    """Three users, so that none can touch another's files; the socket's group comes from the pod."""
    users = {
        name: manifests.containers[name].security["runAsUser"]
        for name in ("agent", "envoy", "authz")
    }

    assert len(set(users.values())) == 3
    assert manifests.pod["securityContext"]["fsGroup"] not in {users["agent"], users["envoy"]}


def test_no_mount_misses_an_update(manifests: Manifests) -> None:
    """A subPath mount would keep the first version of a rotated secret for ever."""
    for container in manifests.containers.values():
        assert [mount for mount in container.mounts.values() if "subPath" in mount] == []


def test_only_envoy_is_reached_from_anywhere(manifests: Manifests) -> None:
    """Envoy's port is open; metrics are for the monitoring namespace; all else is closed."""
    spec = manifests.find("NetworkPolicy")["spec"]
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {"ports": [{"port": "http", "protocol": "TCP"}]},
        {
            "from": [monitoring],
            "ports": [{"port": name, "protocol": "TCP"} for name in ("admin", "statistics")],
        },
    ]


def test_only_names_and_tls_leave_the_pod(manifests: Manifests) -> None:
    """Port 53 within the cluster, port 443 outside of it."""
    dns, tls = manifests.find("NetworkPolicy")["spec"]["egress"]

    assert {port["port"] for port in dns["ports"]} == {53}
    assert all("namespaceSelector" in peer for peer in dns["to"])
    assert tls["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert all("ipBlock" in peer for peer in tls["to"])


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("20.190.160.1", True),
        ("2603:1006:2000::1", True),
        ("10.96.0.1", False),
        ("172.20.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_private_addresses_are_out_of_reach(
    manifests: Manifests,
    address: str,
    allowed: bool,
) -> None:
    """Entra is reached; the Kubernetes API, neighbours and the metadata service are not."""
    blocks = [
        peer["ipBlock"] for peer in manifests.find("NetworkPolicy")["spec"]["egress"][1]["to"]
    ]
    target = ip_address(address)

    reached = any(
        target in ip_network(block["cidr"])
        and not any(target in ip_network(excepted) for excepted in block["except"])
        for block in blocks
    )

    assert reached is allowed
