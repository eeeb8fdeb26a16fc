"""Pipelines read what is in a topic, and write what others can read."""

import itertools
import random
import time

import apache_beam as beam
import confluent_kafka as ck
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from confluent_kafka.admin import NewTopic

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka import KafkaConfig, Pace, ReadFromKafka, WriteToKafka
from beam_pipelines.io.kafka_ranges import ranges_of
from beam_pipelines.transforms.batches import Span, span_of

Record = tuple[int, int, int, bytes | None, bytes | None]  # partition, offset, timestamp, key, value

NOW = 1_735_689_600_000
INCOMPRESSIBLE = random.Random(7).randbytes(1_200_000)


@pytest.fixture
def config(kafka_server) -> KafkaConfig:
    return KafkaConfig(kafka_server)


def produce(config: KafkaConfig, name: str, records: list[Record]) -> None:
    producer = config.producer(lambda error, _message: pytest.fail(error.str()))
    for partition, _offset, timestamp, key, value in records:
        producer.produce(name, value, key, partition=partition, timestamp=timestamp)
    producer.flush()


def numbered(partition: int, count: int, first: int = 0) -> list[Record]:
    return [(partition, i, NOW + i, b"key", b"%d/%d" % (partition, i)) for i in range(first, first + count)]


def consume(config: KafkaConfig, name: str, count: int) -> list[ck.Message]:
    """The first `count` records of a topic with one partition."""
    consumer = config.consumer()
    consumer.assign([ck.TopicPartition(name, 0, 0)])
    messages, until = [], time.monotonic() + 20
    while len(messages) < count and time.monotonic() < until:
        messages += [message for message in consumer.consume(count, 0.2) if not message.error()]
    consumer.close()
    return messages


def run_bounded(name: str, config: KafkaConfig, check, **options) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        assert_that(pipeline | ReadFromKafka(name, config, bounded=True, **options), check)


def holds(expected: list[Record]):
    """A check that the batches' records are `expected`, and that the spans of each partition tile."""

    def check(batches: list[tuple[int, pa.RecordBatch]]) -> None:
        batches = sorted(batches, key=lambda it: (it[0], span_of(it[1]).first))
        rows = [(key, *row.values()) for key, batch in batches for row in batch.to_pylist()]
        assert rows == expected, f"{len(rows)} records, expected {len(expected)}"
        spans = [span_of(batch) for _key, batch in batches]
        assert [span.partition for span in spans] == [key for key, _batch in batches]
        for one, next_one in itertools.pairwise(spans):
            assert next_one.partition > one.partition or next_one.first == one.next

    return check


def covers(span: Span):
    """A check that the spans go from the first to the last offset of `span`."""

    def check(batches: list[tuple[int, pa.RecordBatch]]) -> None:
        spans = sorted(span_of(batch) for _key, batch in batches)
        assert (spans[0].first, spans[-1].next) == (span.first, span.next)
        assert [it.first for it in spans[1:]] == [it.next for it in spans[:-1]]

    return check


def test_ranges_tile_the_log_in_chunks():
    assert ranges_of("t", {0: 50_000, 1: 7, 2: 0}, {0: 250_000, 1: 7, 2: 1}) == [
        Span("t", 0, 50_000, 150_000),
        Span("t", 0, 150_000, 250_000),
        Span("t", 2, 0, 1),
    ]


@pytest.mark.servers
def test_a_bounded_read_gives_what_was_produced(config, topic):
    name = topic("bounded", 3)
    odd = [(0, 0, NOW, None, b"no key"), (0, 1, NOW, b"tombstone", None), (0, 2, NOW, b"", b"")]
    records = [*odd, *numbered(0, 25_000, first=3), *numbered(2, 10)]
    produce(config, name, records)
    run_bounded(name, config, holds(records))


@pytest.mark.servers
def test_a_bounded_read_takes_values_of_more_than_a_megabyte(config, topic):
    name = topic("large")
    records = [(0, i, NOW, b"large", b"%d" % i + INCOMPRESSIBLE) for i in range(4)]
    produce(config, name, records)
    run_bounded(name, config, holds(records))


