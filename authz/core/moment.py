"""`Moment`: a point in time by both clocks, so that nothing which is held depends on one of them alone.

What a token says of itself (`exp`) is about the wall clock, which somebody may set. What this service
counts by itself, such as how long a failure stands, is about the monotonic clock, which nobody sets, but
which may stop while a machine is suspended. No clock is read here.
"""

from math import inf
from typing import Final, NamedTuple


class _Clocks(NamedTuple):
    wall: float
    steady: float


class Moment(_Clocks):
    """Now, or an end: an end has come as soon as one of the clocks has reached it.

    Attributes:
        wall: Epoch seconds.
        steady: Monotonic seconds.
    """

    __slots__ = ()
    # There are two clocks, so no order. A tuple's would quietly be that of the wall clock.
    __lt__ = __le__ = __gt__ = __ge__ = None  # type: ignore[assignment]

    def later(self, seconds: float) -> "Moment":
        """Return what comes so much later, by either clock."""
        return Moment(self.wall + seconds, self.steady + seconds)

    def counted(self, seconds: float) -> "Moment":
        """Return the end of a time that we count by ourselves: setting the wall clock does not move it."""
        return Moment(inf, self.steady + seconds)

    def epoch(self, second: float) -> "Moment":
        """Return, seen from this moment, the end that a token names.

        It has come when the wall clock shows the second, or when as much time has passed as is left now:
        a wall clock that is set back later prolongs nothing.
        """
        return Moment(second, self.steady + (second - self.wall))

    def has_come(self, now: "Moment") -> bool:
        """Whether this end has come."""
        return now.wall >= self.wall or now.steady >= self.steady

    def left(self, now: "Moment") -> float:
        """Return the seconds until this end; less than 0 when it has passed."""
        return min(self.wall - now.wall, self.steady - now.steady)


NEVER: Final = Moment(inf, inf)


def earliest(first: Moment, *others: Moment) -> Moment:
    """Return the end that has come as soon as any of these has."""
    ends = (first, *others)
    return Moment(min(end.wall for end in ends), min(end.steady for end in ends))
