"""What is usual of each symbol: how its last bars moved, traded and were quoted, and how far from that is far.

Location and scale are the median and the median absolute deviation, which half of the bars would have to be wrong to
break: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).  They are order statistics, so they do not
depend on how many symbols are computed together, and they are computed once when a bar closes, not for each tick.

A return over several bar lengths, because the symbol did not trade in between, is divided by the root of their number:
prices are taken for random walks, in the scale of which a gap is one larger step.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.bars import WindowBars
from beam_pipelines.transforms.closing_state import NEVER

__all__ = ["CRASH_BARS", "REMEMBERED", "TICK_KINDS", "ClosedBars", "Level", "Thresholds", "Usual", "median_and_mad"]

REMEMBERED = 60
"""Bars of each symbol that say what is usual: an hour of minutes, long enough for a median, short enough for a day."""

CRASH_BARS = 5
"""Bars within which a fall is a flash crash: on 6 May 2010 the E-mini lost 5 % in four and a half minutes (CFTC and
SEC, Findings Regarding the Market Events of May 6, 2010, https://www.sec.gov/files/marketevents-report.pdf)."""

TICK_KINDS = 4
"""How many kinds of anomalies a tick can be, each told at most once a bar."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

_NORMAL = 1.4826  # standard deviations of a normal distribution in one median absolute deviation
_BPS = 1e4


@dataclass(frozen=True)
class Thresholds:
    """From where on something is an anomaly.

    Attributes:
      min_bars: bars that must be known before anything is compared with them; half of what is remembered.
      jump: robust standard deviations of a bar's return.  Minutes have fat tails: of a Student distribution with four
        degrees of freedom one value in 1,100 is beyond 8, one in 2,600 beyond 10.
      volume: robust standard deviations of the logarithm of a bar's volume: twenty times the usual one at least.
      stale_chance: the chance, were bars independent, of so many bars in a row without a move.  Calm bars come
        together, so it is far smaller than alarms are wanted rare.
      stale_bars: fewest bars without a move that are told.
      crash: robust standard deviations of a fall within CRASH_BARS.
      crash_fall: smallest fall told, a logarithm; two fifths of the narrowest price band (5 %) of the Limit Up-Limit
        Down plan, at which trading in large companies stops.
      crash_share: share of the fall that the bar's close or its volume-weighted price must have fallen, too: a wrong
        print falls alone.
      recovery: share of a fall that is made good.
      recovery_bars: bars in which it must be; on 6 May 2010 most shares were back within 15 minutes.
      spread: robust standard deviations of a quoted spread.
      off_market: robust standard deviations of returns between a print and the quote or the last close.  More than
        `jump`, because news moves prices and what it moves is no wrong print.
      quiet_bars: bars without an anomaly of a kind before a tick of the symbol is told as one again, so that what goes
        on, a symbol quoted locked all day, is told once.
      least_move: floor of the standard deviation of returns, 2 bps: what moves less than ten times that is no jump.
      least_first_move: the same where more than half of the bars did not move; there half of the usual spread, too,
        because prices go to and fro between bid and ask.  One cent of a share of $2 is 50 bps, and must not be a jump
        because the price stood still before.
      least_volume: floor of the standard deviation of the logarithm of volume, a factor of 1.65: of a few trades a bar.
      least_spread: floor of the standard deviation of spreads as a share of the usual one: it is skewed and steps in
        whole ticks, often from one to two.
      least_spread_bps: floor of the same in bps, for what is usually quoted without a spread.
    """

    min_bars: int = 30
    jump: float = 10.0
    volume: float = 6.0
    stale_chance: float = 1e-12
    stale_bars: int = 5
    crash: float = 12.0
    crash_fall: float = 0.02
    crash_share: float = 0.5
    recovery: float = 0.5
    recovery_bars: int = 30
    spread: float = 10.0
    off_market: float = 15.0
    quiet_bars: int = 15
    least_move: float = 2e-4
    least_first_move: float = 5e-4
    least_volume: float = 0.5
    least_spread: float = 0.5
    least_spread_bps: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot work.

        Raises:
          UsageError: names the field and the value.
        """
        if not 1 <= self.min_bars <= REMEMBERED:
            raise UsageError(f"min_bars must be from 1 to {REMEMBERED}, the bars remembered, not {self.min_bars}")
        for field in dataclasses.fields(self):
            least = 0 if field.name == "quiet_bars" else np.nextafter(0, 1)
            if not least <= getattr(self, field.name) < np.inf:
                raise UsageError(f"{field.name} must be a number above 0, not {getattr(self, field.name)}")
        for name in ("stale_chance", "crash_share", "recovery"):
            if getattr(self, name) >= 1:
                raise UsageError(f"{name} must be below 1, not {getattr(self, name)}")


class ClosedBars(NamedTuple):
    """Bars of one window with prices, at most one a symbol; arrays of shape [bars]."""

    symbol: Ints  # column
    start: int  # of the window, ms
    high: Floats
    low: Floats
    close: Floats
    vwap: Floats  # volume-weighted price; NaN: nothing was traded
    volume: Ints

    @classmethod
    def of(cls, start: int, columns: Ints, bars: WindowBars) -> "ClosedBars":
        """Those of `bars`, of the symbols `columns`, that have prices."""
        priced = np.flatnonzero(bars.priced)
        prices = bars.take(priced).prices()
        high, low, close, vwap = (prices[name] for name in ("high", "low", "close", "vwap"))
        return cls(columns[priced], start, high, low, close, vwap, bars.volume[priced])

    def to_batch(self, **more: pa.Array) -> pa.RecordBatch:
        """As Arrow columns, one row a bar, with `more` of them; the start is in the metadata."""
        columns = {name: pa.array(values) for name, values in self._asdict().items() if name != "start"}
        return pa.record_batch(columns | more).replace_schema_metadata({"start": str(self.start)})

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch) -> "ClosedBars":
        """What `to_batch` wrote."""
        start = int(batch.schema.metadata[b"start"])
        return cls(**{name: batch[name].to_numpy() for name in cls._fields if name != "start"}, start=start)


