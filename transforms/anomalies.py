"""Market anomalies: what of a symbol's bars and ticks is far from what is usual of it.

Bars are judged once, when they first close, against the bars before; late ticks do not change what was told.  Ticks
are judged as they come, against the bars closed by then.  So both are functions of the log, however it was batched.

Sources: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), for the modified z-score, which all scores in
robust standard deviations are; Brownlees and Gallo, Financial econometric analysis at ultra-high frequency: data
handling concerns (2006), for prints that are wrong by the scale of their neighbourhood; Kirilenko, Kyle, Samadi and
Tuzun, The Flash Crash: High-Frequency Trading in an Electronic Market (2017), for the fall and its recovery.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_pipelines.transforms.bars import HIGH_LOW, by_symbol
from beam_pipelines.transforms.closing_state import NEVER
from beam_pipelines.transforms.usual import CRASH_BARS, REMEMBERED, ClosedBars, Usual

__all__ = ["KINDS", "Found", "Rows", "bar_anomalies", "tick_anomalies"]

KINDS = (
    "price_jump",
    "volume_spike",
    "stale_price",
    "flash_crash",
    "flash_recovery",
    "crossed_quote",
    "locked_quote",
    "spread_blowout",
    "off_market_print",
)
"""Kinds of anomalies by code: of bars the first five, of ticks the others."""

_JUMP, _SPIKE, _STALE, _CRASH, _RECOVERY, _CROSSED, _LOCKED, _BLOWOUT, _OFF_MARKET = range(len(KINDS))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass
class Found:
    """Anomalies, each field of shape [anomalies], by row and then kind.

    Attributes:
      row: of the arrays judged.
      symbol: its column.
      start: start of the bar, ms.
      kind: code, see KINDS.
      score: how far it went, in the unit of `threshold`, rounded to four decimals.
      threshold: from which score on it is told.
      value: what is odd: a price, volume, spread in bps, or bid.
      reference: what it was compared with.
      bars: how many bars the comparison reaches back; 0: a tick was compared with its own quote.
    """

    row: Ints
    symbol: Ints
    start: Ints
    kind: Ints
    score: Floats
    threshold: Floats
    value: Floats
    reference: Floats
    bars: Ints

    def __len__(self) -> int:
        return len(self.row)


_TYPES: dict[str, type] = dict.fromkeys(("score", "threshold", "value", "reference"), np.float64)
_NOTHING = Found(*(np.empty(0, _TYPES.get(field.name, np.int64)) for field in fields(Found)))


def _told(row: Rows, symbol: Ints, start: Ints | int, kind: int, **what: Floats | Ints | float) -> Found:
    """Anomalies of one kind; `what` are the fields from `score` on, arrays or the same for all."""
    if not len(row):
        return _NOTHING
    whole = {"row": row, "symbol": symbol, "start": start, "kind": kind} | what
    arrays: dict[str, Any] = {
        name: np.broadcast_to(np.asarray(values, _TYPES.get(name, np.int64)), row.shape)
        for name, values in whole.items()
    }
    return Found(**arrays | {"score": np.round(arrays["score"], 4)})


def _sorted(parts: list[Found]) -> Found:
    parts = [part for part in parts if len(part)]
    if not parts:
        return _NOTHING
    whole = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Found)}
    order = np.lexsort((whole["kind"], whole["row"]))
    return Found(**{name: values[order] for name, values in whole.items()})


def bar_anomalies(usual: Usual, bars: ClosedBars) -> Found:
    """Judges bars that close, against those before, and takes them into `usual`; in order of their windows.

    Kinds: price_jump, volume_spike, stale_price, flash_crash, flash_recovery.  O(bars), no loop over symbols.
    """
    parts = [_jumps(usual, bars), _spikes(usual, bars), _stale(usual, bars), _crashes(usual, bars)]
    parts.append(_recoveries(usual, bars))
    usual.close(bars)
    return _sorted(parts)


def _jumps(usual: Usual, bars: ClosedBars) -> Found:
    """Closes whose return is far from the usual one, up or down."""
    symbol, limit = bars.symbol, usual.thresholds.jump
    score = np.abs(usual.returns_of(bars) - usual.move.median[symbol]) / usual.move.scale[symbol]
    row = np.flatnonzero(score >= limit)
    symbol = symbol[row]
    drift = usual.move.median[symbol] * np.sqrt(usual.gaps(bars)[row])
    expected = usual.closes[symbol, -1] * np.exp(drift)
    what: dict[str, Any] = {"value": bars.close[row], "reference": expected, "bars": _known(usual, symbol)}
    return _told(row, symbol, bars.start, _JUMP, score=score[row], threshold=limit, **what)


def _spikes(usual: Usual, bars: ClosedBars) -> Found:
    """Volumes far above the usual one."""
    symbol, limit = bars.symbol, usual.thresholds.volume
    score = (np.log(np.maximum(bars.volume, 1)) - usual.size.median[symbol]) / usual.size.scale[symbol]
    row = np.flatnonzero(score >= limit)
    symbol = symbol[row]
    common = np.exp(usual.size.median[symbol])
    what: dict[str, Any] = {"value": bars.volume[row], "reference": common, "bars": _known(usual, symbol)}
    return _told(row, symbol, bars.start, _SPIKE, score=score[row], threshold=limit, **what)


def _known(usual: Usual, symbol: Ints) -> Ints:
    return np.minimum(usual.bars[symbol], REMEMBERED)


def _stale(usual: Usual, bars: ClosedBars) -> Found:
    """Prices that stand still for so many bars that it would be no chance; once, until they move.

    The chance is that of independent bars, each of which stands still as often as those before the run did.
    """
    limits = usual.thresholds
    run = usual.still[bars.symbol] + 1
    row = np.flatnonzero(usual.stood_still(bars) & (run >= limits.stale_bars) & ~usual.stale[bars.symbol])
    symbol, run = bars.symbol[row], run[row]
    before = np.count_nonzero(~np.isnan(usual.returns[symbol]), axis=1) - (run - 1)
    calm = np.count_nonzero(usual.returns[symbol] == 0, axis=1) - (run - 1)
    share = (np.maximum(calm, 0) + 1) / (np.maximum(before, 0) + 2)  # Laplace's rule: none seen is not never
    needed = np.maximum(np.ceil(np.log(limits.stale_chance) / np.log(share)), limits.stale_bars)
    told = np.flatnonzero((before >= limits.min_bars) & (run >= needed))
    row, symbol = row[told], symbol[told]
    usual.stale[symbol] = True
    what: dict[str, Any] = {"value": bars.close[row], "reference": 1 - calm[told] / before[told], "bars": before[told]}
    return _told(row, symbol, bars.start, _STALE, score=run[told], threshold=needed[told], **what)


def _crashes(usual: Usual, bars: ClosedBars) -> Found:
    """Falls of many standard deviations, from a close of the last CRASH_BARS bar lengths to the low, once a crash."""
    symbol, limits = bars.symbol, usual.thresholds
    closes, starts = usual.closes[symbol], usual.starts[symbol]
    peaks = np.log(closes)
    fall = peaks - np.log(bars.low)[:, None]
    firm = peaks - np.log(np.fmin(bars.close, bars.vwap))[:, None] >= limits.crash_share * fall
    steps = (bars.start - starts) / usual.bar_ms
    since = usual.since[symbol][:, None]  # the closes before the end of a crash are high because of it
    eligible = firm & (steps <= CRASH_BARS) & (starts >= since) & (fall >= limits.crash_fall)
    sigmas = fall / (np.sqrt(steps) * usual.move.scale[symbol][:, None])
    score = np.where(eligible & ~np.isnan(sigmas), sigmas, 0.0)
    most = score.argmax(axis=1)
    row = np.flatnonzero((score.max(axis=1) >= limits.crash) & np.isnan(usual.peak[symbol]))
    symbol, most = symbol[row], most[row]
    peak = closes[row, most]
    usual.peak[symbol], usual.trough[symbol], usual.since[symbol] = peak, bars.low[row], bars.start
    what: dict[str, Any] = {"value": bars.low[row], "reference": peak, "bars": steps[row, most]}
    return _told(row, symbol, bars.start, _CRASH, score=score[row, most], threshold=limits.crash, **what)


def _recoveries(usual: Usual, bars: ClosedBars) -> Found:
    """Closes at which enough of a crash is made good; a crash ends with it, or when it is too late for it."""
    limits = usual.thresholds
    row = np.flatnonzero(~np.isnan(usual.peak[bars.symbol]))
    symbol, close = bars.symbol[row], bars.close[row]
    usual.trough[symbol] = np.minimum(usual.trough[symbol], bars.low[row])
    peak, trough = usual.peak[symbol], usual.trough[symbol]
    score = (close - trough) / (peak - trough)
    in_time = bars.start - usual.since[symbol] <= limits.recovery_bars * usual.bar_ms
    told = np.flatnonzero(in_time & (score >= limits.recovery))
    over = ~in_time | (score >= limits.recovery)
    steps = (bars.start - usual.since[symbol[told]]) // usual.bar_ms
    usual.peak[symbol[over]], usual.since[symbol[over]] = np.nan, bars.start
    what: dict[str, Any] = {"value": close[told], "reference": peak[told], "bars": steps}
    return _told(row[told], symbol[told], bars.start, _RECOVERY, score=score[told], threshold=limits.recovery, **what)


def tick_anomalies(
    usual: Usual, symbol: Ints, start: Ints, price: Floats, bid: Floats, ask: Floats, updates: NDArray[np.uint8]
) -> Found:
    """Judges new ticks, neither late nor duplicates, between which no bar closes; in offset order.

    Of each symbol and kind one is told, the first, and again only after `quiet_bars` without: so at most one a bar, and
    none of an older bar than one that had it.  A price counts only if it may set high and low (`updates`): prints that
    are off the market with good reason, such as average prices, may not.
    Kinds: crossed_quote, locked_quote, spread_blowout, off_market_print.  O(ticks), no loop over them.

    Args:
      usual: what is usual; keeps the last spread quoted, and which anomalies each symbol had.
      symbol: column of each tick, shape [ticks].
      start: start of its bar, ms.
      price: its price.
      bid: bid quoted with it; NaN: none.
      ask: ask quoted with it; NaN: none.
      updates: what it may change, see `bars`.
    """
    ticks = _Ticks(symbol, start, price, bid, ask)
    gap = ask - bid
    valid = (gap >= 0) & (bid > 0)
    rows, bare = np.flatnonzero(valid), np.flatnonzero(~valid)  # with a valid quote, and without
    quoted, apart = symbol[rows], gap[rows]
    width = apart / (bid[rows] + ask[rows]) * 2e4
    wide = width > usual.widest[quoted]
    usual.spread[quoted] = width  # of equal ones the assignment keeps the last
    crossed = bare[(gap[bare] < 0) & (ask[bare] > 0)]
    off = valid & ((price > ask) | (price < bid))
    off[bare] = (price[bare] > usual.highest[symbol[bare]]) | (price[bare] < usual.lowest[symbol[bare]])
    suspects = np.flatnonzero(off)
    suspects = suspects[updates[suspects] & HIGH_LOW != 0]
    return _sorted(
        [
            _quotes(usual, ticks, crossed, _CROSSED),
            _quotes(usual, ticks, rows[apart == 0], _LOCKED),
            _blowouts(usual, ticks, rows[wide], width[wide]),
            _off_market(usual, ticks, suspects, valid[suspects]),
        ]
    )


@dataclass
class _Ticks:
    """The arguments of `tick_anomalies`."""

    symbol: Ints
    start: Ints
    price: Floats
    bid: Floats
    ask: Floats


def _quotes(usual: Usual, ticks: _Ticks, row: Rows, kind: int) -> Found:
    """Crossed or locked quotes; the score is by how much of their middle, in bps."""
    row = _news(usual, ticks, row, kind)
    if not len(row):
        return _NOTHING
    bid, ask = ticks.bid[row], ticks.ask[row]
    score = (bid - ask) / (bid / 2 + ask / 2) * 1e4
    what: dict[str, Any] = {"value": bid, "reference": ask, "bars": 0}
    return _told(row, ticks.symbol[row], ticks.start[row], kind, score=score, threshold=0, **what)


def _blowouts(usual: Usual, ticks: _Ticks, row: Rows, width: Floats) -> Found:
    """Spreads, bps, far above the usual one."""
    if not len(row):
        return _NOTHING
    fresh = np.searchsorted(row, _news(usual, ticks, row, _BLOWOUT))
    row, width = row[fresh], width[fresh]
    symbol = ticks.symbol[row]
    common = usual.width.median[symbol]
    score = (width - common) / usual.width.scale[symbol]
    what: dict[str, Any] = {"value": width, "reference": common, "bars": _known(usual, symbol)}
    return _told(row, symbol, ticks.start[row], _BLOWOUT, score=score, threshold=usual.thresholds.spread, **what)


def _off_market(usual: Usual, ticks: _Ticks, row: Rows, quoted: Mask) -> Found:
    """Prints far outside their own quote or, without one, far from the last close, over the root of the time since."""
    if not len(row):
        return _NOTHING
    symbol, price, limit = ticks.symbol[row], ticks.price[row], usual.thresholds.off_market
    side = np.where(price > ticks.ask[row], ticks.ask[row], ticks.bid[row])
    reference = np.where(quoted, side, usual.closes[symbol, -1])
    steps = (ticks.start[row] - usual.starts[symbol, -1]) // usual.bar_ms
    steps = np.where(quoted, 0, np.maximum(steps, 1))
    score = np.abs(np.log(price) - np.log(reference)) / (usual.move.scale[symbol] * np.sqrt(np.maximum(steps, 1)))
    far = score >= limit
    fresh = np.searchsorted(row, _news(usual, ticks, row[far], _OFF_MARKET))
    row = row[fresh]
    what: dict[str, Any] = {"value": price[fresh], "reference": reference[fresh], "bars": steps[fresh]}
    return _told(row, symbol[fresh], ticks.start[row], _OFF_MARKET, score=score[fresh], threshold=limit, **what)


def _news(usual: Usual, ticks: _Ticks, row: Rows, kind: int) -> Rows:
    """Those of `row` that are told: the first of each symbol after enough bars without; all of them are remembered."""
    if not len(row):
        return row
    seen, symbol, start = usual.seen[kind - _CROSSED], ticks.symbol[row], ticks.start[row]
    order = by_symbol(symbol)
    symbol, start = symbol[order], start[order]
    group = np.cumsum(np.diff(symbol, prepend=symbol[0]) != 0)
    rise = group * (start.max() - start.min() + 1)  # keeps the running maximum of each symbol to itself
    newest = np.maximum.accumulate(start + rise) - rise
    first = np.diff(group, prepend=-1) != 0
    before = np.maximum(np.where(first, NEVER, np.roll(newest, 1)), seen[symbol])
    np.maximum.at(seen, symbol, start)
    return np.sort(row[order[start > before + usual.thresholds.quiet_bars * usual.bar_ms]])
