"""Where an egress route finds for whom the agent calls, and whose references count."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.baggage import MEMBER, Baggage
from authz.core.errors import (
    AmbiguousSubject,
    AuthzError,
    ForeignSubject,
    MalformedRequest,
    MissingToken,
    TokenTooLarge,
)
from authz.core.request import Authorization, BearerToken
from authz.core.secret import Secret
from authz.core.subject import (
    PLACEHOLDER,
    Origin,
    SubjectSource,
    authorize_reference,
    find_subject,
    placeholder,
)
from support.fakes.properties import thorough

BEARER, PLACE, HANDLE, NONE = SubjectSource
REFERENCE: Final = "r" * 43
OTHER: Final = "s" * 43
TOKEN: Final = Authorization("Bearer a.b.c")
HELD: Final = Authorization(f"Bearer {PLACEHOLDER}{REFERENCE}")
BAGGAGE: Final = f"{MEMBER}={REFERENCE}"
PEER: Final = "spiffe://cluster/ns/a/sa/agent"


def find(
    *sources: SubjectSource, authorization: Authorization | None = None, baggage: str | None = None
) -> str | None:
    """Look for a subject, and return its text."""
    found = find_subject(
        sources,
        authorization,
        Baggage.parse(None if baggage is None else Secret(baggage)),
        max_bytes=100,
    )
    match found:
        case BearerToken(secret):
            return f"token {secret.reveal()}"
        case Secret():
            return f"reference {found.reveal()}"
        case None:
            return None


@pytest.mark.parametrize(
    ("sources", "authorization", "baggage", "expected"),
    [
        ((BEARER,), TOKEN, None, "token a.b.c"),
        ((BEARER, HANDLE), TOKEN, BAGGAGE, "token a.b.c"),
        ((HANDLE, BEARER), TOKEN, BAGGAGE, f"reference {REFERENCE}"),
        ((HANDLE, BEARER), TOKEN, "a=b", "token a.b.c"),
        ((BEARER, PLACE), HELD, None, f"reference {REFERENCE}"),
        ((PLACE, HANDLE), HELD, BAGGAGE, f"reference {REFERENCE}"),
        ((PLACE, HANDLE), None, BAGGAGE, f"reference {REFERENCE}"),
        ((PLACE, HANDLE), TOKEN, BAGGAGE, f"reference {REFERENCE}"),
        ((BEARER, HANDLE), Authorization("Basic x"), BAGGAGE, f"reference {REFERENCE}"),
        (
            (PLACE,),
            Authorization(f"bearer  {PLACEHOLDER}{REFERENCE} "),
            None,
            f"reference {REFERENCE}",
        ),
        ((HANDLE,), TOKEN, f"a=b,{BAGGAGE},c=d", f"reference {REFERENCE}"),
        ((HANDLE, NONE), TOKEN, None, None),
        ((BEARER, NONE), None, BAGGAGE, None),
    ],
)
def test_the_first_source_that_has_something_decides(
    sources: tuple[SubjectSource, ...],
    authorization: Authorization | None,
    baggage: str | None,
    expected: str | None,
) -> None:
    """In the order of the route; what no source names is not looked at."""
    assert expected == find(*sources, authorization=authorization, baggage=baggage)


@pytest.mark.parametrize(
    ("sources", "authorization", "baggage", "error"),
    [
        ((BEARER,), HELD, BAGGAGE, MissingToken),
        ((PLACE,), TOKEN, BAGGAGE, MissingToken),
        ((HANDLE,), TOKEN, "a=b", MissingToken),
        ((BEARER, PLACE, HANDLE), None, None, MissingToken),
        ((BEARER, HANDLE), Authorization("Bearer a, Bearer b"), BAGGAGE, MalformedRequest),
        ((BEARER, HANDLE), Authorization(f"Bearer {'x' * 101}"), BAGGAGE, TokenTooLarge),
        ((PLACE, HANDLE), HELD, f"{MEMBER}={OTHER}", AmbiguousSubject),
        ((HANDLE, PLACE), HELD, f"{MEMBER}={OTHER}", AmbiguousSubject),
        ((HANDLE, NONE), None, f"{BAGGAGE},{BAGGAGE}", AmbiguousSubject),
        ((PLACE, NONE), Authorization(f"{HELD.reveal()}, {HELD.reveal()}"), None, AmbiguousSubject),
        ((PLACE, NONE), Authorization(f"{HELD.reveal()}x"), None, AmbiguousSubject),
        ((PLACE, NONE), Authorization(HELD.reveal()[:-1]), None, AmbiguousSubject),
        ((PLACE, NONE), Authorization(f"Basic {PLACEHOLDER}{REFERENCE}"), None, AmbiguousSubject),
        ((HANDLE, NONE), None, f"{BAGGAGE};p", AmbiguousSubject),
        ((HANDLE, NONE), None, BAGGAGE[:-1], AmbiguousSubject),
        ((HANDLE, NONE), None, f"{MEMBER}={'r' * 42}%72", AmbiguousSubject),
        ((HANDLE, NONE), None, f"authz%2dsubject={REFERENCE}", AmbiguousSubject),
        ((HANDLE, NONE), None, f"{MEMBER.upper()}={REFERENCE}", AmbiguousSubject),
        ((HANDLE, NONE), None, MEMBER, AmbiguousSubject),
    ],
)
def test_what_a_source_has_is_believed_or_refused(
    sources: tuple[SubjectSource, ...],
    authorization: Authorization | None,
    baggage: str | None,
    error: type[AuthzError],
) -> None:
    """Nothing that is wrong leads on to the next source, least of all to `none`."""
    with pytest.raises(error) as refused:
        find(*sources, authorization=authorization, baggage=baggage)

    assert REFERENCE not in str(refused.value)


@pytest.mark.parametrize(
    ("sources", "authorization", "expected"),
    [
        ((PLACE,), None, "found no Authorization: expected placeholder (subject)"),
        (
            (PLACE,),
            TOKEN,
            (
                "found a token or another value in Authorization, where this route takes no token: expected placeholder "
                "(subject), which the app receives where its inbound route has it in forward"
            ),
        ),
        ((BEARER, HANDLE), HELD, "found no user: expected bearer or handle (subject)"),
        ((HANDLE,), HELD, "found no user: expected handle (subject)"),
    ],
)
def test_the_log_says_what_was_expected_in_place_of_what_was_found(
    sources: tuple[SubjectSource, ...], authorization: Authorization | None, expected: str
) -> None:
    """A token on a route that takes references only is the usual case."""
    with pytest.raises(MissingToken) as refused:
        find(*sources, authorization=authorization)
    assert expected == refused.value.detail


CHUNKS: Final = st.sampled_from(
    [
        *(MEMBER, "=", ",", ";", " ", "%", "%2d", "+", "Bearer ", PLACEHOLDER, REFERENCE, OTHER),
        *(PLACEHOLDER.upper(), MEMBER.upper(), REFERENCE[:-1], "\t", "\x00", "é", "a.b.c"),
    ]
)
HEADER: Final = st.none() | st.lists(CHUNKS | st.text(max_size=5), max_size=8).map("".join)
EXACT: Final = frozenset({f"reference {REFERENCE}", f"reference {OTHER}"})


@thorough
@given(HEADER, HEADER, st.lists(st.sampled_from(SubjectSource), unique=True, min_size=1))
def test_no_forgery_is_taken_for_a_reference(
    authorization: str | None, baggage: str | None, sources: list[SubjectSource]
) -> None:
    """Repeated, cut off, encoded, mixed: one exact reference, or a token as it came, or a refusal."""
    try:
        found = find(
            *sources,
            authorization=None if authorization is None else Authorization(authorization),
            baggage=baggage,
        )
    except AuthzError:
        return
    if found is None:
        assert NONE in sources
    elif found.startswith("token "):
        assert authorization is not None
        assert PLACEHOLDER not in authorization.lower()
    else:
        text = found.removeprefix("reference ")
        assert any(text in (header or "") for header in (authorization, baggage))
        assert 43 == len(text)


def test_a_placeholder_is_found_by_scanners_and_here() -> None:
    """It has one form, which fits into `Authorization`."""
    value = placeholder(Secret(REFERENCE)).reveal()

    assert f"authz_placeholder_{REFERENCE}" == value
    assert f"reference {REFERENCE}" == find(PLACE, authorization=Authorization(f"Bearer {value}"))


@pytest.mark.parametrize(
    ("origin", "peer"),
    [
        (Origin("chat", "agent-1", PEER), None),
        (Origin("chat", "agent-1", PEER), f"{PEER}2"),
        (Origin("chat", "agent-1", None), PEER),
        (Origin("other", "agent-1", PEER), PEER),
        (Origin("chat", "agent-2", PEER), PEER),
        (Origin("chat", None, PEER), PEER),
    ],
    ids=["no peer", "another", "a socket's", "another route", "another agent", "changed route"],
)
def test_a_reference_counts_only_where_it_was_given_out(origin: Origin, peer: str | None) -> None:
    """For that peer, that agent, that inbound route."""
    with pytest.raises(ForeignSubject):
        authorize_reference(origin, peer=peer, accepted={"chat": "agent-1"})


@pytest.mark.parametrize("peer", [None, PEER])
def test_a_reference_counts_where_it_was_given_out(peer: str | None) -> None:
    """And a route that names no agent is one too."""
    accepted = {"chat": "agent-1", "plain": None}
    authorize_reference(Origin("chat", "agent-1", peer), peer=peer, accepted=accepted)
    authorize_reference(Origin("plain", None, peer), peer=peer, accepted=accepted)
