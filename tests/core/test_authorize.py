"""Whom a route admits: subjects, clients, permissions, sign-ins and workloads."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import (
    ActorNotAllowed,
    AuthzError,
    InsufficientScope,
    StepUpRequired,
    SubjectNotAllowed,
    WorkloadNotAllowed,
)
from authz.core.grant import NoToken
from authz.core.principal import APPLICATIONS, Actor, Principal, SubjectType
from authz.core.request import CheckRequest
from authz.core.requirement import Requirement, authorize
from authz.core.route import EgressRoute, PeerSource, authorize_workload
from support.fakes.principals import principal
from support.fakes.properties import brief
from support.fakes.tenant import AGENT, BLUEPRINT, CLIENT

OTHERS: Final = [kind for kind in SubjectType if not kind.is_user]
SIBLINGS: Final = Actor(AGENT, is_agent=True, blueprint=BLUEPRINT)
NAMES: Final = st.sampled_from("abc")
CLAUSES: Final = st.lists(
    st.lists(NAMES, min_size=1, max_size=2, unique=True).map(tuple), max_size=3
).map(tuple)
HELD: Final = st.sets(NAMES).map(" ".join)


def test_a_route_serves_users_unless_others_are_named() -> None:
    """Persons and agents' user accounts, and no app-only token."""
    assert [SubjectType.USER, SubjectType.AGENT_USER] == [
        kind for kind in SubjectType if outcome(Requirement(), principal(kind)) is None
    ]


@pytest.mark.parametrize("named", SubjectType)
@pytest.mark.parametrize("kind", SubjectType)
def test_a_route_serves_the_kinds_of_subject_that_it_names(
    named: SubjectType, kind: SubjectType
) -> None:
    """A person is no agent's user account, and an ordinary application no agent identity."""
    expected = None if kind is named else SubjectNotAllowed
    requirement = Requirement(subjects=frozenset({named}))

    assert expected is outcome(requirement, principal(kind))


@pytest.mark.parametrize(
    ("actors", "blueprints", "admitted"),
    [
        ((), (), True),
        ((CLIENT, AGENT), (), True),
        ((CLIENT,), (), False),
        ((), (BLUEPRINT,), True),
        ((), (CLIENT,), False),
        ((CLIENT,), (BLUEPRINT,), True),
        ((AGENT,), (CLIENT,), True),
        ((CLIENT,), (CLIENT,), False),
        # A blueprint is no client id, nor the other way round.
        ((BLUEPRINT,), (), False),
        ((), (AGENT,), False),
    ],
)
@pytest.mark.parametrize("kind", SubjectType)
def test_a_route_may_name_the_clients_that_call_and_their_blueprints(
    kind: SubjectType, actors: tuple[str, ...], blueprints: tuple[str, ...], admitted: bool
) -> None:
    """Either is enough; where one of the two is named, everybody else is refused."""
    requirement = Requirement(
        subjects=frozenset(SubjectType), actors=frozenset(actors), blueprints=frozenset(blueprints)
    )
    expected = None if admitted else ActorNotAllowed

    assert expected is outcome(requirement, principal(kind, actor=SIBLINGS))


def test_a_client_without_a_blueprint_is_of_none_of_those_named() -> None:
    """Tokens of ordinary applications lack the claim, as do those of APIs that do not ask for it."""
    with pytest.raises(ActorNotAllowed) as raised:
        authorize(Requirement(blueprints=frozenset({BLUEPRINT})), principal())
    assert f"actor {CLIENT}, blueprint none" == raised.value.detail


def test_a_user_needs_one_of_the_scopes() -> None:
    """Roles do not stand in for scopes, and one scope is enough."""
    requirement = Requirement(scopes=(("a", "b"),), roles=(("r",),))

    authorize(requirement, principal(SubjectType.USER, scopes="b c"))
    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(SubjectType.USER, scopes="c", roles="r a"))
    assert "found 'c', expected 'a', 'b'" == raised.value.detail
    assert ("a", "b") == raised.value.accepted
    assert ("a", "b") == raised.value.ask_for