@dataclass
class Level:
    """Where values usually are and how far from there they stray, each of shape [symbols]; NaN: not known yet."""

    median: Floats
    scale: Floats  # robust standard deviation, floored

    @classmethod
    def unknown(cls, symbols: int) -> "Level":
        """Of symbols without bars."""
        return cls(np.full(symbols, np.nan), np.full(symbols, np.nan))

    def put(self, columns: Ints, median: Floats, scale: Floats) -> None:
        """Replaces the symbols `columns`."""
        self.median[columns], self.scale[columns] = median, scale


class Usual:
    """What is usual of each symbol, from its bars as they first closed; and which anomalies it had.

    Args:
      symbols: how many.
      bar_ms: length of the bars, ms.
      thresholds: from where on something is an anomaly.

    Attributes:
      bars: bars taken in, shape [symbols].
      returns: logarithms of close over close before, by the root of the bar lengths between; REMEMBERED in a ring that
        `bars` points into, NaN where not known; shape [symbols, REMEMBERED].
      volumes: logarithms of volumes, likewise; NaN where nothing was traded.
      spreads: spreads last quoted before the bar closed, bps of the middle, likewise.
      closes: the last closes, the newest last, shape [symbols, CRASH_BARS]; NaN where there are fewer.
      starts: starts of their bars, ms, likewise.
      still: bars in a row, up to the newest, in which nothing but the close before was paid.
      stale: whether that was told.
      peak: close from which the symbol crashed; NaN: it is not in a crash.
      trough: lowest price since.
      since: start of the bar in which the last crash began or, if it is over, ended, ms.
      spread: spread quoted last, bps.
      seen: start of the newest bar in which a tick was an anomaly, ms, by kind, shape [TICK_KINDS, symbols].
      move: usual return of a bar; derived, as what follows.
      size: usual logarithm of a bar's volume.
      width: usual spread, bps.
      widest: spread from which on it is a blowout, bps.
      lowest: price below which a print in the next bar is off the market.
      highest: price above which it is.
    """

    def __init__(self, symbols: int, bar_ms: int, thresholds: Thresholds) -> None:
        self.bar_ms, self.thresholds = bar_ms, thresholds
        self.bars, self.still = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
        self.returns, self.volumes, self.spreads = (np.full((symbols, REMEMBERED), np.nan, np.float32) for _ in "rvs")
        self.closes = np.full((symbols, CRASH_BARS), np.nan)
        self.starts = np.full((symbols, CRASH_BARS), NEVER)
        self.stale = np.zeros(symbols, bool)
        self.peak, self.trough, self.spread = (np.full(symbols, np.nan) for _ in "pts")
        self.since = np.full(symbols, NEVER)
        self.seen = np.full((TICK_KINDS, symbols), NEVER)
        self.move, self.size, self.width = (Level.unknown(symbols) for _ in "msw")
        self.widest, self.lowest, self.highest = (np.full(symbols, np.nan) for _ in "wlh")

    @classmethod
    def empty(cls, symbols: int, bar_ms: int, thresholds: Thresholds | None = None) -> "Usual":
        """Of symbols that never traded."""
        return cls(symbols, bar_ms, thresholds or Thresholds())

    def __len__(self) -> int:
        return len(self.bars)

    def grown(self, symbols: int) -> "Usual":
        """The same with symbols that never traded added up to `symbols`."""
        grown = Usual(symbols, self.bar_ms, self.thresholds)
        for name in (*_PER_BAR, *_LIMITS, "spread"):
            getattr(grown, name)[: len(self)] = getattr(self, name)
        for name in _LEVELS:
            level = getattr(self, name)
            getattr(grown, name).put(np.arange(len(self)), level.median, level.scale)
        grown.seen[:, : len(self)] = self.seen
        return grown

    def gaps(self, bars: ClosedBars) -> Floats:
        """Bar lengths from the last bar of each symbol to its bar in `bars`; shape [bars]."""
        return (bars.start - self.starts[bars.symbol, -1]) / self.bar_ms

    def returns_of(self, bars: ClosedBars) -> Floats:
        """Their returns, as `returns` keeps them; NaN for a first bar; shape [bars]."""
        moved = np.log(bars.close) - np.log(self.closes[bars.symbol, -1])
        return moved / np.sqrt(self.gaps(bars))

    def stood_still(self, bars: ClosedBars) -> NDArray[np.bool_]:
        """Whether nothing but the close before was paid in each of `bars`."""
        last = self.closes[bars.symbol, -1]
        return (bars.high == last) & (bars.low == last) & (bars.close == last)

    def close(self, bars: ClosedBars) -> None:
        """Takes in the bars of one window, which is later than all taken in before."""
        symbol, place = bars.symbol, self.bars[bars.symbol] % REMEMBERED
        still = self.stood_still(bars)
        self.returns[symbol, place] = self.returns_of(bars)
        self.volumes[symbol, place] = _logarithm(bars.volume)
        self.spreads[symbol, place] = self.spread[symbol]
        self.still[symbol] = np.where(still, self.still[symbol] + 1, 0)
        self.stale[symbol] &= still
        self.closes[symbol] = np.column_stack([self.closes[symbol, 1:], bars.close])
        self.starts[symbol] = np.column_stack([self.starts[symbol, 1:], np.full(len(symbol), bars.start)])
        self.bars[symbol] += 1
        self._derive(symbol)

    def forget(self, before: int) -> None:
        """Forgets the anomalies of ticks that matter to no bar from `before` ms on; no older one may get more ticks."""
        self.seen[self.seen < before - self.thresholds.quiet_bars * self.bar_ms] = NEVER

    def _derive(self, columns: Ints) -> None:
        """Computes what is usual of some symbols from the bars remembered."""
        limits = self.thresholds
        self.width.put(columns, *self._level(self.spreads[columns]))
        width = self.width.median[columns]
        floor = np.maximum(width * limits.least_spread, limits.least_spread_bps)
        self.width.scale[columns] = np.maximum(self.width.scale[columns], floor)
        median, scale = self._level(self.returns[columns])
        first = np.fmax(width / 2 / _BPS, limits.least_first_move)
        floor = np.where(scale == 0, first, limits.least_move)
        self.move.put(columns, median, np.maximum(scale, floor))
        median, scale = self._level(self.volumes[columns])
        self.size.put(columns, median, np.maximum(scale, limits.least_volume))
        self.widest[columns] = width + limits.spread * self.width.scale[columns]
        last, reach = self.closes[columns, -1], limits.off_market * self.move.scale[columns]
        self.lowest[columns], self.highest[columns] = last * np.exp(-reach), last * np.exp(reach)

    def _level(self, values: Singles) -> tuple[Floats, Floats]:
        """Median and robust standard deviation of each row; NaN where fewer than `min_bars` are known."""
        known, median, mad = median_and_mad(values)
        enough = known >= self.thresholds.min_bars
        return np.where(enough, median, np.nan), np.where(enough, mad * _NORMAL, np.nan)

    def to_columns(self) -> dict[str, pa.Array]:
        """What changes when bars close, as Arrow columns with one row a symbol."""
        return {name: _column(getattr(self, name)) for name in _PER_BAR}

    def tick_columns(self) -> dict[str, pa.Array]:
        """What changes with ticks, as Arrow columns with one row a symbol that has any of it."""
        some = np.flatnonzero(~np.isnan(self.spread) | (self.seen != NEVER).any(axis=0))
        return {
            "symbol": pa.array(some),
            "spread": pa.array(self.spread[some]),
            "seen": _column(np.ascontiguousarray(self.seen.T[some])),
        }

    @classmethod
    def from_columns(cls, bars: pa.RecordBatch, bar_ms: int, thresholds: Thresholds | None = None) -> "Usual":
        """What `to_columns` wrote."""
        usual = cls.empty(len(bars), bar_ms, thresholds)
        for name in _PER_BAR:
            getattr(usual, name)[:] = _values(bars[name]).reshape(getattr(usual, name).shape)
        usual._derive(np.arange(len(bars)))
        return usual

    def put_ticks(self, ticks: pa.RecordBatch) -> None:
        """Replaces what `tick_columns` wrote."""
        some = ticks["symbol"].to_numpy()
        self.spread[:], self.seen[:] = np.nan, NEVER
        self.spread[some] = ticks["spread"].to_numpy()
        self.seen[:, some] = _values(ticks["seen"]).reshape(-1, TICK_KINDS).T


