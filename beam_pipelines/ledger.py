"""The ledger: what the log says every sink must hold, against what each holds.

The expectation comes from the raw topic alone, by the kernel in this process; so a job is right if and only if nothing
is missing, nothing is there that should not be, and nothing differs, whatever happened to it in between.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import confluent_kafka as ck
import psycopg
import pyarrow as pa
import pyarrow.dataset as ds

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.tables import MARKET_ANOMALIES, MARKET_BARS, MARKET_DATA, Column, Table
from beam_pipelines.transforms.advance import FOREVER, Advanced, Semantics, provisional
from beam_pipelines.transforms.batches import RAW, Span, span_of, with_span
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.copies import with_origin
from beam_pipelines.transforms.decimals import rounded
from beam_pipelines.transforms.enrich import Step, take_step
from beam_pipelines.transforms.messages import anomaly_messages, processed_messages
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

__all__ = [
    "Difference",
    "Expected",
    "Record",
    "alerts_of_topic",
    "append_times",
    "compare",
    "expected_of",
    "output_times",
    "read_log",
    "records_of",
    "rows_of_lake",
    "rows_of_table",
    "rows_of_topic",
    "table_rows",
]

Rows = dict[Hashable, Any]
"""What a sink holds, by the identity of its rows."""

_BATCH = 10_000


class Difference(NamedTuple):
    """How a sink differs from what the log says."""

    expected: int
    found: int
    missing: list[Hashable]
    surplus: list[Hashable]
    different: list[Hashable]
    repeated: int  # identities written more than once; each sink keeps the last

    @property
    def clean(self) -> bool:
        """Whether the sink holds just what it should."""
        return not (self.missing or self.surplus or self.different)


def _whole(row: Any) -> Any:
    return row


def compare(expected: Rows, found: Iterable[tuple[Hashable, Any]], keep: Callable[[Any], Any] = _whole) -> Difference:
    """A sink's rows, in the order in which they were written, against what they should be.

    Args:
      expected: what the sink should hold.
      found: what it holds.
      keep: what `expected` keeps of a row: all of it, or its `hash` for logs of millions.
    """
    held: Rows = {}
    copies = 0
    for identity, row in found:
        copies += identity in held
        held[identity] = keep(row)
    return Difference(
        expected=len(expected),
        found=len(held),
        missing=[identity for identity in expected if identity not in held],
        surplus=[identity for identity in held if identity not in expected],
        different=[identity for identity, row in expected.items() if identity in held and held[identity] != row],
        repeated=copies,
    )


class Expected(NamedTuple):
    """What each output must hold."""

    ticks: Rows  # (partition, offset) -> message, as in the topic market-data-processed
    table_ticks: Rows  # identity -> row of market_data_ts
    table_bars: Rows  # identity -> row of market_bars_ts
    table_anomalies: Rows  # identity -> row of market_anomalies_ts
    alerts: Rows  # (partition, offset, message) -> key, as in the topic market-anomalies
    dead_letters: Rows  # (partition, offset) -> (reason, original bytes)
    lake: Rows  # (partition, offset) -> (symbol, timestamp, price, volume)
    duplicates: int

    @property
    def reasons(self) -> Counter[str]:
        """Dead letters by reason."""
        return Counter(reason for reason, _ in self.dead_letters.values())


def expected_of(
    log: Iterable[pa.RecordBatch],
    semantics: Semantics,
    prior: ClosingState = NOTHING,
    keep: Callable[[Any], Any] = _whole,
) -> Expected:
    """The outputs of a log.

    Args:
      log: RAW batches with spans, each partition's in the order of offsets.
      semantics: what the outputs mean.
      prior: what the job began with.
      keep: what to keep of a row, but for dead letters, which are few: all of it, or its `hash` for logs of millions.
    """
    states: dict[int, PartitionState] = {}
    expected = Expected({}, {}, {}, {}, {}, {}, {}, 0)
    duplicates = 0
    for raw in log:
        state = states.setdefault(span_of(raw).partition, PartitionState(semantics.bar_ms, prior))
        step = take_step(state, raw, semantics)
        duplicates += step.dropped["duplicates"]
        _collect(expected, step, keep)
        expected.lake.update((identity, keep(row)) for identity, row in _lake_rows(step.valid))
        if step.dead_letters is not None:
            expected.dead_letters.update(_dead_rows(step.dead_letters))
    for state in states.values():
        rest = provisional(state, FOREVER, NEVER, semantics)
        _collect(expected, rest, keep)
    return expected._replace(duplicates=duplicates)


def _collect(expected: Expected, step: Step | Advanced, keep: Callable[[Any], Any]) -> None:
    rows = (
        (expected.ticks, _messages(step.ticks)),
        (expected.table_ticks, table_rows(step.ticks, MARKET_DATA)),
        (expected.table_bars, table_rows(step.bars, MARKET_BARS)),
        (expected.table_anomalies, table_rows(step.anomalies, MARKET_ANOMALIES)),
        (expected.alerts, _alerts(step.anomalies)),
    )
    for kept, new in rows:
        kept.update((identity, keep(row)) for identity, row in new)


def _dead_rows(letters: pa.RecordBatch) -> Iterator[tuple[Hashable, Any]]:
    columns = (to_list(letters[name]) for name in ("partition", "offset", "reason", "value"))
    return (((p, o), (reason, value)) for p, o, reason, value in zip(*columns, strict=True))


def _messages(ticks: pa.RecordBatch) -> Iterator[tuple[Hashable, Any]]:
    messages = processed_messages(ticks)
    columns = (to_list(messages[name]) for name in ("partition", "offset", "key", "value"))
    return (((p, o), (key, value)) for p, o, key, value in zip(*columns, strict=True))


def _alerts(anomalies: pa.RecordBatch) -> Iterator[tuple[Hashable, Any]]:
    messages = anomaly_messages(anomalies)
    columns = (to_list(messages[name]) for name in ("partition", "offset", "value", "key"))
    return (((p, o, value), key) for p, o, value, key in zip(*columns, strict=True))


def table_rows(batch: pa.RecordBatch, table: Table) -> Iterator[tuple[Hashable, Any]]:
    """Rows as `rows_of_table` gives them back."""
    columns = [_as_in_table(batch[column.field], column.kind) for column in table.columns]
    names = [column.name for column in table.columns]
    identity = [names.index(name) for name in table.identity]
    return ((tuple(row[i] for i in identity), row) for row in zip(*columns, strict=True))


def _as_in_table(column: pa.Array, kind: str) -> list[Any]:
    if kind == "numeric(20,8)":
        column = pa.array(rounded(column.to_numpy(zero_copy_only=False)), from_pandas=True)
    return column.to_pylist() if pa.types.is_list(column.type) else to_list(column)


_LAKE = ("partition", "offset", "symbol", "timestamp", "price", "volume")


def _lake_rows(ticks: pa.RecordBatch) -> Iterator[tuple[Hashable, Any]]:
    columns = (to_list(_in_ms(ticks[name])) for name in _LAKE)
    return (((p, o), tuple(tick)) for p, o, *tick in zip(*columns, strict=True))


def _in_ms(column: pa.Array) -> pa.Array:
    """Times, which are timestamps in the lake, as in batches."""
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


class Record(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @property
    def raw(self) -> tuple[int, int]:
        """Partition and offset of the raw record that this one was made of."""
        return int(self.headers["partition"]), int(self.headers["offset"])


def read_log(config: KafkaConfig, topic: str) -> Iterator[pa.RecordBatch]:
    """A topic from its beginning to its present end: COPIES batches with spans."""
    for partition, records in itertools.groupby(records_of(config, topic), lambda record: record.partition):
        while part := list(itertools.islice(records, _BATCH)):
            columns = ([getattr(record, name) for record in part] for name in ("offset", "time_ms", "key", "value"))
            arrays = [pa.array(values, field.type) for values, field in zip(columns, RAW, strict=True)]
            raw = pa.RecordBatch.from_arrays(arrays, schema=RAW)
            copies = with_origin(raw, [record.headers.get("copied_from") for record in part])
            yield with_span(copies, Span(topic, partition, part[0].offset, part[-1].offset + 1))


def records_of(config: KafkaConfig, topic: str) -> Iterator[Record]:
    """All records of a topic, partition by partition."""
    consumer = config.consumer()
    try:
        for partition in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
            consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
            yield from _records_to_end(consumer, partition)
    finally:
        consumer.close()


def _records_to_end(consumer: ck.Consumer, partition: int) -> Iterator[Record]:
    """The records up to where the broker says that there are no more."""
    while True:
        for message in consumer.consume(_BATCH, 1.0):
            error: Any = message.error()
            if error and error.code() == ck.KafkaError._PARTITION_EOF:
                return
            if error:
                raise ck.KafkaException(error)
            record: Any = message  # its fields are typed for all that a producer may be given
            headers = {name: value.decode() for name, value in record.headers() or []}
            yield Record(partition, record.offset(), record.timestamp()[1], record.key(), record.value(), headers)


def rows_of_topic(config: KafkaConfig, topic: str, dead_letters: bool = False) -> Iterator[tuple[Hashable, Any]]:
    """Rows of market-data-processed (key, value) or of dead-letters (reason, original bytes), as they were written."""
    for record in records_of(config, topic):
        yield record.raw, (record.headers["reason"] if dead_letters else record.key, record.value)


def alerts_of_topic(config: KafkaConfig, topic: str) -> Iterator[tuple[Hashable, Any]]:
    """The messages of market-anomalies, of which several may be about one raw record."""
    for record in records_of(config, topic):
        yield (*record.raw, record.value), record.key


def append_times(config: KafkaConfig, topic: str) -> dict[Hashable, int]:
    """Kafka timestamp of each record of the raw topic, ms, by partition and offset."""
    return {(record.partition, record.offset): record.time_ms for record in records_of(config, topic)}


def output_times(config: KafkaConfig, topic: str) -> dict[Hashable, int]:
    """Kafka timestamp of the first output for each raw record, ms, by its partition and offset."""
    times: dict[Hashable, int] = {}
    for record in records_of(config, topic):
        times.setdefault(record.raw, record.time_ms)
    return times


def rows_of_table(dsn: str, table: Table) -> Iterator[tuple[Hashable, Any]]:
    """All rows of a table; times as ms, and prices as the nearest float64, which tells 8 decimals apart up to 9e7."""
    names = [column.name for column in table.columns]
    identity = [names.index(name) for name in table.identity]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        wanted = psycopg.sql.SQL(", ").join(map(_selected, table.columns))
        cursor.execute(psycopg.sql.SQL("SELECT {} FROM {}").format(wanted, psycopg.sql.Identifier(table.name)))
        for row in cursor:
            yield tuple(row[i] for i in identity), row


def _selected(column: Column) -> psycopg.sql.Composed:
    as_ledger = {
        "numeric(20,8)": "{}::float8",
        "timestamp with time zone": "(extract(epoch FROM {}) * 1000)::bigint",
    }
    return psycopg.sql.SQL(as_ledger.get(column.kind, "{}")).format(psycopg.sql.Identifier(column.name))


def rows_of_lake(root: str) -> Iterator[tuple[Hashable, Any]]:
    """All ticks of the lake."""
    filesystem, path = objects_in(root).tree()
    dataset = ds.dataset(f"{path}/market-data", filesystem=filesystem, format="parquet", partitioning="hive")
    for batch in dataset.to_batches(columns=list(_LAKE)):
        yield from _lake_rows(batch)
