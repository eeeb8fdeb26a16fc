"""Symbols that are silent while their exchange is open."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.completeness.checks import EXAMPLES, MINUTE_MS, Check, some
from beam_pipelines.transforms.completeness.names import FORGET_MINUTES, Names
from beam_pipelines.transforms.sessions import Calendars, session_ms

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SILENT_MS = 300_000
"""No symbol is silent before, however often it trades: halts for volatility take five minutes."""
SILENT_GAPS = 20.0
"""Times its usual gap: of gaps that are as random as they can be, one in 500 million is so long."""
_EXPECTED_MINUTES = 30  # in which a symbol came, before it is expected
_GAP_MEMORY = 64


class Silence:
    """Symbols that were seen at a usual rate and are not any more, while their exchange is open.

    A symbol's usual gap is a running mean over the minutes in which it came: the minute by its ticks, or the time of
    the sessions since it came before.  Told once when it becomes silent, and once when it is back.
    """

    _COLUMNS = ("gap", "samples", "told")

    def __init__(self, calendars: Calendars) -> None:
        self._calendars = calendars
        self._names: list[str] = []  # calendars in use
        self._calendar: Ints = np.empty(0, np.int64)  # of each symbol, -1: none
        self._gap: Floats = np.empty(0)  # usual one, ms
        self._samples: Ints = np.empty(0, np.int64)
        self._told: Mask = np.empty(0, np.bool_)

    def close(self, minute: int, symbols: Names) -> Check:
        """Judges and learns a minute, before `symbols` end it."""
        self._grow(symbols)
        start = minute * MINUTE_MS
        came, since = symbols.here > 0, _after(symbols.last, start)
        quiet = self._session_ms(since, np.where(came, start, start + MINUTE_MS))
        over = self._is_over(quiet)
        became, back = np.flatnonzero(over & ~self._told), np.flatnonzero(came & (self._told | over))
        told = (self._told | over) & ~came
        check = self._check(minute, symbols, became, back, quiet, int(told.sum()))
        self._told = told
        self._learn(np.flatnonzero(came & (symbols.last >= 0)), start, quiet, symbols.here)
        return check

    def at(self, minute: int, open_minute: int, symbols: Names) -> Check:
        """What closing `minute` would tell, without a record since `open_minute`; changes nothing."""
        known = len(self._gap)  # others came for the first time just now, so they are not expected
        last = np.where(symbols.here > 0, open_minute, symbols.last)[:known]
        end = np.full(known, (minute + 1) * MINUTE_MS)
        since = _after(last, int(end[0]) if known else 0)
        quiet = self._session_ms(since, end)
        before = self._session_ms(since, end - MINUTE_MS)
        came = symbols.here[:known] > 0
        over = self._is_over(quiet) & ~self._is_over(before) & (came | ~self._told)
        silent = int((self._is_over(quiet) | (self._told & ~came)).sum())
        return self._check(minute, symbols, np.flatnonzero(over), np.empty(0, np.int64), quiet, silent)

    def _limit(self) -> Floats:
        """From when on a symbol is silent, ms."""
        return np.maximum(SILENT_MS, SILENT_GAPS * self._gap)

    def _is_over(self, quiet: Ints) -> Mask:
        over: Mask = (quiet >= self._limit()) & (self._samples >= _EXPECTED_MINUTES)
        return over

    def _learn(self, rows: Ints, start: int, quiet: Ints, here: Ints) -> None:
        """Lets the usual gaps take in a minute of sessions; a long gap counts as silence does, no more."""
        bounds = (np.full(len(self._gap), at) for at in (start, start + MINUTE_MS))
        rows = rows[self._session_ms(*bounds)[rows] > 0]
        gap = np.where(quiet[rows] > 0, quiet[rows], MINUTE_MS / here[rows])
        expected = self._samples[rows] >= _EXPECTED_MINUTES
        gap = np.where(expected, np.minimum(gap, self._limit()[rows]), gap)
        self._samples[rows] += 1
        self._gap[rows] += (gap - self._gap[rows]) / np.minimum(self._samples[rows], _GAP_MEMORY)

    def _session_ms(self, since: Ints, until: Ints) -> Ints:
        """Time of each symbol's sessions between two moments, of the last days before `until`, ms."""
        since = np.maximum(since, until - FORGET_MINUTES * MINUTE_MS)
        total = np.zeros(len(since), np.int64)
        for at, calendar in enumerate(self._names):
            rows = np.flatnonzero((self._calendar == at) & (since < until))
            total[rows] = session_ms(calendar, since[rows], until[rows])
        return total

    def _check(self, minute: int, symbols: Names, became: Ints, back: Ints, quiet: Ints, silent: int) -> Check:
        told = []
        if len(became):
            words = [self._words(symbols, row, quiet) for row in became[:EXAMPLES].tolist()]
            told.append(f"{len(became)} became silent: {some(words, len(became))}")
        if len(back):
            words = [symbols.word(row) for row in back[:EXAMPLES].tolist()]
            told.append(f"{len(back)} came back: {some(words, len(back))}")
        told.append(f"{silent} of {len(symbols)} symbols are silent")
        return Check(minute * MINUTE_MS, "silent_symbols", not len(became), float(len(became)), 0.0, "; ".join(told))

    def _words(self, symbols: Names, row: int, quiet: Ints) -> str:
        return f"{symbols.word(row)} ({quiet[row] / 1000:.0f} s of its sessions, usually {self._gap[row] / 1000:.1f} s)"

    def _grow(self, symbols: Names) -> None:
        more = len(symbols) - len(self._gap)
        if more > 0:
            self._gap, self._samples = np.append(self._gap, np.zeros(more)), np.append(self._samples, [0] * more)
            self._told = np.append(self._told, np.zeros(more, bool))
            self._calendar = np.append(self._calendar, list(map(self._calendar_of, symbols.words()[-more:])))

    def _calendar_of(self, symbol: str) -> int:
        calendar = self._calendars.of(symbol)
        if calendar is None:
            return -1
        if calendar not in self._names:
            self._names.append(calendar)
        return self._names.index(calendar)

    def keep(self, symbols: Ints) -> None:
        """Keeps these columns only."""
        for name in (*self._COLUMNS, "calendar"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[symbols])

    def to_columns(self, symbols: int) -> dict[str, pa.Array]:
        """As Arrow columns; symbols of the open minute have nothing yet."""
        columns = {name: getattr(self, f"_{name}") for name in self._COLUMNS}
        return {
            name: pa.concat_arrays([pa.array(values), pa.nulls(symbols - len(values), pa.array(values).type)])
            for name, values in columns.items()
        }

    def restore(self, symbols: pa.RecordBatch) -> None:
        """Takes what `to_columns` gave."""
        known = len(symbols) - symbols["gap"].null_count
        self._gap, self._samples, self._told = (
            symbols[name].slice(0, known).to_numpy(zero_copy_only=False).copy() for name in self._COLUMNS
        )
        words = to_list(symbols["word"])[:known]
        self._calendar = np.array(list(map(self._calendar_of, words)), np.int64)


def _after(last: Ints, start: int) -> Ints:
    """The end of the minutes `last`, ms; `start` where there is none."""
    return np.where(last >= 0, (last + 1) * MINUTE_MS, start)
