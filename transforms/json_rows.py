"""Record batches to JSON, one object a row, without a Python object a row."""

import itertools
import json
from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["json_rows"]

_Pieces = list[str | pa.Array]
"""Texts that make up each row when put one after the other: the same for all rows, or one a row."""


def json_rows(batch: pa.RecordBatch, nulls: bool = False) -> pa.Array:
    """A binary array: each row of `batch` as one JSON object, fields in column order.

    Takes columns of strings, dictionary-encoded or not, integers, booleans, floats and timestamps (UTC, written as
    ISO 8601).  Floats are written in their shortest form that reads back equal, and never like an integer.

    Args:
      batch: the rows.
      nulls: whether a null is written as such or left out, and with it NaN and Infinity, which JSON does not have.
    """
    pieces: _Pieces = []
    floats = [
        name for name, kind in zip(batch.schema.names, batch.schema.types, strict=True) if pa.types.is_floating(kind)
    ]
    decimals = dict(zip(floats, _decimals([batch[name] for name in floats]), strict=True))
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        text = [decimals[name]] if name in decimals else _text(column)
        pieces += _field([f",{json.dumps(name)}:", *text], nulls)
    if pieces and isinstance(pieces[0], str):
        return _joined(["{" + pieces[0][1:], *pieces[1:], "}"], len(batch), nulls)
    fields = _joined([*pieces, "}"], len(batch), nulls)
    return pc.if_else(pc.equal(fields, b"}"), b"{}", pc.binary_replace_slice(fields, 0, 1, b"{"))


def _field(pieces: _Pieces, nulls: bool) -> _Pieces:
    """The pieces of one field; where its value is to be left out, its name is left out too."""
    if nulls or not any(piece.null_count for piece in pieces if isinstance(piece, pa.Array)):
        return pieces
    return [pc.binary_join_element_wise(*pieces, "")]


def _joined(pieces: _Pieces, rows: int, nulls: bool) -> pa.Array:
    texts: _Pieces = []
    for literals, run in itertools.groupby(pieces, lambda piece: isinstance(piece, str)):
        same = list(run)
        texts += ["".join(same)] if literals else same
    if len(texts) == 1:
        return pa.repeat(texts[0], rows).cast(pa.binary())
    null = "null" if nulls else ""
    return pc.binary_join_element_wise(*texts, "", null_handling="replace", null_replacement=null).cast(pa.binary())


def _text(column: pa.Array) -> _Pieces:
    """Each value as JSON text."""
    if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
        return _quoted(column)
    if pa.types.is_timestamp(column.type):
        return _iso(column)
    return [column.cast(pa.string())]


def _quoted(column: pa.Array) -> _Pieces:
    """Strings as JSON strings; each distinct one is escaped once."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = [json.dumps(word) for word in encoded.dictionary.to_pylist()]
    if len(words) == 1 and not encoded.null_count:
        return words
    return [pa.array(words, pa.string()).take(encoded.indices)]


def _decimals(columns: Sequence[pa.Array]) -> list[pa.Array]:
    """Floats as JSON numbers: one list is encoded and cut at its commas, since Arrow's own text of 285.0 is 285."""
    if not columns:
        return []
    values = np.concatenate([_doubles(column) for column in columns])
    together = pa.array([orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]], pa.string())
    text = pc.split_pattern(together, ",").values
    finite = np.isfinite(values)
    if not finite.all():
        text = pc.if_else(pa.array(finite), text, None)
    rows = len(columns[0])
    return [text.slice(at * rows, rows) for at in range(len(columns))]


def _doubles(column: pa.Array) -> NDArray[np.float64]:
    """The values as float64; null is NaN."""
    if not pa.types.is_float64(column.type):
        column = column.cast(pa.string()).cast(pa.float64())  # 0.1 stays 0.1; the float64 nearest to a float32 does not
    doubles: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return doubles


def _iso(column: pa.Array) -> _Pieces:
    text = column.cast(pa.timestamp(column.type.unit)).cast(pa.string())  # twenty times faster than strftime
    pieces: _Pieces = ['"', pc.binary_replace_slice(text, 10, 11, "T"), 'Z"']
    return [pc.binary_join_element_wise(*pieces, "")] if column.null_count else pieces
