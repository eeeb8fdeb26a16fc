"""Signatures are datasketch's, estimate the Jaccard index, and find wire stories but do not merge templates."""

import itertools
import random
import re

import datasketch
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.transforms import near_duplicates as kernel
from beam_pipelines.transforms.near_duplicates import (
    SHINGLE_WORDS,
    SIGNATURE_SIZE,
    THRESHOLD,
    bands_of,
    last_alike,
    signature_of,
    similarity,
)

VOCABULARY = "profit sales rose fell the a of in q3 1 26 apple tesla"
WORDS = st.lists(st.sampled_from(VOCABULARY.split()), max_size=40)
STORY = """Volkswagen said on Tuesday it would cut its forecast for deliveries this year after weak demand in China and
rising costs weighed on its core passenger car brand in the third quarter. Europe's largest carmaker now expects to
deliver around nine million vehicles, down from a previous estimate of nine and a half million, it said in a statement.
Operating profit fell 42 percent to 2.9 billion euros, missing the 3.1 billion euros that analysts had expected on
average. "We have to bring down our costs at every level and we have to do it now," finance chief Arno Antlitz said on a
call with reporters. Workers' representatives have threatened strikes at the company's German plants from December
should management press ahead with plans to close factories for the first time in its history. Shares in the company,
which have lost a quarter of their value since January, were down 1.5 percent in early Frankfurt trading. The group
confirmed its outlook for net cash flow in its automotive division, which it had lowered twice since July, and said that
talks with the union about a new wage agreement would be resumed in the coming week in Wolfsburg."""
TEMPLATE = """{name} ({ticker}) came out with quarterly earnings of ${eps} per share, beating the consensus estimate
of ${estimate} per share. This compares to earnings of ${last} per share a year ago. These figures are adjusted for
non-recurring items. This quarterly report represents an earnings surprise of {surprise}%. A quarter ago, it was
expected that this {business} would post earnings of ${before} per share when it actually produced earnings of
${actual}. {name}, which belongs to the {industry} industry, posted revenues of ${revenue} million for the quarter ended
{month}."""
ONE = TEMPLATE.format(
    name="Acme Robotics", ticker="ACMR", eps="1.26", estimate="1.19", last="1.04", surprise="5.88", before="0.98",
    business="maker of industrial robots", actual="1.02", industry="Industrial Automation", revenue="412.7",
    month="September 2024",
)  # fmt: skip
OTHER = TEMPLATE.format(
    name="Borealis Foods", ticker="BRLS", eps="0.47", estimate="0.45", last="0.52", surprise="4.44", before="0.39",
    business="producer of frozen meals", actual="0.41", industry="Packaged Goods", revenue="1,093.4",
    month="October 2024",
)  # fmt: skip


def likeness(one: str, other: str) -> float:
    return similarity(signature_of(one), signature_of(other))


def share_a_band(one: str, other: str) -> bool:
    return bool(np.intersect1d(bands_of(signature_of(one)), bands_of(signature_of(other))).size)


def exact(one: str, other: str) -> float:
    """The Jaccard index of the runs of words, word by word."""

    def runs(text):
        words = ["", "", "", "", *re.findall(r"\w+", text.lower()), "", "", "", ""]
        return {tuple(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)}

    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


@pytest.mark.parametrize("text", ["", "Tesla", STORY, ONE, STORY * 20])
def test_a_signature_is_datasketchs(text):
    reference = datasketch.MinHash(SIGNATURE_SIZE, seed=1, hashfunc=int, scheme="affine32")
    reference.update_batch(kernel._shingles(text))
    np.testing.assert_array_equal(signature_of(text), reference.hashvalues)


def test_a_signature_does_not_change_between_versions_and_machines():
    values = signature_of("Apple reports fourth-quarter earnings above Wall Street estimates")
    assert values.dtype == np.uint32
    assert values[:4].tolist() == [949677484, 265117612, 334189628, 261889992]


def test_the_estimate_is_within_four_standard_errors_of_the_jaccard_index():
    words = STORY.split()
    generator = random.Random(5)
    for changes in range(0, 60, 3):
        edited = list(words)
        for at in generator.sample(range(len(words)), changes):
            edited[at] = f"word{at}"
        text = " ".join(edited)
        assert likeness(STORY, text) == pytest.approx(exact(STORY, text), abs=4 * 0.5 / SIGNATURE_SIZE**0.5)


@given(WORDS, WORDS)
def test_a_text_without_a_run_in_common_is_unlike_and_the_same_words_are_alike(one, other):
    one_text, other_text = " ".join(one), ", ".join(other).upper()
    if one and exact(one_text, other_text) == 0:
        assert likeness(one_text, other_text) == 0
    if one == other:
        assert likeness(one_text, other_text) == 1


@given(st.text(st.characters(exclude_categories=[])), st.text(st.characters(exclude_categories=[])))
def test_any_two_texts_have_a_likeness_in_either_order(one, other):
    assert likeness(one, other) == likeness(other, one)
    assert 0 <= likeness(one, other) <= 1
    assert likeness(one, one) == 1


def test_the_order_of_sentences_matters_little_in_a_long_text():
    sentences = STORY.replace("\n", " ").split(". ")
    assert likeness(STORY, ". ".join([*sentences[2:], *sentences[:2]])) >= 0.8


