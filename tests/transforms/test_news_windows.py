"""Windows of news against a plain count, in any order and batching, without a look ahead."""

import math
import uuid

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.batches import SCORED, WINDOWS, joined
from beam_pipelines.transforms.near_duplicates import THRESHOLD, signature_of, similarity
from beam_pipelines.transforms.news_windows import LENGTHS, SIGNATURE, CountNews, facts_of, windows_of

DAY = 20_777
MIDNIGHT = DAY * 86_400_000
HOUR = 3_600_000
STORIES = [
    "Shares of the company rose after it said that its revenue had grown by a tenth in the third quarter of the year",
    "The regulator opened an investigation of the bank over how it had sold mortgages to customers in the north",
    "A court in Delaware refused to stop the merger, and both companies expect to close it before the end of March",
]
BODIES = [
    " ".join([story, *(f"Sentence {number} of story {at} says more." for number in range(20))])
    for at, story in enumerate(STORIES)
]
COPIES = [f"(Daily) {body} It was reported on Friday" for body in BODIES]
TEXTS = [*BODIES, *COPIES]


def signature(text: str) -> np.ndarray:
    return signature_of(text).astype(SIGNATURE)


def article(number: int, known_at: int, text: int, score: float | None, age: int = 0) -> dict[str, object]:
    return {
        **{field.name: None for field in SCORED},
        "article_id": str(uuid.UUID(int=number)),
        "published_at": known_at - age,
        "known_at": known_at,
        "symbols": ["AAPL", "MSFT"],
        "symbol_scores": [score, score and -score],
        **dict.fromkeys(("news_category", "source", "kind", "language", "title", "model"), "x"),
        "kinds": [],
        "partition": number % 3,
        "offset": number,
        "signature": signature(TEXTS[text]).tobytes(),
    }


def batch(*articles: dict[str, object]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(articles), SCORED)


def counted(articles: list[dict[str, object]], symbol: str, end: int, length_ms: int) -> tuple[int, ...]:
    """Articles, stories, good and bad ones in a window, by looking at every pair."""
    inside = sorted(
        (it for it in articles if end - length_ms <= it["known_at"] < end),
        key=lambda it: (it["known_at"], it["article_id"]),
    )
    values = [np.frombuffer(it["signature"], SIGNATURE) for it in inside]
    stories = [
        it
        for at, it in enumerate(inside)
        if not any(similarity(values[at], earlier) >= THRESHOLD for earlier in values[:at])
    ]
    scores = [it["symbol_scores"][it["symbols"].index(symbol)] for it in stories]
    good, bad = (sum(sign * score > 0.3 for score in scores if score is not None) for sign in (1, -1))
    return len(inside), len(stories), good, bad


def rows_of(batches: list[pa.RecordBatch]) -> dict[tuple[object, ...], dict[str, object]]:
    """The last row of each identity."""
    rows = (row for each in batches for row in each.to_pylist())
    return {(row["symbol"], row["time"], row["window_seconds"]): row for row in rows}


def streamed(pieces: list[pa.RecordBatch]) -> dict[tuple[object, ...], dict[str, object]]:
    """What is written if the pieces come one after the other."""
    held: dict[str, list[pa.RecordBatch]] = {}
    written = []
    for piece in pieces:
        for key, facts in facts_of(piece):
            held.setdefault(key, []).append(facts)
            written.append(windows_of(key, joined(held[key]), facts["known_at"].to_numpy()))
    return rows_of(written)


articles_of_two_days = st.lists(
    st.builds(
        article,
        number=st.integers(1, 10**6),
        known_at=st.integers(MIDNIGHT - 30 * HOUR, MIDNIGHT + 30 * HOUR),
        text=st.integers(0, len(TEXTS) - 1),
        score=st.one_of(st.none(), st.integers(-10, 10).map(lambda tenths: tenths / 10)),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda it: it["article_id"],
)


def test_the_copies_are_near_duplicates_and_the_stories_are_not():
    values = list(map(signature, TEXTS))
    alike = {(a, b) for a in range(6) for b in range(a) if similarity(values[a], values[b]) >= THRESHOLD}
    assert alike == {(3, 0), (4, 1), (5, 2)}


@given(articles=articles_of_two_days)
def test_windows_hold_what_a_plain_count_finds(articles):
    rows = streamed([batch(*articles)])
    for (symbol, end, seconds), row in rows.items():
        found = tuple(row[name] for name in ("article_count", "story_count", "positive_count", "negative_count"))
        assert found == counted(articles, symbol, end, seconds * 1000)
    for length in LENGTHS:
        ends = range(MIDNIGHT - 60 * HOUR, MIDNIGHT + 60 * HOUR, length.step)
        wanted = {end for end in ends if any(end - length.window <= it["known_at"] < end for it in articles)}
        assert {end for symbol, end, seconds in rows if seconds * 1000 == length.window and symbol == "AAPL"} == wanted


@given(articles=articles_of_two_days, data=st.data())
def test_the_last_rows_depend_neither_on_order_nor_on_batches(articles, data):
    shuffled = data.draw(st.permutations(articles))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(articles)), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, len(articles)], strict=True))
    pieces = [batch(*shuffled[first:last]) for first, last in bounds]
    assert streamed([it for it in pieces if len(it)]) == streamed([batch(*articles)])


