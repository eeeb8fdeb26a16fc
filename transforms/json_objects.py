"""One JSON object from one raw record, field by field, or the reason why it is none.

A record is rejected for the first of these that holds:

1. `not_json`: a tombstone, empty, not UTF-8, not JSON by RFC 8259, or nested more than 100 levels deep.
2. `not_an_object`.
3. field by field, in their order: `missing_field` (a required one is absent or null), `bad_type` (its JSON type is
   never right), `bad_value` (or the reason that the field names).
4. `future_timestamp`, for who asks `dated_ahead`.

Of a repeated name the last one counts; unknown names are skipped.  A number is a JSON number or a string that holds one
(and blanks around it).  Written with a fraction or an exponent it is a double, which an integer field takes if it is
integral.  A timestamp may be a number of ms, too, or ISO 8601.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from beam_pipelines.transforms.timestamps import LAST_MS, iso_ms

__all__ = [
    "INT64_MAX",
    "MAX_DEPTH",
    "SHALLOW_BYTES",
    "UNKNOWN",
    "Field",
    "ObjectReader",
    "Read",
    "Reject",
    "dated_ahead",
    "float_of",
    "integer_of",
    "is_shallow",
    "source_field",
    "source_of",
    "tidy",
    "timestamp_field",
    "timestamp_of",
]

UNKNOWN: Final = "unknown"
INT64_MAX: Final = 2**63 - 1

MAX_DEPTH: Final = 100  # a rule of ours, because the parser's own limit depends on the depth of its caller's stack
SHALLOW_BYTES: Final = 2 * MAX_DEPTH  # nothing shorter can be nested deeper
_SOURCE_CHARS = 100


class Reject(NamedTuple):
    """Why a record is not what it should be."""

    reason: str
    detail: str


class _Invalid(Exception):  # noqa: N818  (not an error of the program)
    """A field is not as it must be."""

    def __init__(self, reason: str, wanted: str) -> None:
        super().__init__(reason, wanted)
        self.reason, self.wanted = reason, wanted


_JSON = msgspec.json.Decoder(msgspec.Raw)
_STRING = msgspec.json.Decoder(str)
_STRINGS = msgspec.json.Decoder(list[str])
_FLOAT = msgspec.json.Decoder(float)
_NUMBER = msgspec.json.Decoder(int | float)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # possessive: linear for any text


class Field(NamedTuple):
    """What a field may be.

    Attributes:
      meaning: of a JSON string's content, of a JSON number's text, or of a list of strings; None: it has none.
      wanted: for people.
      required: whether it must be there.
      takes: the JSON types beside strings: numbers, or lists (and then no strings).
      range: lowest and highest value.
      reason: of a reject, when the value has no meaning or is out of range.
    """

    meaning: Callable[[Any], Any]
    wanted: str
    required: bool = False
    takes: str = "numbers"  # "numbers", "strings" or "lists"
    range: tuple[float, float] | None = None
    reason: str = "bad_value"


class Read(NamedTuple):
    """The fields of a record."""

    values: dict[str, Any]  # of their final types, None where it is absent
    texts: Any  # their JSON, by attribute


class ObjectReader:
    """Reads records that are JSON objects.

    Args:
      fields: by name, in the order in which they are looked at.
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = dict(fields)
        # known fields as JSON text, not parsed yet (empty: absent)
        raw = msgspec.defstruct("_Fields", [(name, msgspec.Raw, msgspec.Raw()) for name in fields], gc=False)
        self._decoder: Any = msgspec.json.Decoder(raw)

    def read(self, value: bytes | None) -> Read | Reject:
        """The fields of one record, checked, or why it is none.

        Args:
          value: the record's bytes; None is a tombstone.
        """
        texts = self._texts_of(value)
        if isinstance(texts, Reject):
            return texts
        values: dict[str, Any] = {}
        for name, field in self._fields.items():
            text = bytes(getattr(texts, name)).decode()
            try:
                values[name] = _read_field(field, text)
            except _Invalid as invalid:
                found = _shown(text) if text else "absent"
                return Reject(invalid.reason, f"{name} is {found}, wanted: {invalid.wanted}")
        return Read(values, texts)

    def _texts_of(self, value: bytes | None) -> Any:
        """The known fields of a JSON object, or a Reject."""
        if not value:
            return Reject("not_json", f"value is {'null' if value is None else 'empty'}, wanted: a JSON object")
        try:
            text = value.decode()
            if not is_shallow(value) and _depth(text) > MAX_DEPTH:
                return Reject("not_json", f"value is nested too deeply, wanted: at most {MAX_DEPTH} levels")
            return self._object_of(text)
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            return Reject("not_json", f"value is {_shown(repr(value[:80]))}, wanted: JSON ({error})")

    def _object_of(self, text: str) -> Any:
        """The known fields of a JSON object; a Reject for any other JSON.

        Raises:
          DecodeError: `text` is not JSON.
        """
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError:  # said at the first character: what follows it has not been looked at
            _JSON.decode(text)
            return Reject("not_an_object", f"value is {_shown(text)}, wanted: a JSON object")


