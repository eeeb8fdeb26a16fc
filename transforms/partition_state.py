"""What the stream remembers of one log partition, and its versioned bytes.

Four parts: `open` changes with every batch and is small.  `seen` gains identities, `usual` closed bars, `history`
sealed bars and symbols.  What these gain is far less than what they are (56 and 48 bytes a bar, for 840 and 474 a
symbol), so it can be kept beside them as `Changes`.  All are Arrow IPC: a job can be stopped and resumed by changed
code, and any Arrow reader can look inside.
"""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_pipelines.transforms.anomalies import Found, bar_anomalies
from beam_pipelines.transforms.bars import WindowBars
from beam_pipelines.transforms.batches import from_bytes, to_bytes
from beam_pipelines.transforms.closing_state import NEVER, NOTHING, ClosingState
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.duplicates import Identities, Seen
from beam_pipelines.transforms.indicators import Forming, History
from beam_pipelines.transforms.usual import ClosedBars, Usual

__all__ = ["NEVER", "Changes", "EncodedState", "PartitionState", "numbers_of"]

VERSION = 4  # 1 had no `begin` and no `copied`, 2 no `usual` and no `totals`, 3 no `Changes` but identities

Ints = NDArray[np.int64]


class EncodedState(NamedTuple):
    """A state as bytes."""

    open: bytes
    history: bytes
    seen: list[bytes]
    usual: bytes | None  # None: version 2 wrote it, which knew of no anomalies


class Changes(NamedTuple):
    """What the large parts of a state gained; each batch says itself what it comes after."""

    seen: Sequence[Identities] = ()
    history: Sequence[pa.RecordBatch] = ()  # symbols that appeared, with what they began with, and bars sealed
    usual: Sequence[pa.RecordBatch] = ()  # bars closed


