"""Ticks from files: CSV, NDJSON, parquet and QuantConnect Lean's zips, as record batches."""

import csv
import datetime
import itertools
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from beam_pipelines import lean_files
from beam_pipelines.errors import UsageError
from beam_pipelines.transforms import records as keyed
from beam_pipelines.transforms.articles import key_of
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.json_rows import json_rows

__all__ = ["check_file", "raw_batches_from_file", "records_from_file", "ticks_from_file"]

_BATCH_ROWS = 32_768
_FIELDS = TICKS.names[: TICKS.get_field_index("updates") + 1]  # the rest is the log's
_REQUIRED = ("symbol", "timestamp", "price", "volume")


def ticks_from_file(path: str | pathlib.Path) -> Iterator[pa.RecordBatch]:
    """The ticks of a CSV, parquet or Lean zip file in the file's order: batches of the tick fields that it has.

    `timestamp` is ms UTC.  In a CSV file a column with a value that is not of the field's type stays text in that
    batch: to tell what is wrong with it is the decoder's business.

    Raises:
      UsageError: if the file is missing, of an unknown kind, damaged, or lacks a required column.
    """
    path = pathlib.Path(path)
    return _read(path, _reader(path, _TICK_READERS))


def records_from_file(path: str | pathlib.Path, shift_ms: int = 0) -> Iterator[pa.RecordBatch]:
    """The records to send for a file, as RECORDS batches: keyed by symbol, `time` is the tick's event time.

    The lines of an NDJSON file are the values, byte for byte; blank lines are skipped.  They may be articles, too:
    those are keyed by id, and their time is `published_at`.

    Args:
      path: the file.
      shift_ms: added to all event times, ms.

    Raises:
      UsageError: as `ticks_from_file`; or if the lines of an NDJSON file would have to be changed.
    """
    path = pathlib.Path(path)
    if path.suffix not in _LINES:
        return (_records(ticks, shift_ms) for ticks in ticks_from_file(path))
    if shift_ms:
        raise UsageError(f"input file {path} cannot be restamped: its lines are sent as they are")
    return _read(path, _ndjson)


