"""Bad records of every sort that a market-data topic has seen, each with the reason a decoder must give."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["BAD_RECORDS", "BadRecord"]


class BadRecord(NamedTuple):
    """One way in which a record goes wrong: the reason it is rejected for, and how a good record's bytes become it."""

    name: str
    reason: str
    spoil: Callable[[bytes], bytes | None]


def _always(value: bytes | None) -> Callable[[bytes], bytes | None]:
    return lambda _good: value


def _with(**fields: Any) -> Callable[[bytes], bytes | None]:
    return lambda good: json.dumps({**json.loads(good), **fields}, separators=(",", ":")).encode()


def _without(field: str) -> Callable[[bytes], bytes | None]:
    def spoil(good: bytes) -> bytes:
        fields = json.loads(good)
        del fields[field]
        return json.dumps(fields, separators=(",", ":")).encode()

    return spoil


BAD_RECORDS = (
    BadRecord("plain text", "not_json", _always(b"connection reset by peer")),
    BadRecord("cut short", "not_json", lambda good: good[: len(good) // 2]),
    BadRecord("two in one", "not_json", lambda good: good + good),
    BadRecord("binary", "not_json", _always(bytes(range(256)))),
    BadRecord("invalid UTF-8", "not_json", lambda good: good.replace(b'"symbol":"', b'"symbol":"\xff\xfe', 1)),
    BadRecord("empty", "not_json", _always(b"")),
    BadRecord("tombstone", "not_json", _always(None)),
    BadRecord("unclosed nesting", "not_json", _always(b"[" * 5_000)),
    BadRecord("nested 200 deep", "not_json", lambda good: good[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}"),
    BadRecord("NaN literal", "not_json", _with(price=float("nan"))),
    BadRecord("array", "not_an_object", _always(b'["AAPL",189.5,100]')),
    BadRecord("string", "not_an_object", _always(b'"AAPL"')),
    BadRecord("null", "not_an_object", _always(b"null")),
    BadRecord("no fields", "missing_field", _always(b"{}")),
    BadRecord("no symbol", "missing_field", _without("symbol")),
    BadRecord("null symbol", "missing_field", _with(symbol=None)),
    BadRecord("no price", "missing_field", _without("price")),
    BadRecord("no timestamp", "missing_field", _without("timestamp")),
    BadRecord("symbol is a number", "bad_type", _with(symbol=7)),
    BadRecord("price is a flag", "bad_type", _with(price=True)),
    BadRecord("price is an object", "bad_type", _with(price={"amount": 1})),
    BadRecord("volume is a list", "bad_type", _with(volume=[100])),
    BadRecord("negative price", "bad_value", _with(price=-1.5)),
    BadRecord("price zero", "bad_value", _with(price=0)),
    BadRecord(
        "price beyond any float", "bad_value", lambda good: good.replace(b'"price":', b'"price":1e400,"was":', 1)
    ),
    BadRecord("price in words", "bad_value", _with(price="cheap")),
    BadRecord("price is NaN", "bad_value", _with(price="NaN")),
    BadRecord("fractional volume", "bad_value", _with(volume=1.5)),
    BadRecord("negative volume", "bad_value", _with(volume=-100)),
    BadRecord("huge volume", "bad_value", _with(volume=10**30)),
    BadRecord("blank symbol", "bad_value", _with(symbol="  ")),
    BadRecord("long symbol", "bad_value", _with(symbol="A" * 21)),
    BadRecord("timestamp in words", "bad_timestamp", _with(timestamp="half past nine")),
    BadRecord("month thirteen", "bad_timestamp", _with(timestamp="2025-13-01T00:00:00Z")),
    BadRecord("wrong clock", "future_timestamp", _with(timestamp=4_102_444_800_000)),
    BadRecord("wrong clock, ISO 8601", "future_timestamp", _with(timestamp="2100-01-01T00:00:00Z")),
)
"""What `simulate` mixes in."""
