"""All that is counted and usual in a partition, as one state."""

import json
from dataclasses import asdict

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import from_bytes, to_bytes, to_fewer_bytes
from beam_pipelines.transforms.completeness.checks import MINUTE_MS, Check
from beam_pipelines.transforms.completeness.clock_skew import ClockSkew
from beam_pipelines.transforms.completeness.counts import Counts
from beam_pipelines.transforms.completeness.names import Names
from beam_pipelines.transforms.completeness.pieces import Piece
from beam_pipelines.transforms.completeness.schemas import Schemas
from beam_pipelines.transforms.completeness.sequences import Sequences
from beam_pipelines.transforms.completeness.silence import Silence
from beam_pipelines.transforms.completeness.volume import LEVELS, Volume
from beam_pipelines.transforms.sessions import DEFAULT, Calendars

Ints = NDArray[np.int64]

MOST_SYMBOLS, MOST_SOURCES = 16_384, 64
_VERSION = 1


class Completeness:
    """What was counted in the open minute of a partition, and what is usual.

    Args:
      calendars: by which a symbol trades.

    Attributes:
      clock: Kafka time of the partition so far, ms; -1 before the first record that has a time.
    """

    def __init__(self, calendars: Calendars = DEFAULT) -> None:
        self.clock = -1
        self._counts = Counts()
        self._volume = Volume()
        self._symbols, self._sources = Names(MOST_SYMBOLS), Names(MOST_SOURCES)
        self._sequences, self._skew, self._schemas = Sequences(), ClockSkew(), Schemas()
        self._silence = Silence(calendars)

    def take(self, taken: Piece) -> list[Check]:
        """Takes in the next records of the partition; gives the checks of the minutes that they end."""
        checks: list[Check] = []
        for minute, piece in taken.by_minute(self.clock):
            if 0 <= self._minute < minute:
                checks += self._close(minute)
            self.clock = max(self.clock, minute * MINUTE_MS)
            self._add(piece)
        self.clock = int(taken.times()[1].max(initial=self.clock))
        return checks

    @property
    def wants_values(self) -> bool:
        """Whether the bytes of more records of the open minute are looked at."""
        return self._schemas.wanting

    def idle(self, now: int) -> list[Check]:
        """The checks of silence and volume of the last minute that is over, if nothing comes by `now`; changes nothing.

        The log may bring others for the same minute later, which take their place.  A silence is told in the minute in
        which it becomes one, so call this once a minute at least.

        Args:
          now: Kafka time plus how long nothing came, ms.
        """
        minute = now // MINUTE_MS - 1  # the last that is over
        if not 0 <= self._minute < minute:
            return []
        volume = self._volume.copy()
        volume.close(self._minute, self._counts.records)
        empty = volume.pass_over(self._minute + 1, minute + 1)
        silence = self._silence.at(minute, self._minute, self._symbols)
        return [*(check for check in empty if check.window == silence.window), silence]

    @property
    def _minute(self) -> int:
        return self.clock // MINUTE_MS

    def _add(self, piece: Piece) -> None:
        self._counts.add(piece)
        ticks = piece.ticks
        if not len(ticks):
            return
        symbol, source = self._symbols.take_in(ticks["symbol"]), self._sources.take_in(ticks["source"])
        self._schemas.add(piece, source, self._sources)
        numbers = {name: ticks[name].to_numpy() for name in ("seq", "offset", "timestamp", "log_time")}
        if self._symbols.full or self._sources.full or len(piece.duplicates):
            rows = (symbol >= 0) & (source >= 0)
            rows[np.searchsorted(numbers["offset"], piece.duplicates)] = False
            symbol, source, numbers = symbol[rows], source[rows], {name: n[rows] for name, n in numbers.items()}
        if len(symbol):
            self._skew.add(source, numbers["log_time"] - numbers["timestamp"], len(self._sources))
            shape = (len(self._sources), len(self._symbols))
            self._sequences.add(source, symbol, numbers["seq"], numbers["offset"], shape)

    def _close(self, following: int) -> list[Check]:
        """Ends the open minute; `following` is the next that has records."""
        minute, sources, symbols = self._minute, self._sources.words(), self._symbols.words()
        checks = [
            self._volume.close(minute, self._counts.records),
            *self._counts.checks(minute),
            self._sequences.close(minute, sources, symbols),
            self._schemas.close(minute),
            self._skew.close(minute, sources),
            self._silence.close(minute, self._symbols),
        ]
        checks += self._volume.pass_over(minute + 1, following)
        self._counts = Counts()
        kept_sources, kept_symbols = self._sources.close(minute), self._symbols.close(minute)
        if kept_sources is not None or kept_symbols is not None:
            self._forget(kept_sources, kept_symbols)
        return checks

    def _forget(self, sources: Ints | None, symbols: Ints | None) -> None:
        """Keeps these columns only; None: all."""
        sources = np.arange(len(self._sources)) if sources is None else sources
        symbols = np.arange(len(self._symbols)) if symbols is None else symbols
        self._silence.keep(symbols)
        self._sequences.keep(sources, symbols)
        for learnt in (self._sequences.learnt, self._skew.medians, self._schemas.known):
            for name in set(learnt) - set(self._sources.words()):
                del learnt[name]

    def encode(self) -> bytes:
        """The whole state; `decode` makes it again."""
        scalars = {
            "version": _VERSION,
            "clock": self.clock,
            "counts": asdict(self._counts),
            "sources": self._sources.to_lists(),
            "learnt": self._sequences.learnt,
            "skew": self._skew.to_lists(len(self._sources)),
            "medians": self._skew.medians,
            "schemas": self._schemas.to_dict(),
        }
        parts = {
            "symbols": pa.record_batch(self._symbols.to_columns() | self._silence.to_columns(len(self._symbols))),
            "pairs": pa.record_batch(self._sequences.to_columns()),
            "levels": pa.record_batch({"level": self._volume.levels.ravel()}),
        }
        columns = {name: pa.array([to_fewer_bytes(part)], pa.binary()) for name, part in parts.items()}
        return to_bytes(pa.record_batch(columns).replace_schema_metadata({"state": msgspec.json.encode(scalars)}))

    @classmethod
    def decode(cls, encoded: bytes, calendars: Calendars = DEFAULT) -> "Completeness":
        """The state that `encode` wrote.

        Raises:
          ValueError: if a newer version wrote it.
        """
        whole = from_bytes(encoded)
        scalars = json.loads(whole.schema.metadata[b"state"])
        if scalars["version"] > _VERSION:
            raise ValueError(
                f"the saved completeness has version {scalars['version']}, this code reads up to {_VERSION}: "
                "use a newer release"
            )
        symbols, pairs, levels = (from_bytes(whole[name][0].as_py()) for name in ("symbols", "pairs", "levels"))
        state = cls(calendars)
        state.clock = scalars["clock"]
        state._counts = Counts(**scalars["counts"])
        state._volume = Volume(levels["level"].to_numpy().reshape(LEVELS, 6).copy())
        state._symbols.restore(*(symbols[name].to_numpy(zero_copy_only=False) for name in Names.COLUMNS))
        state._sources.restore(*scalars["sources"])
        state._silence.restore(symbols)
        state._sequences.restore(scalars["learnt"], pairs, (len(state._sources), len(state._symbols)))
        state._skew.restore(scalars["skew"], scalars["medians"], len(state._sources))
        state._schemas.restore(scalars["schemas"])
        return state
