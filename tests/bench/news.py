"""Articles a second of the news kernels on one core, and whether their cost is linear: python -m tests.bench.news.

Different articles made of the tests' own sentences: a title and HTML paragraphs about one to four companies, in batches
of a hundred.  CPU time, of each row the quickest of several rounds, so that other work on the machine weighs little.
"""

import itertools
import json
import pathlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.batches import RAW, SCORED, Span, from_bytes, to_bytes, with_span
from beam_pipelines.transforms.categories import news_kinds
from beam_pipelines.transforms.language import language_of
from beam_pipelines.transforms.near_duplicates import signature_of
from beam_pipelines.transforms.news import Reading, scored_articles, sentiment_messages
from beam_pipelines.transforms.news_windows import SIGNATURE, _CountDoFn, facts_of
from beam_pipelines.transforms.plain_text import plain_text
from beam_pipelines.transforms.sentiment import (
    Article,
    article_sentiment,
    default_model,
    sentiment_by_symbol,
    sentiments,
)
from beam_pipelines.transforms.symbols import Mention, packaged_directory
from beam_pipelines.transforms.tickers import Company, bare_name, packaged_companies

from .sentiment_data import own_sentences

ARTICLES, BATCH, ROUNDS = 1_000, 100, 5
KILOBYTES = (0.5, 2, 8, 32, 128)
MIDNIGHT, DAY_MS = 20_777 * 86_400_000, 86_400_000
MAX_FUTURE_MS = 60_000
HEADLINES = pathlib.Path(__file__).parents[1] / "transforms" / "data" / "headlines.tsv"
READING = Reading(default_model(), packaged_directory())
TOPIC_CHARS = 600

HOSTILE = {
    "tags never closed": "<ul><li>",
    "< alone": "<",
    "tags without an end": '<a href="',
    "& alone": "&",
    "entities": "&amp;lt;",
    "control characters": "\x01 ",
    "combining marks": "\u0301\u0323",
    "cashtags": "$A $AAPL ",
    "companies": "Apple and Ford, Gap or ",
    "sentences": "It fell. ",
    "dots": ".",
    "one word": "a",
    "one number": "1,",
    "moves without a figure": "rises falls not ",
    "words of another language": "und das ist ",
    "emoji": "\U0001f680",
}


# --- articles ---


def patterns() -> list[list[str]]:
    """The tests' sentences, each cut where it names companies."""
    headlines = [line.split("\t")[1] for line in HEADLINES.read_text("utf-8").splitlines() if line[0] != "#"]
    return [_cut(text) for text in [*headlines, *(row.text for row in own_sentences())]]


def _cut(text: str) -> list[str]:
    begin, pieces = 0, []
    for mention in READING.directory.mentions(text):
        pieces.append(text[begin : mention.begin])
        begin = mention.end
    return [*pieces, text[begin:]]


def article(number: int, size: int, known: list[list[str]]) -> dict[str, Any]:
    """An article whose content has about so many bytes, on one to four companies."""
    chance = random.Random(number)
    listed = [company for company in packaged_companies() if company.name]
    companies = chance.sample(listed, chance.randint(1, 4))

    def sentence() -> str:
        first, *rest = chance.choice(known)
        text = first + "".join(_called(chance.choice(companies), chance) + piece for piece in rest)
        return text if text[-1] in ".?!" else f"{text}."

    content = ""
    while len(content) < size:
        content += f"<p>{' '.join(sentence() for _ in range(chance.randint(2, 4)))}</p>\n"
    return {
        "id": f"article-{number}",
        "title": _called(companies[0], chance) + ": " + sentence(),
        "content": content[: max(size, content.find("</p>") + 4)],
        "source": "wire",
        "published_at": MIDNIGHT + number * DAY_MS // ARTICLES,
        "url": f"https://news.example/articles/{number}",
    }


def _called(company: Company, chance: random.Random) -> str:
    """As news call it: mostly by its short name."""
    names = [bare_name(company.name)] * 6 + [company.name, f"{company.name} (NYSE: {company.symbol})"]
    return chance.choice([*names, f"${company.symbol}"])


