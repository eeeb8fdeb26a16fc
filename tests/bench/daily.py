"""Cost and memory of the daily batch: `python -m tests.bench.daily --ticks=50000000 --symbols=2000`.

A trading day lies in a lake, in the objects that the stream would have written.  The batch recomputes it on a
standalone Spark cluster with two cores: bars with all indicators, enriched ticks, summaries, closing state, processed
lake and compaction; with --database all rows replace those of the day in PostgreSQL.  Beside it, on the same lake, the
plain daily aggregate by polars and by Spark SQL.  All must make the same bars.  Counted are CPU-seconds of every
process, and the largest resident memory of any process and of all together; looked at every half second, so a little
at the end is missed.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from beam_pipelines.io.postgres import Dsn
from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.runners.servers.spark import SparkMaster, SparkWorker
from beam_pipelines.runners.servers.worker_pool import WorkerPool
from beam_pipelines.sql.migrate import migrate
from tests.bench.day_lake import DAY, write_day
from tests.bench.live import processes_of
from tests.conftest import SparkCluster, on_any_port, started

EVERY_S = 0.5
SMALL = 0.01  # GiB: not worth a word
BAR = ("open", "high", "low", "close", "volume", "trade_count")


class Cost(NamedTuple):
    seconds: float
    cpu: float
    largest: dict[str, float]  # GiB of the largest process of each kind
    together: float  # GiB


class Watch(threading.Thread):
    """Looks at some processes until told to stop; what one spends after the last look is missed."""

    def __init__(self, find: Callable[[], list[psutil.Process]]) -> None:
        super().__init__(daemon=True)
        self._find, self._over = find, threading.Event()
        self._began = {process: _own(process) for process in find()}
        self._spent: dict[psutil.Process, float] = {}
        self.largest: dict[str, float] = {}
        self.together = 0.0

    @property
    def cpu(self) -> float:
        """CPU-seconds since the watch was made."""
        return sum(spent - self._began.get(process, 0) for process, spent in self._spent.items())

    def run(self) -> None:
        while not self._over.wait(EVERY_S):
            sizes = []
            for process in self._found():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._spent[process] = _own(process)
                    sizes.append(process.memory_info().rss / 2**30)
                    kind = process.name()
                    self.largest[kind] = max(self.largest.get(kind, 0), sizes[-1])
            self.together = max(self.together, sum(sizes))

    def _found(self) -> list[psutil.Process]:
        try:
            return self._find()
        except psutil.NoSuchProcess:  # one ended while it was asked for its children
            return []

    def stop(self) -> None:
        self._over.set()
        self.join()


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measured(command: list[str], servers: list[Server]) -> Cost:
    """Runs a program; counts it, all that it starts, and the servers that work for it."""

    def processes() -> list[psutil.Process]:
        of_servers = {it for server in servers for it in processes_of(server)}
        return list(of_servers.union(me.children(recursive=True)))

    me = psutil.Process()
    watch, began = Watch(processes), time.monotonic()
    watch.start()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - began
    watch.stop()
    return Cost(seconds, watch.cpu, watch.largest, watch.together)


@contextlib.contextmanager
def database(folder: pathlib.Path) -> Iterator[Postgres]:
    server = on_any_port(Postgres, folder / "postgres")
    try:
        with started(server):
            migrate(Dsn(server.dsn))
            yield server
    finally:
        shutil.rmtree(server.folder)  # tens of GB


@contextlib.contextmanager
def spark(folder: pathlib.Path) -> Iterator[SparkCluster]:
    master = on_any_port(SparkMaster, folder / "sparkmaster")
    worker = on_any_port(SparkWorker, folder / "sparkworker", master)
    workers = on_any_port(WorkerPool, folder / "workers")
    master.provide()
    with started(workers, master, worker):
        yield SparkCluster(master, worker, workers)


def bars_of(files: str | list[str]) -> pa.Table:
    rows = ds.dataset(files, format="parquet").to_table(columns=["symbol", "time", *BAR])
    rows = rows.set_column(1, "time", rows["time"].cast(pa.timestamp("ms", "UTC")))
    return rows.sort_by([("symbol", "ascending"), ("time", "ascending")])


def check_same(wanted: pa.Table, found: pa.Table, who: str) -> None:
    assert len(wanted)
    for name in wanted.column_names:
        same = pc.equal(wanted[name].combine_chunks(), found[name].cast(wanted[name].type).combine_chunks())
        if len(wanted) != len(found) or not pc.all(same).as_py():
            raise SystemExit(f"{who} made other bars, column {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ticks", type=int, default=50_000_000)
    parser.add_argument("--symbols", type=int, default=2_000)
    parser.add_argument("--database", action="store_true", help="write the rows into PostgreSQL, too: 30 GB")
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out: polars pyspark")
    options = parser.parse_args()
    folder = cache_dir() / "bench-daily"
    made = folder / f"lake-{options.ticks}-{options.symbols}"
    write_day(made, options.ticks, options.symbols)
    lake, out = folder / "lake", folder / "out"
    for old in (lake, out):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(made, lake)  # the batch compacts it
    costs = {}
    for peer in ("polars", "pyspark"):
        if peer not in options.without:
            (out / peer).mkdir(parents=True)
            command = [sys.executable, "-m", f"tests.bench.peers.day_{peer}", str(lake), str(out / peer)]
            costs[peer] = measured(command, [])
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(spark(folder / "servers"))
        servers: list[Server] = list(cluster[:3])
        flags = [f"--lake={lake}", f"--date={DAY}", *cluster.arguments, "--sdk_worker_parallelism=2"]
        if options.database:
            servers.append(postgres := stack.enter_context(database(folder / "servers")))
            os.environ["TIMESCALE_DSN"] = postgres.dsn
        costs["daily"] = measured([sys.executable, "-m", "beam_pipelines.daily", *flags], servers)
    found = bars_of([str(it) for it in sorted(lake.glob(f"processed/market-data/date={DAY}/bars-60s-*.parquet"))])
    for peer in costs:
        if peer != "daily":
            check_same(found, bars_of(str(out / peer / ("bars" if peer == "pyspark" else "bars.parquet"))), peer)
    print(f"{options.ticks:,} ticks, {options.symbols:,} symbols, {len(found):,} bars, the same from all")
    print("| | s | CPU-s per million | largest processes, GiB | all, GiB |\n|---|--:|--:|---|--:|")
    for who, cost in costs.items():
        largest = ", ".join(f"{kind} {size:.2f}" for kind, size in sorted(cost.largest.items()) if size > SMALL)
        million = cost.cpu / options.ticks * 1e6
        print(f"| {who} | {cost.seconds:.0f} | {million:.2f} | {largest} | {cost.together:.2f} |")


if __name__ == "__main__":
    main()
