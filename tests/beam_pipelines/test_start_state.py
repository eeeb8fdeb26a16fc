"""A job that begins with the closing state of a day gives the rows of one that has run since the day before."""

import datetime
import itertools
import json
import pathlib

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from beam_pipelines import ledger, market
from beam_pipelines.io.lake_objects import MARKET_DATA
from beam_pipelines.io.lake_state import find_closing_state, write_closing_state
from beam_pipelines.io.objects import objects_in
from beam_pipelines.runners.defaults import DIRECT_RUNNER
from beam_pipelines.simulate import Session, records
from beam_pipelines.transforms.advance import Semantics, advance
from beam_pipelines.transforms.batches import span_of
from beam_pipelines.transforms.closing_state import DAY_MS, NOTHING, ClosingState
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.records import raw_batches
from beam_pipelines.transforms.ticks import decode

DAY = datetime.date(2025, 1, 6)
UNTIL = 1_736_208_000_000  # the end of DAY
FIRST = Session(seed=3, symbols=8, ticks=6_000)
SECOND = Session(seed=4, symbols=10, ticks=6_000, start_ms=FIRST.start_ms + DAY_MS, late=0.01, too_late=0.002)
SEMANTICS = Semantics()


def log(*days: Session, partitions: int) -> list[tuple[int, pa.RecordBatch]]:
    return list(raw_batches(itertools.chain.from_iterable(map(records, days)), "days", partitions))


def closing_state() -> ClosingState:
    """Of the first day, over partitions of its own."""
    states: dict[int, PartitionState] = {}
    for partition, raw in log(FIRST, partitions=3):
        state = states.setdefault(partition, PartitionState(SEMANTICS.bar_ms))
        advance(state, decode(raw).ticks, SEMANTICS)
    return NOTHING.followed_by(UNTIL, [state.closing(UNTIL) for state in states.values()])


def bars(rows: ledger.Rows) -> list[tuple[object, ...]]:
    """Rows of market_bars_ts of the second day."""
    return sorted(row for row in rows.values() if row[1] >= UNTIL)


@pytest.fixture
def lake(tmp_path: pathlib.Path) -> str:
    root = str(tmp_path / "lake")
    write_closing_state(objects_in(root), DAY, closing_state(), SEMANTICS.bar_ms)
    return root


def test_a_bounded_run_gives_the_rows_of_both_days_in_one(lake):
    whole = ledger.expected_of((raw for _, raw in log(FIRST, SECOND, partitions=2)), SEMANTICS)
    expected = bars(whole.table_bars)
    assert len(expected) > 1_000

    def equal_to_both_days(found: list[pa.RecordBatch]) -> None:
        rows = {key: row for batch in found for key, row in ledger.table_rows(batch, ledger.MARKET_BARS)}
        assert bars(rows) == expected

    prior = find_closing_state(objects_in(lake), "2025-01-06", SEMANTICS.bar_ms)
    second = log(SECOND, partitions=2)
    with beam.Pipeline(DIRECT_RUNNER) as pipeline:
        source = market.Source(market.ReadBatches(lambda: second))
        outputs = market.build(pipeline, source, SEMANTICS, market.Sinks(MARKET_DATA), prior)
        assert_that(outputs.bars, equal_to_both_days)
        assert {span_of(raw).partition for _, raw in second} == {0, 1}


def test_the_program_begins_with_it_and_counts_what_it_holds(lake, capsys, tmp_path):
    ticks = [
        {"symbol": "AAPL", "timestamp": UNTIL + ms, "price": 200, "volume": 1} for ms in (-70_000, -1, 0, 1, 90_000, -1)
    ]
    path = tmp_path / "ticks.ndjson"
    path.write_text("\n".join(map(json.dumps, ticks)))
    assert market.main([f"--input={path}", f"--lake={lake}", "--start_state=latest"]) == 0
    shown = capsys.readouterr().out
    cells = dict([cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line)
    assert cells["ticks of days closed before, dropped"] == "2"
    assert (cells["enriched ticks"], cells["too_late"]) == ("3", "1")
