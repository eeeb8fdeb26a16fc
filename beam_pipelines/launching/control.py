"""Launched jobs: what has become of them, and how they are ended.

A job on a Flink cluster is the cluster's: it goes on when the program that submitted it dies.  All others live and die
with their program.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.jobs import Record
from beam_pipelines.runners import processes
from beam_pipelines.runners.cluster import Cluster, ClusterError, Job, Saved

__all__ = [
    "CANCELLED",
    "DONE",
    "DRAINED",
    "ENDED",
    "FAILED",
    "LOST",
    "RUNNING",
    "STARTING",
    "UPDATED",
    "Status",
    "await_end",
    "await_running",
    "cancel",
    "drain",
    "lives",
    "log_of",
    "status_of",
    "stop_saving",
]

STARTING, RUNNING, DONE, FAILED, CANCELLED, DRAINED, UPDATED, LOST = (
    *("STARTING", "RUNNING", "DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED", "LOST"),
)
ENDED = (DONE, FAILED, CANCELLED, DRAINED, UPDATED, LOST)
_AS_IN_FLINK = {"FINISHED": DONE, "FAILED": FAILED, "CANCELED": CANCELLED}
_POLL_S = 0.2
_GRACE_S = 20.0  # for a program to end after its job


class Status(NamedTuple):
    """What has become of a job."""

    state: str
    since: float  # Unix s
    exit_code: int | None = None  # of its program, if that has ended
    checkpoint: Saved | None = None  # the last one; Flink's streams have them
    restarts: int | None = None  # of a job on a Flink cluster
    savepoint: str = ""  # from which another can go on
    remark: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED


def status_of(record: Record) -> Status:
    """What has become of a job, by its runner and its folder."""
    stopped, ended = record.told("stopped"), record.told("ended")
    code = ended["code"] if ended else None
    if stopped:
        return Status(stopped["state"], stopped["at"], code, savepoint=stopped.get("savepoint", ""))
    if ended and code == 0:
        return Status(DONE, ended["at"], code)
    submitted = record.job.flink_master and record.log.exists()  # before, the name may be that of the job it replaces
    return _steady(record, _on_cluster(record, ended)) if submitted else _by_process(record, ended)


def _steady(record: Record, status: Status) -> Status:
    """A job that was RUNNING is so until it ends, also while Flink restarts its tasks."""
    ran = record.told("ran")
    if status.state == STARTING and ran:
        return status._replace(state=RUNNING, since=ran["at"])
    if status.state == RUNNING and not ran:
        record.tell("ran", at=status.since)
    return status


def lives(record: Record) -> bool:
    """Whether a job has not ended."""
    return not status_of(record).ended


def _by_process(record: Record, ended: dict[str, Any] | None, remark: str = "") -> Status:
    if ended is None and not _process_lives(record):
        ended = record.told("ended")  # it may have ended since the first look
        if ended is None:
            return Status(LOST, _last_sign(record), remark=remark or "its program ended without a word")
    if ended:
        return Status(FAILED if ended["code"] else DONE, ended["at"], ended["code"], remark=remark)
    running = record.told("running")
    if running:
        return Status(RUNNING, running["at"], remark=remark)
    return Status(STARTING, record.job.launched, remark=remark)


def _process_lives(record: Record) -> bool:
    process = record.process
    return process is not None and process.running()


def _last_sign(record: Record) -> float:
    return max(it.stat().st_mtime for it in record.path.iterdir())


def _on_cluster(record: Record, ended: dict[str, Any] | None) -> Status:
    """By what the cluster says, while it has the job; its program may be gone."""
    cluster = Cluster(record.job.flink_master)
    try:
        job = _job_on(cluster, record)
        if job and job.lives:
            return _living(cluster, record, job)._replace(exit_code=ended["code"] if ended else None)
    except (UsageError, ClusterError) as absent:
        return _by_process(record, ended, remark=str(absent))
    own = _by_process(record, ended)
    if own.state == RUNNING and record.job.unbounded and not record.told("cluster"):
        return own._replace(state=STARTING, since=record.job.launched)  # submitted, and not on the cluster yet
    if job and own.ended:
        state = _AS_IN_FLINK[job.state]
        if own.state == FAILED and state == CANCELLED:
            return own._replace(state=CANCELLED)
        if own.state == LOST and (record.job.unbounded or state != DONE):  # a batch may have had more to do
            return own._replace(state=state, remark="its program is gone: this is what the cluster says")
    return own


def _living(cluster: Cluster, record: Record, job: Job) -> Status:
    told = cluster.ask(f"jobs/{job.id}")
    runs = all(vertex["status"] in ("RUNNING", "FINISHED") for vertex in told["vertices"])
    restarts = cluster.restarts(job.id)
    begun = runs or restarts or not record.job.unbounded
    remarks = [] if _process_lives(record) else ["its program is gone: the cluster goes on with the job"]
    if job.state != "RUNNING":
        remarks.append(f"Flink says {job.state}")
    return Status(
        RUNNING if begun else STARTING,
        (begun and told["timestamps"]["RUNNING"] / 1000) or record.job.launched,
        checkpoint=cluster.checkpoint(job.id),
        restarts=restarts,
        remark="; ".join(remarks),
    )


def _job_on(cluster: Cluster, record: Record) -> Job | None:
    """The job on the cluster: no two that live there have one name; of those that have ended, the last of its own."""
    told = sorted(cluster.ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])
    kept = record.told("cluster")
    mine = [it for it in told if it["name"] == record.job.name]
    if kept:
        mine = [it for it in mine if it["jid"] == kept["id"]]
    else:
        begun = 1000 * record.job.launched
        mine = [it for it in mine if Job(it["jid"], it["name"], it["state"]).lives or it["start-time"] >= begun]
    if not mine:
        return None
    job = Job(mine[-1]["jid"], mine[-1]["name"], mine[-1]["state"])
    if record.job.unbounded and not kept:  # a batch may run several, one after the other
        record.tell("cluster", id=job.id)
    return job


def await_running(record: Record, seconds: float) -> Status:
    """Waits until a job runs or has ended, at most so long; gives what has become of it."""
    return _await(record, (RUNNING, *ENDED), seconds)


def await_end(record: Record, seconds: float | None) -> Status:
    """Waits until a job has ended, at most so long; gives what has become of it."""
    return _await(record, ENDED, seconds)


def _await(record: Record, states: tuple[str, ...], seconds: float | None) -> Status:
    deadline = None if seconds is None else time.monotonic() + seconds
    while (status := status_of(record)).state not in states:
        if deadline is not None and time.monotonic() > deadline:
            return status
        time.sleep(_POLL_S)
    return status


def drain(record: Record, folder: str | None = None) -> str:
    """Ends a stream on a Flink cluster in order; gives the path of its savepoint, which is kept in the record.

    Args:
      record: of the job.
      folder: where to put the savepoint; None: where the cluster puts them.

    Raises:
      UsageError: if the job has ended, or is none of these.
      ClusterError: if the savepoint failed; the job goes on.
    """
    return stop_saving(record, DRAINED, folder)


def stop_saving(record: Record, state: str, folder: str | None = None) -> str:
    """The same, for whatever reason: the job's state is called `state` from then on."""
    _refuse_ended(record, "drained")
    if not record.job.flink_master or not record.job.unbounded:
        kind = "an embedded runner's" if record.job.unbounded else "bounded, so it ends by itself"
        raise UsageError(
            f"job {record.id} ({record.job.name}) is {kind} and cannot be drained, which takes a stream on a Flink "
            f"cluster: cancel it (python -m beam_pipelines.launch cancel {record.id})"
        )
    cluster = Cluster(record.job.flink_master)
    job = _job_on(cluster, record)
    if job is None or not job.lives:
        raise UsageError(f"job {record.id} ({record.job.name}) is not on the cluster yet: try again when it runs")
    path = cluster.stop(job.id, folder)
    record.tell("stopped", state=state, at=time.time(), savepoint=path)
    _end_program(record, _GRACE_S)
    return path


