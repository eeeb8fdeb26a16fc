"""Launches pipelines from templates: `python -m beam_pipelines.launch list|describe|validate|run|status|...`.

A template is launched on any runner by its name, or by a request as Dataflow's API takes it.  The job goes on by
itself; its id finds it again, from any shell.

Exit codes: 0 done, or launched; 1 the job failed or was cancelled; 2 a mistake in what was given; 3 the job did not end
in time, and goes on; 4 something outside does not answer.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence

from beam_pipelines.command_line import Parser, filled, whole
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.launching import control, jobs
from beam_pipelines.launching.control import Status
from beam_pipelines.launching.display import described, job_fields, job_line, job_lines
from beam_pipelines.launching.image import build
from beam_pipelines.launching.jobs import Record
from beam_pipelines.launching.parameters import Mistakes, argv_of
from beam_pipelines.launching.requests import (
    DATAFLOW,
    RUNNERS,
    LaunchRequest,
    dataflow_call,
    program_of,
    read_request,
    runner_named,
    spec_of,
    unused,
)
from beam_pipelines.launching.starting import AbsentError, Plan, plan_of, start
from beam_pipelines.launching.templates import ids, packaged, to_json
from beam_pipelines.launching.updating import NotUpdatedError, check_compatible, named_in, update
from beam_pipelines.runners.cluster import ClusterError

__all__ = ["main"]

FAILED, MISTAKEN, GOES_ON, ABSENT = 1, 2, 3, 4
_START_S = 300.0
_LOG_LINES = 15
_SECONDS = whole(1, 10**7)


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code."""
    options = _parser().parse(arguments)
    try:
        code: int = options.command(options)
    except Mistakes as mistakes:
        for sentence in mistakes.sentences:
            print("error:", " ".join(sentence.split()), file=sys.stderr)
        return MISTAKEN
    except AbsentError:
        print("error: not all that the job needs is there, see above: nothing was started", file=sys.stderr)
        return ABSENT
    except (ClusterError, NotUpdatedError) as failure:
        print("error:", " ".join(str(failure).split()), file=sys.stderr)
        return FAILED
    return code


# --- templates ---


def _list(_options: argparse.Namespace) -> int:
    for name in ids():
        print(f"{name:<10} {packaged(name).template.description.partition('. ')[0]}")
    return 0


def _describe(options: argparse.Namespace) -> int:
    spec = spec_of(options.template)
    if options.json:
        print(to_json(spec), end="")
        return 0
    print("\n".join(described(spec.template)))
    return 0


def _validate(options: argparse.Namespace) -> int:
    template = spec_of(options.template).template
    argv_of(template, _pairs(options.parameters))
    print(f"these parameters of {template.id} can be used; `run --validate_only` looks at what they name, too")
    return 0


def _build(options: argparse.Namespace) -> int:
    folder = pathlib.Path(options.folder or f"{options.template}-image")
    print("\n".join(map(str, build(options.template, options.image, folder))))
    return 0


# --- jobs ---


def _run(options: argparse.Namespace) -> int:
    if options.timeout and not options.wait:
        raise UsageError("--timeout is how long --wait waits: give that too, or leave it out")
    request, old = _request_of(options)
    if request.runner == DATAFLOW:
        return _tell_dataflow(request)
    left = unused(request)
    if left:
        print(f"not used by {request.runner}: {', '.join(left)}", file=sys.stderr)
    began = time.monotonic()
    plan = plan_of(request, print)
    if old:
        check_compatible(old, plan, request.spec.template)
    if request.validate_only:
        print("all is there; nothing was started")
        return 0
    record = update(old, plan, print) if old else _started(plan)
    return _outcome(record, options, began)


def _request_of(options: argparse.Namespace) -> tuple[LaunchRequest, Record | None]:
    """What is to be launched, and the job that it updates."""
    request = _by_file(options) if options.request else _by_flags(options)
    if not request.update or request.runner == DATAFLOW:
        return request, None
    old = named_in(request.job_name, options.update)
    return request._replace(job_name=old.job.name), old


