"""How good a sample of records is, without Great Expectations: the usual expectations as kernels, for the stream.

The result is that of `quality.check`, which is the tests' oracle, in a hundredth of its time and without its imports.
What an expectation means is read off Great Expectations 1.24 on pandas 3.1, e.g. that a whole number beside a null is a
double, and NaN is a null; see great_expectations/expectations/metrics.  What has no kernel is told by `unsupported` and
left out: most types, `row_condition`, and arguments that do not suit the type of their column.

A pattern is searched as by Python's `re`, whose semantics pandas keeps also where it takes Arrow's RE2.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.quality_columns import (
    Column,
    Kind,
    Mask,
    Places,
    Sample,
    iso,
    kind_of,
    repeated,
    told,
    told_naive,
)
from beam_pipelines.transforms.quality_result import (
    EXAMPLES,
    Failure,
    Outcome,
    Quality,
    Window,
    columns_of,
    plain,
    quality_of,
    require_rows,
)
from beam_pipelines.transforms.quality_suites import PARAMETERS, Suite
from beam_pipelines.transforms.timestamps import iso_ms

__all__ = ["judge", "unsupported"]

Kwargs = Mapping[str, Any]


def judge(suite: Suite, rows: pa.RecordBatch, window: Window) -> Quality:
    """The quality of a sample, by the expectations that have a kernel.

    Args:
      suite: one of `read_suites`.
      rows: at least one record; whole numbers in TIME_COLUMNS are ms since 1970 UTC.
      window: the time that the records are of.

    Raises:
      ValueError: there are no rows, or no expectation has a kernel: of neither can anything be said.
    """
    require_rows(suite, rows)
    plan = _plan(suite, rows.schema.remove_metadata())
    if not plan.expectations:
        raise ValueError(f"no expectation of {suite.name} has a kernel; ask `unsupported` first")
    sample = Sample(rows)
    outcomes = [_outcome(it, it.evaluate(sample, _at(window, it.kwargs))) for it in plan.expectations]
    return quality_of(suite, window, len(rows), outcomes)


def unsupported(suite: Suite, schema: pa.Schema) -> list[str]:
    """The expectations that `judge` leaves out of rows of this schema, each by its type and what has no kernel."""
    return list(_plan(suite, schema.remove_metadata()).unsupported)


# --- outcomes ---


class _Found(NamedTuple):
    """What a kernel finds: `Failure` without what the suite says of it."""

    holds: bool
    unexpected: int | None
    share: float
    examples: list[Any]
    detail: str


def _whole(holds: bool, detail: str = "") -> _Found:
    """Where values are not counted."""
    return _Found(holds, None, 0.0 if holds else 1.0, [], detail)


def _counted(looked_at: int, unexpected: Mask, kwargs: Kwargs, told: Callable[[Places], list[Any]]) -> _Found:
    """Where values are counted.

    Args:
      looked_at: how many.
      unexpected: which of all rows, shape [rows].
      kwargs: may have `mostly`.
      told: the values at some rows as plain data.
    """
    at = np.flatnonzero(unexpected)
    if not len(at):
        return _Found(True, 0, 0.0, [], "")
    holds = (looked_at - len(at)) / looked_at >= kwargs.get("mostly", 1.0)
    return _Found(holds, len(at), len(at) / looked_at, [] if holds else told(at[:EXAMPLES]), "")


def _outcome(expectation: "_Planned", found: _Found) -> Outcome:
    if found.holds:
        return Outcome(found.share, None)
    column = ",".join(columns_of(expectation.kwargs)) or None
    return Outcome(found.share, Failure(expectation.kind, column, expectation.severity, *found[1:]))


# --- kernels of values: which are as expected, shape [rows]; nulls do not matter ---


def _of_values(expected: Callable[[Column, Kwargs], Mask]) -> "Evaluate":
    def evaluate(sample: Sample, kwargs: Kwargs) -> _Found:
        column = sample[kwargs["column"]]
        looked_at = ~column.null
        unexpected = looked_at & ~expected(column, kwargs)
        return _counted(np.count_nonzero(looked_at), unexpected, kwargs, lambda rows: told(column, rows))

    return evaluate


def _within(values: Any, kwargs: Kwargs) -> Any:
    """Whether a value or each of an array is between the bounds, of which there may be none."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    inside = True
    if low is not None:
        inside = values > low if kwargs.get("strict_min") else values >= low
    if high is not None:
        inside = inside & (values < high if kwargs.get("strict_max") else values <= high)
    return inside


