"""Streaming jobs of a Flink cluster on the command line: `python -m beam_pipelines.jobs list|stop|cancel|saved`.

A stopped job goes on from the path that `stop` prints, a cancelled or lost one from its last checkpoint:
`python -m beam_pipelines.market ... --savepoint_path=PATH`.
"""

import argparse
import datetime
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

from pyarrow import fs

from beam_pipelines.command_line import Parser, filled
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.objects import objects_in
from beam_pipelines.runners.cluster import Cluster, ClusterError, Saved

__all__ = ["main"]

FAILED = 1
PLACES = ("state.checkpoints.dir", "state.savepoints.dir")
METADATA = "_metadata"  # the last object that Flink writes of a checkpoint or savepoint


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code."""
    # A bare flag is written out, so that it does not take the job's name for its folder.
    options = _parser().parse(["--savepoint=" if it == "--savepoint" else it for it in arguments])
    try:
        options.command(Cluster(options.flink_master), options)
    except ClusterError as failure:
        print("error:", " ".join(str(failure).split()), file=sys.stderr)
        return FAILED
    return 0


def _list(cluster: Cluster, _options: argparse.Namespace) -> None:
    jobs = cluster.jobs()
    width = max([len("name"), *(len(job.name) for job in jobs)])
    print(f"{'job':<32} {'name':<{width}} {'state':<12} {'restarts':>8}  last checkpoint")
    for job in jobs:
        restarts, checkpoint = cluster.restarts(job.id), cluster.checkpoint(job.id)
        times = "-" if restarts is None else restarts
        print(
            f"{job.id:<32} {job.name:<{width}} {job.state:<12} {times:>8}  {_told(checkpoint) if checkpoint else '-'}"
        )


def _stop(cluster: Cluster, options: argparse.Namespace) -> None:
    job, began = cluster.find(options.job), time.monotonic()
    path = cluster.stop(job.id, _absolute(options.savepoint) if options.savepoint else None)
    print(f"job {job.name} ({job.id}) has ended after {time.monotonic() - began:.1f} s, with this savepoint:")
    print(path)


def _absolute(folder: str) -> str:
    """The same for Flink, whose working folder is another."""
    return folder if "://" in folder else str(pathlib.Path(folder).absolute())


def _cancel(cluster: Cluster, options: argparse.Namespace) -> None:
    job = cluster.find(options.job)
    cluster.cancel(job.id)
    cluster.await_end(job.id)
    checkpoint = cluster.checkpoint(job.id)
    left = "with this last checkpoint:" if checkpoint else "before it had a checkpoint"
    print(f"job {job.name} ({job.id}) was cancelled, {left}")
    if checkpoint:
        print(checkpoint.path)


def _saved(cluster: Cluster, _options: argparse.Namespace) -> None:
    places = [place for name in PLACES if (place := cluster.setting(name))]
    found = sorted(saved for place in places for saved in _saved_in(place))
    if not found:
        raise UsageError(f"{' and '.join(places) or 'the cluster'} has no checkpoint or savepoint: start the job anew")
    for taken, path in found:
        print(f"{taken.astimezone():%Y-%m-%d %H:%M:%S}  {path}")


def _saved_in(place: str) -> Iterator[tuple[datetime.datetime, str]]:
    """When each complete checkpoint or savepoint below a folder was written, and its path."""
    files, root = objects_in(place).tree()
    for found in files.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=True)):
        if found.base_name == METADATA:
            yield found.mtime, place.rstrip("/") + found.path.removesuffix(f"/{METADATA}").removeprefix(root)


def _told(checkpoint: Saved) -> str:
    age, size = time.time() - checkpoint.time_s, checkpoint.size / 1e6
    return f"{age:,.0f} s ago, {size:,.1f} MB, {checkpoint.path}"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m beam_pipelines.jobs",
        description="What runs on a Flink cluster, and how to end it so that it can go on.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = Parser(add_help=False)
    master = os.environ.get("FLINK_MASTER")
    shared.add_argument(
        "--flink_master",
        type=filled,
        default=master,
        required=not master,
        help="host:port of the cluster (FLINK_MASTER in the environment)",
    )
    one = Parser(add_help=False)
    one.add_argument("job", nargs="?", metavar="JOB", type=filled, help="its id or name; needed if several run")
    told = "all jobs: state, restarts, last checkpoint"
    commands.add_parser("list", parents=[shared], help=told).set_defaults(command=_list)
    stop = commands.add_parser(
        "stop", parents=[shared, one], help="end one in order, with a savepoint; the last line is its path"
    )
    stop.set_defaults(command=_stop)
    where = "where to put the savepoint; by default where the cluster does (state.savepoints.dir)"
    stop.add_argument("--savepoint", metavar="DIR", default="", help=where)
    cancel = "end one at once; the last line is the path of its last checkpoint"
    commands.add_parser("cancel", parents=[shared, one], help=cancel).set_defaults(command=_cancel)
    saved = "what a job can go on from, those of lost jobs too, the newest last"
    commands.add_parser("saved", parents=[shared], help=saved).set_defaults(command=_saved)
    return parser


if __name__ == "__main__":
    run_main(main)
