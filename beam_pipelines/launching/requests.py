"""Requests to launch a template, as Dataflow's API takes them, for any runner.

A request is a LaunchFlexTemplateRequest
(https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.flexTemplates/launch).  Its runner is
`launchOptions.runner`, and Beam's own flags are `environment.additionalPipelineOptions`.
"""

import argparse
import json
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.parameters import Mistakes, argv_of
from beam_pipelines.launching.proto_json import message, parsed, text, texts_by_name, truth, written
from beam_pipelines.launching.templates import ContainerSpec, ids, packaged, parse_spec, read_environment, to_json
from beam_pipelines.options import parse

__all__ = [
    "DATAFLOW",
    "RUNNERS",
    "LaunchRequest",
    "dataflow_call",
    "program_of",
    "read_request",
    "runner_named",
    "spec_of",
    "unused",
]

DATAFLOW = "DataflowRunner"
RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", DATAFLOW)
_JOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?")  # Dataflow's own
_SECRET = re.compile(r"password|secret|token|credential|access_key", re.IGNORECASE)
_USED_HERE = ("additionalPipelineOptions", "numWorkers")


class LaunchRequest(NamedTuple):
    """What is to be launched, where, and with what."""

    job_name: str
    spec: ContainerSpec
    parameters: Mapping[str, str]
    runner: str = "DirectRunner"
    environment: Mapping[str, Any] = {}  # fields of FlexTemplateRuntimeEnvironment
    launch_options: Mapping[str, str] = {}  # without the runner
    transform_name_mappings: Mapping[str, str] = {}
    update: bool = False
    validate_only: bool = False
    project: str = ""
    location: str = ""
    spec_path: str = ""  # on Cloud Storage

    @property
    def options(self) -> list[str]:
        """Beam's own flags, name=value or name."""
        return [it.strip().removeprefix("--") for it in self._merged.get("additionalPipelineOptions", ())]

    @property
    def _merged(self) -> dict[str, Any]:
        return {**self.spec.default_environment, **self.environment}


def _any(_where: str, value: object) -> object:
    return value


# Unlike a template, which may be newer than its reader, a request must be understood as a whole.
_parameter = message(
    {
        "jobName": text,
        "containerSpec": _any,
        "containerSpecGcsPath": text,
        "parameters": texts_by_name,
        "launchOptions": texts_by_name,
        "environment": read_environment,
        "update": truth,
        "transformNameMappings": texts_by_name,
    },
    whole=True,
)
_request = message({"projectId": text, "location": text, "launchParameter": _any, "validateOnly": truth}, whole=True)


def read_request(content: str) -> LaunchRequest:
    """The request that JSON text holds, in the API's names or in snake_case.

    Raises:
      UsageError: names the field that is missing, wrong or unknown.
    """
    whole = _request("the request", parsed(content, "the request"))
    if "launchParameter" not in whole:
        raise UsageError('the request has no launchParameter: give {"launchParameter": {"jobName": ..., ...}}')
    launch = _parameter("launchParameter", whole["launchParameter"])
    options = dict(launch.get("launchOptions", {}))
    runner = runner_named(options.pop("runner", RUNNERS[0]))
    spec, path = _spec_in(launch, runner)
    return LaunchRequest(
        launch.get("jobName", ""),
        spec,
        launch.get("parameters", {}),
        runner,
        launch.get("environment", {}),
        options,
        launch.get("transformNameMappings", {}),
        launch.get("update", False),
        whole.get("validateOnly", False),
        whole.get("projectId", ""),
        whole.get("location", ""),
        path,
    )


def runner_named(text: str) -> str:
    """A runner by its name, in whatever case; another name as it is."""
    return next((it for it in RUNNERS if it.lower() == text.strip().lower()), text)


def _spec_in(launch: Mapping[str, Any], runner: str) -> tuple[ContainerSpec, str]:
    """The template of a request, and where it is on Cloud Storage."""
    inline, path = launch.get("containerSpec"), launch.get("containerSpecGcsPath")
    if (inline is None) == (path is None):
        raise UsageError("launchParameter needs containerSpec or containerSpecGcsPath, a path, and not both: give one")
    if inline is not None:
        return parse_spec(json.dumps(inline)), ""
    if not str(path).startswith("gs://"):
        return spec_of(str(path)), ""
    name = pathlib.PurePosixPath(str(path)).stem
    if runner != DATAFLOW or name not in ids():
        raise UsageError(
            f"launchParameter.containerSpecGcsPath={path} is not read here: give containerSpec, or the path of a file"
        )
    return packaged(name), str(path)


