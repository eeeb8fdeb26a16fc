"""Memory of the streaming job while it polls and checkpoints: `python -m tests.bench.memory --minutes 18`.

Samples the TaskManager's live heap (after a collection that is asked for), its resident memory and that of the Python
workers, at a steady rate of ticks, checkpoints every 5 s on RocksDB; and how many ticks the job is behind by its
committed offsets, for a job that falls behind holds larger batches.  Needs a JDK's jcmd and jstat.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import confluent_kafka as ck
import psutil

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.runners.jobs import launched
from beam_pipelines.runners.local import Stack
from beam_pipelines.stack import TOPICS
from tests.bench.live import fresh_stack, market, replay

EVERY_S = 20
RAW = "market-data-raw"
Sample = dict[str, float]  # MB by name, and how far behind


def behind(consumer: ck.Consumer, topic: str, partitions: int) -> int:
    """Records of the topic beyond the offsets that the job has committed, every 5 s."""
    committed = consumer.committed([ck.TopicPartition(topic, number) for number in range(partitions)], timeout=10)
    ends = [consumer.get_watermark_offsets(ck.TopicPartition(topic, number)) for number in range(partitions)]
    return sum(high - max(at.offset, low) for at, (low, high) in zip(committed, ends, strict=True))


def samples(stack: Stack, minutes: int) -> Iterator[Sample]:
    task_manager, workers = stack.task_manager.process, stack.worker_pool.process
    assert task_manager is not None
    assert workers is not None
    consumer = KafkaConfig(stack.endpoints.kafka).consumer()
    for _ in range(minutes * 60 // EVERY_S):
        time.sleep(EVERY_S)
        subprocess.run(["jcmd", str(task_manager.pid), "GC.run"], check=True, capture_output=True)
        table = subprocess.run(
            ["jstat", "-gc", str(task_manager.pid)], check=True, capture_output=True, text=True
        ).stdout
        names, values = (line.split() for line in table.splitlines()[:2])
        heap = dict(zip(names, values, strict=True))  # "-" for what a collector has not
        children = psutil.Process(workers.pid).children(recursive=True)
        sample = {
            "TaskManager, live heap": sum(float(heap[part]) for part in ("EU", "OU", "S0U", "S1U")) / 1024,
            "TaskManager, resident": psutil.Process(task_manager.pid).memory_info().rss / 1e6,
            "Python workers, resident": sum(child.memory_info().rss for child in children) / 1e6,
            "thousand ticks behind": behind(consumer, RAW, TOPICS[RAW]) / 1e3,
        }
        print(*(f"{megabytes:.0f}" for megabytes in sample.values()), file=sys.stderr, flush=True)
        yield sample


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=int, default=18)
    parser.add_argument("--rate", type=int, default=500, help="ticks a second")
    parser.add_argument("--market", nargs="*", default=[], help="more flags of market, without their dashes")
    options = parser.parse_args()
    more = ["--checkpointing_interval=5000", *(f"--{flag}" for flag in options.market)]
    with (
        fresh_stack("memory") as (stack, ends),
        launched(market(ends, *more), ends.flink_rest, "memory", stack.state_dir / "market.log"),
        subprocess.Popen(replay(ends, 60 * options.minutes + 60, options.rate), stderr=subprocess.DEVNULL) as sender,
    ):
        try:
            taken = list(samples(stack, options.minutes))
        finally:
            sender.terminate()
    third = len(taken) // 3
    print("| MB and ticks, median | first third | second | last |\n|---|--:|--:|--:|")
    for name in taken[0]:
        parts = [[sample[name] for sample in taken[i * third : (i + 1) * third]] for i in range(3)]
        print(f"| {name} | " + " | ".join(f"{statistics.median(part):.0f}" for part in parts) + " |")


if __name__ == "__main__":
    main()
