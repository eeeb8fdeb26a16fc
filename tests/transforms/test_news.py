"""What an article's row says, which articles are scored, and how the message carries it."""

import itertools
import json
import uuid
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.batches import RAW, SCORED, Span, span_of, with_span
from beam_pipelines.transforms.news import Reading, known_at, scored_articles, sentiment_messages
from beam_pipelines.transforms.sentiment import category_of, default_model
from beam_pipelines.transforms.symbols import packaged_directory
from beam_pipelines.transforms.timestamps import LAST_MS, iso_ms

READING = Reading(default_model(), packaged_directory())
MAX_FUTURE_MS = 60_000
PUBLISHED = "2026-11-20T13:05:00.250Z"
AT = iso_ms(PUBLISHED)
LOG_TIME = AT + 90_000
GERMAN = "Der Konzern hat im dritten Quartal mehr verdient als von den Analysten erwartet, teilte er am Montag mit."
SEED = [  # the fields that consumers of the topic were promised first
    "article_id",
    "symbols",
    "sentiment_score",
    "sentiment_category",
    "news_category",
    "published_at",
    "source",
    "processed_at",
]
OURS = ["symbol_scores", "confidence", "kinds", "kind", "language", "title", "url", "model", "pipeline_version"]


def article(number: int = 0, **changes: object) -> dict[str, object]:
    return {"id": f"a-{number}", "title": "Apple rises", "published_at": PUBLISHED, "source": "wire", **changes}


def log(articles: list[dict[str, object]], log_time: int = LOG_TIME, first: int = 7) -> pa.RecordBatch:
    values = [json.dumps(it).encode() for it in articles]
    offsets = range(first, first + len(values))
    columns = [offsets, [log_time] * len(values), [None] * len(values), values]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.RecordBatch.from_arrays(arrays, schema=RAW), Span("news-raw", 3, first, first + len(values)))


def scored(*articles: dict[str, object], log_time: int = LOG_TIME, reading: Reading = READING) -> pa.RecordBatch:
    decoded, dead = decode(log(list(articles), log_time), MAX_FUTURE_MS)
    assert dead is None
    return scored_articles(decoded, reading)


def row(log_time: int = LOG_TIME, reading: Reading = READING, **changes: object) -> dict[str, Any]:
    return scored(article(**changes), log_time=log_time, reading=reading).to_pylist()[0]


def test_a_row_says_what_the_article_says_and_where_it_is_in_the_log():
    batch = scored(article(content="<p>Apple (NASDAQ: AAPL) beat estimates as profit jumped.</p>", url="https://x/1"))
    assert batch.schema == SCORED
    assert span_of(batch) == Span("news-raw", 3, 7, 8)
    found = batch.to_pylist()[0]
    assert found["sentiment_score"] > 0.3
    assert 0 < found["confidence"] <= 1
    assert len(found["signature"]) > 0
    told = ("article_id", "signature", "sentiment_score", "symbol_scores", "confidence", "model")
    assert uuid.UUID(found["article_id"]).version == 5
    assert found["symbol_scores"] == [found["sentiment_score"]]
    assert {name: value for name, value in found.items() if name not in told} == {
        "published_at": AT,
        "symbols": ["AAPL"],
        "sentiment_category": "positive",
        "news_category": "earnings",
        "source": "wire",
        "kinds": ["earnings"],
        "kind": "news",
        "language": "en",
        "title": "Apple rises",
        "url": "https://x/1",
        "known_at": LOG_TIME,
        "partition": 3,
        "offset": 7,
    }


def test_symbols_are_those_of_the_text_and_of_the_provider_each_once():
    tags = ["tsla", " aapl ", "AAPL", "brk.b", "", "A-SYMBOL-OF-MORE-THAN-20-CHARACTERS"]
    assert row(title="Apple and Microsoft sign a deal", symbols=tags)["symbols"] == ["AAPL", "BRK.B", "MSFT", "TSLA"]


