"""The columns of a sample as pandas would hold them, without pandas: kernels find what Great Expectations finds.

A whole number beside a null is a double, NaN is a null, names of a dictionary are texts, and whole numbers in
TIME_COLUMNS are points in time.
"""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.quality_result import plain
from beam_pipelines.transforms.quality_suites import TIME_COLUMNS, moment

__all__ = ["Column", "Kind", "Mask", "Places", "Sample", "iso", "kind_of", "repeated", "told", "told_naive"]

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]


class Kind(enum.Enum):
    """Of a column's values, by what can be asked of them."""

    NUMBER = enum.auto()
    TIME = enum.auto()
    TEXT = enum.auto()
    OTHER = enum.auto()  # only whether they are null: booleans, lists
    OPAQUE = enum.auto()  # nothing


class Column(NamedTuple):
    """One column of a sample.

    Attributes:
      null: which are, shape [rows].
      values: numbers, int64, or float64 with NaN; ms since 1970 UTC; of texts their places in `words`; shape [rows].
        Where null they are NaN of float64, and else mean nothing.
      words: the distinct texts.
    """

    kind: Kind
    null: Mask
    values: NDArray[Any]
    words: list[str]


class Sample:
    """The rows of a batch; each column is converted once, when it is asked for."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return self._rows.num_rows

    def __getitem__(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = _column_of(name, self._rows[name])
        return self._columns[name]


def kind_of(name: str, kind: pa.DataType) -> Kind:
    """The kind of a column by its name and type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_int64(kind) and name in TIME_COLUMNS:
        return Kind.TIME
    if pa.types.is_float64(kind) or (pa.types.is_integer(kind) and not pa.types.is_uint64(kind)):
        return Kind.NUMBER
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Kind.TEXT
    return Kind.OPAQUE if pa.types.is_temporal(kind) else Kind.OTHER


def _column_of(name: str, column: pa.Array) -> Column:
    kind = kind_of(name, column.type)
    if kind == Kind.TEXT:
        return _texts(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == Kind.NUMBER:
        numbers = column.to_numpy(zero_copy_only=False)  # with nulls they are doubles
        numbers = numbers if numbers.dtype == np.float64 else numbers.astype(np.int64)
        return Column(kind, np.isnan(numbers), numbers, [])
    values = _filled(column) if kind == Kind.TIME else np.zeros(len(column))
    return Column(kind, _null_of(column), values, [])


def _texts(column: pa.Array) -> Column:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if not _is_tidy(encoded.dictionary, len(encoded)):
        encoded = column.dictionary_decode().dictionary_encode()
    return Column(Kind.TEXT, _null_of(encoded.indices), _filled(encoded.indices), encoded.dictionary.to_pylist())


def _is_tidy(words: pa.Array, rows: int) -> bool:
    """Whether no word is null or there twice, which Arrow allows, and not most are of other rows."""
    return len(words) <= rows and not words.null_count and len(words.unique()) == len(words)


def _null_of(column: pa.Array) -> Mask:
    if not column.null_count and not pa.types.is_floating(column.type):
        return np.zeros(len(column), np.bool_)
    return column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)


def _filled(column: pa.Array) -> NDArray[Any]:
    return (column.fill_null(0) if column.null_count else column).to_numpy()


def told(column: Column, rows: Places) -> list[Any]:
    """The values at some rows as plain data; a time that is null is NaT, and of columns of OTHER kind all are null."""
    missing = "NaT" if column.kind == Kind.TIME else None
    null, values = column.null[rows].tolist(), column.values[rows].tolist()
    return [missing if gone else _plain(column, value) for gone, value in zip(null, values, strict=True)]


def _plain(column: Column, value: Any) -> Any:
    if column.kind == Kind.TIME:
        return iso(value)
    return plain(column.words[value] if column.kind == Kind.TEXT else value)


def told_naive(column: Column, rows: Places) -> list[Any]:
    """As `told`, but times are without their zone, as GX tells those of pairs."""
    if column.kind != Kind.TIME:
        return told(column, rows)
    times = column.values[rows].astype("datetime64[ms]")
    times[column.null[rows]] = np.datetime64("NaT")
    return np.datetime_as_string(times).tolist()


def iso(ms: int) -> str:
    """A point in time, ms since 1970 UTC, in ISO 8601; where that has no year for it, the number."""
    try:
        return moment(ms).isoformat()
    except OverflowError:
        return f"{ms} ms"


def repeated(columns: Sequence[Column], among: Mask) -> Mask:
    """Which rows are equal to another one in all columns; nulls are equal.

    Args:
      columns: at least one.
      among: the rows that are looked at, shape [rows].
    """
    rows = np.flatnonzero(among)
    keys = [np.where(it.null[rows], 0, it.values[rows]) for it in columns]
    keys += [it.null[rows] for it in columns if it.null.any()]
    order = np.lexsort(keys)
    as_before = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    found = np.zeros(len(among), np.bool_)
    found[rows[order[1:][as_before]]] = True
    found[rows[order[:-1][as_before]]] = True
    return found
