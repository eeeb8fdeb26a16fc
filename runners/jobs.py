"""Streaming jobs on a Flink cluster: launched as programs, watched and cancelled by the cluster's REST interface."""

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from beam_pipelines.runners.cluster import Cluster

__all__ = ["FlinkJob", "JobError", "launched"]

_LOG_LINES = 15
_GRACE_S = 20.0  # for a program to end after its job


class JobError(Exception):
    """A job did not start or does not run: why, and the last lines of its program's log."""


class FlinkJob:
    """The job of a program that is running.

    Args:
      rest: host:port of the cluster's REST interface.
      name: of the job, as in Beam's `--job_name`.
      process: the program that submits it and waits for its end.
      log: where that program's output goes.

    Attributes:
      cluster: that it runs on.
      name: of the job.
      process: the program.
    """

    def __init__(self, rest: str, name: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
        self.cluster = Cluster(rest)
        self.name, self.process, self._log = name, process, log
        self._lost = False

    def check(self) -> None:
        """Makes sure that the program still waits for its job; or, if it was lost, that the job goes on without.

        Raises:
          JobError: if it does not.
        """
        if self._lost:
            if not self._ids():
                raise self._failure("did not go on without its program")
        elif self.process.poll() is not None:
            raise self._failure(f"ended with exit code {self.process.returncode}")

    def ended(self, seconds: float = _GRACE_S) -> int:
        """The exit code of the program, whose job was ended by somebody.

        Raises:
          JobError: if it goes on.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not end within {seconds:.0f} s") from None

    def lose_program(self) -> None:
        """Kills the program with all that it started, such as its job server; the job is the cluster's by now."""
        self._lost = True
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.wait()

    def await_running(self, seconds: float = 120.0) -> None:
        """Returns when all tasks run.

        Raises:
          JobError: if they do not in time.
        """
        deadline = time.monotonic() + seconds
        while not self._runs():
            self.check()
            if time.monotonic() > deadline:
                raise self._failure(f"did not run after {seconds:.0f} s")
            time.sleep(0.3)

    def has_restarted(self) -> bool:
        """Whether the job was restarted after a failure."""
        return any(self._told(job)["timestamps"]["RESTARTING"] for job in self._ids())

    def cancel(self) -> None:
        """Cancels the job and waits for the program's end."""
        for job in self._ids():
            self.cluster.cancel(job)
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.lose_program()

    def _runs(self) -> bool:
        jobs = [self._told(job) for job in self._ids()]
        return bool(jobs) and all(vertex["status"] == "RUNNING" for job in jobs for vertex in job["vertices"])

    def _ids(self) -> list[str]:
        return [job.id for job in self.cluster.jobs() if job.name == self.name and job.lives]

    def _told(self, job: str) -> Any:
        return self.cluster.ask(f"jobs/{job}")

    def _failure(self, what: str) -> JobError:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return JobError(f"the job {self.name} {what}; the last lines of {self._log}:\n" + "\n".join(lines))


@contextlib.contextmanager
def launched(command: Sequence[str], rest: str, name: str, log: pathlib.Path) -> Iterator[FlinkJob]:
    """Runs a program that submits one streaming job, until the block ends; the job is running when it begins.

    Args:
      command: the program and its arguments, but for the name of its job.
      rest: host:port of the cluster's REST interface.
      name: for the job; no other job on the cluster has it.
      log: where the program's output goes.

    Raises:
      JobError: if the job does not start.
    """
    named = [*command, f"--job_name={name}"]
    with log.open("wb") as output, subprocess.Popen(named, stdout=output, stderr=output) as process:  # noqa: S603
        job = FlinkJob(rest, name, process, log)
        try:
            job.await_running()
            yield job
        finally:
            job.cancel()
