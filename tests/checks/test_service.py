"""`CheckService`: the path of a Check, with real rules and caches and a fake world around them."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest

from authz.checks.identity_headers import IDENTITY_HEADERS, identity_headers
from authz.core.decision import Allow, Deny
from authz.core.errors import (
    ConsentRequired,
    ExchangeThrottled,
    InvalidToken,
    KeysUnavailable,
    Reason,
    TokenFault,
)
from authz.core.exchange import Flow, OnBehalfOf, cache_key, subject_of
from authz.core.policy import Policy
from authz.core.principal import APPLICATIONS, Actor, SubjectType
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.core.request import Authorization, Direction
from authz.core.requirement import Requirement
from authz.core.route import Forward
from authz.core.secret import Secret
from support.fakes.clock import START, Ticks
from support.fakes.exchanges import GRAPH
from support.fakes.principals import principal
from support.fakes.records import trace_of
from support.fakes.routes import regranted
from support.fakes.scene import DELEGATED_FLOWS, EGRESS_FLOWS, INBOUND, Scene
from support.fakes.tenant import AGENT, AGENT_USER, BLUEPRINT, CLIENT, TENANT, USER

WORKLOAD: Final = "spiffe://cluster/ns/a/sa/agent"


def _reason(record: CheckRecord) -> Reason:
    assert isinstance(record.decision, Deny)
    return record.decision.reason


def _allow(record: CheckRecord) -> Allow:
    assert isinstance(record.decision, Allow), record
    return record.decision


async def test_a_users_request_reaches_the_agent_with_the_users_identity() -> None:
    """The app learns who is calling from headers that only we can set."""
    scene = Scene()
    record = await scene.inbound(scene.tenant.agent_for_user_token(roles=["Admin"]))

    assert {
        "x-authz-subject": USER,
        "x-authz-subject-type": "user",
        "x-authz-tenant": TENANT,
        "x-authz-actor": AGENT,
        "x-authz-actor-blueprint": BLUEPRINT,
        "x-authz-scopes": "access_as_user",
        "x-authz-roles": "Admin",
    } == dict(_allow(record).headers)


async def test_an_inbound_route_forwards_the_users_token_untouched() -> None:
    """With `bearer` the app needs it, to call others on the user's behalf."""
    scene = Scene()
    allow = _allow(await scene.inbound(scene.tenant.user_token()))

    assert allow.authorization is None
    assert "authorization" not in allow.remove


async def test_an_inbound_route_may_keep_the_token_from_the_app() -> None:
    """With `strip` the app sees the identity headers only."""
    scene = Scene()
    scene.configure(replace(scene.inbound_route, forward=frozenset({Forward.STRIP})))
    allow = _allow(await scene.inbound(scene.tenant.user_token()))

    assert allow.authorization is None
    assert "authorization" in allow.remove
    assert USER == dict(allow.headers)["x-authz-subject"]


def test_an_identity_header_without_a_value_is_not_set() -> None:
    """Empty values are for Envoy to interpret, and versions differ; there are none."""
    full = replace(principal(scopes="a", roles="b"), actor=Actor(AGENT, blueprint=BLUEPRINT))

    assert list(IDENTITY_HEADERS) == [name for name, _ in identity_headers(full)]
    assert all(value for _, value in identity_headers(principal()))


