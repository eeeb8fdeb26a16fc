"""Copies by symbol: none is lost, none counts twice, each partition keeps its order, and time is merged."""

import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.batches import RAW, Span, span_of, with_span
from beam_pipelines.transforms.copies import first_copies, merged, symbols_of, with_origin
from beam_pipelines.transforms.enrich import take_step
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.records import partition_of
from beam_pipelines.transforms.ticks import decode

from ..contract.anything import EXTREMES, ZOO, drawn
from ..contract.logs import SEMANTICS

ROW = dict[str, object]


def raw_of(partition: int, times: list[int], first: int = 0) -> pa.RecordBatch:
    values = [json.dumps({"symbol": f"S{time % 5}"}).encode() for time in times]
    offsets = range(first, first + len(times))
    arrays = [pa.array(offsets), pa.array(times, pa.int64()), pa.nulls(len(times), pa.binary()), pa.array(values)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=RAW)
    return with_span(batch, Span("raw", partition, first, first + len(times)))


def copies_of(logs: dict[int, list[int]], batch: int) -> list[ROW]:
    """All records of logs (partition → times), read in batches, as they are written."""
    held: dict[int, pa.RecordBatch] = {}
    read = dict.fromkeys(logs, 0)
    written: list[ROW] = []
    while True:
        for partition, times in logs.items():
            first = read[partition]
            if partition not in held and first < len(times):
                held[partition] = raw_of(partition, times[first : first + batch], first)
                read[partition] += len(held[partition])
        if not held:
            return written
        copies, held = merged(held, "id")
        assert len(copies)
        assert all(span_of(rest).first == rest["offset"][0].as_py() for rest in held.values())
        written += copies.to_pylist()


LOGS = st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, 60), min_size=1, max_size=40), min_size=1)


@given(logs=LOGS, batch=st.integers(1, 15))
def test_every_record_is_copied_once_in_the_order_of_its_partition(logs, batch):
    written = [row["copied_from"] for row in copies_of(logs, batch)]
    for partition, times in logs.items():
        mine = [text for text in written if text.startswith(f"raw#id/{partition}/")]
        assert mine == [f"raw#id/{partition}/{offset}" for offset in range(len(times))]
    assert len(written) == sum(map(len, logs.values()))


@given(logs=LOGS, batch=st.integers(1, 15))
def test_partitions_in_order_become_one_log_in_order(logs, batch):
    times = [row["timestamp"] for row in copies_of({it: sorted(mine) for it, mine in logs.items()}, batch)]
    assert times == sorted(times)


def test_values_and_times_stay_and_the_key_is_the_symbol_or_the_partition():
    raw = raw_of(3, [7])
    (tick,) = merged({3: raw}, "id").copies.to_pylist()
    assert tick == {
        "key": b"S2",
        "value": raw["value"][0].as_py(),
        "timestamp": 7,
        "copied_from": "raw#id/3/0",
    }
    broken = with_span(raw.set_column(3, RAW.field("value"), pa.array([b"{"])), span_of(raw))
    assert merged({3: broken}, "id").copies["key"].to_pylist() == [b"partition 3"]


def test_every_tick_goes_where_its_symbol_goes_however_odd_its_record():
    values = [*ZOO, *EXTREMES, *drawn(500)]
    named = symbols_of(pa.array(values, pa.binary()))
    ticks = 0
    for value, name in zip(values, named, strict=True):
        raw = pa.RecordBatch.from_arrays(
            [pa.array([0]), pa.array([-1]), pa.nulls(1, pa.binary()), pa.array([value], pa.binary())], schema=RAW
        )
        found = decode(with_span(raw, Span("raw", 0, 0, 1))).ticks
        if len(found):
            ticks += 1
            assert name == found["symbol"][0].as_py()
    assert ticks > 20


def crashing(written: list[ROW], choice: random.Random) -> list[ROW]:
    """The copies with what crashes do: from somewhere on, they go back to a checkpoint and come again."""
    out, at = [], 0
    while at < len(written):
        step = choice.randint(1, 12)
        out += written[at : at + step]
        at += step
        if choice.random() < 0.3 and at < len(written):
            at -= choice.randint(0, min(at, 20))
    return out


@settings(max_examples=100)
@given(logs=LOGS, seed=st.integers(0, 10**6), batch=st.integers(1, 15), size=st.integers(1, 30))
def test_repeats_after_crashes_are_dropped_and_nothing_else(logs, seed, batch, size):
    written = copies_of(logs, batch)
    log = crashing(written, random.Random(seed))
    for target in range(2):
        mine = [row for row in log if partition_of(row["key"], 2) == target]
        copied: dict[str, int] = {}
        kept = []
        for start in range(0, len(mine), size):
            piece = mine[start : start + size]
            raw = raw_of(target, [row["timestamp"] for row in piece], start)
            first = first_copies(
                with_span(with_origin(raw, [row["copied_from"] for row in piece]), span_of(raw)), copied
            )
            assert span_of(first) == span_of(raw)
            kept += first["copied_from"].to_pylist()
        assert kept == [row["copied_from"] for row in written if partition_of(row["key"], 2) == target]


@pytest.mark.parametrize("note", [None, "", "x", "raw/", "raw/x", "/5", "raw#id/0/-1"])
def test_a_record_with_no_note_or_a_strange_one_is_no_repeat(note):
    raw = raw_of(0, [1, 1])
    copies = with_span(with_origin(raw, [note, note]), span_of(raw))
    assert len(first_copies(copies, {})) == 2


def test_a_topic_that_was_made_anew_is_another_log():
    raw = raw_of(0, [1, 2])
    copies = with_span(with_origin(raw, ["raw#old/0/5", "raw#new/0/0"]), span_of(raw))
    assert len(first_copies(copies, {})) == 2


def test_a_restart_remembers_what_was_copied_and_dead_letters_say_where_from():
    raw = raw_of(0, [1, 2])
    copies = with_span(with_origin(raw, ["raw#id/4/5", "raw#id/4/6"]), span_of(raw))
    state = PartitionState(SEMANTICS.bar_ms)
    step = take_step(state, copies, SEMANTICS)
    assert step.dead_letters["copied_from"].to_pylist() == ["raw#id/4/5", "raw#id/4/6"]
    assert step.dropped["repeated_copies"] == 0
    again = PartitionState.decode(state.encode(), SEMANTICS.bar_ms)
    step = take_step(again, copies, SEMANTICS)
    assert step.dead_letters is None
    assert step.dropped["repeated_copies"] == 2
