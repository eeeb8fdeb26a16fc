"""Beam jobs run on embedded Spark and on our standalone cluster, with our job server's jar."""

import pathlib
import subprocess
import sys

import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.spark import job_server_jar, spark_host
from tests.conftest import SparkCluster

HERE = pathlib.Path(__file__).parent


def sums(target: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / "batch_job.py", target, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def finished(cluster: SparkCluster) -> int:
    """How many jobs the cluster has finished."""
    return [app["state"] for app in cluster.master.get()["completedapps"]].count("FINISHED")


@pytest.mark.servers
def test_a_job_runs_on_embedded_spark(tmp_path: pathlib.Path) -> None:
    done = sums(tmp_path / "sums", "--runner=SparkRunner")
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "sums").read_text().splitlines()) == ["('a', 4)", "('b', 2)"]


@pytest.mark.servers
def test_a_job_runs_on_the_cluster(tmp_path: pathlib.Path, spark_cluster: SparkCluster) -> None:
    before = finished(spark_cluster)
    done = sums(tmp_path / "sums", *spark_cluster.arguments)
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "sums").read_text().splitlines()) == ["('a', 4)", "('b', 2)"]
    assert finished(spark_cluster) == before + 1


@pytest.mark.servers
def test_a_job_that_can_never_succeed_ends(tmp_path: pathlib.Path, spark_cluster: SparkCluster) -> None:
    (tmp_path / "file").touch()
    done = sums(tmp_path / "file" / "sums", *spark_cluster.arguments)
    assert done.returncode == 1
    assert "Not a directory" in done.stderr


@pytest.mark.servers
def test_a_job_for_our_cluster_uploads_no_jars(spark_cluster: SparkCluster) -> None:
    assert "/gradle/wrapper/" in job_server_jar(spark_cluster.master.url)


@pytest.mark.servers
def test_a_cluster_needs_workers(tmp_path: pathlib.Path, spark_cluster: SparkCluster) -> None:
    done = sums(tmp_path / "sums", "--runner=SparkRunner", f"--spark_master_url={spark_cluster.master.url}")
    assert done.returncode == 1
    assert (
        f"--spark_master_url={spark_cluster.master.url} needs workers: give --environment_type=EXTERNAL" in done.stderr
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("spark://127.0.0.1:1", "no Spark master answers there"),
        ("127.0.0.1:7077", "is no place to run"),
        ("spark://nowhere", "is no place to run"),
        ("yarn", "is no place to run"),
    ],
)
def test_a_master_that_is_none_is_named(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"--spark_master_url={url}:? {why}"):
        spark_host(url)


@pytest.mark.parametrize("url", ["local", "local[2]", "local[*]", "local[*,4]"])
def test_threads_of_the_job_server_have_no_host(url: str) -> None:
    assert spark_host(url) is None
