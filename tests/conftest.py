"""Real servers for the tests: each is started by the first test that asks for it and ended with the run."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from beam_pipelines.runners.servers.base import Server
from beam_pipelines.runners.servers.kafka import Kafka
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.runners.servers.s3 import S3

AnyServer = TypeVar("AnyServer", bound=Server)
_numbers = itertools.count(1)


@contextlib.contextmanager
def started(kind: type[AnyServer], folder: pathlib.Path) -> Iterator[AnyServer]:
    server = kind(folder / kind.name, dict.fromkeys(kind.preferred_ports, 0))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the servers of this run keep their data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def kafka_server(servers_folder: pathlib.Path) -> Iterator[str]:
    """The bootstrap servers of a broker."""
    with started(Kafka, servers_folder) as server:
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
    with started(Postgres, servers_folder) as server:
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
def s3_server(servers_folder: pathlib.Path) -> Iterator[S3]:
    """An S3 server, with `endpoint` and `bucket`; the environment's AWS settings point to it."""
    with started(S3, servers_folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
