"""Quix Streams: a tumbling window by event time with its own aggregators, state in RocksDB; final bars only."""

import csv
import os
import pathlib
import sys
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Earliest, Latest, Max, Min, Sum


def time_of(tick: Any, _headers: Any, _time: float, _kind: Any) -> int:
    return tick["timestamp"]


def row_of(symbol: bytes, window: dict[str, Any]) -> list[Any]:
    prices = (window[name] for name in ("open", "high", "low", "close"))
    volume = window["volume"]
    return [symbol.decode(), window["start"], *prices, volume, window["turnover"] / volume, window["count"]]


def main(topic: str, folder: str) -> None:
    application = Application(
        os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=topic + pathlib.Path(folder).name,
        auto_offset_reset="earliest",
        state_dir=pathlib.Path(folder, "state"),
        use_changelog_topics=False,
    )
    ticks = application.dataframe(application.topic(topic, timestamp_extractor=time_of))
    ticks["turnover"] = ticks["price"] * ticks["volume"]
    bars = ticks.tumbling_window(60_000, grace_ms=1000).agg(
        open=Earliest("price"),
        high=Max("price"),
        low=Min("price"),
        close=Latest("price"),
        volume=Sum("volume"),
        turnover=Sum("turnover"),
        count=Count(),
    )
    with pathlib.Path(folder, "bars.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        bars.final("partition").update(
            lambda window, symbol, _time, _headers: writer.writerow(row_of(symbol, window)), metadata=True
        )
        application.run(timeout=5)  # without a record; it has no other end


if __name__ == "__main__":
    main(*sys.argv[1:])
