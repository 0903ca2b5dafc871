"""Every leg, driven by unmodified MSAL Python, and the claims each one leads to."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64decode
from typing import Any

import pytest

from authz_dev.emulator.claims import exchange_subject
from emulator.scene import EXCHANGE, GRAPH, Scene, claims_of

ORDERS = "api://orders/.default"


def facets(claims: dict[str, Any], name: str) -> set[int]:
    """The meaningful (odd) values of a facet claim."""
    return {int(value) for value in claims[name].split() if int(value) % 2}


def test_blueprint_gets_an_app_token_for_graph_provisioning(scene: Scene) -> None:
    """B.3: a v1 token of the blueprint principal, without agent facet."""
    result = scene.blueprint_app().acquire_token_for_client([GRAPH])
    claims = claims_of(result["access_token"])
    assert claims["aud"] == "https://graph.microsoft.com"
    assert claims["iss"] == f"https://sts.windows.net/{scene.tenant_id}/"
    assert claims["idp"] == claims["iss"]
    assert (claims["appid"], claims["appidacr"]) == (scene.blueprint["client_id"], "1")
    assert claims["oid"] == claims["sub"] != claims["appid"]
    assert claims["roles"] == ["AgentIdentity.CreateAsManager"]
    assert facets(claims, "xms_act_fct") == {3, 9}
    assert facets(claims, "xms_sub_fct") == {3, 9}
    assert "xms_par_app_azp" not in claims
    assert claims["exp"] - claims["nbf"] == 3900
    assert result["expires_in"] == 3599


def test_t1_has_the_shape_of_decoded_production_tokens(scene: Scene) -> None:
    """B.4: audience, path subject and the claims that are there or absent."""
    result = scene.blueprint_app().acquire_token_for_client(
        [EXCHANGE], fmi_path=scene.agent["client_id"]
    )
    claims = claims_of(result["access_token"])
    assert {
        "aud": "fb60f99c-7a34-4190-8149-302f77469936",
        "iss": f"{scene.emulator.authority}/{scene.tenant_id}/v2.0",
        "azp": scene.blueprint["client_id"],
        "azpacr": "1",
        "idtyp": "app",
        "tid": scene.tenant_id,
        "ver": "2.0",
        "xms_ficinfo": "CAAQABgAIAAoAjAA",
    }.items() <= claims.items()
    *path, tenant, _, blueprint, agent = claims["sub"].split("/")
    assert path == ["", "eid1", "c", "pub", "t"]
    assert str(uuid.UUID(bytes_le=urlsafe_b64decode(tenant + "=="))) == scene.tenant_id
    blueprint_id = uuid.UUID(bytes_le=urlsafe_b64decode(blueprint + "=="))
    assert str(blueprint_id) == scene.blueprint["client_id"]
    assert agent == scene.agent["client_id"]
    assert {"uti", "rh", "aio", "xms_ftd", "xms_idrel"} <= claims.keys()
    assert not {"roles", "xms_par_app_azp", "scp"} & claims.keys()
    assert claims["exp"] - claims["nbf"] == 3900
    assert facets(claims, "xms_sub_fct") == {3, 9}


def test_t1_subject_encodes_a_published_tenant_guid_as_entra_does() -> None:
    """The GUID bytes are in .NET order, as in public samples."""
    subject = exchange_subject("72f988bf-86f1-41af-91ab-2d7cd011db47", str(uuid.uuid4()), "x")
    assert subject.split("/")[5] == "v4j5cvGGr0GRqy180BHbRw"


def test_autonomous_agent_gets_its_own_token(scene: Scene) -> None:
    """B.5: appid, oid and sub are the agent; roles are its own."""
    result = scene.agent_app().acquire_token_for_client([GRAPH])
    claims = claims_of(result["access_token"])
    agent = scene.agent["client_id"]
    assert [claims[n] for n in ("appid", "oid", "sub")] == [agent, agent, agent]
    assert (claims["appidacr"], claims["idtyp"], claims["ver"]) == ("2", "app", "1.0")
    assert claims["roles"] == ["Application.Read.All", "User.Read.All"]
    assert claims["xms_par_app_azp"] == scene.blueprint["client_id"]
    assert facets(claims, "xms_act_fct") == facets(claims, "xms_sub_fct") == {3, 9, 11}
    assert "scp" not in claims
    assert "refresh_token" not in result


def test_agent_without_roles_gets_a_token_without_the_claim(scene: Scene) -> None:
    """An empty `roles` is left out, as in production."""
    token = scene.as_agent(
        client_id=scene.sibling["client_id"], client_assertion=scene.t1(scene.sibling)
    ).json()["access_token"]
    assert "roles" not in claims_of(token)


def test_roles_of_the_blueprint_are_inherited(scene: Scene) -> None:
    """B.14: a permission of the blueprint reaches both agents for an inheritable resource."""
    token = scene.as_agent(
        client_id=scene.sibling["client_id"],
        client_assertion=scene.t1(scene.sibling),
        scope=ORDERS,
    ).json()["access_token"]
    assert claims_of(token)["roles"] == ["Orders.Read.All"]


def test_agent_acts_on_behalf_of_a_user(scene: Scene) -> None:
    """B.6: the user's oid, a pairwise sub, the agent as actor, and a refresh token."""
    result = scene.agent_app().acquire_token_on_behalf_of(scene.user_token(), [GRAPH])
    claims = claims_of(result["access_token"])
    alice = scene.users["alice"]
    assert claims["oid"] == alice["object_id"] != claims["sub"]
    assert claims["upn"] == claims["unique_name"] == alice["username"]
    assert (claims["appid"], claims["appidacr"]) == (scene.agent["client_id"], "2")
    assert claims["idtyp"] == "user"
    assert claims["scp"] == "Mail.Read User.Read email openid profile"
    assert claims["xms_par_app_azp"] == scene.blueprint["client_id"]
    assert 11 in facets(claims, "xms_act_fct")
    assert not {11, 13} & facets(claims, "xms_sub_fct")
    assert 1 in facets(claims, "xms_idrel")
    assert 3600 <= result["expires_in"] + 1 < 5400
    assert result["refresh_token"]


