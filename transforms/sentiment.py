"""Sentiment of financial news: whether a text, or what it says of a company, is good or bad news.

Models score texts; this module knows which texts of an article to give them and how to put the results together.
"""

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat, tee
from typing import NamedTuple, Protocol

from beam_pipelines.transforms.finance_events import POLARITY, events_of
from beam_pipelines.transforms.sentiment_model import Sentiment, SentimentModel, category_of, default_model
from beam_pipelines.transforms.tokens import classes_of, sentence_spans, tokens_of

__all__ = [
    "Article",
    "Said",
    "Sentiment",
    "SentimentModel",
    "SymbolMention",
    "article_sentiment",
    "category_of",
    "default_model",
    "sentiment_by_symbol",
    "sentiments",
]

_SCORED_CHARACTERS, _SCORED_SENTENCES = 4000, 8
_TITLE, _LEAD, _BODY = 4.0, 2.0, 1.0
_LEAST_SHARE = 0.25
_CLAUSES = 3  # of a symbol: what is told first counts, and what comes later is mostly background
_CLAUSE_CHARACTERS = 200  # on either side of a cut that must say something
_CONNECTIVE = re.compile(r";|\b(?:while|whereas|but|although|though|however)\b", re.IGNORECASE)
_WEAK_CONNECTIVE = re.compile(r",|\b(?:and|as|after|despite)\b", re.IGNORECASE)


class SymbolMention(Protocol):
    """Where a text names a company, as `symbols.Mention` says it."""

    @property
    def symbol(self) -> str:
        """The company's symbol."""

    @property
    def begin(self) -> int:
        """Where the name begins, in characters."""

    @property
    def end(self) -> int:
        """Where it ends."""


class Article(NamedTuple):
    """An article, as plain text."""

    title: str
    content: str
    mentions: Sequence[SymbolMention]  # in the title, a line feed and the content together


class Said(NamedTuple):
    """What an article says."""

    whole: Sentiment
    by_symbol: dict[str, Sentiment]  # in the order of their first mention; of a single symbol: that of the whole


def sentiments(model: SentimentModel, articles: Sequence[Article]) -> list[Said]:
    """The sentiment of each article as of `article_sentiment`, and by symbol as of `sentiment_by_symbol`.

    The model gets all their texts at once.
    """
    asked = list(map(_asked, articles))
    texts = list(dict.fromkeys(chain.from_iterable(map(_texts, asked))))
    found = dict(zip(texts, model.score(texts), strict=True))  # most clauses are sentences, too
    return [_said(each, found) for each in asked]


def article_sentiment(model: SentimentModel, title: str, content: str) -> Sentiment:
    """The sentiment of an article by its title and the first eight sentences, of each 4,000 characters at most.

    The score is the mean of theirs; the title counts four times, the first sentence twice, and a neutral sentence up to
    four times less than an opinionated one, as most sentences of good or bad news only give the background.  The
    confidence is the sentences' in the article's category, by the same weights: the others count 0.
    """
    return sentiments(model, [Article(title, content, ())])[0].whole


class _Asked(NamedTuple):
    """What an article has scored."""

    parts: list["_Part"]
    clauses: list["_Clause"]
    symbols: list[str]


def _texts(asked: _Asked) -> Iterator[str]:
    yield from (part.text for part in asked.parts)
    yield from (clause.text for clause in asked.clauses)


def _asked(article: Article) -> _Asked:
    title, content, mentions = article
    spans, again = tee(sentence_spans(content))
    parts = list(_article_parts(title, content, spans))
    ordered, symbols = _in_order(mentions)
    if len(symbols) < 2:
        return _Asked(parts, [], symbols)
    shift = len(title) + 1
    sentences = chain(sentence_spans(title), ((begin + shift, end + shift) for begin, end in again))
    return _Asked(parts, list(_clauses(f"{title}\n{content}", sentences, ordered)), symbols)


def _said(asked: _Asked, found: dict[str, Sentiment]) -> Said:
    whole = _mean([found[part.text] for part in asked.parts], [part.weight for part in asked.parts])
    if not asked.clauses:
        return Said(whole, dict.fromkeys(asked.symbols, whole))
    return Said(whole, _by_symbol(asked.symbols, asked.clauses, found))


class _Part(NamedTuple):
    """A text that counts for an article."""

    text: str
    weight: float


def _article_parts(title: str, content: str, sentences: Iterable[tuple[int, int]]) -> Iterator[_Part]:
    if title.strip():
        yield _Part(title[:_SCORED_CHARACTERS].strip(), _TITLE)
    for number, (begin, end) in enumerate(islice(sentences, _SCORED_SENTENCES)):
        sentence = content[begin : min(end, _SCORED_CHARACTERS)].strip()
        if not sentence:
            return
        yield _Part(sentence, _BODY if number else _LEAD)


