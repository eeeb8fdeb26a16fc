"""The kernel: the next ticks of one partition, in offset order, become enriched ticks and bars.

`advance` is a function of the log: for every split of a log into batches the outputs, put together, are the same rows
in the same order, and `advance(advance(s, a), b)` leaves the state of `advance(s, a + b)`.

The clock of a partition is its highest event time so far less the bound on disorder.  It cuts the records of a batch
into segments in which no bar closes; within a segment everything is done for all ticks at once.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.anomalies import Found, tick_anomalies
from beam_pipelines.transforms.anomaly_rows import anomaly_rows
from beam_pipelines.transforms.bars import Prints, WindowBars, by_symbol
from beam_pipelines.transforms.batches import ANOMALIES, BARS, ENRICHED, TICKS, empty, joined
from beam_pipelines.transforms.columns import to_column
from beam_pipelines.transforms.duplicates import Identities
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS, Forming, History
from beam_pipelines.transforms.partition_state import NEVER, PartitionState
from beam_pipelines.transforms.usual import ClosedBars

__all__ = ["FOREVER", "Advanced", "Semantics", "advance", "provisional"]

FOREVER = np.iinfo(np.int64).max // 4  # after any time
_NOW = -1  # instead of the row that an emission is due to: it is due to no record
_PRINT = ("timestamp", "seq", "price", "volume", "updates")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Semantics:
    """The options that the meaning of the outputs depends on; all in ms of event time."""

    bar_ms: int = 60_000
    out_of_orderness_ms: int = 1_000
    allowed_lateness_ms: int = 60_000
    dedup_ms: int = 60_000
    max_future_ms: int = 60_000

    def __post_init__(self) -> None:
        if self.bar_ms < 1000 or self.bar_ms % 1000:
            raise UsageError(f"--bar_seconds must be a whole number of seconds from 1, not {self.bar_ms / 1000:g}")
        for name in ("out_of_orderness_ms", "dedup_ms", "max_future_ms"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} must be 0 or more, not {getattr(self, name)}")
        if self.allowed_lateness_ms < self.bar_ms:
            raise UsageError(
                f"--allowed_lateness_ms must be at least one bar ({self.bar_ms}), not {self.allowed_lateness_ms}"
            )
        if self.max_future_ms > self.allowed_lateness_ms:
            raise UsageError(
                f"--max_future_ms must be at most --allowed_lateness_ms ({self.allowed_lateness_ms}), "
                f"not {self.max_future_ms}: a wrong clock at one source could make the others' ticks too late"
            )


class Advanced(NamedTuple):
    """What a step gave; rows are in the order of emission."""

    ticks: pa.RecordBatch  # ENRICHED
    bars: pa.RecordBatch  # BARS
    anomalies: pa.RecordBatch  # ANOMALIES
    too_late: Rows  # rows of the input that came too late
    behind_ms: Ints  # how far each of them is behind the clock
    duplicates: Rows  # rows of the input that repeat an earlier tick
    before_begin: Rows  # rows of the input that are in the histories which the state began with


def advance(state: PartitionState, ticks: pa.RecordBatch, semantics: Semantics) -> Advanced:
    """Takes the next valid ticks (TICKS, in offset order) of a partition into `state`, which is changed in place."""
    with np.errstate(over="ignore", invalid="ignore"):  # prices near 1e308 are valid; what overflows is written as null
        return _advance(state, ticks, semantics)


def _advance(state: PartitionState, ticks: pa.RecordBatch, semantics: Semantics) -> Advanced:
    step = _Step(state, ticks, semantics)
    first, timestamp = step.known, step.prints.timestamp[step.known :]
    newest = np.maximum.accumulate(np.maximum(timestamp, state.newest))
    clock = newest - semantics.out_of_orderness_ms
    boundary = clock // semantics.bar_ms * semantics.bar_ms
    too_late = timestamp < clock - semantics.allowed_lateness_ms
    before = timestamp < state.begin
    duplicate = step.repeats(clock, ~(too_late | before))
    kept = np.flatnonzero(~(too_late | before | duplicate))
    crossings = np.flatnonzero(np.diff(boundary, prepend=state.boundary) > 0)
    edges = np.unique(np.concatenate([[0], crossings, [len(timestamp)]]))
    for begin, end in itertools.pairwise(edges):
        if boundary[begin] > state.boundary:
            step.close_until(int(boundary[begin]), int(clock[begin]), first + int(begin))
        step.take_in(first + kept[slice(*np.searchsorted(kept, [begin, end]))])
    if len(timestamp):
        state.newest = int(newest[-1])
    in_time = np.flatnonzero(~(too_late | before))
    if len(in_time):
        state.log_time = int(step.log_time[first + in_time[-1]])
    state.waiting = step.play.take(pa.array(step.waiting)) if len(step.waiting) else None
    late_rows = np.flatnonzero(too_late)
    behind = (clock - timestamp)[late_rows]
    repeats, begun = np.flatnonzero(duplicate), np.flatnonzero(before & ~too_late)
    return Advanced(step.ticks(), step.bars(True), step.anomalies(), late_rows, behind, repeats, begun)


def provisional(state: PartitionState, until: int, told: int, semantics: Semantics, final: bool = False) -> Advanced:
    """What would come out if all bars that end by `until` ms closed now, less those that end by `told`.

    Changes nothing.  The bars are not `final` as long as the log may bring more, which overwrites them.
    """
    step = _Step(state, empty(TICKS), semantics)
    live, bar_ms = state.live.copy(), semantics.bar_ms
    closed, known = (max(state.boundary, when // bar_ms * bar_ms) for when in (until, told))
    fresh = step.waiting[~step.is_free(step.waiting, known)]
    for start in state.starts(state.boundary, closed):
        step.emit(fresh[step.start[fresh] == start], live.forming(), _NOW)
        bars = step.close_window(start, live)
        if start >= known:
            step.emit_bars(*bars, _NOW)
    later = fresh[(step.start[fresh] >= closed) & step.is_free(fresh, closed)]
    step.emit(later, live.forming(), _NOW)
    none = np.empty(0, np.int64)
    return Advanced(step.ticks(), step.bars(final), empty(ANOMALIES), none, none, none, none)


class _Step:
    """One call of the kernel: the waiting ticks and the new ones side by side, as arrays; `row` counts through both."""

    def __init__(self, state: PartitionState, ticks: pa.RecordBatch, semantics: Semantics) -> None:
        self.state, self.semantics = state, semantics
        self.known = 0 if state.waiting is None else len(state.waiting)
        self.play = ticks if state.waiting is None else joined([state.waiting, ticks])
        numbers = {name: self.play[name].to_numpy() for name in _PRINT}
        self.prints = Prints(state.columns_of(self.play["symbol"]), **numbers)
        self.start = self.prints.timestamp // semantics.bar_ms * semantics.bar_ms
        self.quotes = [self.play[name].to_numpy(zero_copy_only=False) for name in ("bid", "ask")]
        self.log_time = self.play["log_time"].to_numpy()
        self.waiting: Rows = np.arange(self.known)
        self._ticks: list[tuple[Rows, Rows, Floats, bool]] = []
        self._bars: list[dict[str, NDArray[np.generic]]] = []
        self._anomalies: list[tuple[Found, Rows]] = []

    def repeats(self, clock: Ints, eligible: Mask) -> Mask:
        """Which new ticks repeat an earlier one of the last `dedup_ms` behind the clock; the others are remembered."""
        repeated = np.zeros(len(clock), bool)
        if not self.semantics.dedup_ms or not len(clock):
            return repeated
        symbol, timestamp, seq = (
            values[self.known :] for values in (self.prints.symbol, self.prints.timestamp, self.prints.seq)
        )
        source = self.state.numbers_of(self.play["source"])[self.known :]
        rows = np.flatnonzero(eligible & (timestamp >= clock - self.semantics.dedup_ms))
        ticks = Identities(symbol[rows], source[rows], timestamp[rows], seq[rows])
        repeated[rows] = self.state.seen.repeats(ticks)
        self.state.seen.forget(int(clock[-1]) - self.semantics.dedup_ms)
        self.state.seen.add(ticks.take(~repeated[rows]))
        return repeated

    def close_until(self, boundary: int, clock: int, at: int) -> None:
        """Closes the bars that end by `boundary`, because of row `at`, and lets go the ticks that waited for them."""
        state = self.state
        for start in state.starts(state.boundary, boundary):
            self.release(self.waiting[self.start[self.waiting] == start], state.live.forming, at)
            closed = self.close_window(start, state.live)
            self.emit_bars(*closed, at)
            self.judge_bars(*closed[:3], at)
        state.boundary = boundary
        state.forming = state.live.forming()
        self.release(self.waiting[self.is_free(self.waiting, boundary)], lambda: state.forming, at)
        self._seal(clock - self.semantics.allowed_lateness_ms)

    def close_window(self, start: int, history: History) -> tuple[int, Ints, WindowBars, Floats]:
        """Start, symbols, bars and indicators (shape [10, bars]) of one window, which `history` takes in."""
        columns = np.flatnonzero(self.state.windows[start].count)
        bars = self.state.windows[start].take(columns)
        return start, columns, bars, _fold(history, columns, bars)

    def judge_bars(self, start: int, columns: Ints, bars: WindowBars, at: int) -> None:
        """Tells the anomalies of bars that close because of row `at`; what is usual takes them in."""
        found = self.state.judge(ClosedBars.of(start, columns, bars))
        self._anomalies.append((found, np.full(len(found), at)))

    def judge_ticks(self, rows: Rows) -> None:
        """Tells the anomalies of new ticks, none of them late, between which no bar closes."""
        prints = self.prints.take(rows)
        bid, ask = (values[rows] for values in self.quotes)
        found = tick_anomalies(
            self.state.usual, prints.symbol, self.start[rows], prints.price, bid, ask, prints.updates
        )
        self._anomalies.append((found, rows[found.row]))

    def _seal(self, before: int) -> None:
        """Forgets the bars that no late tick can change: those that end by `before`."""
        for start in self.state.starts(NEVER, before - self.semantics.bar_ms + 1):
            self.state.seal(start)
        self.state.usual.forget(before)

    def is_free(self, rows: Rows, since: int) -> Mask:
        """Whether no window from `since` on holds an earlier bar of the symbol of each of `rows`."""
        earliest = self._earliest(since)
        free: Mask = earliest[self.prints.symbol[rows]] >= self.start[rows]
        return free

    def _earliest(self, since: int) -> Ints:
        """Start of the oldest bar of each symbol from `since` on."""
        earliest = np.full(len(self.state.symbols), FOREVER)
        for start in reversed(self.state.starts(since, FOREVER)):
            earliest[self.state.windows[start].count > 0] = start
        return earliest

    def take_in(self, rows: Rows) -> None:
        """Takes in new ticks between which no bar closes."""
        late = self.start[rows] < self.state.boundary
        on_time = rows[~late]
        self.judge_ticks(on_time)
        waits = self._waits(on_time)
        for start in np.unique(self.start[on_time]):
            self.state.window(int(start)).add(self.prints.take(on_time[self.start[on_time] == start]))
        self.waiting = np.concatenate([self.waiting, on_time[waits]])
        if not late.any():
            self.emit(on_time[~waits], self.state.forming, None)
            return
        leaves = ~late
        leaves[leaves] = ~waits
        turn = _turns(self.prints.symbol[rows], late)
        for number in range(int(turn.max()) + 1):  # ticks after a late one of their symbol see the closes it revised
            self.emit(rows[(turn == number) & leaves], self.state.forming, None)
            self.revise(rows[(turn == number) & late])

    def _waits(self, rows: Rows) -> Mask:
        """Which on-time ticks of one segment have an earlier open bar of their symbol, be it of this segment."""
        start, symbol = self.start[rows], self.prints.symbol[rows]
        waits = np.zeros(len(rows), bool)
        if not len(rows) or start.max() <= self.state.boundary:
            return waits
        oldest = np.minimum(self._earliest(self.state.boundary)[symbol], start)
        order = by_symbol(symbol)
        group = np.cumsum(np.diff(symbol[order], prepend=symbol[order[0]]) != 0)
        fall = group * (oldest.max() - oldest.min() + 1)  # keeps the running minimum of each symbol to itself
        waits[order] = np.minimum.accumulate(oldest[order] - fall) + fall < start[order]
        return waits

    def revise(self, rows: Rows) -> None:
        """Takes in late ticks, at most one a symbol: emits them, their bars, and later bars whose indicators change."""
        if not len(rows):
            return
        state, columns, own = self.state, self.prints.symbol[rows], self.start[rows]
        for start in np.unique(own):
            state.window(int(start))
        closed = state.starts(NEVER, state.boundary)
        before, old, _ = self._refold(columns, closed, own)
        values = before.forming().indicators(np.arange(len(rows)), self.prints.price[rows])
        self._ticks.append((rows, rows, values, True))
        existed = np.array([state.windows[int(s)].count[c] > 0 for s, c in zip(own, columns, strict=True)])
        for start in np.unique(own):
            state.windows[int(start)].add(self.prints.take(rows[own == start]))
        _, new, live = self._refold(columns, closed, own)
        for start in closed:
            window = state.windows[start]
            moved = (old[start] != new[start]) & ~(np.isnan(old[start]) & np.isnan(new[start]))
            again = (own == start) | ((own < start) & (window.count[columns] > 0) & moved.any(axis=0))
            window.revision[columns[again]] += np.where(own == start, existed, True)[again]
            self.emit_bars(start, columns[again], window.take(columns[again]), new[start][:, again], rows[again])
        state.live.put(columns, live)
        state.forming.put(columns, live.forming())

    def _refold(self, columns: Ints, closed: list[int], own: Ints) -> tuple[History, dict[int, Floats], History]:
        """History before the bar `own` of each of `columns`, indicators of all closed bars, history after them."""
        history = self.state.sealed.take(columns)
        before = History.empty(len(columns))
        values: dict[int, Floats] = {}
        for start in closed:
            here = np.flatnonzero(own == start)
            before.put(here, history.take(here))
            values[start] = _fold(history, np.arange(len(columns)), self.state.windows[start].take(columns))
        return before, values, history

    def release(self, rows: Rows, forming: Callable[[], Forming], at: int) -> None:
        """Emits waiting ticks because of row `at`."""
        if len(rows):
            self.emit(rows, forming(), at)
            self.waiting = np.setdiff1d(self.waiting, rows, assume_unique=True)

    def emit(self, rows: Rows, forming: Forming, at: int | None) -> None:
        """Emits ticks because of row `at`; None: each because of itself."""
        if len(rows):
            values = forming.indicators(self.prints.symbol[rows], self.prints.price[rows])
            self._ticks.append((rows, rows if at is None else np.full(len(rows), at), values, False))

    def emit_bars(self, start: int, columns: Ints, bars: WindowBars, values: Floats, at: int | Rows) -> None:
        """Emits bars of one window because of the row or rows `at`."""
        self._bars.append(
            {"symbol": columns, "time": np.full(len(columns), start), "at": np.broadcast_to(at, columns.shape)}
            | {"trade_count": bars.count, "volume": bars.volume, "revision": bars.revision}
            | bars.prices()
            | dict(zip(BAR_INDICATORS, values, strict=True))
        )

    def ticks(self) -> pa.RecordBatch:
        """The ticks emitted, ENRICHED, in the order of emission."""
        if not self._ticks:
            return empty(ENRICHED)
        rows, at = (np.concatenate([part[index] for part in self._ticks]) for index in (0, 1))
        values = np.concatenate([part[2] for part in self._ticks], axis=1)
        late = np.concatenate([np.full(len(part[0]), part[3]) for part in self._ticks])
        order = np.lexsort((rows, at))
        rows, at = rows[order], at[order]
        whole = len(rows) == len(self.play) and bool((rows == np.arange(len(rows))).all())
        columns = dict(zip(TICKS.names, (self.play if whole else self.play.take(pa.array(rows))).columns, strict=True))
        columns |= {
            name: to_column(row[order], pa.float64()) for name, row in zip(TICK_INDICATORS, values, strict=True)
        }
        columns["late"] = pa.array(late[order])
        columns["processed_at"] = pa.array(np.where(at == _NOW, self.state.log_time, self.log_time[at]))
        return pa.RecordBatch.from_arrays([columns[name] for name in ENRICHED.names], schema=ENRICHED)

    def anomalies(self) -> pa.RecordBatch:
        """The anomalies told, ANOMALIES, in the order of the log."""
        return anomaly_rows(self._anomalies, list(self.state.symbols), self.semantics.bar_ms, self.play)

    def bars(self, final: bool) -> pa.RecordBatch:
        """The bars emitted, BARS, in the order of emission."""
        if not self._bars:
            return empty(BARS)
        rows = {name: np.concatenate([part[name] for part in self._bars]) for name in self._bars[0]}
        order = np.lexsort((rows["symbol"], rows["time"], rows["at"]))
        rows = {name: values[order] for name, values in rows.items()}
        names = list(self.state.symbols)
        rows["symbol"] = pa.array([names[column] for column in rows["symbol"]], pa.string()).dictionary_encode()
        rows["bar_seconds"] = np.full(len(order), self.semantics.bar_ms // 1000)
        rows["is_final"] = np.full(len(order), final)
        arrays = [to_column(rows[field.name], field.type) for field in BARS]
        return pa.RecordBatch.from_arrays(arrays, schema=BARS)


def _fold(history: History, columns: Ints, bars: WindowBars) -> Floats:
    """Indicators of `bars`, shape [10, bars], which `history` takes in; NaN for a bar without prices."""
    values = np.full((len(BAR_INDICATORS), len(columns)), np.nan)
    priced = np.flatnonzero(bars.priced)
    prices = bars.take(priced).prices()
    values[:, priced] = history.close(columns[priced], prices["high"], prices["low"], prices["close"])
    return values


def _turns(symbol: Ints, late: Mask) -> Ints:
    """How many late ticks of the same symbol stand before each; shape [ticks]."""
    order = by_symbol(symbol)
    before: Ints = np.cumsum(late[order]) - late[order]
    first = np.diff(symbol[order], prepend=-1) != 0
    turn = np.empty(len(symbol), np.int64)
    turn[order] = before - before[first][np.cumsum(first) - 1]
    return turn
