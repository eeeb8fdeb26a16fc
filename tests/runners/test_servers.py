"""Each server does its work, and outlives a crash with its data."""

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable

import confluent_kafka
import psycopg
import pyarrow.fs
import pytest
from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions
from confluent_kafka.admin import AdminClient

from beam_pipelines.runners.defaults import with_defaults
from beam_pipelines.runners.local import Stack
from beam_pipelines.runners.servers.base import ServerError
from beam_pipelines.runners.servers.kafka import Kafka
from beam_pipelines.runners.servers.postgres import SHARED_MEMORY, Postgres, _as_user
from beam_pipelines.runners.servers.s3 import S3

from ..conftest import on_any_port, started

pytestmark = pytest.mark.servers


def test_kafka_gives_back_what_was_produced(kafka_server: str, topic: Callable[[str, int], str]) -> None:
    name = topic("echo", 2)
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka_server, "message.max.bytes": 4_000_000})
    producer.produce(name, b"x" * 2_000_000, partition=1)
    assert producer.flush(10) == 0
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka_server, "group.id": "echo"})
    consumer.assign([confluent_kafka.TopicPartition(name, 1, 0)])
    message = consumer.poll(10)
    assert message is not None
    assert len(message.value() or b"") == 2_000_000
    consumer.close()


def test_kafka_does_not_make_a_misspelt_topic(kafka_server: str) -> None:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka_server, "group.id": "typo"})
    error = consumer.list_topics("no-such-topic", timeout=10).topics["no-such-topic"].error
    assert error is not None
    assert error.code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
    consumer.close()


def test_kafka_starts_with_any_cluster_id(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))  # begins with a hyphen in base 64
    server = on_any_port(Kafka, tmp_path)
    with started(server):
        admin = AdminClient({"bootstrap.servers": server.address("kafka")})
        assert admin.describe_cluster().result(30).cluster_id.startswith("-Pj4")


def test_every_test_gets_an_empty_database(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE TABLE t (x int)")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_postgres_outlives_a_kill_with_its_data(postgres_server: Postgres) -> None:
    with psycopg.connect(postgres_server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS x")
    assert postgres_server.process is not None
    os.kill(postgres_server.process.pid, signal.SIGKILL)
    os.waitpid(postgres_server.process.pid, 0)
    postgres_server.start()
    with psycopg.connect(postgres_server.dsn) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)
        connection.execute("DROP TABLE kept")


def test_s3_gives_back_what_was_put(s3_server: S3) -> None:
    files = pyarrow.fs.S3FileSystem(endpoint_override=s3_server.endpoint)
    with files.open_output_stream(f"{s3_server.bucket}/folder/object") as out:
        out.write(b"content")
    with files.open_input_stream(f"{s3_server.bucket}/folder/object") as back:
        assert back.read() == b"content"


def test_s3_refuses_a_wrong_secret(s3_server: S3) -> None:
    files = pyarrow.fs.S3FileSystem(
        access_key=s3_server.access_key, secret_key="wrong", endpoint_override=s3_server.endpoint
    )
    with pytest.raises(OSError, match=r"(?i)access.denied|signature|forbidden"):
        files.get_file_info(pyarrow.fs.FileSelector(s3_server.bucket))


def test_postgres_finds_its_programs_below_a_folder_that_only_its_owner_may_enter(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "private" / "initdb"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    found = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"  # as initdb looks for the others
    assert subprocess.run([*_as_user(), sys.executable, "-c", found, program], check=False).returncode == 0


def test_a_server_that_still_runs_when_it_is_started_but_ends_then_is_started_anew(postgres_server: Postgres) -> None:
    """As one that was killed just before, whose process the kernel has not yet taken down."""
    killed = postgres_server.process
    assert killed is not None
    os.kill(killed.pid, signal.SIGSTOP)  # so that it does not answer
    end = threading.Timer(0.5, os.kill, [killed.pid, signal.SIGKILL])
    end.start()
    postgres_server.start()
    assert postgres_server.usable
    assert postgres_server.process != killed


@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="this system does not tell who has shared memory")
def test_postgres_waits_for_memory_that_the_kernel_still_takes_from_a_killed_one(postgres_server: Postgres) -> None:
    assert postgres_server.process is not None
    number = int((postgres_server.folder / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1])
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    held = ctypes.c_void_p(libc.shmat(number, None, 0))
    assert held.value not in (None, ctypes.c_void_p(-1).value)
    os.kill(postgres_server.process.pid, signal.SIGKILL)
    os.waitpid(postgres_server.process.pid, 0)
    release = threading.Timer(1.0, libc.shmdt, [held])
    release.start()
    postgres_server.start()
    assert release.finished.is_set()


def test_a_stranger_at_the_port_is_not_taken_for_ours(postgres_server: Postgres, tmp_path: pathlib.Path) -> None:
    late = Postgres(tmp_path, {"postgres": 0})
    late.ports = postgres_server.ports  # as when another took the port between its choice and its use
    try:
        with pytest.raises(ServerError, match=r"(?s)postgres ended while starting.*Address already in use"):
            late.start()
    finally:
        late.stop()
    assert postgres_server.usable


def test_no_server_wants_a_port_that_an_outgoing_connection_may_have(tmp_path: pathlib.Path) -> None:
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {name: port for server in Stack(tmp_path).servers for name, port in server.preferred_ports.items()}
    job_server = with_defaults(PipelineOptions(["--runner=FlinkRunner"]), unbounded=False).view_as(JobServerOptions)
    ports |= {name: getattr(job_server, name) for name in ("job_port", "artifact_port", "expansion_port")}
    assert min(ports["job_port"], ports["artifact_port"], ports["expansion_port"]) > 0
    assert {name: port for name, port in ports.items() if port >= lowest} == {}
