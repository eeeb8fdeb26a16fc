"""Beam jobs run on embedded Flink and on our cluster, with our job server's jar."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PortableOptions

from beam_pipelines.errors import UsageError
from beam_pipelines.options import parse
from beam_pipelines.runners.cluster import Cluster
from beam_pipelines.runners.defaults import with_defaults
from beam_pipelines.runners.flink import job_server_jar
from beam_pipelines.runners.servers.flink import JobManager, TaskManager, checkpoints_on
from tests.conftest import SLOTS, FlinkCluster, on_any_port, started

pytestmark = pytest.mark.servers

HERE = pathlib.Path(__file__).parent
PATIENCE_S = 60


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return value


def sums(target: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / "batch_job.py", target, "--runner=FlinkRunner", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_job_runs_on_embedded_flink(tmp_path: pathlib.Path) -> None:
    done = sums(tmp_path / "sums")
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "sums").read_text().splitlines()) == ["('a', 4)", "('b', 2)"]


def test_a_job_runs_on_the_cluster(tmp_path: pathlib.Path, flink_cluster: Any) -> None:
    done = sums(tmp_path / "sums", *flink_cluster.arguments)
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "sums").read_text().splitlines()) == ["('a', 4)", "('b', 2)"]


@pytest.mark.parametrize(
    ("flags", "unbounded", "processes"),
    [
        (["--parallelism=1000"], True, SLOTS),
        (["--parallelism=2"], True, 2),
        ([], True, 1),
        (["--parallelism=2", "--sdk_worker_parallelism=1"], True, 1),
        (["--parallelism=2", "--sdk_worker_parallelism", "3"], True, 3),
        (["--parallelism=2"], False, 1),
        (["--parallelism=2", "--environment_type=LOOPBACK"], True, 1),
        (["--parallelism=2", "--flink_master=[local]"], True, 1),
    ],
)
def test_a_stream_has_a_worker_process_for_each_task_of_a_task_manager(
    flink_cluster: FlinkCluster, flags: list[str], unbounded: bool, processes: int
) -> None:
    _, options = parse([*flink_cluster.arguments, *flags], lambda parser: None, "program", "Does something.")
    assert with_defaults(options, unbounded).view_as(PortableOptions).sdk_worker_parallelism == processes


def test_without_a_task_manager_the_configuration_says_how_many_slots_one_has(
    tmp_path: pathlib.Path, reaper: None
) -> None:
    job_manager = on_any_port(JobManager, tmp_path / "jobmanager")
    job_manager.provide()
    with started(job_manager):
        assert Cluster(job_manager.address("flink")).slots() == 1  # Flink's default


def test_a_job_without_checkpoints_has_none(tmp_path: pathlib.Path, flink_cluster: Any) -> None:
    assert sums(tmp_path / "sums", *flink_cluster.arguments, "--job_name=bounded").returncode == 0
    cluster = Cluster(flink_cluster.rest)
    assert [cluster.checkpoint(job.id) for job in cluster.jobs() if job.name == "bounded"] == [None]


def test_a_bounded_job_that_can_never_succeed_ends(tmp_path: pathlib.Path, flink_cluster: Any) -> None:
    (tmp_path / "file").touch()
    done = sums(tmp_path / "file" / "sums", *flink_cluster.arguments)
    assert done.returncode == 1
    assert "Not a directory" in done.stderr


def test_a_job_for_our_cluster_uploads_no_jars(flink_cluster: Any) -> None:
    assert "/gradle/wrapper/" in job_server_jar(flink_cluster.rest)
    assert "/gradle/wrapper/" not in job_server_jar("[local]")


def test_an_unreachable_cluster_is_named() -> None:
    with pytest.raises(UsageError, match=r"--flink_master=127\.0\.0\.1:1: no Flink cluster answers there"):
        job_server_jar("127.0.0.1:1")


@pytest.fixture
def cluster_on_s3(
    tmp_path: pathlib.Path, s3_server: Any, flink_cluster: FlinkCluster, reaper: None
) -> Iterator[FlinkCluster]:
    """A cluster that keeps its checkpoints on an S3 server."""
    job_manager = on_any_port(JobManager, tmp_path / "jobmanager", checkpoints_on(s3_server))
    task_manager = on_any_port(TaskManager, tmp_path / "taskmanager", job_manager)
    job_manager.provide()
    with started(job_manager, task_manager):
        yield FlinkCluster(job_manager, task_manager, flink_cluster.workers)


@pytest.fixture(params=["flink_cluster", "cluster_on_s3"])
def cluster(request: pytest.FixtureRequest) -> FlinkCluster:
    found: FlinkCluster = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def streaming_job(cluster: FlinkCluster) -> Iterator[str]:
    """The id of a running job with keyed state and checkpoints every second."""
    known = {job["jid"] for job in cluster.job_manager.get("jobs/overview")["jobs"]}
    command = [sys.executable, HERE / "streaming_job.py", *cluster.arguments]
    client = subprocess.Popen([*command, "--checkpointing_interval=1000", "--parallelism=2"], stderr=subprocess.DEVNULL)

    def started() -> str | None:
        jobs = cluster.job_manager.get("jobs/overview")["jobs"]
        return next((job["jid"] for job in jobs if job["jid"] not in known), None)

    job = eventually(started)
    yield job
    url = f"http://{cluster.rest}/jobs/{job}?mode=cancel"
    urllib.request.urlopen(urllib.request.Request(url, method="PATCH"))
    eventually(lambda: cluster.job_manager.get(f"jobs/{job}")["state"] == "CANCELED")
    client.wait(30)


def test_a_streaming_job_takes_checkpoints_and_outlives_a_killed_task_manager(
    cluster: FlinkCluster, streaming_job: str
) -> None:
    def told() -> Any:
        return cluster.job_manager.get(f"jobs/{streaming_job}/checkpoints") or {}

    def counts() -> Any:
        return told().get("counts") or {"completed": 0, "restored": 0}  # a job that only begins has none

    eventually(lambda: counts()["completed"] >= 2)
    assert told()["latest"]["completed"]["external_path"].startswith(cluster.job_manager.store.url.replace("///", "/"))
    assert cluster.task_manager.process is not None
    os.kill(cluster.task_manager.process.pid, signal.SIGKILL)
    os.waitpid(cluster.task_manager.process.pid, 0)
    cluster.task_manager.start()
    eventually(lambda: counts()["restored"] == 1)
    completed = counts()["completed"]
    eventually(lambda: counts()["completed"] > completed)
