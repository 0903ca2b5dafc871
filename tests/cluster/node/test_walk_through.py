"""docs/walk-through.md on a real node: every command of it, in order, prints what the page shows.

The same runs under podman in `tests/deploy`; here kubectl, the API server and the kubelet are real.
"""

import pytest

from support.kubernetes.real_cluster import RealCluster
from support.kubernetes.sidecar_demo import part
from support.programs.transcript import settled

pytestmark = pytest.mark.cluster


def test_the_page_is_what_a_person_sees(cluster: RealCluster) -> None:
    """Both parts, one after the other, in one cluster: `2/2 Running` included."""
    steps = [*part("Asking the sidecar"), *part("Not asking at all")]

    outputs = cluster.run(steps)

    assert [step.output for step in steps] == [settled(output) for output in outputs]


def test_the_demos_secret_is_in_its_object_alone(cluster: RealCluster) -> None:
    """In no annotation and no managed field of anything in the namespace, and in no event."""
    path = "/api/v1/namespaces/entra-demo"
    data = cluster.server.get(f"{path}/secrets/sidecar-secret")
    (encoded,) = data.pop("data").values()
    there = [cluster.server.get(f"{path}/{kind}") for kind in ("configmaps", "pods", "events")] + [
        cluster.server.get("/apis/apps/v1/namespaces/entra-demo/deployments")
    ]

    assert encoded not in str([data, there])
