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
from beam_pipelines.transforms.batches import TICKS, to_bytes
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.indicators import BAR_INDICATORS, TICK_INDICATORS
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

from .reference import Reference, Tick
from .restarts import Restarts

SHORT_BARS = Semantics(bar_ms=1000, out_of_orderness_ms=300, allowed_lateness_ms=2000, dedup_ms=1500, max_future_ms=0)


def batch_of(ticks: list[Tick]) -> pa.RecordBatch:
    rows = [tick._asdict() | {"source": "x", "partition": 0} for tick in ticks]
    return pa.RecordBatch.from_pylist(rows, schema=TICKS)


def frames(parts):
    """Outputs of several steps put together."""
    tables = [pa.Table.from_batches(list(batches)).unify_dictionaries() for batches in zip(*parts, strict=True)]
    return [pd.DataFrame(table.to_pylist(), columns=table.column_names) for table in tables]


def run(ticks, cuts, semantics, whole_every=0, prior=NOTHING):
    """The kernel over `ticks` cut at `cuts`; unless `whole_every` is 0 it is restarted between all steps."""
    restarts = Restarts(semantics.bar_ms, whole_every, prior)
    state, parts, too_late, duplicates = PartitionState(semantics.bar_ms, prior), [], [], []
    batch = batch_of(ticks)
    for begin, end in zip([0, *cuts], [*cuts, len(ticks)], strict=True):
        step = advance(state, batch.slice(begin, end - begin), semantics)
        parts.append((step.ticks, step.bars))
        too_late += [ticks[begin + row].offset for row in step.too_late]
        duplicates += [ticks[begin + row].offset for row in step.duplicates]
        if whole_every:
            state = restarts.restarted(state)
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
    @given(seed=st.integers(0, 10**6), count=st.integers(1, 300), data=st.data(), whole_every=st.integers(0, 4))
    def test_any_batching_gives_the_same_rows(self, seed, count, data, whole_every):
        ticks = random_ticks(seed, count, symbols=4, span_ms=data.draw(st.sampled_from([500, 5_000, 60_000])))
        cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=20)))
        whole, parts = run(ticks, [], SHORT_BARS), run(ticks, cuts, SHORT_BARS, whole_every)
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


UNTIL = 1_700_000_041_000  # after all that random_ticks dates within its 40 s


def closing_state_of(ticks: list[Tick], until: int = UNTIL, partitions: int = 1, semantics=SHORT_BARS) -> ClosingState:
    """Of a day whose symbols are spread over so many partitions."""
    parts = []
    for partition in range(partitions):
        state = PartitionState(semantics.bar_ms)
        mine = [tick for tick in ticks if int(tick.symbol[1:]) % partitions == partition]
        advance(state, batch_of(mine), semantics)
        parts.append(state.closing(until))
    return NOTHING.followed_by(until, parts)


def next_day(seed: int, count: int, offset: int, symbols: int) -> list[Tick]:
    """Ticks that are all dated after UNTIL."""
    shift = UNTIL + 6_000 - 1_700_000_000_000
    ticks = random_ticks(seed, count, symbols, span_ms=80_000)
    return [
        tick._replace(timestamp=tick.timestamp + shift, log_time=tick.log_time + shift, offset=tick.offset + offset)
        for tick in ticks
    ]


