"""Clocks of sources, against the log's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_pipelines.transforms.completeness.checks import MINUTE_MS, Check, some

Ints = NDArray[np.int64]

AHEAD_MS = 1_000
"""Servers whose clocks are kept by NTP differ by less than a second."""
BEHIND_MS = 10_000
"""No network takes so long: either the clock is wrong or the source keeps its ticks back."""
REPLAY_MS = 3_600_000
"""What is older is no wrong clock but a replay."""
_STEADY = 9 / 8  # two neighbouring buckets
_STEADY_MINUTES = 3
_MANTISSA_BITS = 4  # of a bucket: it is 1/16 of a power of two wide
_DROPPED = 23 - _MANTISSA_BITS
_BUCKETS = (127 + 64) << _MANTISSA_BITS


class ClockSkew:
    """How long after its event time a tick is in the log, by source: a histogram over logarithmic buckets.

    A bucket is the upper bits of 1 + lag as a float32, so it is exact and costs a few nanoseconds; what is ahead of the
    log is in the first.

    Attributes:
      medians: of each source in its last minutes, ms.
    """

    def __init__(self) -> None:
        self.medians: dict[str, list[float]] = {}
        self._lags: Ints = np.zeros((0, _BUCKETS), np.int64)
        self._lowest: Ints = np.empty(0, np.int64)

    def add(self, source: Ints, lag: Ints, sources: int) -> None:
        """Takes in the lags of ticks, ms; `sources` is how many there are."""
        more = sources - len(self._lags)
        if more > 0:
            self._lags = np.concatenate([self._lags, np.zeros((more, _BUCKETS), np.int64)])
            self._lowest = np.append(self._lowest, np.zeros(more, np.int64))
        bucket = np.maximum((lag + 1).astype(np.float32), np.float32(0)).view(np.int32) >> _DROPPED
        flat = self._lags.reshape(-1)
        flat += np.bincount(source * _BUCKETS + bucket, minlength=len(flat))
        if lag.min() < 0:
            np.minimum.at(self._lowest, source, lag)

    def close(self, minute: int, sources: Sequence[str]) -> Check:
        """Judges the open minute and empties it."""
        worst, threshold, found = 0.0, float(BEHIND_MS), list[str]()
        for at in np.flatnonzero(self._lags.any(axis=1)).tolist():
            name, lowest = sources[at], int(self._lowest[at])
            median = self._median(name, self._lags[at])
            if lowest < -AHEAD_MS:
                found.append(f"{name} is up to {-lowest} ms ahead of the log")
                if -lowest > abs(worst):
                    worst, threshold = float(lowest), -float(AHEAD_MS)
            elif median is not None:
                found.append(f"{name} is steadily {median:.0f} ms behind the log")
                if median > abs(worst):
                    worst, threshold = median, float(BEHIND_MS)
        self._lags[:], self._lowest[:] = 0, 0
        detail = some(found) or "no source's clock is off"
        return Check(minute * MINUTE_MS, "clock_skew", not found, worst, threshold, detail)

    def _median(self, name: str, lags: Ints) -> float | None:
        """The median lag if it is that of a wrong clock: long, narrow, and the same for minutes; learns it."""
        total = np.cumsum(lags)
        tenth, median, ninth = (lag_of(int(np.searchsorted(total, total[-1] * q))) for q in (0.1, 0.5, 0.9))
        before = [*self.medians.get(name, []), median][-_STEADY_MINUTES:]
        self.medians[name] = before
        steady = len(before) == _STEADY_MINUTES and max(before) <= min(before) * _STEADY
        narrow = ninth - tenth <= median / 4
        return median if steady and narrow and BEHIND_MS < median < REPLAY_MS else None

    def to_lists(self, sources: int) -> list[Any]:
        """The open minute."""
        flat = self._lags[:sources].reshape(-1)
        used = np.flatnonzero(flat)
        return [used.tolist(), flat[used].tolist(), self._lowest[:sources].tolist()]

    def restore(self, lists: list[Any], medians: dict[str, list[float]], sources: int) -> None:
        """Takes what `to_lists` gave."""
        used, counts, lowest = lists
        self.medians = medians
        self._lags = np.zeros((sources, _BUCKETS), np.int64)
        self._lags.reshape(-1)[used] = counts
        self._lowest = np.array(lowest + [0] * (sources - len(lowest)), np.int64)


def lag_of(bucket: int) -> float:
    """The lag in the middle of a bucket, ms."""
    low, high = np.array([bucket << _DROPPED, (bucket + 1) << _DROPPED], np.int32).view(np.float32).tolist()
    return max((low + high) / 2 - 1, 0.0) if bucket else 0.0
