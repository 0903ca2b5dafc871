"""Who a verified token speaks of: the subject, the actor, and what both may do.

Only `authz.core.token.verify` builds a `Principal`; holding one is the proof that a token was verified.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SubjectType(StrEnum):
    """What kind of identity a token is about (Entra page "agent-token-claims")."""

    USER = "user"
    APPLICATION = "application"
    AGENT_IDENTITY = "agent_identity"
    AGENT_USER = "agent_user"

    @property
    def is_user(self) -> bool:
        """Whether the token is delegated: a human's or an agent's user account."""
        return self in (SubjectType.USER, SubjectType.AGENT_USER)


USERS: Final = frozenset(kind for kind in SubjectType if kind.is_user)
APPLICATIONS: Final = frozenset(SubjectType) - USERS


@dataclass(frozen=True, slots=True)
class Subject:
    """On whose behalf the request is made (RFC 8693).

    Attributes:
        tenant_id: `tid`.
        object_id: `oid`; for an application its service principal.
        type: User, application, agent identity or an agent's user account.
    """

    tenant_id: str
    object_id: str
    type: SubjectType


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is calling (RFC 8693): the client application that the token was issued to.

    Attributes:
        client_id: `azp` (v2) or `appid` (v1).
        is_agent: `xms_act_fct` contains 11. Only resources that ask for the claim see it.
        blueprint: `xms_par_app_azp`, the blueprint of an agent: it admits every sibling agent.
    """

    client_id: str
    is_agent: bool = False
    blueprint: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified subject with its actor and permissions.

    Attributes:
        subject: On whose behalf.
        actor: Who is calling.
        scopes: `scp`, delegated permissions.
        roles: `roles`, application permissions or the user's app roles.
        auth_contexts: `acrs`, ids of the authentication contexts that the sign-in satisfied.
        expires_at: `exp`, epoch seconds.
        issuer: `iss`, one of the tenant's own.
        key_id: `kid` of the key that verified it; the proof ends when the key is withdrawn.
        token_id: `uti` (v1 and v2) or `jti`; for the audit log.
    """

    subject: Subject
    actor: Actor
    scopes: frozenset[str]
    roles: frozenset[str]
    auth_contexts: frozenset[str]
    expires_at: float
    issuer: str
    key_id: str
    token_id: str
