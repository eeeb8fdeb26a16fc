"""What is said of a minute of a partition."""

from collections.abc import Sequence
from typing import NamedTuple

MINUTE_MS = 60_000

CHECKS = ("volume", "duplicates", "late", "dead_letters", "sequence", "schema", "clock_skew", "silent_symbols")
"""What is looked at in every minute."""
EXAMPLES = 5
"""Cases that a check's sentence names; of the others it gives the number."""


class Check(NamedTuple):
    """One thing that was looked at in one minute of one partition."""

    window: int  # start of the minute, ms of Kafka time
    name: str
    passed: bool
    value: float
    threshold: float
    detail: str  # one sentence


def some(words: Sequence[str], total: int | None = None) -> str:
    """The first few of them, and how many more there are, as part of a sentence.

    Args:
      words: all, or the first of them, EXAMPLES at least if there are so many.
      total: how many there are; None: as many as words.
    """
    more = (len(words) if total is None else total) - EXAMPLES
    return ", ".join(words[:EXAMPLES]) + (f" and {more} more" if more > 0 else "")
