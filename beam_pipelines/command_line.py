"""Command lines of all programs: a mistake is one sentence, told before anything starts.

A flag is never taken for another that begins like it, and a value out of all proportion is refused here rather than by
an overflow in a worker.
"""

import argparse
import dataclasses
import datetime
import difflib
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from beam_pipelines.errors import UsageError

__all__ = [
    "DAY",
    "WEEK_MS",
    "Kind",
    "Parser",
    "file",
    "filled",
    "filled_as",
    "folder",
    "share",
    "today",
    "topic_named",
    "topic_read",
    "topic_written",
    "unknown_flag",
    "utc_day",
    "whole",
]

WEEK_MS = 7 * 86_400_000
"""What any length of event or wall time is well below, ms."""

DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""The form of a day, as a regular expression."""

Value = TypeVar("Value", covariant=True)


@dataclasses.dataclass(frozen=True)
class Kind(Generic[Value]):
    """The type of a flag: what it makes of a text, and how it is described to those who do not see the flag.

    Attributes:
      parse: gives the value, or raises ValueError; or ArgumentTypeError or UsageError with words of its own.
      must: what a value must look like, in words that go on from "must be".
      pattern: the same as a regular expression for the whole text, as RE2 and Python's `re` take it.
      good: texts that it takes.
      bad: texts that it refuses, by their form.
      param_type: its ParameterType in a template.
      secret: whether a value must not be shown.
    """

    parse: Callable[[str], Value]
    must: str
    pattern: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    param_type: str = "TEXT"
    secret: bool = False

    def __call__(self, text: str) -> Value:
        """The value, as argparse asks for it."""
        try:
            return self.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {self.must}, not {text!r}") from None


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


def whole(least: int, most: int) -> Kind[int]:
    """Takes a whole number within these bounds."""

    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError
        return number

    digits = f"[0-9]{{1,{len(str(most))}}}"
    must = f"a whole number from {least} to {most}"
    return Kind(parse, must, digits, (str(least), str(most)), ("", "x", "1.5", "-1", f"{most}0"), "NUMBER")


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


share = Kind(_share, "a share between 0 and 1", r"0|1|0?\.[0-9]+|[01]\.0*", ("0", "0.25", "1"), ("", "x", "1.5", "-1"))
"""Takes a part of the whole."""


def _filled(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"is empty ({text!r}): give a value or leave the flag out")
    return text


filled = Kind(_filled, "a text that is not empty", r".*\S.*", ("x", "two words"), ("", " "))
"""Takes a text; a shell makes an empty one of a variable that is not set."""


def filled_as(must: str, pattern: str, *good: str) -> Kind[str]:
    """Takes a text as `filled` does; templates ask for its form, which else only what reads it looks at."""
    return Kind(_filled, must, pattern, good, ("", " "))


file = filled_as("the path of a file", r".*\S.*", "file.csv", "/folder/a file.zip")
"""Takes the path of a file, which whoever reads it looks for."""
topic_named = filled_as(
    "a topic's name of at most 249 letters, digits, '.', '_' and '-'", "[a-zA-Z0-9._-]{1,249}", "ticks", "a.b_c-1"
)
"""Takes the name of a topic of Kafka, as those for one that is read or written do."""
topic_read = dataclasses.replace(topic_named, param_type="KAFKA_READ_TOPIC")
topic_written = dataclasses.replace(topic_named, param_type="KAFKA_WRITE_TOPIC")


def utc_day(cure: str = "give one as 2026-11-20") -> Kind[datetime.date]:
    """Takes a day of UTC; `cure` is what it tells who gives something else."""

    def parse(text: str) -> datetime.date:
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no day: {cure}") from None

    return Kind(
        parse, "a day of UTC, such as 2024-01-31", DAY, ("2024-01-31", "2024-02-29"), ("", "yesterday", "31.1.2024")
    )


def today() -> datetime.date:
    """The day that is not over yet, UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def _folder(text: str) -> pathlib.Path:
    path = pathlib.Path(filled(text)).absolute()
    nearest = next(it for it in (path, *path.parents) if it.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be a folder, because {nearest} is a file: choose another")
    return path


folder = Kind(_folder, "the path of a folder", r".*\S.*", ("folder", "/folder/inner"), ("", " "))
"""Takes a folder, which need not be there yet."""
