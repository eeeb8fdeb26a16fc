"""Bytewax: json.loads and a tumbling window by event time, folded per symbol; one worker, as `cli_main` gives."""

import json
import os
import pathlib
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import FileSink
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.run import cli_main

from tests.bench.peers.fold import MINUTE_MS, Bar, add, row_of

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def keyed(message: KafkaSourceMessage[Any, bytes]) -> tuple[str, dict[str, Any]]:
    tick = json.loads(message.value)
    return tick["symbol"], tick


def time_of(tick: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(tick["timestamp"] / 1000, timezone.utc)


def line_of(closed: tuple[str, tuple[int, Bar]]) -> tuple[str, str]:
    symbol, (minute, bar) = closed
    return symbol, ",".join(map(str, row_of(symbol, minute, bar)))


def never_merged(_one: Bar, _other: Bar) -> Bar:
    raise AssertionError("only sessions merge")


def main(topic: str, folder: str) -> None:
    flow = Dataflow("bars")
    source = KafkaSource([os.environ["KAFKA_BOOTSTRAP_SERVERS"]], [topic], tail=False, batch_size=10_000)
    ticks = op.map("parse", op.input("read", flow, source), keyed)
    # Its clock goes on with the system's between ticks: a replay must give it more than the second of disorder, and
    # must not wake up for windows that ended long ago.
    clock = EventClock(time_of, timedelta(seconds=10), to_system_utc=lambda _end: None)
    windows = TumblingWindower(length=timedelta(milliseconds=MINUTE_MS), align_to=EPOCH)
    bars = fold_window("bars", ticks, clock, windows, list, add, never_merged, ordered=False)
    op.output("write", op.map("lines", bars.down, line_of), FileSink(pathlib.Path(folder, "bars.csv")))
    cli_main(flow)


if __name__ == "__main__":
    main(*sys.argv[1:])
