"""Replays a simulated session or files into a Kafka topic, at the speed of the day or as fast as it goes.

Records are keyed by symbol and partitioned as the Java clients do it.  Each is delivered, in order, or counted as lost.
"""

import argparse
import contextlib
import dataclasses
import datetime
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import rich.console
import rich.progress
from rich.progress import BarColumn, TaskProgressColumn, TimeElapsedColumn

from beam_pipelines.command_line import WEEK_MS, Parser, filled, share, whole
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.kafka_config import KafkaConfig, check_kafka
from beam_pipelines.sending import ensure_topic, paced, send
from beam_pipelines.simulate import Session, records
from beam_pipelines.tick_files import records_from_file

__all__ = ["main"]

_LINE_SECONDS = 5.0  # between lines of progress where there is no terminal
_MOST_SYMBOLS = 100_000
_LONGEST_SYMBOL = 20  # of a valid tick
_LATEST_MS = 253_370_764_800_000  # 9999-01-01; later times could leave the range of datetime on their way


class _Option(NamedTuple):
    """A command-line option that sets a field of the session."""

    field: str
    parse: Any
    help: str


def _symbols(text: str) -> int | tuple[str, ...]:
    if text.lstrip("+-").isdecimal():
        return whole(1, _MOST_SYMBOLS)(text)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if len(name) > _LONGEST_SYMBOL]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is longer than {_LONGEST_SYMBOL} characters")
    return names


def _moment(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text) if not text.isdecimal() else int(text)
    except ValueError as mistake:
        raise argparse.ArgumentTypeError(f"{text!r} is neither ISO 8601 nor ms since 1970") from mistake
    if isinstance(moment, datetime.datetime):
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
        moment = round(zoned.timestamp() * 1000)
    if not 0 <= moment <= _LATEST_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is not within the years 1970 to 9998")
    return moment


def _milliseconds(text: str) -> int:
    seconds = _number(text)
    if not 0.001 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length in seconds")
    return round(seconds * 1000)


def _speed(text: str) -> float:
    speed = {"real": 1.0, "max": math.inf}.get(text) or _number(text)
    if not speed > 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be real, a number above 0, or max")
    return speed


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


_SESSION_OPTIONS = {
    "--seed": _Option("seed", whole(0, 2**63 - 1), "same seed and options, same bytes"),
    "--symbols": _Option("symbols", _symbols, "how many symbols, or their names: AAPL,MSFT"),
    "--start": _Option("start_ms", _moment, "opening of the session, ISO 8601 (naive: UTC) or ms"),
    "--duration_seconds": _Option("duration_ms", _milliseconds, "length of the session, s"),
    "--ticks": _Option("ticks", whole(1, 10**11), "number of valid ticks; duplicates and bad records come on top"),
    "--activity": _Option("activity", str, "day: U-shaped, with bursts; steady: as many ticks each second"),
    "--disorder_share": _Option("disorder", share, "share of ticks out of order, within --out_of_orderness_ms"),
    "--max_delay_ms": _Option("max_delay_ms", whole(1, WEEK_MS), "most delay of those, ms"),
    "--late_share": _Option("late", share, "share of ticks delayed beyond --out_of_orderness_ms"),
    "--too_late_share": _Option("too_late", share, "share of ticks delayed beyond --allowed_lateness_ms as well"),
    "--out_of_orderness_ms": _Option("out_of_orderness_ms", whole(0, WEEK_MS), "the pipeline's setting, ms"),
    "--allowed_lateness_ms": _Option("allowed_lateness_ms", whole(1, WEEK_MS), "the pipeline's setting, ms"),
    "--bad_share": _Option("bad", share, "bad records of every sort, as a share of the ticks"),
    "--duplicate_share": _Option("duplicate", share, "ticks sent twice, as a share"),
    "--tie_share": _Option("tie", share, "share of ticks in the millisecond of the one before, same symbol"),
}


def _parser() -> Parser:
    parser = Parser(prog="python -m beam_pipelines.replay", description=__doc__)
    parser.add_argument("--bootstrap_servers", type=filled, help="host:port of a Kafka broker")
    parser.add_argument("--kafka_config", type=filled, help="file of librdkafka settings, for TLS, SASL and the like")
    parser.add_argument("--topic", type=filled, default="market-data-raw")
    parser.add_argument("--create_topic", action="store_true", help="create the topic if it is missing")
    parser.add_argument(
        "--partitions", type=whole(1, 10_000), default=4, help="of the topic that is created (default 4)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--simulate", action="store_true", help="send a simulated session (the default)")
    source.add_argument(
        "--input", nargs="+", type=filled, metavar="FILE", help="send .csv, .ndjson, .parquet or Lean .zip files"
    )
    parser.add_argument("--speed", type=_speed, default=math.inf, help="real, N (times real time) or max (default)")
    parser.add_argument("--restamp", action="store_true", help="shift event times to now; never into the future")
    parser.add_argument("--limit", type=whole(1, 10**11), help="send so many records at most")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    group = parser.add_argument_group("simulated session")
    for flag, option in _SESSION_OPTIONS.items():
        default = next(field.default for field in dataclasses.fields(Session) if field.name == option.field)
        group.add_argument(flag, dest=f"session_{option.field}", type=option.parse, help=f"{option.help} ({default})")
    return parser


