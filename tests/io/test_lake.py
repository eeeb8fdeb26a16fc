"""What WriteToLake promises, in a folder and in S3: the objects are a function of the log alone."""

import dataclasses
import datetime
import json
import pathlib
import random
import tempfile
from collections.abc import Callable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_stream import TestStream
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake import WriteDeadLettersToLake, WriteToLake
from beam_pipelines.io.lake_objects import MARKET_DATA, Layout, Position, Written, cut
from beam_pipelines.transforms.batches import MANY, RAW, TICKS, Span, empty, span_of, with_span
from beam_pipelines.transforms.dead_letters import dead_letters
from beam_pipelines.transforms.packing import packed
from tests.io.lakes import NEW_YEAR, SMALL, TOPIC, Lake, log, rows_of, split

KEYED = tuple[int, pa.RecordBatch]


def heartbeat(partition: int, offset: int) -> pa.RecordBatch:
    return with_span(empty(TICKS), Span(TOPIC, partition, offset, offset, idle_ms=5000))


def shuffled(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return random.Random(1).sample(batches, len(batches))


def write_bounded(root: str, batches: list[pa.RecordBatch], layout: Layout = SMALL) -> list[Written]:
    return run(FnApiRunner(), lambda p: elements(p, batches) | WriteToLake(root, layout))


def write_unbounded(root: str, batches: list[pa.RecordBatch], layout: Layout = SMALL) -> list[Written]:
    return run(BundleBasedDirectRunner(), lambda p: stream(p, batches) | WriteToLake(root, layout))


def write_packed(root: str, batches: list[pa.RecordBatch], layout: Layout = SMALL) -> list[Written]:
    """All in one bundle, within which state is read as it was added."""
    small = [packed(batch) for batch in batches]
    return run(BundleBasedDirectRunner(), lambda p: stream(p, small, together=True) | WriteToLake(root, layout))


def elements(pipeline: beam.Pipeline, batches: list[pa.RecordBatch]) -> beam.PCollection:
    return pipeline | beam.Create([(span_of(b).partition, b) for b in batches]).with_output_types(KEYED)


def stream(
    pipeline: beam.Pipeline, batches: list[pa.RecordBatch], then: float = 0, together: bool = False
) -> beam.PCollection:
    """An unbounded collection, a bundle each batch or one; `then` seconds of processing time pass after the last."""
    events = TestStream(coder=beam.coders.registry.get_coder(KEYED)).advance_watermark_to(0)
    keyed = [(span_of(batch).partition, batch) for batch in batches]
    for bundle in [keyed] if together else [[element] for element in keyed]:
        events.add_elements(bundle)
    if then:
        events.advance_processing_time(then)
    return pipeline | events.advance_watermark_to_infinity()


def run(runner: beam.runners.PipelineRunner, build: Callable[[beam.Pipeline], beam.PCollection]) -> list[Written]:
    """Runs the pipeline and gives what it says it has written, through a file: runners work on copies."""
    options = PipelineOptions([], streaming=isinstance(runner, BundleBasedDirectRunner))
    with tempfile.TemporaryDirectory() as folder:
        said = pathlib.Path(folder, "written")
        said.touch()
        with beam.Pipeline(runner, options=options) as pipeline:
            build(pipeline) | "Note" >> beam.Map(note, str(said))
        return [Written(*json.loads(line)) for line in said.read_text().splitlines()]


def note(written: Written, path: str) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(written) + "\n")


DRIVERS = pytest.mark.parametrize("write", [write_bounded, write_unbounded, write_packed])


@settings(max_examples=60)
@given(st.lists(st.integers(1, 399)), st.integers(0, 5))
def test_any_batching_puts_every_row_in_the_same_object(bounds, seed):
    whole = log(400, seed=seed)

    def groups(batches: list[pa.RecordBatch]) -> tuple[Position, dict]:
        position, found = None, {}
        for batch in batches:
            position, pieces = cut(SMALL, position, batch)
            for group, rows in pieces:
                found.setdefault(group, []).extend(rows["offset"].to_pylist())
        return position, found

    assert groups(split(whole, bounds)) == groups([whole])


