"""`Histogram`: Prometheus's, which takes many observations at once."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import prometheus_client


class Histogram(prometheus_client.Histogram):
    """A histogram for observations that come in batches."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each amount. What falls into one bucket takes its lock once."""
        # As `observe` has it, bucket by bucket.
        bounds, buckets = self._upper_bounds, self._buckets
        for index, count in Counter(bisect_left(bounds, amount) for amount in amounts).items():
            buckets[index].inc(count)
        self._sum.inc(sum(amounts))
