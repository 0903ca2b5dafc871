"""Whom a route admits: subjects, clients, permissions and workloads."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import (
    ActorNotAllowed,
    InsufficientScope,
    SubjectNotAllowed,
    WorkloadNotAllowed,
)
from authz.core.grant import NoToken
from authz.core.policy import EgressRoute, PeerSource, authorize_workload
from authz.core.principal import SubjectType
from authz.core.request import CheckRequest
from authz.core.requirement import Requirement, authorize
from support.fakes.principals import principal
from support.fakes.tenant import AGENT, CLIENT

USERS: Final = [SubjectType.USER, SubjectType.AGENT_USER]
APPLICATIONS: Final = [SubjectType.APPLICATION, SubjectType.AGENT_IDENTITY]


@pytest.mark.parametrize("kind", USERS)
def test_a_route_serves_users_unless_told_otherwise(kind: SubjectType) -> None:
    """Users are admitted by default and by nothing but `users`."""
    authorize(Requirement(), principal(kind))
    with pytest.raises(SubjectNotAllowed):
        authorize(Requirement(users=False, applications=True), principal(kind))


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_a_route_serves_applications_only_when_told_so(kind: SubjectType) -> None:
    """Applications are refused by default and admitted by nothing but `applications`."""
    authorize(Requirement(applications=True), principal(kind))
    with pytest.raises(SubjectNotAllowed):
        authorize(Requirement(), principal(kind))


def test_a_route_may_name_the_clients_that_call() -> None:
    """Another application's token for the same user does not do."""
    authorize(Requirement(actors=frozenset({CLIENT, AGENT})), principal())
    with pytest.raises(ActorNotAllowed):
        authorize(Requirement(actors=frozenset({AGENT})), principal())


def test_a_user_needs_one_of_the_scopes() -> None:
    """Roles do not stand in for scopes, and one scope is enough."""
    requirement = Requirement(scopes=("a", "b"), roles=("r",))

    authorize(requirement, principal(SubjectType.USER, scopes="b c"))
    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(SubjectType.USER, scopes="c", roles="r a"))
    assert "found 'c', expected 'a', 'b'" == raised.value.detail
    assert ("a", "b") == raised.value.accepted
    assert ("a", "b") == raised.value.ask_for


def test_an_application_needs_one_of_the_roles() -> None:
    """Scopes do not stand in for roles, and one role is enough."""
    requirement = Requirement(applications=True, scopes=("a",), roles=("r", "s"))

    authorize(requirement, principal(SubjectType.APPLICATION, roles="s"))
    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(SubjectType.APPLICATION, scopes="a r", roles="t"))
    assert "found 't', expected 'r', 's'" == raised.value.detail
    assert ("r", "s") == raised.value.accepted
    assert () == raised.value.ask_for


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SubjectType.USER, ("api://agent/a", "api://agent/b")),
        # There is no scope for a role: an application gets those that it has.
        (SubjectType.APPLICATION, ("api://agent/.default",)),
    ],
)
def test_what_is_missing_is_said_as_entra_is_asked_for_it(
    kind: SubjectType, expected: tuple[str, ...]
) -> None:
    """With its resource: a name alone is a permission of Microsoft Graph to Entra."""
    requirement = Requirement(
        applications=True, scopes=("a", "b"), roles=("r",), resource="api://agent"
    )

    with pytest.raises(InsufficientScope) as raised:
        authorize(requirement, principal(kind))
    assert expected == raised.value.ask_for


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
