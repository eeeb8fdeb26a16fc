import json
import math
import pathlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import confluent_kafka as ck
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import replay
from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.sending import Summary, paced, send
from beam_pipelines.simulate import Ledger, Session, raw_batches, records
from beam_pipelines.transforms.records import RECORDS, partition_of

MakeTopic = Callable[[str, int], str]


def consumed(server: str, topic: str) -> dict[int, list[ck.Message]]:
    """All messages of a topic, by partition."""
    consumer = ck.Consumer({"bootstrap.servers": server, "group.id": "test", "enable.partition.eof": True})
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([ck.TopicPartition(topic, partition, 0) for partition in partitions])
    found: dict[int, list[ck.Message]] = defaultdict(list)
    ended = 0
    while ended < len(partitions):
        for message in consumer.consume(1000, 0.2):
            if message.error() is None:
                found[message.partition()].append(message)
            else:
                assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
                ended += 1
    consumer.close()
    return found


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    """What a replay with --json tells."""
    assert replay.main([*argv, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def timed(times: list[int]) -> pa.RecordBatch:
    count = len(times)
    key, kind = pa.array([b"A"] * count).dictionary_encode(), pa.array(["tick"] * count).dictionary_encode()
    return pa.RecordBatch.from_arrays(
        [pa.array(times, pa.int64()), key, pa.array([b"{}"] * count), kind], schema=RECORDS
    )


class Clock:
    """Time that passes only when slept."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(st.lists(st.lists(st.integers(-1, 3000), max_size=10)), st.sampled_from([0.5, 1.0, 10.0]))
def test_every_record_is_sent_when_its_time_has_come_and_none_overtakes(times: list[list[int]], speed: float) -> None:
    clock = Clock()
    sent = [
        (clock.now * 1000, time)
        for batch in paced(map(timed, times), speed, clock, clock.sleep)
        for time in batch["time"].to_pylist()
    ]
    flat = [time for batch in times for time in batch]
    assert [time for _, time in sent] == flat
    known = [time for time in flat if time >= 0]
    due = [(max([0, *flat[: row + 1]], default=0) - known[0]) / speed if known else 0 for row in range(len(flat))]
    for (now, _), when in zip(sent, due, strict=True):
        assert when - 1e-6 <= now <= max(when, 0) + 2 * 200  # ms; the longest sleep is 200


def test_pacing_waits_for_the_next_record_no_longer_than_needed() -> None:
    clock = Clock()
    sent = [clock.now for _ in paced([timed([5000]), timed([5100, 5100]), timed([6000])], 1.0, clock, clock.sleep)]
    assert sent == pytest.approx([0.0, 0.1, 1.0], abs=0.006)


@pytest.mark.servers
def test_a_session_is_sent_in_order_to_the_partitions_of_its_keys(
    kafka_server: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic("replay", 3)
    flags = ["--ticks=5000", "--bad_share=0.05", "--duplicate_share=0.02", "--seed=9", "--symbols=40"]
    told = run(capsys, f"--bootstrap_servers={kafka_server}", f"--topic={name}", *flags)
    session = Session(seed=9, symbols=40, ticks=5000, bad=0.05, duplicate=0.02)
    ledger = Ledger.of(records(session))
    assert (told["sent"], told["lost"], told["kinds"]) == (ledger.kinds.total(), 0, dict(ledger.kinds))

    expected: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
    for partition, batch in raw_batches(session, 3):
        expected[partition] += zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)
    found = consumed(kafka_server, name)
    assert {partition: [(it.key(), it.value()) for it in messages] for partition, messages in found.items()} == expected
    assert len(expected) == 3


@pytest.mark.servers
def test_the_partition_of_any_key_is_that_of_the_client_and_null_is_not_empty(
    kafka_server: str, topic: MakeTopic
) -> None:
    name = topic("murmur", 7)
    keys = [b"x" * length + bytes([length]) for length in range(1, 70)]
    values = [None if row % 3 else b"" for row in range(len(keys))]
    columns = [
        pa.array(np.zeros(len(keys), np.int64)),
        pa.array(keys).dictionary_encode(),
        pa.array(values, pa.binary()),
        pa.array(["tick"] * len(keys)).dictionary_encode(),
    ]
    summary = send(KafkaConfig(kafka_server), name, [pa.RecordBatch.from_arrays(columns, schema=RECORDS).slice(2)])
    assert (summary.messages, summary.lost) == (len(keys) - 2, 0)
    found = {
        it.key(): (it.partition(), it.value()) for messages in consumed(kafka_server, name).values() for it in messages
    }
    assert found == {key: (partition_of(key, 7), value) for key, value in list(zip(keys, values, strict=True))[2:]}


@pytest.mark.servers
def test_a_full_queue_delays_and_loses_or_reorders_nothing(kafka_server: str, topic: MakeTopic) -> None:
    name = topic("full", 1)
    session = Session(ticks=20_000)
    summary = send(KafkaConfig(kafka_server, {"queue.buffering.max.messages": 500}), name, records(session))
    sent = [value for batch in records(session) for value in batch["value"].to_pylist()]
    assert summary.lost == 0
    assert [it.value() for it in consumed(kafka_server, name)[0]] == sent


@pytest.mark.servers
def test_what_kafka_refuses_is_counted_and_fails_the_run(
    kafka_server: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"small-{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": kafka_server})
    admin.create_topics([NewTopic(name, 1, config={"max.message.bytes": "1000"})])[name].result(30)
    path = tmp_path / "large.ndjson"
    path.write_bytes(b'{"symbol":"A","x":"%s"}\n' % np.random.default_rng(1).bytes(5000).hex().encode())
    assert replay.main([f"--bootstrap_servers={kafka_server}", f"--topic={name}", f"--input={path}"]) == 1
    assert "error: 1 of 1 messages were lost" in capsys.readouterr().err


@pytest.mark.servers
def test_real_speed_takes_the_time_of_the_session_and_restamping_makes_it_live(
    kafka_server: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic("live", 1)
    flags = ["--ticks=200", "--duration_seconds=6", "--disorder_share=0", "--speed=3", "--restamp"]
    told = run(capsys, f"--bootstrap_servers={kafka_server}", f"--topic={name}", *flags)
    assert 1.5 < told["seconds"] < 20
    behind = [it.timestamp()[1] - json.loads(it.value())["timestamp"] for it in consumed(kafka_server, name)[0]]
    assert min(behind) > -500  # nothing comes from the future
    assert behind[0] > behind[-1]  # the replay catches up with now


@pytest.mark.servers
def test_a_limit_a_missing_topic_and_files_together(
    kafka_server: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.csv").write_text(f"symbol,timestamp,price,volume\nA,1,{number},1\nB,2,{number},1\n")
    name = f"made-{time.time_ns()}"
    files = [str(tmp_path / "1.csv"), str(tmp_path / "2.csv")]
    where = [f"--bootstrap_servers={kafka_server}", f"--topic={name}"]
    with pytest.raises(UsageError, match=f"topic {name} does not exist"):
        replay.main([*where, "--input", *files])
    told = run(capsys, *where, "--create_topic", "--partitions=2", "--limit=3", "--input", *files)
    assert (told["sent"], told["kinds"]) == (3, {"tick": 3})
    found = consumed(kafka_server, name)
    prices = [json.loads(it.value())["price"] for it in found[partition_of(b"A", 2)] if it.key() == b"A"]
    assert prices == [1, 2]
    assert replay.main([*where, "--create_topic", "--ticks=1"]) == 0  # a topic that exists is kept


@pytest.mark.servers
def test_sending_is_fast(kafka_server: str, topic: MakeTopic) -> None:
    summary = send(KafkaConfig(kafka_server), topic("fast", 4), records(Session(ticks=300_000, bad=0.01)))
    assert summary.messages / summary.seconds > 30_000  # 100,000 and more when the machine does nothing else


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--bootstrap_servers=127.0.0.1:1"], "Kafka at 127.0.0.1:1 cannot be reached"),
        ([], "bootstrap_servers is empty"),
        (["--bootstrap_servers=h:1", "--speed=fast"], "'fast' must be real, a number above 0, or max"),
        (["--bootstrap_servers=h:1", "--speed=-1"], "must be real"),
        (["--bootstrap_servers=h:1", "--speed=nan"], "must be real"),
        (["--bootstrap_servers=h:1", "--start=noon"], "'noon' is neither ISO 8601 nor ms"),
        (["--bootstrap_servers=h:1", "--duration_seconds=inf"], "'inf' is not a length in seconds"),
        (["--bootstrap_servers=h:1", "--limit=0"], "--limit: must be a whole number from 1 to"),
        (["--bootstrap_servers=h:1", "--bad_share=2"], "--bad_share: must be a share between 0 and 1"),
        (["--bootstrap_servers=h:1", "--activity=noon"], "activity must be day or steady, was 'noon'"),
        (["--bootstrap_servers=h:1", "--sped=1"], "unknown flag or argument --sped: did you mean --speed?"),
        (["--bootstrap_servers=h:1", "--input=a.csv"], "input file a.csv does not exist"),
        (["--bootstrap_servers=h:1", "--input=a.csv", "--seed=1"], "--seed is for simulated sessions"),
        (["--bootstrap_servers=h:1", "--input=a.csv", "--simulate"], "not allowed with argument"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_within_seconds(argv: list[str], complaint: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError) as told:
        replay.main(argv)
    assert complaint in str(told.value)
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("speed", "expected"), [(0.5, (0, 20_000)), (1.0, (0, 10_000)), (10.0, (-9000, 1000)), (math.inf, (-10_000, 0))]
)
def test_restamping_never_dates_a_tick_after_its_sending(speed: float, expected: tuple[int, int]) -> None:
    now = time.time() * 1000
    shift = replay._shift(0, 10_000, speed)
    first, end_of_replay = expected
    assert shift - now == pytest.approx(first, abs=1000)
    assert shift + 10_000 <= now + end_of_replay + 1000


def test_the_summary_for_people_names_what_was_sent() -> None:
    summary = Summary(Ledger(), messages=2000, bytes=300_000, seconds=2.0)
    summary.ledger.kinds.update({"in_order": 1990, "not_json": 10})
    assert summary.as_text() == "sent 2,000 messages, 0.3 MB, in 2.0 s (1,000/s): in_order 1,990, not_json 10"
