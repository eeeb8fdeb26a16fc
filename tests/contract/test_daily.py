"""The daily batch replaces what the stream wrote by what the day's ticks give in the order of event time.

The log has three days that are computed one after the other, each from the closing state of the one before; between
them a month ends and New York's clocks are set back.  It has late and too late ticks, repeats, ties and prints that may
not set a price.
"""

import contextlib
import datetime
import itertools
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import psycopg
import pyarrow.dataset as ds
import pytest
from psycopg import sql

from beam_pipelines import daily as batch
from beam_pipelines import market
from beam_pipelines.io.lake_objects import MARKET_DATA
from beam_pipelines.io.lake_state import find_closing_state
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.replace import Replacement, new_run
from beam_pipelines.runners.defaults import PipelineOptions, new_pipeline
from beam_pipelines.simulate import Session, records
from beam_pipelines.sql.migrate import Dsn, migrate
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS
from beam_pipelines.transforms.records import raw_batches

from ..transforms.reference import Reference, Tick

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

BAR_SECONDS = 20
SEMANTICS = Semantics(BAR_SECONDS * 1000)
DAYS = [datetime.date(2026, 10, 31), datetime.date(2026, 11, 1), datetime.date(2026, 11, 2)]
SYMBOLS = 6
SESSIONS = [
    Session(
        seed=day.day,
        symbols=SYMBOLS,
        start_ms=midnight_of(day) - 600_000,
        duration_ms=1_200_000,
        ticks=4_000,
        disorder=0.2,
        late=0.03,
        too_late=0.01,
        duplicate=0.03,
        tie=0.1,
        odd_lots=0.2,
        bad=0.01,
    )
    for day in DAYS[1:]
]
_TICKS = """
    SELECT symbol, (extract(epoch FROM time) * 1000)::bigint, seq, "offset", price, late, {}
    FROM market_data_ts ORDER BY time, seq, "offset" """
_BARS = """
    SELECT (extract(epoch FROM time) * 1000)::bigint, symbol, open, high, low, close, volume, trade_count, vwap,
      revision, is_final, {} FROM market_bars_ts ORDER BY time, symbol"""


@pytest.fixture
def streamed(tmp_path: Any, postgres_dsn: str) -> tuple[str, str]:
    """A lake and a database to which the market stream has written SESSIONS."""
    migrate(Dsn(postgres_dsn))
    lake = str(tmp_path / "lake")
    stream(lake, postgres_dsn)
    return lake, postgres_dsn


def stream(lake: str, dsn: str, prior: market.Prior = None) -> None:
    raw = list(raw_batches(itertools.chain.from_iterable(map(records, SESSIONS)), "daily-raw", 3))
    source = market.Source(market.ReadBatches(lambda: raw))
    pipeline = new_pipeline(PipelineOptions([]), unbounded=False)
    market.build(pipeline, source, SEMANTICS, market.Sinks(MARKET_DATA, timescale_dsn=dsn, lake=lake), prior)
    pipeline.run().wait_until_finish()


def daily(streamed: tuple[str, str], *flags: str) -> None:
    """Runs the batch as its module does, in this process."""
    lake, dsn = streamed
    given = [f"--lake={lake}", f"--timescale_dsn={dsn}", f"--bar_seconds={BAR_SECONDS}", *flags]
    assert batch.main(given) == 0


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def recomputation(lake: str) -> Reference:
    """The lake's ticks through the plain reference, in the order of event time."""
    table = ds.dataset(f"{lake}/market-data", format="parquet").to_table()
    for name in ("timestamp", "log_time"):
        table = table.set_column(table.schema.names.index(name), name, table[name].cast("int64"))
    found = [Tick(**{name: row[name] for name in Tick._fields}) for row in table.to_pylist()]
    reference = Reference(Semantics(BAR_SECONDS * 1000, out_of_orderness_ms=0))
    for tick in sorted(found, key=lambda tick: (tick.timestamp, tick.seq, tick.offset)):
        reference.take(tick)
    reference.cross(midnight_of(DAYS[-1]) + DAY_MS, tick)
    return reference


