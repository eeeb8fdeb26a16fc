"""How many injected anomalies are told, how many false ones, and what it costs: `python -m tests.bench.anomalies`.

Simulated sessions of 500 symbols, 6.5 hours and two million ticks each; real ticks from `../shared/ticks`, where it
is; and Beam's own univariate detectors on the same returns of bars.  About two minutes, one process.
"""

import itertools
import math
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.anomaly.detectors.iqr import IQR
from apache_beam.ml.anomaly.detectors.robust_zscore import RobustZScore
from apache_beam.ml.anomaly.detectors.zscore import ZScore
from numpy.typing import NDArray

from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.tick_files import raw_batches_from_file
from beam_pipelines.transforms.anomalies import KINDS, Found, bar_anomalies, tick_anomalies
from beam_pipelines.transforms.anomaly_rows import explanations
from beam_pipelines.transforms.bars import Prints, WindowBars
from beam_pipelines.transforms.closing_state import NEVER
from beam_pipelines.transforms.partition_state import numbers_of
from beam_pipelines.transforms.ticks import decode
from beam_pipelines.transforms.usual import ClosedBars, Thresholds, Usual

SYMBOLS, TICKS, CLEAN_SESSIONS = 500, 2_000_000, 3
BAR_MS, DISORDER_MS, BATCH = 60_000, 1000, 10_000
FIRST_BAR, LAST_BAR = 60, 340  # of a session, between which anomalies are injected
SHARED = pathlib.Path(__file__).parents[3] / "shared" / "ticks"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Log:
    """Valid ticks of one partition as arrays, in offset order."""

    symbol: Ints
    timestamp: Ints
    seq: Ints
    price: Floats
    volume: Ints
    bid: Floats
    ask: Floats
    updates: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.symbol)

    def take(self, rows: Any) -> "Log":
        return Log(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def start(self) -> Ints:
        return self.timestamp // BAR_MS * BAR_MS


def log_of(batches: Iterable[pa.RecordBatch], names: dict[str, int]) -> Log:
    """The valid ticks of RAW batches; `names` gains their symbols."""
    parts = []
    for raw in batches:
        ticks = decode(raw).ticks
        columns = {
            field.name: ticks[field.name].to_numpy(zero_copy_only=False)
            for field in fields(Log)
            if field.name != "symbol"
        }
        parts.append(Log(symbol=numbers_of(ticks["symbol"], names), **columns))
    return Log(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Log)))


class Told(NamedTuple):
    """One anomaly."""

    symbol: int
    start: int
    kind: str
    score: float
    offset: int  # of the tick, or of the one at which the bar closed
    sentence: str


