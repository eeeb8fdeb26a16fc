"""A stream on a Flink cluster goes on as another version of itself: stopped with a savepoint, started from it."""

import time
from collections.abc import Callable, Iterator, Mapping

from beam_pipelines.errors import UsageError
from beam_pipelines.launching import control, jobs
from beam_pipelines.launching.control import RUNNING, Status
from beam_pipelines.launching.graph import differences
from beam_pipelines.launching.jobs import Job, Record
from beam_pipelines.launching.parameters import Mistakes
from beam_pipelines.launching.starting import Plan, start_program
from beam_pipelines.launching.templates import BOOLEAN, Template

__all__ = ["NotUpdatedError", "check_compatible", "named_in", "update"]

FORGET = "--allow_non_restored_state"
_SAVEPOINT = "--savepoint_path="
_PATIENCE_S = 180.0
_STEADY_S = 30.0  # of running without a restart, where checkpoints are rarer
_RESTARTS = 2  # so many before its first checkpoint, and a job does not start


class NotUpdatedError(Exception):
    """The new job did not start: why, and what runs now."""


def check_compatible(old: Record, plan: Plan, template: Template) -> None:
    """Looks whether a job can go on from another's state.

    Args:
      old: the job that runs.
      plan: what is to go on.
      template: the new job's.

    Raises:
      Mistakes: if not; tells all reasons.
    """
    reasons = list(_reasons(old, plan, template))
    if reasons:
        whole = f"job {old.id} ({old.job.name}) cannot be updated and goes on:"
        raise Mistakes([f"{whole} {reason}" for reason in reasons])


def _reasons(old: Record, plan: Plan, template: Template) -> Iterator[str]:
    status, before, now = control.status_of(old), old.job, plan.job
    if not before.flink_master or not before.unbounded or old.graph is None:
        yield "only a stream on a Flink cluster has a savepoint to go on from: cancel it, and launch the new one"
        return
    if status.state != RUNNING:
        yield f"it is {status.state}, not RUNNING: {'launch a new job' if status.ended else 'try again when it runs'}"
    if now.template != before.template:
        yield f"it is of the template {before.template}, not {now.template}: give that"
        return
    if now.flink_master != before.flink_master or not now.unbounded:
        yield f"the new job must be a stream on the same cluster: give flink_master={before.flink_master}"
    yield from _changed(template, before.parameters, now.parameters)
    yield from differences(old.graph, plan.steps or {}, FORGET in now.argv)


def _changed(template: Template, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """The parameters that state depends on, and that are others now."""
    for it in template.parameters:
        was, is_now = (given.get(it.name, it.default_value or "not given") for given in (before, now))
        if it.param_type == BOOLEAN:
            was, is_now = was.lower(), is_now.lower()
        if was != is_now and not it.updatable:
            told = "has changed" if it.secret else f"was {was} and is now {is_now}"
            yield f"parameter {it.name} {told}, and its state depends on that: give the old value, or launch a new job"


def update(old: Record, plan: Plan, tell: Callable[[str], None]) -> Record:
    """Stops a job with a savepoint and starts another from it; if that does not start, the old one again.

    Args:
      old: a job that is compatible.
      plan: what goes on.
      tell: is given a line for each step.

    Raises:
      UsageError: if another update is under way.
      ClusterError: if the savepoint failed; the old job goes on.
      NotUpdatedError: if the new job did not start.
    """
    new = jobs.reserve(plan.job._replace(replaces=old.id), control.lives, plan.steps)
    try:
        savepoint = control.stop_saving(old, control.DRAINED)
    except BaseException:
        new.discard()
        raise
    tell(f"job {old.id} was stopped with the savepoint {savepoint}")
    new = _begin_from(new, savepoint)
    status = _await_start(new)
    if status.ended or not _has_started(status):
        raise NotUpdatedError(_back(old, new, status, savepoint))
    old.tell("stopped", **{**(old.told("stopped") or {}), "state": control.UPDATED})
    return new


def _begin_from(record: Record, savepoint: str) -> Record:
    argv = [it for it in record.job.argv if not it.startswith(_SAVEPOINT)]
    begun = record._replace(job=record.job._replace(argv=[*argv, f"{_SAVEPOINT}{savepoint}"]))
    begun.tell("job", **begun.job._asdict())
    start_program(begun)
    return begun


def _await_start(record: Record) -> Status:
    """Until it has started or will not."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        status = control.status_of(record)
        if status.ended or _has_started(status) or _fails(status) or time.monotonic() > deadline:
            return status
        time.sleep(0.3)


def _has_started(status: Status) -> bool:
    """Whether it works: a checkpoint ends bundles, so that much was read with the state that was there."""
    steady = not status.restarts and time.time() - status.since > _STEADY_S
    return status.state == RUNNING and (status.checkpoint is not None or steady) and not _fails(status)


def _fails(status: Status) -> bool:
    return status.checkpoint is None and (status.restarts or 0) >= _RESTARTS


def _back(old: Record, new: Record, status: Status, savepoint: str) -> str:
    """Starts the old job again; tells what happened."""
    why = f"ended as {status.state}" if status.ended else f"was restarted {status.restarts or 0} times without success"
    if not status.ended:
        control.cancel(new)
    new.tell("stopped", state=control.FAILED, at=time.time())
    again: Job = old.job._replace(replaces=old.id)
    record = _begin_from(jobs.reserve(again, control.lives, old.graph), savepoint)
    returned = _await_start(record)
    runs = returned.state == RUNNING
    told = f"job {new.id} did not start from the savepoint {savepoint}: it {why} (its log: {new.log})"
    if runs:
        return f"{told}; the old one was started again from it and runs as {record.id}"
    return f"{told}; nor did the old one, as {record.id}: it is {returned.state} (its log: {record.log})"


def named_in(request_name: str, named: str | None) -> Record:
    """The job that is to be updated.

    Args:
      request_name: of the launch; "" if none is given.
      named: its id or name, if one is given.

    Raises:
      UsageError: if there is none, or the launch has another name.
    """
    old = jobs.find(named or request_name)
    if request_name not in ("", old.job.name):
        raise UsageError(
            f"--job_name={request_name} is another name than that of the job to update, {old.job.name}: leave it out"
        )
    return old
