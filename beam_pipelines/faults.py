"""Kills processes of the local stack while a stream runs, and says how long its rows stay away."""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil

from beam_pipelines.runners.jobs import FlinkJob
from beam_pipelines.runners.local import Stack

__all__ = ["FAULTS", "Outage", "Schedule", "strike"]

FAULTS = ("worker", "workers", "taskmanager", "client", "kafka", "postgres", "s3")
"""What can be killed: one SDK worker, the pool with all its workers, the program that submitted the job with its job
server, or the server of that name."""

_PATIENCE_S = 120
_NOT_STARTED = ("worker", "client")  # the one is started by its pool, the other is not needed any more


class Outage(NamedTuple):
    """What a kill cost."""

    killed: str
    ready_s: float  # until the server was there again
    rows_s: float  # until the first tick that was sent after the kill was in the table


class Schedule:
    """When to kill what: evenly spread over what is left of a session, with some chance in it.

    Args:
      names: some of FAULTS.
      seconds: length of the session, which begins now.
      seed: the same one draws the same order.
    """

    def __init__(self, names: Sequence[str], seconds: float, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self.left = self._chance.sample(names, len(names))
        self._end = time.monotonic() + seconds
        self._plan()

    def take(self) -> str | None:
        """The next one, if its time has come; none when the session is over, for then nothing flows."""
        return self.left.pop(0) if self.left and self._due <= time.monotonic() < self._end else None

    def recovered(self) -> None:
        """Lets the time until the next one begin."""
        self._plan()

    def _plan(self) -> None:
        now = time.monotonic()
        self._due = now + (self._end - now) / (len(self.left) + 1) * self._chance.uniform(0.5, 1.5)


def strike(stack: Stack, job: FlinkJob, name: str, arrived: Callable[[float], bool]) -> Outage:
    """Kills with -9, starts again what does not come back by itself, and waits for the stream to go on.

    Args:
      stack: whose process to kill.
      job: that runs on it.
      name: one of FAULTS.
      arrived: whether a tick is in the table whose time is later than this, Unix s; False while that cannot be asked.

    Raises:
      TimeoutError: when none comes.
    """
    if name == "client":
        job.lose_program()
    else:
        _kill(_victims(stack, name))
    began = time.time()
    if name not in _NOT_STARTED:
        stack.server(name).start()
    ready_s = time.time() - began
    while not arrived(began):
        job.check()
        if time.time() - began > _PATIENCE_S:
            raise TimeoutError(f"no new rows came for {_PATIENCE_S} s after {name} was killed")
        time.sleep(0.1)
    return Outage(name, ready_s, time.time() - began)


def _kill(victims: Sequence[psutil.Process]) -> None:
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    psutil.wait_procs(victims, timeout=10)


def _victims(stack: Stack, name: str) -> list[psutil.Process]:
    server = psutil.Process(_pid(stack, "workers" if name == "worker" else name))
    workers = stack.worker_pool.workers if name in ("worker", "workers") else []
    return workers[:1] if name == "worker" else [server, *workers]


def _pid(stack: Stack, name: str) -> int:
    process = stack.server(name).process
    if process is None:
        raise TimeoutError(f"{name} does not run")
    return process.pid
