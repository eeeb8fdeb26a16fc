"""A day computed anew: what the plain reference gives of its ticks in event-time order, whatever came when."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.day import Ended, Stretch, in_event_order, recomputed
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS

from .reference import Reference, Tick
from .test_advance import SHORT_BARS, assert_rows_match, batch_of, frames, random_ticks

BEGIN = 1_700_000_000_000
HOUR = 10_000  # of the tests, ms
ALL = Stretch(BEGIN - HOUR, BEGIN + 10 * HOUR, BEGIN)


def compute(
    ticks: list[Tick], stretch: Stretch = ALL, prior: ClosingState = NOTHING, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, Ended]:
    """Rows and end of ticks that lie, in some disorder and some of them twice, in objects of hours."""
    rng = np.random.default_rng(seed)
    objects: dict[int, list[list[Tick]]] = {}
    for tick in ticks:
        hour = objects.setdefault(tick.timestamp // HOUR, [[], [], []])
        for copy in rng.choice(3, rng.choice([1, 1, 1, 2]), replace=False):
            hour[copy].append(tick)
    hours = ([batch_of(hour[copy]) for copy in rng.permutation(3)] for _, hour in sorted(objects.items()))
    parts = []

    def collect() -> Ended:
        pieces = recomputed(hours, stretch, SHORT_BARS, prior)
        while True:
            try:
                parts.append(next(pieces)[:2])
            except StopIteration as ended:
                return ended.value

    ended = collect()
    return (*frames(parts), ended)


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
        stretch = Stretch(begin, begin + 2 * HOUR, begin)
        mine = [tick for tick in ticks if stretch.begin <= tick.timestamp < stretch.end]
        *rows, (closing, _) = compute(mine, stretch, prior)
        prior = prior.followed_by(stretch.end, [(list(closing.symbols), closing.history)])
        parts.append(rows)
    for number, (whole, key) in enumerate([(whole_ticks, ["offset"]), (whole_bars, ["time", "symbol"])]):
        days = pd.concat([part[number] for part in parts if len(part[number])])
        got, want = (rows.sort_values(key).reset_index(drop=True) for rows in (days, whole))
        pd.testing.assert_frame_equal(got, want, check_dtype=False, check_exact=True)


def test_ticks_before_the_stretch_warm_the_indicators_up_and_give_no_rows() -> None:
    ticks = random_ticks(9, 3000, span_ms=80_000)
    whole_ticks, whole_bars, (whole_closing, _) = compute(ticks)
    begin = BEGIN + 4 * HOUR
    got_ticks, got_bars, (closing, _) = compute(ticks, Stretch(begin, ALL.end, begin))
    for got, whole, time in ((got_ticks, whole_ticks, "timestamp"), (got_bars, whole_bars, "time")):
        want = whole[whole[time] >= begin].reset_index(drop=True)
        assert 0 < len(want) < len(whole)
        pd.testing.assert_frame_equal(got, want, check_dtype=False, check_exact=True)
    assert closing.to_batch(1000).equals(whole_closing.to_batch(1000), check_metadata=True)


def test_no_tick_is_no_row_and_no_symbol() -> None:
    pieces = list(recomputed([[]], ALL, SHORT_BARS, NOTHING))
    assert sum(len(rows) for piece in pieces for rows in piece) == 0
    assert list(in_event_order([])) == []


def test_ties_are_in_the_order_of_the_log() -> None:
    ticks = [Tick("A", BEGIN, float(1 + offset), 1, 0, 7, offset, BEGIN) for offset in (2, 0, 1)]
    (ordered,) = in_event_order([batch_of([tick]) for tick in ticks])
    assert ordered["offset"].to_pylist() == [0, 1, 2]


def sound(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def summaries_expected(reference: Reference, ticks: list[Tick], begin: int) -> list[dict]:
    """One symbol after the other, from its ticks and the reference's bars."""
    rows, kept = [], {tick["offset"] for tick in reference.ticks_out}
    mine = sorted((it for it in ticks if it.offset in kept and it.timestamp >= begin), key=lambda it: it.timestamp)
    bar_ms, disorder = SHORT_BARS.bar_ms, SHORT_BARS.out_of_orderness_ms

    def late(tick: Tick) -> bool:
        end = tick.timestamp // bar_ms * bar_ms + bar_ms
        return any(it.offset < tick.offset and it.timestamp - disorder >= end for it in mine)

    for symbol in sorted({tick.symbol for tick in mine}):
        own = sorted((it for it in mine if it.symbol == symbol), key=lambda it: (it.timestamp, it.seq, it.offset))
        bars = sorted((it for it in reference.bars_out if it["symbol"] == symbol), key=lambda it: it["time"])
        closes = [it["close"] for it in bars if it["time"] >= begin and it["close"] is not None]
        earlier = [it["close"] for it in bars if it["time"] < begin and it["close"] is not None]
        returns = np.diff(np.log(closes))
        shape = Reference.shape(own)
        rows.append(
            {
                "symbol": symbol,
                "day": begin,
                **{f"{name}_price": shape[name] for name in ("open", "high", "low", "close")},
                "total_volume": shape["volume"],
                "vwap": shape["vwap"],
                "tick_count": len(own),
                "daily_return": shape["close"] / earlier[-1] - 1 if earlier and shape["close"] else None,
                "realised_volatility": math.sqrt(sum(returns**2)) if len(returns) else None,
                "mean_spread": None,
                "dollar_volume": (shape["vwap"] or 0) * shape["volume"],
                "largest_gap_ms": max(np.diff([it.timestamp for it in own]), default=0),
                "late_share": sum(map(late, own)) / len(own),
            }
        )
    return rows


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 400), begin=st.sampled_from([BEGIN - HOUR, BEGIN + 2 * HOUR]))
def test_summaries_are_what_pandas_would_make_of_the_day(seed: int, count: int, begin: int) -> None:
    ticks = random_ticks(seed, count, span_ms=60_000)
    *_, (_, summaries) = compute(ticks, Stretch(begin, ALL.end, begin), seed=seed)
    wanted = summaries_expected(expected(ticks), ticks, begin)
    got = summaries.to_pylist()
    assert [row["symbol"] for row in got] == [row["symbol"] for row in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine == pytest.approx({name: sound(v) if isinstance(v, float) else v for name, v in theirs.items()})


def test_returns_and_spreads_of_a_day_after_another() -> None:
    first = [Tick("A", BEGIN + 1, 10.0, 1, 1, 7, 0, BEGIN)]
    second = [Tick("A", BEGIN + HOUR + 1, 12.0, 1, 1, 7, 1, BEGIN), Tick("B", BEGIN + HOUR, 1.0, 1, 1, 7, 2, BEGIN)]
    *_, (closing, _) = compute(first, Stretch(BEGIN, BEGIN + HOUR, BEGIN))
    quoted = batch_of(second).to_pylist()
    for row, (bid, ask) in zip(quoted, [(11.9, 12.1), (None, 1.1)], strict=True):
        row |= {"bid": bid, "ask": ask}
    hours = [[pa.RecordBatch.from_pylist(quoted, schema=batch_of(second).schema)]]
    pieces = recomputed(hours, Stretch(BEGIN + HOUR, BEGIN + 2 * HOUR, BEGIN + HOUR), SHORT_BARS, closing)
    while True:
        try:
            next(pieces)
        except StopIteration as ended:
            rows = ended.value.summaries.to_pylist()
            break
    assert [row["daily_return"] for row in rows] == [pytest.approx(0.2), None]
    assert [row["mean_spread"] for row in rows] == [pytest.approx(0.2), None]
