"""A Flink job follows a topic through the death of a worker, and loses nothing."""

import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import confluent_kafka as ck
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka.admin import NewPartitions

from beam_pipelines.io.kafka import KafkaConfig, Pace, ReadFromKafka, WriteToKafka

pytestmark = pytest.mark.servers

RATE = 1000  # records a second


@pytest.fixture
def follow(flink_cluster, kafka_server) -> Iterator[Callable[..., None]]:
    """Starts a job that copies a topic into another, and ends it with the test; `before` is called when it is built."""

    def start(name: str, copy: str, *options: str, before: Callable[[], object] = bool) -> None:
        config = KafkaConfig(kafka_server)
        arguments = [*flink_cluster.arguments, "--streaming", f"--job_name={copy}", *options]
        pipeline = beam.Pipeline(options=PipelineOptions(arguments))
        pipeline | ReadFromKafka(name, config, pace=Pace(idle_ms=1000)) | beam.Values() | WriteToKafka(copy, config)
        before()
        pipeline.run()

    yield start
    for job in flink_cluster.job_manager.get("jobs")["jobs"]:
        if job["status"] not in ("CANCELED", "FAILED", "FINISHED"):
            url = f"http://{flink_cluster.rest}/jobs/{job['id']}?mode=cancel"
            urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()


class Feed(threading.Thread):
    """Produces numbered records into partitions, RATE a second in all, until it is told to stop."""

    def __init__(self, config: KafkaConfig, name: str, *partitions: int) -> None:
        super().__init__(daemon=True)
        self.counts = dict.fromkeys(partitions, 0)
        self._producer = config.producer(lambda error, _message: pytest.fail(error.str()))
        self._name = name
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            for _ in range(RATE // 50 // len(self.counts)):
                self._send()
            self._producer.poll(0)

    def stop(self) -> set[bytes]:
        """Ends it, and gives the values of all that was sent: partition/offset."""
        self._stopped.set()
        self.join()
        self._producer.flush()
        return {b"%d/%d" % (i, offset) for i, count in self.counts.items() for offset in range(count)}

    def _send(self) -> None:
        for partition, offset in self.counts.items():
            self._producer.produce(self._name, b"%d/%d" % (partition, offset), partition=partition)
            self.counts[partition] += 1


class Copied:
    """What is in the copy so far: value → how often."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        self.counts: dict[bytes, int] = {}
        self._consumer = config.consumer()
        self._consumer.assign([ck.TopicPartition(name, 0, 0)])

    def wait_for(self, enough: Callable[[dict[bytes, int]], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not enough(self.counts) and time.monotonic() < until:
            for message in self._consumer.consume(10_000, 0.2):
                if not message.error():
                    assert dict(message.headers())["offset"] == message.value().partition(b"/")[2]
                    self.counts[message.value()] = self.counts.get(message.value(), 0) + 1
        assert enough(self.counts), f"{len(self.counts)} records came through"


def told_of(flink_cluster, job_name: str, what: str = "") -> Any:
    """What the cluster tells of a job; None before it is there, or while nobody answers."""
    overview = flink_cluster.job_manager.get("jobs/overview") or {"jobs": []}
    ids = [job["jid"] for job in overview["jobs"] if job["name"] == job_name]
    return flink_cluster.job_manager.get(f"jobs/{ids[0]}{what}") if ids else None


def has_restarted(flink_cluster, job_name: str) -> bool:
    job = told_of(flink_cluster, job_name)
    return job is not None and job["timestamps"]["RESTARTING"] > 0


def checkpoints_of(flink_cluster, job_name: str) -> int:
    """How many were completed."""
    told = told_of(flink_cluster, job_name, "/checkpoints")
    return told["counts"]["completed"] if told else 0


def test_no_record_is_lost_when_a_worker_dies_or_a_partition_is_added(flink_cluster, kafka_server, topic, follow):
    config = KafkaConfig(kafka_server)
    name, copy = topic("followed", 3), topic("copied")
    feed, copied = Feed(config, name, 0, 1, 2), Copied(config, copy)
    feed.start()
    follow(name, copy, "--parallelism=2", "--checkpointing_interval=1000", "--max_bundle_time_mills=50")
    copied.wait_for(lambda counts: len(counts) > 5 * RATE, 90)
    settled, checkpoint = set(copied.counts), checkpoints_of(flink_cluster, copy)
    copied.wait_for(lambda _counts: checkpoints_of(flink_cluster, copy) > checkpoint + 1, 60)

    victims = flink_cluster.workers.workers
    assert victims
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    admin = config.admin()
    admin.create_partitions([NewPartitions(name, 4)])[name].result(10)
    added = Feed(config, name, 3)
    added.start()
    copied.wait_for(lambda _counts: has_restarted(flink_cluster, copy), 60)
    copied.wait_for(lambda counts: b"3/0" in counts, 60)

    sent = feed.stop() | added.stop()
    copied.wait_for(lambda counts: len(counts) >= len(sent), 60)
    assert copied.counts.keys() == sent
    assert {copied.counts[value] for value in settled} == {1}  # not read again: the job went on from its checkpoint


def test_records_that_were_deleted_before_they_were_read_fail_the_job(flink_cluster, kafka_server, topic, follow):
    config = KafkaConfig(kafka_server)
    name, copy = topic("truncated"), topic("copied")
    feed = Feed(config, name, 0)
    feed.start()
    time.sleep(0.5)
    assert len(feed.stop()) > 10

    def truncate() -> None:
        admin = config.admin()
        admin.delete_records([ck.TopicPartition(name, 0, 7)])[ck.TopicPartition(name, 0)].result(10)

    follow(name, copy, before=truncate)
    until = time.monotonic() + 60
    while not has_restarted(flink_cluster, copy) and time.monotonic() < until:
        time.sleep(0.2)
    told = told_of(flink_cluster, copy, "/exceptions")
    assert f"offset 0 of topic {name}, partition 0 is not in the log, which holds 7 to" in str(told)
