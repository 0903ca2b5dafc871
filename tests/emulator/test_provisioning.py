"""The calls that make blueprints and agents refuse what Graph refuses."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from authz_dev.emulator.entities import TOKEN_EXCHANGE_URI, FederatedCredential
from emulator.scene import ASSERTION_TYPE, GRAPH, Scene, claims_of

GRAPH_URI = "https://graph.microsoft.com"
EVERYTHING = (
    "AgentIdentityBlueprint.Create",
    "AgentIdentityBlueprintPrincipal.Create",
    "AgentIdentityBlueprint.UpdateAuthProperties.All",
    "AgentIdentityBlueprint.AddRemoveCreds.All",
    "AgentIdentity.Create.All",
    "AgentIdUser.ReadWrite.All",
    "DelegatedPermissionGrant.ReadWrite.All",
    "AppRoleAssignment.ReadWrite.All",
    "Application.Read.All",
)
BLUEPRINT = "/applications/microsoft.graph.agentIdentityBlueprint"
PRINCIPAL = "/servicePrincipals/microsoft.graph.agentIdentityBlueprintPrincipal"
AGENT = "/servicePrincipals/microsoft.graph.agentIdentity"


class Admin:
    """An administrator of the first tenant, at Graph."""

    def __init__(self, scene: Scene, permissions: tuple[str, ...] = EVERYTHING) -> None:
        self.scene = scene
        self.token = scene.user_token(audience=GRAPH_URI, scopes=list(permissions))
        self.sponsors = {
            "sponsors@odata.bind": [f"{GRAPH_URI}/v1.0/users/{scene.users['alice']['object_id']}"]
        }

    def call(self, path: str, body: Any, method: str = "POST") -> requests.Response:
        """Make a call with a JSON body."""
        return self.scene.session.request(
            method,
            f"{self.scene.emulator.graph_url}{path}",
            json=body,
            headers={"authorization": f"Bearer {self.token}"},
        )

    def blueprint(self) -> dict[str, Any]:
        """Create a blueprint, without its principal."""
        made = self.call(BLUEPRINT, {"displayName": "new", **self.sponsors})
        assert made.status_code == 201
        return dict(made.json())

    def known_blueprint(self) -> dict[str, Any]:
        """Create a blueprint with its principal."""
        made = self.blueprint()
        assert self.call(PRINCIPAL, {"appId": made["appId"]}).status_code == 201
        return made

    def agent(self) -> dict[str, Any]:
        """Create an agent identity of a blueprint of its own."""
        body = {
            "displayName": "a",
            "agentIdentityBlueprintId": self.known_blueprint()["appId"],
            **self.sponsors,
        }
        made = self.call(AGENT, body)
        assert made.status_code == 201
        return dict(made.json())


@pytest.fixture
def admin(fresh_scene: Scene) -> Admin:
    """An administrator with every permission."""
    return Admin(fresh_scene)


def refusal(response: requests.Response) -> tuple[int, str]:
    """Status and code of an answer."""
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "permissions",
    [("User.Read",), (*EVERYTHING, "Directory.AccessAsUser.All")],
    ids=["without", "too much"],
)
@pytest.mark.parametrize(
    ("path", "method"),
    [
        (BLUEPRINT, "POST"),
        (PRINCIPAL, "POST"),
        ("/applications/x", "PATCH"),
        ("/applications/x/addPassword", "POST"),
        ("/applications/x/federatedIdentityCredentials", "POST"),
        (AGENT, "POST"),
        ("/users", "POST"),
        ("/oauth2PermissionGrants", "POST"),
        ("/servicePrincipals/x/appRoleAssignments", "POST"),
    ],
)
def test_each_call_needs_its_permission(
    scene: Scene, path: str, method: str, permissions: tuple[str, ...]
) -> None:
    """403 without it, and with the one that the Azure CLI's tokens have."""
    response = Admin(scene, permissions).call(path, {}, method)

    assert (403, "Authorization_RequestDenied") == refusal(response)


@pytest.mark.parametrize(
    "sponsors", [None, [], ["https://graph.microsoft.com/v1.0/users/nobody"], "x"]
)
@pytest.mark.parametrize("path", [BLUEPRINT, AGENT])
def test_somebody_must_answer_for_it(admin: Admin, path: str, sponsors: Any) -> None:
    """400 without a sponsor, and for one who is nobody."""
    body = {
        "displayName": "x",
        "agentIdentityBlueprintId": admin.scene.blueprint["client_id"],
        "sponsors@odata.bind": sponsors,
    }
    assert (400, "Request_BadRequest") == refusal(admin.call(path, body))


def test_a_blueprint_without_principal_is_no_client(admin: Admin) -> None:
    """AADSTS700016 until its principal exists, as the tenant does not know it; then its secret works."""
    made = admin.blueprint()
    password = {"passwordCredential": {"displayName": "x"}}
    secret = admin.call(f"/applications/{made['id']}/addPassword", password).json()["secretText"]
    ask = {"client_id": made["appId"], "client_secret": secret, "fmi_path": None, "scope": GRAPH}
    before = admin.scene.as_blueprint(**ask)
    admin.call(PRINCIPAL, {"appId": made["appId"]})

    after = admin.scene.as_blueprint(**ask)

    assert ([700016], 200) == (before.json()["error_codes"], after.status_code)


