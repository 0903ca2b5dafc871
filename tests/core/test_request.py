"""The grammar of the one bearer value, and the names of hosts."""

import pickle
import string
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.errors import AuthzError, MalformedRequest, MissingToken, TokenTooLarge
from authz.core.request import Authorization, CheckRequest, normalize_host, parse_bearer
from authz.core.secret import Secret
from support.fakes.properties import thorough

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
B64TOKEN: Final = st.builds(
    str.__add__,
    st.text(string.ascii_letters + string.digits + "-._~+/", min_size=1, max_size=40),
    st.sampled_from(["", "=", "=="]),
)
SCHEME: Final = st.sampled_from(["Bearer", "bearer", "BEARER", "bEaReR"])


def _parse(text: str, max_bytes: int = 1000) -> str:
    return parse_bearer(Authorization(text), max_bytes=max_bytes).secret.reveal()


@thorough
@given(scheme=SCHEME, token=B64TOKEN, before=st.integers(1, 3), after=st.integers(0, 3))
def test_every_b64token_comes_through_unchanged(
    scheme: str, token: str, before: int, after: int
) -> None:
    """What RFC 6750 admits is read back as it was, in any case of the scheme and with any blanks."""
    assert token == _parse(f"{scheme}{' ' * before}{token}{' ' * after}")


@thorough
@given(text=st.text() | st.builds("Bearer {}".format, st.text()))
@example(text="Bearer a\n")
@example(text="Bearer a, Bearer b")
def test_any_text_is_one_token_or_an_authz_error(text: str) -> None:
    """The parser raises nothing of its own making, and never invents a token."""
    try:
        token = _parse(text)
    except AuthzError:
        return

    assert token == text[len("bearer") :].strip(" ")
    assert "bearer" == text[: len("bearer")].lower()


@pytest.mark.parametrize("absent", [None, Authorization("")], ids=["no header", "an empty value"])
def test_a_request_without_a_value_has_no_token(absent: Authorization | None) -> None:
    """Absence is its own reason, for the caller can mend it by logging in."""
    with pytest.raises(MissingToken):
        parse_bearer(absent, max_bytes=1000)


def test_the_longest_accepted_token_has_exactly_the_bytes_allowed() -> None:
    """The limit counts the token, not its scheme."""
    assert "a" * 100 == _parse("Bearer " + "a" * 100, max_bytes=100)


@pytest.mark.parametrize(
    "make", [lambda n: "Bearer " + "a" * n, lambda n: "Bearer" + " " * n + "a", lambda n: "," * (n + 7)],
    ids=["a long token", "many blanks", "not even a token"],
)  # fmt: skip
def test_a_value_over_the_limit_is_refused_before_it_is_parsed(make: Callable[[int], str]) -> None:
    """Length comes first, whatever the value holds."""
    with pytest.raises(TokenTooLarge):
        _parse(make(101), max_bytes=100)


def test_another_scheme_is_no_token() -> None:
    """Basic credentials are not a malformed bearer token but none at all."""
    with pytest.raises(MissingToken):
        _parse("Basic dXNlcjpwYXNzd29yZA==")


def test_the_bare_scheme_is_malformed() -> None:
    """Whoever says Bearer must bring a token."""
    with pytest.raises(MalformedRequest):
        _parse("Bearer")


@thorough
@given(authority=st.text())
@example(authority="[")
@example(authority="[::1")
@example(authority="...")
def test_every_authority_has_a_normal_form(authority: str) -> None:
    """Any text splits without an exception, the host ends in no dot, and nothing is left to normalize."""
    whole, bare = normalize_host(authority)

    assert whole.startswith(bare)
    assert not bare.endswith(".")
    assert (whole, bare) == normalize_host(whole)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("api.example", ("api.example", "api.example")),
        ("API.Example:8443", ("api.example:8443", "api.example")),
        ("api.example.", ("api.example", "api.example")),
        ("api.example.:443", ("api.example:443", "api.example")),
        ("api.example:08443", ("api.example:8443", "api.example")),
        ("api.example:000", ("api.example:0", "api.example")),
        ("api.example:", ("api.example", "api.example")),
        ("api.example:+80", ("api.example:+80", "api.example")),
        ("api.example:٨", ("api.example:٨", "api.example")),
        (":80", (":80", "")),
        ("10.0.0.1:80", ("10.0.0.1:80", "10.0.0.1")),
        ("[::1]:443", ("[::1]:443", "[::1]")),
        ("[::1", ("[::1", "[::1")),
        ("", ("", "")),
    ],
)
def test_an_authority_splits_into_host_and_port(authority: str, expected: tuple[str, str]) -> None:
    """Neither case, nor a trailing dot, nor zeros before a port change which host and port are meant."""
    assert expected == normalize_host(authority)


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-00f067aa0ba902b7-01 x", ""),
        ("", ""),
    ],
)
def test_the_trace_id_is_taken_from_a_well_formed_traceparent(
    traceparent: str, trace_id: str
) -> None:
    """Anything else could be a line of somebody else's log."""
    assert trace_id == CheckRequest(traceparent=traceparent).trace_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bearer a", "a"),
        ("Bearer a", "bearer a"),
        ("Bearer a", "Bearer  a"),
        ("Bearer a", "Basic a"),
        ("Bearer ", "Bearer"),
        ("", " "),
    ],
)
def test_values_that_differ_have_digests_that_differ(one: str, other: str) -> None:
    """A cache must not take one value for another, though the token inside is the same."""
    assert Authorization(one) != Authorization(other)
    assert Authorization(one).digest() != Authorization(other).digest()
    assert Authorization(one) == Authorization(one)


def test_the_token_of_a_bearer_value_is_hashed_once() -> None:
    """The parser hands out what the caches have hashed already."""
    authorization = Authorization("Bearer abc")

    assert authorization.digest() is parse_bearer(authorization, max_bytes=9).secret.digest()


def test_an_authorization_value_shows_nothing_and_stays_here() -> None:
    """Its scheme may be a token that was sent without one."""
    authorization = Authorization("secret")

    assert "Authorization(***)" == repr(authorization) == str(authorization)
    assert authorization != "secret"
    with pytest.raises(TypeError):
        pickle.dumps(authorization)


@pytest.mark.parametrize(
    "value", ["Bearer abc", "bearer abc", "Bearer  abc", "Basic abc", "Bearer", ""]
)
def test_digests_do_not_depend_on_what_is_asked_for_first(value: str) -> None:
    """A token is hashed once for the value and for itself, in any order; no scheme lends its digest."""
    credentials = value.partition(" ")[2]
    whole_first, token_first = Authorization(value), Authorization(value)

    whole = whole_first.digest()
    token = token_first.credentials.digest()

    assert Secret(credentials).digest() == token == whole_first.credentials.digest()
    assert whole == token_first.digest()
    assert (whole == token) is value.startswith("Bearer ")
