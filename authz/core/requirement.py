"""What a verified principal must be and hold, and the check of it."""

from dataclasses import dataclass

from authz.core.errors import (
    ActorNotAllowed,
    InsufficientScope,
    SubjectNotAllowed,
    difference,
)
from authz.core.principal import Principal


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a verified principal must be and hold.

    Attributes:
        users: Whether delegated tokens are served.
        applications: Whether app-only tokens are served.
        scopes: A delegated token needs one of these; empty asks for none in particular.
        roles: An app-only token needs one of these; empty asks for none in particular.
        actors: Client ids that may call; empty admits every one.
        resource: What Entra knows the API by whose permissions these are, such as `api://CLIENT_ID`; empty
            where a client is to be shown the names alone.
    """

    users: bool = True
    applications: bool = False
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    actors: frozenset[str] = frozenset()
    resource: str = ""

    def to_ask_for(self, *, delegated: bool) -> tuple[str, ...]:
        """Return the scopes by which a client asks Entra for what is needed.

        Roles are not asked for by name: an application gets those that it has by `/.default`.
        """
        if not self.resource:
            return self.scopes if delegated else ()
        names = self.scopes if delegated else (".default",)
        return tuple(f"{self.resource}/{name}" for name in names)


def authorize(requirement: Requirement, principal: Principal) -> None:
    """Check what a verified principal may do.

    Raises:
        SubjectNotAllowed: A user where applications are served, or the other way round.
        ActorNotAllowed: The calling application is not named.
        InsufficientScope: None of the accepted scopes or roles is there.
    """
    delegated = principal.subject.type.is_user
    if not (requirement.users if delegated else requirement.applications):
        raise SubjectNotAllowed(f"the subject is of type {principal.subject.type.value}")
    if requirement.actors and principal.actor.client_id not in requirement.actors:
        raise ActorNotAllowed(f"actor {principal.actor.client_id}")
    accepted = requirement.scopes if delegated else requirement.roles
    held = principal.scopes if delegated else principal.roles
    if accepted and held.isdisjoint(accepted):
        raise InsufficientScope(
            accepted, requirement.to_ask_for(delegated=delegated), difference(held, accepted)
        )
