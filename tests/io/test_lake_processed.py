"""A day's bars in files that are sorted, of a size, and the only ones of their kind."""

import datetime

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.io.lake_processed import ProcessedFiles, WriteProcessed, first_symbols
from beam_pipelines.io.objects import objects_in
from tests.io.lakes import NEW_YEAR, Lake

DAY = datetime.date(2024, 1, 1)


def rows(count: int, symbols: int) -> list[pa.RecordBatch]:
    """In batches with dictionaries of their own, in the order of time."""
    chance = np.random.default_rng(count)
    batches = []
    for first in range(0, count, 30):
        size = min(30, count - first)
        columns = {
            "symbol": pa.array([f"S{n}" for n in chance.integers(0, symbols, size)]).dictionary_encode(),
            "time": NEW_YEAR + np.arange(first, first + size) * 1000,
            "close": chance.random(size),
        }
        batches.append(pa.record_batch(columns))
    return batches


def write(root: str, batches: list[pa.RecordBatch], most: int) -> None:
    files = ProcessedFiles(objects_in(root), "market-data", DAY, "bars-60s", "time")
    with beam.Pipeline(FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(batches).with_output_types(pa.RecordBatch)
        made | WriteProcessed(files, most)


def test_the_files_are_the_sorted_rows_one_after_the_other(lake: Lake) -> None:
    batches = rows(1000, 7)
    write(lake.root, batches, most=300)
    objects = lake.objects()
    names = [f"processed/market-data/date=2024-01-01/bars-60s-{number:05d}-of-00004.parquet" for number in range(4)]
    assert sorted(objects) == names
    tables = [pq.read_table(pa.BufferReader(objects[name])) for name in names]
    assert all(150 < len(table) <= 600 for table in tables)
    wanted = sorted(row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True))
    found = pa.concat_tables(tables)
    assert found.schema.field("time").type == pa.timestamp("ms", "UTC")
    plain = found.set_column(1, "time", found["time"].cast(pa.int64()))
    assert list(zip(*plain.to_pydict().values(), strict=True)) == wanted
    file = pq.ParquetFile(pa.BufferReader(objects[names[0]]))
    assert [it.column_index for it in file.metadata.row_group(0).sorting_columns] == [0, 1]


def test_a_second_run_leaves_its_own_files_alone(lake: Lake) -> None:
    write(lake.root, rows(1000, 7), most=300)
    write(lake.root, rows(100, 3), most=300)
    assert [path.rpartition("/")[2] for path in lake.objects()] == ["bars-60s-00000-of-00001.parquet"]
    once = lake.objects()
    write(lake.root, rows(100, 3), most=300)
    assert lake.objects() == once


def test_a_day_without_rows_leaves_no_file(lake: Lake) -> None:
    write(lake.root, rows(10, 3), most=300)
    write(lake.root, [], most=300)
    assert lake.objects() == {}


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 100)), st.integers(1, 300))
def test_files_are_full_but_never_more_than_one_symbol_too_large(counts: dict[str, int], most: int) -> None:
    firsts = first_symbols(counts, most)
    assert firsts == sorted(set(firsts))
    sizes: dict[int, list[int]] = {}
    for symbol in sorted(counts):
        sizes.setdefault(sum(first <= symbol for first in firsts), []).append(counts[symbol])
    assert len(sizes) == (len(firsts) + 1 if counts else 0)
    assert all(sum(sized) <= most or len(sized) == 1 for sized in sizes.values())
    neighbours = zip(list(sizes.values()), list(sizes.values())[1:], strict=False)
    assert all(sum(sized) + following[0] > most for sized, following in neighbours)
