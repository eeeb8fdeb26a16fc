"""Beam by the book, an element a tick: read, json.loads, fixed windows, CombinePerKey; on the cluster at FLINK_MASTER.

A bounded read in streaming mode, as a stream works on Flink: a batch job would combine ticks before it shuffles them,
which no stream does.
"""

import functools
import json
import os
import pathlib
import sys
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_pipelines.runners.defaults import new_pipeline
from tests.bench.loads import PARTITIONS

Tick = tuple[int, int, float, int]  # timestamp, offset, price, volume


def records(partition: int, bootstrap_servers: str, topic: str) -> Iterator[tuple[int, bytes]]:
    """Offset and value of each record, to the present end."""
    import confluent_kafka as ck  # the worker's, not a copy that came with the function

    consumer = ck.Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": topic, "enable.partition.eof": True}
        | {"enable.auto.commit": False, "fetch.queue.backoff.ms": 10}
    )
    consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
    ended = False
    while not ended:
        for message in consumer.consume(10_000, 0.1):
            ended = bool(message.error())
            if not ended:
                yield message.offset(), message.value()
    consumer.close()


def keyed(record: tuple[int, bytes]) -> TimestampedValue:
    offset, value = record
    tick = json.loads(value)
    time = tick["timestamp"]
    return TimestampedValue((tick["symbol"], (time, offset, tick["price"], tick["volume"])), time / 1000)


class BarCombineFn(beam.CombineFn):
    """A bar is first and last (timestamp, offset, price), high, low, volume, turnover, count; None without a tick."""

    def create_accumulator(self) -> tuple[Any, ...] | None:
        return None

    def add_input(self, bar: tuple[Any, ...] | None, tick: Tick) -> tuple[Any, ...]:
        time, offset, price, volume = tick
        at = time, offset, price
        return joined(bar, (at, at, price, price, volume, price * volume, 1))

    def merge_accumulators(self, bars: Iterable[tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
        return functools.reduce(joined, (bar for bar in bars if bar), None)

    def extract_output(self, bar: tuple[Any, ...]) -> tuple[Any, ...]:
        first, last, high, low, volume, turnover, count = bar
        return first[2], high, low, last[2], volume, turnover / volume, count


def joined(a: tuple[Any, ...] | None, b: tuple[Any, ...]) -> tuple[Any, ...]:
    if a is None:
        return b
    return min(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3]), *(a[i] + b[i] for i in (4, 5, 6))


def line_of(bar: tuple[str, tuple[Any, ...]], window: Any = beam.DoFn.WindowParam) -> str:
    symbol, values = bar
    return ",".join(map(str, (symbol, int(window.start) * 1000, *values)))


class WriteLines(beam.DoFn):
    """A file a bundle: Beam's WriteToText takes no windowed lines in a portable stream on Flink."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def start_bundle(self) -> None:
        self._lines: list[str] = []

    def process(self, line: str) -> None:
        self._lines.append(line)

    def finish_bundle(self) -> None:
        if self._lines:
            pathlib.Path(self._folder, f"bars-{uuid.uuid4()}.csv").write_text("\n".join(self._lines))


def main(topic: str, folder: str) -> None:
    cluster = {
        "runner": "FlinkRunner",
        "streaming": True,
        "flink_master": os.environ["FLINK_MASTER"],
        "environment_type": "EXTERNAL",
        "environment_config": os.environ["BEAM_WORKER_POOL"],
        "artifacts_dir": os.environ["ARTIFACTS_DIR"],
        "parallelism": 2,
        "sdk_worker_parallelism": 2,
        "job_name": topic,
    }
    pipeline = new_pipeline(PipelineOptions([], **cluster), unbounded=False)
    partitions = pipeline | beam.Create(range(PARTITIONS)) | beam.Reshuffle()
    ticks = partitions | "Read" >> beam.FlatMap(records, os.environ["KAFKA_BOOTSTRAP_SERVERS"], topic)
    windows = ticks | "Parse" >> beam.Map(keyed) | beam.WindowInto(FixedWindows(60))
    lines = windows | "Bars" >> beam.CombinePerKey(BarCombineFn()) | "Lines" >> beam.Map(line_of)
    _ = lines | "Write" >> beam.ParDo(WriteLines(folder))
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
