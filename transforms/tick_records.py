"""One tick from one raw record, or the reason why it is none.

The reasons are those of `json_objects`, the fields those of `Tick`.
"""

import math
from typing import Final

import msgspec

from beam_pipelines.transforms.json_objects import (
    INT64_MAX,
    Field,
    ObjectReader,
    Reject,
    dated_ahead,
    float_of,
    integer_of,
    source_field,
    tidy,
    timestamp_field,
)

__all__ = ["RANGES", "UPDATES_ALL", "Tick", "read_record", "symbol_of"]

UPDATES_ALL: Final = 7
_SYMBOL_CHARS = 20


class Tick(msgspec.Struct, gc=False, eq=False):
    """One record's fields, of the right JSON types; `read_record` gives them checked, too."""

    symbol: str
    timestamp: int | float | str
    price: float | str
    volume: int | float | str
    bid: float | str | None = None
    ask: float | str | None = None
    bid_size: int | float | str | None = None
    ask_size: int | float | str | None = None
    seq: int | float | str | None = None
    source: str | None = None
    updates: int | float | str | None = None


def symbol_of(text: str) -> str | None:
    """The symbol that a feed's text stands for."""
    return tidy(text.upper(), _SYMBOL_CHARS) or None


def _count(required: bool = False) -> Field:
    return Field(integer_of, "an integer from 0 to 2^63-1", required, range=(0, INT64_MAX))


_QUOTE = Field(float_of, "a finite number, 0 or more", range=(0, math.inf))
_FIELDS = {
    "symbol": Field(symbol_of, f"1 to {_SYMBOL_CHARS} characters, no control characters", True, "strings"),
    "timestamp": timestamp_field(),
    "price": Field(float_of, "a finite number above 0", True, range=(math.nextafter(0, 1), math.inf)),
    "volume": _count(required=True),
    "bid": _QUOTE,
    "ask": _QUOTE,
    "bid_size": _count(),
    "ask_size": _count(),
    "seq": Field(integer_of, "an integer from -2^63 to 2^63-1"),
    "source": source_field(),
    "updates": Field(integer_of, f"an integer from 0 to {UPDATES_ALL}", range=(0, UPDATES_ALL)),
}
_READER = ObjectReader(_FIELDS)

RANGES: Final = {name: field.range for name, field in _FIELDS.items() if field.range}
"""Lowest and highest value of a field."""


def read_record(value: bytes | None, log_time: int, max_future_ms: int) -> Tick | Reject:
    """The tick of one record, with all fields checked and of their final types, or why it is none.

    Args:
      value: the record's bytes; None is a tombstone.
      log_time: the record's Kafka timestamp, ms; negative if it has none.
      max_future_ms: how far the tick may be dated after `log_time`, ms.
    """
    read = _READER.read(value)
    if isinstance(read, Reject):
        return read
    return dated_ahead("timestamp", read, log_time, max_future_ms) or Tick(**read.values)
