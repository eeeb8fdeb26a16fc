"""The bounded driver refuses a log whose symbols have no order, before anything comes out of it."""

import json

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_pipelines import market
from beam_pipelines.errors import mistake_in
from beam_pipelines.runners.defaults import DIRECT_RUNNER
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.batches import RAW, Span, with_span
from beam_pipelines.transforms.enrich import EnrichTicks

TIME = 1_736_173_800_000


def batch_of(partition: int, records: list[object], first: int = 0) -> tuple[int, pa.RecordBatch]:
    values = [json.dumps(record).encode() for record in records]
    offsets = list(range(first, first + len(records)))
    arrays = [pa.array(offsets), pa.array([TIME] * len(records)), pa.nulls(len(records), pa.binary()), pa.array(values)]
    raw = pa.RecordBatch.from_arrays(arrays, schema=RAW)
    return partition, with_span(raw, Span("raw", partition, first, first + len(records)))


def tick(symbol: str, **more: object) -> dict[str, object]:
    return {"symbol": symbol, "timestamp": TIME, "price": 1, "volume": 1, **more}


def run(batches: list[tuple[int, pa.RecordBatch]], ticks: int) -> None:
    with beam.Pipeline(DIRECT_RUNNER) as pipeline:
        outputs = pipeline | market.ReadBatches(lambda: batches) | EnrichTicks(Semantics())
        assert_that(outputs.ticks | beam.Map(len) | beam.CombineGlobally(sum), equal_to([ticks]))


def test_a_symbol_in_two_partitions_is_named_with_both_and_the_cure():
    batches = [
        batch_of(0, [tick("IBM"), tick("AAPL")]),
        batch_of(0, [tick("AAPL")], first=2),
        batch_of(2, [tick("MSFT"), tick(" ibm ")]),
    ]
    with pytest.raises(Exception, match="symbol IBM") as failed:
        run(batches, 5)
    assert str(mistake_in(failed.value)) == (
        "symbol IBM is in partitions 0 and 2 of topic raw, so its ticks have no order: have the topic written with the "
        "symbol as key, or read a copy of it with --repartition"
    )


def test_records_that_are_no_ticks_may_be_anywhere():
    bad = [tick("IBM", price=-1), tick("IBM", timestamp=TIME + 100_000), "IBM"]
    run([batch_of(0, [tick("IBM"), *bad]), batch_of(1, [tick("AAPL"), *bad])], 2)


def test_other_failures_are_not_taken_for_the_users():
    assert mistake_in(ValueError("no such thing")) is None
