"""Ticker directories: which company has which symbol and goes by which names, packaged or of the user's own."""

import csv
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import NamedTuple

from beam_pipelines.errors import UsageError

__all__ = [
    "Company",
    "bare_name",
    "common_words",
    "first_names",
    "packaged_companies",
    "read_companies",
    "with_dots",
    "with_short_names",
]

_SHAPES = (
    "a CSV file with the header symbol,name or symbol,name,also, the SEC's company_tickers.json,"
    " or nasdaqtrader.com's nasdaqlisted.txt or otherlisted.txt"
)
_SYMBOL = re.compile(r"[A-Z0-9]{1,8}(?:\.[A-Z]{1,4})?", re.ASCII)
_FORM = (
    r"(?:inc|incorporated|corp|corporation|co|company|companies|ltd|limited|plc|llc|lp|l\.p|n\.?v|s\.?a|s\.?e|a\.?g"
    r"|a ?/?s|group|holdings?)"
)
_LEGAL = re.compile(rf"(?:,?\s+(?:& )?{_FORM}\b\.?)$", re.IGNORECASE)
_SHARES = re.compile(
    r"\s*[-,]?\s*\b(?:class [a-z]\b|common (?:stock|shares?|units?)|ordinary shares?|american deposit[ao]ry"
    r"|deposit[ao]ry|shares? of|sponsored adr|subordinate voting|new york registry|capital stock|series [a-z]\b).*$",
    re.IGNORECASE,
)
_NO_COMPANY = re.compile(
    r"\b(?:warrants?|units?|rights?|preferred|preference|notes?|debentures?|subordinated|etf|etn|fund)\b|%",
    re.IGNORECASE,
)


class Company(NamedTuple):
    """A row of a ticker directory."""

    symbol: str  # in capitals, its class of shares after a dot
    name: str  # with or without its legal form; empty: only the symbol counts
    also: tuple[str, ...] = ()  # names that news use for it


def with_dots(symbol: str) -> str:
    """A symbol with its class of shares after a dot, as Reuters and the NYSE write it: BRK-B and BRK/B become BRK.B."""
    return symbol.strip().upper().replace("-", ".").replace("/", ".")


def bare_name(name: str) -> str:
    """A company's name less its kind of shares and its legal form: Apple Inc. - Common Stock becomes Apple."""
    name = re.sub(r"\s*/.*$", "", _SHARES.sub("", name)).strip(" ,-")  # the SEC adds /DE/ and /NEW
    name = name.removesuffix(" (The)").removeprefix("The ")
    for _ in range(4):  # Bank Holding Co. Ltd. Inc.
        name = _LEGAL.sub("", name).rstrip(" ,&-")
    return name


# --- what is packaged ---


def _packaged(name: str) -> str:
    return (resources.files("beam_pipelines.transforms") / "data" / name).read_text(encoding="utf-8")


@functools.cache
def packaged_companies() -> tuple[Company, ...]:
    """About 600 companies, funds and cryptocurrencies that news are mostly about, with their usual short names."""
    return tuple(_of_csv(_packaged("tickers.csv").splitlines(), "tickers.csv"))


def _entries(name: str) -> frozenset[str]:
    lines = (line for line in _packaged(name).splitlines() if not line.startswith("#"))
    return frozenset(word.replace("_", " ") for line in lines for word in line.split())


@functools.cache
def common_words() -> frozenset[str]:
    """Names that are words of the language too, in small letters, and names of people and places, with a capital."""
    return _entries("common_words.txt")


@functools.cache
def first_names() -> frozenset[str]:
    """People's first names."""
    return _entries("first_names.txt")


# --- what a user brings ---