def test_msal_finds_the_on_behalf_of_result_in_its_cache(scene: Scene) -> None:
    """`scope`, `client_info` and `id_token` are what MSAL needs for its account."""
    app = scene.agent_app()
    app.acquire_token_on_behalf_of(scene.user_token(), [GRAPH])
    [account] = app.get_accounts()
    assert account["username"] == "alice@contoso.example"
    assert app.acquire_token_silent([GRAPH], account)["token_source"] == "cache"


def test_msal_refreshes_and_gets_a_new_refresh_token(scene: Scene) -> None:
    """B.7: the agent redeems its refresh token with a T1 as proof, for another resource too."""
    app = scene.agent_app()
    first = app.acquire_token_on_behalf_of(scene.user_token(), [GRAPH])
    second = app.acquire_token_by_refresh_token(first["refresh_token"], [ORDERS])
    assert claims_of(second["access_token"])["scp"] == "Orders.Read"
    assert second["refresh_token"] != first["refresh_token"]


@pytest.mark.parametrize("scope", [ORDERS, "api://orders/Orders.Read"])
def test_a_refresh_that_names_no_scope_asks_for_the_same(scene: Scene, scope: str) -> None:
    """Entra page "v2-oauth2-auth-code-flow": the parameter is optional there."""
    first = scene.on_behalf_of(scene.user_token(), scope=scope).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "scope": None}
    second = scene.as_agent(**form).json()
    third = scene.as_agent(**{**form, "refresh_token": second["refresh_token"]}).json()
    for result in (second, third):
        assert first["scope"] == result["scope"]
        assert "Orders.Read" == claims_of(result["access_token"])["scp"]


def test_t2_is_the_agents_own_exchange_token(scene: Scene) -> None:
    """B.8: azp, oid and sub are the agent, with its facet and parent."""
    claims = claims_of(scene.agent_app().acquire_token_for_client([EXCHANGE])["access_token"])
    agent = scene.agent["client_id"]
    assert [claims[n] for n in ("azp", "oid", "sub")] == [agent, agent, agent]
    assert claims["aud"] == "fb60f99c-7a34-4190-8149-302f77469936"
    assert (claims["azpacr"], claims["idtyp"], claims["ver"]) == ("2", "app", "2.0")
    assert facets(claims, "xms_sub_fct") == {3, 9, 11}
    assert claims["xms_par_app_azp"] == scene.blueprint["client_id"]
    assert claims["xms_ficinfo"] == "CAAQABgAIAAoAzAAOAE"


def test_agent_acts_as_its_own_user_account_by_name(scene: Scene) -> None:
    """B.8: `user_fic` with a UPN gives a token of the agent user."""
    result = scene.agent_app().acquire_token_by_user_federated_identity_credential(
        [GRAPH], scene.t2(), username=scene.agent["agent_user"]
    )
    claims = claims_of(result["access_token"])
    assert claims["upn"] == scene.agent["agent_user"]
    assert (claims["appid"], claims["idtyp"]) == (scene.agent["client_id"], "user")
    assert facets(claims, "xms_sub_fct") >= {13}
    assert 11 in facets(claims, "xms_act_fct")
    assert (claims["acr"], "amr" in claims) == ("0", False)


def test_agent_acts_as_its_own_user_account_by_object_id(scene: Scene) -> None:
    """B.8: `user_id` takes the object id."""
    by_name = claims_of(scene.agent_user().json()["access_token"])
    result = scene.agent_app().acquire_token_by_user_federated_identity_credential(
        [GRAPH], scene.t2(), user_object_id=by_name["oid"]
    )
    assert claims_of(result["access_token"])["oid"] == by_name["oid"]


