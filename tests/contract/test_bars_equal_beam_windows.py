"""Bars equal what Beam's own windows and combiners make of the same ticks, one element a tick."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_pipelines import ledger
from beam_pipelines.io.tables import MARKET_BARS
from beam_pipelines.runners.defaults import DIRECT_RUNNER
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.closing_state import NOTHING
from beam_pipelines.transforms.day import Stretch, recomputed
from beam_pipelines.transforms.ticks import decode

BAR_SECONDS = 10
SESSION = Session(seed=11, symbols=8, duration_ms=300_000, ticks=6_000, disorder=0.2, tie=0.1, odd_lots=0.2)
SEMANTICS = Semantics(BAR_SECONDS * 1000)
VALUES = ("open", "high", "low", "close", "volume", "vwap", "trade_count")
HIGH_LOW, OPEN_CLOSE, VOLUME = 1, 2, 4

Print = tuple[int, int, float]  # timestamp, seq, price


class Sums(NamedTuple):
    """What has been seen of one bar."""

    first: Optional[Print] = None  # noqa: UP045 (Beam reads it)
    last: Optional[Print] = None  # noqa: UP045
    high: float = float("-inf")
    low: float = float("inf")
    volume: int = 0
    turnover: float = 0.0
    count: int = 0


def sums_of(tick: dict[str, Any]) -> Sums:
    updates = tick.get("updates", 7)
    at = (tick["timestamp"], tick["seq"], tick["price"]) if updates & OPEN_CLOSE else None
    high, low = (tick["price"], tick["price"]) if updates & HIGH_LOW else (Sums().high, Sums().low)
    volume = tick["volume"] if updates & VOLUME else 0
    return Sums(at, at, high, low, volume, tick["price"] * volume, 1)


def joined(a: Sums, b: Sums) -> Sums:
    return Sums(
        min((it for it in (a.first, b.first) if it), default=None),
        max((it for it in (a.last, b.last) if it), default=None),
        max(a.high, b.high),
        min(a.low, b.low),
        a.volume + b.volume,
        a.turnover + b.turnover,
        a.count + b.count,
    )


class BarCombineFn(beam.CombineFn):
    """Bars by the book: associative, commutative, a tick at a time."""

    def create_accumulator(self) -> Sums:
        return Sums()

    def add_input(self, bar: Sums, tick: dict[str, Any]) -> Sums:
        return joined(bar, sums_of(tick))

    def merge_accumulators(self, bars: Iterable[Sums]) -> Sums:
        return functools.reduce(joined, bars, Sums())

    def extract_output(self, bar: Sums) -> tuple[Any, ...]:
        vwap = bar.turnover / bar.volume if bar.volume else None
        opened, closed = (None if at is None else at[2] for at in (bar.first, bar.last))
        high, low = (None if abs(price) == float("inf") else price for price in (bar.high, bar.low))
        return opened, high, low, closed, bar.volume, vwap, bar.count


def with_window(element: tuple[str, Any], window: Any = beam.DoFn.WindowParam) -> tuple[tuple[str, int], Any]:
    symbol, bar = element
    return (symbol, window.start.micros // 1000), bar


def assert_windows_give(bars: list[dict[str, Any]], ticks: list[dict[str, Any]]) -> None:
    """Compares bars, as rows of BARS or of its table, with what Beam makes of the ticks."""
    mine = {(row["symbol"], row["time"]): tuple(row[name] for name in VALUES) for row in bars}
    assert len(mine) == len(bars) > 200

    def equal(found: list[tuple[tuple[str, int], tuple[Any, ...]]]) -> None:
        assert len(found) == len(mine)
        vwap = VALUES.index("vwap")
        for identity, bar in found:
            ours = mine[identity]
            assert ours[:vwap] + ours[vwap + 1 :] == bar[:vwap] + bar[vwap + 1 :], identity
            assert ours[vwap] == pytest.approx(bar[vwap], rel=1e-9), identity

    with beam.Pipeline(DIRECT_RUNNER, PipelineOptions([])) as pipeline:
        windows = (
            pipeline
            | beam.Create(ticks)
            | "Time" >> beam.Map(lambda tick: TimestampedValue(tick, tick["timestamp"] / 1000))
            | "Window" >> beam.WindowInto(FixedWindows(BAR_SECONDS))
            | "Key" >> beam.Map(lambda tick: (tick["symbol"], tick))
            | "Combine" >> beam.CombinePerKey(BarCombineFn())
            | "Start" >> beam.Map(with_window)
            | "Global" >> beam.WindowInto(beam.window.GlobalWindows())
        )
        assert_that(windows, equal)


def test_the_streams_bars_are_those_of_fixed_windows_and_a_combiner():
    log = [batch for _, batch in raw_batches(SESSION, partitions=2)]
    ticks = [json.loads(value) for batch in log for value in batch["value"].to_pylist()]
    assert {tick["updates"] for tick in ticks if "updates" in tick} >= {VOLUME}
    names = [column.name for column in MARKET_BARS.columns]
    rows = ledger.expected_of(log, SEMANTICS).table_bars.values()
    assert_windows_give([dict(zip(names, row, strict=True)) for row in rows], ticks)


def test_the_daily_batchs_bars_are_those_of_all_ticks_however_late():
    session = dataclasses.replace(SESSION, late=0.05, too_late=0.05)
    valid = [decode(batch).ticks for _, batch in raw_batches(session, partitions=1)]
    stretch = Stretch(session.start_ms - 3_600_000, session.start_ms + 3_600_000, session.start_ms)
    pieces = recomputed([valid], stretch, SEMANTICS, NOTHING)
    bars = [row for piece in pieces for row in piece.bars.to_pylist()]
    assert_windows_give(bars, [row for batch in valid for row in batch.to_pylist()])
