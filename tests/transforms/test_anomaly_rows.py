"""Anomalies as the kernel tells them: rows that are a function of the log, whatever the batches and restarts."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.advance import advance
from beam_pipelines.transforms.anomalies import KINDS
from beam_pipelines.transforms.anomaly_rows import anomaly_rows
from beam_pipelines.transforms.batches import ANOMALIES, TICKS, empty
from beam_pipelines.transforms.partition_state import PartitionState

from .restarts import Restarts
from .test_advance import SHORT_BARS

BEGIN = 1_700_000_000_000
BARS = 75
OF_TICKS = ("crossed_quote", "locked_quote", "spread_blowout", "off_market_print")


def session(seed: int) -> pa.RecordBatch:
    """Ticks of three symbols, eight a bar each, with quotes; late, repeated and odd ones among them."""
    rng = np.random.default_rng(seed)
    count = BARS * 24
    arrival = BEGIN + np.sort(rng.integers(0, BARS * 1000, count))
    price = 100 * np.exp(np.cumsum(rng.normal(0, 2e-4, count)))
    spread = price * rng.choice([2e-4, 3e-4], count)
    columns = {
        "symbol": [f"S{number}" for number in rng.integers(0, 3, count)],
        "timestamp": arrival - rng.choice([0, 100, 3000], count, p=[0.8, 0.17, 0.03]),
        "price": price,
        "volume": rng.integers(1, 300, count),
        "bid": price - spread / 2,
        "ask": price + spread / 2,
        "log_time": arrival,
    }
    odd = rng.choice(np.arange(count // 2, count), 24, replace=False)
    columns["bid"][odd[:6]], columns["ask"][odd[:6]] = columns["ask"][odd[:6]], columns["bid"][odd[:6]]
    columns["bid"][odd[6:12]] = columns["ask"][odd[6:12]]
    columns["ask"][odd[12:18]] += 5
    columns["price"][odd[18:]] *= 1.3
    columns["price"][-200:] *= 1.2  # a jump of all
    rows = pa.table(columns).to_pylist()
    for offset, row in enumerate(rows):
        row |= {"source": "x", "seq": offset, "updates": 7, "partition": 3, "offset": offset}
    repeats = rng.integers(1, count, 20)
    for at in repeats:
        rows[at] = rows[at - 1] | {"offset": rows[at]["offset"], "log_time": rows[at]["log_time"]}
    return pa.RecordBatch.from_pylist(rows, TICKS)


def told(log: pa.RecordBatch, cuts: list[int], whole_every: int = 0) -> list[dict]:
    restarts = Restarts(SHORT_BARS.bar_ms, whole_every)
    state, found = PartitionState(SHORT_BARS.bar_ms), []
    for begin, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        found += advance(state, log.slice(begin, end - begin), SHORT_BARS).anomalies.to_pylist()
        if whole_every:
            state = restarts.restarted(state)
    return found


@settings(max_examples=30)
@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, BARS * 24), max_size=25), whole_every=st.integers(0, 8))
def test_any_batching_tells_the_same(seed: int, cuts: list[int], whole_every: int) -> None:
    log = session(seed)
    whole = told(log, [])
    assert {row["kind"] for row in whole} >= {"price_jump", *OF_TICKS}
    assert told(log, sorted(cuts), whole_every) == whole


def test_rows_name_the_record_at_which_it_showed() -> None:
    log = session(1)
    ticks = log.to_pylist()
    rows = told(log, [])
    identities = [(row["symbol"], row["time"], row["bar_seconds"], row["kind"]) for row in rows]
    assert len(set(identities)) == len(identities)
    assert [row["offset"] for row in rows] == sorted(row["offset"] for row in rows)
    for row in rows:
        tick = ticks[row["offset"]]
        assert (row["partition"], row["detected_at"], row["bar_seconds"]) == (3, tick["log_time"], 1)
        if row["kind"] in OF_TICKS:
            assert (row["symbol"], row["time"]) == (tick["symbol"], tick["timestamp"] // 1000 * 1000)
        else:  # a bar is judged when the clock has passed its end
            assert row["time"] + 1000 <= tick["timestamp"] - SHORT_BARS.out_of_orderness_ms
        assert row["kind"] in KINDS
        assert row["explanation"]


def test_late_ticks_change_nothing_that_was_told() -> None:
    log = session(2)
    rows = told(log, [])
    late = log.slice(len(log) - 300, 1).to_pylist()[0]
    more = [late | {"price": 1e6, "seq": 10**6 + at, "offset": len(log) + at} for at in range(3)]
    again = told(pa.RecordBatch.from_pylist([*log.to_pylist(), *more], TICKS), [])
    assert again == rows


def test_a_state_of_before_there_were_anomalies_begins_to_learn() -> None:
    log = session(4)
    state = PartitionState(SHORT_BARS.bar_ms)
    advance(state, log.slice(0, 900), SHORT_BARS)
    old = PartitionState.decode(state.encode()._replace(usual=None), SHORT_BARS.bar_ms)
    found = advance(old, log.slice(900), SHORT_BARS).anomalies.to_pylist()
    assert {row["kind"] for row in found} >= {"crossed_quote", "locked_quote"}


def test_nothing_found_is_no_row() -> None:
    assert anomaly_rows([], ["A"], 1000, empty(TICKS)) == empty(ANOMALIES)


@pytest.mark.parametrize("dedup_ms", [0, 1500])
def test_a_repeat_is_told_only_where_it_counts_as_a_tick(dedup_ms: int) -> None:
    semantics = dataclasses.replace(SHORT_BARS, dedup_ms=dedup_ms)
    row = {"symbol": "A", "timestamp": BEGIN, "price": 1.0, "volume": 1, "bid": 2.0, "ask": 1.0, "source": "x"}
    rows = [row | {"seq": 1, "updates": 7, "partition": 0, "offset": at, "log_time": BEGIN} for at in range(2)]
    found = advance(PartitionState(1000), pa.RecordBatch.from_pylist(rows, TICKS), semantics).anomalies.to_pylist()
    assert [(it["kind"], it["offset"]) for it in found] == [("crossed_quote", 0)]
