"""Beam's Spark job server, as one small jar that names its class path."""

import re
import urllib.parse

import psutil

from beam_pipelines.errors import UsageError
from beam_pipelines.runners import maven
from beam_pipelines.runners.servers.base import accepts

__all__ = ["ADD_OPENS", "job_server_jar", "spark_host"]

MAIN_CLASS = "org.apache.beam.runners.spark.SparkJobServerDriver"
ADD_OPENS = tuple(  # Spark's own list (org.apache.spark.launcher.JavaModuleOptions): closed by default since Java 16
    f"java.base/{package}"
    for package in (
        "java.io",
        "java.lang",
        "java.lang.invoke",
        "java.lang.reflect",
        "java.net",
        "java.nio",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "sun.nio.ch",
        "sun.nio.cs",
        "sun.security.action",
        "sun.util.calendar",
    )
)
_EMBEDDED = re.compile(r"local(\[[^\]]*\])?")
_HERE = ("localhost", "127.0.0.1", "::1")


def spark_host(master_url: str) -> str | None:
    """The host of the cluster that a `--spark_master_url` names; None for threads of the job server itself.

    Raises:
      UsageError: when it is neither, or nobody listens there.
    """
    if _EMBEDDED.fullmatch(master_url):
        return None
    parts = urllib.parse.urlsplit(master_url)
    if parts.scheme != "spark" or not re.fullmatch(r"[^:]+:\d+", parts.netloc):
        raise UsageError(
            f"--spark_master_url={master_url} is no place to run: give spark://host:port, or local[*] for this machine"
        )
    if not accepts(parts.netloc):
        raise UsageError(f"--spark_master_url={master_url}: no Spark master answers there: start it or correct it")
    return parts.hostname


def job_server_jar(master_url: str) -> str:
    """The path of a jar fit for Beam's `--spark_job_server_jar`; assembled in the cache when absent.

    The job server uploads its whole class path with each job, 300 MB, unless the executors have it already, as
    embedded ones and those of the local stack have.

    Args:
      master_url: where the job is to run, as in Beam's `--spark_master_url`.

    Raises:
      UsageError: when nobody listens there, or the jar is absent and Java or Maven is missing.
    """
    lib = maven.resolve("spark")
    host = spark_host(master_url)
    if host is None or (host in _HERE and str(lib) in _command_at(urllib.parse.urlsplit(master_url).port)):
        lib = maven.unstaged(lib)
    return str(maven.pathing_jar(lib, MAIN_CLASS, ADD_OPENS))


def _command_at(port: int | None) -> str:
    """The command line of the program that listens at a port of this machine; empty if that cannot be told."""
    try:
        listens = (
            it
            for it in psutil.net_connections("tcp")
            if it.status == psutil.CONN_LISTEN and it.laddr and it.laddr.port == port
        )
        return " ".join(psutil.Process(next(listens).pid).cmdline())
    except (StopIteration, psutil.Error):
        return ""
