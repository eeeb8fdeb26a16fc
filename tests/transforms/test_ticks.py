"""Decoding says of every record what DESIGN.md says, by either path, in any batching, for any bytes."""

import itertools
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.bad_records import BAD_RECORDS
from beam_pipelines.transforms import ticks as kernel
from beam_pipelines.transforms.batches import RAW, TICKS, Span, span_of, with_span
from beam_pipelines.transforms.ticks import Decoded, decode
from tests.transforms import tick_oracle

LOG_TIME = 1_760_000_000_000
FIRST = 5_000
TICK = {
    "symbol": "AAPL", "timestamp": LOG_TIME - 5, "price": 189.5, "volume": 100, "bid": 189.4, "ask": 189.6,
    "bid_size": 3, "ask_size": 4, "seq": 77, "source": "sim", "updates": 7,
}  # fmt: skip
ABSENT = object()


def record(**fields) -> bytes:
    kept = {name: value for name, value in {**TICK, **fields}.items() if value is not ABSENT}
    return json.dumps(kept, separators=(",", ":")).encode()


def with_literal(field: str, literal: str) -> bytes:
    return record(**{field: "@"}).replace(b'"@"', literal.encode("utf-8", "surrogatepass"))


def raw(values, first=FIRST, log_times=None) -> pa.RecordBatch:
    count = len(values)
    columns = [range(first, first + count), log_times or [LOG_TIME] * count, [None] * count, values]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.record_batch(arrays, schema=RAW), Span("market-data-raw", 3, first, first + count))


def by_record(batch: pa.RecordBatch, max_future_ms: int = 60_000) -> Decoded:
    """`decode` without its fast path."""
    return kernel._settled(batch, max_future_ms, [None] * len(batch))


def rows_of(decoded: Decoded) -> list:
    ticks = [tuple(tick.items()) for tick in decoded.ticks.to_pylist()]
    return [ticks, [list(map(str, part)) for part in decoded.rejects]]


def only(value, log_time=LOG_TIME) -> tuple:
    """(row, None) or (None, (reason, detail)) of one record, by both paths, alone and among good ones."""
    batch = raw([value], log_times=[log_time])
    decoded = decode(batch)
    assert rows_of(decoded) == rows_of(by_record(batch))
    among = decode(raw([record(), value, record()], FIRST - 1, [LOG_TIME, log_time, LOG_TIME]))
    among_rows = [tick for tick in among.ticks.to_pylist() if tick["offset"] == FIRST]
    assert among_rows == decoded.ticks.to_pylist()
    assert among.rejects[1:] == decoded.rejects[1:]
    if decoded.rejects.reasons:
        assert not len(decoded.ticks)
        return None, (decoded.rejects.reasons[0], decoded.rejects.details[0])
    return decoded.ticks.to_pylist()[0], None


