"""Rows that wait for their objects come back from state as they were, in a fraction of their bytes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.io.lake_write import _HeldCoder
from beam_pipelines.session import Session
from beam_pipelines.simulate import raw_batches
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import TICKS, empty, to_bytes, to_fewer_bytes
from beam_pipelines.transforms.packing import packed, unpacked
from beam_pipelines.transforms.ticks import decode


@pytest.fixture(scope="module")
def ticks() -> pa.RecordBatch:
    (element,) = raw_batches(Session(ticks=5_000), 1)
    return decode(element[1]).ticks


def same(rows: pa.RecordBatch) -> None:
    again = unpacked(_HeldCoder().decode(_HeldCoder().encode(packed(rows))))
    assert again.equals(rows, check_metadata=True)
    assert again.schema.equals(rows.schema, check_metadata=True)


@pytest.mark.parametrize("count", [0, 1, 1_999, 2_000, 5_000])
def test_many_rows_and_few_come_back_with_their_metadata(ticks: pa.RecordBatch, count: int) -> None:
    same(ticks.slice(0, count))
    same(ticks.slice(0, count).replace_schema_metadata(None))


def test_numbers_at_both_ends_come_back(ticks: pa.RecordBatch) -> None:
    ends = np.resize([2**63 - 1, -(2**63), 0, -1], len(ticks))
    for name in ("timestamp", "seq", "offset", "log_time"):
        at = TICKS.get_field_index(name)
        ticks = ticks.set_column(at, TICKS.field(name), pa.array(ends))
    same(ticks)


def test_rows_of_other_kinds_come_back() -> None:
    same(empty(ARTICLES))
    numbers = pa.array([None, *range(2_000)], pa.int64())
    same(pa.record_batch({"time": numbers, "seq": numbers.cast(pa.int32())}))


def test_what_older_versions_held_is_read(ticks: pa.RecordBatch) -> None:
    assert unpacked(_HeldCoder().decode(to_fewer_bytes(ticks))).equals(ticks, check_metadata=True)
    assert unpacked(_HeldCoder().decode(to_bytes(ticks))).equals(ticks, check_metadata=True)
    at, first = TICKS.get_field_index("offset"), ticks["offset"][0].as_py()
    differences = pa.array(np.diff(ticks["offset"].to_numpy(), prepend=first).astype(np.uint8))
    old = ticks.set_column(at, TICKS.field("offset").with_type(pa.uint8()), differences)
    old = old.replace_schema_metadata({**ticks.schema.metadata, "steps": json.dumps({"offset": [first, 0]})})
    assert unpacked(_HeldCoder().decode(to_fewer_bytes(old))).equals(ticks, check_metadata=True)


def test_many_rows_take_less_than_a_fifth_of_their_bytes(ticks: pa.RecordBatch) -> None:
    assert len(_HeldCoder().encode(packed(ticks))) < len(to_bytes(ticks)) / 5


def test_columns_are_looked_at_without_the_others(ticks: pa.RecordBatch) -> None:
    names = ["log_time", "offset", "price"]
    assert unpacked(packed(ticks).select(names)).equals(ticks.select(names), check_metadata=True)
