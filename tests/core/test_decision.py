"""Decisions: what an `Allow` may change, and which denial an error stands for."""

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import (
    ConsentRequired,
    ExchangeThrottled,
    InsufficientScope,
    InvalidToken,
    Reason,
    TokenFault,
)
from authz.core.secret import Secret


def test_authorization_is_never_both_set_and_removed() -> None:
    """Envoy would remove what was set, so such an answer cannot be built."""
    with pytest.raises(ValueError, match="set and removed at once"):
        Allow(authorization=Secret("token"), remove=("x-authz-subject", "authorization"))


def test_baggage_is_never_both_set_and_removed() -> None:
    """For the same reason."""
    with pytest.raises(ValueError, match="set and removed at once"):
        Allow(baggage=Secret("a=b"), remove=("baggage",))


def test_authorization_may_be_set_while_other_headers_are_removed() -> None:
    """Only the one contradiction is refused."""
    allow = Allow(authorization=Secret("token"), remove=("x-authz-subject",))

    assert ("x-authz-subject",) == allow.remove


def test_authorization_may_be_removed() -> None:
    """Removing without setting is how the user's token is kept from going out."""
    assert ("authorization",) == Allow(remove=("authorization",)).remove


def test_a_denial_leaves_the_detail_to_the_log() -> None:
    """The caller learns the reason and nothing of why."""
    deny = Deny.because(InvalidToken(TokenFault.TENANT, "detail"))

    assert Deny(Reason.INVALID_TOKEN) == deny
    assert "detail" not in repr(deny)


def test_a_denial_for_scopes_names_those_that_would_do() -> None:
    """RFC 6750 lets the challenge say what is needed."""
    deny = Deny.because(InsufficientScope(("access_as_user",), ("api://x/access_as_user",)))

    assert deny == Deny(
        Reason.INSUFFICIENT_SCOPE,
        accepted=("access_as_user",),
        ask_for=("api://x/access_as_user",),
    )


def test_a_denial_passes_on_entras_claims_challenge() -> None:
    """The caller needs the challenge to satisfy it."""
    challenge = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    deny = Deny.because(ConsentRequired(code=65001, claims=challenge))

    assert Deny(Reason.CONSENT_REQUIRED, claims=challenge) == deny


def test_a_denial_says_when_waiting_helps() -> None:
    """Entra's Retry-After reaches the caller."""
    deny = Deny.because(ExchangeThrottled(retry_after=17.0))

    assert Deny(Reason.EXCHANGE_THROTTLED, retry_after=17.0) == deny
