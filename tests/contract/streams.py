"""Streams on Flink, as a user starts them, and what happens to them."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable

from beam_pipelines import ledger
from beam_pipelines.runners.jobs import FlinkJob
from beam_pipelines.runners.servers.worker_pool import WorkerPool

from .logs import MEANING, Log
from .sinks import Sinks

PATIENCE_S = 120


def streaming(log: Log, sinks: Sinks, on_flink: list[str]) -> list[str]:
    """The stream as a user starts it."""
    flags = [f"--topic={log.topic}", "--idle_ms=2000", "--checkpointing_interval=2000", *MEANING]
    return [sys.executable, "-m", "beam_pipelines.market", *flags, *sinks.arguments, *on_flink]


def await_all(log: Log, sinks: Sinks, job: FlinkJob) -> None:
    """Waits until the sinks hold all, or a test is to say what they lack."""
    with contextlib.suppress(TimeoutError):
        await_true(job, lambda: sinks.is_clean(log.expected))


def await_quality(wanted: ledger.Rows, sinks: Sinks, job: FlinkJob) -> None:
    """Waits until each partition was quiet for so long that its last minute is judged, or a test is to say what lacks.

    The sinks may have all long before: the rest of a minute of quiet is up to a minute.
    """
    with contextlib.suppress(TimeoutError):
        await_true(job, lambda: sinks.quality(wanted) == wanted)


def await_true(job: FlinkJob, told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not told():
        job.check()
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def kill_workers(pool: WorkerPool) -> None:
    """Kills the SDK workers, but not the pool that starts them."""
    victims = pool.workers
    assert victims
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
