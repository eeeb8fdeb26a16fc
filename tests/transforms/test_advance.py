"""The kernel: any batching gives the same rows, and these are what the plain reference gives."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.advance import FOREVER, Semantics, advance, provisional
from beam_pipelines.transforms.batches import TICKS
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

from .reference import Reference, Tick

SHORT_BARS = Semantics(bar_ms=1000, out_of_orderness_ms=300, allowed_lateness_ms=2000, dedup_ms=1500, max_future_ms=0)


def batch_of(ticks: list[Tick]) -> pa.RecordBatch:
    rows = [tick._asdict() | {"source": "x", "partition": 0} for tick in ticks]
    return pa.RecordBatch.from_pylist(rows, schema=TICKS)


def frames(parts):
    """Outputs of several steps put together."""
    tables = [pa.Table.from_batches(list(batches)).unify_dictionaries() for batches in zip(*parts, strict=True)]
    return [pd.DataFrame(table.to_pylist(), columns=table.column_names) for table in tables]


def run(ticks, cuts, semantics, restart=False):
    """The kernel over `ticks` cut at `cuts`; with `restart` the state goes through its bytes between all steps."""
    state, parts, too_late, duplicates = PartitionState(semantics.bar_ms), [], [], []
    batch = batch_of(ticks)
    for begin, end in zip([0, *cuts], [*cuts, len(ticks)], strict=True):
        step = advance(state, batch.slice(begin, end - begin), semantics)
        parts.append((step.ticks, step.bars))
        too_late += [ticks[begin + row].offset for row in step.too_late]
        duplicates += [ticks[begin + row].offset for row in step.duplicates]
        if restart:
            state = PartitionState.decode(state.encode(), semantics.bar_ms)
    rest = provisional(state, FOREVER, NEVER, semantics)
    return [*frames(parts), too_late, duplicates, *frames([(rest.ticks, rest.bars)])]


def random_ticks(seed: int, count: int, symbols: int = 3, span_ms: int = 40_000) -> list[Tick]:
    """Ticks with disorder within and beyond the bound, ties, repeats and prints that may not change all of a bar."""
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.integers(0, span_ms, count)) + 1_700_000_000_000
    delay = rng.choice([0, 150, 900, 2500, 5000], count, p=[0.7, 0.15, 0.08, 0.05, 0.02]) * rng.random(count)
    ticks: list[Tick] = []
    for offset in range(count):
        tick = Tick(
            symbol=f"S{rng.integers(symbols)}",
            timestamp=int(arrival[offset] - delay[offset]),
            price=round(100 + float(rng.normal(0, 2)), 2),
            volume=int(rng.integers(0, 500)),
            seq=int(rng.integers(0, 5)),
            updates=int(rng.choice([7, 7, 7, 7, 7, 7, rng.integers(8)])),
            offset=offset,
            log_time=int(arrival[offset]),
        )
        if ticks and rng.random() < 0.05:
            tick = ticks[rng.integers(max(0, offset - 30), offset)]._replace(
                offset=offset, log_time=int(arrival[offset])
            )
        ticks.append(tick)
    return ticks


def assert_rows_match(got: pd.DataFrame, expected: list[dict], indicators: tuple[str, ...]) -> None:
    """Equal rows in equal order; indicators to 1e-6, null where TA-Lib has none."""
    assert len(got) == len(expected)
    if not expected:
        return
    want = pd.DataFrame(expected)
    exact = [name for name in want.columns if name not in indicators]
    for name in exact:
        pd.testing.assert_series_equal(got[name], want[name], check_dtype=False, check_exact=True)
    for name in indicators:
        np.testing.assert_allclose(got[name].astype(float), want[name].astype(float), rtol=0, atol=1e-6, err_msg=name)


class TestAdvance:
    @pytest.mark.parametrize("seed", range(6))
    def test_it_equals_the_reference_record_by_record(self, seed):
        ticks = random_ticks(seed, 700, span_ms=80_000)
        reference = Reference(SHORT_BARS)
        for tick in ticks:
            reference.take(tick)
        got_ticks, got_bars, too_late, duplicates, *_ = run(ticks, [], SHORT_BARS)
        assert reference.bars_out
        assert (too_late, duplicates) == (reference.too_late, reference.duplicates)
        assert_rows_match(got_ticks, reference.ticks_out, TICK_INDICATORS)
        assert_rows_match(got_bars, reference.bars_out, BAR_INDICATORS)
        assert got_bars["revision"].max() > 0
        assert got_bars["is_final"].all()

    @settings(max_examples=60)
    @given(seed=st.integers(0, 10**6), count=st.integers(1, 300), data=st.data(), restart=st.booleans())
    def test_any_batching_gives_the_same_rows(self, seed, count, data, restart):
        ticks = random_ticks(seed, count, symbols=4, span_ms=data.draw(st.sampled_from([500, 5_000, 60_000])))
        cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=20)))
        whole, parts = run(ticks, [], SHORT_BARS), run(ticks, cuts, SHORT_BARS, restart)
        for expected, got in zip(whole, parts, strict=True):
            if isinstance(expected, pd.DataFrame):
                pd.testing.assert_frame_equal(got, expected, check_dtype=False, check_exact=True)
            else:
                assert got == expected

    def test_every_tick_comes_out_once_or_is_too_late_or_a_duplicate(self):
        ticks = random_ticks(7, 3000)
        out, _, too_late, duplicates, rest, _ = run(ticks, [1000], SHORT_BARS)
        assert too_late
        assert duplicates
        assert sorted([*out["offset"], *rest["offset"], *too_late, *duplicates]) == list(range(3000))

    def test_two_ticks_of_one_millisecond_are_two_rows(self):
        first = Tick("A", 5_000, 1.0, 1, 1, 7, 0, 5_000)
        out, *_ = run([first, first._replace(seq=2, offset=1)], [], SHORT_BARS)
        assert out["seq"].tolist() == [1, 2]

    def test_a_repeat_older_than_the_dedup_bound_is_a_late_tick_not_a_duplicate(self):
        semantics = dataclasses.replace(SHORT_BARS, dedup_ms=100)
        first = Tick("A", 5_000, 1.0, 1, 1, 7, 0, 5_000)
        ticks = [first, Tick("A", 6_500, 1.0, 1, 2, 7, 1, 6_500), first._replace(offset=2)]
        out, bars, _, duplicates, *_ = run(ticks, [], semantics)
        assert duplicates == []
        assert out["late"].tolist() == [False, False, True]
        assert bars["trade_count"].tolist() == [1, 2]

    def test_ticks_after_a_boundary_wait_for_the_bound_on_disorder(self):
        ticks = [
            Tick("A", 5_900, 1.0, 1, 1, 7, 0, 5_900),
            Tick("A", 6_100, 2.0, 1, 2, 7, 1, 6_100),
            Tick("B", 6_200, 9.0, 1, 1, 7, 2, 6_200),
            Tick("A", 6_300, 3.0, 1, 3, 7, 3, 6_300),
        ]
        out, bars, *_ = run(ticks, [], SHORT_BARS)
        assert out["offset"].tolist() == [0, 2, 1, 3]
        assert out["processed_at"].tolist() == [5_900, 6_200, 6_300, 6_300]
        assert bars["time"].tolist() == [5_000]

    def test_provisional_rows_do_not_move_the_state_and_are_told_once(self):
        ticks = random_ticks(3, 200)
        state = PartitionState(SHORT_BARS.bar_ms)
        advance(state, batch_of(ticks), SHORT_BARS)
        before = state.encode()
        first = provisional(state, state.newest + 400, NEVER, SHORT_BARS)
        second = provisional(state, FOREVER, state.newest + 400, SHORT_BARS)
        everything = provisional(state, FOREVER, NEVER, SHORT_BARS)
        assert state.encode() == before
        assert len(everything.bars) == len(first.bars) + len(second.bars) > 0
        assert len(everything.ticks) == len(first.ticks) + len(second.ticks)
        assert not any(everything.bars["is_final"].to_pylist())

    def test_a_symbol_of_second_resolution_is_no_special_case(self):
        ticks = [Tick("A", 5_000 + i // 50 * 1000, 1.0 + i, 1, i, 7, i, 10_000 + i) for i in range(500)]
        out, bars, _, _, rest, _ = run(ticks, [77, 78], SHORT_BARS)
        assert (len(out), len(rest)) == (450, 50)
        assert bars["trade_count"].tolist() == [50] * 8


class TestState:
    def test_it_is_refused_for_bars_of_another_length(self):
        encoded = PartitionState(60_000).encode()
        with pytest.raises(ValueError, match="holds bars of 60 s, --bar_seconds asks for 30"):
            PartitionState.decode(encoded, 30_000)

    def test_its_bytes_do_not_grow_with_the_ticks(self):
        semantics = dataclasses.replace(SHORT_BARS, dedup_ms=0)
        sizes = []
        state = PartitionState(semantics.bar_ms)
        for part in range(4):
            ticks = [t._replace(timestamp=t.timestamp + part * 40_000) for t in random_ticks(part, 1000)]
            advance(state, batch_of(ticks), semantics)
            sizes.append(sum(map(len, (state.encode_open(), state.encode_history()))))
        assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bar_ms": 500}, "--bar_seconds must be a whole number of seconds from 1, not 0.5"),
        ({"out_of_orderness_ms": -1}, "--out_of_orderness_ms must be 0 or more, not -1"),
        ({"allowed_lateness_ms": 1000}, "--allowed_lateness_ms must be at least one bar"),
        ({"max_future_ms": 70_000}, "--max_future_ms must be at most --allowed_lateness_ms"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options, words):
    with pytest.raises(UsageError, match=words):
        Semantics(**options)
