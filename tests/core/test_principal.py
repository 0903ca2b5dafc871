"""Which kinds of subject are users."""

import pytest

from authz.core.principal import SubjectType


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SubjectType.USER, True),
        (SubjectType.AGENT_USER, True),
        (SubjectType.APPLICATION, False),
        (SubjectType.AGENT_IDENTITY, False),
    ],
)
def test_users_are_humans_and_agents_user_accounts(kind: SubjectType, expected: bool) -> None:
    """A delegated token is about a user account, whoever holds it."""
    assert expected is kind.is_user