def test_names_in_a_header_list_are_sorted_and_cannot_break_out_of_it() -> None:
    """A blank or a line break inside a role's name is escaped; what is visible stays as it is."""
    odd = replace(
        principal(), roles=frozenset({"b c", "a\r\nx-authz-subject: root", "Task.Read", "50%"})
    )
    headers = dict(identity_headers(odd))

    assert "50%25 Task.Read a%0D%0Ax-authz-subject:%20root b%20c" == headers["x-authz-roles"]


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (Requirement(APPLICATIONS), Reason.SUBJECT_NOT_ALLOWED),
        (Requirement(actors=frozenset({"somebody"})), Reason.ACTOR_NOT_ALLOWED),
        (Requirement(blueprints=frozenset({"another"})), Reason.ACTOR_NOT_ALLOWED),
        (Requirement(scopes=(("another",),)), Reason.INSUFFICIENT_SCOPE),
        (Requirement(user_roles=(("Approver",),)), Reason.INSUFFICIENT_SCOPE),
        (Requirement(auth_contexts=("c1",)), Reason.STEP_UP_REQUIRED),
    ],
)
@pytest.mark.parametrize("route", [INBOUND, *(flow.value for flow in DELEGATED_FLOWS)])
async def test_a_verified_user_must_still_be_authorized(
    route: str, requirement: Requirement, reason: Reason
) -> None:
    """Inbound, and on egress before anything is exchanged."""
    scene = Scene()
    scene.configure(
        replace(scene.inbound_route, requirement=requirement),
        *(
            regranted(scene.egress_routes[flow], requirement=requirement)
            for flow in DELEGATED_FLOWS
        ),
    )
    direction = "inbound" if route == INBOUND else "egress"
    record = await scene.check(scene.request(direction, route, scene.tenant.user_token()))

    assert reason is _reason(record)
    assert record.principal is not None
    assert [] == scene.entra.calls


@pytest.mark.parametrize("flow", [flow for flow in EGRESS_FLOWS if flow is not Flow.NONE])
async def test_an_egress_request_leaves_with_the_token_of_its_routes_flow(flow: Flow) -> None:
    """What Entra issued for this very flow replaces what the app sent."""
    scene = Scene()
    record = await scene.egress(flow.value, scene.tenant.user_token())

    assert Allow(authorization=Secret("issued-1")) == record.decision
    assert [flow] == [exchange.flow for exchange in scene.entra.calls]


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
async def test_an_exchange_on_behalf_of_a_user_rests_on_that_users_verified_token(
    flow: Flow,
) -> None:
    """The assertion is the token that was verified, and bounds what it brings by its expiry."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.egress(flow.value, token)
    subject = subject_of(scene.entra.calls[0])

    assert subject is not None
    assert (Secret(token), scene.clock() + 3600.0) == (subject.secret, subject.expires_at)


@pytest.mark.parametrize("flow", [flow for flow in EGRESS_FLOWS if not flow.is_delegated])
@pytest.mark.parametrize("token", [None, "no.real.token"])
async def test_a_flow_without_user_does_not_look_at_the_apps_token(
    flow: Flow, token: str | None
) -> None:
    """It is replaced or removed unread, and nobody is verified by it."""
    scene = Scene()
    record = await scene.egress(flow.value, token)

    assert isinstance(record.decision, Allow)
    assert record.principal is None
    assert all(subject_of(exchange) is None for exchange in scene.entra.calls)


async def test_flow_none_removes_what_the_app_sent() -> None:
    """Nothing is exchanged, and nothing goes out."""
    scene = Scene()
    record = await scene.egress(Flow.NONE, "token", own_headers=("x-authz-subject",))

    assert Allow(remove=("x-authz-subject", "authorization")) == record.decision
    assert [] == scene.entra.calls


async def test_a_second_request_of_the_same_user_costs_nothing() -> None:
    """Both caches answer: no key is looked for, nothing is verified, Entra is not asked."""
    scene = Scene()
    token = scene.tenant.user_token()
    first = await scene.egress(Flow.ON_BEHALF_OF, token)
    second = await scene.egress(Flow.ON_BEHALF_OF, token)

    assert first.decision == second.decision
    assert (CacheResult.MISS, CacheResult.MISS) == (
        first.principal_cache,
        first.token_cache,
    )
    assert (CacheResult.HIT, CacheResult.HIT) == (
        second.principal_cache,
        second.token_cache,
    )
    assert second.principal is first.principal
    assert (1, []) == (len(scene.entra.calls), scene.keys.finds)


async def test_a_hit_waits_for_nothing() -> None:
    """Verified and exchanged before, a request is decided without giving up the thread once."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.egress(Flow.ON_BEHALF_OF, token)
    scene.entra.hang()
    scene.keys.hang()
    request = scene.request("egress", Flow.ON_BEHALF_OF, token)

    with pytest.raises(StopIteration) as stopped:
        scene.service.decider()(request, deadline=0.0).__await__().send(None)
    assert Allow(authorization=Secret("issued-1")) == stopped.value.value.decision