def _in_set(column: Column, kwargs: Kwargs) -> Mask:
    holds = frozenset(kwargs["value_set"]).__contains__
    if column.kind == Kind.TEXT:
        return _by_word(column, holds)
    return np.fromiter(map(holds, column.values.tolist()), np.bool_, len(column.values))  # exact, unlike np.isin


def _matches(column: Column, kwargs: Kwargs) -> Mask:
    search = re.compile(kwargs["regex"]).search
    return _by_word(column, lambda word: search(word) is not None)


def _length_within(column: Column, kwargs: Kwargs) -> Mask:
    return _by_word(column, lambda word: bool(_within(len(word), kwargs)))


def _unique(column: Column, _kwargs: Kwargs) -> Mask:
    return ~repeated([column], ~column.null)


def _not(expected: Callable[[Column, Kwargs], Mask]) -> Callable[[Column, Kwargs], Mask]:
    return lambda column, kwargs: ~expected(column, kwargs)


def _by_word(column: Column, expected: Callable[[str], bool]) -> Mask:
    """By a predicate of a text, asked once for each distinct one."""
    answers = np.fromiter(map(expected, column.words), np.bool_, len(column.words))
    return answers[column.values] if len(answers) else column.null


_all_within = _of_values(lambda column, kwargs: _within(column.values, kwargs))


def _between(sample: Sample, kwargs: Kwargs) -> _Found:
    if kwargs.get("min_value", -math.inf) > kwargs.get("max_value", math.inf):
        return _whole(False, "min_value cannot be greater than max_value")
    return _all_within(sample, kwargs)


# --- kernels of nulls, columns and tables ---


def _exists(_sample: Sample, _kwargs: Kwargs) -> _Found:
    return _whole(True)  # otherwise `_planned` does not come here


def _not_null(sample: Sample, kwargs: Kwargs) -> _Found:
    column = sample[kwargs["column"]]
    return _counted(len(sample), column.null, kwargs, lambda rows: told(column, rows))


def _null(sample: Sample, kwargs: Kwargs) -> _Found:
    column = sample[kwargs["column"]]
    return _counted(len(sample), ~column.null, kwargs, lambda rows: told(column, rows))


def _row_count(sample: Sample, kwargs: Kwargs) -> _Found:
    return _figure(len(sample), kwargs)


def _figure(observed: Any, kwargs: Kwargs) -> _Found:
    """Whether one number is within the bounds; None and NaN never are."""
    if observed is None or math.isnan(observed):
        return _whole(False)
    shown = plain(observed)
    return _whole(bool(_within(observed, kwargs)), "" if shown is None else f"observed {shown}")


def _of_numbers(figure: Callable[[NDArray[Any]], Any]) -> "Evaluate":
    """Of a figure of the column's numbers without nulls, of which there is at least one."""

    def evaluate(sample: Sample, kwargs: Kwargs) -> _Found:
        column = sample[kwargs["column"]]
        values = column.values[~column.null]
        return _figure(figure(values) if len(values) else None, kwargs)

    return evaluate


def _of_order(extreme: Callable[[NDArray[Any]], Any]) -> "Evaluate":
    """Of the least or the greatest number or point in time."""
    of_numbers = _of_numbers(extreme)

    def evaluate(sample: Sample, kwargs: Kwargs) -> _Found:
        found, column = of_numbers(sample, kwargs), sample[kwargs["column"]]
        if column.kind != Kind.TIME:
            return found
        times = column.values[~column.null]
        return found._replace(detail=f"observed {iso(int(extreme(times))) if len(times) else 'NaT'}")

    return evaluate


