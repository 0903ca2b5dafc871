"""An application is never served as a user: no claim it controls makes it one."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.principal import SubjectType
from authz.core.requirement import Requirement
from authz.core.route import InboundRoute
from support.fakes.clock import Clock
from support.fakes.scene import DELEGATED_FLOWS, INBOUND, Scene
from support.fakes.tenant import ABSENT, AGENT, CLIENT, USER, FakeTenant

APP_ONLY: Final = frozenset({SubjectType.APPLICATION, SubjectType.AGENT_IDENTITY})
ENTRA: Final = FakeTenant(clock=Clock())
DOORS: Final = [("inbound", INBOUND), *(("egress", flow.value) for flow in DELEGATED_FLOWS)]
APPLICATIONS: Final[dict[str, str]] = {
    "an application": ENTRA.app_token(),
    "an application without roles": ENTRA.app_token(roles=ABSENT),
    "an application with a user's scope": ENTRA.app_token(scp="access_as_user"),
    "an application without idtyp": ENTRA.app_token(idtyp=ABSENT),
    "an application without idtyp but with a scope": ENTRA.app_token(
        idtyp=ABSENT, scp="access_as_user"
    ),
    "an application with a role named like the scope": ENTRA.app_token(roles=["access_as_user"]),
    "an application with an unknown idtyp": ENTRA.app_token(idtyp="device", scp="access_as_user"),
    "an application with idtyp in another case": ENTRA.app_token(idtyp="User", scp="access_as_user"),
    "an application with an agent user's facet": ENTRA.app_token(xms_sub_fct="13"),
    "an autonomous agent": ENTRA.agent_token(),
    "an autonomous agent with the empty scope": ENTRA.agent_token(idtyp=ABSENT, scp="/"),
    "an autonomous agent with a scope": ENTRA.agent_token(idtyp=ABSENT, scp="access_as_user"),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door[1])
@pytest.mark.parametrize("token", APPLICATIONS.values(), ids=APPLICATIONS)
async def test_an_applications_token_is_refused_where_users_are_served(
    token: str, door: tuple[str, str]
) -> None:
    """It verifies, and is still not a user: nothing is exchanged on its behalf."""
    scene = Scene()
    record = await scene.check(scene.request(*door, token))

    assert Deny(Reason.SUBJECT_NOT_ALLOWED) == record.decision
    assert [] == scene.entra.calls


@pytest.mark.parametrize(
    "changes",
    [{}, {"idtyp": "user"}, {"roles": ["Agent.Call"]}, {"scp": "Agent.Call"}],
    ids=["plain", "with idtyp", "with the application's role", "with a scope named like the role"],
)
async def test_a_users_token_is_refused_where_only_applications_are_served(
    changes: dict[str, Any],
) -> None:
    """A user who holds an app role is a user."""
    scene = Scene()
    requirement = Requirement(APP_ONLY, roles=(("Agent.Call",),))
    scene.configure(_requiring(scene, requirement))
    record = await scene.inbound(scene.tenant.user_token(**changes))

    assert Deny(Reason.SUBJECT_NOT_ALLOWED) == record.decision


async def test_an_application_is_served_where_it_is_meant_to_be() -> None:
    """The refusals above are about the kind of subject and nothing else."""
    scene = Scene()
    scene.configure(_requiring(scene, Requirement(APP_ONLY, roles=(("Agent.Call",),))))

    assert isinstance((await scene.inbound(scene.tenant.app_token())).decision, Allow)


async def test_the_app_is_told_the_kind_of_its_caller() -> None:
    """A route that serves both leaves the app in no doubt."""
    scene = Scene()
    scene.configure(_requiring(scene, Requirement(frozenset(SubjectType))))
    tokens = [scene.tenant.user_token(), scene.tenant.app_token(), scene.tenant.agent_token()]
    told = [(await scene.inbound(token)).decision for token in tokens]

    assert [(USER, "user"), (CLIENT, "application"), (AGENT, "agent_identity")] == [
        (headers["x-authz-subject"], headers["x-authz-subject-type"])
        for decision in told
        if isinstance(decision, Allow)
        for headers in [dict(decision.headers)]
    ]


def _requiring(scene: Scene, requirement: Requirement) -> InboundRoute:
    return replace(scene.inbound_route, requirement=requirement)
