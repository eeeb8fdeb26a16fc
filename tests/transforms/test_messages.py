"""Messages of market-data-processed, as any JSON parser reads them."""

import datetime
import json

import pyarrow as pa

from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.advance import Semantics, advance
from beam_pipelines.transforms.messages import processed_messages
from beam_pipelines.transforms.partition_state import PartitionState
from beam_pipelines.transforms.ticks import decode

SEMANTICS = Semantics()
INDICATORS = ("sma_20", "sma_50", "rsi", "bollinger_upper", "bollinger_lower")
PRICES = ("price", "bid", "ask", *INDICATORS)
AS_THEY_ARE = ("symbol", "timestamp", "volume", "bid_size", "ask_size", "source", "seq", "late")


def enriched() -> list[pa.RecordBatch]:
    """Ticks of two symbols, of which the first have no indicators yet."""
    state = PartitionState(SEMANTICS.bar_ms)
    log = raw_batches(Session(ticks=400, symbols=2, duration_ms=3_600_000), 1)
    return [advance(state, decode(raw).ticks, SEMANTICS).ticks for _, raw in log]


def expected(row: dict) -> dict:
    at = datetime.datetime.fromtimestamp(row["processed_at"] / 1000, datetime.UTC)
    return {
        **{name: row[name] for name in AS_THEY_ARE},
        **{name: None if row[name] is None or row[name] != row[name] else round(row[name], 8) for name in PRICES},
        "processed_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "pipeline_version": "1.0",
    }


def test_a_message_has_the_fields_of_its_tick_and_says_where_it_comes_from():
    batches = enriched()
    rows = [row for ticks in batches for row in ticks.to_pylist()]
    messages = [message for ticks in batches for message in processed_messages(ticks).to_pylist()]
    assert {row["sma_20"] is None or row["sma_20"] != row["sma_20"] for row in rows} == {True, False}
    assert [json.loads(message["value"]) for message in messages] == [expected(row) for row in rows]
    for row, message in zip(rows, messages, strict=True):
        assert message["key"] == row["symbol"].encode()
        assert (message["partition"], message["offset"]) == (row["partition"], row["offset"])


def test_the_bytes_of_a_message_are_fixed():
    tick = next(ticks for ticks in enriched() if len(ticks)).slice(0, 1)
    columns = {name: tick[name] for name in tick.schema.names}
    columns |= {"price": pa.array([285.0]), "bid": pa.array([0.1 + 0.2]), "ask": pa.array([None], pa.float64())}
    columns |= {"timestamp": pa.array([1_704_204_300_005]), "processed_at": pa.array([1_704_204_301_000])}
    columns |= {"symbol": pa.array(['A"B']).dictionary_encode(), "source": pa.array(["XNAS"]).dictionary_encode()}
    columns |= {"volume": pa.array([7]), "seq": pa.array([1]), "late": pa.array([True])}
    columns |= {"bid_size": pa.nulls(1, pa.int64()), "ask_size": pa.array([0])}
    (message,) = processed_messages(pa.record_batch(columns)).to_pylist()
    assert message["value"].decode() == (
        '{"symbol":"A\\"B","timestamp":1704204300005,"price":285.0,"volume":7,"bid":0.3,"ask":null,"bid_size":null,'
        '"ask_size":0,"sma_20":null,"sma_50":null,"rsi":null,"bollinger_upper":null,"bollinger_lower":null,'
        '"processed_at":"2024-01-02T14:05:01.000Z","pipeline_version":"1.0","source":"XNAS","seq":1,"late":true}'
    )
