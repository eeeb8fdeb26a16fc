"""Enriched ticks as Kafka messages."""

import pyarrow as pa

from beam_pipelines.transforms.decimals import rounded
from beam_pipelines.transforms.json_rows import json_rows

__all__ = ["PIPELINE_VERSION", "processed_messages"]

PIPELINE_VERSION = "1.0"
_FIELDS = (
    *("symbol", "timestamp", "price", "volume", "bid", "ask", "bid_size", "ask_size", "sma_20", "sma_50", "rsi"),
    *("bollinger_upper", "bollinger_lower", "processed_at", "pipeline_version", "source", "seq", "late"),
)


def processed_messages(ticks: pa.RecordBatch) -> pa.RecordBatch:
    """Messages of the topic market-data-processed from ENRICHED ticks, one a tick.

    Key: the symbol.  Headers: partition and offset of the raw record.  `processed_at` is the log's time (the Kafka
    timestamp of the record at which the tick was complete), so that every copy of a message is equal.
    """
    values = json_rows(pa.record_batch({name: _field(ticks, name) for name in _FIELDS}), nulls=True)
    key = ticks["symbol"].dictionary_decode().cast(pa.binary())
    return pa.record_batch({"key": key, "value": values, "partition": ticks["partition"], "offset": ticks["offset"]})


def _field(ticks: pa.RecordBatch, name: str) -> pa.Array:
    """One field of every message."""
    if name == "pipeline_version":
        return pa.repeat(PIPELINE_VERSION, len(ticks)).dictionary_encode()
    column = ticks[name]
    if name == "processed_at":
        return column.cast(pa.timestamp("ms", "UTC"))
    if pa.types.is_floating(column.type):
        return pa.array(rounded(column.to_numpy(zero_copy_only=False)))
    return column