def _session(options: argparse.Namespace) -> Session:
    """The session that the options describe.

    Raises:
      UsageError: if there can be no such session.
    """
    given = _given(options)
    try:
        return Session(**{option.field: given[flag] for flag, option in _SESSION_OPTIONS.items() if flag in given})
    except ValueError as mistake:
        raise UsageError(f"the simulated session cannot be: {mistake}") from mistake


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The session's options that are on the command line."""
    values = {flag: getattr(options, f"session_{option.field}") for flag, option in _SESSION_OPTIONS.items()}
    return {flag: value for flag, value in values.items() if value is not None}


def _source(options: argparse.Namespace) -> Iterator[pa.RecordBatch]:
    """The records to send, restamped if asked for."""
    if options.input is None:
        session = _session(options)
        if options.restamp:
            last = session.start_ms + session.duration_ms
            shift = _shift(session.start_ms, last, options.speed)
            session = dataclasses.replace(session, start_ms=session.start_ms + shift)
        return records(session)
    if given := _given(options):
        raise UsageError(f"{next(iter(given))} is for simulated sessions: leave it out with --input")
    shift = _shift(*_times(options.input), options.speed) if options.restamp else 0
    files = [
        records_from_file(pathlib.Path(path), shift) for path in options.input
    ]  # all are looked at before any is sent
    return (batch for file in files for batch in file)


def _times(paths: Sequence[str]) -> tuple[int, int]:
    """The least and the greatest event time in the files, ms."""
    ends = [
        pc.min_max(batch["time"].filter(pc.not_equal(batch["time"], -1)))
        for p in paths
        for batch in records_from_file(p)
    ]
    known = [end for end in ends if end["min"].is_valid]
    if not known:
        raise UsageError(f"input file {paths[0]} cannot be restamped: it has no event times")
    return min(end["min"].as_py() for end in known), max(end["max"].as_py() for end in known)


def _shift(first: int, last: int, speed: float) -> int:
    """What to add to event times for a live replay: it starts now or, faster than real time, catches up with now.

    A tick from the future would be rejected, so at more than real speed the first are dated back.
    """
    ahead = max(0.0, (last - first) * (1 - 1 / speed))
    return int(time.time() * 1000 - first - ahead)


def _first(batches: Iterable[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """The first `limit` records."""
    for batch in batches:
        yield batch.slice(0, limit)
        limit -= batch.num_rows
        if limit <= 0:
            return


class _Lines:
    """Progress in a log: a line every few seconds."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    def __call__(self, messages: int) -> None:
        now = time.monotonic()
        if now - self._told >= _LINE_SECONDS:
            self._told = now
            print(f"sent {messages:,} messages ({messages / (now - self._began):,.0f}/s)", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Tells how many messages have been handed over: a bar on a terminal, else lines, on stderr."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = ("{task.completed:,} messages", BarColumn(), TaskProgressColumn(show_speed=True), TimeElapsedColumn())
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("sent", total=total)
        yield lambda messages: bar.update(task, completed=messages)


def _expected(options: argparse.Namespace) -> int | None:
    """About how many records there will be, if that is known."""
    if options.input is not None:
        return options.limit
    session = _session(options)
    total = round(session.ticks * (1 + session.bad + session.duplicate))
    return min(total, options.limit or total)


def main(argv: Sequence[str]) -> int:
    """Replays as the command line says; 1 if anything was lost.

    Raises:
      UsageError: for a mistake in the options, files or addresses.
    """
    options = _parser().parse(argv)
    config = KafkaConfig.load(options.bootstrap_servers, options.kafka_config)
    batches = _source(options)
    if options.limit is not None:
        batches = _first(batches, options.limit)
    if options.create_topic:
        ensure_topic(config, options.topic, options.partitions)
    check_kafka(config, options.topic)
    if options.speed < math.inf:
        batches = paced(batches, options.speed)
    with _progress(_expected(options)) as progress:
        summary = send(config, options.topic, batches, progress)
    print(summary.as_json() if options.json else summary.as_text())
    if summary.lost:
        print(f"error: {summary.lost} of {summary.messages} messages were lost: {summary.reason}", file=sys.stderr)
    return 1 if summary.lost else 0


if __name__ == "__main__":
    run_main(main)
