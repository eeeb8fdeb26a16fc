"""Record batches to JSON, one object a row, without a Python object a row."""

import json

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["json_rows"]


def json_rows(batch: pa.RecordBatch) -> pa.Array:
    """A binary array: each row of `batch` as one JSON object, fields in column order, nulls left out.

    Takes string, integer, boolean and floating-point columns, dictionary-encoded or not; NaN and Infinity, which JSON
    does not have, are left out like nulls.  Floats are written in their shortest form that reads back equal.
    """
    pieces: list[pa.Array | pa.Scalar] = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        pieces += _pieces(f",{json.dumps(field.name)}:", column)
    end, nothing = pa.scalar("}"), pa.scalar("")
    fields = pc.binary_join_element_wise(*pieces, end, nothing, null_handling="replace", null_replacement="")
    return pc.if_else(
        pc.equal(fields, end), pa.scalar(b"{}"), pc.binary_replace_slice(fields.cast(pa.binary()), 0, 1, b"{")
    )


def _pieces(prefix: str, column: pa.Array) -> list[pa.Array | pa.Scalar]:
    """What to join for one column; where its value is null, the name before it must be null too."""
    text = _text(column)
    if text.null_count == 0:
        return [pa.scalar(prefix), text]
    return [pc.binary_join_element_wise(pa.scalar(prefix), text, "")]


def _text(column: pa.Array) -> pa.Array:
    """Each value as JSON text."""
    if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
        return _quoted(column)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, None).cast(pa.string())
    return column.cast(pa.string())


def _quoted(column: pa.Array) -> pa.Array:
    """Strings as JSON strings; each distinct one is escaped once."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return pa.array([json.dumps(word) for word in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)
