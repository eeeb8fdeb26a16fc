"""Background processes that outlive their starter, are recognised later, and leave nothing behind."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

__all__ = ["GRACE_S", "Process", "spawn", "stop", "sweep"]

TAG = "WAARDHAVEN_SERVER"  # in the environment of a server and of all it starts: the server's folder
GRACE_S = 20.0


class Process(NamedTuple):
    """A process, told from a later one with the same recycled pid by its start time (Unix s)."""

    pid: int
    created: float

    def running(self) -> bool:
        """Whether it lives; a zombie does not."""
        try:
            now = psutil.Process(self.pid)
            return now.create_time() == self.created and now.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def spawn(command: Sequence[str], environment: Mapping[str, str], folder: pathlib.Path, log: pathlib.Path) -> Process:
    """Starts `command` in a session of its own, in `folder`, with its output appended to `log`."""
    env = {**os.environ, **environment, TAG: str(folder)}
    with log.open("ab") as out:
        child = subprocess.Popen(  # noqa: S603
            command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return Process(child.pid, psutil.Process(child.pid).create_time())


def stop(process: Process, folder: pathlib.Path, how: signal.Signals = signal.SIGTERM) -> None:
    """Ends a server in order, by `how`, and then whatever it left; after a grace period by force."""
    if process.running():
        os.kill(process.pid, how)
        deadline = time.monotonic() + GRACE_S
        while process.running() and time.monotonic() < deadline:
            _reap(process.pid)
            time.sleep(0.02)
    sweep(folder)
    _reap(process.pid)


def sweep(folder: pathlib.Path) -> None:
    """Kills every process of the servers in and below `folder`, orphans too, and waits for their end."""
    left = [process for process in psutil.process_iter() if _belongs(process, folder)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=GRACE_S)


def _belongs(process: psutil.Process, folder: pathlib.Path) -> bool:
    try:
        tag = process.environ().get(TAG)
        if tag is not None and pathlib.Path(tag).is_relative_to(folder):
            return True
        # PostgreSQL writes its process title over its environment
        return process.name() == "postgres" and pathlib.Path(process.cwd()).is_relative_to(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def _reap(pid: int) -> None:
    """Lets a dead child of ours vanish; not ours when an earlier run started it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
