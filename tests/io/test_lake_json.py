"""Objects of JSON lines: what is written comes back, in equal bytes, and whatever is damaged is named."""

import gzip
import json
import pathlib
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake import LakeStretch, WriteToLake
from beam_pipelines.io.lake_json import as_json_lines, read_json_lines
from beam_pipelines.io.lake_objects import NEWS_DATA, cut, write_objects
from beam_pipelines.io.objects import objects_in
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import Span, span_of, with_span
from tests.io.lakes import NEW_YEAR, Lake

DAY = 24 * 3_600_000
STAMP = pa.timestamp("ms", "UTC")
ALL_TYPES = pa.schema(
    [
        ("text", pa.string()),
        ("time", STAMP),
        ("small", pa.int32()),
        ("large", pa.int64()),
        ("share", pa.float64()),
        ("sure", pa.bool_()),
        ("names", pa.list_(pa.string())),
        ("numbers", pa.list_(pa.float64())),
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MOMENTS = st.integers(0, 253_402_300_799_999)  # to the end of 9999
VALUES = {
    "text": TEXTS,
    "time": MOMENTS,
    "small": st.integers(-(2**31), 2**31 - 1),
    "large": st.integers(-(2**63), 2**63 - 1),
    "share": st.floats(allow_nan=False, allow_infinity=False),
    "sure": st.booleans(),
    "names": st.lists(st.none() | TEXTS, max_size=3),
    "numbers": st.lists(st.none() | st.floats(-1, 1), max_size=3),
}


def back(table: pa.Table) -> pa.Table:
    return read_json_lines(as_json_lines(table).to_pybytes(), table.schema)


@given(st.lists(st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), max_size=5))
def test_rows_of_every_type_come_back_with_their_nulls(rows):
    table = pa.table([pa.array([row[it.name] for row in rows], it.type) for it in ALL_TYPES], ALL_TYPES)
    assert back(table).equals(table)


def test_lines_are_what_any_tool_reads():
    table = pa.table({"time": pa.array([NEW_YEAR + 5, None], STAMP), "text": ["ünï\n💹", '"'], "names": [["a"], []]})
    lines = gzip.decompress(as_json_lines(table)).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"time": "2024-01-01T00:00:00.005Z", "text": "ünï\n💹", "names": ["a"]},
        {"time": None, "text": '"', "names": []},
    ]


def test_equal_tables_give_equal_bytes_however_they_are_chunked():
    table = pa.table({"n": list(range(100)), "text": [f"text {n}" for n in range(100)]})
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 50), table.slice(53)])
    assert chunked["n"].num_chunks == 3
    assert as_json_lines(chunked).equals(as_json_lines(table))


def test_lines_that_others_wrote_may_have_other_columns_and_leave_theirs_out():
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.string())])
    table = read_json_lines(gzip.compress(b'{"b": "x", "more": [1]}\n\n{"a": 2}\n'), schema)
    assert table.to_pylist() == [{"a": None, "b": "x"}, {"a": 2, "b": None}]


# --- in the lake ---


def articles(
    rows: int, first: int = 0, partition: int = 2, published: list[int] | None = None, **columns: object
) -> pa.RecordBatch:
    """ARTICLES of one partition, a second after the other from New Year's, with every kind of value."""
    offsets = range(first, first + rows)
    plain: dict[str, Any] = {
        "article_id": [f"00000000-0000-4000-8000-{at:012d}" for at in offsets],
        "published_at": published or [NEW_YEAR + 1000 * at + 7 for at in offsets],
        "title": [f"Ünï 💹 {at} \n\t\\ \"'<p>" for at in offsets],
        "content": [["", "a\u2028b", "x" * 1000][at % 3] for at in offsets],
        "source": "wire",
        "url": [None if at % 2 else f"https://x/{at}" for at in offsets],
        "author": None,
        "language": [None if at % 3 else "en" for at in offsets],
        "symbols": [["AAPL", "BRK.B"][: at % 3] for at in offsets],
        "categories": [[]] * rows,
        "kind": "news",
        "provider_id": [str(at) for at in offsets],
        "partition": partition,
        "offset": list(offsets),
        "log_time": [NEW_YEAR + 1000 * at + 9 for at in offsets],
    } | columns
    values = [it if isinstance(it, list) else [it] * rows for it in plain.values()]
    batch = pa.record_batch([pa.array(it, field.type) for it, field in zip(values, ARTICLES, strict=True)], ARTICLES)
    return with_span(batch, Span("news-raw", partition, first, first + rows))


