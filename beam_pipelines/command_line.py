"""Command lines of all programs: a mistake is one sentence, told before anything starts.

A flag is never taken for another that begins like it, and a value out of all proportion is refused here rather than by
an overflow in a worker.
"""

import argparse
import datetime
import difflib
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from beam_pipelines.errors import UsageError

__all__ = ["WEEK_MS", "Parser", "filled", "folder", "share", "today", "unknown_flag", "utc_day", "whole"]

WEEK_MS = 7 * 86_400_000
"""What any length of event or wall time is well below, ms."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors, its commands' included."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Tells what is wrong, without the usage, which is longer than most screens are wide."""
        raise UsageError(f"{message} (see --help)")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The values of all flags.

        Raises:
          UsageError: names the flag that is unknown, missing, or has a bad value.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            raise unknown_flag(unknown[0], self.flags())
        return options

    def flags(self) -> list[str]:
        """All flags, those of the commands included."""
        own = list(self._option_string_actions)
        commands = [it.choices.values() for it in self._actions if isinstance(it, argparse._SubParsersAction)]
        return own + [flag for parsers in commands for parser in parsers for flag in parser.flags()]


def unknown_flag(argument: str, known: Iterable[str]) -> UsageError:
    """What to tell about an argument that nobody takes; its value, which may be a secret, is left out."""
    flag = re.sub(r"//[^/]*@", "//***@", argument.split("=")[0])  # a lost --timescale_dsn leaves its value alone
    near = difflib.get_close_matches(flag, list(known), n=1, cutoff=0.7)
    return UsageError(f"unknown flag or argument {flag}: {f'did you mean {near[0]}?' if near else 'see --help'}")


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number within these bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return number

    return parse


def share(text: str) -> float:
    """The type of a flag that takes a part of the whole."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a share between 0 and 1, not {text!r}")
    return number


def filled(text: str) -> str:
    """The type of a flag that takes a text; a shell makes an empty one of a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"is empty ({text!r}): give a value or leave the flag out")
    return text


def utc_day(text: str, cure: str = "give one as 2026-11-20") -> datetime.date:
    """The type of a flag that takes a day of UTC; `cure` is what it tells who gives something else."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: {cure}") from None


def today() -> datetime.date:
    """The day that is not over yet, UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def folder(text: str) -> pathlib.Path:
    """The type of a flag that takes a folder, which need not be there yet."""
    path = pathlib.Path(filled(text)).absolute()
    nearest = next(it for it in (path, *path.parents) if it.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be a folder, because {nearest} is a file: choose another")
    return path
