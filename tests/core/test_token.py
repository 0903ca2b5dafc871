"""Verification of well-formed tokens: whom each kind speaks of, and each claim that must be there."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.errors import InvalidToken, TokenFault
from authz.core.principal import Actor, Principal, Subject, SubjectType
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import Expectation, read, verify
from support.fakes.clock import START, Clock
from support.fakes.tenant import (
    ABSENT,
    AGENT,
    AGENT_USER,
    AUDIENCE,
    BLUEPRINT,
    CLIENT,
    LIFETIME,
    OTHER_TENANT,
    TENANT,
    USER,
    FakeTenant,
)

ENTRA: Final = FakeTenant(clock=Clock())
EXPECTATION: Final = ENTRA.expectation()


def _verify(token: str, expectation: Expectation = EXPECTATION, *, now: float = START) -> Principal:
    bearer = BearerToken(Secret(token))
    unverified = read(bearer, expectation)
    return verify(unverified, ENTRA.signing_key(unverified.issuer), expectation, now=now)


def _fault(token: str, expectation: Expectation = EXPECTATION) -> TokenFault:
    with pytest.raises(InvalidToken) as raised:
        _verify(token, expectation)
    return raised.value.fault


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aud": "api://other"}, f"audience: found 'api://other', expected '{AUDIENCE}'"),
        ({"tid": AGENT}, f"tenant: found '{AGENT}', expected '{TENANT}'"),
    ],
)
def test_the_log_says_what_was_found_and_what_was_expected(
    changes: dict[str, str], expected: str
) -> None:
    """The signature is verified by then, so the token's word is Entra's."""
    with pytest.raises(InvalidToken) as raised:
        _verify(ENTRA.user_token(**changes))
    assert expected == raised.value.detail


def test_a_token_says_which_key_of_which_issuer_it_asks_for() -> None:
    """Reading yields enough to choose a key, and shows nothing of the rest."""
    unverified = read(BearerToken(Secret(ENTRA.user_token())), EXPECTATION)

    assert (ENTRA.issuer, "key-1") == (unverified.issuer, unverified.key_id)
    assert f"UnverifiedToken(issuer={ENTRA.issuer!r}, key_id='key-1', token=Secret(***))" == repr(
        unverified
    )


def test_a_users_token_becomes_a_principal() -> None:
    """Every field of the principal comes from its claim."""
    expected = Principal(
        subject=Subject(TENANT, USER, SubjectType.USER),
        actor=Actor(CLIENT),
        scopes=frozenset({"access_as_user"}),
        roles=frozenset({"Admin", "Reader"}),
        auth_contexts=frozenset({"c1", "c3"}),
        expires_at=START + LIFETIME,
        issuer=ENTRA.issuer,
        key_id="key-1",
        token_id="token-id-1",
    )

    token = ENTRA.user_token(roles=["Reader", "Admin"], acrs=["c3", "c1"])

    assert expected == _verify(token)


def test_a_v1_token_is_read_like_a_v2_one() -> None:
    """The client stands in `appid` and the issuer is the other one; the rest is alike."""
    expected = replace(_verify(ENTRA.user_token()), issuer=ENTRA.issuer_v1)

    assert expected == _verify(ENTRA.v1_user_token())


KINDS: Final[dict[str, tuple[str, Subject, Actor]]] = {
    "an application": (
        ENTRA.app_token(),
        Subject(TENANT, CLIENT, SubjectType.APPLICATION),
        Actor(CLIENT),
    ),
    "an autonomous agent": (
        ENTRA.agent_token(),
        Subject(TENANT, AGENT, SubjectType.AGENT_IDENTITY),
        Actor(AGENT, is_agent=True, blueprint=BLUEPRINT),
    ),
    "an agent as its own user": (
        ENTRA.agent_user_token(),
        Subject(TENANT, AGENT_USER, SubjectType.AGENT_USER),
        Actor(AGENT, is_agent=True, blueprint=BLUEPRINT),
    ),
    "an agent for a human": (
        ENTRA.agent_for_user_token(),
        Subject(TENANT, USER, SubjectType.USER),
        Actor(AGENT, is_agent=True, blueprint=BLUEPRINT),
    ),
    "a blueprint": (
        ENTRA.app_token(xms_act_fct="3 9", xms_sub_fct="3 9"),
        Subject(TENANT, CLIENT, SubjectType.APPLICATION),
        Actor(CLIENT),
    ),
}


@pytest.mark.parametrize(("token", "subject", "actor"), KINDS.values(), ids=KINDS)
def test_each_kind_of_token_is_told_from_the_others(
    token: str, subject: Subject, actor: Actor
) -> None:
    """Subject and actor follow from `idtyp` and the facets, as Entra's page on agent tokens says."""
    principal = _verify(token)

    assert (subject, actor) == (principal.subject, principal.actor)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, SubjectType.USER, id="scopes and a pairwise subject"),
        pytest.param({"scp": ABSENT}, SubjectType.APPLICATION, id="no scopes"),
        pytest.param({"scp": "/"}, SubjectType.APPLICATION, id="the empty scope of agent tokens"),
        pytest.param({"scp": " "}, SubjectType.APPLICATION, id="a blank scope"),
        pytest.param({"sub": USER}, SubjectType.APPLICATION, id="a subject that is the object id"),
        pytest.param(
            {"scp": ABSENT, "xms_sub_fct": "11"}, SubjectType.AGENT_IDENTITY, id="an agent's facet"
        ),
        pytest.param({"xms_sub_fct": "13"}, SubjectType.AGENT_USER, id="an agent user's facet"),
        pytest.param(
            {"xms_sub_fct": "113 131"}, SubjectType.USER, id="facets that only look alike"
        ),
    ],
)
def test_without_idtyp_only_what_is_surely_a_users_is_a_users(
    changes: dict[str, Any], expected: SubjectType
) -> None:
    """`idtyp` is optional on custom APIs; doubt makes the token an application's."""
    assert expected is _verify(ENTRA.user_token(**changes)).subject.type


