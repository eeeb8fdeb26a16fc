"""Kernels find what Great Expectations finds, on packaged suites and made ones, and tell what they leave out."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.quality import check
from beam_pipelines.transforms.quality_kernels import judge, unsupported
from beam_pipelines.transforms.quality_result import Failure, Window
from beam_pipelines.transforms.quality_suites import Suite, read_suites

END = 1_736_173_860_000  # 2025-01-06T14:31Z
WINDOW = Window(END - 60_000, END)
TEXT, NAME = pa.string(), pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "name": NAME, "title": TEXT, "price": pa.float64(), "bid": pa.float64(), "volume": pa.int64(),
        "size": pa.int64(), "small": pa.int32(), "updates": pa.uint8(), "time": pa.int64(), "log_time": pa.int64(),
        "flag": pa.bool_(), "symbols": pa.list_(pa.string()), "ratio": pa.float32(),
    }
)  # fmt: skip
INSIDER = pa.schema(
    {"time": pa.int64(), "filing_id": TEXT, "symbol": NAME, "insider_name": TEXT, "transaction_type": TEXT,
     "shares": pa.float64(), "price": pa.float64(), "total_value": pa.float64()}
)  # fmt: skip
ECONOMIC = pa.schema({"time": pa.int64(), "series_id": NAME, "source": NAME, "value": pa.float64()})
SCHEMAS = {"market": TICKS, "news": ARTICLES, "insider": INSIDER, "economic": ECONOMIC}


def suite_of(*expectations: tuple[str, dict[str, Any]]) -> Suite:
    listed = [{"type": kind, "kwargs": kwargs} for kind, kwargs in expectations]
    return Suite("own", "own", json.dumps(listed))


# --- rows ---

TEXTS = ["", "A", "AAPL", "BRK.B", "a", "TOOLONG", "A\n", "É", "x" * 250, "https://a.b/c", "news", "12", "\x0b"]
NEAR = [END - 60_000, END - 1, END, END + 1, END + 3_600_000, END + 3_600_001]
TIMES = [0, -1, 946_684_800_000, *NEAR, 253_402_300_799_999]
VALUES = {
    "text": st.sampled_from(TEXTS),
    "time": st.sampled_from(TIMES),
    "double": st.sampled_from([0.0, -0.0, 0.01, 1.0, 1.5, 2.0, 1e4, 1e300, math.nan, math.inf, -math.inf, 0.1, 0.3]),
    "int64": st.sampled_from([0, 1, 2, -1, 1000, 10**9, 2**53 + 1, 2**53, 2**63 - 1, -(2**63)]),
    "int32": st.sampled_from([0, 1, 2, -1, 2**31 - 1]),
    "uint8": st.sampled_from([0, 1, 2, 255]),
    "bool": st.booleans(),
    "float": st.sampled_from([0.0, 1.5, math.nan]),
    "list<item: string>": st.lists(st.sampled_from(TEXTS), max_size=2),
}


def values_of(field: pa.Field) -> st.SearchStrategy[Any]:
    if field.type == pa.int64() and field.name in ("time", "log_time", "timestamp", "published_at"):
        return VALUES["time"]
    return VALUES["text" if field.type in (TEXT, NAME) else str(field.type)]


@st.composite
def batches(draw: st.DrawFn, schema: pa.Schema) -> pa.RecordBatch:
    """Rows of a few distinct values, 1 to 300 of them; columns have nulls, are all null or have none."""
    rows = draw(st.sampled_from([1, 2, 7, 300]))
    random = draw(st.randoms(use_true_random=False))
    columns = {}
    for field in schema:
        few = draw(st.lists(values_of(field), min_size=1, max_size=6))
        few += draw(st.sampled_from([[], [None], [None]]))
        few = [None] if draw(st.integers(0, 9)) == 0 else few
        columns[field.name] = pa.array([random.choice(few) for _ in range(rows)], field.type)
    return pa.record_batch(columns)


# --- suites ---

MOSTLY = st.fixed_dictionaries({}, optional={"mostly": st.sampled_from([0, 0.3, 0.5, 0.99, 1])})
STRICT = st.fixed_dictionaries({}, optional={"strict_min": st.booleans(), "strict_max": st.booleans()})
NUMBERS, TEXT_COLUMNS, OF_TIME = ["price", "volume", "small", "updates"], ["name", "title"], ["time", "log_time"]
KEYS = [*NUMBERS, *TEXT_COLUMNS, *OF_TIME]
MOMENTS = [
    "2000-01-01",
    "2025-01-06T14:31Z",
    {"$PARAMETER": "window_end"},
    {"$PARAMETER": "window_end + timedelta(hours=1)"},
    {"$PARAMETER": " window_start - timedelta( minutes = 30 ) +timedelta(seconds=1)"},
]
NUMERIC = [0, 1, 1.5, 1000, -3, 2**53 + 1, 1e300]


def column(*names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([*(name for some in names for name in some), "absent"]).map(lambda name: {"column": name})


def bounds(values: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    value = st.sampled_from(values)
    least = {"min_value": value}, {"max_value": value}, {"min_value": value, "max_value": value}
    return st.one_of(*map(st.fixed_dictionaries, least))


def in_order(range_: dict[str, Any]) -> bool:
    return range_.get("min_value", 0) <= range_.get("max_value", 300)


def of(kind: str, *parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    merged = st.tuples(*parts).map(lambda some: {name: value for part in some for name, value in part.items()})
    return merged.map(lambda kwargs: (f"expect_{kind}", kwargs))


def rows_ignored(*which: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={"ignore_row_if": st.sampled_from(which)})


def pairs(*of_a_kind: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    both = [(a, b) for names in of_a_kind for a in [*names, "absent"] for b in names if a != b]
    of_rows = rows_ignored("both_values_are_missing", "either_value_is_missing", "neither")
    names = st.sampled_from(both).map(lambda pair: dict(zip(("column_A", "column_B"), pair, strict=True)))
    return st.tuples(names, of_rows).map(lambda parts: parts[0] | parts[1])


SEVERAL = st.lists(st.sampled_from([*KEYS, "absent"]), min_size=2, max_size=4, unique=True)
COLUMN_LISTS = st.builds(
    lambda names, ignored: {"column_list": names} | ignored,
    SEVERAL, rows_ignored("all_values_are_missing", "any_value_is_missing", "never"),
)  # fmt: skip
REGEXES = ["^[A-Z]{1,5}$", "^https?://[^ ]+$", "A", r"\s", r"\w$", r"(?=A)A", r"^\d+\Z", "[^a-z]", "a|", r"\bA"]
SETS = st.one_of(
    st.tuples(column(TEXT_COLUMNS), st.lists(st.sampled_from(TEXTS), max_size=4)),
    st.tuples(column(NUMBERS), st.lists(st.sampled_from([0, 1, 1.5, 2, 255, 0.01, 1e300, 2**53]), max_size=4)),
).map(lambda parts: parts[0] | {"value_set": parts[1]})
REGEX = st.sampled_from(REGEXES).map(lambda regex: {"regex": regex})
COUNTED, ORDER = bounds([0, 1, 2, 5, 300]), [(NUMBERS, NUMERIC), (OF_TIME, MOMENTS)]
EXPECTATIONS = [
    of("column_to_exist", column(KEYS, ["flag", "symbols", "ratio"])),
    of("column_values_to_not_be_null", column(KEYS, ["flag", "symbols", "ratio"]), MOSTLY),
    of("column_values_to_be_null", column(KEYS), MOSTLY),
    of("column_values_to_be_in_set", SETS, MOSTLY),
    of("column_values_to_not_be_in_set", SETS, MOSTLY),
    of("column_values_to_match_regex", column(TEXT_COLUMNS), REGEX, MOSTLY),
    of("column_values_to_not_match_regex", column(TEXT_COLUMNS), REGEX, MOSTLY),
    of("column_value_lengths_to_be_between", column(TEXT_COLUMNS), COUNTED, STRICT, MOSTLY),
    of("column_values_to_be_unique", column(KEYS), MOSTLY),
    of("column_unique_value_count_to_be_between", column(KEYS), COUNTED, STRICT),
    of("table_row_count_to_be_between", COUNTED.filter(in_order), STRICT),
    of("column_pair_values_to_be_equal", pairs([*NUMBERS, "bid"], TEXT_COLUMNS, OF_TIME), MOSTLY),
    of(
        "column_pair_values_a_to_be_greater_than_b", pairs([*NUMBERS, "bid", "size"], OF_TIME), MOSTLY,
        st.fixed_dictionaries({}, optional={"or_equal": st.booleans()}),
    ),
    of("compound_columns_to_be_unique", COLUMN_LISTS, MOSTLY),
    *(of("column_values_to_be_between", column(names), bounds(of_kind), STRICT, MOSTLY) for names, of_kind in ORDER),
    *(
        of(f"column_{extreme}_to_be_between", column(names), bounds(of_kind), STRICT)
        for extreme in ("min", "max") for names, of_kind in ORDER
    ),
    *(of(f"column_{it}_to_be_between", column(NUMBERS), bounds(NUMERIC), STRICT) for it in ("mean", "median", "sum")),
]  # fmt: skip
SUITES = st.lists(st.one_of(EXPECTATIONS), min_size=1, max_size=12).map(lambda listed: suite_of(*listed))


# --- equal to Great Expectations ---


@settings(max_examples=60, deadline=None)
@given(SUITES, batches(SCHEMA))
def test_suites_of_all_types_find_what_great_expectations_finds(suite: Suite, rows: pa.RecordBatch) -> None:
    assert unsupported(suite, rows.schema) == []
    assert judge(suite, rows, WINDOW) == check(suite, rows, WINDOW)


IGNORED = {"column": ["both_values_are_missing", "either_value_is_missing", "neither"],
           "compound": ["all_values_are_missing", "any_value_is_missing", "never"]}  # fmt: skip
EDGES = {
    "log_time": [END, None, None, 0, 0, -1, END, END + 1, None],
    "time": [END, 0, None, None, 0, 0, END + 1, END, None],
    "price": [1.0, 0.0, None, math.nan, 0.0, -0.0, 2.0, 1.0, None],
    "volume": [1, 0, None, None, 0, 5, 1, 2, None],
    "name": ["A", "b", None, None, "b", "A\n", "xA", "A", None],
    "title": ["A", None, "A", None, "b", "b", "c", "xA", None],
    "ratio": [1.0, math.nan, None, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
}
PAIRS = [("log_time", "time"), ("time", "log_time"), ("price", "volume"), ("volume", "price")]
EQUALS = [*PAIRS, ("name", "title"), ("title", "name")]


def every_edge() -> Iterator[tuple[str, dict[str, Any]]]:
    for ignored in IGNORED["column"]:
        for (a, b), or_equal in itertools.product(PAIRS, [True, False]):
            pair = {"column_A": a, "column_B": b, "ignore_row_if": ignored}
            yield "expect_column_pair_values_a_to_be_greater_than_b", pair | {"or_equal": or_equal}
        for a, b in EQUALS:
            yield "expect_column_pair_values_to_be_equal", {"column_A": a, "column_B": b, "ignore_row_if": ignored}
    for ignored, names in itertools.product(IGNORED["compound"], EQUALS):
        yield "expect_compound_columns_to_be_unique", {"column_list": list(names), "ignore_row_if": ignored}
    for name, least, most in [("price", 0, 1), ("log_time", "1970-01-01", "2025-01-06T14:31Z")]:
        for low, high in itertools.product([True, False], repeat=2):
            bounds = {"column": name, "min_value": least, "max_value": most, "strict_min": low, "strict_max": high}
            yield "expect_column_values_to_be_between", bounds
    yield "expect_column_values_to_be_between", {"column": "price", "min_value": 2, "max_value": 1, "mostly": 0}
    for name in EDGES:
        yield "expect_column_values_to_not_be_null", {"column": name}
    for regex in REGEXES:
        yield "expect_column_values_to_match_regex", {"column": "name", "regex": regex}


def test_every_edge_is_as_great_expectations_has_it() -> None:
    edges = {name: [*values, values[1], values[4]] for name, values in EDGES.items()}  # so that some are there twice
    rows = pa.RecordBatch.from_pydict(edges, pa.schema([SCHEMA.field(name) for name in EDGES]))
    suite = suite_of(*every_edge())
    found, expected = judge(suite, rows, WINDOW), check(suite, rows, WINDOW)
    assert found.failures == expected.failures
    assert found == expected
    assert len(found.failures) > 50


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(SCHEMAS)))
def test_packaged_suites_find_what_great_expectations_finds(data: st.DataObject, dataset: str) -> None:
    suite = read_suites()[dataset]
    rows = data.draw(batches(pa.schema([field.with_nullable(True) for field in SCHEMAS[dataset]])))
    rows = rows.drop_columns(data.draw(st.lists(st.sampled_from(rows.schema.names), max_size=1)))
    assert unsupported(suite, rows.schema) == []
    assert judge(suite, rows, WINDOW) == check(suite, rows, WINDOW)


@pytest.mark.parametrize("rows", [1, 300])
def test_sums_and_means_of_many_doubles_are_equal_to_the_last_digit(rows: int) -> None:
    values = [None if row % 7 == 3 else math.sin(row) * 1e3 for row in range(rows)]
    figures = [(f"expect_column_{it}_to_be_between", {"column": "price", "min_value": 1e12}) for it in ("sum", "mean")]
    batch = pa.record_batch({"price": pa.array(values, pa.float64())})
    found = judge(suite_of(*figures), batch, WINDOW)
    assert found == check(suite_of(*figures), batch, WINDOW)
    assert all(failure.detail.startswith("observed ") for failure in found.failures)


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["A", "b", "A"], [0, 2, 1, None, None]),
        (["A", "b", None], [0, 0, 1, 2, None]),
        (["A", "b", *map(str, range(50))], [0, 0, 1, None, None]),
    ],
    ids=["twice", "null", "many"],
)
def test_a_dictionary_may_have_words_twice_a_null_and_words_of_other_rows(words, places) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(words))
    batch = pa.record_batch({"name": column, "title": column.dictionary_decode()})
    listed = [
        ("expect_column_values_to_be_unique", {}),
        ("expect_column_values_to_match_regex", {"regex": "[A-Z]"}),
        ("expect_column_values_to_not_be_null", {}),
        ("expect_column_unique_value_count_to_be_between", {"min_value": 3}),
    ]
    by_name, by_title = (
        judge(suite_of(*((kind, kwargs | {"column": name}) for kind, kwargs in listed)), batch, WINDOW)
        for name in ("name", "title")
    )
    assert by_name.score == by_title.score == (1 - 2 / 3 + 1 - 1 / 3 + 1 - 2 / 5 + 0) / 4
    assert [failure.examples for failure in by_name.failures] == [["A", "A"], ["b"], [None, None], []]


# --- by hand ---


def test_a_suite_scores_the_mean_of_shares_and_tells_what_failed() -> None:
    suite = suite_of(
        ("expect_column_values_to_be_between", {"column": "price", "min_value": 1, "max_value": 2, "strict_max": True}),
        ("expect_column_values_to_be_between", {"column": "price", "min_value": 0, "mostly": 0.5}),
        ("expect_column_values_to_be_between", {"column": "price", "min_value": -9}),
        ("expect_column_max_to_be_between", {"column": "time", "max_value": {"$PARAMETER": "window_end"}}),
        ("expect_column_mean_to_be_between", {"column": "absent", "max_value": 1}),
    )
    times = pa.array([END - 1, END, END + 1, END], pa.int64())
    rows = pa.record_batch({"price": pa.array([2.0, None, -1.0, 1.0]), "time": times})
    quality = judge(suite, rows, WINDOW)
    missing = 'Error: The column "absent" in BatchData does not exist.'
    assert quality.score == pytest.approx((1 / 3 + 2 / 3 + 1 + 0 + 0) / 5, rel=1e-15)
    assert (quality.dataset, quality.suite, quality.rows, quality.expectations) == ("own", "own", 4, 5)
    assert (quality.window_start, quality.window_end) == WINDOW
    assert quality.failures == [
        Failure("expect_column_values_to_be_between", "price", "critical", 2, 2 / 3, [2.0, -1.0], ""),
        Failure(
            "expect_column_max_to_be_between", "time", "critical", None, 1.0, [],
            "observed 2025-01-06T14:31:00.001000+00:00",
        ),
        Failure("expect_column_mean_to_be_between", "absent", "critical", None, 1.0, [], missing),
    ]  # fmt: skip


def test_a_time_is_judged_by_its_own_window() -> None:
    bound = {"column": "time", "max_value": {"$PARAMETER": "window_end - timedelta(seconds=1)"}}
    suite, rows = suite_of(("expect_column_max_to_be_between", bound)), pa.record_batch({"time": [END - 1000]})
    assert judge(suite, rows, Window(END - 60_000, END)).score == 1
    assert judge(suite, rows, Window(END - 60_001, END - 1)).score == 0
    from_start = suite_of(
        ("expect_column_min_to_be_between", {"column": "time", "min_value": {"$PARAMETER": "window_start"}})
    )
    assert judge(from_start, rows, Window(END - 1000, END)).score == 1
    assert judge(from_start, rows, Window(END - 999, END)).score == 0


def test_a_time_beyond_the_calendar_is_told_as_a_number() -> None:
    suite = suite_of(("expect_column_max_to_be_between", {"column": "time", "max_value": "2025-01-01"}))
    (failure,) = judge(suite, pa.record_batch({"time": [2**62]}), WINDOW).failures
    assert failure.detail == f"observed {2**62} ms"


def test_metadata_of_the_rows_does_not_matter() -> None:
    suite = suite_of(("expect_column_to_exist", {"column": "price"}))
    rows = pa.RecordBatch.from_pylist([{"price": 1.0}], SCHEMA)
    marked = rows.replace_schema_metadata({"span": "1"})
    assert judge(suite, marked, WINDOW) == judge(suite, rows, WINDOW)
    assert unsupported(suite, marked.schema) == []


def test_of_no_rows_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="no rows of own"):
        judge(suite_of(("expect_column_to_exist", {"column": "name"})), pa.RecordBatch.from_pylist([], SCHEMA), WINDOW)


# --- what has no kernel ---

BETWEEN = "expect_column_values_to_be_between"


@pytest.mark.parametrize(
    ("kind", "kwargs", "reason"),
    [
        ("expect_column_stdev_to_be_between", {"column": "price", "max_value": 1}, "type"),
        (BETWEEN, {"column": "price", "max_value": 1, "row_condition": "price > 0"}, "row_condition"),
        (BETWEEN, {"column": "title", "max_value": 1}, "column title"),
        (BETWEEN, {"column": "flag", "max_value": 1}, "column flag"),
        (BETWEEN, {"column": "price", "max_value": "2020-01-01"}, "max_value"),
        (BETWEEN, {"column": "price", "max_value": {"$PARAMETER": "window_end"}}, "max_value"),
        (BETWEEN, {"column": "time", "max_value": {"$PARAMETER": "window_end + timedelta(1)"}}, "max_value"),
        (BETWEEN, {"column": "price", "max_value": True}, "max_value"),
        ("expect_column_values_to_be_in_set", {"column": "volume", "value_set": [2**53 + 1]}, "value_set"),
        (BETWEEN, {"column": "price", "max_value": 1, "mostly": {"$PARAMETER": "window_end"}}, "mostly"),
        ("expect_column_mean_to_be_between", {"column": "time", "max_value": "2020-01-01"}, "column time"),
        ("expect_column_values_to_match_regex", {"column": "price", "regex": "1"}, "column price"),
        ("expect_column_values_to_match_regex", {"column": "title", "regex": "[[:alpha:]]"}, "regex"),
        ("expect_column_values_to_be_in_set", {"column": "title", "value_set": ["a", 1]}, "value_set"),
        ("expect_column_values_to_be_null", {"column": "symbols"}, "column symbols"),
        ("expect_column_pair_values_to_be_equal", {"column_A": "title", "column_B": "price"}, "column title and price"),
        ("expect_column_pair_values_to_be_equal", {"column_A": "bid", "column_B": "bid"}, "column bid and bid"),
        ("expect_column_to_exist", {"column": "price", "column_index": 1}, "column_index"),
        ("expect_table_row_count_to_be_between", {"max_value": {"$PARAMETER": "window_end"}}, "max_value"),
    ],
)
def test_what_has_no_kernel_is_named_and_left_out(kind: str, kwargs: dict[str, Any], reason: str) -> None:
    held = ("expect_column_to_exist", {"column": "price"})
    rows = pa.RecordBatch.from_pylist([{"price": 1.0}], SCHEMA)
    assert unsupported(suite_of(held, (kind, kwargs)), SCHEMA) == [f"{kind} ({reason})"]
    quality = judge(suite_of(held, (kind, kwargs)), rows, WINDOW)
    assert (quality.score, quality.expectations, quality.failures) == (1.0, 1, [])
    with pytest.raises(ValueError, match="no expectation of own has a kernel"):
        judge(suite_of((kind, kwargs)), rows, WINDOW)


RUN = """
import sys
import beam_pipelines.transforms.quality_kernels as kernels
imported = {"great_expectations", "pandas"} & sys.modules.keys()
import pyarrow as pa
from beam_pipelines.transforms.quality_suites import Suite
suite = Suite("own", "own", '[{"type": "expect_column_max_to_be_between", "kwargs": {"column": "a", "max_value": 1}}]')
kernels.judge(suite, pa.record_batch({"a": [1, 2]}), kernels.Window(0, 1))
print(sorted(imported | {"great_expectations"} & sys.modules.keys()))
"""


def test_neither_great_expectations_nor_pandas_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
