"""`Budget`: the time that one exchange may take, and whether it has come to anything."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Budget:
    """Until when an exchange is of use. Monotonic seconds.

    Attributes:
        needed_by: When the Check that started the exchange stops waiting. Its result is cached also later.
        ends: When the exchange is given up. Nothing of it, no thread either, lasts longer.
        carried_out: Whether a request of the exchange itself has gone out: False where there was no
            assertion for it, an open circuit or an unreadable credential. None where the exchange does not
            report it.
        route: Name of the egress route for which the exchange was begun, for the log; None where it was
            begun for none, as when a credential is shown to Entra. Others may wait for the same exchange.
    """

    needed_by: float
    ends: float
    carried_out: bool | None = field(default=None, compare=False)
    route: str | None = field(default=None, compare=False)
