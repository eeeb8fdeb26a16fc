"""The records of a batch, by minutes of Kafka time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.completeness.checks import MINUTE_MS

Ints = NDArray[np.int64]


class Piece(NamedTuple):
    """Records of one minute."""

    raw: pa.RecordBatch  # RAW
    ticks: pa.RecordBatch  # TICKS
    dead: pa.RecordBatch | None  # DEAD_LETTERS
    duplicates: Ints  # offsets
    late: Ints  # offsets


def by_minute(
    raw: pa.RecordBatch, ticks: pa.RecordBatch, dead: pa.RecordBatch | None, duplicates: Ints, late: Ints, clock: int
) -> Iterator[tuple[int, Piece]]:
    """The records of each minute.

    Args:
      raw: as `Completeness.take` has it, and so the four that follow.
      ticks: TICKS.
      dead: DEAD_LETTERS or None.
      duplicates: offsets, ascending.
      late: offsets, ascending.
      clock: Kafka time of the partition before them, ms.
    """
    if not len(raw):
        return
    times = log_times(raw, ticks)
    if int(times.max()) // MINUTE_MS <= clock // MINUTE_MS:
        yield clock // MINUTE_MS, Piece(raw, ticks, dead, duplicates, late)
        return
    minutes = np.maximum.accumulate(np.maximum(times, clock)) // MINUTE_MS
    starts = np.flatnonzero(np.diff(minutes, prepend=minutes[0] - 1))
    offsets = raw["offset"].to_numpy()
    bounds = np.append(offsets[starts], offsets[-1] + 1)
    edges = [
        np.searchsorted(rows, bounds).tolist() for rows in (offsets, *map(offsets_of, (ticks, dead)), duplicates, late)
    ]
    for at, minute in enumerate(minutes[starts].tolist()):
        r, t, d, u, v = (slice(edge[at], edge[at + 1]) for edge in edges)
        letters = None if dead is None else _cut(dead, d)
        yield minute, Piece(_cut(raw, r), _cut(ticks, t), letters, duplicates[u], late[v])


def log_times(raw: pa.RecordBatch, ticks: pa.RecordBatch) -> Ints:
    """Kafka time of each record, ms; of a tick without one its event time, of others -1.

    Args:
      raw: RAW, in offset order, [n].
      ticks: TICKS, all valid ones among them, in offset order.

    Returns:
      Times by row of `raw`, [n].
    """
    times: Ints = raw["timestamp"].to_numpy()
    if len(ticks) and times.min(initial=0) < 0:
        times = times.copy()
        times[np.searchsorted(raw["offset"].to_numpy(), offsets_of(ticks))] = ticks["log_time"].to_numpy()
    return times


def offsets_of(batch: pa.RecordBatch | None) -> Ints:
    """The offsets of a batch that has a column of them, none of None."""
    return np.empty(0, np.int64) if batch is None else batch["offset"].to_numpy()


def _cut(batch: pa.RecordBatch, rows: slice) -> pa.RecordBatch:
    return batch.slice(rows.start, rows.stop - rows.start)
