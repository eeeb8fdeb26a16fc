"""Samples score what a plain count says, what fails is told, broken suites are refused, and pages stand alone."""

import concurrent.futures
import dataclasses
import html.parser
import json
import os
import re
import subprocess
import sys

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.quality import check, data_docs, validate
from beam_pipelines.transforms.quality_result import EXAMPLES, Failure, Window
from beam_pipelines.transforms.quality_suites import PACKAGED, Suite, checked_suite, read_suites
from beam_pipelines.transforms.ticks import decode

HOUR = 3_600_000
END = 1_736_173_860_000  # 2025-01-06T14:31Z
WINDOW = Window(END - 60_000, END)
Y2020 = 1_577_836_800_000  # 2020-01-01T00:00Z
TICK = {
    "symbol": "AAPL", "timestamp": END - 5, "price": 190.5, "volume": 2000, "bid": 190.4, "ask": 190.6, "bid_size": 3,
    "ask_size": 4, "source": "test", "seq": 0, "updates": 7, "partition": 0, "offset": 0, "log_time": END,
}  # fmt: skip
ARTICLE = {
    "article_id": "0", "published_at": END - 5, "title": "Apple rises", "content": "It rose.", "source": "wire",
    "url": "https://example.org/1", "author": None, "language": "en", "symbols": ["AAPL"], "categories": [],
    "kind": "news", "provider_id": "1", "partition": 0, "offset": 0, "log_time": END,
}  # fmt: skip

SEED = [
    ("expect_column_to_exist", {"column": "symbol"}),
    ("expect_column_to_exist", {"column": "timestamp"}),
    ("expect_column_to_exist", {"column": "price"}),
    ("expect_column_to_exist", {"column": "volume"}),
    ("expect_column_values_to_not_be_null", {"column": "symbol"}),
    ("expect_column_values_to_not_be_null", {"column": "timestamp"}),
    ("expect_column_values_to_not_be_null", {"column": "price"}),
    ("expect_column_values_to_be_between", {"column": "price", "min_value": 0.01, "max_value": 10000}),
    ("expect_column_values_to_be_between", {"column": "volume", "min_value": 0, "max_value": 1000000000}),
    ("expect_column_values_to_match_regex", {"column": "symbol", "regex": "^[A-Z]{1,5}$"}),
    (
        "expect_column_max_to_be_between",
        {
            "column": "timestamp",
            "min_value": "2020-01-01",
            "max_value": {"$PARAMETER": "window_end + timedelta(hours=1)"},
        },
    ),
    ("expect_column_mean_to_be_between", {"column": "volume", "min_value": 1000, "max_value": 100000000}),
]
"""What the specification expects of market data, with the end of the window in place of now."""


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return read_suites()


@pytest.fixture(scope="module")
def market(suites: dict[str, Suite]) -> Suite:
    return suites["market"]


def ticks(count: int = 4, **column: object) -> pa.Table:
    """Good ticks; `column` has the same value in all rows or, as a list, one a row; nulls are let through."""
    count = max([count, *(len(values) for values in column.values() if isinstance(values, list))])
    rows = [{**TICK, "seq": place, "offset": place} for place in range(count)]
    for name, values in column.items():
        for place, row in enumerate(rows):
            row[name] = values[place] if isinstance(values, list) else values
    return pa.Table.from_pylist(rows, pa.schema([field.with_nullable(True) for field in TICKS]))


def articles(*changes: dict) -> pa.Table:
    return pa.Table.from_pylist([{**ARTICLE, "article_id": str(at), **it} for at, it in enumerate(changes)], ARTICLES)


def suite_of(kind: str, **kwargs: object) -> Suite:
    return Suite("own", "own", json.dumps([{"type": kind, "kwargs": kwargs}]))


def failed(quality) -> list[tuple[str, str | None]]:
    return [(failure.expectation, failure.column) for failure in quality.failures]


# --- the packaged suites ---


def test_the_packaged_suites_are_suites():
    assert read_suites() == {path.stem: checked_suite(path) for path in PACKAGED.glob("*.json")}


def test_the_market_suite_has_what_the_specification_expects_and_marks_what_is_ours(market: Suite) -> None:
    listed = json.loads(market.expectations)
    assert market.name == "market_data_quality"
    assert [(it["type"], it["kwargs"]) for it in listed if "ours" not in it.get("meta", {})] == SEED


