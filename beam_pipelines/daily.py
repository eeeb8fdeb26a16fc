"""The daily batch: a day of ticks from the lake, computed anew as if nothing had been late.

    lake market-data/ ─ read ─ recompute ─┬─ ticks ──────▶ table market_data_ts       ┐
                                          ├─ bars ───────▶ table market_bars_ts       │ replaced in one transaction
                                          ├─ summaries ──▶ table daily_market_summary ┘
                                          ├─ bars, summaries ▶ lake processed/market-data/
                                          └─ closing state ──▶ lake state/

It begins with the closing state that the day before left in the lake, or else warms up on the ticks of some days
before.  To run a day again replaces it again, also while the stream goes on writing.  At the end the small objects of
the day's ticks become one for each hour of a partition.

With --as_live the tables get the rows that the stream gave them: late ticks late, too late ones left out.
"""

import argparse
import copy
import dataclasses
import datetime
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from rich.console import Console
from rich.progress import track
from rich.table import Table

from beam_pipelines.command_line import WEEK_MS, filled, whole
from beam_pipelines.errors import UsageError, run_main, telling_mistakes
from beam_pipelines.io.lake import (
    NO_END,
    CompactLake,
    LakeStretch,
    ListByPartition,
    WriteRefusedToLake,
    check_day,
    check_lake,
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
from beam_pipelines.io.objects import Objects, objects_in
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.replace import MARKET_TABLES, STREAM_TABLES, Replacement, ReplaceRows, new_run
from beam_pipelines.io.timescale import check_timescale
from beam_pipelines.options import parse
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.summary import counters_of, daily_summary
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.as_live import AsLive, Begun, LiveStates, matters_since
from beam_pipelines.transforms.closing_state import DAY_MS, NOTHING, ClosingState, midnight_of, no_prior
from beam_pipelines.transforms.day import Computed, ComputeDay, Recompute, Stretch

__all__ = ["Day", "add_flags", "build", "main"]

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

    @property
    def live(self) -> bool:
        """Whether its rows are those of the stream."""
        return isinstance(self.compute, AsLive)

    @property
    def over(self) -> bool:
        """Whether no tick of it can come any more but late ones."""
        return self.day < _today()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the daily batch."""
    flag = parser.add_argument
    flag("--date", type=_date, help="the day, UTC, as 2026-11-20 (yesterday); today leaves no closing state")
    flag("--from", dest="first", type=_date, help="the first of several days, computed one after the other")
    flag("--to", dest="last", type=_date, help="the last of them")
    flag("--resume", action="store_true", help="go on after the last of these days whose closing state is in the lake")
    live = "the rows as the stream gave them: with its options, of all symbols, into its tables alone"
    flag("--as_live", action="store_true", help=live)
    start = "the --start_state that the stream was given; for --as_live"
    flag("--start_state", type=_start_state, help=start)
    flag("--symbols", type=_symbols, help="only these, A,B,C (all); the day's closing state is then not written")
    topic = "whose ticks, where the lake has those of several"
    flag("--topic", type=filled, help=topic)
    flag("--lake", type=filled, required=True, help="s3://bucket/prefix or a folder, which the stream has written")
    flag("--timescale_dsn", type=filled, help="database; better in the environment as TIMESCALE_DSN")
    warm = "days of ticks to begin with where the day before left no closing state (%(default)s)"
    flag("--warmup_days", type=whole(0, 366), default=1, help=warm)
    bad = "what a file in the lake that cannot be read does: end the run, or be named and counted (%(default)s)"
    flag("--on_bad_file", choices=("fail", "skip"), default="fail", help=bad)
    flag("--bar_seconds", type=whole(1, WEEK_MS // 1000), default=60, help="length of a bar (%(default)s)")
    late = "the stream's bound on disorder, by which late ticks are told (%(default)s)"
    flag("--out_of_orderness_ms", type=whole(0, WEEK_MS), default=1_000, help=late)
    allowed = "what the stream was given; for --as_live (%(default)s)"
    flag("--allowed_lateness_ms", type=whole(1, WEEK_MS), default=60_000, help=allowed)
    dedup = "more than 0: of ticks with one identity the first counts, --as_live: within; 0: all (%(default)s)"
    flag("--dedup_ms", type=whole(0, WEEK_MS), default=60_000, help=dedup)


def _date(text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: give one as 2026-11-20") from None
    if day > _today():
        raise argparse.ArgumentTypeError(f"{text} is still to come (UTC): give today or a day before")
    return day


def _start_state(text: str) -> str:
    try:
        return str(datetime.date.fromisoformat(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: give the one that the stream began with") from None


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(sorted({symbol.strip().upper() for symbol in text.split(",")}))
    if "" in symbols:
        raise argparse.ArgumentTypeError(f"{text!r} names an empty symbol: give them as A,B,C")
    return symbols


def day_of(options: argparse.Namespace, lake: Objects, day: datetime.date) -> Day:
    """What the flags say of one day.

    Raises:
      UsageError: if the day is not in the lake, or the state that the day before left cannot be used.
    """
    check_day(lake, MARKET_DATA, day)
    semantics = _semantics_of(options)
    stretch = Stretch(begin_of(day - _ONE, semantics.bar_ms), begin_of(day, semantics.bar_ms), midnight_of(day))
    if stretch.begin == stretch.end:
        raise UsageError(f"no bar of --bar_seconds={options.bar_seconds} ends on {day}: give shorter bars")
    read = LakeStretch(
        lake, MARKET_DATA, stretch.begin, stretch.end, options.symbols, options.on_bad_file == "skip", options.topic
    )
    earlier = stretch.begin - options.warmup_days * DAY_MS
    if options.as_live:
        live = _before(lake, day, lambda before: live_state_of(lake, before, semantics))
        start = find_closing_state(lake, options.start_state, semantics.bar_ms) if options.start_state else None
        begin = matters_since(live.until, stretch, semantics) if live else earlier
        read = dataclasses.replace(read, begin=begin, end=NO_END)
        begun = partial(_begun, live, start)
        merge = partial(merged_live, semantics=semantics, prior=begun)
        return Day(day, read, AsLive(read.log, stretch, semantics), begun, merge)
    closed = _before(lake, day, lambda before: closing_state_of(lake, before, semantics.bar_ms))
    read = dataclasses.replace(read, begin=stretch.begin if closed else earlier)
    load = closed.load if closed else no_prior
    merged = partial(merged_closing, until=stretch.end, bar_ms=semantics.bar_ms, prior=load)
    return Day(day, read, Recompute(read.hours, stretch, semantics), load, merged)


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
        if state or has_day(lake, MARKET_DATA, before):
            return state
    return None


def build(pipeline: beam.Pipeline, day: Day, replacement: Replacement | None) -> Computed:
    """The whole graph; gives the rows for tests to look at."""
    compute = ComputeDay(day.compute, day.prior)
    market: Computed = pipeline | "Read" >> ListByPartition(day.read) | "Market" >> compute
    done = None
    if replacement:
        tables = (market.ticks, market.bars, market.summaries)[: len(replacement.tables)]
        refused, done = tables | "Replace" >> ReplaceRows(replacement, MARKET_DATA.dataset)
        refused | "KeepRefused" >> WriteRefusedToLake(day.read.objects.url)
    after = [done] if done else []
    if day.read.symbols is None and not day.live:
        after += _write_processed(market, day)
    if day.read.symbols is None and day.over:
        _close(market, day, after)
    return market


def _close(market: Computed, day: Day, after: list[beam.PCollection]) -> None:
    """Last of all, for whoever finds the state knows that the day is done; and then what readers do not notice."""
    lake, bar_ms = day.read.objects, day.compute.semantics.bar_ms
    closed = market.closing | "Close" >> WriteState(lake, day.day, bar_ms, day.live, day.merged, after)
    if not day.live:
        midnight = midnight_of(day.day)
        hours = dataclasses.replace(day.read, begin=midnight, end=midnight + DAY_MS)
        market.closing.pipeline | "Compact" >> CompactLake(hours, closed)


def _write_processed(market: Computed, day: Day) -> list[beam.PCollection]:
    bars = ProcessedFiles(day.read.objects, day.day, f"bars-{day.compute.semantics.bar_ms // 1000}s", "time")
    summaries = ProcessedFiles(day.read.objects, day.day, "summaries", "day")
    return [
        market.bars | "ProcessedBars" >> WriteProcessed(bars),
        market.summaries | "ProcessedSummaries" >> WriteProcessed(summaries),
    ]


def main(argv: Sequence[str]) -> int:
    """Runs one day, or one after the other."""
    options, beam_options = parse(argv, add_flags, "beam_pipelines.daily", str(__doc__).splitlines()[0])
    days = _days_asked(options)
    if options.start_state and not options.as_live:
        raise UsageError("--start_state is what the stream began with, for --as_live: leave it out, or add that")
    if options.as_live and options.symbols:
        raise UsageError("--as_live is for all symbols, because they share a clock: leave --symbols out")
    check_lake(options.lake)
    named = options.timescale_dsn or os.environ.get("TIMESCALE_DSN")
    dsn = Dsn(named) if named else None
    if dsn:
        check_timescale(dsn, [it.table for it in MARKET_TABLES])
    lake, console = objects_in(options.lake), Console()
    if options.resume:
        days = _remaining(lake, days, options.bar_seconds * 1000, options.as_live)
    for day in track(days, "days", console=Console(stderr=True), disable=len(days) < 2):
        if len(days) > 1 and not has_day(lake, MARKET_DATA, day):
            console.print(f"{day}: no ticks in the lake")
            continue
        console.print(_run(day_of(options, lake, day), dsn, copy.deepcopy(beam_options)))
    return 0


def _days_asked(options: argparse.Namespace) -> list[datetime.date]:
    first, last = options.first, options.last
    if options.date and (first or last):
        raise UsageError("--date is for one day, --from and --to for several: give the one or the others")
    if bool(first) != bool(last):
        raise UsageError("--from and --to need each other: give both")
    if options.resume and not first:
        raise UsageError("--resume is for several days: give --from and --to")
    if first and first > last:
        raise UsageError(f"--from={first} is after --to={last}: correct one of them")
    if first:
        return [first + number * _ONE for number in range((last - first).days + 1)]
    return [options.date or _today() - _ONE]


def _remaining(lake: Objects, days: list[datetime.date], bar_ms: int, live: bool) -> list[datetime.date]:
    """The days after the last one that is done."""
    done = [number for number, day in enumerate(days) if has_state(lake, day, bar_ms, live)]
    return days[max(done, default=-1) + 1 :]


def _run(day: Day, dsn: Dsn | None, beam_options: PipelineOptions) -> Table:
    """Runs one day; gives what it has done."""
    replacement = _replacement(dsn, day) if dsn else None
    began = time.monotonic()
    try:
        with telling_mistakes():
            pipeline = new_pipeline(beam_options, unbounded=False)
            build(pipeline, day, replacement)
            result = pipeline.run()
            state = result.wait_until_finish()
            if state != PipelineState.DONE:
                raise RuntimeError(f"the job ended as {state}")
    finally:
        if replacement:
            replacement.clean()
    return daily_summary(counters_of(result), day.day, time.monotonic() - began)


def _replacement(dsn: Dsn, day: Day) -> Replacement:
    stretch, seconds = day.compute.stretch, day.compute.semantics.bar_ms // 1000
    tables = STREAM_TABLES if day.live else MARKET_TABLES
    made = Replacement(dsn, new_run(day.day), stretch.begin, stretch.end, seconds, day.read.symbols, tables)
    made.sweep()
    made.prepare()
    return made


if __name__ == "__main__":
    from beam_pipelines import daily  # by its name: workers cannot import what lives in __main__

    run_main(daily.main)
