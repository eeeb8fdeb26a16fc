"""Numbers come back from their bytes, whatever they are, and take few of them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beam_pipelines.transforms.batches import from_bytes, to_bytes
from beam_pipelines.transforms.duplicates import Identities
from beam_pipelines.transforms.packing import pack, unpack

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
