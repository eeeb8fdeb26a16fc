"""Reading from the lake: the rows of a stretch of event time, as the record batches that were written.

Only the folders of the hours (or days) that are asked for are looked into, and objects are read whole: one that is
damaged gives none of its rows.  What lies in the lake and where says `lake_objects`.
"""

import datetime
import logging
import re
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
from beam_pipelines.io.objects import Objects, objects_in
from beam_pipelines.transforms.batches import Span, with_span

__all__ = ["BadFileError", "ReadFromLake", "StoredObject", "check_day", "list_objects", "read_object"]

_LOG = logging.getLogger(__name__)

_NAME = re.compile(r"p(?P<partition>\d{5,})-[^/]+\.parquet")
_FOLDER = re.compile(r"year=(\d{4})/month=(\d\d)/day=(\d\d)(?:/hour=(\d\d))?")
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


class BadFileError(Exception):
    """A file among the lake's objects that cannot be read as one: which, and why."""


class StoredObject(NamedTuple):
    """An object of the lake, by its name."""

    path: str  # under the root
    partition: int  # of the log; -1: a file that is not named like an object
    begin: int  # of the hour or day that its rows are of, ms


class ReadFromLake(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]]: (partition, rows), bounded.

    A batch is an object or less of it, in offset order, with the span from its first to its last offset; batches come
    in any order.  Columns are those of the layout's schema, with the rows' place in the log where it has one.

    Args:
      root: s3://bucket/prefix or a folder.
      layout: of the dataset.
      begin: of event time, ms.
      end: of event time, ms; the first that is not read.
      skip_bad_files: whether files that are no objects are counted, named in the log, and passed over; else they are
        errors.
    """

    def __init__(self, root: str, layout: Layout, begin: int, end: int, skip_bad_files: bool = False) -> None:
        super().__init__()
        self._list = (objects_in(root), layout, begin, end)
        self._skip = skip_bad_files

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists, spreads the objects over the workers, and reads them."""
        # Typed, because on Spark a Reshuffle of untyped elements before a grouping fails (ClassCastException).
        listing = beam.FlatMap(_listed, *self._list).with_output_types(StoredObject)
        spread = pbegin | beam.Impulse() | "List" >> listing | "Spread" >> beam.Reshuffle()
        read = beam.FlatMap(_rows_of, *self._list, self._skip).with_output_types(tuple[int, pa.RecordBatch])
        return spread | "Objects" >> read


def _listed(_: object, objects: Objects, layout: Layout, begin: int, end: int) -> list[StoredObject]:
    return list_objects(objects, layout, begin, end)


def _rows_of(
    stored: StoredObject, objects: Objects, layout: Layout, begin: int, end: int, skip: bool
) -> list[tuple[int, pa.RecordBatch]]:
    try:
        rows = read_object(objects, layout, stored)
    except BadFileError as bad:
        if not skip:
            raise UsageError(f"{bad}: repair or remove it, or pass over such files with --on_bad_file=skip") from None
        _LOG.warning("%s: it is passed over", bad)
        Metrics.counter("lake", "bad_files").inc()
        return []
    inside = _between(rows, layout.times[0], begin, end)
    return [(stored.partition, inside)] if len(inside) else []


def _between(rows: pa.RecordBatch, time: str, begin: int, end: int) -> pa.RecordBatch:
    times = rows[time]
    bounds = pc.min_max(times).as_py()
    if not len(rows) or (begin <= bounds["min"] and bounds["max"] < end):
        return rows
    inside = pc.and_(pc.greater_equal(times, begin), pc.less(times, end))
    return rows.filter(inside)


def check_day(objects: Objects, layout: Layout, day: datetime.date) -> None:
    """Makes sure that a day is in the lake; it may still have no row that is wanted.

    Raises:
      UsageError: if nothing was ever written for it, or the lake cannot be read; names the days that are there.
    """
    begin = (day - datetime.date(1970, 1, 1)).days * _DAY_MS
    try:
        if any(it.partition >= 0 for it in list_objects(objects, layout, begin, begin + _DAY_MS)):
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
    length = _HOUR_MS if layout.hourly else _DAY_MS
    found = []
    for day in range(begin // _DAY_MS, -(-end // _DAY_MS)):
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


def read_object(objects: Objects, layout: Layout, stored: StoredObject) -> pa.RecordBatch:
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