def read_companies(path: str | os.PathLike[str]) -> list[Company]:
    """The companies of a file: CSV with the header symbol,name[,also], the SEC's JSON, or nasdaqtrader.com's lists.

    In the column `also`, | stands between short names.  Of nasdaqtrader.com's lists, test issues are left out, and of
    funds, warrants, preferred shares and the like only the symbol is taken.

    Raises:
      UsageError: the file cannot be read or is none of these; names the line.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(
            f"The ticker directory {path} cannot be read as UTF-8 text ({failed}); give {_SHAPES}."
        ) from None
    if text.lstrip().startswith(("{", "[")):
        return _of_sec(text, path)
    lines = text.splitlines()
    head = (lines or [""])[0]
    if head.startswith(("Symbol|", "ACT Symbol|")):
        return list(_of_nasdaq(lines, path))
    return list(_of_csv(lines, path))


def _company(symbol: str, name: str, also: Iterable[str], place: str) -> Company:
    dotted = with_dots(symbol)
    if not _SYMBOL.fullmatch(dotted):
        raise UsageError(
            f"{place}: the symbol must be one to eight letters or digits such as AAPL or BRK.B, was {symbol!r}."
        )
    return Company(dotted, name.strip(), tuple(short.strip() for short in also if short.strip()))


def _of_csv(lines: list[str], path: object) -> Iterator[Company]:
    rows = csv.reader(lines, strict=True)
    head = next(rows, [])
    if [column.strip().lower() for column in head] not in (["symbol", "name"], ["symbol", "name", "also"]):
        raise UsageError(f"{path}, line 1: the header was {','.join(head)[:80]!r}; give {_SHAPES}.")
    try:
        for row in rows:
            place = f"{path}, line {rows.line_num}"
            if row and not 2 <= len(row) <= len(head):
                raise UsageError(f"{place}: has {len(row)} fields, not {len(head)}; put names with commas in quotes.")
            if row:
                yield _company(row[0], row[1], row[2].split("|") if len(row) > 2 else (), place)
    except csv.Error as failed:
        raise UsageError(f"{path}, line {rows.line_num}: is not CSV ({failed}); mend its quotes.") from None


def _of_sec(text: str, path: pathlib.Path) -> list[Company]:
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as failed:
        line = getattr(failed, "lineno", 1)
        raise UsageError(
            f"{path}, line {line}: is not JSON ({failed}); download it again, or give {_SHAPES}."
        ) from None
    companies = []
    for key, row in rows.items() if isinstance(rows, dict) else enumerate(rows):
        if not (isinstance(row, dict) and isinstance(row.get("ticker"), str) and isinstance(row.get("title"), str)):
            raise UsageError(f"{path}, line 1: entry {key} has no texts ticker and title; give {_SHAPES}.")
        companies.append(_company(row["ticker"], row["title"], (), f"{path}, entry {key}"))
    return companies


def _of_nasdaq(lines: list[str], path: pathlib.Path) -> Iterator[Company]:
    head = lines[0].split("|")
    columns = (head[0], "Security Name", "Test Issue", "ETF")
    if not set(columns) <= set(head):
        raise UsageError(f"{path}, line 1: the columns were {lines[0][:80]}; download it again, or give {_SHAPES}.")
    symbol_at, name_at, test_at, fund_at = map(head.index, columns)
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("|")
        if fields[0].startswith("File Creation Time") or not line.strip():
            continue
        if len(fields) != len(head):
            raise UsageError(
                f"{path}, line {number}: has {len(fields)} fields between |, not {len(head)}; download it again."
            )
        if fields[test_at] != "Y":
            known = fields[fund_at] != "Y" and not _NO_COMPANY.search(fields[name_at])
            symbol = re.sub(r"\$(?=.)", ".P", fields[symbol_at]).rstrip("$")  # AA$B: preferred shares
            yield _company(symbol, fields[name_at] if known else "", (), f"{path}, line {number}")


def with_short_names(companies: Iterable[Company]) -> list[Company]:
    """A user's companies, with the packaged short names of those that are packaged too, which come first.

    A symbol that has passed to a company whose name begins otherwise gets none.
    """
    listed = list(companies)
    by_symbol = {company.symbol: company for company in reversed(listed)}
    known = []
    for ours in packaged_companies():
        theirs = by_symbol.get(ours.symbol)
        if theirs and _first_word(theirs.name) in map(_first_word, (ours.name, *ours.also)):
            known.append(Company(ours.symbol, theirs.name, (*theirs.also, ours.name, *ours.also)))
    taken = {company.symbol for company in known}
    return known + [company for company in listed if company.symbol not in taken]


def _first_word(name: str) -> str:
    return re.split(r"[^\w&]+", bare_name(name).lower().replace("'", ""))[0]
