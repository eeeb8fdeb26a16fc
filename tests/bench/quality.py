"""What data quality costs, by Great Expectations and by kernels: `python -m tests.bench.quality`.

CPU of a check of simulated ticks by the packaged market suite, one thread; time and memory of the first check of a
process, which imports Great Expectations; and what each part of a check takes.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pyarrow as pa

from beam_pipelines.session import Session
from beam_pipelines.simulate import raw_batches
from beam_pipelines.transforms import quality
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.batches import Span, with_span
from beam_pipelines.transforms.enrich import Step, judge_step, take_step
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.quality import check, data_docs, validate
from beam_pipelines.transforms.quality_kernels import judge
from beam_pipelines.transforms.quality_minutes import Minutes, QualityRules
from beam_pipelines.transforms.quality_result import Window
from beam_pipelines.transforms.quality_suites import expectations_of, parameters_of, read_suites
from beam_pipelines.transforms.ticks import decode

ROWS, REPETITIONS = (100, 1_000, 10_000), 20
TICKS, POLLS = 600_000, ((10_000, 40_000), (1_000, 20_000), (250, 2_500))
FORMATS: list[Any] = ["BOOLEAN_ONLY", "BASIC", "SUMMARY", "COMPLETE"]


def sample(rows: int) -> pa.Table:
    session = Session(ticks=rows, symbols=100, duration_ms=60_000)
    batches = [decode(raw).ticks.replace_schema_metadata(None) for _, raw in raw_batches(session, 1)]
    return pa.Table.from_batches(batches).unify_dictionaries()


def cpu_ms(work: Callable[[], Any]) -> str:
    """Median, least and most CPU of repeated work."""
    spent = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) * 1e3)
    return f"{statistics.median(spent):.2f} | {min(spent):.2f}-{max(spent):.2f}"


def first_use() -> None:
    process, samples = psutil.Process(), sample(100)
    before, began, began_cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    suites = read_suites()
    read, read_cpu, loaded = time.perf_counter(), time.process_time(), process.memory_info().rss
    check(suites["market"], samples, Window(0, 4_000_000_000_000))
    print("| once a process | s | CPU-s | RSS before, MB | after, MB |\n|---|--:|--:|--:|--:|")
    row = f"{read - began:.1f} | {read_cpu - began_cpu:.1f} | {before / 1e6:.0f} | {loaded / 1e6:.0f}"
    print(f"| read the packaged suites | {row} |")
    after, took, took_cpu = process.memory_info().rss, time.perf_counter() - read, time.process_time() - read_cpu
    row = f"{took:.1f} | {took_cpu:.1f} | {loaded / 1e6:.0f} | {after / 1e6:.0f}"
    print(f"| first check, which imports Great Expectations | {row} |\n")


def of_the_stream() -> None:
    """What a stream pays, by how many ticks a poll brings and how many come a second; the state's bytes besides."""
    print("| ticks that a poll brings | CPU-s per million | bytes of state a tick |\n|--:|--:|--:|")
    for poll, rate in POLLS:
        steps = list(steps_of(poll, rate))
        spent, written = min(counted(steps) for _ in range(5))
        print(f"| {poll:,} | {spent / TICKS * 1e6:.2f} | {written / TICKS:.0f} |", flush=True)


def steps_of(poll: int, rate: int) -> Iterator[Step]:
    session = Session(ticks=TICKS, symbols=500, duration_ms=TICKS * 1000 // rate)
    state, first = PartitionState(60_000), 0
    for _, whole in raw_batches(session, 1):
        for begin in range(0, len(whole), poll):
            raw = whole.slice(begin, poll)
            yield take_step(state, with_span(raw, Span("t", 0, first, first + len(raw))), Semantics())
            first += len(raw)


def counted(steps: list[Step]) -> tuple[float, int]:
    """CPU-seconds, and bytes that were written."""
    minutes, written, began = Minutes(QualityRules(read_suites()["market"]), 0), 0, time.process_time()
    for step in steps:
        judge_step(minutes, step)
        counts, held = minutes.unsaved()
        written += len(counts or b"") + sum(map(len, held))
    return time.process_time() - began, written


def main() -> None:
    first_use()
    market, window = read_suites()["market"], Window(0, 4_000_000_000_000)
    print("| check of the market suite | CPU ms | least-most |\n|---|--:|--:|")
    for rows in ROWS:
        ticks = sample(rows)
        print(f"| {rows:,} rows | {cpu_ms(lambda ticks=ticks: check(market, ticks, window))} |", flush=True)
        (batch,) = ticks.combine_chunks().to_batches()
        print(f"| the same by kernels | {cpu_ms(lambda batch=batch: judge(market, batch, window))} |", flush=True)
    ticks = sample(1_000)
    frame = quality._frame(ticks)
    batch = quality._whole_frame().get_batch(batch_parameters={"dataframe": frame})
    expectations, parameters = expectations_of(market), parameters_of(*window)
    print("\n| of 1,000 rows | CPU ms | least-most |\n|---|--:|--:|")
    print(f"| rows to pandas | {cpu_ms(lambda: quality._frame(ticks))} |")
    for form in FORMATS:
        took = cpu_ms(
            lambda form=form: batch.validate(expectations, result_format=form, expectation_parameters=parameters)
        )
        print(f"| GX alone, {form} | {took} |", flush=True)
    validation = validate(market, ticks, window)
    print(f"| a page of data docs | {cpu_ms(lambda: data_docs([validation]))} |")
    print()
    of_the_stream()


if __name__ == "__main__":
    main()
