"""Ticks seen before: exact identities, columnar, over a bounded stretch of event time.

A tick is identified by (source, symbol, timestamp, seq).  Only a tick that is not newer than the newest seen of its
symbol can be a repeat, so most cost one comparison; the rest are looked up by
a hash, and every hit is compared in full.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.bars import by_symbol
from beam_pipelines.transforms.packing import Packed, pack, unpack

__all__ = ["Identities", "Seen"]

Ints = NDArray[np.int64]
Rows = NDArray[np.intp]
_NEVER = np.iinfo(np.int64).min
_CHUNK = 16_384  # rows up to which chunks are merged: few to look in, cheap to sort again


@dataclass
class Identities:
    """Identities of ticks, each field of shape [ticks]."""

    symbol: Ints  # column of the symbol
    source: Ints  # number of the source
    timestamp: Ints  # ms
    seq: Ints

    def __len__(self) -> int:
        return len(self.symbol)

    def take(self, rows: Rows | NDArray[np.bool_]) -> "Identities":
        """Some of them."""
        return Identities(*(values[rows] for values in vars(self).values()))

    def hashed(self) -> NDArray[np.uint64]:
        """A hash of each; equal identities have equal hashes."""
        mixed = np.zeros(len(self), np.uint64)
        for values in vars(self).values():
            mixed = (mixed ^ values.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        return mixed

    def equal(self, other: "Identities") -> NDArray[np.bool_]:
        """Row by row, whether both are the same tick."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return np.logical_and.reduce([mine == its for mine, its in pairs])

    def to_batch(self) -> pa.RecordBatch:
        """As Arrow columns, packed: seven bytes a tick for thirty-two."""
        packed = {name: pack(values) for name, values in vars(self).items()}
        least = msgspec.json.encode({name: it.least for name, it in packed.items()})
        columns = {name: pa.array(it.more) for name, it in packed.items()}
        return pa.record_batch(columns).replace_schema_metadata({"least": least})

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch) -> "Identities":
        """What `to_batch` wrote; columns without a least value are whole, as older versions wrote them."""
        least = msgspec.json.decode((batch.schema.metadata or {}).get(b"least", b"{}"))
        columns = zip(batch.schema.names, batch.columns, strict=True)
        return cls(*(unpack(Packed(column.to_numpy(), least.get(name, 0))) for name, column in columns))


class _Chunk:
    """Identities sorted by their hashes."""

    def __init__(self, ticks: Identities) -> None:
        hashes = ticks.hashed()
        order = np.argsort(hashes)
        self.ticks = ticks.take(order)
        self.hashes = hashes[order]
        self.oldest, self.newest = int(ticks.timestamp.min()), int(ticks.timestamp.max())

    def holds(self, asked: Identities) -> NDArray[np.bool_]:
        """Which of `asked` are in here."""
        hashes = asked.hashed()
        at = np.searchsorted(self.hashes, hashes)
        found = np.zeros(len(asked), bool)
        rows: Rows = np.arange(len(asked))
        while len(rows):  # again only where two identities share a hash
            near = at < len(self.hashes)
            rows, at = rows[near], at[near]
            same_hash = self.hashes[at] == hashes[rows]
            rows, at = rows[same_hash], at[same_hash]
            found[rows] |= asked.take(rows).equal(self.ticks.take(at))
            at = at + 1
        return found


class Seen:
    """The identities of the ticks accepted lately."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._newest = np.empty(0, np.int64)  # newest timestamp seen of each symbol
        self._added: list[Identities] = []

    def __len__(self) -> int:
        return sum(len(chunk.ticks) for chunk in self._chunks)

    def identities(self) -> list[Identities]:
        """All that is remembered, in any order."""
        return [chunk.ticks for chunk in self._chunks]

    def drain(self) -> list[Identities]:
        """What was added since the last call."""
        added, self._added = self._added, []
        return added

    def add(self, accepted: Identities) -> None:
        """Remembers ticks."""
        if not len(accepted):
            return
        self._added.append(accepted)
        self._grow(int(accepted.symbol.max()) + 1)
        np.maximum.at(self._newest, accepted.symbol, accepted.timestamp)
        merged = accepted
        while self._chunks and self._is_worth_merging(len(merged)):
            older = vars(self._chunks.pop().ticks)
            merged = Identities(*(np.concatenate([older[name], values]) for name, values in vars(merged).items()))
        self._chunks.append(_Chunk(merged))

    def forget(self, before: int) -> None:
        """Drops what may be dropped of the ticks dated before `before`, ms."""
        self._chunks = [chunk for chunk in self._chunks if chunk.newest >= before]

    def sources(self) -> Ints:
        """Numbers of the sources that are remembered, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(chunk.ticks.source for chunk in self._chunks)]))

    def renumber_sources(self, used: Ints) -> None:
        """Gives the source `used[i]` the number i."""
        for chunk in self._chunks:
            chunk.ticks.source = np.searchsorted(used, chunk.ticks.source)
        self._chunks = [_Chunk(chunk.ticks) for chunk in self._chunks]

    def repeats(self, ticks: Identities) -> NDArray[np.bool_]:
        """Which ticks were seen, or stand earlier in `ticks`; shape [ticks]."""
        repeated = np.zeros(len(ticks), bool)
        if not len(ticks):
            return repeated
        self._grow(int(ticks.symbol.max()) + 1)
        suspects = np.flatnonzero(ticks.timestamp <= self._newest_before(ticks))
        time = ticks.timestamp[suspects]
        for chunk in self._chunks:
            rows = suspects[(time >= chunk.oldest) & (time <= chunk.newest)]
            if len(rows):
                repeated[rows] |= chunk.holds(ticks.take(rows))
        _mark_repeats_within(ticks, suspects, repeated)
        return repeated

    def _grow(self, symbols: int) -> None:
        if symbols > len(self._newest):
            self._newest = np.concatenate([self._newest, np.full(symbols - len(self._newest), _NEVER)])

    def _is_worth_merging(self, rows: int) -> bool:
        """Whether `rows` more should join the last chunk: only if of like size, so that sorting stays cheap."""
        last = len(self._chunks[-1].ticks)
        return last <= 2 * rows and last + rows <= _CHUNK

    def _newest_before(self, ticks: Identities) -> Ints:
        """Newest timestamp of the same symbol before each tick; shape [ticks]."""
        newest: Ints = self._newest[ticks.symbol]
        order = by_symbol(ticks.symbol)
        symbol, start = ticks.symbol[order], ticks.timestamp.min()
        group = np.cumsum(np.diff(symbol, prepend=symbol[0]) != 0)
        lift = group * (ticks.timestamp.max() - start + 1)  # keeps the running maximum of each symbol to itself
        running = np.maximum.accumulate(ticks.timestamp[order] - start + lift) - lift + start
        same = np.flatnonzero(np.diff(group) == 0)
        later = order[same + 1]
        newest[later] = np.maximum(newest[later], running[same])
        return newest


def _mark_repeats_within(ticks: Identities, suspects: Rows, repeated: NDArray[np.bool_]) -> None:
    """Marks the suspects that repeat an earlier row of the same batch."""
    if not len(suspects):
        return
    hashes = ticks.hashed()
    ordered = np.sort(hashes)
    rows = np.flatnonzero(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]]))
    identities = zip(*(values.tolist() for values in vars(ticks.take(rows)).values()), strict=True)
    known: set[tuple[int, ...]] = set()
    for row, identity in zip(rows.tolist(), identities, strict=True):
        if identity in known:
            repeated[row] = True
        known.add(identity)
