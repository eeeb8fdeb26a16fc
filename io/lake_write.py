"""Writing to the lake, an S3 bucket or a folder: parquet objects that a second writing leaves as they are.

The rows of objects that the log has not finished wait in Beam's state.  When the log rests they are written as they
stand, and later again under the same name.  Names and content: `lake_objects`.
"""

import bisect
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagRuntimeState,
    BagStateSpec,
    ReadModifyWriteRuntimeState,
    ReadModifyWriteStateSpec,
    RuntimeTimer,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import Timestamp

from beam_pipelines.io.lake_objects import (
    DEAD_LETTER_DATA,
    MARKET_DATA,
    Group,
    Layout,
    Piece,
    Position,
    Written,
    check_continues,
    cut,
    write_objects,
    write_refused,
)
from beam_pipelines.io.objects import Objects, objects_in
from beam_pipelines.transforms.batches import MANY, ArrowCoder, Span, joined, span_of, with_span
from beam_pipelines.transforms.gather import Gather
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor
from beam_pipelines.transforms.packing import packed, unpacked

__all__ = ["WriteDeadLettersToLake", "WriteRefusedToLake", "WriteToLake", "check_lake"]


def check_lake(root: str) -> None:
    """Makes sure that objects can be written to `root`; leaves none.

    Raises:
      UsageError: if the folder or bucket cannot be reached or written, after 10 seconds at most.
    """
    objects_in(root).check()


Keyed = tuple[tuple[int, int, int], pa.RecordBatch]
"""(partition, slot, block) and rows that belong together in objects."""


class Reach(NamedTuple):
    """What one batch adds to the position of its partition."""

    span: Span
    newest: int  # highest log time, ms; NEVER without rows
    last: Optional[Group]  # noqa: UP045 (Beam reads it); group of its last row, were it the first batch


class Clock(NamedTuple):
    """The running maximum of log time over a whole partition."""

    firsts: list[int]  # first offset of each batch, ascending
    highs: list[int]  # highest log time before each batch, ms
    end: Position


def _reach_of(element: tuple[int, pa.RecordBatch], layout: Layout) -> tuple[int, Reach]:
    partition, batch = element
    alone, _ = cut(layout, None, batch)
    return partition, Reach(span_of(batch), alone.high, alone.open)


def _clock_of(element: tuple[int, Iterable[Reach]], layout: Layout) -> tuple[int, Clock]:
    """Puts the batches of a partition in order and checks that together they are its log."""
    partition, unordered = element
    reaches = sorted(unordered, key=lambda reach: reach.span[2:4])
    position = Position(reaches[0].span.first, reaches[0].span.first)
    highs = []
    for span, newest, last in reaches:
        check_continues(layout, position.next, span)
        highs.append(position.high)
        high = max(position.high, newest)
        group = Group(layout.slot_of(partition, high), last.block) if last else position.open
        position = Position(position.begin, span.next, high, group)
    return partition, Clock([reach.span.first for reach in reaches], highs, position)


def _cut_at(element: tuple[int, pa.RecordBatch], layout: Layout, clocks: dict[int, Clock]) -> Iterator[Keyed]:
    """The pieces of a batch, each keyed by its objects."""
    partition, batch = element
    clock, first = clocks[partition], span_of(batch).first
    high = clock.highs[bisect.bisect_left(clock.firsts, first)]
    for group, rows in cut(layout, Position(clock.end.begin, first, high), batch)[1]:
        yield (partition, *group), rows


def _write_whole(
    element: tuple[tuple[int, int, int], Iterable[pa.RecordBatch]],
    objects: Objects,
    layout: Layout,
    clocks: dict[int, Clock],
) -> Iterator[Written]:
    (partition, *numbers), pieces = element
    group, end = Group(*numbers), clocks[partition].end
    ordered = sorted(pieces, key=lambda rows: rows["offset"][0].as_py())
    yield from write_objects(objects, layout, end, group, ordered, final=group != end.open)


class _HeldCoder(ArrowCoder):
    """By this name of it jobs that run know the coder of the rows that they hold, and can be updated."""


def _cut_packed(layout: Layout, position: Position | None, batch: pa.RecordBatch) -> tuple[Position, list[Piece]]:
    """`cut` of a batch that may be packed; it is unpacked only if objects end within it."""
    after, pieces = cut(layout, position, unpacked(batch.select([layout.clock, "offset"])))
    if len(pieces) > 1:
        return after, [Piece(it.group, packed(it.rows)) for it in cut(layout, position, unpacked(batch))[1]]
    return after, [Piece(it.group, batch) for it in pieces]


_FEW = 16_384
"""Rows that may come in pieces too small to be packed until they are joined, in a seventh of their bytes."""