NUL = "\\u0000"
GOOD = [
    ("symbol", '"aapl"', "AAPL"),
    ("symbol", '" brk.b\\t"', "BRK.B"),
    ("symbol", '"\\u00e9"', "É"),
    ("symbol", '"\\ud83d\\ude00"', "\U0001f600"),
    ("symbol", '"' + "A" * 20 + '"', "A" * 20),
    ("symbol", '"  ' + "A" * 20 + '  "', "A" * 20),
    ("timestamp", "0", 0),
    ("timestamp", "1700000000000.0", 1_700_000_000_000),
    ("timestamp", "1.7e12", 1_700_000_000_000),
    ("timestamp", '"1700000000000"', 1_700_000_000_000),
    ("timestamp", '"2023-11-14T22:13:20Z"', 1_700_000_000_000),
    ("timestamp", '"2023-11-14T22:13:20"', 1_700_000_000_000),
    ("timestamp", '"2023-11-14 22:13:20"', 1_700_000_000_000),
    ("timestamp", '" 2023-11-14T22:13:20Z "', 1_700_000_000_000),
    ("timestamp", '"2023-11-14T22:13:20.1239Z"', 1_700_000_000_123),
    ("timestamp", '"2023-11-14T22:13:20,5Z"', 1_700_000_000_500),
    ("timestamp", '"2023-11-14T22:13:20.123456789Z"', 1_700_000_000_123),
    ("timestamp", '"2023-11-14T22:13:20.12345678901234567890Z"', 1_700_000_000_123),
    ("timestamp", '"2023-11-15T03:43:20+05:30"', 1_700_000_000_000),
    ("timestamp", '"2023-11-15T03:43:20+0530"', 1_700_000_000_000),
    ("timestamp", '"2023-11-14T14:13:20-08"', 1_700_000_000_000),
    ("timestamp", '"2023-11-14T22:13Z"', 1_699_999_980_000),
    ("timestamp", '"2023-11-14T22Z"', 1_699_999_200_000),
    ("timestamp", '"2023-11-14"', 1_699_920_000_000),
    ("timestamp", '"1970-01-01T00:00:00.0009Z"', 0),
    ("price", "1", 1.0),
    ("price", '"1.5"', 1.5),
    ("price", '" 1.5e1 "', 15.0),
    ("price", "1e-320", 1e-320),
    ("price", "123456789012345678901234567890", 123456789012345678901234567890.0),
    ("price", "1" + "0" * 308, 1e308),
    ("volume", "0", 0),
    ("volume", "-0", 0),
    ("volume", "100.0", 100),
    ("volume", "1e3", 1000),
    ("volume", '"1e3"', 1000),
    ("volume", '"100"', 100),
    ("volume", "9007199254740993", 2**53 + 1),
    ("volume", "9223372036854775807", 2**63 - 1),
    ("bid", "0", 0.0),
    ("bid", "null", None),
    ("ask", '"2"', 2.0),
    ("bid_size", "0", 0),
    ("ask_size", "null", None),
    ("seq", "-9223372036854775808", -(2**63)),
    ("seq", "9223372036854775807", 2**63 - 1),
    ("seq", '"12"', 12),
    ("seq", "null", FIRST),
    ("source", "null", "unknown"),
    ("source", '""', "unknown"),
    ("source", '" \\n "', "unknown"),
    ("source", '" Sim "', "Sim"),
    ("source", '"' + "x" * 100 + '"', "x" * 100),
    ("updates", "0", 0),
    ("updates", '"5"', 5),
    ("updates", "7.0", 7),
    ("updates", "null", 7),
]  # fmt: skip
BAD = [
    ("symbol", "null", "missing_field"),
    ("symbol", "7", "bad_type"),
    ("symbol", "true", "bad_type"),
    ("symbol", '["AAPL"]', "bad_type"),
    ("symbol", '""', "bad_value"),
    ("symbol", '" \\t "', "bad_value"),
    ("symbol", '"A\\u0000B"', "bad_value"),
    ("symbol", '"A\\u009fB"', "bad_value"),
    ("symbol", '"A\\nB"', "bad_value"),
    ("symbol", '"' + "A" * 21 + '"', "bad_value"),
    ("symbol", '"' + "\u00df" * 11 + '"', "bad_value"),  # SS each, upper-cased
    ("symbol", '"\\ud800"', "not_json"),
    ("timestamp", "null", "missing_field"),
    ("timestamp", "true", "bad_type"),
    ("timestamp", '{"seconds":1}', "bad_type"),
    ("timestamp", "-1", "bad_timestamp"),
    ("timestamp", "1.5", "bad_timestamp"),
    ("timestamp", "253402300800000", "bad_timestamp"),
    ("timestamp", "1e400", "bad_timestamp"),
    ("timestamp", '""', "bad_timestamp"),
    ("timestamp", '"yesterday"', "bad_timestamp"),
    ("timestamp", '"1969-12-31T23:59:59.9999Z"', "bad_timestamp"),
    ("timestamp", '"1970-01-01T00:00:00+00:01"', "bad_timestamp"),
    ("timestamp", '"2023-13-01T00:00:00Z"', "bad_timestamp"),
    ("timestamp", '"2023-02-29T00:00:00Z"', "bad_timestamp"),
    ("timestamp", '"2023-11-14T24:00:00Z"', "bad_timestamp"),
    ("timestamp", '"2023-11-14T23:59:60Z"', "bad_timestamp"),
    ("timestamp", '"2023-11-14T22:13:20+24:00"', "bad_timestamp"),
    ("timestamp", '"2023-11-14T22:13:20+05:60"', "bad_timestamp"),
    ("timestamp", '"2023-11-14t22:13:20z"', "bad_timestamp"),
    ("timestamp", '"20231114T221320Z"', "bad_timestamp"),
    ("timestamp", '"0000-01-01T00:00:00Z"', "bad_timestamp"),
    ("timestamp", '"9999-12-31T23:59:59-00:01"', "bad_timestamp"),
    ("timestamp", '"9999-12-31T23:59:59.999Z"', "future_timestamp"),
    ("timestamp", "253402300799999", "future_timestamp"),
    ("timestamp", str(LOG_TIME + 60_001), "future_timestamp"),
    ("price", "null", "missing_field"),
    ("price", "false", "bad_type"),
    ("price", "[1]", "bad_type"),
    ("price", "NaN", "not_json"),
    ("price", "Infinity", "not_json"),
    ("price", '"NaN"', "bad_value"),
    ("price", '"inf"', "bad_value"),
    ("price", "0", "bad_value"),
    ("price", "-0.0", "bad_value"),
    ("price", "-1", "bad_value"),
    ("price", "1e400", "bad_value"),
    ("price", "1e-400", "bad_value"),
    ("price", "1" + "0" * 309, "bad_value"),
    ("price", "1" * 5000, "bad_value"),
    ("price", '""', "bad_value"),
    ("price", '"abc"', "bad_value"),
    ("price", '"1_000"', "bad_value"),
    ("price", '"1,000"', "bad_value"),
    ("price", '"0x10"', "bad_value"),
    ("price", '"+1"', "bad_value"),
    ("price", '".5"', "bad_value"),
    ("price", '"5."', "bad_value"),
    ("price", '"01"', "bad_value"),
    ("price", '"1 2"', "bad_value"),
    ("price", '"\\u0661"', "bad_value"),  # an Arabic one
    ("price", '"true"', "bad_value"),
    ("price", '"null"', "bad_value"),
    ("price", '"[1]"', "bad_value"),
    ("price", '"\\"1\\""', "bad_value"),
    ("price", "01", "not_json"),
    ("price", "1.", "not_json"),
    ("price", ".5", "not_json"),
    ("price", "+1", "not_json"),
    ("price", "0x10", "not_json"),
    ("volume", "null", "missing_field"),
    ("volume", "{}", "bad_type"),
    ("volume", "-1", "bad_value"),
    ("volume", "1.5", "bad_value"),
    ("volume", '"1.5"', "bad_value"),
    ("volume", "9223372036854775808", "bad_value"),
    ("volume", "18446744073709551616", "bad_value"),
    ("volume", "1e19", "bad_value"),
    ("volume", "9" * 5000, "bad_value"),
    ("bid", "-0.01", "bad_value"),
    ("bid", "true", "bad_type"),
    ("ask", '"x"', "bad_value"),
    ("bid_size", "-1", "bad_value"),
    ("ask_size", "0.5", "bad_value"),
    ("ask_size", "[]", "bad_type"),
    ("seq", "9223372036854775808", "bad_value"),
    ("seq", "-9223372036854775809", "bad_value"),
    ("seq", '"a1"', "bad_value"),
    ("source", "7", "bad_type"),
    ("source", '"a\\u0000"', "bad_value"),
    ("source", '"' + "x" * 101 + '"', "bad_value"),
    ("updates", "8", "bad_value"),
    ("updates", "-1", "bad_value"),
    ("updates", "true", "bad_type"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "literal", "expected"), GOOD)
