import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.tick_files import raw_batches_from_file, records_from_file, ticks_from_file
from beam_pipelines.transforms.batches import span_of
from beam_pipelines.transforms.records import partition_of

SHARED = pathlib.Path(__file__).parents[2] / ".." / "shared" / "ticks"
real_ticks = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the recorded ticks in ../shared/ticks")


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [row for batch in ticks_from_file(path) for row in batch.to_pylist()]


def sent(path: pathlib.Path, shift_ms: int = 0) -> list[tuple[int, bytes | None, bytes]]:
    batches = records_from_file(path, shift_ms)
    return [
        row
        for batch in batches
        for row in zip(*(batch[name].to_pylist() for name in ("time", "key", "value")), strict=True)
    ]


@pytest.fixture
def file(tmp_path: pathlib.Path) -> Callable[[str, str], pathlib.Path]:
    def write(name: str, text: str) -> pathlib.Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def lean_zip(folder: pathlib.Path, inner: str, lines: list[str], name: str = "lean.zip") -> pathlib.Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(inner, "".join(f"{line}\n" for line in lines))
    return folder / name


Files = Callable[[str, str], pathlib.Path]


def test_csv_columns_get_their_types_and_empty_cells_are_absent(file: Files) -> None:
    path = file("a.csv", "symbol,timestamp,price,volume,bid,note\nibm,1000,1.50,3,,x\nIBM,2000,2,4,1.25,y\n")
    assert sent(path) == [
        (1000, b"IBM", b'{"symbol":"ibm","timestamp":1000,"price":1.5,"volume":3}'),
        (2000, b"IBM", b'{"symbol":"IBM","timestamp":2000,"price":2.0,"volume":4,"bid":1.25}'),
    ]


def test_what_is_no_number_in_a_csv_file_is_left_for_the_decoder_to_reject(file: Files) -> None:
    path = file("a.csv", "symbol,timestamp,price,volume\nIBM,1970-01-01T00:00:01Z,cheap,3\n,soon,2.5,4\n")
    assert sent(path) == [
        (1000, b"IBM", b'{"symbol":"IBM","timestamp":"1970-01-01T00:00:01Z","price":"cheap","volume":3}'),
        (-1, None, b'{"timestamp":"soon","price":"2.5","volume":4}'),
    ]


def test_lines_of_ndjson_are_sent_byte_for_byte(file: Files) -> None:
    lines = [
        '{"symbol": " ibm", "timestamp": 1000, "x": [1]}',
        "not json",
        '{"symbol":7}',
        '{"timestamp":"1970-01-01T00:00:02"}',
    ]
    path = file("a.ndjson", "\n".join([lines[0], "", *lines[1:]]) + "\n")
    assert sent(path) == [
        (1000, b"IBM", lines[0].encode()),
        (-1, None, lines[1].encode()),
        (-1, None, lines[2].encode()),
        (2000, None, lines[3].encode()),
    ]


