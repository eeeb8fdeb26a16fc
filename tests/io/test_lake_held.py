"""Rows that wait for their objects come back from state as they were, in a fraction of their bytes."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.lake_objects import Group, Position
from beam_pipelines.io.lake_write import _decoded, _encoded, _HeldCoder, _HeldRows, _Open
from beam_pipelines.session import Session
from beam_pipelines.simulate import raw_batches
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import MANY, TICKS, Span, empty, span_of, to_bytes, to_fewer_bytes, with_span
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


class Bag:
    """Beam's bag state, encoded as in a job."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def add(self, rows: pa.RecordBatch) -> None:
        self.pieces.append(_HeldCoder().encode(rows))

    def read(self) -> list[pa.RecordBatch]:
        return list(map(_HeldCoder().decode, self.pieces))

    def clear(self) -> None:
        self.pieces.clear()


@given(sizes=st.lists(st.integers(1, MANY + 500), max_size=30))
def test_pieces_of_any_size_come_back_in_their_order_and_small_ones_wait_in_few_bytes(
    ticks: pa.RecordBatch, sizes: list[int]
) -> None:
    held = _HeldRows(many := Bag(), few := Bag(), 0)
    for number, size in enumerate(sizes):
        piece = with_span(ticks.slice(0, size), Span("raw", 3, number, number + 1))
        held = _HeldRows(many, few, held.count)  # as in another bundle
        held.add(packed(piece) if size >= MANY else piece)
    together = [row for piece in held.read() for row in piece["offset"].to_pylist()]
    assert together == [row for size in sizes for row in ticks["offset"].slice(0, size).to_pylist()]
    assert held.count == sum(map(len, few.read())) < 16_384
    assert len(many.pieces) <= 2 * sum(size >= MANY for size in sizes) + sum(sizes) // 16_384
    assert [span_of(piece)[:2] for piece in held.read()] == [("raw", 3)] * len([*many.pieces, *few.pieces])
    held.clear()
    assert (held.count, [*held.read()]) == (0, [])


def test_where_a_job_of_an_older_version_held_its_rows_is_read() -> None:
    position = Position(5, 90, 1_700_000_000_000, Group(566, 0))
    assert _decoded(b"[2, 5, 90, 1700000000000, [566, 0], true]") == _Open(position, True, 0)
    assert _decoded(_encoded(position, False, 70)) == _Open(position, False, 70)
    with pytest.raises(ValueError, match="version 4"):
        _decoded(b"[4, 5, 90, 1700000000000, [566, 0], true, 70]")


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
