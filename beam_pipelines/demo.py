"""The demonstration: real servers, a live session, and at the end an account of every tick.

Starts the local stack, runs the market stream on its Flink cluster, replays a simulated session with bad, late and
repeated records into Kafka, shows rates and the latest bars, and compares every sink with what the log says.  Then the
daily batch runs on Spark over the lake: first as the stream took the ticks, which must change no row, then anew.
"""

import argparse
import contextlib
import datetime
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import confluent_kafka as ck
import numpy as np
import psycopg
import psycopg.sql
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from beam_pipelines import ledger
from beam_pipelines.command_line import Parser, folder, today, whole
from beam_pipelines.errors import run_main
from beam_pipelines.faults import FAULTS, Schedule, strike
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.tables import MARKET_ANOMALIES, MARKET_BARS, MARKET_DATA
from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.jobs import FlinkJob, JobError, launched
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.runners.servers.base import ServerError
from beam_pipelines.stack import initialise
from beam_pipelines.transforms.advance import Semantics

__all__ = ["main"]

RAW, PROCESSED, DEAD, ANOMALIES = "market-data-raw", "market-data-processed", "dead-letters", "market-anomalies"
MEANING = {  # short bars, so that a short session has some; short waits, because too late ticks are sent after them
    "bar_seconds": 5,
    "allowed_lateness_ms": 5_000,
    "max_future_ms": 5_000,
}
SEMANTICS = Semantics(5_000, allowed_lateness_ms=5_000, max_future_ms=5_000)
SHARES = {
    "disorder_share": 0.05,
    "late_share": 0.002,
    "too_late_share": 0.0005,
    "bad_share": 0.005,
    "duplicate_share": 0.005,
    "tie_share": 0.02,
}
SECONDS = 25  # of a session; with kills
SECONDS_A_KILL = 25
QUIET_S = 15  # after which provisional rows and open objects are written
SAMPLES = 5  # of the rows that a sink should hold and does not, or the other way round
PRINT_S = 5  # between lines where there is no terminal to draw on
PATIENCE_S = 90  # without a new row, while the sinks do not hold everything

console = Console(width=None if sys.stdout.isatty() else 120)


def main(argv: Sequence[str]) -> int:
    """Runs the demonstration; 0 only if every sink holds just what the log says."""
    options = _options(argv)
    began = time.monotonic()
    stack = Stack(options.state_dir)
    stack.down(purge=stack.state_dir.exists())  # a crashed earlier demonstration leaves nothing to trip over
    try:
        ends = _started(stack)
        return _demonstrate(options, stack, ends, began)
    except (ServerError, JobError, TimeoutError) as failure:
        console.print(f"error: {failure}", style="red", markup=False)
        return 1
    finally:
        if options.keep:
            console.print(
                f"the servers go on; end them with: python -m beam_pipelines.stack down --state_dir {stack.state_dir}"
            )
        else:
            stack.down(purge=True)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m beam_pipelines.demo", description=str(__doc__).splitlines()[0])
    length = f"length of the session ({SECONDS}; with kills {SECONDS_A_KILL} for each)"
    parser.add_argument("--seconds", type=whole(1, 86_400), help=length)
    parser.add_argument("--rate", type=whole(1, 1_000_000), default=4_000, help="ticks a second (%(default)s)")
    kill = f"while it runs, kill these with -9, in an order that is drawn: some of {','.join(FAULTS)}"
    parser.add_argument("--kill", type=_faults, default=(), help=kill)
    seed = "of the session and of the order of the kills (%(default)s)"
    parser.add_argument("--seed", type=whole(0, 2**63 - 2), default=1, help=seed)
    parser.add_argument("--keep", action="store_true", help="leave the servers running, to look around")
    parser.add_argument("--state_dir", type=folder, default=cache_dir() / "demo", help="their data (%(default)s)")
    options = parser.parse(argv)
    options.seconds = options.seconds or SECONDS_A_KILL * len(options.kill) or SECONDS
    return options


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    wrong = [name for name in names if name not in FAULTS]
    if wrong:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(FAULTS)}, not '{wrong[0]}'")
    return names