def test_a_good_value_is_taken(field, literal, expected):
    row, reject = only(with_literal(field, literal))
    assert reject is None
    partition_and_offset = {"partition": 3, "offset": FIRST, "log_time": LOG_TIME}
    assert row == {**TICK, **partition_and_offset, field: expected}
    assert type(row[field]) is type(expected)


@pytest.mark.parametrize(("field", "literal", "reason"), BAD)
def test_a_bad_value_is_rejected_on_one_short_line_that_names_the_field(field, literal, reason):
    row, (found, detail) = only(with_literal(field, literal))
    assert row is None
    assert found == reason
    assert detail.startswith("value is " if reason == "not_json" else f"{field} is ")
    assert ", wanted: " in detail
    assert len(detail) < 250
    assert len(detail.splitlines()) == 1


@pytest.mark.parametrize("field", ["symbol", "timestamp", "price", "volume"])
def test_a_required_field_must_be_there(field):
    assert only(record(**{field: ABSENT}))[1][0] == "missing_field"
    assert only(record(**{field: ABSENT}))[1][1].startswith(f"{field} is absent, wanted: ")


def test_optional_fields_may_be_missing():
    row, _ = only(b'{"symbol":"AAPL","timestamp":1,"price":2,"volume":3}')
    assert row == {
        "symbol": "AAPL", "timestamp": 1, "price": 2.0, "volume": 3, "bid": None, "ask": None, "bid_size": None,
        "ask_size": None, "source": "unknown", "seq": FIRST, "updates": 7, "partition": 3, "offset": FIRST,
        "log_time": LOG_TIME,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not_json"),
        (b"", "not_json"),
        (b" \n", "not_json"),
        (b"\x00", "not_json"),
        (b"{", "not_json"),
        (b"}", "not_json"),
        (b"nul", "not_json"),
        (b"\xef\xbb\xbf" + record(), "not_json"),  # a byte order mark
        (record().decode().encode("utf-16"), "not_json"),
        (record() + b"x", "not_json"),
        (record() + record(), "not_json"),
        (record() + b"\n" + record(), "not_json"),
        (record() + b"\x00", "not_json"),
        (record()[:-1] + b",}", "not_json"),
        (record(note="@").replace(b"@", b"\xff"), "not_json"),
        (record(note="@").replace(b"@", b"\xed\xa0\x80"), "not_json"),
        (record(note="@").replace(b"@", b"\\ud800"), "not_json"),
        (record(note="@").replace(b"@", b"\\ud800\\u0041"), "not_json"),
        (record(note="@").replace(b"@", b"\\udc00"), "not_json"),
        (record(note="@").replace(b"@", b"\\x41"), "not_json"),
        (record(note="@").replace(b"@", b"a\nb"), "not_json"),
        (record(note="@").replace(b'"@"', b"NaN"), "not_json"),
        (record(note="@").replace(b'"@"', b"'a'"), "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b"[" * 101 + b"]" * 101, "not_json"),
        (b"[" * 100 + b"]" * 100, "not_an_object"),
        (record(note="@").replace(b'"@"', b"[" * 100 + b"]" * 100), "not_json"),
        (b"[1,2", "not_json"),
        (b"[]", "not_an_object"),
        (b"7", "not_an_object"),
        (b'"AAPL"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"true", "not_an_object"),
        (b'["\xff"]', "not_json"),
        (b"{}", "missing_field"),
        (b" {\n} ", "missing_field"),
    ],
)
def test_what_is_not_a_json_object_is_rejected(value, reason):
    row, (found, detail) = only(value)
    assert (row, found) == (None, reason)
    assert len(detail.splitlines()) == 1
    assert len(detail) < 250


@pytest.mark.parametrize(
    "value",
    [
        b" \r\n\t" + record() + b"\n",
        json.dumps(TICK, indent=2).encode(),
        record(note="\u00e9\U0001f600\u2028"),
        record(note="[" * 500),
        record(note="x" * 1_000_000),
        record(note=[[]] * 500),
        record(note='"\\' * 500),
        record(note="@").replace(b'"@"', b"[" * 99 + b"]" * 99),
        record(note="@").replace(b'"@"', b"1e400"),
        record(note="@").replace(b'"@"', b"1" * 10_000),
        record().replace(b'"symbol"', b'"\\u0073ymbol"'),
        record(x=0).replace(b'"x":0', b'"symbol":"AAPL"'),
        b'{"symbol":7,"price":[1],"source":true,' + record()[1:],
    ],
)
def test_what_does_not_matter_is_not_looked_at(value):
    row, _ = only(value)
    assert row == only(record())[0]


def test_the_last_of_a_repeated_field_counts():
    assert only(b'{"price":1,' + record()[1:-1] + b',"price":2}')[0]["price"] == 2.0
    assert only(record()[:-1] + b',"price":null}')[1][0] == "missing_field"


def test_the_first_rule_that_fails_decides():
    assert only(record(symbol=7, price=-1, timestamp="x"))[1][0] == "bad_type"
    assert only(record(timestamp="x", price=-1))[1][0] == "bad_timestamp"
    assert only(record(timestamp=LOG_TIME + 10**6, updates=9))[1] == (
        "bad_value",
        "updates is 9, wanted: an integer from 0 to 7",
    )
    assert only(record(price=[], volume=ABSENT))[1][0] == "bad_type"


def test_the_future_begins_max_future_ms_after_the_record():
    batch = raw([record(timestamp=LOG_TIME + ahead) for ahead in (-1, 0, 10, 11)])
    decoded = decode(batch, max_future_ms=10)
    assert decoded.ticks["timestamp"].to_pylist() == [LOG_TIME - 1, LOG_TIME, LOG_TIME + 10]
    assert decoded.rejects.rows.tolist() == [3]
    assert decoded.rejects.reasons == ["future_timestamp"]
    assert decoded.rejects.details == [
        f"timestamp is {LOG_TIME + 11}, 11 ms after its record's, wanted: at most 10 ms after"
    ]


def test_a_record_without_a_kafka_timestamp_has_no_future_and_the_tick_lends_it_its_time():
    row, _ = only(record(timestamp=LOG_TIME + 10**9), log_time=-1)
    assert row["log_time"] == row["timestamp"] == LOG_TIME + 10**9


def test_a_kafka_timestamp_at_the_end_of_the_range_does_not_wrap_around():
    row, _ = only(record(), log_time=2**63 - 1)
    assert row["log_time"] == 2**63 - 1


@pytest.mark.parametrize("bad", BAD_RECORDS, ids=lambda bad: bad.name)
def test_simulated_bad_records_are_rejected_for_the_reason_they_claim(bad):
    assert only(bad.spoil(record()))[1][0] == bad.reason


def test_records_are_never_split_nor_merged():
    opened, closed = record()[:-1] + b',"x":[1,', b'2],"y":0}'
    hostile = [
        [record() + record(), opened, closed],  # as many values as records
        [record() + b"\n" + record(), opened, closed],
        [record()[:-1] + b',"x":"a}', b'{b"}', record() + record()],
        [record()[:-1] + b',"x":[{}', b"{}]}", record() + record()],
        [record()[:-1] + b',"x":[{},{}', b',{"a":{}}]}', record() + b" " + record()],
        [record()[:-1] + b',"x":{"a":{}', b"{}}}", record() + record()],
        [record()[:-1] + b',"x":"\\ud800}', b'{"}', record() + record()],
        [b"", record() + record()],
        [None, record() + record()],
        [b"{", b"}", record()],
        [b" ", record() + record()],
        [record() + b" ", record()],
    ]
    for values in hostile:
        for order in itertools.permutations(values):
            batch = raw(list(order))
            apart = [read_alone(value, i) for i, value in enumerate(order)]
            decoded = decode(batch)
            assert decoded.ticks["offset"].to_pylist() == [FIRST + i for i, good in enumerate(apart) if good]
            assert rows_of(decoded) == rows_of(by_record(batch))


def read_alone(value, i) -> bool:
    return len(decode(raw([value], FIRST + i)).ticks) == 1


def test_a_batch_has_the_schema_the_span_and_only_the_words_in_use():
    batch = raw(
        [record(symbol=" z "), record(symbol="never", price=0), record(symbol="A", source="b"), record(symbol="Z")]
    )
    ticks = decode(batch).ticks
    ticks.validate(full=True)
    assert ticks.schema.equals(TICKS)
    assert span_of(ticks) == span_of(batch)
    assert ticks["symbol"].dictionary.to_pylist() == ["Z", "A"]
    assert ticks["source"].dictionary.to_pylist() == ["sim", "b"]
    assert [ticks.column(i).null_count for i, field in enumerate(TICKS) if not field.nullable] == [0] * 10


def test_a_heartbeat_passes():
    beat = with_span(raw([]), Span("market-data-raw", 3, 9, 9, 5_000))
    decoded = decode(beat)
    assert decoded.ticks.schema.equals(TICKS)
    assert len(decoded.ticks) == len(decoded.rejects.rows) == 0
    assert span_of(decoded.ticks) == Span("market-data-raw", 3, 9, 9, 5_000)


def test_a_slice_of_a_batch_is_decoded_like_a_batch():
    values = [record(seq=i) if i % 3 else b"x" * i for i in range(30)]
    whole = raw(values)
    for start, length in [(0, 30), (5, 10), (29, 1), (1, 2), (7, 0)]:
        part = with_span(whole.slice(start, length), Span("market-data-raw", 3, FIRST + start, FIRST + start + length))
        assert rows_of(decode(part)) == rows_of(decode(raw(values[start : start + length], FIRST + start)))
        assert rows_of(decode(part)) == rows_of(by_record(part))


def test_clean_batches_do_not_need_the_slow_path(monkeypatch):
    monkeypatch.setattr(kernel, "read_record", None)
    clean = [record(), record(symbol="msft"), record(timestamp=1.7e12, volume=5.0), record(price="1", bid=None)]
    assert len(decode(raw(clean)).ticks) == 4
    assert len(decode(raw([record(timestamp="2023-11-14T22:13:20.5Z")] * 3)).ticks) == 3
    assert len(decode(raw([value + b"\n" for value in clean])).ticks) == 4


# --- Properties ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(list(TICK)), inner, max_size=4)
    ),
    max_leaves=12,
)
LITERALS = st.sampled_from(
    [literal for _, literal, _ in GOOD + BAD] + ["@", "[[]]", '{"a":{}}', '"}{"', "1e5", "-1e-5"]
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
TIMES = st.from_regex(
    r"(20|19|99|00)[0-9][0-9]-(0[1-9]|1[0-3])-([012][0-9]|3[01])"
    r"([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{1,10})?)?)?(Z|[+-][0-2][0-9](:?[0-6][0-9])?)?",
    fullmatch=True,
)


@st.composite
def odd_fields(draw):
    """A tick some of whose fields have odd values."""
    value = record(**draw(st.dictionaries(st.sampled_from([*TICK, "note"]), st.just(ABSENT), max_size=2)))
    literal = LITERALS | NUMBERS | st.one_of(NUMBERS, TIMES).map(json.dumps) | JSON.map(json.dumps)
    for field, text in draw(st.dictionaries(st.sampled_from([*TICK, "note"]), literal, max_size=3)).items():
        value = value[:-1] + f',"{field}":{text}}}'.encode("utf-8", "surrogatepass")
    return value


@st.composite
def flipped_bytes(draw):
    """A tick some of whose bytes have been changed, inserted or cut out."""
    value = bytearray(record(symbol=draw(st.sampled_from(["AAPL", "é", "b"]))))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value) - 1))
        value[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"{", b"}", b"\n", b'"', b",", b"\\"])
        )
    return bytes(value)


