"""One tick from one raw record, or the reason why it is none.

A record is rejected for the first of these that holds:

1. `not_json`: a tombstone, empty, not UTF-8, not JSON by RFC 8259, or nested more than 100 levels deep.
2. `not_an_object`.
3. field by field, in the order of `Tick`: `missing_field` (a required one is absent or null), `bad_type` (its JSON
   type is never right), `bad_value` (for `timestamp`: `bad_timestamp`).
4. `future_timestamp`.

Of a repeated name the last one counts; unknown names are skipped.  A number is a JSON number or a string that holds one
(and blanks around it).  Written with a fraction or an exponent it is a double, which an integer field takes if it is
integral.  A timestamp may be a number of ms, too, or ISO 8601.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from beam_pipelines.transforms.timestamps import LAST_MS, iso_ms

__all__ = [
    "MAX_DEPTH",
    "RANGES",
    "SHALLOW_BYTES",
    "UNKNOWN",
    "UPDATES_ALL",
    "Reject",
    "Tick",
    "float_of",
    "integer_of",
    "is_shallow",
    "read_record",
    "source_of",
    "symbol_of",
    "timestamp_of",
]

UNKNOWN: Final = "unknown"
UPDATES_ALL: Final = 7
_INT64_MAX: Final = 2**63 - 1

MAX_DEPTH: Final = 100  # a rule of ours, because the parser's own limit depends on the depth of its caller's stack
SHALLOW_BYTES: Final = 2 * MAX_DEPTH  # nothing shorter can be nested deeper
_SYMBOL_CHARS, _SOURCE_CHARS = 20, 100


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


class Reject(NamedTuple):
    """Why a record is not a tick."""

    reason: str
    detail: str


class _Invalid(Exception):  # noqa: N818  (not an error of the program)
    """A field is not as it must be."""

    def __init__(self, reason: str, wanted: str) -> None:
        super().__init__(reason, wanted)
        self.reason, self.wanted = reason, wanted


# known fields as JSON text, not parsed yet (None: absent); the parser skips unknown ones as it does for Tick
_Fields = msgspec.defstruct(
    "_Fields", [(name, msgspec.Raw, msgspec.Raw()) for name in Tick.__struct_fields__], gc=False
)
_FIELDS = msgspec.json.Decoder(_Fields)
_JSON = msgspec.json.Decoder(msgspec.Raw)
_STRING = msgspec.json.Decoder(str)
_FLOAT = msgspec.json.Decoder(float)
_NUMBER = msgspec.json.Decoder(int | float)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # possessive: linear for any text


def read_record(value: bytes | None, log_time: int, max_future_ms: int) -> Tick | Reject:
    """The tick of one record, with all fields checked and of their final types, or why it is none.

    Args:
      value: the record's bytes; None is a tombstone.
      log_time: the record's Kafka timestamp, ms; negative if it has none.
      max_future_ms: how far the tick may be dated after `log_time`, ms.
    """
    fields = _fields_of(value)
    if isinstance(fields, Reject):
        return fields
    tick: dict[str, Any] = {}
    for name in Tick.__struct_fields__:
        text = bytes(getattr(fields, name)).decode()
        try:
            tick[name] = _read_field(name, text)
        except _Invalid as invalid:
            found = _shown(text) if text else "absent"
            return Reject(invalid.reason, f"{name} is {found}, wanted: {invalid.wanted}")
    if 0 <= log_time < tick["timestamp"] - max_future_ms:
        ahead = tick["timestamp"] - log_time
        found = f"{_shown(bytes(fields.timestamp).decode())}, {ahead} ms after its record's"
        return Reject("future_timestamp", f"timestamp is {found}, wanted: at most {max_future_ms} ms after")
    return Tick(**tick)


def is_shallow(value: bytes) -> bool:
    """Whether `value` is sure not to be nested too deeply."""
    return len(value) <= SHALLOW_BYTES or value.count(b"{") + value.count(b"[") <= MAX_DEPTH


def _shown(text: str) -> str:
    """The start of a text, on one line."""
    return " ".join(text[:40].split()) + ("…" if len(text) > 40 else "")


# --- The record ---


def _fields_of(value: bytes | None) -> Any:
    """The known fields of a JSON object, or a Reject."""
    if not value:
        return Reject("not_json", f"value is {'null' if value is None else 'empty'}, wanted: a JSON object")
    try:
        text = value.decode()
        if not is_shallow(value) and _depth(text) > MAX_DEPTH:
            return Reject("not_json", f"value is nested too deeply, wanted: at most {MAX_DEPTH} levels")
        return _object_of(text)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        return Reject("not_json", f"value is {_shown(repr(value[:80]))}, wanted: JSON ({error})")


def _object_of(text: str) -> Any:
    """The known fields of a JSON object; a Reject for any other JSON.

    Raises:
      DecodeError: `text` is not JSON.
    """
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError:  # said at the first character: what follows it has not been looked at
        _JSON.decode(text)
        return Reject("not_an_object", f"value is {_shown(text)}, wanted: a JSON object")


def _depth(text: str) -> int:
    """Levels of brackets in JSON text."""
    level = deepest = 0
    for token in _STRINGS_AND_BRACKETS.finditer(text):
        level += (token[0] in "{[") - (token[0] in "}]")
        deepest = max(deepest, level)
    return deepest


# --- The meaning of a value, None if it has none; both paths of `decode` share these ---


def symbol_of(text: str) -> str | None:
    """The symbol that a feed's text stands for."""
    return _tidy(text.upper(), _SYMBOL_CHARS) or None


