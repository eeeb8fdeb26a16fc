"""Technical indicators of many symbols at once, advanced one bar at a time.

Reference for every value, and for how long it is null, is TA-Lib.  What a symbol's indicators remember is a column of
`History`; a kernel takes and gives whole columns, so its cost is per bar and not per tick.  Every sum is a left fold
over a fixed number of values: results do not depend on how many symbols are computed together, nor on batching.

Sources: J. W. Wilder, New Concepts in Technical Trading Systems (1978), for RSI and ATR; TA-Lib's ta_RSI.c, ta_MACD.c,
ta_ATR.c, ta_BBANDS.c for seeding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["BAR_INDICATORS", "TICK_INDICATORS", "Forming", "History"]

TICK_INDICATORS = ("sma_20", "sma_50", "rsi", "bollinger_upper", "bollinger_lower")
BAR_INDICATORS = (*TICK_INDICATORS, "ema_12", "ema_26", "macd", "macd_signal", "atr_14")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KEEP = 50  # closes remembered: the longest window
_RSI, _ATR, _FAST, _SLOW, _SIGNAL = 14, 14, 12, 26, 9
_TINY = 1e-14  # TA_IS_ZERO in ta_utility.h
_SMOOTHED = ("gain", "loss", "ema_12", "ema_26", "macd_fast", "signal", "atr")


def _left_fold(rows: Iterable[Floats], width: int) -> Floats:
    """Sum of `rows` from the first to the last, each of shape [width]."""
    total: Floats = np.zeros(width)
    for row in rows:
        total = total + row
    return total


def _rsi(gain: Floats, loss: Floats) -> Floats:
    """100 * gain / (gain + loss), 0 where nothing moved, as TA-Lib has it."""
    moved = gain + loss
    still = np.abs(moved) < _TINY
    return np.where(still, 0.0, 100.0 * (gain / np.where(still, 1.0, moved)))


@dataclass
class Forming:
    """What the indicators of a forming close need of the closed bars before it; each field of shape [symbols].

    Made once per bar, so that the indicators of a tick cost a few gathers and multiplications.
    """

    count: Ints
    sum_19: Floats
    sum_49: Floats
    mean_19: Floats
    squares_19: Floats  # sum of squared deviations from mean_19
    last: Floats
    gain: Floats
    loss: Floats

    def put(self, columns: Ints, other: "Forming") -> None:
        """Replaces the symbols `columns` by those of `other`."""
        for name, values in vars(other).items():
            getattr(self, name)[columns] = values

    def indicators(self, symbols: Ints, price: Floats) -> Floats:
        """TICK_INDICATORS of forming closes.

        Args:
          symbols: column of each tick, shape [ticks].
          price: its price, shape [ticks].

        Returns:
          Shape [5, ticks], NaN where the closes do not reach yet.
        """
        count = self.count[symbols]
        out = np.empty((len(TICK_INDICATORS), len(price)))
        mean = (self.sum_19[symbols] + price) / 20.0
        out[0] = np.where(count >= 19, mean, np.nan)
        out[1] = np.where(count >= 49, (self.sum_49[symbols] + price) / 50.0, np.nan)
        out[2] = np.where(count >= _RSI, self._forming_rsi(symbols, price, count), np.nan)
        off = price - self.mean_19[symbols]
        band = 2.0 * np.sqrt((self.squares_19[symbols] + off * off * (19.0 / 20.0)) / 20.0)
        out[3] = out[0] + band
        out[4] = out[0] - band
        return out

    def _forming_rsi(self, symbols: Ints, price: Floats, count: Ints) -> Floats:
        change = price - self.last[symbols]
        seeding = count == _RSI  # the sums of the first 13 changes, not yet an average
        weight = np.where(seeding, 1.0, _RSI - 1.0)
        gain = (self.gain[symbols] * weight + np.maximum(change, 0.0)) / _RSI
        loss = (self.loss[symbols] * weight + np.maximum(-change, 0.0)) / _RSI
        return _rsi(gain, loss)


class History:
    """What the indicators remember of the closed bars of each symbol.

    Attributes:
      count: closed bars with a price, shape [symbols].
      closes: the last 50 closes, the newest in the last row, shape [50, symbols]; NaN where there are fewer.
      smoothed: running averages by name, shape [symbols] each; sums while they are seeded.
    """

    def __init__(self, count: Ints, closes: Floats, smoothed: dict[str, Floats]) -> None:
        self.count = count
        self.closes = closes
        self.smoothed = smoothed

    @classmethod
    def empty(cls, symbols: int) -> "History":
        """Of symbols that never traded."""
        return cls(
            np.zeros(symbols, np.int64),
            np.full((_KEEP, symbols), np.nan),
            {name: np.zeros(symbols) for name in _SMOOTHED},
        )

    def __len__(self) -> int:
        return len(self.count)

    def joined(self, more: "History") -> "History":
        """The symbols of both, those of `more` last."""
        return History(
            np.concatenate([self.count, more.count]),
            np.concatenate([self.closes, more.closes], axis=1),
            {name: np.concatenate([values, more.smoothed[name]]) for name, values in self.smoothed.items()},
        )

    def take(self, columns: Ints) -> "History":
        """A copy of some columns."""
        smoothed = {name: values[columns] for name, values in self.smoothed.items()}
        return History(self.count[columns], self.closes[:, columns], smoothed)

    def copy(self) -> "History":
        """A copy of all columns."""
        smoothed = {name: values.copy() for name, values in self.smoothed.items()}
        return History(self.count.copy(), self.closes.copy(), smoothed)

    def put(self, columns: Ints, other: "History") -> None:
        """Replaces the symbols `columns` by those of `other`."""
        self.count[columns] = other.count
        self.closes[:, columns] = other.closes
        for name, values in other.smoothed.items():
            self.smoothed[name][columns] = values

    def forming(self) -> Forming:
        """What the indicators of the next, forming close need."""
        width = len(self)
        known = np.nan_to_num(self.closes)  # NaN only where `count` makes the result null anyway
        sum_19 = _left_fold(known[-19:], width)
        mean_19 = sum_19 / 19.0
        squares_19 = _left_fold(((row - mean_19) ** 2 for row in known[-19:]), width)
        sum_49 = _left_fold(known[-49:], width)
        gain, loss = self.smoothed["gain"].copy(), self.smoothed["loss"].copy()
        return Forming(self.count.copy(), sum_19, sum_49, mean_19, squares_19, known[-1].copy(), gain, loss)

    def close(self, columns: Ints, high: Floats, low: Floats, close: Floats) -> Floats:
        """Closes one bar of each symbol in `columns` and remembers it.

        Args:
          columns: distinct symbols, shape [bars].
          high: highest price of each bar, shape [bars].
          low: lowest price.
          close: last price.

        Returns:
          BAR_INDICATORS of the bars, shape [10, bars], NaN where the closes do not reach yet.
        """
        forming = self.take(columns).forming().indicators(np.arange(len(columns)), close)
        return np.concatenate([forming, self.extend(columns, high, low, close)])

    def extend(self, columns: Ints, high: Floats, low: Floats, close: Floats) -> Floats:
        """As `close`, but gives only the BAR_INDICATORS that no tick has, shape [5, bars]."""
        after, shown = _extended(self.take(columns), high, low, close)
        self.put(columns, after)
        return shown

    def to_columns(self) -> dict[str, pa.Array]:
        """Arrow columns with one row a symbol."""
        closes = pa.FixedSizeListArray.from_arrays(pa.array(self.closes.T.ravel()), _KEEP)
        return {"count": pa.array(self.count), "closes": closes} | {
            name: pa.array(values) for name, values in self.smoothed.items()
        }

    @classmethod
    def from_columns(cls, batch: pa.RecordBatch) -> "History":
        """What `to_columns` wrote."""
        closes = batch["closes"].flatten().to_numpy().reshape(-1, _KEEP).T.copy()
        smoothed = {name: batch[name].to_numpy().copy() for name in _SMOOTHED}
        return cls(batch["count"].to_numpy().copy(), closes, smoothed)


def _extended(before: History, high: Floats, low: Floats, close: Floats) -> tuple[History, Floats]:
    """The history with one more bar in every column, and the last five of BAR_INDICATORS, shape [5, bars]."""
    count = before.count + 1
    closes = np.concatenate([before.closes[1:], close[None, :]])
    old, new = before.smoothed, {}
    last = np.where(before.count > 0, before.closes[-1], close)
    change = close - last
    new["gain"] = _wilder(old["gain"], np.maximum(change, 0.0), count, _RSI)
    new["loss"] = _wilder(old["loss"], np.maximum(-change, 0.0), count, _RSI)
    true_range = np.maximum(high, last) - np.minimum(low, last)
    new["atr"] = _wilder(old["atr"], np.where(count > 1, true_range, 0.0), count, _ATR)
    new["ema_12"] = _ema(old["ema_12"], closes, count, _FAST, _FAST)
    new["ema_26"] = _ema(old["ema_26"], closes, count, _SLOW, _SLOW)
    new["macd_fast"] = _ema(old["macd_fast"], closes, count, _FAST, _SLOW)  # TA-Lib starts both of MACD's EMAs together
    macd = np.where(count >= _SLOW, new["macd_fast"] - new["ema_26"], 0.0)
    new["signal"] = _signal(old["signal"], macd, count)
    ready = count >= _SLOW + _SIGNAL - 1
    shown = (
        np.where(count >= _FAST, new["ema_12"], np.nan),
        np.where(count >= _SLOW, new["ema_26"], np.nan),
        np.where(ready, macd, np.nan),
        np.where(ready, new["signal"], np.nan),
        np.where(count > _ATR, new["atr"], np.nan),
    )
    return History(count, closes, new), np.stack(shown)


def _wilder(average: Floats, value: Floats, count: Ints, period: int) -> Floats:
    """Wilder's smoothing: a sum up to the `period`th change, their mean there, then a running average."""
    total = average + value
    smooth = (average * (period - 1.0) + value) / period
    return np.where(count <= period, total, np.where(count == period + 1, total / period, smooth))


def _ema(average: Floats, closes: Floats, count: Ints, period: int, start: int) -> Floats:
    """Exponential average, seeded at the `start`th close by the mean of the `period` last."""
    seed = _left_fold(closes[-period:], closes.shape[1]) / period if (count == start).any() else average
    running = (closes[-1] - average) * (2.0 / (period + 1.0)) + average
    return np.where(count < start, 0.0, np.where(count == start, seed, running))


def _signal(average: Floats, macd: Floats, count: Ints) -> Floats:
    """MACD's signal line: EMA of the macd line, seeded by the mean of its first nine values."""
    seeded_at = _SLOW + _SIGNAL - 1
    total = average + macd
    running = (macd - average) * (2.0 / (_SIGNAL + 1.0)) + average
    return np.where(count < seeded_at, total, np.where(count == seeded_at, total / _SIGNAL, running))
