"""The control endpoint: counts, keys, users and consent."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
import requests

from emulator.scene import Scene


def control(scene: Scene, path: str, **body: Any) -> requests.Response:
    """A POST below the control URL."""
    return scene.session.post(f"{scene.emulator.control_url}{path}", json=body)


@pytest.mark.parametrize(("verb", "path"), [("POST", "/reset"), ("DELETE", "")])
def test_counts_are_read_and_reset(scene: Scene, verb: str, path: str) -> None:
    """A flat map of integers by leg."""
    scene.as_blueprint()
    url = f"{scene.emulator.control_url}/calls"
    assert scene.session.get(url).json()["t1"] == 1
    assert scene.session.request(verb, url + path).status_code == 204
    assert set(scene.session.get(url).json().values()) == {0}


def test_keys_are_rolled(fresh_scene: Scene) -> None:
    """The answer is the new key's id."""
    kid = control(fresh_scene, "/keys/roll", withdraw_old=True).json()["kid"]
    assert jwt.get_unverified_header(fresh_scene.t1())["kid"] == kid


def test_a_user_is_disabled_and_enabled(fresh_scene: Scene) -> None:
    """By UPN or object id."""
    alice = fresh_scene.users["alice"]
    control(fresh_scene, f"/users/{alice['username']}", disabled=True)
    refused = fresh_scene.on_behalf_of(fresh_scene.user_token())
    assert refused.json()["error_codes"] == [50057]
    control(fresh_scene, f"/users/{alice['object_id']}", disabled=False)
    assert fresh_scene.on_behalf_of(fresh_scene.user_token()).status_code == 200


def test_a_second_factor_is_asked_and_no_more(fresh_scene: Scene) -> None:
    """Conditional Access for one user."""
    control(fresh_scene, "/users/alice@contoso.example", mfa_required=True)
    refused = fresh_scene.on_behalf_of(fresh_scene.user_token())
    assert refused.json()["error_codes"] == [50076]
    control(fresh_scene, "/users/carol@contoso.example", mfa_required=False)
    assert fresh_scene.on_behalf_of(fresh_scene.user_token("carol")).status_code == 200


def test_consent_is_given_and_taken_back(fresh_scene: Scene) -> None:
    """For one user, directly to the agent."""
    consent = {
        "client_id": fresh_scene.agent["client_id"],
        "resource": "https://graph.microsoft.com",
        "scopes": ["User.Read"],
        "user": "bob@contoso.example",
    }
    assert control(fresh_scene, "/consent", **consent).status_code == 204
    assert fresh_scene.on_behalf_of(fresh_scene.user_token("bob")).status_code == 200
    control(fresh_scene, "/consent", **consent, granted=False)
    refused = fresh_scene.on_behalf_of(fresh_scene.user_token("bob"))
    assert refused.json()["error_codes"] == [65001]


def test_consent_that_everybody_loses_is_nobodys(fresh_scene: Scene) -> None:
    """Those who gave it for themselves lose it as well."""
    control(
        fresh_scene,
        "/consent",
        client_id=fresh_scene.blueprint["client_id"],
        resource="api://orders",
        scopes=["Orders.Read"],
        granted=False,
    )
    refused = fresh_scene.on_behalf_of(fresh_scene.user_token(), scope="api://orders/Orders.Read")

    assert refused.json()["error_codes"] == [65001]


@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_new_secret_stands_beside_the_old_one_or_in_its_place(
    fresh_scene: Scene, withdrawn: bool
) -> None:
    """As an operator adds one, and takes the old one away once the new one is in use."""
    client_id = fresh_scene.blueprint["client_id"]
    rolled = control(fresh_scene, "/secrets/roll", client_id=client_id, withdraw_old=withdrawn)
    new, old = (
        fresh_scene.as_blueprint(client_secret=secret).status_code
        for secret in (rolled.json()["client_secret"], fresh_scene.blueprint["client_secret"])
    )

    assert (200, 401 if withdrawn else 200) == (new, old)


def test_consent_for_all_principals_reaches_children_of_the_blueprint(fresh_scene: Scene) -> None:
    """B.14: inherited from the blueprint, for a user without a grant of his own."""
    control(
        fresh_scene,
        "/consent",
        client_id=fresh_scene.blueprint["client_id"],
        resource="api://orders",
        scopes=["Orders.Write"],
        user=None,
    )
    response = fresh_scene.on_behalf_of(
        fresh_scene.user_token("bob"), scope="api://orders/Orders.Write"
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/users/nobody@contoso.example", {}, 404, "user"),
        ("/users/alice@contoso.example", {"disabled": "yes"}, 400, "disabled"),
        ("/users/alice@contoso.example", {"enabled": True}, 400, "enabled"),
        ("/consent", {"client_id": "x"}, 400, "client_id"),
        ("/secrets/roll", {"client_id": "x"}, 400, "client_id"),
        ("/keys/roll", {"tenant_id": "nobody.example"}, 400, "tenant_id"),
    ],
)
def test_a_wrong_request_is_named(
    scene: Scene, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    """A problem document that names the member."""
    response = control(scene, path, **body)
    assert (response.status_code, response.json()["field"]) == (status, field)


def test_consent_without_scopes_says_what_is_missing(fresh_scene: Scene) -> None:
    """An empty list is as good as none."""
    order = {
        "client_id": fresh_scene.blueprint["client_id"],
        "resource": "https://graph.microsoft.com",
    }
    cases: tuple[dict[str, Any], ...] = ({}, {"scopes": []})
    for more in cases:
        answer = control(fresh_scene, "/consent", **order, **more)
        assert answer.status_code == 400
        assert "is missing" in answer.text
