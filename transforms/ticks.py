"""Ticks from raw records, a batch at a time: decode and validate.

What a valid record is, and for which reason an invalid one is rejected, says `tick_records`.  Well-behaved records take
a fast path that never rejects: what it cannot take or doubts goes to `read_record`, whose word is final.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.transforms.batches import TICKS, span_of, with_span
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.json_objects import (
    MAX_DEPTH,
    SHALLOW_BYTES,
    UNKNOWN,
    Reject,
    float_of,
    integer_of,
    is_shallow,
    source_of,
    timestamp_of,
)
from beam_pipelines.transforms.tick_records import RANGES, UPDATES_ALL, Tick, read_record, symbol_of
from beam_pipelines.transforms.timestamps import iso_column

__all__ = ["Decoded", "Rejects", "decode"]

_JOINABLE_BYTES = 1 << 30  # Arrow's offsets have 32 bits
_NAME = TICKS.field("symbol").type
_TICK = msgspec.json.Decoder(Tick)


class Rejects(NamedTuple):
    """The records of a batch that are not ticks."""

    rows: npt.NDArray[np.int64]  # ascending positions in the raw batch
    reasons: list[str]
    details: list[str]


class Decoded(NamedTuple):
    """What a batch of raw records holds: each record is either a tick or a reject."""

    ticks: pa.RecordBatch  # TICKS, in offset order, with the span of the raw batch
    rejects: Rejects


def decode(raw: pa.RecordBatch, max_future_ms: int = 60_000) -> Decoded:
    """The ticks of a RAW batch and the records that are none.

    Args:
      raw: records of one log partition, with their span.
      max_future_ms: how far a tick may be dated after its record's Kafka timestamp, ms.
    """
    return _settled(raw, max_future_ms, _parsed(raw["value"]))


def _settled(raw: pa.RecordBatch, max_future_ms: int, parsed: Sequence[Tick | None]) -> Decoded:
    """`decode`, given the records that the fast path could parse; None: `read_record` must."""
    ticks, rejects = list(parsed), dict[int, Reject]()
    values, log_times = raw["value"], raw["timestamp"]

    def settle(rows: Iterable[int]) -> None:
        for row in rows:
            outcome = read_record(values[row].as_py(), log_times[row].as_py(), max_future_ms)
            if isinstance(outcome, Reject):
                rejects[row], ticks[row] = outcome, None
            else:
                ticks[row] = outcome

    if not all(ticks):
        settle(row for row, tick in enumerate(parsed) if tick is None)
    columns = _Columns(raw, ticks, max_future_ms)
    if columns.doubts.any():
        settle(columns.rows[columns.doubts].tolist())
        columns = _Columns(raw, ticks, max_future_ms)  # again from all ticks, because read_record may have changed some
    return Decoded(columns.batch(), _rejects(rejects))


def _rejects(rejects: dict[int, Reject]) -> Rejects:
    rows = sorted(rejects)
    chosen = [rejects[row] for row in rows]
    return Rejects(np.array(rows, np.int64), [reject.reason for reject in chosen], [reject.detail for reject in chosen])


# --- JSON to Tick ---


def _parsed(values: pa.Array) -> Sequence[Tick | None]:
    """Each record as a Tick; None: it does not parse as one, but may still be one."""
    return _parsed_together(values) or _parsed_each(values)


def _parsed_together(values: pa.Array) -> list[Tick] | None:
    """All records by one call of the parser; None: at least one does not parse."""
    if not len(values) or values.null_count or not _keep_apart(values):
        return None
    lines = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values), b"\n")
    try:
        values.cast(pa.string())  # all UTF-8: the parser does not look into fields that it skips
        ticks: list[Tick] = _TICK.decode_lines(lines[0].as_buffer())
    except (pa.ArrowInvalid, msgspec.DecodeError):
        return None
    return ticks if len(ticks) == len(values) else None


def _keep_apart(values: pa.Array) -> bool:
    """Whether records parsed as one text, with newlines between, are sure to give what they give alone, or an error.

    The parser takes any JSON values with any white space between.  Where every record begins with { and ends with },
    a newline between two is never inside a string (no control characters there), so it follows a closing bracket and
    comes before an opening one, which JSON has nowhere inside a value.  So every record is one value or more, and it
    is exactly one each if there are as many values as records.
    """
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :][: len(values) + 1]
    lengths = np.diff(offsets)
    if lengths.min() < 2 or offsets[-1] - offsets[0] > _JOINABLE_BYTES:
        return False
    if (data[offsets[:-1]] != ord("{")).any() or (data[offsets[1:] - 1] != ord("}")).any():
        return False
    if lengths.max() <= SHALLOW_BYTES:
        return True
    opening = np.count_nonzero((data[offsets[0] : offsets[-1]] & 0xDF) == ord("["))  # { is [ plus 0x20
    return bool(opening < len(values) + MAX_DEPTH)  # even if all but one of each record's are in one record


def _parsed_each(values: pa.Array) -> list[Tick | None]:
    """Each record by its own call of the parser."""
    ticks: list[Tick | None] = []
    for value in to_list(values):
        try:
            ticks.append(_TICK.decode(value.decode()) if value and is_shallow(value) else None)
        except (UnicodeDecodeError, msgspec.DecodeError):
            ticks.append(None)
    return ticks


# --- Tick to columns ---


class _Columns:
    """Ticks as columns; names are dictionaries of the words in use only, in order of their first use.

    Attributes:
      rows: position in the raw batch of each tick.
      doubts: which ticks `read_record` has to see; those that it made are in order.
    """

    def __init__(self, raw: pa.RecordBatch, found: Sequence[Tick | None], max_future_ms: int) -> None:
        ticks = [tick for tick in found if tick is not None]
        self.rows: npt.NDArray[np.int64] = np.arange(len(raw))
        self._span, self._log = span_of(raw), raw.select(["offset", "timestamp"])
        if len(ticks) < len(raw):
            self.rows = self.rows[[tick is not None for tick in found]]
            self._log = self._log.take(pa.array(self.rows))
        self.doubts = np.zeros(len(ticks), np.bool_)
        self._symbol = self._names([tick.symbol for tick in ticks], symbol_of)
        self._timestamp = self._integers("timestamp", [tick.timestamp for tick in ticks], timestamp_of)
        self._price = self._floats("price", [tick.price for tick in ticks])
        self._volume = self._integers("volume", [tick.volume for tick in ticks])
        self._bid = self._floats("bid", [tick.bid for tick in ticks])
        self._ask = self._floats("ask", [tick.ask for tick in ticks])
        self._bid_size = self._integers("bid_size", [tick.bid_size for tick in ticks])
        self._ask_size = self._integers("ask_size", [tick.ask_size for tick in ticks])
        self._source = self._names([tick.source or UNKNOWN for tick in ticks], source_of)
        self._seq = self._integers("seq", [tick.seq for tick in ticks])
        self._updates = self._integers("updates", [tick.updates for tick in ticks])
        self._doubt_future(max_future_ms)

    def batch(self) -> pa.RecordBatch:
        """A TICKS batch; call it when no tick is in doubt."""
        log_time = self._log["timestamp"]
        columns = [
            self._symbol,
            self._timestamp,
            self._price,
            self._volume,
            self._bid,
            self._ask,
            self._bid_size,
            self._ask_size,
            self._source,
            pc.coalesce(self._seq, self._log["offset"]),
            self._updates.fill_null(UPDATES_ALL).cast(pa.uint8()),
            pa.array(np.full(len(self.rows), self._span.partition, np.int32)),
            self._log["offset"],
            pc.if_else(pc.less(log_time, 0), self._timestamp, log_time),
        ]
        return with_span(pa.RecordBatch.from_arrays(columns, schema=TICKS), self._span)

    def _names(self, words: list[str], meaning: Callable[[str], str | None]) -> pa.DictionaryArray:
        encoded = pa.array(words, _NAME)
        written = to_list(encoded.dictionary)
        meant = [meaning(word) for word in written]
        if meant == written:
            return encoded
        names = list(dict.fromkeys(name for name in meant if name is not None))
        code_of: dict[str | None, int] = {None: -1} | {name: code for code, name in enumerate(names)}
        codes = np.array([code_of[name] for name in meant], np.int32)[encoded.indices.to_numpy()]
        self.doubts |= codes < 0
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(names, pa.string()))

    def _floats(self, name: str, values: list[float | str | None]) -> pa.Array:
        try:
            column = pa.array(values, pa.float64())
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # strings
            column = pa.array(self._each(values, float_of), pa.float64())
        self._doubt_outside(name, column)
        return column

    def _integers(
        self, name: str, values: list[Any], meaning: Callable[[float | str], int | None] = integer_of
    ) -> pa.Array:
        try:
            column = pa.array(values)  # of the type that takes them all: asked for int64, it would cut off fractions
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # numbers and strings, large numbers
            column = None
        if column is not None and name == "timestamp" and pa.types.is_string(column.type):
            column = iso_column(column)
        if column is None or column.type not in (pa.int64(), pa.null()):
            column = pa.array(self._each(values, meaning), pa.int64())
        if column.type != pa.int64():  # nothing but nulls
            column = column.cast(pa.int64())
        self._doubt_outside(name, column)
        return column

    def _each(self, values: list[Any], meaning: Callable[[Any], Any]) -> list[Any]:
        """The meaning of each value."""
        meant = [None if value is None else meaning(value) for value in values]
        self.doubts |= [after is None and before is not None for before, after in zip(values, meant, strict=True)]
        return meant

    def _doubt_outside(self, name: str, column: pa.Array) -> None:
        """Doubts what is not in the range of its field."""
        if name in RANGES and column.null_count < len(column):
            values, (low, high) = column.to_numpy(zero_copy_only=False), RANGES[name]
            self.doubts |= (values < low) | (values > high)

    def _doubt_future(self, max_future_ms: int) -> None:
        """Doubts what is dated after its record; the record's time comes from outside, so nothing is added to it."""
        log_time = self._log["timestamp"].to_numpy()
        timestamp = self._timestamp.to_numpy(zero_copy_only=False)
        self.doubts |= (log_time >= 0) & (timestamp - max_future_ms > log_time)