def is_shallow(value: bytes) -> bool:
    """Whether `value` is sure not to be nested too deeply."""
    return len(value) <= SHALLOW_BYTES or value.count(b"{") + value.count(b"[") <= MAX_DEPTH


def _depth(text: str) -> int:
    """Levels of brackets in JSON text."""
    level = deepest = 0
    for token in _STRINGS_AND_BRACKETS.finditer(text):
        level += (token[0] in "{[") - (token[0] in "}]")
        deepest = max(deepest, level)
    return deepest


def _shown(text: str) -> str:
    """The start of a text, on one line."""
    return " ".join(text[:40].split()) + ("…" if len(text) > 40 else "")


def _read_field(field: Field, text: str) -> Any:
    """The checked value of a field's JSON text; None: it has none and needs none.

    Raises:
      _Invalid: it is not as it must be.
    """
    if text in ("", "null"):
        if field.required:
            raise _Invalid("missing_field", field.wanted)
        return None
    value = field.meaning(_content_of(field, text))
    if value is None or (field.range and not field.range[0] <= value <= field.range[1]):
        raise _Invalid(field.reason, field.wanted)
    return value


def _content_of(field: Field, text: str) -> Any:
    """What a field's meaning is made of: the content of a string or a list, or a number as it is written."""
    if field.takes == "lists":
        try:
            return _STRINGS.decode(text)
        except msgspec.ValidationError:
            raise _Invalid("bad_type", field.wanted) from None
    if text[0] == '"':
        return _STRING.decode(text)
    if text[0] in "tf[{" or field.takes != "numbers":
        raise _Invalid("bad_type", field.wanted)
    return text


def dated_ahead(name: str, read: Read, log_time: int, max_future_ms: int) -> Reject | None:
    """Why a record cannot be of this time.

    Args:
      name: of the field that is its time, ms.
      read: the record.
      log_time: the record's Kafka timestamp, ms; negative if it has none.
      max_future_ms: how far it may be dated after `log_time`, ms.
    """
    ahead = read.values[name] - log_time
    if log_time < 0 or ahead <= max_future_ms:
        return None
    found = f"{_shown(bytes(getattr(read.texts, name)).decode())}, {ahead} ms after its record's"
    return Reject("future_timestamp", f"{name} is {found}, wanted: at most {max_future_ms} ms after")


# --- The meaning of a value, None if it has none ---


def source_of(text: str) -> str | None:
    """The source that a feed's text stands for."""
    source = tidy(text, _SOURCE_CHARS)
    return UNKNOWN if source == "" else source


def tidy(text: str, limit: int) -> str | None:
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
    return whole if whole == number and -INT64_MAX - 1 <= whole <= INT64_MAX else None


def timestamp_of(value: float | str) -> int | None:
    """The point in time that `value` stands for, ms since 1970 UTC."""
    iso = iso_ms(value.strip()) if isinstance(value, str) else None
    return integer_of(value) if iso is None else iso


def timestamp_field() -> Field:
    """The time of a record."""
    wanted = "ms since 1970 or ISO 8601, 1970 to 9999"
    return Field(timestamp_of, wanted, required=True, range=(0, LAST_MS), reason="bad_timestamp")


def source_field() -> Field:
    """Where a record comes from."""
    return Field(source_of, f"at most {_SOURCE_CHARS} characters, no control characters", takes="strings")
