"""Enriched ticks and bars for the tests of sinks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.batches import BARS, ENRICHED

NEW_YEAR = 1_704_067_200_000  # 2024-01-01, ms


def ticks(rows: int, **columns: Any) -> pa.RecordBatch:
    """Different ticks, one a millisecond; `columns` are values instead: one for all rows, or one a row."""
    row = np.arange(rows)
    plain: dict[str, Any] = {
        "symbol": [f"S{at % 7}" for at in row],
        "timestamp": NEW_YEAR + row,
        "price": 100 + row / 100,
        "volume": row,
        "bid": 99 + row / 100,
        "ask": [None if at % 3 else 101.5 for at in row],
        "ask_size": row,
        "source": "test",
        "seq": row,
        "updates": 7,
        "partition": 3,
        "offset": 1000 + row,
        "log_time": NEW_YEAR + row,
        "rsi": row % 100 + 1 / 3,
        "late": row % 2 == 0,
        "processed_at": NEW_YEAR + row + 1,
    }
    return _batch(rows, ENRICHED, {**plain, **columns})


def bars(rows: int, **columns: Any) -> pa.RecordBatch:
    """Different bars of a minute; `columns` as for `ticks`."""
    plain: dict[str, Any] = {
        "symbol": "S",
        "time": NEW_YEAR + 60_000 * np.arange(rows),
        "bar_seconds": 60,
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 100,
        "vwap": 10.5,
        "trade_count": 4,
        "macd": -0.25,
        "revision": 0,
        "is_final": True,
    }
    return _batch(rows, BARS, {**plain, **columns})


def _batch(rows: int, schema: pa.Schema, columns: Mapping[str, Any]) -> pa.RecordBatch:
    return pa.record_batch([_array(rows, field, columns.get(field.name)) for field in schema], schema=schema)


def _array(rows: int, field: pa.Field, values: Any) -> pa.Array:
    many = isinstance(values, list | np.ndarray | pa.Array)
    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    array = pa.array(values if many else [values] * rows, plain)
    return array.dictionary_encode() if pa.types.is_dictionary(field.type) else array