def test_parquet_columns_are_read_in_any_width_and_unit(tmp_path: pathlib.Path) -> None:
    table = pa.table(
        {
            "extra": ["x", "y"],
            "timestamp": pa.array([1_500_000, 2_000_000], pa.timestamp("us", "UTC")),
            "price": pa.array(["1.25", "2.50"]).cast(pa.decimal128(10, 4)),
            "volume": pa.array([1, 2], pa.int32()),
            "symbol": pa.array(["A", "B"]).dictionary_encode(),
            "seq": [7, 8],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [
        {"symbol": "A", "timestamp": 1500, "price": 1.25, "volume": 1, "seq": 7},
        {"symbol": "B", "timestamp": 2000, "price": 2.5, "volume": 2, "seq": 8},
    ]


def test_lean_times_follow_new_york_through_winter_and_summer(tmp_path: pathlib.Path) -> None:
    row = "34200000,1815200,283,P,20002020,0"  # 9:30
    summer = rows(lean_zip(tmp_path, "20131007_ibm_Trade_Tick.csv", [row], "summer.zip"))
    winter = rows(lean_zip(tmp_path, "20131205_ibm_Trade_Tick.csv", [row], "winter.zip"))
    assert [summer[0]["timestamp"], winter[0]["timestamp"]] == [1381152600000, 1386253800000]  # 13:30 and 14:30 UTC


def test_lean_quotes_become_ticks_at_the_middle_of_the_latest_sides(tmp_path: pathlib.Path) -> None:
    lines = ["0,0,0,1000000,100,Q,1,0", "1,990000,300,0,0,P,1,0", "2,980000,200,1020000,500,,1,0"]
    found = rows(lean_zip(tmp_path, "20131007_ibm_Quote_Tick.csv", lines))
    assert [row["price"] for row in found] == [100.0, 99.5, 100.0]
    assert [row["bid"] for row in found] == [None, 99.0, 98.0]
    assert [row["ask_size"] for row in found] == [100, None, 500]
    assert [row["source"] for row in found] == ["Q", "P", "lean"]
    assert [row["volume"] for row in found] == [0, 0, 0]


@real_ticks
def test_a_real_trade_day_decodes_as_its_first_rows_say() -> None:
    found = rows(SHARED / "lean_ibm_20131007_trade_tick.zip")
    assert len(found) == 24293
    assert found[0] == {  # 14430270,1815200,283,P: 4:00:30.270 in New York, which is 8:00:30.270 UTC
        "symbol": "IBM",
        "timestamp": 1381132830270,
        "price": 181.52,
        "volume": 283,
        "source": "P",
        "seq": 1,
    }
    assert (found[1]["timestamp"], found[1]["price"], found[1]["volume"]) == (1381132850472, 181.8, 500)


@real_ticks
def test_real_quotes_of_shares_currencies_and_coins_decode() -> None:
    shares = rows(SHARED / "lean_ibm_20131007_quote_tick.zip")
    assert (len(shares), shares[1]["bid"], shares[1]["bid_size"], shares[1]["ask"]) == (109067, 180.01, 300, None)
    currency = rows(SHARED / "lean_eurusd_fxcm_20140501_quote_tick.zip")
    assert (len(currency), currency[0]["timestamp"], currency[0]["price"]) == (51053, 1398920401787, 1.38728)  # UTC-5
    coin = rows(SHARED / "btcusdt-quotes.parquet")[0]
    assert (coin["timestamp"], coin["price"], coin["bid_size"]) == (1610064001076, 39433.305, 310000)


@real_ticks
def test_real_trades_of_a_coin_have_whole_units_for_volumes() -> None:
    found = rows(SHARED / "btcusdt-trades.parquet")[0]
    assert found == {
        "symbol": "BTCUSDT",
        "timestamp": 1610064000278,
        "price": 39432.48,
        "volume": 26300,
        "seq": 553287559,
    }


def test_a_file_as_a_log_is_partitioned_by_symbol_without_kafka_timestamps(file: Files) -> None:
    names = ["AAPL", "IBM", "MSFT", "aapl ", "IBM"]
    path = file("a.csv", "symbol,timestamp,price,volume\n" + "".join(f"{name},1,1,1\n" for name in names))
    found = {}
    for partition, batch in raw_batches_from_file(path, 3):
        span = span_of(batch)
        assert (span.topic, span.first, span.next) == ("a.csv", 0, batch.num_rows)
        assert set(batch["timestamp"].to_pylist()) == {-1}
        found[partition] = [json.loads(value)["symbol"] for value in batch["value"].to_pylist()]
    for partition, symbols in found.items():
        assert symbols == [name for name in names if partition_of(name.strip().upper().encode(), 3) == partition]
    assert sum(map(len, found.values())) == 5


def test_event_times_can_be_shifted_whatever_their_form(file: Files) -> None:
    head = "symbol,timestamp,price,volume\n"
    numbers = file("a.csv", head + "A,1000,1,1\n")
    words = file("b.csv", head + "A,1970-01-01T00:00:01Z,1,1\nA,soon,1,1\n")
    assert [(time, json.loads(value)["timestamp"]) for time, _, value in sent(numbers, 500)] == [(1500, 1500)]
    assert [(time, json.loads(value)["timestamp"]) for time, _, value in sent(words, 500)] == [
        (1500, "1500"),
        (-1, "soon"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.xlsx", "", "unknown suffix '.xlsx'"),
        ("a.csv", "symbol,price\nA,1\n", "lacks the column timestamp: it has symbol, price"),
        ("a.csv", "", "lacks the column symbol: it has none"),
        ("a.csv", "symbol,timestamp,price,volume\nA,1\n", "Expected 4 columns, got 2"),
        ("a.parquet", "not parquet", "cannot be read"),
        ("a.zip", "not a zip", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_sentence(file: Files, name: str, text: str, complaint: str) -> None:
    path = file(name, text)
    with pytest.raises(UsageError, match=complaint) as told:
        list(records_from_file(path))
    assert str(path) in str(told.value)


def test_a_missing_file_is_told_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        records_from_file(tmp_path / "a.csv")


def test_a_lean_zip_of_bars_is_refused(tmp_path: pathlib.Path) -> None:
    path = lean_zip(tmp_path, "20140609_aapl_minute_trade.csv", ["14400000,1,1,1,1,1"])
    with pytest.raises(UsageError, match=r"is not a Lean tick zip: it holds 20140609_aapl_minute_trade\.csv"):
        rows(path)


def test_lines_cannot_be_shifted(file: Files) -> None:
    with pytest.raises(UsageError, match="cannot be restamped"):
        records_from_file(file("a.jsonl", "{}\n"), 1)


def test_articles_are_keyed_by_id_as_the_decoder_reads_it(tmp_path):
    path = tmp_path / "articles.ndjson"
    path.write_text('{"id":42,"published_at":7}\n{"id":" 42 ","published_at":"1970-01-01T00:00:01Z"}\n{"id":"a b"}\n')
    (batch,) = records_from_file(path)
    assert batch["key"].to_pylist() == [b"42", b"42", b"a b"]
    assert batch["time"].to_pylist() == [7, 1000, -1]