def test_an_article_that_names_no_company_has_no_symbol_and_is_scored():
    found = row(title="Stocks plunge as fears of a recession grow")
    assert (found["symbols"], found["symbol_scores"]) == ([], [])
    assert found["sentiment_score"] < 0


def test_each_symbol_has_what_is_said_of_it():
    found = row(title="Apple shares rise while Tesla falls", content="Tesla missed estimates.")
    said = dict(zip(found["symbols"], found["symbol_scores"], strict=True))
    assert said["AAPL"] > 0.3
    assert said["TSLA"] < -0.3


def test_a_symbol_that_only_the_provider_names_has_the_score_of_the_article():
    found = row(title="Apple shares rise while Tesla falls", symbols=["XYZ"])
    said = dict(zip(found["symbols"], found["symbol_scores"], strict=True))
    assert said["XYZ"] == found["sentiment_score"]
    assert said["AAPL"] > said["XYZ"] > said["TSLA"]


def test_a_language_that_the_model_does_not_read_is_not_scored_but_said():
    found = row(title="Mehr Gewinn", content=GERMAN, symbols=["SAP", "DB"])
    assert found["language"] == "de"
    assert found["symbols"] == ["DB", "SAP"]
    assert found["symbol_scores"] == [None, None]
    assert [found[name] for name in ("sentiment_score", "sentiment_category", "confidence")] == [None] * 3
    assert found["news_category"]
    reads_german = Reading(READING.model, READING.directory, frozenset({"de"}))
    assert row(title="Mehr Gewinn", content=GERMAN, reading=reads_german)["sentiment_score"] is not None


def test_a_text_whose_language_cannot_be_told_is_scored():
    found = row(title="$TSLA 🚀")
    assert (found["language"], found["symbols"]) == ("und", ["TSLA"])
    assert found["sentiment_score"] is not None


def test_the_title_is_plain_text():
    assert row(title="<b>AT&amp;amp;T</b>\u200b rises\x00 <script>x()</script>")["title"] == "AT&T rises"


def test_an_article_is_known_when_it_is_in_the_log_or_published_if_that_is_later():
    assert row(log_time=AT + 1)["known_at"] == AT + 1
    assert row(log_time=AT - 1)["known_at"] == AT
    assert row(log_time=-1)["known_at"] == AT
    batch, _ = decode(log([article(published_at=AT + day) for day in range(3)], log_time=AT + 1), MAX_FUTURE_MS)
    assert known_at(batch).to_pylist() == [AT + 1, AT + 1, AT + 2]


def test_a_log_time_beyond_all_calendars_is_none():
    assert row(log_time=LAST_MS)["known_at"] == LAST_MS
    assert row(log_time=LAST_MS + 1)["known_at"] == AT  # a producer's microseconds, say


def test_a_row_is_a_function_of_the_article_alone():
    articles = [
        article(number, title=title, content=content)
        for number, (title, content) in enumerate(
            itertools.product(("Apple rises", "Tesla falls 5 %", ""), ("Intel cuts its outlook.", GERMAN, "x"))
        )
    ]
    together = scored(*articles).to_pylist()
    for number, each in enumerate(articles):
        alone = scored_articles(decode(log([each], first=7 + number), MAX_FUTURE_MS).articles, READING).to_pylist()
        assert alone == together[number : number + 1]


# --- messages ---


def test_a_message_has_the_fields_that_were_promised_and_ours():
    batch = scored(article(title="Apple shares rise while Tesla falls", content="Up.", url="https://x/1"))
    (message,) = sentiment_messages(batch).to_pylist()
    value, found = json.loads(message["value"]), batch.to_pylist()[0]
    assert set(value) == {*SEED, *OURS}
    assert value["published_at"] == PUBLISHED
    assert value["processed_at"] == "2026-11-20T13:06:30.250Z"  # the log's time: every copy is equal
    written = {"published_at", "processed_at", "pipeline_version"}
    assert {name: value[name] for name in value if name not in written} == {
        name: found[name] for name in (*SEED, *OURS) if name not in written
    }


