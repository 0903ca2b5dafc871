"""The closed list of reasons, and the errors that carry them."""

import pytest

from authz.core import errors
from authz.core.difference import difference
from authz.core.errors import (
    AuthzError,
    BadRequest,
    EntraError,
    Forbidden,
    InvalidToken,
    MissingToken,
    Reason,
    TokenFault,
    Unauthenticated,
    Unfulfilled,
)

GROUPS = {BadRequest, Unauthenticated, Forbidden, Unfulfilled}
CONCRETE = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, AuthzError) and hasattr(found, "reason")
]
ENVOYS = {Reason.METHOD_NOT_ALLOWED, Reason.APP_UNAVAILABLE, Reason.AUTHZ_UNAVAILABLE}
"""Reasons of Envoy's own answers: the process never raises them."""


def _fail_because_of(cause: Exception, error: AuthzError) -> None:
    try:
        raise cause
    except KeyError as raised:
        raise error from raised


def test_every_reason_but_our_own_defects_and_envoys_has_one_error() -> None:
    """Each reason is raised by exactly one class, so a reason says what happened."""
    raised = set(Reason) - {Reason.INTERNAL} - ENVOYS

    assert sorted(raised) == sorted(error.reason for error in CONCRETE)


@pytest.mark.parametrize("error", CONCRETE)
def test_every_error_says_who_must_act(error: type[AuthzError]) -> None:
    """Each belongs to exactly one of the four groups, from which its status follows."""
    assert 1 == sum(issubclass(error, group) for group in GROUPS)


def test_an_error_without_detail_reads_as_its_reason() -> None:
    """A log line is never empty."""
    assert "missing_token" == str(MissingToken())


def test_an_error_keeps_its_detail_for_the_log() -> None:
    """What happened is told where our own operators read it."""
    error = MissingToken("another scheme", retry_after=1.0)

    assert ("another scheme", "another scheme", 1.0) == (
        str(error),
        error.detail,
        error.retry_after,
    )


def test_an_error_that_is_kept_forgets_where_and_why_it_was_raised() -> None:
    """Frames, cause and context hold requests and tokens; reason and detail stay."""
    error = MissingToken("detail")
    with pytest.raises(MissingToken):
        _fail_because_of(KeyError("context"), error)
    before = (error.__traceback__, error.__cause__, error.__context__)
    kept = error.bare()

    assert None not in before
    assert kept is error
    assert (None, None, None) == (kept.__traceback__, kept.__cause__, kept.__context__)
    assert ("detail", Reason.MISSING_TOKEN) == (kept.detail, kept.reason)


def test_an_invalid_token_names_its_fault_first() -> None:
    """The fault heads the log's detail, with the claim where there is one."""
    assert "tenant" == str(InvalidToken(TokenFault.TENANT))
    assert "missing_claim: oid" == str(InvalidToken(TokenFault.MISSING_CLAIM, "oid"))


def test_a_difference_is_short_and_in_one_line() -> None:
    """A claim may be as long as somebody made it, and hold whatever JSON can."""
    many = [f"{number:02}" for number in range(12)]

    assert (
        "found '00', '01', '02', '03', '04', '05', '06', '07', '08', '09' and 2 more, "
        f"expected '{'x' * 100}'"
    ) == difference(many, ["x" * 1000])
    assert "found none, expected 'a\\n\\u2028'" == difference([], ["a\n\u2028"])


def test_a_refusal_of_entra_keeps_its_number_and_challenge() -> None:
    """The AADSTS number and the claims challenge travel with the error."""
    error = errors.InteractionRequired("MFA", code=50076, claims="{}", retry_after=2.0)

    assert isinstance(error, EntraError)
    assert (50076, "{}", 2.0) == (error.code, error.claims, error.retry_after)
