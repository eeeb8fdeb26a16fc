"""Positions in a topic: what the user says, and the offsets they are at the moment a job is submitted."""

import datetime
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig, check_kafka

__all__ = ["Description", "Log", "Position", "ask_description", "description_of", "log_of", "parse_position"]

_TIMEOUT = 8.0  # s, of one question to the brokers
_YEAR_10000_MS = 253_402_300_800_000


class Position(NamedTuple):
    """A place in a topic, as the user says it."""

    kind: Literal["earliest", "latest", "committed", "timestamp", "offsets"]
    timestamp_ms: int = 0
    offsets: Mapping[int, int] = {}


def parse_position(text: str) -> Position:
    """The position that `text` names.

    Args:
      text: `earliest`; `latest`; `committed` (the group's offsets, earliest where it has none); a time, in ISO 8601
        (without a zone: UTC) or ms since 1970 (the first records not older); or offsets, as `0:123,1:456` (partitions
        that are not named: from their beginning, or to their end).

    Raises:
      UsageError: if it is none of these.
    """
    match text:
        case "earliest" | "latest" | "committed":
            return Position(text)
        case _ if ":" in text and "-" not in text:
            return Position("offsets", offsets=_parse_offsets(text))
        case _ if text.isascii() and text.isdigit():
            return _at(text, int(text))
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise _unknown_position(text) from None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
    return _at(text, round(zoned.timestamp() * 1000))


def _at(text: str, timestamp_ms: int) -> Position:
    if not 0 <= timestamp_ms < _YEAR_10000_MS:  # Kafka gives negative times a meaning of their own
        raise UsageError(f"position {text!r} is not within the years 1970 to 9999: correct it")
    return Position("timestamp", timestamp_ms)


def _parse_offsets(text: str) -> dict[int, int]:
    pairs = [part.split(":") for part in text.split(",")]
    if any(len(pair) != 2 or not all(number.strip().isdecimal() for number in pair) for pair in pairs):
        raise _unknown_position(text)
    offsets = {int(partition): int(offset) for partition, offset in pairs}
    if len(offsets) < len(pairs):
        raise UsageError(f"position {text!r} names a partition twice: give one offset for each")
    return offsets


def _unknown_position(text: str) -> UsageError:
    return UsageError(
        f"position {text!r} is not understood: give earliest, latest, committed, a time (2025-01-31T09:30:00Z or ms) "
        "or offsets (0:123,1:456)"
    )


class Log(NamedTuple):
    """A topic as it is now: which one it is, and the offsets that each partition holds."""

    topic: str
    topic_id: str  # differs when a topic is deleted and created again
    low: Mapping[int, int]
    high: Mapping[int, int]  # of what may be read: with read_committed, before the first open transaction
    committed: Mapping[int, int]  # of the group; partitions without a commit are absent
    at_time: Mapping[int, int]  # offsets of the timestamp that was asked for

    def start(self, position: Position) -> dict[int, int]:
        """Partition → the first offset to read.

        Raises:
          UsageError: if a partition or an offset is not in the log.
        """
        return self._resolve(position, self.low)

    def end(self, position: Position) -> dict[int, int]:
        """Partition → the offset to stop before.

        Raises:
          UsageError: if a partition or an offset is not in the log.
        """
        return self._resolve(position, self.high)

    def _resolve(self, position: Position, otherwise: Mapping[int, int]) -> dict[int, int]:
        chosen: Mapping[str, Mapping[int, int]] = {
            "earliest": self.low,
            "latest": self.high,
            "committed": {**self.low, **self.committed},
            "timestamp": self.at_time,
            "offsets": {**otherwise, **position.offsets},
        }
        offsets = dict(chosen[position.kind])
        for partition, offset in offsets.items():
            self._check(partition, offset, position.kind)
        return offsets

    def _check(self, partition: int, offset: int, kind: str) -> None:
        if partition not in self.low:
            raise UsageError(f"topic {self.topic} has no partition {partition}: it has {len(self.low)}, from 0")
        low, high = self.low[partition], self.high[partition]
        if not low <= offset <= high:
            raise UsageError(
                f"offset {offset} of topic {self.topic}, partition {partition} ({kind}) is not in the log, which holds "
                f"{low} to {high}: choose a position within it"
            )


def log_of(config: KafkaConfig, topic: str, *positions: Position) -> Log:
    """The topic as it is now, with what `positions` need to be resolved.

    Raises:
      UsageError: if Kafka cannot be reached or has no such topic.
    """
    check_kafka(config, topic)
    consumer = config.consumer()
    try:
        return _ask(config, consumer, topic, positions)
    except ck.KafkaException as failed:
        raise UsageError(f"offsets of topic {topic} cannot be read ({failed.args[0].str()}): try again") from failed
    finally:
        consumer.close()


def _ask(config: KafkaConfig, consumer: ck.Consumer, topic: str, positions: Sequence[Position]) -> Log:
    admin = config.admin()  # the answer comes for as long as it lives
    topic_id, numbers = description_of(ask_description(admin, topic))
    partitions = [ck.TopicPartition(topic, number) for number in numbers]
    marks = {it.partition: consumer.get_watermark_offsets(it, timeout=_TIMEOUT) for it in partitions}
    high = {number: mark[1] for number, mark in marks.items()}
    committed, at_time = {}, {}
    for position in positions:
        if position.kind == "committed":
            told = consumer.committed(partitions, timeout=_TIMEOUT)
            committed = {it.partition: it.offset for it in told if it.offset >= 0}
        if position.kind == "timestamp":
            told_at = _offsets_at(consumer, topic, numbers, position.timestamp_ms)
            at_time = {number: min(offset, high[number]) for number, offset in {**high, **told_at}.items()}
    return Log(topic, topic_id, {number: mark[0] for number, mark in marks.items()}, high, committed, at_time)


def _offsets_at(consumer: ck.Consumer, topic: str, numbers: Sequence[int], timestamp_ms: int) -> dict[int, int]:
    asked = [ck.TopicPartition(topic, number, timestamp_ms) for number in numbers]
    told = consumer.offsets_for_times(asked, timeout=_TIMEOUT)
    return {it.partition: it.offset for it in told if it.offset >= 0}  # negative: no record is that young


class Description(NamedTuple):
    """A topic's identity, which differs when it is deleted and created again, and its partitions."""

    topic_id: str
    partitions: list[int]


def ask_description(admin: AdminClient, topic: str) -> Future[TopicDescription]:
    """Asks for the description of `topic` without waiting; `description_of` reads the answer."""
    asked: dict[str, Future[TopicDescription]] = admin.describe_topics(
        ck.TopicCollection([topic]), request_timeout=_TIMEOUT
    )
    return asked[topic]


def description_of(answer: Future[TopicDescription]) -> Description:
    """The answer to `ask_description`; waits for it.

    Raises:
      confluent_kafka.KafkaException: if the broker did not answer or has no such topic.
    """
    told = answer.result()
    return Description(str(told.topic_id), sorted(partition.id for partition in told.partitions))