def raw_batches(articles: list[dict[str, Any]]) -> list[pa.RecordBatch]:
    """Articles as they are in the log, `BATCH` at a time."""
    return [_raw(articles[start : start + BATCH], start) for start in range(0, len(articles), BATCH)]


def _raw(articles: list[dict[str, Any]], start: int) -> pa.RecordBatch:
    columns = {
        "offset": range(start, start + len(articles)),
        "timestamp": [it["published_at"] + 1_000 for it in articles],
        "key": [it["id"].encode() for it in articles],
        "value": [json.dumps(it).encode() for it in articles],
    }
    batch = pa.RecordBatch.from_arrays([pa.array(columns[it.name], it.type) for it in RAW], schema=RAW)
    return with_span(batch, Span("news-raw", 0, start, start + len(articles)))


# --- measurement ---


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU time of the quickest round; one before them fills caches."""
    spent = []
    for _ in range(rounds + 1):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent[1:])


class Text(NamedTuple):
    """An article's text as the kernels get it."""

    title: str
    content: str
    whole: str
    mentions: list[Mention]


def text_of(title: str, content: str) -> Text:
    """The text of an article's title and content as they came."""
    title, content = plain_text(title, 1_000), plain_text(content)
    whole = f"{title}\n{content}"
    return Text(title, content, whole, READING.directory.mentions(whole))


def model_symbols_categories(texts: list[Text]) -> None:
    """What articles are enriched with: a step with all of a batch before the next, as `scored_articles` does."""
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        found = [READING.directory.mentions(text.whole) for text in some]
        for text in some:
            news_kinds(text.whole[:TOPIC_CHARS])
        said(some, found)


def said(texts: list[Text], mentions: Iterable[Sequence[Mention]]) -> None:
    """The sentiment of articles, and that of each symbol among `mentions`."""
    articles = [Article(text.title, text.content, at) for text, at in zip(texts, mentions, strict=True)]
    sentiments(READING.model, articles)


def read(raw: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """From JSON to SCORED."""
    return [scored_articles(decode(batch, MAX_FUTURE_MS).articles, READING) for batch in raw]


def print_stages() -> None:
    """Articles of 2 kB, step by step."""
    known = patterns()
    articles = [article(number, 2_000, known) for number in range(ARTICLES)]
    texts = [text_of(it["title"], it["content"]) for it in articles]
    raw = raw_batches(articles)
    scored = read(raw)
    directory = READING.directory
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]

    def each(kernel: Callable[[Text], object]) -> Callable[[], object]:
        return lambda: [kernel(text) for text in texts]

    rows: dict[str, Callable[[], object]] = {
        "decode from JSON": lambda: [decode(batch, MAX_FUTURE_MS) for batch in raw],
        "plain text": lambda: [(plain_text(it["title"]), plain_text(it["content"])) for it in articles],
        "language": each(lambda text: language_of(text.whole)),
        "symbols": each(lambda text: directory.mentions(text.whole)),
        "categories": each(lambda text: news_kinds(text.whole[:TOPIC_CHARS])),
        "sentiment of the article": lambda: [said(some, itertools.repeat((), len(some))) for some in batches],
        "the same and by symbol": lambda: [said(some, [text.mentions for text in some]) for some in batches],
        "signature": each(lambda text: signature_of(text.whole)),
        "**symbols, categories and sentiment, by symbol too**": lambda: model_symbols_categories(texts),
        "**all: JSON to scored articles**": lambda: read(raw),
        "messages for Kafka": lambda: [sentiment_messages(batch) for batch in scored],
    }
    print("| kernel | µs an article | articles a second |\n|---|--:|--:|")
    for name, work in rows.items():
        spent = seconds(work) / ARTICLES
        print(f"| {name} | {spent * 1e6:.0f} | {1 / spent:,.0f} |", flush=True)


