"""What a suite of expectations says of a sample of records: a score and what failed, as plain data.

Of each expectation counts the share of values that are as expected, `1 - unexpected / looked at`, where values are
counted (nulls are not looked at, except by expectations about nulls), and else 1 or 0: as expected or not.  What cannot
be evaluated counts 0, a column that is missing say.  The score is the mean over all expectations, so 1 only if no value
was unexpected.  An expectation with `mostly` may hold and count less than 1.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["EXAMPLES", "Failure", "Outcome", "Quality", "Window", "columns_of", "plain", "quality_of", "require_rows"]

EXAMPLES = 5
"""Unexpected values that are kept of an expectation, the first ones by row."""

_LONGEST = 200  # characters of a text that is an example or a message


class Window(NamedTuple):
    """The time that the checked records are of: [start, end), ms since 1970 UTC, a function of the log."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Failure:
    """An expectation that does not hold; plain data, as the whole of `Quality`."""

    expectation: str  # its type
    column: str | None  # several are joined by commas; None: the table
    severity: str  # critical, warning or info
    unexpected: int | None  # values; None: it is not about single values, or could not be evaluated
    share: float  # of the values looked at that are unexpected; 1 where values are not counted
    examples: list[Any]  # the first unexpected values; times in ISO 8601
    detail: str  # what was observed, or why it could not be evaluated


@dataclasses.dataclass(frozen=True)
class Quality:
    """The outcome of a suite on a sample of records of a window."""

    dataset: str
    suite: str
    window_start: int  # ms UTC
    window_end: int
    rows: int
    score: float  # 0 to 1
    expectations: int
    failures: list[Failure]  # in the order of the suite


class Outcome(NamedTuple):
    """Of one expectation: what it takes from the score, and what failed if it does not hold."""

    share: float  # 0 to 1
    failure: Failure | None


def require_rows(suite: Suite, rows: pa.RecordBatch | pa.Table) -> None:
    """Raises ValueError if there are no rows, of which nothing can be said."""
    if not len(rows):
        raise ValueError(f"there are no rows of {suite.dataset} to check; leave the window out")


def quality_of(suite: Suite, window: Window, rows: int, outcomes: Sequence[Outcome]) -> Quality:
    """The whole from the outcomes of the expectations, in the order of the suite."""
    score = math.fsum(1.0 - it.share for it in outcomes) / len(outcomes)
    failures = [it.failure for it in outcomes if it.failure]
    return Quality(suite.dataset, suite.name, *window, rows, score, len(outcomes), failures)


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns that an expectation is about, by its arguments."""
    named = [kwargs.get("column"), kwargs.get("column_A"), kwargs.get("column_B"), *kwargs.get("column_list", ())]
    return [it for it in named if it]


def plain(value: Any) -> Any:
    """As JSON has it: NaN is null, times are ISO 8601, and long texts are cut."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
