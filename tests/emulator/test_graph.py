"""Microsoft Graph's sliver: who may call, and what it remembers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from emulator.scene import GRAPH, Clock, Scene

GRAPH_URI = "https://graph.microsoft.com"


def get(scene: Scene, path: str, token: str | None) -> requests.Response:
    """A call of Graph with a bearer token."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return scene.session.get(f"{scene.emulator.graph_url}{path}", headers=headers)


@pytest.mark.parametrize("path", ["", "/"])
def test_the_service_document_lists_what_there_is(scene: Scene, path: str) -> None:
    """To whoever has a token for Graph, whatever it permits."""
    listed = get(scene, path, scene.as_agent().json()["access_token"]).json()["value"]
    assert ["applications", "me", "servicePrincipals"] == [one["name"] for one in listed]
    assert 401 == get(scene, path, None).status_code


def test_me_is_the_user_an_agent_acts_for(scene: Scene) -> None:
    """A delegated token with User.Read."""
    token = scene.on_behalf_of(scene.user_token()).json()["access_token"]
    me = get(scene, "/me", token).json()
    assert me["userPrincipalName"] == "alice@contoso.example"
    assert me["id"] == scene.users["alice"]["object_id"]
    assert me["displayName"] == "Alice"


def test_me_is_the_agents_own_account(scene: Scene) -> None:
    """An agent user is a user with a parent."""
    me = get(scene, "/me", scene.agent_user().json()["access_token"]).json()
    assert me["@odata.type"] == "#microsoft.graph.agentUser"
    assert me["identityParentId"] == scene.agent["client_id"]


def test_me_is_nobody_for_an_app_only_token(scene: Scene) -> None:
    """As Graph says it."""
    response = get(scene, "/me", scene.as_agent().json()["access_token"])
    assert (response.status_code, response.json()["error"]["code"]) == (400, "BadRequest")


def test_me_needs_a_scope(scene: Scene) -> None:
    """403 without User.Read."""
    token = scene.user_token(audience=GRAPH_URI, scopes=["Mail.Read"])
    response = get(scene, "/me", token)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "Authorization_RequestDenied"


def test_messages_are_those_of_the_user_an_agent_acts_for(scene: Scene) -> None:
    """A delegated token with Mail.Read."""
    token = scene.on_behalf_of(scene.user_token()).json()["access_token"]
    assert [{"id": "1", "subject": "Welcome, Alice"}] == get(scene, "/me/messages", token).json()[
        "value"
    ]


def test_messages_need_a_scope(scene: Scene) -> None:
    """403 without Mail.Read."""
    token = scene.user_token(audience=GRAPH_URI, scopes=["User.Read"])
    response = get(scene, "/me/messages", token)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "Authorization_RequestDenied"


@pytest.mark.parametrize("form", ["/servicePrincipals/{}", "/servicePrincipals(appId='{}')"])
def test_an_agent_reads_its_service_principal(scene: Scene, form: str) -> None:
    """App-only with Application.Read.All, by object id and by app id."""
    token = scene.as_agent().json()["access_token"]
    found = get(scene, form.format(scene.agent["client_id"]), token).json()
    assert found["@odata.type"] == "#microsoft.graph.agentIdentity"
    assert found["agentIdentityBlueprintId"] == scene.blueprint["client_id"]


def test_a_service_principal_needs_a_role(scene: Scene) -> None:
    """403 for the sibling, which has no roles."""
    sibling = scene.sibling
    token = scene.as_agent(
        client_id=sibling["client_id"], client_assertion=scene.t1(sibling)
    ).json()["access_token"]
    response = get(scene, f"/servicePrincipals/{sibling['client_id']}", token)
    assert response.status_code == 403


def test_an_unknown_service_principal_is_not_found(scene: Scene) -> None:
    """404 in Graph's words."""
    response = get(scene, "/servicePrincipals/x", scene.as_agent().json()["access_token"])
    assert response.json()["error"]["code"] == "Request_ResourceNotFound"


@pytest.mark.parametrize(
    "order",
    [
        {"audience": "api://orders"},
        {"key": "foreign"},
        {"alg": "none"},
        {"alg": "HS256"},
        {"lifetime": -1},
        {"claims": {"iss": "https://sts.windows.net/other/"}},
        {"claims": {"nbf": 9_999_999_999}},
    ],
    ids=str,
)
def test_graph_validates_the_token(scene: Scene, order: dict[str, Any]) -> None:
    """401 with Graph's code and a WWW-Authenticate header; nothing is remembered."""
    before = len(scene.emulator.graph_log)
    token = scene.user_token(**{"audience": GRAPH_URI, "scopes": ["User.Read"]} | order)
    response = get(scene, "/me", token)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "InvalidAuthenticationToken"
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert len(scene.emulator.graph_log) == before


def test_graph_refuses_t1_as_bearer(scene: Scene) -> None:
    """B.19: an exchange token is good for nothing else."""
    assert get(scene, "/whoami", scene.t1()).status_code == 401


@pytest.mark.parametrize("value", [None, "Basic eDp5", "Bearer", "Bearer not-a-jwt"])
def test_graph_needs_a_bearer_token(scene: Scene, value: str | None) -> None:
    """401 without one, with another scheme, and with garbage."""
    headers = {} if value is None else {"authorization": value}
    response = scene.session.get(f"{scene.emulator.graph_url}/me", headers=headers)
    assert response.status_code == 401


def test_graph_remembers_claims_and_never_tokens(scene: Scene) -> None:
    """The log tells who called, over HTTP and in-process."""
    url = f"{scene.emulator.control_url}/graph"
    scene.session.delete(url)
    token = scene.as_agent().json()["access_token"]
    assert get(scene, "/whoami", token).json()["appid"] == scene.agent["client_id"]
    [seen] = scene.session.get(url).json()
    assert seen["appid"] == scene.agent["client_id"]
    assert scene.emulator.graph_log == [seen]
    assert token.rpartition(".")[2] not in json.dumps(seen)


def test_graph_challenges_a_capable_client_after_revocation(
    fresh_scene: Scene, clock: Clock
) -> None:
    """B.15: continuous access evaluation asks for a newer token."""
    capability = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
    response = fresh_scene.on_behalf_of(fresh_scene.user_token(), claims=capability)
    token = response.json()["access_token"]
    assert get(fresh_scene, "/me", token).status_code == 200
    clock.ahead = 10
    fresh_scene.session.post(
        f"{fresh_scene.emulator.control_url}/users/alice@contoso.example",
        json={"revoke_sessions": True},
    )
    refused = get(fresh_scene, "/me", token)
    _, _, encoded = refused.headers["www-authenticate"].partition('claims="')
    challenge = json.loads(base64.b64decode(encoded.rstrip('"')))
    assert refused.status_code == 401
    assert challenge["access_token"]["nbf"]["essential"] is True
    scope = {"scope": GRAPH, "claims": json.dumps(challenge)}
    renewed = fresh_scene.on_behalf_of(fresh_scene.user_token(), **scope)
    assert get(fresh_scene, "/me", renewed.json()["access_token"]).status_code == 200
