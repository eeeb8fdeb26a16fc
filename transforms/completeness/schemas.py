"""Fields of raw records that are new, of another type, or gone."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_pipelines.transforms.columns import to_list
from beam_pipelines.transforms.completeness.checks import EXAMPLES, MINUTE_MS, Check, some
from beam_pipelines.transforms.completeness.names import Names
from beam_pipelines.transforms.completeness.pieces import Piece, offsets_of

Ints = NDArray[np.int64]

MOST_FIELDS = 200
SAMPLES = 20
"""Records a minute whose fields are looked at, shared by the sources."""
_KNOWN_SAMPLES = 100  # of a source, before a field of it is new
_MISSES = 20  # samples in a row without a field that half of them have: by chance once in a million
_MEMORY = 1024  # samples after which all counts are halved
_LONGEST_RECORD = 65_536  # bytes
_LONGEST_NAME = 60  # characters of a field that are kept
_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}


@dataclass
class _Field:
    seen: int = 0  # samples that have it
    missed: int = 0  # samples since the last that has it
    kinds: list[str] = field(default_factory=list)  # JSON types but null


@dataclass
class _Schema:
    samples: int = 0
    fields: dict[str, _Field] = field(default_factory=dict)

    def learn(self, record: dict[str, Any]) -> list[str]:
        """What is new in a record, for people."""
        kinds = {name[:_LONGEST_NAME]: _KINDS.get(type(value), "") for name, value in record.items()}
        told = [change for name, kind in kinds.items() if (change := self._change(name, kind))]
        for known in self.fields.values():
            known.missed += 1
        for name in self.fields.keys() & kinds.keys():
            self.fields[name].seen += 1
            self.fields[name].missed = 0
        self.samples += 1
        if self.samples >= _MEMORY:
            self._halve()
        return told if self.samples > _KNOWN_SAMPLES else []

    def _change(self, name: str, kind: str) -> str:
        """What is new about one field of a record, empty: nothing."""
        known = self.fields.get(name)
        if known is None:
            if len(self.fields) < MOST_FIELDS:
                self.fields[name] = _Field(kinds=[kind] if kind else [])
            return f"new field {name!r}"
        if not kind or kind in known.kinds:
            return ""
        before = " or ".join(known.kinds)
        known.kinds.append(kind)
        return f"field {name!r} is of type {kind}, was {before}" if before else ""

    def _halve(self) -> None:
        self.samples //= 2
        for known in self.fields.values():
            known.seen //= 2

    def vanished(self) -> list[str]:
        """Fields that more than half of the records had and now none has."""
        return [
            f"field {name!r} has vanished"
            for name, known in self.fields.items()
            if known.missed >= _MISSES and 2 * known.seen > self.samples > _KNOWN_SAMPLES
        ]


class Schemas:
    """Names and JSON types of the fields of raw records, by source, from the first valid ones of each minute.

    Attributes:
      known: by source.
    """

    def __init__(self) -> None:
        self.known: dict[str, _Schema] = {}
        self._left = SAMPLES
        self._each: dict[str, int] = {}  # samples of a source in the open minute
        self._quota = SAMPLES
        self._told: list[str] = []
        self._count = 0

    @property
    def wanting(self) -> bool:
        """Whether the minute has not had its samples."""
        return self._left > 0

    def add(self, piece: Piece, source: Ints, sources: Names) -> None:
        """Looks at some of the records if the minute has not had its samples."""
        rows = self._rows(source, sources.words()) if self.wanting else []
        if not rows:
            return
        offsets = offsets_of(piece.ticks)[[row for row, _ in rows]]
        values = piece.values["value"].take(pa.array(np.searchsorted(offsets_of(piece.values), offsets)))
        for value, (_, name) in zip(to_list(values), rows, strict=True):
            self._learn(name, value)

    def _rows(self, source: Ints, names: list[str]) -> list[tuple[int, str]]:
        """The ticks to look at, by row, and their sources."""
        wanted = [
            (row, name)
            for at, name in enumerate(names)
            if (quota := self._quota - self._each.get(name, 0)) > 0
            for row in np.flatnonzero(source == at)[:quota].tolist()
        ]
        chosen = sorted(wanted)[: self._left]
        self._left -= len(chosen)
        for _, name in chosen:
            self._each[name] = self._each.get(name, 0) + 1
        return chosen

    def _learn(self, name: str, value: bytes) -> None:
        if len(value) > _LONGEST_RECORD:
            return
        try:
            record = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a tick whose other fields are odd
            return
        told = self.known.setdefault(name, _Schema()).learn(record)
        self._count += len(told)
        room = EXAMPLES - len(self._told)
        self._told += [f"{name}: {change}" for change in told[:room]]

    def close(self, minute: int) -> Check:
        """Judges the open minute."""
        gone = [f"{name}: {change}" for name in self._each for change in self._vanished(name)]
        found = self._count + len(gone)
        detail = some([*self._told, *gone], found) or "fields are as they were"
        self._left, self._each, self._told, self._count = SAMPLES, {}, [], 0
        self._quota = max(SAMPLES // max(len(self.known), 1), 1)
        return Check(minute * MINUTE_MS, "schema", not found, float(found), 0.0, detail)

    def _vanished(self, name: str) -> list[str]:
        return self.known[name].vanished() if name in self.known else []

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        known = {
            name: [schema.samples, {at: [f.seen, f.missed, f.kinds] for at, f in schema.fields.items()}]
            for name, schema in self.known.items()
        }
        return {"known": known, "minute": [self._left, self._each, self._quota, self._told, self._count]}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `to_dict` gave."""
        self._left, self._each, self._quota, self._told, self._count = state["minute"]
        self.known = {
            name: _Schema(samples, {at: _Field(*values) for at, values in fields.items()})
            for name, (samples, fields) in state["known"].items()
        }


def first_of_each(source: pa.DictionaryArray, seen: Counter[str]) -> Ints:
    """The rows of the first SAMPLES ticks of each source.

    Args:
      source: of each tick, [n].
      seen: how many of each came before; those found are added.
    """
    names = to_list(source.dictionary)
    found: list[Ints] = [np.empty(0, np.int64)]
    if all(seen[name] >= SAMPLES for name in names):
        return found[0]
    places = source.indices.to_numpy()
    for at in np.unique(places).tolist():
        found.append(np.flatnonzero(places == at)[: SAMPLES - seen[names[at]]])
        seen[names[at]] += len(found[-1])
    return np.sort(np.concatenate(found))
