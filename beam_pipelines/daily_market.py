"""The market in the daily batch: what becomes of a day of ticks.

    lake market-data/ ─ read ─ recompute ─┬─ ticks ──────▶ table market_data_ts       ┐
                                          ├─ bars ───────▶ table market_bars_ts       │ replaced in one transaction
                                          ├─ summaries ──▶ table daily_market_summary ┘
                                          ├─ bars, summaries ▶ lake processed/market-data/
                                          └─ closing state ──▶ lake state/

It begins with the closing state that the day before left in the lake, or else warms up on the ticks of some days
before.  At the end the small objects of the day's ticks become one for each hour of a partition.

With --as_live the tables get the rows that the stream gave them: late ticks late, too late ones left out.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import apache_beam as beam
import pyarrow as pa

from beam_pipelines.command_line import WEEK_MS, Kind, today, topic_named, utc_day, whole
from beam_pipelines.daily_quality import ReportQuality
from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake import (
    NO_END,
    CompactLake,
    LakeStretch,
    ListByPartition,
    WriteRefusedToLake,
    check_day,
    has_day,
)
from beam_pipelines.io.lake_objects import MARKET_DATA
from beam_pipelines.io.lake_processed import ProcessedFiles, WriteProcessed
from beam_pipelines.io.lake_state import (
    StoredState,
    WriteState,
    begin_of,
    closing_state_of,
    find_closing_state,
    has_state,
    live_state_of,
    merged_closing,
    merged_live,
)
from beam_pipelines.io.objects import Objects
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.replace import MARKET_TABLES, STREAM_TABLES, Replacement, ReplaceRows, new_run
from beam_pipelines.io.tables import DATA_QUALITY, MARKET_ANOMALIES
from beam_pipelines.stream import suite_of
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.as_live import AsLive, Begun, LiveStates, matters_since
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.closing_state import DAY_MS, NOTHING, ClosingState, midnight_of, no_prior
from beam_pipelines.transforms.day import Computed, ComputeDay, Recompute, Stretch
from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["LAYOUT", "TABLES", "Day", "add_flags", "check", "day_of", "is_done"]

LAYOUT = MARKET_DATA
TABLES = (*(it.table for it in MARKET_TABLES), MARKET_ANOMALIES, DATA_QUALITY)

State = TypeVar("State")

_ONE = datetime.timedelta(days=1)
_LONGEST_REST = 14  # days without any tick over which indicators go on: markets close for a week at times


class Day(NamedTuple):
    """What is computed, and from what."""

    day: datetime.date
    read: LakeStretch  # with the ticks that warm the indicators up
    compute: Recompute | AsLive
    prior: Callable[[], Any]  # gives the state that it begins with
    merged: Callable[[list[pa.RecordBatch]], pa.RecordBatch]  # makes one of the states that its partitions end with
    suite: Suite  # by which its ticks are judged

    @property
    def live(self) -> bool:
        """Whether its rows are those of the stream."""
        return isinstance(self.compute, AsLive)

    def replacement(self, dsn: Dsn) -> Replacement:
        """What it replaces in a database, which is made ready for that."""
        stretch, seconds = self.compute.stretch, self.compute.semantics.bar_ms // 1000
        tables = STREAM_TABLES if self.live else MARKET_TABLES
        made = Replacement(dsn, new_run(self.day), stretch.begin, stretch.end, seconds, self.read.symbols, tables)
        made.sweep()
        made.prepare()
        return made

    def build(self, pipeline: beam.Pipeline, replacement: Replacement | None) -> None:
        """The whole graph."""
        compute = ComputeDay(self.compute, self.prior)
        market: Computed = pipeline | "Read" >> ListByPartition(self.read) | "Market" >> compute
        after = []
        if replacement:
            tables = (market.ticks, market.bars, market.anomalies if self.live else market.summaries)
            refused, done = tables | "Replace" >> ReplaceRows(replacement, LAYOUT.dataset)
            refused | "KeepRefused" >> WriteRefusedToLake(self.read.objects.url)
            after.append(done)
        if self.read.symbols is None and not self.live:
            after += _write_processed(market, self)
            ticks = market.ticks | "WithoutIndicators" >> beam.Map(_as_ticks).with_output_types(pa.RecordBatch)
            dsn = replacement.dsn if replacement else None
            after.append(ticks | "Quality" >> ReportQuality(self.suite, self.day, self.read.objects, dsn))
        if self.read.symbols is None and self.day < today():
            _close(market, self, after)


def _close(market: Computed, day: Day, after: list[beam.PCollection]) -> None:
    """Last of all, for whoever finds the state knows that the day is done; and then what readers do not notice."""
    lake, bar_ms = day.read.objects, day.compute.semantics.bar_ms
    closed = market.closing | "Close" >> WriteState(lake, day.day, bar_ms, day.live, day.merged, after)
    if not day.live:
        midnight = midnight_of(day.day)
        hours = dataclasses.replace(day.read, begin=midnight, end=midnight + DAY_MS)
        market.closing.pipeline | "Compact" >> CompactLake(hours, closed)


def _as_ticks(enriched: pa.RecordBatch) -> pa.RecordBatch:
    return enriched.select(TICKS.names)


def _write_processed(market: Computed, day: Day) -> list[beam.PCollection]:
    bars = ProcessedFiles(
        day.read.objects, LAYOUT.dataset, day.day, f"bars-{day.compute.semantics.bar_ms // 1000}s", "time"
    )
    summaries = ProcessedFiles(day.read.objects, LAYOUT.dataset, day.day, "summaries", "day")
    return [
        market.bars | "ProcessedBars" >> WriteProcessed(bars),
        market.summaries | "ProcessedSummaries" >> WriteProcessed(summaries),
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What the rows of the market depend on."""
    flag = parser.add_argument_group("market").add_argument
    live = "the rows as the stream gave them: with its options, of all symbols, into its tables alone"
    flag("--as_live", action="store_true", help=live)
    start = "the day whose state the stream began with, its --start_state; for --as_live"
    flag("--start_state", type=utc_day("give the one that the stream began with"), help=start)
    some = "only these symbols, A,B,C (all); the day's closing state is then not written"
    flag("--symbols", type=_SYMBOLS, help=some)
    flag("--topic", type=topic_named, help="topic whose ticks count, where the lake has those of several")
    warm = "days of ticks to begin with where the day before left no closing state (%(default)s)"
    flag("--warmup_days", type=whole(0, 366), default=1, help=warm)
    flag("--bar_seconds", type=whole(1, WEEK_MS // 1000), default=60, help="length of a bar, s (%(default)s)")
    late = "the stream's bound on disorder, ms, by which late ticks are told (%(default)s)"
    flag("--out_of_orderness_ms", type=whole(0, WEEK_MS), default=1_000, help=late)
    allowed = "what the stream was given, ms; for --as_live (%(default)s)"
    flag("--allowed_lateness_ms", type=whole(1, WEEK_MS), default=60_000, help=allowed)
    dedup = "0: all ticks count; more: of repeated ones the first, with --as_live within so many ms (%(default)s)"
    flag("--dedup_ms", type=whole(0, WEEK_MS), default=60_000, help=dedup)


def _symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(sorted({symbol.strip().upper() for symbol in text.split(",")}))
    if "" in symbols:
        raise argparse.ArgumentTypeError(f"{text!r} names an empty symbol: give them as A,B,C")
    return symbols


_SYMBOL = r" *[^\s,]([^,]*[^\s,])? *"
_SYMBOLS = Kind(
    _symbols, "symbols as A,B,C", f"{_SYMBOL}(,{_SYMBOL})*", ("AAPL", "AAPL, BRK.B,BTC-USD"), ("", " ", "A,,B", "A,")
)


def check(options: argparse.Namespace) -> None:
    """Raises UsageError if flags do not go together, or name what is not there."""
    suite_of(options, "market")
    if options.start_state and not options.as_live:
        raise UsageError("--start_state is what the stream began with, for --as_live: leave it out, or add that")
    if options.as_live and options.symbols:
        raise UsageError("--as_live is for all symbols, because they share a clock: leave --symbols out")


def is_done(options: argparse.Namespace, lake: Objects, day: datetime.date) -> bool:
    """Whether a run over the day came to its end."""
    return has_state(lake, day, options.bar_seconds * 1000, options.as_live)


def day_of(options: argparse.Namespace, lake: Objects, day: datetime.date) -> Day:
    """What the flags say of one day.

    Raises:
      UsageError: if the day is not in the lake, or the state that the day before left cannot be used.
    """
    check_day(lake, LAYOUT, day)
    semantics, suite = _semantics_of(options), suite_of(options, "market")
    stretch = Stretch(begin_of(day - _ONE, semantics.bar_ms), begin_of(day, semantics.bar_ms), midnight_of(day))
    if stretch.begin == stretch.end:
        raise UsageError(f"no bar of --bar_seconds={options.bar_seconds} ends on {day}: give shorter bars")
    read = LakeStretch(
        lake, LAYOUT, stretch.begin, stretch.end, options.symbols, options.on_bad_file == "skip", options.topic
    )
    earlier = stretch.begin - options.warmup_days * DAY_MS
    if options.as_live:
        live = _before(lake, day, lambda before: live_state_of(lake, before, semantics))
        start = find_closing_state(lake, str(options.start_state), semantics.bar_ms) if options.start_state else None
        begin = matters_since(live.until, stretch, semantics) if live else earlier
        read = dataclasses.replace(read, begin=begin, end=NO_END)
        begun = partial(_begun, live, start)
        merge = partial(merged_live, semantics=semantics, prior=begun)
        return Day(day, read, AsLive(read.log, stretch, semantics), begun, merge, suite)
    closed = _before(lake, day, lambda before: closing_state_of(lake, before, semantics.bar_ms))
    read = dataclasses.replace(read, begin=stretch.begin if closed else earlier)
    load = closed.load if closed else no_prior
    merged = partial(merged_closing, until=stretch.end, bar_ms=semantics.bar_ms, prior=load)
    return Day(day, read, Recompute(read.hours, stretch, semantics), load, merged, suite)


def _begun(live: StoredState[LiveStates] | None, start: StoredState[ClosingState] | None) -> Begun:
    return Begun(live.load() if live else LiveStates(), start.load() if start else NOTHING)


def _semantics_of(options: argparse.Namespace) -> Semantics:
    lateness = options.allowed_lateness_ms if options.as_live else max(60_000, options.bar_seconds * 1000)
    return Semantics(
        bar_ms=options.bar_seconds * 1000,
        out_of_orderness_ms=options.out_of_orderness_ms,
        allowed_lateness_ms=lateness,
        dedup_ms=options.dedup_ms,
        max_future_ms=0,  # what was dated later is not in the lake
    )


def _before(lake: Objects, day: datetime.date, state_of: Callable[[datetime.date], State | None]) -> State | None:
    """The state that the day before left; an earlier one, if the days between have no ticks."""
    for back in range(1, _LONGEST_REST + 1):
        before = day - back * _ONE
        state = state_of(before)
        if state or has_day(lake, LAYOUT, before):
            return state
    return None
