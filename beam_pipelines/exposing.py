"""Flags by which a pipeline shows its metrics: to Prometheus while it runs, or to whoever looks when it has ended.

What is shown is measured in this process, where the DirectRunner and LOOPBACK workers run, or by all processes that
share the folder which PIPELINE_METRICS_DIR names.  A worker pool shows its workers' by an exporter of its own.
"""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from beam_pipelines.command_line import filled_as, whole
from beam_pipelines.runners.metrics import push, serve, write_textfile
from beam_pipelines.transforms.metric_store import FOLDER_VARIABLE

__all__ = ["add_metrics_flags", "check_metrics", "exposed"]


_FILE = filled_as("a file's name that ends in .prom", r".*\.prom", "metrics/market.prom")
_GATEWAY = filled_as("host:port or a URL, without a password", r"[^\s@]+", "gateway:9091", "https://gateway/metrics")


def add_metrics_flags(flag: Callable[..., object]) -> None:
    """Where the metrics are shown.

    Args:
      flag: adds one.
    """
    flag("--metrics_port", type=whole(0, 65_535), help="serve the metrics at this port while the job runs; 0: any")
    flag("--metrics_file", type=_FILE, help="write the metrics at the end, for the node exporter: FILE.prom")
    flag("--pushgateway", type=_GATEWAY, help="send the metrics at the end to this Pushgateway, host:port")


def check_metrics(options: argparse.Namespace, pipeline: str) -> None:
    """Does now what is done with the metrics at the end, so that what cannot be done is told before a job begins.

    Args:
      options: with the flags.
      pipeline: names the job at the Pushgateway.

    Raises:
      UsageError: if the file or the gateway cannot be used.
    """
    _leave(options, pipeline, _folder())


def _folder() -> pathlib.Path | None:
    named = os.environ.get(FOLDER_VARIABLE)
    return pathlib.Path(named) if named else None


@contextlib.contextmanager
def exposed(options: argparse.Namespace, pipeline: str) -> Iterator[None]:
    """Shows the metrics of a job as the flags say: while it runs within, and when it has ended, also by a failure.

    Args:
      options: with the flags.
      pipeline: names the job at the Pushgateway.

    Raises:
      UsageError: if the port, the file or the gateway cannot be used.
    """
    folder = _folder()
    server = None if options.metrics_port is None else serve(options.metrics_port, folder)
    if server:
        print(f"metrics: http://127.0.0.1:{server.port}/metrics", flush=True)
    try:
        yield
    finally:
        if server:
            server.close()
        _leave(options, pipeline, folder)


def _leave(options: argparse.Namespace, pipeline: str, folder: pathlib.Path | None) -> None:
    if options.metrics_file:
        write_textfile(pathlib.Path(options.metrics_file), folder)
    if options.pushgateway:
        push(options.pushgateway, pipeline, folder)
