"""What WriteToTimescale promises, on a real PostgreSQL."""

import decimal
import itertools
import json
import math
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import psycopg
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from apache_beam.transforms.display import DisplayData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.table_writer import DatabaseUnavailableError, TableWriter
from beam_pipelines.io.tables import NEWS_SENTIMENT, NEWS_WINDOWS
from beam_pipelines.io.timescale import MARKET_BARS, MARKET_DATA, Table, WriteToTimescale, check_timescale
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.sql.migrate import migrate
from beam_pipelines.transforms.batches import DEAD_LETTERS, Span, with_span
from tests.io.market_rows import NEW_YEAR, bars, ticks
from tests.io.news_rows import ARTICLE, scored, windows

pytestmark = pytest.mark.servers

SECRET = "s3cr3t"
Write = Callable[..., list[str]]


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database with our tables."""
    migrate(Dsn(postgres_dsn))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def write(database: psycopg.Connection[Any], postgres_dsn: str) -> Iterator[Write]:
    """Writes a batch into a table and gives why rows were refused, each table over one connection as in a worker."""
    writers: dict[str, TableWriter] = {}

    def write_rows(rows: pa.RecordBatch, table: Table = MARKET_DATA) -> list[str]:
        writer = writers.setdefault(table.name, TableWriter(table, Dsn(postgres_dsn), give_up_after_s=30))
        return [rejected.detail for rejected in writer.write(rows)]

    yield write_rows
    for writer in writers.values():
        writer.close()


def content(database: psycopg.Connection[Any], table: str = "market_data_ts") -> list[dict[str, Any]]:
    """All rows, by time, with the transaction that wrote each."""
    order = "time, seq" if table == "market_data_ts" else "time"
    with database.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(f"SELECT xmin, * FROM {table} ORDER BY {order}").fetchall()


def test_every_column_arrives(write: Write, database: psycopg.Connection[Any]) -> None:
    assert write(ticks(4)) == []
    _, row, *_ = content(database)
    milliseconds = database.execute("SELECT extract(epoch FROM time) * 1000 FROM market_data_ts ORDER BY 1").fetchall()
    assert [int(at) for (at,) in milliseconds] == [NEW_YEAR + at for at in range(4)]
    assert {name: row[name] for name in ("symbol", "source", "seq", "price", "bid", "ask", "bid_size", "ask_size")} == {
        "symbol": "S1",
        "source": "test",
        "seq": 1,
        "price": decimal.Decimal("100.01"),
        "bid": decimal.Decimal("99.01"),
        "ask": None,
        "bid_size": None,
        "ask_size": 1,
    }
    assert (row["volume"], row["rsi"], row["late"], row["partition"], row["offset"]) == (1, 1 + 1 / 3, False, 3, 1001)
    assert row["processed_at"].timestamp() * 1000 == NEW_YEAR + 2


def test_a_repeated_run_changes_nothing(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(100))
    write(bars(10), MARKET_BARS)
    before = content(database), content(database, "market_bars_ts")
    for _ in range(2):
        write(ticks(100))
        write(bars(10), MARKET_BARS)
    assert (content(database), content(database, "market_bars_ts")) == before


def test_new_rows_beside_repeated_ones_are_written(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(60))
    before = content(database)
    write(ticks(100))
    after = content(database)
    assert after[:60] == before
    assert len(after) == 100


def test_ticks_of_one_millisecond_are_as_many_rows(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(5, symbol="IBM", timestamp=NEW_YEAR, price=7.0))
    assert [row["seq"] for row in content(database)] == [0, 1, 2, 3, 4]


def test_a_revision_overwrites_its_bar(write: Write, database: psycopg.Connection[Any]) -> None:
    write(bars(3), MARKET_BARS)
    write(bars(1, close=11.5, revision=1), MARKET_BARS)
    first, second, _ = content(database, "market_bars_ts")
    assert (first["close"], first["revision"]) == (decimal.Decimal("11.5"), 1)
    assert (second["close"], second["revision"]) == (11, 0)


def test_of_one_identity_in_a_batch_the_last_stands(write: Write, database: psycopg.Connection[Any]) -> None:
    write(bars(3, time=NEW_YEAR, revision=[0, 1, 2]), MARKET_BARS)
    write(ticks(4, symbol="S", timestamp=NEW_YEAR, seq=[1, 2, 1, 3], volume=[10, 20, 30, 40]))
    assert [row["revision"] for row in content(database, "market_bars_ts")] == [2]
    assert [(row["seq"], row["volume"]) for row in content(database)] == [(1, 30), (2, 20), (3, 40)]


VERSIONS = [
    {"offset": 3, "title": "three", "symbols": ["AAPL"], "symbol_scores": [0.5]},
    {"offset": 9, "title": "nine", "sentiment_score": None, "sentiment_category": None},
    {"offset": 10, "title": "ten", "symbols": [], "symbol_scores": []},
]


@pytest.mark.parametrize("sizes", [(3,), (1, 2), (2, 1), (1, 1, 1)], ids=str)
def test_the_highest_version_stands_in_whatever_order_and_flushes_versions_come(
    write: Write, database: psycopg.Connection[Any], sizes: tuple[int, ...]
) -> None:
    ends = list(itertools.accumulate(sizes))
    for order in itertools.permutations(VERSIONS):
        database.execute("TRUNCATE news_sentiment_ts")
        for size, end in zip(sizes, ends, strict=True):
            assert write(scored(*order[end - size : end]), NEWS_SENTIMENT) == []
        (row,) = content(database, "news_sentiment_ts")
        assert (row["title"], row["offset"], row["symbols"], row["symbol_scores"]) == ("ten", 10, [], [])


def test_a_version_that_comes_again_touches_nothing(write: Write, database: psycopg.Connection[Any]) -> None:
    write(scored(*VERSIONS), NEWS_SENTIMENT)
    before = content(database, "news_sentiment_ts")
    for again in (VERSIONS, VERSIONS[:1], VERSIONS[::-1]):
        assert write(scored(*again), NEWS_SENTIMENT) == []
    assert content(database, "news_sentiment_ts") == before


def test_the_same_version_with_other_values_replaces_them(write: Write, database: psycopg.Connection[Any]) -> None:
    write(scored(VERSIONS[2]), NEWS_SENTIMENT)
    write(scored(VERSIONS[2] | {"model": "another"}), NEWS_SENTIMENT)
    assert [row["model"] for row in content(database, "news_sentiment_ts")] == ["another"]


def test_every_column_of_an_article_arrives(write: Write, database: psycopg.Connection[Any]) -> None:
    assert write(scored({"url": "https://x/1", "title": "ünï 💹"}), NEWS_SENTIMENT) == []
    (row,) = content(database, "news_sentiment_ts")
    times = {name: row.pop(name).timestamp() * 1000 for name in ("time", "known_at")}
    assert times == {"time": NEW_YEAR, "known_at": NEW_YEAR + 5}
    del row["xmin"]
    assert row == {
        "article_id": uuid.UUID(ARTICLE),
        "symbols": ["AAPL", "TSLA"],
        "sentiment_score": decimal.Decimal("0.25"),
        "sentiment_category": "neutral",
        "news_category": "earnings",
        "source": "wire",
        "symbol_scores": [0.5, None],
        "confidence": decimal.Decimal("0.75"),
        "kinds": ["earnings"],
        "kind": "news",
        "language": "en",
        "title": "ünï 💹",
        "url": "https://x/1",
        "model": "default",
        "partition": 3,
        "offset": 0,
    }


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"sentiment_score": 1.5}, 'violates check constraint "news_sentiment_ts_sentiment_score_check"'),
        ({"sentiment_score": -1.0001}, 'violates check constraint "news_sentiment_ts_sentiment_score_check"'),
    ],
)
def test_a_score_that_is_none_is_refused(
    write: Write, database: psycopg.Connection[Any], row: dict[str, Any], why: str
) -> None:
    (detail,) = write(scored(row, {"published_at": NEW_YEAR + 1}), NEWS_SENTIMENT)
    assert why in detail
    assert len(content(database, "news_sentiment_ts")) == 1


def test_windows_come_again_with_more_news(write: Write, database: psycopg.Connection[Any]) -> None:
    write(windows({}, {"symbol": "TSLA"}), NEWS_WINDOWS)
    write(windows({"story_count": 2, "sentiment": None}), NEWS_WINDOWS)
    found = {row["symbol"]: (row["story_count"], row["sentiment"]) for row in content(database, "news_windows_ts")}
    assert found == {"AAPL": (2, None), "TSLA": (1, 0.5)}


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"price": 1e15}, 'market_data_ts: numeric field overflow (column "price")'),
        ({"price": 1e-9}, 'violates check constraint "market_data_ts_price_check"'),
        ({"price": math.nan}, 'null value in column "price"'),
        ({"timestamp": 2**62}, 'market_data_ts: timestamp out of range (column "time")'),
        ({"volume": -1}, 'violates check constraint "market_data_ts_volume_check"'),
        ({"symbol": "TWENTY-ONE-CHARACTERS"}, 'violates check constraint "market_data_ts_symbol_check"'),
        ({"source": "nul\0"}, 'invalid byte sequence for encoding "UTF8": 0x00 (column "source")'),
        ({"source": "".join(map(chr, range(0x4E00, 0x7E00)))}, "index row"),  # too long for an index
    ],
)
def test_a_refused_row_is_told_and_the_others_are_written(
    write: Write, database: psycopg.Connection[Any], columns: dict[str, Any], why: str
) -> None:
    batch = ticks(50)
    bad = ticks(50, **columns).slice(17, 1)
    details = write(_concat(batch.slice(0, 17), bad, batch.slice(18)))
    assert len(details) == 1
    assert why in details[0]
    assert [row["seq"] for row in content(database)] == [seq for seq in range(50) if seq != 17]


@pytest.mark.parametrize("repeat", [False, True])
def test_every_refused_row_is_found(write: Write, database: psycopg.Connection[Any], repeat: bool) -> None:
    if repeat:
        write(ticks(40))
    prices = [1e13 if row % 2 else 5.0 for row in range(40)]
    assert len(write(ticks(40, price=prices))) == 20
    assert [row["price"] for row in content(database) if row["seq"] % 2 == 0] == [5] * 20


def test_prices_are_rounded_half_to_even(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(3, price=[2.0**-9, 3 * 2.0**-9, 123456789.123456789]))
    assert [str(row["price"]) for row in content(database)] == ["0.00195312", "0.00585938", "123456789.12345679"]


def test_floats_that_are_not_finite_become_null(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(3, sma_20=[math.nan, math.inf, 1.5], rsi=[math.nan, -math.inf, 50.0]))
    assert [(row["sma_20"], row["rsi"]) for row in content(database)] == [(None, None), (None, None), (1.5, 50)]


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
prices = st.floats(1e-8, 999_999_999_999, allow_nan=False)
whole = st.integers(0, 2**63 - 1)
rows = st.lists(
    st.tuples(names, names, prices, whole, st.none() | prices, st.none() | whole, st.integers(-(10**13), 10**14)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_any_valid_rows_come_back(write: Write, database: psycopg.Connection[Any], values: list[Any]) -> None:
    database.execute("TRUNCATE market_data_ts")
    symbol, source, price, volume, bid, bid_size, at = map(list, zip(*values, strict=True))
    batch = ticks(
        len(values), symbol=symbol, source=source, price=price, volume=volume, bid=bid, bid_size=bid_size, timestamp=at
    )
    assert write(batch) == []
    query = """SELECT symbol, source, price, volume, bid, bid_size, (extract(epoch FROM time) * 1000)::bigint
               FROM market_data_ts ORDER BY seq"""
    rounded = [
        (symbol, source, _to_eight(price), volume, _to_eight(bid), bid_size, at)
        for symbol, source, price, volume, bid, bid_size, at in values
    ]
    assert database.execute(query).fetchall() == rounded


@pytest.mark.parametrize("text", ["\\N", "\\.", '"', "'; DROP TABLE x; --", ",\t\r\n", "ünï 💹"])
def test_special_characters_come_back(write: Write, database: psycopg.Connection[Any], text: str) -> None:
    assert write(ticks(1, source=text)) == []
    assert [row["source"] for row in content(database)] == [text]


def test_a_lost_connection_is_replaced(write: Write, database: psycopg.Connection[Any]) -> None:
    write(ticks(10))
    terminated = database.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'beam_pipelines%'"
    ).fetchone()
    assert terminated == (1,)
    assert write(ticks(20)) == []
    assert len(content(database)) == 20


def test_a_backend_lost_in_the_middle_of_a_write_loses_nothing(write: Write, database: psycopg.Connection[Any]) -> None:
    """The write waits for a lock when its backend is terminated."""
    write(ticks(10))
    with database.transaction():
        database.execute("LOCK TABLE market_data_ts IN ACCESS EXCLUSIVE MODE")
        details: list[str] = []
        writing = threading.Thread(target=lambda: details.extend(write(ticks(20))))
        writing.start()
        waiting = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'beam%' AND wait_event_type = 'Lock'"
        while (found := database.execute(waiting).fetchone()) is None:
            time.sleep(0.01)
        database.execute("SELECT pg_terminate_backend(%s)", found)
    writing.join(20)
    assert details == []
    assert len(content(database)) == 20


def test_a_server_that_restarts_is_waited_for(postgres_server: Postgres) -> None:
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS restarted")
        connection.execute("CREATE DATABASE restarted")
    dsn = Dsn(postgres_server.dsn).replace(dbname="restarted")
    migrate(dsn)
    writer = TableWriter(MARKET_DATA, dsn, give_up_after_s=60)
    assert writer.write(ticks(10)) == []
    postgres_server.stop()
    restart = threading.Timer(1.0, postgres_server.start)
    restart.start()
    assert writer.write(ticks(20)) == []
    writer.close()
    restart.join()
    with dsn.connect("test") as again:
        assert len(content(again)) == 20


def test_gives_up_after_the_stated_time() -> None:
    writer = TableWriter(MARKET_DATA, Dsn(f"postgresql://u:{SECRET}@127.0.0.1:1/x"), give_up_after_s=0.5)
    with pytest.raises(DatabaseUnavailableError, match=r"not written for 0.5 s: .*Connection refused") as raised:
        writer.write(ticks(1))
    assert SECRET not in str(raised.value)


SPOILED = {
    "DROP TABLE market_data_ts": "there is no table market_data_ts",
    "ALTER TABLE market_data_ts DROP sma_50": "table market_data_ts has no column sma_50",
    "ALTER TABLE market_data_ts ALTER price TYPE numeric(12, 4)": r"column price .* is numeric\(12,4\), but should be",
    "ALTER TABLE market_data_ts DROP CONSTRAINT market_data_ts_pkey": "no unique or exclusion constraint",
}


@pytest.mark.parametrize(("spoil", "sentence"), SPOILED.items())
def test_a_table_that_does_not_fit_is_told_before_the_start(
    database: psycopg.Connection[Any], postgres_dsn: str, spoil: str, sentence: str
) -> None:
    check_timescale(postgres_dsn)
    database.execute(spoil)
    with pytest.raises(UsageError, match=rf"{sentence}.*run the migrations"):
        check_timescale(postgres_dsn)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("DROP TABLE market_data_ts", 'relation "market_data_ts" does not exist'),
        ("ALTER TABLE market_data_ts DROP sma_50", 'column "sma_50" of relation "market_data_ts" does not exist'),
        ("ALTER TABLE market_data_ts ADD venue text NOT NULL", 'null value in column "venue"'),
    ],
)
def test_a_table_that_no_longer_fits_fails_at_once(
    write: Write, database: psycopg.Connection[Any], spoil: str, sentence: str
) -> None:
    write(ticks(1))
    if "NOT NULL" in spoil:
        database.execute("TRUNCATE market_data_ts")
    database.execute(spoil)
    with pytest.raises(UsageError, match=rf"market_data_ts cannot be written: .*{sentence}.*run the migrations"):
        write(ticks(10))


def test_who_may_not_write_is_told_before_the_start(database: psycopg.Connection[Any], postgres_dsn: str) -> None:
    database.execute("CREATE ROLE reader LOGIN")
    try:
        database.execute("GRANT SELECT ON market_data_ts TO reader")
        with pytest.raises(UsageError, match="permission denied for table market_data_ts"):
            check_timescale(postgres_dsn.replace("postgres@", "reader@"))
    finally:
        database.execute("DROP OWNED BY reader; DROP ROLE reader")


@pytest.mark.parametrize(
    ("dsn", "sentence"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/x", "cannot connect to database x on 127.0.0.1:1: Connection refused"),
        (f"postgresql://u:{SECRET}@no-such-host.invalid/x", "cannot connect to database x on no-such-host.invalid"),
        (f"{SECRET} and more", "--timescale_dsn is not a PostgreSQL connection string"),
        (f"postgresql://u:p@{SECRET}@127.0.0.1/x", "write special characters of the password as %40"),
        (f"postgresql://u:{SECRET}/1@127.0.0.1/x", "write special characters of the password as %40"),
    ],
)
def test_a_wrong_dsn_is_one_sentence_without_the_password(dsn: str, sentence: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError, match=sentence) as raised:
        check_timescale(dsn)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - begun < 10


def test_an_unknown_database_is_one_sentence(postgres_dsn: str) -> None:
    with pytest.raises(UsageError, match='database "nowhere" does not exist: check --timescale_dsn'):
        check_timescale(postgres_dsn.rpartition("/")[0] + "/nowhere")


def test_the_password_is_never_shown() -> None:
    dsn = Dsn(f"postgresql://u:{SECRET}@db.example.org/x")
    sink = WriteToTimescale(MARKET_DATA, dsn)
    shown = f"{dsn} {dsn!r} {sink!r} {sink.label} {DisplayData.create_from(sink).items}"
    assert SECRET not in shown
    assert str(pickle.loads(pickle.dumps(dsn))) == "database x on db.example.org:5432"


def test_the_dsn_may_stay_in_the_environment() -> None:
    assert str(Dsn.from_option(None, {"TIMESCALE_DSN": "host=h dbname=d"})) == "database d on h:5432"
    assert str(Dsn.from_option("host=i dbname=d", {"TIMESCALE_DSN": "host=h dbname=d"})) == "database d on i:5432"
    with pytest.raises(UsageError, match="give --timescale_dsn or set TIMESCALE_DSN"):
        Dsn.from_option(None, {})


def test_refused_rows_of_a_pipeline_are_its_dead_letters(database: psycopg.Connection[Any], postgres_dsn: str) -> None:
    marked = with_span(ticks(100, price=[1e14 if row == 40 else 1.0 for row in range(100)]), Span("raw", 3, 1000, 1100))
    unmarked = ticks(2, timestamp=NEW_YEAR + 500, volume=[-1, 1], bid=math.nan)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        batches = pipeline | beam.Create([marked, ticks(0), unmarked], reshuffle=False)
        letters = batches | WriteToTimescale(MARKET_DATA, postgres_dsn, topic="elsewhere")
        assert_that(letters, _are_dead_letters)
    assert len(content(database)) == 100


def _are_dead_letters(batches: list[pa.RecordBatch]) -> None:
    letters = sorted((row for batch in batches for row in batch.to_pylist()), key=lambda row: row["offset"])
    values = [json.loads(letter.pop("value")) for letter in letters]
    assert all(batch.schema.equals(DEAD_LETTERS) for batch in batches)
    common = {"partition": 3, "reason": "rejected_by_database", "copied_from": None}
    assert letters == [
        {
            **common,
            "topic": "elsewhere",
            "offset": 1000,
            "timestamp": NEW_YEAR,
            "detail": 'market_data_ts: new row for relation "market_data_ts" violates check constraint '
            '"market_data_ts_volume_check"',
        },
        {
            **common,
            "topic": "raw",
            "offset": 1040,
            "timestamp": NEW_YEAR + 40,
            "detail": 'market_data_ts: numeric field overflow (column "price")',
        },
    ]
    assert [(value["symbol"], value["price"], value["bid"]) for value in values] == [
        ("S0", 100, None),
        ("S5", 1e14, 99.4),
    ]


def test_a_refused_bar_has_no_offset(database: psycopg.Connection[Any], postgres_dsn: str) -> None:
    def check(batches: list[pa.RecordBatch]) -> None:
        assert [(row["topic"], row["partition"], row["offset"]) for batch in batches for row in batch.to_pylist()] == [
            ("", -1, -1)
        ]

    with beam.Pipeline(FnApiRunner()) as pipeline:
        letters = (
            pipeline | beam.Create([bars(3, trade_count=[1, -1, 1])]) | WriteToTimescale(MARKET_BARS, postgres_dsn)
        )
        assert_that(letters, check)
    assert len(content(database, "market_bars_ts")) == 2


def _to_eight(value: float | None) -> decimal.Decimal | None:
    eight = decimal.Decimal("1e-8")
    return (
        None if value is None else decimal.Decimal(value).quantize(eight, decimal.ROUND_HALF_EVEN, decimal.Context(60))
    )


def _concat(*batches: pa.RecordBatch) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()[0]
