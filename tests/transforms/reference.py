"""The kernel's meaning written down record by record, slowly and plainly, with TA-Lib for every indicator."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import talib

from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.indicators import BAR_INDICATORS


class Tick(NamedTuple):
    symbol: str
    timestamp: int
    price: float
    volume: int
    seq: int
    updates: int
    offset: int
    log_time: int


def talib_values(high, low, close):
    """BAR_INDICATORS at the last of the given bars."""
    high, low, close = (np.array(values, float) for values in (high, low, close))
    upper, _, lower = talib.BBANDS(close, 20, 2, 2)
    macd, signal, _ = talib.MACD(close)
    columns = (
        talib.SMA(close, 20),
        talib.SMA(close, 50),
        talib.RSI(close, 14),
        upper,
        lower,
        talib.EMA(close, 12),
        talib.EMA(close, 26),
        macd,
        signal,
        talib.ATR(high, low, close, 14),
    )
    return dict(zip(BAR_INDICATORS, (column[-1] for column in columns), strict=True))


class Reference:
    """advance(), one record at a time."""

    def __init__(self, semantics: Semantics):
        self.semantics = semantics
        self.newest = self.boundary = -(10**15)
        self.bars = defaultdict(
            lambda: defaultdict(list)
        )  # symbol -> start -> its ticks; symbols in order of appearance
        self.revisions = {}
        self.waiting, self.seen = [], set()
        self.ticks_out, self.bars_out, self.too_late, self.duplicates = [], [], [], []

    def take(self, tick: Tick):
        s = self.semantics
        self.bars[tick.symbol]  # a symbol's place is that of its first valid tick
        self.newest = max(self.newest, tick.timestamp)
        clock = self.newest - s.out_of_orderness_ms
        self.cross(clock // s.bar_ms * s.bar_ms, tick)
        if tick.timestamp < clock - s.allowed_lateness_ms:
            self.too_late.append(tick.offset)
            return
        if s.dedup_ms and tick.timestamp >= clock - s.dedup_ms:
            identity = (tick.symbol, tick.timestamp, tick.seq)
            if identity in self.seen:
                self.duplicates.append(tick.offset)
                return
            self.seen.add(identity)
        start = self.start(tick)
        if start < self.boundary:
            self.revise(tick, start)
            return
        self.bars[tick.symbol][start].append(tick)
        self.waiting.append(tick)
        self.release(tick)

    def start(self, tick):
        return tick.timestamp // self.semantics.bar_ms * self.semantics.bar_ms

    def cross(self, boundary, at):
        before, self.boundary = self.boundary, max(self.boundary, boundary)
        closing = {start for bars in self.bars.values() for start in bars if before <= start < self.boundary}
        for start in sorted(closing):
            for symbol, bars in self.bars.items():
                if start in bars:
                    self.emit_bar(symbol, start, 0)
        self.release(at)

    def release(self, at):
        for tick in list(self.waiting):
            if not any(self.boundary <= start < self.start(tick) for start in self.bars[tick.symbol]):
                self.waiting.remove(tick)
                self.emit_tick(tick, at, late=False)

    def revise(self, tick, start):
        self.emit_tick(tick, tick, late=True)
        bars = self.bars[tick.symbol]
        existed = start in bars
        later = [other for other in sorted(bars) if start < other < self.boundary]
        old = {other: self.bar_values(tick.symbol, other) for other in later}
        bars[start].append(tick)
        self.emit_bar(tick.symbol, start, self.revisions.get((tick.symbol, start), 0) + existed)
        for other in later:
            if not np.array_equal(
                list(old[other].values()), list(self.bar_values(tick.symbol, other).values()), equal_nan=True
            ):
                self.emit_bar(tick.symbol, other, self.revisions[tick.symbol, other] + 1)

    def history(self, symbol, until):
        """High, low, close of the symbol's closed bars with a price that start before `until`."""
        shapes = [
            self.shape(self.bars[symbol][start])
            for start in sorted(self.bars[symbol])
            if start < min(until, self.boundary)
        ]
        priced = [shape for shape in shapes if shape["close"] is not None]
        return [[shape[name] for shape in priced] for name in ("high", "low", "close")]

    def emit_tick(self, tick, at, late):
        high, low, close = ([*values, tick.price] for values in self.history(tick.symbol, self.start(tick)))
        values = talib_values(high, low, close)
        shown = {name: values[name] for name in BAR_INDICATORS[:5]}
        self.ticks_out.append({"offset": tick.offset, "late": late, "processed_at": at.log_time} | shown)

    def bar_values(self, symbol, start):
        if self.shape(self.bars[symbol][start])["close"] is None:
            return dict.fromkeys(BAR_INDICATORS, np.nan)
        return talib_values(*self.history(symbol, start + 1))

    def emit_bar(self, symbol, start, revision):
        self.revisions[symbol, start] = revision
        shape = self.shape(self.bars[symbol][start])
        self.bars_out.append(
            {"symbol": symbol, "time": start, "revision": revision} | shape | self.bar_values(symbol, start)
        )

    @staticmethod
    def shape(ticks):
        closing = sorted((t.timestamp, t.seq, t.offset, t.price) for t in ticks if t.updates & 2)
        ranged = [t.price for t in ticks if t.updates & 1]
        volume = sum(t.volume for t in ticks if t.updates & 4)
        turnover = 0.0
        for tick in ticks:
            turnover += tick.price * tick.volume if tick.updates & 4 else 0.0
        prices = dict.fromkeys(("open", "high", "low", "close"))
        if closing:
            ends = [closing[0][-1], closing[-1][-1]]
            prices = {"open": ends[0], "high": max(ranged or ends), "low": min(ranged or ends), "close": ends[1]}
        return prices | {"volume": volume, "vwap": turnover / volume if volume else None, "trade_count": len(ticks)}
