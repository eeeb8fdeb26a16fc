"""Scored articles and windows for the tests of sinks."""

import uuid
from typing import Any

import pyarrow as pa

from beam_pipelines.transforms.batches import SCORED, WINDOWS

from .market_rows import NEW_YEAR

ARTICLE = str(uuid.UUID(int=7))


def scored(*rows: dict[str, Any]) -> pa.RecordBatch:
    """SCORED: the same article as often as there are rows, each with the values that it names."""
    plain = {
        "article_id": ARTICLE,
        "published_at": NEW_YEAR,
        "symbols": ["AAPL", "TSLA"],
        "sentiment_score": 0.25,
        "sentiment_category": "neutral",
        "news_category": "earnings",
        "source": "wire",
        "symbol_scores": [0.5, None],
        "confidence": 0.75,
        "kinds": ["earnings"],
        "kind": "news",
        "language": "en",
        "title": "Apple rises",
        "url": None,
        "model": "default",
        "known_at": NEW_YEAR + 5,
        "partition": 3,
        "offset": 0,
        "signature": b"",
    }
    return pa.RecordBatch.from_pylist([plain | row for row in rows], SCORED)


def windows(*rows: dict[str, Any]) -> pa.RecordBatch:
    """WINDOWS of an hour, one a row."""
    plain = {
        "symbol": "AAPL",
        "time": NEW_YEAR,
        "window_seconds": 3600,
        "article_count": 1000,
        "story_count": 1,
        "positive_count": 0,
        "negative_count": 0,
        "sentiment": 0.5,
        "decayed_sentiment": 0.25,
        "newest_at": NEW_YEAR - 1,
    }
    return pa.RecordBatch.from_pylist([plain | row for row in rows], WINDOWS)