def put(root: str, batch: pa.RecordBatch) -> list[str]:
    """Writes what is in one slot and block; gives the paths."""
    position, pieces = cut(NEWS_DATA, None, batch)
    written = [
        it
        for piece in pieces
        for it in write_objects(objects_in(root), NEWS_DATA, position, piece.group, [piece.rows], final=False)
    ]
    return [it.path for it in written]


def stretch(root: str, skip: bool = False) -> LakeStretch:
    return LakeStretch(objects_in(root), NEWS_DATA, NEW_YEAR, NEW_YEAR + DAY, skip_bad_files=skip)


def found(root: str, skip: bool = False) -> list[pa.RecordBatch]:
    everything = stretch(root, skip)
    return [rows for it in everything.find() for rows in everything.read(it)]


def test_articles_come_back_from_the_lake_as_they_were(lake: Lake) -> None:
    batch = articles(20)
    (path,) = put(lake.root, batch)
    assert path.startswith("news/year=2024/month=01/day=01/p00002-")
    assert path.endswith("-000000000000-news-raw.json.gz")
    assert found(lake.root) == [batch]
    assert found(lake.root)[0].schema == ARTICLES


def test_an_object_is_ordinary_gzip_of_ordinary_lines(lake: Lake) -> None:
    put(lake.root, articles(3))
    (content,) = lake.objects().values()
    lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert [line["published_at"] for line in lines] == [f"2024-01-01T00:00:0{at}.007Z" for at in range(3)]
    assert lines[1]["title"] == "Ünï 💹 1 \n\t\\ \"'<p>"


def test_an_article_is_in_the_folder_of_the_day_on_which_it_was_published(tmp_path: pathlib.Path) -> None:
    batch = articles(2, published=[NEW_YEAR - 1, NEW_YEAR])
    folders = {str(pathlib.PurePosixPath(path).parent) for path in put(str(tmp_path), batch)}
    assert folders == {"news/year=2023/month=12/day=31", "news/year=2024/month=01/day=01"}
    assert [len(it) for it in found(str(tmp_path))] == [1]