def source_of(text: str) -> str | None:
    """The source that a feed's text stands for."""
    source = _tidy(text, _SOURCE_CHARS)
    return UNKNOWN if source == "" else source


def _tidy(text: str, limit: int) -> str | None:
    """`text` without blanks around it; None: it is too long or has control characters."""
    text = text.strip()
    return None if len(text) > limit or _CONTROL_CHARACTER.search(text) else text


def float_of(value: float | str) -> float | None:
    """The finite number that `value` is or holds."""
    if not isinstance(value, str):
        return float(value)
    try:
        return _FLOAT.decode(value.strip())
    except msgspec.DecodeError:  # a number too large, too
        return None


def integer_of(value: float | str) -> int | None:
    """The 64-bit integer that `value` is or holds."""
    try:
        number = _NUMBER.decode(value.strip()) if isinstance(value, str) else value
    except msgspec.DecodeError:
        return None
    whole = int(number)
    return whole if whole == number and -_INT64_MAX - 1 <= whole <= _INT64_MAX else None


def timestamp_of(value: float | str) -> int | None:
    """The point in time that `value` stands for, ms since 1970 UTC."""
    iso = iso_ms(value.strip()) if isinstance(value, str) else None
    return integer_of(value) if iso is None else iso


# --- The fields ---


class _Field(NamedTuple):
    """What a field may be."""

    meaning: Callable[[str], Any]  # of a JSON string's content, or of a JSON number's text
    wanted: str
    required: bool = False
    takes_numbers: bool = True


RANGES: Final[dict[str, tuple[float, float]]] = {
    "timestamp": (0, LAST_MS),
    "price": (math.nextafter(0, 1), math.inf),
    "volume": (0, _INT64_MAX),
    "bid": (0, math.inf),
    "ask": (0, math.inf),
    "bid_size": (0, _INT64_MAX),
    "ask_size": (0, _INT64_MAX),
    "updates": (0, UPDATES_ALL),
}
"""Lowest and highest value of a field."""

_WHOLE = "an integer from 0 to 2^63-1"
_FIELD = {
    "symbol": _Field(symbol_of, f"1 to {_SYMBOL_CHARS} characters, no control characters", True, takes_numbers=False),
    "timestamp": _Field(timestamp_of, "ms since 1970 or ISO 8601, 1970 to 9999", True),
    "price": _Field(float_of, "a finite number above 0", True),
    "volume": _Field(integer_of, _WHOLE, True),
    "bid": _Field(float_of, "a finite number, 0 or more"),
    "ask": _Field(float_of, "a finite number, 0 or more"),
    "bid_size": _Field(integer_of, _WHOLE),
    "ask_size": _Field(integer_of, _WHOLE),
    "seq": _Field(integer_of, "an integer from -2^63 to 2^63-1"),
    "source": _Field(source_of, f"at most {_SOURCE_CHARS} characters, no control characters", takes_numbers=False),
    "updates": _Field(integer_of, f"an integer from 0 to {UPDATES_ALL}"),
}


def _read_field(name: str, text: str) -> Any:
    """The checked value of a field's JSON text; None: it has none and needs none.

    Raises:
      _Invalid: it is not as it must be.
    """
    field = _FIELD[name]
    if text in ("", "null"):
        if field.required:
            raise _Invalid("missing_field", field.wanted)
        return None
    is_string = text[0] == '"'
    if not is_string and (text[0] in "tf[{" or not field.takes_numbers):
        raise _Invalid("bad_type", field.wanted)
    value = field.meaning(_STRING.decode(text) if is_string else text)
    if value is None or (name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]):
        raise _Invalid("bad_timestamp" if name == "timestamp" else "bad_value", field.wanted)
    return value
