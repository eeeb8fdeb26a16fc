"""A simulated trading session: the same seed gives the same bytes, on any machine.

Arrivals follow the day's U shape with self-exciting bursts, symbols are traded by Zipf's law, prices are random walks
on a tick grid with a spread around them, sizes are lognormal in round lots.  Disorder, lateness, duplicates, ties and
bad records come in the shares asked for, and every record says what it is (`kind`), so that sinks can be reconciled.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.bad_records import BAD_RECORDS
from beam_pipelines.session import Session
from beam_pipelines.trading import SLOT_MS, Bits, Ints, Market, arrivals, blocks, falls_in, pick, ticks_of
from beam_pipelines.transforms import records as keyed
from beam_pipelines.transforms.json_rows import json_rows

__all__ = ["KINDS", "Ledger", "Session", "raw_batches", "records"]

KINDS = ("in_order", "disordered", "late", "too_late", "duplicate", *dict.fromkeys(bad.reason for bad in BAD_RECORDS))
"""What a simulated record can be; the first four are valid ticks, each sent once, those after `duplicate` are bad."""
_IN_ORDER, _DISORDERED, _LATE, _TOO_LATE, _DUPLICATE = range(5)

_DRAWS = 7  # random words a tick
_MOST_DUPLICATE_MS = 5000


@dataclasses.dataclass
class Ledger:
    """What was sent: how many records of each kind."""

    kinds: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts the records of one RECORDS batch."""
        for count in pc.value_counts(batch["kind"]).to_pylist():
            self.kinds[count["values"]] += count["counts"]

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> "Ledger":
        """The ledger of RECORDS batches."""
        ledger = cls()
        for batch in batches:
            ledger.add(batch)
        return ledger

    @property
    def valid(self) -> int:
        """Distinct valid ticks, the too late ones included."""
        return sum(self.kinds[kind] for kind in KINDS[:_DUPLICATE])

    @property
    def duplicates(self) -> int:
        """Ticks sent a second time."""
        return self.kinds[KINDS[_DUPLICATE]]

    @property
    def bad(self) -> dict[str, int]:
        """Bad records by the reason for which each must be rejected."""
        return {kind: self.kinds[kind] for kind in KINDS[_DUPLICATE + 1 :] if self.kinds[kind]}


def records(session: Session) -> Iterator[pa.RecordBatch]:
    """The session's records in order of arrival, as RECORDS batches of some ten thousands."""
    market = Market(session)
    waiting = _Sent.nothing()
    for first_slot, counts in blocks(session):
        if counts.any():
            waiting = waiting.joined(_sent(session, market, first_slot, counts))
        reached = session.start_ms + (first_slot + len(counts)) * SLOT_MS
        ready, waiting = waiting.split(reached)  # what is still to come arrives at `reached` or later
        yield ready.batch(market.keys)
    ready, _ = waiting.split(None)
    yield ready.batch(market.keys)


def raw_batches(
    session: Session, partitions: int, batch_rows: int = 10_000, topic: str = "simulated"
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The session as the log that it would be in Kafka: (partition, RAW batch with span); timestamps are arrivals."""
    return keyed.raw_batches(records(session), topic, partitions, batch_rows)


@dataclasses.dataclass
class _Sent:
    """Records with the time of their arrival; symbols and kinds as indices."""

    time: Ints
    symbol: Ints
    value: pa.Array
    kind: Ints

    @classmethod
    def nothing(cls) -> "_Sent":
        none = np.zeros(0, np.int64)
        return cls(none, none, pa.array([], pa.binary()), none)

    def joined(self, other: "_Sent") -> "_Sent":
        return _Sent(
            np.concatenate([self.time, other.time]),
            np.concatenate([self.symbol, other.symbol]),
            pa.concat_arrays([self.value, other.value]),
            np.concatenate([self.kind, other.kind]),
        )

    def take(self, rows: Ints) -> "_Sent":
        return _Sent(self.time[rows], self.symbol[rows], self.value.take(pa.array(rows)), self.kind[rows])

    def split(self, reached: int | None) -> tuple["_Sent", "_Sent"]:
        """Those that arrive before `reached` in order of arrival, and the others."""
        ready = np.ones(len(self.time), bool) if reached is None else self.time < reached
        order = np.flatnonzero(ready)
        return self.take(order[np.argsort(self.time[order], kind="stable")]), self.take(np.flatnonzero(~ready))

    def batch(self, keys: pa.Array) -> pa.RecordBatch:
        """As a RECORDS batch."""
        key = pa.DictionaryArray.from_arrays(self.symbol.astype(np.int32), keys)
        kind = pa.DictionaryArray.from_arrays(self.kind.astype(np.int32), pa.array(KINDS))
        return pa.RecordBatch.from_arrays([pa.array(self.time), key, self.value, kind], schema=keyed.RECORDS)


def _sent(session: Session, market: Market, first_slot: int, counts: Ints) -> _Sent:
    """Everything whose origin lies in the given slots."""
    n = int(counts.sum())
    source = np.random.PCG64(np.random.SeedSequence([session.seed, 1, first_slot]))
    draws = source.random_raw(_DRAWS * n).reshape(_DRAWS, n)
    timestamp, symbol = arrivals(session, market, first_slot, counts, draws[0], draws[1])
    values = json_rows(ticks_of(session, market, timestamp, symbol, draws[2], draws[3]))
    delay, kind = _delays(session, draws[4])
    ticks = _Sent(timestamp + delay, symbol, values, kind)
    return ticks.joined(_duplicates(session, ticks, draws[5])).joined(_bad(session, ticks, draws[6]))


def _delays(session: Session, bits: Bits) -> tuple[Ints, Ints]:
    """How long each tick is on its way, ms, and its kind."""
    bound, lateness = session.out_of_orderness_ms, session.allowed_lateness_ms
    kind = np.full(len(bits), _IN_ORDER)
    delay = np.zeros(len(bits), np.int64)
    left = 0.0
    for code, share, least, most in (
        (_DISORDERED, session.disorder, 1, session.max_delay_ms),
        (_LATE, session.late, bound + 1, bound + lateness),
        (_TOO_LATE, session.too_late, bound + 2 * lateness, bound + 3 * lateness),
    ):
        rows = falls_in(bits, left + share) & ~falls_in(bits, left)
        kind[rows] = code
        delay[rows] = least + pick(bits[rows], most - least + 1)
        left += share
    return delay, kind


def _duplicates(session: Session, ticks: _Sent, bits: Bits) -> _Sent:
    """Ticks that are sent again; never late ones, which might come again only when no duplicate is looked for."""
    rows = np.flatnonzero(falls_in(bits, session.duplicate) & (ticks.kind < _LATE))
    again = ticks.take(rows)
    later = 1 + pick(bits[rows], _MOST_DUPLICATE_MS)
    return dataclasses.replace(again, time=again.time + later, kind=np.full(len(rows), _DUPLICATE))


def _bad(session: Session, ticks: _Sent, bits: Bits) -> _Sent:
    """Bad records, each at the time and with the key of a tick."""
    rows = np.flatnonzero(falls_in(bits, session.bad))
    near = ticks.take(rows)
    sorts = [BAD_RECORDS[k] for k in pick(bits[rows], len(BAD_RECORDS)).tolist()]
    values = [bad.spoil(good) for bad, good in zip(sorts, near.value.to_pylist(), strict=True)]
    kind = np.array([KINDS.index(bad.reason) for bad in sorts], np.int64)
    return dataclasses.replace(near, value=pa.array(values, pa.binary()), kind=kind)