async def test_two_users_never_share_a_token() -> None:
    """Each has the token that was issued for his own."""
    scene = Scene()
    alice = await scene.egress(Flow.ON_BEHALF_OF, scene.tenant.user_token(oid="alice"))
    bob = await scene.egress(Flow.ON_BEHALF_OF, scene.tenant.user_token(oid="bob"))

    assert _allow(alice).authorization != _allow(bob).authorization
    assert 2 == len(scene.entra.calls)


async def test_one_users_refusal_is_not_anothers() -> None:
    """While one must consent, the other is served."""
    scene = Scene()
    alice, bob = scene.tenant.user_token(oid="alice"), scene.tenant.user_token(oid="bob")
    scene.entra.fail(ConsentRequired(), when=lambda exchange: _is_for(exchange, alice))
    refused = await scene.egress(Flow.ON_BEHALF_OF, alice)

    assert Reason.CONSENT_REQUIRED is _reason(refused)
    assert isinstance((await scene.egress(Flow.ON_BEHALF_OF, bob)).decision, Allow)
    assert Reason.CONSENT_REQUIRED is _reason(await scene.egress(Flow.ON_BEHALF_OF, alice))


def _is_for(exchange: object, token: str) -> bool:
    return isinstance(exchange, OnBehalfOf) and exchange.subject.secret == Secret(token)


async def test_a_refusal_of_entra_is_passed_on() -> None:
    """Claims challenge and waiting time reach the caller; the detail stays in the record."""
    scene = Scene()
    scene.entra.fail(ConsentRequired("AADSTS65001", code=65001, claims="{}", retry_after=3.0))
    record = await scene.egress(Flow.ON_BEHALF_OF, scene.tenant.user_token())

    assert Deny(Reason.CONSENT_REQUIRED, retry_after=3.0, claims="{}") == record.decision
    assert "AADSTS65001" == str(record.error)


async def test_a_standing_refusal_is_repeated_without_asking() -> None:
    """And the record says so."""
    scene = Scene()
    scene.entra.fail(ExchangeThrottled(retry_after=9.0))
    await scene.egress(Flow.AUTONOMOUS)
    record = await scene.egress(Flow.AUTONOMOUS)

    assert Deny(Reason.EXCHANGE_THROTTLED, retry_after=9.0) == record.decision
    assert (CacheResult.FAILURE, 1) == (record.token_cache, len(scene.entra.calls))


async def test_a_standing_refusal_keeps_nothing_of_the_requests_that_met_it() -> None:
    """A cached error that held their frames would hold their tokens and records too."""
    scene = Scene()
    scene.entra.fail(ConsentRequired())
    await scene.egress(Flow.AUTONOMOUS)
    await scene.egress(Flow.AUTONOMOUS)
    standing = scene.failures.get(cache_key(scene.entra.calls[0]), scene.clock.moment())

    assert standing is not None
    assert standing.__traceback__ is None


async def test_a_slow_exchange_is_denied_in_time_and_found_next_time() -> None:
    """The caller may try again before Envoy gives up on us."""
    scene = Scene()
    scene.entra.hang()
    late = await scene.egress(Flow.AUTONOMOUS, within=0.01)
    scene.entra.release()
    await scene.tokens.drain()

    assert Deny(Reason.DEADLINE_EXCEEDED, retry_after=1.0) == late.decision
    assert Allow(authorization=Secret("issued-1")) == (await scene.egress("autonomous")).decision


