"""A log of articles with everything that can happen to them, and what the kernels alone make of it."""

import datetime
import decimal
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from beam_pipelines.io.tables import NEWS_SENTIMENT, NEWS_WINDOWS, Table
from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.batches import RAW, Span, joined, with_span
from beam_pipelines.transforms.closing_state import midnight_of
from beam_pipelines.transforms.news import Reading, scored_articles, sentiment_messages
from beam_pipelines.transforms.news_windows import facts_of, windows_of
from beam_pipelines.transforms.records import partition_of
from beam_pipelines.transforms.sentiment import default_model
from beam_pipelines.transforms.symbols import packaged_directory

PARTITIONS = 3
MAX_FUTURE_MS = 60_000
DAYS = [datetime.date(2026, 10, 31), datetime.date(2026, 11, 1), datetime.date(2026, 11, 2)]
"""A month ends after the first, and on the second New York's clocks are set back."""

HOUR = 3_600_000
_BEGIN, _LENGTH = midnight_of(DAYS[0]) + 20 * HOUR, 32 * HOUR
_COMPANIES = (
    *("Apple (NASDAQ: AAPL)", "Tesla", "Microsoft Corp.", "Intel", "$NVDA", "Ford Motor", "Netflix", "JPMorgan"),
    *("Gap Inc.", "Target (NYSE: TGT)", "Boeing", "Walmart", "Pfizer", "Bitcoin"),
)
_SAID = (
    *("beats expectations as profit jumps {} %", "misses estimates, shares fall {} %", "cuts its outlook by {} %"),
    *(
        "to buy back {} million shares",
        "is sued by {} shareholders",
        "opens its plant number {}",
        "loss narrows by {} %",
    ),
    *("wins approval for {} drugs", "agreed to buy a rival for ${} million", "is downgraded, target cut to ${}"),
)
_FOREIGN = "Der Konzern hat im dritten Quartal mehr verdient als von den Analysten erwartet, teilte er am Montag mit."
_BAD: tuple[bytes | None, ...] = (
    *(None, b"", b"{", b"[]", b"\xff", b'{"id":"x"}', b'{"id":"x","title":"t"}'),
    *(b'{"id":"x","title":"t","published_at":"soon"}', b'{"id":"x","title":"","published_at":0}'),
    *(b'{"title":"t","published_at":0}', b'{"id":"x","title":"t","published_at":0,"symbols":"A"}'),
    b'{"id":"x","title":"t","published_at":99999999999999}',
)


class NewsLog(NamedTuple):
    """Records in partitions, and what is to become of them."""

    topic: str
    records: list[dict[str, Any]]  # as `produce` takes them, in the order of their timestamps

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """RAW, one a partition, with spans."""
        return [_batch_of(self.topic, number, self.records) for number in range(PARTITIONS)]


def news_log(topic: str, count: int = 1_500, seed: int = 3) -> NewsLog:
    """Stories and their copies, versions, repeats, old, undated and foreign ones, posts, and what is none."""
    choice = random.Random(seed)
    stories: list[dict[str, Any]] = []
    records = []
    for number in range(count):
        time = _BEGIN + number * _LENGTH // count
        article = _next(choice, stories, number, time)
        records.append(_record(time, article["id"], json.dumps(article).encode()))
        if choice.random() < 0.03:
            records.append(_record(time, f"bad-{number}", _BAD[number % len(_BAD)]))
    return NewsLog(topic, records)


def _next(choice: random.Random, stories: list[dict[str, Any]], number: int, time: int) -> dict[str, Any]:
    kind = choice.random()
    if stories and kind < 0.1:  # again, or in another version
        again = dict(choice.choice(stories[-200:]))
        return again if kind < 0.05 else again | {"content": f"CORRECTED: {again['content']} It has been corrected."}
    if stories and kind < 0.25:  # as another outlet prints it
        earlier = choice.choice(stories[-100:])
        copy = {"id": f"copy-{number}", "source": "daily", "content": f"(Daily) {earlier['content']} (Reporting by us)"}
        return _dated(earlier | copy, choice, time)
    story = _dated(_story(choice, number), choice, time)
    stories.append(story)
    return story


def _story(choice: random.Random, number: int) -> dict[str, Any]:
    one, other = choice.sample(_COMPANIES, 2)
    lead = f"{one} {choice.choice(_SAID).format(choice.randint(1, 99))}"
    second = f"{other} {choice.choice(_SAID).format(choice.randint(1, 99))}"
    words = " ".join(f"word{choice.randint(0, 5000)}" for _ in range(60))
    identity = str(uuid.UUID(int=choice.getrandbits(128))) if choice.random() < 0.3 else f"story-{number}"
    story = {"id": identity, "source": "wire", "title": lead, "content": f"<p>{lead}.</p><p>{second}. {words}.</p>"}
    if choice.random() < 0.05:
        return story | {"title": "Mehr Gewinn", "content": _FOREIGN, "symbols": ["DB", "sap"]}
    if choice.random() < 0.2:
        return {"id": identity, "content": f"{choice.choice(('$AAPL', '$TSLA', '$BTC'))} {lead} 🚀", "kind": "post"}
    return story


