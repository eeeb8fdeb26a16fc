"""What each runner needs that Beam does not set by itself; differences between runners live here."""

import argparse
import os
import shutil
import urllib.parse
from collections.abc import Callable
from typing import NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
)

from beam_pipelines.command_line import WEEK_MS, whole
from beam_pipelines.errors import UsageError
from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.cluster import Cluster, url_of
from beam_pipelines.runners.flink import EMBEDDED, conf_dir_of_streams, job_server_jar
from beam_pipelines.runners.maven import QUICK_COMPILER
from beam_pipelines.runners.preflight import check_environment, check_files, check_job_endpoint, check_workers
from beam_pipelines.runners.servers.base import free_port
from beam_pipelines.runners.spark import job_server_jar as spark_job_server_jar
from beam_pipelines.runners.spark import spark_host

__all__ = ["DIRECT_RUNNER", "FlinkOptions", "is_flink", "new_pipeline", "with_defaults"]

DIRECT_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""DirectRunner chooses among three implementations by itself, one of which it would download: pin one."""

_MOST_PARALLEL = 2**15  # Flink's own bound
_MOST_PROCESSES = 1000  # of a TaskManager
_WORKERS_REST_MS = 10_000  # else Beam ends all Python workers of a job with each of its stages, and starts new ones
_BEAMS_SPARK = "local[4]"  # Beam's default, which takes every machine for one with four cores


class _Flag(NamedTuple):
    """An option's values: a type, or the words that it takes; neither: it is given or not."""

    type: Callable[[str], object] | None = None
    words: tuple[str, ...] | None = None


_FLINK_OPTIONS = {
    "checkpointing_interval": _Flag(whole(10, WEEK_MS)),
    "checkpointing_mode": _Flag(words=("EXACTLY_ONCE", "AT_LEAST_ONCE")),
    "checkpoint_timeout_millis": _Flag(whole(10, WEEK_MS)),
    "min_pause_between_checkpoints": _Flag(whole(0, WEEK_MS)),
    "num_concurrent_checkpoints": _Flag(whole(1, 1000)),
    "finish_bundle_before_checkpointing": _Flag(),
    "unaligned_checkpoint_enabled": _Flag(),
    "shutdown_sources_after_idle_ms": _Flag(whole(0, WEEK_MS)),
    "state_backend": _Flag(words=("rocksdb", "filesystem")),
    "state_backend_storage_path": _Flag(str),
    "externalized_checkpoints_enabled": _Flag(),  # without it Beam overlooks the next one
    "retain_externalized_checkpoints_on_cancellation": _Flag(),
    "savepoint_path": _Flag(str),
    "allow_non_restored_state": _Flag(),
    "max_bundle_size": _Flag(whole(1, 10**9)),
    "max_bundle_time_mills": _Flag(whole(1, WEEK_MS)),  # spelt so in Beam; any other spelling is dropped
    "object_reuse": _Flag(),
    "faster_copy": _Flag(),
    "operator_chaining": _Flag(),
    "execution_mode_for_batch": _Flag(words=("PIPELINED", "PIPELINED_FORCED", "BATCH", "BATCH_FORCED")),
    "number_of_execution_retries": _Flag(whole(0, 10**6)),
    "execution_retry_delay": _Flag(whole(0, WEEK_MS)),
    "flink_conf_dir": _Flag(str),
    "disable_metrics": _Flag(),
}


class FlinkOptions(PipelineOptions):
    """Options of Beam's Flink runner that only its job server knows, declared so that a misspelt one is refused."""

    @classmethod
    def _add_argparse_args(cls, parser) -> None:  # type: ignore[no-untyped-def]
        for name, flag in _FLINK_OPTIONS.items():
            if flag == _Flag():
                parser.add_argument(f"--{name}", action="store_true", default=None)
            else:
                parser.add_argument(f"--{name}", type=flag.type, choices=flag.words)


def is_flink(options: PipelineOptions) -> bool:
    """Whether the job runs on Flink."""
    return "flink" in (options.view_as(StandardOptions).runner or "").lower()