def test_idtyp_outranks_scopes() -> None:
    """An application's token stays one, whatever its `scp` claims."""
    token = ENTRA.user_token(idtyp="app", scp="access_as_user")

    assert SubjectType.APPLICATION is _verify(token).subject.type


@pytest.mark.parametrize(
    ("scp", "expected"),
    [("a b", {"a", "b"}), (" a  b ", {"a", "b"}), ("/", set()), (ABSENT, set()), ("a /", {"a"})],
)
def test_scopes_are_split_at_blanks(scp: object, expected: set[str]) -> None:
    """The lone slash of agent tokens is no scope."""
    assert expected == _verify(ENTRA.user_token(scp=scp, idtyp="user")).scopes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"jti": "other"}, "token-id-1", id="uti comes first"),
        pytest.param({"uti": ABSENT, "jti": "other"}, "other", id="jti in its absence"),
        pytest.param({"uti": ABSENT}, "", id="neither"),
    ],
)
def test_the_token_id_is_uti_or_jti(changes: dict[str, Any], expected: str) -> None:
    """The audit log names the token by its id."""
    assert expected == _verify(ENTRA.user_token(**changes)).token_id


@pytest.mark.parametrize("name", ["aud", "oid", "tid", "exp", "nbf"])
def test_a_required_claim_must_be_there(name: str) -> None:
    """A signed token that lacks one of these proves nothing."""
    assert TokenFault.MISSING_CLAIM is _fault(ENTRA.user_token(**{name: ABSENT}))


@pytest.mark.parametrize("name", ["aud", "oid", "tid"])
def test_a_required_claim_must_not_be_empty(name: str) -> None:
    """Empty text is no identifier."""
    assert TokenFault.MISSING_CLAIM is _fault(ENTRA.user_token(**{name: ""}))


def test_the_issuer_must_be_there() -> None:
    """A token without issuer asks for nobody's key."""
    assert TokenFault.ISSUER is _fault(ENTRA.user_token(iss=ABSENT))


@pytest.mark.parametrize(
    "changes",
    [{"azp": ABSENT}, {"azp": ""}, {"appid": "somebody-else"}],
    ids=["no client", "an empty client", "two clients"],
)
def test_a_token_names_exactly_one_client(changes: dict[str, Any]) -> None:
    """Without one actor, or with two, nobody is calling."""
    assert TokenFault.MISSING_CLAIM is _fault(ENTRA.user_token(**changes))


def test_a_client_named_twice_alike_is_one_client() -> None:
    """`azp` and `appid` may both be there when they agree."""
    assert Actor(CLIENT) == _verify(ENTRA.user_token(appid=CLIENT)).actor


def test_an_expectation_names_audiences_and_issuers() -> None:
    """One without them would accept every token of the tenant, or of the world."""
    with pytest.raises(ValueError, match="at least one"):
        Expectation(frozenset(), {ENTRA.issuer: TENANT})
    with pytest.raises(ValueError, match="at least one"):
        Expectation(frozenset({AUDIENCE}), {})


@pytest.mark.parametrize(
    "other",
    [
        Expectation(frozenset({"another"}), EXPECTATION.issuers),
        Expectation(frozenset({AUDIENCE, "another"}), EXPECTATION.issuers),
        Expectation(frozenset({AUDIENCE}), {ENTRA.issuer: TENANT}),
        Expectation(frozenset({AUDIENCE}), {**EXPECTATION.issuers, ENTRA.issuer: OTHER_TENANT}),
        Expectation(frozenset({AUDIENCE}), EXPECTATION.issuers, leeway=0.0),
    ],
    ids=["audience", "one audience more", "issuers", "tenant of an issuer", "leeway"],
)
def test_every_part_of_an_expectation_is_in_its_key(other: Expectation) -> None:
    """A verification is never remembered for a route that demands something else."""
    assert EXPECTATION.key != other.key


def test_equal_expectations_share_their_key() -> None:
    """Routes that demand the same share what was verified, whatever order they wrote it in."""
    issuers = dict(reversed(list(EXPECTATION.issuers.items())))

    assert EXPECTATION.key == Expectation(frozenset({AUDIENCE}), issuers).key


@pytest.mark.parametrize("payload", [b"foo", b"[" * 100_000, b"[]", b"1", b"\xff"])
def test_a_signed_payload_that_is_no_claim_set_is_malformed(payload: bytes) -> None:
    """Whatever JSON it is, and however deep."""
    with pytest.raises(InvalidToken) as raised:
        read(BearerToken(Secret(ENTRA.mint_payload(payload))), EXPECTATION)
    assert TokenFault.MALFORMED is raised.value.fault
