"""One consumer on one partition of a topic: records as record batches, lost positions as errors."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import confluent_kafka as ck
import numpy as np
import pyarrow as pa

from beam_pipelines.io.kafka_config import ErrorLog, KafkaConfig
from beam_pipelines.transforms.batches import RAW, Span, with_span
from beam_pipelines.transforms.copies import with_origin

__all__ = ["BATCH_BYTES", "BY_SYMBOL", "KafkaReadError", "Tail", "TailPool", "raw_batch"]

_GONE = {  # codes of a topic or partition that is not there any more
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    ck.KafkaError._UNKNOWN_TOPIC,
    ck.KafkaError._UNKNOWN_PARTITION,
}
_LOST = {ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError.OFFSET_OUT_OF_RANGE}
_PASSING = {  # codes that librdkafka itself recovers from
    ck.KafkaError._TRANSPORT,
    ck.KafkaError._ALL_BROKERS_DOWN,
    ck.KafkaError._RESOLVE,
    ck.KafkaError._TIMED_OUT,
    ck.KafkaError._AUTHENTICATION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.KAFKA_STORAGE_ERROR,
}
_ASK_TIMEOUT = 1.0  # s: the questions are asked from within bundles
BY_SYMBOL = "-by-symbol"
"""How the names of topics end whose records are copies of others' records and say of which (COPIES)."""
BATCH_BYTES = 16 * 1024 * 1024  # about: what a batch is kept to
_COMMIT_EVERY = 5.0  # s


class KafkaReadError(RuntimeError):
    """The log cannot be read on from where the job is: it needs a decision of its owner."""


def raw_batch(messages: Sequence[ck.Message]) -> pa.RecordBatch:
    """Consumed records of one partition as a RAW batch."""
    count, message = len(messages), ck.Message
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.fromiter(map(message.offset, messages), np.int64, count)),
            pa.array(np.fromiter(map(itemgetter(1), map(message.timestamp, messages)), np.int64, count)),
            pa.array(list(map(message.key, messages)), pa.binary()),
            pa.array(list(map(message.value, messages)), pa.binary()),
        ],
        schema=RAW,
    )


def _copies_batch(messages: Sequence[ck.Message]) -> pa.RecordBatch:
    """Consumed records of one partition as a COPIES batch."""
    return with_origin(raw_batch(messages), list(map(_copied_from, messages)))


def _copied_from(message: ck.Message) -> str | None:
    header: Any = dict(message.headers() or ()).get("copied_from")
    return header.decode(errors="backslashreplace") if header else None


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keeps Python's garbage collector from looking through thousands of messages that are gone at the block's end.

    It would do so each time that 700 more of them are there, which takes three times as long as to make them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:  # another thread's block may have begun or ended meanwhile: at worst it is collected there
            gc.enable()