def assert_close(got: list[tuple[Any, ...]], wanted: list[list[Any]]) -> None:
    """Equal to 8 decimals; null where the reference has none."""
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        nulls = [value is None or value != value for value in theirs]
        assert [value is None for value in mine] == nulls, (mine, theirs)
        pairs = [(a, b) for a, b, null in zip(mine, theirs, nulls, strict=True) if not null]
        np.testing.assert_allclose([float(a) for a, _ in pairs], [float(b) for _, b in pairs], rtol=0, atol=1e-6)


def assert_recomputed(lake: str, dsn: str) -> None:
    reference = recomputation(lake)
    assert reference.too_late == []
    assert len(reference.duplicates) > 50
    ticks = rows(dsn, _TICKS.format(", ".join(TICK_INDICATORS)))
    assert not any(row[5] for row in ticks)
    assert [row[3] for row in ticks] == [tick["offset"] for tick in reference.ticks_out]
    bars = rows(dsn, _BARS.format(", ".join(BAR_INDICATORS)))
    assert all(row[10] and row[9] == 0 for row in bars)
    closed = sorted(reference.bars_out, key=lambda bar: (bar["time"], bar["symbol"]))
    assert [row[:2] for row in bars] == [(bar["time"], bar["symbol"]) for bar in closed]
    values = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    assert_close(
        [(*row[2:9], *row[11:]) for row in bars],
        [[bar[name] for name in (*values, *BAR_INDICATORS)] for bar in closed],
    )
    counted = """
        SELECT symbol, date_trunc('day', time AT TIME ZONE 'UTC'), count(*)
        FROM market_data_ts GROUP BY 1, 2 ORDER BY 2, 1"""
    summed = "SELECT symbol, day AT TIME ZONE 'UTC', tick_count FROM daily_market_summary ORDER BY 2, 1"
    assert rows(dsn, counted) == rows(dsn, summed)
    returns = "SELECT daily_return IS NOT NULL, late_share > 0 FROM daily_market_summary ORDER BY day, symbol"
    assert rows(dsn, returns) == [(False, True)] * SYMBOLS + [(True, True)] * 2 * SYMBOLS
    assert_close([row[6:] for row in ticks], [[tick[name] for name in TICK_INDICATORS] for tick in reference.ticks_out])


def direct(_: Callable[[str], Any]) -> list[str]:
    return []


