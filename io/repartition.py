"""CopyBySymbol: a topic that is not keyed by symbol, copied without end to one that is.

One worker copies all partitions, because it merges them by time.  It fails rather than leave a record out: the copies
of a partition are written in order and without gaps, which is what repeats are told by (`transforms.copies`).
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import confluent_kafka as ck
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteRuntimeState, ReadModifyWriteStateSpec
from apache_beam.utils.shared import Shared
from confluent_kafka.admin._config import ConfigEntry, ConfigResource, ConfigSource

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig, check_kafka
from beam_pipelines.io.kafka_follow import FollowTopic, Pace, recreated
from beam_pipelines.io.kafka_offsets import Log, ask_description, description_of, log_of, parse_position
from beam_pipelines.io.kafka_tail import BATCH_BYTES, BY_SYMBOL, Tail
from beam_pipelines.io.kafka_write import WriteToKafka
from beam_pipelines.transforms.batches import span_of
from beam_pipelines.transforms.copies import merged

__all__ = ["CopyBySymbol", "Likeness", "by_symbol", "likeness_of"]

_NO_WAIT = 0.001  # s
_ROUND_S = 0.5  # how long one bundle copies
_ASK_S = 8.0
_OF_THE_TOPIC = ConfigSource.DYNAMIC_TOPIC_CONFIG
_HEADER_BYTES = 1024  # more than what a copy is larger than its record
_COMPLETE = {  # so that no record is left out between two that are written; without end, because what times out is
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
}


def by_symbol(topic: str) -> str:
    """Name of the topic to which `topic` is copied."""
    return topic + BY_SYMBOL


class Likeness(NamedTuple):
    """What a topic must have to take the copies of another."""

    partitions: int
    settings: dict[str, str]


def likeness_of(config: KafkaConfig, topic: str) -> Likeness:
    """The partitions and settings of `topic`, but records keep their times and may be as large as copies are.

    Raises:
      UsageError: if Kafka cannot be reached or has no such topic.
    """
    check_kafka(config, topic)
    admin = config.admin()  # must outlive its answers
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        count = len(description_of(ask_description(admin, topic)).partitions)
        told: dict[str, ConfigEntry] = admin.describe_configs([resource])[resource].result(_ASK_S)
    except ck.KafkaException as refused:
        raise UsageError(f"topic {topic} cannot be described ({refused.args[0].str()}): try again") from refused
    own = {name: str(it.value) for name, it in told.items() if ConfigSource(it.source) is _OF_THE_TOPIC}
    largest = int(str(told["max.message.bytes"].value)) + _HEADER_BYTES
    return Likeness(count, {**own, "message.timestamp.type": "CreateTime", "max.message.bytes": str(largest)})


class CopyBySymbol(beam.PTransform):
    """PBegin to an empty PCollection, unbounded: copies `topic` to `by_symbol(topic)`, which must be there.

    Each record is written once and, after a restart, perhaps again, with its own value and Kafka timestamp, the symbol
    as its key (records that have none: their partition), and the header `copied_from`.  One job may copy a topic at a
    time, and the number of partitions of the other topic must not change.

    Args:
      topic: name of the topic.
      config: how to reach Kafka.
      start: where to begin, see `parse_position`; becomes offsets here and now.
      pace: how to read it.

    Raises:
      UsageError: if Kafka cannot be reached or has no such topic or position.
    """

    def __init__(self, topic: str, config: KafkaConfig, start: str, pace: Pace) -> None:
        super().__init__()
        position = parse_position(start)
        log = log_of(config, topic, position)
        begin = log.start(position)
        complete = dataclasses.replace(config, settings={**config.settings, **_COMPLETE})
        self._ticks = FollowTopic(log, begin, config, pace)
        self._copy = _CopyDoFn(log, begin, config, pace)
        self._write = WriteToKafka(by_symbol(topic), complete, stamped=True)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[None]:
        """All partitions under one key."""
        ticks = pbegin | "Follow" >> self._ticks | "Together" >> beam.Map(_together).with_output_types(tuple[int, int])
        copies = ticks | "Copy" >> beam.ParDo(self._copy).with_output_types(pa.RecordBatch)
        return copies | "Write" >> self._write


def _together(tick: tuple[int, int]) -> tuple[int, int]:
    return 0, tick[0]


class _Reading:
    """The consumers of all partitions, and what they gave that has not been written.

    Attributes:
      tails: by partition.
      held: RAW batches with rows, by partition, where the place in the state is.
      polled_at: monotonic time of the last round, s.
    """

    def __init__(self) -> None:
        self.tails: dict[int, Tail] = {}
        self.held: dict[int, pa.RecordBatch] = {}
        self.polled_at = float("-inf")

    def is_complete(self, places: Mapping[int, int]) -> bool:
        """Whether each partition either holds records or has been read to its present end."""
        return all(it in self.held or 0 <= self.tails[it].position <= self.tails[it].reached for it in places)

    def close(self) -> None:
        """Ends the connections."""
        for tail in self.tails.values():
            tail.close()


def _commit(reading: _Reading, places: Mapping[int, int]) -> None:
    """Tells where the copy is; only what an ended bundle has written."""
    for partition, offset in places.items():
        reading.tails[partition].commit(offset)


class _Idle(dict[str, _Reading]):
    """The reading that no bundle of this process uses now."""


class _CopyDoFn(beam.DoFn):
    """Reads all partitions of a topic and gives their records as messages for the other topic."""

    PLACES = ReadModifyWriteStateSpec("places", BytesCoder())

    def __init__(self, log: Log, begin: Mapping[int, int], config: KafkaConfig, pace: Pace) -> None:
        self._topic, self._log_id, self._begin = log.topic, log.topic_id, dict(begin)
        self._config, self._pace = config, pace
        self._shared = Shared()
        self._records = Metrics.counter("kafka", f"records_copied_{log.topic}")

    def setup(self) -> None:
        self._idle: _Idle = self._shared.acquire(_Idle)

    def teardown(self) -> None:
        reading = self._idle.pop(self._topic, None)
        if reading:
            reading.close()

    def start_bundle(self) -> None:
        self._uncopied = True  # nothing of this bundle is copied yet, and all of those before it is in the other topic

    def process(
        self, element: tuple[int, int], state: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(PLACES)
    ) -> Iterator[pa.RecordBatch]:
        reading = self._idle.pop(self._topic, None) or _Reading()  # put back only when all went well
        try:
            if time.monotonic() - reading.polled_at > self._pace.interval_ms / 2000:
                places = self._places(state.read(), element[1], reading)
                before = dict(places)
                if self._uncopied:
                    _commit(reading, places)
                    self._uncopied = False
                yield from self._copied(reading, places)
                if places != before:
                    state.write(json.dumps({"log_id": self._log_id, "places": places}).encode())
        except BaseException:
            reading.close()
            raise
        self._idle[self._topic] = reading

    def _copied(self, reading: _Reading, places: dict[int, int]) -> Iterator[pa.RecordBatch]:
        """Messages of the records that are there now; moves `places` on."""
        until = time.monotonic() + _ROUND_S
        while time.monotonic() < until and self._fetch(reading, places):
            copies, reading.held = merged(reading.held, self._log_id)
            places |= {it: reading.tails[it].position for it in places}
            places |= {it: span_of(raw).first for it, raw in reading.held.items()}
            self._records.inc(len(copies))
            yield copies
        reading.polled_at = time.monotonic()

    def _places(self, durable: bytes | None, ticked: int, reading: _Reading) -> dict[int, int]:
        """Partition → offset of the next record to copy."""
        places = dict(self._begin)
        if durable:
            known: dict[str, Any] = json.loads(durable)
            if known["log_id"] != self._log_id:
                raise recreated(self._topic)
            places = {int(partition): offset for partition, offset in known["places"].items()}
        for partition in {*places, ticked} - reading.tails.keys():
            reading.tails[partition] = Tail(self._config, self._topic, partition)
        if ticked not in places:
            places[ticked] = reading.tails[ticked].earliest()
        return places

    def _fetch(self, reading: _Reading, places: Mapping[int, int]) -> bool:
        """Polls the partitions that hold nothing; says whether there is something to copy now."""
        for partition, offset in places.items():
            raw, tail = reading.held.get(partition), reading.tails[partition]
            if raw is not None and span_of(raw).first != offset:  # of a bundle that failed elsewhere
                del reading.held[partition]
            if partition not in reading.held:
                tail.seek(offset)
                batch = tail.poll(self._pace.max_records, _NO_WAIT, BATCH_BYTES // len(places))
                if batch is not None:
                    reading.held[partition] = batch
            Metrics.gauge("kafka", f"lag_{self._topic}_{partition}").set(tail.lag())
        return bool(reading.held) and reading.is_complete(places)