@pytest.mark.parametrize(("dataset", "schema"), [("market", TICKS), ("news", ARTICLES)])
def test_suites_are_of_columns_that_their_records_have(suites: dict[str, Suite], dataset: str, schema) -> None:
    named = set()
    for expectation in json.loads(suites[dataset].expectations):
        kwargs = expectation["kwargs"]
        named |= {kwargs.get("column"), kwargs.get("column_A"), kwargs.get("column_B"), *kwargs.get("column_list", [])}
    assert named - {None} <= set(schema.names)


def test_good_ticks_score_1(market: Suite) -> None:
    quality = check(market, ticks(), WINDOW)
    assert (quality.score, quality.failures, quality.rows, quality.expectations) == (1.0, [], 4, 14)


def test_simulated_ticks_fail_only_by_their_invented_symbols_and_small_volumes(market: Suite) -> None:
    session = Session(ticks=500, symbols=50, duration_ms=60_000)
    batches = [decode(raw).ticks.replace_schema_metadata(None) for _, raw in raw_batches(session, 1)]
    rows = pa.Table.from_batches(batches).unify_dictionaries()
    last = max(rows["timestamp"].to_pylist())
    digits = sum(not re.fullmatch("[A-Z]{1,5}", symbol) for symbol in rows["symbol"].to_pylist())
    volumes = rows["volume"].to_pylist()
    quality = check(market, rows, Window(last - 60_000, last))
    small = sum(volumes) / len(volumes) < 1000
    assert digits
    assert small
    assert quality.score == pytest.approx((14 - digits / len(rows) - 1) / 14, rel=1e-12)


@pytest.mark.parametrize(
    ("expectation", "column", "change", "share"),
    [
        ("expect_column_values_to_not_be_null", "symbol", {"symbol": [None, "A", "B", "C"]}, 1 / 4),
        ("expect_column_values_to_not_be_null", "timestamp", {"timestamp": [END, None, END, None]}, 2 / 4),
        ("expect_column_values_to_not_be_null", "price", {"price": [1.0, None, 1.0, 1.0]}, 1 / 4),
        ("expect_column_values_to_be_between", "price", {"price": [0.01, 0.0099, 10000.0, 10000.01]}, 2 / 4),
        ("expect_column_values_to_be_between", "volume", {"volume": [0, -1, 4000, 4000]}, 1 / 4),
        ("expect_column_values_to_be_between", "volume", {"volume": [1000000001, 1000000000] + [0] * 28}, 1 / 30),
        ("expect_column_values_to_match_regex", "symbol", {"symbol": ["A", "ABCDE", "ABCDEF", "BRK.B"]}, 2 / 4),
        ("expect_column_max_to_be_between", "timestamp", {"timestamp": Y2020 - 1}, 1),
        ("expect_column_max_to_be_between", "timestamp", {"timestamp": END + HOUR + 1}, 1),
        ("expect_column_mean_to_be_between", "volume", {"volume": [999, 1000, 1000, 1000]}, 1),
        ("expect_column_mean_to_be_between", "volume", {"volume": [100000001, 100000000, 100000000, 100000000]}, 1),
        ("expect_column_pair_values_a_to_be_greater_than_b", "ask,bid", {"ask": [1.0, 190.4, None, 190.6]}, 1 / 3),
        ("expect_compound_columns_to_be_unique", "source,symbol,timestamp,seq", {"seq": [1, 1, 2, 3]}, 2 / 4),
    ],
)
def test_each_expectation_fires_alone_and_counts(market: Suite, expectation, column, change, share) -> None:
    quality = check(market, ticks(**change), WINDOW)
    assert failed(quality) == [(expectation, column)]
    assert quality.failures[0].share == pytest.approx(share)
    assert quality.score == pytest.approx((14 - share) / 14, rel=1e-12)


@pytest.mark.parametrize("column", ["symbol", "timestamp", "price", "volume"])
def test_a_missing_column_fails_and_so_does_all_that_needs_it(market: Suite, column: str) -> None:
    quality = check(market, ticks().drop_columns([column]), WINDOW)
    about = [it for it in json.loads(market.expectations) if column in it["kwargs"].values() or column in str(it)]
    assert quality.failures[0].expectation == "expect_column_to_exist"
    assert len(quality.failures) == len(about)
    assert quality.score == pytest.approx((14 - len(about)) / 14)
    assert all(f'"{column}" in BatchData does not exist' in failure.detail for failure in quality.failures[1:])


