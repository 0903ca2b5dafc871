"""The server that the other tests ask: it judges as a cluster does."""

from typing import Any

import httpx
import pytest

from support.kubernetes.apiserver import ApiServer

pytestmark = pytest.mark.cluster


def test_it_refuses_what_no_schema_catches(server: ApiServer, namespace: str) -> None:
    """A mount of a volume that is not there, and a field that it would drop."""
    container = {"name": "a", "image": "a:1"}
    mount = {"volumeMounts": [{"name": "nothing", "mountPath": "/x"}]}
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def post(more: dict[str, Any]) -> httpx.Response:
        spec = {"containers": [{**container, **more}]}
        return server.post(pods, {"metadata": {"name": "a"}, "spec": spec})

    assert (422, True) == (post(mount).status_code, "nothing" in post(mount).text)
    assert (400, True) == (post({"imag": "b"}).status_code, "imag" in post({"imag": "b"}).text)
    assert 201 == post({}).status_code


def test_a_plain_user_may_do_nothing(server: ApiServer, namespace: str) -> None:
    """Authorization is RBAC's: who has no role has no right."""
    server.kubeconfig("nobody")

    refused = server.kubectl("get", "pods", "--namespace", namespace, user="nobody")

    assert 1 == refused.returncode
    assert 'User "nobody" cannot list resource "pods"' in refused.stderr


def test_controllers_make_pods(controllers: ApiServer, namespace: str) -> None:
    """A Deployment comes to a pod, through a ReplicaSet."""
    given = ("create", "deployment", "a", "--image=a:1", "--namespace", namespace)
    assert 0 == controllers.kubectl(*given).returncode

    pods = f"/api/v1/namespaces/{namespace}/pods"
    controllers.wait(lambda: len(controllers.get(pods)["items"]) == 1)