def _mean(sample: Sample, kwargs: Kwargs) -> _Found:
    column = sample[kwargs["column"]]
    count = len(sample) - np.count_nonzero(column.null)
    return _figure(_sum_of(column, np.float64) / count if count else None, kwargs)


def _sum(sample: Sample, kwargs: Kwargs) -> _Found:
    column = sample[kwargs["column"]]
    return _figure(_sum_of(column, column.values.dtype), kwargs)


def _sum_of(column: Column, kind: Any) -> Any:
    """As pandas sums: nulls are summed as 0, for the order of a pairwise sum depends on their places."""
    return np.where(column.null, 0, column.values).sum(dtype=kind)


def _distinct(sample: Sample, kwargs: Kwargs) -> _Found:
    column = sample[kwargs["column"]]
    return _figure(len(np.unique(column.values[~column.null])), kwargs)


# --- kernels of several columns ---


def _of_pairs(expected: Callable[[Column, Column, Kwargs], Mask]) -> "Evaluate":
    def evaluate(sample: Sample, kwargs: Kwargs) -> _Found:
        a, b = sample[kwargs["column_A"]], sample[kwargs["column_B"]]
        looked_at = _looked_at([a, b], kwargs)
        unexpected = looked_at & ~(expected(a, b, kwargs) & ~a.null & ~b.null)
        return _counted(np.count_nonzero(looked_at), unexpected, kwargs, lambda rows: _told_pairs([a, b], rows))

    return evaluate


def _looked_at(columns: Sequence[Column], kwargs: Kwargs) -> Mask:
    nulls = [column.null for column in columns]
    ignored = kwargs.get("ignore_row_if", "all")
    if ignored in ("neither", "never"):
        return np.ones(len(nulls[0]), np.bool_)
    some = ignored in ("either_value_is_missing", "any_value_is_missing")
    return ~(np.logical_or if some else np.logical_and).reduce(nulls)


def _greater(a: Column, b: Column, kwargs: Kwargs) -> Mask:
    return a.values >= b.values if kwargs.get("or_equal") else a.values > b.values


def _equal(a: Column, b: Column, _kwargs: Kwargs) -> Mask:
    if a.kind != Kind.TEXT:
        return a.values == b.values
    places = {word: place for place, word in enumerate(b.words)}
    there = np.array([places.get(word, -1) for word in a.words], np.int64)
    return there[a.values] == b.values if len(there) else ~a.null


def _told_pairs(pair: Sequence[Column], rows: Places) -> list[list[Any]]:
    return [list(values) for values in zip(*(told_naive(column, rows) for column in pair), strict=True)]


def _compound_unique(sample: Sample, kwargs: Kwargs) -> _Found:
    columns = {name: sample[name] for name in kwargs["column_list"]}
    looked_at = _looked_at(list(columns.values()), kwargs)

    def records(rows: Places) -> list[Any]:
        values = zip(*(told(column, rows) for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]

    return _counted(np.count_nonzero(looked_at), repeated(list(columns.values()), looked_at), kwargs, records)


# --- arguments ---

Takes = Callable[[Any, Kind | None], bool]
"""Whether a kernel takes a value, by the kind of the column that it is about; None: there is no such column."""


class _Moment(NamedTuple):
    """A point in time: so many ms after 1970 UTC or after a bound of the window."""

    after: str | None
    ms: int


_STEP = r"[+-]\s*timedelta\(\s*(?:weeks|days|hours|minutes|seconds)\s*=\s*\d{1,9}\s*\)"
_RELATIVE = re.compile(rf"\s*({'|'.join(PARAMETERS)})((?:\s*{_STEP})*)\s*")
_STEPS = re.compile(r"([+-])\s*timedelta\(\s*(\w+)\s*=\s*(\d+)")
_UNIT_MS = {"weeks": 604_800_000, "days": 86_400_000, "hours": 3_600_000, "minutes": 60_000, "seconds": 1000}


def _bound_of(value: Any) -> float | _Moment | None:
    """A bound, numbers as GX has them; None: it is none, or not of the usual form."""
    if _is_number(value, Kind.NUMBER):
        return float(value)
    if isinstance(value, str):
        ms = iso_ms(value)
        return None if ms is None else _Moment(None, ms)
    relative = _RELATIVE.fullmatch(str(value.get("$PARAMETER"))) if isinstance(value, Mapping) else None
    if not relative:
        return None
    steps = _STEPS.findall(relative[2])
    return _Moment(relative[1], sum(int(sign + count) * _UNIT_MS[unit] for sign, unit, count in steps))


def _at(window: Window, kwargs: Kwargs) -> Kwargs:
    """The arguments with points in time as ms since 1970 UTC."""
    zero = {None: 0, "window_start": window.start, "window_end": window.end}
    return {
        name: zero[value.after] + value.ms if isinstance(value, _Moment) else value for name, value in kwargs.items()
    }


def _is_bound(value: Any, kind: Kind | None) -> bool:
    return kind is None or isinstance(_bound_of(value), _Moment if kind == Kind.TIME else float)


def _is_number(value: Any, _kind: Kind | None) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any, _kind: Kind | None) -> bool:
    return type(value) is int


