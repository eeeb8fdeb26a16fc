"""The market stream: raw ticks become enriched ticks and bars.

    market-data-raw ─ read ─ enrich ─┬─ ticks ──▶ Kafka market-data-processed, table market_data_ts
                                     ├─ bars ───▶ table market_bars_ts
                                     ├─ anomalies ▶ Kafka market-anomalies, table market_anomalies_ts
                                     ├─ quality ▶ Kafka data-quality-alerts, table data_quality_ts
                                     ├─ valid ──▶ lake market-data/
                                     └─ rejects ▶ Kafka dead-letters, lake dead-letter/

With --repartition the raw topic is first copied, by the same job, to one that is keyed by symbol, and that is read.
Without a flag it is the embedded default: a simulated session on the DirectRunner, into ./lake.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.command_line import DAY, WEEK_MS, Kind, file, topic_written, utc_day, whole
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.kafka import (
    Pace,
    ReadFromKafka,
    WriteToKafka,
    follow_kafka,
)
from beam_pipelines.io.lake import WriteToLake
from beam_pipelines.io.lake_objects import MARKET_DATA as MARKET_DATA_LAYOUT
from beam_pipelines.io.lake_state import LATEST, StoredState, find_closing_state
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.repartition import CopyBySymbol, by_symbol, likeness_of
from beam_pipelines.io.tables import DATA_QUALITY, MARKET_ANOMALIES, MARKET_BARS, MARKET_DATA
from beam_pipelines.io.timescale import WriteToTimescale
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.sending import ensure_topic
from beam_pipelines.simulate import Session, raw_batches
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
from beam_pipelines.tick_files import check_file, raw_batches_from_file
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.closing_state import ClosingState
from beam_pipelines.transforms.enrich import Enriched, EnrichTicks, Records
from beam_pipelines.transforms.messages import anomaly_messages, processed_messages
from beam_pipelines.transforms.quality_minutes import QualityRules
from beam_pipelines.transforms.sessions import parse_calendars

__all__ = ["FIXED", "Sinks", "Source", "add_flags", "build", "checks_of", "main", "pipeline_of"]

Prior = StoredState[ClosingState] | None
"""What a log begins with."""

PARTITIONS = 4  # of files and simulated sessions


_day = utc_day(f"give one as 2024-01-31, or {LATEST}")
_START_STATE = Kind(
    lambda text: text if text == LATEST else str(_day(text)),
    f"a day of UTC, such as 2024-01-31, or {LATEST}",
    f"{DAY}|{LATEST}",
    (LATEST, *_day.good),
    _day.bad,
)


def _calendar(text: str) -> str:
    parse_calendars([text])
    return text


_CALENDAR = Kind(
    _calendar,
    "PATTERN=CALENDAR, a regular expression for symbols and a calendar's name",
    r"[^\s=-][^\s=]*=\S+",
    (r".*\.L=XLON", "BTC.*=24/7"),
    ("", "XLON", "=XLON", "A="),
)

FIXED = frozenset(
    (
        *("topic", "start", "start_state", "repartition", "lake_slot_seconds"),  # which records the state has read
        *("bar_seconds", "out_of_orderness_ms", "allowed_lateness_ms"),  # which bars in it are open, closed or sealed
    )
)
"""Flags that a job which goes on from the state of another must not be given otherwise."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the market stream."""
    _add_source(parser.add_argument_group("input (a simulated session if neither is given)").add_argument)
    _add_sinks(parser.add_argument_group("outputs").add_argument)
    _add_meaning(parser.add_argument_group("meaning of the outputs (event time)").add_argument)


def _add_source(flag: Callable[..., object]) -> None:
    flag("--input", type=file, help="file of ticks: .csv .ndjson .parquet or a Lean .zip")
    add_topic_flags(flag, "market-data-raw", "ticks", "earliest, or where --start_state ends")
    state = "begin with the lake's closing state of a day, 2024-01-31 or latest: older ticks are counted, not used"
    flag("--start_state", type=_START_STATE, help=state)
    copy = "the topic is not keyed by symbol: copy it to TOPIC-by-symbol, and read that; with --bounded only read that"
    flag("--repartition", action="store_true", help=copy)
    flag("--ticks", type=whole(1, 10**7), default=100_000, help="ticks of the simulated session (%(default)s)")
    flag("--seed", type=whole(0, 2**63 - 1), default=1, help="seed of the simulated session (%(default)s)")


