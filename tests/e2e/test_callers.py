"""Which callers a real Envoy lets in: kinds of subject, users' roles, agents of a blueprint, a step-up."""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from support.programs.stack import World
from support.proxy.pod import Pod, pod_of

ENTITLED: Final = {"roles": ["Approver"], "acrs": ["c1", "c3"]}
AGENT: Final = {"xms_sub_fct": "9 11 3", "xms_act_fct": "9 11 3"}


@pytest.fixture(scope="module")
def pod(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod for approvers who come by the portal, and for the agents of one blueprint."""
    inbound = {
        "agent": "desk",
        "subjects": ["user", "agent_identity"],
        "scopes": {"all": ["access_agent", "approve"]},
        "user_roles": ["Approver", "Director"],
        "auth_context": "c1",
        "actors": [shared_world.portal["client_id"]],
        "actor_blueprints": [shared_world.blueprint["client_id"]],
    }
    folder = tmp_path_factory.mktemp("pod")
    with pod_of(shared_world, folder, inbound={"agent": inbound}) as running:
        yield running


def by_user(
    pod: Pod, scopes: tuple[str, ...] = ("access_agent", "approve"), **claims: Any
) -> httpx.Response:
    """Call as a person who came by the portal, with these claims in place of others."""
    token = pod.world.token(scopes=scopes, claims={**ENTITLED, **claims})
    return called(pod, token)


def by_itself(pod: Pod, client: str, **claims: Any) -> httpx.Response:
    """Call as an application or agent for itself."""
    audience = pod.world.blueprint["client_id"]
    return called(
        pod,
        pod.world.emulator.mint_user_token(
            user=None, client_id=client, audience=audience, claims=claims
        ),
    )


def called(pod: Pod, token: str) -> httpx.Response:
    """Call the agent."""
    return pod.sidecar.caller.get("/chat", headers={"authorization": f"Bearer {token}"})


def test_a_user_who_has_all_that_is_demanded_is_let_in(pod: Pod) -> None:
    """Scopes, a role, a sign-in, and a client that is named."""
    assert 200 == by_user(pod).status_code


@pytest.mark.parametrize(
    ("changes", "reason", "accepted"),
    [
        ({"scopes": ("access_agent",)}, "insufficient_scope", ["approve"]),
        ({"roles": ["Reader"]}, "insufficient_scope", ["Approver", "Director"]),
        ({"xms_sub_fct": "3 13"}, "subject_not_allowed", None),
        ({"azp": "99999999-0000-4000-8000-000000000009"}, "actor_not_allowed", None),
    ],
)
def test_a_user_who_lacks_something_is_refused(
    pod: Pod, changes: dict[str, Any], reason: str, accepted: list[str] | None
) -> None:
    """Scope, role, kind of subject, client: and only a scope is asked for."""
    answer = by_user(pod, **changes)
    found = answer.json()

    assert (403, reason, accepted) == (answer.status_code, found["reason"], found.get("accepted"))
    challenge = answer.headers.get("www-authenticate", "")
    assert ("scope=" in challenge) is ("scopes" in changes)


def test_a_sign_in_that_is_not_enough_is_challenged(pod: Pod) -> None:
    """The client hands the claims of header or body to Entra."""
    answer = by_user(pod, acrs=["c3"])
    claims = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}
    challenge = answer.headers["www-authenticate"]

    assert (401, "step_up_required") == (answer.status_code, answer.json()["reason"])
    assert 'error="insufficient_claims"' in challenge
    assert claims == json.loads(base64.b64decode(challenge.partition('claims="')[2].rstrip('"')))
    assert claims == json.loads(answer.json()["claims"])


def test_each_agent_of_the_blueprint_is_let_in(pod: Pod) -> None:
    """Siblings too; the app learns the blueprint of its caller."""
    world, blueprint = pod.world, pod.world.blueprint["client_id"]
    agents = [world.agent["client_id"], world.sibling["client_id"]]
    answers = [by_itself(pod, agent, **AGENT, xms_par_app_azp=blueprint) for agent in agents]

    assert [200, 200] == [answer.status_code for answer in answers]
    assert [[blueprint]] * 2 == [
        seen.values("x-authz-actor-blueprint") for seen in pod.sidecar.app.received[-2:]
    ]


def test_an_agent_of_another_blueprint_is_refused(pod: Pod) -> None:
    """As is one whose blueprint the token does not tell."""
    agent, other = pod.world.agent["client_id"], pod.world.other_blueprint["client_id"]
    answers = [
        by_itself(pod, agent, **AGENT, xms_par_app_azp=other),
        by_itself(pod, agent, **AGENT, xms_par_app_azp=None),
    ]

    assert ["actor_not_allowed"] * 2 == [answer.json()["reason"] for answer in answers]


def test_without_the_optional_claims_an_agent_is_an_application(pod: Pod) -> None:
    """Which this route does not serve."""
    agent = pod.world.agent["client_id"]
    answer = by_itself(pod, agent, xms_sub_fct=None, xms_act_fct=None)

    assert (403, "subject_not_allowed") == (answer.status_code, answer.json()["reason"])
