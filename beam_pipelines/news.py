"""The news stream: raw articles and posts become sentiment by symbol.

    news-raw ─ read ─ score ─┬─ articles ─┬────────▶ Kafka news-sentiment-stream, table news_sentiment_ts
                             │            └ count ─▶ table news_windows_ts
                             ├─ valid ─────────────▶ lake news/
                             └─ rejects ───────────▶ Kafka dead-letters, lake dead-letter/

Without a flag it is the embedded default: sample articles on the DirectRunner, into ./lake, and a table of what they
say.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beam_pipelines.article_files import check_articles, raw_articles, sample_articles
from beam_pipelines.command_line import WEEK_MS, file, whole
from beam_pipelines.errors import run_main
from beam_pipelines.io.kafka import Pace, ReadFromKafka, WriteToKafka
from beam_pipelines.io.lake import WriteToLake
from beam_pipelines.io.lake_objects import NEWS_DATA
from beam_pipelines.io.tables import DATA_QUALITY, NEWS_SENTIMENT, NEWS_WINDOWS
from beam_pipelines.io.timescale import WriteToTimescale
from beam_pipelines.reading import add_reading_flags, reading_of
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.stream import (
    Check,
    Prepared,
    ReadBatches,
    Sinks,
    add_sink_flags,
    add_topic_flags,
    check_of_runner,
    checks_of_metrics,
    checks_of_sinks,
    has_no_end,
    monitor_of,
    nobody,
    run_stream,
    sinks_of,
    streams_suite_of,
    write_dead_letters,
    write_quality,
)
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.news import Reading, ScoreArticles, Scored, sentiment_messages
from beam_pipelines.transforms.news_windows import CountNews
from beam_pipelines.transforms.quality_minutes import JudgeMinutes
from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["FIXED", "add_flags", "build", "checks_of", "main", "pipeline_of"]

FIXED = frozenset(("topic", "start"))
"""Flags that a job which goes on from the state of another must not be given otherwise."""
PARTITIONS = 4  # of files
_SHOWN = 40  # articles


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the news stream."""
    source = parser.add_argument_group("input (sample articles if neither is given)").add_argument
    source("--input", type=file, help="file of articles: .ndjson or .jsonl, perhaps .gz")
    add_topic_flags(source, "news-raw", "articles")
    add_sink_flags(parser.add_argument_group("outputs").add_argument, "news-sentiment-stream", "scored articles")
    meaning = parser.add_argument_group("meaning of the outputs").add_argument
    future = "how many ms after their records articles may be dated; others are rejected (%(default)s)"
    meaning("--max_future_ms", type=whole(0, WEEK_MS), default=60_000, help=future)
    add_reading_flags(meaning)


def build(
    pipeline: beam.Pipeline,
    read: beam.PTransform,
    load: Callable[[], Reading],
    max_future_ms: int,
    sinks: Sinks,
    unbounded: bool,
    suite: Suite | None = None,
) -> Scored:
    """The whole graph; gives the scored outputs for tests to look at."""
    news: Scored = pipeline | "Read" >> read | "Score" >> ScoreArticles(load, max_future_ms, sinks.monitor)
    refused = []
    if sinks.timescale_dsn:
        windows = news.articles | "Count" >> CountNews(unbounded)
        write = partial(WriteToTimescale, dsn=sinks.timescale_dsn, topic=sinks.raw_topic, monitor=sinks.monitor)
        refused = [
            news.articles | "WriteArticles" >> write(NEWS_SENTIMENT),
            windows | "WriteWindows" >> write(NEWS_WINDOWS),
        ]
    if sinks.kafka:
        messages = news.articles | "AsMessages" >> beam.Map(sentiment_messages).with_output_types(pa.RecordBatch)
        messages | "Publish" >> WriteToKafka(sinks.processed_topic, sinks.kafka, monitor=sinks.monitor)
    if sinks.lake:
        news.valid | "WriteLake" >> WriteToLake(sinks.lake, sinks.lake_layout, monitor=sinks.monitor)
    if unbounded and suite:
        refused += write_quality(news.valid | "Judge" >> JudgeMinutes(suite, sinks.monitor), sinks)
    write_dead_letters(news.dead_letters, refused, sinks, "news")
    return news


