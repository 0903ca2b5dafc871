"""Principals to test with, as if their tokens had been verified."""

from authz.core.principal import Actor, Principal, Subject, SubjectType
from support.fakes.clock import START
from support.fakes.tenant import CLIENT, LIFETIME, TENANT, USER


def principal(
    kind: SubjectType = SubjectType.USER,
    *,
    scopes: str = "",
    roles: str = "",
    auth_contexts: str = "",
    actor: Actor = Actor(CLIENT),  # noqa: B008 - a value
) -> Principal:
    """Return a principal with these permissions, each list separated by blanks."""
    return Principal(
        subject=Subject(TENANT, USER, kind),
        actor=actor,
        scopes=frozenset(scopes.split()),
        roles=frozenset(roles.split()),
        auth_contexts=frozenset(auth_contexts.split()),
        expires_at=START + LIFETIME,
        issuer="issuer",
        key_id="key-1",
        token_id="",
    )
