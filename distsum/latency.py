"""How long a server took to answer, counted in bins, and how often it was asked again."""

from __future__ import annotations

import math
import threading
from collections import Counter
from typing import Final

import msgspec

_BASE: Final = 1.2
_LEAST_SECONDS: Final = 1e-4


class Latencies(msgspec.Struct, frozen=True, array_like=True):
    """Requests to a server.

    Attributes:
        counts: Answered requests by the bin that their seconds lie in: bin n ends at 0.1 ms times 1.2 to the n.
        retries: Requests that were made again, since an earlier one was refused for the moment, broke off or stalled.
    """

    counts: dict[int, int] = {}
    retries: int = 0

    def plus(self, other: Latencies) -> Latencies:
        """Return both together."""
        return Latencies(dict(Counter(self.counts) + Counter(other.counts)), self.retries + other.retries)

    def quantile_seconds(self, share: float) -> float:
        """Return what this share of the requests did not exceed, to within a tenth; 0 of none.

        >>> counter = LatencyCounter()
        >>> for milliseconds in range(1, 101):
        ...     counter.add(milliseconds / 1000)
        >>> latencies = counter.take()
        >>> 0.045 < latencies.quantile_seconds(0.5) < 0.055, 0.09 < latencies.quantile_seconds(0.99) < 0.11
        (True, True)
        """
        wanted = share * sum(self.counts.values())
        for place in sorted(self.counts):
            wanted -= self.counts[place]
            if wanted <= 0:
                return float(_LEAST_SECONDS * _BASE ** (place - 0.5))
        return 0.0


class LatencyCounter:
    """Counts in one thread, while another takes what was counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[int] = Counter()
        self._retries = 0

    def add(self, seconds: float) -> None:
        """Count a request that was answered after so long."""
        place = max(0, math.ceil(math.log(max(seconds, _LEAST_SECONDS) / _LEAST_SECONDS, _BASE)))
        with self._lock:
            self._counts[place] += 1

    def add_retry(self) -> None:
        """Count a request that is made again."""
        with self._lock:
            self._retries += 1

    def take(self) -> Latencies:
        """Return what was counted since this was last asked."""
        with self._lock:
            taken = Latencies(dict(self._counts), self._retries)
            self._counts.clear()
            self._retries = 0
        return taken
