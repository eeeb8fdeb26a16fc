"""Record batches into a Kafka topic, at the speed of their times or as fast as it goes."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import confluent_kafka as ck
import numpy as np
import pyarrow as pa
from confluent_kafka.cimpl import NewTopic

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig, check_kafka
from beam_pipelines.simulate import Ledger
from beam_pipelines.transforms.columns import to_list

__all__ = ["Summary", "ensure_topic", "paced", "send"]

_PIECE = 1000  # messages handed to the client at once
_SHORTEST_WAIT, _LONGEST_WAIT = 0.02, 0.2  # s


@dataclasses.dataclass
class Summary:
    """What a replay has done."""

    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    messages: int = 0
    bytes: int = 0
    lost: int = 0
    seconds: float = 0.0
    reason: str = ""  # of the last loss

    def as_json(self) -> str:
        """For programs."""
        counts = {"sent": self.messages - self.lost, "lost": self.lost, "bytes": self.bytes, "seconds": self.seconds}
        return json.dumps({**counts, "kinds": dict(sorted(self.ledger.kinds.items()))})

    def as_text(self) -> str:
        """For people."""
        rate, sent = self.messages / max(self.seconds, 1e-9), self.messages - self.lost
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.ledger.kinds.most_common())
        head = f"sent {sent:,} messages, {self.bytes / 1e6:,.1f} MB, in {self.seconds:.1f} s ({rate:,.0f}/s)"
        return f"{head}: {kinds}" if kinds else head


def send(
    config: KafkaConfig,
    topic: str,
    batches: Iterable[pa.RecordBatch],
    progress: Callable[[int], None] = lambda _messages: None,
) -> Summary:
    """Sends RECORDS batches in order and waits until all are delivered or lost.

    Args:
      config: how to reach Kafka.
      topic: where to.
      batches: what, and, by when the iterator yields, at what time.
      progress: told now and then how many messages have been handed over in all.
    """
    summary, started = Summary(), time.monotonic()

    def lose(error: ck.KafkaError, _message: ck.Message) -> None:
        summary.lost += 1
        summary.reason = error.str()

    producer = config.producer(lose)
    for batch in batches:
        summary.ledger.add(batch)
        summary.bytes += batch["value"].nbytes
        for messages in _pieces(batch):
            _hand_over(producer, topic, messages, lose)
            summary.messages += len(messages)
            progress(summary.messages)
    producer.flush()
    summary.seconds = time.monotonic() - started
    return summary


def _pieces(batch: pa.RecordBatch) -> Iterator[list[dict[str, Any]]]:
    """The batch as messages for `produce_batch`."""
    for start in range(0, batch.num_rows, _PIECE):
        rows = batch.slice(start, _PIECE)
        pairs = zip(to_list(rows["key"]), to_list(rows["value"]), strict=True)
        yield [{"key": key, "value": value} for key, value in pairs]


def _hand_over(
    producer: ck.Producer, topic: str, messages: list[dict[str, Any]], lose: Callable[[ck.KafkaError, Any], None]
) -> None:
    """Queues messages in order, waiting where the queue is full: from the first that does not fit, none does."""
    while messages:
        producer.produce_batch(topic, messages)
        producer.poll(0)
        refused = [message for message in messages if "_error" in message]
        errors = [message.pop("_error") for message in refused]
        messages = []
        for message, error in zip(refused, errors, strict=True):
            if error.code() == ck.KafkaError._QUEUE_FULL:
                messages.append(message)
            else:
                lose(error, message)
        if messages:
            producer.poll(_SHORTEST_WAIT)


def paced(
    batches: Iterable[pa.RecordBatch],
    speed: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[pa.RecordBatch]:
    """RECORDS batches, cut up and held back so that their times pass `speed` times as fast as `clock`'s.

    A record is never sent before one ahead of it; one without a time (-1) is sent with the one ahead of it.
    """
    origin, began = -1, clock()
    reached = -1
    for batch in batches:
        times = np.maximum.accumulate(np.maximum(batch["time"].to_numpy(), reached))
        if origin < 0 and len(times) and times[-1] >= 0:
            origin = int(times[times >= 0][0])
        row = 0
        while row < len(times):
            now = origin + (clock() - began) * 1000 * speed
            due = int(np.searchsorted(times, now, side="right"))
            if due > row:
                yield batch.slice(row, due - row)
                row = due
            else:
                wait = (int(times[row]) - now) / 1000 / speed
                sleep(min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT))
        reached = int(times[-1]) if len(times) else reached


def ensure_topic(
    config: KafkaConfig, topic: str, partitions: int, settings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Creates the topic, with some settings of its own, where it is missing; one that exists stays as it is.

    Raises:
      UsageError: if Kafka cannot be reached or refuses.
    """
    check_kafka(config)
    admin = config.admin()  # must outlive its answer
    try:
        admin.create_topics([NewTopic(topic, partitions, config=dict(settings))])[topic].result(10)
    except ck.KafkaException as refused:
        error = refused.args[0]
        if error.code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
            raise UsageError(
                f"topic {topic} with {partitions} partitions cannot be created: {error.str()}"
            ) from refused
