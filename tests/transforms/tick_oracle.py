"""What a raw record means, written down from DESIGN.md with the standard library alone, slowly and plainly."""

import json
import math
import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?")
TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?(?:(Z)|([+-])(\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)
FIELDS = ["symbol", "timestamp", "price", "volume", "bid", "ask", "bid_size", "ask_size", "seq", "source", "updates"]
LAST_MS = 253_402_300_799_999


class Literal(str):
    """A JSON number as it was written."""


class BadRecordError(Exception):
    pass


def meaning(value, log_time, offset, max_future_ms=60_000):
    """(row, None) or (None, (reason, field)); rows are dicts of the fields that a record decides."""
    try:
        record = parsed(value)
        fields = {name: field(name, record.get(name)) for name in FIELDS}
        if log_time >= 0 and fields["timestamp"] > log_time + max_future_ms:
            raise BadRecordError("future_timestamp", "timestamp")
    except BadRecordError as bad:
        return None, bad.args
    defaults = {"seq": offset, "source": "unknown", "updates": 7}
    return {name: defaults.get(name) if fields[name] is None else fields[name] for name in FIELDS}, None


def parsed(value):
    def refuse(word):
        raise BadRecordError("not_json", "value")

    try:
        text = value.decode("utf-8", "strict")
        record = json.loads(text, parse_float=Literal, parse_int=Literal, parse_constant=refuse)
        json.dumps(record, ensure_ascii=False).encode()  # escapes of lone surrogates stand for no text
    except (ValueError, AttributeError, RecursionError):
        raise BadRecordError("not_json", "value") from None
    if depth(record) > 100:
        raise BadRecordError("not_json", "value")
    if not isinstance(record, dict):
        raise BadRecordError("not_an_object", "value")
    return record


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def field(name, value):
    if value is None:
        if name in ("symbol", "timestamp", "price", "volume"):
            raise BadRecordError("missing_field", name)
        return None
    is_text = isinstance(value, str) and not isinstance(value, Literal)
    if isinstance(value, bool | list | dict) or (name in ("symbol", "source") and not is_text):
        raise BadRecordError("bad_type", name)
    if name == "timestamp":
        return timestamp(value)
    if name in ("symbol", "source"):
        return word(name, value)
    return number(name, value)


def word(name, text):
    text = (text.upper() if name == "symbol" else text).strip()
    longest = 20 if name == "symbol" else 100
    if len(text) > longest or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text) or (name == "symbol" and not text):
        raise BadRecordError("bad_value", name)
    return text or "unknown"


def number(name, value):
    found = double(value) if name in ("price", "bid", "ask") else integer(value)
    lowest = {"seq": -(2**63), "price": math.ulp(0)}.get(name, 0)
    if found is None or found < lowest or (name == "updates" and found > 7):
        raise BadRecordError("bad_value", name)
    return found


def double(value):
    if not NUMBER.fullmatch(value.strip()):
        return None
    found = float(value.strip())
    return found if math.isfinite(found) else None


def integer(value):
    match = NUMBER.fullmatch(value.strip())
    found = None if match is None else double(value)
    if found is None:
        return None
    exact = int(value.strip()) if not (match["fraction"] or match["exponent"]) else Fraction(found)
    return int(exact) if exact == int(exact) and -(2**63) <= exact < 2**63 else None


def timestamp(value):
    match = None if isinstance(value, Literal) else TIME.fullmatch(value.strip())
    ms = integer(value) if match is None else calendar(*match.groups())
    if ms is None or not 0 <= ms <= LAST_MS:
        raise BadRecordError("bad_timestamp", "timestamp")
    return ms


def calendar(year, month, day, hour, minute, second, fraction, zulu, sign, off_hours, off_minutes):
    if int(off_hours or 0) > 23 or int(off_minutes or 0) > 59:
        return None
    try:
        local = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)), tzinfo=timezone.utc)
    except ValueError:
        return None
    offset = timedelta(hours=int(off_hours or 0), minutes=int(off_minutes or 0)) * (-1 if sign == "-" else 1)
    since = local - datetime(1970, 1, 1, tzinfo=timezone.utc) - offset
    return since // timedelta(milliseconds=1) + int(Fraction(f"0.{fraction or 0}") * 1000)