def on_spark(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("spark_cluster").arguments


def on_flink(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("flink_cluster").arguments


@pytest.mark.parametrize("runner", [direct, on_spark, on_flink])
def test_all_days_are_what_a_recomputation_gives(
    runner: Callable[..., list[str]], streamed: tuple[str, str], in_new_york: None, request: pytest.FixtureRequest
) -> None:
    late = rows(streamed[1], "SELECT count(*) FROM market_data_ts WHERE late")
    assert late[0][0] > 50
    for day in DAYS:
        other = runner is on_flink and day != DAYS[1]  # between days of the DirectRunner: a state is a state
        flags = (direct if other else runner)(request.getfixturevalue)
        dies = runner is on_spark and day == DAYS[1]
        with executor_killed(request.getfixturevalue, streamed[1]) if dies else contextlib.nullcontext():
            daily(streamed, f"--date={day}", *flags)
    assert_recomputed(*streamed)
    assert staged(streamed[1]) == []
    assert [(changed > 0) for _, changed in replacements(streamed[1])] == [True] * len(DAYS)


@contextlib.contextmanager
def executor_killed(fixture: Callable[[str], Any], dsn: str) -> Iterator[None]:
    """Kills Spark's executor when the job has written some of its rows."""
    worker, killed = fixture("spark_cluster").worker, []

    def kill() -> None:
        while not any(rows(dsn, f"SELECT FROM {table} LIMIT 1") for table in staged(dsn)):
            time.sleep(0.02)
        (executor,) = psutil.Process(worker.process.pid).children()
        before = len(replacements(dsn))
        executor.kill()
        killed.append(len(replacements(dsn)) == before)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield
    killer.join(1)
    assert killed == [True]


def staged(dsn: str) -> list[str]:
    """The tables in which new rows gather."""
    found = rows(dsn, "SELECT tablename FROM pg_tables WHERE tablename ~ '^(daily_)?market_.*_2026'")
    return [name for (name,) in found]


def test_a_days_quality_is_a_row_and_a_page(streamed: tuple[str, str]) -> None:
    day = DAYS[0]
    told, counts = pathlib.Path(streamed[0]).parent / "m.prom", []
    for _ in range(2):  # a second run changes nothing
        daily(streamed, f"--date={day}", f"--metrics_file={told}")
        counts += re.findall(r'{pipeline="daily",status="ticks",topic="market-data"} (\S+)', told.read_text())
    of_day = f"time >= '{day} 00:00Z' AND time < '{day + datetime.timedelta(days=1)} 00:00Z'"
    ((ticks,),) = rows(streamed[1], f"SELECT count(*) FROM market_data_ts WHERE {of_day}")
    found = rows(
        streamed[1], "SELECT dataset, records, sampled, score, failures FROM data_quality_ts WHERE partition = -1"
    )
    ((dataset, records, sampled, score, failures),) = found
    assert (dataset, records, sampled) == ("market", ticks, min(ticks, 10_000))
    assert float(counts[1]) - float(counts[0]) == ticks
    assert 0 < score < 1
    page = pathlib.Path(streamed[0], f"data-quality/year={day:%Y}/month={day:%m}/day={day:%d}/market.html").read_text()
    assert all(failure.split()[0] in page or "volume" in page for failure in failures)


def test_several_days_go_on_where_they_were_stopped(
    streamed: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rest = DAYS[0] - datetime.timedelta(days=1)
    between = (f"--from={rest}", f"--to={DAYS[-1]}")
    daily(streamed, f"--date={DAYS[0]}")  # and then it was stopped
    for _ in range(2):
        daily(streamed, *between, "--resume")
        assert len(replacements(streamed[1])) == len(DAYS)
    assert_recomputed(*streamed)
    daily(streamed, *between)
    assert f"{rest}: no market-data in the lake" in capsys.readouterr().out
    assert [changed for _, changed in replacements(streamed[1])[len(DAYS) :]] == [0] * len(DAYS)


def test_a_stream_that_began_with_a_closing_state_is_given_again_with_it(streamed: tuple[str, str]) -> None:
    daily(streamed, f"--date={DAYS[0]}")
    with psycopg.connect(streamed[1]) as connection:
        connection.execute("TRUNCATE market_data_ts, market_bars_ts")
    stream(*streamed, find_closing_state(objects_in(streamed[0]), str(DAYS[0]), BAR_SECONDS * 1000))
    assert rows(streamed[1], "SELECT count(*) FROM market_data_ts WHERE sma_20 IS NULL") == [(0,)]
    given = ("--as_live", f"--from={DAYS[1]}", f"--to={DAYS[2]}")
    daily(streamed, *given, f"--start_state={DAYS[0]}")
    assert replacements(streamed[1])[1:] == [(0, 0), (0, 0)]
    daily(streamed, *given, "--warmup_days=0")  # and not by chance
    assert replacements(streamed[1])[-1] != (0, 0)


def replacements(dsn: str) -> list[tuple[Any, ...]]:
    return rows(dsn, "SELECT rows_removed, rows_changed FROM daily_replacements ORDER BY replaced_at")


def test_a_second_run_changes_nothing(streamed: tuple[str, str]) -> None:
    for _ in range(2):
        daily(streamed, f"--date={DAYS[0]}")
    first, second = replacements(streamed[1])
    assert first[1] > 0
    assert second == (0, 0)


def test_rows_that_the_batch_has_not_go_unless_the_stream_wrote_them_since(streamed: tuple[str, str]) -> None:
    columns = 'time, symbol, source, seq, price, volume, late, partition, "offset", processed_at'
    inside, after = "2026-10-31 23:50:00.5Z", "2026-11-01 00:00:00Z"
    with psycopg.connect(streamed[1], autocommit=True) as connection:
        for seq, at, offset in ((1, inside, 5), (2, inside, 10**9), (3, after, 5)):
            connection.execute(
                f"INSERT INTO market_data_ts ({columns}) VALUES (%s, 'ZZZ', 'by hand', %s, 1, 1, false, 0, %s, now())",
                [at, seq, offset],
            )
        for at, length in ((inside, BAR_SECONDS), (inside, 60), ("2026-10-31 23:55Z", BAR_SECONDS)):
            connection.execute(
                "INSERT INTO market_bars_ts (time, symbol, bar_seconds, volume, trade_count, revision, is_final) "
                "VALUES (date_trunc('minute', %s::timestamptz), 'ZZZ', %s, 1, 1, 0, true)",
                [at, length],
            )
    daily(streamed, f"--date={DAYS[0]}")
    assert rows(streamed[1], "SELECT seq FROM market_data_ts WHERE symbol = 'ZZZ' ORDER BY 1") == [(2,), (3,)]
    bars = "SELECT to_char(time AT TIME ZONE 'UTC', 'HH24:MI'), bar_seconds FROM market_bars_ts WHERE symbol = 'ZZZ'"
    assert sorted(rows(streamed[1], bars)) == [("23:50", BAR_SECONDS), ("23:50", 60)]


def test_what_killed_runs_have_left_is_swept_after_days(streamed: tuple[str, str]) -> None:
    old, new = "market_data_ts_20261031_6000000012345678", f"market_bars_ts_20261031_{int(time.time()):08x}12345678"
    with psycopg.connect(streamed[1], autocommit=True) as connection:
        for name in (old, new, "market_data_ts_20261031", "market_data_ts_20261031_mine"):
            connection.execute(f"CREATE TABLE {name} ()")
    daily(streamed, f"--date={DAYS[0]}")
    assert set(staged(streamed[1])) == {new, "market_data_ts_20261031", "market_data_ts_20261031_mine"}


def test_only_some_symbols_are_replaced_when_they_are_named(streamed: tuple[str, str]) -> None:
    before = rows(streamed[1], "SELECT * FROM market_data_ts WHERE symbol <> 'AAPL' ORDER BY symbol, time, source, seq")
    daily(streamed, f"--date={DAYS[0]}", "--symbols=aapl")
    after = rows(streamed[1], "SELECT * FROM market_data_ts WHERE symbol <> 'AAPL' ORDER BY symbol, time, source, seq")
    assert after == before
    late = "SELECT count(*) FROM market_data_ts WHERE symbol = 'AAPL' AND late AND time < '2026-11-01Z'"
    assert rows(streamed[1], late) == [(0,)]
    assert replacements(streamed[1])[0][1] > 0


def test_rows_that_go_are_found_by_joins(streamed: tuple[str, str]) -> None:
    replacement = Replacement(Dsn(streamed[1]), new_run(DAYS[0]), 0, midnight_of(DAYS[-1]), BAR_SECONDS)
    replacement.prepare()
    with psycopg.connect(streamed[1]) as connection:
        for it in replacement.tables:
            removal = replacement._removal(it, sql.Identifier(replacement.staged(it.table).name))
            plan = "\n".join(line for (line,) in connection.execute(sql.SQL("EXPLAIN {}").format(removal)))
            assert "Anti Join" in plan
            assert "SubPlan" not in plan  # which would run once for each row of the day
