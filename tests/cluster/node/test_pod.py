"""What a kubelet makes of the agent's pod: its start, its volumes, its token, its end.

The same pod runs under podman in `tests/deploy`; here is what only a node shows.
"""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import jwt
import pytest

from support.kubernetes.real_cluster import RealCluster

pytestmark = pytest.mark.cluster

TESTS = Path(__file__).parents[2]
TOKENS = "/var/run/secrets/azure/tokens"


def test_the_laptops_script_ends_with_an_answer(cluster: RealCluster) -> None:
    """It deploys, waits for each roll-out, and asks as alice; the API sees an agent that acts for her."""
    answer = cluster.output.partition("asking the agent as alice")[2]

    assert "HTTP/1.1 200 OK" in answer
    assert '"by_an_agent":true' in answer


def test_the_pod_is_ready_when_authz_is(cluster: RealCluster) -> None:
    """The configuration is checked first, then all start; what keeps the pod back are the probes."""
    status = cluster.pod()["status"]
    (checked,) = status["initContainerStatuses"]
    started = {one["name"]: one for one in status["containerStatuses"]}
    (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
    begun = [one["state"]["running"]["startedAt"] for one in started.values()]

    assert {"agent", "authz", "envoy"} == started.keys()
    assert 0 == checked["state"]["terminated"]["exitCode"]
    assert checked["state"]["terminated"]["finishedAt"] <= min(begun)
    assert max(begun) < ready["lastTransitionTime"]
    assert {0} == {one["restartCount"] for one in started.values()}


def test_the_projected_token_is_authzs_alone(cluster: RealCluster) -> None:
    """It is the service account's, for Entra's exchange, and readable by authz's group; no other has it."""
    file = f"{TOKENS}/azure-identity-token"
    claims = jwt.decode(
        cluster.within("authz", "cat", file).stdout, options={"verify_signature": False}
    )
    mode = cluster.within("authz", "stat", "--dereference", "--format=%a %u %g", file).stdout

    assert "system:serviceaccount:agent:agent" == claims["sub"]
    assert ["api://AzureADTokenExchange"] == claims["aud"]
    assert 3600 == claims["exp"] - claims["iat"]
    assert "640 0 65532" == mode.strip()
    for other in ("agent", "envoy"):
        assert "No such file" in cluster.within(other, "cat", file).stderr


@pytest.mark.parametrize("name", ["authz.sock", "checks.sock"])
def test_the_socket_belongs_to_the_group(cluster: RealCluster, name: str) -> None:
    """So Envoy can connect to it, but change nothing beside it; the agent has no way to it."""
    look = ["stat", "--format=%a %u %g", f"/run/authz/{name}"]
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/authz/{name}')"
    write = "open('/run/authz/x', 'w')"

    assert "660 65532 65532" == cluster.within("authz", *look).stdout.strip()
    assert 0 == cluster.within("envoy", "python3", "-c", connect).returncode
    assert "Read-only file system" in cluster.within("envoy", "python3", "-c", write).stderr
    assert 1 == cluster.within("agent", "python", "-c", connect).returncode


def test_no_request_is_lost_when_the_pod_is_replaced(cluster: RealCluster) -> None:
    """Nor by callers who keep their connections; agent, Envoy and authz stop in order, by themselves."""
    pod = cluster.pod()
    address = cluster.server.get("/api/v1/namespaces/agent/services/agent")["spec"]["clusterIP"]
    callers = ["support.peers.persistent_callers", f"http://{address}/my-orders", "4"]
    with subprocess.Popen(
        cluster.server.command(sys.executable, "-m", *callers),
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write(f"Authorization: Bearer {cluster.mint('alice')}\n")
        asking.stdin.flush()
        name = pod["metadata"]["name"]
        cluster.server.kubectl("rollout", "restart", "deployment/agent", "--namespace=agent")
        gone = cluster.last_state(name)
        asking.stdin.close()
        outcomes = json.loads(asking.stdout.read())
    ends = {
        one["name"]: datetime.fromisoformat(one["state"]["terminated"]["finishedAt"])
        for one in gone["status"]["containerStatuses"]
    }
    codes = {
        one["name"]: one["state"]["terminated"]["exitCode"]
        for one in gone["status"]["containerStatuses"]
    }

    assert {"200"} == outcomes.keys(), outcomes
    assert outcomes["200"] > 100
    assert ends["agent"] < ends["envoy"] <= ends["authz"]
    assert {"agent": 0, "envoy": 0, "authz": 0} == codes
    assert (ends["authz"] - ends["agent"]).total_seconds() < 25