def print_lengths() -> None:
    """All, by length."""
    known = patterns()
    print("\n| content, kB | µs an article | µs per kB |\n|--:|--:|--:|")
    for kilobytes in KILOBYTES:
        count = min(400, int(1_000 / kilobytes))
        raw = raw_batches([article(number, int(kilobytes * 1_000), known) for number in range(count)])
        spent = seconds(partial(read, raw)) / count * 1e6
        print(f"| {kilobytes} | {spent:,.0f} | {spent / kilobytes:.0f} |", flush=True)


def print_hostile() -> None:
    """All, and every kernel over the whole text, of which the pipeline reads the first 20,000 characters."""
    print("\n| text of one thing only | all: ms, 1 MB | 10 MB | uncut: ms, 0.1 MB | 1 MB |\n|---|--:|--:|--:|--:|")
    for name, piece in HOSTILE.items():
        tenth, one, ten = (piece * (size // len(piece.encode())) for size in (100_000, 1_000_000, 10_000_000))
        works: list[Callable[[], object]]
        works = [partial(read, [_raw([{"id": "1", "content": text, "published_at": 1}], 0)]) for text in (one, ten)]
        works += [partial(read_uncut, text) for text in (tenth, one)]
        print(f"| {name} |", " | ".join(f"{seconds(work, 1) * 1e3:,.0f}" for work in works), "|", flush=True)


def read_uncut(content: str) -> None:
    """Each kernel over all of a text."""
    text = plain_text(content, len(content))
    mentions = READING.directory.mentions(text)
    language_of(text), news_kinds(text), signature_of(text)
    article_sentiment(READING.model, "", text)
    sentiment_by_symbol(READING.model, text, [*mentions, Mention("ONE", 0, 1), Mention("OTHER", 1, 2)])


# --- windows ---


def scored_on_one_symbol(count: int) -> pa.RecordBatch:
    """SCORED articles on one symbol over a day, of which every fourth repeats an earlier one."""
    chance = np.random.default_rng(count)
    signatures = chance.integers(0, 1 << 16, (count, 128)).astype(SIGNATURE)
    signatures[3::4] = signatures[0 : len(signatures[3::4])]
    rows = [
        {
            **dict.fromkeys(("news_category", "source", "kind", "language", "title", "model"), "x"),
            "article_id": f"article-{number}",
            "symbols": ["AAPL"],
            "kinds": [],
            "partition": 0,
            "offset": number,
            **dict.fromkeys(("published_at", "known_at"), MIDNIGHT + number * DAY_MS // count),
            "symbol_scores": [round(chance.uniform(-1, 1), 4)],
            "signature": signatures[number].tobytes(),
        }
        for number in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, SCORED)


class Bag(list[bytes]):
    """State of a key, in memory."""

    def read(self) -> Iterator[pa.RecordBatch]:
        """What is in it."""
        return map(from_bytes, self)

    def add(self, facts: pa.RecordBatch) -> None:
        """One more batch."""
        self.append(to_bytes(facts))


class Timer:
    """That never fires."""

    def set(self, time: object) -> None:
        """When it would."""


def count_all(scored: pa.RecordBatch, batch: int) -> None:
    """As the stream does: every batch is counted with all that came before."""
    bags: defaultdict[str, Bag] = defaultdict(Bag)
    stage: Any = _CountDoFn()
    for start in range(0, len(scored), batch):
        for key, facts in facts_of(scored.slice(start, batch)):
            list(stage.process((key, facts), bags[key], Timer()))


def print_windows() -> None:
    """Windows by articles a symbol and day."""
    print("\n| articles a day | in batches of | µs an article |\n|--:|--:|--:|")
    for count, batch in ((10, 10), (100, 100), (1_000, 100), (10, 1), (100, 1), (1_000, 1)):
        scored = scored_on_one_symbol(count)
        spent = seconds(partial(count_all, scored, batch), 3) / count
        print(f"| {count:,} | {batch} | {spent * 1e6:,.0f} |", flush=True)


def main() -> None:
    """Prints the tables."""
    print_stages()
    print_lengths()
    print_hostile()
    print_windows()


if __name__ == "__main__":
    main()