def raw_batches_from_file(
    path: str | pathlib.Path, partitions: int, batch_rows: int = 10_000
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A file as a log: (partition, RAW batch with span).

    The partition is the stable hash of the symbol, the offset counts the partition's rows, the Kafka timestamp is -1,
    the topic of the spans is the file's name.

    Raises:
      UsageError: as `ticks_from_file`.
    """
    return keyed.raw_batches(map(_timeless, records_from_file(path)), pathlib.Path(path).name, partitions, batch_rows)


def check_file(path: str | pathlib.Path) -> None:
    """Makes sure that the whole file can be read, before anything of it is written anywhere.

    Raises:
      UsageError: as `ticks_from_file`.
    """
    path = pathlib.Path(path)
    batches = records_from_file(path) if path.suffix in _LINES else ticks_from_file(path)
    for _ in batches:
        if path.suffix in _LINES:  # any line is a record, if only a bad one
            return


_Reader = Callable[[pathlib.Path], Iterator[pa.RecordBatch]]


def _reader(path: pathlib.Path, readers: dict[str, _Reader]) -> _Reader:
    """The reader for the file's suffix."""
    if path.suffix not in readers:
        known = ", ".join(sorted(readers.keys() | _LINES))
        raise UsageError(f"input file {path} has an unknown suffix {path.suffix!r}: it must be one of {known}")
    return readers[path.suffix]


def _read(path: pathlib.Path, reader: _Reader) -> Iterator[pa.RecordBatch]:
    """What `reader` reads; a damaged file is the user's mistake."""
    if not path.is_file():
        raise UsageError(f"input file {path} does not exist: correct the path")
    return _reporting(path, reader)


_DAMAGE = (
    pa.ArrowException,
    zipfile.BadZipFile,
    zlib.error,
    csv.Error,
    UnicodeDecodeError,
    EOFError,
    NotImplementedError,  # of zipfile: a compression that Python does not have
    OSError,
)


def _reporting(path: pathlib.Path, reader: _Reader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader(path)
    except _DAMAGE as error:
        raise UsageError(f"input file {path} cannot be read ({error}): repair or replace it") from error


def _records(ticks: pa.RecordBatch, shift_ms: int) -> pa.RecordBatch:
    """Ticks as the records to send, their event times shifted."""
    time = _millis(ticks["timestamp"])
    if shift_ms:
        time = pc.if_else(pc.equal(time, -1), -1, pc.add(time, shift_ms))
        ticks = ticks.set_column(ticks.schema.names.index("timestamp"), "timestamp", _restamped(ticks, time))
    names = ticks["symbol"] if pa.types.is_dictionary(ticks["symbol"].type) else ticks["symbol"].dictionary_encode()
    words = [None if name is None else _key(name) for name in names.dictionary.to_pylist()]
    key = pa.array(words, pa.binary()).take(names.indices)
    return _of_kind_tick(time, key, json_rows(ticks))


def _restamped(ticks: pa.RecordBatch, time: pa.Array) -> pa.Array:
    """The timestamps at the new times; what is no time stays as it is."""
    old = ticks["timestamp"]
    return pc.if_else(pc.equal(time, -1), old, time if pa.types.is_integer(old.type) else time.cast(pa.string()))


def _of_kind_tick(time: pa.Array, key: pa.Array, value: pa.Array) -> pa.RecordBatch:
    kind = pa.DictionaryArray.from_arrays(np.zeros(len(time), np.int32), ["tick"])
    return pa.RecordBatch.from_arrays([time, key.dictionary_encode(), value, kind], schema=keyed.RECORDS)


def _key(symbol: str) -> bytes:
    """A symbol as the decoder will read it, so that one symbol has one partition however it is spelt."""
    return symbol.strip().upper().encode()


def _timeless(records: pa.RecordBatch) -> pa.RecordBatch:
    """The same records without a log time."""
    return records.set_column(0, keyed.RECORDS.field("time"), pa.array(np.full(records.num_rows, -1)))


def _millis(timestamps: pa.Array) -> pa.Array:
    """Event times for pacing: ms; -1 where the text is no time."""
    if pa.types.is_integer(timestamps.type):
        return timestamps.cast(pa.int64()).fill_null(-1)
    return pa.array([_moment(text) for text in timestamps.to_pylist()], pa.int64())


def _moment(value: object) -> int:
    """One timestamp for pacing, ms; -1 if it is none."""
    try:
        if isinstance(value, int):
            return value if 0 <= value < 1 << 62 else -1
        moment = datetime.datetime.fromisoformat(str(value))
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
        return int(zoned.timestamp() * 1000)
    except ValueError:
        return -1


class _Head(msgspec.Struct):
    """What of an NDJSON line is needed to send it."""

    symbol: str | None = None
    id: str | int | None = None  # of an article
    timestamp: int | str | None = None
    published_at: int | str | None = None

    @property
    def key(self) -> bytes | None:
        """By which records that must keep their order are in one partition."""
        if self.symbol is not None:
            return _key(self.symbol)
        return None if self.id is None else key_of(self.id)

    @property
    def time(self) -> int:
        """Event time, ms; -1: none."""
        return _moment(self.timestamp if self.timestamp is not None else self.published_at)


_NO_HEAD = _Head()


def _ndjson(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        lines = (line.removesuffix(b"\n") for line in file)
        filled = (line for line in lines if line.strip())
        while batch := list(itertools.islice(filled, _BATCH_ROWS)):
            heads = [_head(line) for line in batch]
            key = pa.array([head.key for head in heads], pa.binary())
            time = pa.array([head.time for head in heads], pa.int64())
            yield _of_kind_tick(time, key, pa.array(batch, pa.binary()))


def _head(line: bytes) -> _Head:
    try:
        return msgspec.json.decode(line, type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _NO_HEAD


def _csv(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    _require(path, header)
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        include_columns=[field for field in _FIELDS if field in header],
        null_values=[""],
        strings_can_be_null=True,
    )
    for batch in pyarrow.csv.open_csv(path, convert_options=convert):
        columns = [
            _typed(column, TICKS.field(name).type)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _require(path: pathlib.Path, columns: Sequence[str]) -> None:
    missing = [field for field in _REQUIRED if field not in columns]
    if missing:
        raise UsageError(f"input file {path} lacks the column {missing[0]}: it has {', '.join(columns) or 'none'}")


def _typed(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The column in its field's type if all of it can be, else as it is."""
    if pa.types.is_dictionary(wanted):
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid:
        return column


def _parquet(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        layout = next((layout for layout in _PARQUET_LAYOUTS if layout.columns <= set(names)), None)
        if layout is None:
            _require(path, names)
            raise AssertionError("the first layout is that of the required columns")
        for batch in file.iter_batches(_BATCH_ROWS):
            yield layout.ticks(path, batch)


class _ParquetLayout(NamedTuple):
    """A parquet file known by its columns, and how to make ticks of it."""

    columns: frozenset[str]
    ticks: Callable[[pathlib.Path, pa.RecordBatch], pa.RecordBatch]


def _own(_path: pathlib.Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Our own columns, in whatever width or unit."""
    names = [field for field in _FIELDS if field in batch.schema.names]
    columns = [_converted(batch[name], TICKS.field(name).type) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=names)


def _converted(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    if pa.types.is_dictionary(wanted):
        return column if pa.types.is_dictionary(column.type) else column.cast(pa.string())
    return column.cast(wanted)


def _nautilus_trades(path: pathlib.Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """NautilusTrader's crypto trades; the symbol is in the file's name, quantities become units of 1e-8."""
    return pa.record_batch(
        {
            "symbol": pa.array([path.stem.partition("-")[0].upper()] * batch.num_rows),
            "timestamp": _converted(batch["timestamp"], pa.int64()),
            "price": batch["price"],
            "volume": _units(batch["quantity"]),
            "seq": batch["trade_id"],
        }
    )


def _nautilus_quotes(_path: pathlib.Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """NautilusTrader's crypto quotes: ticks without volume at the middle of bid and ask."""
    bid, ask = batch["bid"], batch["ask"]
    return pa.record_batch(
        {
            "symbol": batch["symbol"],
            "timestamp": _converted(batch["timestamp"], pa.int64()),
            "price": pc.round(pc.divide(pc.add(bid, ask), 2.0), 8),
            "volume": np.zeros(batch.num_rows, np.int64),
            "bid": bid,
            "ask": ask,
            "bid_size": _units(batch["bid_size"]),
            "ask_size": _units(batch["ask_size"]),
        }
    )


def _units(sizes: pa.Array) -> pa.Array:
    """Sizes of a coin as whole units of 1e-8."""
    return pc.round(pc.multiply(sizes, 1e8)).cast(pa.int64())


_PARQUET_LAYOUTS = (
    _ParquetLayout(frozenset(_REQUIRED), _own),
    _ParquetLayout(frozenset({"timestamp", "trade_id", "price", "quantity"}), _nautilus_trades),
    _ParquetLayout(frozenset({"symbol", "timestamp", "bid", "ask", "bid_size", "ask_size"}), _nautilus_quotes),
)

_TICK_READERS: dict[str, _Reader] = {".csv": _csv, ".parquet": _parquet, ".zip": lean_files.ticks}
_LINES = frozenset({".ndjson", ".jsonl"})
