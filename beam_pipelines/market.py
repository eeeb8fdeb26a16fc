"""The market stream: raw ticks become enriched ticks and bars.

    market-data-raw ─ read ─ enrich ─┬─ ticks ──▶ Kafka market-data-processed, table market_data_ts
                                     ├─ bars ───▶ table market_bars_ts
                                     ├─ valid ──▶ lake market-data/
                                     └─ rejects ▶ Kafka dead-letters, lake dead-letter/

Without a flag it is the embedded default: a simulated session on the DirectRunner, into ./lake.
"""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import MetricsFilter
from rich.console import Console
from rich.table import Table

from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.kafka import KafkaConfig, ReadFromKafka, WriteToKafka, check_kafka
from beam_pipelines.io.lake import WriteDeadLettersToLake, WriteToLake, check_lake
from beam_pipelines.io.lake_objects import MARKET_DATA as MARKET_DATA_LAYOUT
from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.timescale import MARKET_BARS, MARKET_DATA, WriteToTimescale, check_timescale
from beam_pipelines.options import parse
from beam_pipelines.runners.defaults import with_defaults
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.tick_files import raw_batches_from_file
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.dead_letters import to_messages
from beam_pipelines.transforms.enrich import Enriched, EnrichTicks
from beam_pipelines.transforms.messages import processed_messages

__all__ = ["Sinks", "add_flags", "build", "main"]

