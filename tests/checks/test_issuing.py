"""The path of one who asks for a token by himself: verified, granted, exchanged, told."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import BadOverride, ExchangeMisconfigured, Reason, UnknownRoute
from authz.core.exchange import (
    AgentUser,
    AppOnBehalfOf,
    AppToken,
    Autonomous,
    Flow,
    OnBehalfOf,
    Target,
)
from authz.core.policy import KnownAgent, Policy
from authz.core.principal import SubjectType
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.core.requirement import Requirement
from authz.core.route import EgressRoute
from authz.core.rules.rule import Rule, Rules
from authz.core.secret import Secret
from authz.doors.sidecar_api.issuer import TokenIssuer
from authz.doors.sidecar_api.overrides import Overrides
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.routes import route_of
from support.fakes.scene import INBOUND, Scene
from support.fakes.tenant import AGENT, USER

APP: Final = Flow.APP.value
OBO: Final = Flow.ON_BEHALF_OF.value


class Desk(Scene):
    """A scene with an issuer."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        policy = Policy(
            version="v1",
            inbound={INBOUND: self.inbound_route},
            egress=self.egress_routes,
            default_inbound=INBOUND,
            agents={AGENT: KnownAgent(replace(AGENT_IDENTITY, user=None))},
        )
        self.issuer = TokenIssuer(
            self.snapshot(replace(policy, **changes)),
            principals=self.principals,
            observer=self.observer,
            clock=self.clock,
            timer=self.timer,
        )

    async def issue(
        self,
        route: str,
        token: str | None = None,
        overrides: Overrides | Callable[[], Overrides] = Overrides(),  # noqa: B008 - frozen
        *,
        known: bool = False,
        **changes: Any,
    ) -> CheckRecord:
        """Ask for a token."""
        return await self.issuer.issue(
            self.request("egress", route, token, **changes),
            overrides if callable(overrides) else lambda: overrides,
            authenticated=known,
            deadline=self.timer() + 5,
        )


def reason(record: CheckRecord) -> Reason:
    """Return why a request was denied."""
    assert isinstance(record.decision, Deny), record
    return record.decision.reason


def allowed(record: CheckRecord) -> Allow:
    """Return an allowance."""
    assert isinstance(record.decision, Allow), record
    return record.decision


async def test_an_apps_own_token_needs_no_caller() -> None:
    """It is exchanged once and observed each time, with the route that it came by."""
    desk = Desk()
    first, again = await desk.issue(APP), await desk.issue(APP)
    assert allowed(first).authorization == allowed(again).authorization
    assert [AppToken(BLUEPRINT_CLIENT, GRAPH)] == desk.entra.calls
    assert [first, again] == desk.observer.records
    assert [CacheResult.MISS, CacheResult.HIT] == desk.observer.results(CacheName.TOKENS)
    assert first.seconds >= 0


async def test_an_agents_token_for_the_user_who_calls() -> None:
    """The caller is verified, and what was verified is what is exchanged."""
    desk = Desk()
    token = desk.tenant.user_token()
    record = await desk.issue(APP, token, Overrides(agent=AGENT, app_token=False), known=True)
    assert allowed(record).authorization is not None
    (asked,) = desk.entra.calls
    assert isinstance(asked, OnBehalfOf)
    assert (Secret(token), AGENT) == (asked.subject.secret, asked.agent.client_id)
    assert record.principal is not None
    assert USER == record.principal.subject.object_id


async def test_a_caller_who_is_not_let_in_gets_nothing() -> None:
    """Not even to know whether the API exists, or whether what it asks for makes sense."""
    desk = Desk()

    def overrides() -> Overrides:
        raise BadOverride("never read")

    for route in (APP, "nowhere"):
        assert reason(await desk.issue(route, known=True)) is Reason.MISSING_TOKEN
        strange = desk.tenant.user_token("another-audience")
        assert (
            reason(await desk.issue(route, strange, overrides, known=True)) is Reason.INVALID_TOKEN
        )
    assert [] == desk.entra.calls


