"""The closing state of a day: what the indicators remember of every symbol after all bars of the day.

It goes by symbol, not by partition: the log that goes on from there may be partitioned in another way.  A symbol that
a partition meets for the first time takes its history from here, so that a fresh job's indicators are right from the
first tick.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.indicators import History

__all__ = ["DAY_MS", "NEVER", "NOTHING", "ClosingState", "midnight_of", "no_prior"]

DAY_MS = 86_400_000
NEVER = np.iinfo(np.int64).min // 4  # before any time, with room to subtract from
_VERSION = 1


def midnight_of(day: datetime.date) -> int:
    """When a day begins, ms UTC."""
    return (day - datetime.date(1970, 1, 1)).days * DAY_MS


@dataclass(frozen=True)
class ClosingState:
    """The histories of all symbols that ever traded.

    Attributes:
      until: all bars that end here or earlier are in it, and no others, ms.
      symbols: row of each symbol.
      history: what the indicators remember of each row.
    """

    until: int
    symbols: dict[str, int]
    history: History

    def history_of(self, symbols: Sequence[str]) -> History:
        """A copy of the histories of `symbols`, empty where there is none."""
        rows = np.array([self.symbols.get(symbol, -1) for symbol in symbols], np.int64)
        known = np.flatnonzero(rows >= 0)
        history = History.empty(len(symbols))
        history.put(known, self.history.take(rows[known]))
        return history

    def followed_by(self, until: int, parts: Iterable[tuple[Sequence[str], History]]) -> "ClosingState":
        """The closing state of the next day, whose partitions end it with `parts`; symbols that rested stay.

        Rows are in the order of the symbols, so that equal states are equal bytes.

        Raises:
          ValueError: if a symbol is in two partitions.
        """
        names = list(self.symbols)
        history = self.history
        seen: set[str] = set()
        for symbols, ended in parts:
            if twice := seen.intersection(symbols):
                raise ValueError(f"symbol {min(twice)} is in two partitions, so it has two histories")
            seen.update(symbols)
            names += symbols
            history = history.joined(ended)
        row_of = {symbol: row for row, symbol in enumerate(names)}  # of a symbol that is in both, the later
        ordered = sorted(row_of)
        rows = np.array([row_of[symbol] for symbol in ordered], np.int64)
        return ClosingState(until, {symbol: row for row, symbol in enumerate(ordered)}, history.take(rows))

    def to_batch(self, bar_ms: int) -> pa.RecordBatch:
        """A row a symbol; the metadata say of which version it is, of what bars, and until when."""
        columns = {"symbol": pa.array(list(self.symbols), pa.string())} | self.history.to_columns()
        marks = {"version": _VERSION, "bar_seconds": bar_ms // 1000, "until": self.until}
        return pa.record_batch(columns).replace_schema_metadata({name: str(mark) for name, mark in marks.items()})

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, bar_ms: int) -> "ClosingState":
        """What `to_batch` wrote.

        Raises:
          UsageError: if a newer version wrote it, or for bars of another length.
        """
        marks = {name.decode(): mark.decode() for name, mark in (batch.schema.metadata or {}).items()}
        if int(marks["version"]) > _VERSION:
            raise UsageError(
                f"the closing state has version {marks['version']}, this release reads up to {_VERSION}: "
                "use a newer release, or another day's state"
            )
        if int(marks["bar_seconds"]) * 1000 != bar_ms:
            raise UsageError(
                f"the closing state is of bars of {marks['bar_seconds']} s, --bar_seconds asks for {bar_ms // 1000}: "
                "correct one of them"
            )
        names = batch["symbol"].to_pylist()
        rows = {symbol: row for row, symbol in enumerate(names)}
        return cls(int(marks["until"]), rows, History.from_columns(batch))


NOTHING = ClosingState(NEVER, {}, History.empty(0))
"""Before the first day."""


def no_prior() -> ClosingState:
    """NOTHING, for those who are told how to get what they begin with."""
    return NOTHING
