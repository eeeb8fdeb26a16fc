"""The log of the contract, and somewhere for each run to write to."""

import collections
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.runners.servers.s3 import S3
from beam_pipelines.runners.servers.worker_pool import WorkerPool
from beam_pipelines.sql.migrate import Dsn, migrate

from .logs import Log, create_topic, fill, session_log
from .sinks import Sinks

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def in_memory() -> Log:
    """A session with everything in it that can happen to ticks."""
    return session_log("contract-raw")


@pytest.fixture(scope="session")
def log(kafka_server: str, in_memory: Log) -> Log:
    """The same in a topic, record by record."""
    create_topic(kafka_server, in_memory.topic, in_memory.partitions)
    fill(kafka_server, in_memory.topic, *in_memory.cut(1))
    return in_memory


@pytest.fixture(scope="session")
def workers(servers_folder: pathlib.Path, s3_server: S3) -> Iterator[WorkerPool]:
    """A pool of SDK workers that may write to S3."""
    pool = WorkerPool(servers_folder / "contract-workers", collections.defaultdict(int), s3_server.environment)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def new_sinks(kafka_server: str, postgres_server: Postgres) -> Iterator[Callable[[str], Sinks]]:
    """Makes empty topics, tables and a place in a lake: `new_sinks(root_of_lakes)`."""
    made = []

    def make(root: str) -> Sinks:
        name = f"contract_{next(_numbers)}"
        made.append(name)
        with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        dsn = f"{postgres_server.dsn.rpartition('/')[0]}/{name}"
        migrate(Dsn(dsn))
        topics = [f"{name}-{what}" for what in ("processed", "dead-letters", "anomalies")]
        sinks = Sinks(kafka_server, *topics, dsn, f"{root}/{name}")
        for topic in topics:
            create_topic(kafka_server, topic, 2)
        return sinks

    yield make
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def on_flink(flink_cluster: Any, workers: WorkerPool) -> list[str]:
    """The Beam options of a job on the cluster whose workers may write to S3."""
    return [*flink_cluster.arguments[:-1], f"--environment_config={workers.address('worker_pool')}", "--parallelism=2"]


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that asks for local time gets New York's."""
    for name in ("TZ", "PGTZ"):
        monkeypatch.setenv(name, "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
