"""Enriched ticks as Kafka messages."""

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.batches import ENRICHED
from beam_pipelines.transforms.decimals import rounded
from beam_pipelines.transforms.json_rows import json_rows

__all__ = ["PIPELINE_VERSION", "processed_messages"]

PIPELINE_VERSION = "1.0"
_FIELDS = (
    *("symbol", "timestamp", "price", "volume", "bid", "ask", "bid_size", "ask_size", "sma_20", "sma_50", "rsi"),
    *("bollinger_upper", "bollinger_lower", "processed_at", "pipeline_version", "source", "seq", "late"),
)
_DECIMALS = [field.name for field in ENRICHED if pa.types.is_floating(field.type)]


def processed_messages(ticks: pa.RecordBatch) -> pa.RecordBatch:
    """Messages of the topic market-data-processed from ENRICHED ticks, one a tick.

    Key: the symbol.  Headers: partition and offset of the raw record.  `processed_at` is the log's time (the Kafka
    timestamp of the record at which the tick was complete), so that every copy of a message is equal.
    """
    columns = dict(zip(ticks.schema.names, ticks.columns, strict=True)) | _rounded(ticks)
    columns["processed_at"] = ticks["processed_at"].cast(pa.timestamp("ms", "UTC"))
    columns["pipeline_version"] = pa.repeat(PIPELINE_VERSION, len(ticks)).dictionary_encode()
    values = json_rows(pa.record_batch({name: columns[name] for name in _FIELDS}), nulls=True)
    key = ticks["symbol"].dictionary_decode().cast(pa.binary())
    return pa.record_batch({"key": key, "value": values, "partition": ticks["partition"], "offset": ticks["offset"]})


def _rounded(ticks: pa.RecordBatch) -> dict[str, pa.Array]:
    """The prices and indicators as they are written; all at once, because a call costs more than a small batch."""
    values = rounded(np.concatenate([ticks[name].to_numpy(zero_copy_only=False) for name in _DECIMALS]))
    return dict(zip(_DECIMALS, map(pa.array, np.split(values, len(_DECIMALS))), strict=True))
