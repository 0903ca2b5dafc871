"""`CachedExchange`: one flight per key, nobody's failure met by another, a token as long as it may live."""

import asyncio
import traceback
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import pytest

from authz.core.budget import Budget
from authz.core.cache import FailureCache, TokenCache
from authz.core.circuit import CircuitOpen
from authz.core.errors import (
    AuthzError,
    ConsentRequired,
    DeadlineExceeded,
    ExchangeMisconfigured,
    ExchangeRejected,
    ExchangeThrottled,
    ExchangeUnavailable,
    InteractionRequired,
    KeysUnavailable,
    Reason,
)
from authz.core.exchange import Autonomous, Flow, IssuedToken, TokenExchange, cache_key
from authz.core.record import CacheName, CacheResult
from authz.core.shares import Shares
from authz.core.throttle import ApplicationThrottled
from authz.tokens.caching import CachedExchange, FailureLifetimes
from support.fakes.clock import START, Clock
from support.fakes.exchanges import AGENT_IDENTITY, GRAPH, on_behalf_of, one_of_each
from support.fakes.fakes import FakeExchange
from support.fakes.recorder import Recorder

Outcome = TypeVar("Outcome")

MARGIN: Final = 60.0
LIFETIME: Final = 3600.0
REFRESH: Final = 1800.0
ALICE: Final = on_behalf_of("alice", expires_at=START + 10 * LIFETIME)
BOB: Final = on_behalf_of("bob", expires_at=START + 10 * LIFETIME)
AGENT: Final = Autonomous(AGENT_IDENTITY, GRAPH)
OTHER_AGENT: Final = Autonomous(replace(AGENT_IDENTITY, client_id="other"), GRAPH)


class World:
    """A `CachedExchange` with a fake Entra behind it and a clock that stands still."""

    def __init__(
        self,
        *,
        max_flights: int = 1000,
        clients: int = 1,
        flight_timeout: float = 5.0,
        lifetimes: FailureLifetimes | None = None,
        failures: FailureCache | None = None,
    ) -> None:
        self.clock = Clock()
        self.timer = self.clock.timer
        self.entra = FakeExchange(self.clock.moment, lifetime=LIFETIME, refresh_after=REFRESH)
        self.observer = Recorder()
        self.tokens = TokenCache(max_entries=1000, max_bytes=10**7, margin=MARGIN)
        self.failures = FailureCache(max_entries=1000) if failures is None else failures
        self.seen: list[CacheResult] = []
        self.cached = CachedExchange(
            self.entra,
            tokens=self.tokens,
            failures=self.failures,
            name=CacheName.TOKENS,
            observer=self.observer,
            clock=self.clock,
            timer=self.timer,
            flight_timeout=flight_timeout,
            places=Shares(max_flights, holders=clients),
            lifetimes=lifetimes,
        )

    async def obtain(
        self, exchange: TokenExchange = ALICE, *, within: float = 5.0, route: str | None = None
    ) -> str:
        """Return the text of a token."""
        deadline = self.timer() + within
        token = await self.cached.obtain(
            exchange, deadline=deadline, route=route, seen=self.seen.append
        )
        return token.secret.reveal()

    async def failure(self, exchange: TokenExchange = ALICE, *, within: float = 5.0) -> AuthzError:
        """Return the error that the exchange ends with."""
        with pytest.raises(AuthzError) as raised:
            await self.obtain(exchange, within=within)
        return raised.value

    @property
    def calls(self) -> int:
        """How often Entra was asked."""
        return len(self.entra.calls)


