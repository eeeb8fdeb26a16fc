import datetime
import json
import math

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.json_rows import json_rows

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | st.text(),
            "count": st.none() | st.integers(-(2**63), 2**63 - 1),
            "price": st.none() | st.floats(),
            "flag": st.none() | st.booleans(),
            "at": st.none() | st.datetimes(datetime.datetime(1, 1, 1), timezones=st.just(datetime.UTC)),
        }
    )
)
SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "count": pa.int64(),
        "price": pa.float64(),
        "flag": pa.bool_(),
        "at": pa.timestamp("us", "UTC"),
    },
)


def as_read(row: dict[str, object]) -> dict[str, object]:
    """What JSON has for a row; the types too, so that 1.0 is not read back as 1."""
    values = row | {"at": row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z") if row["at"] else None}
    return {name: None if isinstance(it, float) and not math.isfinite(it) else it for name, it in values.items()}


def typed(row: dict[str, object]) -> dict[str, tuple[type, object]]:
    return {name: (type(value), value) for name, value in row.items()}


@given(ROWS, st.integers(0, 3), st.permutations(SCHEMA.names))
def test_every_row_reads_back_with_its_nulls_or_without(
    rows: list[dict[str, object]], skipped: int, order: list[str]
) -> None:
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA).slice(skipped).select(order)
    expected = [typed(as_read(row)) for row in rows[skipped:]]
    assert [typed(json.loads(value)) for value in json_rows(batch, nulls=True).to_pylist()] == expected
    without = [{name: it for name, it in row.items() if it[1] is not None} for row in expected]
    assert [typed(json.loads(value)) for value in json_rows(batch).to_pylist()] == without


def test_fields_are_in_the_order_of_the_columns() -> None:
    batch = pa.record_batch({"b": [1], "a": pa.array([None], pa.string()), "c": [2.0]})
    assert json_rows(batch).to_pylist() == [b'{"b":1,"c":2.0}']
    assert json_rows(batch, nulls=True).to_pylist() == [b'{"b":1,"a":null,"c":2.0}']


def test_narrow_floats_are_written_as_short_as_they_are() -> None:
    prices = pa.array([0.1, 285.0, math.nan, math.inf, None], pa.float32())
    assert json_rows(pa.record_batch({"price": prices})).to_pylist() == [
        b'{"price":0.1}',
        b'{"price":285.0}',
        b"{}",
        b"{}",
        b"{}",
    ]


@given(st.lists(st.none() | st.text()))
def test_dictionary_encoded_strings_are_written_like_plain_ones(words: list[str | None]) -> None:
    plain = pa.array(words, pa.string())
    encoded = json_rows(pa.record_batch({"word": plain.dictionary_encode()}))
    assert encoded.equals(json_rows(pa.record_batch({"word": plain})))
