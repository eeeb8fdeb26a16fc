"""What the streams have in common: where records come from, where outputs go, and how a job is run to its end."""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from beam_pipelines.command_line import filled, folder
from beam_pipelines.errors import UsageError, telling_mistakes
from beam_pipelines.exposing import add_metrics_flags
from beam_pipelines.io.kafka import KafkaConfig, WriteToKafka, check_kafka, parse_position
from beam_pipelines.io.lake import WriteDeadLettersToLake, WriteRefusedToLake, check_lake
from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.tables import DATA_QUALITY, Table
from beam_pipelines.io.timescale import WriteToTimescale, check_timescale
from beam_pipelines.runners.cluster import check_restored
from beam_pipelines.runners.defaults import FlinkOptions
from beam_pipelines.summary import counters_of, summary
from beam_pipelines.transforms.dead_letters import to_messages
from beam_pipelines.transforms.messages import quality_alerts
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor, Run
from beam_pipelines.transforms.quality_kernels import unsupported
from beam_pipelines.transforms.quality_suites import Suite, read_suites

__all__ = [
    "ReadBatches",
    "Sinks",
    "add_quality_flag",
    "add_sink_flags",
    "add_topic_flags",
    "check_sinks",
    "kafka_of",
    "monitor_of",
    "run_to_end",
    "sinks_of",
    "streams_suite_of",
    "suite_of",
    "write_dead_letters",
    "write_quality",
]

Flag = Callable[..., object]
"""Adds a flag, as `ArgumentParser.add_argument` does."""


def _start(text: str) -> str:
    try:
        parse_position(text)
    except UsageError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None
    return text


def add_topic_flags(flag: Flag, topic: str, records: str, earliest: str = "earliest") -> None:
    """Where a topic of raw records is, and from where to where it is read.

    Args:
      flag: adds one.
      topic: its usual name.
      records: what it holds.
      earliest: where it is read from by default.
    """
    flag("--bootstrap_servers", type=filled, help="Kafka brokers, host:port[,host:port]")
    flag("--kafka_config", type=filled, help="file of librdkafka settings (TLS, SASL, ...): JSON or name=value")
    flag("--topic", type=filled, default=topic, help=f"topic of raw {records} (%(default)s)")
    where = f"earliest, latest, committed, a time, or offsets 0:12,1:34 ({earliest})"
    flag("--start", type=_start, help=where)
    flag("--bounded", action="store_true", help="stop at the topic's present end")


def add_sink_flags(flag: Flag, topic: str, rows: str) -> None:
    """Where outputs go.

    Args:
      flag: adds one.
      topic: the usual name of the topic of outputs.
      rows: what it holds.
    """
    flag("--processed_topic", type=filled, default=topic, help=f"of {rows} (%(default)s)")
    flag("--dead_letter_topic", type=filled, default="dead-letters", help="of dead letters (%(default)s)")
    flag("--quality_topic", type=filled, default="data-quality-alerts", help="of bad records' alarms (%(default)s)")
    add_quality_flag(flag)
    flag("--timescale_dsn", type=filled, help="database; better in the environment as TIMESCALE_DSN")
    flag("--lake", type=filled, help="s3://bucket/prefix or a folder (./lake if there is no other output)")
    add_metrics_flags(flag)


def add_quality_flag(flag: Flag) -> None:
    """By what records are judged.

    Args:
      flag: adds one.
    """
    suites = "folder of Great Expectations suites, DATASET.json, in place of those of the package or beside them"
    flag("--quality_suites", type=folder, help=suites)


class Sinks(NamedTuple):
    """Where the outputs go; None: nowhere."""

    lake_layout: Layout
    kafka: KafkaConfig | None = None
    processed_topic: str = ""
    dead_letter_topic: str = ""
    alert_topic: str = ""  # of what is odd; the news have none
    quality_topic: str = ""  # of what is bad
    raw_topic: str = ""  # named in dead letters of rows that the database refuses
    timescale_dsn: str | None = None
    lake: str | None = None
    monitor: PipelineMonitor = UNNAMED  # takes down what is written


def kafka_of(options: argparse.Namespace) -> KafkaConfig | None:
    """How to reach Kafka, if a flag says it."""
    named = options.bootstrap_servers or options.kafka_config
    return KafkaConfig.load(options.bootstrap_servers, options.kafka_config) if named else None


def monitor_of(pipeline: str, options: PipelineOptions) -> PipelineMonitor:
    """Takes down what a job does that begins now, with these options."""
    return PipelineMonitor(pipeline, Run.begin(resumed=bool(options.view_as(FlinkOptions).savepoint_path)))


def sinks_of(options: argparse.Namespace, layout: Layout, raw_topic: str) -> Sinks:
    """The sinks that the flags and the environment name."""
    kafka = kafka_of(options)
    dsn = options.timescale_dsn or os.environ.get("TIMESCALE_DSN")
    lake = options.lake or (None if kafka else "./lake")  # without Kafka the lake is where dead letters go
    names = ("processed_topic", "dead_letter_topic", "quality_topic")
    topics = {name: getattr(options, name) for name in names}
    return Sinks(layout, kafka, **topics, raw_topic=raw_topic, timescale_dsn=dsn, lake=lake)


