"""Dead letters keep the bytes of the records they stand for."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.batches import DEAD_LETTERS, RAW, Span, span_of, with_span
from beam_pipelines.transforms.dead_letters import counted, dead_letters, to_messages

HEADERS = ["pipeline", "reason", "detail", "topic", "partition", "offset"]


def raw(values: list[bytes | None], first: int = 100) -> pa.RecordBatch:
    count = len(values)
    columns = [range(first, first + count), [7_000 + i for i in range(count)], [b"KEY"] * count, values]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.record_batch(arrays, schema=RAW), Span("market-data-raw", 3, first, first + count))


@given(st.lists(st.one_of(st.none(), st.binary()), max_size=20), st.randoms())
def test_any_bytes_come_back_identical_with_the_identity_of_their_record(values, random):
    rows = sorted(random.sample(range(len(values)), random.randint(0, len(values))))
    letters = dead_letters(raw(values), rows, ["not_json"] * len(rows), [f"row {i}" for i in rows])
    assert letters.schema.equals(DEAD_LETTERS)
    assert letters["value"].to_pylist() == [values[i] for i in rows]
    assert letters["offset"].to_pylist() == [100 + i for i in rows]
    assert letters["timestamp"].to_pylist() == [7_000 + i for i in rows]
    assert letters["detail"].to_pylist() == [f"row {i}" for i in rows]
    assert set(letters["topic"].to_pylist()) <= {"market-data-raw"}
    assert set(letters["partition"].to_pylist()) <= {3}
    assert span_of(letters) == span_of(raw(values))


def test_rows_may_be_a_numpy_array():
    letters = dead_letters(raw([b"a", b"b", b"c"]), np.array([0, 2]), ["not_json", "bad_value"], ["x", "y"])
    assert letters["value"].to_pylist() == [b"a", b"c"]
    assert letters["reason"].to_pylist() == ["not_json", "bad_value"]


def test_a_detail_that_quotes_a_lone_surrogate_is_escaped():
    letters = dead_letters(raw([b'"\\ud800"']), [0], ["bad_value"], ["symbol is \ud800"])
    assert letters["detail"].to_pylist() == ["symbol is \\ud800"]


def test_messages_carry_the_bytes_as_value_and_everything_else_as_headers():
    letters = dead_letters(raw([b"\xff\x00", None]), [0, 1], ["not_json", "bad_type"], ["no", "tombstone"])
    messages = to_messages(letters, "market")
    assert messages.schema.names == ["key", "value", *HEADERS, "copied_from"]
    assert messages["copied_from"].null_count == 2
    assert messages["key"].to_pylist() == [None, None]
    assert messages["value"].to_pylist() == [b"\xff\x00", None]
    assert [tuple(row[name] for name in HEADERS) for row in messages.to_pylist()] == [
        ("market", "not_json", "no", "market-data-raw", 3, 100),
        ("market", "bad_type", "tombstone", "market-data-raw", 3, 101),
    ]


def test_no_dead_letters_are_no_messages():
    assert len(to_messages(dead_letters(raw([b"a"]), [], [], []), "market")) == 0


def test_each_reason_has_its_counter():
    reasons = ["not_json", "too_late", "not_json"]
    letters = dead_letters(raw([b"a", b"b", b"c"]), [0, 1, 2], reasons, ["", "", ""])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create([0, 1]) | beam.Map(lambda _: letters) | beam.Map(counted)
    counters = pipeline.result.metrics().query()["counters"]
    found = {c.key.metric.name: c.committed for c in counters if c.key.metric.namespace == "dead_letters"}
    assert found == {"not_json": 4, "too_late": 2}