class PartitionState:
    """All symbols of one partition, columnar.

    Args:
      bar_ms: length of the bars, ms.
      prior: where a symbol that appears has its history from.

    Attributes:
      bar_ms: length of the bars, ms.
      begin: ticks dated before are in the histories that the log began with, ms.
      symbols: column of each symbol, in order of first appearance in the log.
      sources: number of each source.
      newest: highest event time of the valid ticks so far, ms.
      log_time: log time of the last record whose tick was not too late, ms.
      boundary: bars that end here or earlier are closed, ms.
      sealed: indicators after the bars that no late tick can change any more.
      live: indicators after all closed bars.
      forming: what ticks need of `live`.
      windows: bars not sealed, by start in ms.
      waiting: ticks that wait for an earlier bar of their symbol to close; none: None.
      seen: identities of the ticks accepted lately.
      usual: what is usual of each symbol, from which anomalies differ.
      totals: records so far by what became of them, see `enrich`.
      copied: partitions of a log that this one is copied from → highest offset copied so far.
    """

    def __init__(self, bar_ms: int, prior: ClosingState = NOTHING) -> None:
        self.bar_ms = bar_ms
        self.begin = prior.until
        self._prior = prior
        self.symbols: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.newest = self.log_time = self.boundary = NEVER
        self.sealed = History.empty(0)
        self.live = History.empty(0)
        self.forming: Forming = self.live.forming()
        self.windows: dict[int, WindowBars] = {}
        self.waiting: pa.RecordBatch | None = None
        self.seen = Seen()
        self.usual = Usual.empty(0, bar_ms)
        self.totals: Counter[str] = Counter()
        self.copied: dict[str, int] = {}
        self._appeared_or_sealed: list[pa.RecordBatch] = []
        self._closed: list[pa.RecordBatch] = []

    def columns_of(self, symbol: pa.DictionaryArray) -> Ints:
        """Column of each tick's symbol; symbols not met before get the next ones."""
        columns = numbers_of(symbol, self.symbols)
        if len(self.symbols) > len(self.live):
            self._grow(len(self.symbols))
        return columns

    def numbers_of(self, source: pa.DictionaryArray) -> Ints:
        """Number of each tick's source."""
        return numbers_of(source, self.sources)

    def forget_sources(self) -> None:
        """Drops the sources of which no identity is remembered; whoever keeps the identities must write them anew."""
        names = list(self.sources)
        used = self.seen.sources()
        self.sources = {names[number]: new for new, number in enumerate(used.tolist())}
        self.seen.renumber_sources(used)

    def window(self, start: int) -> WindowBars:
        """The bars that start at `start`, ms."""
        if start not in self.windows:
            self.windows[start] = WindowBars.empty(len(self.symbols))
        return self.windows[start]

    def judge(self, bars: ClosedBars) -> Found:
        """The anomalies of bars that close; what is usual takes them in."""
        self._closed.append(bars.to_batch(spread=pa.array(self.usual.spread[bars.symbol])))
        return bar_anomalies(self.usual, bars)

    def seal(self, start: int) -> None:
        """Forgets the bars that start at `start` ms, but for what the indicators remember of them."""
        bars = _priced(start, self.windows.pop(start))
        self._appeared_or_sealed.append(bars.to_batch())
        _close(self.sealed, bars)

    def drain(self) -> Changes:
        """What the large parts gained since the last call."""
        changes = Changes(self.seen.drain(), self._appeared_or_sealed, self._closed)
        self._appeared_or_sealed, self._closed = [], []
        return changes

    def starts(self, since: int, before: int) -> list[int]:
        """Starts of the windows in [since, before), oldest first."""
        return sorted(start for start in self.windows if since <= start < before)

    def closing(self, until: int) -> tuple[list[str], History]:
        """The symbols and their histories after all bars that end by `until` ms, the open ones too.

        For a state that has not sealed any later bar: give a day's ticks alone to it.
        """
        history = self.sealed.copy()
        for start in self.starts(NEVER, until - self.bar_ms + 1):
            _close(history, _priced(start, self.windows[start]))
        return list(self.symbols), history

    def _grow(self, symbols: int) -> None:
        names = list(self.symbols)[len(self.live) :]
        more = self._prior.history_of(names)
        self._appeared_or_sealed.append(_histories(len(self.live), names, more))
        self.sealed, self.live = self.sealed.joined(more), self.live.joined(more)
        self.forming = self.live.forming()
        self.windows = {start: bars.grow(symbols) for start, bars in self.windows.items()}
        self.usual = self.usual.grown(symbols)

    def encode_open(self) -> bytes:
        """The part that changes with every batch."""
        scalars = {
            "version": VERSION,
            "bar_ms": self.bar_ms,
            "begin": self.begin,
            "newest": self.newest,
            "log_time": self.log_time,
            "boundary": self.boundary,
            "sources": list(self.sources),
            "copied": self.copied,
            "totals": self.totals,
        }
        windows = [to_bytes(_window_batch(start, bars)) for start, bars in sorted(self.windows.items())]
        waiting = [] if self.waiting is None else [to_bytes(self.waiting)]
        columns = {
            "windows": pa.array([windows], pa.list_(pa.binary())),
            "waiting": pa.array([waiting], pa.list_(pa.binary())),
            "quotes": pa.array([to_bytes(pa.record_batch(self.usual.tick_columns()))], pa.binary()),
        }
        return to_bytes(pa.record_batch(columns).replace_schema_metadata({"state": json.dumps(scalars)}))

    def encode_history(self) -> bytes:
        """What the indicators remember of sealed bars; with `Changes.history` since, the newest."""
        return to_bytes(_histories(0, list(self.symbols), self.sealed))

    def encode_usual(self) -> bytes:
        """What is usual after closed bars; with `Changes.usual` since, the newest."""
        return to_bytes(pa.record_batch(self.usual.to_columns()))

    def encode_seen(self) -> list[bytes]:
        """All identities remembered."""
        return [to_bytes(identities.to_batch()) for identities in self.seen.identities()]

    def encode(self) -> EncodedState:
        """The whole state."""
        return EncodedState(self.encode_open(), self.encode_history(), self.encode_seen(), self.encode_usual())

    @classmethod
    def decode(
        cls, encoded: EncodedState, bar_ms: int, prior: ClosingState = NOTHING, since: Changes | None = None
    ) -> "PartitionState":
        """The state of `encode`, or of its newest `open` and what the other parts gained `since` they were encoded.

        `prior` is for the symbols that it has not met.

        Raises:
          ValueError: if it was written by a newer version, for bars of another length, or began with another prior.
        """
        opened = from_bytes(encoded.open)
        scalars = json.loads(opened.schema.metadata[b"state"])
        begin = scalars.get("begin", NEVER)
        _check(scalars, bar_ms)
        _check_prior(begin, prior)
        state = cls(bar_ms, prior)
        state.begin = begin
        state.newest, state.log_time, state.boundary = scalars["newest"], scalars["log_time"], scalars["boundary"]
        state.sources = {source: number for number, source in enumerate(scalars["sources"])}
        state.copied = scalars.get("copied", {})
        state.totals = Counter(scalars.get("totals", {}))
        since = since or Changes()
        for change in sorted([from_bytes(encoded.history), *since.history], key=_turn):
            state._take_change(change)
        state._restore(opened, encoded, since)
        return state

    def _take_change(self, change: pa.RecordBatch) -> None:
        """Lets `sealed` take in what one of `Changes.history` holds."""
        if b"start" in change.schema.metadata:
            _close(self.sealed, ClosedBars.from_batch(change))
            return
        symbols = change["symbol"].to_pylist()
        self.symbols |= {symbol: column for column, symbol in enumerate(symbols, len(self.symbols))}
        self.sealed = self.sealed.joined(History.from_columns(change))

    def _restore(self, opened: pa.RecordBatch, encoded: EncodedState, since: Changes) -> None:
        for window in opened["windows"][0].as_py():
            batch = from_bytes(window)
            self.windows[int(batch.schema.metadata[b"start"])] = WindowBars.from_columns(batch, len(self.symbols))
        for waiting in opened["waiting"][0].as_py():
            self.waiting = from_bytes(waiting)
        for identities in (*(Identities.from_batch(from_bytes(it)) for it in encoded.seen), *since.seen):
            self.seen.add(identities)
        self.seen.drain()
        self.live = self.sealed.copy()
        for start in self.starts(NEVER, self.boundary):
            _close(self.live, _priced(start, self.windows[start]))
        self.forming = self.live.forming()
        self._restore_usual(opened, encoded.usual, since)

    def _restore_usual(self, opened: pa.RecordBatch, usual: bytes | None, since: Changes) -> None:
        known = Usual.from_columns(from_bytes(usual), self.bar_ms) if usual else Usual.empty(0, self.bar_ms)
        self.usual = known.grown(len(self.symbols))
        for change in sorted(since.usual, key=_turn):
            bars = ClosedBars.from_batch(change)
            self.usual.spread[bars.symbol] = change["spread"].to_numpy()
            bar_anomalies(self.usual, bars)
        if "quotes" in opened.schema.names:
            self.usual.put_ticks(from_bytes(opened["quotes"][0].as_py()))


