"""Logs whose every byte, offset and timestamp is known, in topics."""

import dataclasses
import datetime
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from beam_pipelines import ledger
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.lake_state import begin_of
from beam_pipelines.io.tables import DATA_QUALITY
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.batches import RAW, Span, span_of, with_span
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState, midnight_of
from beam_pipelines.transforms.enrich import judge_step, take_step
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.quality_minutes import Minutes, QualityRules
from beam_pipelines.transforms.quality_suites import read_suites

from ..transforms.tick_oracle import meaning
from .anything import ZOO, drawn

PARTITIONS = 3
SEMANTICS = Semantics(5_000, out_of_orderness_ms=1_000, allowed_lateness_ms=10_000, max_future_ms=10_000)
MEANING = ["--bar_seconds=5", "--out_of_orderness_ms=1000", "--allowed_lateness_ms=10000", "--max_future_ms=10000"]
DAYS = [datetime.date(2026, 10, 31), datetime.date(2026, 11, 1), datetime.date(2026, 11, 2)]
"""Of the sessions: a month ends after the first, and on the second New York's clocks are set back."""
SESSION = Session(
    seed=7,
    symbols=12,
    start_ms=midnight_of(DAYS[1]) - 800_000,
    duration_ms=1_600_000,
    ticks=185_000,
    disorder=0.1,
    late=0.01,
    too_late=0.003,
    allowed_lateness_ms=SEMANTICS.allowed_lateness_ms,
    bad=0.02,
    duplicate=0.02,
    tie=0.05,
)
NEXT_SESSION = dataclasses.replace(
    SESSION, seed=9, start_ms=midnight_of(DAYS[2]) - 200_000, duration_ms=400_000, ticks=30_000
)
DAY_BEFORE = DAYS[0] - datetime.timedelta(days=1)
SILENCES = [(b"NVDA", 200_000, 500_000), (None, 900_000, 960_000)]
"""Who sends nothing, None for all, and from when to when after the first session's start, ms."""
ODDITIES: list[tuple[bytes, int, Callable[[dict[str, Any]], dict[str, Any]]]] = [
    (b"AAPL", 700_000, lambda tick: {"price": tick["price"] * 1.2}),
    (b"MSFT", 720_000, lambda tick: {"bid": tick["ask"] * 1.01, "ask": tick["bid"]}),
    (b"AAPL", 1_100_000, lambda tick: {"bid": tick["ask"]}),
    (b"MSFT", 1_200_000, lambda tick: {"ask": tick["ask"] * 1.05}),
    (b"MSFT", 1_500_000, lambda tick: {"price": tick["price"] * 0.8, "volume": 10**6}),
]
"""Whose ticks change from when on, for six seconds, and how; ms after the first session's start."""


Record = dict[str, Any]
"""What `produce` takes."""


