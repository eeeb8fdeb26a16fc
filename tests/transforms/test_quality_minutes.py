"""The quality of minutes and of days: functions of the log, however it was batched."""

from itertools import pairwise
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms import quality_day, quality_minutes
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.batches import QUALITY, RAW, Span, with_span
from beam_pipelines.transforms.completeness import CHECKS
from beam_pipelines.transforms.enrich import take_step
from beam_pipelines.transforms.messages import quality_alerts
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.quality_day import Sampled, sampled
from beam_pipelines.transforms.quality_kernels import judge
from beam_pipelines.transforms.quality_minutes import SAMPLE, Minutes, QualityRules, Samples
from beam_pipelines.transforms.quality_result import Window
from beam_pipelines.transforms.quality_suites import read_suites

BEGIN = 29_000_000 * 60_000
RULES = QualityRules(read_suites()["market"])


def log(seed: int, count: int = 2_000, minutes: int = 6) -> pa.RecordBatch:
    """Raw records over some minutes: good ones, bad ones, repeats, and ones that no expectation likes."""
    rng = np.random.default_rng(seed)
    times = BEGIN + np.sort(rng.integers(0, minutes * 60_000, count))
    values = []
    for at, time in enumerate(times.tolist()):
        symbol, price = f"S{'ABCDEFG'[rng.integers(7)]}", 100 + rng.normal()
        price = 20_000 if rng.random() < 0.02 else price
        good = f'{{"symbol":"{symbol}","timestamp":{time},"price":{price},"volume":2000,"seq":{at},"source":"x"}}'
        values.append(
            b"no json" if rng.random() < 0.03 else values[-1] if at and rng.random() < 0.03 else good.encode()
        )
    arrays = [np.arange(count), times, [None] * count, values]
    columns = [pa.array(it, field.type) for it, field in zip(arrays, RAW, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=RAW)


def judged(raw: pa.RecordBatch, cuts: list[int], restart: bool = False) -> list[dict]:
    state, minutes, rows = PartitionState(60_000), Minutes(RULES, 3), []
    counts: bytes | None = None
    held: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        if begin == end:
            continue
        step = take_step(state, with_span(raw.slice(begin, end - begin), Span("t", 3, begin, end)), Semantics())
        late = step.ticks.filter(step.ticks["late"])["offset"].to_numpy()
        rows += minutes.take(step.read, step.valid, step.dead_letters, step.repeated, late).to_pylist()
        if restart:
            saved, new = minutes.unsaved()
            counts, held = (counts, [*held, *new]) if saved is None else (saved, new)
            minutes = Minutes.decode(counts, held, RULES, 3)
    return rows + minutes.so_far().to_pylist()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 20),
    cuts=st.lists(st.integers(0, 2_000), max_size=15),
    restart=st.booleans(),
    written=st.sampled_from([0, 50, 700, 8_192]),
)
def test_any_batching_judges_the_same(seed: int, cuts: list[int], restart: bool, written: int) -> None:
    raw = log(seed)
    whole = judged(raw, [])
    assert [row["time"] for row in whole] == [BEGIN + minute * 60_000 for minute in range(6)]
    with mock.patch.object(quality_minutes, "_WRITTEN", written):
        assert judged(raw, sorted(cuts), restart) == whole


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 2_000), max_size=15), restart=st.booleans(), held=st.sampled_from([1, 50, 700]))
def test_fields_that_are_new_are_told_however_records_are_held(cuts: list[int], restart: bool, held: int) -> None:
    raw = log(4, minutes=16)
    values = raw["value"].to_pylist()
    values[1_600:] = [value.replace(b'"seq"', b'"note":1,"seq"') for value in values[1_600:]]
    values = [value.replace(b'"source":"x"', b'"source":"y"') if at % 3 else value for at, value in enumerate(values)]
    raw = raw.set_column(3, RAW.field("value"), pa.array(values, pa.binary()))
    whole = judged(raw, [])
    told = [incident for row in whole for incident in row["incidents"] if incident.startswith("schema")]
    assert any("new field 'note'" in incident for incident in told)
    with mock.patch.object(quality_minutes, "_HELD", held):
        assert judged(raw, sorted(cuts), restart) == whole


def test_a_minutes_row_says_what_is_wrong_with_its_records() -> None:
    raw = log(1)
    rows = judged(raw, [])
    dead = sum(value == b"no json" for value in raw["value"].to_pylist())
    assert sum(row["records"] for row in rows) == 2_000 - dead
    for row in rows:
        assert (row["dataset"], row["partition"], row["window_seconds"]) == ("market", 3, 60)
        assert row["sampled"] == row["records"]  # few are all looked at
        assert 0.9 < row["score"] < 1
        assert any("price" in failure and "20000" in failure for failure in row["failures"])
    incidents = {incident.split(":")[0] for row in rows for incident in row["incidents"]}
    assert {"dead_letters", "duplicates"} <= incidents <= set(CHECKS)


