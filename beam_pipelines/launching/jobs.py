"""The jobs that were launched on this machine, a folder each, so that any shell finds them again.

A folder holds `job.json`, `log` and `graph.json`, and what became of the job: `process.json`, `running.json`,
`ran.json`, `cluster.json`, `stopped.json`, `ended.json`.  Nothing in it is secret: parameters that are hold references.
"""

import datetime
import difflib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import psutil

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.graph import Step, Steps
from beam_pipelines.runners.cache import cache_dir, locked
from beam_pipelines.runners.processes import Process

__all__ = ["Job", "Record", "all_jobs", "find", "reserve"]


class Job(NamedTuple):
    """A launch: all that it takes to do it again."""

    name: str
    template: str
    runner: str
    parameters: Mapping[str, str]
    argv: list[str]  # of the pipeline's program
    folder: str  # in which it runs: paths among the parameters may be relative
    flink_master: str = ""  # host:port; "" where the job is not on a Flink cluster
    unbounded: bool = False
    replaces: str = ""  # the id of the job that it goes on from
    launched: float = 0.0  # Unix s


class Record(NamedTuple):
    """What is kept of one job."""

    path: pathlib.Path
    job: Job

    @property
    def id(self) -> str:
        """As Dataflow's: when it was launched, and a number."""
        return self.path.name

    @property
    def log(self) -> pathlib.Path:
        """What its program printed."""
        return self.path / "log"

    @property
    def process(self) -> Process | None:
        """Which carries it out, or, at first, prepares it."""
        told = self.told("process")
        return Process(**told) if told else None

    @property
    def graph(self) -> Steps | None:
        """Its stateful steps; None: not known, for it is bounded."""
        told = self.told("graph")
        return None if told is None else {name: Step(**step) for name, step in told.items()}

    def told(self, what: str) -> dict[str, Any] | None:
        """A file of the folder; None: there is none."""
        try:
            told: dict[str, Any] = json.loads((self.path / f"{what}.json").read_text())
        except FileNotFoundError:
            return None
        return told

    def tell(self, what: str, **content: Any) -> None:
        """Writes a file of the folder, at once."""
        _write(self.path / f"{what}.json", content)

    def forget(self, what: str) -> None:
        """Removes a file of the folder."""
        (self.path / f"{what}.json").unlink(missing_ok=True)

    def discard(self) -> None:
        """Forgets a job that was not started, as if it had never been."""
        shutil.rmtree(self.path)


def _write(path: pathlib.Path, content: object) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1))
    draft.rename(path)


def _root() -> pathlib.Path:
    own = os.environ.get("WAARDHAVEN_JOBS")
    root = pathlib.Path(own).absolute() if own else cache_dir() / "jobs"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


def read(path: pathlib.Path) -> Record:
    """The record that a folder holds."""
    return Record(path, Job(**json.loads((path / "job.json").read_text())))


def all_jobs() -> list[Record]:
    """All that are known, the oldest first."""
    return [read(path.parent) for path in sorted(_root().glob("*/job.json"))]


def find(named: str) -> Record:
    """The job with this id, or the last one with this name.

    Raises:
      UsageError: if there is none.
    """
    known = all_jobs()
    found = [record for record in known if named in (record.id, record.job.name)]
    if not found:
        near = difflib.get_close_matches(named, {it.job.name for it in known}, n=1)
        cure = f"did you mean {near[0]}?" if near else f"{_root()} has {len(known)}, which `status` lists"
        raise UsageError(f"JOB: no job that was launched here has the id or name {named}: {cure}")
    return found[-1]


def reserve(job: Job, lives: Callable[[Record], bool], steps: Steps | None) -> Record:
    """A folder for a job, whose name is taken from now on; this process stands for it until another does.

    Args:
      job: to be launched.
      lives: says of a job whether it has not ended.
      steps: its stateful steps.

    Raises:
      UsageError: if another job that has not ended has the name, except the one that it replaces.
    """
    with locked(_root() / ".lock"):
        for record in all_jobs():
            if record.job.name == job.name and record.id != job.replaces and lives(record):
                raise UsageError(
                    f"--job_name={job.name}: job {record.id} has this name and has not ended: choose another name, or "
                    f"end that one (python -m beam_pipelines.launch cancel {record.id})"
                )
        path = _new_folder()
        record = Record(path, job._replace(launched=time.time()))
        record.tell("process", **_own_process()._asdict())
        if steps is not None:
            record.tell("graph", **{name: step._asdict() for name, step in steps.items()})
        record.tell("job", **record.job._asdict())
    return record


def _own_process() -> Process:
    return Process(os.getpid(), psutil.Process().create_time())


def _new_folder() -> pathlib.Path:
    while True:
        path = _root() / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d_%H_%M_%S}-{secrets.randbelow(10**9):09}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return path