async def test_a_caller_must_have_what_the_entrance_demands() -> None:
    """On each route: the sidecar looks at scopes on one of them only."""
    desk = Desk()
    demanding = replace(desk.inbound_route, requirement=Requirement(scopes=(("another",),)))
    policy = Policy(
        version="v2",
        inbound={INBOUND: demanding},
        egress=desk.egress_routes,
        default_inbound=INBOUND,
    )
    desk.issuer.swap(desk.snapshot(policy))
    token = desk.tenant.user_token()
    validated = await desk.issuer.validate(desk.request("inbound", "", token), deadline=10**9)
    refused = [await desk.issue(APP, token, known=True), validated]
    assert [Reason.INSUFFICIENT_SCOPE] * 2 == [reason(record) for record in refused]


@pytest.mark.parametrize(
    ("route", "overrides"),
    [
        (OBO, Overrides()),
        (Flow.APP_ON_BEHALF_OF.value, Overrides()),
        (APP, Overrides(app_token=False)),
    ],
)
async def test_nobody_acts_for_a_user_without_that_user(route: str, overrides: Overrides) -> None:
    """On the unauthenticated endpoints a token that is sent does not count."""
    desk = Desk()
    assert (
        reason(await desk.issue(route, desk.tenant.user_token(), overrides)) is Reason.MISSING_TOKEN
    )
    assert [] == desk.entra.calls


async def test_an_application_that_calls_is_no_user() -> None:
    """Where the entrance serves applications, on-behalf-of still needs a user."""
    desk = Desk()
    serving = replace(desk.inbound_route, requirement=Requirement(frozenset(SubjectType)))
    desk.issuer.swap(
        desk.snapshot(
            Policy(
                version="v2",
                inbound={INBOUND: serving},
                egress=desk.egress_routes,
                default_inbound=INBOUND,
            )
        )
    )
    token = desk.tenant.app_token()
    assert allowed(await desk.issue(APP, token, known=True)).authorization is not None
    refused = await desk.issue(APP, token, Overrides(app_token=False), known=True)
    assert reason(refused) is Reason.SUBJECT_NOT_ALLOWED


async def test_what_is_refused_is_refused_before_entra_is_asked() -> None:
    """An API, an agent, an override."""
    desk = Desk()

    def bad() -> Overrides:
        raise BadOverride("AgentIdentity: expected a GUID")

    assert reason(await desk.issue("nowhere")) is Reason.UNKNOWN_API
    assert reason(await desk.issue(APP, overrides=bad)) is Reason.BAD_PARAMETER
    assert (
        reason(await desk.issue(APP, overrides=Overrides(agent=USER))) is Reason.AGENT_NOT_ALLOWED
    )
    assert [] == desk.entra.calls


def unconfigured(**changes: Any) -> EgressRoute:
    """The route for APIs that are not configured."""
    route = route_of("(not configured)", Flow.APP_ON_BEHALF_OF, target=Target(()))
    return replace(route, **changes)


SCOPED: Final = Overrides(scopes=("api://other/.default",), app_token=True)


async def test_an_api_that_is_not_configured_takes_the_scopes_that_are_named() -> None:
    """By the client that the configuration gives for it; metrics and log have a name that no caller makes."""
    desk = Desk(unconfigured=unconfigured(), any_resource=True)
    record = await desk.issue("elsewhere", overrides=SCOPED)
    assert allowed(record).authorization is not None
    assert record.route is not None
    assert "(not configured)" == record.route.name
    target = Target(("api://other/.default",))
    assert [AppToken(BLUEPRINT_CLIENT, target)] == desk.entra.calls


@pytest.mark.parametrize(
    "overrides",
    [Overrides(app_token=True), replace(SCOPED, for_own_resource=True)],
    ids=["no scopes", "a call"],
)
async def test_an_api_that_is_not_configured_is_unknown_otherwise(overrides: Overrides) -> None:
    """Without scopes nothing says what the token is for; and nothing says where a call would go."""
    desk = Desk(unconfigured=unconfigured(), any_resource=True)
    assert reason(await desk.issue("elsewhere", overrides=overrides)) is Reason.UNKNOWN_API
    assert [] == desk.entra.calls


