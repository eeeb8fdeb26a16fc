"""The stack as its user meets it: on the command line."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from beam_pipelines.runners.local import Stack

PORTS = [f"--{name}_port=0" for name in Stack.port_names]


def stack(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_pipelines.stack", *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)


def status(folder: pathlib.Path) -> Any:
    return json.loads(stack("status", "--json", f"--state_dir={folder}").stdout)


def processes_of(folder: pathlib.Path) -> list[str]:
    """All processes with an open place in `folder`, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if pathlib.Path(process.cwd()).is_relative_to(folder):
                found.append(f"{process.pid} {process.name()}")
    return found


def server_processes(folder: pathlib.Path) -> dict[str, Any]:
    """The recorded process of each server; not those that come and go with connections."""
    return {file.parent.name: json.loads(file.read_text())["process"] for file in folder.glob("*/server.json")}


@pytest.fixture
def folder(tmp_path: pathlib.Path, reaper: None) -> Iterator[pathlib.Path]:
    yield tmp_path / "stack"
    stack("down", f"--state_dir={tmp_path / 'stack'}")


@pytest.mark.servers
@pytest.mark.timeout(900)  # half a minute on an idle machine
def test_the_stack_outlives_a_kill_of_everything_and_leaves_nothing_behind(folder: pathlib.Path) -> None:
    up = stack("up", f"--state_dir={folder}", *PORTS)
    assert up.returncode == 0, up.stderr
    told = status(folder)
    assert {server["state"] for server in told["servers"].values()} == {"ready"}
    ends = told["endpoints"]
    admin = AdminClient({"bootstrap.servers": ends["kafka"]})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    with psycopg.connect(ends["postgres_dsn"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS x")
    servers = server_processes(folder)

    again = stack("up", f"--state_dir={folder}")
    assert again.returncode == 0, again.stderr
    assert server_processes(folder) == servers

    for line in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    assert stack("status", f"--state_dir={folder}").returncode == 1
    back = stack("up", f"--state_dir={folder}")
    assert back.returncode == 0, back.stderr
    assert status(folder)["endpoints"] == ends
    assert "kept" in AdminClient({"bootstrap.servers": ends["kafka"]}).list_topics(timeout=10).topics
    with psycopg.connect(ends["postgres_dsn"]) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)

    down = stack("down", "--purge", f"--state_dir={folder}")
    assert down.returncode == 0, down.stderr
    assert processes_of(folder) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["up", "--kafka_port=123456"], 2, "--kafka_port: must be a whole number from 0 to 65535, not '123456'"),
        (["up", "--kafka_port=x"], 2, "--kafka_port: must be a whole number from 0 to 65535, not 'x'"),
        (["up", "--slots=0"], 2, "--slots: must be a whole number from 1 to 64, not '0'"),
        (["logs"], 2, "there are no logs"),
        (["logs", "redis"], 2, "There is no server redis; the stack has kafka, postgres, s3"),
        (["fly"], 2, "invalid choice"),
    ],
)
def test_bad_use_is_one_sentence(folder: pathlib.Path, arguments: list[str], code: int, complaint: str) -> None:
    done = stack(*arguments, *([] if arguments == ["fly"] else [f"--state_dir={folder}"]))
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named(folder: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = stack("up", f"--state_dir={folder}", f"--kafka_port={port}")
    assert done.returncode == 2
    assert f"--kafka_port={port}: that port is in use" in done.stderr


def test_missing_java_is_one_sentence_before_anything_is_started(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = stack("up", f"--state_dir={folder}", *PORTS, PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 2
    assert done.stderr == ("error: Java 17 or newer is needed and there is none in PATH: install a JDK or JRE.\n")
    assert processes_of(folder) == []


@pytest.mark.servers
def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(folder: pathlib.Path) -> None:
    (folder / "kafka" / "data").mkdir(parents=True)
    (folder / "kafka" / "data" / "bootstrap.checkpoint").write_text("not what Kafka wrote")
    done = stack("up", f"--state_dir={folder}", *PORTS)
    assert done.returncode == 1
    assert "error: kafka ended while starting; the last lines of" in done.stderr
    assert "meta.properties" in done.stderr


def test_a_recycled_pid_is_left_alone(folder: pathlib.Path) -> None:
    (folder / "kafka").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = {"process": [stranger.pid, 1.0], "ports": {"kafka": 1, "kafka_controller": 2}}
        (folder / "kafka" / "server.json").write_text(json.dumps(record))
        assert stack("down", f"--state_dir={folder}").returncode == 0
        assert stranger.poll() is None
        stranger.kill()