def check_sinks(sinks: Sinks, read: Sequence[str], tables: Sequence[Table]) -> None:
    """Makes sure that everything outside answers, before a job is started.

    Args:
      sinks: what the flags name.
      read: the topics that are read; the first must be there.
      tables: that are written.

    Raises:
      UsageError: names what does not, and the cure.
    """
    if sinks.kafka:
        written = [sinks.processed_topic, sinks.dead_letter_topic]
        topics = [*sorted(read), *written]
        if len(set(topics)) < len(topics):
            raise UsageError(
                f"--topic, --processed_topic and --dead_letter_topic must differ, not {', '.join(topics)}: "
                "the stream would read what it writes"
            )
        told = {"anomaly_topic": sinks.alert_topic, "quality_topic": sinks.quality_topic}
        for flag, topic in told.items():
            if topic in topics:
                raise UsageError(f"--{flag}={topic} is another flag's topic, too: it needs one of its own")
        written += filter(None, told.values())
        check_kafka(sinks.kafka, *read[:1], *written)
    if sinks.timescale_dsn:
        check_timescale(sinks.timescale_dsn, tables)
    if sinks.lake:
        check_lake(sinks.lake)


class ReadBatches(beam.PTransform):
    """A bounded source of (partition, RAW) batches, made where the pipeline runs.

    Args:
      batches: gives them; their order does not matter.
    """

    def __init__(self, batches: Callable[[], object]) -> None:
        super().__init__()
        self._batches = batches

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        """Makes them all at once."""
        make = beam.FlatMap(lambda _, batches: batches(), self._batches)
        return root | beam.Impulse() | "Make" >> make.with_output_types(tuple[int, pa.RecordBatch])


def write_dead_letters(
    rejects: beam.PCollection, refused: Iterable[beam.PCollection], sinks: Sinks, pipeline: str
) -> None:
    """Writes DEAD_LETTERS to their topic and to the lake.

    Args:
      rejects: of records that cannot be used.
      refused: of rows that the database refuses.
      sinks: where the topic and the lake are.
      pipeline: whose they are.
    """
    rows = list(refused)
    if rows and sinks.lake:
        rows = [rows | "Refused" >> beam.Flatten()]
        rows[0] | "KeepRefused" >> WriteRefusedToLake(sinks.lake)
    if sinks.kafka:
        letters = [rejects, *rows] | "Letters" >> beam.Flatten()
        messages = letters | "AsLetters" >> beam.Map(to_messages, pipeline).with_output_types(pa.RecordBatch)
        publish = WriteToKafka(sinks.dead_letter_topic, sinks.kafka, monitor=sinks.monitor)
        messages | "PublishDeadLetters" >> publish
    if sinks.lake:
        rejects | "KeepDeadLetters" >> WriteDeadLettersToLake(sinks.lake)


def suite_of(options: argparse.Namespace, dataset: str) -> Suite:
    """The suite by which a dataset is judged.

    Raises:
      UsageError: if it, or another in the folder that the flag names, is none.
    """
    return _suites(options.quality_suites)[dataset]


@functools.cache
def _suites(folder: pathlib.Path | None) -> dict[str, Suite]:
    """Read once, however many datasets and days ask: Great Expectations checks every argument of a user's file."""
    return read_suites(folder)


def streams_suite_of(options: argparse.Namespace, dataset: str, schema: pa.Schema) -> Suite:
    """The same, for a stream, which cannot judge by all that Great Expectations knows; tells what it leaves out.

    Args:
      options: with the flag.
      dataset: whose suite.
      schema: of its records.

    Raises:
      UsageError: as of `suite_of`, and if nothing would be left.
    """
    suite = suite_of(options, dataset)
    left_out = unsupported(suite, schema)
    if len(left_out) == len(json.loads(suite.expectations)):
        raise UsageError(
            f"--quality_suites: a stream can judge by no expectation of {dataset}.json ({', '.join(left_out)}): "
            "add one about single values, or leave the flag off"
        )
    if left_out:
        print(f"only the daily batch judges by these expectations of {dataset}.json: {', '.join(left_out)}")
    return suite


def write_quality(quality: beam.PCollection, sinks: Sinks) -> list[beam.PCollection]:
    """Writes QUALITY to its table, and to its topic what is wrong; gives what the database refuses."""
    if sinks.kafka:
        alerts = quality | "AsQualityAlerts" >> beam.Map(quality_alerts).with_output_types(pa.RecordBatch)
        alerts | "PublishQuality" >> WriteToKafka(sinks.quality_topic, sinks.kafka, monitor=sinks.monitor)
    if not sinks.timescale_dsn:
        return []
    return [quality | "WriteQuality" >> WriteToTimescale(DATA_QUALITY, sinks.timescale_dsn, monitor=sinks.monitor)]


def run_to_end(pipeline: beam.Pipeline, name: str, sinks: Sinks, unbounded: bool) -> int:
    """Runs a pipeline, an unbounded one until it is cancelled, and tells what it has done; gives the exit code."""
    began = time.monotonic()
    with telling_mistakes():
        result = pipeline.run()
        state, counters = _awaited(result), counters_of(result)
    if counters:  # Flink keeps none of a job that was cancelled
        Console().print(summary(name, counters, sinks.lake, time.monotonic() - began))
    if state != "DONE":
        print(f"the job ended as {state}", file=sys.stderr)
    elif unbounded:
        print("the job was stopped; with --savepoint_path it goes on from the savepoint that was taken then")
    return 0 if state == "DONE" else 1


def _awaited(result: beam.runners.runner.PipelineResult) -> str:
    """The state in which the job ended; a failure is Beam's exception, with the worker's traceback."""
    try:
        return str(result.wait_until_finish())
    except RuntimeError as failed:
        check_restored(str(failed))
        if "JobCancellationException" not in str(failed):
            raise
        return "CANCELLED"
