"""A day computed anew: what the plain reference gives of its ticks in event-time order, whatever came when."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.day import Stretch, in_event_order, recomputed
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS

from .reference import Reference, Tick
from .test_advance import SHORT_BARS, assert_rows_match, batch_of, frames, random_ticks

BEGIN = 1_700_000_000_000
HOUR = 10_000  # of the tests, ms
ALL = Stretch(BEGIN - HOUR, BEGIN + 10 * HOUR)


def compute(
    ticks: list[Tick], stretch: Stretch = ALL, prior: ClosingState = NOTHING, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, ClosingState]:
    """Rows and closing state of ticks that lie, in some disorder and some of them twice, in objects of hours."""
    rng = np.random.default_rng(seed)
    objects: dict[int, list[list[Tick]]] = {}
    for tick in ticks:
        hour = objects.setdefault(tick.timestamp // HOUR, [[], [], []])
        for copy in rng.choice(3, rng.choice([1, 1, 1, 2]), replace=False):
            hour[copy].append(tick)
    hours = ([batch_of(hour[copy]) for copy in rng.permutation(3)] for _, hour in sorted(objects.items()))
    parts = []

    def collect() -> ClosingState:
        pieces = recomputed(hours, stretch, SHORT_BARS, prior)
        while True:
            try:
                parts.append(next(pieces))
            except StopIteration as ended:
                return ended.value

    closing = collect()
    return (*frames(parts), closing)


def expected(ticks: list[Tick]) -> Reference:
    reference = Reference(dataclasses.replace(SHORT_BARS, out_of_orderness_ms=0))
    for tick in sorted(ticks, key=lambda tick: (tick.timestamp, tick.seq, tick.offset)):
        reference.take(tick)
    reference.cross(ALL.end, ticks[-1])
    assert reference.too_late == []
    return reference


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 500))
def test_it_equals_the_reference_in_event_time_order(seed: int, count: int) -> None:
    ticks = random_ticks(seed, count, span_ms=60_000)
    reference = expected(ticks)
    got_ticks, got_bars, _ = compute(ticks, seed=seed)
    assert_rows_match(got_ticks, reference.ticks_out, TICK_INDICATORS)
    assert not got_ticks["late"].any()
    key = ["time", "symbol"]
    want = sorted(reference.bars_out, key=lambda bar: tuple(bar[name] for name in key))
    assert_rows_match(got_bars.sort_values(key).reset_index(drop=True), want, BAR_INDICATORS)
    assert got_bars["is_final"].all()
    assert (got_bars["revision"] == 0).all()


def test_days_in_a_row_with_a_carried_state_are_one_computation() -> None:
    ticks = random_ticks(5, 4000, symbols=4, span_ms=80_000)
    whole_ticks, whole_bars, _ = compute(ticks)
    prior, parts = NOTHING, []
    for begin in range(ALL.begin, ALL.end, 2 * HOUR):
        stretch = Stretch(begin, begin + 2 * HOUR)
        mine = [tick for tick in ticks if stretch.begin <= tick.timestamp < stretch.end]
        *rows, closing = compute(mine, stretch, prior) if mine else (*(whole_ticks[:0], whole_bars[:0]), prior)
        prior = prior.followed_by(stretch.end, [(list(closing.symbols), closing.history)])
        parts.append(rows)
    for number, (whole, key) in enumerate([(whole_ticks, ["offset"]), (whole_bars, ["time", "symbol"])]):
        days = pd.concat([part[number] for part in parts if len(part[number])])
        got, want = (rows.sort_values(key).reset_index(drop=True) for rows in (days, whole))
        pd.testing.assert_frame_equal(got, want, check_dtype=False, check_exact=True)


def test_ticks_before_the_stretch_warm_the_indicators_up_and_give_no_rows() -> None:
    ticks = random_ticks(9, 3000, span_ms=80_000)
    whole_ticks, whole_bars, whole_closing = compute(ticks)
    begin = BEGIN + 4 * HOUR
    got_ticks, got_bars, closing = compute(ticks, Stretch(begin, ALL.end))
    for got, whole, time in ((got_ticks, whole_ticks, "timestamp"), (got_bars, whole_bars, "time")):
        want = whole[whole[time] >= begin].reset_index(drop=True)
        assert 0 < len(want) < len(whole)
        pd.testing.assert_frame_equal(got, want, check_dtype=False, check_exact=True)
    assert closing.to_batch(1000).equals(whole_closing.to_batch(1000), check_metadata=True)


def test_no_tick_is_no_row_and_no_symbol() -> None:
    pieces = list(recomputed([[]], ALL, SHORT_BARS, NOTHING))
    assert sum(len(rows) for piece in pieces for rows in piece) == 0
    assert len(in_event_order([])) == 0


def test_ties_are_in_the_order_of_the_log() -> None:
    ticks = [Tick("A", BEGIN, float(1 + offset), 1, 0, 7, offset, BEGIN) for offset in (2, 0, 1)]
    ordered = in_event_order([batch_of([tick]) for tick in ticks])
    assert ordered["offset"].to_pylist() == [0, 1, 2]
    assert isinstance(ordered, pa.RecordBatch)