def show(batches: Sequence[pa.RecordBatch]) -> None:
    """Prints what articles say."""
    table = Table(title="what the articles say", caption=f"the first {_SHOWN} by time")
    for name in ("published", "symbols", "score", "sentiment", "category"):
        table.add_column(name, justify="right" if name == "score" else "left", no_wrap=name != "symbols")
    table.add_column("title", ratio=1)
    rows = [row for batch in batches for row in batch.to_pylist()]
    for row in sorted(rows, key=lambda it: (it["published_at"], it["article_id"]))[:_SHOWN]:
        table.add_row(*map(Text, _cells(row)))  # brackets in it are no markup
    Console().print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    score = row["sentiment_score"]
    symbols = ", ".join(
        symbol if each in (None, score) else f"{symbol} {each:+.2f}"
        for symbol, each in zip(row["symbols"], row["symbol_scores"], strict=True)
    )
    published = pa.scalar(row["published_at"], pa.timestamp("ms")).as_py().strftime("%m-%d %H:%M")
    said = ["", str(row["language"])] if score is None else [f"{score:+.2f}", str(row["sentiment_category"])]
    return [published, symbols, *said, str(row["news_category"]), str(row["title"])]


def checks_of(options: argparse.Namespace, beam_options: PipelineOptions) -> list[Check]:
    """What must answer before the job is started.

    Raises:
      UsageError: if flags do not go together, or what articles are read with is wrong.
    """
    sinks = sinks_of(options, NEWS_DATA, options.topic)
    reading_of(options)
    read = [] if options.input else [options.topic]
    checks = checks_of_sinks(sinks, read, [NEWS_SENTIMENT, NEWS_WINDOWS, DATA_QUALITY])
    if options.input:
        checks.insert(0, Check(f"file {options.input}", partial(check_articles, options.input)))
    runner = check_of_runner(beam_options, has_no_end(options, sinks))
    return [*checks, runner, *checks_of_metrics(options, "news")]


def pipeline_of(options: argparse.Namespace, beam_options: PipelineOptions) -> Prepared:
    """The graph that the flags name.

    Raises:
      UsageError: if it cannot be built so.
    """
    sinks = sinks_of(options, NEWS_DATA, options.topic)._replace(monitor=monitor_of("news", beam_options))
    suite, unbounded = streams_suite_of(options, "news", ARTICLES), has_no_end(options, sinks)
    pipeline, read = new_pipeline(beam_options, unbounded), _source_of(options, sinks)
    news = build(pipeline, read, reading_of(options), options.max_future_ms, sinks, unbounded, suite)
    if not sinks.kafka and not sinks.timescale_dsn:
        news.articles | "Together" >> beam.combiners.ToList() | "Show" >> beam.Map(show)
    return Prepared("news", pipeline, sinks, unbounded)


def main(argv: Sequence[str], begun: Callable[[], None] = nobody) -> int:
    """Runs the pipeline to its end; an unbounded one until it is cancelled.

    Args:
      argv: the command line without the program's name.
      begun: is called when it runs.
    """
    return run_stream(sys.modules[__name__], argv, begun)


def _source_of(options: argparse.Namespace, sinks: Sinks) -> beam.PTransform:
    if options.input:
        return ReadBatches(lambda: raw_articles(options.input, PARTITIONS))
    if sinks.kafka:
        start = options.start or "earliest"
        return ReadFromKafka(
            options.topic, sinks.kafka, start, bounded=options.bounded, pace=Pace(), monitor=sinks.monitor
        )
    return ReadBatches(lambda: sample_articles(PARTITIONS))


if __name__ == "__main__":
    from beam_pipelines import news  # by its name: workers cannot import what lives in __main__

    run_main(news.main)
