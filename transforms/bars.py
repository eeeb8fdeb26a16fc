"""Bars as mergeable aggregates: one window of time, a column a symbol.

Open and close are the prices of the lowest and highest (timestamp, seq, offset), high and low are extremes, volume and
count are integers, and turnover is a left fold in offset order; so a bar depends on the log alone, not on how its ticks
were batched, and ticks may come in any order of event time.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["CLOSING", "HIGH_LOW", "VOLUME", "Prints", "WindowBars", "by_symbol"]

HIGH_LOW, CLOSING, VOLUME = 1, 2, 4  # what a print may change: the bits of `updates`

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LAST, _FIRST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def by_symbol(symbol: Ints) -> NDArray[np.intp]:
    """Rows grouped by symbol, of one symbol in their order; shape [ticks]."""
    few = len(symbol) and symbol.max() < 2**16
    # numpy sorts 16 bits by radix, ten times faster than it compares 64
    return np.argsort(symbol.astype(np.uint16) if few else symbol, kind="stable")


@dataclass
class Prints:
    """Ticks as arrays, in offset order, each of shape [ticks]."""

    symbol: Ints  # column of the symbol
    timestamp: Ints  # ms
    seq: Ints
    price: Floats
    volume: Ints
    updates: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.symbol)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Prints":
        """Some of the ticks, in the order of `rows`."""
        return Prints(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass
class WindowBars:
    """The bars of one window, each field of shape [symbols]; a symbol without a tick has `count` 0."""

    count: Ints
    volume: Ints
    turnover: Floats  # sum of price * volume
    high: Floats  # -inf before the first print that sets it
    low: Floats  # +inf before the first print that sets it
    open: Floats
    open_time: Ints
    open_seq: Ints
    close: Floats
    close_time: Ints
    close_seq: Ints
    revision: Ints

    @classmethod
    def empty(cls, symbols: int) -> "WindowBars":
        """A window in which nothing traded yet."""
        blank: dict[str, Any] = {
            "high": np.full(symbols, -np.inf),
            "low": np.full(symbols, np.inf),
            "open_time": np.full(symbols, _LAST),
            "open_seq": np.full(symbols, _LAST),
            "close_time": np.full(symbols, _FIRST),
            "close_seq": np.full(symbols, _FIRST),
        } | {name: np.full(symbols, np.nan) for name in ("open", "close")}
        zeros: dict[str, Any] = {name: np.zeros(symbols, np.int64) for name in ("count", "volume", "revision")}
        return cls(**blank, **zeros, turnover=np.zeros(symbols))

    def __len__(self) -> int:
        return len(self.count)

    def grow(self, symbols: int) -> "WindowBars":
        """The same with empty columns added up to `symbols`."""
        if symbols == len(self):
            return self
        more = WindowBars.empty(symbols - len(self))
        return WindowBars(
            **{name: np.concatenate([values, getattr(more, name)]) for name, values in vars(self).items()}
        )

    def take(self, columns: Ints) -> "WindowBars":
        """A copy of some columns."""
        return WindowBars(**{name: values[columns] for name, values in vars(self).items()})

    def add(self, prints: Prints) -> None:
        """Adds ticks that come after all earlier ones in the log.  O(ticks), no loop over them."""
        self.count += np.bincount(prints.symbol, minlength=len(self))
        sized = _those(prints, VOLUME)
        np.add.at(self.volume, sized.symbol, sized.volume)
        np.add.at(self.turnover, sized.symbol, sized.price * sized.volume)
        ranged = _those(prints, HIGH_LOW)
        np.maximum.at(self.high, ranged.symbol, ranged.price)
        np.minimum.at(self.low, ranged.symbol, ranged.price)
        self._add_ends(_those(prints, CLOSING))

    def _add_ends(self, prints: Prints) -> None:
        if not len(prints):
            return
        first = _extreme(prints, np.minimum, len(self))
        symbol, time, seq = prints.symbol[first], prints.timestamp[first], prints.seq[first]
        known_time, known_seq = self.open_time[symbol], self.open_seq[symbol]
        wins = first[(time < known_time) | ((time == known_time) & (seq < known_seq))]
        self._set("open", prints, wins)
        last = _extreme(prints, np.maximum, len(self))
        symbol, time, seq = prints.symbol[last], prints.timestamp[last], prints.seq[last]
        known_time, known_seq = self.close_time[symbol], self.close_seq[symbol]
        wins = last[(time > known_time) | ((time == known_time) & (seq >= known_seq))]
        self._set("close", prints, wins)

    def _set(self, end: str, prints: Prints, rows: NDArray[np.intp]) -> None:
        symbol = prints.symbol[rows]
        getattr(self, end)[symbol] = prints.price[rows]
        getattr(self, f"{end}_time")[symbol] = prints.timestamp[rows]
        getattr(self, f"{end}_seq")[symbol] = prints.seq[rows]

    @property
    def priced(self) -> NDArray[np.bool_]:
        """Whether a print set open and close; a bar without one has no prices and does not count for indicators."""
        return self.close_time != _FIRST

    def prices(self) -> dict[str, Floats]:
        """Open, high, low, close and vwap; NaN where the bar has none."""
        priced, ranged = self.priced, self.high >= self.low
        return {
            "open": self.open,
            "high": np.where(priced, np.where(ranged, self.high, np.fmax(self.open, self.close)), np.nan),
            "low": np.where(priced, np.where(ranged, self.low, np.fmin(self.open, self.close)), np.nan),
            "close": self.close,
            "vwap": np.where(self.volume > 0, self.turnover / np.maximum(self.volume, 1), np.nan),
        }

    def to_columns(self) -> dict[str, pa.Array]:
        """Arrow columns, one row a symbol that traded; `symbol` is its column."""
        traded = np.flatnonzero(self.count)
        return {"symbol": pa.array(traded)} | {name: pa.array(values[traded]) for name, values in vars(self).items()}

    @classmethod
    def from_columns(cls, batch: pa.RecordBatch, symbols: int) -> "WindowBars":
        """What `to_columns` wrote."""
        bars = cls.empty(symbols)
        traded = batch["symbol"].to_numpy()
        for field in fields(cls):
            getattr(bars, field.name)[traded] = batch[field.name].to_numpy()
        return bars


def _those(prints: Prints, bit: int) -> Prints:
    """The ticks that may change what `bit` stands for."""
    may = (prints.updates & bit) != 0
    return prints if may.all() else prints.take(may)


def _extreme(prints: Prints, better: np.ufunc, symbols: int) -> NDArray[np.intp]:
    """Row of the lowest (np.minimum) or highest (np.maximum) (timestamp, seq, offset) of each symbol present."""
    worst = _LAST if better is np.minimum else _FIRST
    rows: NDArray[np.intp] = np.arange(len(prints))
    for key in (prints.timestamp, prints.seq):
        best = np.full(symbols, worst)
        better.at(best, prints.symbol[rows], key[rows])
        rows = rows[key[rows] == best[prints.symbol[rows]]]
    if better is np.minimum:
        rows = rows[::-1]
    winner = np.full(symbols, -1)
    winner[prints.symbol[rows]] = rows  # of equal ones the assignment keeps the last
    return winner[winner >= 0]