def test_many_records_are_judged_by_a_sample_of_the_whole_minute() -> None:
    count = 40 * SAMPLE
    offsets = np.arange(2 * count)
    times = BEGIN + offsets * 60_000 // count
    ticks = pa.record_batch({"offset": offsets, "log_time": times})
    samples, ended = Samples(), []
    for begin in range(0, 2 * count, 7_777):
        part = ticks.slice(begin, 7_777)
        ended += samples.take(part, part["log_time"].to_numpy(), int(part["log_time"][-1].as_py()))
    (first,), second = ended, samples.open()
    assert (first.records, second.records) == (count, count)
    assert len(first.sample) == 4 * SAMPLE  # nothing was known of how many would come
    assert len(second.sample) == SAMPLE
    assert np.ptp(second.sample["offset"].to_numpy()) > 0.99 * count


def test_the_score_is_that_of_the_sample() -> None:
    raw = log(2, count=300, minutes=1)
    step = take_step(PartitionState(60_000), with_span(raw, Span("t", 0, 0, 300)), Semantics())
    (row,) = judged(raw, [])
    assert row["score"] == judge(RULES.suite, step.valid, Window(BEGIN, BEGIN + 60_000)).score


def test_what_rests_is_judged_when_its_minute_is_over_and_once() -> None:
    raw = log(3, count=200, minutes=1)
    state, minutes = PartitionState(60_000), Minutes(RULES, 0)
    step = take_step(state, with_span(raw, Span("t", 0, 0, 200)), Semantics())
    none = np.empty(0, np.int64)
    assert not len(minutes.take(step.read, step.valid, step.dead_letters, step.repeated, none))
    assert not len(minutes.idle(1))
    (row,) = minutes.idle(70_000).to_pylist()
    assert (row["time"], row["records"]) == (BEGIN, len(step.valid))
    assert not len(minutes.idle(71_000))


def test_alerts_are_of_rows_with_something_wrong() -> None:
    row = {field.name: None for field in QUALITY} | {"dataset": "market", "time": 0, "window_seconds": 60}
    row |= {"partition": 1, "records": 1, "sampled": 1, "score": 1.0, "expectations": 1}
    rows = [row | {"failures": [], "incidents": []}, row | {"failures": ["it is bad"], "incidents": []}]
    (alert,) = quality_alerts(pa.RecordBatch.from_pylist(rows, QUALITY)).to_pylist()
    assert (alert["key"], alert["partition"]) == (b"market", 1)
    assert b'"time":"1970-01-01T00:00:00.000Z"' in alert["value"]
    assert b'"failures":["it is bad"]' in alert["value"]


# --- days ---


@given(cuts=st.lists(st.integers(0, 3_000), max_size=8), seed=st.integers(0, 5))
def test_a_days_sample_does_not_depend_on_its_parts(cuts: list[int], seed: int) -> None:
    small = 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality_day, "SAMPLE", small)
        rng = np.random.default_rng(seed)
        rows = pa.record_batch({"partition": rng.integers(0, 4, 3_000), "offset": np.arange(3_000)})
        edges = [0, *sorted(cuts), 3_000]
        parts = [rows.slice(begin, end - begin) for begin, end in pairwise(edges)]
        found = sampled([sampled([Sampled(len(part), part)]) for part in parts])
        whole = sampled([Sampled(3_000, rows)])
    assert found.records == whole.records == 3_000
    assert sorted(found.rows["offset"].to_pylist()) == sorted(whole.rows["offset"].to_pylist())
    assert len(whole.rows) == small
    assert np.histogram(whole.rows["offset"].to_numpy(), 10, (0, 3_000))[0].min() > small / 20


def test_a_days_judgement_is_a_row_and_a_page() -> None:
    raw = log(4)
    step = take_step(PartitionState(60_000), with_span(raw, Span("t", 0, 0, len(raw))), Semantics())
    sample = sampled([Sampled(len(step.valid), step.valid)])
    (found,) = quality_day._judge_day(sample, RULES.suite, Window(BEGIN, BEGIN + 86_400_000))
    (row,) = found.quality.to_pylist()
    assert (row["records"], row["sampled"], row["window_seconds"]) == (len(step.valid), len(step.valid), 86_400)
    assert 0.9 < row["score"] < 1
    assert b"20000" in found.docs["market.html"]
    assert not list(quality_day._judge_day(Sampled(0, None), RULES.suite, Window(0, 1)))


@pytest.mark.parametrize(("written", "counted"), [(999, True), (1_000, False)])
def test_what_is_counted_is_written_in_place_of_many_records_at_once(written: int, counted: bool) -> None:
    raw, state, minutes = log(5, minutes=1), PartitionState(60_000), Minutes(RULES, 0)
    for begin, end in ((0, 1_000), (1_000, 2_000)):  # the first begin a minute, so they are counted
        step = take_step(state, with_span(raw.slice(begin, 1_000), Span("t", 0, begin, end)), Semantics())
        minutes.take(step.read, step.valid, step.dead_letters, step.repeated, np.empty(0, np.int64))
        with mock.patch.object(quality_minutes, "_WRITTEN", written):
            counts, held = minutes.unsaved()
    assert (counts is not None, len(held)) == ((True, 0) if counted else (False, 1))
