"""`Proofs`: each client's credential is shown to Entra once, at the start and whenever it has changed.

So a wrong secret is known before a user needs it, and an operator knows which one counts. A proof is an
ordinary exchange, by the cache, the flights and the limits that Checks have; its token is kept. Which
exchange it is, is `authz.config.proofs`; what Entra takes is remembered in `authz.entra.credentials`.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from authz.core.errors import AuthzError, EntraError, ExchangeThrottled, ExchangeUnavailable
from authz.core.exchange import Client, TokenExchange
from authz.ports import Standing, Timer
from authz.tokens.caching import CachedExchange

ATTEMPT: Final = 60.0
"""Seconds that a proof waits for its flight. The flight's own time is shorter."""
SPREAD: Final = 10.0
"""Seconds over which the replicas of a service show a new version that they all got at once."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts without an answer, the first and the longest; the pause doubles."""
FIRST_PAUSE_REFUSED: Final = 5.0
LONGEST_PAUSE_REFUSED: Final = 300.0
"""The same after a refusal: a new secret takes minutes to reach all of Entra."""

Way = tuple[CachedExchange, TokenExchange]
"""By which cache a client's proof is asked for, and which exchange it is."""


@dataclass(slots=True)
class _Course:
    """How far the proofs of one client have come.

    Attributes:
        due: Monotonic second of the next attempt.
        standing: As it was when somebody looked last.
        failures: Attempts without success, one after the other.
        is_through: Whether Entra, asked with the client's credential, has not refused it, in this process.
        cause: Why the last attempt failed; None before the first has ended, and after a success.
        running: The attempt that is under way.
    """

    due: float
    standing: Standing = Standing.UNPROVED
    failures: int = 0
    is_through: bool = False
    cause: str | None = None
    running: asyncio.Task[None] | None = field(default=None, repr=False)


class Proofs:
    """Shows credentials to Entra.

    Args:
        ways: The way of each client. Who has none is never asked for, and counts as proved.
        standings: How clients stand. Called for each look, so it must cost next to nothing.
        served: Clients of which Entra has taken some version.
        timer: Monotonic seconds.
        jitter: A number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        ways: Mapping[Client, Way],
        *,
        standings: Callable[[], Mapping[Client, Standing]],
        served: Callable[[], AbstractSet[Client]],
        timer: Timer,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ways = ways
        self._standings = standings
        self._served = served
        self._timer = timer
        self._jitter = jitter
        self._courses: dict[Client, _Course] = {}

    def adopt(self, older: "Proofs") -> None:
        """Go on where the proofs of the version before have come to."""
        for client, course in older._courses.items():  # noqa: SLF001 - of this class
            if client in self._ways:
                self._courses[client] = replace(course, running=None)

    def advance(self) -> None:
        """Begin the proofs that are due. Called each second or so, after credentials were looked at."""
        now, served = self._timer(), self._served()
        for client, standing in self._standings().items():
            if client not in self._ways or standing is Standing.UNREAD:
                continue
            is_first = client not in self._courses
            course = self._courses.setdefault(client, _Course(now))
            if client in served:
                course.is_through = True
            if standing is Standing.ACCEPTED:
                course.cause, course.failures = None, 0
            elif standing is not course.standing and standing is Standing.UNPROVED and not is_first:
                spread = SPREAD if course.is_through else 0.0
                course.due, course.failures = now + self._jitter() * spread, 0
            course.standing = standing
            if standing is not Standing.ACCEPTED and course.running is None and now >= course.due:
                course.running = asyncio.get_running_loop().create_task(self._prove(client, course))

    def pending(self) -> dict[str, str]:
        """Return the clients whose first proof has not ended, by name, in words."""
        return {
            client.name: "not shown to Entra yet"
            for client in self._ways
            if (course := self._courses.get(client)) is None
            or not (course.is_through or course.cause is not None)
        }

    def unserved(self) -> dict[str, str]:
        """Return why clients were never served in this process, by name: refused, or no answer."""
        return {
            client.name: course.cause
            for client, course in self._courses.items()
            if course.cause is not None and not course.is_through
        }

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end. Flights go on, as ever."""
        running = [course.running for course in self._courses.values() if course.running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _prove(self, client: Client, course: _Course) -> None:
        tokens, exchange = self._ways[client]
        pause = 0.0
        try:
            # Never what is there already: the point is to ask. A flight that is under way is joined.
            await tokens.renew(
                exchange, instead_of=tokens.held(exchange), deadline=self._timer() + ATTEMPT
            )
        except AuthzError as error:
            error.bare()
            pause = self._failed(course, error)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the next attempt may succeed
            course.cause = f"not shown to Entra: {type(fault).__name__}"
            pause = LONGEST_PAUSE
        else:
            # Not by the version that is the newest now: it changed meanwhile, or is refused and an older
            # one is in use.
            course.failures += 1
            refused = self._standings().get(client) is Standing.REFUSED
            pause = LONGEST_PAUSE_REFUSED if refused else FIRST_PAUSE
            course.is_through, course.cause = True, None
        finally:
            course.due = self._timer() + pause * (0.5 + self._jitter() / 2)
            course.running = None

    def _failed(self, course: _Course, error: AuthzError) -> float:
        """Take note of a failure; return how long to wait."""
        course.failures += 1
        doubled = 2.0 ** min(course.failures - 1, 10)
        match error:
            case EntraError(by_credential=True):
                course.cause = f"refused by Entra: {error}"
                return min(LONGEST_PAUSE_REFUSED, FIRST_PAUSE_REFUSED * doubled)
            case ExchangeThrottled():
                # Entra answers, and may take it: nothing that cached tokens or a later try do not get over.
                course.is_through = True
                # Never earlier than it says, whatever the jitter.
                return 2 * max(error.retry_after or 0.0, min(LONGEST_PAUSE, FIRST_PAUSE * doubled))
            case EntraError() if not isinstance(error, ExchangeUnavailable):
                # It is about what was asked for. The routes that want the same are refused, and say why.
                course.is_through = True
                return LONGEST_PAUSE_REFUSED
            case _:
                course.cause = f"not shown to Entra: {error}"
                return min(LONGEST_PAUSE, FIRST_PAUSE * doubled)
