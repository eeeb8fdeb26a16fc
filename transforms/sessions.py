"""Exchange calendars: by which one a symbol trades, and how much time of its sessions lies between two moments.

Sessions, holidays, half days, lunch breaks and changes of the clocks are those of exchange_calendars,
https://github.com/gerrymanoim/exchange_calendars.  pandas_market_calendars takes most of its own from there, so it
would come on top.  The library brings pandas, and a third of a second at the first use: it is imported only then, and
never for what trades around the clock.
"""

import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_pipelines.errors import UsageError

__all__ = ["ALWAYS", "DEFAULT", "Calendars", "parse_calendars", "session_ms"]

Ints = NDArray[np.int64]

ALWAYS = "24/7"
"""The calendar of what trades around the clock."""

_YEARS = (1970, 2200)  # for others there are no rules, and pandas ends in 2262
_SHARES = r"[A-Z]{1,5}(\.[A-Z])?"
_COINS = r"[A-Z0-9]{2,12}[-/](USD[CT]?|EUR|GBP|BTC|ETH)|[A-Z0-9]{2,12}USD[CT]"


class Calendars(NamedTuple):
    """Which calendar a symbol trades by: that of the first pattern that its whole name matches."""

    rules: tuple[tuple[re.Pattern[str], str], ...]

    def of(self, symbol: str) -> str | None:
        """The name of the calendar; None: none is known, so nobody can say when the symbol ought to trade."""
        return next((calendar for pattern, calendar in self.rules if pattern.fullmatch(symbol)), None)


DEFAULT = Calendars(((re.compile(_SHARES), "XNYS"), (re.compile(_COINS), ALWAYS)))
"""Shares of the United States and pairs of crypto currencies."""


def parse_calendars(texts: Sequence[str]) -> Calendars:
    """The rules PATTERN=CALENDAR of `--calendars`, before those of DEFAULT.

    Args:
      texts: PATTERN is a regular expression for whole symbols, CALENDAR a name that exchange_calendars knows: most
        are the exchange's ISO 10383 code, and "24/7" is around the clock.

    Raises:
      UsageError: if one is no such rule, or there is no such calendar.
    """
    return Calendars((*map(_rule, texts), *DEFAULT.rules))


def _rule(text: str) -> tuple[re.Pattern[str], str]:
    pattern, equals, calendar = text.rpartition("=")
    if not (pattern and equals and calendar):
        raise UsageError(f"--calendars takes PATTERN=CALENDAR, such as '.*\\.L=XLON', not {text!r}")
    if calendar != ALWAYS and calendar not in _library().get_calendar_names():
        raise UsageError(
            f"--calendars has the calendar {calendar!r} in {text!r}, which does not exist: take the exchange's "
            "ISO 10383 code, such as XNYS or XLON, or 24/7"
        )
    try:
        return re.compile(pattern), calendar
    except re.error as wrong:
        raise UsageError(f"--calendars has the pattern {pattern!r}, which is no regular expression: {wrong}") from wrong


def session_ms(calendar: str, since: Ints, until: Ints) -> Ints:
    """Time of the calendar's sessions in [since, until), ms; 0 where `until` is not later.

    Years of which the calendar knows nothing have no sessions.  The tables of all years between the earliest `since`
    and the latest `until` are made, so keep them near to each other.

    Args:
      calendar: its name.
      since: ms UTC, any shape.
      until: ms UTC, of the same shape.
    """
    if calendar == ALWAYS or not since.size:
        return np.maximum(until - since, 0)
    years = [_year(int(since.min())), _year(int(until.max()))]
    low, high = np.clip(years, *_YEARS).tolist()
    opens, closes = _sessions(calendar, low, high)
    return np.maximum(_elapsed(opens, closes, until) - _elapsed(opens, closes, since), 0)


def _elapsed(opens: Ints, closes: Ints, times: Ints) -> Ints:
    """Time of sessions before each of `times`, ms."""
    if not len(opens):
        return np.zeros_like(times)
    before = np.concatenate([[0], np.cumsum(closes - opens)])
    session = np.searchsorted(opens, times, side="right")
    unfinished = np.maximum(closes[session - 1] - times, 0)  # of the last session that has begun
    elapsed: Ints = np.where(session > 0, before[session] - unfinished, 0)
    return elapsed


def _year(ms: int) -> int:
    return int(np.datetime64(ms, "ms").astype("datetime64[Y]").astype(np.int64)) + 1970


@functools.lru_cache(maxsize=64)
def _sessions(calendar: str, first: int, last: int) -> tuple[Ints, Ints]:
    """Opens and closes of the years from `first` to `last`, ms UTC, ascending."""
    years = [_sessions_in(calendar, year) for year in range(first, last + 1)]
    opens, closes = zip(*years, strict=True)
    return np.concatenate(opens), np.concatenate(closes)


@functools.lru_cache(maxsize=256)
def _sessions_in(calendar: str, year: int) -> tuple[Ints, Ints]:
    """Opens and closes of the sessions dated in `year`; one with a lunch break counts as two."""
    try:
        # bounds of our own: the library's default ends a year after the day on which it runs
        table = _library().get_calendar(calendar, start=f"{year}-01-01", end=f"{year}-12-31")
    except ValueError:  # out of the years that its holidays are known for
        return np.empty(0, np.int64), np.empty(0, np.int64)
    breaks = table.break_starts.notna().to_numpy()
    opens = [table.opens, table.break_ends[breaks]]
    closes = [table.break_starts[breaks], table.closes]
    return np.sort(np.concatenate(list(map(_ms, opens)))), np.sort(np.concatenate(list(map(_ms, closes))))


def _ms(times: Any) -> Ints:
    """A pandas series of moments, in ms UTC."""
    return times.to_numpy("datetime64[ms]").astype(np.int64)


def _library() -> Any:
    try:
        return importlib.import_module("exchange_calendars")
    except ImportError as missing:
        raise UsageError(
            "exchange_calendars, which knows when exchanges are open, is not installed: "
            "pip install 'waardhaven-pipelines[calendars]'"
        ) from missing
