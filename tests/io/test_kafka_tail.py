"""One partition is read without gap or repeat, and a lost position is an error that names it."""

import gc
import time

import confluent_kafka as ck
import pyarrow as pa
import pytest

from beam_pipelines.io.kafka import KafkaConfig, KafkaReadError
from beam_pipelines.io.kafka_tail import Tail, TailPool
from beam_pipelines.transforms.batches import RAW, Span, span_of

pytestmark = pytest.mark.servers


@pytest.fixture
def config(kafka_server) -> KafkaConfig:
    return KafkaConfig(kafka_server)


@pytest.fixture
def name(topic) -> str:
    return topic("tail")


@pytest.fixture
def tail(config, name):
    tail = Tail(config, name, 0)
    yield tail
    tail.close()


def produce(config: KafkaConfig, name: str, values: list[bytes]) -> None:
    producer = config.producer(lambda error, _message: pytest.fail(error.str()))
    for value in values:
        producer.produce(name, value)
    producer.flush()


def produce_transaction(config: KafkaConfig, name: str, values: list[bytes], commit: bool = True) -> None:
    producer = ck.Producer({"bootstrap.servers": config.bootstrap_servers, "transactional.id": f"{name}-{values}"})
    producer.init_transactions()
    producer.begin_transaction()
    for value in values:
        producer.produce(name, value)
    producer.flush()
    (producer.commit_transaction if commit else producer.abort_transaction)()


def truncate(config: KafkaConfig, name: str, low: int) -> None:
    admin = config.admin()
    admin.delete_records([ck.TopicPartition(name, 0, low)])[ck.TopicPartition(name, 0)].result(10)


def read_until(tail: Tail, offset: int, max_records: int = 1000, seconds: float = 20) -> list[pa.RecordBatch]:
    """What comes until the position is `offset`."""
    batches, until = [], time.monotonic() + seconds
    while tail.position < offset and time.monotonic() < until:
        batch = tail.poll(max_records, 0.05)
        if batch is not None:
            batches.append(batch)
    assert tail.position == offset
    return batches