def test_an_application_needs_one_of_the_roles() -> None:
    """Scopes do not stand in for roles, and one role is enough."""
    requirement = Requirement(APPLICATIONS, scopes=(("a",),), roles=(("r", "s"),))

    authorize(requirement, principal(SubjectType.APPLICATION, roles="s"))
    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(SubjectType.APPLICATION, scopes="a r", roles="t"))
    assert "found 't', expected 'r', 's'" == raised.value.detail
    assert ("r", "s") == raised.value.accepted
    assert () == raised.value.ask_for


@pytest.mark.parametrize(
    ("held", "unmet"),
    [
        ("", ("a", "b")),
        ("a", ("c",)),
        ("b", ("c",)),
        ("a b", ("c",)),
        ("c", ("a", "b")),
        ("a c", None),
        ("b c", None),
        ("a b c d", None),
    ],
)
@pytest.mark.parametrize("key", ["scopes", "roles", "user_roles"])
def test_one_name_of_each_clause_is_needed(
    key: str, held: str, unmet: tuple[str, ...] | None
) -> None:
    """The first clause that is not met is the one that the refusal names."""
    demand: Any = {key: (("a", "b"), ("c",))}
    requirement = Requirement(frozenset(SubjectType), **demand)
    kind = SubjectType.APPLICATION if key == "roles" else SubjectType.USER
    holds: Any = {"scopes" if key == "scopes" else "roles": held}

    assert unmet == refused_for(requirement, principal(kind, **holds))


def test_a_clause_without_names_is_never_met() -> None:
    """Of nothing there is none to hold: what nobody meant to demand admits nobody."""
    assert () == refused_for(Requirement(scopes=((),)), principal(scopes="a"))


def test_a_users_app_role_is_not_asked_for_as_a_scope() -> None:
    """It is assigned: a client that asked Entra for a scope would be refused again, for ever."""
    requirement = Requirement(
        scopes=(("read",),), user_roles=(("Approver",),), resource="api://agent"
    )

    authorize(requirement, principal(scopes="read", roles="Approver"))
    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(scopes="read Approver", roles="Reader"))
    assert (("Approver",), ()) == (raised.value.accepted, raised.value.ask_for)
    assert "found 'Reader', expected 'Approver'" == raised.value.detail


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("roles", SubjectType.USER),
        ("scopes", SubjectType.AGENT_IDENTITY),
        ("user_roles", SubjectType.APPLICATION),
    ],
)
def test_a_demand_concerns_tokens_of_its_kind_alone(key: str, kind: SubjectType) -> None:
    """Of applications nobody demands what users hold, nor the other way round."""
    demand: Any = {key: (("a",),)}

    authorize(Requirement(frozenset(SubjectType), **demand), principal(kind))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SubjectType.USER, ("api://agent/a", "api://agent/b", "api://agent/c")),
        # There is no scope for a role: an application gets those that it has.
        (SubjectType.APPLICATION, ("api://agent/.default",)),
    ],
)
def test_what_is_missing_is_said_as_entra_is_asked_for_it(
    kind: SubjectType, expected: tuple[str, ...]
) -> None:
    """With its resource: a name alone is a permission of Microsoft Graph to Entra. Those of all clauses."""
    requirement = Requirement(
        frozenset(SubjectType),
        scopes=(("a", "b"), ("b", "c")),
        roles=(("r",),),
        resource="api://agent",
    )

    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(kind, scopes="a"))
    assert expected == raised.value.ask_for


@pytest.mark.parametrize("satisfied", ["", "c2", "c10 c2"])
def test_a_sign_in_without_the_authentication_context_is_to_be_stepped_up(satisfied: str) -> None:
    """The challenge has the claims by which a client asks Entra for it."""
    with pytest.raises(StepUpRequired) as raised:
        authorize(Requirement(auth_contexts=("c1",)), principal(auth_contexts=satisfied))

    assert {"access_token": {"acrs": {"essential": True, "value": "c1"}}} == json.loads(
        raised.value.claims
    )
    assert raised.value.detail.endswith(", expected 'c1'")


def test_a_sign_in_with_the_authentication_context_is_enough() -> None:
    """Beside others that it satisfied as well."""
    authorize(Requirement(auth_contexts=("c1",)), principal(auth_contexts="c2 c1"))


