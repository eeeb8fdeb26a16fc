"""What is expected of a dataset: suites in the form of Great Expectations, packaged or a user's.

A suite is a JSON file, named after its dataset: `{"name": ..., "expectations": [{"type": ..., "kwargs": {...}}]}`.
An expectation may also have `severity`, `meta`, `notes` and `description`, the suite `meta`.  The types and their
arguments are those of https://greatexpectations.io/expectations.  What depends on time is a function of the log: in
place of an argument may stand `{"$PARAMETER": "window_end + timedelta(hours=1)"}`, an expression of PARAMETERS.
"""

import datetime
import functools
import json
import pathlib
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.timestamps import iso_ms

# great_expectations is imported where it is used: that takes seconds and 250 MB, which no job without it should pay.

__all__ = [
    "GX",
    "PACKAGED",
    "PARAMETERS",
    "TIME_COLUMNS",
    "Suite",
    "checked_suite",
    "expectations_of",
    "moment",
    "parameters_of",
    "read_suites",
]

PARAMETERS = ("window_start", "window_end")
"""What a suite may refer to: bounds of the time that the checked records are of."""

TIME_COLUMNS = frozenset({"timestamp", "published_at", "time", "log_time", "processed_at"})
"""Columns of whole numbers that are points in time, ms since 1970 UTC."""

GX = threading.RLock()
"""Held by whoever uses Great Expectations: its parser of parameters is one for the process and keeps a stack."""

PACKAGED = pathlib.Path(__file__).with_name("data") / "quality"
"""Where the suites of this package are, and the frame of their pages."""

_FORM = '{"name": "...", "expectations": [{"type": "expect_...", "kwargs": {...}}]}'
_TOP = frozenset({"name", "expectations", "meta", "notes", "id", "suite_parameters"})
_PARTS = frozenset({"type", "kwargs", "severity", "meta", "notes", "description", "id"})
_BOUNDS = ("min_value", "max_value")
_OF_VALUES = frozenset(  # whose bounds are compared with the column's values, and not with a count
    f"expect_column_{what}_to_be_between" for what in ("values", "min", "max", "median", "mean")
)
_UNITS = ("timedelta", "weeks", "days", "hours", "minutes", "seconds")  # not now(): the log does not know it


class Suite(NamedTuple):
    """The expectations of a dataset.  Plain text, so that it can be sent to workers, compared and be a key."""

    dataset: str
    name: str
    expectations: str  # a JSON list


def read_suites(folder: pathlib.Path | None = None) -> dict[str, Suite]:
    """The suites by dataset: the packaged ones, replaced and added to by the files `DATASET.json` of `folder`.

    To be called before a job starts.  Great Expectations, whose import takes seconds, checks every argument in the
    user's files; those of the package the tests have checked.

    Raises:
      UsageError: the folder holds no suites, or a file is none; names file, expectation, argument and value.
    """
    suites = {path.stem: _packaged(path) for path in sorted(PACKAGED.glob("*.json"))}
    if folder is not None:
        files = sorted(folder.glob("*.json"))
        if not files:
            raise UsageError(
                f"--quality_suites: the folder {folder} has no file DATASET.json, such as market.json; "
                "give a folder of suites, or leave the flag off."
            )
        suites |= {path.stem: checked_suite(path) for path in files}
    return suites


def parameters_of(start_ms: int, end_ms: int) -> dict[str, datetime.datetime]:
    """The values of PARAMETERS for records of [start_ms, end_ms), ms since 1970 UTC."""
    return dict(zip(PARAMETERS, map(moment, (start_ms, end_ms)), strict=True))


def moment(ms: int) -> datetime.datetime:
    """A point in time, ms since 1970 UTC, with its time zone."""
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(milliseconds=ms)


