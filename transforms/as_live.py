"""A stretch of the log once more as the stream took it: late ticks late, too late ones left out.

The rows are those that the stream had in the end.  The ticks come in the order of the log, and the state goes on from
one stretch to the next as the stream's did.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.advance import FOREVER, Advanced, Semantics, advance, provisional
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.day import PIECE, Ends, Piece, Pieces, Stretch
from beam_pipelines.transforms.partition_state import NEVER, EncodedState, PartitionState

__all__ = ["AsLive", "Begun", "LiveState", "LiveStates", "matters_since", "relived"]

_VERSION = 2  # 1 had no `usual`
_KEPT = ("bar_ms", "out_of_orderness_ms", "allowed_lateness_ms", "dedup_ms")  # what a state depends on


class LiveState(NamedTuple):
    """What the stream remembered of a partition before one of its records."""

    next: int  # offset of that record
    newest: int  # highest event time before it, ms
    state: EncodedState

    def to_batch(self, partition: int, semantics: Semantics) -> pa.RecordBatch:
        """One row; the metadata say what it is of."""
        row = {"partition": partition, "next": self.next, "newest": self.newest, **self.state._asdict()}
        marks = {"version": _VERSION} | {name: getattr(semantics, name) for name in _KEPT}
        batch = pa.RecordBatch.from_pylist([row], _SCHEMA)
        return batch.replace_schema_metadata({name: str(mark) for name, mark in marks.items()})


class LiveStates(dict[int, LiveState]):
    """What the stream remembered, by partition."""

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, semantics: Semantics) -> "LiveStates":
        """What batches of `LiveState.to_batch` hold together.

        Raises:
          UsageError: if a newer version wrote them, or for a stream with another meaning.
        """
        marks = {name.decode(): int(mark) for name, mark in (batch.schema.metadata or {}).items()}
        if marks["version"] > _VERSION:
            raise UsageError(
                f"the stream's state has version {marks['version']}, this release reads up to {_VERSION}: "
                "use a newer release"
            )
        for name in _KEPT:
            if marks[name] != getattr(semantics, name):
                flag, unit = ("bar_seconds", 1000) if name == "bar_ms" else (name, 1)
                raise UsageError(
                    f"the stream's state is of --{flag}={marks[name] // unit}, not of "
                    f"{getattr(semantics, name) // unit}: give what the stream was given"
                )
        encoded = ((row, EncodedState(*(row.get(name) for name in EncodedState._fields))) for row in batch.to_pylist())
        return cls({row["partition"]: LiveState(row["next"], row["newest"], state) for row, state in encoded})

    def followed_by(self, batches: list[pa.RecordBatch], semantics: Semantics) -> pa.RecordBatch:
        """The states of the next day, in one batch, of those that partitions ended it with; what rested stays."""
        ended = {batch["partition"][0].as_py() for batch in batches}
        rested = [state.to_batch(it, semantics) for it, state in self.items() if it not in ended]
        (rows,) = pa.Table.from_batches([*batches, *rested]).combine_chunks().to_batches()
        return rows


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a day begins with: the states that the one before left, and what the stream itself began with."""

    states: LiveStates
    start: ClosingState = NOTHING


_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("next", pa.int64(), nullable=False),
        pa.field("newest", pa.int64(), nullable=False),
        pa.field("open", pa.binary(), nullable=False),
        pa.field("history", pa.binary(), nullable=False),
        pa.field("seen", pa.list_(pa.binary()), nullable=False),
        pa.field("usual", pa.binary()),
    ]
)


def matters_since(newest: int, stretch: Stretch, semantics: Semantics) -> int:
    """From when on, ms, ticks can matter to a stretch, of a partition whose clock has come to `newest` before it."""
    return min(newest, stretch.begin) - semantics.out_of_orderness_ms - semantics.allowed_lateness_ms


def relived(
    log: Iterable[pa.RecordBatch],
    stretch: Stretch,
    semantics: Semantics,
    begun: LiveState | None,
    start: ClosingState = NOTHING,
) -> Generator[Piece, None, LiveState]:
    """The rows of a stretch, piece by piece; gives the state before the first tick dated after it.

    A bar may come several times, with growing revisions.  Ticks are taken until none can change the stretch any more.

    Args:
      log: ticks (TICKS) of one partition in offset order, each once; from the offset of `begun` on all that were not
        too late, at least.
      stretch: whose rows come out.
      semantics: as of the stream.
      begun: where the stretch before was left; None: the log begins here.
      start: what the stream began with.

    Raises:
      ValueError: if `begun` is of a stream that began with something else.
    """
    bar_ms = semantics.bar_ms
    state = PartitionState.decode(begun.state, bar_ms, start) if begun else PartitionState(bar_ms, start)
    next_offset, left = begun.next if begun else 0, None
    for ticks in _cut_before_first(log, stretch.end):
        if left is None and ticks["timestamp"][0].as_py() >= stretch.end:
            left = LiveState(next_offset, state.newest, state.encode())
        yield _within(advance(state, ticks, semantics), stretch)
        state.drain()
        next_offset = ticks["offset"][-1].as_py() + 1
        if state.newest - semantics.out_of_orderness_ms - semantics.allowed_lateness_ms >= stretch.end:
            break
    else:
        yield _within(provisional(state, FOREVER, NEVER, semantics), stretch)
    return left or LiveState(next_offset, state.newest, state.encode())


def _cut_before_first(log: Iterable[pa.RecordBatch], end: int) -> Iterator[pa.RecordBatch]:
    """Pieces of the log, one of which begins with the first tick that is dated at `end` or later, ms."""
    met = False
    for batch in log:
        for piece in (batch.slice(first, PIECE) for first in range(0, len(batch), PIECE)):
            after = [] if met else np.flatnonzero(piece["timestamp"].to_numpy() >= end)[:1].tolist()
            met = met or bool(after)
            yield from (part for part in _halves(piece, *after) if len(part))


def _halves(ticks: pa.RecordBatch, at: int = 0) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    return ticks.slice(0, at), ticks.slice(at)


def _within(rows: Advanced, stretch: Stretch) -> Piece:
    timed = (rows.ticks, "timestamp"), (rows.bars, "time"), (rows.anomalies, "time")
    return Piece(*(_dated(some, time, stretch) for some, time in timed))


def _dated(rows: pa.RecordBatch, time: str, stretch: Stretch) -> pa.RecordBatch:
    return rows.filter(pc.and_(pc.greater_equal(rows[time], stretch.begin), pc.less(rows[time], stretch.end)))


@dataclasses.dataclass(frozen=True)
class AsLive:
    """A partition for `ComputeDay`, by `relived`.

    Attributes:
      log: reads the TICKS of some handles in the order of the log: from an offset on, those dated since a time, ms, and
        perhaps some that are older.
      stretch: as for `relived`.
      semantics: as for `relived`.
    """

    log: Callable[[Iterable[Any], int, int], Iterator[pa.RecordBatch]]
    stretch: Stretch
    semantics: Semantics

    def __call__(self, partition: int, handles: Iterable[Any], prior: Begun) -> Pieces:
        """The rows; closes with the stream's state."""
        begun = prior.states.get(partition)
        first, dated = (begun.next, matters_since(begun.newest, self.stretch, self.semantics)) if begun else (0, NEVER)
        ticks = self.log(handles, first, dated)
        left = yield from relived(ticks, self.stretch, self.semantics, begun, prior.start)
        return Ends(left.to_batch(partition, self.semantics))