class Log(NamedTuple):
    """A log, and what the kernel alone makes of it."""

    topic: str
    batches: list[pa.RecordBatch]  # RAW with spans
    expected: ledger.Expected

    @property
    def partitions(self) -> int:
        return 1 + max(span_of(batch).partition for batch in self.batches)

    def cut(self, pieces: int) -> list[list[Record]]:
        """All records in the order of their timestamps, in so many pieces; each partition keeps its order."""
        records = sorted(self._records(), key=lambda record: record["timestamp"])
        size = -(-len(records) // pieces)
        return [records[start : start + size] for start in range(0, len(records), size)]

    def _records(self) -> Iterator[Record]:
        for batch in self.batches:
            partition = span_of(batch).partition
            for record in batch.drop_columns(["offset"]).to_pylist():
                yield {"partition": partition, **record}


def log_of(topic: str, batches: list[pa.RecordBatch]) -> Log:
    return Log(topic, batches, ledger.expected_of(batches, SEMANTICS))


def session_log(topic: str) -> Log:
    """Both sessions, with bad records among their own."""
    log_time = SESSION.start_ms
    bad: list[bytes | None] = [value for value in [*ZOO, *drawn(600)] if meaning(value, log_time, 0)[1]]
    return log_of(topic, mixed(topic, [SESSION, NEXT_SESSION], PARTITIONS, bad, SILENCES))


def quality_of(log: Log) -> ledger.Rows:
    """What the kernel alone says of the quality of each minute of each partition, as in the table."""
    rules, rows = QualityRules(read_suites()["market"]), {}
    for batch in log.batches:
        minutes = Minutes(rules, span_of(batch).partition)
        step = take_step(PartitionState(SEMANTICS.bar_ms), batch, SEMANTICS)
        judged = [judge_step(minutes, step), minutes.so_far()]
        rows.update(row for part in judged for row in ledger.table_rows(part, DATA_QUALITY))
    return rows


def closing_state() -> ClosingState:
    """Of the day before SESSION, on which not all of its symbols were traded."""
    until = begin_of(DAY_BEFORE, SEMANTICS.bar_ms)
    session = Session(seed=8, symbols=9, start_ms=until - 400_000, duration_ms=390_000, ticks=10_000)
    states: dict[int, PartitionState] = {}
    for partition, raw in raw_batches(session, PARTITIONS + 1):
        state = states.setdefault(partition, PartitionState(SEMANTICS.bar_ms))
        take_step(state, raw, SEMANTICS)
    return NOTHING.followed_by(until, [state.closing(until) for state in states.values()])


def mixed(
    topic: str,
    sessions: Sequence[Session],
    partitions: int,
    others: list[bytes | None],
    silences: Sequence[tuple[bytes | None, int, int]] = (),
) -> list[pa.RecordBatch]:
    """The log of sessions in a row, with other values spread evenly among their records: a batch a partition."""
    records: list[list[tuple[int, bytes | None, bytes | None]]] = [[] for _ in range(partitions)]
    for partition, batch in itertools.chain.from_iterable(raw_batches(session, partitions) for session in sessions):
        columns = (batch[name].to_pylist() for name in ("timestamp", "key", "value"))
        records[partition] += zip(*columns, strict=True)
    for who, since, until in silences:
        quiet = range(sessions[0].start_ms + since, sessions[0].start_ms + until)
        records = [[it for it in mine if it[0] not in quiet or who not in (None, it[1])] for mine in records]
    begin = sessions[0].start_ms
    records = [[(at, key, made_odd(key, at - begin, value)) for at, key, value in mine] for mine in records]
    for number, value in enumerate(others):
        mine = records[number % partitions]
        at = (number + 1) * len(mine) // (len(others) + 1)
        mine.insert(at, (mine[max(at - 1, 0)][0], None, value))  # times never go back
    return [_batch_of(topic, partition, mine) for partition, mine in enumerate(records)]


def made_odd(key: bytes | None, at: int, value: bytes | None) -> bytes | None:
    """A record; one of a stretch of ODDITIES with another price or quote."""
    change = next((change for who, since, change in ODDITIES if who == key and at in range(since, since + 6_000)), None)
    if not change or not (value or b"").startswith(b'{"symbol":'):
        return value
    try:
        tick = json.loads(value)
        return json.dumps(tick | change(tick)).encode()
    except (ValueError, KeyError, TypeError):  # a bad record, or one without a quote
        return value


def _batch_of(topic: str, partition: int, records: list[Any]) -> pa.RecordBatch:
    columns = [range(len(records)), *zip(*records, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.RecordBatch.from_arrays(arrays, schema=RAW), Span(topic, partition, 0, len(records)))


def create_topic(bootstrap_servers: str, topic: str, partitions: int) -> None:
    """A topic that keeps records however old their timestamps say they are."""
    keep = {"retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, partitions, 1, config=keep)])[topic].result(30)


def fill(bootstrap_servers: str, topic: str, records: list[Record], seconds: float = 0.0) -> None:
    """Produces `records`, at once or over some seconds."""
    producer = KafkaConfig(bootstrap_servers).producer(lambda error, _message: pytest.fail(error.str()))
    pause = seconds / len(records)
    for number, record in enumerate(records):
        producer.produce(topic, **record)
        if number % 500 == 0:
            producer.poll(0)
            time.sleep(pause * 500)
    assert producer.flush(30) == 0
