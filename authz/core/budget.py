"""`Budget`: the time that one exchange may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Until when an exchange is of use. Monotonic seconds.

    Attributes:
        needed_by: When the Check that started the exchange stops waiting. Its result is cached also later.
        ends: When the exchange is given up. Nothing of it, no thread either, lasts longer.
    """

    needed_by: float
    ends: float
