"""`WorkerSeat`: the place of a process among several that share a port, as its supervisor hands it over.

Who hands it over is `authz.process.worker`, who sits there `authz.process.app`. Imports nothing that takes
time.
"""

import os
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "AUTHZ_WORKER_SEAT"
"""`ADDRESS FD FD`: makes a process a worker."""


@dataclass(frozen=True, slots=True)
class WorkerSeat:
    """The place of this process among several that share a port.

    Attributes:
        address: Where to listen: the configured address with the port that the supervisor holds.
        report_to: File descriptor to which readiness is reported, a line about each second.
        lifeline: File descriptor that ends when the supervisor does, however it ends.
    """

    address: str
    report_to: int
    lifeline: int

    @classmethod
    def of(cls, text: str) -> "WorkerSeat":
        """Read the variable.

        Raises:
            ValueError: It is none of a supervisor's.
        """
        address, _, descriptors = text.partition(" ")
        report_to, _, lifeline = descriptors.partition(" ")
        try:
            for descriptor in (report_to, lifeline):
                os.fstat(int(descriptor))
        except (ValueError, OverflowError, OSError):
            raise ValueError(
                f"{VARIABLE}: authz sets it for its own workers; expected it to be unset"
            ) from None
        return cls(address, int(report_to), int(lifeline))

    def __str__(self) -> str:
        return f"{self.address} {self.report_to} {self.lifeline}"