RECORDS = st.one_of(
    st.none(),
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    odd_fields(),
    flipped_bytes(),
    st.builds(lambda s, t: record(symbol=s, timestamp=t), st.text(max_size=22), TIMES | st.integers(0, 2 * LOG_TIME)),
)
BATCHES = st.lists(RECORDS | st.just(record()), max_size=8)
LOG_TIMES = st.sampled_from([LOG_TIME, -1, 0, LOG_TIME - 10**9, 2**63 - 1])


@given(BATCHES, LOG_TIMES)
def test_both_paths_give_the_same_rows_and_rejects(values, log_time):
    batch = raw(values, log_times=[log_time] * len(values))
    decoded = decode(batch)
    assert rows_of(decoded) == rows_of(by_record(batch))
    decoded.ticks.validate(full=True)
    kept = [offset - FIRST for offset in decoded.ticks["offset"].to_pylist()]
    assert sorted([*kept, *decoded.rejects.rows.tolist()]) == list(range(len(values)))
    assert kept == sorted(kept)
    assert decoded.rejects.rows.tolist() == sorted(decoded.rejects.rows.tolist())
    assert all(detail and len(detail.splitlines()) == 1 for detail in decoded.rejects.details)


@given(st.lists(odd_fields(), min_size=1, max_size=8))
def test_both_paths_give_the_same_for_batches_of_well_formed_records(values):
    batch = raw(values)
    assert rows_of(decode(batch)) == rows_of(by_record(batch))


