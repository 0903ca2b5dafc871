"""The user's identity through an app that has no token: from the inbound Check to the egress Check.

Also what a thief of a token or reference can do with it, which is nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from authz.checks.identity_headers import IDENTITY_HEADERS
from authz.core.baggage import Baggage
from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.exchange import Autonomous, Flow, OnBehalfOf, Target
from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.core.request import Authorization, CheckRequest
from authz.core.route import EgressRoute, Forward
from authz.core.secret import Secret
from authz.core.subject import PLACEHOLDER, SubjectSource
from support.fakes.clock import START
from support.fakes.routes import grant_of, regranted
from support.fakes.scene import INBOUND, Scene
from support.fakes.tenant import USER

OBO: Final = Flow.ON_BEHALF_OF.value
OWN: Final = Flow.AUTONOMOUS.value
PEER: Final = "spiffe://cluster/ns/a/sa/agent"
THIEF: Final = "spiffe://cluster/ns/a/sa/thief"
BEARER, PLACE, HANDLE, NONE = SubjectSource
REFERRING: Final = [{Forward.PLACEHOLDER}, {Forward.HANDLE}, {Forward.PLACEHOLDER, Forward.HANDLE}]


def allowed(record: CheckRecord) -> Allow:
    """Return an allowance."""
    assert isinstance(record.decision, Allow), record
    return record.decision


def ends(record: CheckRecord) -> Moment:
    """When what was allowed becomes wrong."""
    assert isinstance(record.outcome, Granted)
    return record.outcome.lifetime.ends


def reason(record: CheckRecord) -> Reason:
    """Return why a request was denied."""
    assert isinstance(record.decision, Deny), record
    return record.decision.reason


def scene(
    forward: set[Forward],
    *sources: SubjectSource,
    origins: Mapping[str, str | None] | None = None,
    **changes: Any,
) -> Scene:
    """A world whose inbound route forwards so, and whose delegated route looks there."""
    made = Scene()
    made.inbound_route = replace(made.inbound_route, forward=frozenset(forward))
    made.egress_routes[OBO] = regranted(
        made.egress_routes[OBO],
        sources=sources or (PLACE, HANDLE),
        origins={INBOUND: None} if origins is None else origins,
        **changes,
    )
    made.configure(edge_ttl=30.0)
    return made


async def received(made: Scene, token: str, **changes: Any) -> dict[str, Any]:
    """Let a user call the agent, and return what the app receives: all that it can hand on."""
    record = await made.inbound(token, **changes)
    allow = allowed(record)
    authorization: Authorization | None = Authorization(f"Bearer {token}")
    if allow.authorization is not None:
        authorization = Authorization(f"Bearer {allow.authorization.reveal()}")
    elif "authorization" in allow.remove:
        authorization = None
    baggage = record.request.baggage if allow.baggage is None else allow.baggage
    return {
        "authorization": authorization,
        "baggage": None if "baggage" in allow.remove else baggage,
    }


def assertion(made: Scene) -> str:
    """Return the user's token that the last exchange was for."""
    exchange = made.entra.calls[-1]
    assert isinstance(exchange, OnBehalfOf)
    return exchange.subject.secret.reveal()


@pytest.mark.parametrize("forward", REFERRING, ids=sorted)
async def test_the_app_has_no_token_and_its_call_is_the_users(forward: set[Forward]) -> None:
    """What it receives stands for the user and has nothing of the token in it."""
    made = scene(forward)
    token = made.tenant.user_token()
    held = await received(made, token)
    allow = allowed(await made.egress(OBO, **held))

    assert token == assertion(made)
    assert allow.authorization is not None
    assert not any(token in value.reveal() for value in held.values() if value is not None)
    assert (Forward.PLACEHOLDER in forward) == (held["authorization"] is not None)
    assert (Forward.HANDLE in forward) == (held["baggage"] is not None)


