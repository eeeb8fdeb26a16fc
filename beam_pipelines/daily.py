"""The daily batch: a day of the lake computed anew, as if nothing had been late.

What it makes of each dataset says that dataset's module: `daily_market`.  To run a day again replaces it again, also
while the stream goes on writing.
"""

import argparse
import copy
import dataclasses
import datetime
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from rich.console import Console
from rich.progress import track

from beam_pipelines import daily_market, daily_news
from beam_pipelines.command_line import today, utc_day
from beam_pipelines.errors import UsageError, run_main, telling_mistakes
from beam_pipelines.exposing import add_metrics_flags, exposed
from beam_pipelines.io.lake import check_day, check_lake, has_day
from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.objects import Objects, objects_in
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.replace import Replacement
from beam_pipelines.io.tables import Table
from beam_pipelines.io.timescale import check_timescale
from beam_pipelines.options import parse
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.stream import (
    Check,
    add_database_flag,
    add_quality_flag,
    begin,
    check_of_runner,
    checks_of_metrics,
    lake_place,
    nobody,
)
from beam_pipelines.summary import counters_of, daily_summary
from beam_pipelines.transforms.monitor import PipelineMonitor

__all__ = ["DATASETS", "Dataset", "Day", "add_flags", "checks_of", "main"]

_ONE = datetime.timedelta(days=1)


class Day(Protocol):
    """A day of a dataset, to be computed."""

    def replacement(self, dsn: Dsn) -> Replacement:
        """What it replaces in a database, which is made ready for that."""

    def build(self, pipeline: beam.Pipeline, replacement: Replacement | None) -> None:
        """The whole graph."""


class Dataset(Protocol):
    """A module that says what the batch makes of a dataset."""

    LAYOUT: Layout  # in the lake
    TABLES: tuple[Table, ...]  # that it replaces

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """What its rows depend on."""

    def check(self, options: argparse.Namespace) -> None:
        """Raises UsageError if flags do not go together."""

    def is_done(self, options: argparse.Namespace, lake: Objects, day: datetime.date) -> bool:
        """Whether a run over the day came to its end."""

    def day_of(self, options: argparse.Namespace, lake: Objects, day: datetime.date) -> Day:
        """What the flags say of one day."""


DATASETS: tuple[Dataset, ...] = (daily_market, daily_news)
"""What is computed, in this order, of what is in the lake."""


def checks_of(options: argparse.Namespace, beam_options: PipelineOptions) -> list[Check]:
    """What must answer before the job is started.

    Raises:
      UsageError: if flags do not go together, or name a file that is not there.
    """
    days = _days_asked(options)
    for dataset in DATASETS:
        dataset.check(options)
    checks = [Check(f"lake {options.lake}", partial(check_lake, options.lake))]
    dsn = _dsn_of(options)
    if dsn:
        tables = [table for dataset in DATASETS for table in dataset.TABLES]
        what = f"tables {', '.join(table.name for table in tables)}"
        checks.append(Check(what, partial(check_timescale, dsn, tables)))
    checks += checks_of_metrics(options, "daily")
    if len(days) == 1:
        checks.append(Check(f"{days[0]} in the lake", partial(_check_day, options.lake, days[0]), checks[0].what))
    return [*checks, check_of_runner(beam_options, unbounded=False)]


def _check_day(root: str, day: datetime.date) -> None:
    lake = objects_in(root)
    if not any(has_day(lake, dataset.LAYOUT, day) for dataset in DATASETS):
        check_day(lake, DATASETS[0].LAYOUT, day)


def _dsn_of(options: argparse.Namespace) -> Dsn | None:
    named = options.timescale_dsn or os.environ.get("TIMESCALE_DSN")
    return Dsn(named) if named else None


