"""Cache keys: every part that changes Entra's answer changes the key, and nothing else does."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import exchange
from authz.core.errors import (
    AuthzError,
    ExchangeMisconfigured,
    ExchangeUnavailable,
    InvalidToken,
    Reason,
    TokenFault,
)
from authz.core.exchange import (
    AgentIdentity,
    AgentUser,
    AppOnBehalfOf,
    AppToken,
    AsAgentUser,
    Autonomous,
    Client,
    Flow,
    OnBehalfOf,
    SubjectToken,
    Target,
    TokenExchange,
    blamed,
    cache_key,
    check_subject_lives,
    declares_capability,
    subject_of,
)
from authz.core.secret import Secret
from support.fakes.clock import START
from support.fakes.exchanges import (
    AGENT_IDENTITY,
    BLUEPRINT_CLIENT,
    EXCHANGES,
    GRAPH,
    on_behalf_of,
    one_of_each,
)
from support.fakes.properties import thorough


def _as(user: AgentUser | None) -> AsAgentUser:
    return AsAgentUser(replace(AGENT_IDENTITY, user=user), GRAPH)


def _for_blueprint(**changes: str) -> Autonomous:
    return Autonomous(
        replace(AGENT_IDENTITY, blueprint=replace(BLUEPRINT_CLIENT, **changes)), GRAPH
    )


def _to(target: Target) -> OnBehalfOf:
    return on_behalf_of(target=target)


PAIRS: Final[dict[str, tuple[TokenExchange, TokenExchange]]] = {
    "tenant of an agent's blueprint": (_for_blueprint(), _for_blueprint(tenant_id="other")),
    "tenant of an application": (
        AppToken(BLUEPRINT_CLIENT, GRAPH),
        AppToken(replace(BLUEPRINT_CLIENT, tenant_id="other"), GRAPH),
    ),
    "client, an agent's blueprint": (_for_blueprint(), _for_blueprint(client_id="other")),
    "client, an application": (
        AppToken(BLUEPRINT_CLIENT, GRAPH),
        AppToken(replace(BLUEPRINT_CLIENT, client_id="other"), GRAPH),
    ),
    "agent": (on_behalf_of(), on_behalf_of(agent=replace(AGENT_IDENTITY, client_id="other"))),
    "agent user by username": (_as(AgentUser(username="a")), _as(AgentUser(username="b"))),
    "agent user by object id": (_as(AgentUser(object_id="a")), _as(AgentUser(object_id="b"))),
    "agent user's kind of name": (_as(AgentUser(username="a")), _as(AgentUser(object_id="a"))),
    "agent user or none": (_as(AgentUser(username="a")), _as(None)),
    "scopes": (_to(GRAPH), _to(replace(GRAPH, scopes=("https://other.example/.default",)))),
    "one scope or two": (_to(Target(("a", "b"))), _to(Target(("a b",)))),
    "claims": (_to(GRAPH), _to(replace(GRAPH, claims='{"access_token":{}}'))),
    "claims or the word null": (_to(GRAPH), _to(replace(GRAPH, claims="null"))),
    "where one part ends and the next begins": (
        _to(Target((), claims="a b", policy_version="c")),
        _to(Target((), claims="a", policy_version="b c")),
    ),
    "policy version": (_to(GRAPH), _to(replace(GRAPH, policy_version="v2"))),
    "subject token of an agent": (on_behalf_of("alice"), on_behalf_of("bob")),
    "subject token of an application": (
        AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, SubjectToken(Secret("alice"), START)),
        AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, SubjectToken(Secret("bob"), START)),
    ),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_a_part_that_changes_the_answer_changes_the_key(
    one: TokenExchange, other: TokenExchange
) -> None:
    """Two exchanges that differ in this part only have different keys."""
    assert cache_key(one) != cache_key(other)


def test_the_flow_changes_the_key() -> None:
    """No flow's token is ever served for another flow, though all else is alike."""
    exchanges = one_of_each()

    assert len(exchanges) == len({cache_key(exchange) for exchange in exchanges})


def test_the_same_question_has_the_same_key() -> None:
    """Equal exchanges share their key, in whatever order their scopes were written."""
    one = on_behalf_of(target=Target(("b", "a", "b")))
    other = on_behalf_of(target=Target(("a", "b")))

    assert cache_key(one) == cache_key(other)


def test_the_expiry_of_the_subject_token_is_no_part_of_the_key() -> None:
    """The token's hash covers its `exp` already."""
    assert cache_key(on_behalf_of(expires_at=1.0)) == cache_key(on_behalf_of(expires_at=2.0))


@pytest.mark.parametrize(
    "asked",
    [Target(("s",), claims="{}"), Target(("s",), by_request=True)],
    ids=["claims", "scopes"],
)
def test_what_a_request_asks_for_is_not_kept(asked: Target) -> None:
    """Callers of the HTTP API write it, and it may be long."""
    before = exchange._known_part.cache_info().currsize
    keys = {cache_key(on_behalf_of(target=replace(asked, policy_version=str(n)))) for n in range(3)}

    agents = (replace(AGENT_IDENTITY, client_id=f"agent-{n}", by_request=True) for n in range(3))
    keys |= {cache_key(Autonomous(agent, Target(("s",)))) for agent in agents}

    assert (6, before) == (len(keys), exchange._known_part.cache_info().currsize)


def test_the_key_holds_no_token() -> None:
    """A dump of the cache's keys tells nothing of the users' tokens."""
    assert b"alice" not in cache_key(on_behalf_of("alice"))


