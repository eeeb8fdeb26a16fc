"""Reading from the lake: the rows of a stretch of event time, as the record batches that were written.

Only the folders of the hours (or days) that are asked for are looked into, and objects are read whole: one that is
damaged gives none of its rows.  What lies in the lake and where says `lake_objects`.
"""

import dataclasses
import datetime
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics
from pyarrow import fs

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_json import read_json_lines
from beam_pipelines.io.lake_objects import JSON_LINES, NEVER, Layout
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.batches import Span, joined, with_span
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of

__all__ = [
    "NO_END",
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

_NAME = re.compile(
    r"p(?P<partition>\d{5,})-(?P<slot>\d{8}T\d{6}Z)-(?P<block>\d{12,})-(?P<log>[^/~]+)(?P<digest>~[0-9a-f]+)?\.(?P<suffix>parquet|json\.gz)"
)
_FOLDER = re.compile(r"year=(\d{4})/month=(\d\d)/day=(\d\d)(?:/hour=(\d\d))?")
_FOLDERS = re.compile(r"year=\d{4}(?:/month=\d\d)?(?:/day=\d\d)?")
_LAST_OFFSET = np.iinfo(np.int64).max


NO_END = midnight_of(datetime.date.max)
"""After any event time, ms."""


class BadFileError(Exception):
    """A file among the lake's objects that cannot be read as one: which, and why."""


class StoredObject(NamedTuple):
    """An object of the lake, by its name."""

    path: str  # under the root
    partition: int  # of the log; -1: a file that is not named like an object
    begin: int  # of the hour or day that its rows are of, ms
    slot: str = ""  # of log time, as in the name
    block: int = 0  # of offsets, in which its first one is
    log: str = ""  # the topic, as in the name
    compacted: bool = False


@dataclasses.dataclass(frozen=True)
class LakeStretch:
    """The rows of a dataset in a stretch of event time.

    Attributes:
      objects: the lake.
      layout: of the dataset.
      begin: of event time, ms.
      end: of event time, ms; the first that is not read.
      symbols: whose rows are wanted; None: all.
      topic: of the log; None: the lake has but one.
      skip_bad_files: whether files that are no objects are counted, named in the log, and passed over; else they are
        errors.
      topic_flag: by which users name the topic.
    """

    objects: Objects
    layout: Layout
    begin: int
    end: int
    symbols: tuple[str, ...] | None = None
    skip_bad_files: bool = False
    topic: str | None = None
    topic_flag: str = "--topic"

    def find(self) -> list[StoredObject]:
        """The objects that may hold them.

        Raises:
          UsageError: if they are of several logs, for then an offset says nothing; or none is of the one asked for.
        """
        found = list_objects(self.objects, self.layout, self.begin, self.end)
        logs = sorted({it.log for it in found if it.partition >= 0})
        if len(logs) > 1 if self.topic is None else self.topic not in logs:
            has = f"lake {self.objects.url} has {self.layout.dataset} of {', '.join(logs) or 'no topic'} here"
            asked = f", not of {self.topic}" if self.topic else ""
            raise UsageError(f"{has}{asked}: choose one with {self.topic_flag}")
        return [it for it in found if it.partition < 0 or self.topic in (None, it.log)]

    def hours(self, stored: Iterable[StoredObject]) -> Iterator[list[pa.RecordBatch]]:
        """The rows of some objects, those of an hour (or day) together, the hours in their order."""
        in_order = sorted(stored, key=lambda it: (it.begin, it.path))
        for _, hour in itertools.groupby(in_order, key=lambda it: it.begin):
            yield [rows for it in hour for rows in self.read(it)]

    def log(self, stored: Iterable[StoredObject], since: int = 0, dated: int = NEVER) -> Iterator[pa.RecordBatch]:
        """The rows of some objects of one partition, in offset order and each once.

        In memory is a block of offsets, and the rest of the objects that begin in it.

        Args:
          stored: the objects.
          since: the first offset.
          dated: objects of hours that end before this time, ms, are not read.
        """
        held: list[pa.RecordBatch] = []
        fresh = (it for it in stored if it.begin + self.layout.folder_ms > dated)
        for block, objects in itertools.groupby(sorted(fresh, key=lambda it: it.block), key=lambda it: it.block):
            if held:
                ready, held = _split_at(block * self.layout.block, held)
                yield from ready
            since = max(since, block * self.layout.block)  # what is before has come; an object may hold it once more
            found = [rows.filter(pc.greater_equal(rows["offset"], since)) for it in objects for rows in self.read(it)]
            held += [rows for rows in found if len(rows)]
        if held:
            yield from _split_at(_LAST_OFFSET, held)[0]

    def read(self, stored: StoredObject) -> list[pa.RecordBatch]:
        """The rows of an object, as one batch or none."""
        try:
            rows = _read_object(self.objects, self.layout, stored)
        except FileNotFoundError:
            return self._instead(stored)
        except BadFileError as bad:
            if not self.skip_bad_files:
                cure = "repair or remove it, or pass over such files with --on_bad_file=skip"
                raise UsageError(f"{bad}: {cure}") from None
            _LOG.warning("%s: it is passed over", bad)
            Metrics.counter("lake", "bad_files").inc()
            return []
        wanted = self._wanted(rows)
        return [wanted] if len(wanted) else []

    def _instead(self, gone: StoredObject) -> list[pa.RecordBatch]:
        """The rows of what took the place of an object since it was found, other rows among them."""
        folder = list_objects(self.objects, self.layout, gone.begin, gone.begin + 1)
        new = [
            it for it in folder if it.compacted and it != gone and (it.partition, it.log) == (gone.partition, gone.log)
        ]
        if not new:
            raise FileNotFoundError(f"{self.objects.url}/{gone.path} is gone since the job found it: run it again")
        return [rows for it in new for rows in self.read(it)]

    def _wanted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        times = rows[self.layout.times[0]]
        inside = pc.and_(pc.greater_equal(times, self.begin), pc.less(times, self.end))
        if self.symbols is not None:
            names = rows["symbol"]
            asked = pc.is_in(names.dictionary, pa.array(self.symbols, pa.string()))
            inside = pc.and_(inside, asked.take(names.indices))
        return rows if pc.all(inside).as_py() else rows.filter(inside)


def _split_at(offset: int, batches: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """The rows before an offset, in order and each once, and the others; each as a list of one batch or none."""
    rows = joined(batches)
    offsets, once = np.unique(rows["offset"].to_numpy(), return_index=True)
    at = int(np.searchsorted(offsets, offset))
    before, after = (rows.take(pa.array(some)) for some in (once[:at], once[at:]))
    return [before][:at], [after][: len(once) - at]


class ReadFromLake(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]]: (partition, rows), bounded.

    Each record comes once, in a batch of the rows of an hour (or day) of a partition in offset order, with the span
    from the first to the last offset; batches come in any order.  Columns are those of the layout's schema, with the
    rows' place in the log where it has one.

    Args:
      stretch: what to read.
    """

    def __init__(self, stretch: LakeStretch) -> None:
        super().__init__()
        self._stretch = stretch

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists, spreads the hours over the workers, and reads them."""
        reading = beam.FlatMap(_read, self._stretch).with_output_types(tuple[int, pa.RecordBatch])
        return pbegin | _listing(self._stretch, _by_hour) | "Spread" >> beam.Reshuffle() | "Hours" >> reading


class ListByPartition(beam.PTransform):
    """PBegin to PCollection[tuple[int, list[StoredObject]]]: the objects of each partition of the log, in one element.

    For whoever reads a partition in order: `LakeStretch.hours` and `log` take such a list, and hold little of it.

    Args:
      stretch: what to read.
    """

    def __init__(self, stretch: LakeStretch) -> None:
        super().__init__()
        self._stretch = stretch

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        """Lists, and spreads the partitions over the workers."""
        listing = _listing(self._stretch, _by_partition)
        return pbegin | listing | "Spread" >> beam.Reshuffle()


def _listing(stretch: LakeStretch, key: Callable[[StoredObject], object]) -> beam.PTransform:
    """Lists the objects that have a key in common together."""
    # Typed, because on Spark a Reshuffle of untyped elements before a grouping fails (ClassCastException).
    listed = beam.FlatMap(_listed, stretch, key).with_output_types(tuple[int, list[StoredObject]])
    return "List" >> (beam.Impulse() | listed)


def _listed(
    _: object, stretch: LakeStretch, key: Callable[[StoredObject], object]
) -> list[tuple[int, list[StoredObject]]]:
    groups: dict[object, list[StoredObject]] = {}
    for stored in stretch.find():
        groups.setdefault(key(stored), []).append(stored)
    return [(group[0].partition, group) for group in groups.values()]


def _by_partition(stored: StoredObject) -> object:
    return stored.partition


def _by_hour(stored: StoredObject) -> object:
    return stored.partition, stored.begin


def _read(element: tuple[int, list[StoredObject]], stretch: LakeStretch) -> Iterator[tuple[int, pa.RecordBatch]]:
    partition, stored = element
    for rows in stretch.log(stored):
        offsets = rows["offset"]
        span = Span(stored[0].log, partition, offsets[0].as_py(), offsets[-1].as_py() + 1)
        yield partition, with_span(rows, span)


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


def _days(objects: Objects, layout: Layout, first: str = "", last: str = "~") -> list[str]:
    """The days from `first` to `last` that have objects, oldest first; by their folders, level by level."""
    folders = [""]
    for _ in ("year", "month", "day"):
        below = [each for folder in folders for each in _below(objects, layout, folder)]
        dated = [it for it in below if _dated(it)]
        folders = [it for it in dated if first[: len(_dated(it))] <= _dated(it) <= last[: len(_dated(it))]]
    return [_dated(folder) for folder in sorted(folders)]


def _dated(folder: str) -> str:
    """2024-01-31 for year=2024/month=01/day=31, the beginning of that for the folders above, nothing for others."""
    return "-".join(re.findall(r"\d+", folder)) if _FOLDERS.fullmatch(folder) else ""


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
    first, last = (str(np.datetime64(ms // DAY_MS, "D")) for ms in (begin, end - 1))
    found = []
    for day in _days(objects, layout, first, last):
        folder = "{}/year={}/month={}/day={}".format(layout.dataset, *day.split("-"))
        selector = fs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
        paths = (it.path for it in files.get_file_info(selector) if it.type is fs.FileType.File)
        found += [_named(layout, path.removeprefix(f"{root}/")) for path in paths if not _is_half(path)]
    return sorted(
        (it for it in found if it.partition < 0 or (it.begin < end and it.begin + layout.folder_ms > begin)),
        key=lambda it: (it.begin, it.partition, it.path),
    )


def _is_half(path: str) -> bool:
    return path.rpartition("/")[2].startswith((".", "_"))


def _named(layout: Layout, path: str) -> StoredObject:
    folder, _, name = path.removeprefix(f"{layout.dataset}/").rpartition("/")
    named, dated = _NAME.fullmatch(name), _FOLDER.match(folder)
    year, month, day, hour = dated.groups() if dated else ("1970", "01", "01", None)
    begin = np.datetime64(f"{year}-{month}-{day}T{hour or '00'}", "ms").astype(np.int64)
    belongs = dated is not None and dated.end() == len(folder) and layout.hourly == bool(hour)
    if named is None or named["suffix"] != layout.suffix or not belongs:
        return StoredObject(path, -1, int(begin))
    partition, block = int(named["partition"]), int(named["block"])
    return StoredObject(path, partition, int(begin), named["slot"], block, named["log"], bool(named["digest"]))


def _read_object(objects: Objects, layout: Layout, stored: StoredObject) -> pa.RecordBatch:
    """All rows of an object as a batch of the layout's schema.

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
            table = _decoded(layout, opened)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, FileNotFoundError) or "AWS Error" in str(error):
            raise
        why = str(error).splitlines()[0][:200]
        raise BadFileError(f"{name} is damaged, or no {layout.suffix} file ({why})") from None
    return _restored(layout, table, name)


def _decoded(layout: Layout, opened: pa.NativeFile) -> pa.Table:
    if layout.suffix == JSON_LINES:
        return read_json_lines(opened.read(), layout.stored)
    return pq.ParquetFile(opened).read()


def _restored(layout: Layout, table: pa.Table, name: str) -> pa.RecordBatch:
    """The columns of a file as batches have them: see `lake_objects`, which stores them."""
    columns = []
    for field, stored in zip(layout.schema, layout.stored, strict=True):
        if field.name not in table.schema.names:
            raise BadFileError(f"{name} has no column {field.name}, perhaps an older version wrote it")
        column = table[field.name].combine_chunks()
        if column.type != stored.type:
            raise BadFileError(f"{name} has a column {field.name} of {column.type}, not of {stored.type}")
        if column.null_count and not field.nullable:
            raise BadFileError(f"{name} has rows without {field.name}")
        columns.append(column.dictionary_encode() if pa.types.is_dictionary(field.type) else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=layout.schema)


beam.coders.registry.register_coder(StoredObject, beam.coders.RowCoder)
