"""Positions are what the user meant, as offsets."""

import confluent_kafka as ck
import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka import KafkaConfig, parse_position
from beam_pipelines.io.kafka_offsets import Position, log_of

NEW_YEAR = 1_735_689_600_000  # 2025-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("earliest", Position("earliest")),
        ("latest", Position("latest")),
        ("committed", Position("committed")),
        (str(NEW_YEAR), Position("timestamp", NEW_YEAR)),
        ("2025-01-01", Position("timestamp", NEW_YEAR)),
        ("2025-01-01T01:00:00+01:00", Position("timestamp", NEW_YEAR)),
        ("2025-01-01T00:00:00.250Z", Position("timestamp", NEW_YEAR + 250)),
        ("0:123, 1:456", Position("offsets", offsets={0: 123, 1: 456})),
    ],
)
def test_positions_are_read(text, position):
    assert parse_position(text) == position


@pytest.mark.parametrize("text", ["", "Earliest", "beginning", "-5", "0:", "0:1,", "0:-1", "0:1:2", "2025-13-01", "²"])
def test_what_is_no_position_is_quoted_with_the_cure(text):
    with pytest.raises(UsageError, match=r"is not understood: give earliest") as error:
        parse_position(text)
    assert repr(text) in str(error.value)


def test_a_partition_that_is_named_twice_is_an_error():
    with pytest.raises(UsageError, match="twice"):
        parse_position("0:1,0:2")


@pytest.fixture
def config(kafka_server) -> KafkaConfig:
    return KafkaConfig(kafka_server, {"group.id": "test-offsets"})


@pytest.fixture
def filled(config, topic) -> str:
    """Two partitions: offsets 0 to 9 at NEW_YEAR + i s, and an empty one."""
    name = topic("positions", 2)
    producer = ck.Producer({"bootstrap.servers": config.bootstrap_servers})
    for i in range(10):
        producer.produce(name, b"%d" % i, partition=0, timestamp=NEW_YEAR + 1000 * i)
    producer.flush()
    return name


@pytest.mark.servers
@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", {0: 0, 1: 0}),
        ("latest", {0: 10, 1: 0}),
        ("committed", {0: 0, 1: 0}),
        ("2025-01-01T00:00:03.500Z", {0: 4, 1: 0}),
        ("2026-01-01", {0: 10, 1: 0}),
        ("0:7", {0: 7, 1: 0}),
        ("0:10,1:0", {0: 10, 1: 0}),
    ],
)
def test_positions_become_offsets_of_every_partition(config, filled, text, start):
    position = parse_position(text)
    assert log_of(config, filled, position).start(position) == start


@pytest.mark.servers
def test_the_end_of_a_partition_that_is_not_named_is_its_end(config, filled):
    position = parse_position("1:0")
    assert log_of(config, filled, position).end(position) == {0: 10, 1: 0}


@pytest.mark.servers
def test_committed_means_the_groups_offsets(config, filled):
    consumer = config.consumer()
    consumer.commit(offsets=[ck.TopicPartition(filled, 0, 6)], asynchronous=False)
    consumer.close()
    position = parse_position("committed")
    assert log_of(config, filled, position).start(position) == {0: 6, 1: 0}


@pytest.mark.servers
@pytest.mark.parametrize(
    ("text", "told"), [("0:11", "offset 11 .* partition 0 .* holds 0 to 10"), ("2:0", "has no partition 2")]
)
def test_a_position_that_is_not_in_the_log_is_an_error(config, filled, text, told):
    position = parse_position(text)
    with pytest.raises(UsageError, match=told):
        log_of(config, filled, position).start(position)