def test_slots_never_go_back_and_hold_no_more_offsets_than_a_block():
    _, pieces = cut(SMALL, None, log(400))
    assert [piece.group for piece in pieces] == sorted({piece.group for piece in pieces})
    assert {offset // 50 for offset in pieces[1].rows["offset"].to_pylist()} == {pieces[1].group.block}


def test_partitions_do_not_end_their_slots_at_one_moment_but_those_of_hours():
    starts = [MARKET_DATA.start_of(partition, 0) for partition in range(8)]
    assert np.diff(sorted([*starts, starts[0] + MARKET_DATA.slot_ms])).min() > MARKET_DATA.slot_ms / 16
    hourly = dataclasses.replace(MARKET_DATA, slot_ms=3_600_000)
    assert {hourly.start_of(partition, 0) for partition in range(8)} == {0}


def test_an_object_is_named_by_the_start_of_its_slot(tmp_path):
    whole = log(400, partition=3)
    newest = dict(zip(whole["offset"].to_pylist(), np.maximum.accumulate(whole["log_time"].to_numpy()), strict=True))
    for written in write_bounded(str(tmp_path), [whole], SMALL):
        named = written.path.rpartition("/p00003-")[2][:16]
        start = datetime.datetime.strptime(named, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp() * 1000
        offsets = pq.read_table(tmp_path / written.path)["offset"].to_pylist()
        assert all(start <= newest[offset] < start + SMALL.slot_ms for offset in offsets)


@DRIVERS
def test_every_tick_is_in_the_lake_once_in_the_folder_of_its_hour(lake, write):
    logs = [log(400, partition) for partition in range(3)]
    write(
        lake.root,
        [b for whole in logs for b in [*split(whole, range(0, 400, 17)), heartbeat(span_of(whole).partition, 400)]],
    )
    expected = pa.concat_tables([pa.Table.from_batches([whole.replace_schema_metadata(None)]) for whole in logs])
    expected = expected.cast(
        pa.schema([f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in TICKS])
    )
    found = lake.table()
    assert rows_of(found) == rows_of(expected)
    for row in found.select(["timestamp", "year", "month", "day", "hour"]).to_pylist():
        at = row["timestamp"]
        assert (at.year, at.month, at.day, at.hour) == (row["year"], row["month"], row["day"], row["hour"])
    assert {(row["year"], row["hour"]) for row in found.select(["year", "hour"]).to_pylist()} == {(2023, 23), (2024, 0)}
    assert all("/month=12/day=31/" in path or "/month=01/day=01/hour=00/" in path for path in lake.objects())


@DRIVERS
def test_objects_hold_their_rows_in_the_order_of_offsets(lake, write):
    write(lake.root, [*split(log(400), range(0, 400, 7)), heartbeat(0, 400)])
    for content in lake.objects().values():
        offsets = pq.read_table(pa.BufferReader(content))["offset"].to_pylist()
        assert offsets == sorted(set(offsets))


def test_a_stream_in_any_batching_and_a_bounded_run_write_identical_bytes(lake):
    whole = log(400)
    streamed = write_unbounded(lake.root, [*split(whole, [1, 2, 3, 200, 399]), heartbeat(0, 400)])
    by_stream = lake.objects()
    whole_run = write_bounded(lake.root, shuffled(split(whole, range(0, 400, 31))))
    assert lake.objects() == by_stream
    assert sorted(streamed) == sorted(whole_run)
    assert {(w.path, w.bytes) for w in whole_run} == {(path, len(content)) for path, content in by_stream.items()}
    write_bounded(lake.root, [whole])
    assert lake.objects() == by_stream


@DRIVERS
def test_only_objects_that_the_log_has_left_are_final(tmp_path, write):
    written = write(str(tmp_path), [*split(log(400), [100]), heartbeat(0, 400)])
    by_object = sorted((name_of(w), w.final) for w in written)
    last = by_object[-1][0]
    assert {name for name, final in by_object if final} == {name for name, _ in by_object} - {last}


def name_of(written: Written) -> str:
    return pathlib.PurePosixPath(written.path).name


def test_what_a_rest_brought_out_is_replaced_when_the_log_goes_on(lake):
    batches = split(log(400), [100, 130])
    rests = [
        batches[0],
        heartbeat(0, 100),
        heartbeat(0, 100),
        batches[1],
        heartbeat(0, 130),
        batches[2],
        heartbeat(0, 400),
    ]
    written = write_unbounded(lake.root, rests)
    assert {w.path for w in written if not w.final} & {w.path for w in written if w.final}
    with_rests = lake.objects()
    write_bounded(lake.root, batches)
    assert lake.objects() == with_rests
    assert lake.table().num_rows == len(log(400))


def test_batches_that_are_large_enough_to_be_compressed_in_state_come_back_whole(tmp_path):
    whole = log(3000)
    write_unbounded(str(tmp_path), [whole, heartbeat(0, 3000)], MARKET_DATA)
    assert Lake(str(tmp_path)).table().num_rows == len(whole)


def test_rows_that_come_in_small_pieces_and_large_ones_are_written_as_if_they_came_at_once(tmp_path):
    whole = log(50_000)
    one_slot = dataclasses.replace(MARKET_DATA, slot_ms=86_400_000)
    bounds = [*range(0, 20_000, 1_000), 26_000, *range(27_000, 47_000, 1_500)]  # small ones are joined twice
    pieces = [packed(it) if len(it) >= MANY else it for it in split(whole, bounds)]
    streamed, at_once = Lake(str(tmp_path / "streamed")), Lake(str(tmp_path / "at once"))
    write_unbounded(streamed.root, [*pieces, heartbeat(0, 50_000)], one_slot)
    write_bounded(at_once.root, [whole], one_slot)
    assert streamed.objects() == at_once.objects()
    assert streamed.table().num_rows == len(whole)


def test_a_heartbeat_with_nothing_new_writes_nothing(tmp_path):
    batches = [heartbeat(0, 0), log(40), heartbeat(0, 40), heartbeat(0, 40)]
    written = write_unbounded(str(tmp_path), batches)
    assert sum(w.rows for w in written) == len(log(40))


def test_rows_of_a_slot_that_does_not_end_come_out_after_the_hold(tmp_path):
    def build(pipeline: beam.Pipeline) -> beam.PCollection:
        return stream(pipeline, [log(40)], then=1e10) | WriteToLake(str(tmp_path), MARKET_DATA, hold_ms=1000)

    assert [(w.rows, w.final) for w in run(BundleBasedDirectRunner(), build)] == [(len(log(40)), False)]


@DRIVERS
@pytest.mark.parametrize("hole", ["missing", "repeated"])
def test_missing_or_repeated_records_fail_the_bundle(tmp_path, write, hole):
    first, second, third = split(log(400), [100, 200])
    with pytest.raises(Exception, match=r"partition 0 of market-data-raw goes on at offset \d+, not at \d+"):
        write(str(tmp_path), [first, third] if hole == "missing" else [first, second, second, third])


def test_a_job_that_begins_in_the_middle_of_a_slot_keeps_the_rows_before_it(lake):
    batches = split(log(400), [110, 290])
    write_bounded(lake.root, batches)
    complete = lake.objects()
    write_unbounded(lake.root, [batches[1], heartbeat(0, 290)])
    assert rows_of(lake.table()) == rows_of(
        pa.concat_tables([pq.read_table(pa.BufferReader(c)) for c in complete.values()])
    )
    assert lake.table().num_rows == len(log(400))


def test_a_run_that_ends_earlier_keeps_the_rows_after_it(lake):
    batches = split(log(400), [110, 290])
    write_bounded(lake.root, batches)
    complete = lake.objects()
    write_bounded(lake.root, batches[:2])
    assert lake.objects() == complete


def test_another_slot_length_in_the_same_lake_is_refused_before_it_loses_rows(lake):
    write_bounded(lake.root, split(log(400), [110]))
    complete = lake.objects()
    other = dataclasses.replace(SMALL, slot_ms=30_000)
    with pytest.raises(Exception, match="slot_ms=60000"):
        write_unbounded(lake.root, [split(log(400), [110])[1], heartbeat(0, 400)], other)
    assert complete.items() <= lake.objects().items()


def test_two_topics_in_one_lake_do_not_overwrite_each_other(lake):
    whole = log(100)
    write_bounded(lake.root, [whole])
    write_bounded(lake.root, [with_span(whole, span_of(whole)._replace(topic="../other topic"))])
    assert lake.table().num_rows == 2 * len(whole)


def test_a_query_for_an_hour_opens_only_the_objects_of_that_hour(lake):
    write_bounded(lake.root, [log(400)])
    wanted = (ds.field("year") == 2024) & (ds.field("month") == 1) & (ds.field("day") == 1) & (ds.field("hour") == 0)
    opened = [fragment.path for fragment in lake.dataset().get_fragments(filter=wanted)]
    assert sorted(path[path.index("market-data/") :] for path in opened) == [
        path for path in sorted(lake.objects()) if "/year=2024/month=01/day=01/hour=00/" in path
    ]


def test_days_of_ticks_in_one_slot_go_to_the_folder_of_each_hour(lake):
    whole = log(90)
    spread = NEW_YEAR - 40 * 3_600_000 + np.arange(len(whole)) * 3_600_000
    ticks = with_span(whole.set_column(1, TICKS.field("timestamp"), pa.array(spread)), span_of(whole))
    written = write_bounded(lake.root, [ticks], dataclasses.replace(MARKET_DATA, slot_ms=86_400_000))
    assert len({str(pathlib.PurePosixPath(w.path).parent) for w in written}) == len(whole)
    assert lake.table().num_rows == len(whole)


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_files_are_ordinary_parquet_with_statistics(tmp_path, compression):
    layout = dataclasses.replace(MARKET_DATA, compression=compression)
    (written,) = write_bounded(str(tmp_path), [log(40)], layout)
    opened = pq.ParquetFile(tmp_path / written.path)
    assert opened.schema_arrow.field("timestamp").type == pa.timestamp("ms", "UTC")
    assert opened.schema_arrow.names == TICKS.names
    assert opened.metadata.metadata[b"topic"] == TOPIC.encode()
    price = opened.metadata.row_group(0).column(TICKS.names.index("price"))
    assert (price.compression, price.statistics.has_min_max) == (compression.upper(), True)
    columns = map(opened.metadata.row_group(0).column, range(len(TICKS.names)))
    encodings = {column.path_in_schema: column.encodings for column in columns}
    packed = {name for name, found in encodings.items() if "DELTA_BINARY_PACKED" in found}
    assert packed == {"timestamp", "seq", "offset", "log_time"}


@pytest.mark.parametrize(("field", "value"), [("slot_ms", 0), ("slot_ms", 1500), ("compression", "lzo")])
def test_bad_options_are_told_in_one_sentence(field, value):
    with pytest.raises(UsageError, match=rf"lake {field} is .*{value}.*: give"):
        dataclasses.replace(MARKET_DATA, **{field: value})


RUNS = {
    "bounded": (FnApiRunner, lambda p, letters: p | beam.Create(letters).with_output_types(pa.RecordBatch)),
    "unbounded": (BundleBasedDirectRunner, lambda p, letters: letter_stream(p, letters)),
}


def letter_stream(pipeline: beam.Pipeline, letters: list[pa.RecordBatch]) -> beam.PCollection:
    events = TestStream(coder=beam.coders.registry.get_coder(pa.RecordBatch)).advance_watermark_to(0)
    for batch in letters:
        events.add_elements([batch])
    return pipeline | events.advance_processing_time(1e10).advance_watermark_to_infinity()


def raw(first: int, count: int) -> pa.RecordBatch:
    """Records of which the first has no time and the second no value."""
    times = [-1, *(NEW_YEAR + 1000 * offset for offset in range(first + 1, first + count))]
    values = [b"\xff{", None, *(b"%d" % offset for offset in range(first + 2, first + count))]
    columns = [range(first, first + count), times, [None] * count, values]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.record_batch(arrays, schema=RAW), Span(TOPIC, 2, first, first + count))


@pytest.mark.parametrize("kind", RUNS)
def test_dead_letters_lie_in_the_lake_with_their_bytes_by_day(lake, kind):
    runner, source = RUNS[kind]
    records = [raw(0, 400), raw(400, 5), raw(200_000, 9)]  # some batches of the log have no dead letters
    letters = [
        dead_letters(batch, range(len(batch)), ["not_json"] * len(batch), ["-"] * len(batch)) for batch in records
    ]
    written = run(runner(), lambda p: source(p, letters) | WriteDeadLettersToLake(lake.root))
    found = lake.table("dead-letter").sort_by("offset")
    expected = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in letters])
    assert found["value"].to_pylist() == expected["value"].to_pylist()
    assert found.select(["topic", "partition", "offset", "reason"]).to_pylist() == (
        expected.select(["topic", "partition", "offset", "reason"]).to_pylist()
    )
    assert {(row["year"], row["month"], row["day"]) for row in found.select(["year", "month", "day"]).to_pylist()} == {
        (1969, 12, 31),
        (2024, 1, 1),
        (2024, 1, 3),
    }
    assert all(w.final == ("-20240103T" not in w.path) for w in written)


def test_dead_letters_of_a_stream_and_of_a_bounded_run_are_identical_bytes(lake):
    records = [raw(0, 400), raw(400, 5), raw(200_000, 9)]
    letters = [
        dead_letters(batch, range(len(batch)), ["not_json"] * len(batch), ["-"] * len(batch)) for batch in records
    ]
    for kind, (runner, source) in RUNS.items():
        run(
            runner(),
            lambda p, source=source, kind=kind: source(p, letters) | WriteDeadLettersToLake(f"{lake.root}/{kind}"),
        )
    objects = lake.objects()
    by_kind = {kind: {p.removeprefix(kind): c for p, c in objects.items() if p.startswith(f"{kind}/")} for kind in RUNS}
    assert by_kind["bounded"] == by_kind["unbounded"] != {}
