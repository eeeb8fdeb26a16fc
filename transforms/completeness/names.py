"""Names of symbols or sources, numbered, of which a limited number is kept."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_pipelines.transforms.columns import to_list

Ints = NDArray[np.int64]

FORGET_MINUTES = 10 * 1440
"""A name that does not come for so long is new when it comes again: longer than any holidays."""


class Names:
    """Words that have a column each, in order of first appearance, at most `most`; and when each came.

    Attributes:
      here: times that each came in the open minute.
      last: the last closed minute in which it came, -1: in none.
      minutes: closed minutes in which it came.
    """

    COLUMNS = ("word", "here", "last", "minutes")

    def __init__(self, most: int) -> None:
        self._most = most
        self._words = pa.array([], pa.string())
        self.here: Ints = np.empty(0, np.int64)
        self.last: Ints = np.empty(0, np.int64)
        self.minutes: Ints = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._words)

    @property
    def full(self) -> bool:
        """Whether there may be words that have no column."""
        return len(self) >= self._most

    def words(self) -> list[str]:
        """All, by column."""
        words: list[str] = to_list(self._words)
        return words

    def word(self, column: int) -> str:
        """That of a column."""
        return str(self._words[column])

    def take_in(self, names: pa.DictionaryArray) -> Ints:
        """Counts the names; gives the column of each, -1: it has none."""
        indices = names.indices.to_numpy().astype(np.int64)  # numpy takes and counts by these without a copy
        columns = self._columns(names.dictionary)
        if len(columns) and columns.min() < 0 and not self.full:
            used = pc.unique(names.indices).to_numpy()  # not the dictionary's order: that may depend on batching
            self._append(pc.take(names.dictionary, pa.array(used[columns[used] < 0][: self._most - len(self)])))
            columns = self._columns(names.dictionary)
        known = np.flatnonzero(columns >= 0)
        self.here[columns[known]] += np.bincount(indices, minlength=len(columns))[known]
        numbers: Ints = columns.take(indices)
        return numbers

    def _columns(self, words: pa.Array) -> Ints:
        found = pc.index_in(words, value_set=self._words)
        columns: Ints = found.fill_null(-1).to_numpy().astype(np.int64)
        return columns

    def _append(self, words: pa.Array) -> None:
        self._words = pa.concat_arrays([self._words, words])
        none = np.zeros(len(words), np.int64)
        self.here, self.minutes = np.append(self.here, none), np.append(self.minutes, none)
        self.last = np.append(self.last, none - 1)

    def close(self, minute: int) -> Ints | None:
        """Ends a minute; gives the columns that stay if some have to go, those that came in the fewest minutes."""
        came = self.here > 0
        self.last[came] = minute
        self.minutes[came] += 1
        self.here = np.zeros(len(self), np.int64)
        stay = self.last >= minute - FORGET_MINUTES
        if not self.full and stay.all():
            return None
        kept = np.flatnonzero(stay)
        if self.full:
            kept = np.sort(kept[np.lexsort((-self.last[kept], -self.minutes[kept]))][: self._most * 3 // 4])
        self._words = self._words.take(pa.array(kept))
        self.here, self.last, self.minutes = self.here[kept], self.last[kept], self.minutes[kept]
        return kept

    def to_columns(self) -> dict[str, pa.Array]:
        """As Arrow columns."""
        return dict(zip(self.COLUMNS, [self._words, *map(pa.array, (self.here, self.last, self.minutes))], strict=True))

    def to_lists(self) -> list[list[Any]]:
        """The same as lists."""
        return [column.to_pylist() for column in self.to_columns().values()]

    def restore(self, words: Iterable[str], here: Any, last: Any, minutes: Any) -> None:
        """Takes what `to_columns` gave."""
        self._words = pa.array(words, pa.string())
        self.here, self.last, self.minutes = (np.array(values, np.int64) for values in (here, last, minutes))