@pytest.mark.parametrize(
    "copy",
    [
        "BERLIN, Oct 30 (Reuters) - " + STORY + " (Reporting by Jan Schwarz; Editing by Anna Blum)",
        "UPDATE 1-" + STORY.replace("Tuesday", "Oct. 29"),
        STORY.replace("percent", "per cent").replace("carmaker", "automaker"),
        STORY[:-130] + " © 2024 Example Media. All rights reserved.",
        STORY.upper().replace("\n", "  "),
        STORY.replace("'", "\u2019").replace('"', "\u201c"),
    ],
)
def test_a_wire_story_is_found_again_at_another_outlet(copy):
    assert share_a_band(STORY, copy)
    assert likeness(STORY, copy) >= THRESHOLD


def test_stories_of_one_template_about_other_companies_are_not_merged():
    shared = set(re.findall(r"\w+", ONE)) & set(re.findall(r"\w+", OTHER))
    assert len(shared) > 0.5 * len(set(re.findall(r"\w+", ONE)))
    assert likeness(ONE, OTHER) < THRESHOLD - 0.3


HEADLINES = [
    "LRAD EPS misses by $0.01, misses on revenue",
    "MAXIMUS EPS misses by $0.01, misses on revenue",
    "MAXIMUS EPS misses by $0.02, misses on revenue",
    "Apple reports Q3 EPS $1.26, beats by $0.07",
    "Microsoft reports Q3 EPS $1.26, beats by $0.07",
    "Microsoft reports Q3 EPS $2.95, beats by $0.12",
    "Amkor Technology Reports Financial Results for the Fourth Quarter and Full Year 2019",
    "Protolabs Reports Financial Results for the Fourth Quarter and Full Year 2019",
    "Wedbush raises Apple price target to $250",
    "Wedbush raises Apple price target to $260",
    "Here's what happened to the stock market on Monday",
    "Here's what happened to the stock market on Friday",
    "Tesla soars",
    "Tesla falls",
    "$TSLA",
    "$AAPL",
    "\U0001f680",
    "\U0001f4c9",
    "",
]


def test_short_headlines_of_one_template_are_not_merged():
    for one, other in itertools.combinations(HEADLINES, 2):
        assert likeness(one, other) < THRESHOLD, (one, other)


@pytest.mark.parametrize("headline", HEADLINES)
def test_a_headline_is_found_again_by_its_words_only(headline):
    assert likeness(headline, headline.upper().replace(" ", "  ")) == 1
    assert likeness(headline, headline + " now") < THRESHOLD


def test_bands_are_found_as_often_as_stated():
    bands, rows = 25, 5
    keys = bands_of(signature_of(STORY))
    assert len(set(keys.tolist())) == len(keys) == bands
    for chance, alike in ((0.9999, 0.8), (0.988, THRESHOLD), (0.55, 0.5), (0.008, 0.2)):
        assert 1 - (1 - alike**rows) ** bands == pytest.approx(chance, abs=0.005)


def test_equal_signatures_have_equal_bands_and_unlike_texts_none_in_common():
    assert bands_of(signature_of(STORY)).tolist() == bands_of(signature_of(STORY.upper())).tolist()
    assert not share_a_band(STORY, ONE)


def test_a_band_is_the_key_of_its_own_values_only():
    signature = signature_of(STORY)
    for place, value in enumerate(signature):
        changed = signature.copy()
        changed[place] = value ^ 1
        same = (bands_of(changed) == bands_of(signature)).tolist()
        assert same == [band != place // 5 for band in range(25)]


@given(st.lists(st.integers(0, 4), max_size=12), st.randoms())
def test_the_last_near_duplicate_before_a_text_is_found_among_all_pairs(numbers, chance):
    signatures = [_changed(signature_of(HEADLINES[number]), chance.randint(0, 60), chance) for number in numbers]
    found = last_alike(np.array(signatures, np.uint32).reshape(-1, SIGNATURE_SIZE))
    for at, one in enumerate(signatures):
        near = [
            before
            for before, other in enumerate(signatures[:at])
            if similarity(one, other) >= THRESHOLD and np.intersect1d(bands_of(one), bands_of(other)).size
        ]
        assert found[at] == max(near, default=-1)


def _changed(signature, values, chance):
    changed = signature.copy()
    changed[chance.sample(range(SIGNATURE_SIZE), values)] ^= 1
    return changed


def test_signatures_do_not_depend_on_the_texts_before():
    long = "x" * 50
    before = signature_of(f"a-b c_d {long} \ud800 Ünïcode").tolist()
    for text in ("", "--", "A-B", "a b", long, f"{long} a-b"):
        signature_of(text)
    assert signature_of(f"a-b c_d {long} \ud800 Ünïcode").tolist() == before
    assert signature_of("a-b\tc").tolist() == signature_of("A b, c").tolist()


def test_a_long_text_takes_linear_time_and_little_memory():
    many = " ".join(map(str, range(300_000)))
    assert likeness(many, many + " end") > 0.99
    assert signature_of("$" * 10_000_000).shape == (SIGNATURE_SIZE,)
