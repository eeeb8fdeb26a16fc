"""The contract of the news: one log gives the same rows in every sink, whatever the engine and the accidents."""

import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from beam_pipelines import daily, ledger, news
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.lake_json import read_json_lines
from beam_pipelines.io.lake_objects import NEWS_DATA
from beam_pipelines.io.tables import NEWS_SENTIMENT, NEWS_WINDOWS
from beam_pipelines.runners.jobs import launched
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.transforms.batches import Span, span_of, with_span

from .logs import create_topic, fill
from .news_logs import DAYS, PARTITIONS, Expected, NewsLog, expected_of, news_log, select
from .sinks import Sinks
from .streams import await_true, kill_workers

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def log() -> NewsLog:
    return news_log("news-contract-raw")


@pytest.fixture(scope="module")
def expected(log: NewsLog) -> Expected:
    return expected_of(log.batches)


@pytest.fixture(scope="module")
def filled(log: NewsLog, kafka_server: str) -> str:
    """The topic that holds the log."""
    create_topic(kafka_server, log.topic, PARTITIONS)
    fill(kafka_server, log.topic, log.records)
    return log.topic


def test_the_log_has_everything_that_can_happen_to_an_article(log, expected):
    reasons = {reason for _, _, reason, _ in expected.dead_letters}
    assert reasons >= {"not_json", "not_an_object", "missing_field", "bad_type", "bad_timestamp", "future_timestamp"}
    articles = [json.loads(value) for _, value, _, _ in expected.messages]
    assert len(articles) - len(expected.articles) > 100  # versions and repeats
    assert {article["sentiment_category"] for article in articles} == {"positive", "neutral", "negative", None}
    assert {article["news_category"] for article in articles} >= {"earnings", "ma", "regulatory", "guidance", "general"}
    assert sum(len(set(article["symbol_scores"])) > 1 for article in articles) > 100
    windows = [dict(zip([*NEWS_WINDOWS.identity, *_rest()], row, strict=True)) for row in expected.windows]
    assert sum(row["story_count"] < row["article_count"] for row in windows) > 500
    assert {row["time"].date() for row in windows} >= set(DAYS)
    assert max(row["article_count"] for row in windows) > 100


def _rest() -> list[str]:
    return [column.name for column in NEWS_WINDOWS.columns if column.name not in NEWS_WINDOWS.identity]


def table(sinks: Sinks, which: Any) -> Counter[tuple[Any, ...]]:
    with psycopg.connect(sinks.dsn) as connection:
        connection.execute("SET TIME ZONE 'UTC'")  # no hour of which comes twice
        return Counter(connection.execute(select(which)).fetchall())


def lake(sinks: Sinks) -> list[tuple[int, int, str]]:
    objects = {path: content for path, content in sinks.objects().items() if path.startswith("/news/")}
    assert all(path.endswith(".json.gz") for path in objects)
    tables = [read_json_lines(content, NEWS_DATA.stored) for content in objects.values()]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    return [(row["partition"], row["offset"], row["article_id"]) for row in rows]


def messages(sinks: Sinks) -> list[tuple[bytes, bytes, int, int]]:
    found = ledger.records_of(KafkaConfig(sinks.bootstrap_servers), sinks.processed)
    return [(it.key, it.value, *it.raw) for it in found]


def dead_letters(sinks: Sinks) -> set[tuple[int, int, str, bytes | None]]:
    rows = ledger.rows_of_topic(KafkaConfig(sinks.bootstrap_servers), sinks.dead_letters, dead_letters=True)
    return {(partition, offset, reason, value) for (partition, offset), (reason, value) in rows}


def is_complete(sinks: Sinks, expected: Expected) -> bool:
    return (
        sinks.count("news_sentiment_ts") == len(expected.articles)
        and table(sinks, NEWS_WINDOWS) == expected.windows
        and set(messages(sinks)) == expected.messages
        and dead_letters(sinks) == expected.dead_letters
        and set(lake(sinks)) == expected.lake
    )


class NewsContract:
    """What every way of running the stream promises; a subclass a way."""

    def test_the_tables_hold_just_what_the_log_says(self, sinks, expected):
        assert table(sinks, NEWS_SENTIMENT) == expected.articles
        assert table(sinks, NEWS_WINDOWS) == expected.windows

    def test_every_article_is_in_the_topic_and_all_its_copies_are_equal(self, sinks, expected):
        assert set(messages(sinks)) == expected.messages

    def test_every_valid_article_is_in_the_lake_once(self, sinks, expected):
        assert sorted(lake(sinks)) == sorted(expected.lake)

    def test_what_is_no_article_is_a_dead_letter_with_its_bytes(self, sinks, expected):
        assert dead_letters(sinks) == expected.dead_letters

    def test_the_daily_batch_gives_the_tables_the_same_rows_again(self, sinks, expected, batch_flags, in_new_york):
        spoil(sinks)
        assert table(sinks, NEWS_SENTIMENT) != expected.articles
        assert table(sinks, NEWS_WINDOWS) != expected.windows
        given = [f"--lake={sinks.lake}", f"--timescale_dsn={sinks.dsn}", f"--from={DAYS[0]}", f"--to={DAYS[-1]}"]
        assert daily.main([*given, *batch_flags]) == 0
        assert table(sinks, NEWS_SENTIMENT) == expected.articles
        assert table(sinks, NEWS_WINDOWS) == expected.windows

    @pytest.fixture(scope="class")
    def batch_flags(self) -> list[str]:
        return []