def poll_for(tail: Tail, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tail.poll(100, 0.05)


def idle_ms(tail: Tail, at_least: int, seconds: float) -> int:
    """The first idleness that is told within `seconds`, 0 if none is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tail.poll(100, 0.02)
        idle = tail.idle_ms(at_least)
        if idle:
            return idle
    return 0


def test_spans_tile_the_log_and_hold_its_records(config, name, tail):
    values = [b"%d" % i for i in range(2500)]
    produce(config, name, values)
    tail.seek(0)
    batches = read_until(tail, 2500)
    assert [value for batch in batches for value in batch["value"].to_pylist()] == values
    assert all(batch.schema.equals(RAW) and batch.num_rows <= 1000 for batch in batches)
    spans = [span_of(batch) for batch in batches]
    assert spans == [
        Span(name, 0, first, first + batch.num_rows)
        for first, batch in zip([0, *(span.next for span in spans)], batches, strict=False)
    ]


def test_it_goes_back_to_where_it_is_told(config, name, tail):
    produce(config, name, [b"%d" % i for i in range(50)])
    tail.seek(0)
    read_until(tail, 50)
    tail.seek(20)
    batches = read_until(tail, 50)
    assert [value for batch in batches for value in batch["value"].to_pylist()] == [b"%d" % i for i in range(20, 50)]
    assert span_of(batches[0]).first == 20


def test_spans_cover_the_holes_that_transactions_leave(config, name, tail):
    produce_transaction(config, name, [b"a", b"b"])  # offsets 0, 1, and the commit marker
    produce_transaction(config, name, [b"x"], commit=False)  # 3, and the marker
    produce(config, name, [b"c"])  # 5
    tail.seek(0)
    batches = read_until(tail, 6)
    assert [value for batch in batches for value in batch["value"].to_pylist()] == [b"a", b"b", b"c"]
    assert [span_of(batch).first for batch in batches[1:]] == [span_of(batch).next for batch in batches[:-1]]
    assert span_of(batches[0]).first == 0


def test_a_megabyte_passes_and_bounds_the_batch(config, name, tail):
    values = [bytes([i]) * 1_500_000 for i in range(40)]
    produce(config, name, values)
    tail.seek(0)
    time.sleep(1)
    batches = read_until(tail, 40)
    assert [value for batch in batches for value in batch["value"].to_pylist()] == values
    assert max(batch.nbytes for batch in batches) < 32 * 1024 * 1024


def test_idleness_is_told_once_the_log_is_read_and_again_after_as_long(config, name, tail):
    produce(config, name, [b"a"])
    tail.seek(0)
    read_until(tail, 1)
    assert 600 <= idle_ms(tail, 600, 5) < 2000
    assert tail.idle_ms(600) == 0
    assert 1200 <= idle_ms(tail, 600, 5) < 3000
    produce(config, name, [b"b"])
    read_until(tail, 2)
    assert 600 <= idle_ms(tail, 600, 5) < 2000


def test_an_empty_partition_is_idle(tail):
    tail.seek(0)
    assert idle_ms(tail, 600, 5) >= 600


def test_a_partition_behind_the_marker_of_a_transaction_is_idle(config, name, tail):
    produce_transaction(config, name, [b"a"])
    tail.seek(0)
    read_until(tail, 1)
    assert idle_ms(tail, 600, 5) >= 600


def test_a_partition_with_unread_records_is_not_idle(config, name, tail):
    tail.seek(0)
    poll_for(tail, 1)
    produce(config, name, [b"a"])
    time.sleep(0.7)
    assert tail.idle_ms(600) == 0


def test_the_lag_is_what_is_left_to_read(config, name, tail):
    produce(config, name, [b"%d" % i for i in range(100)])
    tail.seek(0)
    read_until(tail, 10, max_records=10)
    assert tail.lag() == 90


def test_the_groups_offset_is_told_to_kafka(config, name, tail):
    produce(config, name, [b"a"])
    tail.seek(0)
    tail.commit(1)
    poll_for(tail, 1)
    consumer = config.consumer()
    assert [it.offset for it in consumer.committed([ck.TopicPartition(name, 0)], timeout=10)] == [1]
    consumer.close()


def test_records_that_were_deleted_before_they_were_read_are_an_error(config, name, tail):
    produce(config, name, [b"%d" % i for i in range(10)])
    truncate(config, name, 6)
    tail.seek(3)
    with pytest.raises(KafkaReadError, match=rf"offset 3 of topic {name}, partition 0 .* holds 6 to 10.*retention"):
        poll_for(tail, 10)


def test_a_log_that_lost_all_its_unread_records_is_an_error(config, name, tail):
    produce(config, name, [b"%d" % i for i in range(10)])
    tail.seek(0)
    read_until(tail, 5, max_records=5)
    tail.seek(5)
    truncate(config, name, 10)
    other = Tail(config, name, 0)  # as after a restart: nothing is prefetched
    other.seek(5)
    with pytest.raises(KafkaReadError, match=r"offset 5 .* holds 10 to 10"):
        poll_for(other, 10)
    other.close()


def test_a_position_beyond_the_end_of_the_log_is_an_error(config, name, tail):
    produce(config, name, [b"a"])
    tail.seek(7)
    with pytest.raises(KafkaReadError, match=r"offset 7 .* holds 0 to 1: the log is shorter"):
        poll_for(tail, 10)


def test_a_deleted_topic_is_an_error(config, name, tail):
    produce(config, name, [b"a"])
    tail.seek(0)
    read_until(tail, 1)
    admin = config.admin()
    admin.delete_topics([name])[name].result(10)
    with pytest.raises(KafkaReadError, match=rf"{name}, partition 0 does not exist any more.* offset 1"):
        poll_for(tail, 30)


def test_a_tail_is_used_by_one_bundle_at_a_time(config, name):
    pool = TailPool()
    first = pool.take(0, lambda: Tail(config, name, 0))
    second = pool.take(0, lambda: Tail(config, name, 0))
    assert first is not second
    pool.give_back(first)
    pool.give_back(second)  # closed: one is enough
    with pytest.raises(RuntimeError, match="closed"):
        second.poll(1, 0)
    assert pool.take(0, lambda: Tail(config, name, 0)) is first
    pool.close()
    first.poll(1, 0)  # still in use
    pool.give_back(first)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        first.poll(1, 0)


def test_many_messages_are_read_without_a_collection_and_then_it_is_on_again(config, name, tail):
    produce(config, name, [b"x"] * 5_000)
    tail.seek(0)
    collections = []
    gc.callbacks.append(told := lambda phase, _info: collections.append(phase))
    try:
        batches = read_until(tail, 5_000, max_records=5_000)
    finally:
        gc.callbacks.remove(told)
    assert gc.isenabled()
    assert len(collections) < 2 * len(batches)  # a start and an end for each of 5,000 / 700 collections, else
