"""ReadFromLake gives the rows that were written, of the hours that are asked for, and names every file that is none."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake import LakeStretch, ReadFromLake, WriteToLake, check_day
from beam_pipelines.io.objects import objects_in
from beam_pipelines.transforms.batches import TICKS, span_of, with_span
from tests.io.lakes import NEW_YEAR, SMALL, TOPIC, Lake, log, rows_of, split

HOUR = 3_600_000
YEARS = (NEW_YEAR - HOUR, NEW_YEAR + HOUR)  # all of the log
LOGS = [log(400, partition) for partition in range(3)]


def write(root: str, topic: str = TOPIC) -> None:
    cut = [batch for whole in LOGS for batch in split(whole, range(0, 400, 37))]
    spans = [span_of(batch)._replace(topic=topic) for batch in cut]
    batches = [(span.partition, with_span(batch, span)) for batch, span in zip(cut, spans, strict=True)]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(batches).with_output_types(tuple[int, pa.RecordBatch])
        made | WriteToLake(root, SMALL)


def expected(begin: int, end: int) -> list[tuple]:
    everything = pa.Table.from_batches([whole.replace_schema_metadata(None) for whole in LOGS])
    return [row for row in rows_of(everything) if begin <= row[1] < end]


def same(begin: int, end: int) -> Callable[[list], None]:
    wanted = expected(begin, end)

    def check(found: list[tuple[int, pa.RecordBatch]]) -> None:
        for partition, batch in found:
            offsets = batch["offset"].to_pylist()
            assert batch.schema.equals(TICKS)
            assert batch["partition"].unique().to_pylist() == [partition]
            assert offsets == sorted(set(offsets))
            span = span_of(batch)
            assert (span.topic, span.partition) == (TOPIC, partition)
            assert span.first <= offsets[0] <= offsets[-1] < span.next
        plain = [batch.replace_schema_metadata(None) for _, batch in found]
        assert rows_of(pa.Table.from_batches(plain, schema=TICKS)) == wanted

    return check


def stretch(root: str, begin: int, end: int, skip: bool = False) -> LakeStretch:
    return LakeStretch(objects_in(root), SMALL, begin, end, skip_bad_files=skip)


def read(root: str, begin: int, end: int, check: Callable[[list], None], skip: bool = False) -> beam.Pipeline:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        assert_that(pipeline | ReadFromLake(stretch(root, begin, end, skip)), check)
    return pipeline


def test_all_rows_come_back_with_their_place_in_the_log(lake: Lake) -> None:
    write(lake.root)
    read(lake.root, *YEARS, same(*YEARS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("lake"))
    write(root)
    return root


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begin=st.integers(-150_000, 260_000), length=st.integers(1, 100_000))
def test_a_stretch_of_time_gives_its_rows_and_no_others(folder: str, begin: int, length: int) -> None:
    read(folder, NEW_YEAR + begin, NEW_YEAR + begin + length, same(NEW_YEAR + begin, NEW_YEAR + begin + length))


def test_only_the_hours_asked_for_are_looked_into(folder: str) -> None:
    old = stretch(folder, NEW_YEAR - HOUR, NEW_YEAR).find()
    new = stretch(folder, NEW_YEAR, NEW_YEAR + HOUR).find()
    assert old
    assert new
    assert all("/day=31/hour=23/" in it.path and it.begin == NEW_YEAR - HOUR for it in old)
    assert all("/day=01/hour=00/" in it.path and it.begin == NEW_YEAR for it in new)
    assert stretch(folder, NEW_YEAR - 2 * HOUR, NEW_YEAR - HOUR).find() == []


def test_a_missing_day_is_told_from_one_without_rows(folder: str) -> None:
    objects = objects_in(folder)
    check_day(objects, SMALL, datetime.date(2023, 12, 31))
    with pytest.raises(UsageError, match=r"has no market-data of 2024-01-02, it holds 2023-12-31 to 2024-01-01"):
        check_day(objects, SMALL, datetime.date(2024, 1, 2))
    read(folder, NEW_YEAR + 2 * HOUR, NEW_YEAR + 3 * HOUR, same(0, 0))


def test_a_lake_without_any_day_says_so(lake: Lake) -> None:
    with pytest.raises(UsageError, match="it holds no day at all"):
        check_day(objects_in(lake.root), SMALL, datetime.date(2024, 1, 2))


def test_a_file_that_is_being_written_is_no_object(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    hour = tmp_path / "market-data/year=2024/month=01/day=01/hour=00"
    (hour / ".p00000-half.parquet.tmp").write_bytes(b"PAR1")
    (hour / "_p00000-half.parquet").write_bytes(b"PAR1")
    read(str(tmp_path), *YEARS, same(*YEARS))


def older(table: pa.Table) -> pa.Table:
    return table.drop_columns(["updates"])


def other_type(table: pa.Table) -> pa.Table:
    return table.set_column(2, "price", table["price"].cast(pa.string()))


def without_value(table: pa.Table) -> pa.Table:
    schema = table.schema.set(2, pa.field("price", pa.float64()))
    return pa.table([*table.columns[:2], pa.nulls(len(table), pa.float64()), *table.columns[3:]], schema)


def parquet(change: Callable[[pa.Table], pa.Table]) -> Callable[[pathlib.Path], None]:
    return lambda file: pq.write_table(change(pq.read_table(file, partitioning=None)), file)


def torn(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    file.write_bytes(content)


BAD = [
    (lambda file: file.write_bytes(b""), "is empty"),
    (lambda file: file.write_bytes(b"symbol,price\n"), "is damaged, or no parquet file"),
    (lambda file: file.write_bytes(file.read_bytes()[:-100]), "is damaged, or no parquet file"),
    (torn, "is damaged, or no parquet file"),
    (lambda file: file.rename(file.with_name("notes.txt")), "notes.txt is not named as objects of market-data are"),
    (parquet(older), "has no column updates, perhaps an older version wrote it"),
    (parquet(other_type), "has a column price of string, not of double"),
    (parquet(without_value), "has rows without price"),
]


@pytest.fixture(params=BAD, ids=lambda bad: bad[1])
def bad(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[pathlib.Path, int, str]:
    """A lake with one bad file, the offset of the first row that it held, and what is wrong with it."""
    spoil, why = request.param
    write(str(tmp_path))
    file = sorted((tmp_path / "market-data/year=2024/month=01/day=01/hour=00").glob("p00001-*"))[0]
    offsets = pq.read_table(file, partitioning=None)["offset"].to_pylist()
    spoil(file)
    return tmp_path, len(offsets), why


def test_a_bad_file_ends_the_run_and_is_named(bad: tuple[pathlib.Path, int, str]) -> None:
    root, _, why = bad
    with pytest.raises(UsageError, match=r"/hour=00/.*" + why + ".*--on_bad_file=skip"):
        read(str(root), *YEARS, same(*YEARS))


def test_a_bad_file_is_passed_over_and_counted(
    bad: tuple[pathlib.Path, int, str], caplog: pytest.LogCaptureFixture
) -> None:
    root, lost, why = bad
    total = len(expected(*YEARS))

    def all_others(found: list[tuple[int, pa.RecordBatch]]) -> None:
        assert sum(len(batch) for _, batch in found) == total - lost

    pipeline = read(str(root), *YEARS, all_others, skip=True)
    counters = pipeline.result.metrics().query(beam.metrics.MetricsFilter().with_name("bad_files"))["counters"]
    assert [counter.committed for counter in counters] == [1]
    assert why in caplog.text


def test_a_damaged_file_gives_none_of_its_rows(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    everything = stretch(str(tmp_path), *YEARS, skip=True)
    first = everything.find()[0]
    assert everything.read(first)
    torn(tmp_path / first.path)
    assert everything.read(first) == []


def test_the_hours_of_a_partition_come_in_their_order(lake: Lake) -> None:
    write(lake.root)
    everything = stretch(lake.root, *YEARS)
    mine = [it for it in everything.find() if it.partition == 1]
    hours = list(everything.hours(reversed(mine)))
    assert len(hours) == 2
    assert rows_of(pa.concat_tables([pa.Table.from_batches([rows]) for hour in hours for rows in hour])) == [
        row for row in expected(*YEARS) if row[11] == 1
    ]
    assert all(row[1] < NEW_YEAR for row in rows_of(pa.Table.from_batches(hours[0])))
    assert all(row[1] >= NEW_YEAR for row in rows_of(pa.Table.from_batches(hours[1])))


def test_a_partition_comes_in_the_order_of_the_log(lake: Lake) -> None:
    write(lake.root)
    everything = stretch(lake.root, *YEARS)
    mine = [it for it in reversed(everything.find()) if it.partition == 1]
    wanted = LOGS[1]["offset"].to_pylist()
    for since in (0, 49, 50, 130, 399, 400):
        offsets = [offset for rows in everything.log(mine, since) for offset in rows["offset"].to_pylist()]
        assert offsets == [offset for offset in wanted if offset >= since]
    new = [row for rows in everything.log(mine, dated=NEW_YEAR) for row in rows_of(pa.Table.from_batches([rows]))]
    assert new == [row for row in expected(NEW_YEAR, YEARS[1]) if row[11] == 1]


def test_of_several_topics_one_must_be_chosen(tmp_path: pathlib.Path) -> None:
    for topic in (TOPIC, "other"):
        write(str(tmp_path), topic)
    everything = stretch(str(tmp_path), *YEARS)
    with pytest.raises(UsageError, match=f"has market-data of {TOPIC}, other here: choose one with --topic"):
        everything.find()
    with pytest.raises(UsageError, match=f"of {TOPIC}, other here, not of typo: choose one with --topic"):
        dataclasses.replace(everything, topic="typo").find()
    one = dataclasses.replace(everything, topic="other")
    assert len(one.find()) == len(dataclasses.replace(everything, topic=TOPIC).find()) > 0
    assert {it.log for it in one.find()} == {"other"}


def test_only_the_rows_of_the_symbols_that_are_wanted(folder: str) -> None:
    two = dataclasses.replace(stretch(folder, *YEARS), symbols=("IBM", "TSLA", "NONE"))
    found = [row for it in two.find() for rows in two.read(it) for row in rows_of(pa.Table.from_batches([rows]))]
    assert sorted(found) == sorted(row for row in expected(*YEARS) if row[0] in {"IBM", "TSLA"})
