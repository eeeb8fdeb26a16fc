"""Checks of what a portable job needs, before it is submitted: Beam itself waits for ever, or fails in Java.

A worker pool is reached from the cluster's machines, so it is checked only where these run on this machine.
"""

import json
import pathlib
import socket

import grpc
from apache_beam.options.pipeline_options import PortableOptions, SetupOptions

from beam_pipelines.errors import UsageError

__all__ = ["check_environment", "check_files", "check_job_endpoint", "check_workers"]

_ENVIRONMENTS = ("LOOPBACK", "EXTERNAL", "PROCESS", "DOCKER")
_SECONDS = 5.0  # for one answer
_HERE = (None, "localhost", "127.0.0.1", "::1")


def check_environment(portable: PortableOptions) -> None:
    """Makes sure that Beam knows the environment of the workers.

    Raises:
      UsageError: if not.
    """
    kind = portable.environment_type
    if kind and kind.upper() not in _ENVIRONMENTS and not kind.startswith("beam:env:"):
        raise UsageError(f"--environment_type={kind} is unknown: give one of {', '.join(_ENVIRONMENTS)}")


def check_workers(portable: PortableOptions, master: str, host: str | None) -> None:
    """Makes sure that a job's workers can be started.

    Args:
      portable: says how.
      master: the flag that names the cluster, with its value.
      host: of the cluster; None: the job runs embedded.

    Raises:
      UsageError: if none are named, or they come from a worker pool that is not named or does not answer.
    """
    if host and not portable.environment_type:
        raise UsageError(
            f"{master} needs workers: give --environment_type=EXTERNAL and --environment_config=host:port of the "
            "worker pool beside the cluster's own workers"
        )
    if (portable.environment_type or "").upper() != "EXTERNAL":
        return
    address = _pool_address(portable)
    if not address:
        raise UsageError("--environment_type=EXTERNAL needs --environment_config=host:port of a worker pool: give it")
    if host in _HERE and not _answers(address):
        raise UsageError(
            f"--environment_config={address}: no worker pool answers there: start one (python -m "
            "apache_beam.runners.worker.worker_pool_main --service_port=50000) or correct host:port"
        )


def _pool_address(portable: PortableOptions) -> str | None:
    config = portable.environment_config or portable.lookup_environment_option("external_service_address")
    if not config or not config.lstrip().startswith("{"):
        return config
    try:
        return json.loads(config).get("url")
    except ValueError:
        raise UsageError(f"--environment_config={config} is not JSON: give host:port of a worker pool") from None


def check_job_endpoint(portable: PortableOptions, runner: str) -> None:
    """Makes sure that a job server answers, if one is named or needed.

    Raises:
      UsageError: if not.
    """
    endpoint = portable.job_endpoint
    if not endpoint and runner.lower() in ("portable", "portablerunner"):
        raise UsageError(f"--runner={runner} needs --job_endpoint=host:port: give that, or --runner=FlinkRunner")
    if endpoint and endpoint != "embed" and not _answers(endpoint):
        raise UsageError(f"--job_endpoint={endpoint}: no job server answers there: start it or correct host:port")


def _answers(address: str) -> bool:
    """Whether a gRPC server is there, which says more than an open port; a closed one is told at once."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def check_files(setup: SetupOptions) -> None:
    """Makes sure that the files are there which Beam brings to its workers.

    Raises:
      UsageError: names the one that is not.
    """
    for flag in ("setup_file", "requirements_file"):
        path = getattr(setup, flag)
        if path and not pathlib.Path(path).is_file():
            raise UsageError(f"--{flag}={path} does not exist: correct the path")