@pytest.mark.parametrize(
    ("forward", "removed", "given"),
    [
        ({Forward.BEARER}, False, None),
        ({Forward.STRIP}, True, None),
        ({Forward.HANDLE}, True, None),
        ({Forward.STRIP, Forward.HANDLE}, True, None),
        ({Forward.BEARER, Forward.HANDLE}, False, None),
        ({Forward.PLACEHOLDER}, False, PLACEHOLDER),
        ({Forward.PLACEHOLDER, Forward.HANDLE}, False, PLACEHOLDER),
    ],
)
async def test_each_forward_does_its_own_with_the_token(
    forward: set[Forward], removed: bool, given: str | None
) -> None:
    """And the app is always told who is calling."""
    made = scene(forward)
    allow = allowed(await made.inbound(made.tenant.user_token()))

    assert removed == ("authorization" in allow.remove)
    assert (given is None) == (allow.authorization is None)
    assert allow.authorization is None or allow.authorization.reveal().startswith(str(given))
    assert (Forward.HANDLE in forward) == (allow.baggage is not None)
    assert USER == dict(allow.headers)[IDENTITY_HEADERS[0]]


FORGED: Final = f"authz-subject={'f' * 43}"


@pytest.mark.parametrize("forward", [{Forward.BEARER}, {Forward.HANDLE}], ids=sorted)
@pytest.mark.parametrize(
    "forged", [FORGED, FORGED.upper(), FORGED.replace("-", "%2D"), f" {FORGED};p"]
)
async def test_members_of_our_name_do_not_come_in(forward: set[Forward], forged: str) -> None:
    """Only a sidecar of ours says for whom the agent works; foreign members stay."""
    made = scene(forward)
    held = await received(made, made.tenant.user_token(), baggage=Secret(f"a=1,{forged},b=2"))
    found = Baggage.parse(held["baggage"])

    assert ("a=1", "b=2") == found.foreign
    assert (1 if Forward.HANDLE in forward else 0) == len(found.own)
    assert not any("f" * 43 in member.reveal().lower() for member in found.own)


async def test_nothing_is_left_of_baggage_that_was_forged_alone() -> None:
    """The header goes, and others' baggage is not touched at all."""
    made = scene({Forward.BEARER})
    token = made.tenant.user_token()
    gone = allowed(await made.inbound(token, baggage=Secret(FORGED)))
    kept = allowed(await made.inbound(token, baggage=Secret("a=1")))

    assert (None, True) == (gone.baggage, "baggage" in gone.remove)
    assert (None, False) == (kept.baggage, "baggage" in kept.remove)


@pytest.mark.parametrize("route", [OBO, OWN, Flow.NONE.value])
@pytest.mark.parametrize("foreign", ["", "a=1,b=2"])
async def test_no_destination_sees_a_reference(route: str, foreign: str) -> None:
    """Whatever the route does, foreign members go on and ours does not, nor what was in `Authorization`."""
    made = scene({Forward.PLACEHOLDER, Forward.HANDLE})
    baggage = Secret(foreign) if foreign else None
    held = await received(made, made.tenant.user_token(), baggage=baggage)
    allow = allowed(await made.egress(route, **held))

    assert foreign == ("" if allow.baggage is None else allow.baggage.reveal())
    assert (allow.baggage is None) == ("baggage" in allow.remove)
    assert (allow.authorization is None) == ("authorization" in allow.remove)
    assert allow.authorization is None or PLACEHOLDER not in allow.authorization.reveal()


@pytest.mark.parametrize("forward", REFERRING, ids=sorted)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"peer": THIEF}, Reason.FOREIGN_SUBJECT),
        ({"peer": None}, Reason.FOREIGN_SUBJECT),
        ({"route": "another-agent"}, Reason.FOREIGN_SUBJECT),
        ({"route": "another-inbound"}, Reason.FOREIGN_SUBJECT),
        ({"later": 601}, Reason.UNKNOWN_SUBJECT),
    ],
    ids=["another peer", "no peer", "another agent", "another inbound route", "after its end"],
)
async def test_a_stolen_reference_is_useless(
    forward: set[Forward], changes: dict[str, Any], expected: Reason
) -> None:
    """From another peer, on a route of another agent or inbound route, and when it has ended."""
    made = scene(forward)
    route = made.egress_routes[OBO]
    made.configure(
        replace(regranted(route, origins={INBOUND: "agent-2"}), name="another-agent", hosts=()),
        replace(regranted(route, origins={"other": None}), name="another-inbound", hosts=()),
    )
    held = await received(made, made.tenant.user_token(exp=START + 3600), peer=PEER)
    assert isinstance((await made.egress(OBO, **held, peer=PEER)).decision, Allow)
    request = {"peer": PEER, **held, **changes}
    made.clock.advance(request.pop("later", 0))
    record = await made.egress(request.pop("route", OBO), **request)

    assert expected is reason(record)
    assert 1 == len(made.entra.calls)