def spoil(sinks: Sinks) -> None:
    """Leaves the tables as those of a database that was restored from an old copy, and edited by hand."""
    some = f"time >= '{DAYS[0]}Z' AND time < '{DAYS[-1]}Z'::timestamptz + interval '1 day' AND random() < 0.2"
    with psycopg.connect(sinks.dsn) as connection:
        for name in (NEWS_SENTIMENT.name, NEWS_WINDOWS.name):
            connection.execute(f"DELETE FROM {name} WHERE {some}")
        connection.execute(f"UPDATE news_sentiment_ts SET sentiment_score = 1, title = 'x' WHERE {some}")
        connection.execute(f"UPDATE news_sentiment_ts SET article_id = gen_random_uuid() WHERE {some}")
        connection.execute(f"UPDATE news_windows_ts SET sentiment = -1 WHERE {some}")
        connection.execute(f"UPDATE news_windows_ts SET symbol = 'GONE' || symbol WHERE {some}")


class TestDirectRunnerBounded(NewsContract):
    @pytest.fixture(scope="class")
    def sinks(self, filled, new_sinks, tmp_path_factory) -> Sinks:
        sinks = new_sinks(str(tmp_path_factory.mktemp("lake")))
        assert news.main(arguments(filled, sinks, "--bounded")) == 0
        return sinks

    def test_a_second_run_changes_no_row(self, sinks, filled, expected):
        before = versions(sinks)
        assert news.main(arguments(filled, sinks, "--bounded")) == 0
        assert versions(sinks) == before
        assert sorted(lake(sinks)) == sorted(expected.lake)


def arguments(topic: str, sinks: Sinks, *more: str) -> list[str]:
    named = [it for it in sinks.arguments if "slot" not in it and "anomaly" not in it]  # the market's
    return [f"--topic={topic}", *named, *more]


def versions(sinks: Sinks) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(sinks.dsn) as connection:
        query = "SELECT xmin::text, ctid::text FROM {} ORDER BY ctid"
        names = (NEWS_SENTIMENT.name, NEWS_WINDOWS.name)
        return {name: connection.execute(query.format(name)).fetchall() for name in names}


class TestSparkBounded(NewsContract):
    @pytest.fixture(scope="class")
    def sinks(self, filled, new_sinks, s3_server, spark_cluster) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        assert news.main(arguments(filled, sinks, "--bounded", *spark_cluster.arguments)) == 0
        return sinks

    @pytest.fixture(scope="class")
    def batch_flags(self, spark_cluster) -> list[str]:
        return spark_cluster.arguments


class TestFlinkBounded(NewsContract):
    @pytest.fixture(scope="class")
    def sinks(self, filled, new_sinks, s3_server, on_flink) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        assert news.main(arguments(filled, sinks, "--bounded", *on_flink)) == 0
        return sinks

    @pytest.fixture(scope="class")
    def batch_flags(self, on_flink) -> list[str]:
        return on_flink


class TestFlinkStreamingWhileEverythingIsKilled(NewsContract):
    """All workers die, and then, one after the other, the TaskManager, PostgreSQL and S3, while articles come."""

    @pytest.fixture(scope="class")
    def sinks(
        self,
        log,
        expected,
        new_sinks,
        kafka_server,
        postgres_server,
        s3_server,
        flink_cluster,
        workers,
        on_flink,
        tmp_path_factory,
    ) -> Sinks:
        sinks = new_sinks(f"s3://{s3_server.bucket}")
        topic = f"{log.topic}-live"
        create_topic(kafka_server, topic, PARTITIONS)
        program = tmp_path_factory.mktemp("news") / "log"
        size = -(-len(log.records) // 5)
        parts = [log.records[start : start + size] for start in range(0, len(log.records), size)]
        flags = arguments(topic, sinks, "--checkpointing_interval=2000", *on_flink)
        command = [sys.executable, "-m", "beam_pipelines.news", *flags]
        victims = flink_cluster.task_manager, postgres_server, s3_server
        with launched(command, flink_cluster.rest, sinks.processed, program) as job:
            fill(kafka_server, topic, parts[0])
            await_true(job, lambda: sinks.count("news_windows_ts") > 0)
            before = sinks.count("news_sentiment_ts")
            with ThreadPoolExecutor(1) as pool:
                sent = pool.submit(fill, kafka_server, topic, parts[1], 4.0)
                await_true(job, lambda: sinks.count("news_sentiment_ts") > before)
                kill_workers(workers)
                sent.result()
                for server, part in zip(victims, parts[2:], strict=True):
                    sent = pool.submit(fill, kafka_server, topic, part, 4.0)
                    kill_and_start(server)
                    sent.result()
            with contextlib.suppress(TimeoutError):
                await_true(job, lambda: is_complete(sinks, expected))
            assert job.has_restarted()
        return sinks

    @pytest.fixture(scope="class")
    def batch_flags(self, spark_cluster) -> list[str]:
        return spark_cluster.arguments


def kill_and_start(server: Server) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    os.waitpid(server.process.pid, 0)
    server.start()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_kernels_give_the_same_rows_for_other_batches(log, expected, seed):
    choice = random.Random(seed)
    pieces = [piece for batch in log.batches for piece in cut(batch, choice)]
    choice.shuffle(pieces)
    assert expected_of(pieces) == expected


def cut(batch: pa.RecordBatch, choice: random.Random) -> Iterator[pa.RecordBatch]:
    """The same records in batches of up to 50, some of them empty."""
    topic, partition, first, end, _ = span_of(batch)
    while first < end:
        size = min(choice.randint(0, 50), end - first)
        yield with_span(batch.slice(first, size), Span(topic, partition, first, first + size))
        first += size