def is_spark(options: PipelineOptions) -> bool:
    """Whether the job runs on Spark."""
    return (options.view_as(StandardOptions).runner or "").lower() in ("sparkrunner", "spark")


def new_pipeline(options: PipelineOptions, unbounded: bool) -> beam.Pipeline:
    """An empty pipeline for the runner that the options name, with what it needs filled in and there.

    Raises:
      UsageError: if the job cannot run so.
    """
    with_defaults(options, unbounded)
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as refused:  # how Beam speaks of a runner or an option
        runner = options.view_as(StandardOptions).runner
        raise UsageError(
            f"--runner={runner} cannot run this ({refused}): give DirectRunner, FlinkRunner or SparkRunner"
        ) from None


def with_defaults(options: PipelineOptions, unbounded: bool) -> PipelineOptions:
    """The same options, with what the runner needs filled in where the user said nothing.

    Raises:
      UsageError: if the job cannot run so.
    """
    standard = options.view_as(StandardOptions)
    if standard.runner is None or standard.runner.lower() in ("direct", "directrunner"):
        standard.runner = DIRECT_RUNNER
    check_files(options.view_as(SetupOptions))
    check_environment(options.view_as(PortableOptions))
    check_job_endpoint(options.view_as(PortableOptions), standard.runner)
    if is_flink(options):
        _job_server_defaults(options)
        _flink_defaults(options, unbounded)
    else:
        _refuse_what_flink_does(options, unbounded)
    if is_spark(options):
        _job_server_defaults(options)
        _spark_defaults(options)
    portable = options.view_as(PortableOptions)
    portable.sdk_worker_parallelism = _wished_processes(portable) or _worker_processes(options, unbounded)
    return options


def _wished_processes(portable: PortableOptions) -> int:
    """What the user says of worker processes, which Beam hands on as it is; 0: as many as suit."""
    try:
        return whole(0, _MOST_PROCESSES)(str(portable.sdk_worker_parallelism))
    except argparse.ArgumentTypeError as wrong:
        raise UsageError(f"--sdk_worker_parallelism {wrong}: correct it") from None


def _worker_processes(options: PipelineOptions, unbounded: bool) -> int:
    """How many Python processes each TaskManager is to have, where the user does not say.

    A stream has one for each of its tasks there: Python runs one thread at a time, so in one process the tasks wait for
    each other.  A batch has one, since each holds much.
    """
    flink, kind = options.view_as(FlinkRunnerOptions), options.view_as(PortableOptions).environment_type
    in_threads = flink.flink_master in EMBEDDED or (kind or "").upper() == "LOOPBACK"  # of this process
    if in_threads or not unbounded:
        return 1
    return max(1, min(flink.parallelism, Cluster(flink.flink_master).slots()))


def _refuse_what_flink_does(options: PipelineOptions, unbounded: bool) -> None:
    """Another runner would do something else than these flags say, in silence."""
    if unbounded:
        raise UsageError(
            "an unbounded read needs --runner=FlinkRunner: give that, or --bounded to stop at the topic's present end"
        )
    standard, master = options.view_as(StandardOptions), options.view_as(FlinkRunnerOptions).flink_master
    if standard.streaming and standard.runner == DIRECT_RUNNER:
        raise UsageError("--streaming needs --runner=FlinkRunner: give that too, or leave --streaming out")
    if master != "[auto]" and not options.view_as(PortableOptions).job_endpoint:
        raise UsageError(f"--flink_master={master} needs --runner=FlinkRunner: give that too, or leave it out")


