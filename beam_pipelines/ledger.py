"""The ledger: what the log says every sink must hold, against what each holds.

The expectation comes from the raw topic alone, by the kernel in this process; so a job is right if and only if nothing is
missing, nothing is there that should not be, and nothing differs, whatever happened to it in between.
"""

import datetime
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import confluent_kafka as ck
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.dataset as ds

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.tables import MARKET_BARS, MARKET_DATA, Table
from beam_pipelines.transforms.advance import FOREVER, Semantics, provisional
from beam_pipelines.transforms.batches import RAW, Span, span_of, with_span
from beam_pipelines.transforms.enrich import Step, take_step
from beam_pipelines.transforms.messages import processed_messages, rounded
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

__all__ = [
    "Difference",
    "Expected",
    "compare",
    "expected_of",
    "read_log",
    "rows_of_lake",
    "rows_of_table",
    "rows_of_topic",
    "times_of_topic",
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


def compare(expected: Rows, found: Iterable[tuple[Hashable, Any]]) -> Difference:
    """A sink's rows, in the order in which they were written, against what they should be."""
    held: Rows = {}
    copies = 0
    for identity, row in found:
        copies += identity in held
        held[identity] = row
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
    dead_letters: Rows  # (partition, offset) -> (reason, original bytes)
    lake: Rows  # (partition, offset) -> (symbol, timestamp, price, volume)
    duplicates: int

    @property
    def reasons(self) -> Counter[str]:
        """Dead letters by reason."""
        return Counter(reason for reason, _ in self.dead_letters.values())


def expected_of(log: Iterable[pa.RecordBatch], semantics: Semantics) -> Expected:
    """The outputs of a log; batches are RAW with spans, each partition's in the order of offsets."""
    states: dict[int, PartitionState] = {}
    expected = Expected({}, {}, {}, {}, {}, 0)
    duplicates = 0
    for raw in log:
        state = states.setdefault(span_of(raw).partition, PartitionState(semantics.bar_ms))
        step = take_step(state, raw, semantics)
        duplicates += step.duplicates
        _collect(expected, step)
    for state in states.values():
        rest = provisional(state, FOREVER, NEVER, semantics)
        _collect(expected, Step(rest.ticks, rest.bars, None, rest.ticks.slice(0, 0), 0, []))
    return expected._replace(duplicates=duplicates)


def _collect(expected: Expected, step: Step) -> None:
    expected.ticks.update(_messages(step.ticks))
    expected.table_ticks.update(_table_rows(step.ticks, MARKET_DATA))
    expected.table_bars.update(_table_rows(step.bars, MARKET_BARS))
    expected.lake.update(_lake_rows(step.valid))
    if step.dead_letters is not None:
        columns = (step.dead_letters[name].to_pylist() for name in ("partition", "offset", "reason", "value"))
        expected.dead_letters.update({(p, o): (reason, value) for p, o, reason, value in zip(*columns, strict=True)})


def _messages(ticks: pa.RecordBatch) -> Iterator[tuple[Hashable, Any]]:
    messages = processed_messages(ticks)
    columns = (messages[name].to_pylist() for name in ("partition", "offset", "key", "value"))
    return (((p, o), (key, value)) for p, o, key, value in zip(*columns, strict=True))


def _table_rows(batch: pa.RecordBatch, table: Table) -> Iterator[tuple[Hashable, Any]]:
    """Rows as the table gives them back."""
    columns = [_as_in_table(batch[column.field], column.kind) for column in table.columns]
    names = [column.name for column in table.columns]
    identity = [names.index(name) for name in table.identity]
    return ((tuple(row[i] for i in identity), row) for row in zip(*columns, strict=True))


def _as_in_table(column: pa.Array, kind: str) -> list[Any]:
    if kind == "numeric(20,8)":
        numbers = rounded(column.to_numpy(zero_copy_only=False)).tolist()
        return [None if np.isnan(number) else Decimal(f"{number:.8f}") for number in numbers]
    if kind == "timestamp with time zone":
        return column.cast(pa.timestamp("ms", "UTC")).to_pylist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]