def test_bounds_of_time_are_inclusive_and_relative_to_the_window(market: Suite) -> None:
    assert check(market, ticks(timestamp=END + HOUR), WINDOW).score == 1
    assert check(market, ticks(timestamp=Y2020), WINDOW).score == 1
    assert check(market, ticks(timestamp=END + HOUR + 1), Window(END, END + 1)).score == 1


def test_good_articles_pass_and_bad_ones_fail(suites: dict[str, Suite]) -> None:
    news = suites["news"]
    assert check(news, articles({}, {"url": None}, {}), WINDOW).score == 1
    bad = {"kind": "blog", "url": "javascript:alert(1)", "title": "", "content": "", "published_at": END + HOUR + 1}
    quality = check(news, articles({}, bad, {"article_id": "0"}), WINDOW)
    assert [column for _, column in failed(quality)] == [
        "article_id", "kind", "title", "content", "url", "published_at",
    ]  # fmt: skip


def test_good_insider_transactions_and_observations_pass_and_empty_ones_fail(suites: dict[str, Suite]) -> None:
    transaction = {
        "time": END, "filing_id": "0000320193-25-000001", "symbol": "BRK.B", "insider_name": "A. Person",
        "transaction_type": "P", "shares": 10.5, "price": 0.0, "total_value": 0.0,
    }  # fmt: skip
    observation = {"time": -5_000_000_000_000, "series_id": "GDP", "source": "bea", "value": 1.5}
    for dataset, good, most in (("insider", transaction, 4), ("economic", observation, 4)):
        rows = pa.Table.from_pylist([good])
        assert check(suites[dataset], rows, WINDOW).failures == []
        nulls = pa.table({name: pa.nulls(1, rows[name].type) for name in rows.column_names})
        assert len(check(suites[dataset], nulls, WINDOW).failures) >= most


# --- scores and failures ---


def rate(good: int, of: int) -> float:
    return good / of if of else 1.0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "A", "MSFT", "a", "TOOLONG"]),
            st.sampled_from([None, 0.001, 0.01, 5.0, 10000.0, 1e6]),
            st.sampled_from([-5, 0, 999, 5000, 10**9, 10**12]),
            st.sampled_from([None, 1.0, 2.0]),
            st.sampled_from([None, 1.0, 2.0]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_score_is_what_a_plain_count_says(rows) -> None:
    symbols, prices, volumes, bids, asks, seqs = (list(column) for column in zip(*rows, strict=True))
    sample = ticks(0, symbol=symbols, price=prices, volume=volumes, bid=bids, ask=asks, seq=seqs)
    quality = check(read_suites()["market"], sample, WINDOW)
    names, priced = [it for it in symbols if it is not None], [it for it in prices if it is not None]
    quotes = [(bid, ask) for bid, ask in zip(bids, asks, strict=True) if bid is not None and ask is not None]
    keys = [(symbol, seq) for symbol, seq in zip(symbols, seqs, strict=True)]
    expected = [1.0] * 5 + [  # four columns that exist, and timestamps
        rate(len(names), len(rows)),
        rate(len(priced), len(rows)),
        rate(sum(0.01 <= price <= 10000 for price in priced), len(priced)),
        rate(sum(0 <= volume <= 10**9 for volume in volumes), len(rows)),
        rate(sum(bool(re.fullmatch("[A-Z]{1,5}", name)) for name in names), len(names)),
        1.0,
        float(1000 <= sum(volumes) / len(volumes) <= 100000000),
        rate(sum(ask >= bid for bid, ask in quotes), len(quotes)),
        rate(sum(keys.count(key) == 1 for key in keys), len(keys)),
    ]
    assert quality.score == pytest.approx(sum(expected) / 14, rel=1e-12)
    assert 0 <= quality.score <= 1
    assert all(0 < failure.share <= 1 for failure in quality.failures)


def test_mostly_lets_an_expectation_hold_that_counts_less_than_1() -> None:
    suite = suite_of("expect_column_values_to_be_between", column="price", max_value=100, mostly=0.5)
    quality = check(suite, ticks(price=[1.0, 2.0, 101.0, None]), WINDOW)
    assert quality.failures == []
    assert quality.score == pytest.approx(2 / 3)


def test_a_failure_tells_the_first_unexpected_values() -> None:
    suite = suite_of("expect_column_values_to_be_between", column="timestamp", min_value="2025-01-06T14:31Z")
    early = [END - 1 - place for place in range(8)]
    (failure,) = check(suite, ticks(timestamp=[END, *early, END]), WINDOW).failures
    texts = [f"2025-01-06T14:30:59.{999 - place}000+00:00" for place in range(EXAMPLES)]
    assert failure == Failure(
        "expect_column_values_to_be_between", "timestamp", "critical", 8, pytest.approx(0.8), texts, ""
    )


def test_an_aggregate_that_fails_tells_what_was_observed() -> None:
    (failure,) = check(
        suite_of("expect_column_sum_to_be_between", column="volume", max_value=1), ticks(), WINDOW
    ).failures
    assert (failure.unexpected, failure.share, failure.detail) == (None, 1, "observed 8000")


def test_distinct_values_are_no_share_of_the_rows() -> None:
    suite = suite_of("expect_column_distinct_values_to_be_in_set", column="symbol", value_set=["AAPL"])
    quality = check(suite, ticks(symbol=["AAPL", "AAPL", "AAPL", "B"]), WINDOW)
    assert quality.score == 0
    assert quality.failures[0].examples == ["B"]


def test_what_cannot_be_evaluated_fails_with_the_reason() -> None:
    listed = [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "price"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "symbol", "min_value": 3}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "absent"}, "severity": "info"},
        {"type": "expect_column_to_exist", "kwargs": {"column": "absent"}},
    ]
    quality = check(Suite("own", "own", json.dumps(listed)), ticks(), WINDOW)
    assert quality.score == 0.25
    assert [(it.column, it.severity, it.share) for it in quality.failures] == [
        ("symbol", "critical", 1), ("absent", "info", 1), ("absent", "critical", 1),
    ]  # fmt: skip
    assert "same type" in quality.failures[0].detail
    assert "does not exist" in quality.failures[1].detail


