"""The news in the daily batch: what becomes of a day of articles.

    lake news/ ─ read ─ score ─┬─ articles ──────────▶ table news_sentiment_ts ┐ replaced in one transaction
                               └─ count ─ windows ─┬─▶ table news_windows_ts   ┘
                                                   └─▶ lake processed/news/

No row depends on how late an article came, so these are the stream's rows with --as_live and without; but another model
or ticker directory gives others.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Callable, Iterable
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from beam_pipelines.command_line import topic_named
from beam_pipelines.daily_quality import ReportQuality
from beam_pipelines.io.lake import LakeStretch, ReadFromLake, WriteRefusedToLake, check_day
from beam_pipelines.io.lake_objects import NEWS_DATA
from beam_pipelines.io.lake_processed import ProcessedFiles, WriteProcessed
from beam_pipelines.io.lake_state import is_marked, mark_done
from beam_pipelines.io.objects import Objects
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.replace import NEWS_TABLES, Replacement, ReplaceRows, new_run
from beam_pipelines.reading import add_reading_flags, reading_of
from beam_pipelines.stream import suite_of
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of
from beam_pipelines.transforms.news import Reading, ScoreValid, known_at
from beam_pipelines.transforms.news_windows import LONGEST_MS, CountNews
from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["LAYOUT", "TABLES", "Day", "add_flags", "check", "day_of", "is_done"]

LAYOUT = NEWS_DATA
TABLES = tuple(it.table for it in NEWS_TABLES)


class Day(NamedTuple):
    """What is computed, and from what."""

    day: datetime.date
    read: LakeStretch  # with the articles that are in windows of the day
    load: Callable[[], Reading]
    suite: Suite  # by which its articles are judged

    def replacement(self, dsn: Dsn) -> Replacement:
        """What it replaces in a database, which is made ready for that."""
        begin = midnight_of(self.day)
        made = Replacement(dsn, new_run(self.day), begin, begin + DAY_MS, tables=NEWS_TABLES)
        made.sweep()
        made.prepare()
        return made

    def build(self, pipeline: beam.Pipeline, replacement: Replacement | None) -> None:
        """The whole graph."""
        begin = midnight_of(self.day)
        articles = pipeline | "Read" >> ReadFromLake(self.read)
        needed = articles | "Needed" >> beam.Map(_needed, begin).with_output_types(tuple[int, pa.RecordBatch])
        scored = needed | "Score" >> ScoreValid(self.load)
        published = scored | "Published" >> beam.Map(_published, begin).with_output_types(pa.RecordBatch)
        windows = scored | "Count" >> CountNews(unbounded=False, day=begin // DAY_MS)
        files = ProcessedFiles(self.read.objects, LAYOUT.dataset, self.day, "windows", "time")
        todays = needed | "Todays" >> beam.Map(_todays, begin).with_output_types(pa.RecordBatch)
        dsn = replacement.dsn if replacement else None
        report = ReportQuality(self.suite, self.day, self.read.objects, dsn)
        after = [windows | "Processed" >> WriteProcessed(files), todays | "Quality" >> report]
        if replacement:
            refused, done = (published, windows) | "Replace" >> ReplaceRows(replacement, LAYOUT.dataset)
            refused | "KeepRefused" >> WriteRefusedToLake(self.read.objects.url)
            after.append(done)
        mark = beam.Map(_mark, self.read.objects, self.day, *map(beam.pvalue.AsIter, after))
        pipeline | "Once" >> beam.Impulse() | "Mark" >> mark


def _needed(element: tuple[int, pa.RecordBatch], begin: int) -> tuple[int, pa.RecordBatch]:
    """The articles that were published on the day that begins then, or that are in its windows."""
    partition, articles = element
    known = known_at(articles)
    recent = pc.and_(pc.greater_equal(known, begin - LONGEST_MS), pc.less(known, begin + DAY_MS))
    return partition, articles.filter(pc.or_(recent, pc.greater_equal(articles["published_at"], begin)))


def _todays(element: tuple[int, pa.RecordBatch], begin: int) -> pa.RecordBatch:
    return element[1].filter(pc.greater_equal(element[1]["published_at"], begin))


def _published(scored: pa.RecordBatch, begin: int) -> pa.RecordBatch:
    published = scored.filter(pc.greater_equal(scored["published_at"], begin))
    Metrics.counter("daily", "articles").inc(len(published))
    return published


def _mark(_: bytes, lake: Objects, day: datetime.date, *_after: Iterable[object]) -> None:
    mark_done(lake, day, LAYOUT.dataset)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What the rows of the news depend on."""
    flag = parser.add_argument_group("news").add_argument
    flag("--news_topic", type=topic_named, help="topic whose articles count, where the lake has those of several")
    add_reading_flags(flag)


def check(options: argparse.Namespace) -> None:
    """Raises UsageError if flags do not go together, or name what is not there."""
    reading_of(options)


def is_done(options: argparse.Namespace, lake: Objects, day: datetime.date) -> bool:  # noqa: ARG001
    """Whether a run over the day came to its end."""
    return is_marked(lake, day, LAYOUT.dataset)


def day_of(options: argparse.Namespace, lake: Objects, day: datetime.date) -> Day:
    """What the flags say of one day.

    Raises:
      UsageError: if the day is not in the lake, or of several topics none is chosen.
    """
    check_day(lake, LAYOUT, day)
    begin = midnight_of(day)
    # An article is in windows of the day if it became known after the longest of them began, and was news then.
    stretch = LakeStretch(
        lake, LAYOUT, begin - 2 * LONGEST_MS, begin + DAY_MS, topic=options.news_topic, topic_flag="--news_topic"
    )
    stretch.find()  # another topic is told here, not by a worker
    return Day(
        day,
        dataclasses.replace(stretch, skip_bad_files=options.on_bad_file == "skip"),
        reading_of(options),
        suite_of(options, "news"),
    )
