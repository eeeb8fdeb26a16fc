"""The contract: one log gives the same rows in every sink, whatever the engine, the batches and the accidents."""

import itertools
import pathlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from beam_pipelines import daily, ledger, market
from beam_pipelines.io.lake_state import write_closing_state
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.tables import MARKET_ANOMALIES, MARKET_BARS, MARKET_DATA, Table
from beam_pipelines.runners.jobs import launched
from beam_pipelines.runners.metrics import families, gathered
from beam_pipelines.runners.servers.worker_pool import WorkerPool
from beam_pipelines.transforms.batches import Span, span_of, with_span
from beam_pipelines.transforms.closing_state import DAY_MS, ClosingState, midnight_of

from .logs import DAY_BEFORE, DAYS, MEANING, SEMANTICS, Log, closing_state, create_topic, fill, quality_of
from .sinks import SINKS, Sinks
from .streams import await_all, await_quality, await_true, kill_workers, streaming

TABLES = (MARKET_DATA.name, MARKET_BARS.name, MARKET_ANOMALIES.name)


def direct(_: Callable[[str], Any]) -> list[str]:
    return []


def on_spark(fixture: Callable[[str], Any]) -> list[str]:
    return fixture("spark_cluster").arguments


def ties_in(ticks: ledger.Rows) -> int:
    """How many rows of market_data_ts share symbol, time and source with another one."""
    counts = Counter(identity[:3] for identity in ticks)
    return sum(count for count in counts.values() if count > 1)


