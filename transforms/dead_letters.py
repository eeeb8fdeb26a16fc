"""Dead letters: records that could not be used, with the reason and the original bytes."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from numpy.typing import ArrayLike

from beam_pipelines.transforms.batches import DEAD_LETTERS, span_of, with_span

__all__ = ["by_reason", "counted", "dead_letters", "to_messages"]


def dead_letters(
    raw: pa.RecordBatch, rows: ArrayLike, reasons: Sequence[str], details: Sequence[str]
) -> pa.RecordBatch:
    """The records `rows` of a RAW batch as DEAD_LETTERS, marked with the batch's span.

    Args:
      raw: records of one log partition, with their span.
      rows: ascending positions in `raw`.
      reasons: one word for each of `rows`.
      details: one sentence for each of `rows`.
    """
    span = span_of(raw)
    records = raw.take(pa.array(np.asarray(rows, dtype=np.int64)))
    columns = [
        pa.repeat(span.topic, len(records)),
        pa.repeat(pa.scalar(span.partition, pa.int32()), len(records)),
        records["offset"],
        records["timestamp"],
        _texts(reasons),
        _texts(details),
        records["value"],
        records["copied_from"] if "copied_from" in raw.schema.names else pa.nulls(len(records), pa.string()),
    ]
    return with_span(pa.record_batch(columns, schema=DEAD_LETTERS), span)


def _texts(texts: Sequence[str]) -> pa.Array:
    """An Arrow column; what has no UTF-8 form (lone surrogates, quoted from a bad record) is escaped."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([text.encode("utf-8", "backslashreplace").decode() for text in texts], pa.string())


def to_messages(dead_letters: pa.RecordBatch, pipeline: str) -> pa.RecordBatch:
    """Messages of the topic dead-letters: no key, the original bytes (null stays null), all else as headers.

    Args:
      dead_letters: a DEAD_LETTERS batch.
      pipeline: who could not use the records.
    """
    count = len(dead_letters)
    headers = {name: dead_letters[name] for name in ("reason", "detail", "topic", "partition", "offset", "copied_from")}
    return pa.record_batch(
        {
            "key": pa.nulls(count, pa.binary()),
            "value": dead_letters["value"],
            "pipeline": pa.repeat(pipeline, count),
            **headers,
        }
    )


def counted(dead_letters: pa.RecordBatch) -> pa.RecordBatch:
    """The same DEAD_LETTERS batch; adds its rows to the counters `dead_letters:<reason>` of the running step."""
    for reason, count in by_reason(dead_letters).items():
        Metrics.counter("dead_letters", reason).inc(count)
    return dead_letters


def by_reason(dead_letters: pa.RecordBatch | None) -> dict[str, int]:
    """How many of DEAD_LETTERS, or of a batch with their column `reason`, there are by reason; None: there are none."""
    if dead_letters is None:
        return {}
    return {it["values"]: it["counts"] for it in pc.value_counts(dead_letters["reason"]).to_pylist()}