def lines_of(file: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def rewritten(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[pathlib.Path], object]:
    def spoil(file: pathlib.Path) -> None:
        lines = "".join(f"{json.dumps(change(line))}\n" for line in lines_of(file))
        file.write_bytes(gzip.compress(lines.encode()))

    return spoil


def without(name: str) -> Callable[[pathlib.Path], object]:
    return rewritten(lambda line: {key: value for key, value in line.items() if key != name})


def with_value(name: str, value: object) -> Callable[[pathlib.Path], object]:
    return rewritten(lambda line: line | {name: value})


def torn(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    file.write_bytes(content)


def text(content: bytes) -> Callable[[pathlib.Path], object]:
    return lambda file: file.write_bytes(gzip.compress(content))


DAMAGED = "is damaged, or no json.gz file"
BAD = {
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "no gzip": (lambda file: file.write_bytes(b'{"article_id": "x"}\n'), DAMAGED),
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-100]), DAMAGED),
    "its end is cut": (lambda file: file.write_bytes(file.read_bytes()[:-1]), DAMAGED),
    "torn": (torn, DAMAGED),
    "no JSON": (text(b'{"article_id": "x"}\n{"art'), DAMAGED),
    "no objects": (text(b"[1]\n"), DAMAGED),
    "no UTF-8": (text(b'{"title": "\xff"}\n'), DAMAGED),
    "too deep": (text(b'{"x":' * 100_000), DAMAGED),
    "without lines": (text(b'{"more": 1}\n'), "has no column article_id, perhaps an older version wrote it"),
    "parquet": (lambda file: file.rename(file.with_name("p00002-x.parquet")), "is not named as objects of news are"),
    "without a column": (without("provider_id"), "has no column provider_id, perhaps an older version wrote it"),
    "without a value": (with_value("title", None), "has rows without title"),
    "a number for a text": (with_value("title", 7), f"{DAMAGED} (column title"),
    "a text for a number": (with_value("offset", "7"), f"{DAMAGED} (column offset"),
    "a fraction": (with_value("offset", 7.5), f"{DAMAGED} (column offset"),
    "a number that is too large": (with_value("partition", 2**40), DAMAGED),
    "a text for a list": (with_value("symbols", "AB"), f"{DAMAGED} (column symbols"),
    "numbers in a list": (with_value("symbols", [1]), f"{DAMAGED} (column symbols"),
    "a number for a time": (with_value("log_time", 1_704_067_200_000), f"{DAMAGED} (column log_time"),
    "no time": (with_value("log_time", "soon"), DAMAGED),
    "a local time": (with_value("log_time", "2024-01-01T00:00:00"), DAMAGED),
}


@pytest.fixture(params=BAD.values(), ids=BAD.keys())
def bad(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[str, str]:
    """A lake with a good file and a bad one, and what is wrong with that."""
    spoil, why = request.param
    (path,) = put(str(tmp_path), articles(20))
    put(str(tmp_path), articles(5, partition=3))
    spoil(tmp_path / path)
    return str(tmp_path), why


def test_a_bad_file_is_named_with_the_cure(bad: tuple[str, str]) -> None:
    root, why = bad
    with pytest.raises(UsageError) as told:
        found(root)
    assert why in str(told.value)
    assert str(told.value).startswith(f"{root}/news/year=2024/month=01/day=01/p00002-")
    assert str(told.value).endswith("repair or remove it, or pass over such files with --on_bad_file=skip")
    assert "\n" not in str(told.value)


def test_a_bad_file_is_passed_over_where_that_is_asked_for(
    bad: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    root, why = bad
    assert found(root, skip=True) == [articles(5, partition=3)]
    assert why in caplog.text


# --- jobs that go on ---


def write(root: str, *batches: pa.RecordBatch) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        keyed = beam.Create([(span_of(it).partition, it) for it in batches])
        pipeline | keyed.with_output_types(tuple[int, pa.RecordBatch]) | WriteToLake(root, NEWS_DATA)


def test_a_job_that_begins_in_the_middle_of_an_object_keeps_the_rows_before_it(lake: Lake) -> None:
    write(lake.root, articles(60))
    complete = lake.objects()
    write(lake.root, articles(20, first=40))
    assert lake.objects() == complete
    write(lake.root, articles(20, first=60))
    assert found(lake.root) == [articles(80)]
    assert lake.objects().keys() == complete.keys()


def test_a_job_that_ends_earlier_keeps_the_rows_after_it(lake: Lake) -> None:
    write(lake.root, articles(60))
    complete = lake.objects()
    write(lake.root, articles(20))
    assert lake.objects() == complete


def test_any_batches_give_the_same_bytes(lake: Lake) -> None:
    write(lake.root, articles(60))
    complete = lake.objects()
    write(lake.root, articles(10, first=50), articles(1), articles(49, first=1))
    assert lake.objects() == complete


def test_a_damaged_object_is_written_anew_by_a_job_that_has_all_its_rows(tmp_path: pathlib.Path) -> None:
    (path,) = put(str(tmp_path), articles(20))
    whole = (tmp_path / path).read_bytes()
    torn(tmp_path / path)
    assert put(str(tmp_path), articles(20)) == [path]
    assert (tmp_path / path).read_bytes() == whole
