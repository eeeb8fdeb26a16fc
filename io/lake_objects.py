"""What lies in the lake and where: bounds, names and content of its objects, from the log alone.

    market-data/year=2024/month=01/day=02/hour=14/p00003-20240102T140500Z-000000000012-market-data-raw.parquet
    market-data/year=2024/month=01/day=02/hour=14/p00003-20240102T140000Z-000000000011-market-data-raw~b1946ac9.parquet

An object holds the rows of one log partition that fall in one slot of log time, one block of offsets and one hour (or
day) of their own time, in offset order.  The slot of a record is that of the highest log time up to it, so slots never
go back, and the first record of the next slot or block finishes the objects of the last.  Each partition's slots begin
at a time of its own: were all written at one moment, all ticks would wait for them.  The second name is of an object
that took the place of some others: see `lake_compact`.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics
from numpy.typing import NDArray

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_json import as_json_lines, read_json_lines
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import DEAD_LETTERS, TICKS, Span, span_of

__all__ = [
    "DEAD_LETTER_DATA",
    "JSON_LINES",
    "MARKET_DATA",
    "NEVER",
    "NEWS_DATA",
    "ROW_GROUP",
    "Group",
    "Layout",
    "Piece",
    "Position",
    "Written",
    "as_parquet",
    "as_stored",
    "check_continues",
    "cut",
    "write_objects",
]

ROW_GROUP = 131_072
"""Rows that query engines read in parallel."""
ASCENDING = {"timestamp", "time", "log_time", "seq", "offset"}
"""Columns whose values nearly all differ, and little from the one before: as differences, objects are half as large."""
PARQUET, JSON_LINES = "parquet", "json.gz"
_HOUR_MS = 3_600_000
_SPREAD = 618_034  # the golden ratio, in millionths: its multiples fill a range evenly, however many there are
NEVER = -(2**63)
"""Before any log time, ms."""
_Times = TypeVar("_Times", int, NDArray[np.int64])


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the rows of a dataset lie; part of the meaning of every object's name.

    Attributes:
      dataset: folder under the root.
      schema: columns of the batches; strings may be dictionaries, times are ms.
      times: columns that are times, written as timestamps; the first puts a row in its folder.
      clock: column whose running maximum says which slot a row belongs to, ms.
      hourly: whether folders go down to the hour or to the day.
      slot_ms: length of a slot of log time, whole seconds in ms.
      block: number of offsets after which a new object begins, however long the slot: a bound for memory, since an
        object is made whole.
      gapless: whether each batch must begin at the offset where the one before it ended.
      compression: of parquet, snappy or zstd.
      suffix: of names, which says what the objects are: parquet, or gzipped lines of JSON.
    """

    dataset: str
    schema: pa.Schema
    times: tuple[str, ...]
    clock: str
    hourly: bool
    slot_ms: int
    block: int
    gapless: bool
    compression: str = "snappy"
    suffix: str = PARQUET

    def __post_init__(self) -> None:
        if self.slot_ms < 1000 or self.slot_ms % 1000:
            raise UsageError(f"lake slot_ms is {self.slot_ms}: give whole seconds, 1000 ms or more")
        if self.compression not in ("snappy", "zstd"):
            raise UsageError(f"lake compression is '{self.compression}': give snappy or zstd")

    @property
    def folder_ms(self) -> int:
        """How much event time a folder holds, ms."""
        return _HOUR_MS if self.hourly else 24 * _HOUR_MS

    @property
    def stored(self) -> pa.Schema:
        """Columns as the files have them: times as timestamps, plain strings (dictionaries depend on batching)."""
        return pa.schema([pa.field(it.name, self._stored_type(it), it.nullable) for it in self.schema])

    def _stored_type(self, field: pa.Field) -> pa.DataType:
        if field.name in self.times:
            return pa.timestamp("ms", "UTC")
        return field.type.value_type if pa.types.is_dictionary(field.type) else field.type

    def slot_of(self, partition: int, log_time: _Times) -> _Times:
        """Number of the slot of each log time, ms."""
        return (log_time - self._first_start(partition)) // self.slot_ms

    def start_of(self, partition: int, slot: int) -> int:
        """When a slot begins, ms, at a whole second."""
        return self._first_start(partition) + slot * self.slot_ms

    def _first_start(self, partition: int) -> int:
        """The start of slot 0, less than a slot; 0 for slots of hours, each of which would lie in one hour more.

        That is an object more; and such slots are for replays, where nobody waits.
        """
        if self.slot_ms >= _HOUR_MS:
            return 0
        return partition * _SPREAD % 1_000_000 * (self.slot_ms // 1000) // 1_000_000 * 1000


MARKET_DATA = Layout("market-data", TICKS, ("timestamp", "log_time"), "log_time", True, 300_000, 250_000, gapless=True)
"""Every valid tick of the raw topic, late and repeated ones too."""

NEWS_DATA = Layout(
    "news", ARTICLES, ("published_at", "log_time"), "log_time", False, 3_600_000, 5_000, gapless=True, suffix=JSON_LINES
)
"""Every valid article of the raw topic, all versions, in folders by the day on which they were published."""

DEAD_LETTER_DATA = Layout(
    "dead-letter", DEAD_LETTERS, ("timestamp",), "timestamp", False, 300_000, 100_000, gapless=False
)
"""Dead letters, in folders by the day of their Kafka timestamp; -1 (none) is the day before the Unix epoch."""


class Group(NamedTuple):
    """What the objects that open and end together have in common, beside the log partition."""

    slot: int  # of log time, since the partition's first start
    block: int  # of offsets


class Position(NamedTuple):
    """How far a log partition has been read, and which objects are open."""

    begin: int  # the first offset that was ever read
    next: int  # the offset after the last
    high: int = NEVER  # highest log time so far, ms
    open: Optional[Group] = None  # noqa: UP045 (Beam reads it)


class Piece(NamedTuple):
    """Consecutive rows of one batch that share their objects."""

    group: Group
    rows: pa.RecordBatch


class Written(NamedTuple):
    """An object in the lake."""

    path: str  # under the root
    rows: int
    bytes: int
    final: bool  # False: the log may yet bring rows for it


beam.coders.registry.register_coder(Written, beam.coders.RowCoder)


def cut(layout: Layout, position: Position | None, batch: pa.RecordBatch) -> tuple[Position, list[Piece]]:
    """The next batch of a log partition, cut where objects end.

    Cutting two batches one after the other puts the rows in the same objects as cutting them as one.

    Raises:
      ValueError: if the batch does not continue at `position`, when rows would be lost or repeated.
    """
    span = span_of(batch)
    position = position or Position(span.first, span.first)
    check_continues(layout, position.next, span)
    if not len(batch):
        return position._replace(next=span.next), []
    high = np.maximum.accumulate(np.maximum(_numbers(batch, layout.clock), position.high))
    slots, blocks = layout.slot_of(span.partition, high), _numbers(batch, "offset") // layout.block
    pieces = [
        Piece(Group(int(slots[start]), int(blocks[start])), batch.slice(start, end - start))
        for start, end in _runs((np.diff(slots) != 0) | (np.diff(blocks) != 0))
    ]
    return Position(position.begin, span.next, int(high[-1]), pieces[-1].group), pieces


def check_continues(layout: Layout, expected: int, span: Span) -> None:
    """Raises ValueError if `span` does not continue a partition that was read up to offset `expected`."""
    if span.first < expected or (layout.gapless and span.first > expected):
        raise ValueError(
            f"partition {span.partition} of {span.topic} goes on at offset {span.first}, not at {expected}: "
            f"{layout.dataset} would have rows missing or repeated"
        )


def _numbers(rows: pa.RecordBatch | pa.Table, column: str) -> NDArray[np.int64]:
    return rows[column].to_numpy()


def _runs(changes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of each run between two changes; `changes` has an entry for each two neighbours."""
    inner = (np.flatnonzero(changes) + 1).tolist()
    return list(zip([0, *inner], [*inner, len(changes) + 1], strict=True))


def write_objects(
    objects: Objects, layout: Layout, position: Position, group: Group, batches: Iterable[pa.RecordBatch], final: bool
) -> Iterator[Written]:
    """Writes all rows so far of a group, which are in `batches`, in offset order: an object a folder."""
    held = list(batches)
    if not held:
        return
    span = span_of(held[0])
    marks = {"topic": span.topic, "partition": str(span.partition), "slot_ms": str(layout.slot_ms)}
    together = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in held])
    rows = as_stored(layout, together).combine_chunks()
    del held, together  # the rows are copied, and 100 bytes each
    for folder, part in _by_folder(layout, rows):
        path = f"{layout.dataset}/{folder}/{_name(layout, group, span.topic, span.partition)}"
        merged = _with_others(objects, path, part, layout, position).replace_schema_metadata(marks)
        content = _encoded(layout, merged.combine_chunks())
        objects.write(path, content)
        Metrics.counter("lake", f"{layout.dataset.replace('-', '_')}_objects").inc()
        yield Written(path, len(merged), content.size, final)


def write_refused(objects: Objects, rows: pa.RecordBatch) -> Iterator[Written]:
    """Writes each of some DEAD_LETTERS rows that stand for no stretch of a log as an object named by its content."""
    table = as_stored(DEAD_LETTER_DATA, rows.replace_schema_metadata(None))
    for number, value in enumerate(rows["value"].to_pylist()):
        path = f"{DEAD_LETTER_DATA.dataset}-refused/{hashlib.sha256(value).hexdigest()}.parquet"
        content = as_parquet([table.slice(number, 1).combine_chunks()], DEAD_LETTER_DATA.compression)
        objects.write(path, content)
        yield Written(path, 1, content.size, True)


def as_stored(layout: Layout, rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """The columns of rows as the files have them."""
    whole = layout.stored
    stored = pa.schema([whole.field(name) for name in rows.schema.names])
    return pa.table([column.cast(field.type) for column, field in zip(rows.columns, stored, strict=True)], stored)


def _by_folder(layout: Layout, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rows by hour or day of their own time, each in the order in which they came."""
    unit = "h" if layout.hourly else "D"
    units = rows[layout.times[0]].cast(pa.timestamp("ms")).to_numpy().astype(f"datetime64[{unit}]")
    order = np.argsort(units, kind="stable")
    runs = _runs(units[order][1:] != units[order][:-1])
    for start, end in runs:
        part = rows if len(runs) == 1 else rows.take(pa.array(order[start:end]))
        yield _folder(np.datetime_as_string(units[order[start]])), part


def _folder(hour_or_day: str) -> str:
    """Hive-style folders for 2024-01-02T14 or 2024-01-02."""
    date, _, hour = hour_or_day.partition("T")
    year, month, day = date.rsplit("-", 2)
    return f"year={year}/month={month}/day={day}" + (f"/hour={hour}" if hour else "")


def _name(layout: Layout, group: Group, topic: str, partition: int) -> str:
    """Name of an object within its folder.  The topic keeps two topics in one lake from overwriting each other."""
    start = np.datetime_as_string(np.datetime64(layout.start_of(partition, group.slot), "ms"), unit="s")
    compact = re.sub("[-:]", "", start)
    return f"p{partition:05d}-{compact}Z-{group.block:012d}-{re.sub('[^A-Za-z0-9._-]', '_', topic)}.{layout.suffix}"


def _with_others(objects: Objects, path: str, rows: pa.Table, layout: Layout, position: Position) -> pa.Table:
    """`rows`, with those of an earlier object of this name that this reader of the log has not read.

    They are there when a job begins in the middle of a log, or ends before one that ran further.
    """
    try:
        with objects.open(path) as opened:
            others = _earlier(opened, path, layout, position)
    except (FileNotFoundError, pa.ArrowInvalid):  # an object that is damaged has no rows to keep
        return rows
    if others is None:
        return rows
    others, offsets = others.cast(rows.schema), _numbers(others, "offset")
    return pa.concat_tables([others.filter(offsets < position.begin), rows, others.filter(offsets >= position.next)])


def _earlier(opened: pa.NativeFile, path: str, layout: Layout, position: Position) -> pa.Table | None:
    """The rows of an earlier object; None: all of them lie where `position` has read."""
    if layout.suffix == JSON_LINES:
        return read_json_lines(opened.read(), layout.stored)
    earlier = pq.ParquetFile(opened)
    if _within(earlier.metadata, position):
        return None
    slot_ms = int(earlier.metadata.metadata[b"slot_ms"])
    if slot_ms != layout.slot_ms:
        raise UsageError(
            f"lake object {path} was written with slot_ms={slot_ms} and would lose rows with {layout.slot_ms}: "
            "keep the slot of a lake, or write to a new one"
        )
    return earlier.read()


def _within(metadata: pq.FileMetaData, position: Position) -> bool:
    """Whether all rows of an object lie where `position` has read."""
    column = metadata.schema.names.index("offset")
    bounds = [metadata.row_group(i).column(column).statistics for i in range(metadata.num_row_groups)]
    return all(position.begin <= bound.min and bound.max < position.next for bound in bounds)


def _encoded(layout: Layout, rows: pa.Table) -> pa.Buffer:
    return as_json_lines(rows) if layout.suffix == JSON_LINES else as_parquet([rows], layout.compression)


def as_parquet(tables: Iterable[pa.Table], compression: str, order: tuple[str, ...] = ()) -> pa.Buffer:
    """Some tables of one schema as one parquet file: equal tables give equal bytes.

    Args:
      tables: each in one chunk, and in row groups of its own.
      compression: snappy or zstd.
      order: columns that the rows are sorted by; the file says so, and has an index of its pages.
    """
    rest = iter(tables)
    first = next(rest)
    sorting = [pq.SortingColumn(first.schema.names.index(name)) for name in order] or None
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        first.schema,
        compression=compression,
        use_dictionary=[name for name in first.schema.names if name not in ASCENDING],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in first.schema.names if name in ASCENDING},
        sorting_columns=sorting,
        write_page_index=bool(order),
    ) as writer:
        for table in itertools.chain([first], rest):
            writer.write_table(table, row_group_size=ROW_GROUP)
    return sink.getvalue()
