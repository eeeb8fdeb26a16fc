"""Mistakes of the user, told in one sentence."""

import sys
from collections.abc import Callable, Sequence

__all__ = ["UsageError", "run_main"]


class UsageError(Exception):
    """Something only the user can mend: names the field, the value and the cure, in one sentence."""


def run_main(main: Callable[[Sequence[str]], int]) -> None:
    """Runs `main` on the command line's arguments and exits with its code; a UsageError is one line and code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as mistake:
        print("error:", " ".join(str(mistake).split()), file=sys.stderr)  # what servers answer may have several lines
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
