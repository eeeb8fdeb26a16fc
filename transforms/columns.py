"""Arrow columns from arrays, and as Python lists."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["to_column", "to_list"]


def to_list(column: pa.Array) -> list[Any]:
    """The same as `to_pylist` for numbers, booleans, texts, bytes and dictionaries of them, but ten times faster."""
    if pa.types.is_dictionary(column.type):
        words = [*to_list(column.dictionary), None]
        indices = column.indices.fill_null(len(words) - 1) if column.null_count else column.indices
        return [words[index] for index in indices.to_numpy().tolist()]
    if column.null_count == len(column):
        return [None] * len(column)
    if not column.null_count or not pa.types.is_primitive(column.type):  # numpy has None for a text that is null
        objects: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
        return objects
    values = to_list(column.fill_null(column.drop_null()[0]))
    for row in np.flatnonzero(column.is_null()):
        values[row] = None
    return values


def to_column(values: NDArray[np.generic] | pa.Array, kind: pa.DataType) -> pa.Array:
    """An Arrow column; NaN is null."""
    return values if isinstance(values, pa.Array) else pa.array(values, kind, from_pandas=True)