async def test_an_api_that_is_not_configured_grants_nothing_more() -> None:
    """Callers, users and agents are held to the same rules, and so are workloads."""
    desk = Desk(unconfigured=unconfigured(), any_resource=True)
    without_user = replace(SCOPED, app_token=None)
    foreign = replace(SCOPED, agent=STRANGER)
    assert reason(await desk.issue("x", overrides=SCOPED, known=True)) is Reason.MISSING_TOKEN
    assert reason(await desk.issue("x", overrides=without_user)) is Reason.MISSING_TOKEN
    assert reason(await desk.issue("x", overrides=foreign)) is Reason.AGENT_NOT_ALLOWED
    bound = unconfigured(workloads=frozenset({"spiffe://c/w"}))
    desk = Desk(unconfigured=bound, any_resource=True)
    assert reason(await desk.issue("x", overrides=SCOPED)) is Reason.WORKLOAD_NOT_ALLOWED
    assert [] == desk.entra.calls


async def test_an_api_without_scopes_serves_callers_that_name_some() -> None:
    """And no Check: a policy finds it for nobody else."""
    bare = unconfigured(name="bare")
    desk = Desk(unscoped={"bare": bare}, any_resource=True)
    assert allowed(await desk.issue("bare", overrides=SCOPED)).authorization is not None
    refused = await desk.issue("bare", overrides=Overrides(app_token=True))
    assert reason(refused) is Reason.BAD_PARAMETER
    policy = Policy(version="v", unscoped={"bare": bare})
    with pytest.raises(UnknownRoute):
        policy.find(desk.request("egress", "bare", None))


async def test_an_agent_that_is_bound_to_workloads_is_not_had_by_http() -> None:
    """There is no certificate by which a caller could be told."""
    bound = KnownAgent(replace(AGENT_IDENTITY, user=None), workloads=frozenset({"spiffe://c/w"}))
    desk = Desk(agents={AGENT: bound})
    assert (
        reason(await desk.issue(APP, overrides=Overrides(agent=AGENT)))
        is Reason.WORKLOAD_NOT_ALLOWED
    )


async def test_a_token_anew_replaces_the_one_that_is_held() -> None:
    """For the next ones as well; and where Entra refuses, the old one stays for them."""
    desk = Desk()
    held = allowed(await desk.issue(APP)).authorization
    renewed = allowed(await desk.issue(APP, overrides=Overrides(force_refresh=True))).authorization
    after = allowed(await desk.issue(APP)).authorization
    assert held != renewed
    assert renewed == after
    assert 2 == len(desk.entra.calls)
    # Each of them for the log of failed exchanges.
    assert [APP] * 2 == desk.observer.begun_for


REFUSED: Final = ExchangeMisconfigured("AADSTS90100", code=90100)
STRANGER: Final = "99999999-0000-4000-8000-000000000009"
ACCOUNT: Final = AgentUser(username="desk@contoso.example")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (Overrides(agent=STRANGER), Reason.AGENT_NOT_ALLOWED),
        (Overrides(agent=STRANGER, user=ACCOUNT), Reason.AGENT_NOT_ALLOWED),
        (Overrides(agent=AGENT, user=AgentUser(object_id=STRANGER)), Reason.AGENT_NOT_ALLOWED),
        (Overrides(agent=AGENT, user=ACCOUNT), Reason.EXCHANGE_MISCONFIGURED),
        (Overrides(agent=AGENT), Reason.EXCHANGE_MISCONFIGURED),
        (Overrides(scopes=("https://graph.microsoft.com/.default",)), Reason.BAD_PARAMETER),
        (Overrides(app_token=True), Reason.EXCHANGE_MISCONFIGURED),
        (Overrides(app_token=False), Reason.BAD_PARAMETER),
        (Overrides(), Reason.EXCHANGE_MISCONFIGURED),
    ],
)
async def test_what_entra_refuses_is_the_fault_of_who_named_it(
    overrides: Overrides, expected: Reason
) -> None:
    """A caller that names what no configuration knows is told so; an operator need not look."""
    known = KnownAgent(replace(AGENT_IDENTITY, user=None), frozenset({ACCOUNT}))
    desk = Desk(agents={AGENT: known}, open_blueprints=frozenset({BLUEPRINT_CLIENT}))
    desk.entra.fail(REFUSED)
    record = await desk.issue(APP, desk.tenant.user_token(), overrides, known=True)
    assert reason(record) is expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (Overrides(app_token=False), Reason.BAD_PARAMETER),
        (
            Overrides(app_token=False, scopes=("https://graph.microsoft.com/.default",)),
            Reason.BAD_PARAMETER,
        ),
        (Overrides(), Reason.EXCHANGE_MISCONFIGURED),
    ],
)
async def test_who_asks_a_blueprint_to_act_for_a_user_is_told_to_name_an_agent(
    overrides: Overrides, expected: Reason
) -> None:
    """AADSTS82002: by the request the caller's error, by the configuration an operator's."""
    desk = Desk()
    desk.entra.fail(ExchangeMisconfigured("AADSTS82002", code=82002))
    record = await desk.issue(APP, desk.tenant.user_token(), overrides, known=True)
    assert reason(record) is expected
    assert (expected is Reason.BAD_PARAMETER) == ("name an agent" in str(record.error))


