"""The records of a log, as far as they are counted, in pieces by minutes of Kafka time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import DEAD_LETTERS, RAW, empty, joined
from beam_pipelines.transforms.completeness.checks import MINUTE_MS

Ints = NDArray[np.int64]
Rows = TypeVar("Rows", pa.RecordBatch, Ints)

TICK_COLUMNS = ["offset", "symbol", "source", "seq", "timestamp", "log_time"]
"""What of TICKS is looked at."""
OTHERS = pa.schema([RAW.field("offset"), RAW.field("timestamp")])
"""Records that are no valid ticks."""
LETTERS = pa.schema([DEAD_LETTERS.field("offset"), DEAD_LETTERS.field("reason")])
"""What of DEAD_LETTERS is looked at."""
VALUES = pa.schema([RAW.field("offset"), RAW.field("value")])
"""The bytes of records."""


class Piece(NamedTuple):
    """Some records that follow each other; all that is here is in the order of offsets."""

    ticks: pa.RecordBatch  # TICK_COLUMNS of the valid ones, repeated and late ones too
    others: pa.RecordBatch  # OTHERS
    dead: pa.RecordBatch  # LETTERS of those that could not be used or came too late
    duplicates: Ints  # offsets of the ticks that repeat an earlier one
    late: Ints  # offsets of the ticks that came after their bar had closed, but not too late
    values: pa.RecordBatch  # VALUES of the first `schemas.SAMPLES` ticks of each source at least

    @classmethod
    def of(
        cls, raw: pa.RecordBatch, ticks: pa.RecordBatch, dead: pa.RecordBatch | None, duplicates: Ints, late: Ints
    ) -> "Piece":
        """All records of a batch.

        Args:
          raw: RAW.
          ticks: TICKS, all valid ones among them.
          dead: DEAD_LETTERS; None: there are none.
          duplicates: as the attribute, and so `late`.
          late: offsets.
        """
        others = NO_OTHERS if len(ticks) == len(raw) else _others(raw, ticks)
        letters = NO_LETTERS if dead is None else _plain(dead, LETTERS.names)
        return cls(_plain(ticks, TICK_COLUMNS), others, letters, duplicates, late, _plain(raw, VALUES.names))

    @classmethod
    def joined(cls, pieces: Sequence["Piece"]) -> "Piece":
        """Pieces that follow each other as one."""
        ticks, others, dead, values = (joined([it[place] for it in pieces]) for place in (0, 1, 2, 5))
        duplicates, late = (np.concatenate([it[place] for it in pieces]) for place in (3, 4))
        return cls(ticks, others, dead, duplicates, late, values)

    @property
    def records(self) -> int:
        """How many there are."""
        return len(self.ticks) + len(self.others)

    def times(self) -> tuple[Ints, Ints]:
        """Offset and Kafka time of each record, ms; the time of a tick without one is its event time, of others -1."""
        ticks, others = (self.ticks, "log_time"), (self.others, "timestamp")
        if not len(self.others):
            return offsets_of(self.ticks), self.ticks["log_time"].to_numpy()
        offsets = np.concatenate([offsets_of(batch) for batch, _ in (ticks, others)])
        times = np.concatenate([batch[name].to_numpy() for batch, name in (ticks, others)])
        order = np.argsort(offsets)
        return offsets[order], times[order]

    def by_minute(self, clock: int) -> Iterator[tuple[int, "Piece"]]:
        """The records of each minute.

        Args:
          clock: Kafka time of the partition before them, ms.
        """
        if not self.records:
            return
        offsets, times = self.times()
        if int(times.max()) // MINUTE_MS <= clock // MINUTE_MS:
            yield clock // MINUTE_MS, self
            return
        minutes = np.maximum.accumulate(np.maximum(times, clock)) // MINUTE_MS
        starts = np.flatnonzero(np.diff(minutes, prepend=minutes[0] - 1))
        bounds = np.append(offsets[starts], offsets[-1] + 1)
        edges = [np.searchsorted(it if isinstance(it, np.ndarray) else offsets_of(it), bounds).tolist() for it in self]
        for at, minute in enumerate(minutes[starts].tolist()):
            yield minute, Piece(*(_cut(it, edge[at], edge[at + 1]) for it, edge in zip(self, edges, strict=True)))


NO_OTHERS, NO_LETTERS = empty(OTHERS), empty(LETTERS)


def _others(raw: pa.RecordBatch, ticks: pa.RecordBatch) -> pa.RecordBatch:
    is_other = np.ones(len(raw), np.bool_)
    is_other[np.searchsorted(offsets_of(raw), offsets_of(ticks))] = False
    return _plain(raw, OTHERS.names).filter(pa.array(is_other))


def offsets_of(batch: pa.RecordBatch) -> Ints:
    """The offsets of a batch that has a column of them."""
    offsets: Ints = batch["offset"].to_numpy()
    return offsets


def _plain(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    return batch.select(names).replace_schema_metadata(None)


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    return rows[start:stop] if isinstance(rows, np.ndarray) else rows.slice(start, stop - start)