def test_no_agent_without_the_blueprints_principal(admin: Admin) -> None:
    """400, in Graph's words."""
    body = {
        "displayName": "x",
        "agentIdentityBlueprintId": admin.blueprint()["appId"],
        **admin.sponsors,
    }
    response = admin.call(AGENT, body)

    assert (400, "Request_BadRequest") == refusal(response)
    assert "Principal for the Agent Blueprint does not exist" in response.text


def test_a_principal_is_made_once(admin: Admin) -> None:
    """400 for a second one, and for one of nothing."""
    made = admin.known_blueprint()

    assert (400, "Request_BadRequest") == refusal(admin.call(PRINCIPAL, {"appId": made["appId"]}))
    assert (400, "Request_BadRequest") == refusal(admin.call(PRINCIPAL, {"appId": "x"}))


def test_a_federated_credential_is_unique(admin: Admin) -> None:
    """409 for the same issuer and subject."""
    path = f"/applications/{admin.known_blueprint()['id']}/federatedIdentityCredentials"
    body = {
        "name": "one",
        "issuer": "https://oidc.example",
        "subject": "s",
        "audiences": ["api://AzureADTokenExchange"],
    }

    answers = [admin.call(path, body), admin.call(path, {**body, "name": "two"})]

    assert [201, 409] == [answer.status_code for answer in answers]


def test_keys_of_a_known_issuer_are_known(admin: Admin) -> None:
    """A second service account of a cluster that the emulator trusts already proves the new blueprint."""
    issuer, key = "https://oidc.example", rsa.generate_private_key(65537, 2048)
    directory, tenant_id = admin.scene.emulator.directory, admin.scene.tenant_id
    first = directory.application(tenant_id, admin.scene.blueprint["client_id"])
    assert first is not None
    keys = {"1": key.public_key()}
    directory.add_federated_credential(first, FederatedCredential(issuer, "first", keys=keys))
    made = admin.known_blueprint()
    body = {"name": "n", "issuer": issuer, "subject": "second", "audiences": [TOKEN_EXCHANGE_URI]}
    path = f"/applications/{made['id']}/federatedIdentityCredentials"
    assert admin.call(path, body).status_code == 201
    now = int(time.time())
    claims = {"iss": issuer, "sub": "second", "aud": TOKEN_EXCHANGE_URI, "exp": now + 60}
    token = jwt.encode({**claims, "iat": now, "nbf": now}, key, "RS256", {"kid": "1"})

    answer = admin.scene.as_blueprint(
        client_id=made["appId"],
        client_secret=None,
        fmi_path=None,
        scope=GRAPH,
        client_assertion_type=ASSERTION_TYPE,
        client_assertion=token,
    )

    assert 200 == answer.status_code, answer.text


def test_a_pre_authorized_client_needs_no_consent(admin: Admin) -> None:
    """For the scopes whose ids are named; a client that the tenant does not know is only noted."""
    made, scope_id = admin.known_blueprint(), str(uuid4())
    directory, tenant_id = admin.scene.emulator.directory, admin.scene.tenant_id
    portal = next(one for one in directory.applications(tenant_id) if one.name == "portal")
    scope = {
        "id": scope_id,
        "value": "access_agent",
        "type": "User",
        "isEnabled": True,
        "adminConsentDisplayName": "a",
        "adminConsentDescription": "b",
    }
    entries = [
        {"appId": portal.client_id, "delegatedPermissionIds": [scope_id]},
        {"appId": str(uuid4()), "delegatedPermissionIds": [scope_id]},
    ]
    path = f"/applications/{made['id']}"
    for api in ({"oauth2PermissionScopes": [scope]}, {"preAuthorizedApplications": entries}):
        assert 204 == admin.call(path, {"api": api}, "PATCH").status_code

    resource = directory.application(tenant_id, made["appId"])
    alice = directory.user(tenant_id, admin.scene.users["alice"]["object_id"])
    assert resource is not None
    assert alice is not None
    assert {"access_agent"} == directory.delegated_scopes(portal, resource, alice)


