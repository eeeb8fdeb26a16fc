"""CPU-seconds per million ticks of each kernel, beside the plain Python that people write for the same: `make bench`.

One process, one thread, a simulated session of 500 symbols in 8 partitions, batches of 10,000 records of 150 B; five
repetitions, median and spread.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from beam_pipelines.io.pgcopy import binary_copy
from beam_pipelines.io.tables import MARKET_DATA
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.advance import Semantics, advance
from beam_pipelines.transforms.anomalies import tick_anomalies
from beam_pipelines.transforms.batches import from_bytes, joined, span_of, to_bytes
from beam_pipelines.transforms.enrich import Step, judge_step, take_step
from beam_pipelines.transforms.messages import processed_messages
from beam_pipelines.transforms.monitor import PipelineMonitor
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.quality_minutes import Minutes, QualityRules
from beam_pipelines.transforms.quality_suites import read_suites
from beam_pipelines.transforms.ticks import decode
from beam_pipelines.transforms.usual import Usual

TICKS, SYMBOLS, PARTITIONS, REPETITIONS = 400_000, 500, 8, 5
SEMANTICS = Semantics()


class States(dict[int, PartitionState]):
    """A fresh state for each partition."""

    def __missing__(self, partition: int) -> PartitionState:
        self[partition] = PartitionState(SEMANTICS.bar_ms)
        return self[partition]


def log(**shares: float) -> list[pa.RecordBatch]:
    session = Session(ticks=TICKS, symbols=SYMBOLS, duration_ms=600_000, **shares)  # type: ignore[arg-type]
    return [raw for _, raw in raw_batches(session, PARTITIONS)]


def json_loads(batches: Iterable[pa.RecordBatch]) -> None:
    """What a script would do: json.loads of every record, and nothing more."""
    for raw in batches:
        for value in raw["value"].to_pylist():
            json.loads(value)


def decode_all(batches: Iterable[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [decode(raw).ticks for raw in batches]


def advance_all(decoded: Iterable[pa.RecordBatch], states: States) -> list[pa.RecordBatch]:
    return [advance(states[span_of(ticks).partition], ticks, SEMANTICS).ticks for ticks in decoded]


def steps(batches: Iterable[pa.RecordBatch], states: States) -> None:
    """All that the stateful stage does but Beam's own work: decode, advance, encode the state that changed."""
    for raw in batches:
        state = states[span_of(raw).partition]
        take_step(state, raw, SEMANTICS)
        state.encode_open()


def without_anomalies(decoded: Iterable[pa.RecordBatch]) -> None:
    """As `advance_all`, but nobody looks for what is odd."""
    nothing = tick_anomalies(Usual.empty(0, SEMANTICS.bar_ms), *_no_ticks())
    ticks = mock.patch("beam_pipelines.transforms.advance.tick_anomalies", return_value=nothing)
    bars = mock.patch("beam_pipelines.transforms.partition_state.bar_anomalies", return_value=nothing)
    with ticks, bars:
        advance_all(decoded, States())


def _no_ticks() -> list[np.ndarray]:
    return [np.empty(0, kind) for kind in (np.int64, np.int64, float, float, float, np.uint8)]


def taken(batches: Iterable[pa.RecordBatch]) -> list[tuple[int, Step]]:
    states = States()
    return [(span_of(raw).partition, take_step(states[span_of(raw).partition], raw, SEMANTICS)) for raw in batches]


def judge(steps: Iterable[tuple[int, Step]]) -> None:
    """Samples, checks and scores of each minute, and their state to bytes with each batch."""
    minutes = {partition: Minutes(QualityRules(read_suites()["market"]), partition) for partition in range(PARTITIONS)}
    for partition, step in steps:
        judge_step(minutes[partition], step)
        minutes[partition].unsaved()


def tell(batches: Iterable[pa.RecordBatch]) -> None:
    """What the stage and three sinks tell of a batch."""
    monitor, statuses = PipelineMonitor("market"), dict.fromkeys(("success", "duplicate", "dead_letter"), 1)
    for number, raw in enumerate(batches):
        partition = span_of(raw).partition
        monitor.publish_totals("market-data-raw", partition, statuses, {"bad_value": number}, number, number)
        monitor.record_processing_time("enrich", 0.01)
        monitor.record_end_to_end_latency("enrich", 0.1, len(raw))
        monitor.update_last_record("market-data-raw", number)
        monitor.update_watermark_lag(partition, number)
        monitor.update_queue_depth("market-data-raw/0", number)
        for sink in ("timescale market_data_ts", "kafka market-data-processed", "lake market-data"):
            monitor.record_batch(sink, len(raw))


def copy_rows(flushes: Iterable[pa.RecordBatch]) -> None:
    """As rows for COPY, without a server."""
    for rows in flushes:
        for _ in binary_copy(MARKET_DATA.values(MARKET_DATA.clustered(rows)))[1]:
            pass


def carry(batches: Iterable[pa.RecordBatch]) -> None:
    """Through the coder and back, as between two stages."""
    for raw in batches:
        from_bytes(to_bytes(raw))


def measure(work: Callable[[], Any], ticks: int) -> tuple[float, float, float]:
    """Median, least and most CPU-seconds per million ticks."""
    spent = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) / ticks * 1e6)
    return statistics.median(spent), min(spent), max(spent)


def main() -> None:
    clean, bad = log(), log(bad=0.01)
    late = log(late=0.01, too_late=0.001)
    records = {"clean": clean, "1 % bad": bad, "1 % late": late}
    counts = {name: sum(map(len, batches)) for name, batches in records.items()}
    decoded = decode_all(clean)
    decoded_late = decode_all(late)
    enriched, stepped = advance_all(decoded, States()), taken(clean)
    together = joined(enriched)
    flushes = [together.slice(start, 50_000) for start in range(0, len(together), 50_000)]
    rows: list[tuple[str, Callable[[], Any], int]] = [
        ("json.loads of each record, for comparison", lambda: json_loads(clean), counts["clean"]),
        ("decode and validate", lambda: decode_all(clean), counts["clean"]),
        ("decode and validate, 1 % bad records", lambda: decode_all(bad), counts["1 % bad"]),
        ("advance: bars, indicators, duplicates", lambda: advance_all(decoded, States()), counts["clean"]),
        ("advance, 1 % late ticks", lambda: advance_all(decoded_late, States()), counts["1 % late"]),
        ("advance, clean, without anomalies", lambda: without_anomalies(decoded), counts["clean"]),
        ("quality of minutes, and its state to bytes", lambda: judge(stepped), counts["clean"]),
        ("metrics", lambda: tell(clean), counts["clean"]),
        ("decode + advance + state to bytes", lambda: steps(clean, States()), counts["clean"]),
        ("enriched ticks as JSON messages", lambda: [processed_messages(t) for t in enriched], counts["clean"]),
        ("enriched ticks as rows for PostgreSQL, 50,000 in a flush", lambda: copy_rows(flushes), counts["clean"]),
        ("raw batches through the coder and back", lambda: carry(clean), counts["clean"]),
    ]
    print("| kernel | CPU-s per million | least-most |\n|---|--:|--:|")
    for name, work, count in rows:
        median, least, most = measure(work, count)
        print(f"| {name} | {median:.2f} | {least:.2f}-{most:.2f} |", flush=True)


if __name__ == "__main__":
    main()
