"""Kills processes of the local stack while a stream runs, and says how long its rows stay away."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from beam_pipelines.runners.local import Stack

__all__ = ["FAULTS", "Outage", "strike"]

FAULTS = ("worker", "workers", "taskmanager", "kafka", "postgres", "s3")
"""What can be killed: one SDK worker, the pool with all its workers, or the server of that name."""

_PATIENCE_S = 120


class Outage(NamedTuple):
    """What a kill cost."""

    killed: str
    ready_s: float  # until the server was there again
    rows_s: float  # until new rows came


def strike(stack: Stack, name: str, rows: Callable[[], int]) -> Outage:
    """Kills with -9, starts again what does not come back by itself, and waits for new rows.

    Args:
      stack: whose process to kill.
      name: one of FAULTS.
      rows: how many rows the stream has written; as before while that cannot be asked.

    Raises:
      TimeoutError: when no new rows come.
    """
    before, began = rows(), time.monotonic()
    for victim in _victims(stack, name):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            victim.wait(10)
    if name != "worker":  # that one comes back by itself
        stack.server(name).start()
    ready_s = time.monotonic() - began
    while rows() <= before:
        if time.monotonic() - began > _PATIENCE_S:
            raise TimeoutError(f"no new rows came for {_PATIENCE_S} s after {name} was killed")
        time.sleep(0.1)
    return Outage(name, ready_s, time.monotonic() - began)


def _victims(stack: Stack, name: str) -> list[psutil.Process]:
    server = psutil.Process(_pid(stack, "workers" if name == "worker" else name))
    workers = [it for it in server.children(recursive=True) if "SdkHarness" in str(it.cmdline())]
    return workers[:1] if name == "worker" else [server, *workers]


def _pid(stack: Stack, name: str) -> int:
    process = stack.server(name).process
    if process is None:
        raise TimeoutError(f"{name} does not run")
    return process.pid