def _priced(start: int, bars: WindowBars) -> ClosedBars:
    """Those of one window that have a price; the others do not count for indicators."""
    return ClosedBars.of(start, np.arange(len(bars)), bars)


def _close(history: History, bars: ClosedBars) -> None:
    history.extend(bars.symbol, bars.high, bars.low, bars.close)


def _histories(first: int, symbols: list[str], history: History) -> pa.RecordBatch:
    """The symbols from column `first` on, with what the indicators remember of each."""
    columns = {"symbol": pa.array(symbols, pa.string())} | history.to_columns()
    return pa.record_batch(columns).replace_schema_metadata({"first": str(first)})


def _turn(change: pa.RecordBatch) -> tuple[int, int]:
    """Symbols come before bars, which may be theirs, and bars in the order of their windows."""
    marks = change.schema.metadata or {}
    return (1, int(marks[b"start"])) if b"start" in marks else (0, int(marks.get(b"first", 0)))


def _check(scalars: dict[str, Any], bar_ms: int) -> None:
    if scalars["version"] > VERSION:
        raise ValueError(
            f"the saved state has version {scalars['version']}, this code reads up to {VERSION}: use a newer release"
        )
    if scalars["bar_ms"] != bar_ms:
        raise ValueError(
            f"the saved state holds bars of {scalars['bar_ms'] // 1000} s, --bar_seconds asks for {bar_ms // 1000}: "
            "keep the length, or start a new job without the saved state"
        )


def _check_prior(begin: int, prior: ClosingState) -> None:
    if prior.until not in (begin, NEVER):
        began = "none" if begin == NEVER else f"the one up to {_utc(begin)}"
        raise ValueError(
            f"the saved state began with another closing state ({began}) than the one up to {_utc(prior.until)} that "
            "--start_state names: name that, leave it out, or start a new job without the saved state"
        )


def _utc(ms: int) -> str:
    return f"{np.datetime64(ms, 'ms')}Z"


def _window_batch(start: int, bars: WindowBars) -> pa.RecordBatch:
    return pa.record_batch(bars.to_columns()).replace_schema_metadata({"start": str(start)})


def numbers_of(names: pa.DictionaryArray, known: dict[str, int]) -> Ints:
    """Number of each name in `known`, which gains the new ones in the order in which they appear."""
    values, indices = to_list(names.dictionary), names.indices.to_numpy()
    numbers = np.array(list(map(known.get, values, itertools.repeat(-1))), np.int64)[indices]
    if (numbers >= 0).all():  # what is in the dictionary but in no row stays unknown
        return numbers
    for index in pc.unique(names.indices).to_pylist():  # not the dictionary's order: that may depend on batching
        known.setdefault(values[index], len(known))
    return numbers_of(names, known)