@pytest.mark.servers
def test_the_batches_of_a_bounded_read_are_small_enough_for_flink_to_sort(config, topic):
    name = topic("medium")
    records = [(0, i, NOW, b"medium", b"%d" % i + INCOMPRESSIBLE[: 5_000 * i]) for i in range(50)]
    produce(config, name, records)

    def check(batches: list[tuple[int, pa.RecordBatch]]) -> None:
        holds(records)(batches)
        assert len(batches) >= 3
        assert max(batch["value"].nbytes for _key, batch in batches) < 3_000_000

    run_bounded(name, config, check)


@pytest.mark.servers
def test_a_bounded_read_of_an_empty_topic_gives_nothing(config, topic):
    run_bounded(topic("empty", 2), config, holds([]))


@pytest.mark.servers
def test_a_bounded_read_keeps_to_its_positions(config, topic):
    name = topic("positions", 2)
    produce(config, name, [*numbered(0, 100), *numbered(1, 100)])
    expected = [*numbered(0, 70, first=20), *numbered(1, 100)]
    run_bounded(name, config, holds(expected), start="0:20", end="0:90")


@pytest.mark.servers
def test_what_comes_after_the_pipeline_is_built_is_not_read(config, topic):
    name = topic("later")
    produce(config, name, numbered(0, 10))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        batches = pipeline | ReadFromKafka(name, config, bounded=True)
        produce(config, name, numbered(0, 10, first=10))
        assert_that(batches, holds(numbered(0, 10)))


@pytest.mark.servers
def test_the_spans_of_a_bounded_read_cover_holes_and_the_end(config, topic):
    name = topic("holes")
    producer = ck.Producer({"bootstrap.servers": config.bootstrap_servers, "transactional.id": name})
    producer.init_transactions()
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for i in range(5):
            producer.produce(name, b"%d" % i)
        producer.flush()
        end()
    run_bounded(name, config, covers(Span(name, 0, 0, 12)))
    run_bounded(name, config, covers(Span(name, 0, 2, 12)), start="0:2")
    run_bounded(name, config, covers(Span(name, 0, 7, 9)), start="0:7", end="0:9")  # nothing but a hole


@pytest.mark.servers
def test_records_that_are_deleted_before_a_bounded_read_are_an_error(config, topic):
    name = topic("deleted")
    produce(config, name, numbered(0, 10))
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | ReadFromKafka(name, config, bounded=True)
    admin = config.admin()
    admin.delete_records([ck.TopicPartition(name, 0, 10)])[ck.TopicPartition(name, 0)].result(10)
    with pytest.raises(RuntimeError, match=f"offset 0 of topic {name}, partition 0 is not in the log"):
        pipeline.run()


@pytest.mark.servers
def test_a_read_without_end_names_the_runner_that_cannot(config, topic):
    with pytest.raises(UsageError, match="runner FnApiRunner cannot read Kafka without end: use --runner=FlinkRunner"):
        beam.Pipeline(runner=FnApiRunner()) | ReadFromKafka(topic("endless"), config)


def test_a_wrong_argument_is_told_when_it_is_given():
    config = KafkaConfig("127.0.0.1:1")
    with pytest.raises(UsageError, match="'soon' is not understood"):
        ReadFromKafka("t", config, start="soon")
    with pytest.raises(UsageError, match="must be at least 1"):
        ReadFromKafka("t", config, pace=Pace(max_records=0))


def test_a_read_of_an_unreachable_broker_is_told():
    with pytest.raises(UsageError, match=r"Kafka at 127\.0\.0\.1:1 cannot be reached"):
        beam.Pipeline(runner=FnApiRunner()) | ReadFromKafka("t", KafkaConfig("127.0.0.1:1"), bounded=True)


