"""A benchmark's own servers, the market stream with all sinks as a user starts it, and a session in real time."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import psutil

from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.stack import initialise

Cpu = dict[str, float]  # CPU-seconds by server


@contextlib.contextmanager
def fresh_stack(name: str, slots: int = 2, java_jobs: bool = False) -> Iterator[tuple[Stack, Endpoints]]:
    """Servers with empty tables, gone at the block's end; programs that are started in it find them.

    With `java_jobs` the TaskManager compiles as jobs in Java want it.
    """
    stack = Stack(cache_dir() / f"bench-{name}", slots=slots)
    if java_jobs:
        stack.task_manager.compiler = ()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else a stopped benchmark leaves its servers behind
    try:
        ends = stack.up()
        os.environ.update(ends.environment())
        initialise(ends)
        yield stack, ends
    finally:
        stack.down(purge=True)


def market(ends: Endpoints, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "beam_pipelines.market", "--runner=FlinkRunner", f"--flink_master={ends.flink_rest}"),
        *("--environment_type=EXTERNAL", f"--environment_config={ends.worker_pool}", "--parallelism=2"),
        *(f"--artifacts_dir={ends.artifacts_dir}", f"--bootstrap_servers={ends.kafka}"),
        *(f"--lake=s3://{ends.s3_bucket}/bench", *more),
    ]


def replay(ends: Endpoints, seconds: int, rate: int, activity: str = "steady") -> list[str]:
    flags = f"--speed=real --restamp --symbols=500 --duration_seconds={seconds} --ticks={seconds * rate}"
    program = [sys.executable, "-m", "beam_pipelines.replay", f"--bootstrap_servers={ends.kafka}"]
    return [*program, *flags.split(), f"--activity={activity}"]


def cpu_of(stack: Stack) -> Cpu:
    """What all servers have spent so far."""
    return {server.name: sum(map(spent, processes_of(server))) for server in stack.servers}


def processes_of(server: Server) -> list[psutil.Process]:
    """The server's process and all that it started."""
    return family(server.process.pid) if server.process is not None else []


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def spent(process: psutil.Process) -> float:
    """CPU-seconds of a process and of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
