"""The same sink and migrations on TimescaleDB: hypertables, compressed chunks, the view of the day."""

import decimal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.table_writer import TableWriter
from beam_pipelines.io.timescale import MARKET_BARS, MARKET_DATA, check_timescale
from beam_pipelines.runners.servers.timescale import Timescale
from beam_pipelines.sql.migrate import available, migrate
from tests.io.market_rows import NEW_YEAR, bars, ticks

pytestmark = pytest.mark.servers

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def dsn(timescale_server: Timescale) -> Dsn:
    """A database without tables of ours."""
    bare = Dsn(timescale_server.dsn)
    with bare.connect("test") as connection:
        connection.execute("DROP MATERIALIZED VIEW IF EXISTS daily_market_live")
        connection.execute("DROP VIEW IF EXISTS market_bars_sentiment, news_windows_surprise")
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            connection.execute(f"DROP TABLE {table}")
    return bare


@pytest.fixture
def database(dsn: Dsn) -> Iterator[Connection]:
    """A connection to a database with our tables."""
    migrate(dsn)
    with dsn.connect("test") as connection:
        yield connection


@pytest.fixture
def ticks_writer(dsn: Dsn) -> Iterator[TableWriter]:
    writer = TableWriter(MARKET_DATA, dsn)
    yield writer
    writer.close()


@pytest.fixture
def bars_writer(dsn: Dsn) -> Iterator[TableWriter]:
    writer = TableWriter(MARKET_BARS, dsn)
    yield writer
    writer.close()


def compress(connection: Connection, table: str) -> None:
    """What the policy does after a week."""
    (count,) = connection.execute("SELECT count(compress_chunk(chunk)) FROM show_chunks(%s) chunk", [table]).fetchone()
    assert count >= 1


def test_all_migrations_are_applied_and_the_sink_fits(database: Connection, dsn: Dsn) -> None:
    versions = database.execute("SELECT version FROM schema_migrations ORDER BY 1").fetchall()
    assert versions == [(migration.version,) for migration in available()]
    check_timescale(dsn)


def test_rows_from_before_the_extension_came_are_kept(dsn: Dsn, ticks_writer: TableWriter) -> None:
    migrate(dsn, [migration for migration in available() if not migration.needs_timescale])
    ticks_writer.write(ticks(100))
    assert migrate(dsn) == [migration.name for migration in available() if migration.needs_timescale]
    with dsn.connect("test") as connection:
        chunks = connection.execute("SELECT count(*) FROM show_chunks('market_data_ts')").fetchone()
        assert connection.execute("SELECT count(*) FROM market_data_ts").fetchone() == (100,)
        assert chunks == (1,)


def test_chunks_are_days_compressed_after_a_week_and_dropped_after_two_years(database: Connection) -> None:
    days = database.execute(
        "SELECT hypertable_name, time_interval::text FROM timescaledb_information.dimensions "
        "WHERE hypertable_name LIKE 'market%' ORDER BY 1"
    ).fetchall()
    policies = database.execute(
        "SELECT hypertable_name, coalesce(config ->> 'compress_after', config ->> 'drop_after') "
        "FROM timescaledb_information.jobs WHERE hypertable_name LIKE 'market%' ORDER BY 1, 2"
    ).fetchall()
    assert days == [("market_anomalies_ts", "7 days"), ("market_bars_ts", "1 day"), ("market_data_ts", "1 day")]
    assert policies[:2] == [("market_anomalies_ts", after) for after in ("2 years", "30 days")]
    assert policies[2:] == [(table, after) for table, _ in days[1:] for after in ("2 years", "7 days")]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_repeated_run_changes_nothing(database: Connection, ticks_writer: TableWriter, compressed: bool) -> None:
    read = "SELECT * FROM market_data_ts ORDER BY time, seq"
    ticks_writer.write(ticks(100))
    if compressed:
        compress(database, "market_data_ts")
    before = database.execute(read).fetchall()
    for _ in range(2):
        assert ticks_writer.write(ticks(100)) == []
    assert database.execute(read).fetchall() == before
    assert len(before) == 100


@pytest.mark.parametrize("compressed", [False, True])
def test_a_revision_overwrites_its_bar(database: Connection, bars_writer: TableWriter, compressed: bool) -> None:
    bars_writer.write(bars(3))
    if compressed:
        compress(database, "market_bars_ts")
    bars_writer.write(bars(1, close=11.5, revision=1))
    found = database.execute("SELECT close, revision FROM market_bars_ts ORDER BY time").fetchall()
    assert found == [(decimal.Decimal("11.5"), 1), (11, 0), (11, 0)]


def test_a_refused_row_is_told_and_the_others_are_written(database: Connection, ticks_writer: TableWriter) -> None:
    (rejected,) = ticks_writer.write(ticks(50, price=[1e15 if row == 17 else 1.0 for row in range(50)]))
    assert rejected.detail == 'market_data_ts: numeric field overflow (column "price")'
    assert database.execute("SELECT count(*) FROM market_data_ts").fetchone() == (49,)


def test_the_view_of_the_day_opens_and_closes_with_the_first_and_last_price(
    database: Connection, bars_writer: TableWriter
) -> None:
    """Also where the first bar has no price, before any refresh, and with a bar that came after one."""
    summary = "SELECT open_price, high_price, low_price, close_price, total_volume, tick_count FROM daily_market_live"
    prices = {"open": [None, 5.0, 7.0], "high": [None, 9.0, 8.0], "low": [None, 4.0, 6.0], "close": [None, 6.0, 6.5]}
    bars_writer.write(bars(3, **prices))
    day = database.execute(summary).fetchall()
    database.execute("CALL refresh_continuous_aggregate('daily_market_live', NULL, NULL)")
    refreshed = database.execute(summary).fetchall()
    bars_writer.write(bars(1, time=NEW_YEAR + 86_400_000))
    assert day == refreshed == [(5, 9, 4, decimal.Decimal("6.5"), 300, 12)]
    assert len(database.execute(summary).fetchall()) == 2
