"""Many small objects become one a partition and hour, and no reader loses or doubles a row over it."""

import dataclasses
import pathlib

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that

from beam_pipelines.io.lake import CompactLake, LakeStretch, ReadFromLake, WriteToLake
from beam_pipelines.io.lake_compact import compact, finished
from beam_pipelines.io.lake_read import NO_END
from beam_pipelines.io.objects import Folder, objects_in
from beam_pipelines.transforms.batches import span_of
from tests.io.lakes import NEW_YEAR, SMALL, Lake, log, rows_of, split

HOUR = 3_600_000
LOGS = [log(400, partition) for partition in range(3)]


def write(root: str) -> None:
    batches = [(span_of(batch).partition, batch) for whole in LOGS for batch in split(whole, range(0, 400, 37))]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(batches).with_output_types(tuple[int, pa.RecordBatch])
        made | WriteToLake(root, SMALL)


def whole(root: str) -> LakeStretch:
    return LakeStretch(objects_in(root), SMALL, NEW_YEAR - HOUR, NEW_YEAR + HOUR)


def run(root: str) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        pipeline | CompactLake(whole(root), pipeline | beam.Create([0]))


ROWS = rows_of(pa.Table.from_batches([it.replace_schema_metadata(None) for it in LOGS]))


def assert_whole(root: str) -> None:
    """ReadFromLake gives each row once."""

    def check(batches: list[tuple[int, pa.RecordBatch]]) -> None:
        assert rows_of(pa.Table.from_batches([batch.replace_schema_metadata(None) for _, batch in batches])) == ROWS

    with beam.Pipeline(FnApiRunner()) as pipeline:
        assert_that(pipeline | ReadFromLake(whole(root)), check)


def in_order(lake: Lake, partition: int) -> list[int]:
    """Offsets of a partition as the log had them."""
    stretch = whole(lake.root)
    mine = [it for it in stretch.find() if it.partition == partition]
    return [offset for rows in stretch.log(mine) for offset in rows["offset"].to_pylist()]


def test_an_hour_is_one_sorted_object_and_what_the_stream_may_still_write_stays(lake: Lake) -> None:
    write(lake.root)
    before, offsets = lake.objects(), in_order(lake, 1)
    run(lake.root)
    after = lake.objects()
    hours = {path.rpartition("/")[0] for path in after}
    assert len(hours) == 2
    for partition in range(3):
        mine = [path for path in after if f"/p{partition:05d}-" in path]
        compacted = [path for path in mine if "~" in path]
        assert len(compacted) == len({path.rpartition("/")[0] for path in compacted})
        last = sorted({path.rpartition("/")[2] for path in before if f"/p{partition:05d}-" in path})[-1]
        assert sorted(set(mine) - set(compacted)) == sorted(path for path in before if path.endswith(last))
        assert len(mine) < len([path for path in before if f"/p{partition:05d}-" in path])
    for path, content in after.items():
        if "~" in path:
            file = pq.ParquetFile(pa.BufferReader(content))
            table = file.read()
            assert table.equals(
                table.sort_by([(name, "ascending") for name in ("symbol", "timestamp", "seq", "offset")])
            )
            assert [it.column_index for it in file.metadata.row_group(0).sorting_columns] == [0, 1, 9, 12]
            assert file.metadata.row_group(0).column(0).has_column_index
    assert_whole(lake.root)
    assert rows_of(lake.table().drop_columns(["year", "month", "day", "hour"])) == ROWS
    assert in_order(lake, 1) == offsets


def test_a_second_time_nothing_changes(lake: Lake) -> None:
    write(lake.root)
    run(lake.root)
    after = lake.objects()
    run(lake.root)
    assert lake.objects() == after


def test_objects_that_came_since_or_again_are_taken_in(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    objects = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    some = sorted(objects)[0]
    some.unlink()
    run(str(tmp_path))
    for path in (some, *sorted(objects)[1:4]):  # one that was late, and some that a stream wrote anew
        path.write_bytes(objects[path])
    assert_whole(str(tmp_path))
    run(str(tmp_path))
    assert_whole(str(tmp_path))
    assert not some.exists()
    lake = Lake(str(tmp_path))
    assert rows_of(lake.table().drop_columns(["year", "month", "day", "hour"])) == ROWS


def test_a_reader_that_found_the_old_objects_reads_the_new_one(lake: Lake) -> None:
    write(lake.root)
    stretch = whole(lake.root)
    found = [it for it in stretch.find() if it.partition == 2]
    offsets = in_order(lake, 2)
    run(lake.root)
    assert [offset for rows in stretch.log(found) for offset in rows["offset"].to_pylist()] == offsets
    hours = [rows for hour in stretch.hours(found) for rows in hour]
    assert list(dict.fromkeys(rows_of(pa.Table.from_batches(hours)))) == [row for row in ROWS if row[11] == 2]


def test_an_object_that_is_gone_without_another_is_an_error(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    stretch = whole(str(tmp_path))
    gone = stretch.find()[0]
    (tmp_path / gone.path).unlink()
    with pytest.raises(FileNotFoundError, match="is gone since the job found it: run it again"):
        stretch.read(gone)


def test_an_hour_with_a_damaged_object_stays_as_it_is(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    write(str(tmp_path))
    lake = dataclasses.replace(whole(str(tmp_path)), skip_bad_files=True)
    hour = finished(dataclasses.replace(lake, end=NO_END).find(), lake.end)[0]
    (tmp_path / hour[1].path).write_bytes(b"PAR1")
    before = Lake(str(tmp_path)).objects()
    assert compact(hour, lake) is None
    assert Lake(str(tmp_path)).objects() == before
    assert "the hour is not compacted" in caplog.text


@dataclasses.dataclass(frozen=True)
class Overtaken(Folder):
    """A lake in which an object is written anew just when its hour is compacted."""

    anew: str = ""

    def write(self, name: str, content: pa.Buffer) -> None:
        super().write(name, content)
        path = pathlib.Path(self.path, self.anew)
        path.write_bytes(path.read_bytes() + b"more")


def test_an_object_that_is_written_anew_meanwhile_stays(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    lake = whole(str(tmp_path))
    hour = finished(dataclasses.replace(lake, end=NO_END).find(), lake.end)[0]
    assert compact(hour, dataclasses.replace(lake, objects=Overtaken(str(tmp_path), hour[1].path)))
    assert [it.path for it in hour if (tmp_path / it.path).exists()] == [hour[1].path]


def test_an_hour_without_any_row_stays_as_it_is(tmp_path: pathlib.Path) -> None:
    write(str(tmp_path))
    lake = whole(str(tmp_path))
    hour = finished(dataclasses.replace(lake, end=NO_END).find(), lake.end)[0]
    for it in hour:
        path = tmp_path / it.path
        pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    assert compact(hour, lake) is None
    assert all((tmp_path / it.path).exists() for it in hour)
