"""The words and phrases of financial news by the parts that they play in a sentence: data/finance_lexicon.txt."""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

__all__ = ["BITS", "PHRASE", "Lexicon", "lexicon"]

_CLASSES = (
    "up", "up2", "down", "down2",  # directions, plain and strong
    "up if", "down if",  # directions only beside a figure: "creates jobs"
    "intransitive",  # directions that follow their figure: "profit rose", never "rose profit"
    "metric+", "metric-",  # figures, good or bad when they rise
    "pos", "pos2", "neg", "neg2",  # judgements, plain and strong
    "upgrade", "downgrade",  # by analysts; what follows names the ratings
    "negator", "relief",  # "not good", "avoids bankruptcy"
    "neutral", "hedge", "plus", "minus",  # description, possibility, signed numbers
    "stop", "compare", "boundary",  # end of a phrase, between two figures compared, end of a clause
    "intensifier", "diminisher", "ignore",  # words that no other class may take: "up to"
)  # fmt: skip

BITS = {name: 1 << number for number, name in enumerate(_CLASSES)}
"""The bit of each class."""

PHRASE = 1 << len(_CLASSES)
"""The bit of words that begin a phrase."""


class Lexicon(NamedTuple):
    """Classes of words as bits, and of phrases by their first two words: (further words, bits), longest first."""

    words: dict[str, int]
    phrases: dict[tuple[str, str], list[tuple[list[str], int]]]


@cache
def lexicon() -> Lexicon:
    """The lexicon of this package."""
    words: dict[str, int] = {}
    phrases: dict[tuple[str, str], dict[tuple[str, ...], int]] = {}
    for entry, bit in _entries((resources.files(__package__) / "data" / "finance_lexicon.txt").read_text("utf-8")):
        first, *rest = entry.split("_")
        words[first] = words.get(first, 0) | (PHRASE if rest else bit)
        if rest:
            known = phrases.setdefault((first, rest[0]), {})
            known[tuple(rest[1:])] = known.get(tuple(rest[1:]), 0) | bit
    return Lexicon(words, {begin: _longest_first(known) for begin, known in phrases.items()})


def _longest_first(known: dict[tuple[str, ...], int]) -> list[tuple[list[str], int]]:
    return sorted(((list(rest), bits) for rest, bits in known.items()), key=lambda phrase: -len(phrase[0]))


def _entries(text: str) -> Iterator[tuple[str, int]]:
    """Each word or phrase of the file with the bit of its class; what the file's notation means, says its head."""
    bit = 0
    for line in text.splitlines():
        if line.startswith("["):
            bit = BITS[line.strip("[]")]
        elif not line.startswith("#"):
            for item in line.split():
                forms, underscore, rest = item.partition("_")
                base, *endings = forms.split("/")
                yield from ((base + ending + underscore + rest, bit) for ending in ("", *endings))
