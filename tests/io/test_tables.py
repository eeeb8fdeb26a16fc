"""What tables say of the order of their rows."""

import itertools

import numpy as np

from beam_pipelines.io.tables import MARKET_BARS, MARKET_DATA, NEWS_SENTIMENT, Column, Table
from tests.io.market_rows import NEW_YEAR, bars, ticks
from tests.io.news_rows import scored


def test_rows_of_a_symbol_come_together_and_keep_their_order() -> None:
    rows = ticks(50)
    clustered = MARKET_DATA.clustered(rows)
    symbols = np.array(clustered["symbol"].to_pylist())
    assert np.count_nonzero(symbols[1:] != symbols[:-1]) == len(set(symbols)) - 1
    for symbol in set(symbols):
        seq = clustered["seq"].to_numpy()[symbols == symbol]
        assert seq.tolist() == sorted(row["seq"] for row in rows.to_pylist() if row["symbol"] == symbol)


def test_a_key_that_begins_with_no_name_leaves_rows_as_they_are() -> None:
    by_time = Table("x", ("time", "symbol"), (Column("time", "timestamp", "timestamp with time zone"),))
    assert by_time.clustered(ticks(50)).equals(ticks(50))


def test_of_a_table_with_versions_the_highest_is_the_newest_in_any_order() -> None:
    versions = [{"offset": offset, "title": f"version {offset}"} for offset in (3, 9, 10)]
    others = [{"published_at": NEW_YEAR + 1, "offset": 4}, {"article_id": "another", "offset": 1}]
    for order in itertools.permutations([*versions, *others]):
        latest = NEWS_SENTIMENT.latest(scored(*order))
        assert sorted(row["offset"] for row in latest.to_pylist()) == [1, 4, 10]
        assert "version 10" in latest["title"].to_pylist()


def test_of_equal_versions_the_last_that_comes_is_the_newest() -> None:
    latest = NEWS_SENTIMENT.latest(scored({"offset": 3, "title": "one"}, {"offset": 3, "title": "other"}))
    assert latest["title"].to_pylist() == ["other"]


def test_of_a_table_without_versions_the_last_that_comes_is_the_newest() -> None:
    latest = MARKET_BARS.latest(bars(3, time=NEW_YEAR, revision=[2, 0, 1]))
    assert latest["revision"].to_pylist() == [1]


def test_rows_that_all_differ_are_all_kept() -> None:
    rows = scored(*({"article_id": str(at), "offset": 10 - at} for at in range(5)))
    assert sorted(NEWS_SENTIMENT.latest(rows)["offset"].to_pylist()) == [6, 7, 8, 9, 10]