class Tail:
    """Reads one partition onwards from the offset it is told.

    Attributes:
      position: offset of the next record, -1 before the first `seek`.
      polled_at: monotonic time of the last poll, s.
      full: whether the last poll brought all that was asked for, so that there is probably more.
      reached: offset at which the end of the log was last seen, -1 if records came since.
    """

    def __init__(self, config: KafkaConfig, topic: str, partition: int, **tuned: Any) -> None:
        self.topic = topic
        self.partition = partition
        self.position = -1
        self.polled_at = float("-inf")
        self.full = False
        self.reached = -1
        self._record_bytes = 1_000_000  # of the last batch, on average: at first, a cautious guess
        self._failure: ck.KafkaError | None = None
        self._log = ErrorLog(f"reading {self._name()}")
        self._committed = -1
        self._committed_at = float("-inf")
        self._newest_at = self._asked_at = time.monotonic()
        self._consumer = config.consumer(self._on_error, **tuned)

    def earliest(self) -> int:
        """The first offset that the log still holds."""
        return self._watermarks()[0]

    def seek(self, offset: int) -> None:
        """Goes to `offset`; nothing to do if it is there already."""
        if offset != self.position:
            self._consumer.unassign()
            self._consumer.assign([ck.TopicPartition(self.topic, self.partition, offset)])
            self.position, self.reached = offset, -1

    def poll(self, max_records: int, timeout: float, max_bytes: int = BATCH_BYTES) -> pa.RecordBatch | None:
        """The next records, from `position` on, marked with their span; None if there are none now.

        Args:
          max_records: most records to give.
          timeout: how long to wait for that many, s.
          max_bytes: about how many bytes to give at most, judged by the size of the last records.

        Raises:
          KafkaReadError: if the position is not in the log, or the topic is gone.
        """
        limit = min(max_records, max(1, max_bytes // self._record_bytes))
        with _without_collection():
            records = self._consumed(limit, timeout)
        if self._failure:
            raise self._lost(self._failure)
        if not len(records):
            return None
        self._newest_at = self._asked_at = self.polled_at
        batch = self._marked(records)
        self._record_bytes = batch.nbytes // batch.num_rows
        if self.position > self.reached:
            self.reached = -1
        return batch

    def idle_ms(self, at_least: int) -> int:
        """How long the partition has brought nothing, ms; 0 if that is less than `at_least`, or was told within it.

        Asks the broker, so that a log that merely cannot be reached is not called idle.

        Raises:
          KafkaReadError: if the position is no longer in the log.
        """
        now = time.monotonic()
        if self.position < 0 or now - self._asked_at < at_least / 1000:
            return 0
        self._asked_at = now
        try:
            low, high = self._watermarks()
        except ck.KafkaException:  # a topic that is gone is an error of poll(), once the client is sure of it
            return 0
        if not low <= self.position <= high:
            raise self._outside(low, high)
        return round((now - self._newest_at) * 1000) if self.reached >= high else 0

    def commit(self, offset: int) -> None:
        """Tells the consumer group's offset to Kafka, now and then and without waiting: others see the lag by it."""
        now = time.monotonic()
        if offset != self._committed and now - self._committed_at > _COMMIT_EVERY:
            self._committed, self._committed_at = offset, now
            self._consumer.commit(offsets=[ck.TopicPartition(self.topic, self.partition, offset)], asynchronous=True)

    def lag(self) -> int:
        """Records known to be in the log beyond the position; the broker is not asked."""
        high = self._consumer.get_watermark_offsets(ck.TopicPartition(self.topic, self.partition), cached=True)[1]
        return max(0, high - self.position)

    def close(self) -> None:
        """Ends the connections."""
        self._consumer.close()

    def _consumed(self, limit: int, timeout: float) -> pa.RecordBatch:
        messages = self._consumer.consume(limit, timeout)
        self.polled_at = time.monotonic()
        self.full = len(messages) >= limit
        if any(map(ck.Message.error, messages)):
            messages = self._without_errors(messages)
        return _copies_batch(messages) if self.topic.endswith(BY_SYMBOL) else raw_batch(messages)

    def _marked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        offsets = batch["offset"].to_numpy()
        first = self.position
        if first < 0 or offsets[0] < first or (np.diff(offsets) <= 0).any():
            raise AssertionError(f"Kafka client gave offset {offsets[0]} of {self._name()} at position {first}")
        self.position = int(offsets[-1]) + 1
        return with_span(batch, Span(self.topic, self.partition, first, self.position))

    def _without_errors(self, messages: Sequence[ck.Message]) -> list[ck.Message]:
        for message in messages:
            error = message.error()
            if error and error.code() == ck.KafkaError._PARTITION_EOF:
                self.reached = message.offset() or 0
            elif error:
                self._on_error(error, from_record=True)
        return [message for message in messages if not message.error()]

    def _on_error(self, error: ck.KafkaError, from_record: bool = False) -> None:
        code = error.code()
        passing = code in _PASSING or error.retriable() or not (from_record or error.fatal())
        if code in _GONE | _LOST or not passing:
            self._failure = self._failure or error
        else:
            self._log(error)

    def _watermarks(self) -> tuple[int, int]:
        asked = ck.TopicPartition(self.topic, self.partition)
        return self._consumer.get_watermark_offsets(asked, timeout=_ASK_TIMEOUT)

    def _lost(self, error: ck.KafkaError) -> KafkaReadError:
        if error.code() in _GONE:
            return KafkaReadError(
                f"{self._name()} does not exist any more (the job is at offset {self.position}): create the topic "
                "again and start the job without its old state"
            )
        if error.code() not in _LOST:
            return KafkaReadError(f"{self._name()} cannot be read at offset {self.position}: {error.str()}")
        try:
            return self._outside(*self._watermarks())
        except ck.KafkaException:
            return KafkaReadError(f"offset {self.position} of {self._name()} is not in the log: {error.str()}")

    def _outside(self, low: int, high: int) -> KafkaReadError:
        why = (
            "older records were deleted before they were read (retention)"
            if self.position < low
            else "the log is shorter than what was read of it (the topic was created again, or lost records)"
        )
        return KafkaReadError(
            f"offset {self.position} of {self._name()} is not in the log, which holds {low} to {high}: {why}; "
            "start the job without its old state, at a position that is there"
        )

    def _name(self) -> str:
        return f"topic {self.topic}, partition {self.partition}"


class TailPool:
    """The tails of one reader in this process, each used by one bundle at a time.

    A runner hands the bundles of a partition to any of several DoFn instances; with consumers of their own, each would
    fetch the same records again.
    """

    def __init__(self) -> None:
        self._tails: dict[int, Tail] = {}

    def __len__(self) -> int:
        return len(self._tails)

    def idle(self, partition: int) -> Tail | None:
        """The tail of `partition` if it is not in use."""
        return self._tails.get(partition)

    def take(self, partition: int, make: Callable[[], Tail]) -> Tail:
        """The tail of `partition`, for the caller alone; a new one if there is none, or it is in use."""
        return self._tails.pop(partition, None) or make()

    def give_back(self, tail: Tail) -> None:
        """Ends the caller's use of `tail`."""
        if self._tails.setdefault(tail.partition, tail) is not tail:
            tail.close()

    def close(self) -> None:
        """Closes the tails that are not in use; whoever needs one again gets a new one."""
        with contextlib.suppress(KeyError):  # of an empty dict: two users may close at the same time
            while True:
                self._tails.popitem()[1].close()
