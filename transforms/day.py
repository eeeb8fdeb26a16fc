"""A stretch of the log computed anew, as if nothing in it had been late: all its ticks in the order of event time.

The ticks of one partition come hour by hour, so that no more than an hour of them is in memory; the hours of a lake
are of event time, so disorder within the stretch has no bound.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from beam_pipelines.transforms.advance import FOREVER, Advanced, Semantics, advance, provisional
from beam_pipelines.transforms.batches import ANOMALIES, SUMMARIES, empty, joined
from beam_pipelines.transforms.closing_state import ClosingState
from beam_pipelines.transforms.partition_state import NEVER, PartitionState
from beam_pipelines.transforms.summaries import Summaries
from beam_pipelines.transforms.typed import of_type

__all__ = [
    "PIECE",
    "ComputeDay",
    "Computed",
    "Ended",
    "Ends",
    "Piece",
    "Pieces",
    "Recompute",
    "Stretch",
    "in_event_order",
    "recomputed",
]

PIECE = 50_000
"""Ticks that are advanced at once, which bounds the memory of what comes out."""


class Stretch(NamedTuple):
    """The event time of a day's bars: [begin, end), ms; it begins and ends with one."""

    begin: int
    end: int
    day: int  # when the day itself begins, ms


class Piece(NamedTuple):
    """Some rows of a stretch."""

    ticks: pa.RecordBatch  # ENRICHED
    bars: pa.RecordBatch  # BARS
    anomalies: pa.RecordBatch = empty(ANOMALIES)  # none where bars are computed anew: what was told stays told


class Ended(NamedTuple):
    """What is known of a partition when its day is over."""

    closing: ClosingState
    summaries: pa.RecordBatch  # SUMMARIES


def in_event_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """TICKS of one partition in the order of (timestamp, seq, offset), each record of the log once, piece by piece.

    Args:
      batches: TICKS, in any order; a record may be in several of them.
    """
    together = [batch for batch in batches if len(batch)]
    if not together:
        return
    ticks = joined(together)
    del batches, together  # an hour of a partition is large, so there is one copy of it, and pieces are copies too
    once = np.unique(ticks["offset"].to_numpy(), return_index=True)[1]
    keys = [ticks[name].to_numpy()[once] for name in ("offset", "seq", "timestamp")]
    order = once[np.lexsort(keys)]
    for first in range(0, len(order), PIECE):
        yield ticks.take(pa.array(order[first : first + PIECE]))


def recomputed(
    hours: Iterable[Iterable[pa.RecordBatch]], stretch: Stretch, semantics: Semantics, prior: ClosingState
) -> Generator[Piece, None, Ended]:
    """The rows of a stretch, piece by piece; gives what its symbols end with.

    Args:
      hours: the ticks (TICKS) of one partition, an hour of event time after the other; those before the stretch only
        warm the indicators up.
      stretch: whose rows come out.
      semantics: as of the stream; the bound on disorder only says which ticks were late.
      prior: what the indicators begin with; ticks before its end are not used.
    """
    in_order = dataclasses.replace(semantics, out_of_orderness_ms=0)
    state = PartitionState(semantics.bar_ms, prior)
    summaries = Summaries(stretch.day, semantics.bar_ms, semantics.out_of_orderness_ms)
    for piece in _pieces(state, hours, in_order):
        summaries.add_earlier(piece.bars.filter(pc.less(piece.bars["time"], stretch.begin)))
        ticks, bars = _since(piece.ticks, "timestamp", stretch), _since(piece.bars, "time", stretch)
        summaries.add_ticks(ticks)
        summaries.add_bars(bars)
        yield Piece(ticks, bars)
    symbols, history = state.closing(stretch.end)
    closing = ClosingState(stretch.end, {symbol: row for row, symbol in enumerate(symbols)}, history)
    return Ended(closing, summaries.rows(prior))