@given(BATCHES, st.integers(0, 8))
def test_any_batching_gives_the_same(values, cut):
    whole, split = decode(raw(values)), min(cut, len(values))
    head, tail = decode(raw(values[:split])), decode(raw(values[split:], FIRST + split))
    assert whole.ticks.to_pylist() == head.ticks.to_pylist() + tail.ticks.to_pylist()
    assert whole.rejects.rows.tolist() == [*head.rejects.rows, *(split + tail.rejects.rows)]
    assert whole.rejects.reasons == head.rejects.reasons + tail.rejects.reasons
    assert whole.rejects.details == head.rejects.details + tail.rejects.details


@given(BATCHES, LOG_TIMES)
def test_the_oracle_agrees(values, log_time):
    decoded = decode(raw(values, log_times=[log_time] * len(values)))
    expected = [tick_oracle.meaning(value, log_time, FIRST + i) for i, value in enumerate(values)]
    rows = [{name: tick[name] for name in tick_oracle.FIELDS} for tick in decoded.ticks.to_pylist()]
    assert rows == [row for row, _ in expected if row is not None]
    assert decoded.rejects.reasons == [bad[0] for _, bad in expected if bad is not None]
    fields = [detail.split(" is ")[0] for detail in decoded.rejects.details]
    assert fields == [bad[1] for _, bad in expected if bad is not None]


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_doubles_are_the_nearest_to_what_was_written(numbers):
    prices = decode(raw([with_literal("price", number) for number in numbers])).ticks["price"].to_pylist()
    assert prices == [float(number) for number in numbers if 0 < float(number) < np.inf]


def test_a_large_mixed_batch_is_the_same_by_both_paths():
    rng = random.Random(7)
    spoil = [bad.spoil for bad in BAD_RECORDS]
    good = [record(symbol=f"S{rng.randrange(50)}", seq=i, price=rng.random() + 1) for i in range(3_000)]
    values = [rng.choice(spoil)(value) if rng.random() < 0.02 else value for value in good]
    batch = raw(values)
    assert rows_of(decode(batch)) == rows_of(by_record(batch))
    assert len(decode(raw(good)).ticks) == 3_000
