"""Beam's Flink job server, as one small jar that names its class path."""

import os
import pathlib

from beam_pipelines.runners import maven
from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.cluster import Cluster

__all__ = ["ADD_OPENS", "EMBEDDED", "conf_dir_of_streams", "job_server_jar"]

MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"
EMBEDDED = ("[local]", "[auto]", "[collection]")
_FOR_EVER = {
    "type": "exponential-delay",
    "exponential-delay.initial-backoff": "1 s",
    "exponential-delay.max-backoff": "30 s",
    "exponential-delay.reset-backoff-threshold": "2 min",
}
ADD_OPENS = tuple(  # what Flink's and Beam's serializers reach into; closed by default since Java 16
    f"java.base/{package}"
    for package in (
        "java.io",
        "java.lang",
        "java.lang.reflect",
        "java.net",
        "java.nio",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
        "sun.nio.ch",
    )
)


def job_server_jar(flink_master: str = "[local]") -> str:
    """The path of a jar fit for Beam's `--flink_job_server_jar`; assembled in the cache when absent.

    The job server uploads its whole class path with each job, 200 MB and 13 s, unless the cluster has it already,
    as the local stack's has.

    Args:
      flink_master: where the job is to run, as in Beam's `--flink_master`.

    Raises:
      UsageError: when nobody answers there, or the jar is absent and Java or Maven is missing.
    """
    lib = maven.resolve("flink")
    if flink_master.strip() not in EMBEDDED and _cluster_has(lib, flink_master.strip()):
        lib = maven.unstaged(lib)
    return str(maven.pathing_jar(lib, MAIN_CLASS, ADD_OPENS))


def conf_dir_of_streams() -> str:
    """A folder for Beam's `--flink_conf_dir` that makes a job restart for ever, ever more slowly.

    It is asked for by the job, because bounded ones, whose settings Beam does not pass on, must end: a cluster's own
    strategy is for these.
    """
    folder = cache_dir() / "flink-conf-streams"
    folder.mkdir(exist_ok=True)
    draft = folder / f"config.yaml.{os.getpid()}"
    draft.write_text("".join(f"restart-strategy.{name}: {value}\n" for name, value in _FOR_EVER.items()))
    draft.rename(folder / "config.yaml")
    return str(folder)


def _cluster_has(lib: pathlib.Path, flink_master: str) -> bool:
    """Whether the JobManager's class path holds our jars."""
    return any(entry.startswith(f"{lib}/") for entry in Cluster(flink_master).class_path())
