"""Closing states in the lake: written by a day's batch, read by the next job that begins.

    state/date=2024-01-02/closing-60s.parquet

One object a day and length of bars, written whole; the day is that of UTC.
"""

import dataclasses
import datetime
import hashlib
import re
from collections.abc import Callable, Iterable

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from beam_pipelines.errors import UsageError
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.closing_state import DAY_MS, ClosingState, midnight_of
from beam_pipelines.transforms.gather import Gather

__all__ = [
    "LATEST",
    "StoredState",
    "WriteClosingState",
    "begin_of",
    "closing_state_of",
    "find_closing_state",
    "write_closing_state",
]

LATEST = "latest"
"""Instead of a day: the last one that has a closing state."""
_DATASET = "state"
_NAME = re.compile(_DATASET + r"/date=(?P<day>\d{4}-\d\d-\d\d)/closing-(?P<seconds>\d+)s\.parquet")


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
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([state.to_batch(bar_ms)]), sink, compression="zstd")
    path = _path(str(day), bar_ms)
    objects.write(path, sink.getvalue())
    return path


class WriteClosingState(beam.PTransform):
    """The closing states of each partition's symbols, as ClosingState.to_batch has them, to the one object of the day.

    Args:
      objects: the lake.
      day: that they end.
      bar_ms: length of the bars, ms.
      prior: gives the closing state of the day before, which symbols that rested keep.
      after: what must be done before; None: nothing.
    """

    def __init__(
        self,
        objects: Objects,
        day: datetime.date,
        bar_ms: int,
        prior: Callable[[], ClosingState],
        after: beam.PCollection | None = None,
    ) -> None:
        super().__init__()
        self._place = objects, day, bar_ms, prior
        self._after = () if after is None else (beam.pvalue.AsIter(after),)

    def expand(self, closing: beam.PCollection) -> beam.PCollection:
        """Together, because a symbol must not be in two partitions."""
        keyed = closing | "Key" >> beam.Map(_keyed).with_output_types(tuple[int, pa.RecordBatch])
        return (
            keyed
            | "Together" >> Gather(int)
            | "Write" >> beam.Map(_write, *self._place, *self._after).with_output_types(str)
        )


def _keyed(batch: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    return 0, batch


def _write(
    element: tuple[int, Iterable[pa.RecordBatch]],
    objects: Objects,
    day: datetime.date,
    bar_ms: int,
    prior: Callable[[], ClosingState],
    _after: Iterable[object] = (),
) -> str:
    parts = [ClosingState.from_batch(batch, bar_ms) for batch in element[1]]
    ended = prior().followed_by(begin_of(day, bar_ms), [(list(part.symbols), part.history) for part in parts])
    return write_closing_state(objects, day, ended, bar_ms)


@dataclasses.dataclass(frozen=True)
class StoredState:
    """A closing state in the lake, to be read by workers.

    Attributes:
      objects: the lake.
      path: of the object.
      digest: of its content when the job was built: a restart must not begin with another.
      bar_ms: length of the bars, ms.
      until: of the closing state, ms.
    """

    objects: Objects
    path: str
    digest: str
    bar_ms: int
    until: int

    def load(self) -> ClosingState:
        """The closing state.

        Raises:
          UsageError: if it was written anew since the job was built, or is gone.
        """
        try:
            content = _content(self.objects, self.path)
        except FileNotFoundError:
            raise UsageError(f"{self._name()} is gone since the job was built: {_RESUME}") from None
        if _digest(content) != self.digest:
            raise UsageError(f"{self._name()} was written anew since the job was built: {_RESUME}")
        return _state_of(content, self.bar_ms)

    def _name(self) -> str:
        return f"the closing state {self.objects.url}/{self.path}"


_RESUME = "start the job again, from its last checkpoint or afresh"


def closing_state_of(objects: Objects, day: datetime.date, bar_ms: int) -> StoredState | None:
    """The closing state of a day for bars of that length, if it was written.

    Raises:
      UsageError: if it cannot be used, or the lake cannot be read.
    """
    there = (str(day), bar_ms // 1000) in _days(objects)
    return find_closing_state(objects, str(day), bar_ms) if there else None


def find_closing_state(objects: Objects, day: str, bar_ms: int) -> StoredState:
    """The closing state of a day (2024-01-02) or the latest one.

    Raises:
      UsageError: if there is none, it cannot be used, or the lake cannot be read.
    """
    try:
        return _found(objects, day, bar_ms)
    except OSError as error:
        raise UsageError(
            f"--start_state={day} cannot be read from lake {objects.url} ({str(error).splitlines()[0]}): "
            "make sure that the lake can be reached, or leave it out"
        ) from None


def _found(objects: Objects, day: str, bar_ms: int) -> StoredState:
    known = _days(objects)
    lengths = {length for date, length in known if day in (LATEST, date)}
    if not lengths:
        held = sorted({date for date, _ in known})
        has = f"it holds {held[0]} to {held[-1]}" if held else "it holds none"
        raise UsageError(
            f"--start_state={day}: lake {objects.url} has no such closing state ({has}): choose a day that is there, "
            "or leave it out to begin with nothing"
        )
    if bar_ms // 1000 not in lengths:
        raise UsageError(
            f"--start_state={day}: lake {objects.url} has it for bars of {', '.join(map(str, sorted(lengths)))} s, "
            f"--bar_seconds asks for {bar_ms // 1000}: correct one of them, or leave --start_state out"
        )
    date = max(date for date, length in known if length == bar_ms // 1000) if day == LATEST else day
    path = _path(date, bar_ms)
    content = _content(objects, path)
    try:
        until = _state_of(content, bar_ms).until
    except UsageError as mistake:
        raise UsageError(f"--start_state={day}, {objects.url}/{path}: {mistake}") from None
    except (pa.ArrowInvalid, KeyError, ValueError):
        raise UsageError(
            f"--start_state={day}: {objects.url}/{path} is no closing state: write it again, or choose another day"
        ) from None
    return StoredState(objects, path, _digest(content), bar_ms, until)


def _days(objects: Objects) -> set[tuple[str, int]]:
    """Day and length of bars, s, of each closing state that is there."""
    files, root = objects.tree()
    selector = fs.FileSelector(f"{root}/{_DATASET}", recursive=True, allow_not_found=True)
    found = (_NAME.fullmatch(info.path[len(root) + 1 :]) for info in files.get_file_info(selector))
    return {(it["day"], int(it["seconds"])) for it in found if it}


def _path(day: str, bar_ms: int) -> str:
    return f"{_DATASET}/date={day}/closing-{bar_ms // 1000}s.parquet"


def _content(objects: Objects, path: str) -> pa.Buffer:
    with objects.open(path) as opened:
        return opened.read_buffer()


def _digest(content: pa.Buffer) -> str:
    return hashlib.sha256(content).hexdigest()


def _state_of(content: pa.Buffer, bar_ms: int) -> ClosingState:
    table = pq.read_table(pa.BufferReader(content))
    columns = [column.combine_chunks() for column in table.columns]
    return ClosingState.from_batch(pa.RecordBatch.from_arrays(columns, schema=table.schema), bar_ms)
