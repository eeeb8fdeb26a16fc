"""Cost and speed of the market stream on Flink: `python -m tests.bench.stream --outputs bars`.

Ticks of 500 symbols in 8 partitions; a tenth of them warms the job up, then all the rest is there at once.  Counted
from that moment until the last bar that the log closes is in the table: CPU-seconds of every process, by server, and
ticks a second.  Two task slots, two SDK workers, RocksDB, a checkpoint every 10 s.

A shared machine gives the same program a third more or less within the hour, so each figure has a yardstick beside it:
what json.loads of such a tick takes just before and after, in CPU-seconds per million.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import psycopg

from beam_pipelines.runners.jobs import FlinkJob, launched
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.runners.servers.base import Server
from tests.bench.live import Cpu, cpu_of, fresh_stack, processes_of
from tests.bench.loads import Load

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 600
PROGRAMS = {
    "bars": "tests.bench.bars_job",
    "all": "beam_pipelines.market",
    "unjudged": "tests.bench.unjudged_job",
}
CLIENT = ("workers", "taskmanager", "jobmanager")  # all that is not a server of others too


_TICK = (
    '{"symbol":"S00123","timestamp":1736173800123,"price":120.91,"volume":391,"bid":120.9,"ask":120.92,"bid_size":3,'
    '"ask_size":5,"source":"bench"}'
)


class Run(NamedTuple):
    ticks: int
    seconds: float
    cpu: Cpu
    yardstick: float  # CPU-seconds per million

    def per_million(self, *servers: str) -> float:
        return sum(self.cpu[name] for name in servers or self.cpu) / self.ticks * 1e6


def yardstick(ticks: int = 300_000) -> float:
    """CPU-seconds per million calls of json.loads, with whatever else the machine is doing for others."""
    began = time.process_time()
    for _ in range(ticks):
        json.loads(_TICK)
    return (time.process_time() - began) / ticks * 1e6


def threads_of(server: Server) -> Counter[str]:
    """CPU-seconds by name of thread."""
    spent_by: Counter[str] = Counter()
    for process in processes_of(server):
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                name, _, rest = (task / "stat").read_text().partition(" (")[2].rpartition(") ")
                user, system = map(int, rest.split()[11:13])
                spent_by[re.sub(r"[-#:]?[\d/(].*", "", name)] += (user + system) / CLOCK_TICKS
    return spent_by


def profile(stack: Stack, target: str) -> None:
    """Starts a profile of each SDK worker, as folded stacks."""
    for number, worker in enumerate(stack.worker_pool.workers):
        command = [
            str(pathlib.Path(sys.executable).with_name("py-spy")),
            "record",
            "-d",
            "12",
            "-r",
            "100",
            "--format",
            "raw",
            "-o",
            f"{target}.{number}",
        ]
        subprocess.Popen([*command, "--pid", str(worker.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def job(ends: Endpoints, topic: str, options: argparse.Namespace, outputs: str) -> list[str]:
    beam = [
        *("--runner=FlinkRunner", f"--flink_master={ends.flink_rest}", f"--parallelism={options.slots}"),
        *("--environment_type=EXTERNAL", f"--environment_config={ends.worker_pool}"),
        *(f"--sdk_worker_parallelism={options.slots}", f"--artifacts_dir={ends.artifacts_dir}"),
        *(f"--bootstrap_servers={ends.kafka}", f"--topic={topic}"),
        *(f"--{option}" for option in options.beam),
    ]
    if outputs == "bars":
        return [sys.executable, "-m", PROGRAMS[outputs], *beam]
    return [sys.executable, "-m", PROGRAMS[outputs], *beam, f"--lake=s3://{ends.s3_bucket}/{topic}"]


def await_ticks(ends: Endpoints, running: FlinkJob, ticks: int, bars: str = "is_final") -> None:
    """Waits until such bars hold so many ticks; asks ever more rarely, since the answer costs what is measured."""
    began = time.monotonic()
    with psycopg.connect(ends.postgres_dsn, autocommit=True) as connection:
        while True:
            row = connection.execute("SELECT sum(trade_count) FROM market_bars_ts WHERE " + bars).fetchone()
            if row and (row[0] or 0) >= ticks:
                return
            running.check()
            waited = time.monotonic() - began
            if waited > PATIENCE_S:
                raise TimeoutError(f"{row} of {ticks} ticks are in bars")
            time.sleep(max(0.1, waited / 50))


def started(
    stack: Stack, ends: Endpoints, options: argparse.Namespace, topic: str, outputs: str = "bars"
) -> AbstractContextManager[FlinkJob]:
    """The stream over a topic, with empty tables at first."""
    with psycopg.connect(ends.postgres_dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE market_bars_ts, market_data_ts, market_anomalies_ts, data_quality_ts")
    return launched(job(ends, topic, options, outputs), ends.flink_rest, topic, stack.state_dir / "job.log")


def measure(stack: Stack, ends: Endpoints, options: argparse.Namespace, load: Load, outputs: str = "bars") -> Run:
    """The cost of all ticks that `load` holds back; it holds none back thereafter."""
    with started(stack, ends, options, load.topic, outputs) as running:
        await_ticks(ends, running, load.warm, bars="true")  # provisional ones too: the warm part has come to rest
        threads = {server: threads_of(server) for server in (stack.task_manager, stack.worker_pool)}
        measured = yardstick()
        before, began = cpu_of(stack), time.monotonic()
        load.release()
        if options.profile:
            profile(stack, options.profile)
        await_ticks(ends, running, load.closed)
        seconds, after = time.monotonic() - began, cpu_of(stack)
        if options.profile:
            for server, earlier in threads.items():
                print(server.name, (threads_of(server) - earlier).most_common(12))
    spent = {name: after[name] - before[name] for name in before}
    return Run(load.ticks - load.warm, seconds, spent, (measured + yardstick()) / 2)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    what = "in turn; unjudged: all but quality"
    parser.add_argument("--outputs", nargs="+", choices=PROGRAMS, default=["bars"], help=what)
    parser.add_argument("--ticks", type=int, default=4_000_000)
    parser.add_argument("--rate", type=int, default=1250, help="ticks a second of event time (50 bars by default)")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--beam", nargs="*", default=[], help="more options of Beam, without their dashes")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--profile", default="", help="file for the workers' stacks; slows them down")
    return parser


def load_of(ends: Endpoints, options: argparse.Namespace, number: int) -> Load:
    name = f"bench-{os.getpid()}-{number}"
    return Load(ends.kafka, name, options.ticks, options.symbols, options.rate)


def report(outputs: str, run: Run) -> None:
    print(
        outputs,
        f"{run.ticks / run.seconds:,.0f}/s",
        {name: round(run.per_million(name), 2) for name in run.cpu},
        f"yardstick {run.yardstick:.2f}",
        flush=True,
    )


def print_table(outputs: str, runs: Sequence[Run]) -> None:
    print(f"\n| {outputs}: CPU-seconds per million ticks | median | least-most |\n|---|--:|--:|")
    for title, names in [("Python workers and Flink", CLIENT), *((name, (name,)) for name in runs[0].cpu), ("all", ())]:
        values = [run.per_million(*names) for run in runs]
        print(f"| {title} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} |")
    sticks = [run.yardstick for run in runs]
    print(f"| yardstick | {statistics.median(sticks):.2f} | {min(sticks):.2f}-{max(sticks):.2f} |")
    rates = [run.ticks / run.seconds for run in runs]
    print(f"| ticks a second | {statistics.median(rates):,.0f} | {min(rates):,.0f}-{max(rates):,.0f} |")


def main() -> None:
    parser = arguments()
    parser.description = str(__doc__).splitlines()[0]
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {outputs: [] for outputs in options.outputs}
    with fresh_stack("stream", options.slots) as (stack, ends):
        for number, outputs in enumerate(options.outputs * options.repetitions):
            run = measure(stack, ends, options, load_of(ends, options, number), outputs)
            runs[outputs].append(run)
            report(outputs, run)
    for outputs, those in runs.items():
        print_table(outputs, those)


if __name__ == "__main__":
    main()
