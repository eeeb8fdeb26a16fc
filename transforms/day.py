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
from beam_pipelines.transforms.batches import TICKS, empty, joined
from beam_pipelines.transforms.closing_state import ClosingState
from beam_pipelines.transforms.partition_state import NEVER, PartitionState
from beam_pipelines.transforms.summaries import Summaries

__all__ = ["Ended", "RecomputeTicks", "Recomputed", "Stretch", "in_event_order", "recomputed"]

_PIECE = 50_000  # ticks that are advanced at once: bounds the memory of what comes out


class Stretch(NamedTuple):
    """The event time of a day's bars: [begin, end), ms; it begins and ends with one."""

    begin: int
    end: int
    day: int  # when the day itself begins, ms


class Ended(NamedTuple):
    """What is known of a partition when its day is over."""

    closing: ClosingState
    summaries: pa.RecordBatch  # SUMMARIES


def in_event_order(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """TICKS of one partition in the order of (timestamp, seq, offset), each record of the log once.

    Args:
      batches: TICKS, in any order; a record may be in several of them.
    """
    together = [batch for batch in batches if len(batch)]
    if not together:
        return empty(TICKS)
    ticks = joined(together)
    once = np.unique(ticks["offset"].to_numpy(), return_index=True)[1]
    keys = [ticks[name].to_numpy()[once] for name in ("offset", "seq", "timestamp")]
    return ticks.take(pa.array(once[np.lexsort(keys)]))


def recomputed(
    hours: Iterable[Iterable[pa.RecordBatch]], stretch: Stretch, semantics: Semantics, prior: ClosingState
) -> Generator[tuple[pa.RecordBatch, pa.RecordBatch], None, Ended]:
    """ENRICHED and BARS of a stretch, piece by piece; gives what its symbols end with.

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
        yield ticks, bars
    symbols, history = state.closing(stretch.end)
    closing = ClosingState(stretch.end, {symbol: row for row, symbol in enumerate(symbols)}, history)
    return Ended(closing, summaries.rows(prior))


def _pieces(
    state: PartitionState, hours: Iterable[Iterable[pa.RecordBatch]], semantics: Semantics
) -> Iterator[Advanced]:
    for hour in hours:
        ticks = in_event_order(hour)
        for first in range(0, len(ticks), _PIECE):
            yield advance(state, ticks.slice(first, _PIECE), semantics)
    yield provisional(state, FOREVER, NEVER, semantics, final=True)


def _since(rows: pa.RecordBatch, time: str, stretch: Stretch) -> pa.RecordBatch:
    return rows.filter(pc.greater_equal(rows[time], stretch.begin))


class Recomputed(NamedTuple):
    """The outputs of `RecomputeTicks`, collections of record batches."""

    ticks: beam.PCollection  # ENRICHED
    bars: beam.PCollection  # BARS
    summaries: beam.PCollection  # SUMMARIES
    closing: beam.PCollection  # closing states of each partition's symbols, as ClosingState.to_batch has them


class RecomputeTicks(beam.PTransform):
    """(partition, handles of its hours) to `Recomputed`; one element a partition.

    What moves to the workers is handles: a partition's day may be larger than a worker.

    Args:
      hours: reads the TICKS of some handles, an hour after the other.
      stretch: as for `recomputed`.
      semantics: as for `recomputed`.
      prior: gives the closing state to begin with, once in each process of workers.
    """

    def __init__(
        self,
        hours: Callable[[Iterable[Any]], Iterator[list[pa.RecordBatch]]],
        stretch: Stretch,
        semantics: Semantics,
        prior: Callable[[], ClosingState],
    ) -> None:
        super().__init__()
        self._recompute = _RecomputeDoFn(hours, stretch, semantics, prior)

    def expand(self, partitions: beam.PCollection) -> Any:  # noqa: D102  (Beam warns of hints other than collections)
        outputs = partitions | "Recompute" >> beam.ParDo(self._recompute).with_outputs(*Recomputed._fields)
        return Recomputed(*(outputs[tag] | tag.title() >> _batches() for tag in Recomputed._fields))


def _batches() -> beam.PTransform:
    """Gives a tagged output the coder of record batches."""
    return beam.Map(_itself).with_output_types(pa.RecordBatch)


def _itself(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


class _RecomputeDoFn(beam.DoFn):
    """A partition after the other."""

    def __init__(
        self,
        hours: Callable[[Iterable[Any]], Iterator[list[pa.RecordBatch]]],
        stretch: Stretch,
        semantics: Semantics,
        prior: Callable[[], ClosingState],
    ) -> None:
        self._hours, self._stretch, self._semantics, self._load_prior = hours, stretch, semantics, prior
        self._shared_prior = Shared()
        self._counters = {name: Metrics.counter("daily", name) for name in ("ticks", "bars")}

    def setup(self) -> None:
        self._prior: ClosingState = self._shared_prior.acquire(self._load_prior)

    def process(self, element: tuple[int, Iterable[Any]]) -> Iterator[beam.pvalue.TaggedOutput]:
        _, handles = element
        ended = yield from self._rows(recomputed(self._hours(handles), self._stretch, self._semantics, self._prior))
        yield beam.pvalue.TaggedOutput("summaries", ended.summaries)
        yield beam.pvalue.TaggedOutput("closing", ended.closing.to_batch(self._semantics.bar_ms))

    def _rows(
        self, pieces: Generator[tuple[pa.RecordBatch, pa.RecordBatch], None, Ended]
    ) -> Generator[beam.pvalue.TaggedOutput, None, Ended]:
        while True:
            try:
                ticks, bars = next(pieces)
            except StopIteration as over:
                ended: Ended = over.value
                return ended
            for tag, rows in (("ticks", ticks), ("bars", bars)):
                if len(rows):
                    self._counters[tag].inc(len(rows))
                    yield beam.pvalue.TaggedOutput(tag, rows)