async def test_a_stolen_token_is_useless_where_references_are_expected() -> None:
    """A user's own token does not open an egress route that does not read tokens."""
    made = scene({Forward.HANDLE})

    assert Reason.MISSING_TOKEN is reason(await made.egress(OBO, made.tenant.user_token()))


async def test_a_reference_is_no_token() -> None:
    """To every route that verifies tokens a placeholder is nothing."""
    made = scene({Forward.PLACEHOLDER})
    held = await received(made, made.tenant.user_token())
    authorization = held["authorization"]
    assert authorization is not None
    value = authorization.reveal().removeprefix("Bearer ")
    made.configure(
        replace(
            regranted(made.egress_routes[OBO], sources=(BEARER, HANDLE)), name="by-bearer", hosts=()
        )
    )

    assert Reason.INVALID_TOKEN is reason(await made.inbound(value))
    assert Reason.MISSING_TOKEN is reason(await made.egress("by-bearer", value))


async def test_a_reference_ends_with_its_route() -> None:
    """A new configuration in which the inbound route calls another agent ends it."""
    made = scene({Forward.HANDLE})
    held = await received(made, made.tenant.user_token())
    made.inbound_route = replace(made.inbound_route, called="agent-2")
    made.configure(regranted(made.egress_routes[OBO], origins={INBOUND: "agent-2"}))

    assert Reason.FOREIGN_SUBJECT is reason(await made.egress(OBO, **held))


async def test_a_subject_is_verified_again_by_the_egress_route() -> None:
    """The token that a reference stands for meets the same rules as one that is sent."""
    made = scene({Forward.HANDLE})
    held = await received(made, made.tenant.user_token(scp="other"))

    assert Reason.INSUFFICIENT_SCOPE is reason(await made.egress(OBO, **held))


async def test_users_at_the_same_time_are_never_mixed_up() -> None:
    """Each call is for whom its reference was given for, hits and misses alike."""
    made = scene({Forward.HANDLE})
    tokens = [made.tenant.user_token(oid=f"user-{n}") for n in range(20)]
    held = [await received(made, token) for token in tokens]
    for _ in range(2):
        for token, values in zip(tokens, held, strict=True):
            record = await made.egress(OBO, **values)
            issued = allowed(record).authorization
            first = allowed(await made.egress(OBO, **values)).authorization
            assert issued == first
            assert record.principal is not None
            assert f"user-{tokens.index(token)}" == record.principal.subject.object_id


async def test_repeated_answers_are_kept_apart_by_reference() -> None:
    """A hit is a hit for the same reference, and what is put in `baggage` is the same again."""
    made = scene({Forward.HANDLE})
    one, two = made.tenant.user_token(oid="one"), made.tenant.user_token(oid="two")
    first, again = await received(made, one), await received(made, one)
    other = await received(made, two)
    records = [await made.egress(OBO, **held) for held in (first, again, other)]

    assert first == again != other
    assert [False, True, False] == [record.repeated for record in records]
    assert 2 == len(made.entra.calls)
    assert [CacheResult.HIT] * 2 == made.observer.results(CacheName.SUBJECTS)


async def test_an_inbound_answer_is_given_again_until_its_reference_is_due() -> None:
    """Half of the reference's time. Envoy may repeat it no longer than it stands."""
    made = scene({Forward.HANDLE})
    token = made.tenant.user_token(exp=START + 3600)
    records = []
    for pause in (0, 299, 1):
        made.clock.advance(pause)
        records.append(await made.inbound(token, at_edge=True))

    assert [False, True, False] == [record.repeated for record in records]
    assert [600, 600, 900] == [ends(record).steady for record in records]
    assert [30.0] * 3 == [record.edge_ttl for record in records]


async def test_what_rests_on_a_reference_ends_with_it() -> None:
    """Envoy's cache is told so."""
    made = scene({Forward.HANDLE})
    held = await received(made, made.tenant.user_token(exp=START + 3600))
    made.clock.advance(590)
    record = await made.egress(OBO, **held, at_edge=True)

    assert (600, 10.0) == (ends(record).steady, record.edge_ttl)


