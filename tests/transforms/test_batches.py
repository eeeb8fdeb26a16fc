import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.transforms.batches import ArrowCoder, Span, joined, to_bytes, with_span


def batch(rows: int) -> pa.RecordBatch:
    columns = {
        "price": [100 + row % 7 / 8 for row in range(rows)],
        "symbol": pa.array(["A"] * rows).dictionary_encode(),
    }
    return with_span(pa.record_batch(columns), Span("t", 3, 0, rows))


@pytest.mark.parametrize("rows", [0, 1, 3_999, 4_000, 10_000])
def test_batches_of_any_size_come_back(rows: int) -> None:
    coder = ArrowCoder()
    assert coder.decode(coder.encode(batch(rows))).equals(batch(rows), check_metadata=True)


def test_large_batches_cross_in_less_than_half_of_their_bytes() -> None:
    assert len(ArrowCoder().encode(batch(10_000))) < len(to_bytes(batch(10_000))) / 2


def test_the_size_of_a_batch_is_told_without_encoding_it(monkeypatch):
    monkeypatch.setattr(ArrowCoder, "encode", lambda self, value: pytest.fail("it was encoded"))
    rows = batch(10_000)
    assert ArrowCoder().get_impl().estimate_size(rows) == rows.nbytes


def test_rows_of_more_bytes_than_a_batch_can_hold_are_not_lost_without_a_word() -> None:
    rows, each = 1_100, 1 << 20
    ends = np.arange(rows + 1, dtype=np.int32) * each
    untouched = np.zeros(rows * each, np.uint8)  # takes no memory
    values = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(ends), pa.py_buffer(untouched)])
    with pytest.raises(ValueError, match="too many values"):
        joined([pa.record_batch({"value": values})] * 2)
