"""Enriched ticks, anomalies and bad quality as Kafka messages."""

import msgspec
import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.batches import ENRICHED
from beam_pipelines.transforms.decimals import rounded
from beam_pipelines.transforms.json_rows import json_rows

__all__ = ["PIPELINE_VERSION", "anomaly_messages", "processed_messages", "quality_alerts"]

PIPELINE_VERSION = "1.0"
_FIELDS = (
    *("symbol", "timestamp", "price", "volume", "bid", "ask", "bid_size", "ask_size", "sma_20", "sma_50", "rsi"),
    *("bollinger_upper", "bollinger_lower", "processed_at", "pipeline_version", "source", "seq", "late"),
)
_KEY = pa.dictionary(pa.int32(), pa.binary())
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
    partition = ticks["partition"].dictionary_encode()  # the same in all rows
    key = ticks["symbol"].cast(_KEY)
    return pa.record_batch({"key": key, "value": values, "partition": partition, "offset": ticks["offset"]})


def anomaly_messages(anomalies: pa.RecordBatch) -> pa.RecordBatch:
    """Messages of the topic market-anomalies from ANOMALIES, one each.

    Key: the symbol.  Headers: partition and offset of the record at which it showed.
    """
    columns = dict(zip(anomalies.schema.names, anomalies.columns, strict=True))
    columns |= {name: columns[name].cast(pa.timestamp("ms", "UTC")) for name in ("time", "detected_at")}
    log = {name: columns.pop(name) for name in ("partition", "offset")}
    version = {"pipeline_version": pa.repeat(PIPELINE_VERSION, len(anomalies)).dictionary_encode()}
    values = json_rows(pa.record_batch(columns | version))
    return pa.record_batch({"key": anomalies["symbol"].cast(_KEY), "value": values, **log})


def quality_alerts(quality: pa.RecordBatch) -> pa.RecordBatch:
    """Messages of the topic data-quality-alerts from QUALITY, one for each row in which something is wrong.

    Key: the dataset.  Header: the partition of the log.
    """
    rows = [row for row in quality.to_pylist() if row["failures"] or row["incidents"]]
    iso = (str(np.datetime_as_string(np.datetime64(row["time"], "ms"), timezone="UTC")) for row in rows)
    values = [
        msgspec.json.encode(row | {"time": time, "pipeline_version": PIPELINE_VERSION})
        for row, time in zip(rows, iso, strict=True)
    ]
    columns = {
        "key": pa.array([row["dataset"].encode() for row in rows], pa.binary()),
        "value": pa.array(values, pa.binary()),
        "partition": pa.array([row["partition"] for row in rows], pa.int32()),
    }
    return pa.record_batch(columns)


def _rounded(ticks: pa.RecordBatch) -> dict[str, pa.Array]:
    """The prices and indicators as they are written; all at once, because a call costs more than a small batch."""
    values = rounded(np.concatenate([ticks[name].to_numpy(zero_copy_only=False) for name in _DECIMALS]))
    return dict(zip(_DECIMALS, map(pa.array, np.split(values, len(_DECIMALS))), strict=True))
