"""Compaction: the small objects that the stream wrote of an hour of a partition become one, sorted by symbol and time.

The new object is put before the old ones are removed, so no row is missing at any time; meanwhile, and where a stream
that was started again writes an old object anew, a record is in two of them, and its offset tells.  Only objects that
the stream has finished are taken.
"""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_objects import ROW_GROUP, Written, as_parquet, as_stored
from beam_pipelines.io.lake_read import NO_END, LakeStretch, StoredObject
from beam_pipelines.transforms.batches import joined

__all__ = ["CompactLake", "compact", "finished"]

_LOG = logging.getLogger(__name__)
_ORDER = ("symbol", "timestamp", "seq", "offset")


def finished(stored: Iterable[StoredObject], end: int) -> list[list[StoredObject]]:
    """The objects that are to become one, for each hour of each partition that begins before `end`, ms.

    Args:
      stored: all objects of a stretch, and of all that is dated later.
      end: of the stretch, ms.
    """
    named = [it for it in stored if it.partition >= 0]
    written: dict[tuple[str, int], tuple[str, int]] = {}
    for it in named:  # the stream finishes an object before it writes one of a later slot or block
        written[it.log, it.partition] = max(written.get((it.log, it.partition), ("", 0)), (it.slot, it.block))
    closed = [it for it in named if it.begin < end and (it.slot, it.block) < written[it.log, it.partition]]
    together = sorted(closed, key=_hour_of)
    hours = [list(hour) for _, hour in itertools.groupby(together, key=_hour_of)]
    return [hour for hour in hours if len(hour) > 1 or not hour[0].compacted]


def _hour_of(stored: StoredObject) -> tuple[str, int, int]:
    return stored.log, stored.partition, stored.begin


def compact(hour: list[StoredObject], lake: LakeStretch) -> Written | None:
    """Puts one object in the place of some; a damaged one among them keeps all as they are.

    One that is written anew meanwhile, by a job that goes on from an old checkpoint, stays beside it.

    Args:
      hour: of one hour of one partition.
      lake: reads all their rows.
    """
    versions = {it.path: lake.objects.version(it.path) for it in hour}
    try:
        parts = list(dataclasses.replace(lake, skip_bad_files=False).log(hour))
    except UsageError as bad:
        _LOG.warning("%s; the hour is not compacted", bad)
        return None
    if not parts:  # objects without any row
        return None
    rows = _sorted(parts)
    first = min(hour, key=lambda it: (it.slot, it.block))
    marks = {"topic": first.log, "partition": str(first.partition)}
    slices = (rows.slice(at, ROW_GROUP) for at in range(0, len(rows), ROW_GROUP))  # plain strings are large
    tables = (as_stored(lake.layout, some).replace_schema_metadata(marks) for some in slices)
    content = as_parquet(tables, lake.layout.compression, _ORDER)
    stem = first.path.removesuffix(".parquet").partition("~")[0]
    path = f"{stem}~{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    lake.objects.write(path, content)
    for old, version in versions.items():
        if old != path and lake.objects.version(old) == version:
            lake.objects.delete(old)
    Metrics.counter("lake", "compacted_objects").inc(len(hour))
    return Written(path, len(rows), content.size, final=True)


def _sorted(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    rows = joined(parts)
    parts.clear()  # an hour of a partition is large
    symbol = rows["symbol"]
    rank = np.argsort(np.argsort(symbol.dictionary.to_pylist()))
    keys = [rows[name].to_numpy() for name in reversed(_ORDER[1:])]
    return rows.take(pa.array(np.lexsort([*keys, rank[symbol.indices.to_numpy()]])))


class CompactLake(beam.PTransform):
    """PBegin to PCollection[Written]: compacts the hours of a stretch, each once.

    Args:
      stretch: whose hours; whole ones.
      after: what must be done before.
    """

    def __init__(self, stretch: LakeStretch, after: beam.PCollection) -> None:
        super().__init__()
        self._stretch, self._after = stretch, after

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists, and spreads the hours over the workers."""
        listing = beam.FlatMap(_hours, self._stretch, beam.pvalue.AsIter(self._after))
        return (
            pbegin
            | beam.Impulse()
            | "List" >> listing.with_output_types(list[StoredObject])
            | "Spread" >> beam.Reshuffle()
            | "Hours" >> beam.FlatMap(_compacted, self._stretch).with_output_types(Written)
        )


def _hours(_: bytes, stretch: LakeStretch, _after: Iterable[object]) -> list[list[StoredObject]]:
    return finished(dataclasses.replace(stretch, end=NO_END).find(), stretch.end)


def _compacted(hour: list[StoredObject], stretch: LakeStretch) -> Iterable[Written]:
    written = compact(hour, stretch)
    return [written] if written else []