def test_long_texts_are_cut() -> None:
    suite = suite_of("expect_column_value_lengths_to_be_between", column="content", max_value=10)
    (failure,) = check(suite, articles({"content": "x" * 10_000}), WINDOW).failures
    assert failure.examples == ["x" * 197 + "..."]


def test_of_no_rows_nothing_is_said(market: Suite) -> None:
    with pytest.raises(ValueError, match="no rows of market"):
        check(market, ticks(0), WINDOW)


# --- equal and plain ---

BAD = {"symbol": ["<b>", "A", None, "B"], "price": [1.0, float("nan"), 1e9, 2.0], "volume": [1, 2, 3, 4]}


def test_a_batch_and_a_table_of_the_same_rows_give_equal_plain_results(market: Suite) -> None:
    table = ticks(**BAD)
    one, other = validate(market, table, WINDOW), validate(market, table.to_batches()[0], WINDOW)
    assert one == other
    assert json.loads(json.dumps(one.document)) == one.document
    assert json.loads(json.dumps(dataclasses.asdict(one.quality))) == dataclasses.asdict(one.quality)
    assert msgspec.json.decode(msgspec.json.encode(one.quality)) == dataclasses.asdict(one.quality)


RUN = """
import sys
from tests.transforms.test_quality import BAD, WINDOW, data_docs, read_suites, ticks, validate
for page in data_docs([validate(read_suites()["market"], ticks(**BAD), WINDOW)]).values():
    sys.stdout.buffer.write(page)
"""


def test_another_process_gives_the_same_page(market: Suite) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, env=environment)
    assert done.stderr == b""
    assert done.stdout == data_docs([validate(market, ticks(**BAD), WINDOW)])["market.html"]


def test_importing_the_module_does_not_import_great_expectations() -> None:
    code = "import sys, beam_pipelines.transforms.quality; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_threads_get_what_they_would_get_alone(suites: dict[str, Suite]) -> None:
    works = [
        (suites["market"], ticks(volume=volume, timestamp=END + ahead), Window(END - 60_000, END + after))
        for volume, ahead, after in [(500, 0, 0), (5000, HOUR + 5, 0), (5000, HOUR + 5, 10), (0, HOUR + 11, 10)]
    ] + [(suites["news"], articles({"kind": kind}), WINDOW) for kind in ("news", "blog")]
    alone = [validate(*work) for work in works]
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda work: validate(*work), works * 5))
    assert together == alone * 5
    assert [it.quality.score < 1 for it in alone] == [True, True, False, True, False, True]


# --- a user's suites ---


