"""Reading from the lake: the rows of a stretch of event time, as the record batches that were written.

Only the folders of the hours (or days) that are asked for are looked into, and objects are read whole: one that is
damaged gives none of its rows.  What lies in the lake and where says `lake_objects`.
"""

import dataclasses
import datetime
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics
from pyarrow import fs

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.batches import Span, with_span
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of

__all__ = [
    "BadFileError",
    "LakeStretch",
    "ListByPartition",
    "ReadFromLake",
    "StoredObject",
    "check_day",
    "has_day",
    "list_objects",
]

_LOG = logging.getLogger(__name__)

_NAME = re.compile(r"p(?P<partition>\d{5,})-[^/]+\.parquet")
_FOLDER = re.compile(r"year=(\d{4})/month=(\d\d)/day=(\d\d)(?:/hour=(\d\d))?")
_HOUR_MS = 3_600_000


class BadFileError(Exception):
    """A file among the lake's objects that cannot be read as one: which, and why."""


class StoredObject(NamedTuple):
    """An object of the lake, by its name."""

    path: str  # under the root
    partition: int  # of the log; -1: a file that is not named like an object
    begin: int  # of the hour or day that its rows are of, ms


@dataclasses.dataclass(frozen=True)
class LakeStretch:
    """The rows of a dataset in a stretch of event time.

    Attributes:
      objects: the lake.
      layout: of the dataset.
      begin: of event time, ms.
      end: of event time, ms; the first that is not read.
      symbols: whose rows are wanted; None: all.
      skip_bad_files: whether files that are no objects are counted, named in the log, and passed over; else they are
        errors.
    """

    objects: Objects
    layout: Layout
    begin: int
    end: int
    symbols: tuple[str, ...] | None = None
    skip_bad_files: bool = False

    def find(self) -> list[StoredObject]:
        """The objects that may hold them."""
        return list_objects(self.objects, self.layout, self.begin, self.end)

    def hours(self, stored: Iterable[StoredObject]) -> Iterator[list[pa.RecordBatch]]:
        """The rows of some objects, those of an hour (or day) together, the hours in their order."""
        in_order = sorted(stored, key=lambda it: (it.begin, it.path))
        for _, hour in itertools.groupby(in_order, key=lambda it: it.begin):
            yield [rows for it in hour for rows in self.read(it)]

    def read(self, stored: StoredObject) -> list[pa.RecordBatch]:
        """The rows of an object, as one batch or none."""
        try:
            rows = _read_object(self.objects, self.layout, stored)
        except BadFileError as bad:
            if not self.skip_bad_files:
                cure = "repair or remove it, or pass over such files with --on_bad_file=skip"
                raise UsageError(f"{bad}: {cure}") from None
            _LOG.warning("%s: it is passed over", bad)
            Metrics.counter("lake", "bad_files").inc()
            return []
        wanted = self._wanted(rows)
        return [wanted] if len(wanted) else []

    def _wanted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        times = rows[self.layout.times[0]]
        inside = pc.and_(pc.greater_equal(times, self.begin), pc.less(times, self.end))
        if self.symbols is not None:
            names = rows["symbol"]
            asked = pc.is_in(names.dictionary, pa.array(self.symbols, pa.string()))
            inside = pc.and_(inside, asked.take(names.indices))
        return rows if pc.all(inside).as_py() else rows.filter(inside)


class ReadFromLake(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]]: (partition, rows), bounded.

    A batch is an object or less of it, in offset order, with the span from its first to its last offset; batches come
    in any order.  Columns are those of the layout's schema, with the rows' place in the log where it has one.

    Args:
      stretch: what to read.
    """

    def __init__(self, stretch: LakeStretch) -> None:
        super().__init__()
        self._stretch = stretch

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists, spreads the objects over the workers, and reads them."""
        # Typed, because on Spark a Reshuffle of untyped elements before a grouping fails (ClassCastException).
        listing = beam.FlatMap(_listed, self._stretch).with_output_types(StoredObject)
        spread = pbegin | beam.Impulse() | "List" >> listing | "Spread" >> beam.Reshuffle()
        return spread | "Objects" >> beam.FlatMap(_read, self._stretch).with_output_types(tuple[int, pa.RecordBatch])


