"""Articles from raw records, a batch at a time: decode and validate.

An article is news, a post or a release, as DESIGN has it in topic news-raw: a JSON object with `id`, `title`,
`content`, `source`, `published_at` and, where the provider says it, `url`, `author`, `language`, `symbols`,
`categories` and `kind`.  Which records are none, and how that is told, says `json_objects`.
"""

import re
import uuid
from typing import Any, Final, NamedTuple

import pyarrow as pa

from beam_pipelines.transforms.batches import span_of, with_span
from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.dead_letters import dead_letters
from beam_pipelines.transforms.json_objects import (
    UNKNOWN,
    Field,
    ObjectReader,
    Reject,
    dated_ahead,
    source_field,
    tidy,
    timestamp_field,
)
from beam_pipelines.transforms.timestamps import LAST_MS

__all__ = ["ARTICLES", "KINDS", "Decoded", "article_id_of", "decode", "key_of"]

ARTICLES = pa.schema(
    [
        pa.field("article_id", pa.string(), nullable=False),  # a UUID
        pa.field("published_at", pa.int64(), nullable=False),  # ms UTC
        pa.field("title", pa.string(), nullable=False),  # as it came, HTML and all; perhaps empty
        pa.field("content", pa.string(), nullable=False),  # likewise; not both are empty
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("author", pa.string()),
        pa.field("language", pa.string()),  # what the provider says
        pa.field("symbols", pa.list_(pa.string()), nullable=False),  # the provider's own tags
        pa.field("categories", pa.list_(pa.string()), nullable=False),  # likewise
        pa.field("kind", pa.string(), nullable=False),
        pa.field("provider_id", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("log_time", pa.int64(), nullable=False),  # the record's Kafka time, ms; published_at if it is none
    ]
)
"""Valid articles of one log partition in offset order.  (published_at, article_id) identifies one; of versions with
one identity the last counts."""

KINDS: Final = ("news", "post", "release")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/waardhaven/pipelines/articles")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _tidy_to(limit: int) -> Field:
    return Field(lambda text: tidy(text, limit), f"at most {limit} characters, no control characters", takes="strings")


def _names(names: list[str]) -> list[str] | None:
    """Symbols or categories as a provider tags them; None: one is too long or has control characters."""
    tidied = [tidy(name, 100) for name in names]
    return None if None in tidied else sorted({name for name in tidied if name})


def _text(text: str) -> str:
    return text


_TEXT = Field(_text, "a string", takes="strings")
_NAMES = Field(_names, "a list of strings of at most 100 characters", takes="lists")
_READER = ObjectReader(
    {
        "id": Field(lambda text: tidy(text, 500) or None, "1 to 500 characters, no control characters", True),
        "title": _TEXT,
        "content": _TEXT,
        "source": source_field(),
        "published_at": timestamp_field(),
        "url": _tidy_to(4000),
        "author": _tidy_to(1000),
        "language": _tidy_to(100),
        "symbols": _NAMES,
        "categories": _NAMES,
        "kind": Field(lambda text: text if text in KINDS else None, " or ".join(KINDS), takes="strings"),
    }
)


class Decoded(NamedTuple):
    """What a batch of raw records holds: each record is either an article or a dead letter."""

    articles: pa.RecordBatch  # ARTICLES, in offset order, with the span of the raw batch
    dead_letters: pa.RecordBatch | None  # DEAD_LETTERS


def article_id_of(source: str, provider_id: str) -> str:
    """A UUID for an article: the provider's own id where that is one, else made of source and id (RFC 9562, v5)."""
    if _UUID.fullmatch(provider_id):
        return provider_id.lower()
    return str(uuid.uuid5(_NAMESPACE, f"{source}\n{provider_id}"))


def key_of(provider_id: str | int) -> bytes:
    """The key of an article's records, so that all its versions are in one partition; blanks are no part of an id."""
    return str(provider_id).strip().encode()


def decode(raw: pa.RecordBatch, max_future_ms: int) -> Decoded:
    """The articles of a RAW batch and the records that are none.

    Args:
      raw: records of one log partition, with their span.
      max_future_ms: how far an article may be dated after its record's Kafka timestamp, ms.
    """
    rows: list[dict[str, Any]] = []
    rejects: dict[int, Reject] = {}
    partition = span_of(raw).partition
    records = zip(to_list(raw["offset"]), to_list(raw["timestamp"]), to_list(raw["value"]), strict=True)
    for at, (offset, log_time, value) in enumerate(records):
        article = _read(value, log_time, max_future_ms)
        if isinstance(article, Reject):
            rejects[at] = article
        else:
            rows.append({**article, "partition": partition, "offset": offset})
    reasons, details = [it.reason for it in rejects.values()], [it.detail for it in rejects.values()]
    dead = dead_letters(raw, list(rejects), reasons, details) if rejects else None
    return Decoded(with_span(pa.RecordBatch.from_pylist(rows, ARTICLES), span_of(raw)), dead)


def _read(value: bytes | None, log_time: int, max_future_ms: int) -> dict[str, Any] | Reject:
    """An article's own columns, or why a record is none."""
    read = _READER.read(value)
    if isinstance(read, Reject):
        return read
    article = read.values
    if not (article["title"] or article["content"]):
        return Reject("missing_field", "title is absent, and so is content, wanted: one of them")
    ahead = dated_ahead("published_at", read, log_time, max_future_ms)
    return ahead or _completed(article, log_time)


def _completed(article: dict[str, Any], log_time: int) -> dict[str, Any]:
    """The article with what goes without saying."""
    source = article["source"] or UNKNOWN
    provider_id = article.pop("id")
    return article | {
        "article_id": article_id_of(source, provider_id),
        "provider_id": provider_id,
        "title": article["title"] or "",
        "content": article["content"] or "",
        "source": source,
        "symbols": article["symbols"] or [],
        "categories": article["categories"] or [],
        "kind": article["kind"] or KINDS[0],
        "log_time": log_time if 0 <= log_time <= LAST_MS else article["published_at"],
    }
