"""A stretch of the log as the stream took it: the rows of one run over the whole log, whatever days it is cut into."""

import dataclasses

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.advance import FOREVER, advance, provisional
from beam_pipelines.transforms.as_live import LiveState, LiveStates, matters_since, relived
from beam_pipelines.transforms.batches import joined
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.day import Stretch
from beam_pipelines.transforms.partition_state import NEVER, PartitionState

from .test_advance import SHORT_BARS, batch_of, closing_state_of, random_ticks

BEGIN = 1_700_000_000_000
DAY = 20_000  # of the tests, ms
LATE = SHORT_BARS.out_of_orderness_ms + SHORT_BARS.allowed_lateness_ms
Rows = tuple[pd.DataFrame, pd.DataFrame]


def in_the_end(parts: list[tuple[pa.RecordBatch, pa.RecordBatch]]) -> Rows:
    """The ticks and bars of some emissions, of each the last."""
    ticks, bars = (joined([part[number] for part in parts]).to_pandas() for number in (0, 1))
    return (
        ticks.drop_duplicates("offset", keep="last").sort_values("offset").reset_index(drop=True),
        bars.drop_duplicates(["symbol", "time"], keep="last").sort_values(["time", "symbol"]).reset_index(drop=True),
    )


def streamed(log: pa.RecordBatch, start: ClosingState = NOTHING) -> Rows:
    """What one run over the whole log gives."""
    state = PartitionState(SHORT_BARS.bar_ms, start)
    steps = advance(state, log, SHORT_BARS), provisional(state, FOREVER, NEVER, SHORT_BARS)
    return in_the_end([(step.ticks, step.bars) for step in steps])


def day(
    log: pa.RecordBatch, stretch: Stretch, begun: LiveState | None, size: int, start: ClosingState
) -> tuple[list, LiveState]:
    """A day's emissions from what is read of the lake: of the ticks dated before it only those of its first minutes."""
    since = matters_since(begun.newest, stretch, SHORT_BARS) if begun else NEVER
    first = begun.next if begun else 0
    read = log.filter(pc.and_(pc.greater_equal(log["timestamp"], since), pc.greater_equal(log["offset"], first)))
    parts = []
    pieces = relived((read.slice(at, size) for at in range(0, len(read), size)), stretch, SHORT_BARS, begun, start)
    while True:
        try:
            parts.append(next(pieces))
        except StopIteration as over:
            return parts, over.value


def kept(state: LiveState) -> LiveState:
    """The state after it was in the lake."""
    return LiveStates.from_batch(state.to_batch(3, SHORT_BARS), SHORT_BARS)[3]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 600),
    size=st.sampled_from([1, 7, 50, 10_000]),
    rest=st.sampled_from([0, 0, 15_000, 45_000]),
    started=st.booleans(),
)
def test_days_in_a_row_give_what_one_run_over_the_log_gives(
    seed: int, count: int, size: int, rest: int, started: bool
) -> None:
    start = closing_state_of(random_ticks(seed + 1, 200, span_ms=5_000), BEGIN + 6_000) if started else NOTHING
    ticks = random_ticks(seed, count, span_ms=70_000)
    half = count // 2
    moved = [
        tick._replace(timestamp=tick.timestamp + rest, log_time=tick.log_time + rest) for tick in ticks[half:]
    ]  # a time without ticks in the middle
    log = batch_of(ticks[:half] + moved)
    parts, begun = [], None
    for begin in range(BEGIN - DAY, BEGIN + 8 * DAY, DAY):
        mine, left = day(log, Stretch(begin, begin + DAY, begin), begun, size, start)
        parts += mine
        for rows, time in ((mine[0][0], "timestamp"), (mine[0][1], "time")) if mine else ():
            assert all(begin <= at < begin + DAY for at in rows[time].to_pylist())
        begun = kept(left)
    wanted = streamed(log, start)
    assert started or len(wanted[0])
    for got, want in zip(in_the_end(parts), wanted, strict=True):
        pd.testing.assert_frame_equal(got, want, check_exact=True)


def test_the_log_is_read_no_further_than_it_can_change_the_day() -> None:
    log = batch_of(random_ticks(3, 4_000, span_ms=200_000))
    times = log["timestamp"].to_numpy()
    rest = iter(range(len(log)))
    stretch = Stretch(BEGIN, BEGIN + DAY, BEGIN)
    list(relived((log.slice(at, 1) for at in rest), stretch, SHORT_BARS, None))
    taken = next(rest)
    assert times[: taken - 1].max() - LATE < stretch.end <= times[:taken].max() - LATE


def test_a_state_of_other_options_or_a_newer_release_is_refused() -> None:
    state = LiveState(0, NEVER, PartitionState(SHORT_BARS.bar_ms).encode())
    batch = state.to_batch(0, SHORT_BARS)
    other = dataclasses.replace(SHORT_BARS, out_of_orderness_ms=SHORT_BARS.out_of_orderness_ms + 1)
    with pytest.raises(UsageError, match=r"is of --out_of_orderness_ms=\d+, not of \d+: give what"):
        LiveStates.from_batch(batch, other)
    newer = batch.replace_schema_metadata({**batch.schema.metadata, b"version": b"3"})
    with pytest.raises(UsageError, match="has version 3, this release reads up to 2: use a newer release"):
        LiveStates.from_batch(newer, SHORT_BARS)


def test_a_partition_that_rested_keeps_its_state() -> None:
    def state(next_offset: int) -> LiveState:
        return LiveState(next_offset, NEVER, PartitionState(SHORT_BARS.bar_ms).encode())

    before = LiveStates({1: state(10), 2: state(20)})
    ended = [state(11).to_batch(1, SHORT_BARS), state(5).to_batch(3, SHORT_BARS)]
    after = LiveStates.from_batch(before.followed_by(ended, SHORT_BARS), SHORT_BARS)
    assert {partition: it.next for partition, it in after.items()} == {1: 11, 2: 20, 3: 5}