def _mean(found: list[Sentiment], weights: Iterable[float]) -> Sentiment:
    if len(found) == 1:
        return found[0]
    shares = [weight * max(_LEAST_SHARE, abs(each.score)) for weight, each in zip(weights, found, strict=True)]
    total = math.fsum(shares)
    if not total:
        return Sentiment(0.0, 0.0)
    score = round(math.fsum(share * each.score for share, each in zip(shares, found, strict=True)) / total, 4)
    category = category_of(score)
    agreeing = (
        s * each.confidence for s, each in zip(shares, found, strict=True) if category_of(each.score) == category
    )
    return Sentiment(score, round(math.fsum(agreeing) / total, 4))


# --- by symbol ---


def sentiment_by_symbol(model: SentimentModel, text: str, mentions: Sequence[SymbolMention]) -> dict[str, Sentiment]:
    """What `text` says of each symbol that it mentions, by symbol in the order of their first mention.

    A text about a single symbol is scored like an article's content.  Otherwise a symbol gets the mean of the first
    three sentences that mention it, or of its clauses where a sentence tells them apart: "Apple rises while Tesla
    falls".  Symbols of one clause get the same.
    """
    ordered, symbols = _in_order(mentions)
    if len(symbols) == 1:
        return {symbols[0]: article_sentiment(model, "", text)}
    clauses = list(_clauses(text, sentence_spans(text), ordered))
    texts = list(dict.fromkeys(clause.text for clause in clauses))
    return _by_symbol(symbols, clauses, dict(zip(texts, model.score(texts), strict=True)))


class _Clause(NamedTuple):
    """What is said of some symbols."""

    text: str
    symbols: list[str]


def _in_order(mentions: Sequence[SymbolMention]) -> tuple[list[SymbolMention], list[str]]:
    """Mentions in the order of the text, and their symbols."""
    ordered = sorted(mentions, key=lambda mention: (mention.begin, mention.end))
    return ordered, list(dict.fromkeys(mention.symbol for mention in ordered))


def _by_symbol(symbols: list[str], clauses: list[_Clause], found: dict[str, Sentiment]) -> dict[str, Sentiment]:
    by_symbol: dict[str, list[Sentiment]] = {symbol: [] for symbol in symbols}
    for text, named in clauses:
        for symbol in named:
            by_symbol[symbol].append(found[text])
    return {symbol: _mean(each, repeat(_BODY, len(each))) for symbol, each in by_symbol.items()}


def _clauses(text: str, sentences: Iterable[tuple[int, int]], mentions: list[SymbolMention]) -> Iterator[_Clause]:
    """The first clauses of `text` that mention each symbol; mentions in order of their begin."""
    missing = dict.fromkeys((mention.symbol for mention in mentions), _CLAUSES)
    at = 0
    for begin, end in sentences:
        first = at
        while at < len(mentions) and mentions[at].begin < end:
            at += 1
        here = mentions[first:at]
        if here and any(mention.symbol in missing for mention in here):
            for clause in _clauses_of(text, begin, end, here):
                wanted = [symbol for symbol in clause.symbols if symbol in missing]
                if wanted:
                    yield _Clause(clause.text, wanted)
                    _count_down(missing, wanted)
        if not missing or at == len(mentions):
            return


def _count_down(missing: dict[str, int], symbols: list[str]) -> None:
    """Takes one off for each of `symbols`, of which those at none are no longer missing."""
    for symbol in symbols:
        missing[symbol] -= 1
        if not missing[symbol]:
            del missing[symbol]


def _clauses_of(text: str, begin: int, end: int, mentions: list[SymbolMention]) -> Iterator[_Clause]:
    """The clauses of the sentence from `begin` to `end`, cut between two symbols where each side says something."""
    named: dict[str, None] = {}
    for at, mention in enumerate(mentions):
        named[mention.symbol] = None
        following = mentions[at + 1] if at + 1 < len(mentions) else None
        if following and named.keys() != {following.symbol}:
            cut = _cut(text, begin, mention.end, following.begin, end)
            if cut:
                yield _Clause(text[begin : cut.start()].strip(), list(named))
                begin, named = cut.end(), {}
    if named:
        yield _Clause(text[begin:end].strip(), list(named))


def _cut(text: str, begin: int, after: int, before: int, end: int) -> re.Match[str] | None:
    """What parts two clauses between two mentions, the last of those possible; None: nothing."""
    strong = _last(_CONNECTIVE, text, after, before)
    if strong:
        return strong
    weak = _last(_WEAK_CONNECTIVE, text, after, before)
    if not weak:
        return None
    left = text[max(begin, weak.start() - _CLAUSE_CHARACTERS) : weak.start()]
    right = text[weak.end() : min(end, weak.end() + _CLAUSE_CHARACTERS)]
    return weak if _says_something(left) and _says_something(right) else None


def _last(pattern: re.Pattern[str], text: str, begin: int, end: int) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text, begin, end), maxlen=1)), None)


def _says_something(text: str) -> bool:
    tokens = tokens_of(text)
    return any(event in POLARITY for event in events_of(tokens, classes_of(tokens)))