def write(name: str, config: KafkaConfig, *batches: pa.RecordBatch) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create(batches, reshuffle=False) | WriteToKafka(name, config)


@pytest.mark.servers
def test_rows_become_records_with_keys_values_and_headers(config, topic):
    name = topic("written")
    batch = pa.record_batch(
        {
            "key": pa.array(["A", None, "C"]),
            "value": pa.array([b"one", b"", None]),
            "partition": pa.array([1, 2, 3], pa.int32()),
            "reason": pa.array(["not_json", None, "gr\u00fcn"]).dictionary_encode(),
            "late": pa.array([True, False, None]),
        }
    )
    write(name, config, batch)
    assert [(it.key(), it.value(), it.headers()) for it in consume(config, name, 3)] == [
        (b"A", b"one", [("partition", b"1"), ("reason", b"not_json"), ("late", b"true")]),
        (None, b"", [("partition", b"2"), ("late", b"false")]),
        (b"C", None, [("partition", b"3"), ("reason", "gr\u00fcn".encode())]),
    ]


@pytest.mark.servers
def test_values_alone_are_enough(config, topic):
    name = topic("bare")
    write(name, config, pa.record_batch({"value": pa.array(["one", "two"])}))
    assert [(it.key(), it.value(), it.headers()) for it in consume(config, name, 2)] == [
        (None, b"one", None),
        (None, b"two", None),
    ]


@pytest.mark.servers
def test_records_of_a_key_stay_in_order_through_a_full_queue(kafka_server, topic):
    name = topic("ordered")
    config = KafkaConfig(kafka_server, {"queue.buffering.max.messages": 1000})
    values = [b"%d" % i for i in range(50_000)]
    write(name, config, pa.record_batch({"key": pa.array([b"k"] * len(values)), "value": pa.array(values)}))
    assert [it.value() for it in consume(config, name, len(values))] == values


@pytest.mark.servers
def test_large_values_with_headers_are_written(config, topic):
    name = topic("large")
    write(name, config, pa.record_batch({"value": pa.array([INCOMPRESSIBLE] * 3), "reason": pa.array(["x"] * 3)}))
    assert [it.value() for it in consume(config, name, 3)] == [INCOMPRESSIBLE] * 3


@pytest.mark.servers
def test_a_record_that_the_topic_refuses_fails_the_pipeline(config, topic):
    name, admin = topic("strict"), config.admin()
    strict = NewTopic(f"{name}-too", 1, 1, config={"max.message.bytes": "2000"})
    admin.create_topics([strict])[strict.topic].result(10)
    large = pa.record_batch({"value": pa.array([b"small", bytes(range(256)) * 100])})
    config = KafkaConfig(config.bootstrap_servers, {"compression.type": "none"})
    with pytest.raises(RuntimeError, match=f"not delivered to topic {strict.topic}.*Message size too large"):
        write(strict.topic, config, large)


@pytest.mark.servers
def test_a_record_that_the_client_refuses_fails_the_pipeline(kafka_server, topic):
    name = topic("client")
    config = KafkaConfig(kafka_server, {"message.max.bytes": 100_000})
    with pytest.raises(RuntimeError, match=f"1200000 bytes cannot be sent to topic {name}.*Message size too large"):
        write(name, config, pa.record_batch({"value": pa.array([INCOMPRESSIBLE])}))


@pytest.mark.servers
def test_a_topic_that_is_gone_fails_the_pipeline(kafka_server):
    with pytest.raises(RuntimeError, match="not delivered to topic nowhere"):
        write("nowhere", KafkaConfig(kafka_server), pa.record_batch({"value": pa.array([b"lost"])}))


def test_a_broker_that_does_not_come_back_fails_the_pipeline():
    config = KafkaConfig("127.0.0.1:1", {"message.timeout.ms": 1500})
    with pytest.raises(RuntimeError, match="2 records were not delivered to topic t: Local: Message timed out"):
        write("t", config, pa.record_batch({"value": pa.array([b"lost", b"too"])}))
