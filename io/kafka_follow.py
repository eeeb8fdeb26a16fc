"""Unbounded reads: a topic followed by a Flink job, with the offsets in the job's state.

An impulse ticks; each tick polls each partition, in a stateful DoFn keyed by partition.  Beam's unbounded splittable
DoFns would say this more directly, but on Flink each of their self-checkpoints leaves state behind (apache/beam#27648).
"""

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import apache_beam as beam
import confluent_kafka as ck
import pyarrow as pa
from apache_beam.coders import StrUtf8Coder, TupleCoder, VarIntCoder
from apache_beam.io.flink.flink_streaming_impulse_source import FlinkStreamingImpulseSource
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteRuntimeState, ReadModifyWriteStateSpec
from apache_beam.utils.shared import Shared
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription

from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_offsets import Log, ask_description, description_of
from beam_pipelines.io.kafka_tail import BATCH_BYTES, KafkaReadError, Tail, TailPool, raw_batch
from beam_pipelines.transforms.batches import Span, with_span

__all__ = ["FollowTopic"]

_LOG = logging.getLogger(__name__)

_DISCOVER_EVERY = 10.0  # s
_NO_WAIT = 0.001  # s: polls that wait pile up ticks, and with them latency
_BUNDLE_BYTES = BATCH_BYTES
"""About what one bundle reads, of all its partitions.  Unless told to finish bundles before checkpoints, Flink
keeps a bundle's output in its heap and in the checkpoint: a backlog read as fast as it comes would exhaust both."""
_EMPTY = raw_batch(())


class FollowTopic(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]], unbounded: RAW batches of each partition, in the log's order.

    Args:
      log: the topic as it was when the pipeline was built.
      start: partition → first offset; partitions that are not there begin at their earliest.
      config: how to reach Kafka.
      max_records: most records in a batch.
      idle_ms: how long a partition must bring nothing to be idle, ms.
      interval_ms: how often partitions are polled, ms.
    """

    def __init__(
        self, log: Log, start: Mapping[int, int], config: KafkaConfig, max_records: int, idle_ms: int, interval_ms: int
    ) -> None:
        super().__init__()
        self._ticks = _PartitionsDoFn(config, log.topic, log.topic_id)
        self._poll = _PollDoFn(config, log.topic, log.topic_id, start, max_records, idle_ms, interval_ms)
        self._interval_ms = interval_ms

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Ticks, partitions, polls."""
        impulse = FlinkStreamingImpulseSource()
        impulse.config = {
            "interval_ms": self._interval_ms,
            "message_count": 0,
        }  # its own would be shared by all of them
        ticks = pbegin | "Tick" >> impulse
        partitions = ticks | "Partitions" >> beam.ParDo(self._ticks).with_output_types(tuple[int, int])
        return partitions | "Poll" >> beam.ParDo(self._poll).with_output_types(tuple[int, pa.RecordBatch])


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
            raise _recreated(self._topic)
        self._partitions = topic.partitions


class _PollDoFn(beam.DoFn):
    """The next records of a partition at a tick.  The next offset is state; a consumer that is elsewhere goes there."""

    NEXT = ReadModifyWriteStateSpec("next", TupleCoder((VarIntCoder(), StrUtf8Coder())))  # (offset, topic id)

    def __init__(
        self,
        config: KafkaConfig,
        topic: str,
        topic_id: str,
        start: Mapping[int, int],
        max_records: int,
        idle_ms: int,
        interval_ms: int,
    ) -> None:
        self._config = config
        self._topic = topic
        self._topic_id = topic_id
        self._start = start
        self._max_records = max_records
        self._idle_ms = idle_ms
        self._pause = interval_ms / 2000  # s: every source task ticks every partition
        self._shared = Shared()
        self._records = Metrics.counter("kafka", f"records_read_{topic}")

    def setup(self) -> None:
        self._pool: TailPool = self._shared.acquire(TailPool)

    def start_bundle(self) -> None:
        self._given: dict[int, int] = {}  # partition → bytes in this bundle

    def teardown(self) -> None:
        self._pool.close()

    def process(
        self,
        element: tuple[int, int],
        state: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(NEXT),
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        partition = element[0]
        tail = self._pool.take(partition, lambda: Tail(self._config, self._topic, partition))
        try:
            if tail.full or time.monotonic() - tail.polled_at > self._pause:
                for batch in self._poll(tail, state):
                    yield partition, batch
        except BaseException:
            tail.close()
            raise
        self._pool.give_back(tail)

    def _poll(self, tail: Tail, state: ReadModifyWriteRuntimeState) -> Iterator[pa.RecordBatch]:
        first = self._next(tail, state)
        tail.seek(first)
        tail.commit(first)
        share = _BUNDLE_BYTES // (len(self._pool) + 1)
        given = self._given.get(tail.partition, 0)
        while given < share:
            batch = tail.poll(self._max_records, _NO_WAIT, share)
            if batch is None:
                yield from self._heartbeat(tail)
                break
            given += batch.nbytes
            self._records.inc(batch.num_rows)
            state.write((tail.position, self._topic_id))
            yield batch
            if not tail.full:
                break
        self._given[tail.partition] = given
        Metrics.gauge("kafka", f"lag_{self._topic}_{tail.partition}").set(tail.lag())

    def _next(self, tail: Tail, state: ReadModifyWriteRuntimeState) -> int:
        known: tuple[int, str] | None = state.read()
        if known is None:
            first = self._start[tail.partition] if tail.partition in self._start else tail.earliest()
            state.write((first, self._topic_id))
            return first
        offset, topic_id = known
        if topic_id != self._topic_id:
            raise _recreated(self._topic)
        return offset

    def _heartbeat(self, tail: Tail) -> Iterator[pa.RecordBatch]:
        idle_ms = tail.idle_ms(self._idle_ms)
        if idle_ms:
            yield with_span(_EMPTY, Span(self._topic, tail.partition, tail.position, tail.position, idle_ms))


def _recreated(topic: str) -> KafkaReadError:
    return KafkaReadError(
        f"topic {topic} was deleted and created again since the job began, so its offsets mean other records: "
        "start the job without its old state"
    )
