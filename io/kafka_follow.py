"""Unbounded reads: a topic followed by a Flink job, with the offsets in the job's state.

An impulse ticks; at each tick a stateful DoFn that is keyed by partition polls each of them.  Beam's unbounded
splittable DoFns would say this more directly, but on Flink each of their self-checkpoints leaves state behind
(apache/beam#27648).
"""

import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import apache_beam as beam
import confluent_kafka as ck
import pyarrow as pa
from apache_beam.io.flink.flink_streaming_impulse_source import FlinkStreamingImpulseSource
from apache_beam.metrics import Metrics
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.userstate import ReadModifyWriteRuntimeState, ReadModifyWriteStateSpec
from apache_beam.utils.shared import Shared
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_offsets import Log, ask_description, description_of
from beam_pipelines.io.kafka_tail import BATCH_BYTES, KafkaReadError, Tail, TailPool, raw_batch
from beam_pipelines.transforms.batches import PLACE_CODER, Place, Span, span_of, with_span
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor

__all__ = ["USUAL_PACE", "FollowTopic", "Follower", "Pace", "Poll", "recreated"]

_LOG = logging.getLogger(__name__)

_DISCOVER_EVERY = 10.0  # s
_NO_WAIT = 0.001  # s: polls that wait pile up ticks, and with them latency
_BUNDLE_S = 1.0
"""How long one bundle works on the records of all its partitions together.  Longer ones would cost less in a backlog,
but checkpoints wait for them, and their output waits in the memory of worker and runner."""
_EMPTY = raw_batch(())


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a topic is read.

    Attributes:
      max_records: most records in a batch.
      idle_ms: how long a partition must bring nothing to be idle, ms of wall time.
      interval_ms: how often partitions are polled, ms.
    """

    max_records: int = 10_000
    idle_ms: int = 5000
    interval_ms: int = 200

    def __post_init__(self) -> None:
        if min(self.max_records, self.idle_ms, self.interval_ms) < 1:
            raise UsageError("max_records, idle_ms and interval_ms must be at least 1: correct them")


USUAL_PACE = Pace()


class FollowTopic(beam.PTransform):
    """PBegin to PCollection[tuple[int, int]], unbounded: (partition, 0) whenever it is time to poll it.

    Polling is left to the stage that is keyed by partition: so what is done with the records is done where they are
    read, and they never cross from one stage to another.

    Attributes:
      records: what that stage polls.

    Args:
      log: the topic as it was when the pipeline was built.
      start: partition → first offset; partitions that are not there begin at their earliest.
      config: how to reach Kafka.
      pace: how to read it.
      monitor: takes down how many records wait.
    """

    def __init__(
        self, log: Log, start: Mapping[int, int], config: KafkaConfig, pace: Pace, monitor: PipelineMonitor = UNNAMED
    ) -> None:
        super().__init__()
        self._ticks = _PartitionsDoFn(config, log.topic, log.topic_id)
        self._interval_ms = pace.interval_ms
        self.records = Follower(log, start, config, pace, monitor)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[int, int]]:
        """Ticks and partitions."""
        _check_endless(pbegin.pipeline.runner)
        impulse = FlinkStreamingImpulseSource()
        impulse.config = {
            "interval_ms": self._interval_ms,
            "message_count": 0,
        }  # its own would be shared by all of them
        ticks = pbegin | "Tick" >> impulse
        return ticks | "Partitions" >> beam.ParDo(self._ticks).with_output_types(tuple[int, int])


def _check_endless(runner: PipelineRunner) -> None:
    # The job server behind a plain PortableRunner is not known before the job is submitted.
    if not isinstance(runner, FlinkRunner) and type(runner) is not PortableRunner:
        raise UsageError(
            f"runner {type(runner).__name__} cannot read Kafka without end: use --runner=FlinkRunner, or a bounded read"
        )


class _PartitionsDoFn(beam.DoFn):
    """(partition, 0) for each partition that the topic has now, at every tick."""

    def __init__(self, config: KafkaConfig, topic: str, topic_id: str) -> None:
        self._config = config
        self._topic = topic
        self._topic_id = topic_id

    def setup(self) -> None:
        self._admin: AdminClient = self._config.admin()
        self._partitions: list[int] = []
        self._asked_at = float("-inf")
        self._answer: Future[TopicDescription] | None = None

    def process(self, _tick: bytes) -> Iterator[tuple[int, int]]:
        self._discover()
        for partition in self._partitions:
            yield partition, 0

    def _discover(self) -> None:
        """Asks for the partitions now and then, and reads the answer once it is there: a tick does not wait for it."""
        if self._answer and self._answer.done():
            self._read_answer(self._answer)
            self._answer = None
        elif not self._answer and time.monotonic() - self._asked_at > _DISCOVER_EVERY:
            self._asked_at = time.monotonic()
            self._answer = ask_description(self._admin, self._topic)

    def _read_answer(self, answer: Future[TopicDescription]) -> None:
        try:
            topic = description_of(answer)
        except ck.KafkaException as failed:  # a topic that is gone is an error of the polls
            _LOG.warning("the partitions of topic %s are not known now: %s", self._topic, failed.args[0].str())
            return
        if topic.topic_id != self._topic_id:
            raise recreated(self._topic)
        self._partitions = topic.partitions


class Follower:
    """The records of a topic, for a DoFn that is keyed by partition and keeps their place in its state.

    Its `open`, `begin_bundle` and `close` belong into the DoFn's `setup`, `start_bundle` and `teardown`.
    """

    def __init__(
        self,
        log: Log,
        start: Mapping[int, int],
        config: KafkaConfig,
        pace: Pace,
        monitor: PipelineMonitor = UNNAMED,
    ) -> None:
        self._config = config
        self._monitor = monitor
        self._topic, self.log_id = log.topic, log.topic_id
        self._start = start
        self._pace = pace
        self._shared = Shared()
        self._records = Metrics.counter("kafka", f"records_read_{log.topic}")

    def open(self) -> None:
        """Joins the consumers of this process."""
        self._pool: TailPool = self._shared.acquire(TailPool)

    def begin_bundle(self) -> None:
        """Lets each partition give its share anew."""
        self._spent: Counter[int] = Counter()  # partition → ns of this bundle, with the work on its records

    def close(self) -> None:
        """Ends the connections."""
        self._pool.close()

    def is_due(self, partition: int) -> bool:
        """Whether to poll now: every source task ticks every partition."""
        tail = self._pool.idle(partition)
        return tail is None or tail.full or time.monotonic() - tail.polled_at > self._pace.interval_ms / 2000

    def start_of(self, partition: int) -> Place:
        """Where to begin."""
        if partition in self._start:
            return Place(self._start[partition], self.log_id)
        with self._tail(partition) as tail:
            return Place(tail.earliest(), self.log_id)

    def poll(self, partition: int, place: tuple[int, str]) -> Iterator[pa.RecordBatch]:
        """The records that are there now, as RAW batches; or a heartbeat, if the partition has long been quiet.

        Args:
          partition: of the topic.
          place: the `Place` to go on from.

        Raises:
          KafkaReadError: if the log does not go on from there.
        """
        offset, log_id = place
        if log_id != self.log_id:
            raise recreated(self._topic)
        with self._tail(partition) as tail:
            yield from self._next(tail, offset)

    @contextlib.contextmanager
    def _tail(self, partition: int) -> Iterator[Tail]:
        tail = self._pool.take(partition, lambda: Tail(self._config, self._topic, partition))
        try:
            yield tail
        except BaseException:
            tail.close()
            raise
        self._pool.give_back(tail)

    def _next(self, tail: Tail, first: int) -> Iterator[pa.RecordBatch]:
        tail.seek(first)
        if not self._spent[tail.partition]:  # what earlier bundles read is in the sinks; what this one did is not yet
            tail.commit(first)
        partition, began, users = tail.partition, time.monotonic_ns(), len(self._pool) + 1
        until = began + round(_BUNDLE_S * 1e9) // users - self._spent[partition]
        while time.monotonic_ns() < until:
            batch = tail.poll(self._pace.max_records, _NO_WAIT, BATCH_BYTES // users)
            if batch is None:
                yield from self._heartbeat(tail)
                break
            self._records.inc(batch.num_rows)
            yield batch
            if not tail.full:
                break
        self._spent[partition] += time.monotonic_ns() - began
        lag = tail.lag()
        Metrics.gauge("kafka", f"lag_{self._topic}_{tail.partition}").set(lag)
        self._monitor.update_queue_depth(f"{self._topic}/{tail.partition}", lag)

    def _heartbeat(self, tail: Tail) -> Iterator[pa.RecordBatch]:
        idle_ms = tail.idle_ms(self._pace.idle_ms)
        if idle_ms:
            yield with_span(_EMPTY, Span(self._topic, tail.partition, tail.position, tail.position, idle_ms))


class Poll(beam.PTransform):
    """(partition, 0) to PCollection[tuple[int, RecordBatch]]: the RAW batches of `records`, for another stage.

    Args:
      records: of the topic that the elements are polls of.
    """

    def __init__(self, records: Follower) -> None:
        super().__init__()
        self._poll = _PollDoFn(records)

    def expand(self, polls: beam.PCollection[tuple[int, int]]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Polls where the elements say so."""
        return polls | "Records" >> beam.ParDo(self._poll).with_output_types(tuple[int, pa.RecordBatch])


class _PollDoFn(beam.DoFn):
    """Keeps the place, and gives nothing but the records."""

    PLACE = ReadModifyWriteStateSpec("place", PLACE_CODER)

    def __init__(self, records: Follower) -> None:
        self._records = records

    def setup(self) -> None:
        self._records.open()

    def start_bundle(self) -> None:
        self._records.begin_bundle()

    def teardown(self) -> None:
        self._records.close()

    def process(
        self,
        element: tuple[int, int],
        place: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(PLACE),
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        partition, _ = element
        if self._records.is_due(partition):
            known = place.read()
            if known is None:
                known = self._records.start_of(partition)
                place.write(known)
            for batch in self._records.poll(partition, known):
                place.write(Place(span_of(batch).next, self._records.log_id))
                yield partition, batch


def recreated(topic: str) -> KafkaReadError:
    """What to raise where a topic is not the one that the job began with."""
    return KafkaReadError(
        f"topic {topic} was deleted and created again since the job began, so its offsets mean other records: "
        "start the job without its old state"
    )