def test_the_log_has_everything_that_can_happen_to_a_tick(in_memory):
    expected = in_memory.expected
    reasons = {"not_json", "not_an_object", "missing_field", "bad_type", "bad_value", "bad_timestamp"}
    assert expected.reasons.keys() == reasons | {"future_timestamp", "too_late"}
    assert ties_in(expected.table_ticks) > 300
    assert expected.duplicates > 100
    assert sum(row["late"] for row in named(expected.table_ticks, MARKET_DATA)) > 100
    bars = named(expected.table_bars, MARKET_BARS)
    assert sum(bar["revision"] > 0 for bar in bars) > 50
    assert sum(not bar["is_final"] for bar in bars) > 5
    assert all(sum(bar[name] is not None for bar in bars) > 100 for name in bars[0])
    assert len(expected.lake) > 200_000
    assert [midnight_of(day) for day in DAYS] == sorted({bar["time"] // DAY_MS * DAY_MS for bar in bars})
    assert longest_gap(bar["time"] for bar in bars) >= 50_000
    assert longest_gap(bar["time"] for bar in bars if bar["symbol"] == "NVDA") >= 290_000


def longest_gap(starts: Iterable[int]) -> int:
    """Between two bars, ms."""
    return max(np.diff(np.unique(list(starts))))


def named(rows: ledger.Rows, table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in rows.values()]


@pytest.mark.parametrize(("seed", "longest"), [(1, 300), (2, 2_000), (3, 20_000)])
def test_the_kernel_gives_the_same_rows_for_any_batching_and_order_of_partitions(in_memory, seed, longest):
    again = ledger.expected_of(recut(in_memory.batches, longest, random.Random(seed)), SEMANTICS)
    assert again == in_memory.expected


def recut(batches: list[pa.RecordBatch], longest: int, choice: random.Random) -> Iterator[pa.RecordBatch]:
    """The same log in other batches of up to `longest` records, some of them empty, the partitions mixed at random."""
    logs = {}
    for batch in batches:
        logs.setdefault(span_of(batch).partition, []).append(batch.replace_schema_metadata(None))
    rest = {partition: pa.Table.from_batches(parts).combine_chunks() for partition, parts in logs.items()}
    reached = dict.fromkeys(rest, 0)
    while rest:
        partition = choice.choice(list(rest))
        first, size = reached[partition], choice.randint(0, longest)
        table = rest[partition].slice(first, size)
        reached[partition] = end = first + len(table)
        piece = table.combine_chunks().to_batches()[0] if len(table) else batches[0].slice(0, 0)
        yield with_span(piece, Span("contract-raw", partition, first, end))
        if end == len(rest[partition]):
            del rest[partition]


class Contract:
    """What every way of running the stream promises; a subclass a way."""

    @pytest.fixture(scope="class")
    def quality(self, log) -> ledger.Rows:
        return quality_of(log)

    @pytest.fixture(scope="class")
    def held(self, log, sinks) -> dict[str, ledger.Difference]:
        return dict(sinks.differences(log.expected))

    def test_every_sink_holds_just_what_the_log_says(self, held):
        assert {name: difference for name, difference in held.items() if not difference.clean} == {}

    def test_two_ticks_in_one_millisecond_are_two_rows_everywhere(self, log, held):
        assert ties_in(log.expected.table_ticks) > 300
        ticks = len(log.expected.table_ticks)
        assert held["table of ticks"].found == held["topic of ticks"].found == ticks
        assert held["lake of ticks"].found == ticks + log.expected.duplicates + log.expected.reasons["too_late"]

    def test_the_quality_of_each_minute_is_that_of_its_records(self, quality, sinks):
        assert len(quality) > 50
        assert sinks.quality(quality) == quality


class BoundedContract(Contract):
    """A run that ends can be run again."""

    @pytest.fixture(scope="class")
    def sinks(self, run, new_sinks, root) -> Sinks:
        sinks = new_sinks(root)
        run(sinks)
        return sinks

    def test_every_row_is_written_once(self, held):
        assert {name: difference.repeated for name, difference in held.items()} == dict.fromkeys(SINKS, 0)

    def test_a_second_run_changes_nothing(self, log, run, sinks):
        rows, objects = sinks.versions(), sinks.objects()
        run(sinks)
        assert sinks.versions() == rows
        assert sinks.objects() == objects
        copies = list(sinks.copies())
        assert len(copies) == 2 * len(log.expected.ticks)
        assert all(message == log.expected.ticks[identity] for identity, message in copies)


@pytest.mark.servers
class TestDirectRunnerBounded(BoundedContract):
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory) -> str:
        return str(tmp_path_factory.mktemp("lake"))

    @pytest.fixture(scope="class")
    def run(self, log) -> Callable[[Sinks], None]:
        def run(sinks: Sinks) -> None:
            assert market.main([f"--topic={log.topic}", "--bounded", *MEANING, *sinks.arguments]) == 0

        return run


@pytest.mark.servers
class TestFlinkBounded(BoundedContract):
    @pytest.fixture(scope="class")
    def root(self, s3_server) -> str:
        return f"s3://{s3_server.bucket}"

    @pytest.fixture(scope="class")
    def run(self, log, on_flink) -> Callable[[Sinks], None]:
        workers = itertools.cycle([["--sdk_worker_parallelism=1"], ["--parallelism=4", "--sdk_worker_parallelism=3"]])

        def run(sinks: Sinks) -> None:
            flags = [*on_flink, *next(workers)]
            assert market.main([f"--topic={log.topic}", "--bounded", *MEANING, *sinks.arguments, *flags]) == 0

        return run


@pytest.mark.servers
class TestSparkBounded(Contract):
    @pytest.fixture(scope="class")
    def sinks(self, log, new_sinks, s3_server, spark_cluster) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        flags = ["--bounded", *MEANING, *sinks.arguments, *spark_cluster.arguments]
        assert market.main([f"--topic={log.topic}", *flags]) == 0
        return sinks


@pytest.mark.servers
class TestFlinkStreamingFromABacklog(Contract):
    @pytest.fixture(scope="class")
    def program(self, tmp_path_factory) -> pathlib.Path:
        return tmp_path_factory.mktemp("backlog") / "log"

    @pytest.fixture(scope="class")
    def sinks(self, log, quality, new_sinks, s3_server, flink_cluster, on_flink, program) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        flags = [*on_flink, "--sdk_worker_parallelism=2"]
        with launched(streaming(log, sinks, flags), flink_cluster.rest, sinks.processed, program) as job:
            await_all(log, sinks, job)
            await_quality(quality, sinks, job)
        return sinks

    def test_a_cancelled_job_is_told_in_one_line(self, sinks, program):
        told = program.read_text()
        assert told.splitlines()[-1] == "the job ended as CANCELLED"
        assert "Traceback" not in told


@pytest.mark.servers
class TestFlinkStreamingLiveFromAClosingStateWhileItsWorkersAreKilled(Contract):
    """Provisional rows come in a pause of the log, then all workers die in the middle of it."""

    @pytest.fixture(scope="class")
    def prior(self) -> ClosingState:
        return closing_state()

    @pytest.fixture(scope="class")
    def log(self, kafka_server, in_memory, prior) -> Log:
        expected = ledger.expected_of(in_memory.batches, SEMANTICS, prior)
        assert expected.table_bars != in_memory.expected.table_bars
        live = Log("contract-live", in_memory.batches, expected)
        create_topic(kafka_server, live.topic, live.partitions)
        return live

    @pytest.fixture(scope="class")
    def sinks(
        self, log, quality, prior, new_sinks, s3_server, flink_cluster, workers, on_flink, tmp_path_factory
    ) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        write_closing_state(objects_in(sinks.lake), DAY_BEFORE, prior, SEMANTICS.bar_ms)
        program = tmp_path_factory.mktemp("live") / "log"
        first, second, third = log.cut(3)
        flags = [*on_flink, "--start_state=latest"]
        with launched(streaming(log, sinks, flags), flink_cluster.rest, sinks.processed, program) as job:
            fill(sinks.bootstrap_servers, log.topic, first)
            await_true(job, lambda: sinks.count("market_bars_ts", "NOT is_final") > 0)
            before = sinks.count("market_data_ts")
            with ThreadPoolExecutor(1) as pool:
                filled = pool.submit(fill, sinks.bootstrap_servers, log.topic, second, 4.0)
                await_true(job, lambda: sinks.count("market_data_ts") > before)
                kill_workers(workers)
                filled.result()
            fill(sinks.bootstrap_servers, log.topic, third)
            await_all(log, sinks, job)
            await_quality(quality, sinks, job)
            assert job.has_restarted()
        return sinks

    def test_prometheus_counts_each_record_once_although_some_were_read_twice(self, log, sinks, workers):
        counts = shown(workers, log.topic)
        assert counts["success"] == len(log.expected.ticks)
        assert counts["dead_letter"] == len(log.expected.dead_letters)
        assert counts["duplicate"] == log.expected.duplicates
        assert sum(counts.values()) == sum(map(len, log.batches))
        assert sinks.count("market_data_ts") == len(log.expected.table_ticks)

    @pytest.mark.parametrize("runner", [direct, on_spark])
    def test_the_daily_batch_gives_the_tables_the_same_rows_again(self, runner, sinks, in_new_york, request):
        wanted = tables(sinks)
        spoil(sinks)
        assert all(tables(sinks)[name] != rows for name, rows in wanted.items())
        flags = ["--as_live", f"--start_state={DAY_BEFORE}", *(it for it in MEANING if "future" not in it)]
        given = [f"--lake={sinks.lake}", f"--timescale_dsn={sinks.dsn}", f"--from={DAYS[0]}", f"--to={DAYS[-1]}"]
        assert daily.main([*given, *flags, *runner(request.getfixturevalue)]) == 0
        assert tables(sinks) == wanted


def shown(workers: WorkerPool, topic: str) -> dict[str, float]:
    """What a pool's exporter shows Prometheus of a topic's records, by status."""
    (family,) = (it for it in families(gathered(workers.metrics)) if it.name == "pipeline_messages_processed")
    return {it.labels["status"]: it.value for it in family.samples if it.labels["topic"] == topic}


def tables(sinks: Sinks) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows of the stream's tables."""
    with psycopg.connect(sinks.dsn) as connection:
        return {name: Counter(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in TABLES}


def spoil(sinks: Sinks) -> None:
    """Leaves the tables as those of a database that was restored from an old copy, and edited by hand."""
    with psycopg.connect(sinks.dsn) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table} WHERE symbol = (SELECT min(symbol) FROM {table})")
        for table in TABLES[:2]:
            connection.execute(f"UPDATE {table} SET volume = volume + 1 WHERE random() < 0.1")
        connection.execute("UPDATE market_anomalies_ts SET score = -1, kind = kind || '?' WHERE kind LIKE 'p%'")
        connection.execute("UPDATE market_data_ts SET seq = seq + 1000000 WHERE random() < 0.1")
        later = "time = time + interval '2 hours'"  # where there are no ticks
        connection.execute(f"UPDATE market_bars_ts SET {later} WHERE random() < 0.1")