def _started(stack: Stack) -> Endpoints:
    console.print("starting Kafka, Flink, workers, PostgreSQL and S3 (the first time downloads about 250 MB)")
    ends = stack.up(lambda server, seconds: console.print(f"  {server.name:<12} ready after {seconds:4.1f} s"))
    os.environ.update(ends.environment())
    initialise(ends)
    console.print(f"  Flink's web page: http://{ends.flink_rest}")
    return ends


def _demonstrate(options: argparse.Namespace, stack: Stack, ends: Endpoints, began: float) -> int:
    folder, began_on = stack.state_dir, today()
    lake = f"s3://{ends.s3_bucket}/demo"
    with launched(_market(ends, lake), ends.flink_rest, "market", folder / "market.log") as job:
        took = time.monotonic() - began
        console.print(f"  the market stream runs on Flink after {took:.0f} s; its log: {folder / 'market.log'}")
        view = _View(ends)
        said = folder / "replay.log"
        warm = _warmed_up(_Replay(ends, said, 100, 1, {"seed": options.seed + 1}), view, job)
        made = {"seed": options.seed, **SHARES}
        session = _Replay(ends, said, options.rate * options.seconds, options.seconds, made)
        kills = Schedule(options.kill, options.seconds, options.seed)
        with Live(view.render(), console=console, refresh_per_second=2, transient=True) as live:
            while session.lives:
                _watch(live, view, job)
                _strike_if_due(kills, stack, job, view)
        total = warm + session.sent()
        if kills.left:
            raise TimeoutError(f"there was no time to kill {', '.join(kills.left)}: give more --seconds")
        console.print(f"sent {total:,} records; waiting for the last bars to close and comparing every sink")
        expected = ledger.expected_of(ledger.read_log(KafkaConfig(ends.kafka), RAW), SEMANTICS, keep=_KEEP)
        _await_everything(expected, ends, job)
    clean = _account(total, expected, ends, lake)
    equal = _batch_equals_stream(ends, lake, folder / "daily.log", began_on)
    verdict = "nothing is missing, doubled or different" if clean else "the sinks do NOT hold what the log says"
    verdict += ", and the batch equals the stream" if equal else ", and the batch does NOT equal the stream"
    console.print(f"{verdict}; {time.monotonic() - began:.0f} s in all", style="green" if clean and equal else "red")
    return 0 if clean and equal else 1


def _market(ends: Endpoints, lake: str) -> list[str]:
    """The command that runs the market stream on the cluster."""
    flags = {
        "runner": "FlinkRunner",
        "flink_master": ends.flink_rest,
        "environment_type": "EXTERNAL",
        "environment_config": ends.worker_pool,
        "artifacts_dir": ends.artifacts_dir,
        "parallelism": 2,
        "checkpointing_interval": 5000,
        "bootstrap_servers": ends.kafka,
        "lake": lake,
        "lake_slot_seconds": 30,
        **MEANING,
    }
    return [sys.executable, "-m", "beam_pipelines.market", *(f"--{name}={value}" for name, value in flags.items())]


def _warmed_up(little: "_Replay", view: "_View", job: FlinkJob) -> int:
    """Waits until a little is through, so that the session does not wait for workers that only start."""
    count = little.sent()
    deadline = time.monotonic() + PATIENCE_S
    while view.counts()[f"table {MARKET_DATA.name}"] == 0 and time.monotonic() < deadline:
        job.check()
        time.sleep(0.2)
    return count


