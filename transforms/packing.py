"""Whole numbers in as few bytes as their range takes, for state that is written far more often than it is read.

Frame of reference (Goldstein, Ramakrishnan and Shaft, "Compressing Relations and Indexes", ICDE 1998): what each number
is more than the least.  Lucene, Parquet's DELTA_BINARY_PACKED and DuckDB store numbers so.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Packed", "pack", "unpack"]

Ints = NDArray[np.int64]


class Packed(NamedTuple):
    """Numbers as unsigned ones of one, two, four or eight bytes."""

    more: NDArray[Any]  # than the least, [n]
    least: int


def pack(numbers: Ints) -> Packed:
    """Packs numbers, [n]; any of 64 bits."""
    least = int(numbers.min()) if len(numbers) else 0
    more = numbers.view(np.uint64) - _word(least)
    return Packed(more.astype(np.min_scalar_type(more.max(initial=0))), least)


def unpack(packed: Packed) -> Ints:
    """What `pack` was given."""
    numbers: Ints = (packed.more.astype(np.uint64) + _word(packed.least)).view(np.int64)
    return numbers


def _word(number: int) -> np.uint64:
    """A number modulo 2^64, as which sums and differences of any two are right."""
    return np.uint64(number % 2**64)
