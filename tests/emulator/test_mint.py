"""Tokens made to order over HTTP and in-process."""

from __future__ import annotations

import hmac
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz_dev.emulator import MintError
from emulator.scene import Scene, claims_of


def mint(scene: Scene, **order: Any) -> str:
    """Order a token over HTTP."""
    response = scene.session.post(scene.emulator.mint_url, json=order)
    assert response.status_code == 200, response.text
    return str(response.json()["access_token"])


def public_key(scene: Scene) -> Any:
    """The signing key that is published."""
    url = f"{scene.emulator.authority}/{scene.tenant_id}/discovery/v2.0/keys"
    return jwt.PyJWKSet.from_dict(scene.session.get(url).json()).keys[0].key


def test_an_empty_order_is_the_portals_token_for_the_first_user(scene: Scene) -> None:
    """B.6: the shape of Tc: bare GUID audience, pairwise sub, no idtyp, no facets."""
    claims = claims_of(mint(scene))
    assert {
        "aud": scene.blueprint["client_id"],
        "iss": f"{scene.emulator.authority}/{scene.tenant_id}/v2.0",
        "azp": scene.portal["client_id"],
        "azpacr": "1",
        "oid": scene.users["alice"]["object_id"],
        "preferred_username": "alice@contoso.example",
        "scp": "access_agent",
        "tid": scene.tenant_id,
        "ver": "2.0",
    }.items() <= claims.items()
    assert claims["sub"] != claims["oid"]
    assert {"sid", "name", "uti", "rh", "aio"} <= claims.keys()
    assert not {"idtyp", "xms_act_fct", "xms_sub_fct", "xms_par_app_azp"} & claims.keys()


def test_an_order_names_everything(scene: Scene) -> None:
    """Tenant, user, audience, scopes, client, version and lifetime."""
    orders = scene.apis["orders"]["client_id"]
    claims = claims_of(
        mint(
            scene,
            tenant_id=scene.tenant_id,
            user="bob@contoso.example",
            audience="api://orders",
            scopes=["Orders.Write", "Orders.Read"],
            client_id=scene.agent["client_id"],
            version=2,
            lifetime=60,
        )
    )
    assert claims["oid"] == scene.users["bob"]["object_id"]
    assert (claims["aud"], claims["scp"]) == (orders, "Orders.Read Orders.Write")
    assert (claims["azp"], claims["azpacr"]) == (scene.agent["client_id"], "2")
    assert claims["exp"] - claims["nbf"] == pytest.approx(360, abs=2)


def test_version_1_changes_issuer_and_actor(scene: Scene) -> None:
    """v1 repeats the audience as it was written."""
    uri = scene.blueprint["identifier_uri"]
    claims = claims_of(mint(scene, version=1, audience=uri))
    assert (claims["ver"], claims["aud"]) == ("1.0", uri)
    assert claims["iss"] == f"https://sts.windows.net/{scene.tenant_id}/"
    assert claims["appid"] == scene.portal["client_id"]
    assert "azp" not in claims


def test_null_as_user_makes_an_app_only_token(scene: Scene) -> None:
    """`oid` equals `sub`, and there is no `scp`."""
    claims = claims_of(mint(scene, user=None, client_id=scene.reports["client_id"]))
    assert claims["oid"] == claims["sub"]
    assert claims["azp"] == scene.reports["client_id"]
    assert "scp" not in claims


def test_claims_are_merged_last_and_null_removes(scene: Scene) -> None:
    """Any shape can be made, nonsense too."""
    claims = claims_of(mint(scene, claims={"scp": None, "amr": ["mfa"], "iss": 5}))
    assert (claims["amr"], claims["iss"], "scp" in claims) == (["mfa"], 5, False)


def test_headers_are_merged_last(scene: Scene) -> None:
    """A header may lie about the key and the algorithm."""
    header = jwt.get_unverified_header(mint(scene, header={"kid": "other", "typ": None}))
    assert header == {"alg": "RS256", "kid": "other"}


def test_unsigned_tokens_have_an_empty_signature(scene: Scene) -> None:
    """The oldest attack: `alg` none."""
    token = mint(scene, alg="none")
    assert jwt.get_unverified_header(token)["alg"] == "none"
    assert token.endswith(".")


def test_hs256_uses_the_public_key_as_secret(scene: Scene) -> None:
    """The confusion of algorithms: a naive verifier would accept it."""
    message, _, signature = mint(scene, alg="HS256").rpartition(".")
    secret = public_key(scene).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    expected = hmac.digest(secret, message.encode(), "sha256")
    assert jwt.utils.base64url_decode(signature) == expected


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_other_rsa_algorithms_are_really_used(scene: Scene, alg: str) -> None:
    """The signature is good, only the algorithm is not the allowed one."""
    token = mint(scene, alg=alg)
    audience = scene.blueprint["client_id"]
    assert jwt.decode(token, public_key(scene), algorithms=[alg], audience=audience)


def test_a_foreign_key_is_never_published(scene: Scene) -> None:
    """Its id is not in the key set."""
    kid = jwt.get_unverified_header(mint(scene, key="foreign"))["kid"]
    assert kid != jwt.get_unverified_header(mint(scene))["kid"]


def test_the_old_key_is_the_one_before_the_roll(fresh_scene: Scene) -> None:
    """`key: old` signs as before, even when the key was withdrawn."""
    before = jwt.get_unverified_header(mint(fresh_scene))["kid"]
    fresh_scene.emulator.roll_signing_key(withdraw_old=True)
    assert jwt.get_unverified_header(mint(fresh_scene, key="old"))["kid"] == before


def test_an_unknown_audience_is_taken_as_it_is(scene: Scene) -> None:
    """For tests of wrong audiences."""
    assert claims_of(mint(scene, audience="api://nowhere"))["aud"] == "api://nowhere"


@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"tenant_id": "nobody.example"}, "tenant_id"),
        ({"user": "nobody@contoso.example"}, "user"),
        ({"scopes": "access_agent"}, "scopes"),
        ({"scopes": [1]}, "scopes"),
        ({"version": 3}, "version"),
        ({"key": "old"}, "key"),
        ({"alg": "ES256"}, "alg"),
        ({"claims": []}, "claims"),
        ({"lifetme": 1}, "lifetme"),
    ],
)
def test_a_wrong_order_is_named(scene: Scene, order: dict[str, Any], field: str) -> None:
    """400 with a problem document that names the member."""
    response = scene.session.post(scene.emulator.mint_url, json=order)
    assert (response.status_code, response.json()["field"]) == (400, field)


def test_in_process_orders_raise(scene: Scene) -> None:
    """The same check, as an exception."""
    with pytest.raises(MintError, match="user: names no user"):
        scene.emulator.mint_user_token(user="nobody@contoso.example")