@given(articles=articles_of_two_days)
def test_the_batch_of_one_day_has_just_the_rows_that_end_on_it(articles):
    whole = {key: row for key, row in streamed([batch(*articles)]).items() if key[1] // 86_400_000 == DAY}
    alone = rows_of([windows_of(key, facts) for key, facts in facts_of(batch(*articles), DAY)])
    assert alone == whole


@given(articles=articles_of_two_days, until=st.integers(MIDNIGHT - 30 * HOUR, MIDNIGHT + 30 * HOUR))
def test_no_row_knows_what_came_after_its_end(articles, until):
    before = [it for it in articles if it["known_at"] < until]
    early = streamed([batch(*before)]) if before else {}
    whole = streamed([batch(*articles)])
    ended = {key for key in {*early, *whole} if key[1] <= until}
    assert {key: early.get(key) for key in ended} == {key: whole.get(key) for key in ended}


def test_an_article_that_comes_again_counts_as_it_was_at_first():
    first = article(1, MIDNIGHT + HOUR, 0, 0.5)
    again = article(1, MIDNIGHT + 2 * HOUR, 1, -0.5) | {"offset": 99}
    assert streamed([batch(first), batch(again)]) == streamed([batch(first, again)]) == streamed([batch(first)])
    row = rows_of([windows_of(*next(facts_of(batch(first, again), DAY)))])["AAPL", MIDNIGHT + 2 * HOUR, 86_400]
    assert (row["article_count"], row["sentiment"]) == (1, 0.5)


def test_what_is_older_than_the_longest_window_when_it_comes_is_no_news():
    day = 24 * HOUR
    assert [len(list(facts_of(batch(article(1, MIDNIGHT, 0, 0.5, age))))) for age in (day, day + 1)] == [4, 0]


def test_weights_halve_with_age_and_the_mean_is_of_stories():
    known = [MIDNIGHT + HOUR, MIDNIGHT + 7 * HOUR, MIDNIGHT + 8 * HOUR]
    news = [article(1, known[0], 0, 1.0), article(2, known[1], 1, -0.5), article(3, known[2], 3, 0.0)]
    row = streamed([batch(*news)])["AAPL", MIDNIGHT + 9 * HOUR, 86_400]
    weights = [0.5 ** (8 / 6), 0.5 ** (2 / 6)]  # the third repeats the first
    assert row["sentiment"] == 0.25
    assert row["decayed_sentiment"] == pytest.approx((weights[0] - 0.5 * weights[1]) / math.fsum(weights), abs=5e-5)
    assert (row["article_count"], row["story_count"], row["newest_at"]) == (3, 2, known[2])


def test_what_is_not_scored_is_counted_all_the_same():
    row = streamed([batch(article(1, MIDNIGHT + HOUR, 0, None))])["MSFT", MIDNIGHT + 2 * HOUR, 3600]
    assert (row["story_count"], row["sentiment"], row["decayed_sentiment"]) == (1, None, None)
    assert WINDOWS.field("sentiment").nullable


def test_the_state_holds_an_article_each_however_many_batches_came():
    articles = [article(number, MIDNIGHT + number * 600_000, number % 6, 0.5) for number in range(80)]
    wanted = rows_of([windows_of(key, facts) for key, facts in facts_of(batch(*articles))])

    def last_rows_are_those_of_all(written):
        written.sort(key=lambda row: row["article_count"])  # a row comes again with every article of its window
        last = {(row["symbol"], row["time"], row["window_seconds"]): row for row in written}
        assert last == wanted

    with beam.Pipeline() as pipeline:
        one_by_one = pipeline | beam.Create([batch(it) for it in articles]).with_output_types(pa.RecordBatch)
        rows = one_by_one | CountNews(unbounded=True) | beam.FlatMap(pa.RecordBatch.to_pylist)
        assert_that(rows, last_rows_are_those_of_all)
