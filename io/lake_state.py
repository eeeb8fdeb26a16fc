"""States in the lake, with which a day ends: written by the day's batch, read by the next job that begins.

    state/date=2024-01-02/closing-60s.parquet   of all symbols, as the day's ticks give it
    state/date=2024-01-02/live-60s.parquet      of all partitions, as the stream had it before the day after
    state/date=2024-01-02/news-done.json        of a dataset that has none: only that the day is done

One object a day and length of bars, written whole; the day is that of UTC.
"""

import dataclasses
import datetime
import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from beam_pipelines.errors import UsageError
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.as_live import Begun, LiveStates
from beam_pipelines.transforms.closing_state import DAY_MS, ClosingState, midnight_of
from beam_pipelines.transforms.gather import Gather

__all__ = [
    "LATEST",
    "StoredState",
    "WriteState",
    "begin_of",
    "closing_state_of",
    "find_closing_state",
    "has_state",
    "is_marked",
    "live_state_of",
    "mark_done",
    "merged_closing",
    "merged_live",
    "write_closing_state",
]

LATEST = "latest"
"""Instead of a day: the last one that has a closing state."""
_DATASET = "state"
_NAME = re.compile(_DATASET + r"/date=(?P<day>\d{4}-\d\d-\d\d)/closing-(?P<seconds>\d+)s\.parquet")

State = TypeVar("State")


def begin_of(day: datetime.date, bar_ms: int) -> int:
    """The end of the last bar that ends within `day`, ms: a closing state's `until`."""
    end = midnight_of(day) + DAY_MS
    return end // bar_ms * bar_ms


def write_closing_state(objects: Objects, day: datetime.date, state: ClosingState, bar_ms: int) -> str:
    """Puts the closing state of a day in the place of an earlier one; gives its path under the root.

    Raises:
      ValueError: if `state` does not end with the last bar of the day.
    """
    if state.until != begin_of(day, bar_ms):
        raise ValueError(f"a closing state up to {state.until} ms is not that of {day}, up to {begin_of(day, bar_ms)}")
    return _put(objects, _path(day, bar_ms), state.to_batch(bar_ms))


def _put(objects: Objects, path: str, state: pa.RecordBatch) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([state]), sink, compression="zstd")
    objects.write(path, sink.getvalue())
    return path


class WriteState(beam.PTransform):
    """The states that each partition's day ends with, as record batches, to the one object of the day.

    Args:
      objects: the lake.
      day: that they end.
      bar_ms: length of the bars, ms.
      live: whether they are the stream's.
      merged: makes one batch of those of all partitions.
      after: what must be done before.
    """

    def __init__(
        self,
        objects: Objects,
        day: datetime.date,
        bar_ms: int,
        live: bool,
        merged: Callable[[list[pa.RecordBatch]], pa.RecordBatch],
        after: Iterable[beam.PCollection] = (),
    ) -> None:
        super().__init__()
        self._told = objects, _path(day, bar_ms, live), merged
        self._after = tuple(map(beam.pvalue.AsIter, after))

    def expand(self, closing: beam.PCollection) -> beam.PCollection:
        """Together, because a symbol must not be in two partitions."""
        keyed = closing | "Key" >> beam.Map(_keyed).with_output_types(tuple[int, pa.RecordBatch])
        write = beam.Map(_write, *self._told, *self._after).with_output_types(str)
        return keyed | "Together" >> Gather(int) | "Write" >> write


