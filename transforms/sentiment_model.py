"""A sentiment model that needs nothing but dictionaries: quick, and the same on every machine.

It is a multinomial logistic regression (classes negative, neutral, positive) over the words, pairs of
words and rule events (`finance_events`) of a text.  Its weights are whole numbers, so their sums are exact and a text
gets the same result on every machine and in every batch.  `tests.bench.sentiment_training` makes the weights;
data/sentiment_weights.txt says from what.
"""

import collections
import math
import operator
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import pairwise, repeat
from typing import NamedTuple, Protocol

from beam_pipelines.transforms.finance_events import events_of
from beam_pipelines.transforms.tokens import classes_of, tokens_of

__all__ = [
    "MAX_EVENTS",
    "UNIT",
    "Sentiment",
    "SentimentModel",
    "WeightedModel",
    "category_of",
    "default_model",
    "default_weights",
]

UNIT = 1024
"""The weight that makes one of log odds against neutral."""

MAX_EVENTS = 3
"""How often an event of a kind counts in a text."""

_BAND = 0.3
_SHIFT = 40  # two sums in one integer: 2 ** 39 is more than any text in memory adds up to
_HALF = 1 << (_SHIFT - 1)
_MAX_LOG_ODDS = 30.0
_ZEROS = repeat(0)


class Sentiment(NamedTuple):
    """What a text says, and how sure that is."""

    score: float  # in [-1, 1]: probability of positive minus that of negative, 4 decimals
    confidence: float  # in [0, 1]: probability of the score's category, 4 decimals; 0 for a text without words


class SentimentModel(Protocol):
    """Anything that scores texts, each one by itself."""

    @property
    def name(self) -> str:
        """Name and version: another name may give other scores."""

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """The sentiment of each text, in order."""


def category_of(score: float) -> str:
    """`positive` above 0.3, `negative` below -0.3, else `neutral`."""
    if score > _BAND:
        return "positive"
    return "negative" if score < -_BAND else "neutral"


# --- the model ---


class WeightedModel:
    """Logistic regression by weights of words, pairs of words and rule events.

    Args:
      name: name and version.
      weights: (evidence for negative, for positive) by feature, in UNIT-ths of log odds against neutral; a pair of
        words is the two with a space between, an event stands in angle brackets, the bias has the empty name.
    """

    def __init__(self, name: str, weights: dict[str, tuple[int, int]]) -> None:
        self.name = name
        packed = {feature: (positive << _SHIFT) + negative for feature, (negative, positive) in weights.items()}
        self._bias = packed.pop("", 0)
        self._events = {feature: packed.pop(feature) for feature in list(packed) if feature.startswith("<")}
        self._pairs = {tuple(feature.split(" ")): packed.pop(feature) for feature in list(packed) if " " in feature}
        self._words = packed

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """The sentiment of each text, in order; time linear in its length."""
        tokens = list(map(tokens_of, texts))
        return list(map(_sentiment, tokens, self._sums(tokens)))

    def probabilities(self, text: str) -> tuple[float, float, float]:
        """The probabilities of negative, neutral and positive, which add up to 1."""
        tokens = tokens_of(text)
        return _probabilities(len(tokens), *self._sums([tokens])[0])

    def _sums(self, tokens: list[list[str]]) -> list[tuple[int, int]]:
        """The packed weights of the words and pairs of each text, and of its events.

        A step is done with all texts before the next, so that its tables stay in the processor's caches.
        """
        classes = list(map(classes_of, tokens))
        words, pairs = self._words.get, self._pairs.get
        of_words = [sum(map(words, set(each), _ZEROS)) for each in classes]  # whole: a set's order does not matter
        of_pairs = [sum(map(pairs, set(pairwise(each)), _ZEROS)) for each in classes]
        of_events = [self._bias + self._evidence(events) for events in map(events_of, tokens, classes)]
        return list(zip(map(operator.add, of_words, of_pairs), of_events, strict=True))

    def _evidence(self, events: list[str]) -> int:
        if len(events) - len(set(events)) < MAX_EVENTS:
            return sum(map(self._events.get, events, _ZEROS))
        return sum(
            self._events.get(event, 0) * min(count, MAX_EVENTS) for event, count in collections.Counter(events).items()
        )


def _sentiment(tokens: list[str], sums: tuple[int, int]) -> Sentiment:
    if not tokens:
        return Sentiment(0.0, 0.0)
    negative, neutral, positive = _probabilities(len(tokens), *sums)
    score = round(positive - negative, 4)
    return Sentiment(score, round(positive if score > _BAND else negative if score < -_BAND else neutral, 4))


def _probabilities(tokens: int, words: int, events: int) -> tuple[float, float, float]:
    (bad_words, good_words), (bad_events, good_events) = _unpacked(words), _unpacked(events)
    root = math.sqrt(tokens or 1)
    bad, good = _odds(bad_words / root + bad_events), _odds(good_words / root + good_events)
    total = bad + good + 1.0
    return bad / total, 1.0 / total, good / total


def _unpacked(packed: int) -> tuple[int, int]:
    low = ((packed + _HALF) & ((1 << _SHIFT) - 1)) - _HALF
    return low, (packed - low) >> _SHIFT


def _odds(weight: float) -> float:
    log_odds = weight / UNIT
    if not -_MAX_LOG_ODDS < log_odds < _MAX_LOG_ODDS:
        log_odds = math.copysign(_MAX_LOG_ODDS, log_odds)
    return math.exp(log_odds)


@cache
def default_model() -> SentimentModel:
    """The model whose weights this package brings; nothing is downloaded."""
    return WeightedModel(*default_weights())


def default_weights() -> tuple[str, dict[str, tuple[int, int]]]:
    """Name and weights of the default model."""
    text = (resources.files(__package__) / "data" / "sentiment_weights.txt").read_text("utf-8")
    lines = text.splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("# "))
    return lines[0].removeprefix("# "), {name: (int(negative), int(positive)) for name, negative, positive in rows}
