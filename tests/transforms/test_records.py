import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.batches import RAW, span_of
from beam_pipelines.transforms.records import RECORDS, _murmur2, partition_of, raw_batches

KAFKA_HASHES = {  # from UtilsTest.testMurmur2 of Kafka's Java client
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def records(keys: list[bytes | None], first: int = 0) -> pa.RecordBatch:
    values = [b"%d" % row if row % 5 else None for row in range(first, first + len(keys))]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(first, first + len(keys))),
            pa.array(keys, pa.binary()).dictionary_encode(),
            pa.array(values, pa.binary()),
            pa.array(["tick"] * len(keys)).dictionary_encode(),
        ],
        schema=RECORDS,
    )


@pytest.mark.parametrize("key", KAFKA_HASHES)
def test_the_hash_is_that_of_the_java_client(key: bytes) -> None:
    assert _murmur2(key) == KAFKA_HASHES[key] & 0xFFFFFFFF


@given(
    st.lists(st.lists(st.sampled_from([b"A", b"BB", b"CCC", None]), max_size=20)), st.integers(1, 5), st.integers(1, 7)
)
def test_the_log_holds_every_record_once_in_order(keys: list[list[bytes | None]], partitions: int, rows: int) -> None:
    starts = np.cumsum([0, *map(len, keys)]).tolist()
    batches = [records(each, start) for each, start in zip(keys, starts, strict=False)]
    ends, found = [0] * partitions, []
    for partition, batch in raw_batches(batches, "log", partitions, rows):
        span = span_of(batch)
        assert (span.topic, span.partition, span.first) == ("log", partition, ends[partition])
        assert batch["offset"].to_pylist() == list(range(span.first, span.next))
        assert 1 <= batch.num_rows <= rows
        assert batch.schema.equals(RAW)
        ends[partition] = span.next
        found += [(partition, *row) for row in zip(*(batch[name].to_pylist() for name in RAW.names[1:]), strict=True)]
    sent = [
        row for batch in batches for row in zip(*(batch[name].to_pylist() for name in RECORDS.names[:3]), strict=True)
    ]
    owners = [0 if key is None else partition_of(key, partitions) for _, key, _ in sent]
    for partition in range(partitions):
        expected = [row for owner, row in zip(owners, sent, strict=True) if owner == partition]
        assert [row[1:] for row in found if row[0] == partition] == expected