async def test_an_unknown_key_is_looked_for() -> None:
    """After a rollover the first token with the new key waits for it, and only the first."""
    scene = Scene()
    scene.keys.withdraw("key-1")
    scene.keys.publish(scene.tenant.signing_key())
    first = await scene.inbound(scene.tenant.user_token())
    second = await scene.inbound(scene.tenant.user_token(oid="another"))

    assert all(isinstance(record.decision, Allow) for record in (first, second))
    assert [(scene.tenant.issuer, "key-1")] == scene.keys.finds


async def test_a_key_that_nobody_has_denies_the_token() -> None:
    """A made-up `kid` is an invalid token."""
    scene = Scene()
    scene.keys.withdraw("key-1")
    record = await scene.inbound(scene.tenant.user_token())

    assert Deny(Reason.INVALID_TOKEN) == record.decision
    assert isinstance(record.error, InvalidToken)
    assert TokenFault.UNKNOWN_KEY is record.error.fault


async def test_without_keys_a_token_is_neither_accepted_nor_called_invalid() -> None:
    """The caller did nothing wrong and may try again."""
    scene = Scene()
    scene.keys.withdraw("key-1")
    scene.keys.fail(KeysUnavailable(retry_after=10.0))

    decision = (await scene.inbound(scene.tenant.user_token())).decision
    assert Deny(Reason.KEYS_UNAVAILABLE, retry_after=10.0) == decision


async def test_waiting_for_a_key_ends_with_the_deadline() -> None:
    """An identity provider that hangs does not hang the request."""
    scene = Scene()
    scene.keys.withdraw("key-1")
    scene.keys.hang()
    request = scene.request("inbound", INBOUND, scene.tenant.user_token())

    assert Reason.DEADLINE_EXCEEDED is _reason(await scene.check(request, within=0.01))


async def test_a_withdrawn_key_ends_what_it_once_proved() -> None:
    """A cached verification does not outlive the trust in its key."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    scene.keys.withdraw("key-1")
    record = await scene.inbound(token)

    assert Deny(Reason.INVALID_TOKEN) == record.decision
    assert (CacheResult.STALE_KEY, None) == (record.principal_cache, record.principal)
    assert [CacheResult.MISS, CacheResult.STALE_KEY] == scene.observer.results(CacheName.PRINCIPALS)
    assert 0 == len(scene.principals)


async def test_a_key_that_comes_back_proves_anew() -> None:
    """The token is verified again, not believed again."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    scene.keys.withdraw("key-1")
    scene.keys.publish(scene.tenant.signing_key())
    again = await scene.inbound(token)

    assert isinstance(again.decision, Allow)
    assert CacheResult.STALE_KEY is again.principal_cache
    assert CacheResult.HIT is (await scene.inbound(token)).principal_cache