def _is_bool(value: Any, _kind: Kind | None) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any, _kind: Kind | None) -> bool:
    return isinstance(value, str)


def _is_regex(value: Any, _kind: Kind | None) -> bool:
    return isinstance(value, str) and "[:" not in value  # POSIX classes, which RE2 has and Python has not


def _is_exact(value: Any, kind: Kind | None) -> bool:
    return _is_number(value, kind) and (type(value) is float or abs(value) <= 1 << 53)


def _is_set(values: Any, kind: Kind | None) -> bool:
    is_one = _is_text if kind == Kind.TEXT else _is_exact
    return isinstance(values, list) and (kind is None or all(is_one(value, kind) for value in values))


# --- the table of kernels ---

Evaluate = Callable[[Sample, Kwargs], _Found]


class _Kernel(NamedTuple):
    evaluate: Evaluate
    kinds: frozenset[Kind]  # of the columns that it takes
    arguments: Mapping[str, Takes]  # beside those that name columns


_NAMES = frozenset({"column", "column_A", "column_B", "column_list"})
_STRICT: dict[str, Takes] = {"strict_min": _is_bool, "strict_max": _is_bool}
_RANGE: dict[str, Takes] = {"min_value": _is_bound, "max_value": _is_bound, **_STRICT}
_COUNTS: dict[str, Takes] = {"min_value": _is_count, "max_value": _is_count, **_STRICT}
_MOSTLY: dict[str, Takes] = {"mostly": _is_number}
_SET: dict[str, Takes] = {"value_set": _is_set, **_MOSTLY}
_REGEX: dict[str, Takes] = {"regex": _is_regex, **_MOSTLY}
_ROWS: dict[str, Takes] = {"ignore_row_if": _is_text, **_MOSTLY}
_NONE: frozenset[Kind] = frozenset()
_NUMBERS, _TEXTS = frozenset({Kind.NUMBER}), frozenset({Kind.TEXT})
_ORDERED, _EQUAL = _NUMBERS | {Kind.TIME}, frozenset({Kind.NUMBER, Kind.TIME, Kind.TEXT})

