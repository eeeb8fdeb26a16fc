"""What the streams have in common: where records come from, where outputs go, and how a job is run to its end."""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from rich.console import Console

from beam_pipelines.command_line import DAY, Kind, file, filled_as, folder, topic_read, topic_written
from beam_pipelines.errors import UsageError, telling_mistakes
from beam_pipelines.exposing import add_metrics_flags, check_metrics, exposed
from beam_pipelines.io.kafka import KafkaConfig, WriteToKafka, check_kafka, parse_position
from beam_pipelines.io.lake import WriteDeadLettersToLake, WriteRefusedToLake, check_lake
from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.tables import DATA_QUALITY, Table
from beam_pipelines.io.timescale import WriteToTimescale, check_timescale
from beam_pipelines.options import parse
from beam_pipelines.runners.cluster import check_restored
from beam_pipelines.runners.defaults import DIRECT_RUNNER, FlinkOptions, with_defaults
from beam_pipelines.secrets import referred
from beam_pipelines.summary import counters_of, summary
from beam_pipelines.transforms.dead_letters import to_messages
from beam_pipelines.transforms.messages import quality_alerts
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor, Run
from beam_pipelines.transforms.quality_kernels import unsupported
from beam_pipelines.transforms.quality_suites import Suite, read_suites

__all__ = [
    "Check",
    "Prepared",
    "ReadBatches",
    "Sinks",
    "add_database_flag",
    "add_quality_flag",
    "add_sink_flags",
    "add_topic_flags",
    "begin",
    "check_of_runner",
    "checks_of_metrics",
    "checks_of_sinks",
    "has_no_end",
    "kafka_of",
    "lake_place",
    "monitor_of",
    "nobody",
    "run_stream",
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


_OFFSETS = "[0-9]{1,10}:[0-9]{1,19}"
_START = Kind(
    _start,
    "earliest, latest, committed, a time (2025-01-31T09:30:00Z, or ms since 1970) or offsets (0:123,1:456)",
    rf"earliest|latest|committed|[0-9]{{1,15}}|{_OFFSETS}(,{_OFFSETS})*|{DAY}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?",
    ("earliest", "committed", "1738315800000", "0:12,1:34", "2025-01-31", "2025-01-31T09:30:00.5+01:00"),
    ("", "first", "0:12,", "0-12", "31.1.2025"),
)
_BROKER = r"[^\s,@]+:[0-9]+"
_BROKERS = filled_as("brokers as host:port[,host:port]", f"{_BROKER}(,{_BROKER})*", "host:9092", "a:9092,[::1]:9093")


def add_topic_flags(flag: Flag, topic: str, records: str, earliest: str = "earliest") -> None:
    """Where a topic of raw records is, and from where to where it is read.

    Args:
      flag: adds one.
      topic: its usual name.
      records: what it holds.
      earliest: where it is read from by default.
    """
    flag("--bootstrap_servers", type=_BROKERS, help="Kafka brokers, host:port[,host:port]")
    flag("--kafka_config", type=file, help="file of librdkafka settings (TLS, SASL, ...): JSON or name=value")
    flag("--topic", type=topic_read, default=topic, help=f"topic of raw {records} (%(default)s)")
    where = f"where reading begins: earliest, latest, committed, a time, or offsets 0:12,1:34 ({earliest})"
    flag("--start", type=_START, help=where)
    flag("--bounded", action="store_true", help="stop at the topic's present end")


def add_sink_flags(flag: Flag, topic: str, rows: str) -> None:
    """Where outputs go.

    Args:
      flag: adds one.
      topic: the usual name of the topic of outputs.
      rows: what it holds.
    """
    flag("--processed_topic", type=topic_written, default=topic, help=f"topic of {rows} (%(default)s)")
    flag("--dead_letter_topic", type=topic_written, default="dead-letters", help="topic of dead letters (%(default)s)")
    alarms = "topic of bad records' alarms (%(default)s)"
    flag("--quality_topic", type=topic_written, default="data-quality-alerts", help=alarms)
    add_quality_flag(flag)
    add_database_flag(flag)
    flag("--lake", type=lake_place, help="lake: s3://bucket/prefix or a folder (./lake without Kafka)")
    add_metrics_flags(flag)


lake_place = filled_as(
    "s3://bucket/prefix, file:///folder or the path of a folder",
    r"s3://[^\s/@]+(/\S*)?|file:///.*|\s*[^:\s][^:]*",
    "./lake",
    "s3://bucket/prefix",
    "file:///lake",
)
"""Takes the place of a lake."""


def add_database_flag(flag: Flag) -> None:
    """Where the tables are.

    Args:
      flag: adds one.
    """
    database = "database: env:NAME or file:/path, which hold its DSN (TIMESCALE_DSN in the environment)"
    flag("--timescale_dsn", type=referred, help=database)


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


def has_no_end(options: argparse.Namespace, sinks: Sinks) -> bool:
    """Whether the job goes on reading its topic until somebody ends it."""
    return sinks.kafka is not None and not options.input and not options.bounded


class Check(NamedTuple):
    """Something outside that must be there before a job is started."""

    what: str  # a line's words
    run: Callable[[], object]  # raises UsageError: what is wrong, and the cure
    needs: str = ""  # `what` of another, without which it is not worth looking


def checks_of_sinks(sinks: Sinks, read: Sequence[str], tables: Sequence[Table]) -> list[Check]:
    """Looks whether everything outside answers.

    Args:
      sinks: what the flags name.
      read: the topics that are read; the first must be there.
      tables: that are written.

    Raises:
      UsageError: if flags name one topic for two things.
    """
    checks = []
    if sinks.kafka:
        topics = [*read[:1], *_topics_written(sinks, read)]
        broker = f"Kafka at {sinks.kafka.bootstrap_servers}"
        checks.append(Check(broker, functools.partial(check_kafka, sinks.kafka)))
        checks += [Check(f"topic {it}", functools.partial(check_kafka, sinks.kafka, it), broker) for it in topics]
    if sinks.timescale_dsn:
        what = f"{'tables' if len(tables) > 1 else 'table'} {', '.join(table.name for table in tables)}"
        checks.append(Check(what, functools.partial(check_timescale, sinks.timescale_dsn, tables)))
    if sinks.lake:
        checks.append(Check(f"lake {sinks.lake}", functools.partial(check_lake, sinks.lake)))
    return checks


def _topics_written(sinks: Sinks, read: Sequence[str]) -> list[str]:
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
    return [*written, *filter(None, told.values())]


def checks_of_metrics(options: argparse.Namespace, pipeline: str) -> list[Check]:
    """Looks whether metrics can be left where the flags say.

    Args:
      options: with the flags.
      pipeline: whose they are.
    """
    places = " and ".join(filter(None, (options.metrics_file, options.pushgateway)))
    return [Check(f"metrics to {places}", functools.partial(check_metrics, options, pipeline))] if places else []


def check_of_runner(beam_options: PipelineOptions, unbounded: bool) -> Check:
    """Looks whether the runner can run the job; fills its options in.

    Args:
      beam_options: name it.
      unbounded: whether the job has no end.
    """
    runner = beam_options.view_as(StandardOptions).runner or "DirectRunner"
    return Check(f"runner {runner}", functools.partial(with_defaults, beam_options, unbounded))


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


class Prepared(NamedTuple):
    """A pipeline that is built, and not run yet."""

    name: str
    pipeline: beam.Pipeline
    sinks: Sinks
    unbounded: bool


def nobody() -> None:
    """Who need not be told that a job runs."""


def begin(pipeline: beam.Pipeline, begun: Callable[[], None]) -> beam.runners.runner.PipelineResult:
    """Runs a pipeline.

    Args:
      pipeline: to be run.
      begun: is called when it runs.
    """
    direct = pipeline.options.view_as(StandardOptions).runner == DIRECT_RUNNER
    if direct:  # it comes back at the end only
        begun()
    result = pipeline.run()
    if not direct:
        begun()
    return result


def run_stream(stream: ModuleType, argv: Sequence[str], begun: Callable[[], None]) -> int:
    """Runs a stream's program to its end; an unbounded one until it is cancelled.

    Args:
      stream: its module, with `add_flags`, `checks_of` and `pipeline_of`.
      argv: the command line without the program's name.
      begun: is called when it runs.
    """
    name = stream.__name__
    options, beam_options = parse(argv, stream.add_flags, name, str(stream.__doc__).splitlines()[0])
    for check in stream.checks_of(options, beam_options):
        check.run()
    job = stream.pipeline_of(options, beam_options)
    with exposed(options, job.name):
        return run_to_end(job, begun)


def run_to_end(job: Prepared, begun: Callable[[], None] = nobody) -> int:
    """Runs a job, an unbounded one until it is cancelled, and tells what it has done; gives the exit code."""
    began = time.monotonic()
    with telling_mistakes():
        result = begin(job.pipeline, begun)
        state, counters = _awaited(result), counters_of(result)
    if counters:  # Flink keeps none of a job that was cancelled
        Console().print(summary(job.name, counters, job.sinks.lake, time.monotonic() - began))
    if state != "DONE":
        print(f"the job ended as {state}", file=sys.stderr)
    elif job.unbounded:
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
