"""Keyed records on their way into a log: which partition each goes to, and the log they make there.

What a producer sends (`RECORDS`) becomes what a source reads (`batches.RAW`, with spans) either by way of a Kafka
broker or, in tests, bounded runs and the embedded default, by `raw_batches` alone: both put every record in the same
partition, because both use Kafka's default hash of the key.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_pipelines.transforms.batches import RAW, Span, with_span

__all__ = ["RECORDS", "partition_of", "raw_batches"]

RECORDS = pa.schema(
    [
        pa.field("time", pa.int64(), nullable=False),  # when the record reaches the log, ms; -1 if nothing says
        pa.field("key", pa.dictionary(pa.int32(), pa.binary())),  # null: no symbol could be read
        pa.field("value", pa.binary()),  # null: a tombstone
        pa.field("kind", pa.dictionary(pa.int32(), pa.string()), nullable=False),  # what it is, for ledgers
    ]
)
"""Keyed records in the order in which they are sent."""

_SEED, _MULTIPLIER, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF


@functools.lru_cache(maxsize=1 << 17)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` by Kafka's default partitioner (murmur2), the same in every process and language."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(key: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of org.apache.kafka.common.utils.Utils.murmur2."""
    whole = len(key) & ~3
    digest = _SEED ^ len(key)
    for word in _words(key[:whole]):
        digest = (digest * _MULTIPLIER & _MASK) ^ _mixed(word)
    if whole < len(key):
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _MASK
    digest = (digest ^ digest >> 13) * _MULTIPLIER & _MASK
    return digest ^ digest >> 15


def _words(key: bytes) -> Iterator[int]:
    """The 32-bit little-endian words of `key`."""
    return (int.from_bytes(key[i : i + 4], "little") for i in range(0, len(key), 4))


def _mixed(word: int) -> int:
    """One word, stirred."""
    word = word * _MULTIPLIER & _MASK
    return (word ^ word >> 24) * _MULTIPLIER & _MASK


def raw_batches(
    records: Iterable[pa.RecordBatch], topic: str, partitions: int, batch_rows: int = 10_000
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The log that `records` make: (partition, RAW batch with its span), each partition's batches in offset order.

    A record without a key goes to partition 0.

    Args:
      records: RECORDS batches.
      topic: name of the log, for the spans.
      partitions: number of partitions of the log.
      batch_rows: most rows in a batch.
    """
    ends = [0] * partitions
    for batch in records:
        owners = _owners(batch["key"], partitions)
        for partition in np.unique(owners).tolist():
            rows = batch.take(pa.array(np.flatnonzero(owners == partition)))
            for start in range(0, rows.num_rows, batch_rows):
                piece = rows.slice(start, batch_rows)
                yield partition, _raw(piece, Span(topic, partition, ends[partition], ends[partition] + piece.num_rows))
                ends[partition] += piece.num_rows


def _owners(keys: pa.DictionaryArray, partitions: int) -> npt.NDArray[np.int64]:
    """The partition of each key."""
    by_word = [partition_of(key, partitions) for key in keys.dictionary.to_pylist()]
    return np.array([*by_word, 0])[keys.indices.fill_null(len(by_word)).to_numpy(zero_copy_only=False)]


def _raw(records: pa.RecordBatch, span: Span) -> pa.RecordBatch:
    """Records as a source reads them at the offsets of `span`."""
    offsets = pa.array(np.arange(span.first, span.next))
    key = records["key"].dictionary_decode()
    return with_span(pa.RecordBatch.from_arrays([offsets, records["time"], key, records["value"]], schema=RAW), span)
