"""Templates and jobs as the command line shows them."""

import datetime
from collections.abc import Iterator
from typing import Any

from beam_pipelines.launching.control import Status
from beam_pipelines.launching.jobs import Record
from beam_pipelines.launching.templates import Parameter, Template
from beam_pipelines.runners.cluster import Saved

__all__ = ["described", "job_fields", "job_line", "job_lines"]


def described(template: Template) -> Iterator[str]:
    """The lines that say what a template does, and what it can be told."""
    yield f"{template.id}: {template.name}, {'a stream' if template.streaming else 'a batch'}"
    yield template.description
    for group in dict.fromkeys(it.group_name for it in template.parameters):
        yield f"\n{group or 'Parameters'}"
        for parameter in template.parameters:
            if parameter.group_name == group:
                yield from _parameter(parameter)


def _parameter(parameter: Parameter) -> Iterator[str]:
    needed = "" if parameter.is_optional else ", required"
    default = f", default {parameter.default_value}" if parameter.default_value else ""
    yield f"  {parameter.name} ({parameter.param_type}{needed}{default})"
    yield f"      {parameter.help_text}"
    looks = ", ".join(it.value for it in parameter.enum_options) or parameter.custom_metadata.get("format")
    if looks:
        yield f"      must be {looks}"


def job_fields(record: Record, status: Status) -> dict[str, Any]:
    """All that is known of a job, as JSON has it; None: there is nothing of that kind."""
    return {
        "id": record.id,
        "name": record.job.name,
        "template": record.job.template,
        "runner": record.job.runner,
        "flink_master": record.job.flink_master or None,
        "state": status.state,
        "since": _time(status.since),
        "exit_code": status.exit_code,
        "last_checkpoint": status.checkpoint and _checkpoint(status.checkpoint),
        "restarts": status.restarts,
        "savepoint": status.savepoint or None,
        "replaces": record.job.replaces or None,
        "remark": status.remark or None,
        "log": str(record.log),
    }


def _checkpoint(saved: Saved) -> dict[str, Any]:
    return {"path": saved.path, "at": _time(saved.time_s), "bytes": saved.size}


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def job_lines(fields: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    for name, value in fields.items():
        if isinstance(value, dict):
            value = f"{value['at']}, {value['bytes'] / 1e6:,.1f} MB, {value['path']}"
        yield f"{name.replace('_', ' '):<16} {'-' if value is None else value}"


def job_line(fields: dict[str, Any]) -> str:
    """One of many jobs."""
    return f"{fields['id']}  {fields['state']:<9}  {fields['template']:<8} {fields['runner']:<12}  {fields['name']}"