def _flink_defaults(options: PipelineOptions, unbounded: bool) -> None:
    flink, portable = options.view_as(FlinkRunnerOptions), options.view_as(PortableOptions)
    flink.flink_master = "[local]" if flink.flink_master == "[auto]" else flink.flink_master.strip()
    flink.flink_version = "1.19"
    for flag in ("parallelism", "max_parallelism"):
        if getattr(flink, flag) != -1 and not 1 <= getattr(flink, flag) <= _MOST_PARALLEL:
            raise UsageError(f"--{flag} must be from 1 to {_MOST_PARALLEL}, not {getattr(flink, flag)}: correct it")
    _check_jar("flink_job_server_jar", flink.flink_job_server_jar)
    host = None
    if flink.flink_master not in EMBEDDED:
        Cluster(flink.flink_master).class_path()  # raises when nobody answers
        host = urllib.parse.urlsplit(url_of(flink.flink_master)).hostname
    check_workers(portable, f"--flink_master={flink.flink_master}", host)
    if not flink.flink_job_server_jar:
        flink.flink_job_server_jar = job_server_jar(flink.flink_master)
    if unbounded:
        _streaming_defaults(options)


def _spark_defaults(options: PipelineOptions) -> None:
    spark, portable = options.view_as(SparkRunnerOptions), options.view_as(PortableOptions)
    if spark.spark_master_url == _BEAMS_SPARK:
        spark.spark_master_url = "local[*]"
    _check_jar("spark_job_server_jar", spark.spark_job_server_jar)
    host = spark_host(spark.spark_master_url)
    check_workers(portable, f"--spark_master_url={spark.spark_master_url}", host)
    if not portable.environment_cache_millis:
        portable.environment_cache_millis = _WORKERS_REST_MS
    if not spark.spark_job_server_jar:
        spark.spark_job_server_jar = spark_job_server_jar(spark.spark_master_url)


def _job_server_defaults(options: PipelineOptions) -> None:
    if shutil.which("java") is None:
        runner = options.view_as(StandardOptions).runner
        raise UsageError(f"--runner={runner} needs Java 17 and there is no `java` on the PATH: install it")
    server = options.view_as(JobServerOptions)
    for name in ("job_port", "artifact_port", "expansion_port"):
        # Beam would take ports that some connection may have got before its job server, a second later, listens.
        if not getattr(server, name):
            setattr(server, name, free_port())
    server.job_server_jvm_properties = server.job_server_jvm_properties or [QUICK_COMPILER]


def _check_jar(flag: str, jar: str | None) -> None:
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise UsageError(f"--{flag}={jar} does not exist: correct it, or leave it out for the default")


def _streaming_defaults(options: PipelineOptions) -> None:
    tuning = options.view_as(FlinkOptions)
    options.view_as(StandardOptions).streaming = True
    if tuning.checkpointing_interval is None:
        tuning.checkpointing_interval = 10_000
    if tuning.min_pause_between_checkpoints is None:
        # After a long checkpoint those that are due would follow at once; with several a second Flink 1.19 was seen to
        # lose a task's answer ("Attempt to reference unknown state") and to wait for it until the timeout.
        tuning.min_pause_between_checkpoints = 500
    embedded = options.view_as(FlinkRunnerOptions).flink_master in EMBEDDED
    if embedded and tuning.state_backend is None:  # a cluster has its own configuration
        tuning.state_backend = "rocksdb"
        tuning.state_backend_storage_path = (cache_dir() / "flink-local-checkpoints").as_uri()
    if tuning.flink_conf_dir is None and "FLINK_CONF_DIR" not in os.environ:
        tuning.flink_conf_dir = conf_dir_of_streams()
    # A stream that was cancelled can go on from its last checkpoint; the cluster's own setting does not reach jobs.
    tuning.externalized_checkpoints_enabled = True
    tuning.retain_externalized_checkpoints_on_cancellation = True
    if tuning.finish_bundle_before_checkpointing is None:
        tuning.finish_bundle_before_checkpointing = True  # else its output stays in heap and checkpoint
    if tuning.max_bundle_time_mills is None:
        # What is sent to a worker waits until the bundle ends, and with it the worker: Beam's 1000 is long for both.
        # With 50 ticks were 60 ms later at 20,000 a second, and CPU time was the same.
        tuning.max_bundle_time_mills = 20
