"""Prices as decimals, against Python's own exact formatting of floats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.decimals import rounded, split

ANY = st.floats(-9e7, 9e7) | st.integers(-(10**15), 10**15).map(lambda units: units / 2e8)  # halves of a unit


@given(st.lists(ANY))
def test_a_price_is_rounded_as_its_exact_value_is_written(values: list[float]) -> None:
    assert rounded(np.array(values, float)).tolist() == [float(f"{value:.8f}") for value in values]


@given(st.lists(ANY.map(abs)))
def test_the_parts_are_those_that_are_written(values: list[float]) -> None:
    whole, units = split(np.array(values, float))
    written = [f"{value:.8f}".split(".") for value in values]
    assert [(int(w), int(u)) for w, u in zip(whole, units, strict=True)] == [(int(w), int(u)) for w, u in written]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 9.1e7 + 1.5e-8])
def test_what_has_no_such_decimals_stays(value: float) -> None:
    np.testing.assert_equal(rounded(np.array([value])), [value])


def test_what_only_looks_like_a_tie_after_a_multiplication_is_none() -> None:
    rng = np.random.default_rng(1)
    candidates = (rng.integers(3e10, 4e10, 2_000_000) + 0.5) / 1e8
    off = [value for value in candidates.tolist() if float(f"{value:.8f}") != round(value * 1e8) / 1e8]
    assert off  # multiplying goes wrong here
    assert rounded(np.array(off)).tolist() == [float(f"{value:.8f}") for value in off]
