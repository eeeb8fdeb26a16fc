"""Closing states in the lake: what was written is what a job begins with, or the user is told why not."""

import dataclasses
import datetime
import json
import pathlib
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_state import begin_of, find_closing_state, write_closing_state
from beam_pipelines.io.objects import Folder, Objects, objects_in
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.indicators import History

DAY = datetime.date(2026, 11, 20)
MINUTE = 60_000
HEAD = "--start_state="


def closing_state(symbols: int = 50, seed: int = 0, bar_ms: int = MINUTE, day: datetime.date = DAY) -> ClosingState:
    """Of symbols with 0 to 79 bars."""
    chance = np.random.default_rng(seed)
    history = History.empty(symbols)
    for number in range(80):
        columns = np.flatnonzero(np.arange(symbols) * 80 // symbols > number)
        close = 100 * np.exp(chance.normal(0, 0.1, len(columns)))
        history.close(columns, close * 1.01, close / 1.01, close)
    names = [f"S{number}" for number in range(symbols - 1)] + ["\N{SNOWMAN}"]
    return NOTHING.followed_by(begin_of(day, bar_ms), [(names, history)])


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def lake(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Objects:
    if request.param == "folder":
        return objects_in(str(tmp_path / "lake"))
    return objects_in(f"s3://{request.getfixturevalue('s3_server').bucket}/{tmp_path.name}")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Folder:
    return Folder(str(tmp_path))


def bits(state: ClosingState) -> bytes:
    return repr(state.symbols).encode() + b"".join(
        values.tobytes() for values in (state.history.count, state.history.closes, *state.history.smoothed.values())
    )


def test_what_was_written_is_read_bit_by_bit(lake):
    written = closing_state()
    write_closing_state(lake, DAY, written, MINUTE)
    found = find_closing_state(lake, "2026-11-20", MINUTE)
    read = pickle.loads(pickle.dumps(found)).load()
    assert bits(read) == bits(written)
    assert read.until == found.until == written.until


def test_what_a_job_is_given_is_small_however_many_symbols_there_are(folder):
    write_closing_state(folder, DAY, closing_state(2_000), MINUTE)
    assert len(pickle.dumps(find_closing_state(folder, "latest", MINUTE))) < 1_000


def test_latest_is_the_last_day_that_has_one_for_such_bars(lake):
    later = datetime.date(2026, 12, 1)
    write_closing_state(lake, DAY, closing_state(), MINUTE)
    write_closing_state(lake, later, closing_state(bar_ms=5000, day=later), 5000)
    assert "date=2026-11-20/" in find_closing_state(lake, "latest", MINUTE).path
    assert "date=2026-12-01/" in find_closing_state(lake, "latest", 5000).path


def test_a_day_written_twice_is_one_object_of_equal_bytes(folder):
    first = pathlib.Path(folder.path, write_closing_state(folder, DAY, closing_state(), MINUTE))
    content = first.read_bytes()
    write_closing_state(folder, DAY, closing_state(), MINUTE)
    assert [path for path in pathlib.Path(folder.path).rglob("*") if path.is_file()] == [first]
    assert first.read_bytes() == content


def test_bars_that_cross_midnight_are_not_part_of_the_day():
    midnight = begin_of(DAY, MINUTE)
    assert midnight == int(datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC).timestamp() * 1000)
    seven = begin_of(DAY, 7000)
    assert seven % 7000 == 0
    assert 0 < midnight - seven < 7000


def test_the_state_of_another_time_is_not_written(folder):
    state = dataclasses.replace(closing_state(), until=0)
    with pytest.raises(ValueError, match="is not that of 2026-11-20"):
        write_closing_state(folder, DAY, state, MINUTE)


def test_one_that_was_written_anew_or_deleted_does_not_replace_it_in_a_running_job(folder):
    path = pathlib.Path(folder.path, write_closing_state(folder, DAY, closing_state(), MINUTE))
    found = find_closing_state(folder, "latest", MINUTE)
    write_closing_state(folder, DAY, closing_state(seed=1), MINUTE)
    with pytest.raises(UsageError, match="was written anew since the job was built: start the job again"):
        found.load()
    path.unlink()
    with pytest.raises(UsageError, match="is gone since the job was built: start the job again"):
        found.load()


def refusal(lake: Objects, day: str = "2026-11-20", bar_ms: int = MINUTE) -> str:
    with pytest.raises(UsageError) as refused:
        find_closing_state(lake, day, bar_ms)
    return str(refused.value).replace(lake.url, "LAKE")


def test_a_day_that_is_not_there_is_named_with_those_that_are(lake):
    assert refusal(lake) == (
        f"{HEAD}2026-11-20: lake LAKE has no such closing state (it holds none): choose a day that is there, or leave "
        "it out to begin with nothing"
    )
    assert "latest: lake LAKE has no such closing state (it holds none)" in refusal(lake, "latest")
    write_closing_state(lake, DAY, closing_state(), MINUTE)
    assert "(it holds 2026-11-20 to 2026-11-20)" in refusal(lake, "2026-11-21")


def test_bars_of_another_length_are_named_with_those_that_are_there(lake):
    write_closing_state(lake, DAY, closing_state(), MINUTE)
    for day in ("2026-11-20", "latest"):
        assert refusal(lake, day, 30_000) == (
            f"{HEAD}{day}: lake LAKE has it for bars of 60 s, --bar_seconds asks for 30: correct one of them, or leave "
            "--start_state out"
        )


def test_a_newer_version_and_damage_are_told(folder):
    path = pathlib.Path(folder.path, write_closing_state(folder, DAY, closing_state(), MINUTE))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"version": b"7"}), path)
    assert "the closing state has version 7, this release reads up to 1: use a newer release" in refusal(folder)
    for damaged in (table.replace_schema_metadata(None), pa.table({"x": [1]}), table.drop_columns(["closes"])):
        pq.write_table(damaged, path)
        assert refusal(folder).endswith("holds no state: write it again, or choose another day")
    path.write_text(json.dumps("noise"))
    assert refusal(folder).endswith("holds no state: write it again, or choose another day")


def test_a_lake_that_cannot_be_read_is_told(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "cannot be read from lake LAKE" in refusal(objects_in("s3://bucket/x"))
