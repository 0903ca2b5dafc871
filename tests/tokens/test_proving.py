"""When a credential is shown to Entra, and how often: once for each version, and without a storm."""

import asyncio
from collections.abc import Mapping

import pytest

from authz.core.cache import FailureCache, TokenCache
from authz.core.errors import (
    ConsentRequired,
    ExchangeMisconfigured,
    ExchangeThrottled,
    ExchangeUnavailable,
)
from authz.core.exchange import AppToken, Client, Target
from authz.core.record import CacheName
from authz.core.shares import Shares
from authz.ports import Standing
from authz.tokens.caching import CachedExchange
from authz.tokens.proving import LONGEST_PAUSE, LONGEST_PAUSE_REFUSED, SPREAD, Proofs
from support.fakes.clock import Clock
from support.fakes.fakes import FakeExchange
from support.fakes.recorder import Recorder

CLIENT = Client("desk", "tenant", "client")
OTHER = Client("clerk", "tenant", "other")
REFUSED = ExchangeMisconfigured("wrong secret", by_credential=True)


class Scene:
    """Proofs of one client before a scripted Entra; what it takes is the test's to say."""

    def __init__(self, *, jitter: float = 1.0) -> None:
        self.clock = Clock()
        self.entra = FakeExchange(self.clock.moment)
        self.standing = Standing.UNPROVED
        self.served: set[Client] = set()
        tokens = CachedExchange(
            self.entra,
            tokens=TokenCache(max_entries=10, max_bytes=10**6, margin=60),
            failures=FailureCache(max_entries=10),
            name=CacheName.TOKENS,
            observer=Recorder(),
            clock=self.clock,
            timer=self.clock.timer,
            flight_timeout=15,
            places=Shares(10, holders=1),
        )
        self.ways = {CLIENT: (tokens, AppToken(CLIENT, Target(("api://orders/.default",))))}
        self.jitter = jitter
        self.proofs = self.make()

    def make(self) -> Proofs:
        """Return the proofs of another version of the configuration."""
        return Proofs(
            self.ways,
            standings=self._standings,
            served=lambda: self.served,
            timer=self.clock.timer,
            jitter=lambda: self.jitter,
        )

    def _standings(self) -> Mapping[Client, Standing]:
        return {CLIENT: self.standing, OTHER: Standing.UNPROVED}

    def accept(self) -> None:
        """Let Entra have taken the newest version."""
        self.standing, self.served = Standing.ACCEPTED, {CLIENT}

    async def look(self, times: int = 1, *, every: float = 1.0) -> int:
        """Look as often as said, with what follows from it; return how often Entra has been asked."""
        for _ in range(times):
            self.proofs.advance()
            for _ in range(8):
                await asyncio.sleep(0)
            self.clock.advance(every)
        return len(self.entra.calls)


async def test_a_credential_is_shown_once_and_its_token_is_the_one_that_is_kept() -> None:
    """At the first look; an hour of looks later nobody has asked again."""
    scene = Scene()
    first = scene.proofs.pending()
    asked = await scene.look()
    scene.accept()
    tokens, exchange = scene.ways[CLIENT]
    held = tokens.held(exchange)
    later = await scene.look(3600)

    assert {"desk": "not shown to Entra yet"} == first
    assert (1, 1) == (asked, later)
    assert ({}, {}) == (scene.proofs.pending(), scene.proofs.unserved())
    assert held is not None


async def test_a_client_that_nothing_is_asked_for_is_not_waited_for() -> None:
    """Where the configuration says that credentials are not shown ahead."""
    scene = Scene()
    scene.ways.clear()

    assert 0 == await scene.look(10)
    assert ({}, {}) == (scene.proofs.pending(), scene.proofs.unserved())


async def test_a_client_without_a_credential_is_not_asked_for() -> None:
    """There is nothing to show; when there is, it is shown at once."""
    scene = Scene()
    scene.standing = Standing.UNREAD
    before = await scene.look(100)
    scene.standing = Standing.UNPROVED

    assert (0, 1) == (before, await scene.look())


async def test_a_new_version_is_shown_at_some_moment_of_the_next_seconds() -> None:
    """Replicas get it at one moment. The token that is held is no answer to the question."""
    scene = Scene(jitter=0.5)
    await scene.look()
    scene.accept()
    await scene.look()
    scene.standing = Standing.UNPROVED
    at_once = await scene.look()
    within = await scene.look(int(SPREAD / 2))

    assert (1, 2) == (at_once, within)


async def test_a_new_version_of_what_was_refused_is_shown_at_once() -> None:
    """The service waits for it."""
    scene = Scene()
    scene.entra.fail(REFUSED)
    await scene.look()
    scene.standing = Standing.REFUSED
    await scene.look(2)
    scene.standing = Standing.UNPROVED
    scene.entra.recover()
    scene.clock.advance(5)

    assert 2 == await scene.look()


