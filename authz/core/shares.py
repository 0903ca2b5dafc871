"""`Shares`: a bounded number of places, divided so that no holder can take them all.

Accounting only. Who waits for a place, and what a place is for, is decided by its users.
"""

from collections import Counter
from collections.abc import Hashable


class Shares:
    """Places of several holders: a guaranteed share for each, and a rest that all of them use.

    Half of the places are divided into guaranteed shares. Of the rest, a holder may take a place while it
    uses less of the rest than is free (dynamic thresholds, Choudhury and Hahne 1998). So one holder gets at
    most half of the rest, and the next one still half of what is left. A single holder gets everything.

    Args:
        total: Places in all. With very many holders there are more, because of `least`.
        holders: Number of holders that are expected.
        least: Smallest guaranteed share.
    """

    def __init__(self, total: int, *, holders: int, least: int = 1) -> None:
        holders = max(1, holders)
        self.guaranteed = max(least, total if holders == 1 else total // 2 // holders)
        """Places that each holder can always take."""
        self.rest = 0 if holders == 1 else max(total // 2, total - self.guaranteed * holders)
        """Places that are shared."""
        self.total = self.guaranteed * holders + self.rest
        self._taken: Counter[Hashable] = Counter()
        self._rest_taken = 0

    def take(self, holder: Hashable) -> bool:
        """Take a place, if the holder may have one more."""
        beyond = self._taken[holder] - self.guaranteed
        if beyond >= 0:
            if beyond >= self.rest - self._rest_taken:
                return False
            self._rest_taken += 1
        self._taken[holder] += 1
        return True

    def give_back(self, holder: Hashable) -> None:
        """Give one place of the holder back."""
        if self._taken[holder] > self.guaranteed:
            self._rest_taken -= 1
        self._taken[holder] -= 1
        if not self._taken[holder]:
            del self._taken[holder]

    def taken(self, holder: Hashable) -> int:
        """Return how many places a holder has."""
        return self._taken.get(holder, 0)
