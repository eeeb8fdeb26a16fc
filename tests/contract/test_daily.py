"""The daily batch replaces what the stream wrote by what the day's ticks give in the order of event time.

The log crosses midnight, a month's end and with it the two days that are computed one after the other, the second from
the closing state of the first; it has late and too late ticks, repeats, ties and prints that may not set a price.
"""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pyarrow.dataset as ds
import pytest

from beam_pipelines import daily as batch
from beam_pipelines import market
from beam_pipelines.runners.defaults import PipelineOptions, new_pipeline
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.sql.migrate import Dsn, migrate
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS

from ..transforms.reference import Reference, Tick

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

BAR_SECONDS = 20
SEMANTICS = Semantics(BAR_SECONDS * 1000)
DAYS = (datetime.date(2025, 2, 28), datetime.date(2025, 3, 1))
MIDNIGHT = 1_740_787_200_000  # between them
SESSION = Session(
    seed=23,
    symbols=6,
    start_ms=MIDNIGHT - 1_200_000,
    duration_ms=2_400_000,
    ticks=6_000,
    disorder=0.2,
    late=0.03,
    too_late=0.01,
    duplicate=0.03,
    tie=0.1,
    odd_lots=0.2,
    bad=0.01,
)
_TICKS = """
    SELECT symbol, (extract(epoch FROM time) * 1000)::bigint, seq, "offset", price, late, {}
    FROM market_data_ts ORDER BY time, seq, "offset" """
_BARS = """
    SELECT (extract(epoch FROM time) * 1000)::bigint, symbol, open, high, low, close, volume, trade_count, vwap,
      revision, is_final, {} FROM market_bars_ts ORDER BY time, symbol"""


@pytest.fixture
def streamed(tmp_path: Any, postgres_dsn: str) -> tuple[str, str]:
    """A lake and a database to which the market stream has written SESSION."""
    migrate(Dsn(postgres_dsn))
    lake = str(tmp_path / "lake")
    source = market.Source(market.ReadBatches(lambda: raw_batches(SESSION, 3, topic="daily-raw")))
    pipeline = new_pipeline(PipelineOptions([]), unbounded=False)
    market.build(pipeline, source, SEMANTICS, market.Sinks(timescale_dsn=postgres_dsn, lake=lake))
    pipeline.run().wait_until_finish()
    return lake, postgres_dsn


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
    reference.cross(MIDNIGHT * 2, tick)
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
    assert rows(dsn, returns) == [(False, True)] * SESSION.symbols + [(True, True)] * SESSION.symbols
    assert_close([row[6:] for row in ticks], [[tick[name] for name in TICK_INDICATORS] for tick in reference.ticks_out])


def direct(_: Callable[[str], Any]) -> list[str]:
    return []


def on_spark(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("spark_cluster").arguments


def on_flink(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("flink_cluster").arguments


@pytest.mark.parametrize("runner", [direct, on_spark, on_flink])
def test_both_days_are_what_a_recomputation_gives(
    runner: Callable[..., list[str]], streamed: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    late = rows(streamed[1], "SELECT count(*) FROM market_data_ts WHERE late")
    assert late[0][0] > 50
    for day in DAYS:
        daily(streamed, f"--date={day}", *runner(request.getfixturevalue))
    assert_recomputed(*streamed)
    left = rows(streamed[1], "SELECT count(*) FROM pg_tables WHERE tablename ~ '^market_.*_2025'")
    assert left == [(0,)]


def test_several_days_go_on_where_they_were_stopped(
    streamed: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rest = DAYS[0] - datetime.timedelta(days=1)
    between = (f"--from={rest}", f"--to={DAYS[1]}")
    daily(streamed, f"--date={DAYS[0]}")  # and then it was stopped
    for _ in range(2):
        daily(streamed, *between, "--resume")
        assert len(replacements(streamed[1])) == len(DAYS)
    assert_recomputed(*streamed)
    daily(streamed, *between)
    assert f"{rest}: no ticks in the lake" in capsys.readouterr().out
    assert [changed for _, changed in replacements(streamed[1])[len(DAYS) :]] == [0, 0]


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
    inside, after = "2025-02-28 23:50:00.5Z", "2025-03-01 00:00:00Z"
    with psycopg.connect(streamed[1], autocommit=True) as connection:
        for seq, at, offset in ((1, inside, 5), (2, inside, 10**9), (3, after, 5)):
            connection.execute(
                f"INSERT INTO market_data_ts ({columns}) VALUES (%s, 'ZZZ', 'by hand', %s, 1, 1, false, 0, %s, now())",
                [at, seq, offset],
            )
        for at, length in ((inside, BAR_SECONDS), (inside, 60), ("2025-02-28 23:55Z", BAR_SECONDS)):
            connection.execute(
                "INSERT INTO market_bars_ts (time, symbol, bar_seconds, volume, trade_count, revision, is_final) "
                "VALUES (date_trunc('minute', %s::timestamptz), 'ZZZ', %s, 1, 1, 0, true)",
                [at, length],
            )
    daily(streamed, f"--date={DAYS[0]}")
    assert rows(streamed[1], "SELECT seq FROM market_data_ts WHERE symbol = 'ZZZ' ORDER BY 1") == [(2,), (3,)]
    bars = "SELECT to_char(time AT TIME ZONE 'UTC', 'HH24:MI'), bar_seconds FROM market_bars_ts WHERE symbol = 'ZZZ'"
    assert sorted(rows(streamed[1], bars)) == [("23:50", BAR_SECONDS), ("23:50", 60)]


def test_only_some_symbols_are_replaced_when_they_are_named(streamed: tuple[str, str]) -> None:
    before = rows(streamed[1], "SELECT * FROM market_data_ts WHERE symbol <> 'AAPL' ORDER BY symbol, time, source, seq")
    daily(streamed, f"--date={DAYS[0]}", "--symbols=aapl")
    after = rows(streamed[1], "SELECT * FROM market_data_ts WHERE symbol <> 'AAPL' ORDER BY symbol, time, source, seq")
    assert after == before
    late = "SELECT count(*) FROM market_data_ts WHERE symbol = 'AAPL' AND late AND time < '2025-03-01Z'"
    assert rows(streamed[1], late) == [(0,)]
    assert replacements(streamed[1])[0][1] > 0
