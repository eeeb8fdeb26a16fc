"""Categories and kinds of labelled headlines, and that only whole words and phrases count."""

import csv
import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms import categories as kernel
from beam_pipelines.transforms.categories import (
    CATEGORIES,
    GENERAL,
    KINDS,
    category_of_kinds,
    news_category,
    news_kinds,
)

with (pathlib.Path(__file__).parent / "data" / "categories.tsv").open(encoding="utf-8", newline="") as file:
    HEADLINES = [
        (row["headline"], row["category"], tuple(filter(None, row["kinds"].split(","))))
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    ]  # of our own writing


def test_the_labelled_headlines_are_many_and_cover_every_category_and_kind():
    assert len(HEADLINES) >= 120
    assert {category for _, category, _ in HEADLINES} == {*CATEGORIES, GENERAL}
    assert {kind for _, _, kinds in HEADLINES for kind in kinds} == set(KINDS)


def test_nine_in_ten_headlines_get_their_category():
    wrong = [(text, news_category(text)) for text, category, _ in HEADLINES if news_category(text) != category]
    assert len(wrong) <= 0.1 * len(HEADLINES), wrong


def test_nine_in_ten_headlines_get_exactly_their_kinds():
    wrong = [(text, news_kinds(text)) for text, _, kinds in HEADLINES if news_kinds(text) != kinds]
    assert len(wrong) <= 0.1 * len(HEADLINES), wrong


@pytest.mark.parametrize(
    "text",
    [
        "An ideal world",
        "Submergers and acquisitionism",
        "Approval rating of the president",
        "Drugstore",
        "Customer acquisition gets dearer",
        "The steps of the temple",  # eps
        "Federal holiday",
        "Trade up your phone",
        "",
        "...",
        "\u00e9rfda",
        "\u0440\u044b\u043d\u043e\u043a",
    ],
)
def test_a_part_of_a_word_or_another_phrase_says_nothing(text):
    assert news_kinds(text) == ()
    assert news_category(text) == GENERAL


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("MERGER", ("ma",)),
        ("\u201cMerger\u201d\u2014talks", ("ma",)),
        ("price-target", ("analyst",)),
        ("price\n  target", ("analyst",)),
        ("Q1 results", ("earnings",)),
        ("Q4 results", ("earnings",)),
        ("Company sees 2031 sales of", ("guidance",)),
        ("merger earnings merger", ("earnings", "ma")),
        ("profit forecast", ("guidance",)),
    ],
)
def test_case_signs_and_white_space_do_not_count_and_digits_are_alike(text, kinds):
    assert news_kinds(text) == kinds


def test_the_first_of_the_categories_takes_precedence():
    assert news_category("merger, FDA, outlook and quarterly results") == "earnings"
    assert news_category("outlook, FDA and merger") == "ma"
    assert news_category("outlook and FDA") == "regulatory"
    assert news_category("outlook and dividend") == "guidance"
    assert news_category("dividend") == GENERAL
    assert category_of_kinds(("guidance", "ma")) == "ma"


def test_no_phrase_stands_for_two_kinds():
    listed = [kernel._folded(phrase) for phrases in kernel._PHRASES.values() for phrase in phrases.split(",")]
    unlike = [phrase for phrase in listed if b"0" not in phrase]
    assert len(unlike) == len(set(unlike))
    assert all(phrase.strip() for phrase in listed)


@given(st.text(st.characters(exclude_categories=[])), st.sampled_from(HEADLINES))
def test_any_text_has_a_category_and_kinds_and_a_sentence_more_takes_none_away(text, headline):
    kinds = news_kinds(f"{text} ; {headline[0]}")
    assert news_category(text) in {*CATEGORIES, GENERAL}
    assert list(kinds) == sorted(set(kinds))
    assert set(news_kinds(text)) <= set(KINDS)


@pytest.mark.parametrize("text", ["deal " * 2_000_000, "a" * 10_000_000, "customer " * 1_000_000])
def test_ten_megabytes_take_seconds(text):
    begin = time.perf_counter()
    news_kinds(text)
    assert time.perf_counter() - begin < 10
