"""Bytes of a partition's state per symbol, over a log that is long beside what has to be remembered: `make bench`.

One partition, 60 s bars with the default lateness and memory for duplicates, 10 ticks a symbol and minute, in order but
for the bound on disorder; the state is encoded after each minute.  Least and most over the last half of the log: where
the two agree, it does not grow.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.advance import Semantics, advance
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.partition_state import PartitionState

SYMBOLS, MINUTES, TICKS_A_MINUTE = (500, 50_000), 8, 10
START_MS, MINUTE_MS, PIECE = 1_736_173_800_000, 60_000, 50_000
SEMANTICS = Semantics()


class Size(NamedTuple):
    """Bytes of the parts of a state, and how much is in it."""

    open: int
    history: int
    usual: int
    seen: int
    windows: int
    identities: int


def minute_of(number: int, symbols: int) -> Iterator[pa.RecordBatch]:
    """The ticks of one minute, in batches."""
    chance = np.random.default_rng(number)
    count = symbols * TICKS_A_MINUTE
    time = START_MS + number * MINUTE_MS + np.arange(count) * MINUTE_MS // count - chance.integers(0, 900, count)
    symbol = chance.permutation(np.repeat(np.arange(symbols), TICKS_A_MINUTE))
    names = pa.array([f"S{number:05d}" for number in range(symbols)])
    columns = {
        "symbol": pa.DictionaryArray.from_arrays(symbol.astype(np.int32), names),
        "timestamp": time,
        "price": 100 + chance.integers(-50, 50, count) / 100,
        "volume": np.full(count, 100),
        **{name: pa.nulls(count, TICKS.field(name).type) for name in ("bid", "ask", "bid_size", "ask_size")},
        "source": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array(["bench"])),
        "seq": number * count + np.arange(count),
        "updates": np.full(count, 7, np.uint8),
        "partition": np.zeros(count, np.int32),
        "offset": number * count + np.arange(count),
        "log_time": time,
    }
    batch = pa.record_batch([pa.array(column, TICKS.field(name).type) for name, column in columns.items()], TICKS)
    return (batch.slice(start, PIECE) for start in range(0, count, PIECE))


def sizes(symbols: int) -> Iterator[Size]:
    """The state after each minute."""
    state = PartitionState(SEMANTICS.bar_ms)
    for number in range(MINUTES):
        for ticks in minute_of(number, symbols):
            advance(state, ticks, SEMANTICS)
        state.drain()
        parts = (
            state.encode_open(),
            state.encode_history(),
            state.encode_usual(),
            b"".join(state.encode_seen()),
        )
        yield Size(*map(len, parts), len(state.windows), len(state.seen))


def main() -> None:
    print("| part of the state | bytes a symbol, 500 symbols | 50,000 symbols |\n|---|--:|--:|")
    last_half = {symbols: list(sizes(symbols))[MINUTES // 2 :] for symbols in SYMBOLS}
    for part in ("open", "history", "usual", "seen"):
        cells = []
        for symbols, found in last_half.items():
            values = [getattr(size, part) / symbols for size in found]
            cells.append(f"{min(values):,.0f}-{max(values):,.0f}")
        print(f"| {part} | " + " | ".join(cells) + " |")
    for count in ("windows", "identities"):
        cells = [
            f"{min(values):,}-{max(values):,}"
            for values in ([getattr(size, count) for size in found] for found in last_half.values())
        ]
        print(f"| {count} in it | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