def test_ordinary_app_acts_on_behalf_of_a_user(scene: Scene) -> None:
    """B.9: plain OBO, without any agent claim."""
    tc = scene.user_token(audience=scene.reports["client_id"], scopes=["access_as_user"])
    app = scene.app(scene.reports["client_id"], scene.reports["client_secret"])
    claims = claims_of(app.acquire_token_on_behalf_of(tc, [ORDERS])["access_token"])
    assert (claims["azp"], claims["azpacr"]) == (scene.reports["client_id"], "1")
    assert (claims["scp"], claims["idtyp"]) == ("Orders.Read", "user")
    assert "xms_par_app_azp" not in claims


def test_ordinary_app_gets_an_app_only_token(scene: Scene) -> None:
    """B.1, last row."""
    app = scene.app(scene.reports["client_id"], scene.reports["client_secret"])
    claims = claims_of(app.acquire_token_for_client([ORDERS])["access_token"])
    assert (claims["azp"], claims["roles"]) == (scene.reports["client_id"], ["Orders.Read.All"])
    assert claims["aud"] == scene.apis["orders"]["client_id"]


def test_api_without_optional_claims_cannot_tell_an_agent(scene: Scene) -> None:
    """B.5: a custom API sees neither facets, parent nor idtyp unless it asks; v1 keeps the URI."""
    tokens = [
        scene.as_agent(scope="api://inventory/.default").json()["access_token"],
        scene.on_behalf_of(scene.user_token(), scope="api://inventory/.default").json()[
            "access_token"
        ],
    ]
    for claims in map(claims_of, tokens):
        assert claims["aud"] == "api://inventory"
        assert claims["appid"] == scene.agent["client_id"]
        hidden = {"idtyp", "xms_act_fct", "xms_sub_fct", "xms_tnt_fct", "xms_par_app_azp"}
        assert not hidden & claims.keys()


def test_api_with_optional_claims_sees_the_agent(scene: Scene) -> None:
    """B.5: with the optional claims configured a v2 API gets them; its audience is a GUID."""
    response = scene.on_behalf_of(scene.user_token(), scope="api://orders/Orders.Read")
    claims = claims_of(response.json()["access_token"])
    assert (claims["aud"], claims["ver"]) == (scene.apis["orders"]["client_id"], "2.0")
    assert claims["azp"] == scene.agent["client_id"]
    assert claims["xms_par_app_azp"] == scene.blueprint["client_id"]
    assert 11 in facets(claims, "xms_act_fct")
    assert response.json()["scope"] == "api://orders/Orders.Read"


@pytest.mark.parametrize("name", ["client_id", "identifier_uri"])
def test_a_v1_users_token_may_name_its_audience_either_way(scene: Scene, name: str) -> None:
    """C.3: the GUID or the URI."""
    tc = scene.user_token(version=1, audience=scene.blueprint[name])
    assert claims_of(tc)["aud"] == scene.blueprint[name]
    assert scene.on_behalf_of(tc).status_code == 200


def test_on_behalf_of_result_does_not_outlive_the_users_token(scene: Scene) -> None:
    """B.18: one production sample ends with its assertion."""
    tc = scene.user_token(lifetime=600)
    result = scene.on_behalf_of(tc).json()
    assert claims_of(result["access_token"])["exp"] == claims_of(tc)["exp"]
    assert result["expires_in"] < 600


def test_multi_factor_sign_in_satisfies_conditional_access(scene: Scene) -> None:
    """B.15: with MFA in the user's token, and the challenge's claims sent along, it passes."""
    refused = scene.on_behalf_of(scene.user_token("carol")).json()
    tc = scene.user_token("carol", claims={"amr": ["pwd", "mfa"]})
    assert scene.on_behalf_of(tc, claims=refused["claims"]).status_code == 200


def test_client_that_declares_cp1_gets_the_capability_in_its_token(scene: Scene) -> None:
    """B.15: `xms_cc` marks tokens for continuous access evaluation."""
    capability = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
    response = scene.on_behalf_of(scene.user_token(), claims=capability)
    assert claims_of(response.json()["access_token"])["xms_cc"] == ["cp1"]


def test_calls_are_counted_by_leg(scene: Scene) -> None:
    """One call of each leg and a refused one."""
    scene.as_blueprint(scope=GRAPH, fmi_path=None)
    scene.agent_user()
    scene.as_agent()
    refresh_token = scene.on_behalf_of(scene.user_token()).json()["refresh_token"]
    scene.as_agent(grant_type="refresh_token", refresh_token=refresh_token)
    reports = {k: scene.reports[k] for k in ("client_id", "client_secret")}
    scene.as_blueprint(**reports, fmi_path=None, scope=ORDERS)
    scene.as_blueprint(client_secret="wrong")
    assert scene.emulator.calls.snapshot() == {
        "blueprint": 1,
        "t1": 6,
        "autonomous": 1,
        "agent_obo": 1,
        "agent_refresh": 1,
        "t2": 1,
        "user_fic": 1,
        "app_obo": 0,
        "app": 1,
        "authorization_code": 0,
        "device_code": 0,
        "rejected": 1,
        "total": 13,
    }
