"""Words, numbers and marks of English financial text, and where its sentences end.

Everything takes time linear in the text: the patterns have no nested quantifiers.
"""

import re
from collections.abc import Iterator
from itertools import chain

__all__ = ["classes_of", "number_of", "sentence_spans", "tokens_of"]

_PIECE = re.compile(
    r"[$@#][^\W\d_]\w*"  # cashtag, handle, hashtag
    r"|[^\W\d_]\w*(?:['&][^\W\d_]+)?"  # q3, isn't, s&p
    r"|(?<!\w)[+-]?[$]?\d[\d.,]*"  # the sign of -5, not of 2019-20
    r"|[%;,!?:|…(]|[.](?!\S)"
)
_PLAIN = str.maketrans({"’": "'", "−": "-", "–": "-", "€": None, "£": None, "¥": None})  # noqa: RUF001
_WORDS = "A"  # words sort after it, numbers and marks before
_SENTENCE_END = re.compile(r"[.!?\n](?:(?<=\n)|[\"”')\]]?\s+(?=[\"“'(\[]?[A-Z0-9$@#]))")
_ABBREVIATIONS = frozenset(
    ("inc", "corp", "co", "cos", "ltd", "plc", "bros", "mr", "mrs", "ms", "dr", "jr", "sr", "st", "no", "vs", "approx",
     "u.s", "u.k", "e.g", "i.e", "gov", "sen", "rep", "gen",
     "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec")
)  # fmt: skip


def tokens_of(text: str) -> list[str]:
    """The tokens of `text` in lower case: words, numbers with their sign, percent signs, marks that end clauses."""
    words = text.lower().split()
    found = list(map(_KNOWN.get, words))
    if None in found:
        return list(chain.from_iterable(map(_learnt_pieces, words)))
    return list(chain.from_iterable(found))  # type: ignore[arg-type]  # none is None


_KNOWN: dict[str, tuple[str, ...]] = {}  # news has few different words: most are found here
_MOST_KNOWN = 1 << 15
_LONGEST_KNOWN = 40  # characters


def _learnt_pieces(word: str) -> tuple[str, ...]:
    pieces = _KNOWN.get(word)
    if pieces is None:
        pieces = _pieces(word)
        if len(word) <= _LONGEST_KNOWN:
            if len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.clear()
            _KNOWN[word] = pieces
    return pieces


def _pieces(word: str) -> tuple[str, ...]:
    """The tokens of what stands between two spaces."""
    if "http" in word:
        return ("http",)
    plain = word.translate(_PLAIN).replace("u.s.", "usa")
    return tuple(piece.removesuffix("'s") for piece in _PIECE.findall(plain))


def classes_of(tokens: list[str]) -> list[str]:
    """The tokens, with one name for all numbers of a kind, all cashtags and all handles."""
    return [token if token > _WORDS else _class_of(token) for token in tokens]


def _class_of(token: str) -> str:
    first = token[0]
    if first in "+-":
        return first + "0"
    if first.isdigit():
        return "0"
    if first == "$":
        return "0" if token[1].isdigit() else "$tag"
    return "@handle" if first == "@" else token


def number_of(token: str) -> float | None:
    """The value of a number token without its sign, in which commas part thousands; None: it is no number."""
    if token > _WORDS:
        return None
    digits = token.lstrip("+-$").rstrip(".,").replace(",", "")
    try:
        return float(digits) if digits[:1].isdigit() else None
    except ValueError:  # 1.2.3
        return None


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence begins and ends in `text`, in order; blank ones are left out."""
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        if text[match.start()] == "." and _is_abbreviation(text, match.start()):
            continue
        if text[end - 1] != "\n" or not text[begin:end].isspace():
            yield begin, end
        begin = end
    if begin < len(text) and not text[begin:].isspace():
        yield begin, len(text)


def _is_abbreviation(text: str, dot: int) -> bool:
    word = text[max(0, dot - 12) : dot].rpartition(" ")[2].lower()
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())