class _Replay:
    """Sends a session at real speed, as of now.

    Args:
      ends: where to.
      log: where its complaints go.
      ticks: how many.
      seconds: how long.
      shares: what else it is made of.
    """

    def __init__(
        self, ends: Endpoints, log: pathlib.Path, ticks: int, seconds: int, shares: Mapping[str, float]
    ) -> None:
        flags = {
            "bootstrap_servers": ends.kafka,
            "topic": RAW,
            "duration_seconds": seconds,
            "ticks": ticks,
            "symbols": 200,
            "allowed_lateness_ms": MEANING["allowed_lateness_ms"],
            "speed": "real",
            **shares,
        }
        command = [sys.executable, "-m", "beam_pipelines.replay", *(f"--{name}={flags[name]}" for name in flags)]
        self._log = log
        with log.open("a") as complaints:
            self._process = subprocess.Popen(
                [*command, "--restamp", "--json"], stdout=subprocess.PIPE, stderr=complaints, text=True
            )

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def sent(self) -> int:
        """How many records it sent, once it ends.

        Raises:
          JobError: if it failed.
        """
        summary = self._process.communicate()[0]
        if self._process.returncode:
            lines = self._log.read_text(errors="replace").splitlines() or [""]
            raise JobError(f"the replay ended with exit code {self._process.returncode}; {self._log}: {lines[-1]}")
        return int(json.loads(summary)["sent"])


def _strike_if_due(kills: Schedule, stack: Stack, job: FlinkJob, view: "_View") -> None:
    """Kills the next one if its time has come, and tells what it cost."""
    name = kills.take()
    if name:
        outage = strike(stack, job, name, view.has_later_than)
        kills.recovered()
        after = f"there again after {outage.ready_s:.1f} s, the next tick in the table after {outage.rows_s:.1f} s"
        console.print(f"  killed {outage.killed} with -9: {after}")


class _View:
    """What the terminal shows while ticks flow."""

    def __init__(self, ends: Endpoints) -> None:
        self._ends = ends
        self._consumer = KafkaConfig(ends.kafka).consumer()
        self._database: psycopg.Connection | None = None
        self._known: dict[str, int] = {}
        self._last: tuple[float, Mapping[str, int]] = (time.monotonic(), {})
        self._counted_at = time.monotonic()

    def is_old(self, seconds: float) -> bool:
        """Whether the last counts are older than this."""
        return time.monotonic() - self._counted_at > seconds

    def counts(self) -> dict[str, int]:
        """How much each place holds."""
        self._counted_at = time.monotonic()
        for name in (RAW, PROCESSED, DEAD):
            with contextlib.suppress(ck.KafkaException):  # it may have been killed
                self._known[f"Kafka {name}"] = self._end(name)
        for table in (MARKET_DATA, MARKET_BARS):
            self.rows(table.name)
        return dict(self._known)

    def rows(self, table: str = MARKET_DATA.name) -> int:
        """How many rows a table has; as before while the database does not answer."""
        query = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        for row in self._asked(query):
            self._known[f"table {table}"] = int(row[0])
        return self._known.get(f"table {table}", 0)

    def has_later_than(self, seconds: float) -> bool:
        """Whether a tick is in the table whose time is later than this, Unix s; False while it cannot be asked."""
        later = psycopg.sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE time > to_timestamp({}))")
        answer = self._asked(later.format(psycopg.sql.Identifier(MARKET_DATA.name), seconds))
        return bool(answer and answer[0][0])

    def render(self) -> Group:
        """Counts, rates and the newest bars."""
        now, counts = time.monotonic(), self.counts()
        then, before = self._last
        self._last = (now, counts)
        flow = Table("where", "records", "a second", title="market stream", min_width=60)
        for name, count in counts.items():
            rate = (count - before.get(name, count)) / max(now - then, 1e-3)
            flow.add_row(name, f"{count:,}", f"{rate:,.0f}")
        return Group(flow, self._bars())

    def _bars(self) -> Table:
        bars = Table("bar", "symbol", "close", "vwap", "trades", "sma_20", "rsi", title="latest bars", min_width=60)
        query = (
            "SELECT to_char(time, 'HH24:MI:SS'), symbol, round(close, 2), round(vwap, 4), trade_count, "
            "round(sma_20, 3), round(rsi::numeric, 1) FROM market_bars_ts ORDER BY time DESC, trade_count DESC LIMIT 8"
        )
        for row in self._asked(psycopg.sql.SQL(query)):
            bars.add_row(*("" if value is None else str(value) for value in row))
        return bars

    def _end(self, topic: str) -> int:
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = (self._consumer.get_watermark_offsets(ck.TopicPartition(topic, p), timeout=10) for p in partitions)
        return sum(high for _, high in marks)

    def _asked(self, query: psycopg.sql.SQL | psycopg.sql.Composed) -> list[tuple[Any, ...]]:
        """The answer, or none while the database does not answer."""
        try:
            self._database = self._database or psycopg.connect(self._ends.postgres_dsn, autocommit=True)
            return self._database.execute(query).fetchall()
        except psycopg.OperationalError:
            self._database = None
            return []