def _pieces(
    state: PartitionState, hours: Iterable[Iterable[pa.RecordBatch]], semantics: Semantics
) -> Iterator[Advanced]:
    for hour in hours:
        pieces = in_event_order(hour)
        del hour
        for piece in pieces:
            yield advance(state, piece, semantics)
            state.seen.drain()  # nobody writes them down; a day of them would not be small
    yield provisional(state, FOREVER, NEVER, semantics, final=True)


def _since(rows: pa.RecordBatch, time: str, stretch: Stretch) -> pa.RecordBatch:
    return rows.filter(pc.greater_equal(rows[time], stretch.begin))


class Ends(NamedTuple):
    """What is left to say of a partition when its rows are out, as collections have it."""

    closing: pa.RecordBatch  # what the next day begins with
    summaries: pa.RecordBatch = empty(SUMMARIES)  # SUMMARIES


class Computed(NamedTuple):
    """The outputs of `ComputeDay`, collections of record batches."""

    ticks: beam.PCollection  # ENRICHED
    bars: beam.PCollection  # BARS
    anomalies: beam.PCollection  # ANOMALIES
    summaries: beam.PCollection  # SUMMARIES
    closing: beam.PCollection  # of each partition, what the next day begins with


Pieces = Generator[Piece, None, Ends]
"""Rows, piece by piece; gives the end."""


@dataclasses.dataclass(frozen=True)
class Recompute:
    """A partition for `ComputeDay`, by `recomputed`.

    Attributes:
      hours: reads the TICKS of some handles, an hour after the other.
      stretch: as for `recomputed`.
      semantics: as for `recomputed`.
    """

    hours: Callable[[Iterable[Any]], Iterator[list[pa.RecordBatch]]]
    stretch: Stretch
    semantics: Semantics

    def __call__(self, _partition: int, handles: Iterable[Any], prior: ClosingState) -> Pieces:
        """The rows; closes with the symbols' closing state."""
        ended = yield from recomputed(self.hours(handles), self.stretch, self.semantics, prior)
        return Ends(ended.closing.to_batch(self.semantics.bar_ms), ended.summaries)


class ComputeDay(beam.PTransform):
    """(partition, handles of its objects) to `Computed`; one element a partition.

    What moves to the workers is handles: a partition's day may be larger than a worker.

    Args:
      compute: gives the rows of a partition, of its handles and what `prior` gave.
      prior: gives what the day begins with, once in each process of workers.
    """

    def __init__(self, compute: Callable[[int, Iterable[Any], Any], Pieces], prior: Callable[[], Any]) -> None:
        super().__init__()
        self._compute, self._prior = compute, prior

    def expand(self, partitions: beam.PCollection) -> Any:  # noqa: D102  (Beam warns of hints other than collections)
        compute = beam.ParDo(_ComputeDoFn(self._compute, self._prior))
        outputs = partitions | "Compute" >> compute.with_outputs(*Computed._fields)
        return Computed(*(of_type(outputs[tag], pa.RecordBatch) for tag in Computed._fields))


class _ComputeDoFn(beam.DoFn):
    """A partition after the other."""

    def __init__(self, compute: Callable[[int, Iterable[Any], Any], Pieces], prior: Callable[[], Any]) -> None:
        self._compute, self._load_prior = compute, prior
        self._shared_prior = Shared()
        self._counters = {name: Metrics.counter("daily", name) for name in Piece._fields}

    def setup(self) -> None:
        self._prior = self._shared_prior.acquire(self._load_prior)

    def process(self, element: tuple[int, Iterable[Any]]) -> Iterator[beam.pvalue.TaggedOutput]:
        ends = yield from self._rows(self._compute(*element, self._prior))
        for tag, batch in ends._asdict().items():
            yield beam.pvalue.TaggedOutput(tag, batch)

    def _rows(self, pieces: Pieces) -> Generator[beam.pvalue.TaggedOutput, None, Ends]:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as over:
                ends: Ends = over.value
                return ends
            for tag, rows in piece._asdict().items():
                if len(rows):
                    self._counters[tag].inc(len(rows))
                    yield beam.pvalue.TaggedOutput(tag, rows)
