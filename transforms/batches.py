"""Record batches: what moves between stages, and how.

A Beam Python element costs 30-60 µs to move between stages and a decoded tick well under 1 µs, so elements are Arrow
record batches: consecutive records of one log partition.  A batch says in its schema's metadata which stretch of the
log it stands for (`Span`), so that a stage can check that nothing is missing or repeated, whatever was filtered.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

__all__ = [
    "ANOMALIES",
    "BARS",
    "COPIES",
    "DEAD_LETTERS",
    "ENRICHED",
    "MANY",
    "PLACE_CODER",
    "QUALITY",
    "RAW",
    "SCORED",
    "SUMMARIES",
    "TICKS",
    "WINDOWS",
    "ArrowCoder",
    "Place",
    "Span",
    "empty",
    "from_bytes",
    "joined",
    "span_of",
    "to_bytes",
    "to_fewer_bytes",
    "with_span",
]

_NAME = pa.dictionary(pa.int32(), pa.string())

RAW = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # the record's Kafka timestamp, ms; -1 if it has none
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),  # null: a tombstone
    ]
)
"""Records of one log partition as they were read, in offset order."""

COPIES = pa.schema([*RAW, pa.field("copied_from", pa.string())])
"""Records of a log that was copied from another; `copied_from` is the original, TOPIC#ID/PARTITION/OFFSET, or null."""