def _keyed(batch: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    return 0, batch


def _write(
    element: tuple[int, Iterable[pa.RecordBatch]],
    objects: Objects,
    path: str,
    merged: Callable[[list[pa.RecordBatch]], pa.RecordBatch],
    *_after: Iterable[object],
) -> str:
    return _put(objects, path, merged(list(element[1])))


def merged_closing(
    batches: list[pa.RecordBatch], until: int, bar_ms: int, prior: Callable[[], ClosingState]
) -> pa.RecordBatch:
    """The closing state up to `until`, ms, of those of each partition's symbols; symbols that rested keep `prior`'s."""
    parts = [ClosingState.from_batch(batch, bar_ms) for batch in batches]
    ended = prior().followed_by(until, [(list(part.symbols), part.history) for part in parts])
    return ended.to_batch(bar_ms)


def merged_live(batches: list[pa.RecordBatch], semantics: Semantics, prior: Callable[[], Begun]) -> pa.RecordBatch:
    """The stream's states of all partitions, of those of each; partitions that rested keep `prior`'s."""
    return prior().states.followed_by(batches, semantics)


@dataclasses.dataclass(frozen=True)
class StoredState(Generic[State]):
    """A state in the lake, to be read by workers.

    Attributes:
      objects: the lake.
      path: of the object.
      digest: of its content when the job was built: a restart must not begin with another.
      decode: makes the state of its rows.
      until: up to where it goes in event time, ms; of the stream's, the partition that is furthest back.
    """

    objects: Objects
    path: str
    digest: str
    decode: Callable[[pa.RecordBatch], State]
    until: int

    def load(self) -> State:
        """The state.

        Raises:
          UsageError: if it was written anew since the job was built, or is gone.
        """
        try:
            content = _content(self.objects, self.path)
        except FileNotFoundError:
            raise UsageError(f"{self._name()} is gone since the job was built: {_RESUME}") from None
        if _digest(content) != self.digest:
            raise UsageError(f"{self._name()} was written anew since the job was built: {_RESUME}")
        return self.decode(_rows(content))

    def _name(self) -> str:
        return f"state {self.objects.url}/{self.path}"


_RESUME = "start the job again, from its last checkpoint or afresh"


def has_state(objects: Objects, day: datetime.date, bar_ms: int, live: bool) -> bool:
    """Whether a day's batch, or that of what the stream had, was done to its end."""
    return _exists(objects, _path(day, bar_ms, live))


def mark_done(objects: Objects, day: datetime.date, dataset: str) -> None:
    """Notes that a day's batch was done to its end, for a dataset whose days leave no state."""
    objects.write(_mark(day, dataset), pa.py_buffer(b"{}"))


def is_marked(objects: Objects, day: datetime.date, dataset: str) -> bool:
    """Whether `mark_done` was told so."""
    return _exists(objects, _mark(day, dataset))


def _mark(day: datetime.date, dataset: str) -> str:
    return f"{_DATASET}/date={day}/{dataset}-done.json"


def _exists(objects: Objects, path: str) -> bool:
    files, root = objects.tree()
    return bool(files.get_file_info(f"{root}/{path}").type is fs.FileType.File)


def closing_state_of(objects: Objects, day: datetime.date, bar_ms: int) -> StoredState[ClosingState] | None:
    """The closing state of a day for bars of that length, if it was written.

    Raises:
      UsageError: if it cannot be used.
    """
    decode = functools.partial(ClosingState.from_batch, bar_ms=bar_ms)
    return _stored(objects, _path(day, bar_ms), decode, lambda state: state.until)


def live_state_of(objects: Objects, day: datetime.date, semantics: Semantics) -> StoredState[LiveStates] | None:
    """What the stream remembered of its partitions when a day was over, if it was written.

    Raises:
      UsageError: if it cannot be used.
    """
    decode = functools.partial(LiveStates.from_batch, semantics=semantics)
    path = _path(day, semantics.bar_ms, live=True)
    return _stored(objects, path, decode, lambda states: min(it.newest for it in states.values()))


def _stored(
    objects: Objects, path: str, decode: Callable[[pa.RecordBatch], State], until: Callable[[State], int]
) -> StoredState[State] | None:
    try:
        content = _content(objects, path)
    except FileNotFoundError:
        return None
    try:
        state = decode(_rows(content))
    except UsageError as mistake:
        raise UsageError(f"{objects.url}/{path}: {mistake}") from None
    except (pa.ArrowInvalid, KeyError, ValueError):
        raise UsageError(f"{objects.url}/{path} holds no state: write it again, or choose another day") from None
    return StoredState(objects, path, _digest(content), decode, until(state))


def find_closing_state(objects: Objects, day: str, bar_ms: int) -> StoredState[ClosingState]:
    """The closing state of a day (2024-01-02) or the latest one.

    Raises:
      UsageError: if there is none, it cannot be used, or the lake cannot be read.
    """
    try:
        date = _chosen(objects, day, bar_ms)
        found = closing_state_of(objects, datetime.date.fromisoformat(date), bar_ms)
    except UsageError as mistake:
        raise UsageError(f"--start_state={day}: {mistake}") from None
    except OSError as error:
        raise UsageError(
            f"--start_state={day} cannot be read from lake {objects.url} ({str(error).splitlines()[0]}): "
            "make sure that the lake can be reached, or leave it out"
        ) from None
    if found is None:
        raise UsageError(f"--start_state={day}: it was deleted from lake {objects.url} just now: choose another day")
    return found


def _chosen(objects: Objects, day: str, bar_ms: int) -> str:
    known = _days(objects)
    lengths = {length for date, length in known if day in (LATEST, date)}
    if not lengths:
        held = sorted({date for date, _ in known})
        has = f"it holds {held[0]} to {held[-1]}" if held else "it holds none"
        raise UsageError(
            f"lake {objects.url} has no such closing state ({has}): choose a day that is there, "
            "or leave it out to begin with nothing"
        )
    if bar_ms // 1000 not in lengths:
        raise UsageError(
            f"lake {objects.url} has it for bars of {', '.join(map(str, sorted(lengths)))} s, "
            f"--bar_seconds asks for {bar_ms // 1000}: correct one of them, or leave --start_state out"
        )
    return max(date for date, length in known if length == bar_ms // 1000) if day == LATEST else day


def _days(objects: Objects) -> set[tuple[str, int]]:
    """Day and length of bars, s, of each closing state that is there."""
    files, root = objects.tree()
    selector = fs.FileSelector(f"{root}/{_DATASET}", recursive=True, allow_not_found=True)
    found = (_NAME.fullmatch(info.path[len(root) + 1 :]) for info in files.get_file_info(selector))
    return {(it["day"], int(it["seconds"])) for it in found if it}


def _path(day: datetime.date, bar_ms: int, live: bool = False) -> str:
    return f"{_DATASET}/date={day}/{'live' if live else 'closing'}-{bar_ms // 1000}s.parquet"


def _content(objects: Objects, path: str) -> pa.Buffer:
    with objects.open(path) as opened:
        return opened.read_buffer()


def _digest(content: pa.Buffer) -> str:
    return hashlib.sha256(content).hexdigest()


def _rows(content: pa.Buffer) -> pa.RecordBatch:
    table = pq.read_table(pa.BufferReader(content))
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)
