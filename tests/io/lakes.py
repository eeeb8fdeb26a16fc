"""A log of ticks around the turn of a year, and lakes as their readers see them, for the tests of the lake."""

import datetime
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from beam_pipelines.io.lake_objects import Layout
from beam_pipelines.io.objects import objects_in
from beam_pipelines.transforms.batches import TICKS, Span, span_of, with_span

TOPIC = "market-data-raw"
NEW_YEAR = int(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000)
SMALL = Layout("market-data", TICKS, ("timestamp", "log_time"), "log_time", True, 60_000, 50, gapless=True)


def log(rows: int, partition: int = 0, seed: int = 0, begins: int = NEW_YEAR - 150_000) -> pa.RecordBatch:
    """Ticks of one partition, about one a second, around the turn of a year; every eighth record was not valid."""
    chance = np.random.default_rng([seed, partition])
    offsets = np.flatnonzero(chance.random(rows) > 1 / 8)
    count = len(offsets)
    symbols = pa.array(chance.choice(["AAPL", "IBM", "TSLA"], count)).dictionary_encode()
    log_time = begins + offsets * 1000 + chance.integers(-3000, 3000, count)  # producers' clocks disagree
    columns = {
        "symbol": symbols,
        "timestamp": log_time - chance.integers(0, 5000, count),
        "price": chance.random(count) * 100,
        "volume": chance.integers(0, 1000, count),
        "bid": pa.array(chance.random(count), mask=chance.random(count) < 0.5),
        "ask": chance.random(count),
        "bid_size": pa.nulls(count, pa.int64()),
        "ask_size": chance.integers(0, 9, count),
        "source": pa.array(["test"] * count).dictionary_encode(),
        "seq": offsets,
        "updates": np.full(count, 7, np.uint8),
        "partition": np.full(count, partition, np.int32),
        "offset": offsets,
        "log_time": log_time,
    }
    arrays = [pa.array(column) for column in columns.values()]
    return with_span(pa.record_batch(arrays, schema=TICKS), Span(TOPIC, partition, 0, rows))


def split(whole: pa.RecordBatch, bounds: Iterable[int]) -> list[pa.RecordBatch]:
    """The same log as batches that end at the given offsets, each with a dictionary of its own."""
    span, offsets = span_of(whole), whole["offset"].to_numpy()
    ends = [*sorted({bound for bound in bounds if span.first < bound < span.next}), span.next]
    batches = []
    for first, end in zip([span.first, *ends], ends, strict=False):
        rows = whole.slice(*(lambda a, b: (a, b - a))(*np.searchsorted(offsets, [first, end]).tolist()))
        own = rows["symbol"].dictionary_decode().dictionary_encode()
        batches.append(with_span(rows.set_column(0, TICKS.field("symbol"), own), span._replace(first=first, next=end)))
    return batches


def rows_of(table: pa.Table) -> list[tuple]:
    """Rows in a form that batches and files share: times as ms."""
    columns = []
    for name in TICKS.names:
        column = table[name].cast(pa.int64()) if name in ("timestamp", "log_time") else table[name]
        columns.append(column.to_pylist())
    return sorted(zip(*columns, strict=True), key=lambda row: (row[11], row[12]))


class Lake:
    """A lake as its readers see it."""

    def __init__(self, root: str) -> None:
        self.root = root
        place = objects_in(root)
        self.fs, self.base = fs.LocalFileSystem(), root
        if root.startswith("s3://"):
            self.fs, self.base = fs.S3FileSystem(endpoint_override=place.endpoint, region="us-east-1"), root[5:]

    def objects(self) -> dict[str, bytes]:
        """Content by path, of all there is, whatever its name."""
        found = self.fs.get_file_info(fs.FileSelector(self.base, recursive=True, allow_not_found=True))
        return {
            info.path.removeprefix(self.base + "/"): self.fs.open_input_file(info.path).read()
            for info in found
            if info.type is fs.FileType.File
        }

    def dataset(self, name: str = "market-data") -> ds.Dataset:
        return ds.dataset(f"{self.base}/{name}", filesystem=self.fs, format="parquet", partitioning="hive")

    def table(self, name: str = "market-data") -> pa.Table:
        return self.dataset(name).to_table()
