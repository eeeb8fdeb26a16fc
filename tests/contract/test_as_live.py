"""The daily batch gives the tables what the stream gave them, and then what a recomputation gives.

The log has three days, between which a month ends and New York's clocks are set back; it has disorder, late and too
late ticks, repeats and bad records, and the stream's workers are killed on the way.
"""

import collections
import datetime
import itertools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from beam_pipelines import daily
from beam_pipelines.runners.jobs import launched
from beam_pipelines.runners.servers.worker_pool import WorkerPool
from beam_pipelines.simulate import Session, records
from beam_pipelines.transforms.closing_state import midnight_of
from beam_pipelines.transforms.records import raw_batches

from .logs import MEANING, PARTITIONS, SEMANTICS, create_topic, fill, log_of
from .sinks import Sinks
from .streams import await_all, await_true, kill_workers, streaming

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

DAYS = [datetime.date(2026, 10, 31), datetime.date(2026, 11, 1), datetime.date(2026, 11, 2)]
SESSIONS = [
    Session(
        seed=day.day,
        symbols=8,
        start_ms=midnight_of(day) - 300_000,
        duration_ms=600_000,
        ticks=15_000,
        disorder=0.1,
        late=0.02,
        too_late=0.01,
        allowed_lateness_ms=SEMANTICS.allowed_lateness_ms,
        bad=0.02,
        duplicate=0.02,
        tie=0.05,
    )
    for day in DAYS[1:]
]
LIVE_FLAGS = [flag for flag in MEANING if "future" not in flag]
TABLES = ("market_data_ts", "market_bars_ts")


@pytest.fixture(scope="module")
def streamed(
    kafka_server: str, s3_server: Any, flink_cluster: Any, workers: WorkerPool, new_sinks: Any, on_flink: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Sinks:  # fmt: skip
    """What the stream on Flink has written, whose workers were killed in the middle."""
    raw = raw_batches(itertools.chain.from_iterable(map(records, SESSIONS)), "contract-as-live", PARTITIONS)
    log = log_of("contract-as-live", [batch for _, batch in raw])
    sinks: Sinks = new_sinks(f"s3://{s3_server.bucket}")
    create_topic(kafka_server, log.topic, PARTITIONS)
    first, second = log.cut(2)
    output = tmp_path_factory.mktemp("as-live") / "output"
    with launched(streaming(log, sinks, on_flink), flink_cluster.rest, "as-live", output) as job:
        fill(kafka_server, log.topic, first, seconds=5)
        await_true(job, lambda: sinks.count("market_data_ts") > 0)
        kill_workers(workers)
        fill(kafka_server, log.topic, second)
        await_all(log, sinks, job)
        assert [name for name, it in sinks.differences(log.expected) if not it.clean] == []
    assert sinks.count("market_data_ts", "late") > 100
    assert sinks.count("market_bars_ts", "revision > 0") > 100
    assert sinks.count("market_bars_ts", "NOT is_final") > 0
    return sinks


def tables(sinks: Sinks) -> dict[str, collections.Counter[tuple[Any, ...]]]:
    with psycopg.connect(sinks.dsn) as connection:
        return {name: collections.Counter(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in TABLES}


def spoil(sinks: Sinks, days: list[datetime.date]) -> None:
    """As a database that was restored from an old copy, and edited by hand."""
    inside = f"time >= '{days[0]}Z' AND time < timestamptz '{days[-1]}Z' + interval '24 hours'"
    with psycopg.connect(sinks.dsn) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table} WHERE {inside} AND symbol = (SELECT min(symbol) FROM {table})")
            connection.execute(f"UPDATE {table} SET volume = volume + 1 WHERE {inside} AND random() < 0.1")
        connection.execute(f"UPDATE market_data_ts SET seq = seq + 1000000 WHERE {inside} AND random() < 0.1")
        connection.execute(
            f"UPDATE market_bars_ts SET time = time + interval '2 hours' WHERE {inside} AND random() < 0.1 "
            "AND extract(hour FROM time AT TIME ZONE 'UTC') < 12"
        )


def direct(_: Callable[[str], Any]) -> list[str]:
    return []


def on_spark(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("spark_cluster").arguments


@pytest.mark.parametrize(
    ("runner", "days"),
    [(direct, DAYS), (on_spark, DAYS[1:2])],  # the second begins with the state that the first has left
    ids=["direct", "spark"],
)
def test_the_rows_are_those_of_the_stream(
    runner: Callable[..., list[str]],
    days: list[datetime.date],
    streamed: Sinks,
    in_new_york: None,
    request: pytest.FixtureRequest,
) -> None:
    wanted = tables(streamed)
    spoil(streamed, days)
    assert all(tables(streamed)[name] != rows for name, rows in wanted.items())
    given = [f"--lake={streamed.lake}", f"--timescale_dsn={streamed.dsn}", f"--from={days[0]}", f"--to={days[-1]}"]
    assert daily.main([*given, "--as_live", *LIVE_FLAGS, *runner(request.getfixturevalue)]) == 0
    assert tables(streamed) == wanted
