"""A day of each symbol in one row, from its ticks in the order of event time and its bars.

Sources: realised volatility as the root of the sum of squared log returns of the day's bars (Andersen, Bollerslev,
Diebold and Labys, Modeling and Forecasting Realized Volatility, Econometrica 2003); spread as quoted, ask less bid.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.bars import Prints, WindowBars, by_symbol
from beam_pipelines.transforms.batches import SUMMARIES
from beam_pipelines.transforms.closing_state import ClosingState
from beam_pipelines.transforms.columns import to_column
from beam_pipelines.transforms.partition_state import numbers_of

__all__ = ["Summaries"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]
_PRINT = ("timestamp", "seq", "price", "volume", "updates")
_RUNNING = {
    "before": np.nan,
    "last_time": -1,
    "gap": 0,
    "spread": 0.0,
    "quoted": 0,
    "last_log": np.nan,
    "squares": 0.0,
    "returns": 0,
}
"""What is summed up beside the bar of the day, with its value before the first tick."""


class Summaries:
    """The day so far of all symbols of a partition, columnar.

    Args:
      day: its beginning, ms.
      bar_ms: length of the bars, ms.
      out_of_orderness_ms: the stream's bound on disorder, which says when a bar had closed, ms.
    """

    def __init__(self, day: int, bar_ms: int, out_of_orderness_ms: int) -> None:
        self._day, self._bar_ms, self._disorder_ms = day, bar_ms, out_of_orderness_ms
        self._symbols: dict[str, int] = {}
        self._bars = WindowBars.empty(0)
        self._running: dict[str, NDArray[Any]] = {name: np.full(0, blank) for name, blank in _RUNNING.items()}
        self._arrivals: list[tuple[Numbers, Numbers, Ints]] = []  # symbol, bar of the day, offset: 16 bytes a tick
        self._first_in: dict[int, int] = {}  # the least offset of the ticks whose arrival puts the clock in a bar

    def add_ticks(self, ticks: pa.RecordBatch) -> None:
        """Adds ENRICHED ticks that come after all earlier ones in event time."""
        if not len(ticks):
            return
        symbol = self._columns(ticks["symbol"])
        prints = Prints(symbol, *(ticks[name].to_numpy() for name in _PRINT))
        self._bars.add(prints)
        order = by_symbol(symbol)
        by, times = symbol[order], prints.timestamp[order]
        before = _before(by, times, self._running["last_time"])
        np.maximum.at(self._running["gap"], by, np.where(before < 0, 0, times - before))
        self._running["last_time"][by] = times  # of equal ones the assignment keeps the last
        spread = ticks["ask"].to_numpy(zero_copy_only=False) - ticks["bid"].to_numpy(zero_copy_only=False)
        quoted = np.flatnonzero(~np.isnan(spread))
        np.add.at(self._running["spread"], symbol[quoted], spread[quoted])
        np.add.at(self._running["quoted"], symbol[quoted], 1)
        self._add_arrivals(symbol, prints.timestamp, ticks["offset"].to_numpy())

    def add_bars(self, bars: pa.RecordBatch) -> None:
        """Adds BARS that come after all earlier ones of their symbols."""
        symbol, close = self._closes(bars)
        order = by_symbol(symbol)
        by, logs = symbol[order], np.log(close[order])
        before = _before(by, logs, self._running["last_log"])
        known = ~np.isnan(before)
        np.add.at(self._running["squares"], by[known], (logs[known] - before[known]) ** 2)
        np.add.at(self._running["returns"], by[known], 1)
        self._running["last_log"][by] = logs

    def add_earlier(self, bars: pa.RecordBatch) -> None:
        """Adds BARS of the time before the day, after all earlier ones of their symbols: returns are from the last."""
        symbol, close = self._closes(bars)
        self._running["before"][symbol] = close

    def rows(self, prior: ClosingState) -> pa.RecordBatch:
        """SUMMARIES of the symbols that traded, in the order of their names."""
        names = np.array(list(self._symbols), object)
        traded = np.flatnonzero(self._bars.count)
        traded = traded[np.argsort(names[traded])] if len(traded) else traded
        bars, running = self._bars.take(traded), {name: values[traded] for name, values in self._running.items()}
        prices, carried = bars.prices(), prior.history_of(list(names[traded])).closes[-1]
        before = np.where(np.isnan(running["before"]), carried, running["before"])
        with np.errstate(invalid="ignore", divide="ignore"):
            columns: dict[str, Any] = {
                "symbol": pa.array(names[traded], pa.string()).dictionary_encode(),
                "day": np.full(len(traded), self._day),
                **{f"{name}_price": prices[name] for name in ("open", "high", "low", "close")},
                "total_volume": bars.volume,
                "vwap": prices["vwap"],
                "tick_count": bars.count,
                "daily_return": prices["close"] / before - 1.0,
                "realised_volatility": np.where(running["returns"] > 0, np.sqrt(running["squares"]), np.nan),
                "mean_spread": running["spread"] / np.where(running["quoted"] > 0, running["quoted"], np.nan),
                "dollar_volume": bars.turnover,
                "largest_gap_ms": running["gap"],
                "late_share": self._late()[traded] / bars.count,
            }
        arrays = [to_column(columns[field.name], field.type) for field in SUMMARIES]
        return pa.RecordBatch.from_arrays(arrays, schema=SUMMARIES)

    def _columns(self, names: pa.DictionaryArray) -> Ints:
        columns = numbers_of(names, self._symbols)
        more = len(self._symbols) - len(self._bars)
        if more:
            self._bars = self._bars.grow(len(self._symbols))
            self._running = {
                name: np.append(values, np.full(more, _RUNNING[name])) for name, values in self._running.items()
            }
        return columns

    def _closes(self, bars: pa.RecordBatch) -> tuple[Ints, Floats]:
        """Symbol and close of the bars that have a price."""
        close = bars["close"].to_numpy(zero_copy_only=False)
        priced = np.flatnonzero(~np.isnan(close))
        return self._columns(bars["symbol"])[priced], close[priced]

    def _add_arrivals(self, symbol: Ints, timestamp: Ints, offset: Ints) -> None:
        bar = (timestamp - self._day) // self._bar_ms
        self._arrivals.append((symbol.astype(np.int32), bar.astype(np.int32), offset))
        clock = (timestamp - self._disorder_ms - self._day) // self._bar_ms
        starts = np.flatnonzero(np.diff(clock, prepend=clock[0] - 1))
        for at, first in zip(clock[starts].tolist(), np.minimum.reduceat(offset, starts).tolist(), strict=True):
            self._first_in[at] = min(first, self._first_in.get(at, first))

    def _late(self) -> Ints:
        """Ticks of each symbol whose bar had closed when they came: an earlier record had put the clock in a later one.

        Which record was the first to do so is known only at the end, for the log may have any disorder.
        """
        clock = np.array(sorted(self._first_in), np.int64)
        first_in = np.array([self._first_in[at] for at in clock.tolist()], np.int64)
        first_beyond = np.append(np.minimum.accumulate(first_in[::-1])[::-1], np.iinfo(np.int64).max)
        late = np.zeros(len(self._symbols), np.int64)
        for symbol, bar, offset in self._arrivals:
            closed_at = first_beyond[np.searchsorted(clock, bar, side="right")]
            late += np.bincount(symbol[offset > closed_at], minlength=len(late))
        return late


def _before(symbol: Ints, values: NDArray[Any], earlier: NDArray[Any]) -> NDArray[Any]:
    """The value of the same symbol before each row, of rows by symbol; of the first one, that of `earlier`."""
    first = np.diff(symbol, prepend=-1) != 0
    before = np.roll(values, 1)
    before[first] = earlier[symbol[first]]
    return before
