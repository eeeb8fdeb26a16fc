"""What data quality costs, by Great Expectations and by kernels: `python -m tests.bench.quality`.

CPU of a check of simulated ticks by the packaged market suite, one thread; time and memory of the first check of a
process, which imports Great Expectations; and what each part of a check takes.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import psutil
import pyarrow as pa

from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms import quality
from beam_pipelines.transforms.quality import check, data_docs, validate
from beam_pipelines.transforms.quality_kernels import judge
from beam_pipelines.transforms.quality_result import Window
from beam_pipelines.transforms.quality_suites import expectations_of, parameters_of, read_suites
from beam_pipelines.transforms.ticks import decode

ROWS, REPETITIONS = (100, 1_000, 10_000), 20
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


if __name__ == "__main__":
    main()