def write(folder, **files: object):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def holding(kind: object = "expect_column_values_to_be_between", **more: object) -> dict:
    """A suite of one expectation; `more` are its kwargs."""
    return {"name": "mine", "expectations": [{"type": kind, "kwargs": {"column": "price", **more}}]}


def test_a_folder_replaces_and_adds(tmp_path, suites: dict[str, Suite]) -> None:
    mine = read_suites(write(tmp_path, market=holding(max_value=100), options=holding(min_value=1)))
    assert list(mine) == ["economic", "insider", "market", "news", "options"]
    assert {name: mine[name] for name in ("economic", "insider", "news")} == {
        name: suites[name] for name in ("economic", "insider", "news")
    }
    assert failed(check(mine["market"], ticks(price=101.0), WINDOW)) == [
        ("expect_column_values_to_be_between", "price")
    ]
    assert check(mine["options"], ticks(), WINDOW).dataset == "options"


def test_a_folder_without_suites_is_a_mistake(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"has no file DATASET\.json.*give a folder of suites"):
        read_suites(tmp_path / "absent")


TYPE = "expect_column_values_to_be_between"
TAKES = "it takes column, condition_parser, max_value, min_value, mostly, row_condition, strict_max, strict_min."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[1]", "must be an object, was [1]; give {"),
        ({"expectations": []}, "name must be a text that is not empty, was null; give {"),
        ({"name": "x"}, "expectations must be a list that is not empty, was null; give {"),
        ({"name": "x", "expectations": []}, "expectations must be a list that is not empty, was []; give {"),
        ({"name": "x", "expectation": []}, "expectation is unknown; there may be expectations, id,"),
        ({"name": "x", "expectations": ["a"]}, 'expectation 1: must be an object, was "a"; give {'),
        ({"name": "x", "expectations": [{}]}, "expectation 1: type must be a text such as expect_column_to_exist"),
        (
            {"name": "x", "expectations": [{"type": TYPE, "kwargs": {}, "mostly": 1}]},
            "expectation 1: mostly is unknown; there may be description,",
        ),
        (
            {"name": "x", "expectations": [{"type": TYPE, "kwargs": []}]},
            f"expectation 1 ({TYPE}): kwargs must be an object of arguments, was []",
        ),
        (holding("expect_column_values_to_be_betwen"), f"no expectation has this type; did you mean {TYPE}."),
        (holding("nonsense"), "no expectation has this type; see https://"),
        (holding(minimum=1), f"expectation 1 ({TYPE}): minimum is none of its kwargs; {TAKES}"),
        (holding(min_value=1, severity="info"), "severity is none of its kwargs; it takes"),
        (holding(), "min_value and max_value cannot both be None; it takes"),
        (holding(min_value=1, column=None), "column was null: none is not an allowed value; it takes"),
        ({"name": "x", "expectations": [{"type": TYPE, "kwargs": {"min_value": 1}}]}, "column is missing; it takes"),
        (holding(min_value=1, column=["a"]), 'column was ["a"]: str type expected; it takes'),
        (
            {"name": "x", "expectations": [{**holding(min_value=1)["expectations"][0], "meta": "ours"}]},
            'meta was "ours": value is not a valid dict; it takes',
        ),
        (holding(min_value=1, mostly="all"), 'mostly was "all": value is not a valid float; it takes'),
        (holding(min_value=1, mostly=1.5), "mostly was 1.5: ensure this value is less than or equal to 1.0; it takes"),
        (
            {"name": "x", "expectations": [{**holding(min_value=1)["expectations"][0], "severity": "bad"}]},
            'severity was "bad": value is not a valid enumeration member; permitted:',
        ),
        (holding(column="time", min_value="1/2/2020"), 'min_value was "1/2/2020"; give a time in ISO 8601, such as'),
        (holding(column="time", max_value=1577836800000), "max_value was 1577836800000; give a time in ISO 8601"),
        (
            holding(max_value={"$PARAMETER": "now() + timedelta(hours=1)"}),
            "max_value: $PARAMETER was 'now() + timedelta(hours=1)', but now is unknown; give one of window_start,",
        ),
        (holding(max_value={"$PARAMETER": "window"}), "'window', but window is unknown; give one of window_start,"),
        (holding(max_value={"$PARAMETER": "window_end +"}), "'window_end +' cannot be evaluated; give one of"),
        (holding(max_value={"$PARAMETER": 3}), "$PARAMETER must be a text, was 3; give one of"),
        (holding("expect_column_values_to_match_regex", regex="["), "'[' is no regular expression (Invalid"),
        (holding("expect_column_values_to_match_regex_list", regex_list=["a", "("]), "'(' is no regular expression ("),
    ],
)
def test_a_broken_suite_is_one_sentence_with_the_cure(tmp_path, content, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_suites(write(tmp_path, market=content))
    text = str(caught.value)
    assert sentence in text
    assert str(tmp_path / "market.json") in text
    assert "\n" not in text
    assert text.endswith(".")


def test_the_second_expectation_is_named_as_such(tmp_path) -> None:
    good, bad = holding(min_value=1)["expectations"][0], holding("nonsense")["expectations"][0]
    with pytest.raises(UsageError, match=r"market\.json, expectation 2 \(nonsense\)"):
        read_suites(write(tmp_path, market={"name": "mine", "expectations": [good, bad]}))


def test_a_file_that_is_no_text_is_a_mistake(tmp_path) -> None:
    (tmp_path / "market.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="cannot be read as UTF-8 text"):
        read_suites(tmp_path)


@pytest.mark.parametrize(
    "bound", ["2020-01-01", "2020-01-01T00:00Z", "2020-01-01T01:00:00+01:00", "2020-01-01 00:00:00"]
)
def test_every_way_to_write_a_time_is_the_same_time(tmp_path, bound: str) -> None:
    suite = read_suites(write(tmp_path, market=holding(column="timestamp", min_value=bound)))["market"]
    quality = check(suite, ticks(timestamp=[Y2020 - 1, Y2020, Y2020 + 1, Y2020]), WINDOW)
    assert [failure.unexpected for failure in quality.failures] == [1]


# --- data docs ---


class Outline(html.parser.HTMLParser):
    """The tags of a page, the addresses that they name, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.texts = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_a_page_tells_what_failed_and_needs_nothing_else(market: Suite) -> None:
    pages = data_docs([validate(market, ticks(price=[1.0, 2.0, 3.0, 10000.5]), WINDOW)])
    page = Outline(pages["market.html"].decode())
    assert list(pages) == ["market.html"]
    assert "values must be greater than or equal to 0.01 and less than or equal to 10000.0 ." in page.text
    assert "1 unexpected values found. 25% of 4 total rows. Sampled Unexpected Values 10000.5" in page.text
    assert "score 0.9821 13 of 14 expectations hold 4 records" in page.text  # 1 - 0.25 / 14
    assert "2025-01-06T14:30:00+00:00 to 2025-01-06T14:31:00+00:00" in page.text
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(address.startswith("#") for address in page.addresses)


def test_a_page_tells_why_an_expectation_was_not_evaluated(market: Suite) -> None:
    page = Outline(data_docs([validate(market, ticks().drop_columns(["bid"]), WINDOW)])["market.html"].decode())
    assert 'raised an exception: Error: The column "bid" in BatchData does not exist.' in page.text
    assert "Traceback" not in page.text


@pytest.mark.parametrize(
    "suite",
    [
        suite_of("expect_column_values_to_be_in_set", column="title", value_set=["x"]),
        suite_of("expect_column_distinct_values_to_be_in_set", column="title", value_set=["x"]),
        suite_of("expect_column_most_common_value_to_be_in_set", column="title", value_set=["x"]),
        suite_of("expect_column_pair_values_to_be_equal", column_A="title", column_B="content"),
        suite_of("expect_column_values_to_be_in_set", column="symbols", value_set=["x"]),
    ],
    ids=["value", "distinct", "observed", "pair", "list"],
)
def test_what_a_record_says_is_text_on_a_page(suite: Suite, caplog: pytest.LogCaptureFixture) -> None:
    evil = "<script>alert(1)</script>&amp;"
    page = Outline(
        data_docs([validate(suite, articles({"title": evil, "symbols": [evil]}), WINDOW)])["own.html"].decode()
    )
    assert "script" not in page.tags
    assert evil in page.text
    assert caplog.text == ""  # GX logs what it cannot render, and leaves it out


def test_there_is_a_page_for_each_dataset(suites: dict[str, Suite]) -> None:
    both = [validate(suites["market"], ticks(), WINDOW), validate(suites["news"], articles({}), WINDOW)]
    assert sorted(data_docs(both)) == ["market.html", "news.html"]
