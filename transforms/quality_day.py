"""The quality of a whole day: a sample of all its records, judged by Great Expectations itself.

The sample are the records whose (partition, offset) have the smallest hashes: so it is spread over the day, the same
however the records were batched, and made of samples of parts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import QUALITY, joined
from beam_pipelines.transforms.quality import data_docs, validate
from beam_pipelines.transforms.quality_minutes import row_of
from beam_pipelines.transforms.quality_result import Window
from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["SAMPLE", "DayQuality", "JudgeDay", "Sampled", "sampled"]

SAMPLE = 10_000
"""Records of a day that are judged, at most."""

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio: neighbours get distant hashes


class Sampled(NamedTuple):
    """A sample of some records."""

    records: int
    rows: pa.RecordBatch | None


class DayQuality(NamedTuple):
    """How good a day's records were."""

    quality: pa.RecordBatch  # QUALITY, one row
    docs: dict[str, bytes]  # pages by name


def sampled(parts: Iterable[Sampled]) -> Sampled:
    """A sample of all the records that `parts` are samples of."""
    records, rows = 0, []
    for part in parts:
        records += part.records
        rows += [] if part.rows is None or not len(part.rows) else [part.rows]
    if not rows:
        return Sampled(records, None)
    together = joined(rows)
    if len(together) <= SAMPLE:
        return Sampled(records, together)
    return Sampled(records, together.take(pa.array(np.argpartition(_hashes(together), SAMPLE)[:SAMPLE])))


def _hashes(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    partition, offset = (rows[name].to_numpy().astype(np.uint64) for name in ("partition", "offset"))
    mixed = (offset + (partition << np.uint64(40))) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    return mixed ^ (mixed >> np.uint64(32))


class JudgeDay(beam.PTransform):
    """Batches of one day's records, with `partition` and `offset`, to PCollection[DayQuality]; empty without records.

    Args:
      suite: by what.
      window: the day.
    """

    def __init__(self, suite: Suite, window: Window) -> None:
        super().__init__()
        self._suite, self._window = suite, window

    def expand(self, batches: beam.PCollection) -> beam.PCollection:  # noqa: D102
        parts = batches | "Part" >> beam.Map(_part).with_output_types(Sampled)
        together = parts | "Sample" >> beam.CombineGlobally(_Sample()).without_defaults()
        return together | "Judge" >> beam.FlatMap(_judge_day, self._suite, self._window)


def _part(batch: pa.RecordBatch) -> Sampled:
    return sampled([Sampled(len(batch), batch)])


class _Sample(beam.CombineFn):
    def create_accumulator(self) -> Sampled:
        return Sampled(0, None)

    def add_input(self, sample: Sampled, part: Sampled) -> Sampled:
        return sampled([sample, part])

    def merge_accumulators(self, samples: Iterable[Sampled]) -> Sampled:
        return sampled(samples)

    def extract_output(self, sample: Sampled) -> Sampled:
        return sample


def _judge_day(sample: Sampled, suite: Suite, window: Window) -> Iterator[DayQuality]:
    if sample.rows is None:
        return
    order = np.lexsort([sample.rows[name].to_numpy() for name in ("offset", "partition")])
    found = validate(suite, sample.rows.take(pa.array(order)), window)
    row = row_of(suite, window, -1, sample.records, found.quality)
    yield DayQuality(pa.RecordBatch.from_pylist([row], QUALITY), data_docs([found]))