def test_nobody_is_sent_to_sign_in_for_what_a_sign_in_does_not_bring() -> None:
    """A user who lacks the scope or the role as well is refused for that first."""
    requirement = Requirement(scopes=(("a",),), user_roles=(("r",),), auth_contexts=("c1",))

    assert [InsufficientScope, InsufficientScope, StepUpRequired] == [
        outcome(requirement, held)
        for held in (
            principal(roles="r"),
            principal(scopes="a"),
            principal(scopes="a", roles="r"),
        )
    ]


@pytest.mark.parametrize("kind", OTHERS)
def test_no_application_needs_an_authentication_context(kind: SubjectType) -> None:
    """It never signs in."""
    authorize(Requirement(APPLICATIONS, auth_contexts=("c1",)), principal(kind))


@brief
@given(
    kind=st.sampled_from(SubjectType),
    key=st.sampled_from(["scopes", "roles", "user_roles"]),
    clauses=CLAUSES,
    more=CLAUSES,
    scopes=HELD,
    roles=HELD,
)
def test_a_further_clause_never_admits_more(
    kind: SubjectType,
    key: str,
    clauses: tuple[tuple[str, ...], ...],
    more: tuple[tuple[str, ...], ...],
    scopes: str,
    roles: str,
) -> None:
    """Clauses of two demands, one after the other, admit exactly whom both admit."""
    caller = principal(kind, scopes=scopes, roles=roles)
    both, first, second = (
        outcome(Requirement(frozenset(SubjectType), **{key: demand}), caller) is None  # type: ignore[arg-type]
        for demand in (clauses + more, clauses, more)
    )

    assert (first and second) is both


def outcome(requirement: Requirement, caller: Principal) -> type[AuthzError] | None:
    """Return how a caller is refused; None if it is admitted."""
    try:
        authorize(requirement, caller)
    except AuthzError as error:
        return type(error)
    return None


def refused_for(requirement: Requirement, caller: Principal) -> tuple[str, ...] | None:
    """Return the clause that a refusal names; None if the caller is admitted."""
    try:
        authorize(requirement, caller)
    except InsufficientScope as error:
        return error.accepted
    return None


BOUND: Final = EgressRoute(
    "bound", (), NoToken(), workloads=frozenset({"spiffe://cluster/ns/a/sa/agent"})
)
ME: Final = "spiffe://cluster/ns/a/sa/agent"
SOMEBODY: Final = "spiffe://cluster/ns/b/sa/other"


def test_a_route_without_workloads_trusts_its_socket() -> None:
    """A sidecar's socket is reached by its own pod only."""
    authorize_workload(EgressRoute("free", (), NoToken()), CheckRequest())


@pytest.mark.parametrize(
    ("source", "request_"),
    [
        (PeerSource.CONNECTION, CheckRequest(peer=ME, source_principal=SOMEBODY)),
        (PeerSource.SOURCE_PRINCIPAL, CheckRequest(peer=SOMEBODY, source_principal=ME)),
    ],
)
def test_the_named_workload_may_use_its_route(source: PeerSource, request_: CheckRequest) -> None:
    """The configured witness names the workload that the route names."""
    authorize_workload(replace(BOUND, peer_source=source), request_)


@pytest.mark.parametrize("source", PeerSource)
@pytest.mark.parametrize("peer", [None, "", SOMEBODY, ME + "/more", ME.upper()])
def test_no_other_workload_may(source: PeerSource, peer: str | None) -> None:
    """An unproven or another peer is refused, whoever is the witness."""
    with pytest.raises(WorkloadNotAllowed):
        authorize_workload(
            replace(BOUND, peer_source=source), CheckRequest(peer=peer, source_principal=peer)
        )


@pytest.mark.parametrize(
    ("source", "request_"),
    [
        (PeerSource.CONNECTION, CheckRequest(source_principal=ME)),
        (PeerSource.SOURCE_PRINCIPAL, CheckRequest(peer=ME)),
    ],
)
def test_the_other_witness_is_not_heard(source: PeerSource, request_: CheckRequest) -> None:
    """Only the witness that the route trusts can name the workload."""
    with pytest.raises(WorkloadNotAllowed):
        authorize_workload(replace(BOUND, peer_source=source), request_)
