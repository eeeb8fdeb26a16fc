"""Articles from raw records: what is one, which id it gets, and why a record is none."""

import json
import uuid

import pyarrow as pa
import pytest

from beam_pipelines.transforms.articles import ARTICLES, article_id_of, decode
from beam_pipelines.transforms.batches import RAW, Span, span_of, with_span

LOG_TIME = 1_795_180_000_000
GOOD = {"id": "a-1", "title": "Apple rises", "published_at": "2026-11-20T13:05:00Z", "source": "wire"}


def raw(*values: object, log_time: int = LOG_TIME) -> pa.RecordBatch:
    encoded = [value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    rows = [pa.array(range(7, 7 + len(values))), pa.array([log_time] * len(values)), pa.nulls(len(values), pa.binary())]
    batch = pa.RecordBatch.from_arrays([*rows, pa.array(encoded, pa.binary())], schema=RAW)
    return with_span(batch, Span("news-raw", 3, 7, 7 + len(values)))


def only(**changes: object) -> dict[str, object]:
    articles, dead = decode(raw({**GOOD, **changes}), 60_000)
    assert dead is None
    (article,) = articles.to_pylist()
    return article


def test_an_article_has_its_place_in_the_log_and_what_goes_without_saying():
    articles, dead = decode(raw(GOOD), 60_000)
    assert (articles.schema, dead) == (ARTICLES, None)
    assert span_of(articles) == Span("news-raw", 3, 7, 8)
    assert articles.to_pylist() == [
        {
            "article_id": str(uuid.UUID(articles["article_id"][0].as_py())),
            "published_at": 1_795_179_900_000,
            "title": "Apple rises",
            "content": "",
            "source": "wire",
            "url": None,
            "author": None,
            "language": None,
            "symbols": [],
            "categories": [],
            "kind": "news",
            "provider_id": "a-1",
            "partition": 3,
            "offset": 7,
            "log_time": LOG_TIME,
        }
    ]


def test_an_id_is_the_same_for_the_same_source_and_provider_id_only():
    ids = {article_id_of(source, own) for source in ("wire", "daily") for own in ("1", "2", "1")}
    assert len(ids) == 4
    assert all(uuid.UUID(each).version == 5 for each in ids)


@pytest.mark.parametrize("own", ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"])
def test_a_provider_that_has_uuids_keeps_them(own):
    assert only(id=own)["article_id"] == "123e4567-e89b-12d3-a456-426614174000"


def test_a_number_is_an_id_too():
    assert only(id=42)["article_id"] == article_id_of("wire", "42")


def test_tags_are_tidied_and_sorted():
    assert only(symbols=[" MSFT", "AAPL", "", "MSFT"], categories=["b", "a"])["symbols"] == ["AAPL", "MSFT"]


def test_content_alone_is_enough():
    assert only(title=None, content="<p>Up</p>")["content"] == "<p>Up</p>"


def test_a_record_without_a_kafka_timestamp_has_the_time_of_the_article():
    articles, _ = decode(raw(GOOD, log_time=-1), 60_000)
    assert articles["log_time"].to_pylist() == articles["published_at"].to_pylist()


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (b"{", "not_json", "value is"),
        (None, "not_json", "value is null"),
        ([1], "not_an_object", "value is [1]"),
        ({**GOOD, "id": None}, "missing_field", "id is null, wanted: 1 to 500 characters"),
        ({**GOOD, "id": " "}, "bad_value", "id is"),
        ({**GOOD, "title": ""}, "missing_field", "title is absent, and so is content"),
        ({**GOOD, "title": 7}, "bad_type", "title is 7, wanted: a string"),
        ({**GOOD, "published_at": None}, "missing_field", "published_at is null"),
        ({**GOOD, "published_at": "yesterday"}, "bad_timestamp", 'published_at is "yesterday"'),
        ({**GOOD, "published_at": LOG_TIME + 60_001}, "future_timestamp", "published_at is 1795180060001, 60001 ms"),
        ({**GOOD, "symbols": "AAPL"}, "bad_type", 'symbols is "AAPL", wanted: a list of strings'),
        ({**GOOD, "symbols": [1]}, "bad_type", "symbols is [1]"),
        ({**GOOD, "kind": "rumour"}, "bad_value", 'kind is "rumour", wanted: news or post or release'),
    ],
)
def test_a_record_that_is_no_article_is_a_dead_letter_with_its_bytes(value, reason, detail):
    batch = raw(GOOD, value, GOOD)
    articles, dead = decode(batch, 60_000)
    assert articles["offset"].to_pylist() == [7, 9]
    (letter,) = dead.to_pylist()
    assert (letter["reason"], letter["offset"], letter["partition"]) == (reason, 8, 3)
    assert letter["detail"].startswith(detail)
    assert letter["value"] == batch["value"][1].as_py()


def test_heartbeats_pass():
    beat = with_span(raw().slice(0, 0), Span("news-raw", 3, 9, 9, 5000))
    articles, dead = decode(beat, 60_000)
    assert (len(articles), dead, span_of(articles).idle_ms) == (0, None, 5000)
