"""What a verified principal must be and hold, and the check of it."""

import json
from dataclasses import dataclass

from authz.core.difference import difference
from authz.core.errors import (
    ActorNotAllowed,
    InsufficientScope,
    StepUpRequired,
    SubjectNotAllowed,
)
from authz.core.principal import USERS, Actor, Principal, SubjectType

Clauses = tuple[tuple[str, ...], ...]
"""Names of which one of each clause is needed: one clause for any of them, one for each to need all."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a verified principal must be and hold.

    Attributes:
        subjects: The kinds of subject that are served.
        scopes: A delegated token needs one scope of each clause.
        roles: An app-only token needs one role of each clause.
        user_roles: A delegated token needs one of the user's app roles of each clause.
        actors: Client ids that may call.
        blueprints: Blueprints whose agents may call. With no actors either, every client may.
        auth_contexts: The authentication contexts that a delegated token must satisfy.
        resource: What Entra knows the API by whose permissions these are, such as `api://CLIENT_ID`; empty
            where a client is to be shown the names alone.
    """

    subjects: frozenset[SubjectType] = USERS
    scopes: Clauses = ()
    roles: Clauses = ()
    user_roles: Clauses = ()
    actors: frozenset[str] = frozenset()
    blueprints: frozenset[str] = frozenset()
    auth_contexts: tuple[str, ...] = ()
    resource: str = ""

    def to_ask_for(self, *, delegated: bool) -> tuple[str, ...]:
        """Return the scopes of all clauses, by which a client asks Entra for what is needed.

        Roles are not asked for by name: an application gets those that it has by `/.default`.
        """
        scopes = tuple(dict.fromkeys(name for clause in self.scopes for name in clause))
        if not self.resource:
            return scopes if delegated else ()
        names = scopes if delegated else (".default",)
        return tuple(f"{self.resource}/{name}" for name in names)

    def admits(self, actor: Actor) -> bool:
        """Whether a client may call."""
        if not (self.actors or self.blueprints):
            return True
        return actor.client_id in self.actors or actor.blueprint in self.blueprints


def authorize(requirement: Requirement, principal: Principal) -> None:
    """Check what a verified principal may do.

    Raises:
        SubjectNotAllowed: This kind of subject is not served.
        ActorNotAllowed: Neither the calling application nor its blueprint is named.
        InsufficientScope: Of some clause there is no scope or role.
        StepUpRequired: The user's sign-in did not satisfy the authentication context.
    """
    kind, actor = principal.subject.type, principal.actor
    if kind not in requirement.subjects:
        raise SubjectNotAllowed(f"the subject is of type {kind.value}")
    if not requirement.admits(actor):
        raise ActorNotAllowed(f"actor {actor.client_id}, blueprint {actor.blueprint or 'none'}")
    clauses = requirement.scopes if kind.is_user else requirement.roles
    held = principal.scopes if kind.is_user else principal.roles
    if (unmet := _unmet(clauses, held)) is not None:
        ask_for = requirement.to_ask_for(delegated=kind.is_user)
        raise InsufficientScope(unmet, ask_for, difference(held, unmet))
    if kind.is_user:
        _check_user(requirement, principal)


def _check_user(requirement: Requirement, principal: Principal) -> None:
    if (unmet := _unmet(requirement.user_roles, principal.roles)) is not None:
        # Roles are assigned to a user, and no scope of a token request brings one.
        raise InsufficientScope(unmet, (), difference(principal.roles, unmet))
    satisfied = principal.auth_contexts
    for wanted in requirement.auth_contexts:
        if wanted not in satisfied:
            # Entra page "developer-guide-conditional-access-authentication-context". It takes one at a time.
            claims = {"access_token": {"acrs": {"essential": True, "value": wanted}}}
            text = json.dumps(claims, separators=(",", ":"))
            raise StepUpRequired(text, difference(satisfied, [wanted]))


def _unmet(clauses: Clauses, held: frozenset[str]) -> tuple[str, ...] | None:
    """Return the first clause of which no name is held; an empty clause is never met."""
    return next((clause for clause in clauses if held.isdisjoint(clause)), None)