def main(argv: Sequence[str], begun: Callable[[], None] = nobody) -> int:
    """Runs one day, or one after the other.

    Args:
      argv: the command line without the program's name.
      begun: is called when it runs.
    """
    options, beam_options = parse(argv, add_flags, "beam_pipelines.daily", str(__doc__).splitlines()[0])
    for check in checks_of(options, beam_options):
        check.run()
    days, dsn = _days_asked(options), _dsn_of(options)
    lake, console = objects_in(options.lake), Console()
    present = [dataset for dataset in DATASETS if any(has_day(lake, dataset.LAYOUT, day) for day in days)]
    with exposed(options, "daily"):
        for dataset in present or DATASETS[:1]:
            name, remaining = dataset.LAYOUT.dataset, _remaining(dataset, options, lake, days)
            for day in track(remaining, name, console=Console(stderr=True), disable=len(remaining) < 2):
                if len(days) > 1 and not has_day(lake, dataset.LAYOUT, day):
                    console.print(f"{day}: no {name} in the lake")
                    continue
                counters, seconds = _run(dataset.day_of(options, lake, day), dsn, copy.deepcopy(beam_options), begun)
                _tell(name, counters, seconds)
                console.print(daily_summary(name, counters, day, seconds))
    return 0


def _tell(dataset: str, counters: Counter[tuple[str, str]], seconds: float) -> None:
    """Takes down what a day's run has done, as Beam counted it."""
    monitor = PipelineMonitor("daily")
    monitor.record_processing_time(dataset, seconds)
    for (namespace, status), count in counters.items():
        if namespace == "daily":
            monitor.record_messages(dataset, status, count)
        elif namespace == "dead_letters":
            monitor.record_dead_letters(status, count)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the daily batch, those of all datasets included."""
    flag = parser.add_argument_group("days").add_argument
    flag("--date", type=_DATE, help="the day, UTC, as 2026-11-20 (yesterday); today leaves no closing state")
    flag("--from", dest="first", type=_DATE, help="the first of several days, computed one after the other")
    flag("--to", dest="last", type=_DATE, help="the last of them")
    flag("--resume", action="store_true", help="go on after the last of these days whose closing state is in the lake")
    flag = parser.add_argument_group("input and outputs").add_argument
    flag("--lake", type=lake_place, required=True, help="what the stream has written, s3://bucket/prefix or a folder")
    add_database_flag(flag)
    bad = "what a file in the lake that cannot be read does: end the run, or be named and counted (%(default)s)"
    flag("--on_bad_file", choices=("fail", "skip"), default="fail", help=bad)
    add_quality_flag(flag)
    add_metrics_flags(flag)
    for dataset in DATASETS:
        dataset.add_flags(parser)


_day = utc_day()


def _date(text: str) -> datetime.date:
    asked = _day(text)
    if asked > today():
        raise argparse.ArgumentTypeError(f"{text} is still to come (UTC): give today or a day before")
    return asked


_DATE = dataclasses.replace(_day, parse=_date)


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
    return [options.date or today() - _ONE]


def _remaining(
    dataset: Dataset, options: argparse.Namespace, lake: Objects, days: list[datetime.date]
) -> list[datetime.date]:
    """All days, or to go on with those after the last one that is done."""
    if not options.resume:
        return days
    done = [number for number, day in enumerate(days) if dataset.is_done(options, lake, day)]
    return days[max(done, default=-1) + 1 :]


def _run(
    day: Day, dsn: Dsn | None, beam_options: PipelineOptions, begun: Callable[[], None]
) -> tuple[Counter[tuple[str, str]], float]:
    """Runs one day; gives its counters, and how many seconds it took."""
    replacement = day.replacement(dsn) if dsn else None
    began = time.monotonic()
    try:
        with telling_mistakes():
            pipeline = new_pipeline(beam_options, unbounded=False)
            day.build(pipeline, replacement)
            result = begin(pipeline, begun)
            state = result.wait_until_finish()
            if state != PipelineState.DONE:
                raise RuntimeError(f"the job ended as {state}")
    finally:
        if replacement:
            replacement.clean()
    return counters_of(result), time.monotonic() - began


if __name__ == "__main__":
    from beam_pipelines import daily  # by its name: workers cannot import what lives in __main__

    run_main(daily.main)
