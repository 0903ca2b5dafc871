"""`Observers` gathers what comes often, and loses nothing of it."""

import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs

from authz.config.settings import Decisions
from authz.core.exchange import Flow
from authz.core.request import CheckRequest
from authz.envoy.ext_authz import reply
from authz.observe.decision_log import DecisionLog
from authz.observe.metrics import Metrics
from authz.observe.observers import MOST_GATHERED, Observers
from authz.observe.registry import own_registry
from authz.ports import CacheName, CacheResult, CheckRecord, Repeat
from support.fakes import FakeObserver
from support.scene import INBOUND, Scene
from support.stack import until


async def _repeats(scene: Scene, number: int) -> list[Repeat]:
    """The same answer, given again so many times, half of them inbound."""
    token = scene.tenant.user_token()
    requests = [
        scene.request("inbound", INBOUND, token),
        scene.request("egress", Flow.AUTONOMOUS, None),
    ]
    for request in requests:
        reply(await scene.check(request))
    for index in range(number):
        assert scene.repeat(requests[index % 2])
    return scene.observer.repeats


async def test_repeats_are_passed_on_a_moment_later_and_all_at_once() -> None:
    """Every observer hears of each, in order."""
    repeats = await _repeats(Scene(), 3)
    heard = [FakeObserver(), FakeObserver()]
    observers = Observers(heard)
    for repeat in repeats:
        observers.repeated([repeat])
    before = [list(observer.repeats) for observer in heard]
    await until(lambda: all(observer.repeats for observer in heard))

    assert [[], []] == before
    assert [repeats, repeats] == [observer.repeats for observer in heard]


async def test_there_is_a_next_time() -> None:
    """What comes after a batch is the next one's."""
    first, second = await _repeats(Scene(), 2)
    heard = FakeObserver()
    observers = Observers([heard])
    observers.repeated([first])
    await until(lambda: heard.repeats == [first])
    observers.repeated([second])
    await until(lambda: heard.repeats == [first, second])


async def test_repeats_that_are_many_do_not_wait() -> None:
    """What is gathered is bounded."""
    repeats = await _repeats(Scene(), 1)
    heard = FakeObserver()
    observers = Observers([heard])
    for _ in range(MOST_GATHERED):
        observers.repeated(repeats)

    assert MOST_GATHERED == len(heard.repeats)


async def test_what_is_gathered_can_be_asked_for() -> None:
    """At a scrape and at the end; nothing is told twice."""
    repeats = await _repeats(Scene(), 2)
    heard = FakeObserver()
    observers = Observers([heard])
    observers.flush()
    observers.repeated(repeats)
    observers.flush()
    observers.flush()
    await asyncio.sleep(0)

    assert repeats == heard.repeats


async def test_whether_requests_are_wanted_is_asked_after_each_batch() -> None:
    """What is logged may change at any time."""
    (repeat,) = await _repeats(Scene(), 1)
    log = DecisionLog(Decisions.MADE)
    observers = Observers([log])
    assert not observers.reads_requests
    log.which = Decisions.ALL
    observers.repeated([repeat])
    observers.flush()

    assert observers.reads_requests


async def test_an_unwanted_request_is_not_read() -> None:
    """The hit path is for those who want speed."""
    scene = Scene()
    request = scene.request("egress", Flow.AUTONOMOUS, None)
    reply(await scene.check(request))
    scene.observer.reads_requests = False
    assert scene.repeat(request)

    assert [None] == [repeat.request for repeat in scene.observer.repeats]


async def test_repeats_count_like_checks() -> None:
    """The same series, whichever way an answer was given; and a hit of the answers' cache each."""
    repeats = await _repeats(Scene(), 5)
    registry = own_registry()
    Metrics(registry, frozenset()).repeated(repeats)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    for direction, route, number in (("inbound", INBOUND, 3), ("egress", "autonomous", 2)):
        allowed = {"direction": direction, "route": route, "decision": "allow"}
        assert number == value("authz_checks_total", **allowed, reason="none")
        assert number == value("authz_check_duration_seconds_count", **allowed)
    assert 5 == value("authz_cache_lookups_total", cache="answers", result="hit")


class Failing(FakeObserver):
    """An observer that raises whenever it is told something."""

    def decided(self, record: CheckRecord) -> None:
        """Fail."""
        raise OSError

    def repeated(self, repeats: Sequence[Repeat]) -> None:
        """Fail."""
        raise OSError

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Fail."""
        raise RuntimeError


async def test_an_observer_that_fails_spoils_no_decision() -> None:
    """The others hear of it all the same, the failures are counted, and each kind is logged once."""
    scene = Scene()
    heard = FakeObserver()
    observers = Observers([Failing(), heard])
    repeats = await _repeats(scene, 2)
    with capture_logs() as logged:
        for _ in range(3):
            observers.decided(CheckRecord(CheckRequest(), 0.0))
        observers.looked_up(CacheName.TOKENS, CacheResult.HIT)
        observers.repeated(repeats)
        observers.flush()

    assert 3 + len(repeats) == len(heard.records)
    assert repeats == heard.repeats
    assert 5 == observers.failures
    assert ["OSError", "RuntimeError"] == [record["cause"] for record in logged]