def _by_file(options: argparse.Namespace) -> LaunchRequest:
    flags = ("template", "job_name", "runner", "parameters", "options", "update", "validate_only")
    given = [name for name in flags if getattr(options, name)]
    if given:
        raise UsageError(f"--request says all that --{given[0]} says: leave one of them out")
    try:
        text = sys.stdin.read() if options.request == "-" else pathlib.Path(options.request).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(f"--request={options.request} cannot be read ({failed}): correct the path") from None
    return read_request(text)


def _by_flags(options: argparse.Namespace) -> LaunchRequest:
    if not options.template:
        raise UsageError(f"name a template to run, one of {', '.join(ids())}, or give --request=FILE")
    if not options.job_name and not options.update:
        raise UsageError("--job_name is missing: give one, such as market-live")
    return LaunchRequest(
        options.job_name or "",
        spec_of(options.template),
        _pairs(options.parameters),
        runner_named(options.runner or RUNNERS[0]),
        {"additionalPipelineOptions": tuple(options.options)} if options.options else {},
        update=bool(options.update),
        validate_only=options.validate_only,
    )


def _pairs(given: Sequence[str]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    wrong = []
    for it in given:
        name, equals, value = it.partition("=")
        if not equals or not name or name in parameters:
            wrong.append(f"--parameters: {name} is {'given twice' if equals and name else 'no name=value'}: correct it")
        parameters[name] = value
    if wrong:
        raise Mistakes(wrong)
    return parameters


def _tell_dataflow(request: LaunchRequest) -> int:
    program_of(request)
    url, body = dataflow_call(request)
    print(f"nothing was started: POST this body to {url}", file=sys.stderr)
    print(json.dumps(body, indent=2, ensure_ascii=False))
    return 0


def _started(plan: Plan) -> Record:
    record = start(plan)
    print(f"job {record.id} ({record.job.name}) is starting; its log: {record.log}", flush=True)
    return record


def _outcome(record: Record, options: argparse.Namespace, began: float) -> int:
    """Waits as long as is asked; the last line is the job's id."""
    seconds = began + options.timeout - time.monotonic() if options.timeout else None
    status = control.await_end(record, seconds) if options.wait else control.await_running(record, _START_S)
    code = _code_of(status, options.wait)
    if code == FAILED:
        lines = control.log_of(record).splitlines()[-_LOG_LINES:]
        print("\n".join(lines), file=sys.stderr)
        print(f"error: job {record.id} ({record.job.name}) ended as {status.state}", file=sys.stderr)
    elif code == GOES_ON:
        limit = f"end within {options.timeout} s" if options.wait else f"run after {_START_S:.0f} s"
        print(f"error: job {record.id} ({record.job.name}) did not {limit} and goes on", file=sys.stderr)
    else:
        print(f"job {record.job.name} is {status.state}")
    print(record.id)
    return code


def _code_of(status: Status, waited: bool) -> int:
    if status.ended:
        return FAILED if status.state in (control.FAILED, control.CANCELLED, control.LOST) else 0
    return GOES_ON if waited or status.state == control.STARTING else 0


def _status(options: argparse.Namespace) -> int:
    records = [jobs.find(options.job)] if options.job else jobs.all_jobs()
    told = [job_fields(record, control.status_of(record)) for record in records]
    if options.json:
        print(json.dumps(told[0] if options.job else told, indent=2))
    else:
        print("\n".join(job_lines(told[0]) if options.job else map(job_line, told)))
    return 0


def _logs(options: argparse.Namespace) -> int:
    print(control.log_of(jobs.find(options.job)), end="")
    return 0


def _drain(options: argparse.Namespace) -> int:
    record = jobs.find(options.job)
    folder = options.savepoint
    path = control.drain(record, folder if not folder or "://" in folder else str(pathlib.Path(folder).absolute()))
    print(f"job {record.id} ({record.job.name}) was drained, with this savepoint:\n{path}")
    return 0


def _cancel(options: argparse.Namespace) -> int:
    record = jobs.find(options.job)
    path = control.cancel(record)
    print(f"job {record.id} ({record.job.name}) was cancelled{', with this last checkpoint:' if path else ''}")
    if path:
        print(path)
    return 0


# --- the command line ---


def _parser() -> Parser:
    parser = Parser(
        prog="python -m beam_pipelines.launch",
        description=str(__doc__).partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="all templates").set_defaults(command=_list)
    template = Parser(add_help=False)
    template.add_argument("template", metavar="TEMPLATE", type=filled, help="its name, or the path of a container spec")
    json_flag = Parser(add_help=False)
    json_flag.add_argument("--json", action="store_true", help="as JSON")
    describe = commands.add_parser("describe", parents=[template, json_flag], help="what a template can be told")
    describe.set_defaults(command=_describe)
    parameters = Parser(add_help=False)
    parameters.add_argument(
        "--parameters", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="what the pipeline is told"
    )
    validate = commands.add_parser("validate", parents=[template, parameters], help="looks at parameters alone")
    validate.set_defaults(command=_validate)
    build_it = commands.add_parser("build", help="write what makes an image for Dataflow: container spec, Dockerfile")
    build_it.add_argument("template", metavar="TEMPLATE", type=filled, help="its name")
    build_it.add_argument("--image", type=filled, required=True, help="the image's name, HOST/PROJECT/NAME:TAG")
    build_it.add_argument("--folder", type=filled, help="where to write (./TEMPLATE-image)")
    build_it.set_defaults(command=_build)
    _add_run(commands.add_parser("run", parents=[parameters], help="starts a job; the last line is its id"))
    _add_job_commands(commands, json_flag)
    return parser


def _add_run(run: Parser) -> None:
    run.set_defaults(command=_run)
    flag = run.add_argument
    flag("template", nargs="?", metavar="TEMPLATE", type=filled, help="its name, or the path of a container spec")
    flag("--request", type=filled, metavar="FILE", help="a launch request as Dataflow's API takes it; - is the input")
    flag("--job_name", type=filled, help="a name that no other job has which has not ended")
    flag("--runner", type=filled, help=f"{', '.join(RUNNERS)} ({RUNNERS[0]}); for the last the request is written")
    options = "Beam's own flags, such as flink_master=host:port parallelism=2"
    flag("--options", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=options)
    flag("--update", metavar="JOB", type=filled, help="go on from the state of this job, a stream on a Flink cluster")
    flag("--validate_only", action="store_true", help="look at all that the job needs, and start nothing")
    flag("--wait", action="store_true", help="until the job has ended")
    flag("--timeout", type=_SECONDS, metavar="SECONDS", help="how long to wait at most")


def _add_job_commands(commands: "argparse._SubParsersAction[Parser]", json_flag: Parser) -> None:
    one = Parser(add_help=False)
    one.add_argument("job", metavar="JOB", type=filled, help="its id or name")
    status = commands.add_parser("status", parents=[json_flag], help="what has become of a job, or of all")
    status.add_argument("job", nargs="?", metavar="JOB", type=filled, help="its id or name")
    status.set_defaults(command=_status)
    commands.add_parser("logs", parents=[one], help="what its program printed").set_defaults(command=_logs)
    drain = commands.add_parser(
        "drain", parents=[one], help="end a stream in order, with a savepoint; the last line is its path"
    )
    where = "where to put the savepoint; by default where the cluster does (state.savepoints.dir)"
    drain.add_argument("--savepoint", type=filled, metavar="DIR", help=where)
    drain.set_defaults(command=_drain)
    commands.add_parser("cancel", parents=[one], help="end a job at once").set_defaults(command=_cancel)


if __name__ == "__main__":
    run_main(main)
