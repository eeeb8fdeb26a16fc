"""Numbers that are missing among those that sources give to their ticks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.completeness.checks import EXAMPLES, MINUTE_MS, Check, some

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONSECUTIVE_SHARE, CONSECUTIVE_STEPS = 0.9, 100
"""Steps of +1 among so many by which a source is known to number the ticks of each symbol one by one."""
_PAIR_MINUTES = 60
_RESTART = 100  # from lower numbers a source that starts again is soon back
_LEARNING_MINUTES = 32
_NONE = np.iinfo(np.int64).min


class Sequences:
    """The numbers that sources give to the ticks of a symbol: those missing between the lowest and the highest.

    Counted per pair of source and symbol and minute, so the order within a minute does not matter; a number that comes
    after its minute was missing.  Where numbers are Kafka offsets, for want of others, nothing is counted.

    Attributes:
      learnt: of each source, the steps seen (up to CONSECUTIVE_STEPS), minutes, and the share of steps that are +1.
    """

    _CELLS = ("low", "high", "edge", "count", "seen")

    def __init__(self) -> None:
        self.learnt: dict[str, list[float]] = {}
        self._width = 1
        self._low = self._high = self._edge = self._count = self._seen = np.empty(0, np.int64)
        self._make(0, 1)
        self._tracked = False

    def _make(self, height: int, width: int) -> None:
        """Cells [height * width], by source and symbol.

        low: the highest number before the minute, or none.  high: the highest now.  edge: of a pair without `low` the
        lowest number of the minute, of others the highest that is not above `low`.  count: numbers above `low` in the
        minute.  seen: the last minute.
        """
        self._width = width
        self._low, self._high, self._edge = (np.full(height * width, _NONE) for _ in range(3))
        self._count, self._seen = (np.zeros(height * width, np.int64) for _ in range(2))

    def _cells(self) -> list[Ints]:
        return [getattr(self, f"_{name}") for name in self._CELLS]

    def keep(self, sources: Ints, symbols: Ints) -> None:
        """Keeps these columns only, in this order."""
        old = [cells.reshape(-1, self._width) for cells in self._cells()]
        height, width = len(old[0]), self._width
        sources, symbols = sources[sources < height], symbols[symbols < width]
        self._make(height, width)
        for cells, before in zip(self._cells(), old, strict=True):
            cells.reshape(height, width)[: len(sources), : len(symbols)] = before[np.ix_(sources, symbols)]

    def _grow(self, sources: int, symbols: int) -> None:
        height = len(self._low) // self._width
        if sources <= height and symbols <= self._width:
            return
        old, before = [cells.reshape(-1, self._width) for cells in self._cells()], self._width
        self._make(max(height, _power_of_two(sources)), max(before, _power_of_two(symbols)))
        for cells, values in zip(self._cells(), old, strict=True):
            cells.reshape(-1, self._width)[:height, :before] = values

    def add(self, source: Ints, symbol: Ints, seq: Ints, offset: Ints, shape: tuple[int, int]) -> None:
        """Takes in ticks; `shape` is how many sources and symbols there are."""
        is_offset = seq == offset
        if is_offset.all() and not self._tracked:
            return
        self._grow(*shape)
        pair = source * self._width + symbol
        low = self._low.take(pair)
        unknown = low == _NONE
        if unknown.any():
            rows = ~(unknown & is_offset)
            pair, low, seq = pair[rows], low[rows], seq[rows]
            self._add_firsts(pair[unknown[rows]], seq[unknown[rows]])
        above = seq > low
        if not above.all():
            below = ~above
            np.maximum.at(self._edge, pair[below], seq[below])
            pair, seq = pair[above], seq[above]
        np.maximum.at(self._high, pair, seq)
        self._count += np.bincount(pair, minlength=len(self._count))

    def _add_firsts(self, pair: Ints, seq: Ints) -> None:
        """Takes in numbers of pairs that have no `low`."""
        unset = pair[self._edge[pair] == _NONE]
        self._edge[unset] = np.iinfo(np.int64).max
        np.minimum.at(self._edge, pair, seq)

    def close(self, minute: int, sources: Sequence[str], symbols: Sequence[str]) -> Check:
        """Judges and learns the open minute."""
        active = np.flatnonzero(self._count)
        fresh = self._low[active] == _NONE
        first = np.where(fresh, self._edge[active], self._low[active] + 1)
        span = (self._high[active].view(np.uint64) - first.view(np.uint64)).astype(np.float64) + 1.0
        count = self._count[active]
        missing = np.where(fresh, 0.0, np.maximum(span - count, 0.0))
        broken = np.minimum(np.maximum(span - count, 0.0), count)  # a step of +1 less for each missing, at most
        judged = self._judged(active // self._width, count, broken, sources)
        rows = np.flatnonzero((missing > 0) & judged)
        rows = rows[np.argsort(-missing[rows], kind="stable")]
        examples = [
            f"{sources[pair // self._width]} lacks {missing[row]:.0f} of the numbers {first[row]} to "
            f"{self._high[pair]} of {symbols[pair % self._width]}"
            for row, pair in zip(rows[:EXAMPLES].tolist(), active[rows[:EXAMPLES]].tolist(), strict=True)
        ]
        self._forget(active, minute)
        detail = some(examples, len(rows)) or "no sequence number is missing"
        total = float(missing[rows].sum())
        return Check(minute * MINUTE_MS, "sequence", not total, total, 0.0, detail)

    def _judged(self, source: Ints, count: Ints, broken: Floats, sources: Sequence[str]) -> Mask:
        """Which pairs are of sources that number one by one, by what is known before this minute; learns the minute."""
        steps = np.bincount(source, count, len(sources))
        whole = steps - np.bincount(source, broken, len(sources))
        numbered = np.zeros(len(sources), bool)
        for at in np.flatnonzero(steps).tolist():
            known, minutes, share = self.learnt.get(sources[at], [0, 0, 0.0])
            numbered[at] = known >= CONSECUTIVE_STEPS and share >= CONSECUTIVE_SHARE
            minutes = min(minutes + 1, _LEARNING_MINUTES)
            share += (whole[at] / steps[at] - share) / minutes
            self.learnt[sources[at]] = [min(known + int(steps[at]), CONSECUTIVE_STEPS), minutes, float(share)]
        judged: Mask = numbered[source]
        return judged

    def _forget(self, active: Ints, minute: int) -> None:
        """Makes ready for the next minute."""
        anew = np.flatnonzero((self._low != _NONE) & (self._count == 0) & (self._edge != _NONE))
        self._seen[anew] = self._seen[active] = minute
        low = self._low[anew]
        anew = anew[(low >= _RESTART) & (self._edge[anew] <= low // 2)]  # the source counts from the start again
        self._low[anew] = self._high[anew] = self._edge[anew]
        self._low[active] = self._high[active]
        self._count[:], self._edge[:] = 0, _NONE
        gone = self._seen < minute - _PAIR_MINUTES
        self._low[gone] = self._high[gone] = _NONE
        self._tracked = bool((self._low != _NONE).any())

    def to_columns(self) -> dict[str, Any]:
        """The pairs in use."""
        used = np.flatnonzero((self._low != _NONE) | (self._edge != _NONE))
        pair = {"source": used // self._width, "symbol": used % self._width}
        return pair | {name: cells[used] for name, cells in zip(self._CELLS, self._cells(), strict=True)}

    def restore(self, learnt: dict[str, list[float]], pairs: pa.RecordBatch, shape: tuple[int, int]) -> None:
        """Takes what `to_columns` gave."""
        self.learnt = learnt
        self._grow(*shape)
        at = pairs["source"].to_numpy() * self._width + pairs["symbol"].to_numpy()
        for name, cells in zip(self._CELLS, self._cells(), strict=True):
            cells[at] = pairs[name].to_numpy()
        self._tracked = bool((self._low != _NONE).any())


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()
