"""The local stack on the command line: `python -m beam_pipelines.stack up|init|status|env|logs|down`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence

from beam_pipelines.command_line import Parser, folder, whole
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.runners.local import Endpoints, Stack, default_state_dir
from beam_pipelines.runners.servers.base import Server, ServerError
from beam_pipelines.sending import ensure_topic
from beam_pipelines.sql.migrate import migrate

__all__ = ["TOPICS", "Endpoints", "Stack", "initialise", "main"]

FAILED = 1
TOPICS = {  # with their partitions
    **dict.fromkeys(("market-data-raw", "market-data-processed", "news-raw", "news-sentiment-stream"), 8),
    **dict.fromkeys(("market-anomalies", "data-quality-alerts", "dead-letters"), 1),
}


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code."""
    options = _parser().parse(arguments)
    code: int = options.command(options)
    return code


def _up(options: argparse.Namespace) -> int:
    try:
        options.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--state_dir={options.state_dir} cannot be made ({error.strerror}): choose another folder"
        ) from None
    ports = {name: getattr(options, f"{name}_port") for name in Stack.port_names}
    stack = Stack(
        options.state_dir,
        {name: port for name, port in ports.items() if port is not None},
        options.slots,
        options.timescale,
        options.checkpoints,
        options.spark,
        options.monitoring,
    )
    print(f"starting the servers of {stack.state_dir} (the first time downloads about 250 MB)", flush=True)
    try:
        stack.up(lambda server, seconds: print(f"  {server.name:<12} ready after {seconds:5.1f} s", flush=True))
    except ServerError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return FAILED
    _print_table(stack)
    print("\n" + _exports(stack.endpoints))
    return 0


def _down(options: argparse.Namespace) -> int:
    stack = Stack(options.state_dir)
    stack.down(purge=options.purge)
    print(f"no server of {stack.state_dir} runs any more" + (", and their data is deleted" if options.purge else ""))
    return 0


def _status(options: argparse.Namespace) -> int:
    stack = Stack(options.state_dir)
    states = {server.name: _state(server) for server in stack.servers}
    if options.json:
        servers = {server.name: {"state": states[server.name], "ports": server.ports} for server in stack.servers}
        print(json.dumps({"servers": servers, "endpoints": stack.endpoints._asdict()}, indent=2))
    else:
        _print_table(stack)
    return 0 if set(states.values()) == {"ready"} else FAILED


def _env(options: argparse.Namespace) -> int:
    print(_exports(Stack(options.state_dir).endpoints))
    return 0


def initialise(ends: Endpoints) -> None:
    """Makes the pipelines' topics and tables where they are missing."""
    for topic, partitions in TOPICS.items():
        ensure_topic(KafkaConfig(ends.kafka), topic, partitions)
    migrate(Dsn(ends.postgres_dsn))


def _init(options: argparse.Namespace) -> int:
    stack = Stack(options.state_dir)
    if not (stack.kafka.running and stack.database.running):
        raise UsageError(f"--state_dir={stack.state_dir}: no stack runs there: start it with the command up")
    initialise(stack.endpoints)
    print(f"topics {', '.join(TOPICS)} and the tables are there")
    return 0


def _logs(options: argparse.Namespace) -> int:
    stack = Stack(options.state_dir)
    servers = [stack.server(options.server)] if options.server else stack.servers
    logs = [str(server.log) for server in servers if server.log.exists()]
    if not logs:
        raise UsageError(f"--state_dir={stack.state_dir}: there are no logs; the stack was never up.")
    os.execvp("tail", ["tail", "-n", "50", *(["-F"] if options.follow else []), "--", *logs])  # noqa: S606, S607


def _state(server: Server) -> str:
    if not server.running:
        return "stopped"
    return "ready" if server.usable else "not ready"


def _print_table(stack: Stack) -> None:
    ends = stack.endpoints
    urls = {
        "kafka": ends.kafka,
        "jobmanager": f"http://{ends.flink_rest}",
        "taskmanager": f"http://{stack.task_manager.address('taskmanager_metrics')}/metrics",
        "workers": ends.worker_pool,
        stack.database.name: ends.postgres_dsn,
        "s3": f"{ends.s3_endpoint}  s3://{ends.s3_bucket}",
        "sparkmaster": f"{ends.spark_master}  http://{stack.spark_master.address('spark_ui')}",
        "pgexporter": f"http://{stack.postgres_exporter.address('postgres_exporter')}/metrics",
        "workersexporter": f"http://{stack.workers_exporter.address('worker_metrics')}/metrics",
        "alertmanager": stack.alertmanager.url,
        "prometheus": stack.prometheus.url,
        "sparkworker": f"http://{stack.spark_worker.address('spark_worker_ui')}",
    }
    print(f"\n{'server':<12} {'state':<10} {'pid':>7}  where")
    for server in stack.servers:
        pid = server.process.pid if server.process and server.running else "-"
        print(f"{server.name:<12} {_state(server):<10} {pid:>7}  {urls[server.name]}")


def _exports(endpoints: Endpoints) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in endpoints.environment().items())


def _parser() -> Parser:
    parser = Parser(
        prog="python -m beam_pipelines.stack",
        description="Real servers on this machine: Kafka, a Flink cluster, Python workers, PostgreSQL and S3.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = Parser(add_help=False)
    shared.add_argument(
        "--state_dir", type=folder, default=default_state_dir(), help="data, logs and records (%(default)s)"
    )
    up = commands.add_parser("up", parents=[shared], help="start what does not run, and wait until all are ready")
    up.set_defaults(command=_up)
    for name in Stack.port_names:
        up.add_argument(
            f"--{name}_port", type=whole(0, 65_535), metavar="PORT", help="0: any; default: the usual one if it is free"
        )
    up.add_argument("--slots", type=whole(1, 64), help="task slots of the Flink cluster, and of the Spark cluster (2)")
    up.add_argument(
        "--timescale", action=argparse.BooleanOptionalAction, help="TimescaleDB instead of PostgreSQL (needs Node.js)"
    )
    up.add_argument("--spark", action=argparse.BooleanOptionalAction, help="a Spark cluster too (300 MB more of jars)")
    watch = "Prometheus, Alertmanager and an exporter too (Debian's packages; down and up again if an old stack runs)"
    up.add_argument("--monitoring", action=argparse.BooleanOptionalAction, help=watch)
    kept = "where Flink keeps checkpoints and savepoints, its own folder or the S3 server (folder)"
    up.add_argument("--checkpoints", choices=Stack.places, help=kept)
    down = commands.add_parser("down", parents=[shared], help="end all servers and whatever they started")
    down.set_defaults(command=_down)
    down.add_argument("--purge", action="store_true", help="delete their data too")
    status = commands.add_parser(
        "status", parents=[shared], help="what runs and where; exit code 1 unless all is ready"
    )
    status.set_defaults(command=_status)
    status.add_argument("--json", action="store_true", help="for programs")
    env = commands.add_parser("env", parents=[shared], help='where the servers are; for: eval "$(... env)"')
    env.set_defaults(command=_env)
    init = commands.add_parser("init", parents=[shared], help="make the pipelines' topics and tables where missing")
    init.set_defaults(command=_init)
    logs = commands.add_parser("logs", parents=[shared], help="the last lines of the servers' logs")
    logs.set_defaults(command=_logs)
    logs.add_argument("server", nargs="?", help="one server only")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they grow")
    return parser


if __name__ == "__main__":
    run_main(main)
