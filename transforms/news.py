"""What an article says: language, symbols, sentiment and category; and how outputs carry it.

    title and content ─ plain text ─┬─ language ───────────┐
                                    ├─ symbols ─┐          ├─ SCORED
                                    ├─ sentiment, by symbol┤
                                    ├─ category, kinds ────┤
                                    └─ signature ──────────┘

Each row is a function of the one article, of the model and of the ticker directory.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.batches import SCORED, span_of, with_span
from beam_pipelines.transforms.categories import category_of_kinds, news_kinds
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.dead_letters import by_reason, counted
from beam_pipelines.transforms.language import UNDETERMINED, language_of
from beam_pipelines.transforms.messages import PIPELINE_VERSION
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor
from beam_pipelines.transforms.near_duplicates import signature_of
from beam_pipelines.transforms.news_windows import SIGNATURE
from beam_pipelines.transforms.plain_text import plain_text
from beam_pipelines.transforms.sentiment import (
    Article,
    Said,
    SentimentModel,
    category_of,
    sentiments,
)
from beam_pipelines.transforms.symbols import Directory, Mention, symbols_of
from beam_pipelines.transforms.tick_records import symbol_of
from beam_pipelines.transforms.typed import of_type, typed

__all__ = [
    "Reading",
    "ScoreArticles",
    "ScoreValid",
    "Scored",
    "known_at",
    "scored_articles",
    "sentiment_messages",
]

_TITLE_CHARS, _CONTENT_CHARS = 1_000, 20_000  # of the plain text that is read
_TOPIC_CHARS = 600  # title and lead, which say what an article is about; further on much is mentioned in passing


@dataclasses.dataclass(frozen=True)
class Reading:
    """What articles are read with."""

    model: SentimentModel
    directory: Directory
    languages: frozenset[str] = frozenset({"en"})  # that the model reads; it is given what cannot be told, too


def scored_articles(articles: pa.RecordBatch, reading: Reading) -> pa.RecordBatch:
    """SCORED from ARTICLES, row by row, with their span.

    A step is done with all articles before the next begins, so that its tables stay in the processor's caches: with
    one article after the other all takes a third longer.
    """
    titles = [plain_text(title, _TITLE_CHARS) for title in to_list(articles["title"])]
    contents = [plain_text(content, _CONTENT_CHARS) for content in to_list(articles["content"])]
    texts = list(map("{}\n{}".format, titles, contents))
    languages = list(map(language_of, texts))
    kinds = [news_kinds(text[:_TOPIC_CHARS]) for text in texts]
    mentions = list(map(reading.directory.mentions, texts))
    symbols = list(map(_symbols, mentions, articles["symbols"].to_pylist()))
    read = [language in reading.languages or language == UNDETERMINED for language in languages]
    of_several = [each if len(named) > 1 else () for each, named in zip(mentions, symbols, strict=True)]
    said = _said(reading.model, read, list(map(Article, titles, contents, of_several)))
    columns = {name: articles[name] for name in _AS_THEY_CAME} | {
        "symbols": symbols,
        "sentiment_score": [it and it.whole.score for it in said],
        "sentiment_category": [it and category_of(it.whole.score) for it in said],
        "news_category": list(map(category_of_kinds, kinds)),
        "symbol_scores": list(map(_symbol_scores, said, symbols)),
        "confidence": [it and it.whole.confidence for it in said],
        "kinds": kinds,
        "language": languages,
        "title": titles,
        "model": [reading.model.name] * len(titles),
        "known_at": known_at(articles),
        "signature": [signature_of(text).astype(SIGNATURE).tobytes() for text in texts],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCORED]
    return with_span(pa.RecordBatch.from_arrays(arrays, schema=SCORED), span_of(articles))


_AS_THEY_CAME = ("article_id", "published_at", "source", "kind", "url", "partition", "offset")


def known_at(articles: pa.RecordBatch) -> pa.Array:
    """When each of some ARTICLES could be known, ms: when it reached the log, or was published if that is later."""
    return pc.max_element_wise(articles["published_at"], articles["log_time"])


def _symbols(mentions: list[Mention], tags: list[str]) -> list[str]:
    """What an article is about, by its text and by its provider."""
    return sorted({*symbols_of(mentions), *filter(None, map(symbol_of, tags))})


def _said(model: SentimentModel, read: list[bool], articles: list[Article]) -> list[Said | None]:
    """What articles say; None: in a language that the model cannot read."""
    found = iter(sentiments(model, list(itertools.compress(articles, read))))
    return [next(found) if it else None for it in read]


def _symbol_scores(said: Said | None, symbols: list[str]) -> list[float | None]:
    return [said and said.by_symbol.get(symbol, said.whole).score for symbol in symbols]


def sentiment_messages(scored: pa.RecordBatch) -> pa.RecordBatch:
    """Messages of the topic news-sentiment-stream from SCORED, one an article.

    Key: the article's id.  Headers: partition and offset of the raw record.  `processed_at` is the log's time, so that
    every copy of a message is equal.
    """
    rows = scored.drop_columns(["signature"]).to_pylist()
    values = pa.array([msgspec.json.encode(_message(row)) for row in rows], pa.binary())
    key = scored["article_id"].cast(pa.binary())
    return pa.record_batch({"key": key, "value": values, "partition": scored["partition"], "offset": scored["offset"]})


def _message(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in _FIELDS}
    return fields | {
        "published_at": _iso(row["published_at"]),
        "processed_at": _iso(row["known_at"]),
        "pipeline_version": PIPELINE_VERSION,
    }


_FIELDS = (
    *("article_id", "symbols", "sentiment_score", "sentiment_category", "news_category", "published_at", "source"),
    *("symbol_scores", "confidence", "kinds", "kind", "language", "title", "url", "model"),
)


def _iso(ms: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(ms, 'ms'))}Z"


# --- wiring ---

VALID_TAG, DEAD_LETTERS_TAG = "valid", "dead_letters"


class Scored(NamedTuple):
    """The outputs of `ScoreArticles`."""

    articles: beam.PCollection  # RecordBatch SCORED
    dead_letters: beam.PCollection  # RecordBatch DEAD_LETTERS
    valid: beam.PCollection  # (partition, ARTICLES with span), for the lake


class ScoreArticles(beam.PTransform):
    """(partition, RAW) batches, bounded or not, in any order, to `Scored`.

    Args:
      load: gives what articles are read with, once in each process of workers.
      max_future_ms: how far an article may be dated after its record's Kafka timestamp, ms.
      monitor: takes down what became of the records.
    """

    def __init__(self, load: Callable[[], Reading], max_future_ms: int, monitor: PipelineMonitor = UNNAMED) -> None:
        super().__init__()
        self._load, self._max_future_ms, self._monitor = load, max_future_ms, monitor

    def expand(self, raw: beam.PCollection) -> Any:  # noqa: D102  (Beam warns of hints other than collections)
        decode = beam.ParDo(_DecodeDoFn(self._max_future_ms, self._monitor)).with_outputs(VALID_TAG, DEAD_LETTERS_TAG)
        decoded = raw | "Decode" >> decode
        of_partition = tuple[int, pa.RecordBatch]
        # By the name of this step Flink knows the state of what follows, so it stays.
        valid = of_type(decoded[VALID_TAG], of_partition) | "Valid" >> typed(of_partition)
        scored = valid | "Score" >> ScoreValid(self._load)
        return Scored(scored, of_type(decoded[DEAD_LETTERS_TAG], pa.RecordBatch), valid)


class ScoreValid(beam.PTransform):
    """(partition, ARTICLES) batches to PCollection[RecordBatch SCORED].

    Args:
      load: as of `ScoreArticles`.
    """

    def __init__(self, load: Callable[[], Reading]) -> None:
        super().__init__()
        self._load = load

    def expand(self, articles: beam.PCollection) -> beam.PCollection:  # noqa: D102
        batches = articles | "Batches" >> beam.Values().with_output_types(pa.RecordBatch)
        return batches | "Read" >> RunInference(_Reader(self._load)).with_output_types(pa.RecordBatch)


class _DecodeDoFn(beam.DoFn):
    """Articles and dead letters; heartbeats pass to the lake."""

    def __init__(self, max_future_ms: int, monitor: PipelineMonitor) -> None:
        self._max_future_ms, self._monitor = max_future_ms, monitor
        self._records, self._articles = (Metrics.counter("news", name) for name in ("records", "articles"))

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[beam.pvalue.TaggedOutput]:
        partition, raw = element
        articles, dead = decode(raw, self._max_future_ms)
        self._records.inc(len(raw))
        self._articles.inc(len(articles))
        self._tell(raw, len(articles), dead)
        if dead is not None:
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS_TAG, counted(dead))
        yield beam.pvalue.TaggedOutput(VALID_TAG, (partition, articles))

    def _tell(self, raw: pa.RecordBatch, articles: int, dead: pa.RecordBatch | None) -> None:
        """Counts work, since a stage without state knows no totals: records that are read again count again."""
        if not len(raw):
            return
        topic = span_of(raw).topic
        self._monitor.record_messages(topic, "success", articles)
        self._monitor.record_messages(topic, "dead_letter", len(raw) - articles)
        self._monitor.update_last_record(topic, raw["timestamp"][-1].as_py() / 1000)
        for reason, count in by_reason(dead).items():
            self._monitor.record_dead_letters(reason, count)


class _Reader(ModelHandler[pa.RecordBatch, pa.RecordBatch, Reading]):
    """Reads a batch of articles at a time; the model in it scores as many texts together as it likes."""

    def __init__(self, load: Callable[[], Reading]) -> None:
        super().__init__()
        self._load = load
        self._unread = Metrics.counter("news", "unread")

    def load_model(self) -> Reading:
        return self._load()

    def run_inference(
        self,
        batch: Sequence[pa.RecordBatch],
        model: Reading,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> Iterable[pa.RecordBatch]:
        scored = [scored_articles(articles, model) for articles in batch]
        self._unread.inc(sum(it["sentiment_score"].null_count for it in scored))
        return scored

    def batch_elements_kwargs(self) -> dict[str, Any]:
        return {"min_batch_size": 1, "max_batch_size": 1}  # elements are batches themselves
