"""Real servers for the tests: each is started by the first test that asks for it and ended with the run."""

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import hypothesis
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from beam_pipelines.runners.flink import job_server_jar
from beam_pipelines.runners.maven import QUICK_COMPILER
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.runners.servers.flink import JobManager, TaskManager
from beam_pipelines.runners.servers.kafka import Kafka
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.runners.servers.s3 import S3
from beam_pipelines.runners.servers.spark import SparkMaster, SparkWorker
from beam_pipelines.runners.servers.timescale import Timescale
from beam_pipelines.runners.servers.worker_pool import WorkerPool

SLOTS = 4
ALERTS = ("market-anomalies", "data-quality-alerts")
REAPER = """
import pathlib, sys
from beam_pipelines.runners.processes import sweep
sys.stdin.read()
sweep(pathlib.Path(sys.argv[1]))
"""
AnyServer = TypeVar("AnyServer", bound=Server)
_numbers = itertools.count(1)
hypothesis.settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's matter
hypothesis.settings.load_profile("untimed")


def on_any_port(kind: type[AnyServer], folder: pathlib.Path, *more: object) -> AnyServer:
    """Never on the usual ports: a second run beside this one would meet it there."""
    return kind(folder, dict.fromkeys(kind.preferred_ports, 0), *more)


@contextlib.contextmanager
def started(*servers: Server) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in reversed(servers):
            server.stop()


def pytest_configure() -> None:
    """Ends a run that is told to end as Ctrl-C does: with all servers taken down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # No virtual machine of a test lives long enough to be worth compiling twice: a tenth less of their CPU time.
    os.environ.setdefault("JDK_JAVA_OPTIONS", QUICK_COMPILER)


@pytest.fixture(scope="session")
def reaper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sees to it that no server below the run's folder outlives the run, even one that is killed."""
    command = [sys.executable, "-c", REAPER, str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # its input ends with this process
        yield


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory, reaper: None) -> pathlib.Path:
    """Where the servers of this run keep their data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def kafka_server(servers_folder: pathlib.Path) -> Iterator[str]:
    """The bootstrap servers of a broker, which has the topics of alerts."""
    server = on_any_port(Kafka, servers_folder / "kafka")
    with started(server):
        admin = AdminClient({"bootstrap.servers": server.address("kafka")})
        for made in admin.create_topics([NewTopic(name, 1, 1) for name in ALERTS]).values():
            made.result(30)
        yield server.address("kafka")


@pytest.fixture
def topic(kafka_server: str) -> Callable[[str, int], str]:
    """Makes a new topic: `topic(name_prefix, partitions)` gives its name."""
    admin = AdminClient({"bootstrap.servers": kafka_server})

    def make(prefix: str, partitions: int = 1) -> str:
        name = f"{prefix}-{next(_numbers)}"
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
        return name

    return make


@pytest.fixture(scope="session")
def postgres_server(servers_folder: pathlib.Path) -> Iterator[Postgres]:
    """A PostgreSQL server."""
    server = on_any_port(Postgres, servers_folder / "postgres")
    with started(server):
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: Postgres) -> Iterator[str]:
    """The DSN of a new, empty database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_server.dsn.rpartition('/')[0]}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def timescale_server(servers_folder: pathlib.Path) -> Iterator[Timescale]:
    """A TimescaleDB server, which has one database and one session: tests name and drop their own tables."""
    server = on_any_port(Timescale, servers_folder / "timescale")
    with started(server):
        yield server


@pytest.fixture(scope="session")
def s3_server(servers_folder: pathlib.Path) -> Iterator[S3]:
    """An S3 server, with `endpoint` and `bucket`; the environment's AWS settings point to it."""
    server = on_any_port(S3, servers_folder / "s3")
    with started(server), pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


class FlinkCluster(NamedTuple):
    """A running cluster; its servers are there to be killed and started again."""

    job_manager: JobManager
    task_manager: TaskManager
    workers: WorkerPool

    @property
    def rest(self) -> str:
        return self.job_manager.address("flink")

    @property
    def worker_pool(self) -> str:
        return self.workers.address("worker_pool")

    @property
    def arguments(self) -> list[str]:
        """The Beam options of a job on this cluster."""
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.rest}",
            f"--flink_job_server_jar={job_server_jar(self.rest)}",
            f"--artifacts_dir={self.job_manager.folder / 'artifacts'}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.worker_pool}",
        ]


@pytest.fixture(scope="session")
def flink_cluster(servers_folder: pathlib.Path) -> Iterator[FlinkCluster]:
    """A Flink cluster at `rest`, and its Python workers at `worker_pool`."""
    job_manager = on_any_port(JobManager, servers_folder / "jobmanager")
    task_manager = on_any_port(TaskManager, servers_folder / "taskmanager", job_manager, SLOTS)
    workers = on_any_port(WorkerPool, servers_folder / "workers")
    with started(workers, job_manager, task_manager):
        yield FlinkCluster(job_manager, task_manager, workers)


class SparkCluster(NamedTuple):
    """A running cluster; its servers are there to be killed and started again."""

    master: SparkMaster
    worker: SparkWorker
    workers: WorkerPool

    @property
    def arguments(self) -> list[str]:
        """The Beam options of a job on this cluster."""
        return [
            "--runner=SparkRunner",
            f"--spark_master_url={self.master.url}",
            f"--artifacts_dir={self.master.folder / 'artifacts'}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.workers.address('worker_pool')}",
        ]


@pytest.fixture(scope="session")
def spark_cluster(servers_folder: pathlib.Path, s3_server: S3) -> Iterator[SparkCluster]:
    """A standalone Spark cluster, and its Python workers, which may write to S3."""
    master = on_any_port(SparkMaster, servers_folder / "sparkmaster")
    worker = on_any_port(SparkWorker, servers_folder / "sparkworker", master)
    workers = on_any_port(WorkerPool, servers_folder / "spark-workers", s3_server.environment)
    master.provide()
    with started(workers, master, worker):
        yield SparkCluster(master, worker, workers)