def after_until(ticks: pd.DataFrame, bars: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of the second day, in an order that does not depend on which symbol was met first."""
    second_ticks = ticks[ticks["timestamp"] >= UNTIL].sort_values("offset")
    second_bars = bars[bars["time"] >= UNTIL].sort_values(["symbol", "time", "revision"])
    return [rows.reset_index(drop=True) for rows in (second_ticks, second_bars)]


class TestClosingState:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10**6), count=st.integers(100, 400), whole_every=st.integers(0, 3))
    def test_a_day_begun_with_it_is_that_of_a_kernel_that_saw_the_day_before(self, seed, count, whole_every):
        first = random_ticks(seed, count, symbols=6)
        second = next_day(seed + 1, 300, count, symbols=8)  # with symbols that are new
        whole_ticks, whole_bars, _, _, whole_rest, whole_forming = run([*first, *second], [], SHORT_BARS)
        prior = closing_state_of(first)
        cuts = [1, 2, 150]
        ticks, bars, too_late, _, rest, forming = run(second, cuts, SHORT_BARS, whole_every, prior)
        assert ticks["sma_20"].notna().sum() > 10
        for got, expected in zip(after_until(ticks, bars), after_until(whole_ticks, whole_bars), strict=True):
            pd.testing.assert_frame_equal(got, expected, check_exact=True)
        for got, expected in zip(after_until(rest, forming), after_until(whole_rest, whole_forming), strict=True):
            pd.testing.assert_frame_equal(got, expected, check_exact=True)
        assert all(offset >= count for offset in too_late)

    def test_ticks_that_it_holds_already_are_told_and_change_nothing(self):
        first, second = random_ticks(1, 400), next_day(2, 300, 400, symbols=3)
        prior = closing_state_of(first)
        again = [tick._replace(timestamp=UNTIL - 1 - i, offset=700 + i) for i, tick in enumerate(first[-40:])]
        state = PartitionState(SHORT_BARS.bar_ms, prior)
        step = advance(state, batch_of([*again, *second[:1], *again]), SHORT_BARS)
        assert [len(step.before_begin), len(step.too_late), len(step.duplicates)] == [40, 40, 0]
        step = advance(state, batch_of(second[1:]), SHORT_BARS)
        alone = PartitionState(SHORT_BARS.bar_ms, prior)
        advance(alone, batch_of(second[:1]), SHORT_BARS)
        expected = advance(alone, batch_of(second[1:]), SHORT_BARS)
        for got, wanted in zip(
            after_until(*frames([(step.ticks, step.bars)])),
            after_until(*frames([(expected.ticks, expected.bars)])),
            strict=True,
        ):
            pd.testing.assert_frame_equal(got, wanted, check_exact=True)

    def test_a_symbol_that_rests_a_day_keeps_its_history(self):
        monday = closing_state_of(random_ticks(1, 400, symbols=4))
        state = PartitionState(SHORT_BARS.bar_ms, monday)
        traded = [tick for tick in next_day(2, 300, 0, symbols=4) if tick.symbol != "S3"]
        advance(state, batch_of(traded), SHORT_BARS)
        tuesday = monday.followed_by(UNTIL + 100_000, [state.closing(UNTIL + 100_000)])
        counts = {symbol: int(tuesday.history.count[row]) for symbol, row in tuesday.symbols.items()}
        before = {symbol: int(monday.history.count[row]) for symbol, row in monday.symbols.items()}
        assert counts["S3"] == before["S3"] > 0
        assert all(counts[symbol] > before[symbol] for symbol in ("S0", "S1", "S2"))

    def test_a_bar_that_goes_on_after_it_is_not_in_it(self):
        ticks = [Tick("S0", 5_900, 1.0, 1, 1, 7, 0, 5_900), Tick("S0", 6_100, 2.0, 1, 2, 7, 1, 6_100)]
        for until, count in ((6_000, 1), (6_999, 1), (7_000, 2)):
            assert closing_state_of(ticks, until).history.count.tolist() == [count]

    def test_it_does_not_depend_on_partitions_down_to_its_bytes(self):
        ticks = random_ticks(5, 400, symbols=6)
        nothing_late = Semantics(1000, out_of_orderness_ms=10_000)  # each partition has a clock of its own
        one, three = (closing_state_of(ticks, UNTIL, partitions, nothing_late) for partitions in (1, 3))
        assert to_bytes(one.to_batch(1000)) == to_bytes(three.to_batch(1000))

    def test_a_symbol_in_two_partitions_is_refused(self):
        state = PartitionState(SHORT_BARS.bar_ms)
        advance(state, batch_of(random_ticks(1, 50, symbols=2)), SHORT_BARS)
        with pytest.raises(ValueError, match="symbol S0 is in two partitions"):
            NOTHING.followed_by(UNTIL, [state.closing(UNTIL), state.closing(UNTIL)])

    def test_a_saved_state_goes_on_only_with_the_one_it_began_with(self):
        prior = closing_state_of(random_ticks(1, 50))
        saved = PartitionState(1000, prior).encode()
        assert PartitionState.decode(saved, 1000, prior).begin == UNTIL
        assert PartitionState.decode(saved, 1000).begin == UNTIL
        other = dataclasses.replace(prior, until=UNTIL + 1000)
        with pytest.raises(ValueError, match=r"another closing state \(the one up to 2023-11-14T22:14:01"):
            PartitionState.decode(saved, 1000, other)
        with pytest.raises(ValueError, match=r"began with another closing state \(none\) than the one up to"):
            PartitionState.decode(PartitionState(1000).encode(), 1000, other)


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

    def test_windows_identities_and_sources_are_forgotten_in_a_long_log(self):
        state, ticks = PartitionState(SHORT_BARS.bar_ms), random_ticks(1, 400)
        for part in range(30):
            shifted = [tick._replace(timestamp=tick.timestamp + part * 40_000) for tick in ticks]
            batch = batch_of(shifted)
            sources = pa.array([f"feed {part}-{row}" for row in range(len(batch))]).dictionary_encode()
            batch = batch.set_column(batch.schema.get_field_index("source"), TICKS.field("source"), sources)
            advance(state, batch, SHORT_BARS)
            state.forget_sources()
            assert len(state.windows) <= 5
            assert len(state.seen) <= 2 * len(ticks)
            assert len(state.sources) <= len(state.seen)
        assert PartitionState.decode(state.encode(), SHORT_BARS.bar_ms).sources == state.sources

    def test_forgetting_sources_changes_no_output(self):
        ticks = random_ticks(4, 600)
        names = pa.array([f"feed {tick.offset // 40}" for tick in ticks]).dictionary_encode()

        def out(forgets: bool):
            state, parts = PartitionState(SHORT_BARS.bar_ms), []
            for start in range(0, len(ticks), 25):
                batch = batch_of(ticks[start : start + 25])
                mine = names.slice(start, 25).dictionary_decode().dictionary_encode()
                batch = batch.set_column(batch.schema.get_field_index("source"), TICKS.field("source"), mine)
                step = advance(state, batch, SHORT_BARS)
                parts.append((step.duplicates.tolist(), step.ticks.to_pylist(), step.bars.to_pylist()))
                if forgets:
                    state.forget_sources()
            return parts, len(state.sources)

        (kept, all_of_them), (forgotten, few) = out(False), out(True)
        assert forgotten == kept
        assert any(duplicates for duplicates, _, _ in kept)
        assert few < all_of_them


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
