"""Symbols that a text is about: cashtags, exchange references, and companies' names of a ticker directory.

One pass of an automaton finds all names (Aho and Corasick, Communications of the ACM 18, 1975), so that the cost grows
with the text and not with the directory.  A name that is a word of the language, too, counts only with a reason:
`name_reasons` says which.

A name counts where at least its first letter is a capital.  Nothing counts in web addresses, e-mail addresses, @handles
and #hashtags: they say who publishes or what is promoted, not what the text is about.
"""

import bisect
import functools
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import ahocorasick_rs

from beam_pipelines.transforms.company_names import Doubt, Name, is_common, key_of, names_of
from beam_pipelines.transforms.name_reasons import Around, has_capital_reason, has_reason, is_denied, is_surname, moves
from beam_pipelines.transforms.tickers import (
    Company,
    common_words,
    first_names,
    packaged_companies,
    read_companies,
    with_dots,
    with_short_names,
)

__all__ = ["Company", "Directory", "Mention", "packaged_directory", "read_directory", "symbols_of"]


class Mention(NamedTuple):
    """A place in a text that stands for a company."""

    symbol: str
    begin: int  # in characters
    end: int


_Found = tuple[Mention, Doubt]

_CASHTAG = re.compile(r"\$([A-Za-z]{1,6}(?:[./-][A-Za-z](?![A-Za-z0-9]))?)(?![\w$])")
_LISTED = re.compile(r":[ \u00a0]?([A-Z]{1,5}(?:[./-][A-Z])?)(?!\w|[.:]\w)")
_LISTED_TOO = re.compile(r"(?:,| and|;) ?([A-Z]{1,5}(?:[./-][A-Z])?)(?![\w:])")
_EXCHANGE = re.compile(
    r"(?<!\w)(?:nasdaq(?:gs|gm|cm)?|nyse(?: ?american| ?arca| ?mkt)?|amex|otc(?:mkts|qb|qx|pk)?|cboe|bats) ?\Z",
    re.IGNORECASE,
)
_IN_PARENTHESES = re.compile(r"\(([A-Z]{1,5}(?:[./-][A-Z])?)\)")
_COORDINATION = re.compile(r"(?:,? (?:and|&|or|vs\.?|versus) |, | ?/ ?)")
_ADDRESS = re.compile(r"://|www\.|@|\.[a-z]{2,4}/")
_NOT_BEFORE, _NOT_BEHIND, _GLUE = frozenset("@#_$€£¥\\"), frozenset("@_\\"), frozenset("./-:?&=")
_TOKEN = 100  # characters of an address on either side that are looked at
_CURRENCIES = frozenset(
    ["USD", "EUR", "GBP", "JPY", "CAD", "AUD", "CHF", "CNY", "HKD", "NZD", "SGD", "INR", "BRL", "MXN"]
)
_UNITS = frozenset("ABCKMT")  # $A is Australia's dollar, ($M) millions
_LEGAL_LENGTH = 16  # characters between a name and its symbol in parentheses
_NEAR = 200  # characters between a company and a word that it makes a company, too


class Directory:
    """Names that are looked for, and the symbols that they stand for.

    Args:
      companies: of those with the same name or symbol the first counts.
      words: names that are words of the language too, in small letters, or of people and places, with a capital.
    """

    def __init__(self, companies: Iterable[Company], words: Iterable[str]) -> None:
        self._words = frozenset(words)
        listed = list(companies)
        self.symbols = frozenset(company.symbol for company in listed)
        names: dict[bytes, Name] = {}
        for company in listed:
            for key, name in names_of(company, self._words):
                names.setdefault(key, name)
        self._names = list(names.values())
        self._automaton = ahocorasick_rs.BytesAhoCorasick(list(names))

    def mentions(self, text: str) -> list[Mention]:
        """What stands for a company in a text, in its order and without overlap; linear in the text's length."""
        found = [*self._references(text), *self._named(text)]
        found.sort(key=lambda it: (it[0].begin, -it[0].end))
        places: list[_Found] = []
        free = 0
        for place in found:
            if place[0].begin >= free:
                places.append(place)
                free = place[0].end
        return _settled(text, places)

    def _named(self, text: str) -> Iterator[_Found]:
        """The places with a name, written as one and in running text."""
        names = self._names
        for number, begin, end in self._automaton.find_matches_as_indexes(key_of(text), overlapping=True):
            symbol, doubt, exact = names[number]
            end -= 2  # the key has a space before and behind
            if _is_written_as_name(text[begin:end], exact) and _is_running_text(text, begin, end):
                yield Mention(symbol, begin, end), doubt

    # --- references ---

    def _references(self, text: str) -> Iterator[_Found]:
        """The places with a symbol that is marked as one."""
        yield from self._cashtags(text)
        for found in _LISTED.finditer(text):
            at: re.Match[str] | None = found
            if _EXCHANGE.search(text, max(0, found.start() - 16), found.start()):
                while at:
                    yield Mention(with_dots(at[1]), *at.span(1)), Doubt.NONE
                    at = _LISTED_TOO.match(text, at.end())
        for found in _IN_PARENTHESES.finditer(text):
            symbol = with_dots(found[1])
            if symbol in self.symbols:
                unsure = len(symbol) == 1 or is_common(symbol.lower(), self._words)
                yield Mention(symbol, *found.span(1)), Doubt.BARE if unsure else Doubt.NONE

    def _cashtags(self, text: str) -> Iterator[_Found]:
        for found in _CASHTAG.finditer(text):
            begin, end = found.span()
            if not _is_running_text(text, begin, end):
                continue
            symbol = with_dots(found[1])
            if "." in symbol and symbol not in self.symbols and symbol.split(".")[0] in self.symbols:
                symbol, end = symbol.split(".")[0], end - 2
            doubt = self._cashtag_doubt(text, symbol, begin, end)
            if doubt is not None:
                yield Mention(symbol, begin, end), doubt

    def _cashtag_doubt(self, text: str, symbol: str, begin: int, end: int) -> Doubt | None:
        """None: it is no cashtag."""
        known, upper = symbol in self.symbols, text[begin + 1 : end].isupper()
        common = is_common(symbol.lower(), self._words)
        if not upper:
            return Doubt.NONE if known and len(symbol) > 1 and not common else None
        if len(symbol) == 1:
            return Doubt.UNIT if symbol in _UNITS else Doubt.NONE
        if (common or not known) and Around(text, begin, end).shouted:
            return Doubt.BARE if known else None
        return Doubt.NONE if known or (symbol not in _CURRENCIES and len(symbol) < 6) else None


