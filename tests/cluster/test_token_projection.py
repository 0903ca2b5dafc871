"""Service account tokens of a real API server as the proof of a blueprint, end to end with authz.

What a kubelet would do is done here: it asks for the token that the pod's volume describes. The emulator
trusts the issuer by the keys that the server publishes, as Entra does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from jwt import PyJWKSet

from authz.core.errors import Reason
from authz_dev.emulator.entities import FederatedCredential
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import Object, composed
from support.programs.stack import World, claims, denied, issued, stack

pytestmark = pytest.mark.cluster

ACCOUNT: Final = "agent"
_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod of the overlay, as the server keeps it."""

    server: ApiServer
    namespace: str
    item: Object

    @property
    def subject(self) -> str:
        """What the documentation says to federate."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    @property
    def wanted(self) -> dict[str, Any]:
        """The token that its volume describes."""
        volumes = {volume["name"]: volume for volume in self.item["spec"]["volumes"]}
        (source,) = volumes["credential"]["projected"]["sources"]
        token: dict[str, Any] = source["serviceAccountToken"]
        return token

    def token(self, account: str = ACCOUNT, **changes: Any) -> str:
        """Ask for it, as the kubelet of its node would."""
        metadata = self.item["metadata"]
        pod = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {
            "audiences": [self.wanted["audience"]],
            "expirationSeconds": self.wanted["expirationSeconds"],
            **({"boundObjectRef": pod} if account == ACCOUNT else {}),
            **changes,
        }
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        made = self.server.post(path, {"spec": spec})
        assert made.status_code == 201, made.text
        found: str = made.json()["status"]["token"]
        return found


@pytest.fixture
def pod(server: ApiServer, namespace: str) -> Pod:
    """The pod of the overlay workload-identity, with its service account."""
    manifests = composed("workload-identity", namespace=namespace)
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    assert 201 == server.post(accounts, manifests.find("ServiceAccount")).status_code
    template = manifests.find("Deployment")["spec"]["template"]
    item = {**template, "metadata": {**template["metadata"], "name": "agent"}}
    made = server.post(f"/api/v1/namespaces/{namespace}/pods", item)
    assert made.status_code == 201, made.text
    return Pod(server, namespace, made.json())


@pytest.fixture
def trusted(world: World, pod: Pod) -> World:
    """A world whose blueprint trusts the server's issuer, for this service account."""
    published = pod.server.get("/.well-known/openid-configuration")
    keys = PyJWKSet.from_dict(pod.server.get("/openid/v1/jwks")).keys
    credential = FederatedCredential(
        published["issuer"], pod.subject, keys={str(key.key_id): key.key for key in keys}
    )
    directory = world.emulator.directory
    blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
    assert blueprint is not None
    directory.add_federated_credential(blueprint, credential)
    return world


@pytest.fixture
def document(trusted: World) -> dict[str, Any]:
    """A configuration that names no credential, as the overlay's."""
    found = trusted.config()
    del found["blueprints"]["support"]["credentials"]
    return found


async def test_the_projected_token_proves_the_blueprint(
    trusted: World, document: dict[str, Any], pod: Pod, tmp_path: Path
) -> None:
    """With issuer, subject and audience to the letter, and for as long as the volume says."""
    file = tmp_path / "token"
    file.write_text(pod.token())
    held = claims(file.read_text())

    async with stack(trusted, document=document, environ={_FILE: str(file)}) as service:
        record = await service.egress("autonomous")

    assert issued(record)["appid"] == trusted.agent["client_id"]
    assert (pod.server.issuer, pod.subject) == (held["iss"], held["sub"])
    assert ["api://AzureADTokenExchange"] == held["aud"]
    assert 3600 == held["exp"] - held["iat"]


@pytest.mark.parametrize(
    "other", [{"account": "default"}, {"audiences": ["https://kubernetes.default.svc"]}], ids=str
)
async def test_tokens_of_another_account_or_audience_do_not(
    trusted: World, document: dict[str, Any], pod: Pod, tmp_path: Path, other: dict[str, Any]
) -> None:
    """Signed by the same key, and refused."""
    file = tmp_path / "token"
    file.write_text(pod.token(**other))

    async with stack(trusted, document=document, environ={_FILE: str(file)}) as service:
        record = await service.egress("autonomous")

    assert Reason.EXCHANGE_MISCONFIGURED == denied(record)