@thorough
@given(one=EXCHANGES, other=EXCHANGES)
def test_distinct_exchanges_have_distinct_keys(one: TokenExchange, other: TokenExchange) -> None:
    """Keys are equal exactly when the exchanges are."""
    assert (one == other) is (cache_key(one) == cache_key(other))


@thorough
@given(scopes=st.lists(st.text(max_size=5), max_size=5), data=st.data())
def test_scopes_are_a_set(scopes: list[str], data: st.DataObject) -> None:
    """Order and repetition of scopes do not matter to the target."""
    shuffled = data.draw(st.permutations(scopes + scopes[:2]))

    assert Target(tuple(scopes)) == Target(tuple(shuffled))


@pytest.mark.parametrize("exchange", one_of_each(), ids=lambda exchange: exchange.flow.value)
def test_delegated_flows_and_no_others_rest_on_a_subject_token(exchange: TokenExchange) -> None:
    """The subject bounds the lifetime of what is issued, so it must be found for each such flow."""
    assert exchange.flow.is_delegated is (subject_of(exchange) is not None)


def test_the_delegated_flows_are_those_on_behalf_of_a_user() -> None:
    """Only these two need the calling user's token."""
    delegated = {flow for flow in Flow if flow.is_delegated}

    assert {Flow.ON_BEHALF_OF, Flow.APP_ON_BEHALF_OF} == delegated


@pytest.mark.parametrize(
    ("username", "object_id"), [(None, None), ("", ""), ("a@b", "c")],
    ids=["neither", "both empty", "both"],
)  # fmt: skip
def test_an_agent_user_has_exactly_one_name(username: str | None, object_id: str | None) -> None:
    """Two names could disagree, and none names nobody."""
    with pytest.raises(ValueError, match="one of the two"):
        AgentUser(username, object_id)


def test_an_agent_identity_may_have_no_user() -> None:
    """Most agents act for others or for themselves."""
    assert AgentIdentity("agent", "id", Client("app", "tenant", "id")).user is None


def test_flows_that_depend_on_no_request_are_those_without_a_user_in_it() -> None:
    """Their tokens can be had ahead. The legs inside the flows are nobody's to ask for."""
    foreseeable = {flow for flow in Flow if flow.is_foreseeable}

    assert {Flow.AUTONOMOUS, Flow.AGENT_USER, Flow.BLUEPRINT, Flow.APP} == foreseeable
    assert not any(flow.is_delegated for flow in foreseeable)


@pytest.mark.parametrize(
    ("claims", "declared"),
    [
        ('{"access_token":{"xms_cc":{"values":["cp1"]}}}', True),
        ('{"xms_cc":null}', True),
        ('{"access_token":{"acrs":null},"a":1}', False),
        ("{}", False),
    ],
)
def test_client_capabilities_are_found_in_claims(claims: str, declared: bool) -> None:
    """In a member of the parameter, or at its top."""
    assert declared == declares_capability(claims)


@pytest.mark.parametrize("exchange", one_of_each(), ids=lambda exchange: exchange.flow.value)
def test_an_exchange_needs_a_user_token_that_lives(exchange: TokenExchange) -> None:
    """To the second: Entra forgives no clock difference. What rests on no user's token has no such end."""
    subject = subject_of(exchange)
    end = subject.expires_at if subject is not None else START
    check_subject_lives(exchange, end - 0.001)
    if subject is None:
        check_subject_lives(exchange, end)
        return

    with pytest.raises(InvalidToken) as raised:
        check_subject_lives(exchange, end)
    assert TokenFault.EXPIRED is raised.value.fault


REFUSED = ExchangeMisconfigured("AADSTS700016", code=700016)


@pytest.mark.parametrize(
    ("agent", "target", "error", "expected"),
    [
        ({}, {}, REFUSED, Reason.EXCHANGE_MISCONFIGURED),
        ({"by_request": True}, {}, REFUSED, Reason.AGENT_NOT_ALLOWED),
        ({"user": AgentUser("a@b.example", by_request=True)}, {}, REFUSED, Reason.AGENT_NOT_ALLOWED),
        ({"user": AgentUser("a@b.example")}, {}, REFUSED, Reason.EXCHANGE_MISCONFIGURED),
        ({}, {"by_request": True}, REFUSED, Reason.BAD_PARAMETER),
        ({"by_request": True}, {}, ExchangeMisconfigured(by_credential=True), Reason.EXCHANGE_MISCONFIGURED),
        ({"by_request": True}, {}, ExchangeUnavailable(), Reason.EXCHANGE_UNAVAILABLE),
    ],
)  # fmt: skip
def test_a_failure_counts_as_the_callers_where_a_request_named_what_entra_refused(
    agent: dict[str, Any], target: dict[str, Any], error: AuthzError, expected: Reason
) -> None:
    """An alert of operators counts the others. A credential is never the caller's."""
    asker, wanted = replace(AGENT_IDENTITY, **agent), replace(GRAPH, **target)

    assert expected is blamed(Autonomous(asker, wanted), error)


def test_who_named_it_is_no_part_of_a_key() -> None:
    """A request that names what is configured shares the token with those that do not."""
    named = replace(AGENT_IDENTITY, by_request=True)

    assert cache_key(Autonomous(AGENT_IDENTITY, GRAPH)) == cache_key(
        Autonomous(named, replace(GRAPH, by_request=True))
    )
