"""From a request to a job that runs: everything is looked at first, then the job's program is started."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from beam_pipelines.errors import UsageError
from beam_pipelines.launching import control, jobs
from beam_pipelines.launching.graph import Steps, stateful_steps
from beam_pipelines.launching.jobs import Job, Record
from beam_pipelines.launching.preflight import look
from beam_pipelines.launching.requests import LaunchRequest, program_of
from beam_pipelines.options import parse
from beam_pipelines.runners.cluster import Cluster
from beam_pipelines.runners.defaults import is_flink
from beam_pipelines.runners.flink import EMBEDDED
from beam_pipelines.runners.processes import spawn

__all__ = ["AbsentError", "Plan", "plan_of", "start", "start_program"]

_CARRY_OUT = "beam_pipelines.launching.carry_out"


class AbsentError(Exception):
    """Something outside does not answer; what, has been told."""


class Plan(NamedTuple):
    """A job that can be started, as far as can be seen from here."""

    job: Job
    steps: Steps | None  # the stateful steps of a stream


def plan_of(request: LaunchRequest, tell: Callable[[str], None]) -> Plan:
    """Looks at all that a launch needs, and builds its graph; starts nothing.

    Args:
      request: what is to be launched.
      tell: is given a line for each thing that was looked at.

    Raises:
      Mistakes: tells all that is wrong with the request.
      UsageError: if values do not go together, or the graph cannot be built.
      AbsentError: if something outside does not answer.
    """
    argv, template = program_of(request), request.spec.template
    pipeline = importlib.import_module(f"beam_pipelines.{template.id}")
    options, beam_options = parse(argv, pipeline.add_flags, "beam_pipelines.launch", "")
    if not look(pipeline.checks_of(options, beam_options), tell):
        raise AbsentError
    prepared = pipeline.pipeline_of(options, beam_options) if template.streaming else None
    unbounded = prepared is not None and prepared.unbounded
    job = Job(
        name=request.job_name,
        template=template.id,
        runner=request.runner,
        parameters=dict(request.parameters),
        argv=argv,
        folder=os.getcwd(),
        flink_master=_cluster_of(beam_options),
        unbounded=unbounded,
    )
    return Plan(job, stateful_steps(prepared.pipeline) if prepared and unbounded else None)


def _cluster_of(beam_options: PipelineOptions) -> str:
    master: str = beam_options.view_as(FlinkRunnerOptions).flink_master
    return master if is_flink(beam_options) and master not in EMBEDDED else ""


def _refuse_taken(job: Job) -> None:
    """Looks for a job of this name on the cluster, where anybody may have started it.

    Raises:
      UsageError: if there is one, except the one that is replaced.
    """
    if not job.flink_master or job.replaces:
        return
    for other in Cluster(job.flink_master).jobs():
        if other.name == job.name and other.lives:
            raise UsageError(
                f"--job_name={job.name}: a job of this name ({other.id}) runs on Flink at {job.flink_master}: choose "
                "another name, or end that one"
            )


def start(plan: Plan) -> Record:
    """Takes the name and starts the job's program, which goes on by itself.

    Raises:
      UsageError: if the name is taken.
    """
    record = jobs.reserve(plan.job, control.lives, plan.steps)
    try:
        _refuse_taken(plan.job)
        start_program(record)
    except BaseException:
        record.discard()
        raise
    return record


def start_program(record: Record) -> None:
    """Starts the program of a job that is reserved."""
    process = spawn([sys.executable, "-m", _CARRY_OUT, str(record.path)], {}, record.path, record.log)
    record.tell("process", **process._asdict())