def _watch(live: Live, view: _View, job: FlinkJob) -> None:
    job.check()
    if console.is_terminal:
        live.update(view.render())
    elif view.is_old(PRINT_S):
        console.print("  " + ", ".join(f"{name} {count:,}" for name, count in view.counts().items()))
    time.sleep(0.5)


def _await_everything(expected: ledger.Expected, ends: Endpoints, job: FlinkJob) -> None:
    """Waits until the tables hold as much as they should and have been quiet.

    Their last rows may still be revised, and what is open in the lake is written only then.
    """
    view, before = _View(ends), -1
    wanted = {MARKET_DATA.name: len(expected.table_ticks), MARKET_BARS.name: len(expected.table_bars)}
    grown_at = time.monotonic()
    while time.monotonic() - grown_at < PATIENCE_S:
        job.check()
        found = {table: view.rows(table) for table in wanted}
        if sum(found.values()) > before:
            before, grown_at = sum(found.values()), time.monotonic()
        complete = all(found[table] >= count for table, count in wanted.items())
        if complete and time.monotonic() - grown_at > QUIET_S:
            return
        time.sleep(0.5)


_KEEP = hash  # of a row: so that a session of millions can be compared
_compared = functools.partial(ledger.compare, keep=_KEEP)


class _Sink(NamedTuple):
    name: str
    difference: ledger.Difference


class _Batch(NamedTuple):
    removed: int  # rows of the tables
    changed: int  # rows of the tables, new ones included
    seconds: float


def _batch_equals_stream(ends: Endpoints, lake: str, log: pathlib.Path, first: datetime.date) -> bool:
    """Runs the daily batch over all days since `first`; whether it gave the rows of the stream."""
    console.print("the daily batch on Spark, over the lake: as the stream took the ticks, and then in event-time order")
    meaning = {name: value for name, value in MEANING.items() if name != "max_future_ms"}
    given = {"runner": "SparkRunner", "lake": lake, "from": first, "to": today(), **meaning}
    command = [sys.executable, "-m", "beam_pipelines.daily", *(f"--{name}={value}" for name, value in given.items())]
    live, anew = (_batch([*command, *flags], ends, log) for flags in (["--as_live"], []))
    table = Table("batch", "rows removed", "rows changed", "s", title="what the daily batch did to the tables")
    for way, batch in {"as the stream took the ticks": live, "in event-time order": anew}.items():
        table.add_row(way, f"{batch.removed:,}", f"{batch.changed:,}", f"{batch.seconds:.0f}")
    console.print(table)
    return live.removed == live.changed == 0


def _batch(command: list[str], ends: Endpoints, log: pathlib.Path) -> _Batch:
    began, (removed, changed) = time.monotonic(), _replaced(ends)
    with log.open("a") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise JobError(f"the daily batch ended with exit code {done.returncode}; its log: {log}")
    removed_now, changed_now = _replaced(ends)
    return _Batch(removed_now - removed, changed_now - changed, time.monotonic() - began)