async def test_a_refusal_is_asked_about_ever_more_rarely() -> None:
    """Entra's own replicas may take minutes. In a day it is 12 times an hour, not 3,600."""
    scene = Scene()
    scene.entra.fail(REFUSED)
    scene.standing = Standing.REFUSED
    await scene.look()
    refused = scene.proofs.unserved()
    first_hour = await scene.look(3600)
    second_hour = await scene.look(3600) - first_hour

    assert {"desk": "refused by Entra: wrong secret"} == refused
    assert 20 >= first_hour
    assert 3600 / LONGEST_PAUSE_REFUSED >= second_hour


async def test_an_entra_that_is_away_is_asked_again_soon_and_not_all_the_time() -> None:
    """No answer: the client is not served, until there is one."""
    scene = Scene()
    scene.entra.fail(ExchangeUnavailable("no route"))
    await scene.look()
    away = scene.proofs.unserved()
    await scene.look(120)
    before = len(scene.entra.calls)
    await scene.look(int(LONGEST_PAUSE) * 10)
    asked = len(scene.entra.calls) - before
    scene.entra.recover()
    scene.accept()
    await scene.look()

    assert {"desk": "not shown to Entra: no route"} == away
    assert 11 >= asked >= 9
    assert {} == scene.proofs.unserved()


async def test_a_throttled_client_is_left_alone_for_as_long_as_entra_wants() -> None:
    """It answers, so the service may be ready; nobody asks before that time."""
    scene = Scene(jitter=0.0)
    scene.entra.fail(ExchangeThrottled("slow down", retry_after=40))
    await scene.look()
    unserved, pending = scene.proofs.unserved(), scene.proofs.pending()
    meanwhile = await scene.look(38)

    assert ({}, {}) == (unserved, pending)
    assert 1 == meanwhile
    assert 2 <= await scene.look(60)


@pytest.mark.parametrize("error", [ConsentRequired(), ExchangeMisconfigured("no such resource")])
async def test_a_refusal_of_something_else_says_nothing_against_the_credential(
    error: Exception,
) -> None:
    """The routes that want the same say it themselves."""
    scene = Scene()
    scene.entra.fail(error)
    await scene.look()

    assert ({}, {}) == (scene.proofs.pending(), scene.proofs.unserved())
    assert 13 >= await scene.look(3600)


async def test_a_defect_is_no_proof_and_ends_nothing() -> None:
    """Whatever is raised, the next attempt comes."""
    scene = Scene()
    scene.entra.fail(RuntimeError())
    await scene.look()
    unserved = scene.proofs.unserved()
    await scene.look(100)

    assert {"desk": "not shown to Entra: RuntimeError"} == unserved
    assert 3 <= len(scene.entra.calls)


async def test_an_older_version_in_use_serves_while_the_newest_is_refused() -> None:
    """It is asked about again every few minutes: it may have been registered meanwhile."""
    scene = Scene()
    scene.standing, scene.served = Standing.REFUSED, {CLIENT}
    first_hour = await scene.look(3600)

    assert ({}, {}) == (scene.proofs.pending(), scene.proofs.unserved())
    assert 13 >= first_hour >= 12


async def test_what_was_refused_after_it_was_served_once_is_no_reason_to_be_unready() -> None:
    """A rotation that went wrong must not empty a Service."""
    scene = Scene()
    await scene.look()
    scene.accept()
    await scene.look()
    scene.standing, scene.served = Standing.UNPROVED, set()
    scene.entra.fail(REFUSED)
    await scene.look(30)

    assert {} == scene.proofs.unserved()
    assert 2 <= len(scene.entra.calls)


async def test_a_reload_asks_nothing_that_was_answered() -> None:
    """Nor does it forget how long to wait; what is under way goes on to its end."""
    scene = Scene()
    scene.entra.fail(REFUSED)
    scene.standing = Standing.REFUSED
    await scene.look(200)
    before, old = len(scene.entra.calls), scene.proofs
    scene.proofs = scene.make()
    scene.proofs.adopt(old)
    after = await scene.look(10)
    unserved = scene.proofs.unserved()
    scene.ways = {}
    gone = scene.make()
    gone.adopt(scene.proofs)

    assert before == after
    assert {"desk": "refused by Entra: wrong secret"} == unserved
    assert {} == gone.unserved()


async def test_closing_waits_for_nobody() -> None:
    """An attempt that hangs ends with the service, and a second one is not begun beside it."""
    scene = Scene()
    scene.entra.hang()
    asked = await scene.look(100)
    await scene.proofs.close()
    await scene.proofs.close()

    assert 1 == asked
