"""Objects of the lake that are text: gzipped JSON lines, which any tool reads; equal tables give equal bytes."""

import gzip
import zlib
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["as_json_lines", "read_json_lines"]

_LEVEL = 6
_ISO_8601 = "%Y-%m-%dT%H:%M:%SZ"  # with as many decimals as the unit has
_ROWS = msgspec.json.Decoder(dict[str, Any])


def as_json_lines(table: pa.Table) -> pa.Buffer:
    """A table as a gzipped object, a JSON object a row; times are written as ISO 8601."""
    texts = [pc.strftime(it, _ISO_8601) if pa.types.is_timestamp(it.type) else it for it in table.columns]
    lines = msgspec.json.Encoder().encode_lines(pa.table(texts, table.schema.names).to_pylist())
    return pa.py_buffer(gzip.compress(lines, _LEVEL, mtime=0))


def read_json_lines(content: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a gzipped object; columns of `schema` that no row has are left out.

    Raises:
      ArrowInvalid: if it is damaged, or holds other values.
    """
    try:
        rows = _ROWS.decode_lines(gzip.decompress(content))
    except (EOFError, OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise pa.ArrowInvalid(str(error)) from None
    present = [field for field in schema if not rows or any(field.name in row for row in rows)]
    columns = [_column([row.get(field.name) for row in rows], field) for field in present]
    return pa.table(columns, pa.schema(present))


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    try:
        checked = msgspec.convert(values, list[_json_type(field.type)])  # type: ignore[misc]
        if pa.types.is_timestamp(field.type):
            return pa.array(checked, pa.string()).cast(field.type)
        return pa.array(checked, field.type)
    except (msgspec.ValidationError, OverflowError) as error:
        raise pa.ArrowInvalid(f"column {field.name}: {error}") from None


def _json_type(kind: pa.DataType) -> Any:
    """What a value is in JSON; Arrow alone would take 1.5 for an integer, and a string for a list of letters."""
    if pa.types.is_list(kind):
        return list[_json_type(kind.value_type)] | None  # type: ignore[misc]
    if pa.types.is_integer(kind):
        return int | None
    return {pa.bool_(): bool, pa.float64(): float}.get(kind, str) | None