def _replaced(ends: Endpoints) -> tuple[int, int]:
    """How many rows all batches so far have removed, and how many changed."""
    query = (
        "SELECT coalesce(sum(rows_removed), 0)::bigint, coalesce(sum(rows_changed), 0)::bigint FROM daily_replacements"
    )
    with psycopg.connect(ends.postgres_dsn) as connection:
        ((removed, changed),) = connection.execute(query)
    return removed, changed


def _account(sent: int, expected: ledger.Expected, ends: Endpoints, lake: str) -> bool:
    """Prints what was sent and what each sink holds; whether nothing is missing, surplus or different."""
    kafka = KafkaConfig(ends.kafka)
    sinks = [
        _Sink(f"Kafka {PROCESSED}", _compared(expected.ticks, ledger.rows_of_topic(kafka, PROCESSED))),
        _Sink(
            f"Kafka {DEAD}", ledger.compare(expected.dead_letters, ledger.rows_of_topic(kafka, DEAD, dead_letters=True))
        ),
        _Sink(
            f"table {MARKET_DATA.name}",
            _compared(expected.table_ticks, ledger.rows_of_table(ends.postgres_dsn, MARKET_DATA)),
        ),
        _Sink(
            f"table {MARKET_BARS.name}",
            _compared(expected.table_bars, ledger.rows_of_table(ends.postgres_dsn, MARKET_BARS)),
        ),
        _Sink(f"Kafka {ANOMALIES}", _compared(expected.alerts, ledger.alerts_of_topic(kafka, ANOMALIES))),
        _Sink(
            f"table {MARKET_ANOMALIES.name}",
            _compared(expected.table_anomalies, ledger.rows_of_table(ends.postgres_dsn, MARKET_ANOMALIES)),
        ),
        _Sink(f"lake {lake}", _compared(expected.lake, ledger.rows_of_lake(lake))),
    ]
    console.print(_sent_table(sent, expected), _sinks_table(sinks), _latency_table(kafka))
    whole = len(expected.lake) + sum(count for reason, count in expected.reasons.items() if reason != "too_late")
    clean = all(sink.difference.clean for sink in sinks) and whole == sent
    for name, found in sinks:
        if not found.clean:
            parts = {"missing": found.missing, "surplus": found.surplus, "different": found.different}
            told = (f"{what} {', '.join(map(str, rows[:SAMPLES]))}" for what, rows in parts.items() if rows)
            console.print(f"{name}: {'; '.join(told)}", style="red", markup=False)
    return clean


def _sent_table(sent: int, expected: ledger.Expected) -> Table:
    table = Table("records", "count", title="what was sent")
    table.add_row("sent", f"{sent:,}")
    table.add_row("enriched ticks", f"{len(expected.ticks):,}")
    table.add_row("duplicates (dropped, counted)", f"{expected.duplicates:,}")
    for reason, count in sorted(expected.reasons.items()):
        table.add_row(f"dead letter: {reason}", f"{count:,}")
    return table


def _sinks_table(sinks: Sequence[_Sink]) -> Table:
    table = Table(
        "sink", "expected", "found", "missing", "surplus", "different", "written again", title="what each sink holds"
    )
    for name, found in sinks:
        counts = (
            found.expected,
            found.found,
            len(found.missing),
            len(found.surplus),
            len(found.different),
            found.repeated,
        )
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def _latency_table(kafka: KafkaConfig) -> Table:
    """From the append of a raw record to the append of its enriched tick."""
    appended, emitted = ledger.append_times(kafka, RAW), ledger.output_times(kafka, PROCESSED)
    waits = np.array([time_ms - appended[identity] for identity, time_ms in emitted.items()])
    table = Table("p50", "p95", "p99", title="latency, Kafka append to processed output, ms")
    table.add_row(*(f"{value:,.0f}" for value in np.percentile(waits, [50, 95, 99])))
    return table


if __name__ == "__main__":
    run_main(main)
