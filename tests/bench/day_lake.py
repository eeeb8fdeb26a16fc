"""A lake with one trading day of ticks, cut as the stream cuts them, for the benchmark of the daily batch."""

import datetime
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from beam_pipelines.io.lake_objects import MARKET_DATA, Position, cut, write_objects
from beam_pipelines.io.objects import objects_in
from beam_pipelines.transforms.batches import TICKS, Span, span_of, with_span

DAY = datetime.date(2025, 1, 6)
PARTITIONS = 8
_OPEN_MS = int(datetime.datetime(2025, 1, 6, 14, 30, tzinfo=datetime.UTC).timestamp() * 1000)
_SLOTS = 390  # minutes of trading
_PIECE = 100_000  # ticks a batch


def write_day(root: pathlib.Path, ticks: int, symbols: int) -> None:
    """Makes the lake, unless it is there; ticks by Zipf's law and the day's U, with disorder of up to a second."""
    done = root / f"_{ticks}-{symbols}"
    if done.exists():
        return
    objects = objects_in(str(root))
    for partition in range(PARTITIONS):
        position, held = None, []
        for batch in _batches(partition, ticks // PARTITIONS, symbols):
            group = position.open if position else None
            position, pieces = cut(MARKET_DATA, position, batch)
            for piece in pieces:
                if group not in (None, piece.group):
                    list(write_objects(objects, MARKET_DATA, position, group, held, final=True))
                    held = []
                held.append(with_span(piece.rows, span_of(batch)))
                group = piece.group
        assert position is not None
        assert position.open is not None
        list(write_objects(objects, MARKET_DATA, Position(0, position.next), position.open, held, final=True))
    done.touch()


def _batches(partition: int, ticks: int, symbols: int) -> Iterator[pa.RecordBatch]:
    chance = np.random.default_rng(partition)
    mine = np.arange(partition, symbols, PARTITIONS)
    names = pa.array([f"S{number:05d}" for number in mine])
    weight = 1 / (mine + 20)
    minute = np.abs(np.linspace(-1, 1, _SLOTS)) ** 2 + 0.5
    arrival = np.sort(
        chance.choice(_SLOTS, ticks, p=minute / minute.sum()) * 60_000 + chance.integers(0, 60_000, ticks)
    )
    price = 1000 + 17 * mine % 40_000
    for first in range(0, ticks, _PIECE):
        log_time = _OPEN_MS + arrival[first : first + _PIECE]
        count = len(log_time)
        symbol = chance.choice(len(mine), count, p=weight / weight.sum())
        cents = price[symbol] + chance.integers(-5, 6, count)
        sources = pa.DictionaryArray.from_arrays(chance.integers(0, 3, count).astype(np.int32), ["NYSE", "ARCA", "IEX"])
        offsets = np.arange(first, first + count)
        columns = {
            "symbol": pa.DictionaryArray.from_arrays(symbol.astype(np.int32), names),
            "timestamp": np.maximum(log_time - chance.integers(0, 900, count), _OPEN_MS),
            "price": cents / 100,
            "volume": 100 * chance.integers(1, 10, count),
            "bid": (cents - 1) / 100,
            "ask": (cents + 1) / 100,
            "bid_size": chance.integers(1, 10, count),
            "ask_size": chance.integers(1, 10, count),
            "source": sources,
            "seq": offsets,
            "updates": np.full(count, 7, np.uint8),
            "partition": np.full(count, partition, np.int32),
            "offset": offsets,
            "log_time": log_time,
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in TICKS]
        span = Span("market-data-raw", partition, first, first + count)
        yield with_span(pa.RecordBatch.from_arrays(arrays, schema=TICKS), span)
