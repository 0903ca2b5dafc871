"""`Bulkheads`: a holder whose calls hang waits for itself, and for nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from authz.core.shares import Shares
from authz.entra.bulkheads import Bulkheads
from support.programs.stack import until


def _given(call: Callable[[], None]) -> Callable[[], None]:
    return call


class Hall:
    """Calls that wait until they are released, in places of several holders."""

    def __init__(self, places: Shares) -> None:
        self.threads = ThreadPoolExecutor(100)
        self.bulkheads = Bulkheads(self.threads, places)
        self.places = places
        self.over = Event()
        self.begun: list[str] = []

    def start(self, holder: str, number: int = 1) -> list["asyncio.Task[str]"]:
        """Start calls that hang."""

        def call() -> str:
            self.begun.append(holder)
            self.over.wait(30)
            return holder

        return [
            asyncio.create_task(self.bulkheads.run(holder, lambda: call)) for _ in range(number)
        ]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that nobody holds up."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    """Two holders with two places each, and four that they share."""
    hall = Hall(Shares(8, holders=2))
    yield hall
    hall.over.set()
    hall.threads.shutdown()


async def test_a_holder_that_hangs_leaves_the_others_their_places(hall: Hall) -> None:
    """Its further calls wait; those of another are carried out at once."""
    hanging = hall.start("a", 20)
    await until(lambda: len(hall.begun) == 4)
    served = await asyncio.gather(
        *(hall.bulkheads.run("b", lambda: lambda: "b") for _ in range(20))
    )

    assert ["b"] * 20 == served
    assert ["a"] * 4 == hall.begun
    hall.over.set()
    assert ["a"] * 20 == await asyncio.gather(*hanging)
    await until(lambda: (0, 0) == (hall.places.taken("a"), hall.places.taken("b")))


async def test_a_place_is_free_when_its_thread_has_ended_and_not_before(hall: Hall) -> None:
    """A caller that leaves does not end its thread: the holder may not start another one in its place."""
    hanging = hall.start("a", 4)
    await until(lambda: len(hall.begun) == 4)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    (waiting,) = hall.start("a")
    await asyncio.sleep(0)

    assert (4, 4) == (hall.places.taken("a"), len(hall.begun))
    hall.over.set()
    assert "a" == await waiting


async def test_a_caller_that_leaves_while_it_waits_loses_nobody_a_place(hall: Hall) -> None:
    """Neither before its turn nor at the very moment of it."""
    hanging = hall.start("a", 4)
    await until(lambda: len(hall.begun) == 4)
    early, late, last = hall.start("a", 3)
    await asyncio.sleep(0)
    early.cancel()
    hall.over.set()
    await asyncio.gather(*hanging)
    late.cancel()
    await asyncio.wait({early, late, last})

    assert "a" == await last
    await until(lambda: not hall.places.taken("a"))


async def test_waiting_calls_are_carried_out_in_their_order(threads: ThreadPoolExecutor) -> None:
    """Nobody overtakes."""
    bulkheads = Bulkheads(threads, Shares(1, holders=1))
    order: list[int] = []
    calls = [partial(order.append, number) for number in range(50)]
    await asyncio.gather(*(bulkheads.run("a", partial(_given, call)) for call in calls))

    assert list(range(50)) == order


async def test_what_a_call_raises_reaches_its_caller_and_frees_the_place(
    threads: ThreadPoolExecutor,
) -> None:
    """Also where there are no threads any more."""
    places = Shares(1, holders=1)
    bulkheads = Bulkheads(threads, places)
    with pytest.raises(ZeroDivisionError):
        await bulkheads.run("a", lambda: lambda: 1 // 0)
    await until(lambda: not places.taken("a"))
    threads.shutdown()
    with pytest.raises(RuntimeError):
        await bulkheads.run("a", lambda: lambda: 1)

    assert 0 == places.taken("a")
