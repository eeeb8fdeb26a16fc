"""The news stream with no flag at all, by the program itself; and what the views make of its tables."""

import gzip
import itertools
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from beam_pipelines.article_files import sample_articles
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.table_writer import TableWriter
from beam_pipelines.io.tables import MARKET_BARS, NEWS_WINDOWS
from beam_pipelines.sql.migrate import migrate
from tests.io.market_rows import NEW_YEAR, bars
from tests.io.news_rows import windows

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def news(folder: pathlib.Path, *flags: str) -> str:
    command = [sys.executable, "-m", "beam_pipelines.news", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def objects(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module", autouse=True)
def no_database() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TIMESCALE_DSN", raising=False)
        patch.setenv("COLUMNS", "160")
        yield


@pytest.fixture(scope="module")
def printed(folder: pathlib.Path) -> str:
    return news(folder)


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]


def test_it_prints_what_the_samples_say(printed: str) -> None:
    said = {row[5]: row[1:5] for row in cells(printed) if len(row) == 6}
    assert len(said) == 20
    apple = said["Apple beats expectations as services revenue hits a record"]
    assert (apple[0], apple[2], apple[3]) == ("AAPL", "positive", "earnings")
    tesla = dict(name.split() for name in said["Tesla falls while Ford rises after delivery figures"][0].split(", "))
    assert float(tesla["F"]) > 0.3
    assert float(tesla["TSLA"]) < -0.3
    assert said["Deutsche Bank mit überraschend hohem Gewinn"][:3] == ["DB", "", "de"]


def test_it_says_how_much_went_through(printed: str) -> None:
    told = dict(row for row in cells(printed) if len(row) == 2)
    names = ("records read", "articles", "dead letters", "missing_field", "lake")
    assert [told[name] for name in names] == ["21", "20", "1", "1", "./lake"]


def test_every_article_is_in_the_lake_as_it_came(folder: pathlib.Path, printed: str) -> None:
    found = objects(folder / "lake" / "news")
    assert all(path.startswith("year=2026/month=11/day=20/p") and path.endswith(".json.gz") for path in found)
    kept = [json.loads(line) for content in found.values() for line in gzip.decompress(content).splitlines()]
    values = [json.loads(it) for _, batch in sample_articles(1) for it in batch["value"].to_pylist()]
    assert sorted((it["provider_id"], it["title"], it["content"]) for it in kept) == sorted(
        (it["id"], it["title"], it["content"]) for it in values if "id" in it
    )


def test_the_sample_that_is_no_article_is_kept_as_a_dead_letter(folder: pathlib.Path, printed: str) -> None:
    letters = ds.dataset(folder / "lake" / "dead-letter", partitioning="hive").to_table(columns=["value", "reason"])
    assert letters["reason"].to_pylist() == ["missing_field"]
    assert json.loads(letters["value"][0].as_py())["title"] == "A story without an id"


def test_again_it_says_the_same_and_leaves_the_lake_as_it_is(folder: pathlib.Path, printed: str) -> None:
    before = objects(folder)
    again = news(folder)
    assert cells(again) == cells(printed)
    assert objects(folder) == before


def test_titles_are_printed_as_they_are(tmp_path: pathlib.Path) -> None:
    titles = ["Apple [/bold] rises", "[update] Tesla :rocket: falls", "[link=x]", r"\[x]"]
    lines = [json.dumps({"id": n, "title": title, "published_at": n}) for n, title in enumerate(titles)]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    assert [row[5] for row in cells(news(tmp_path, "--input=a.ndjson")) if len(row) == 6] == titles


# --- the views ---

Rows = list[dict[str, Any]]


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """With our tables, and an hour that comes twice on 2026-11-01."""
    migrate(Dsn(postgres_dsn))
    options = "-c TimeZone=America/New_York"
    with psycopg.connect(postgres_dsn, autocommit=True, options=options, row_factory=psycopg.rows.dict_row) as it:
        yield it


@pytest.fixture
def write(postgres_dsn: str) -> Callable[..., None]:
    def write_rows(table: Any, *batches: pa.RecordBatch) -> None:
        writer = TableWriter(table, Dsn(postgres_dsn))
        assert [it for batch in batches for it in writer.write(batch)] == []
        writer.close()

    return write_rows


def surprises(database: psycopg.Connection[dict[str, Any]], begin: int) -> dict[tuple[str, int, int], float | None]:
    """By symbol, seconds and ms since `begin`."""
    rows = database.execute("SELECT * FROM news_windows_surprise").fetchall()
    return {
        (row["symbol"], row["window_seconds"], round(row["time"].timestamp() * 1000) - begin): row["surprise"]
        and float(row["surprise"])
        for row in rows
    }


def stories(begin: int, counts: dict[int, int], **columns: object) -> pa.RecordBatch:
    """Windows by ms since `begin`, with their stories."""
    return windows(*({"time": begin + at, "story_count": count, **columns} for at, count in counts.items()))


CLOCKS = pytest.mark.parametrize(
    "begin",
    [NEW_YEAR, 1_793_404_800_000],
    ids=["winter", "over the end of summer time"],  # 2026-10-31
)


@pytest.mark.servers
@CLOCKS
def test_the_surprise_is_null_on_the_first_day_and_then_counts_from_the_first_window(database, write, begin) -> None:
    counts = {0: 2, HOUR: 2, 23 * HOUR: 1, 24 * HOUR: 5, 25 * HOUR: 4, 48 * HOUR: 3}
    write(NEWS_WINDOWS, stories(begin, counts, window_seconds=86_400))
    found = {at: value for (_, _, at), value in surprises(database, begin).items()}
    assert [found[at] for at in (0, HOUR, 23 * HOUR)] == [None] * 3
    assert found[24 * HOUR] == pytest.approx((5 - 2) / math.sqrt(2 + 1))  # against the first window alone
    assert found[25 * HOUR] == pytest.approx((4 - 2) / math.sqrt(2 + 1))  # and the second
    usual = (2 + 2 + 1 + 5) / 25  # 25 windows, of which four had news
    assert found[48 * HOUR] == pytest.approx((3 - usual) / math.sqrt(usual + 1))


@pytest.mark.servers
@CLOCKS
def test_the_surprise_is_against_windows_that_ended_one_to_seven_days_before(database, write, begin) -> None:
    now = 10 * DAY
    counts = {
        0: 9,
        now - 7 * DAY - HOUR: 100,
        now - 7 * DAY: 10,
        now - DAY: 4,
        now - DAY + HOUR: 100,
        now: 1,
    }
    write(NEWS_WINDOWS, stories(begin, counts, window_seconds=86_400))
    usual = (10 + 4) / (6 * 24 + 1)
    assert surprises(database, begin)["AAPL", 86_400, now] == pytest.approx((1 - usual) / math.sqrt(usual + 1))


@pytest.mark.servers
def test_after_a_week_without_news_every_story_surprises(database, write) -> None:
    write(NEWS_WINDOWS, stories(NEW_YEAR, {0: 9, 10 * DAY: 3}, window_seconds=86_400))
    assert surprises(database, NEW_YEAR)["AAPL", 86_400, 10 * DAY] == 3


@pytest.mark.servers
def test_windows_of_an_hour_end_every_five_minutes_and_each_symbol_and_length_is_by_itself(database, write) -> None:
    counts = {0: 1, 5 * MINUTE: 2, DAY + 5 * MINUTE: 4}
    write(NEWS_WINDOWS, stories(NEW_YEAR, counts), stories(NEW_YEAR, {0: 70, DAY: 70}, symbol="TSLA"))
    write(NEWS_WINDOWS, stories(NEW_YEAR, {0: 50, DAY: 50}, window_seconds=86_400))
    found = surprises(database, NEW_YEAR)
    usual = (1 + 2) / 2
    assert found["AAPL", 3600, DAY + 5 * MINUTE] == pytest.approx((4 - usual) / math.sqrt(usual + 1))
    assert found["TSLA", 3600, DAY] == found["AAPL", 86_400, DAY] == 0


TEN = NEW_YEAR + 10 * HOUR
HOURS = {TEN: 0.1, TEN + 5 * MINUTE: 0.2}
DAYS = {TEN: 0.3, TEN + HOUR: 0.4}
BARS = {  # begin and length of a bar: what is known at its end of the last hour, and of the last day
    (TEN - 2 * MINUTE, 60): (None, None),  # ends before the windows
    (TEN - MINUTE, 60): (0.1, 0.3),  # ends as they do
    (TEN, 60): (0.1, 0.3),
    (TEN + 3 * MINUTE, 60): (0.1, 0.3),  # ends before the next
    (TEN + 4 * MINUTE, 60): (0.2, 0.3),  # ends as the next
    (TEN + 2 * MINUTE, 300): (0.2, 0.3),
    (TEN + 8 * MINUTE, 60): (0.2, 0.3),
    (TEN + 9 * MINUTE, 60): (None, 0.3),  # no news in the hour that ends then
    (TEN + 58 * MINUTE, 60): (None, 0.3),
    (TEN + 59 * MINUTE, 60): (None, 0.4),
    (TEN + 30 * MINUTE, 3600): (None, 0.4),
}


@pytest.mark.servers
def test_a_bar_has_the_sentiment_of_the_newest_windows_that_had_ended_at_its_end(database, write) -> None:
    hours = [{"time": at, "sentiment": it, "decayed_sentiment": it / 2, "story_count": 3} for at, it in HOURS.items()]
    days = [{"time": at, "sentiment": it, "story_count": 8, "window_seconds": 86_400} for at, it in DAYS.items()]
    write(NEWS_WINDOWS, windows(*hours, *days))
    symbols = ["AAPL", "TSLA"]
    wanted = list(itertools.product(symbols, BARS))
    columns = {"time": [at for _, (at, _) in wanted], "bar_seconds": [seconds for _, (_, seconds) in wanted]}
    write(MARKET_BARS, bars(len(wanted), symbol=[symbol for symbol, _ in wanted], **columns))
    rows = database.execute("SELECT * FROM market_bars_sentiment").fetchall()
    found = {(row["symbol"], round(row["time"].timestamp() * 1000), row["bar_seconds"]): row for row in rows}
    assert len(rows) == len(found) == len(wanted)
    for (begin, seconds), (hour, day) in BARS.items():
        row = found["AAPL", begin, seconds]
        assert (row["sentiment_1h"], row["sentiment_24h"]) == (hour, day)
        assert (row["decayed_sentiment_1h"], row["stories_1h"]) == ((hour / 2, 3) if hour else (None, None))
        assert row["stories_24h"] == (8 if day else None)
        assert row["close"] == 11
    told = ("sentiment_1h", "decayed_sentiment_1h", "stories_1h", "sentiment_24h", "stories_24h")
    assert {found["TSLA", *bar][name] for bar in BARS for name in told} == {None}
