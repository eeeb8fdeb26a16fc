"""Mistakes of the user, told in one sentence."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence

__all__ = ["UsageError", "mistake_in", "run_main", "telling_mistakes"]


class UsageError(Exception):
    """Something only the user can mend: names the field, the value and the cure, in one sentence."""


def mistake_in(failed: Exception) -> UsageError | None:
    """What a worker found that only the user can mend: runners pass on no more of an exception than its text."""
    found = re.search(r"\bUsageError: (.+?)(?: \[while running|\n|$)", f"{type(failed).__name__}: {failed}")
    return UsageError(found.group(1)) if found else None


@contextlib.contextmanager
def telling_mistakes() -> Iterator[None]:
    """Turns a failure of the block that only the user can mend into a UsageError."""
    try:
        yield
    except Exception as failed:
        mistake = mistake_in(failed)
        if mistake:
            raise mistake from failed
        raise


def run_main(main: Callable[[Sequence[str]], int]) -> None:
    """Runs `main` on the command line's arguments and exits with its code; a UsageError is one line and code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as mistake:
        print("error:", " ".join(str(mistake).split()), file=sys.stderr)  # what servers answer may have several lines
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
