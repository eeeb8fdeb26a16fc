"""Arrivals and trades of a simulated session, by integers alone.

Random bits come raw from PCG64, whose stream NumPy guarantees, and distributions are tables of integers: NumPy's own
distributions and transcendental functions may differ between versions and processors.
"""

import math
import statistics
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_pipelines.session import Session

__all__ = ["SLOT_MS", "Bits", "Ints", "Market", "arrivals", "blocks", "falls_in", "pick", "ticks_of"]

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]

_SOURCES = pa.array(["XNAS", "XNYS", "ARCX", "BATS", "EDGX", "IEXG", "MEMX", "XADF"])
SLOT_MS = 1000  # arrivals are uniform within a slot
_BLOCK_TICKS = 32_768  # drawn together, in whole slots; part of what a seed means
_QUANTILES = [statistics.NormalDist().inv_cdf((i + 0.5) / 1024) for i in range(1024)]
_NORMAL = np.array([round(1000 * z) for z in _QUANTILES])
_GUSTS = [round(512 * (1 - math.log(1 - (i + 0.5) / 1024))) for i in range(1024)]  # half steady, half exponential
_LOTS = np.array([100 * max(1, round(math.exp(0.9 * z))) for z in _QUANTILES])


def blocks(session: Session) -> Iterator[tuple[int, Ints]]:
    """Consecutive slots that hold about `_BLOCK_TICKS` together: first slot, ticks in each."""
    ends = _slot_ends(session)
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        after = min(int(np.searchsorted(ends, done + _BLOCK_TICKS)) + 1, len(ends))
        yield first, np.diff(ends[first:after], prepend=done)
        first = after


def _slot_ends(session: Session) -> Ints:
    """How many ticks there are up to the end of each slot."""
    slots = -(-session.duration_ms // SLOT_MS)
    steady = session.activity == "steady"
    weights = np.cumsum(np.ones(slots, np.int64) if steady else _u_shape(slots) * _bursts(session, slots))
    return np.array([session.ticks * weight // int(weights[-1]) for weight in weights.tolist()], np.int64)


def _u_shape(slots: int) -> Ints:
    """The day's activity: about four times as high at the open and at the close as at noon."""
    from_noon = 2 * np.arange(slots, dtype=np.int64) + 1 - slots
    return 100 + 300 * from_noon * from_noon // (slots * slots)


def _bursts(session: Session, slots: int) -> Ints:
    """Self-exciting activity: each slot's may start a burst that fades over the next ones; on average about 800."""
    draws = np.random.PCG64(np.random.SeedSequence([session.seed, 0])).random_raw(slots)
    excited, levels = 0, []
    for noise in (draws >> np.uint64(44)).tolist():  # 20 bits
        levels.append((600 + excited) * _GUSTS[noise & 1023] // 1024)
        excited = excited * 7 // 8 + (1500 if (noise >> 10) * 41 < 600 + excited else 0)
    return np.array(levels, np.int64)


def pick(bits: Bits, choices: int) -> Ints:
    """Uniform integers below `choices` from the low 32 bits."""
    return ((bits & np.uint64(0xFFFFFFFF)) * np.uint64(choices) >> np.uint64(32)).astype(np.int64)


def falls_in(bits: Bits, share: float) -> npt.NDArray[np.bool_]:
    """Where the high 32 bits fall into `share`."""
    return bits >> np.uint64(32) < np.uint64(int(share * 2**32))


class Market:
    """The symbols and where their prices and sequence numbers have got to."""

    def __init__(self, session: Session) -> None:
        names = session.names
        self.symbols = pa.array(names)
        self.keys = pa.array([name.encode() for name in names])
        self.popularity = np.cumsum(10**9 // np.arange(1, len(names) + 1))
        hashes = np.array([zlib.crc32(name.encode()) for name in names])
        self.walk = (2_000 + hashes % 40_000) * 1000  # thousandths of a cent
        self.volatility = self.walk // 10_000  # of a trade
        self.spread = 1 + np.minimum(np.arange(len(names)) // 10, 20)  # cents: the less traded, the wider
        self.seq = np.zeros(len(names), np.int64)

    def trade(self, symbol: Ints, steps: Ints) -> tuple[Ints, Ints]:
        """Price in cents and sequence number of each trade, in order; `steps` are normal, times 1000."""
        order = np.argsort(symbol.astype(np.uint16) if len(self.seq) <= 1 << 16 else symbol, kind="stable")
        who = symbol[order]
        starts = np.flatnonzero(np.r_[True, who[1:] != who[:-1]])
        lengths = np.diff(np.r_[starts, len(who)])
        moves = steps[order] * self.volatility[who] // 1000
        moved = np.cumsum(moves)
        walk = moved - np.repeat(moved[starts] - moves[starts], lengths) + self.walk[who]
        seq = np.arange(len(who)) - np.repeat(starts, lengths) + 1 + self.seq[who]
        last = starts + lengths - 1
        self.walk[who[last]], self.seq[who[last]] = walk[last], seq[last]
        prices, numbers = np.empty_like(walk), np.empty_like(seq)
        prices[order] = 100 + np.abs(walk // 1000 - 100)  # reflected at one dollar
        numbers[order] = seq
        return prices, numbers


def arrivals(
    session: Session, market: Market, first_slot: int, counts: Ints, when: Bits, who: Bits
) -> tuple[Ints, Ints]:
    """Event time, ascending, and symbol of each tick."""
    slot = (first_slot + np.repeat(np.arange(len(counts)), counts)) * SLOT_MS
    width = np.minimum(SLOT_MS, session.duration_ms - slot)
    timestamp = session.start_ms + np.sort(slot + (pick(when, 1 << 20) * width >> 20))
    symbol = np.searchsorted(market.popularity, who % np.uint64(market.popularity[-1]), side="right")
    tied = falls_in(when, session.tie)
    leader = np.maximum.accumulate(np.where(tied, 0, np.arange(len(tied))))
    return timestamp[leader], symbol[leader]


def ticks_of(
    session: Session, market: Market, timestamp: Ints, symbol: Ints, trade: Bits, sizes: Bits
) -> pa.RecordBatch:
    """The ticks' fields, in the order in which feeds write them."""
    price, seq = market.trade(symbol, _NORMAL[trade & np.uint64(1023)])
    bought = (trade >> np.uint64(10) & np.uint64(1)).astype(np.int64)
    spread = market.spread[symbol] + (trade >> np.uint64(11) & np.uint64(1)).astype(np.int64)
    unquoted = (trade >> np.uint64(12) & np.uint64(15)) == 0
    odd = falls_in(trade, session.odd_lots)
    volume, bid_size, ask_size = (_LOTS[sizes >> np.uint64(10 * k) & np.uint64(1023)] for k in range(3))
    venue = (sizes >> np.uint64(30) & np.uint64(127)).astype(np.int32)
    return pa.record_batch(
        {
            "symbol": pa.DictionaryArray.from_arrays(symbol.astype(np.int32), market.symbols),
            "timestamp": timestamp,
            "price": price / 100,
            "volume": np.where(odd, 1 + volume // 100 % 99, volume),
            "bid": pa.array((price - spread * bought) / 100, mask=unquoted),
            "ask": pa.array((price + spread * (1 - bought)) / 100, mask=unquoted),
            "bid_size": pa.array(bid_size, mask=unquoted),
            "ask_size": pa.array(ask_size, mask=unquoted),
            "source": pa.DictionaryArray.from_arrays(pa.array(venue & 7, mask=venue == 0), _SOURCES),
            "seq": seq,
            "updates": pa.array(np.full(len(odd), 4), mask=~odd),
        }
    )
