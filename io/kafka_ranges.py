"""Bounded reads: ranges of offsets, spread over the workers of any runner."""

import time
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_tail import KafkaReadError, Tail, raw_batch
from beam_pipelines.transforms.batches import Span, span_of, with_span

__all__ = ["ReadRanges", "ranges_of"]

_CHUNK = 100_000  # offsets that one worker reads at a time
_PIECE_BYTES = 1 << 21  # Flink sorts what is shuffled, and fails on an element of more than a few MB
_WAIT = 0.5  # s, of one poll; a poll ends sooner if it has all records
_STALLED = 60.0  # s without a record that the log should have, until the read fails


def ranges_of(topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> list[Span]:
    """The log from `start` to `end` (partition → offset), cut into ranges of which each is read by one worker."""
    return [
        Span(topic, partition, first, min(first + _CHUNK, end[partition]))
        for partition in sorted(start)
        for first in range(start[partition], end[partition], _CHUNK)
    ]


class ReadRanges(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]]: RAW batches whose spans tile `ranges`.

    Args:
      ranges: what to read.
      config: how to reach Kafka.
      max_records: most records in a batch.
    """

    def __init__(self, ranges: Sequence[Span], config: KafkaConfig, max_records: int) -> None:
        super().__init__()
        self._ranges = ranges
        self._read = _ReadRangeDoFn(config, max_records)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the ranges over the workers, which read them."""
        ranges = pbegin | "Ranges" >> beam.Create(self._ranges, reshuffle=False).with_output_types(Span)
        spread = ranges | "Spread" >> beam.Reshuffle().with_output_types(Span)
        return spread | "Read" >> beam.ParDo(self._read).with_output_types(tuple[int, pa.RecordBatch])


class _ReadRangeDoFn(beam.DoFn):
    """Reads a range; the consumer stays for the next range of the same partition."""

    def __init__(self, config: KafkaConfig, max_records: int) -> None:
        self._config = config
        self._max_records = max_records
        self._tail: Tail | None = None

    def process(self, element: Span) -> Iterator[tuple[int, pa.RecordBatch]]:
        tail = self._tail_of(element)
        tail.seek(element.first)
        for batch in _read(tail, element, self._max_records):
            yield element.partition, batch

    def teardown(self) -> None:
        if self._tail:
            self._tail.close()
            self._tail = None

    def _tail_of(self, span: Span) -> Tail:
        if not self._tail or (self._tail.topic, self._tail.partition) != (span.topic, span.partition):
            self.teardown()
            self._tail = Tail(self._config, span.topic, span.partition)
        return self._tail


def _read(tail: Tail, wanted: Span, max_records: int) -> Iterator[pa.RecordBatch]:
    """The batches of `wanted`, from where `tail` is; their spans tile it.

    Raises:
      KafkaReadError: if the log does not hold the range, or gives nothing more of it for a minute.
    """
    first, read_at = wanted.first, time.monotonic()
    while first < wanted.next:
        batch = tail.poll(min(max_records, wanted.next - first), _WAIT)
        if batch is not None:
            batch, read_at = _within(batch, wanted), time.monotonic()
            *pieces, batch = _pieces(batch)
            yield from pieces
        elif tail.reached >= wanted.next:  # the log ends in a hole
            batch = with_span(raw_batch(()), wanted._replace(first=first))
        elif time.monotonic() - read_at > _STALLED:
            raise KafkaReadError(
                f"topic {wanted.topic}, partition {wanted.partition} gave nothing at offset {first} for a minute, "
                f"but should go on to {wanted.next}: make sure that its broker is up, and start again"
            )
        else:
            continue
        first = span_of(batch).next
        yield batch


def _pieces(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """The same in batches of about `_PIECE_BYTES` at most, or of one record."""
    span = span_of(batch)
    sizes = pc.binary_length(batch["value"]).fill_null(0).to_numpy().astype(np.int64)
    piece = np.cumsum(sizes) // _PIECE_BYTES
    starts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist()]
    firsts = [span.first, *batch["offset"].take(pa.array(starts[1:], pa.int64())).to_pylist()]
    ends = [*starts[1:], len(batch)], [*firsts[1:], span.next]
    return [
        with_span(batch.slice(start, end - start), span._replace(first=first, next=after))
        for start, first, end, after in zip(starts, firsts, *ends, strict=True)
    ]


def _within(batch: pa.RecordBatch, wanted: Span) -> pa.RecordBatch:
    """What `wanted` has of `batch`, which may go beyond it where the log has holes."""
    span = span_of(batch)
    if span.next <= wanted.next:
        return batch
    count = int((batch["offset"].to_numpy() < wanted.next).sum())
    return with_span(batch.slice(0, count), span._replace(next=wanted.next))
