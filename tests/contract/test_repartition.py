"""A topic that is not keyed by symbol, copied and read by one job whose workers are killed meanwhile."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from beam_pipelines import ledger
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.repartition import by_symbol
from beam_pipelines.runners.jobs import launched
from beam_pipelines.simulate import Session

from .anything import ZOO
from .logs import PARTITIONS, SEMANTICS, Log, create_topic, fill, log_of, mixed
from .sinks import Sinks
from .streams import await_all, await_true, kill_workers, streaming

pytestmark = pytest.mark.servers

SESSION = Session(
    seed=9,
    symbols=12,
    duration_ms=400_000,
    ticks=30_000,
    disorder=0.1,
    late=0.01,
    allowed_lateness_ms=SEMANTICS.allowed_lateness_ms,
    bad=0.01,
    duplicate=0.01,
)
TOPIC = "unkeyed-raw"


class Run(NamedTuple):
    sinks: Sinks
    copied: Log  # the log that was made, and what is to be made of it
    copies: list[ledger.Record]


@pytest.fixture(scope="module")
def keyed() -> Log:
    return log_of(TOPIC, mixed(TOPIC, [SESSION], PARTITIONS, ZOO))


@pytest.fixture(scope="module")
def records(keyed) -> list[dict[str, Any]]:
    """Its records in the order of time, each in any partition."""
    choice = random.Random(5)
    return [{**record, "partition": choice.randrange(PARTITIONS)} for record in keyed.cut(1)[0]]


def backlog_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is in the topic before the job begins."""
    return records[: len(records) // 2]


@pytest.fixture(scope="module")
def run(kafka_server, keyed, records, new_sinks, s3_server, flink_cluster, workers, on_flink, tmp_path_factory) -> Run:
    config = KafkaConfig(kafka_server)
    create_topic(kafka_server, TOPIC, PARTITIONS)
    sinks = new_sinks(f"s3://{s3_server.bucket}")
    program = tmp_path_factory.mktemp("repartition") / "log"
    backlog = backlog_of(records)
    fill(kafka_server, TOPIC, backlog)
    flags = [*on_flink, "--repartition"]
    with launched(streaming(keyed, sinks, flags), flink_cluster.rest, sinks.processed, program) as job:
        await_true(job, lambda: sinks.count("market_bars_ts", "NOT is_final") > 0)
        with ThreadPoolExecutor(1) as pool:
            before = sinks.count("market_data_ts")
            filled = pool.submit(fill, kafka_server, TOPIC, records[len(backlog) :], 4.0)
            await_true(job, lambda: sinks.count("market_data_ts") > before)
            kill_workers(workers)
            filled.result()
        await_true(job, lambda: len(originals(config)) == len(records))
        batches = list(ledger.read_log(config, by_symbol(TOPIC)))
        copied = Log(by_symbol(TOPIC), batches, ledger.expected_of(batches, SEMANTICS))
        await_all(copied, sinks, job)
        assert job.has_restarted()
    return Run(sinks, copied, list(ledger.records_of(config, by_symbol(TOPIC))))


def originals(config: KafkaConfig) -> set[str]:
    return {record.headers["copied_from"] for record in ledger.records_of(config, by_symbol(TOPIC))}


def test_every_record_is_copied_with_its_bytes_and_time(kafka_server, run):
    raw = {(it.partition, it.offset): it for it in ledger.records_of(KafkaConfig(kafka_server), TOPIC)}
    found = set()
    for copy in run.copies:
        _, partition, offset = copy.headers["copied_from"].rsplit("/", 2)
        original = raw[int(partition), int(offset)]
        assert (copy.value, copy.time_ms) == (original.value, original.time_ms)
        found.add((int(partition), int(offset)))
    assert found == raw.keys()


def test_every_sink_holds_just_what_the_copied_log_says(run):
    held = dict(run.sinks.differences(run.copied.expected))
    assert {name: difference for name, difference in held.items() if not difference.clean} == {}


def test_every_tick_and_every_dead_letter_is_there_once_however_often_it_was_copied(keyed, run):
    expected, wanted = run.copied.expected, keyed.expected
    assert sorted(expected.lake.values()) == sorted(wanted.lake.values())
    assert bad(expected) == bad(wanted)


def bad(expected: ledger.Expected) -> Counter[tuple[str, bytes | None]]:
    """Reason and bytes of each record that is no tick."""
    return Counter(letter for letter in expected.dead_letters.values() if letter[0] != "too_late")


def test_a_backlog_is_not_made_late_by_copying_it(keyed, records, run):
    backlog = {record["value"] for record in backlog_of(records)}
    backlog -= {record["value"] for record in records[len(backlog_of(records)) :]}  # duplicates that were sent live
    assert too_late(run.copied.expected, backlog) <= too_late(keyed.expected, backlog)


def too_late(expected: ledger.Expected, values: set[bytes | None]) -> int:
    return sum(reason == "too_late" and value in values for reason, value in expected.dead_letters.values())
