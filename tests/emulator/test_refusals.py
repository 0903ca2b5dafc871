"""What the token endpoint refuses: one test for each way to be wrong."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
import requests

from authz_dev.emulator.entities import Secret
from emulator.scene import EXCHANGE, GRAPH, JWT_BEARER, Clock, Scene, claims_of

Refused = Callable[[Scene], requests.Response]

REFUSALS: dict[str, tuple[int, str, int, Refused]] = {
    # the request
    "a repeated parameter": (
        9002313,
        "invalid_request",
        400,
        lambda s: s.session.post(
            f"{s.emulator.authority}/{s.tenant_id}/oauth2/v2.0/token",
            data=[("scope", "a"), ("scope", "b")],
        ),
    ),
    "a JSON body": (
        900561,
        "invalid_request",
        400,
        lambda s: s.session.post(
            f"{s.emulator.authority}/{s.tenant_id}/oauth2/v2.0/token", json={}
        ),
    ),
    "a GET": (
        900561,
        "invalid_request",
        400,
        lambda s: s.session.get(f"{s.emulator.authority}/{s.tenant_id}/oauth2/v2.0/token"),
    ),
    "no grant_type": (900144, "invalid_request", 400, lambda s: s.as_blueprint(grant_type=None)),
    "no client_id": (900144, "invalid_request", 400, lambda s: s.as_blueprint(client_id=None)),
    "no scope": (900144, "invalid_request", 400, lambda s: s.as_blueprint(scope=None)),
    "a resource that is not the scope's": (
        9010010,
        "invalid_target",
        400,
        lambda s: s.as_blueprint(resource="https://graph.microsoft.com"),
    ),
    "a resource that nobody has": (
        9010010,
        "invalid_target",
        400,
        lambda s: s.as_agent(resource="https://mcp.example/mcp"),
    ),
    "common": (9001023, "invalid_request", 400, lambda s: s.post("common", **_t1_form(s))),
    "an unknown tenant": (
        90002,
        "invalid_request",
        400,
        lambda s: s.post(str(uuid.uuid4()), **_t1_form(s)),
    ),
    "an unknown grant type": (
        70003,
        "unsupported_grant_type",
        400,
        lambda s: s.as_blueprint(grant_type="password"),
    ),
    "token exchange of RFC 8693": (
        70003,
        "unsupported_grant_type",
        400,
        lambda s: s.as_agent(grant_type="urn:ietf:params:oauth:grant-type:token-exchange"),
    ),
    "claims that are not JSON": (
        90100,
        "invalid_request",
        400,
        lambda s: s.as_agent(claims="{capolids"),
    ),
    # the client
    "an unknown client": (
        700016,
        "unauthorized_client",
        400,
        lambda s: s.as_blueprint(client_id=str(uuid.uuid4())),
    ),
    "a client of another tenant": (
        700016,
        "unauthorized_client",
        400,
        lambda s: s.post(s.tenants[1]["tenant_id"], **_t1_form(s)),
    ),
    "no proof of the client": (
        7000218,
        "invalid_client",
        401,
        lambda s: s.as_blueprint(client_secret=None),
    ),
    "a wrong secret": (
        7000215,
        "invalid_client",
        401,
        lambda s: s.as_blueprint(client_secret="wrong"),
    ),
    "an agent with its blueprint's secret": (
        7000215,
        "invalid_client",
        401,
        lambda s: s.as_agent(
            client_assertion=None,
            client_assertion_type=None,
            client_secret=s.blueprint["client_secret"],
        ),
    ),
    "two proofs at once": (
        9002313,
        "invalid_request",
        400,
        lambda s: s.as_agent(client_secret="also"),
    ),
    "no assertion type": (
        900144,
        "invalid_request",
        400,
        lambda s: s.as_agent(client_assertion_type=None),
    ),
    "a wrong assertion type": (
        90100,
        "invalid_request",
        400,
        lambda s: s.as_agent(
            client_assertion_type="urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
        ),
    ),
    "an assertion that is no JWT": (
        50027,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion="not.a.jwt"),
    ),
    "T1 of a sibling agent": (
        700213,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=s.t1(s.sibling)),
    ),
    "T1 of another blueprint": (
        700213,
        "invalid_client",
        401,
        lambda s: s.as_agent(
            client_assertion=s.as_blueprint(
                client_id=s.other_blueprint["client_id"],
                client_secret=s.other_blueprint["client_secret"],
                fmi_path=s.stranger["client_id"],
            ).json()["access_token"]
        ),
    ),
    "T1 that another application got": (
        700213,
        "invalid_client",
        401,
        lambda s: s.as_agent(
            client_assertion=s.emulator.mint_user_token(
                user=None, claims=claims_of(s.t1()) | {"azp": s.reports["client_id"]}
            )
        ),
    ),
    "T1 of another tenant": (
        700211,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=_foreign_t1(s)),
    ),
    "T2 as client assertion": (
        700213,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=s.t2()),
    ),
    "a user's token as client assertion": (
        700214,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=s.user_token()),
    ),
    "T1 with a broken signature": (
        700027,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=_broken(s.t1())),
    ),
    "T1 forged with another key": (
        7000274,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_assertion=_forged_t1(s)),
    ),
    "T1 as proof of its blueprint": (
        700211,
        "invalid_client",
        401,
        lambda s: s.as_agent(client_id=s.blueprint["client_id"]),
    ),
    # scopes
    "a single scope in client credentials": (
        1002012,
        "invalid_scope",
        400,
        lambda s: s.as_agent(scope="https://graph.microsoft.com/User.Read"),
    ),
    "openid in client credentials": (
        1002012,
        "invalid_scope",
        400,
        lambda s: s.as_agent(scope=f"{GRAPH} openid"),
    ),
    "two resources": (
        700022,
        "invalid_scope",
        400,
        lambda s: s.on_behalf_of(s.user_token(), scope="api://orders/Orders.Read User.Read"),
    ),
    "no resource": (
        700023,
        "invalid_scope",
        400,
        lambda s: s.on_behalf_of(s.user_token(), scope="openid profile"),
    ),
    "/.default with a single scope": (
        70011,
        "invalid_scope",
        400,
        lambda s: s.on_behalf_of(
            s.user_token(), scope="api://orders/.default api://orders/Orders.Read"
        ),
    ),
    "an unknown resource": (
        500011,
        "invalid_resource",
        400,
        lambda s: s.as_agent(scope="api://nobody/.default"),
    ),
    # blueprints
    "a blueprint asking for a custom API": (
        82001,
        "unauthorized_client",
        400,
        lambda s: s.as_blueprint(scope="api://orders/.default", fmi_path=None),
    ),
    "a blueprint acting on behalf of a user": (
        82002,
        "unauthorized_client",
        400,
        lambda s: s.as_blueprint(
            grant_type=JWT_BEARER,
            assertion=s.user_token(),
            requested_token_use="on_behalf_of",
            scope=GRAPH,
            fmi_path=None,
        ),
    ),
    "a blueprint as an agent user": (
        70003,
        "unsupported_grant_type",
        400,
        lambda s: s.as_blueprint(grant_type="user_fic", fmi_path=None),
    ),
    "an empty fmi_path": (900144, "invalid_request", 400, lambda s: s.as_blueprint(fmi_path="")),
    "fmi_path of a stranger's agent": (
        90100,
        "invalid_request",
        400,
        lambda s: s.as_blueprint(fmi_path=s.stranger["client_id"]),
    ),
    "fmi_path with a resource": (
        90100,
        "invalid_request",
        400,
        lambda s: s.as_blueprint(scope=GRAPH),
    ),
    "fmi_path of an agent": (
        90100,
        "invalid_request",
        400,
        lambda s: s.as_agent(scope=EXCHANGE, fmi_path=s.agent["client_id"]),
    ),
    # on behalf of
    "no requested_token_use": (
        900144,
        "invalid_request",
        400,
        lambda s: s.on_behalf_of(s.user_token(), requested_token_use=None),
    ),
    "no assertion": (900144, "invalid_request", 400, lambda s: s.on_behalf_of(None)),
    "a malformed assertion": (50027, "invalid_request", 400, lambda s: s.on_behalf_of("x.y.z")),
    "a user's token for another application": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(audience=s.reports["client_id"])),
    ),
    "a user's token for the agent itself": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(audience=s.agent["client_id"])),
    ),
    "a user's token of another tenant": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(
            s.emulator.mint_user_token(
                tenant_id=s.tenants[1]["tenant_id"], audience=s.blueprint["client_id"]
            )
        ),
    ),
    "a user's token whose tenant is not its issuer's": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(claims={"tid": s.tenants[1]["tenant_id"]})),
    ),
    "a user's token with a broken signature": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(_broken(s.user_token())),
    ),
    "a user's token forged with another key": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(key="foreign")),
    ),
    "a user's token without signature": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(alg="none")),
    ),
    "a user's token signed with the public key": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(alg="HS256")),
    ),
    "an expired user's token": (
        500133,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(lifetime=-1)),
    ),
    "a user's token of the future": (
        500133,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(claims={"nbf": 9_999_999_999})),
    ),
    "a user's token without end": (
        500133,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(claims={"exp": None})),
    ),
    "an app-only token as assertion": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.emulator.mint_user_token(user=None)),
    ),
    "T1 as assertion": (50013, "invalid_grant", 400, lambda s: s.on_behalf_of(s.t1())),
    "an ID token as assertion": (
        240002,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(claims={"scp": None, "azp": None})),
    ),
    "a user who left": (
        50034,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(claims={"oid": str(uuid.uuid4())})),
    ),
    "a disabled user": (
        50057,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token("dave")),
    ),
    "a user without consent": (
        65001,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token("bob")),
    ),
    "a scope without consent": (
        65001,
        "invalid_grant",
        400,
        lambda s: s.on_behalf_of(s.user_token(), scope="api://orders/Orders.Write"),
    ),
    "a user without a second factor": (
        50076,
        "interaction_required",
        400,
        lambda s: s.on_behalf_of(s.user_token("carol")),
    ),
    # agent user
    "no T2": (
        900144,
        "invalid_request",
        400,
        lambda s: s.agent_user(user_federated_identity_credential=None),
    ),
    "T1 in T2's place": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.agent_user(user_federated_identity_credential=s.t1()),
    ),
    "T2 of a sibling": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.agent_user(user_federated_identity_credential=_sibling_t2(s)),
    ),
    "no user": (900144, "invalid_request", 400, lambda s: s.agent_user(username=None)),
    "a name in user_id": (
        50000,
        "server_error",
        400,
        lambda s: s.agent_user(username=None, user_id=s.agent["agent_user"]),
    ),
    "two users": (
        90100,
        "invalid_request",
        400,
        lambda s: s.agent_user(user_id=s.users["alice"]["object_id"]),
    ),
    "an unknown agent user": (
        50034,
        "invalid_grant",
        400,
        lambda s: s.agent_user(username="nobody@contoso.example"),
    ),
    "a person as agent user": (
        700213,
        "invalid_grant",
        400,
        lambda s: s.agent_user(username=s.users["alice"]["username"]),
    ),
    "another agent's user": (
        700213,
        "invalid_grant",
        400,
        lambda s: s.agent_user(username=s.stranger["agent_user"]),
    ),
    # refresh
    "an unknown refresh token": (
        70000,
        "invalid_grant",
        400,
        lambda s: s.as_agent(grant_type="refresh_token", refresh_token="1.unknown"),
    ),
    "a sibling's refresh token": (
        70000,
        "invalid_grant",
        400,
        lambda s: s.as_agent(
            client_id=s.sibling["client_id"],
            client_assertion=s.t1(s.sibling),
            grant_type="refresh_token",
            refresh_token=s.on_behalf_of(s.user_token()).json()["refresh_token"],
        ),
    ),
    "an application with a token for another one": (
        50013,
        "invalid_grant",
        400,
        lambda s: s.post(
            client_id=s.reports["client_id"],
            client_secret=s.reports["client_secret"],
            grant_type=JWT_BEARER,
            assertion=s.user_token(),
            requested_token_use="on_behalf_of",
            scope="api://orders/.default",
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_it_refuses(scene: Scene, name: str) -> None:
    """The AADSTS number, OAuth error and status of each refusal."""
    code, error, status, refused = REFUSALS[name]
    response = refused(scene)
    body = response.json()
    assert (body["error_codes"], body["error"], response.status_code) == ([code], error, status)


def test_an_error_has_every_member_entra_sends(scene: Scene) -> None:
    """B.11: description with trace, correlation and time, and a repeated correlation id."""
    scene.session.headers["client-request-id"] = correlation_id = str(uuid.uuid4())
    body = scene.as_blueprint(client_secret="wrong").json()
    assert body["correlation_id"] == correlation_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["error_description"].startswith("AADSTS7000215: ")
    assert body["error_description"].endswith(
        f"Trace ID: {body['trace_id']} Correlation ID: {correlation_id} "
        f"Timestamp: {body['timestamp']}"
    )
    assert body["error_uri"].endswith("/error?code=7000215")
    assert not {"suberror", "claims"} & body.keys()


def test_missing_consent_carries_suberror_and_claims(scene: Scene) -> None:
    """B.12: 65001 tells what is missing."""
    body = scene.on_behalf_of(scene.user_token("bob")).json()
    assert body["suberror"] == "consent_required"
    [policy] = json.loads(body["claims"])["access_token"]["capolids"]["values"]
    assert uuid.UUID(policy).version == 4


def test_conditional_access_carries_a_claims_challenge(scene: Scene) -> None:
    """B.15: the claims string names the policy, and alone satisfies nothing."""
    body = scene.on_behalf_of(scene.user_token("carol")).json()
    assert json.loads(body["claims"])["access_token"]["capolids"]["essential"] is True
    again = scene.on_behalf_of(scene.user_token("carol"), claims=body["claims"])
    assert again.json()["error"] == "interaction_required"


def test_msal_sees_the_claims_challenge(scene: Scene) -> None:
    """MSAL hands `claims` and `suberror` on."""
    result = scene.agent_app().acquire_token_on_behalf_of(scene.user_token("carol"), [GRAPH])
    assert "capolids" in result["claims"]


def test_an_expired_t1_is_refused(fresh_scene: Scene, clock: Clock) -> None:
    """700024, the code that asks for a fresh assertion."""
    t1 = fresh_scene.t1()
    clock.ahead = 3601
    assert fresh_scene.as_agent(client_assertion=t1).json()["error_codes"] == [700024]


def test_an_idle_refresh_token_expires(fresh_scene: Scene, clock: Clock) -> None:
    """700082 after ninety days."""
    first = fresh_scene.on_behalf_of(fresh_scene.user_token()).json()
    clock.ahead = 91 * 86_400
    response = fresh_scene.as_agent(
        grant_type="refresh_token", refresh_token=first["refresh_token"]
    )
    assert response.json()["error_codes"] == [700082]


def test_revoked_sessions_end_refresh_tokens(fresh_scene: Scene, clock: Clock) -> None:
    """50173 when the grant was made before the revocation."""
    first = fresh_scene.on_behalf_of(fresh_scene.user_token()).json()
    clock.ahead = 10
    fresh_scene.emulator.directory.update_user(
        fresh_scene.tenant_id, "alice@contoso.example", sessions_valid_from=clock()
    )
    response = fresh_scene.as_agent(
        grant_type="refresh_token", refresh_token=first["refresh_token"]
    )
    assert response.json()["error_codes"] == [50173]


def test_an_expired_secret_is_refused(fresh_scene: Scene) -> None:
    """7000222 differs from a wrong secret."""
    directory = fresh_scene.emulator.directory
    blueprint = directory.application(fresh_scene.tenant_id, fresh_scene.blueprint["client_id"])
    assert blueprint is not None
    directory.add_secret(blueprint, Secret("old", expires_at=1.0))
    assert fresh_scene.as_blueprint(client_secret="old").json()["error_codes"] == [7000222]
    assert fresh_scene.as_blueprint().status_code == 200


def test_a_disabled_blueprint_stops_its_agents(fresh_scene: Scene) -> None:
    """7000112 for the blueprint, and for an agent that still has a T1."""
    t1 = fresh_scene.t1()
    fresh_scene.emulator.directory.update_application(
        fresh_scene.tenant_id, fresh_scene.blueprint["client_id"], disabled=True
    )
    assert fresh_scene.as_blueprint().json()["error_codes"] == [7000112]
    assert fresh_scene.as_agent(client_assertion=t1).json()["error_codes"] == [7000112]


def test_a_disabled_agent_is_refused_alone(fresh_scene: Scene) -> None:
    """7000112 for one agent does not touch its sibling."""
    fresh_scene.emulator.directory.update_agent(
        fresh_scene.tenant_id, fresh_scene.agent["client_id"], disabled=True
    )
    sibling = fresh_scene.sibling
    assert fresh_scene.as_agent().json()["error_codes"] == [7000112]
    response = fresh_scene.as_agent(
        client_id=sibling["client_id"], client_assertion=fresh_scene.t1(sibling)
    )
    assert response.status_code == 200


def test_an_api_can_require_assignment(fresh_scene: Scene) -> None:
    """50105 for a client without a role; without the setting role-less tokens exist."""
    directory = fresh_scene.emulator.directory
    orders = directory.resource(fresh_scene.tenant_id, "api://orders")
    assert orders is not None
    directory.update_application(
        fresh_scene.tenant_id, fresh_scene.blueprint["client_id"], inheritable=frozenset()
    )
    roleless = fresh_scene.as_agent(scope="api://orders/.default")
    assert "roles" not in claims_of(roleless.json()["access_token"])
    directory.add_application(replace(orders, assignment_required=True))
    refused = fresh_scene.as_agent(scope="api://orders/.default")
    assert refused.json()["error_codes"] == [50105]


def _t1_form(scene: Scene) -> dict[str, str]:
    return {
        "client_id": scene.blueprint["client_id"],
        "client_secret": scene.blueprint["client_secret"],
        "grant_type": "client_credentials",
        "scope": EXCHANGE,
        "fmi_path": scene.agent["client_id"],
    }


def _foreign_t1(scene: Scene) -> str:
    tenant = scene.tenants[1]
    [blueprint] = tenant["blueprints"]
    response = scene.post(
        tenant["tenant_id"],
        client_id=blueprint["client_id"],
        client_secret=blueprint["client_secret"],
        grant_type="client_credentials",
        scope=EXCHANGE,
        fmi_path=blueprint["agents"][0]["client_id"],
    )
    return str(response.json()["access_token"])


def _forged_t1(scene: Scene) -> str:
    return scene.emulator.mint_user_token(user=None, key="foreign", claims=claims_of(scene.t1()))


def _sibling_t2(scene: Scene) -> str:
    response = scene.as_agent(
        client_id=scene.sibling["client_id"],
        client_assertion=scene.t1(scene.sibling),
        scope=EXCHANGE,
    )
    return str(response.json()["access_token"])


def _broken(token: str) -> str:
    head, body, signature = token.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[0] ^= 1
    return f"{head}.{body}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
