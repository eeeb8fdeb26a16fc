"""TimescaleDB behind its wire front serves psycopg like any PostgreSQL, one transaction at a time."""

import datetime
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from beam_pipelines.runners.servers.timescale import Timescale

pytestmark = pytest.mark.servers
Connection = psycopg.Connection[tuple[Any, ...]]


def connect(timescale_server: Timescale) -> Connection:
    return psycopg.connect(timescale_server.dsn, autocommit=True, prepare_threshold=None)


@pytest.fixture
def connection(timescale_server: Timescale) -> Iterator[Connection]:
    """A connection to a database with one empty hypertable, `ticks`."""
    with connect(timescale_server) as opened:
        opened.execute("DROP TABLE IF EXISTS ticks")
        opened.execute("CREATE TABLE ticks (time timestamptz NOT NULL, price float8)")
        opened.execute("SELECT create_hypertable('ticks', by_range('time', INTERVAL '1 day'))")
        yield opened


def count(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM ticks").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("options", ["", "(FORMAT binary)"])
def test_copy_fills_a_hypertable(connection: Connection, options: str) -> None:
    with connection.cursor().copy(f"COPY ticks FROM STDIN {options}") as copy:
        copy.set_types(["timestamptz", "float8"])
        for day in range(1, 6):
            copy.write_row((f"2026-01-0{day} 12:00:00+00" if not options else _noon(day), 1.5))
    chunks = connection.execute("SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'ticks'")
    assert chunks.fetchone() == (5,)
    assert count(connection) == 5


def _noon(day: int) -> Any:
    return datetime.datetime(2026, 1, day, 12, tzinfo=datetime.timezone.utc)


def test_a_bad_value_names_its_line_and_column(connection: Connection) -> None:
    copying = connection.cursor().copy("COPY ticks FROM STDIN")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation) as refused, copying as copy:
        copy.write("2026-01-01\t1\n2026-01-01\tdear\n")
    assert refused.value.diag.context == 'COPY ticks, line 2, column price: "dear"'
    assert count(connection) == 0


def test_a_copy_that_the_client_gives_up_fails_its_transaction(connection: Connection) -> None:
    def give_up() -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO ticks VALUES ('2026-01-01', 1)")
            with cursor.copy("COPY ticks FROM STDIN") as copy:
                copy.write("2026-01-01\t1\n")
                raise KeyError("it's the client's")

    with pytest.raises(KeyError):
        give_up()
    assert count(connection) == 0


def test_executemany_is_pipelined(connection: Connection) -> None:
    connection.cursor().executemany("INSERT INTO ticks VALUES (%s, %s)", [("2026-01-01", n) for n in range(500)])
    assert count(connection) == 500


def test_an_error_in_a_pipeline_skips_the_rest_and_no_more(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        connection.cursor().executemany("INSERT INTO ticks VALUES (%s, %s)", [("2026-01-01", 1), (None, 2)])
    assert count(connection) == 0
    assert connection.execute("SELECT %s::int", [7]).fetchone() == (7,)


def test_a_transaction_has_the_session_to_itself(timescale_server: Timescale, connection: Connection) -> None:
    seen: list[int] = []
    with connect(timescale_server) as other:
        reader = threading.Thread(target=lambda: seen.append(count(other)))
        with connection.transaction():
            connection.execute("INSERT INTO ticks VALUES ('2026-01-01', 1)")
            reader.start()
            reader.join(0.5)
            assert seen == []
        reader.join(10)
    assert seen == [1]


def test_a_client_that_vanishes_in_a_transaction_leaves_nothing(
    timescale_server: Timescale, connection: Connection
) -> None:
    lost = connect(timescale_server)
    lost.execute("BEGIN")
    lost.execute("CREATE TEMP TABLE mine (x int)")
    lost.execute("INSERT INTO ticks VALUES ('2026-01-01', 1)")
    os.close(lost.fileno())
    assert count(connection) == 0
    assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_it_outlives_a_kill_with_its_data(timescale_server: Timescale, connection: Connection) -> None:
    connection.execute("INSERT INTO ticks VALUES ('2026-01-01', 1)")
    assert timescale_server.process is not None
    os.kill(timescale_server.process.pid, signal.SIGKILL)
    os.waitpid(timescale_server.process.pid, 0)
    timescale_server.start()
    with connect(timescale_server) as again:
        with again.cursor().copy("COPY ticks FROM STDIN") as copy:
            copy.write_row(("2026-01-02", 2))
        assert count(again) == 2
        assert again.execute("SELECT count(*) FROM show_chunks('ticks')").fetchone() == (2,)