def _add_sinks(flag: Callable[..., object]) -> None:
    add_sink_flags(flag, "market-data-processed", "enriched ticks")
    flag("--anomaly_topic", type=topic_written, default="market-anomalies", help="topic of anomalies (%(default)s)")
    slot = "log time in one object of the lake, s (300; 3600 if the input is no topic)"
    flag("--lake_slot_seconds", type=whole(1, 86_400), help=slot)
    flag("--lake_compression", default="snappy", choices=("snappy", "zstd"), help="of the lake's objects (%(default)s)")


def _add_meaning(flag: Callable[..., object]) -> None:
    some, length = whole(0, WEEK_MS), whole(1, WEEK_MS)
    flag("--bar_seconds", type=whole(1, WEEK_MS // 1000), default=60, help="length of a bar, s (%(default)s)")
    flag("--out_of_orderness_ms", type=some, default=1_000, help="bound on disorder, ms (%(default)s)")
    late = "how late ticks may be, ms; later ones are dead letters (%(default)s)"
    flag("--allowed_lateness_ms", type=length, default=60_000, help=late)
    flag("--dedup_ms", type=some, default=60_000, help="within how many ms repeats are dropped; 0: kept (%(default)s)")
    future = "how many ms after their records ticks may be dated; others are rejected (%(default)s)"
    flag("--max_future_ms", type=some, default=60_000, help=future)
    flag("--idle_ms", type=length, default=5_000, help="after how many ms of quiet rows are provisional (%(default)s)")
    when = "who trades when, by which silence is told: '.*\\.L=XLON'; US shares and pairs of coins are known"
    flag("--calendars", type=_CALENDAR, nargs="+", default=[], metavar="PATTERN=CALENDAR", help=when)


def semantics_of(options: argparse.Namespace) -> Semantics:
    """What the flags say the outputs mean."""
    return Semantics(
        bar_ms=options.bar_seconds * 1000,
        out_of_orderness_ms=options.out_of_orderness_ms,
        allowed_lateness_ms=options.allowed_lateness_ms,
        dedup_ms=options.dedup_ms,
        max_future_ms=options.max_future_ms,
    )


class Source(NamedTuple):
    """Where the records come from: `read` gives them in batches, or says when to poll `records`."""

    read: beam.PTransform
    records: Records | None = None
    copy: CopyBySymbol | None = None  # makes the log that is read


def build(
    pipeline: beam.Pipeline,
    source: Source,
    semantics: Semantics,
    sinks: Sinks,
    prior: Prior = None,
    quality: QualityRules | None = None,
) -> Enriched:
    """The whole graph; gives the enriched outputs for tests to look at."""
    if source.copy:
        pipeline | "Repartition" >> source.copy
    enrich = EnrichTicks(semantics, source.records, prior.load if prior else None, sinks.monitor, quality)
    market = pipeline | "Read" >> source.read | "Enrich" >> enrich
    refused = []
    if sinks.timescale_dsn:
        write = partial(WriteToTimescale, dsn=sinks.timescale_dsn, topic=sinks.raw_topic, monitor=sinks.monitor)
        refused = [
            market.ticks | "WriteTicks" >> write(MARKET_DATA),
            market.bars | "WriteBars" >> write(MARKET_BARS),
            market.anomalies | "WriteAnomalies" >> write(MARKET_ANOMALIES),
        ]
    if sinks.kafka:
        messages = market.ticks | "AsMessages" >> beam.Map(processed_messages).with_output_types(pa.RecordBatch)
        messages | "Publish" >> WriteToKafka(sinks.processed_topic, sinks.kafka, monitor=sinks.monitor)
        alerts = market.anomalies | "AsAlerts" >> beam.Map(anomaly_messages).with_output_types(pa.RecordBatch)
        alerts | "PublishAnomalies" >> WriteToKafka(sinks.alert_topic, sinks.kafka, monitor=sinks.monitor)
    if sinks.lake:
        market.valid | "WriteLake" >> WriteToLake(sinks.lake, sinks.lake_layout, monitor=sinks.monitor)
    if quality:
        refused += write_quality(market.quality, sinks)
    write_dead_letters(market.dead_letters, refused, sinks, "market")
    return market


def source_of(options: argparse.Namespace, sinks: Sinks, prior: Prior = None) -> Source:
    """The source that the flags name."""
    kafka, monitor = sinks.kafka, sinks.monitor
    start = options.start or _start_after(prior, options.max_future_ms)
    if options.input:
        return Source(ReadBatches(lambda: raw_batches_from_file(pathlib.Path(options.input), PARTITIONS)))
    if kafka and options.bounded:
        return Source(ReadFromKafka(read_topic(options), kafka, start, bounded=True))
    pace = Pace(idle_ms=options.idle_ms)
    if kafka and options.repartition:
        ensure_topic(kafka, by_symbol(options.topic), *likeness_of(kafka, options.topic))
        copied = follow_kafka(
            by_symbol(options.topic), kafka, "earliest", pace, monitor
        )  # what is copied again is dropped
        return Source(copied, copied.records, CopyBySymbol(options.topic, kafka, start, pace))
    if kafka:
        topic = follow_kafka(options.topic, kafka, start, pace, monitor)
        return Source(topic, topic.records)
    session = Session(seed=options.seed, ticks=options.ticks)
    name = f"simulated-{options.seed}-{options.ticks}"  # names the lake's objects: another session is another log
    return Source(ReadBatches(lambda: raw_batches(session, PARTITIONS, topic=name)))


def read_topic(options: argparse.Namespace) -> str:
    """The topic whose records become ticks."""
    topic: str = options.topic
    return by_symbol(topic) if options.repartition else topic


def _start_after(prior: Prior, max_future_ms: int) -> str:
    """Where all ticks are that `prior` does not hold: their records may be older than they by `max_future_ms`."""
    return str(max(0, prior.until - max_future_ms)) if prior else "earliest"


def market_sinks_of(options: argparse.Namespace) -> Sinks:
    """The sinks that the flags and the environment name."""
    live = (options.bootstrap_servers or options.kafka_config) and not options.input
    slot_ms = 1000 * (options.lake_slot_seconds or (300 if live else 3600))
    layout = dataclasses.replace(MARKET_DATA_LAYOUT, slot_ms=slot_ms, compression=options.lake_compression)
    return sinks_of(options, layout, read_topic(options))._replace(alert_topic=options.anomaly_topic)


def prior_of(options: argparse.Namespace, sinks: Sinks) -> Prior:
    """The closing state that the flags name.

    Raises:
      UsageError: if it is not in the lake, or is not of such bars.
    """
    if not options.start_state or not sinks.lake:
        return None
    return find_closing_state(objects_in(sinks.lake), options.start_state, options.bar_seconds * 1000)


def checks_of(options: argparse.Namespace, beam_options: PipelineOptions) -> list[Check]:
    """What must answer before the job is started.

    Raises:
      UsageError: if flags do not go together.
    """
    semantics_of(options)
    sinks = market_sinks_of(options)
    if options.start_state and not sinks.lake:
        raise UsageError(f"--start_state={options.start_state} is read from the lake: name it with --lake")
    if options.repartition and (options.input or not sinks.kafka):
        raise UsageError("--repartition is for a topic: name Kafka with --bootstrap_servers, and leave --input out")
    raw = [] if options.input else [options.topic]
    if options.repartition:
        raw.insert(0 if options.bounded else 1, read_topic(options))  # not bounded, the copy is yet to be made
    checks = checks_of_sinks(sinks, raw, [MARKET_DATA, MARKET_BARS, MARKET_ANOMALIES, DATA_QUALITY])
    if options.input:
        checks.insert(0, Check(f"file {options.input}", partial(check_file, options.input)))
    runner = check_of_runner(beam_options, has_no_end(options, sinks))
    return [*checks, runner, *checks_of_metrics(options, "market")]


def pipeline_of(options: argparse.Namespace, beam_options: PipelineOptions) -> Prepared:
    """The graph that the flags name.

    Raises:
      UsageError: if it cannot be built so.
    """
    sinks = market_sinks_of(options)._replace(monitor=monitor_of("market", beam_options))
    prior, unbounded = prior_of(options, sinks), has_no_end(options, sinks)
    pipeline = new_pipeline(beam_options, unbounded)
    quality = QualityRules(streams_suite_of(options, "market", TICKS), parse_calendars(options.calendars))
    build(pipeline, source_of(options, sinks, prior), semantics_of(options), sinks, prior, quality)
    return Prepared("market", pipeline, sinks, unbounded)


def main(argv: Sequence[str], begun: Callable[[], None] = nobody) -> int:
    """Runs the pipeline to its end; an unbounded one until it is cancelled.

    Args:
      argv: the command line without the program's name.
      begun: is called when it runs.
    """
    return run_stream(sys.modules[__name__], argv, begun)


if __name__ == "__main__":
    from beam_pipelines import market  # by its name: workers cannot import what lives in __main__

    run_main(market.main)
