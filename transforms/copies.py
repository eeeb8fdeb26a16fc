"""Copies of a topic by symbol: where each record goes, in which order, and which copies are repeats.

A topic that is not keyed by symbol is copied to one that is, record by record, each with a note of what it is a copy
of (`copied_from`).  The partitions are merged by the Kafka timestamps of their records, so that a backlog becomes no
more disordered than it was when it was written.  What was copied since the last checkpoint is copied again after a
crash; as the copies of one partition come in the order of its offsets, a repeat is told by its offset alone.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.transforms.batches import COPIES, span_of, with_span
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.tick_records import symbol_of

__all__ = ["Merged", "first_copies", "merged", "symbols_of", "with_origin"]


class _Named(msgspec.Struct, gc=False):
    """The field of a tick that says where its record goes; the parser skips the others."""

    symbol: str


_NAMED = msgspec.json.Decoder(_Named)


def symbols_of(values: pa.Array) -> list[str | None]:
    """The symbol of each record that may be a tick; None: it is none."""
    return [None if value is None else _symbol_of(value) for value in values.to_numpy(zero_copy_only=False).tolist()]


def _symbol_of(value: bytes) -> str | None:
    try:
        return symbol_of(_NAMED.decode(value).symbol)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Merged(NamedTuple):
    """What `merged` gives."""

    copies: pa.RecordBatch  # key, value, timestamp, copied_from, in the order in which they are to be written
    rest: dict[int, pa.RecordBatch]  # RAW with span: what has to wait for more of other partitions


def merged(held: Mapping[int, pa.RecordBatch], log_id: str) -> Merged:
    """The records of all partitions up to where the first of them ends, by time; each partition's in their order.

    Args:
      held: RAW batches with spans and rows, of all partitions of a log that have not been read to their present end.
      log_id: of the log.
    """
    highs = {partition: np.maximum.accumulate(raw["timestamp"].to_numpy()) for partition, raw in held.items()}
    bound = min(int(high[-1]) for high in highs.values())
    counts = {partition: int(np.searchsorted(high, bound, side="right")) for partition, high in highs.items()}
    order = np.argsort(np.concatenate([highs[it][: counts[it]] for it in held]), kind="stable")
    copies = pa.Table.from_batches([_copies(raw.slice(0, counts[it]), log_id) for it, raw in held.items()])
    rest = {it: _after(raw, counts[it]) for it, raw in held.items() if counts[it] < len(raw)}
    return Merged(copies.combine_chunks().to_batches()[0].take(pa.array(order)), rest)


def _after(raw: pa.RecordBatch, count: int) -> pa.RecordBatch:
    """The batch without its first `count` records."""
    rest = raw.slice(count)
    return with_span(rest, span_of(raw)._replace(first=rest["offset"][0].as_py()))


def _copies(raw: pa.RecordBatch, log_id: str) -> pa.RecordBatch:
    """Records as they are written again: a tick under its symbol, others together by their partition."""
    span = span_of(raw)
    nameless = f"partition {span.partition}"
    key = pa.array([(symbol or nameless).encode() for symbol in symbols_of(raw["value"])], pa.binary())
    copied_from = pc.binary_join_element_wise(
        f"{span.topic}#{log_id}/{span.partition}", raw["offset"].cast(pa.string()), "/"
    )
    return pa.record_batch(
        {"key": key, "value": raw["value"], "timestamp": raw["timestamp"], "copied_from": copied_from}
    )


def first_copies(raw: pa.RecordBatch, copied: dict[str, int]) -> pa.RecordBatch:
    """The records that are no repeats of earlier copies; those that are no copies at all are none.

    Args:
      raw: COPIES with span.
      copied: partition of a copied log → highest offset copied so far; changed in place.
    """
    kept = []
    for row, text in enumerate(to_list(raw["copied_from"])):
        log, _, offset = (text or "").rpartition("/")
        if log and offset.isdecimal():
            if int(offset) <= copied.get(log, -1):
                continue
            copied[log] = int(offset)
        kept.append(row)
    return raw if len(kept) == len(raw) else with_span(raw.take(pa.array(kept, pa.int64())), span_of(raw))


def with_origin(raw: pa.RecordBatch, copied_from: list[str | None]) -> pa.RecordBatch:
    """RAW as COPIES."""
    return pa.RecordBatch.from_arrays([*raw.columns, pa.array(copied_from, pa.string())], schema=COPIES)
