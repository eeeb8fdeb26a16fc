"""Columns as lists, beside what Arrow itself makes of them."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.columns import to_list

VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.bool_(): st.booleans(),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(max_size=8),
    pa.binary(): st.binary(max_size=8),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["A", "B", ""]),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@given(data=st.data(), first=st.integers(0, 3))
def test_the_same_as_arrow_gives(kind: pa.DataType, data: st.DataObject, first: int) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=12))
    column = pa.array(values, kind)[first:]
    assert to_list(column) == values[first:] == column.to_pylist()
    assert list(map(type, to_list(column))) == list(map(type, values[first:]))
