"""A stream that was stopped, or lost with its JobManager, goes on elsewhere, and no sink can tell."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from beam_pipelines import ledger
from beam_pipelines.runners.jobs import FlinkJob, launched

from .logs import Log, create_topic, fill
from .sinks import Sinks
from .streams import await_true, streaming

pytestmark = pytest.mark.servers

TABLES_AND_TOPICS = ("table of bars", "table of ticks", "topic of ticks", "topic of dead letters")


def jobs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_pipelines.jobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def path_of(done: subprocess.CompletedProcess[str]) -> str:
    """What a script takes from it."""
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[-1]


def has_checkpoint(job: FlinkJob) -> bool:
    return any(job.cluster.checkpoint(it.id) for it in job.cluster.jobs() if it.name == job.name)


@pytest.fixture
def new_log(kafka_server, in_memory, request) -> Log:
    """The log of the contract, in an empty topic that is still to be filled."""
    log = in_memory._replace(topic=f"contract-{request.node.name}")
    create_topic(kafka_server, log.topic, log.partitions)
    return log


def differing(sinks: Sinks, log: Log, *names: str) -> dict[str, ledger.Difference]:
    return {name: it for name, it in sinks.differences(log.expected) if name in names and not it.clean}


def since(rows: ledger.Rows, begun: dict[int, int]) -> ledger.Rows:
    """Those of a log's (partition, offset) that are not before these offsets."""
    return {place: row for place, row in rows.items() if place[1] >= begun[place[0]]}


def test_a_stopped_stream_goes_on_from_its_savepoint_with_another_output_and_parallelism(
    new_log, new_sinks, s3_server, flink_cluster, on_flink, tmp_path
):
    sinks, rest = new_sinks(f"s3://{s3_server.bucket}"), flink_cluster.rest
    parts = new_log.cut(3)
    with_lake = streaming(new_log, sinks, on_flink)
    without_lake = [flag for flag in with_lake if not flag.startswith("--lake")]
    at = f"--flink_master={rest}"

    with launched(without_lake, rest, "first", tmp_path / "first") as job:
        fill(sinks.bootstrap_servers, new_log.topic, parts[0])
        filler = threading.Thread(target=fill, args=(sinks.bootstrap_servers, new_log.topic, parts[1], 4.0))
        before = sinks.count("market_data_ts")
        filler.start()
        await_true(job, lambda: sinks.count("market_data_ts") > before)
        await_true(job, lambda: has_checkpoint(job))
        refused = jobs("stop", at, "--savepoint=/proc/x", "first")
        assert refused.returncode == 1
        assert "failed, and the job goes on: IOException: Failed to create" in refused.stderr
        unknown = jobs("stop", at, "second")
        assert unknown.returncode == 2
        assert "JOB: 0 running jobs have the name or id second at" in unknown.stderr
        assert re.search(r" first +RUNNING +[\d-]+  \d+ s ago, \d+\.\d MB, file:/", jobs("list", at).stdout)
        savepoint = path_of(jobs("stop", at, f"--savepoint={tmp_path}/kept", "first"))
        filler.join()
        assert job.ended() == 0
    assert (tmp_path / "first").read_text().splitlines()[-1].startswith("the job was stopped; with --savepoint_path")

    resumed = [*with_lake, "--parallelism=3", f"--savepoint_path={savepoint}"]
    with launched(resumed, rest, "second", tmp_path / "second") as job:
        fill(sinks.bootstrap_servers, new_log.topic, parts[2])
        await_true(job, lambda: not differing(sinks, new_log, *TABLES_AND_TOPICS))
        held = dict(ledger.rows_of_lake(sinks.lake))
        begun = {p: min(o for partition, o in held if partition == p) for p in range(new_log.partitions)}
        assert min(begun.values()) > 0
        await_true(job, lambda: dict(ledger.rows_of_lake(sinks.lake)) == since(new_log.expected.lake, begun))
        second = path_of(jobs("stop", at))

    forgets = [*without_lake, f"--savepoint_path={second}", "--job_name=third"]
    done = subprocess.run(forgets, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"error: --savepoint_path={second} has state of a step that the job has no more" in done.stderr


def test_a_stream_whose_job_manager_died_goes_on_from_its_last_checkpoint(
    new_log, new_sinks, s3_server, flink_cluster, on_flink, tmp_path
):
    sinks, rest = new_sinks(f"s3://{s3_server.bucket}"), flink_cluster.rest
    parts = new_log.cut(2)
    command = streaming(new_log, sinks, on_flink)

    with launched(command, rest, "lost", tmp_path / "lost") as job:
        fill(sinks.bootstrap_servers, new_log.topic, parts[0])
        await_true(job, lambda: sinks.count("market_data_ts") > 0)
        await_true(job, lambda: has_checkpoint(job))
        (running,) = (it.id for it in job.cluster.jobs() if it.name == "lost")
        os.kill(flink_cluster.job_manager.process.pid, signal.SIGKILL)
        os.waitpid(flink_cluster.job_manager.process.pid, 0)
        job.lose_program()
        flink_cluster.job_manager.start()
        flink_cluster.task_manager.start()  # waits until it is known to the new one
    checkpoint = path_of(jobs("saved", f"--flink_master={rest}"))
    assert f"/{running}/chk-" in checkpoint

    with launched([*command, f"--savepoint_path={checkpoint}"], rest, "found", tmp_path / "found") as job:
        fill(sinks.bootstrap_servers, new_log.topic, parts[1])
        await_true(job, lambda: sinks.is_clean(new_log.expected))
        last = path_of(jobs("cancel", f"--flink_master={rest}"))
    assert "/chk-" in last
    assert path_of(jobs("saved", f"--flink_master={rest}")).endswith(last.removeprefix("file:"))  # it is still there
