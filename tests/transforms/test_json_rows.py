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
        }
    )
)
SCHEMA = pa.schema(
    {"name": pa.string(), "count": pa.int64(), "price": pa.float64(), "flag": pa.bool_()},
)


def is_there(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


@given(ROWS, st.integers(0, 3))
def test_every_row_reads_back_without_its_nulls(rows: list[dict[str, object]], skipped: int) -> None:
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA).slice(skipped)
    expected = [{name: value for name, value in row.items() if is_there(value)} for row in rows[skipped:]]
    assert [json.loads(value) for value in json_rows(batch).to_pylist()] == expected


@given(st.lists(st.none() | st.text()))
def test_dictionary_encoded_strings_are_written_like_plain_ones(words: list[str | None]) -> None:
    plain = pa.array(words, pa.string())
    encoded = json_rows(pa.record_batch({"word": plain.dictionary_encode()}))
    assert encoded.equals(json_rows(pa.record_batch({"word": plain})))