def cancel(record: Record) -> str:
    """Ends a job at once; gives the path of its last checkpoint, if it has one.

    Raises:
      UsageError: if it has ended.
      ClusterError: if the cluster refuses.
    """
    _refuse_ended(record, "cancelled")
    with _cancelled(record):
        path = _cancel_on_cluster(record)
        _end_program(record, 0 if path is None else _GRACE_S)
        path = path or _cancel_on_cluster(record) or ""  # its program may have submitted it just now
    record.tell("stopped", state=CANCELLED, at=time.time(), savepoint=path)
    return path


@contextlib.contextmanager
def _cancelled(record: Record) -> Iterator[None]:
    """Says so first, for its program's end is not its own."""
    record.tell("stopped", state=CANCELLED, at=time.time())
    try:
        yield
    except Exception:
        record.forget("stopped")
        raise


def _cancel_on_cluster(record: Record) -> str | None:
    """The path of its last checkpoint, "" if it has none; None: there is no such job."""
    cluster = Cluster(record.job.flink_master)
    job = _job_on(cluster, record) if record.job.flink_master else None
    if job is None or not job.lives:
        return None
    cluster.cancel(job.id)
    cluster.await_end(job.id)
    checkpoint = cluster.checkpoint(job.id)
    return checkpoint.path if checkpoint else ""


def _end_program(record: Record, grace_s: float) -> None:
    """Ends the program and all that it started, such as a job server; it has so long to end by itself."""
    process = record.process
    if process is None:
        return
    deadline = time.monotonic() + grace_s
    while process.running() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    processes.stop(process, record.path)


def _refuse_ended(record: Record, how: str) -> None:
    status = status_of(record)
    if status.ended:
        raise UsageError(
            f"job {record.id} ({record.job.name}) has ended as {status.state} and cannot be {how}: `status` lists jobs"
        )


def log_of(record: Record) -> str:
    """What its program printed, and what Flink says of its last failure."""
    printed = record.log.read_text(errors="replace") if record.log.exists() else ""
    failure = _failure_on_cluster(record)
    return f"{printed}\nthe last failure that Flink tells of:\n{failure}" if failure else printed


def _failure_on_cluster(record: Record) -> str:
    if not record.job.flink_master:
        return ""
    cluster = Cluster(record.job.flink_master)
    try:
        job = _job_on(cluster, record)
        told = cluster.ask(f"jobs/{job.id}/exceptions") if job else {}
    except (UsageError, ClusterError):
        return ""
    return str(told.get("root-exception") or "")