PARTITIONS = 4  # of files and simulated sessions


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the market stream."""
    source = parser.add_argument_group("input (a simulated session if neither is given)")
    source.add_argument("--input", help="file of ticks: .csv .ndjson .parquet or a Lean .zip")
    source.add_argument("--bootstrap_servers", help="Kafka brokers, host:port[,host:port]")
    source.add_argument("--kafka_config", help="file of librdkafka settings (TLS, SASL, ...): JSON or name=value")
    source.add_argument("--topic", default="market-data-raw", help="topic of raw ticks (%(default)s)")
    source.add_argument(
        "--start", default="earliest", help="earliest, latest, committed, a time, or offsets 0:12,1:34 (%(default)s)"
    )
    source.add_argument("--bounded", action="store_true", help="stop at the topic's present end")
    source.add_argument("--ticks", type=int, default=100_000, help="ticks of the simulated session (%(default)s)")
    source.add_argument("--seed", type=int, default=1, help="seed of the simulated session (%(default)s)")
    sinks = parser.add_argument_group("outputs")
    sinks.add_argument(
        "--processed_topic", default="market-data-processed", help="topic of enriched ticks (%(default)s)"
    )
    sinks.add_argument("--dead_letter_topic", default="dead-letters", help="topic of dead letters (%(default)s)")
    sinks.add_argument("--timescale_dsn", help="database; better in the environment as TIMESCALE_DSN")
    sinks.add_argument("--lake", help="s3://bucket/prefix or a folder (./lake if there is no other output)")
    sinks.add_argument(
        "--lake_slot_seconds", type=int, help="log time in one object (300; 3600 if the input is no topic)"
    )
    sinks.add_argument("--lake_compression", default="snappy", choices=("snappy", "zstd"), help="(%(default)s)")
    meaning = parser.add_argument_group("meaning of the outputs (event time)")
    meaning.add_argument("--bar_seconds", type=int, default=60, help="length of a bar (%(default)s)")
    meaning.add_argument("--out_of_orderness_ms", type=int, default=1_000, help="bound on disorder (%(default)s)")
    meaning.add_argument(
        "--allowed_lateness_ms", type=int, default=60_000, help="older ticks are dead letters (%(default)s)"
    )
    meaning.add_argument(
        "--dedup_ms", type=int, default=60_000, help="repeats are dropped within; 0: kept (%(default)s)"
    )
    meaning.add_argument(
        "--max_future_ms", type=int, default=60_000, help="ticks dated later are rejected (%(default)s)"
    )
    meaning.add_argument("--idle_ms", type=int, default=5_000, help="quiet until provisional rows (%(default)s)")


def semantics_of(options: argparse.Namespace) -> Semantics:
    """What the flags say the outputs mean."""
    return Semantics(
        bar_ms=options.bar_seconds * 1000,
        out_of_orderness_ms=options.out_of_orderness_ms,
        allowed_lateness_ms=options.allowed_lateness_ms,
        dedup_ms=options.dedup_ms,
        max_future_ms=options.max_future_ms,
    )


class Sinks(NamedTuple):
    """Where the outputs go; None: nowhere."""

    kafka: KafkaConfig | None = None
    processed_topic: str = ""
    dead_letter_topic: str = ""
    raw_topic: str = ""  # named in dead letters of rows that the database refuses
    timescale_dsn: str | None = None
    lake: str | None = None
    lake_layout: Layout = MARKET_DATA_LAYOUT


def build(pipeline: beam.Pipeline, read: beam.PTransform, semantics: Semantics, sinks: Sinks) -> Enriched:
    """The whole graph; gives the enriched outputs for tests to look at."""
    market = pipeline | "Read" >> read | "Enrich" >> EnrichTicks(semantics)
    dead_letters = market.dead_letters
    if sinks.timescale_dsn:
        unwritten = market.ticks | "WriteTicks" >> WriteToTimescale(MARKET_DATA, sinks.timescale_dsn, sinks.raw_topic)
        unwritten_bars = market.bars | "WriteBars" >> WriteToTimescale(MARKET_BARS, sinks.timescale_dsn)
        dead_letters = (dead_letters, unwritten, unwritten_bars) | "AllDeadLetters" >> beam.Flatten()
    if sinks.kafka:
        messages = market.ticks | "AsMessages" >> beam.Map(processed_messages).with_output_types(pa.RecordBatch)
        messages | "Publish" >> WriteToKafka(sinks.processed_topic, sinks.kafka)
        letters = dead_letters | "AsLetters" >> beam.Map(to_messages, "market").with_output_types(pa.RecordBatch)
        letters | "PublishDeadLetters" >> WriteToKafka(sinks.dead_letter_topic, sinks.kafka)
    if sinks.lake:
        market.valid | "WriteLake" >> WriteToLake(sinks.lake, sinks.lake_layout)
        market.dead_letters | "KeepDeadLetters" >> WriteDeadLettersToLake(sinks.lake)
    return market


def reader_of(options: argparse.Namespace) -> beam.PTransform:
    """The source that the flags name."""
    if options.input:
        return ReadBatches(lambda: raw_batches_from_file(pathlib.Path(options.input), PARTITIONS))
    if options.bootstrap_servers:
        config = KafkaConfig.load(options.bootstrap_servers, options.kafka_config)
        return ReadFromKafka(
            options.topic, config, start=options.start, bounded=options.bounded, idle_ms=options.idle_ms
        )
    session = Session(seed=options.seed, ticks=options.ticks)
    name = f"simulated-{options.seed}-{options.ticks}"  # names the lake's objects: another session is another log
    return ReadBatches(lambda: raw_batches(session, PARTITIONS, topic=name))


class ReadBatches(beam.PTransform):
    """A bounded source of (partition, RAW) batches, made where the pipeline runs.

    Args:
      batches: gives them; their order does not matter.
    """

    def __init__(self, batches: Callable[[], object]) -> None:
        super().__init__()
        self._batches = batches

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        make = beam.FlatMap(lambda _, batches: batches(), self._batches)
        return root | beam.Impulse() | "Make" >> make.with_output_types(tuple[int, pa.RecordBatch])


def sinks_of(options: argparse.Namespace) -> Sinks:
    """The sinks that the flags and the environment name."""
    kafka = KafkaConfig.load(options.bootstrap_servers, options.kafka_config) if options.bootstrap_servers else None
    dsn = options.timescale_dsn or os.environ.get("TIMESCALE_DSN")
    lake = options.lake or (None if kafka else "./lake")  # without Kafka the lake is where dead letters go
    seconds = options.lake_slot_seconds
    if seconds is None:
        seconds = 300 if kafka and not options.input else 3600
    if seconds < 1:
        raise UsageError(f"--lake_slot_seconds must be 1 or more, not {seconds}")
    layout = dataclasses.replace(MARKET_DATA_LAYOUT, slot_ms=seconds * 1000, compression=options.lake_compression)
    return Sinks(kafka, options.processed_topic, options.dead_letter_topic, options.topic, dsn, lake, layout)


def check(options: argparse.Namespace, sinks: Sinks) -> None:
    """Makes sure that everything outside answers, before a job is started.

    Raises:
      UsageError: names what does not, and the cure.
    """
    if options.input and not pathlib.Path(options.input).exists():
        raise UsageError(f"--input {options.input} does not exist: correct the path")
    if options.idle_ms < 1:
        raise UsageError(f"--idle_ms must be 1 or more, not {options.idle_ms}")
    if sinks.kafka:
        raw = [] if options.input else [options.topic]
        check_kafka(sinks.kafka, *raw, sinks.processed_topic, sinks.dead_letter_topic)
    if sinks.timescale_dsn:
        check_timescale(sinks.timescale_dsn, [MARKET_DATA, MARKET_BARS])
    if sinks.lake:
        check_lake(sinks.lake)


def main(argv: Sequence[str]) -> int:
    """Runs the pipeline to its end; an unbounded one until it is cancelled."""
    options, beam_options = parse(argv, add_flags, "beam_pipelines.market", str(__doc__).splitlines()[0])
    semantics, sinks = semantics_of(options), sinks_of(options)
    check(options, sinks)
    reads_kafka = bool(options.bootstrap_servers) and not options.input
    with_defaults(beam_options, unbounded=reads_kafka and not options.bounded)
    pipeline = beam.Pipeline(options=beam_options)
    build(pipeline, reader_of(options), semantics, sinks)
    result = pipeline.run()
    state = result.wait_until_finish()
    print_summary(result, sinks)
    return 0 if state == "DONE" else 1


def print_summary(result: beam.runners.runner.PipelineResult, sinks: Sinks) -> None:
    """Prints what the job's counters say."""
    counters = result.metrics().query(MetricsFilter())["counters"]
    table = Table(title="market", show_header=False)
    for counter in sorted(counters, key=lambda one: (one.key.metric.namespace, one.key.metric.name)):
        if counter.key.metric.namespace in ("market", "dead_letters", "lake"):
            table.add_row(f"{counter.key.metric.namespace}: {counter.key.metric.name}", f"{counter.result:,}")
    if sinks.lake:
        table.add_row("lake", sinks.lake)
    Console().print(table)


if __name__ == "__main__":
    from beam_pipelines import market  # by its name: workers cannot import what lives in __main__

    run_main(market.main)