class ListByPartition(beam.PTransform):
    """PBegin to PCollection[tuple[int, Iterable[StoredObject]]]: the objects of each partition of the log.

    For whoever reads a partition in order: `LakeStretch.hours` takes such a group, and no more than an hour of it is in
    memory.

    Args:
      stretch: what to read.
    """

    def __init__(self, stretch: LakeStretch) -> None:
        super().__init__()
        self._stretch = stretch

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists and groups."""
        listing = beam.FlatMap(_listed, self._stretch).with_output_types(StoredObject)
        keyed = beam.Map(_by_partition).with_output_types(tuple[int, StoredObject])
        return pbegin | beam.Impulse() | "List" >> listing | "Key" >> keyed | beam.GroupByKey()


def _listed(_: object, stretch: LakeStretch) -> list[StoredObject]:
    return stretch.find()


def _by_partition(stored: StoredObject) -> tuple[int, StoredObject]:
    return stored.partition, stored


def _read(stored: StoredObject, stretch: LakeStretch) -> list[tuple[int, pa.RecordBatch]]:
    return [(stored.partition, rows) for rows in stretch.read(stored)]


def has_day(objects: Objects, layout: Layout, day: datetime.date) -> bool:
    """Whether there are objects of a day."""
    begin = midnight_of(day)
    return any(it.partition >= 0 for it in list_objects(objects, layout, begin, begin + DAY_MS))


def check_day(objects: Objects, layout: Layout, day: datetime.date) -> None:
    """Makes sure that a day is in the lake; it may still have no row that is wanted.

    Raises:
      UsageError: if nothing was ever written for it, or the lake cannot be read; names the days that are there.
    """
    try:
        if has_day(objects, layout, day):
            return
        days = _days(objects, layout)
    except OSError as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"lake {objects.url} cannot be read ({why}): make sure that it can be reached") from None
    held = f"{days[0]} to {days[-1]}" if days else "no day at all"
    raise UsageError(
        f"lake {objects.url} has no {layout.dataset} of {day}, it holds {held}: choose a day that is there, or correct "
        "--lake"
    )


def _days(objects: Objects, layout: Layout) -> list[str]:
    """The days that have objects, oldest first; by their folders, level by level."""
    folders = [""]
    for _ in ("year", "month", "day"):
        folders = [below for folder in folders for below in _below(objects, layout, folder)]
    return sorted("-".join(match.groups()[:3]) for match in map(_FOLDER.fullmatch, folders) if match)


def _below(objects: Objects, layout: Layout, folder: str) -> list[str]:
    files, root = objects.tree()
    base = f"{root}/{layout.dataset}/"
    selector = fs.FileSelector(f"{base}{folder}".rstrip("/"), allow_not_found=True)
    return [it.path.removeprefix(base) for it in files.get_file_info(selector) if it.type is fs.FileType.Directory]


def list_objects(objects: Objects, layout: Layout, begin: int, end: int) -> list[StoredObject]:
    """All files that may hold rows dated in [begin, end) ms, by hour, partition and name.

    Files that are being written, whose names begin with a dot or an underscore, are not among them.
    """
    files, root = objects.tree()
    length = _HOUR_MS if layout.hourly else DAY_MS
    found = []
    for day in range(begin // DAY_MS, -(-end // DAY_MS)):
        date = str(np.datetime64(day, "D")).rsplit("-", 2)
        folder = "{}/year={}/month={}/day={}".format(layout.dataset, *date)
        selector = fs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
        paths = (it.path for it in files.get_file_info(selector) if it.type is fs.FileType.File)
        found += [_named(layout, path.removeprefix(f"{root}/")) for path in paths if not _is_half(path)]
    return sorted(
        (it for it in found if it.partition < 0 or (it.begin < end and it.begin + length > begin)),
        key=lambda it: (it.begin, it.partition, it.path),
    )


def _is_half(path: str) -> bool:
    return path.rpartition("/")[2].startswith((".", "_"))


def _named(layout: Layout, path: str) -> StoredObject:
    folder, _, name = path.removeprefix(f"{layout.dataset}/").rpartition("/")
    named, dated = _NAME.fullmatch(name), _FOLDER.match(folder)
    year, month, day, hour = dated.groups() if dated else ("1970", "01", "01", None)
    begin = np.datetime64(f"{year}-{month}-{day}T{hour or '00'}", "ms").astype(np.int64)
    belongs = named is not None and dated is not None and dated.end() == len(folder) and layout.hourly == bool(hour)
    return StoredObject(path, int(named["partition"]) if named and belongs else -1, int(begin))


def _read_object(objects: Objects, layout: Layout, stored: StoredObject) -> pa.RecordBatch:
    """All rows of an object, in offset order, as a batch of the layout's schema with its span.

    Raises:
      BadFileError: if it is no object of this dataset, is damaged, or lacks a column.
      FileNotFoundError: if it is not there.
    """
    name = f"{objects.url}/{stored.path}"
    if stored.partition < 0:
        raise BadFileError(f"{name} is not named as objects of {layout.dataset} are")
    try:
        with objects.open(stored.path) as opened:
            if not opened.size():
                raise BadFileError(f"{name} is empty")
            table = pq.ParquetFile(opened).read()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, FileNotFoundError) or "AWS Error" in str(error):
            raise
        why = str(error).splitlines()[0][:200]
        raise BadFileError(f"{name} is damaged, or no parquet file ({why})") from None
    topic = (table.schema.metadata or {}).get(b"topic", b"").decode()
    rows = _restored(layout, table, name)
    offsets = rows["offset"].to_numpy()
    bounds = (int(offsets[0]), int(offsets[-1]) + 1) if len(offsets) else (0, 0)
    return with_span(rows, Span(topic, stored.partition, *bounds))


def _restored(layout: Layout, table: pa.Table, name: str) -> pa.RecordBatch:
    """The columns of a file as batches have them: see `lake_objects`, which stores them."""
    columns = []
    for field in layout.schema:
        if field.name not in table.schema.names:
            raise BadFileError(f"{name} has no column {field.name}, perhaps an older version wrote it")
        column = table[field.name].combine_chunks()
        stored = pa.timestamp("ms", "UTC") if field.name in layout.times else _plain(field.type)
        if column.type != stored:
            raise BadFileError(f"{name} has a column {field.name} of {column.type}, not of {stored}")
        if column.null_count and not field.nullable:
            raise BadFileError(f"{name} has rows without {field.name}")
        columns.append(column.dictionary_encode() if pa.types.is_dictionary(field.type) else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=layout.schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


beam.coders.registry.register_coder(StoredObject, beam.coders.RowCoder)