def test_a_pre_authorized_client_is_named_with_scopes_of_the_application(admin: Admin) -> None:
    """400 for an id that is no scope's."""
    entry = {"appId": str(uuid4()), "delegatedPermissionIds": [str(uuid4())]}
    body = {"api": {"preAuthorizedApplications": [entry]}}

    answer = admin.call(f"/applications/{admin.known_blueprint()['id']}", body, "PATCH")

    assert (400, "Request_BadRequest") == refusal(answer)


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        (BLUEPRINT, {}, "POST"),
        (BLUEPRINT, [], "POST"),
        ("/applications/{blueprint}", {"displayName": "x"}, "PATCH"),
        ("/applications/{blueprint}", {}, "PATCH"),
        (
            "/applications/{blueprint}",
            {"api": {"oauth2PermissionScopes": [{"id": "x", "value": "y"}]}},
            "PATCH",
        ),
        ("/applications/{blueprint}/addPassword", {}, "POST"),
        (
            "/applications/{blueprint}/federatedIdentityCredentials",
            {"name": "n", "issuer": "i", "subject": "s", "audiences": ["a", "b"]},
            "POST",
        ),
        (
            "/oauth2PermissionGrants",
            {"clientId": "x", "resourceId": "y", "consentType": "AllPrincipals", "scope": "z"},
            "POST",
        ),
        (
            "/users",
            {"@odata.type": "microsoft.graph.user", "identityParentId": "x"},
            "POST",
        ),
        ("/servicePrincipals/x/appRoleAssignments", {"principalId": "x"}, "POST"),
    ],
)
def test_what_is_missing_is_named(admin: Admin, path: str, body: Any, method: str) -> None:
    """400, and nothing is changed."""
    before = admin.scene.emulator.describe()["tenants"]
    made = admin.blueprint()

    response = admin.call(path.format(blueprint=made["id"]), body, method)

    assert (400, "Request_BadRequest") == refusal(response)
    assert before == admin.scene.emulator.describe()["tenants"]


def test_an_unknown_blueprint_is_not_found(admin: Admin) -> None:
    """404, as for a blueprint that has not spread yet."""
    response = admin.call("/applications/x/addPassword", {"passwordCredential": {}})

    assert (404, "Request_ResourceNotFound") == refusal(response)


def test_a_blueprint_makes_its_own_children_only(fresh_scene: Scene) -> None:
    """By AgentIdentity.CreateAsManager, which every blueprint has: its own agents, nobody else's."""
    admin = Admin(fresh_scene)
    admin.token = fresh_scene.emulator.mint_user_token(
        user=None, client_id=fresh_scene.blueprint["client_id"], audience=GRAPH_URI
    )
    bodies = [
        {"displayName": "x", "agentIdentityBlueprintId": owner["client_id"], **admin.sponsors}
        for owner in (fresh_scene.blueprint, fresh_scene.other_blueprint)
    ]

    assert [201, 403] == [admin.call(AGENT, body).status_code for body in bodies]


def test_an_agent_gets_one_user_account(admin: Admin) -> None:
    """It can sign in by the agent user flow's rules; a second one is refused."""
    agent = admin.agent()
    body = {
        "@odata.type": "microsoft.graph.agentUser",
        "displayName": "Desk",
        "userPrincipalName": "desk@contoso.example",
        "mailNickname": "desk",
        "identityParentId": agent["id"],
        "accountEnabled": True,
    }
    answers = [admin.call("/users", body) for _ in range(2)]

    assert [201, 400] == [answer.status_code for answer in answers]
    account = admin.scene.emulator.directory.agent_user(admin.scene.tenant_id, agent["id"])
    assert account is not None
    assert ("desk@contoso.example", False) == (account.username, account.disabled)


@pytest.mark.parametrize("consent", ["Everybody", "Principal"])
def test_a_grant_says_for_whom(admin: Admin, consent: str) -> None:
    """400 for another kind of consent, and for one user who is not named."""
    agent = admin.agent()
    graph = admin.scene.emulator.directory.resource(admin.scene.tenant_id, GRAPH_URI)
    assert graph is not None
    body = {
        "clientId": agent["id"],
        "resourceId": graph.principal_id,
        "consentType": consent,
        "scope": "User.Read",
    }
    assert (400, "Request_BadRequest") == refusal(admin.call("/oauth2PermissionGrants", body))
    unknown = {**body, "consentType": "AllPrincipals", "scope": "Everything"}
    assert (400, "Request_BadRequest") == refusal(admin.call("/oauth2PermissionGrants", unknown))


def test_described_blueprint_and_api_have_the_ids_that_the_calls_take(fresh_scene: Scene) -> None:
    """`object_id` in the paths of applications, `principal_id` where a permission is granted."""
    scene, admin = fresh_scene, Admin(fresh_scene)
    path = f"/applications/{scene.blueprint['object_id']}/addPassword"
    added = admin.call(path, {"passwordCredential": {"displayName": "second"}})
    granted = admin.call(
        "/oauth2PermissionGrants",
        {
            "clientId": scene.agent["object_id"],
            "resourceId": scene.apis["orders"]["principal_id"],
            "consentType": "AllPrincipals",
            "scope": "Orders.Write",
        },
    )

    assert (200, 201) == (added.status_code, granted.status_code), granted.text
    t1 = scene.as_blueprint(client_secret=added.json()["secretText"]).json()["access_token"]
    answer = scene.on_behalf_of(
        scene.user_token("bob"), client_assertion=t1, scope="api://orders/Orders.Write"
    )
    assert "Orders.Write" == claims_of(answer.json()["access_token"])["scp"]