class Replay:
    """Judges a log as the kernel does: bars close when the clock of the partition reaches their end."""

    def __init__(self, symbols: int, bar_ms: int = BAR_MS, disorder_ms: int = DISORDER_MS, thresholds=None) -> None:
        self.usual = Usual.empty(symbols, bar_ms, thresholds or Thresholds())
        self.windows: dict[int, WindowBars] = {}
        self.newest = self.boundary = NEVER
        self.bar_ms, self.disorder_ms, self.offset = bar_ms, disorder_ms, 0
        self.bars = 0
        self.ticks_s = self.bars_s = 0.0  # CPU

    def take(self, log: Log) -> list[Told]:
        """What is told of the next ticks; whole batches or parts of them, it must not matter."""
        told: list[Told] = []
        newest = np.maximum.accumulate(np.maximum(log.timestamp, self.newest))
        boundary = (newest - self.disorder_ms) // self.bar_ms * self.bar_ms
        crossings = np.flatnonzero(np.diff(boundary, prepend=self.boundary) > 0)
        for begin, end in itertools.pairwise(np.unique([0, *crossings, len(log)])):
            if boundary[begin] > self.boundary:
                self.boundary = int(boundary[begin])
                told += self._close(self.offset + int(begin))
            told += self._judge(log.take(slice(begin, end)), self.offset + int(begin))
        self.newest, self.offset = int(newest[-1]), self.offset + len(log)
        return told

    def _close(self, offset: int) -> list[Told]:
        told = []
        for start in sorted(start for start in self.windows if start < self.boundary):
            window = self.windows.pop(start)
            columns = np.flatnonzero(window.count)
            bars = ClosedBars.of(start, columns, window.take(columns))
            began = time.process_time()
            found = bar_anomalies(self.usual, bars)
            self.bars_s += time.process_time() - began
            self.bars += len(bars.symbol)
            told += _rows(found, np.full(len(found), offset))
        self.usual.forget(self.boundary)
        return told

    def _judge(self, log: Log, first: int) -> list[Told]:
        start = log.timestamp // self.bar_ms * self.bar_ms
        on_time = np.flatnonzero(start >= self.boundary)
        log, start = log.take(on_time), start[on_time]
        began = time.process_time()
        found = tick_anomalies(self.usual, log.symbol, start, log.price, log.bid, log.ask, log.updates)
        self.ticks_s += time.process_time() - began
        prints = Prints(log.symbol, log.timestamp, log.seq, log.price, log.volume, log.updates)
        for bar in np.unique(start).tolist():
            window = self.windows.setdefault(bar, WindowBars.empty(len(self.usual)))
            window.add(prints.take(start == bar))
        return _rows(found, first + on_time[found.row])


def _rows(found: Found, offset: Ints) -> list[Told]:
    kinds = [KINDS[kind] for kind in found.kind]
    columns = (found.symbol.tolist(), found.start.tolist(), kinds, found.score.tolist(), offset.tolist())
    return [Told(*row) for row in zip(*columns, explanations(found), strict=True)]


def all_told(log: Log, symbols: int, replay: Replay | None = None) -> list[Told]:
    replay = replay or Replay(symbols)
    pieces = (log.take(slice(at, at + BATCH)) for at in range(0, len(log), BATCH))
    return [told for piece in pieces for told in replay.take(piece)]


def simulated(seed: int, symbols: int = SYMBOLS, ticks: int = TICKS, **settings: Any) -> Log:
    session = Session(seed=seed, symbols=symbols, ticks=ticks, **settings)
    return log_of((raw for _, raw in raw_batches(session, 1)), {name: i for i, name in enumerate(session.names)})


class Injection(NamedTuple):
    """What was put into a log."""

    kind: str  # of _SIZES
    size: float
    symbol: int
    first: int  # start of the bar, ms
    last: int  # start of the last bar in which it may be told

    @property
    def told_as(self) -> str:
        return self.kind.split(",")[0]