_LAKE = ("partition", "offset", "symbol", "timestamp", "price", "volume")


def _lake_rows(ticks: pa.RecordBatch | pa.Table) -> Iterator[tuple[Hashable, Any]]:
    columns = (ticks[name].to_pylist() for name in _LAKE)
    return (
        ((p, o), (symbol, _ms(time), price, size)) for p, o, symbol, time, price, size in zip(*columns, strict=True)
    )


def _ms(time: int | datetime.datetime) -> int:
    return time if isinstance(time, int) else round(time.timestamp() * 1000)


def read_log(config: KafkaConfig, topic: str, starts: Mapping[int, int] | None = None) -> Iterator[pa.RecordBatch]:
    """A topic from `starts` (its beginning where not named) to its present end: RAW batches with spans."""
    for partition, messages in _messages_of(config, topic, starts or {}):
        for begin in range(0, len(messages), _BATCH):
            part = messages[begin : begin + _BATCH]
            columns = (
                pa.array([message.offset() for message in part], pa.int64()),
                pa.array([message.timestamp()[1] for message in part], pa.int64()),
                pa.array([message.key() for message in part], pa.binary()),
                pa.array([message.value() for message in part], pa.binary()),
            )
            span = Span(topic, partition, part[0].offset(), part[-1].offset() + 1)
            yield with_span(pa.RecordBatch.from_arrays(list(columns), schema=RAW), span)


def _messages_of(config: KafkaConfig, topic: str, starts: Mapping[int, int]) -> Iterator[tuple[int, list[ck.Message]]]:
    """All messages of each partition."""
    consumer = config.consumer()
    try:
        for partition in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
            low, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10)
            start = max(low, starts.get(partition, low))
            consumer.assign([ck.TopicPartition(topic, partition, start)])
            messages: list[ck.Message] = []
            while not messages or messages[-1].offset() < high - 1:
                if start >= high:
                    break
                messages += [message for message in consumer.consume(10_000, 1.0) if not message.error()]
            yield partition, messages
    finally:
        consumer.close()


def rows_of_topic(config: KafkaConfig, topic: str, dead_letters: bool = False) -> Iterator[tuple[Hashable, Any]]:
    """Rows of market-data-processed (key, value), or of dead-letters (reason, original bytes), in each partition's order."""
    for _, messages in _messages_of(config, topic, {}):
        for message in messages:
            headers = {name: value.decode() for name, value in message.headers() or []}
            identity = (int(headers["partition"]), int(headers["offset"]))
            first = headers["reason"] if dead_letters else message.key()
            yield identity, (first, message.value())


def times_of_topic(config: KafkaConfig, topic: str, by_header: bool = False) -> Iterator[tuple[Hashable, int]]:
    """Kafka timestamps, ms, by partition and offset: the record's own, or those of the raw record in its headers."""
    for partition, messages in _messages_of(config, topic, {}):
        for message in messages:
            headers = dict(message.headers() or []) if by_header else {}
            own = (partition, message.offset())
            identity = (int(headers["partition"]), int(headers["offset"])) if by_header else own
            yield identity, message.timestamp()[1]


def rows_of_table(dsn: str, table: Table) -> Iterator[tuple[Hashable, Any]]:
    """All rows of a table."""
    names = [column.name for column in table.columns]
    identity = [names.index(name) for name in table.identity]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        connection.execute("SET TIME ZONE 'UTC'")
        cursor.execute(
            psycopg.sql.SQL("SELECT {} FROM {}").format(
                table.names(range(len(names))), psycopg.sql.Identifier(table.name)
            )
        )
        for row in cursor:
            yield tuple(row[i] for i in identity), row


def rows_of_lake(root: str) -> Iterator[tuple[Hashable, Any]]:
    """All ticks of the lake."""
    filesystem, path = objects_in(root).tree()
    dataset = ds.dataset(f"{path}/market-data", filesystem=filesystem, format="parquet", partitioning="hive")
    for batch in dataset.to_batches(columns=list(_LAKE)):
        yield from _lake_rows(batch)