@functools.lru_cache(64)
def expectations_of(suite: Suite) -> Any:
    """The `great_expectations.ExpectationSuite`; each expectation's id is its place.  Only while `GX` is held."""
    import great_expectations as gx

    listed = json.loads(suite.expectations)
    numbered = [{**it, "kwargs": _timed(it["kwargs"]), "id": str(place)} for place, it in enumerate(listed)]
    return gx.ExpectationSuite(suite.name, expectations=numbered)


def _timed(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with bounds of times as points in time: of "2020-01-01" GX makes a date, which compares to none."""
    if not _is_of_times(kwargs):
        return dict(kwargs)
    moments = {key: iso_ms(kwargs[key]) for key in _BOUNDS if isinstance(kwargs.get(key), str)}
    return {**kwargs, **{key: moment(ms) for key, ms in moments.items() if ms is not None}}


def _is_of_times(kwargs: Mapping[str, Any]) -> bool:
    column = kwargs.get("column")
    return isinstance(column, str) and column in TIME_COLUMNS


# --- reading and checking a file ---


def _packaged(path: pathlib.Path) -> Suite:
    suite = json.loads(path.read_text(encoding="utf-8"))
    return Suite(path.stem, suite["name"], json.dumps(suite["expectations"]))


def checked_suite(path: pathlib.Path) -> Suite:
    """The suite of a file, of which every argument was checked.

    Raises:
      UsageError: it is none; names file, expectation, argument and value.
    """
    try:
        suite = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(f"The quality suite {path} cannot be read as UTF-8 text ({failed}); mend the file.") from None
    except (json.JSONDecodeError, RecursionError) as failed:
        raise UsageError(f"The quality suite {path} is not JSON ({failed}); give {_FORM}.") from None
    _check_parts(suite, _TOP, str(path))
    name, listed = suite.get("name"), suite.get("expectations")
    if not (isinstance(name, str) and name.strip()):
        raise UsageError(f"{path}: name must be a text that is not empty, was {_short(name)}; give {_FORM}.")
    if not (isinstance(listed, list) and listed):
        raise UsageError(f"{path}: expectations must be a list that is not empty, was {_short(listed)}; give {_FORM}.")
    with GX:
        for number, expectation in enumerate(listed, 1):
            _check(expectation, f"{path}, expectation {number}")
    return Suite(path.stem, name, json.dumps(listed))


def _check(expectation: Any, place: str) -> None:
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    _check_parts(expectation, _PARTS, place)
    kind, kwargs = expectation.get("type"), expectation.get("kwargs", {})
    if not isinstance(kind, str):
        raise UsageError(f"{place}: type must be a text such as expect_column_to_exist, was {_short(kind)}; mend it.")
    place = f"{place} ({kind})"
    if not isinstance(kwargs, dict):
        raise UsageError(f"{place}: kwargs must be an object of arguments, was {_short(kwargs)}; mend it.")
    try:
        model = get_expectation_impl(kind)
    except ExpectationNotFoundError:
        raise UsageError(f"{place}: no expectation has this type{_alike(kind)}.") from None
    _check_times(kind, kwargs, place)
    _check_kwargs(model, expectation, kwargs, place)
    for pattern in _patterns(kwargs):
        _check_regex(pattern, place)


def _check_parts(part: Any, known: frozenset[str], place: str) -> None:
    if not isinstance(part, dict):
        raise UsageError(f"{place}: must be an object, was {_short(part)}; give {_FORM}.")
    unknown = sorted(part.keys() - known)
    if unknown:
        raise UsageError(f"{place}: {unknown[0]} is unknown; there may be {', '.join(sorted(known))}.")


def _check_kwargs(model: Any, expectation: dict[str, Any], kwargs: dict[str, Any], place: str) -> None:
    """Whether the expectation's pydantic model takes the arguments; its first complaint in one sentence."""
    from great_expectations.compatibility.pydantic import ValidationError
    from great_expectations.expectations.expectation import Expectation

    base = (*Expectation.__fields__, "batch_id")
    own = {field.alias for name, field in model.__fields__.items() if name not in base}
    takes = f"it takes {', '.join(sorted(own))}"
    unknown = sorted(kwargs.keys() - own)
    if unknown:
        raise UsageError(f"{place}: {unknown[0]} is none of its kwargs; {takes}.")
    beside = {key: value for key, value in expectation.items() if key not in ("type", "kwargs", "id")}
    try:
        model(**_timed(kwargs), **beside)
    except ValidationError as failed:
        field = str(failed.errors()[0]["loc"][0])
        about = [error for error in failed.errors() if error["loc"][0] == field]
        raise UsageError(f"{place}: {_complaint(field, about, {**beside, **kwargs})}; {takes}.") from None


def _complaint(field: str, errors: list[Any], given: Mapping[str, Any]) -> str:
    if field == "__root__":
        return errors[0]["msg"]
    if errors[0]["type"] == "value_error.missing":
        return f"{field} is missing"
    reasons = dict.fromkeys(error["msg"] for error in errors if error["type"] != "type_error.dict")  # or a $PARAMETER
    return f"{field} was {_short(given.get(field))}: {', or '.join(reasons) or errors[0]['msg']}"


def _check_times(kind: str, kwargs: Mapping[str, Any], place: str) -> None:
    for key, value in kwargs.items():
        if isinstance(value, dict) and "$PARAMETER" in value:
            _check_parameter(value["$PARAMETER"], f"{place}: {key}")
        elif key in _BOUNDS and _is_of_times(kwargs) and kind in _OF_VALUES:
            _check_moment(value, f"{place}: {key}")


def _check_parameter(expression: Any, place: str) -> None:
    from great_expectations.core.suite_parameters import parse_suite_parameter
    from great_expectations.exceptions.exceptions import SuiteParameterError

    known = f"give one of {', '.join(PARAMETERS)}, plus or minus timedelta(hours=1) or the like"
    if not isinstance(expression, str):
        raise UsageError(f"{place}: $PARAMETER must be a text, was {_short(expression)}; {known}.")
    unknown = [word for word in re.findall(r"[A-Za-z_]\w*", expression) if word not in (*PARAMETERS, *_UNITS)]
    if unknown:
        raise UsageError(f"{place}: $PARAMETER was {expression!r}, but {unknown[0]} is unknown; {known}.")
    try:
        parse_suite_parameter(expression, parameters_of(0, 0))
    except (SuiteParameterError, TypeError, ValueError):  # which one depends on where the expression is wrong
        raise UsageError(f"{place}: $PARAMETER {expression!r} cannot be evaluated; {known}.") from None


def _check_moment(bound: Any, place: str) -> None:
    if bound is not None and not (isinstance(bound, str) and iso_ms(bound) is not None):
        raise UsageError(
            f"{place} was {_short(bound)}; give a time in ISO 8601, such as 2020-01-01 or 2020-01-01T09:30Z."
        )


def _patterns(kwargs: Mapping[str, Any]) -> Iterator[str]:
    several = kwargs.get("regex_list")
    for pattern in [kwargs.get("regex"), *(several if isinstance(several, list) else [])]:
        if isinstance(pattern, str):
            yield pattern


def _check_regex(pattern: str, place: str) -> None:
    """A pattern must suit pandas, whose columns of texts have Arrow's syntax where that has the construct."""
    import pandas as pd

    try:
        pd.Series(["A"], dtype="str").str.match(pattern)
    except (ValueError, re.error) as failed:
        raise UsageError(f"{place}: {pattern!r} is no regular expression ({failed}); mend it.") from None


def _alike(kind: str) -> str:
    import difflib

    from great_expectations.expectations.registry import list_registered_expectation_implementations

    near = difflib.get_close_matches(kind, list_registered_expectation_implementations(), 1)
    return f"; did you mean {near[0]}" if near else "; see https://greatexpectations.io/expectations"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