def _dated(article: dict[str, Any], choice: random.Random, time: int) -> dict[str, Any]:
    """Published shortly before, long before, a little later, or much later than its record says."""
    delay = choice.choices([choice.randint(0, 600_000), 30 * HOUR, -30_000, -90_000], [94, 3, 2, 1])[0]
    at = time - delay
    iso = datetime.datetime.fromtimestamp(at / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds")
    return article | {"published_at": choice.choice([at, iso, iso.replace("+00:00", "Z")])}


def _record(time: int, key: str, value: bytes | None) -> dict[str, Any]:
    return {
        "partition": partition_of(key.encode(), PARTITIONS),
        "timestamp": time,
        "key": key.encode(),
        "value": value,
    }


def _batch_of(topic: str, partition: int, records: list[dict[str, Any]]) -> pa.RecordBatch:
    mine = [record for record in records if record["partition"] == partition]
    columns = [range(len(mine)), *([record[name] for record in mine] for name in ("timestamp", "key", "value"))]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)]
    return with_span(pa.RecordBatch.from_arrays(arrays, schema=RAW), Span(topic, partition, 0, len(mine)))


class Expected(NamedTuple):
    """What the sinks are to hold: rows, and how often each."""

    articles: Counter[tuple[Any, ...]]  # of table news_sentiment_ts
    windows: Counter[tuple[Any, ...]]  # of table news_windows_ts
    messages: set[tuple[bytes, bytes, int, int]]  # key, value, partition, offset; each at least once
    dead_letters: set[tuple[int, int, str, bytes | None]]
    lake: set[tuple[int, int, str]]  # partition, offset, id


def expected_of(raw: Iterable[pa.RecordBatch]) -> Expected:
    """By the kernels alone, whatever the batches."""
    reading = Reading(default_model(), packaged_directory())
    decoded = [decode(batch, MAX_FUTURE_MS) for batch in raw]
    scored = [scored_articles(it.articles, reading) for it in decoded]
    facts: dict[str, list[pa.RecordBatch]] = {}
    for batch in scored:
        for key, some in facts_of(batch):
            facts.setdefault(key, []).append(some)
    windows = [windows_of(key, joined(some)) for key, some in facts.items()]
    dead = [row for it in decoded if it.dead_letters for row in it.dead_letters.to_pylist()]
    return Expected(
        Counter(_newest(row for batch in scored for row in _as_stored(NEWS_SENTIMENT, batch))),
        Counter(row for batch in windows for row in _as_stored(NEWS_WINDOWS, batch)),
        {tuple(row.values()) for batch in scored for row in sentiment_messages(batch).to_pylist()},
        {(row["partition"], row["offset"], row["reason"], row["value"]) for row in dead},
        {(row["partition"], row["offset"], row["article_id"]) for it in decoded for row in it.articles.to_pylist()},
    )


def _newest(rows: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of each article the version with the highest offset."""
    newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in sorted(rows, key=lambda row: row[-1]):
        newest[row[:2]] = row
    return list(newest.values())


def _as_stored(table: Table, batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Rows as a database gives them back, in the order of the table's declaration."""
    for row in batch.to_pylist():
        yield tuple(_value(column.kind, row[column.field]) for column in _identity_first(table))


def _identity_first(table: Table) -> list[Any]:
    """The identity, then the rest; the offset last."""
    by_name = {column.name: column for column in table.columns}
    rest = [name for name in by_name if name not in (*table.identity, "offset")]
    return [by_name[name] for name in [*table.identity, *rest, *(["offset"] if "offset" in by_name else [])]]


def select(table: Table) -> str:
    """A query for `_as_stored`'s rows; arrays as text, because a row is to be hashed."""
    return f"SELECT {', '.join(_selected(column) for column in _identity_first(table))} FROM {table.name}"


def _selected(column: Any) -> str:
    return f'"{column.name}"::text' if column.kind.endswith("[]") else f'"{column.name}"'


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "timestamp with time zone":
        return datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(milliseconds=value)
    if kind == "uuid":
        return uuid.UUID(value)
    if kind.startswith("numeric"):
        return decimal.Decimal(str(value)).quantize(decimal.Decimal("1e-4" if kind == "numeric(5,4)" else "1e-8"))
    if kind.endswith("[]"):
        return (
            "{" + ",".join("NULL" if it is None else f"{it:g}" if isinstance(it, float) else it for it in value) + "}"
        )
    return value