_PER_BAR = ("bars", "returns", "volumes", "spreads", "closes", "starts", "still", "stale", "peak", "trough", "since")
_LEVELS, _LIMITS = ("move", "size", "width"), ("widest", "lowest", "highest")


def median_and_mad(values: NDArray[np.floating[Any]]) -> tuple[Ints, Floats, Floats]:
    """How many values each row has, their median, and their median absolute deviation from it; NaN is no value.

    Args:
      values: shape [symbols, bars].

    Returns:
      Three arrays of shape [symbols]; NaN where there are none.
    """
    ordered = np.sort(values, axis=1)  # NaN last
    missing = np.isnan(ordered)
    known = np.where(missing[:, -1], missing.argmax(axis=1), values.shape[1])
    median = _middle(ordered, known)
    off = np.abs(values - median[:, None])
    return known, median, _middle(np.sort(off, axis=1), known)


def _middle(ordered: NDArray[np.floating[Any]], known: Ints) -> Floats:
    """Median of the first `known` of each ordered row."""
    row = np.arange(len(ordered))
    lower, upper = ordered[row, np.maximum(known - 1, 0) // 2], ordered[row, known // 2]
    return (lower.astype(np.float64) + upper) / 2


def _logarithm(volume: Ints) -> Floats:
    """Natural logarithm, NaN of 0."""
    return np.log(np.where(volume > 0, volume, np.nan))


def _column(values: NDArray[np.generic]) -> pa.Array:
    """One row a symbol, be it a number or a list of fixed size."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _values(column: pa.Array) -> NDArray[np.generic]:
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return flat.to_numpy(zero_copy_only=False)
