"""The labelled texts on which the sentiment model is trained and measured, and which of them are held out.

Financial PhraseBank is for the final measurement only: the training script does not import what reads it.
"""

import csv
import hashlib
import pathlib
import random
import re
from collections import defaultdict
from typing import NamedTuple

__all__ = ["LABELS", "Labelled", "own_sentences", "phrasebank", "twitter"]

LABELS = ("negative", "neutral", "positive")
SHARED = pathlib.Path(__file__).parents[2] / ".." / "shared" / "sentiment"
_TWITTER_LABELS = {"0": "negative", "1": "positive", "2": "neutral"}
_COPIES = 6  # of each own sentence with slots
_COMMON = 30  # texts with the same three words: too common to tell copies
_ALIKE = 0.7  # Jaccard index of the words of near-duplicates


class Labelled(NamedTuple):
    """A text and its label, one of LABELS."""

    text: str
    label: str


def twitter() -> tuple[list[Labelled], list[Labelled]]:
    """(training part, test part) of Twitter Financial News (MIT): a fifth of the groups of near-duplicates is the test.

    A group goes where the SHA-256 of its smallest text says, so the parts do not depend on the file's order.
    """
    with (SHARED / "twitter_financial_news_sent_train.csv").open(encoding="utf-8", newline="") as file:
        rows = [Labelled(row["text"], _TWITTER_LABELS[row["label"]]) for row in csv.DictReader(file)]
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    for group in _groups([row.text for row in rows]):
        digest = min(hashlib.sha256(rows[number].text.encode()).digest() for number in group)
        parts[digest[0] % 5 == 0].extend(rows[number] for number in group)
    return parts


def phrasebank() -> list[Labelled]:
    """Financial PhraseBank, at least half of the annotators agreeing (CC BY-NC-SA): for the final measurement only."""
    text = (SHARED / "financial_phrasebank_50Agree.txt").read_text("latin-1")
    return [Labelled(*line.rsplit("@", 1)) for line in text.splitlines() if line]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", re.sub(r"https?://\S+", "", text.lower()))


def _groups(texts: list[str]) -> list[list[int]]:
    """The positions of `texts`, those of near-duplicates together."""
    words = [_words(text) for text in texts]
    by_shingle: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, sequence in enumerate(words):
        for shingle in {tuple(sequence[at : at + 3]) for at in range(max(1, len(sequence) - 2))}:
            by_shingle[shingle].append(number)
    parent = list(range(len(texts)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    sets = [set(sequence) for sequence in words]
    for numbers in by_shingle.values():
        for at, one in enumerate(numbers if len(numbers) <= _COMMON else ()):
            for other in numbers[at + 1 :]:
                if len(sets[one] & sets[other]) >= _ALIKE * len(sets[one] | sets[other]):
                    parent[root(other)] = root(one)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(texts)):
        groups[root(number)].append(number)
    return list(groups.values())


# --- own sentences ---

_SLOTS = {
    "co": "Acme|Nordholm|Vartia Oyj|Telmec|Brightwell Inc|Kestrel Energy|Apple|Tesla|Boeing|Siemens|Nokia|Infosys"
    "|Solvik AB|Harbour Bank|Lindqvist|Orion Foods|Macy's|Netflix|Pfizer|Shell|Reliance|Toyota|Vodafone|Glenmark"
    "|Bergstrom",
    "business": "paper|electronics|services|shipping|cloud|retail|mining|software|construction|healthcare|packaging"
    "|wind",
    "product": "elevators|power plants|network equipment|cranes|software licences|engines|tyres|mobile phones|pumps"
    "|ships",
    "country": "Finland|Sweden|Germany|China|India|Russia|Poland|Brazil|the United States|Britain|Estonia|Japan|Norway",
    "period": "first quarter|second quarter|third quarter|fourth quarter|first half|nine-month period"
    "|January-June period|financial year|review period",
    "month": "January|February|March|April|May|June|August|September|October|November|December",
    "year": "2005|2006|2007|2008|2009|2010|2014|2018|2019|2020",
    "m+": "net sales|operating profit|net profit|revenue|turnover|EBITDA|order intake|sales|exports"
    "|earnings per share|pre-tax profit|cash flow|deliveries|production|net interest income|profitability|demand"
    "|the share price",
    "m-": "costs|operating expenses|net debt|fuel costs|credit losses|unemployment|administrative expenses"
    "|interest costs|delays|production costs|the number of bankruptcies|complaints",
    "up": "rose|increased|grew|climbed|went up|was up|improved|jumped|advanced|gained|surged",
    "down": "fell|decreased|declined|dropped|went down|was down|slid|shrank|slipped|sank|plunged",
    "bank": "Goldman Sachs|Morgan Stanley|Jefferies|UBS|Nordea|Barclays|BMO Capital|Citi|Credit Suisse|Wells Fargo",
    "tick": "AAPL|TSLA|AMD|SPY|NVDA|AMZN|BA|F|GME|NFLX|ROKU|SNAP",
}


def own_sentences() -> list[Labelled]:
    """The sentences of data/sentiment_sentences.tsv, each one with slots six times with other fillings."""
    path = pathlib.Path(__file__).parent / "data" / "sentiment_sentences.tsv"
    sentences = []
    for line in path.read_text("utf-8").splitlines()[2:]:
        label, _style, text = line.split("\t")
        filled = [_filled(text, random.Random(f"{copy} {text}")) for copy in range(_COPIES)]
        sentences += [Labelled(each, label) for each in dict.fromkeys(filled)]
    return sentences


def _filled(text: str, chance: random.Random) -> str:
    low = round(chance.uniform(1, 90), chance.choice((0, 1, 2)))
    high = round(low * chance.uniform(1.05, 2) + 0.1, chance.choice((1, 2)))
    numbers = {"lo": f"{low:g}", "hi": f"{high:g}"}

    def filling(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "n":
            return str(chance.choice((2, 7, 12, 25, 40, 80, 150, 300, 450, 700)))
        if slot == "pct":
            return str(chance.choice((0.8, 2, 3.5, 5, 8, 12.4, 20, 31)))
        return numbers.get(slot) or chance.choice(_SLOTS[slot].split("|"))

    return re.sub(r"\{([^}]+)\}", filling, text)