_KERNELS = {
    "expect_column_to_exist": _Kernel(_exists, frozenset(Kind), {}),
    "expect_column_values_to_not_be_null": _Kernel(_not_null, _EQUAL | {Kind.OTHER}, _MOSTLY),
    "expect_column_values_to_be_null": _Kernel(_null, _EQUAL, _MOSTLY),
    "expect_column_values_to_be_between": _Kernel(_between, _ORDERED, _RANGE | _MOSTLY),
    "expect_column_values_to_be_in_set": _Kernel(_of_values(_in_set), _NUMBERS | _TEXTS, _SET),
    "expect_column_values_to_not_be_in_set": _Kernel(_of_values(_not(_in_set)), _NUMBERS | _TEXTS, _SET),
    "expect_column_values_to_match_regex": _Kernel(_of_values(_matches), _TEXTS, _REGEX),
    "expect_column_values_to_not_match_regex": _Kernel(_of_values(_not(_matches)), _TEXTS, _REGEX),
    "expect_column_value_lengths_to_be_between": _Kernel(_of_values(_length_within), _TEXTS, _COUNTS | _MOSTLY),
    "expect_column_values_to_be_unique": _Kernel(_of_values(_unique), _EQUAL, _MOSTLY),
    "expect_column_min_to_be_between": _Kernel(_of_order(np.min), _ORDERED, _RANGE),
    "expect_column_max_to_be_between": _Kernel(_of_order(np.max), _ORDERED, _RANGE),
    "expect_column_mean_to_be_between": _Kernel(_mean, _NUMBERS, _RANGE),
    "expect_column_median_to_be_between": _Kernel(_of_numbers(np.median), _NUMBERS, _RANGE),
    "expect_column_sum_to_be_between": _Kernel(_sum, _NUMBERS, _RANGE),
    "expect_column_unique_value_count_to_be_between": _Kernel(_distinct, _EQUAL, _COUNTS),
    "expect_column_pair_values_a_to_be_greater_than_b": _Kernel(
        _of_pairs(_greater), _ORDERED, {"or_equal": _is_bool, **_ROWS}
    ),
    "expect_column_pair_values_to_be_equal": _Kernel(_of_pairs(_equal), _EQUAL, _ROWS),
    "expect_compound_columns_to_be_unique": _Kernel(_compound_unique, _EQUAL, _ROWS),
    "expect_table_row_count_to_be_between": _Kernel(_row_count, _NONE, _COUNTS),
}
"""By type of expectation."""


# --- from a suite to kernels ---


class _Planned(NamedTuple):
    """An expectation as its kernel takes it."""

    kind: str  # its type
    severity: str
    kwargs: Kwargs  # bounds as `_bound_of` has them
    evaluate: Evaluate


class _Plan(NamedTuple):
    expectations: list[_Planned]
    unsupported: list[str]


@functools.lru_cache(64)
def _plan(suite: Suite, schema: pa.Schema) -> _Plan:
    plan = _Plan([], [])
    for expectation in json.loads(suite.expectations):
        kind, given = expectation["type"], expectation.get("kwargs", {})
        kwargs = {name: value for name, value in given.items() if value is not None}
        reasons = list(_reasons(kind, kwargs, schema))
        if reasons:
            plan.unsupported.append(f"{kind} ({', '.join(reasons)})")
        else:
            plan.expectations.append(_planned(kind, expectation.get("severity", "critical"), kwargs, schema))
    return plan


def _planned(kind: str, severity: str, kwargs: Kwargs, schema: pa.Schema) -> _Planned:
    missing = [name for name in columns_of(kwargs) if name not in schema.names]
    if missing:
        detail = f'Error: The column "{missing[0]}" in BatchData does not exist.'  # as GX says it
        found = _whole(False, "" if kind == "expect_column_to_exist" else detail)
        return _Planned(kind, severity, kwargs, lambda _sample, _kwargs: found)
    bounds = {name: _bound_of(kwargs[name]) for name in ("min_value", "max_value") if name in kwargs}
    return _Planned(kind, severity, {**kwargs, **bounds}, _KERNELS[kind].evaluate)


def _reasons(kind: str, kwargs: Kwargs, schema: pa.Schema) -> Iterator[str]:
    """Why there is no kernel: the type, or else the columns or arguments that none takes."""
    kernel = _KERNELS.get(kind)
    if kernel is None:
        yield "type"
        return
    columns = columns_of(kwargs)
    kinds = {kind_of(name, schema.field(name).type) for name in columns if name in schema.names}
    is_odd_pair = "column_A" in kwargs and (len(kinds) > 1 or len(set(columns)) < 2)
    if not kinds <= kernel.kinds or is_odd_pair:
        yield f"column {' and '.join(columns)}"
    about = next(iter(kinds), None)
    for name in sorted(kwargs.keys() - _NAMES):
        if name not in kernel.arguments or not kernel.arguments[name](kwargs[name], about):
            yield name