def test_a_message_has_the_articles_id_for_its_key_and_the_place_of_its_record():
    batch = scored(article(0), article(1))
    found = sentiment_messages(batch)
    assert found["key"].to_pylist() == [it.encode() for it in batch["article_id"].to_pylist()]
    assert (found["partition"].to_pylist(), found["offset"].to_pylist()) == ([3, 3], [7, 8])


def test_messages_are_the_same_in_any_batches():
    articles = [article(number, title=f"Apple rises {number} %", symbols=["IBM"]) for number in range(12)]
    decoded, _ = decode(log(articles), MAX_FUTURE_MS)
    span = span_of(decoded)

    def messages(*sizes: int) -> list[dict[str, object]]:
        ends = list(itertools.accumulate(sizes))
        parts = [decoded.slice(end - size, size) for end, size in zip(ends, sizes, strict=True)]
        return [
            message
            for part in parts
            for message in sentiment_messages(scored_articles(with_span(part, span), READING)).to_pylist()
        ]

    assert messages(12) == messages(*[1] * 12) == messages(5, 0, 7)


def test_a_batch_without_articles_has_neither_rows_nor_messages():
    empty = scored()
    assert (len(empty), empty.schema, len(sentiment_messages(empty))) == (0, SCORED, 0)


# --- any text ---


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["Apple rises, Tesla falls. ", "<p>Apple</p>", "<", "&amp;", "$AAPL ", "\u0301", "a"])
def test_an_article_of_ten_megabytes_is_read_in_bounded_time(piece):
    size = 10_000_000
    whole = piece * (size // len(piece))
    found = row(title=whole, content=whole)
    assert len(found["title"]) <= 1_000
    assert len(found["symbols"]) <= 2


def assert_fits_the_tables(found: dict[str, Any]) -> None:
    """The constraints of sql/0006_news.sql."""
    scores = [found["sentiment_score"], *found["symbol_scores"]]
    assert all(score is None or (-1 <= score <= 1 and score == round(score, 4)) for score in scores)
    assert len(found["symbol_scores"]) == len(found["symbols"])
    assert found["symbols"] == sorted(set(found["symbols"]))
    assert all(0 < len(symbol) <= 20 and "\0" not in symbol for symbol in found["symbols"])
    assert found["confidence"] is None or 0 <= found["confidence"] <= 1
    category = None if found["sentiment_score"] is None else category_of(found["sentiment_score"])
    assert found["sentiment_category"] == category
    assert found["news_category"]
    assert "\0" not in found["title"]
    found["title"].encode()
    assert found["known_at"] >= found["published_at"]


WORDS = st.sampled_from(
    [
        "Apple",
        "Tesla",
        "$AAPL",
        "(NYSE: T)",
        "falls",
        "rises",
        "beats",
        "while",
        "<p>",
        "</p>",
        "&amp;",
        "5 %",
        "\n",
        ".",
    ]
)
ANY = st.text() | st.lists(WORDS).map(" ".join)


@settings(max_examples=300)
@given(title=ANY, content=ANY, tags=st.lists(st.text(max_size=100), max_size=3))
def test_any_text_gives_a_row_that_fits_the_tables(title, content, tags):
    decoded, dead = decode(log([article(title=title, content=content, symbols=tags)]), MAX_FUTURE_MS)
    if dead is not None:  # neither title nor content, or a tag with control characters
        assert dead["reason"].to_pylist()[0] in {"missing_field", "bad_value"}
        return
    batch = scored_articles(decoded, READING)
    assert_fits_the_tables(batch.to_pylist()[0])
    (message,) = sentiment_messages(batch).to_pylist()
    assert json.loads(message["value"])["title"] == batch["title"][0].as_py()
