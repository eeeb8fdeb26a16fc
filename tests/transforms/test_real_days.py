"""Indicators against TA-Lib on real days of trades, at every tick and every bar, nulls included."""

import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from beam_pipelines.tick_files import raw_batches_from_file
from beam_pipelines.transforms.advance import FOREVER, Semantics, provisional
from beam_pipelines.transforms.enrich import take_step
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

from .reference import talib_values

TICKS_FOLDER = pathlib.Path(__file__).parents[2] / ".." / "shared" / "ticks"
DAYS = ("20131007", "20131008", "20131009", "20131010", "20131011")

pytestmark = pytest.mark.skipif(not TICKS_FOLDER.exists(), reason="needs the recorded tick days of ../shared/ticks")


def enriched_day(day: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ticks and bars of IBM's trades of one day, as the kernel gives them."""
    semantics = Semantics()
    state = PartitionState(semantics.bar_ms)
    steps = [
        take_step(state, raw, semantics)
        for _, raw in raw_batches_from_file(TICKS_FOLDER / f"lean_ibm_{day}_trade_tick.zip", 1, 1000)
    ]
    parts = [*steps, provisional(state, FOREVER, NEVER, semantics)]
    assert all(step.dead_letters is None for step in steps)
    return tuple(
        pd.DataFrame(pa.Table.from_batches([getattr(part, kind) for part in parts]).unify_dictionaries().to_pylist())
        for kind in ("ticks", "bars")
    )


@pytest.mark.parametrize("day", DAYS)
def test_every_tick_and_bar_of_a_real_day_equals_talib(day):
    ticks, bars = enriched_day(day)
    trades = ticks.sort_values(["timestamp", "seq"])
    trades["minute"] = trades["timestamp"] // 60_000 * 60_000
    minutes = trades.groupby("minute")["price"].agg(["first", "max", "min", "last"])
    assert len(bars) == len(minutes) > 300
    by_start = bars.set_index("time").loc[minutes.index]
    for column, expected in zip(("open", "high", "low", "close"), ("first", "max", "min", "last"), strict=True):
        np.testing.assert_array_equal(by_start[column], minutes[expected])
    for number, row in enumerate(by_start.itertuples()):
        until = slice(0, number + 1)
        expected = talib_values(minutes["max"].iloc[until], minutes["min"].iloc[until], minutes["last"].iloc[until])
        assert_indicators(row, expected, BAR_INDICATORS)
    closes = minutes["last"].to_numpy()
    for tick in trades.itertuples():
        forming = np.append(closes[: minutes.index.get_loc(tick.minute)], tick.price)
        assert_indicators(tick, talib_values(forming, forming, forming), TICK_INDICATORS)


def assert_indicators(row, expected, names):
    got = [np.nan if getattr(row, name) is None else getattr(row, name) for name in names]
    np.testing.assert_allclose(got, [expected[name] for name in names], rtol=0, atol=1e-6)