async def _started(*callers: Awaitable[Outcome]) -> Sequence["asyncio.Future[Outcome]"]:
    """Start callers and let each run until it waits."""
    tasks = [asyncio.ensure_future(caller) for caller in callers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_second_request_is_served_from_the_cache() -> None:
    """Entra is asked once, and the look-ups tell miss from hit."""
    world = World()

    assert ["issued-1", "issued-1"] == [await world.obtain(), await world.obtain()]
    assert 1 == world.calls
    assert [CacheResult.MISS, CacheResult.HIT] == world.seen
    assert world.seen == world.observer.results(CacheName.TOKENS)


async def test_a_hit_does_not_wait() -> None:
    """It is there at once, even for a caller whose deadline has passed."""
    world = World()
    await world.obtain()
    hit = world.cached.obtain(ALICE, deadline=-1.0)

    with pytest.raises(StopIteration) as stopped:
        hit.send(None)
    assert "issued-1" == stopped.value.value.secret.reveal()


@pytest.mark.parametrize("exchange", one_of_each(), ids=lambda exchange: exchange.flow.value)
async def test_every_flow_is_cached_under_its_own_key(exchange: TokenExchange) -> None:
    """No flow's token is served for another flow."""
    world = World()
    for other in one_of_each():
        if other != exchange:
            await world.obtain(other)

    assert f"issued-{world.calls + 1}" == await world.obtain(exchange)
    assert exchange == world.entra.calls[-1]


async def test_two_hundred_callers_share_one_flight() -> None:
    """One asks Entra and the others join; all have the same token."""
    world = World()
    world.entra.hang()
    callers = await _started(*(world.obtain() for _ in range(200)))
    world.entra.release()

    assert {"issued-1"} == set(await asyncio.gather(*callers))
    assert 1 == world.calls
    assert [CacheResult.MISS, *[CacheResult.JOINED] * 199] == world.seen


async def test_callers_with_different_keys_do_not_share_a_flight() -> None:
    """Each user's token is asked for with that user's assertion."""
    world = World()
    world.entra.hang()
    callers = await _started(world.obtain(ALICE), world.obtain(BOB))
    world.entra.release()

    assert ["issued-1", "issued-2"] == await asyncio.gather(*callers)
    assert [ALICE, BOB] == world.entra.calls


@pytest.mark.parametrize("leaver", [0, 100], ids=["the one who started it", "one who joined"])
async def test_a_caller_who_leaves_does_not_cancel_the_others(leaver: int) -> None:
    """The flight belongs to nobody, not even to the caller who started it."""
    world = World()
    world.entra.hang()
    callers = await _started(*(world.obtain() for _ in range(200)))
    callers[leaver].cancel()
    await asyncio.wait({callers[leaver]})
    world.entra.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(outcomes.pop(leaver), asyncio.CancelledError)
    assert ["issued-1"] * 199 == outcomes
    assert (1, 0) == (world.calls, world.entra.cancelled)


async def test_a_flight_goes_on_when_everybody_has_left() -> None:
    """What it brings is there for the next request."""
    world = World()
    world.entra.hang()
    (caller,) = await _started(world.obtain())
    caller.cancel()
    await asyncio.wait({caller})
    world.entra.release()
    await world.cached.drain()

    assert "issued-1" == await world.obtain()
    assert (1, 0) == (world.calls, world.entra.cancelled)


async def test_a_caller_whose_deadline_comes_is_told_so_while_the_flight_goes_on() -> None:
    """The next request finds the result, and Entra was asked once."""
    world = World()
    world.entra.hang()
    error = await world.failure(within=0.0)
    world.entra.release()
    await world.cached.drain()

    assert isinstance(error, DeadlineExceeded)
    assert 1.0 == error.retry_after
    assert "issued-1" == await world.obtain()
    assert (1, 0) == (world.calls, world.entra.cancelled)


async def test_a_late_caller_does_not_delay_or_fail_a_patient_one() -> None:
    """Each waits as long as its own deadline says."""
    world = World()
    world.entra.hang()
    (patient,) = await _started(world.obtain(within=5.0))
    late = await world.failure(within=0.01)
    world.entra.release()

    assert isinstance(late, DeadlineExceeded)
    assert "issued-1" == await patient


async def test_a_missed_deadline_is_no_failure_of_the_exchange() -> None:
    """Being late is the caller's own affair and is repeated to nobody."""
    world = World()
    world.entra.hang()
    await world.failure(within=0.0)

    assert 0 == len(world.failures)
    world.entra.release()
    await world.cached.drain()


async def test_a_flight_that_takes_too_long_is_given_up() -> None:
    """Its waiters learn that Entra is unavailable, and its place is free again."""
    world = World(flight_timeout=0.01)
    world.entra.hang()
    error = await world.failure()

    assert isinstance(error, ExchangeUnavailable)
    assert 1.0 == error.retry_after
    assert (1, 0) == (world.entra.cancelled, world.cached.flights())


async def test_one_flight_too_many_is_refused_at_once() -> None:
    """Nobody queues for ever, and those who fly are not disturbed."""
    world = World(max_flights=2)
    world.entra.hang()
    callers = await _started(world.obtain(ALICE), world.obtain(BOB))
    error = await world.failure(AGENT)

    assert isinstance(error, ExchangeUnavailable)
    assert 1.0 == error.retry_after
    assert 2 == world.cached.flights() == world.calls
    world.entra.release()
    assert ["issued-1", "issued-2"] == await asyncio.gather(*callers)


async def test_a_refused_flight_is_no_failure_of_its_exchange() -> None:
    """As soon as there is room the exchange is carried out."""
    world = World(max_flights=1)
    world.entra.hang()
    callers = await _started(world.obtain(ALICE))
    await world.failure(BOB)
    world.entra.release()
    await asyncio.gather(*callers)

    assert "issued-2" == await world.obtain(BOB)


async def test_joining_needs_no_place_of_its_own() -> None:
    """The bound counts flights, not callers."""
    world = World(max_flights=1)
    world.entra.hang()
    callers = await _started(world.obtain(), world.obtain())
    world.entra.release()

    assert ["issued-1", "issued-1"] == await asyncio.gather(*callers)


async def test_the_flights_of_one_client_leave_another_its_places() -> None:
    """A client whose flights all hang is refused further ones; others fly."""
    world = World(max_flights=4, clients=2)
    other = replace(AGENT_IDENTITY, blueprint=replace(AGENT_IDENTITY.blueprint, client_id="other"))
    world.entra.hang()
    hanging = await _started(world.obtain(ALICE), world.obtain(BOB))
    error = await world.failure(AGENT)
    flying = await _started(world.obtain(Autonomous(other, GRAPH)))
    world.entra.release()

    assert isinstance(error, ExchangeUnavailable)
    assert "too many exchanges of blueprint are under way" == error.detail
    assert ["issued-1", "issued-2", "issued-3"] == await asyncio.gather(*hanging, *flying)


async def test_an_exchange_knows_how_much_time_it_has() -> None:
    """Its Check's deadline, its flight's end, and nobody's deadline where it runs ahead of its need."""
    world = World(flight_timeout=15.0)
    await world.obtain(ALICE, within=5.0)
    await world.cached.obtain(BOB, deadline=9.0, needed_by=3.0)
    world.clock.advance(REFRESH)
    await world.obtain(ALICE, within=5.0)
    await world.cached.drain()

    assert [
        Budget(5.0, 15.0),
        Budget(3.0, 15.0),
        Budget(inf, REFRESH + 15.0),
    ] == world.entra.budgets


async def test_an_exchange_that_was_not_carried_out_is_tried_again_soon() -> None:
    """The circuit may close long before the time that it names."""
    world = World()
    world.entra.fail(CircuitOpen(retry_after=9.0))
    first = await world.failure()
    world.entra.recover()
    second = await world.failure()
    world.clock.advance(1.0)

    assert [9.0, 9.0] == [first.retry_after, second.retry_after]
    assert "issued-2" == await world.obtain()


async def test_a_token_is_asked_for_again_at_its_margin() -> None:
    """The API must still find it alive."""
    world = World()
    world.entra.refresh_after = LIFETIME
    await world.obtain()
    world.clock.advance(LIFETIME - MARGIN - 1.0)
    last = await world.obtain()
    world.clock.advance(1.0)

    assert ("issued-1", "issued-2") == (last, await world.obtain())


async def test_a_token_ends_with_the_subject_token_it_rests_on() -> None:
    """A user's token that expires takes with it what was issued for it."""
    world = World()
    brief = on_behalf_of("alice", expires_at=START + 100.0)
    await world.obtain(brief)
    world.clock.advance(99.0)
    last = await world.obtain(brief)
    world.clock.advance(1.0)

    assert ("issued-1", "issued-2") == (last, await world.obtain(brief))


PAIRS: Final = [(ALICE, BOB), (AGENT, OTHER_AGENT), (AGENT, ALICE)]
STRANGERS: Final = pytest.mark.parametrize(
    ("unlucky", "other"), PAIRS, ids=["another user", "another agent", "another flow"]
)


@STRANGERS
@pytest.mark.parametrize("error", [ConsentRequired, ExchangeThrottled, ExchangeUnavailable])
async def test_ones_failure_is_never_met_by_another(
    unlucky: TokenExchange, other: TokenExchange, error: type[AuthzError]
) -> None:
    """While one's failure stands, everybody else is served, and for the asking."""
    world = World()
    world.entra.fail(error(retry_after=60.0), when=lambda exchange: exchange == unlucky)
    await world.failure(unlucky)

    assert "issued-2" == await world.obtain(other)
    assert isinstance(await world.failure(unlucky), error)
    assert [unlucky, other] == world.entra.calls


async def test_a_failure_that_lands_meets_only_those_on_its_flight() -> None:
    """Two flights in the air at once have two outcomes."""
    world = World()
    world.entra.fail(ConsentRequired(), when=lambda exchange: exchange == ALICE)
    world.entra.hang()
    callers = await _started(world.obtain(ALICE), world.obtain(BOB), world.obtain(ALICE))
    world.entra.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert [ConsentRequired, str, ConsentRequired] == [type(outcome) for outcome in outcomes]


LASTING: Final[dict[type[AuthzError], float]] = {
    InteractionRequired: 5.0,
    ConsentRequired: 5.0,
    ExchangeRejected: 5.0,
    ExchangeMisconfigured: 5.0,
    ExchangeUnavailable: 1.0,
    ExchangeThrottled: 5.0,
}


@pytest.mark.parametrize(("error", "seconds"), LASTING.items())
async def test_a_failure_is_repeated_for_as_long_as_its_class_says(
    error: type[AuthzError], seconds: float
) -> None:
    """Until then Entra is not asked; from then on it is."""
    world = World()
    refusal = error()
    world.entra.fail(refusal)
    await world.failure()
    world.clock.advance(seconds - 0.001)

    assert await world.failure() is refusal
    assert (1, CacheResult.FAILURE) == (world.calls, world.seen[-1])
    world.clock.advance(0.001)
    await world.failure()
    assert (2, CacheResult.MISS) == (world.calls, world.seen[-1])


def test_every_lasting_failure_has_its_line_above() -> None:
    """A lifetime added to the defaults needs a test."""
    assert FailureLifetimes().by_reason == {error.reason: s for error, s in LASTING.items()}


async def test_a_failure_without_a_lifetime_is_not_repeated() -> None:
    """What the table does not name is asked again at once."""
    world = World()
    world.entra.fail(KeysUnavailable())
    await world.failure()
    world.entra.recover()

    assert "issued-2" == await world.obtain()


@pytest.mark.parametrize(
    ("retry_after", "stands"),
    [
        pytest.param(20.0, 20.0, id="Entra's own wish counts"),
        pytest.param(2.0, 5.0, id="but no less than the class's lifetime"),
        pytest.param(3600.0, 3600.0, id="however long that is"),
        pytest.param(None, 5.0, id="without a wish the class decides"),
    ],
)
async def test_a_failure_stands_for_as_long_as_entra_asks(
    retry_after: float | None, stands: float
) -> None:
    """`Retry-After` is kept to, but the class's lifetime is the least."""
    world = World()
    world.entra.fail(ExchangeThrottled(retry_after=retry_after))
    await world.failure()
    world.clock.advance(stands - 0.001)
    await world.failure()
    before = world.calls
    world.clock.advance(0.001)
    await world.failure()

    assert (1, 2) == (before, world.calls)


async def test_a_failure_that_is_repeated_says_how_long_it_is_still() -> None:
    """Not the time that was left when it was new."""
    world = World()
    world.entra.fail(ExchangeThrottled("slow down", retry_after=30.0))
    first = await world.failure()
    world.clock.advance(12.5)
    later = await world.failure()

    assert [30.0, 17.5] == [first.retry_after, later.retry_after]
    assert [(ExchangeThrottled, "slow down", ("slow down",))] * 2 == [
        (type(error), error.detail, error.args) for error in (first, later)
    ]


async def test_a_time_shorter_than_the_failure_is_repeated_is_not_named() -> None:
    """Who asks again then would get the same answer."""
    world = World()
    world.entra.fail(ExchangeThrottled(retry_after=2.0))
    await world.failure()
    world.clock.advance(2.0)

    assert 3.0 == (await world.failure()).retry_after


async def test_what_was_refused_without_asking_is_repeated_no_longer_than_until_one_may_ask() -> (
    None
):
    """Another exchange may show before that time that one may ask."""
    lifetimes = FailureLifetimes()
    errors: list[AuthzError] = [
        ApplicationThrottled(retry_after=seconds) for seconds in (3.0, 3600.0)
    ]
    errors += [CircuitOpen(retry_after=seconds) for seconds in (0.5, 10.0)]

    assert [3.0, 5.0, 0.5, 1.0] == [lifetimes.seconds(error) for error in errors]


async def test_lifetimes_may_be_configured() -> None:
    """Other seconds replace the defaults."""
    lifetimes = FailureLifetimes({Reason.CONSENT_REQUIRED: 50.0})

    assert 50.0 == lifetimes.seconds(ConsentRequired())
    assert 0.0 == lifetimes.seconds(ExchangeThrottled())
    world = World(lifetimes=lifetimes)
    world.entra.fail(ExchangeThrottled())
    await world.failure()
    await world.failure()
    assert 2 == world.calls


async def test_a_success_ends_a_failure_that_was_met_meanwhile() -> None:
    """After a reload old and new share their cache; the later outcome is the true one."""
    world = World()
    older = World(failures=world.failures)
    world.entra.hang()
    callers = await _started(world.obtain())
    older.entra.fail(ConsentRequired())
    await older.failure()
    standing = len(world.failures)
    world.entra.release()
    await asyncio.gather(*callers)

    assert (1, 0) == (standing, len(world.failures))


async def test_past_its_refresh_time_a_token_is_served_while_one_flight_fetches_the_next() -> None:
    """Nobody waits, however many ask, and the successor is there afterwards."""
    world = World()
    await world.obtain()
    world.clock.advance(REFRESH)
    world.entra.hang()
    served = [await world.obtain(within=0.0) for _ in range(50)]
    flights = world.cached.flights()
    world.entra.release()
    await world.cached.drain()

    assert ["issued-1"] * 50 == served
    assert (1, 2) == (flights, world.calls)
    assert "issued-2" == await world.obtain()
    assert (0, 2) == (world.cached.flights(), world.calls)


async def test_before_its_refresh_time_a_token_is_left_alone() -> None:
    """No flight is started for a young token."""
    world = World()
    await world.obtain()
    world.clock.advance(REFRESH - 0.001)
    await world.obtain()

    assert (0, 1) == (world.cached.flights(), world.calls)


async def test_while_refreshes_fail_the_old_token_goes_on_until_its_end() -> None:
    """Entra may be down for the rest of the token's life; only then does the failure surface."""
    world = World()
    await world.obtain()
    world.entra.fail(ExchangeUnavailable())
    world.clock.advance(REFRESH)
    while world.clock() < START + LIFETIME - MARGIN:
        assert "issued-1" == await world.obtain()
        await world.cached.drain()
        world.clock.advance(60.0)

    assert isinstance(await world.failure(), ExchangeUnavailable)


async def test_a_failed_refresh_is_not_repeated_while_its_failure_stands() -> None:
    """An outage is met by one attempt per lifetime, not by one per request."""
    world = World()
    await world.obtain()
    world.entra.fail(ExchangeThrottled(retry_after=30.0))
    world.clock.advance(REFRESH)
    for _ in range(50):
        assert "issued-1" == await world.obtain()
        await world.cached.drain()
    during = world.calls
    world.clock.advance(30.0)
    await world.obtain()
    await world.cached.drain()

    assert (2, 3) == (during, world.calls)


async def test_a_refresh_that_succeeds_after_failures_is_used() -> None:
    """The outage leaves no trace."""
    world = World()
    await world.obtain()
    world.entra.fail(ExchangeUnavailable())
    world.clock.advance(REFRESH)
    await world.obtain()
    await world.cached.drain()
    world.entra.recover()
    world.clock.advance(1.0)
    await world.obtain()
    await world.cached.drain()

    assert "issued-3" == await world.obtain()
    assert 0 == len(world.failures)


async def test_a_refresh_waits_for_a_free_place_and_the_token_is_served_meanwhile() -> None:
    """Refreshing is never worth a denial."""
    world = World(max_flights=1)
    await world.obtain(ALICE)
    world.clock.advance(REFRESH)
    world.entra.hang()
    callers = await _started(world.obtain(BOB))

    assert "issued-1" == await world.obtain(ALICE)
    assert [ALICE, BOB] == world.entra.calls
    world.entra.release()
    await asyncio.gather(*callers)


async def test_a_forgotten_token_is_asked_for_again() -> None:
    """Entra no longer took it."""
    world = World()
    await world.obtain()
    world.cached.forget(ALICE)

    assert "issued-2" == await world.obtain()


async def test_a_defect_in_an_exchange_reaches_its_callers_and_nobody_else() -> None:
    """It is raised as it is, is not remembered, and leaves no flight behind."""
    world = World()
    world.entra.fail(ZeroDivisionError("defect"), when=lambda exchange: exchange == ALICE)
    with pytest.raises(ZeroDivisionError):
        await world.obtain(ALICE)
    world.entra.recover()

    assert (0, 0) == (world.cached.flights(), len(world.failures))
    assert "issued-2" == await world.obtain(ALICE)


async def test_a_defect_during_a_refresh_is_nobodys_denial() -> None:
    """The old token goes on."""
    world = World()
    await world.obtain()
    world.entra.fail(ZeroDivisionError("defect"))
    world.clock.advance(REFRESH)
    served = []
    for _ in range(3):
        served.append(await world.obtain())
        await world.cached.drain()

    assert ["issued-1"] * 3 == served


async def test_draining_waits_for_every_flight() -> None:
    """Where a configuration is replaced nothing is cut off; with nothing in the air there is no wait."""
    world = World()
    await world.cached.drain()
    world.entra.hang()
    await _started(world.obtain(ALICE), world.obtain(BOB))
    draining = asyncio.ensure_future(world.cached.drain())
    await asyncio.sleep(0)
    waiting = not draining.done()
    world.entra.release()
    await draining

    assert waiting
    assert (2, 0) == (len(world.tokens), world.cached.flights())


async def test_once_retired_it_asks_no_more_and_remembers_no_failure_of_that() -> None:
    """Others use the same tokens and failures: what it has is given out, and nothing new is asked for."""
    world = World()
    await world.obtain(ALICE)
    await world.cached.retire()
    world.clock.advance(REFRESH)
    with pytest.raises(ExchangeUnavailable, match="has been replaced"):
        await world.obtain(BOB)

    assert "issued-1" == await world.obtain(ALICE)
    assert (1, 0, 0) == (world.calls, world.cached.flights(), len(world.failures))


async def test_retiring_waits_for_every_flight() -> None:
    """What was begun by the configuration of before ends as if it were still in use."""
    world = World()
    world.entra.hang()
    waiting = await _started(world.obtain(ALICE))
    retiring = asyncio.ensure_future(world.cached.retire())
    await asyncio.sleep(0)
    world.entra.release()
    await retiring

    assert ["issued-1"] == await asyncio.gather(*waiting)


async def test_closing_gives_up_every_flight() -> None:
    """At the end of the process nobody waits any more: nothing goes on, and no outcome is left unread."""
    world = World()
    world.entra.hang()
    waiting = await _started(world.obtain(ALICE), world.obtain(BOB))
    flights = world.cached.flights()

    await world.cached.close()
    await asyncio.wait(waiting)

    assert (2, 0) == (flights, world.cached.flights())
    assert all(caller.cancelled() for caller in waiting)


async def test_each_exchange_that_was_carried_out_is_observed_once() -> None:
    """Flow, outcome, duration and route, for the flight and not for each of its callers."""
    world = World()
    refusal = ConsentRequired()
    world.entra.fail(refusal, when=lambda exchange: exchange == BOB)
    world.entra.hang()
    callers = await _started(
        world.obtain(AGENT, route="mail"), world.obtain(AGENT, route="files"), world.obtain(BOB)
    )
    world.clock.advance(2.0)
    world.entra.release()
    await asyncio.gather(*callers, return_exceptions=True)

    assert [
        (Flow.AUTONOMOUS, None, 2.0),
        (Flow.ON_BEHALF_OF, refusal, 2.0),
    ] == world.observer.exchanges
    assert ["mail", None] == world.observer.begun_for


async def test_a_renewal_is_observed_for_the_route_that_wants_it() -> None:
    """One that is waited for, and one that nobody waits for."""
    world = World()
    token = await world.cached.obtain(AGENT, deadline=world.timer() + 5, route="mail")
    await world.cached.renew(AGENT, instead_of=token, deadline=world.timer() + 5, route="pushed")
    world.clock.advance(REFRESH)
    await world.obtain(AGENT, route="files")
    await world.cached.drain()

    assert ["mail", "pushed", "files"] == world.observer.begun_for


async def test_an_exchange_that_was_not_carried_out_is_not_observed() -> None:
    """Its assertion was refused, say: that is observed where it was asked for."""
    world = World()
    world.entra.carried_out = False
    world.entra.fail(ExchangeMisconfigured())
    await world.failure(BOB)

    assert [] == world.observer.exchanges


async def test_an_error_raised_to_many_does_not_grow() -> None:
    """Its traceback is as long after two hundred callers as after one, on the flight and later."""
    world = World()
    world.entra.fail(ConsentRequired())
    alone = traceback.extract_tb((await world.failure(BOB)).__traceback__)
    world.entra.hang()
    callers = await _started(*(world.failure(ALICE) for _ in range(200)))
    world.entra.release()
    (shared,) = {id(error): error for error in await asyncio.gather(*callers)}.values()
    landed = len(traceback.extract_tb(shared.__traceback__))
    for _ in range(200):
        await world.failure(ALICE)
    repeated = len(traceback.extract_tb(shared.__traceback__))

    assert max(landed, repeated) <= len(alone)


async def test_a_standing_failure_keeps_neither_frames_nor_causes_of_its_flight() -> None:
    """They would hold the exchange with its tokens for as long as the failure stands."""
    world = World()
    refusal = ConsentRequired()
    refusal.__cause__ = ValueError("the answer of Entra")
    world.entra.fail(refusal)
    world.entra.hang()
    (caller,) = await _started(world.obtain())
    caller.cancel()
    await asyncio.wait({caller})
    world.entra.release()
    await world.cached.drain()
    standing = world.failures.get(cache_key(ALICE), world.clock.moment())

    assert standing is not None
    assert (None, None) == (standing.__traceback__, standing.__cause__)


class Renewals(World):
    """Whoever keeps a token fresh."""

    async def renew(self, instead_of: IssuedToken | None = None) -> IssuedToken:
        """Return a token that is not due."""
        deadline = self.timer() + 5.0
        return await self.cached.renew(ALICE, instead_of=instead_of, deadline=deadline)


async def test_renewal_takes_a_cached_token_that_is_not_due() -> None:
    """Whoever fetched it."""
    world = Renewals()
    await world.obtain()

    assert "issued-1" == (await world.renew()).secret.reveal()
    assert 1 == world.calls


async def test_renewal_waits_for_the_successor_of_a_token_that_is_due() -> None:
    """A Check in the meantime still gets the old one; both share the flight."""
    world = Renewals()
    await world.obtain()
    world.clock.advance(REFRESH)
    world.entra.hang()
    (renewal,) = await _started(world.renew())
    assert "issued-1" == await world.obtain()
    world.entra.release()

    assert "issued-2" == (await renewal).secret.reveal()
    assert 2 == world.calls


async def test_renewal_replaces_the_token_it_is_told_to() -> None:
    """Before Entra recommends it, too; another than that one is good enough."""
    world = Renewals()
    first = await world.renew()

    second = await world.renew(instead_of=first)

    assert ("issued-2", 2) == (second.secret.reveal(), world.calls)
    assert second is await world.renew(instead_of=first)


async def test_renewal_does_not_ask_again_while_a_failure_stands() -> None:
    """It meets the failure that a Check met, and the token that is there stays."""
    world = Renewals()
    await world.obtain()
    world.clock.advance(REFRESH)
    world.entra.fail(ExchangeUnavailable("down"))
    for _ in range(2):
        with pytest.raises(ExchangeUnavailable):
            await world.renew()

    assert ("issued-1", 2) == (await world.obtain(), world.calls)


async def test_a_token_that_an_api_refused_is_not_handed_out_again() -> None:
    """The next one who asks gets another; one who still has an older one drops nothing by it."""
    world = World()
    refused = await world.cached.obtain(ALICE, deadline=world.timer() + 5)
    world.cached.reject(ALICE, refused)
    second = await world.obtain()
    world.clock.advance(600)
    world.cached.reject(ALICE, refused)

    assert ("issued-1", "issued-2", "issued-2") == (
        refused.secret.reveal(), second, await world.obtain(),
    )  # fmt: skip


async def test_an_api_that_refuses_everything_makes_us_ask_little() -> None:
    """Of one exchange; the tokens of others are dropped in their own time (law 8)."""
    world = World()
    for _ in range(60):
        for exchange in (ALICE, BOB):
            token = await world.cached.obtain(exchange, deadline=world.timer() + 5)
            world.cached.reject(exchange, token)
        world.clock.advance(10)

    # At once, and after 60, 180 and 420 seconds: with the first ones, five for each.
    assert 2 * 5 == world.calls


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0, 3600.0, 86_400.0])
async def test_a_failure_ends_in_time_whoever_sets_the_wall_clock(set_by: float) -> None:
    """A second is a second: an agent is not dead for as long as a clock was wrong."""
    world = World()
    world.entra.fail(ExchangeUnavailable("down", retry_after=1.0))
    await world.failure(AGENT)
    world.entra.recover()
    world.clock.set_by(set_by)
    await world.failure(AGENT)
    world.clock.advance(1.0)

    assert "issued-2" == await world.obtain(AGENT)


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0])
async def test_a_token_ends_and_is_renewed_in_time_after_the_clock_was_set_back(
    set_by: float,
) -> None:
    """Its successor is fetched, and it is given up, as if nobody had touched the clock."""
    world = World()
    await world.obtain(AGENT)
    world.clock.set_by(set_by)
    world.clock.advance(REFRESH - 0.001)
    early = (await world.obtain(AGENT), world.calls)
    world.entra.hang()
    world.clock.advance(0.001)
    due = await world.obtain(AGENT)
    await asyncio.sleep(0)
    renewals = world.calls
    world.clock.advance(LIFETIME - MARGIN - REFRESH)
    world.entra.release()

    assert (("issued-1", 1), "issued-1", 2) == (early, due, renewals)
    assert "issued-2" == await world.obtain(AGENT)


