"""Numbers in as few bytes as their range takes, for state that is written far more often than it is read.

Frame of reference (Goldstein, Ramakrishnan and Shaft, "Compressing Relations and Indexes", ICDE 1998): what each number
is more than the least.  Lucene, Parquet's DELTA_BINARY_PACKED and DuckDB store numbers so.  Floats that were decimals
are whole numbers of the last decimal place (Afroozeh, Kuffo and Boncz, "ALP: Adaptive Lossless floating-Point
Compression", SIGMOD 2024).
"""

import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Packed", "pack", "packed", "unpack", "unpacked"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Packed(NamedTuple):
    """Numbers as unsigned ones of one, two, four or eight bytes."""

    more: NDArray[Any]  # than the least, [n]
    least: int


def pack(numbers: Ints) -> Packed:
    """Packs numbers, [n]; any of 64 bits."""
    least = int(numbers.min()) if len(numbers) else 0
    more = numbers.view(np.uint64) - _word(least)
    return Packed(more.astype(np.min_scalar_type(more.max(initial=0))), least)


def unpack(packed: Packed) -> Ints:
    """What `pack` was given."""
    numbers: Ints = (packed.more.astype(np.uint64) + _word(packed.least)).view(np.int64)
    return numbers


def _word(number: int) -> np.uint64:
    """A number modulo 2^64, as which sums and differences of any two are right."""
    return np.uint64(number % 2**64)


_STEPS, _FRAMES, _NAMES = b"steps", b"frames", b"names"
_UNITS = (100, 10_000, 100_000_000)  # in one: cents, pips, the last decimal place of any price
_GLANCE = 100  # rows that show whether all are worth a try
_EXACT = 2**53  # below it, floats hold every whole number


def packed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its whole numbers, decimals and dictionaries' indices in as few bytes as they take.

    How `unpacked` gets them back, bit by bit, is in the metadata: the columns of `steps` are differences from row to
    row, those of `frames` what is more than the least, those of `names` have shorter indices.
    """
    steps, frames, names = dict[str, list[int]](), dict[str, list[int]](), list[str]()
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        numbers, unit = _numbers_of(column)
        if len(numbers):
            frame = pack(numbers)
            step = pack(np.diff(numbers, prepend=numbers[:1])) if unit == 1 and not column.null_count else frame
            if step.more.itemsize < frame.more.itemsize:
                steps[name], column = [int(numbers[0]), step.least], pa.array(step.more)
            else:
                frames[name], column = [frame.least, unit], _with_nulls_of(column, frame.more)
        elif pa.types.is_dictionary(column.type) and column.type.index_type == pa.int32():
            names.append(name)
            column = _reindexed(column, pa.from_numpy_dtype(np.min_scalar_type(len(column.dictionary))))
        columns.append(column)
    return _like(batch, columns, {_STEPS: steps, _FRAMES: frames, _NAMES: names})


def unpacked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What `packed` was given, or some columns of it; any other batch as it is."""
    metadata = batch.schema.metadata or {}
    steps, frames, names = (json.loads(metadata.get(mark, b"{}")) for mark in (_STEPS, _FRAMES, _NAMES))
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in steps:
            first, least = steps[name]
            column = pa.array(np.cumsum(unpack(Packed(column.to_numpy(), least))) + first)
        elif name in frames:
            least, unit = frames[name]
            numbers = unpack(Packed(_filled(column), least))
            column = _with_nulls_of(column, numbers if unit == 1 else numbers / unit)
        elif name in names:
            column = _reindexed(column, pa.int32())
        columns.append(column)
    return _like(batch, columns, {_STEPS: {}, _FRAMES: {}, _NAMES: []})


def _like(batch: pa.RecordBatch, columns: list[pa.Array], marks: dict[bytes, Any]) -> pa.RecordBatch:
    """Other columns of the same names and metadata, but for `marks`; those that are empty are left out."""
    told = {mark: json.dumps(value) for mark, value in marks.items() if value}
    kept = {key: value for key, value in (batch.schema.metadata or {}).items() if key not in marks}
    fields = [field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, {**kept, **told} or None))


def _numbers_of(column: pa.Array) -> tuple[Ints, int]:
    """The values as whole numbers of a unit, of which there are so many in one; without numbers if they are none."""
    if column.null_count < len(column):
        if pa.types.is_int64(column.type):
            return _filled(column), 1
        if pa.types.is_float64(column.type):
            return _decimals(_filled(column))
    return np.empty(0, np.int64), 1


def _decimals(values: Floats) -> tuple[Ints, int]:
    for unit in _UNITS:
        if len(_in_units(values[:_GLANCE], unit)) and len(numbers := _in_units(values, unit)):
            return numbers, unit
    return np.empty(0, np.int64), 1


def _in_units(values: Floats, unit: int) -> Ints:
    """The values times `unit`; without numbers if that loses as much as the sign of a zero."""
    with np.errstate(over="ignore"):
        whole = np.rint(values * unit)
    if (np.abs(whole) < _EXACT).all():  # it is not of NaN
        numbers: Ints = whole.astype(np.int64)
        if ((numbers / unit).view(np.int64) == values.view(np.int64)).all():
            return numbers
    return np.empty(0, np.int64)


def _filled(column: pa.Array) -> NDArray[Any]:
    """The values; in the place of a null is another value of the column."""
    numbers: NDArray[Any] = (column.fill_null(column.drop_null()[0]) if column.null_count else column).to_numpy()
    return numbers


def _with_nulls_of(column: pa.Array, values: NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None)


def _reindexed(column: pa.DictionaryArray, kind: pa.DataType) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(column.indices.cast(kind), column.dictionary)
