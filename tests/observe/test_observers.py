"""`Observers` gathers what comes often, and loses nothing of it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.event import Decided, Event, LookedUp
from authz.core.exchange import Flow
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.observe.metrics import Metrics
from authz.observe.observers import MOST_GATHERED, MOST_RECORDS, Observers
from authz.observe.registry import own_registry
from support.fakes.recorder import Recorder
from support.fakes.records import record_of, repeated, repeats_of
from support.fakes.scene import INBOUND, Scene
from support.programs.stack import until


async def _repeats(scene: Scene, number: int) -> list[CheckRecord]:
    """The same answer, given again so many times, half of them inbound."""
    token = scene.tenant.user_token()
    requests = [
        scene.request("inbound", INBOUND, token),
        scene.request("egress", Flow.AUTONOMOUS, None),
    ]
    for request in requests:
        await scene.check(request)
    return [await scene.check(requests[index % 2]) for index in range(number)]


def _tell(observers: Observers, *records: CheckRecord) -> None:
    """Notify of each that it was given again."""
    for (granted, _), record in zip(repeats_of(records), records, strict=True):
        observers.repeated(granted, record)


@pytest.mark.parametrize("reads", [False, True])
async def test_repeats_are_passed_on_a_moment_later_and_all_at_once(*, reads: bool) -> None:
    """Every observer receives each answer, in order, and the records only where one of them reads records."""
    repeats = await _repeats(Scene(), 3)
    heard = [Recorder(), Recorder()]
    observers = Observers(heard, reads_records=lambda: reads)
    _tell(observers, *repeats)
    before = [list(observer.repeats) for observer in heard]
    await until(lambda: all(observer.repeats for observer in heard))

    assert [[], []] == before
    assert [repeats_of(repeats)] * 2 == [observer.repeats for observer in heard]
    assert [repeats if reads else []] * 2 == [observer.records for observer in heard]


async def test_records_are_passed_on_from_the_flush_after_which_somebody_reads_them() -> None:
    """A reload flushes for that. Answers are passed on each time."""
    repeats, reads = await _repeats(Scene(), 1), False
    heard = Recorder()
    observers = Observers([heard], reads_records=lambda: reads)
    numbers = []
    for reads in (True, False):  # noqa: B007 - read above
        observers.flush()
        _tell(observers, *repeats)
        observers.flush()
        numbers.append(len(heard.records))

    assert [1, 1] == numbers
    assert 2 == len(heard.repeats)


async def test_there_is_a_next_time() -> None:
    """What comes after a batch is the next one's."""
    first, second = await _repeats(Scene(), 2)
    heard = Recorder()
    observers = Observers([heard], reads_records=lambda: True)
    _tell(observers, first)
    await until(lambda: heard.records == [first])
    _tell(observers, second)
    await until(lambda: heard.records == [first, second])


@pytest.mark.parametrize(("reads", "most"), [(False, MOST_GATHERED), (True, MOST_RECORDS)])
async def test_repeats_that_are_many_do_not_wait(*, reads: bool, most: int) -> None:
    """What is gathered is bounded, and by less where it is written down. It counts as seen at once."""
    repeats = await _repeats(Scene(), 1)
    heard = Recorder()
    observers = Observers([heard], reads_records=lambda: reads)
    found = []
    for _ in range(most):
        _tell(observers, *repeats)
        found.append((observers.seen, len(heard.repeats)))

    assert [(number, 0) for number in range(1, most)] + [(most, most)] == found


async def test_what_is_gathered_can_be_asked_for() -> None:
    """At a scrape and at the end; nothing is told twice."""
    repeats = await _repeats(Scene(), 2)
    heard = Recorder()
    observers = Observers([heard], reads_records=lambda: True)
    observers.flush()
    _tell(observers, *repeats)
    observers.flush()
    observers.flush()
    await asyncio.sleep(0)

    assert repeats == heard.records


async def test_repeats_count_like_checks() -> None:
    """The same series, whichever way an answer was given; and a hit of the answers' cache each."""
    repeats = await _repeats(Scene(), 5)
    registry = own_registry()
    Metrics(registry, frozenset()).observe(repeated(repeats))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    for direction, route, number in (("inbound", INBOUND, 3), ("egress", "autonomous", 2)):
        allowed = {"direction": direction, "route": route, "decision": "allow"}
        assert number == value("authz_checks_total", **allowed, reason="none")
        assert number == value("authz_check_duration_seconds_count", **allowed)
    assert 5 == value("authz_cache_lookups_total", cache="answers", result="hit")


class Failing(Recorder):
    """An observer that raises whenever it is told something."""

    def observe(self, event: Event) -> None:
        """Fail, in its own way for each kind."""
        raise OSError if isinstance(event, Decided) else RuntimeError


async def test_an_observer_that_fails_spoils_no_decision() -> None:
    """The others hear of it all the same, the failures are counted, and each kind is logged once."""
    scene = Scene()
    heard = Recorder()
    observers = Observers([Failing(), heard], reads_records=lambda: True)
    repeats = await _repeats(scene, 2)
    with capture_logs() as logged:
        for _ in range(3):
            observers.observe(Decided(record_of(Deny(Reason.INTERNAL))))
        observers.observe(LookedUp(CacheName.TOKENS, CacheResult.HIT))
        _tell(observers, *repeats)
        observers.flush()

    assert 3 + len(repeats) == len(heard.records)
    assert repeats == heard.records[3:]
    assert 5 == observers.failures
    assert ["OSError", "RuntimeError"] == [record["cause"] for record in logged]
