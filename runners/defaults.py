"""What each runner needs that Beam does not set by itself; differences between runners live here."""

import shutil

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.flink import job_server_jar

__all__ = ["DIRECT_RUNNER", "FlinkOptions", "is_flink", "with_defaults"]

DIRECT_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""DirectRunner chooses among three implementations by itself, one of which it would download: pin one."""

_FLINK_OPTIONS: tuple[tuple[str, type], ...] = (
    ("checkpointing_interval", int),
    ("checkpointing_mode", str),
    ("checkpoint_timeout_millis", int),
    ("min_pause_between_checkpoints", int),
    ("num_concurrent_checkpoints", int),
    ("finish_bundle_before_checkpointing", bool),
    ("unaligned_checkpoint_enabled", bool),
    ("shutdown_sources_after_idle_ms", int),
    ("state_backend", str),
    ("state_backend_storage_path", str),
    ("retain_externalized_checkpoints_on_cancellation", bool),
    ("savepoint_path", str),
    ("allow_non_restored_state", bool),
    ("max_bundle_size", int),
    ("max_bundle_time_mills", int),  # spelt so in Beam; any other spelling is dropped
    ("object_reuse", bool),
    ("faster_copy", bool),
    ("operator_chaining", bool),
    ("execution_mode_for_batch", str),
    ("flink_conf_dir", str),
    ("disable_metrics", bool),
)


class FlinkOptions(PipelineOptions):
    """Options of Beam's Flink runner that only its job server knows, declared so that a misspelt one is refused."""

    @classmethod
    def _add_argparse_args(cls, parser) -> None:  # type: ignore[no-untyped-def]
        for name, kind in _FLINK_OPTIONS:
            if kind is bool:
                parser.add_argument(f"--{name}", action="store_true", default=None)
            else:
                parser.add_argument(f"--{name}", type=kind, default=None)


def is_flink(options: PipelineOptions) -> bool:
    """Whether the job runs on Flink."""
    return "flink" in (options.view_as(StandardOptions).runner or "").lower()


def with_defaults(options: PipelineOptions, unbounded: bool) -> PipelineOptions:
    """The same options, with what the runner needs filled in where the user said nothing.

    Raises:
      UsageError: if the job cannot run so.
    """
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = DIRECT_RUNNER
    if unbounded and not is_flink(options):
        raise UsageError(
            "an unbounded read needs --runner=FlinkRunner: give that, or --bounded to stop at the topic's present end"
        )
    if is_flink(options):
        _flink_defaults(options, unbounded)
    return options


def _flink_defaults(options: PipelineOptions, unbounded: bool) -> None:
    flink, tuning, portable = (options.view_as(view) for view in (FlinkRunnerOptions, FlinkOptions, PortableOptions))
    if shutil.which("java") is None:
        raise UsageError("--runner=FlinkRunner needs Java 17 and there is no `java` on the PATH: install it")
    if flink.flink_master == "[auto]":
        flink.flink_master = "[local]"
    if not flink.flink_job_server_jar:
        flink.flink_job_server_jar = job_server_jar()
    flink.flink_version = "1.19"
    if flink.flink_master != "[local]" and not portable.environment_type:
        raise UsageError(
            f"--flink_master={flink.flink_master} needs workers: give --environment_type=EXTERNAL and "
            "--environment_config=host:port of the worker pool beside the task managers"
        )
    if unbounded:
        options.view_as(StandardOptions).streaming = True
        if tuning.checkpointing_interval is None:
            tuning.checkpointing_interval = 10_000
        if flink.flink_master == "[local]" and tuning.state_backend is None:  # a cluster has its own configuration
            tuning.state_backend = "rocksdb"
            tuning.state_backend_storage_path = (cache_dir() / "flink-local-checkpoints").as_uri()
        if tuning.max_bundle_time_mills is None:
            tuning.max_bundle_time_mills = 100  # a part of the latency; Beam's 1000 is meant for throughput alone