async def test_a_credential_that_is_refused_is_nobodys_fault_but_ours() -> None:
    """Whatever was named."""
    desk = Desk(open_blueprints=frozenset({BLUEPRINT_CLIENT}))
    desk.entra.fail(ExchangeMisconfigured("AADSTS7000222", code=7000222, by_credential=True))
    record = await desk.issue(APP, overrides=Overrides(agent=STRANGER))
    assert reason(record) is Reason.EXCHANGE_MISCONFIGURED


async def test_a_defect_is_a_denial() -> None:
    """Without a default inbound route nobody could be verified: so nobody is served (law 3)."""
    desk = Desk(default_inbound=None)
    for record in (
        await desk.issue(APP),
        await desk.issuer.validate(desk.request("inbound", "", None), deadline=10**9),
    ):
        assert reason(record) is Reason.INTERNAL
        assert isinstance(record.fault, ValueError)


async def test_validate_verifies_and_gives_nothing() -> None:
    """It is an inbound decision in metrics and log."""
    desk = Desk()
    token = desk.tenant.user_token()
    record = await desk.issuer.validate(desk.request("inbound", "", token), deadline=10**9)
    assert Allow() == record.decision
    assert record.route is desk.inbound_route
    assert [record] == desk.observer.records


async def test_callers_at_once_do_not_share_an_identity() -> None:
    """Each gets what it named: users, agents and flows, all under way together (law 8)."""
    desk = Desk()
    users = [desk.tenant.user_token(oid=f"{USER[:-2]}{n:02}") for n in range(20)]
    variants = [
        Overrides(app_token=False),
        Overrides(agent=AGENT, app_token=False),
        Overrides(agent=AGENT),
    ]
    asked = [(user, overrides) for user in users for overrides in variants]
    records = await asyncio.gather(*(desk.issue(APP, *each, known=True) for each in asked))
    for (user, overrides), record in zip(asked, records, strict=True):
        token = allowed(record).authorization
        assert token is not None
        exchange = desk.entra.calls[int(token.reveal().removeprefix("issued-")) - 1]
        expected = (
            AppOnBehalfOf
            if overrides.agent is None
            else Autonomous
            if overrides.app_token is None
            else OnBehalfOf
        )
        assert isinstance(exchange, expected)
        if isinstance(exchange, AppOnBehalfOf | OnBehalfOf):
            assert Secret(user) == exchange.subject.secret


async def test_a_token_that_the_api_refused_is_issued_anew_for_its_caller_alone() -> None:
    """Of the exchange that it came from; a denial has none, and nothing happens."""
    desk = Desk()
    alice, bob = desk.tenant.user_token(), desk.tenant.user_token(oid=USER[::-1])
    overrides = Overrides(agent=AGENT, app_token=False)
    first, other = [await desk.issue(APP, token, overrides, known=True) for token in (alice, bob)]
    desk.issuer.refused(first)
    desk.issuer.refused(await desk.issue("nowhere"))
    again, same = [await desk.issue(APP, token, overrides, known=True) for token in (alice, bob)]

    assert allowed(first).authorization != allowed(again).authorization
    assert allowed(other).authorization == allowed(same).authorization


async def test_an_api_with_rules_gives_no_token_into_an_apps_hands() -> None:
    """There it could be used for any path; by Envoy each request is asked about."""
    desk = Desk()
    everything = Rules((Rule("all", desk.egress_routes[APP]),))
    egress = desk.egress_routes | {APP: replace(desk.egress_routes[APP], rules=everything)}
    policy = Policy(
        version="v2",
        inbound={INBOUND: desk.inbound_route},
        egress=egress,
        default_inbound=INBOUND,
    )
    desk.issuer.swap(desk.snapshot(policy))

    assert Reason.RULE_DENIED is reason(await desk.issue(APP))
    assert [] == desk.entra.calls
