"""Before a job is launched: does all that it needs answer?  A line each, all of them, not only the first."""

from collections.abc import Callable, Iterable

from beam_pipelines.errors import UsageError
from beam_pipelines.stream import Check

__all__ = ["look"]


def look(checks: Iterable[Check], tell: Callable[[str], None]) -> bool:
    """Runs checks.

    Args:
      checks: to be run; one that needs another stands after it.
      tell: is given a line for each: ✓, or ✗ with what is wrong and the cure.

    Returns:
      Whether all is there.
    """
    failed: set[str] = set()
    for check in checks:
        wrong = f"not looked at without {check.needs}" if check.needs in failed else _wrong(check)
        if wrong:
            failed.add(check.what)
        tell(f"✗ {check.what}: {wrong}" if wrong else f"✓ {check.what}")
    return not failed


def _wrong(check: Check) -> str:
    try:
        check.run()
    except UsageError as mistake:
        return " ".join(str(mistake).split())
    return ""
