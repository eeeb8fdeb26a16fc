"""The language of headlines and posts: accuracy on labelled texts, and that English is not taken for another one."""

import collections
import csv
import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms.language import LANGUAGES, UNDETERMINED, language_of

HERE = pathlib.Path(__file__).parent
SENTIMENT = HERE.parents[1] / ".." / "shared" / "sentiment"
LABELLED = [
    line.split("\t") for line in (HERE / "data" / "languages.tsv").read_text(encoding="utf-8").splitlines()
]  # code, text: of our own writing
ENGLISH = [text for code, text in LABELLED if code == "en"]
OTHERS = [(code, text) for code, text in LABELLED if code != "en"]


def share(verdicts) -> float:
    verdicts = list(verdicts)
    return sum(verdicts) / len(verdicts)


def test_the_labelled_texts_are_many_and_in_many_languages():
    assert len(ENGLISH) >= 60
    assert len({code for code, _ in OTHERS}) >= 12


def test_english_headlines_full_of_names_and_numbers_are_english():
    assert share(language_of(text) == "en" for text in ENGLISH) >= 0.97


def test_sentences_of_forty_characters_in_other_languages_are_not_english():
    long = [text for _, text in OTHERS if len(text) >= 40]
    assert len(long) >= 60
    assert share(language_of(text) != "en" for text in long) >= 0.95


def test_sentences_in_other_languages_are_told_apart():
    wrong = collections.Counter((code, language_of(text)) for code, text in OTHERS if language_of(text) != code)
    assert wrong.total() <= 0.05 * len(OTHERS), wrong


def test_half_headlines_in_other_languages_are_mostly_told():
    assert share(language_of(text[:35]) == code for code, text in OTHERS) >= 0.9


@pytest.mark.parametrize(
    "text",
    [
        "$TSLA to the moon",
        "AAPL Q3 EPS $1.26 vs $1.19 est.",
        "$NVDA calls printing",
        "PFIZER WINS FDA APPROVAL",
        "to the moon",
    ],
)
def test_a_short_post_or_a_headline_in_capitals_is_english(text):
    assert language_of(text) == "en"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "...",
        "12.5%",
        "$TSLA",
        "$TSLA $AAPL +3.2%",
        "\U0001f680\U0001f680",
        "https://t.co/fjxLlOjDJu",
        "@TicToc",
        "#stocks",
        "up",
    ],
)
def test_a_text_without_words_is_undetermined(text):
    assert language_of(text) == UNDETERMINED


def test_capitals_do_not_change_the_language():
    assert [language_of(text.upper()) for _, text in OTHERS if text.upper().lower() == text.lower()].count("en") <= 3


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_has_one_of_the_codes(text):
    assert language_of(text) in LANGUAGES | {UNDETERMINED}


def test_only_the_start_of_a_long_text_counts():
    begin = time.perf_counter()
    assert language_of(OTHERS[0][1] * 3 + "The company said sales rose. " * 400_000) == "de"
    assert language_of("$" * 10_000_000) == UNDETERMINED
    assert time.perf_counter() - begin < 2


@pytest.mark.skipif(not SENTIMENT.exists(), reason="needs the recorded news texts of ../shared/sentiment")
def test_recorded_business_news_and_tweets_are_english():
    with (SENTIMENT / "twitter_financial_news_sent_train.csv").open(encoding="utf-8", newline="") as file:
        tweets = [row["text"] for row in csv.DictReader(file)]
    sentences = (SENTIMENT / "financial_phrasebank_50Agree.txt").read_text(encoding="latin-1").splitlines()
    assert share(language_of(text) == "en" for text in sentences) >= 0.998
    assert share(language_of(text) == "en" for text in tweets) >= 0.985  # a few dozen are in other languages, or links