async def test_a_token_that_was_issued_while_the_clock_was_ahead_ends_in_time() -> None:
    """Its lifetime is counted from when it was asked for."""
    world = World()
    world.clock.set_by(3600.0)
    await world.obtain(AGENT)
    world.clock.set_by(-3600.0)
    world.entra.fail(ConsentRequired())
    world.clock.advance(LIFETIME - MARGIN - 0.001)
    assert "issued-1" == await world.obtain(AGENT)
    world.clock.advance(0.001)

    assert isinstance(await world.failure(AGENT), ConsentRequired)


async def test_what_has_ended_by_the_wall_clock_is_not_handed_out() -> None:
    """Set ahead, also for a moment: what it says has ended is fetched again."""
    world = World()
    await world.obtain(AGENT)
    world.clock.set_by(LIFETIME)

    assert "issued-2" == await world.obtain(AGENT)


def test_the_page_states_for_how_long_failures_are_repeated() -> None:
    """Under each reason, in seconds: a user who was enabled again can tell when to try."""
    page = (Path(__file__).parents[2] / "docs/errors.md").read_text()
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    words = {1.0: "For a second", 5.0: "For 5 seconds"}

    assert dict.fromkeys(FailureLifetimes().by_reason, True) == {
        reason: words[seconds] in sections[reason.value]
        for reason, seconds in FailureLifetimes().by_reason.items()
    }
