"""What the news says of a symbol in sliding windows: how much, how good, and how much of it had been said before.

A window ends at a multiple of its step and holds what became known in it, [end - length, end): so its row says what
could be known at its end, whatever had been published by then and came later.  An article that resembles one that
became known earlier in the same window is a repeat, wherever it was printed, and counts for nothing else.

Every number is a function of the set of articles: neither the order in which they come nor the batches they come in
matter, so that no watermark is needed.  The rows of a symbol whose windows end on one day are made of the articles
that became known on that day or the day before; such a set is what a key of the stream's state holds.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagRuntimeState, BagStateSpec, RuntimeTimer, TimerSpec, on_timer
from apache_beam.typehints import KV
from apache_beam.utils.timestamp import Timestamp
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import WINDOWS, ArrowCoder, joined
from beam_pipelines.transforms.closing_state import DAY_MS
from beam_pipelines.transforms.gather import Gather
from beam_pipelines.transforms.near_duplicates import SIGNATURE_SIZE, last_alike
from beam_pipelines.transforms.sentiment import category_of

__all__ = ["FACTS", "LENGTHS", "LONGEST_MS", "SIGNATURE", "CountNews", "Length", "facts_of", "windows_of"]


class Length(NamedTuple):
    """A kind of window, in ms."""

    window: int
    step: int
    half_life: int  # of an article's weight in the decayed sentiment


LENGTHS: Final = (Length(3_600_000, 300_000, 900_000), Length(DAY_MS, 3_600_000, 21_600_000))
"""An hour every five minutes, and a day every hour."""

SIGNATURE: Final = np.dtype("<u2")
"""Of the values of a signature as it is kept: their lower half, which differs as surely."""

LONGEST_MS: Final = max(length.window for length in LENGTHS)
"""How old an article may be when it becomes known, to be news."""

_KEEP_S = 35 * 86_400  # longer than a raw topic keeps its records, so that none comes when its day is forgotten

_MANY_BATCHES = 32  # held of a key: more are joined, since to read a batch costs more than the articles in it

FACTS = pa.schema(
    [
        pa.field("article_id", pa.string(), nullable=False),
        pa.field("known_at", pa.int64(), nullable=False),  # ms
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("score", pa.float64()),  # for the symbol; null: not scored
        pa.field("signature", pa.binary(), nullable=False),  # by which repeats are known
    ]
)
"""What is kept of the articles on one symbol."""

_READ = ["article_id", "published_at", "known_at", "partition", "offset", "symbols", "symbol_scores", "signature"]


def facts_of(scored: pa.RecordBatch, day: int | None = None) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The FACTS of each symbol and day in a batch of SCORED articles, under the keys symbol|day; perhaps of one day.

    An article is in those of the day on which it became known and of the next.  One that was published longer ago than
    the longest window was no news any more, and is in none.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for article in scored.select(_READ).to_pylist():
        if article["known_at"] - article["published_at"] > LONGEST_MS:
            Metrics.counter("news", "too_old_for_windows").inc()
            continue
        known_on = article["known_at"] // DAY_MS
        days = [it for it in (known_on, known_on + 1) if day in (None, it)]
        for symbol, score in zip(article["symbols"], article["symbol_scores"], strict=True):
            fact = article | {"score": score}
            for it in days:
                rows.setdefault(f"{symbol}|{it}", []).append(fact)
    for key, facts in rows.items():
        yield key, pa.RecordBatch.from_pylist([{name: it[name] for name in FACTS.names} for it in facts], FACTS)


def windows_of(key: str, facts: pa.RecordBatch, added: NDArray[np.int64] | None = None) -> pa.RecordBatch:
    """The WINDOWS of a symbol that end on one day.

    Args:
      key: symbol|day.
      facts: all FACTS of the key so far; of several of one article the first in the log counts.
      added: when some of the facts became known, ms; only windows with one of these are wanted.  None: all.
    """
    symbol, _, day = key.rpartition("|")
    stories = _Stories(_once(facts))
    known_at = stories.known_at if added is None else added[np.isin(added, stories.known_at)]
    ends = [(end, length) for length in LENGTHS for end in _ends(length, int(day), known_at)]
    rows = [stories.row(symbol, end, length) for end, length in ends]
    return pa.RecordBatch.from_pylist(rows, WINDOWS)


def _once(facts: pa.RecordBatch) -> pa.RecordBatch:
    """Each article once, as it was when it became known, in that order."""
    order = np.lexsort([facts[name].to_numpy() for name in ("offset", "partition", "known_at")])
    ids = facts["article_id"].dictionary_encode().indices.to_numpy()[order]
    first = np.sort(np.unique(ids, return_index=True)[1])
    once = facts.take(pa.array(order[first]))
    return once.take(pc.sort_indices(once, [("known_at", "ascending"), ("article_id", "ascending")]))


def _ends(length: Length, day: int, known_at: NDArray[np.int64]) -> list[int]:
    """The ends, on a day, of the windows that hold something that became known at these times."""
    number = np.arange(1, length.window // length.step + 1)
    ends = np.unique((known_at // length.step)[:, None] + number) * length.step
    chosen: list[int] = ends[ends // DAY_MS == day].tolist()
    return chosen


class _Stories:
    """The articles of a key, in order, and which of them had been news before.

    Attributes:
      known_at: of each article, ascending, ms.
    """

    def __init__(self, facts: pa.RecordBatch) -> None:
        self.known_at: NDArray[np.int64] = facts["known_at"].to_numpy()
        self._before = _known_before(self.known_at, facts["signature"])
        self._score = facts["score"].to_numpy(zero_copy_only=False)
        self._is_scored = ~np.isnan(self._score)
        categories = list(map(category_of, self._score))
        self._is_positive = np.array([it == "positive" for it in categories], bool)
        self._is_negative = np.array([it == "negative" for it in categories], bool)

    def row(self, symbol: str, end: int, length: Length) -> dict[str, Any]:
        """The row of one window, which is not empty."""
        begin = end - length.window
        first, last = np.searchsorted(self.known_at, (begin, end)).tolist()
        inside = slice(first, last)
        is_story = self._before[inside] < begin
        scored = first + np.flatnonzero(is_story & self._is_scored[inside])
        scores = self._score[scored]
        weights = np.exp2((self.known_at[scored] - end) / length.half_life)
        return {
            "symbol": symbol,
            "time": end,
            "window_seconds": length.window // 1000,
            "article_count": last - first,
            "story_count": np.count_nonzero(is_story),
            "positive_count": np.count_nonzero(is_story & self._is_positive[inside]),
            "negative_count": np.count_nonzero(is_story & self._is_negative[inside]),
            "sentiment": _ratio(scores, len(scores)),
            "decayed_sentiment": _ratio(scores * weights, math.fsum(weights.tolist())),
            "newest_at": int(self.known_at[last - 1]),
        }


def _ratio(parts: NDArray[np.float64], whole: float) -> float | None:
    """4 decimals; None: there are no parts.  Their sum is rounded once, so it depends on no order."""
    return round(math.fsum(parts.tolist()) / whole, 4) if len(parts) else None


_NEVER = -(2**63)


def _known_before(known_at: NDArray[np.int64], signatures: pa.Array) -> NDArray[np.int64]:
    """When the last article before each one that resembles it became known, ms."""
    values = np.frombuffer(b"".join(signatures.to_pylist()), SIGNATURE).reshape(-1, SIGNATURE_SIZE)
    like = last_alike(values)
    return np.where(like < 0, _NEVER, known_at[like])


class CountNews(beam.PTransform):
    """PCollection[RecordBatch SCORED] to PCollection[RecordBatch WINDOWS], bounded or not.

    Unbounded, a window's row comes again whenever an article is added to it.

    Args:
      unbounded: whether the collection is.
      day: whose windows are wanted, in days since 1970; None: all.
    """

    def __init__(self, unbounded: bool, day: int | None = None) -> None:
        super().__init__()
        self._unbounded, self._day = unbounded, day

    def expand(self, scored: beam.PCollection) -> beam.PCollection:
        """By symbol and day."""
        facts = scored | "Facts" >> beam.FlatMap(facts_of, self._day).with_output_types(KV[str, pa.RecordBatch])
        if self._unbounded:
            return facts | "Count" >> beam.ParDo(_CountDoFn()).with_output_types(pa.RecordBatch)
        return facts | "BySymbol" >> Gather(str) | "Count" >> beam.MapTuple(_count).with_output_types(pa.RecordBatch)


def _count(key: str, facts: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    return windows_of(key, joined(list(facts)))


class _CountDoFn(beam.DoFn):
    """Keeps what is known of a symbol's day until no more of it can come."""

    HELD = BagStateSpec("held", ArrowCoder())
    FORGET = TimerSpec("forget", TimeDomain.REAL_TIME)

    def process(
        self,
        element: tuple[str, pa.RecordBatch],
        held: BagRuntimeState = beam.DoFn.StateParam(HELD),
        forget: RuntimeTimer = beam.DoFn.TimerParam(FORGET),
    ) -> Iterator[pa.RecordBatch]:
        key, facts = element
        before = list(held.read())
        if len(before) >= _MANY_BATCHES:
            before = [joined(before)]
            held.clear()
            held.add(before[0])
        held.add(facts)
        forget.set(Timestamp.now() + _KEEP_S)
        yield windows_of(key, joined([*before, facts]), facts["known_at"].to_numpy())

    @on_timer(FORGET)
    def clear(self, held: BagRuntimeState = beam.DoFn.StateParam(HELD)) -> None:
        held.clear()
