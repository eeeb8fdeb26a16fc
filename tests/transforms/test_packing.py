"""Numbers come back from their bytes, whatever they are, and take few of them."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beam_pipelines.transforms.batches import from_bytes, to_bytes
from beam_pipelines.transforms.duplicates import Identities
from beam_pipelines.transforms.packing import pack, packed, unpack, unpacked

NUMBERS = arrays(np.int64, st.integers(0, 50), elements=st.integers(-(2**63), 2**63 - 1))


@given(NUMBERS)
def test_any_numbers_come_back(numbers: np.ndarray) -> None:
    again = unpack(pack(numbers))
    assert again.dtype == np.int64
    assert again.tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("most", "width"),
    [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32 - 1, 4), (2**32, 8), (2**64 - 1, 8)],
)
def test_as_few_bytes_are_taken_as_the_range_needs(most: int, width: int) -> None:
    numbers = np.array([-(2**63), -(2**63) + most])
    assert pack(numbers).more.itemsize == width


@given(st.data())
def test_identities_come_back_from_state(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 20))
    columns = [data.draw(arrays(np.int64, rows, elements=st.integers(-(2**63), 2**63 - 1))) for _ in range(4)]
    again = Identities.from_batch(from_bytes(to_bytes(Identities(*columns).to_batch())))
    assert [values.tolist() for values in vars(again).values()] == [values.tolist() for values in columns]


def test_identities_of_older_states_are_read() -> None:
    old = pa.record_batch({name: np.array([3, -7, 2**62]) for name in ("symbol", "source", "timestamp", "seq")})
    assert [values.tolist() for values in vars(Identities.from_batch(old)).values()] == [[3, -7, 2**62]] * 4


def test_an_identity_takes_a_third_of_its_bytes() -> None:
    rng = np.random.default_rng(1)
    count = 10_000
    times = 1_736_173_800_000 + np.sort(rng.integers(0, 60_000, count))
    ticks = Identities(rng.integers(0, 500, count), rng.integers(0, 3, count), times, 7_000_000_000 + np.arange(count))
    assert len(to_bytes(ticks.to_batch())) < 32 * count / 3


INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 300))
CENTS = st.integers(-(10**7), 10**7).map(lambda units: units / 100)
PLACES = st.integers(-(10**12), 10**12).map(lambda units: units / 1e8)
FLOATS = st.one_of(st.floats(), CENTS, PLACES)


@given(st.data())
def test_any_batch_comes_back_bit_by_bit(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 30))
    kinds = {
        "integers": (INTEGERS, pa.int64()),
        "floats": (FLOATS, pa.float64()),
        "cents": (CENTS, pa.float64()),
        "places": (PLACES, pa.float64()),
        "names": (st.sampled_from(["A", "B", "C"]), pa.dictionary(pa.int32(), pa.string())),
        "others": (st.integers(0, 3), pa.dictionary(pa.int8(), pa.int64())),
        "small": (st.integers(0, 7), pa.uint8()),
        "texts": (st.text(max_size=3), pa.string()),
    }
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
        for name, (values, kind) in kinds.items()
    }
    schema = pa.schema([pa.field(name, column.type, data.draw(st.booleans())) for name, column in columns.items()])
    schema = schema.with_metadata(data.draw(st.none() | st.just({"topic": "t"})))
    batch = pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
    begin = data.draw(st.integers(0, rows))
    batch = batch.slice(begin)
    again = unpacked(from_bytes(to_bytes(packed(batch))))
    assert again.schema.equals(batch.schema, check_metadata=True)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        assert again[name].is_null().equals(column.is_null())
        if pa.types.is_floating(column.type):  # the sign of a zero counts, and NaN is itself
            both = (it.drop_null().to_numpy().view(np.int64).tolist() for it in (again[name], column))
            assert next(both) == next(both)
        else:
            assert again[name].equals(column)


@pytest.mark.parametrize("values", [[1.25, math.nan], [1.25, -0.0], [1.25, math.inf], [1e300, 1.0], [0.1 + 0.2]])
def test_what_is_no_decimal_is_kept_as_it_is(values: list[float]) -> None:
    batch = pa.record_batch({"price": pa.array(values, pa.float64())})
    kept = packed(batch)
    assert kept.schema.equals(batch.schema, check_metadata=True)
    assert kept["price"].to_numpy().view(np.int64).tolist() == batch["price"].to_numpy().view(np.int64).tolist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([100.25, 100.5, None], pa.uint8()),
        ([1.0712, 1.0801], pa.uint8()),
        ([0.00001234, 0.00009999], pa.uint16()),
        ([90_000.25, 12.0], pa.uint32()),
    ],
)
def test_decimals_take_the_bytes_of_their_range(values: list[float | None], kind: pa.DataType) -> None:
    batch = pa.record_batch({"price": pa.array(values, pa.float64())})
    assert packed(batch)["price"].type == kind
    assert unpacked(packed(batch)).equals(batch, check_metadata=True)