async def test_a_cached_verification_ends_with_the_token() -> None:
    """Past `exp` the token is looked at again, and past the leeway it is refused."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    scene.clock.advance(3600.0)
    within_leeway = await scene.inbound(token)
    scene.clock.advance(60.0)

    assert CacheResult.MISS is within_leeway.principal_cache
    assert Reason.INVALID_TOKEN is _reason(await scene.inbound(token))


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
async def test_a_token_that_only_leeway_keeps_alive_is_not_exchanged(flow: Flow) -> None:
    """The user may still reach the agent; Entra, which would refuse the token, is not asked."""
    scene = Scene()
    token = scene.tenant.user_token(exp=START + 100)
    scene.clock.advance(100)
    inbound, egress = await scene.inbound(token), await scene.egress(flow, token)

    assert isinstance(inbound.decision, Allow)
    assert (Reason.INVALID_TOKEN, []) == (_reason(egress), scene.entra.calls)
    assert isinstance(egress.error, InvalidToken)
    assert TokenFault.EXPIRED is egress.error.fault


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"host": ""}, Reason.MALFORMED_REQUEST, id="no HTTP request"),
        pytest.param({"direction": None}, Reason.UNKNOWN_ROUTE, id="no direction"),
        pytest.param({"direction": "sideways"}, Reason.UNKNOWN_ROUTE, id="unknown direction"),
        pytest.param({"route": "nonesuch"}, Reason.UNKNOWN_ROUTE, id="unknown route"),
        pytest.param({"route": None}, Reason.UNKNOWN_ROUTE, id="no route and unknown host"),
        pytest.param({"route": "agent", "direction": "egress"}, Reason.UNKNOWN_ROUTE, id="wrong way"),
        pytest.param({"authorization": None}, Reason.MISSING_TOKEN, id="no token"),
        pytest.param({"authorization": Authorization("Bearer")}, Reason.MALFORMED_REQUEST, id="no value"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("direction", "route"), [("inbound", INBOUND), ("egress", "on_behalf_of")])
async def test_what_is_not_configured_or_not_well_formed_is_denied(
    direction: str, route: str, changes: dict[str, Any], reason: Reason
) -> None:
    """Each is a decision with its reason, and nobody is asked for a token."""
    scene = Scene()
    request = scene.request(direction, route, scene.tenant.user_token(), **changes)
    record = await scene.check(request)

    assert reason is _reason(record)
    assert (None, []) == (record.principal, scene.entra.calls)


async def test_an_egress_route_is_found_by_host() -> None:
    """Without a name from Envoy the destination decides."""
    scene = Scene()
    record = await scene.egress("", host="agent-user.example:443", route=None)

    assert scene.egress_routes["agent_user"] is record.route
    assert [Flow.AGENT_USER] == [exchange.flow for exchange in scene.entra.calls]


@pytest.mark.parametrize("flow", EGRESS_FLOWS)
async def test_only_the_bound_workload_may_use_a_route(flow: Flow) -> None:
    """Anybody else is denied before anything is looked at."""
    scene = Scene()
    scene.configure(replace(scene.egress_routes[flow.value], workloads=frozenset({WORKLOAD})))
    token = scene.tenant.user_token()
    stranger = await scene.egress(flow.value, token, peer="spiffe://cluster/ns/b/sa/other")
    calls = len(scene.entra.calls)
    owner = await scene.egress(flow.value, token, peer=WORKLOAD)

    assert (Reason.WORKLOAD_NOT_ALLOWED, 0) == (_reason(stranger), calls)
    assert isinstance(owner.decision, Allow)


async def test_a_defect_is_a_denial() -> None:
    """An exception that nobody foresaw denies, and is kept for the log."""
    scene = Scene(has_defects=True)
    defect = ZeroDivisionError("defect")
    scene.entra.fail(defect)
    record = await scene.egress(Flow.AUTONOMOUS)

    assert Deny(Reason.INTERNAL) == record.decision
    assert record.fault is defect
    assert record.error is None


@pytest.mark.parametrize(
    ("route", "token"),
    [("autonomous", None), ("on_behalf_of", None), ("nonesuch", None), ("broken", None)],
    ids=["allowed", "denied", "unknown", "defect"],
)
async def test_every_check_is_observed_once(route: str, token: str | None) -> None:
    """Whatever the outcome, the observer hears of the finished record."""
    scene = Scene(has_defects=True)
    grant: Any = "no grant at all"
    broken = replace(scene.egress_routes["autonomous"], name="broken", hosts=(), grant=grant)
    scene.configure(broken)
    record = await scene.egress(route, token)

    assert [record] == scene.observer.records
    assert record.seconds >= 0


async def test_the_record_tells_what_took_how_long() -> None:
    """Verification and exchange have durations of their own within the whole."""
    scene = Scene(timer=Ticks())
    inbound = await scene.inbound(scene.tenant.user_token())
    egress = await scene.egress(Flow.ON_BEHALF_OF, scene.tenant.user_token(), within=60.0)

    # A look for the cache, one for the token's times, and one at the end.
    assert (3.0, 0.0) == (trace_of(inbound).verify_seconds, trace_of(inbound).exchange_seconds)
    assert 2.0 == trace_of(egress).verify_seconds
    assert 0.0 < trace_of(egress).exchange_seconds < egress.seconds


async def test_a_failed_exchange_has_a_duration_too() -> None:
    """Time spent in vain is time spent."""
    scene = Scene(timer=Ticks())
    scene.entra.fail(ConsentRequired())

    assert 0.0 < trace_of(await scene.egress(Flow.AUTONOMOUS, within=60.0)).exchange_seconds


async def test_a_failed_verification_has_a_duration_too() -> None:
    """Above all where it waited for a key in vain."""
    scene = Scene(timer=Ticks())
    scene.keys.withdraw("key-1")
    scene.keys.fail(KeysUnavailable())

    assert 0.0 < trace_of(await scene.inbound(scene.tenant.user_token())).verify_seconds


async def test_the_record_knows_the_direction_once_the_route_is_known() -> None:
    """Metrics are labelled by what was found, never by what was asked."""
    scene = Scene()
    records = [
        await scene.inbound(None),
        await scene.egress(Flow.NONE),
        await scene.egress("nonesuch"),
    ]

    assert [Direction.INBOUND, Direction.EGRESS, None] == [record.direction for record in records]


async def test_a_configuration_change_takes_effect_with_the_next_check() -> None:
    """Those under way end with the configuration that they began with."""
    scene = Scene()
    scene.entra.hang()
    under_way = asyncio.ensure_future(scene.egress(Flow.AUTONOMOUS))
    await scene.entra.asked.wait()
    scene.service.swap(scene.snapshot(Policy(version="empty")))
    scene.entra.release()

    assert Reason.UNKNOWN_ROUTE is _reason(await scene.egress(Flow.AUTONOMOUS))
    assert isinstance((await under_way).decision, Allow)


async def test_a_request_is_decided_by_the_configuration_that_it_was_read_by() -> None:
    """However many follow before it is."""
    scene = Scene()
    decide = scene.service.decider()
    scene.service.swap(scene.snapshot(Policy(version="empty")))
    request = scene.request("egress", Flow.AUTONOMOUS, None)

    assert isinstance((await decide(request, deadline=scene.timer() + 5)).decision, Allow)
    assert Reason.UNKNOWN_ROUTE is _reason(await scene.check(request))


async def test_a_new_policy_version_asks_for_new_tokens() -> None:
    """What an older configuration had issued is not served under the newer one."""
    scene = Scene()
    await scene.egress(Flow.AUTONOMOUS)
    newer = replace(GRAPH, policy_version="v2")
    scene.configure(regranted(scene.egress_routes["autonomous"], target=newer))

    assert Secret("issued-2") == _allow(await scene.egress(Flow.AUTONOMOUS)).authorization


async def test_an_agents_own_user_account_is_a_user() -> None:
    """It may call where users may, and is named as what it is."""
    scene = Scene()
    headers = dict(_allow(await scene.inbound(scene.tenant.agent_user_token())).headers)

    assert (AGENT_USER, SubjectType.AGENT_USER) == (
        headers["x-authz-subject"],
        headers["x-authz-subject-type"],
    )


async def test_an_ordinary_client_has_no_blueprint_to_name() -> None:
    """The header is removed even if Envoy did not tell us of one, so that none can be forged."""
    scene = Scene()
    allowed = _allow(await scene.inbound(scene.tenant.user_token()))

    assert CLIENT == dict(allowed.headers)["x-authz-actor"]
    assert "x-authz-actor-blueprint" in allowed.remove