TICKS = pa.schema(
    [
        pa.field("symbol", _NAME, nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # event time, ms UTC
        pa.field("price", pa.float64(), nullable=False),
        pa.field("volume", pa.int64(), nullable=False),
        pa.field("bid", pa.float64()),
        pa.field("ask", pa.float64()),
        pa.field("bid_size", pa.int64()),
        pa.field("ask_size", pa.int64()),
        pa.field("source", _NAME, nullable=False),
        pa.field("seq", pa.int64(), nullable=False),  # the feed's sequence number, else the offset
        pa.field("updates", pa.uint8(), nullable=False),  # 1 high and low, 2 open and close, 4 volume
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("log_time", pa.int64(), nullable=False),  # the record's Kafka timestamp, ms; event time if it has none
    ]
)
"""Valid ticks of one log partition in offset order.  (source, symbol, timestamp, seq) identifies a tick."""

_TICK_INDICATORS = [
    pa.field(name, pa.float64()) for name in ("sma_20", "sma_50", "rsi", "bollinger_upper", "bollinger_lower")
]
_BAR_INDICATORS = [pa.field(name, pa.float64()) for name in ("ema_12", "ema_26", "macd", "macd_signal", "atr_14")]

ENRICHED = pa.schema(
    [
        *TICKS,
        *_TICK_INDICATORS,
        pa.field("late", pa.bool_(), nullable=False),
        pa.field(
            "processed_at", pa.int64(), nullable=False
        ),  # log_time of the record at which the tick was emitted, ms
    ]
)
"""Ticks with their indicators, in the order of emission."""

BARS = pa.schema(
    [
        pa.field("symbol", _NAME, nullable=False),
        pa.field("time", pa.int64(), nullable=False),  # start of the bar, ms UTC
        pa.field("bar_seconds", pa.int32(), nullable=False),
        pa.field("open", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("close", pa.float64()),
        pa.field("volume", pa.int64(), nullable=False),
        pa.field("vwap", pa.float64()),
        pa.field("trade_count", pa.int64(), nullable=False),
        *_TICK_INDICATORS,
        *_BAR_INDICATORS,
        pa.field("revision", pa.int32(), nullable=False),
        pa.field("is_final", pa.bool_(), nullable=False),
    ]
)
"""Closed bars with their indicators, in the order of emission.  (symbol, time, bar_seconds) identifies a bar."""

ANOMALIES = pa.schema(
    [
        pa.field("symbol", _NAME, nullable=False),
        pa.field("time", pa.int64(), nullable=False),  # start of the bar in which it is, ms UTC
        pa.field("bar_seconds", pa.int32(), nullable=False),
        pa.field("kind", _NAME, nullable=False),  # one of `anomalies.KINDS`
        pa.field("score", pa.float64(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),  # from which score on it is told
        pa.field("value", pa.float64(), nullable=False),  # what is odd: a price, volume, spread in bps, or bid
        pa.field("reference", pa.float64(), nullable=False),  # what it was compared with
        pa.field("explanation", pa.string(), nullable=False),
        pa.field("detected_at", pa.int64(), nullable=False),  # log time of the record at which it showed, ms
        pa.field("partition", pa.int32(), nullable=False),  # of that record
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""What is odd about bars and ticks, in the order of the log.  (symbol, time, bar_seconds, kind) identifies it."""

SUMMARIES = pa.schema(
    [
        pa.field("symbol", _NAME, nullable=False),
        pa.field("day", pa.int64(), nullable=False),  # its beginning, ms UTC
        pa.field("open_price", pa.float64()),
        pa.field("high_price", pa.float64()),
        pa.field("low_price", pa.float64()),
        pa.field("close_price", pa.float64()),
        pa.field("total_volume", pa.int64(), nullable=False),
        pa.field("vwap", pa.float64()),
        pa.field("tick_count", pa.int64(), nullable=False),
        pa.field("daily_return", pa.float64()),  # close over that of the last bar before the day, less 1
        pa.field("realised_volatility", pa.float64()),  # of the day's bars, not annualised
        pa.field("mean_spread", pa.float64()),  # ask less bid, of ticks that have both
        pa.field("dollar_volume", pa.float64(), nullable=False),
        pa.field("largest_gap_ms", pa.int64(), nullable=False),  # between two ticks
        pa.field("late_share", pa.float64(), nullable=False),  # of ticks whose bar had closed when they came
    ]
)
"""A day of a symbol.  (symbol, day) identifies it."""

DEAD_LETTERS = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # the record's Kafka timestamp, ms; -1 if it has none
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("value", pa.binary()),  # the original bytes, untouched
        pa.field("copied_from", pa.string()),  # as in COPIES; null: the record is no copy
    ]
)
"""Records that could not be used, with the reason and the original bytes."""

QUALITY = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),  # start of the window, ms of Kafka time
        pa.field("window_seconds", pa.int32(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),  # of the log; -1: all
        pa.field("records", pa.int64(), nullable=False),  # valid ones
        pa.field("sampled", pa.int64(), nullable=False),  # of them
        pa.field("score", pa.float64()),  # 0 to 1; null: there is nothing to judge
        pa.field("expectations", pa.int32(), nullable=False),
        pa.field("failures", pa.list_(pa.string()), nullable=False),  # expectations that do not hold
        pa.field("incidents", pa.list_(pa.string()), nullable=False),  # what is not as usual
    ]
)
"""How good the records of a window are.  (dataset, time, window_seconds, partition) identifies a row."""

SCORED = pa.schema(
    [
        pa.field("article_id", pa.string(), nullable=False),  # a UUID
        pa.field("published_at", pa.int64(), nullable=False),  # ms UTC
        pa.field("symbols", pa.list_(pa.string()), nullable=False),  # sorted, each once
        pa.field("sentiment_score", pa.float64()),  # -1 to 1, 4 decimals; null: a language that the model cannot read
        pa.field("sentiment_category", pa.string()),  # negative, neutral or positive
        pa.field("news_category", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("symbol_scores", pa.list_(pa.float64()), nullable=False),  # what it says of each symbol
        pa.field("confidence", pa.float64()),  # 0 to 1
        pa.field("kinds", pa.list_(pa.string()), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # news, post or release
        pa.field("language", pa.string(), nullable=False),  # ISO 639-1, or und
        pa.field("title", pa.string(), nullable=False),  # plain text
        pa.field("url", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("known_at", pa.int64(), nullable=False),  # log time of the record, or published_at if that is later
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("signature", pa.binary(), nullable=False),  # by which near duplicates are known
    ]
)
"""Articles with what they say.  (published_at, article_id) identifies one."""

WINDOWS = pa.schema(
    [
        pa.field("symbol", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("time", pa.int64(), nullable=False),  # end of the window, ms
        pa.field("window_seconds", pa.int32(), nullable=False),
        pa.field("article_count", pa.int64(), nullable=False),
        pa.field("story_count", pa.int64(), nullable=False),  # articles less the repeats
        pa.field("positive_count", pa.int64(), nullable=False),  # stories
        pa.field("negative_count", pa.int64(), nullable=False),
        pa.field("sentiment", pa.float64()),  # mean of the stories' scores; null: none is scored
        pa.field("decayed_sentiment", pa.float64()),  # their mean by weights that halve with age
        pa.field("newest_at", pa.int64(), nullable=False),  # when the last article became known, ms
    ]
)
"""A symbol's news in a window.  (symbol, time, window_seconds) identifies a row."""


class Span(NamedTuple):
    """The stretch of a log that a batch stands for: offsets [first, next) of one partition of `topic`.

    `idle_ms` is not 0 for a heartbeat only: an empty batch which says that the partition brought nothing for so long.
    """

    topic: str
    partition: int
    first: int
    next: int
    idle_ms: int = 0


class Place(NamedTuple):
    """How far a partition of a log is read: what a stage that follows it keeps in its state."""

    next: int  # offset
    log_id: str  # of the log that has this offset; a log made anew under the same name has another


PLACE_CODER = beam.coders.TupleCoder((beam.coders.VarIntCoder(), beam.coders.StrUtf8Coder()))
"""Of a `Place`; gives a plain tuple back."""


def with_span(batch: pa.RecordBatch, span: Span) -> pa.RecordBatch:
    """The same batch, marked with the stretch of the log it stands for."""
    return batch.replace_schema_metadata({field: str(value) for field, value in zip(Span._fields, span, strict=True)})


def span_of(batch: pa.RecordBatch) -> Span:
    """The stretch of the log that `batch` stands for.

    Raises:
      ValueError: if the batch carries none.
    """
    marks: dict[bytes, bytes] = batch.schema.metadata or {}
    if b"topic" not in marks:
        raise ValueError(
            "this record batch does not say which stretch of the log it stands for: mark it with with_span"
        )
    topic, *numbers = (marks[field.encode()].decode() for field in Span._fields)
    return Span(topic, *map(int, numbers))


@functools.cache
def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of batches of one schema in one batch with common dictionaries; what they stand for is left out.

    Raises:
      ValueError: if a column's texts or bytes are 2 GiB or more, for which Arrow would need several batches.
    """
    if len(batches) == 1:
        return batches[0].replace_schema_metadata(None)
    table = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches])
    if not len(table):
        return batches[0].replace_schema_metadata(None)
    whole: pa.RecordBatch
    (whole,) = table.unify_dictionaries().combine_chunks().to_batches()
    return whole


_PLAIN = pa.ipc.IpcWriteOptions()  # else Arrow asks the environment four times a batch, a quarter of all it takes
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
MANY = 4_000
"""Rows of which compressing takes no longer than copying what it spares."""


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """Arrow IPC stream of one batch, schema and metadata included."""
    return _written(batch, _PLAIN)


def to_fewer_bytes(batch: pa.RecordBatch) -> bytes:
    """The same in less than half of them, for much that is kept for long; of few rows each buffer costs too much."""
    return _written(batch, _COMPRESSED)


def _written(batch: pa.RecordBatch, how: pa.ipc.IpcWriteOptions) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=how) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def from_bytes(encoded: bytes) -> pa.RecordBatch:
    """The batch that `to_bytes` or `to_fewer_bytes` wrote; its buffers are views of `encoded`."""
    with pa.ipc.open_stream(encoded) as reader:
        return reader.read_next_batch()


class ArrowCoder(beam.coders.Coder):
    """Record batches as Arrow IPC streams.  The one coder of every batch in every pipeline."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Arrow IPC stream of one batch; compressed if it is large, since the runner copies it many times."""
        return to_fewer_bytes(value) if len(value) >= MANY else to_bytes(value)

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The batch of an Arrow IPC stream."""
        return from_bytes(encoded)

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Bytes in memory; Beam asks for some batches of each step, and would encode them to tell."""
        return int(value.nbytes)

    def is_deterministic(self) -> bool:
        """Equal batches need not be equal bytes (dictionaries), so batches are never keys."""
        return False

    def to_type_hint(self) -> Any:
        """The type whose coder this is."""
        return pa.RecordBatch


beam.coders.registry.register_coder(pa.RecordBatch, ArrowCoder)
