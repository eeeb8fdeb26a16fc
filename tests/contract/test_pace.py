"""When a log begins, how fast it grows, which partitions it uses and how many workers read it change no row."""

import sys
import time

import pytest

from beam_pipelines import ledger
from beam_pipelines.runners.jobs import launched
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.batches import Span, span_of, with_span
from beam_pipelines.transforms.enrich import take_step
from beam_pipelines.transforms.partition_state import PartitionState

from .logs import MEANING, SEMANTICS, Log, create_topic, fill, log_of
from .streams import await_all, await_true

pytestmark = pytest.mark.servers

USED, PARTITIONS = (1, 4, 6), 8
LONG_AGO_MS = 1_420_209_000_000  # 2015-01-02T14:30Z
SESSION = Session(seed=3, symbols=9, start_ms=LONG_AGO_MS, duration_ms=30_000, ticks=3_000, disorder=0.1, tie=0.05)
IDLE_S, BAR_S, SLACK_S = 10, SEMANTICS.bar_ms // 1000, 30
PACES = {"as it happened": 1, "500 times as fast": 500}


@pytest.fixture(scope="module")
def old(kafka_server: str) -> Log:
    """A session of years ago, in 3 partitions of 8."""
    batches = []
    for partition, batch in raw_batches(SESSION, len(USED)):
        span = span_of(batch)
        batches.append(with_span(batch, Span("pace", USED[partition], span.first, span.next)))
    return log_of("pace", batches)


def at_once(log: Log) -> tuple[int, int]:
    """Ticks and bars that the log itself brings out, without any quiet."""
    states: dict[int, PartitionState] = {}
    ticks = bars = 0
    for raw in log.batches:
        state = states.setdefault(span_of(raw).partition, PartitionState(SEMANTICS.bar_ms))
        step = take_step(state, raw, SEMANTICS)
        ticks, bars = ticks + len(step.ticks), bars + len(step.bars)
    return ticks, bars


@pytest.mark.parametrize(("pace", "processes"), [("as it happened", 1), ("500 times as fast", 4)])
def test_old_ticks_that_come_long_after_the_start_leave_at_once_and_none_is_late(
    old, pace, processes, kafka_server, new_sinks, s3_server, flink_cluster, on_flink, tmp_path
):
    log, sinks = old._replace(topic=f"pace-{processes}"), new_sinks(f"s3://{s3_server.bucket}")
    create_topic(kafka_server, log.topic, PARTITIONS)
    ticks, bars = at_once(old)
    flags = [f"--topic={log.topic}", f"--idle_ms={IDLE_S * 1000}", f"--sdk_worker_parallelism={processes}", *MEANING]
    command = [sys.executable, "-m", "beam_pipelines.market", *flags, *sinks.arguments, *on_flink]
    with launched(command, flink_cluster.rest, sinks.processed, tmp_path / "log") as job:
        time.sleep(10)
        fill(kafka_server, log.topic, *log.cut(1), seconds=SESSION.duration_ms / 1000 / PACES[pace])
        last_tick = time.monotonic()
        await_true(job, lambda: sinks.count("market_data_ts") == ticks and sinks.count("market_bars_ts") == bars)
        assert sinks.count("market_bars_ts", "NOT is_final") == 0  # none of them waited for a quiet
        await_true(job, lambda: sinks.count("market_bars_ts") == len(log.expected.table_bars))
        assert time.monotonic() - last_tick < IDLE_S + BAR_S + SLACK_S
        await_all(log, sinks, job)
    differences: dict[str, ledger.Difference] = dict(sinks.differences(log.expected))
    assert {name: difference for name, difference in differences.items() if not difference.clean} == {}
    assert sinks.count("market_data_ts", "late") == 0
    assert not log.expected.dead_letters
