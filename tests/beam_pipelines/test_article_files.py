"""Files of articles as a log, and what of them can be used."""

import gzip
import json
import pathlib
from collections import defaultdict
from collections.abc import Callable

import pyarrow as pa
import pytest

from beam_pipelines.article_files import check_articles, raw_articles, sample_articles
from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.batches import RAW, span_of
from beam_pipelines.transforms.records import partition_of

PARTITIONS = 4
Files = Callable[[str, bytes], str]


@pytest.fixture
def file(tmp_path: pathlib.Path) -> Files:
    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def article(identity: object, **more: object) -> bytes:
    return json.dumps({"id": identity, "title": "Apple rises", "published_at": 1000, **more}).encode()


def values(path: str, partitions: int = 1) -> list[bytes]:
    return [value for _, batch in raw_articles(path, partitions) for value in batch["value"].to_pylist()]


def test_lines_come_byte_for_byte_with_a_place_in_the_log_and_no_kafka_timestamp(file: Files) -> None:
    lines = [article("a"), b'{"id": 7,  "title":"\xc3\xbc"}', b'{"id":"c"}']
    ((partition, batch),) = raw_articles(file("a.ndjson", b"\n".join(lines)), 1)
    assert partition == 0
    assert batch.schema.equals(RAW)
    assert batch["value"].to_pylist() == lines
    assert batch["key"].to_pylist() == [b"a", b"7", b"c"]
    assert batch["timestamp"].to_pylist() == [-1, -1, -1]
    assert batch["offset"].to_pylist() == [0, 1, 2]
    span = span_of(batch)
    assert (span.topic, span.partition, span.first, span.next) == ("a.ndjson", 0, 0, 3)


def test_all_kinds_of_files_give_the_same_lines(file: Files) -> None:
    content = b"".join(article(number) + b"\n" for number in range(50))
    found = [values(file(f"a{suffix}", content)) for suffix in (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")]
    assert found == [content.splitlines()] * 4


def test_several_gzip_streams_in_one_file_are_one_file(file: Files, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(b"".join(gzip.compress(article(number) + b"\n") for number in range(3)))
    assert values(str(tmp_path / "a.ndjson.gz")) == [article(number) for number in range(3)]


def test_blank_lines_and_blanks_around_lines_are_no_records(file: Files) -> None:
    assert values(file("a.ndjson", b"\n  \n" + article(1) + b" \r\n\r\n\t" + article(2))) == [article(1), article(2)]


def test_an_empty_file_is_a_log_without_records(file: Files) -> None:
    check_articles(file("a.ndjson", b""))
    assert list(raw_articles(file("a.ndjson.gz", b""), PARTITIONS)) == []


BAD = [
    b"not json",
    b"[1]",
    b'{"id":"x"',
    b'{"id":"\xff"}',
    b"\xff\xfe",
    b'{"id":"\\ud800","title":"x","published_at":0}',
    b'{"id":[1],"title":"x","published_at":0}',
    b'{"x":' * 100_000,
    b"[" * 100_000,
    b'{"title":"no id","published_at":0}',
]


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:20]))
def test_a_line_that_is_no_article_is_a_dead_letter_with_its_bytes(file: Files, line: bytes) -> None:
    path = file("a.ndjson", b"\n".join([article("a"), line, article("b")]))
    check_articles(path)
    decoded = [decode(batch, 60_000) for _, batch in raw_articles(path, PARTITIONS)]
    assert sum(len(it.articles) for it in decoded) == 2
    (letters,) = [it.dead_letters for it in decoded if it.dead_letters is not None]
    assert letters["value"].to_pylist() == [line]


def by_partition(batches: list[tuple[int, pa.RecordBatch]]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = defaultdict(list)
    for partition, batch in batches:
        span = span_of(batch)
        assert (span.partition, span.first, span.next) == (
            partition,
            len(found[partition]),
            len(found[partition]) + len(batch),
        )
        assert batch["offset"].to_pylist() == list(range(span.first, span.next))
        found[partition] += batch["value"].to_pylist()
    return found


def test_a_partition_holds_the_articles_whose_ids_it_has_in_their_order(file: Files) -> None:
    lines = [article(f"id-{number % 900}", version=number) for number in range(2_500)]  # more than a batch
    found = by_partition(list(raw_articles(file("a.ndjson", b"\n".join(lines)), PARTITIONS)))
    assert set(found) == set(range(PARTITIONS))
    for partition, held in found.items():
        assert held == [
            line for line in lines if partition_of(json.loads(line)["id"].encode(), PARTITIONS) == partition
        ]


@pytest.mark.parametrize("written", ["42", " 42 ", "\\u0034\\u0032"])
def test_an_id_has_the_same_partition_in_any_file_and_however_it_is_written(file: Files, written: str) -> None:
    wanted = partition_of(b"42", 97)
    one = file("a.ndjson", b"\n".join([article("x"), article(42)]))
    other = file("b.jsonl.gz", f'{{"title":"y","published_at":0,"id":"{written}"}}'.encode())
    assert {partition for partition, batch in raw_articles(one, 97) if b"42" in batch["key"].to_pylist()} == {wanted}
    assert [partition for partition, _ in raw_articles(other, 97)] == [wanted]


def test_an_id_that_is_no_number_of_any_machine_is_an_id(file: Files) -> None:
    ((_, batch),) = raw_articles(file("a.ndjson", b'{"id":1e400,"title":"x","published_at":0}'), PARTITIONS)
    assert decode(batch, 60_000).articles["provider_id"].to_pylist() == ["1e400"]


def test_the_samples_are_articles_and_one_that_is_none() -> None:
    decoded = [decode(batch, 0) for _, batch in sample_articles(PARTITIONS)]
    assert sum(len(it.articles) for it in decoded) == 20
    (letters,) = [it.dead_letters for it in decoded if it.dead_letters is not None]
    assert letters["reason"].to_pylist() == ["missing_field"]


def spoilt(content: bytes) -> dict[str, bytes]:
    whole = gzip.compress(content)
    return {
        "no gzip": b"plain text",
        "cut": whole[: len(whole) // 2],
        "without an end": whole[:-8],
        "another checksum": whole[:-8] + bytes(8),
        "torn": whole[:20] + b"\xff" * 10 + whole[30:],
    }


SPOILT = spoilt(b"".join(article(number) + b"\n" for number in range(2_000)))


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT.keys())
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as told:
        check_articles(str(path))
    assert str(told.value).startswith(f"input file {path} cannot be read (")
    assert str(told.value).endswith("): repair it")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.ndjson.zip", "a.gz", "a", "ndjson"])
def test_another_kind_of_file_is_told_with_those_that_there_are(file: Files, name: str) -> None:
    path = file(name, article("a"))
    wanted = rf"input file {path} is of no kind that can be read: give one of \.ndjson, \.jsonl, \.ndjson\.gz, \.jsonl"
    with pytest.raises(UsageError, match=wanted):
        check_articles(path)


def test_a_missing_file_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=r"none\.ndjson does not exist: correct the path"):
        check_articles(str(tmp_path / "none.ndjson"))


def test_a_folder_is_no_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.ndjson").mkdir()
    with pytest.raises(UsageError, match=r"a\.ndjson cannot be read \(.*Is a directory.*\): repair it"):
        check_articles(str(tmp_path / "a.ndjson"))