async def test_an_evicted_reference_is_not_given_again() -> None:
    """Its user is refused once, at most, and gets another one with the next request."""
    made = scene({Forward.HANDLE})
    token = made.tenant.user_token()
    evicted = await received(made, token)
    for number in range(100):
        await made.inbound(made.tenant.user_token(oid=f"user-{number}"))
    refused = reason(await made.egress(OBO, **evicted))
    held = await received(made, token)

    assert Reason.UNKNOWN_SUBJECT is refused
    assert evicted != held
    assert isinstance((await made.egress(OBO, **held)).decision, Allow)


def falling_back(*sources: SubjectSource) -> Scene:
    """A world whose delegated route does without a user where it finds none."""
    target = Target(("api://x/.default",))
    instead = grant_of(Flow.AUTONOMOUS, target=target, stands_in=True)
    return scene({Forward.HANDLE}, *sources, NONE, without_user=instead)


async def test_without_a_user_the_agent_acts_for_itself_where_the_route_says_so() -> None:
    """With its own flow, and on record. Law 1: nowhere else."""
    made = falling_back(HANDLE)
    records = [await made.egress(OBO, at_edge=True) for _ in range(2)]

    assert [True, False] == [not record.repeated for record in records]
    for record in records:
        assert isinstance(record.route, EgressRoute)
        assert (OBO, Flow.AUTONOMOUS) == (record.route.name, record.route.flow)
        assert isinstance(record.decision, Allow)
        assert 0.0 == record.edge_ttl
    (exchange,) = made.entra.calls
    assert isinstance(exchange, Autonomous)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"baggage": Secret(FORGED)}, Reason.UNKNOWN_SUBJECT),
        ({"baggage": Secret(f"{FORGED},{FORGED}")}, Reason.AMBIGUOUS_SUBJECT),
        ({"authorization": Authorization("Bearer a.b.c")}, Reason.INVALID_TOKEN),
        ({"authorization": Authorization("Bearer a, Bearer b")}, Reason.MALFORMED_REQUEST),
    ],
)
async def test_a_bad_user_is_no_missing_one(held: dict[str, Any], expected: Reason) -> None:
    """There is no way from a refused reference or token to a token of the agent's own."""
    made = falling_back(BEARER, HANDLE)
    await made.egress(OBO)

    assert expected is reason(await made.egress(OBO, **held))
    assert 1 == len(made.entra.calls)


async def test_a_user_comes_before_having_none() -> None:
    """In either order of requests: an answer without a user is not one for users."""
    made = falling_back(HANDLE)
    held = await received(made, made.tenant.user_token())
    for _ in range(2):
        await made.egress(OBO)
        await made.egress(OBO, **held)

    assert [Autonomous, OnBehalfOf] == [type(exchange) for exchange in made.entra.calls]


@pytest.mark.parametrize("forward", [*REFERRING, {Forward.BEARER}], ids=sorted)
async def test_what_the_agent_will_hold_is_prefetched_for(forward: set[Forward]) -> None:
    """Its first call is a hit, whatever carries its user."""
    made = scene(forward, BEARER, PLACE, HANDLE)
    made.inbound_route = replace(made.inbound_route, prefetch=(OBO,))
    made.configure()
    held = await received(made, made.tenant.user_token())
    await made.prefetches.drain()
    record = await made.egress(OBO, **held)

    assert [(OBO, "issued")] == made.observer.prefetches
    assert (True, 1) == (record.repeated, len(made.entra.calls))


async def test_a_request_that_nobody_may_change_is_not_shown() -> None:
    """Neither a reference nor a token is in what is told of a Check."""
    made = scene({Forward.PLACEHOLDER, Forward.HANDLE})
    held = await received(made, made.tenant.user_token())
    await made.egress(OBO, **held)
    secrets = [value.reveal()[-43:] for value in held.values() if value is not None]
    shown = repr(made.observer.records)

    assert 2 == len(secrets)
    assert not any(text in shown for text in secrets)


def test_a_check_request_has_its_baggage_beside_what_decides() -> None:
    """A situation is shared by users, so it must not hold what tells them apart."""
    one = CheckRequest(host="a", route="r", baggage=Secret("x"))

    assert one.situation() == one._replace(baggage=None).situation()
