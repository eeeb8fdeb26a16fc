"""Latency of the whole stream: `python -m tests.bench.latency --rate 5000 --minutes 5`.

At a steady rate, or one with the day's U and its bursts.  From the append of a raw record to that of its enriched tick,
the ticks that wait for a bar to close included; and from the append of the record at which the clock passes a bar's end
until the bar is seen in the table, which is asked every 50 ms.  All servers and the sender are on this machine; all
sinks are on.  Beside them what a tick costs, servers included.
"""

import argparse
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import confluent_kafka as ck
import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.runners.jobs import launched
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.stack import TOPICS
from beam_pipelines.transforms.records import partition_of
from tests.bench.live import Cpu, cpu_of, fresh_stack, market, replay

RAW, PROCESSED = "market-data-raw", "market-data-processed"
WARM_S = 30
BAR_MS, DISORDER_MS = 60_000, 1_000
Ints = NDArray[np.int64]


class Appended(NamedTuple):
    """The raw records of one partition, by offset."""

    at: Ints  # Kafka timestamp, ms
    newest: Ints  # highest event time so far, ms


class _Time(msgspec.Struct):
    timestamp: int


def messages_of(kafka: str, topic: str, partition: int) -> Iterator[list[ck.Message]]:
    """All records of a partition, in pieces."""
    consumer = KafkaConfig(kafka).consumer()
    consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
    ended = False
    while not ended:
        piece = consumer.consume(10_000, 5.0)
        ended = any(message.error() for message in piece)  # the end of the partition
        yield [message for message in piece if not message.error()]
    consumer.close()


def appended(kafka: str, partition: int) -> Appended:
    time_of = msgspec.json.Decoder(_Time)
    at, event = [], []
    for piece in messages_of(kafka, RAW, partition):
        at += [message.timestamp()[1] for message in piece]
        event += [time_of.decode(message.value() or b"").timestamp for message in piece]
    return Appended(np.array(at), np.maximum.accumulate(np.array(event)))


def tick_waits(kafka: str, raw: list[Appended]) -> Ints:
    """Time from each raw record to the first copy of its enriched tick, ms; without those of the first `WARM_S`."""
    began = min(int(partition.at[0]) for partition in raw)
    waits = [np.full(len(partition.at), np.iinfo(np.int64).max) for partition in raw]
    for partition in range(TOPICS[PROCESSED]):
        for piece in messages_of(kafka, PROCESSED, partition):
            for message in piece:
                source, offset = (int(value) for _, value in message.headers() or [])
                wait = message.timestamp()[1] - int(raw[source].at[offset])
                waits[source][offset] = min(waits[source][offset], wait)
    warm = [wait[partition.at > began + WARM_S * 1000] for wait, partition in zip(waits, raw, strict=True)]
    return np.concatenate(warm)


class BarWatch(threading.Thread):
    """Notes when each final bar is first seen."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn, self.seen, self.over = dsn, dict[tuple[str, int], int](), threading.Event()

    def run(self) -> None:
        query = """SELECT symbol, (extract(epoch FROM time) * 1000)::bigint FROM market_bars_ts
                   WHERE is_final AND time > now() - interval '3 minutes'"""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.over.wait(0.05):
                for bar in connection.execute(query).fetchall():
                    self.seen.setdefault(bar, time.time_ns() // 1_000_000)


def bar_waits(seen: dict[tuple[str, int], int], raw: list[Appended]) -> Ints:
    """Time from the record that closed each bar until the bar was seen, ms; without the first bars."""
    first = min(start for _, start in seen)
    waits = []
    for (symbol, start), at in seen.items():
        partition = raw[partition_of(symbol.encode(), TOPICS[RAW])]
        closing = int(np.searchsorted(partition.newest, start + BAR_MS + DISORDER_MS))
        if start > first and closing < len(partition.at):
            waits.append(at - int(partition.at[closing]))
    return np.array(waits)


def measure(stack: Stack, ends: Endpoints, watch: BarWatch, sender: list[str], more: list[str]) -> Cpu:
    """CPU-seconds while the sender sends, without its first `WARM_S`."""
    log = stack.state_dir / "market.log"
    before: Cpu = {}
    warm = threading.Timer(WARM_S, lambda: before.update(cpu_of(stack)))
    warm.daemon = True
    with launched(market(ends, *more), ends.flink_rest, "latency", log) as job:
        watch.start()
        warm.start()
        subprocess.run(sender, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        spent = cpu_of(stack)
        time.sleep(10)
        job.check()
    watch.over.set()
    watch.join()
    return {name: spent[name] - before[name] for name in before}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=int, default=5000, help="ticks a second")
    parser.add_argument("--activity", choices=("steady", "day"), default="steady", help="as replay's")
    parser.add_argument("--market", nargs="*", default=[], help="more flags of market, without their dashes")
    options = parser.parse_args()
    with fresh_stack("latency") as (stack, ends):
        watch = BarWatch(ends.postgres_dsn)
        more = [f"--{flag}" for flag in options.market]
        sender = replay(ends, round(options.minutes * 60), options.rate, options.activity)
        cpu = measure(stack, ends, watch, sender, more)
        raw = [appended(ends.kafka, partition) for partition in range(TOPICS[RAW])]
        waits = {"enriched tick": tick_waits(ends.kafka, raw), "bar in the table": bar_waits(watch.seen, raw)}
    print(f"| {options.rate:,} ticks a second, ms | number | p50 | p95 | p99 | most |\n|---|--:|--:|--:|--:|--:|")
    for name, values in waits.items():
        figures = " | ".join(f"{value:,.0f}" for value in np.percentile(values, [50, 95, 99, 100]))
        print(f"| {name} | {len(values):,} | {figures} |")
    millions = len(waits["enriched tick"]) / 1e6
    print("\nCPU-seconds per million ticks:", *(f"{name} {it / millions:.1f}," for name, it in cpu.items()), end=" ")
    print(f"all {sum(cpu.values()) / millions:.1f}")


if __name__ == "__main__":
    main()