class _HeldRows:
    """The rows of the objects that are open, in offset order, in two bags of Beam's keeping.

    Rows of which few come at a time are joined and packed now and then: hundreds of small pieces would take seven times
    the bytes, and so long to read that everything else that the worker does would wait.

    Args:
      many: packed pieces.
      few: pieces that came after them, each of less than `MANY` rows.
      count: of the rows in `few`.
    """

    def __init__(self, many: BagRuntimeState, few: BagRuntimeState, count: int) -> None:
        self._many, self._few, self.count = many, few, count

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds the next rows."""
        if len(rows) >= MANY:
            self._join()
            self._many.add(rows)
            return
        self._few.add(rows)
        self.count += len(rows)
        if self.count >= _FEW:
            self._join()

    def read(self) -> Iterator[pa.RecordBatch]:
        """All rows."""
        return map(unpacked, itertools.chain(self._many.read(), self._few.read()))

    def clear(self) -> None:
        """Lets go all rows."""
        self._many.clear()
        self._forget_few()

    def _join(self) -> None:
        if self.count:
            pieces = list(map(unpacked, self._few.read()))
            span = span_of(pieces[0])._replace(next=span_of(pieces[-1]).next)
            self._many.add(packed(with_span(joined(pieces), span)))
            self._forget_few()

    def _forget_few(self) -> None:
        self._few.clear()
        self.count = 0


class _Open(NamedTuple):
    """What is known of the objects that are open, beside their rows."""

    position: Position | None = None
    unwritten: bool = False  # whether rows are held that are in no object yet
    few: int = 0  # rows held in small pieces


class _OpenObjectsDoFn(beam.DoFn):
    """Unbounded: rows of the open objects wait in bags, to which batches are appended as they come."""

    POSITION = ReadModifyWriteStateSpec("position", BytesCoder())
    HELD = BagStateSpec("held", _HeldCoder())
    FEW = BagStateSpec("few", _HeldCoder())
    HOLD = TimerSpec("hold", TimeDomain.REAL_TIME)

    def __init__(self, objects: Objects, layout: Layout, hold_ms: int) -> None:
        self._objects, self._layout, self._hold_ms = objects, layout, hold_ms

    def process(
        self,
        element: tuple[int, pa.RecordBatch],
        state: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(POSITION),
        many: BagRuntimeState = beam.DoFn.StateParam(HELD),
        few: BagRuntimeState = beam.DoFn.StateParam(FEW),
        hold: RuntimeTimer = beam.DoFn.TimerParam(HOLD),
    ) -> Iterator[Written]:
        _, batch = element
        before = _decoded(state.read())
        held = _HeldRows(many, few, before.few)
        if span_of(batch).idle_ms:
            return self._as_it_stands(before, state, held)
        return self._goes_on(batch, before, state, held, hold)

    def _goes_on(
        self,
        batch: pa.RecordBatch,
        before: _Open,
        state: ReadModifyWriteRuntimeState,
        held: _HeldRows,
        hold: RuntimeTimer,
    ) -> Iterator[Written]:
        """Holds the rows of the next batch; writes the objects that it finishes."""
        after, pieces = _cut_packed(self._layout, before.position, batch)
        group = opened = before.position.open if before.position else None
        for piece in pieces:
            if group not in (None, piece.group):
                yield from self._written(after, group, held, final=True)
                held.clear()
            held.add(piece.rows)
            group = piece.group
        if pieces and not (before.unwritten and opened == after.open):
            hold.set(Timestamp.now() + self._hold_ms / 1000)
        state.write(_encoded(after, before.unwritten or bool(pieces), held.count))

    @on_timer(HOLD)
    def held_long_enough(
        self,
        state: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(POSITION),
        many: BagRuntimeState = beam.DoFn.StateParam(HELD),
        few: BagRuntimeState = beam.DoFn.StateParam(FEW),
    ) -> Iterator[Written]:
        """Writes rows of a slot that does not end, because valid rows stay away or their clock stands still."""
        before = _decoded(state.read())
        return self._as_it_stands(before, state, _HeldRows(many, few, before.few))

    def _as_it_stands(self, before: _Open, state: ReadModifyWriteRuntimeState, held: _HeldRows) -> Iterator[Written]:
        position = before.position
        if position is not None and position.open is not None and before.unwritten:
            yield from self._written(position, position.open, held, final=False)
            state.write(_encoded(position, unwritten=False, few=before.few))

    def _written(self, position: Position, group: Group, held: _HeldRows, final: bool) -> Iterator[Written]:
        return write_objects(self._objects, self._layout, position, group, held.read(), final)


_STATE_VERSION = 3  # 2 held no `few`


def _encoded(position: Position, unwritten: bool, few: int) -> bytes:
    return json.dumps([_STATE_VERSION, *position, unwritten, few]).encode()


def _decoded(state: bytes | None) -> _Open:
    if state is None:
        return _Open()
    version, *known = json.loads(state)
    if version not in (2, _STATE_VERSION):
        raise ValueError(f"the lake's state has version {version} and this program reads 2 and {_STATE_VERSION}")
    begin, next_offset, high, group, unwritten, *few = known
    return _Open(Position(begin, next_offset, high, Group(*group) if group else None), unwritten, *few)


class WriteToLake(beam.PTransform):
    """(partition, batch with span) to `Written`: each batch continues its partition; bounded or unbounded.

    Unbounded, objects are written when the log leaves their slot, when a heartbeat says that it rests, and at the
    latest `hold_ms` after a row came; batches may be packed.  Bounded, they may come in any order.

    Args:
      root: s3://bucket/prefix or a folder.
      layout: of the dataset; fixed for the life of a lake.
      hold_ms: how long a row may wait to be seen in the lake, ms of wall time.
      monitor: takes down the rows of objects.
    """

    def __init__(
        self,
        root: str,
        layout: Layout = MARKET_DATA,
        hold_ms: int = 600_000,
        monitor: PipelineMonitor = UNNAMED,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._objects, self._layout, self._hold_ms = objects_in(root), layout, hold_ms

    def expand(self, batches: beam.PCollection) -> beam.PCollection:  # noqa: D102
        written = self._whole(batches) if batches.is_bounded else self._as_it_comes(batches)
        told = beam.Map(_told, self._monitor, self._layout.dataset)
        return written | "Tell" >> told.with_output_types(Written)

    def _as_it_comes(self, batches: beam.PCollection) -> beam.PCollection:
        open_objects = _OpenObjectsDoFn(self._objects, self._layout, self._hold_ms)
        return batches | "Write" >> beam.ParDo(open_objects).with_output_types(Written)

    def _whole(self, batches: beam.PCollection) -> beam.PCollection:
        """Grouped by their objects, not by partition, so that no worker holds a whole partition."""
        clocks = (
            batches
            | "Reach" >> beam.Map(_reach_of, self._layout).with_output_types(tuple[int, Reach])
            | "OfPartition" >> beam.GroupByKey()
            | "Clock" >> beam.Map(_clock_of, self._layout).with_output_types(tuple[int, Clock])
        )
        return (
            batches
            | "Cut" >> beam.FlatMap(_cut_at, self._layout, beam.pvalue.AsDict(clocks)).with_output_types(Keyed)
            | "OfObject" >> Gather(tuple[int, int, int])
            | "Write"
            >> beam.FlatMap(_write_whole, self._objects, self._layout, beam.pvalue.AsDict(clocks)).with_output_types(
                Written
            )
        )


def _told(written: Written, monitor: PipelineMonitor, dataset: str) -> Written:
    monitor.record_batch(f"lake {dataset}", written.rows)
    return written


class WriteDeadLettersToLake(beam.PTransform):
    """DEAD_LETTERS batches with span, at most one for each batch of the log, to `Written`; bounded or unbounded.

    Args:
      root: s3://bucket/prefix or a folder.
      hold_ms: how long a dead letter may wait to be seen in the lake, ms of wall time.
    """

    def __init__(self, root: str, hold_ms: int = 30_000) -> None:
        super().__init__()
        self._root, self._hold_ms = root, hold_ms

    def expand(self, dead_letters: beam.PCollection) -> beam.PCollection:  # noqa: D102
        keyed = dead_letters | "Key" >> beam.Map(_keyed).with_output_types(tuple[int, pa.RecordBatch])
        return keyed | "Objects" >> WriteToLake(self._root, DEAD_LETTER_DATA, self._hold_ms)


class WriteRefusedToLake(beam.PTransform):
    """DEAD_LETTERS batches of rows that a database refused, which stand for no stretch of a log, to `Written`.

    They are few; each is an object in dead-letter-refused/, named by its content, so that a repeat changes nothing.

    Args:
      root: s3://bucket/prefix or a folder.
    """

    def __init__(self, root: str) -> None:
        super().__init__()
        self._objects = objects_in(root)

    def expand(self, refused: beam.PCollection) -> beam.PCollection:  # noqa: D102
        return refused | "Write" >> beam.FlatMap(_write_refused, self._objects).with_output_types(Written)


def _write_refused(rows: pa.RecordBatch, objects: Objects) -> Iterator[Written]:
    return write_refused(objects, rows)


def _keyed(batch: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    return span_of(batch).partition, batch