def spec_of(named: str) -> ContainerSpec:
    """The template of the package with this name, or that of a file, by its path or file:// URL.

    Raises:
      UsageError: if there is none, or it is wrong.
    """
    if named in ids():
        return packaged(named)
    path = pathlib.Path(urllib.parse.unquote(named.removeprefix("file://")))
    try:
        return parse_spec(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as failed:
        why = failed.strerror if isinstance(failed, OSError) else "it is no UTF-8 text"
        raise UsageError(
            f"template {named} cannot be read ({why}): give the path of a container spec, or one of {', '.join(ids())}"
        ) from None


def program_of(request: LaunchRequest) -> list[str]:
    """The command line of the pipeline's program, Beam's flags included.

    Raises:
      Mistakes: tells all that is wrong with the request.
    """
    sentences, argv, flags = list(_mistakes(request)), [], _beam_flags(request)
    try:
        argv = argv_of(request.spec.template, request.parameters)
    except Mistakes as mistakes:
        sentences += mistakes.sentences
    try:
        if not _misnamed(request):
            parse(flags, _no_flags, "beam_pipelines.launch", "")
    except UsageError as mistake:
        sentences.append(f"options: {mistake}")
    if sentences:
        raise Mistakes(sentences)
    return [*argv, *flags]


def _no_flags(_parser: argparse.ArgumentParser) -> None:
    """Beam's alone."""


def _beam_flags(request: LaunchRequest) -> list[str]:
    workers = request._merged.get("numWorkers")
    parallel = [f"--parallelism={workers}"] if workers and request.runner == "FlinkRunner" else []
    given = [f"--{it}" for it in request.options]
    return [f"--runner={request.runner}", f"--job_name={request.job_name}", *parallel, *given]


def _mistakes(request: LaunchRequest) -> Iterator[str]:
    if not _JOB_NAME.fullmatch(request.job_name):
        yield (
            f"job name {request.job_name!r} must be lower-case letters, digits and hyphens, begin with a letter and "
            "not end with a hyphen"
        )
    if request.runner not in RUNNERS:
        yield f"runner {request.runner!r} must be one of {', '.join(RUNNERS)}"
    if request.transform_name_mappings and request.runner != DATAFLOW:
        yield "transformNameMappings are for DataflowRunner: leave them out, steps must keep their names"
    yield from _misnamed(request)


def _misnamed(request: LaunchRequest) -> list[str]:
    """Options that are given elsewhere."""
    told = []
    for name in _names(request.options):
        if name in ("runner", "job_name"):
            told.append(f"option {name} is the launch's own: give it as {'the' if name == 'runner' else 'its'} {name}")
        elif request.spec.template.parameter(name):
            told.append(f"option {name} is a parameter of {request.spec.template.id}: give it among the parameters")
        elif _SECRET.search(name):
            told.append(f"option {name} would show a secret in the job's record: set it in the environment of the job")
    return told


def _names(options: Iterable[str]) -> list[str]:
    return [it.partition("=")[0] for it in options]


def unused(request: LaunchRequest) -> list[str]:
    """What the request says of its environment that is for Dataflow, and not used by the other runners."""
    fields = [name for name in request.environment if name not in _USED_HERE]
    if "numWorkers" in request.environment and request.runner != "FlinkRunner":
        fields.append("numWorkers")
    return [*(f"environment.{name}" for name in fields), *(f"launchOptions.{name}" for name in request.launch_options)]


def dataflow_call(request: LaunchRequest) -> tuple[str, dict[str, Any]]:
    """The call that launches the job on Dataflow: the URL to POST to, and the body.

    Raises:
      UsageError: if the project or the location is missing.
    """
    given = dict(it.partition("=")[::2] for it in request.options)
    project, location = request.project or given.get("project"), request.location or given.get("region")
    if not project or not location:
        raise UsageError(
            "--runner=DataflowRunner needs a project and a location: give project=... and region=... among the "
            "options, or projectId and location in the request"
        )
    template = {"containerSpecGcsPath": request.spec_path} if request.spec_path else _inline(request.spec)
    options = [it for it in request.options if it.partition("=")[0] not in ("project", "region")]
    launch = {
        "jobName": request.job_name,
        **template,
        "parameters": dict(request.parameters),
        "launchOptions": dict(request.launch_options),
        "environment": written({**request.environment, "additionalPipelineOptions": options}),
        "update": request.update,
        "transformNameMappings": dict(request.transform_name_mappings),
    }
    path = f"v1b3/projects/{project}/locations/{location}/flexTemplates:launch"
    body = written({"launchParameter": written(launch), "validateOnly": request.validate_only})
    return f"https://dataflow.googleapis.com/{path}", body


def _inline(spec: ContainerSpec) -> dict[str, Any]:
    return {"containerSpec": json.loads(to_json(spec))}