class Injector:
    """Puts anomalies into a simulated session, at most one a symbol, in bars with at least three quoted ticks."""

    def __init__(self, log: Log, seed: int) -> None:
        self.log, self.chance = log, np.random.default_rng(seed)
        order = np.argsort(log.symbol, kind="stable")
        self.rows = np.split(order, np.searchsorted(log.symbol[order], np.arange(1, log.symbol.max() + 1)))
        self.begin = int(log.start.min())
        self.places = []

    def sigma(self, symbol: int) -> float:
        """The standard deviation of the symbol's returns over a bar, from all of its bars."""
        rows = self.rows[symbol]
        _, ends = np.unique(self.log.start[rows][::-1], return_index=True)
        closes = self.log.price[rows[::-1][ends]]
        return float(np.std(np.diff(np.log(closes))))

    def inject(self, symbol: int, kind: str, size: float) -> Injection | None:
        rows = self.rows[symbol]
        start = self.log.start[rows]
        bars, counts = np.unique(start, return_counts=True)
        when = (bars - self.begin) // BAR_MS
        eligible = bars[(when >= FIRST_BAR) & (when <= LAST_BAR) & (counts >= 3)]
        if not len(eligible):
            return None
        bar = int(self.chance.choice(eligible))
        quoted = rows[(start == bar) & ~np.isnan(self.log.bid[rows]) & (self.log.updates[rows] == 7)]
        if not len(quoted):
            return None
        last = _INJECTORS[kind](self, rows, start, bar, int(quoted[len(quoted) // 2]), size)
        return Injection(kind, size, symbol, bar, last)

    def move(self, rows: Ints, factor: Floats | float) -> None:
        """Moves prices, and quotes by as many cents."""
        moved = np.round(self.log.price[rows] * (factor - 1), 2)
        for values in (self.log.price, self.log.bid, self.log.ask):
            values[rows] = np.round(values[rows] + moved, 2)

    def jump(self, rows: Ints, start: Ints, bar: int, _row: int, size: float) -> int:
        """For good, by `size` standard deviations of a bar, up or down."""
        sign = self.chance.choice([-1, 1])
        self.move(rows[start >= bar], math.exp(sign * size * self.sigma(int(self.log.symbol[rows[0]]))))
        return bar

    def volume(self, rows: Ints, start: Ints, bar: int, _row: int, size: float) -> int:
        self.log.volume[rows[start == bar]] *= int(size)
        return bar

    def stale(self, rows: Ints, start: Ints, bar: int, _row: int, size: float) -> int:
        """No price but one for `size` bars that trade."""
        bars = np.unique(start[start >= bar])[: int(size)]
        held = rows[(start >= bar) & (start <= bars[-1])]
        self.move(held, self.log.price[held[0]] / self.log.price[held])
        return int(bars[-1])

    def crash(self, rows: Ints, start: Ints, bar: int, _row: int, size: float) -> int:
        """A fall by the share `size` within four minutes, and back within eight more."""
        minutes = (self.log.timestamp[rows] - bar) / BAR_MS
        depth = np.interp(minutes, [0, 4, 6, 14], [0, size, size, 0])
        moved = depth > 0
        self.move(rows[moved], 1 - depth[moved])
        return bar + 6 * BAR_MS

    def recovery(self, rows: Ints, start: Ints, bar: int, row: int, size: float) -> int:
        return self.crash(rows, start, bar, row, size) + 10 * BAR_MS

    def crossed(self, _rows: Ints, _start: Ints, bar: int, row: int, size: float) -> int:
        self.log.bid[row] = self.log.ask[row] + size
        return bar

    def locked(self, _rows: Ints, _start: Ints, bar: int, row: int, _size: float) -> int:
        self.log.bid[row] = self.log.ask[row] = self.log.price[row]
        return bar

    def blowout(self, _rows: Ints, _start: Ints, bar: int, row: int, size: float) -> int:
        self.log.ask[row] = self.log.bid[row] + size * (self.log.ask[row] - self.log.bid[row])
        return bar

    def quoted_print(self, _rows: Ints, _start: Ints, bar: int, row: int, size: float) -> int:
        self.log.price[row] *= 1 + size * self.chance.choice([-1, 1])
        return bar

    def unquoted_print(self, rows: Ints, start: Ints, bar: int, row: int, size: float) -> int:
        self.log.bid[row] = self.log.ask[row] = np.nan
        return self.quoted_print(rows, start, bar, row, size)


_INJECTORS: dict[str, Callable[..., int]] = {
    "price_jump": Injector.jump,
    "volume_spike": Injector.volume,
    "stale_price": Injector.stale,
    "flash_crash": Injector.crash,
    "flash_recovery": Injector.recovery,
    "crossed_quote": Injector.crossed,
    "locked_quote": Injector.locked,
    "spread_blowout": Injector.blowout,
    "off_market_print": Injector.quoted_print,
    "off_market_print, no quote": Injector.unquoted_print,
}
_SIZES: dict[str, tuple[tuple[float, ...], str]] = {
    "price_jump": ((8, 12, 20, 40), "{:.0f} sigmas"),
    "volume_spike": ((5, 20, 100), "{:.0f} times"),
    "stale_price": ((10, 20), "{:.0f} bars"),
    "flash_crash": ((0.02, 0.05, 0.1), "{:.0%}"),
    "flash_recovery": ((0.05, 0.1), "{:.0%}"),
    "crossed_quote": ((0.01,), "{} dollars"),
    "locked_quote": ((0,), ""),
    "spread_blowout": ((4, 10, 30), "{:.0f} times"),
    "off_market_print": ((0.01, 0.05), "{:.0%}"),
    "off_market_print, no quote": ((0.01, 0.05), "{:.0%}"),
}


def injected(log: Log, seed: int) -> list[Injection]:
    """Puts every kind and size into as many symbols of `log`, by turns."""
    injector = Injector(log, seed)
    turns = itertools.cycle((kind, size) for kind, (sizes, _) in _SIZES.items() for size in sizes)
    symbols = injector.chance.permutation(len(injector.rows)).tolist()
    made = (injector.inject(symbol, *turn) for symbol, turn in zip(symbols, turns, strict=False))
    return [injection for injection in made if injection]


def is_told(injection: Injection, told: list[Told]) -> bool:
    return any(
        one.symbol == injection.symbol
        and one.kind == injection.told_as
        and injection.first <= one.start <= injection.last
        for one in told
    )


def recall_table(told: list[Told], injections: list[Injection]) -> Iterator[str]:
    yield "| injected | size | times | told |\n|---|---|--:|--:|"
    for kind, (sizes, label) in _SIZES.items():
        for size in sizes:
            group = [injection for injection in injections if (injection.kind, injection.size) == (kind, size)]
            hits = sum(is_told(injection, told) for injection in group)
            yield f"| {kind} | {label.format(size)} | {len(group)} | {hits / len(group):.0%} |"


def precision_table(told: list[Told], injections: list[Injection]) -> Iterator[str]:
    """What is told at an injection of another kind follows from it, as jumps from a crash; elsewhere it is false."""
    yield "| told | times | injected | follows from another | false |\n|---|--:|--:|--:|--:|"
    at = {injection.symbol: injection for injection in injections}
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for one in told:
        counts[one.kind][_cause(one, at.get(one.symbol))] += 1
    for kind, count in counts.items():
        yield f"| {kind} | {count.total()} | {count['injected']} | {count['follows']} | {count['false']} |"


def _cause(one: Told, injection: Injection | None) -> str:
    if injection is None or not injection.first - BAR_MS <= one.start <= injection.last + 16 * BAR_MS:
        return "false"
    family = {"flash_crash", "flash_recovery"}  # either is injected with the other
    return "injected" if injection.told_as == one.kind or {injection.kind, one.kind} == family else "follows"


def closes_of(log: Log, symbol: int) -> tuple[Ints, Floats]:
    """Starts and closes of a symbol's bars, ticks of all of them on time."""
    rows = np.flatnonzero((log.symbol == symbol) & (log.updates == 7))
    rows = rows[np.lexsort((log.seq[rows], log.timestamp[rows]))]
    starts, ends = np.unique(log.start[rows][::-1], return_index=True)
    return starts, log.price[rows[::-1][ends]]


DETECTORS: dict[str, tuple[Callable[[], Any], float]] = {
    "Beam ZScore": (ZScore, 3),
    "Beam RobustZScore": (RobustZScore, 3),
    "Beam IQR": (IQR, 1.5),
}


def beam_scores(make: Callable[[], Any], returns: Floats) -> Floats:
    """Scores of a symbol's returns, each against those before, as Beam's transform computes them."""
    detector, scores = make(), []
    for value in returns.tolist():
        row = beam.Row(x=value)
        scores.append(detector.score_one(row))
        detector.learn_one(row)
    return np.array(scores, float)


def peers_table(log: Log, replay: Replay, told: list[Told], injections: list[Injection]) -> Iterator[str]:
    """Jumps of at least 12 sigmas, and clean symbols, by ours and by Beam's detectors on the same returns."""
    yield "| price jumps | threshold | told | false a symbol and day | CPU-s per million bars |\n|---|--:|--:|--:|--:|"
    jumps = {one.symbol: one.first for one in injections if one.kind == "price_jump" and one.size >= 12}
    clean = [one.symbol for one in injections if "quote" in one.kind or "spread" in one.kind]
    series = {symbol: closes_of(log, symbol) for symbol in [*jumps, *clean]}
    mine = [(one.symbol, one.start) for one in told if one.kind == "price_jump" and one.symbol in series]
    spent = replay.bars_s / replay.bars * 1e6
    yield f"| ours, with all other kinds of bars | 10 | {_rates(mine, jumps, len(series))} | {spent:.1f} |"
    for name, (make, usual_limit) in DETECTORS.items():
        began = time.process_time()
        scores = {symbol: beam_scores(make, np.diff(np.log(closes))) for symbol, (_, closes) in series.items()}
        spent = (time.process_time() - began) / sum(map(len, scores.values())) * 1e6
        for limit in (usual_limit, 10):
            starts = [(s, int(t)) for s, score in scores.items() for t in series[s][0][1:][score >= limit]]
            yield f"| {name} | {limit} | {_rates(starts, jumps, len(series))} | {spent:.1f} |"


def _rates(starts: list[tuple[int, int]], jumps: dict[int, int], symbols: int) -> str:
    hits = sum(jumps.get(symbol) == start for symbol, start in starts)
    return f"{hits / len(jumps):.0%} | {(len(starts) - hits) / symbols:.2f}"


def real_logs(pattern: str = "*") -> Iterator[tuple[str, Log]]:
    """The tick files, those of several days one after the other."""
    files = sorted(path for path in SHARED.glob(pattern) if "minute" not in path.name and path.suffix != ".tsv")
    for name, group in itertools.groupby(sorted(files, key=_series), key=_series):
        yield name, log_of((raw for path in group for _, raw in raw_batches_from_file(path, 1)), {})


def _series(path: pathlib.Path) -> str:
    return " ".join(part for part in path.stem.split("_") if not part.isdigit())


def real_table() -> Iterator[str]:
    yield "| real ticks | ticks | bars | days | told |\n|---|--:|--:|--:|---|"
    for name, log in real_logs():
        replay = Replay(1)
        told = all_told(log, 1, replay)
        days = len(np.unique(log.timestamp // 86_400_000))
        yield f"| {name} | {len(log):,} | {replay.bars:,} | {days} | {_counts(told)} |"


def cost_table() -> Iterator[str]:
    yield "| cost, 2,000 symbols, batches of 10,000 | CPU-s per million |\n|---|--:|"
    log = simulated(9, symbols=2000, ticks=1_000_000, duration_ms=3_600_000)
    replay = Replay(2000)
    all_told(log, 2000, replay)
    yield f"| tick_anomalies, ticks | {replay.ticks_s / len(log) * 1e6:.3f} |"
    yield f"| bar_anomalies, bars | {replay.bars_s / replay.bars * 1e6:.2f} |"
    yield f"| bar_anomalies, spread over the ticks | {replay.bars_s / len(log) * 1e6:.3f} |"


def clean_table() -> Iterator[str]:
    yield "| session without anomalies | false alarms |\n|---|---|"
    for seed in range(1, CLEAN_SESSIONS + 1):
        yield f"| {seed} | {_counts(all_told(simulated(seed), SYMBOLS))} |"


def _counts(told: list[Told]) -> str:
    kinds = Counter(one.kind for one in told).most_common()
    return ", ".join(f"{count} {kind}" for kind, count in kinds) or "none"


def main() -> None:
    log, replay = simulated(100), Replay(SYMBOLS)
    injections = injected(log, 100)
    told = all_told(log, SYMBOLS, replay)
    tables = (
        clean_table(),
        recall_table(told, injections),
        precision_table(told, injections),
        peers_table(log, replay, told, injections),
        real_table(),
        cost_table(),
    )
    for table in tables:
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
