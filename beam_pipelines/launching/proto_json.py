"""Messages of the Dataflow API as JSON: read leniently, written strictly.

What protobuf's own parser takes is read (https://protobuf.dev/programming-guides/json: camelCase or snake_case names,
`null` for a field that is not set, enums by name or number, whole numbers as texts), and also what people write by
hand: `"true"` for a truth value, a number for a text.  Fields that are not known are left out.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_pipelines.errors import UsageError

__all__ = ["Reader", "many", "message", "number", "one_of", "parsed", "text", "texts_by_name", "truth", "written"]

Reader = Callable[[str, object], Any]
"""Gives the value of a field; is called with where it stands, for its complaints, and what stands there.

Raises UsageError if that is no such value.
"""


def parsed(content: str, what: str) -> object:
    """The value that JSON text holds.

    Args:
      content: the text.
      what: names it in a complaint.

    Raises:
      UsageError: if it is no JSON.
    """
    try:
        return json.loads(content)
    except ValueError as wrong:
        raise UsageError(f"{what} is no JSON: {wrong}") from None


def text(where: str, value: object) -> str:
    """A text; numbers and truth values become one."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise _no(where, value, "a text")


def truth(where: str, value: object) -> bool:
    """A truth value, also as a text."""
    said = text(where, value).strip().lower()
    if said not in ("true", "false"):
        raise _no(where, value, "true or false")
    return said == "true"


def number(where: str, value: object) -> int:
    """A whole number, also as a text."""
    try:
        return int(text(where, value))
    except ValueError:
        raise _no(where, value, "a whole number") from None


def one_of(names: Sequence[str]) -> Reader:
    """The names of an enum, in the order of their numbers from 0."""

    def read(where: str, value: object) -> str:
        said = text(where, value).strip().upper()
        name = names[int(said)] if said.isdecimal() and int(said) < len(names) else said
        if name not in names:
            raise _no(where, value, f"one of {', '.join(names)}")
        return name

    return read


def many(read: Reader) -> Reader:
    """A list of such values; a tuple."""

    def read_all(where: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _no(where, value, "a list")
        return tuple(read(f"{where}[{index}]", it) for index, it in enumerate(value))

    return read_all


def texts_by_name(where: str, value: object) -> dict[str, str]:
    """A map of texts."""
    if not isinstance(value, dict):
        raise _no(where, value, "an object")
    return {name: text(f"{where}.{name}", it) for name, it in value.items()}


def message(fields: Mapping[str, Reader], whole: bool = False) -> Reader:
    """A message of these fields, by their names in camelCase; gives those that are set.

    Args:
      fields: how each is read.
      whole: whether it must be understood as a whole: a field that is not known is a mistake.
    """
    known = {_plain(name): name for name in fields}

    def read(where: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _no(where, value, "an object")
        if whole:
            _refuse_unknown(where, value, known)
        found: dict[str, Any] = {}
        for given, it in value.items():
            name = known.get(_plain(given))
            if name in found:
                raise UsageError(f"{where} has the field {name} twice, the second time as {given}: leave one out")
            if name and it is not None:
                found[name] = fields[name](f"{where}.{name}", it)
        return found

    return read


def _refuse_unknown(where: str, value: Mapping[str, object], known: Mapping[str, str]) -> None:
    fields = [*known.values()]
    for name in value:
        if _plain(name) not in known:
            near = difflib.get_close_matches(name, fields, n=1)
            cure = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            raise UsageError(f"{where} has no field {name}: {cure}")


def written(fields: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a message that are written: as protobuf does, those that are not empty; and the required ones."""
    return {name: value for name, value in fields.items() if value not in ("", 0, None, (), [], {}) or name in required}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _no(where: str, value: object, what: str) -> UsageError:
    said = json.dumps(value)
    return UsageError(f"{where} must be {what}, not {said if len(said) <= 80 else said[:80] + '...'}")