def _is_written_as_name(written: str, exact: bool) -> bool:
    """Whether a name has its capitals: all, or that of its first word and of its longer ones."""
    if exact:
        return written.isupper()
    if written.islower():
        return False
    return " " not in written or not any(word[0].islower() and len(word) > 3 for word in written.split())


def _is_running_text(text: str, begin: int, end: int) -> bool:
    """Whether a place is no part of an address, a handle, a hashtag, a price or a longer word."""
    before, behind = text[begin - 1 : begin], text[end : end + 1]
    if before == behind == " ":
        return True
    if before in _NOT_BEFORE or behind in _NOT_BEHIND or before.isalnum() or behind.isalnum():
        return False
    if before in _GLUE or behind in _GLUE:
        near = f"{text[max(0, begin - _TOKEN) : begin]}_{text[end : end + _TOKEN]}"
        at = min(begin, _TOKEN)  # where the name was
        token = near[:at].split(" ")[-1] + near[at:].split(" ")[0]
        return not (behind == "." and text[end + 1 : end + 2].isalnum()) and not _ADDRESS.search(token)
    return True


# --- doubts ---


def _settled(text: str, places: list[_Found]) -> list[Mention]:
    """The mentions among places, of which some are in doubt."""
    people = first_names()
    places = [place for place in places if not is_surname(text, place[0].begin, people)]
    sure = [not doubt for _, doubt in places]
    if all(sure):
        return [mention for mention, _ in places]
    known = {mention.symbol for mention, doubt in places if not doubt}
    open_at: dict[int, Around] = {}
    for number, (mention, doubt) in enumerate(places):
        if doubt:
            at = Around(text, mention.begin, mention.end)
            sure[number] = _is_itself(at, doubt, mention.symbol in known) or _is_paired(text, places, number)
            if not sure[number] and (doubt == Doubt.PHRASE or not is_denied(at)):
                open_at[number] = at
    _by_neighbours(text, places, sure, open_at)
    known = {mention.symbol for (mention, _), is_sure in zip(places, sure, strict=True) if is_sure}
    return [at for n, (at, _) in enumerate(places) if sure[n] or (n in open_at and at.symbol in known)]


def _is_itself(at: Around, doubt: Doubt, known: bool) -> bool:
    """Whether the words next to a doubtful name suffice, or do not speak against a company that is known."""
    if is_denied(at) and doubt != Doubt.PHRASE:
        return at.legal
    if known or (doubt == Doubt.PHRASE and not at.flat):
        return True
    if doubt == Doubt.BARE or (doubt == Doubt.CODE and at.shouted):
        return False
    return has_reason(at, doubt == Doubt.PLACE) or (doubt == Doubt.WORD and has_capital_reason(at))


def _is_paired(text: str, places: list[_Found], number: int) -> bool:
    """Whether a name and its symbol in parentheses stand together: The Gap (GAP)."""
    for name, symbol in itertools.pairwise(mention for mention, _ in places[max(0, number - 1) : number + 2]):
        together = text[symbol.begin - 1] == "(" and symbol.begin - name.end < _LEGAL_LENGTH
        if together and name.symbol == symbol.symbol:
            return True
    return False


def _by_neighbours(text: str, places: list[_Found], sure: list[bool], open_at: dict[int, Around]) -> None:
    """Makes doubtful names sure that companies are near, or that are told in a row with one."""
    begins = [mention.begin for (mention, _), is_sure in zip(places, sure, strict=True) if is_sure]
    for number, at in open_at.items():
        (_, begin, end), doubt = places[number]
        told = (doubt < Doubt.CODE and has_capital_reason(at)) or (doubt == Doubt.WORD and moves(at))
        if doubt == Doubt.UNIT or told:
            near = bisect.bisect_left(begins, begin - _NEAR)
            sure[number] = near < len(begins) and begins[near] < end + _NEAR and not at.shouted
    for step, numbers in ((-1, [*open_at]), (1, [*reversed(open_at)])):
        for number in numbers:
            beside = number + step
            if not sure[number] and 0 <= beside < len(places) and sure[beside] and places[number][1] != Doubt.BARE:
                first, second = (places[it][0] for it in sorted((number, beside)))
                sure[number] = bool(_COORDINATION.fullmatch(text, first.end, second.begin))


# --- directories ---


@functools.cache
def packaged_directory() -> Directory:
    """The packaged companies and words."""
    return Directory(packaged_companies(), common_words())


def read_directory(*paths: str | os.PathLike[str]) -> Directory:
    """A directory of the user's own files, together: what `read_companies` reads, with the packaged short names.

    Raises:
      UsageError: a file is no directory; names the line.
    """
    return Directory(with_short_names(it for path in paths for it in read_companies(path)), common_words())


def symbols_of(mentions: Iterable[Mention]) -> list[str]:
    """The symbols of mentions, each once, sorted."""
    return sorted({mention.symbol for mention in mentions})
