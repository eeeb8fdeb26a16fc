"""WriteToKafka: rows of record batches as records of a topic."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam
import confluent_kafka as ck
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor

__all__ = ["KafkaWriteError", "WriteToKafka"]

_Headers = list[tuple[str, str | bytes | None]]
_BACK_PRESSURE = 0.05  # s between attempts while the producer's queue is full
_ANY_PARTITION = -1


class KafkaWriteError(RuntimeError):
    """Records were not delivered; the bundle fails and the runner writes it again."""


class WriteToKafka(beam.PTransform):
    """PCollection[RecordBatch] to an empty PCollection; bounded or unbounded.

    A row is a record: column `value` (binary or string) is its value, null for a tombstone; column `key`, if there is
    one, its key; every other column a header of that name as UTF-8 text, left out where it is null.  The records of a
    bundle are delivered when it ends, in the order of its rows where keys are equal; a bundle that is run again writes
    them again, so put their identity into them.

    Args:
      topic: name of the topic.
      config: how to reach Kafka.
      stamped: whether column `timestamp` is no header, but the records' Kafka timestamps, ms; else they are of now.
      monitor: takes down batches and errors.
    """

    def __init__(
        self, topic: str, config: KafkaConfig, stamped: bool = False, monitor: PipelineMonitor = UNNAMED
    ) -> None:
        super().__init__()
        self._write = _WriteDoFn(topic, config, stamped, monitor)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[None]:
        """One producer a worker."""
        return batches | "Write" >> beam.ParDo(self._write).with_output_types(None)


class _WriteDoFn(beam.DoFn):
    """Hands rows to an idempotent producer and waits for their delivery when the bundle ends."""

    def __init__(self, topic: str, config: KafkaConfig, stamped: bool, monitor: PipelineMonitor) -> None:
        self._topic = topic
        self._monitor = monitor
        self._config = config
        self._stamped = stamped
        self._producer: ck.Producer | None = None
        self._failures: list[ck.KafkaError] = []
        self._records = Metrics.counter("kafka", f"records_written_{topic}")

    def start_bundle(self) -> None:
        if self._producer is None:
            self._producer = self._config.producer(self._on_failure)

    def process(self, element: pa.RecordBatch) -> None:
        self._send(element)
        self._records.inc(element.num_rows)
        self._monitor.record_batch(f"kafka {self._topic}", element.num_rows)
        self._checked().poll(0)

    def finish_bundle(self) -> None:
        self._checked().flush()  # ends: what is not delivered within delivery.timeout.ms fails
        self._checked()

    def teardown(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.close()

    def _on_failure(self, error: ck.KafkaError, _message: ck.Message) -> None:
        self._failures.append(error)

    def _checked(self) -> ck.Producer:
        """The producer, if all went well so far."""
        if self._failures or self._producer is None:
            count, error = len(self._failures), self._failures[0]
            self._failures = []
            self._monitor.record_sink_error(f"kafka {self._topic}")
            self.teardown()  # after a failure an idempotent producer may be unfit for more
            raise KafkaWriteError(f"{count} records were not delivered to topic {self._topic}: {error.str()}")
        return self._producer

    def _send(self, batch: pa.RecordBatch) -> None:
        """Hands over each row; by place, since arguments by name would cost as much as the rest of the call."""
        producer, topic = self._checked(), self._topic
        for value, key, stamp, headers in zip(*_columns_of(batch, self._stamped), strict=True):
            while True:
                try:
                    producer.produce(topic, value, key, _ANY_PARTITION, None, None, stamp, headers)
                    break
                except BufferError:
                    producer.poll(_BACK_PRESSURE)
                except ck.KafkaException as refused:
                    raise _refused(topic, refused, value) from refused


class _Columns(NamedTuple):
    """What `produce` takes, by columns; None for null."""

    values: list[bytes | None]
    keys: list[bytes | None]
    stamps: Iterable[int]  # Kafka timestamps, ms; 0: now
    headers: Iterable[_Headers]


def _columns_of(batch: pa.RecordBatch, stamped: bool) -> _Columns:
    own = {"key", "value", "timestamp"} if stamped else {"key", "value"}
    stamps: Iterable[int] = itertools.repeat(0, batch.num_rows)
    if stamped:
        stamps = np.maximum(batch["timestamp"].to_numpy(), 0).tolist()
    values = _texts(batch["value"])
    keys = _texts(batch["key"]) if "key" in batch.schema.names else _texts(pa.nulls(batch.num_rows, pa.binary()))
    return _Columns(values, keys, stamps, _headers_of(batch.drop_columns([*own & {*batch.schema.names}])))


def _headers_of(batch: pa.RecordBatch) -> Iterable[_Headers]:
    """The headers of each row; a null is none."""
    if not batch.num_columns:
        return itertools.repeat([], batch.num_rows)
    rows = map(list, zip(*(_named(name, batch[name]) for name in batch.schema.names), strict=True))
    if not any(column.null_count for column in batch.columns):
        return rows
    return ([header for header in row if header[1] is not None] for row in rows)


def _named(name: str, column: pa.Array) -> Iterable[tuple[str, bytes | None]]:
    """A header in each row; rows with the same word of a dictionary share it."""
    if not pa.types.is_dictionary(column.type):
        return zip(itertools.repeat(name), _texts(column))
    headers = [(name, text) for text in _texts(column.dictionary)] + [(name, None)]
    return [headers[index] for index in to_list(column.indices.fill_null(-1))]


def _texts(column: pa.Array) -> list[bytes | None]:
    if pa.types.is_dictionary(column.type):
        return to_list(pa.DictionaryArray.from_arrays(column.indices, _binary(column.dictionary)))
    return to_list(_binary(column))


def _binary(column: pa.Array) -> pa.Array:
    return column if pa.types.is_binary(column.type) else column.cast(pa.string()).cast(pa.binary())


def _refused(topic: str, refused: ck.KafkaException, value: bytes | None) -> KafkaWriteError:
    size = len(value or b"")
    return KafkaWriteError(f"a record of {size} bytes cannot be sent to topic {topic}: {refused.args[0].str()}")
