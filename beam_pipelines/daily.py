"""The daily batch: a day of ticks from the lake, computed anew as if nothing had been late.

    lake market-data/ ─ read ─ recompute ─┬─ ticks ──▶ table market_data_ts ┐ replaced in one transaction
                                          ├─ bars ───▶ table market_bars_ts │
                                          ├─ days ───▶ daily_market_summary ┘
                                          └─ closing ▶ lake state/

It begins with the closing state that the day before left in the lake, or else warms up on the ticks of some days
before.  To run a day again replaces it again, also while the stream goes on writing.
"""

import argparse
import copy
import datetime
import os
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from rich.console import Console
from rich.progress import track
from rich.table import Table

from beam_pipelines.command_line import WEEK_MS, filled, whole
from beam_pipelines.errors import UsageError, run_main, telling_mistakes
from beam_pipelines.io.lake import LakeStretch, ListByPartition, WriteRefusedToLake, check_day, check_lake, has_day
from beam_pipelines.io.lake_objects import MARKET_DATA
from beam_pipelines.io.lake_state import StoredState, WriteClosingState, begin_of, closing_state_of
from beam_pipelines.io.objects import Objects, objects_in
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.replace import MARKET_TABLES, Replacement, ReplaceRows
from beam_pipelines.io.timescale import check_timescale
from beam_pipelines.options import parse
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.summary import counters_of, daily_summary
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of, no_prior
from beam_pipelines.transforms.day import Recomputed, RecomputeTicks, Stretch

__all__ = ["Day", "add_flags", "build", "main"]

_ONE = datetime.timedelta(days=1)
_LONGEST_REST = 14  # days without any tick over which indicators go on: markets close for a week at times


class Day(NamedTuple):
    """What is computed, and from what."""

    day: datetime.date
    read: LakeStretch  # with the ticks that warm the indicators up
    stretch: Stretch
    semantics: Semantics
    prior: StoredState | None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the daily batch."""
    flag = parser.add_argument
    flag("--date", type=_date, help="the day, UTC, as 2026-11-20 (yesterday)")
    flag("--from", dest="first", type=_date, help="the first of several days, computed one after the other")
    flag("--to", dest="last", type=_date, help="the last of them")
    flag("--resume", action="store_true", help="go on after the last of these days whose closing state is in the lake")
    flag("--symbols", type=_symbols, help="only these, A,B,C (all); the day's closing state is then not written")
    flag("--lake", type=filled, required=True, help="s3://bucket/prefix or a folder, which the stream has written")
    flag("--timescale_dsn", type=filled, help="database; better in the environment as TIMESCALE_DSN")
    warm = "days of ticks to begin with where the day before left no closing state (%(default)s)"
    flag("--warmup_days", type=whole(0, 366), default=1, help=warm)
    bad = "what a file in the lake that cannot be read does: end the run, or be named and counted (%(default)s)"
    flag("--on_bad_file", choices=("fail", "skip"), default="fail", help=bad)
    flag("--bar_seconds", type=whole(1, WEEK_MS // 1000), default=60, help="length of a bar (%(default)s)")
    late = "the stream's bound on disorder, by which the share of late ticks is told (%(default)s)"
    flag("--out_of_orderness_ms", type=whole(0, WEEK_MS), default=1_000, help=late)
    dedup = "more than 0: of ticks with one identity the first counts; 0: all (%(default)s)"
    flag("--dedup_ms", type=whole(0, WEEK_MS), default=60_000, help=dedup)


def _date(text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: give one as 2026-11-20") from None
    if day >= _today():
        raise argparse.ArgumentTypeError(f"{text} is not over (UTC): give a day before today")
    return day


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
      UsageError: if the day is not in the lake, or the closing state of the day before cannot be used.
    """
    check_day(lake, MARKET_DATA, day)
    semantics = Semantics(
        bar_ms=options.bar_seconds * 1000,
        out_of_orderness_ms=options.out_of_orderness_ms,
        allowed_lateness_ms=max(60_000, options.bar_seconds * 1000),
        dedup_ms=options.dedup_ms,
    )
    stretch = Stretch(begin_of(day - _ONE, semantics.bar_ms), begin_of(day, semantics.bar_ms), midnight_of(day))
    if stretch.begin == stretch.end:
        raise UsageError(f"no bar of --bar_seconds={options.bar_seconds} ends on {day}: give shorter bars")
    prior = _prior(lake, day, semantics.bar_ms)
    first = stretch.begin if prior else stretch.begin - options.warmup_days * DAY_MS
    read = LakeStretch(lake, MARKET_DATA, first, stretch.end, options.symbols, options.on_bad_file == "skip")
    return Day(day, read, stretch, semantics, prior)


def _prior(lake: Objects, day: datetime.date, bar_ms: int) -> StoredState | None:
    """The closing state of the day before; of an earlier one, if the days between have no ticks."""
    for back in range(1, _LONGEST_REST + 1):
        before = day - back * _ONE
        state = closing_state_of(lake, before, bar_ms)
        if state or has_day(lake, MARKET_DATA, before):
            return state
    return None


def build(pipeline: beam.Pipeline, day: Day, replacement: Replacement | None) -> Recomputed:
    """The whole graph; gives the rows for tests to look at."""
    load = day.prior.load if day.prior else no_prior
    recompute = RecomputeTicks(day.read.hours, day.stretch, day.semantics, load)
    market: Recomputed = pipeline | "Read" >> ListByPartition(day.read) | "Market" >> recompute
    done = None
    if replacement:
        tables = (market.ticks, market.bars, market.summaries)
        refused, done = tables | "Replace" >> ReplaceRows(replacement, MARKET_DATA.dataset)
        refused | "KeepRefused" >> WriteRefusedToLake(day.read.objects.url)
    if day.read.symbols is None:  # last of all: whoever finds it knows that the day is done
        close = WriteClosingState(day.read.objects, day.day, day.semantics.bar_ms, load, done)
        market.closing | "Close" >> close
    return market


def main(argv: Sequence[str]) -> int:
    """Runs one day, or one after the other."""
    options, beam_options = parse(argv, add_flags, "beam_pipelines.daily", str(__doc__).splitlines()[0])
    days = _days_asked(options)
    check_lake(options.lake)
    named = options.timescale_dsn or os.environ.get("TIMESCALE_DSN")
    dsn = Dsn(named) if named else None
    if dsn:
        check_timescale(dsn, [it.table for it in MARKET_TABLES])
    lake, console = objects_in(options.lake), Console()
    if options.resume:
        days = _remaining(lake, days, options.bar_seconds * 1000)
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


def _remaining(lake: Objects, days: list[datetime.date], bar_ms: int) -> list[datetime.date]:
    """The days after the last one that is done."""
    done = [number for number, day in enumerate(days) if closing_state_of(lake, day, bar_ms)]
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
    run = f"{day.day:%Y%m%d}_{uuid.uuid4().hex[:8]}"
    made = Replacement(dsn, run, day.stretch.begin, day.stretch.end, day.semantics.bar_ms // 1000, day.read.symbols)
    made.prepare()
    return made


if __name__ == "__main__":
    from beam_pipelines import daily  # by its name: workers cannot import what lives in __main__

    run_main(daily.main)
