"""The names under which companies are looked for, and what each may be besides a company's name."""

import enum
from collections.abc import Iterator
from typing import NamedTuple

from beam_pipelines.transforms.tickers import Company, bare_name

__all__ = ["Doubt", "Name", "is_common", "key_of", "names_of"]


class Doubt(enum.IntEnum):
    """What a name, or a symbol that is marked as one, may be besides a company's."""

    NONE = 0
    PHRASE = 1  # words of the language, in a row: a name where capitals mean something
    WORD = 2  # a word of the language
    PLACE = 3  # a place, a person or a day: its capital says nothing
    CODE = 4  # an abbreviation
    UNIT = 5  # a letter behind a dollar sign
    BARE = 6  # a word or a letter that only the company's own name can vouch for


class Name(NamedTuple):
    """What an automaton finds by a key."""

    symbol: str
    doubt: Doubt
    exact: bool  # counts in capitals only


_INDICES = frozenset(
    ["dow", "dow jones", "nasdaq", "s&p", "russell", "russell 2000", "ftse", "index", "fund", "trust", "wall street"]
) | frozenset(["reuters", "bloomberg", "news", "new york", "new york times", "the"])
"""Names of companies that in news stand mostly for an index, or for who reports: only the full name counts."""

_SPACES = bytes(code if chr(code).isalnum() or code == ord("&") else 32 for code in range(256))
_ENDINGS = ("s", "es", "ed", "d", "ing", "ly", "er", "r", "ers", "rs", "est")


def key_of(text: str) -> bytes:
    """A text with one byte a character, in small letters, all but letters, digits and & as spaces, and one around it.

    Characters that Latin-1 does not have become spaces, too.
    """
    lowered = text.replace("İ", "i").lower()  # the only letter that has two in lower case
    return b" %b " % lowered.encode("latin-1", "replace").translate(_SPACES)


def is_common(word: str, words: frozenset[str]) -> bool:
    """Whether a word in small letters, or what it is an inflected form of, is among `words`."""
    return any(stem in words for stem in _stems(word))


def _stems(word: str) -> Iterator[str]:
    yield word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) > (2 if ending == "s" else 3):
            stem = word[: -len(ending)]
            yield from (stem, stem + "e", stem[:-1] + "y" if stem.endswith("i") else stem)


def names_of(company: Company, words: frozenset[str]) -> Iterator[tuple[bytes, Name]]:
    """The keys by which a company is found: its names, without its legal form too, and its symbol from three letters.

    Args:
      company: a row of a directory.
      words: names that are words of the language too, in small letters, or of people and places, with a capital.
    """
    bare = bare_name(company.name)
    listed = sorted([*company.also, company.name], key=str.isupper)  # Nio comes before NIO, which is in capitals only
    for name in listed:
        yield from _name(company.symbol, name, True, words)
    if bare not in listed:
        yield from _name(company.symbol, bare, False, words)
    if len(company.symbol) > 2 and company.symbol.isalpha() and not is_common(company.symbol.lower(), words):
        doubt = Doubt.NONE if company.also and len(company.symbol) > 3 else Doubt.CODE
        yield key_of(company.symbol), Name(company.symbol, doubt, exact=True)


def _name(symbol: str, name: str, listed: bool, words: frozenset[str]) -> Iterator[tuple[bytes, Name]]:
    """The keys of one name; `listed`: it is so in the directory, not made from a longer one."""
    key = key_of(name)
    plain = key.decode("latin-1").strip()
    if len(plain) < 2 or plain in _INDICES:
        return
    abbreviation = not listed and (len(name) < 4 or (len(name) < 5 and name.isupper()))
    doubt = Doubt.CODE if abbreviation else Doubt.NONE
    found = Name(symbol, _ordinary(plain, listed, words) or doubt, exact=len(name) < 4 and name.isupper())
    yield key, found
    if b" & " in key:
        yield key.replace(b" & ", b" and "), found


def _ordinary(name: str, listed: bool, words: frozenset[str]) -> Doubt:
    """Whether a name in small letters is a word or made of words."""
    parts = name.split()
    if name in words or (len(parts) == 1 and is_common(name, words)):
        return Doubt.WORD
    if len(parts) == 1:
        return Doubt.PLACE if name.title() in words else Doubt.NONE
    all_words = all(is_common(part, words) or part.title() in words for part in parts)
    return Doubt.PHRASE if all_words and not listed else Doubt.NONE
