"""Plain text from what feeds send: HTML or not, entities decoded once too few or twice, control characters.

No tree is built.  The HTML standard's tree building is quadratic in nesting (lexbor, the fastest parser for Python:
2 s for 160 kB of "<ul><li>" never closed, minutes for 5 MB), and only the text between tags is wanted here.  Every
pattern below either matches or fails within a bounded look-ahead at each place, so the time is linear in the length.
"""

import html
import re
import unicodedata

__all__ = ["TEXT_LIMIT", "plain_text"]

TEXT_LIMIT = 20_000
"""Characters kept of a text if not said otherwise: news articles are seldom a third of it."""

_MARKUP_FACTOR = 10  # characters looked at for every one kept: more markup around a text than that is not news

_BLOCKS = """
    address article aside blockquote body br button caption center dd details dialog dir div dl dt fieldset figcaption
    figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li link main menu meta nav ol
    optgroup option p pre search section select summary table tbody td textarea tfoot th thead title tr ul"""
_INLINE = """
    a abbr acronym area audio b base bdi bdo big canvas cite code col colgroup data datalist del dfn em embed font i
    iframe img input ins kbd label map mark math meter noscript object output param path picture progress q rp rt ruby s
    samp script slot small source span strike strong style sub sup svg template time track tt u var video wbr"""
_REPLACED_BY = dict.fromkeys(_BLOCKS.split(), "\n") | dict.fromkeys(_INLINE.split(), "")
_FLAGS = (
    "allowfullscreen|async|autoplay|checked|controls|defer|disabled|hidden|itemscope|loop|muted|nomodule|nowrap|open|"
    "required|selected"
)
_ENDS_NAME = rf"(?=/?>|\s{{1,9}}(?:/?>|[a-zA-Z_:@][-\w:.@]{{0,99}}\s{{0,9}}=|(?:{_FLAGS})\b)|\Z)"
"""What follows the name of a tag, and not the b of "a<b and c>d": its end, or an attribute that is one."""
_ATTRIBUTES = r"""[^>=]*+(?:=\s{0,9}(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?[^>=]*+)*+(?:>|\Z)"""  # never looks back
_MARKUP = re.compile(
    rf"<(?=[a-zA-Z/!])(?:!--.*?(?:-->|\Z)|!(?i:doctype)\b[^>]*(?:>|\Z)"
    rf"|((?i:script|style|noscript|template|iframe)){_ENDS_NAME}.*?(?:</(?i:\1)[^>]*(?:>|\Z)|\Z)"
    rf"|/?(?P<tag>[a-zA-Z][a-zA-Z0-9]{{0,9}}){_ENDS_NAME}{_ATTRIBUTES})",
    re.DOTALL,
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_MARKS = "".join(chr(code) for code in range(0x300, 0x1E94B) if unicodedata.combining(chr(code)))
_MARKS_16 = "".join(mark for mark in _MARKS if mark < "\U00010000")  # a class that goes beyond 16 bits is slow
_PILE = re.compile(f"([{_MARKS_16}\U00010000-\U0010ffff][{_MARKS}]{{29}})[{_MARKS}]+")


def plain_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text that a reader of `text` sees, in Unicode NFC, at most `limit` characters, cut between words.

    HTML tags, comments, scripts and styles are left out; where a block begins or ends there is a newline, and all other
    white space is one space (in a text without tags, newlines stay newlines).  Entities are decoded twice, since feeds
    encode them twice: "&amp;amp;" is "&"; so markup that was encoded once is markup too.  "<" and "&" that begin no tag
    of HTML and no entity are text.  Control characters, invisible format characters and lone surrogates are left out.

    Time is linear in `limit`, however long `text` is: it is cut to ten times `limit` before anything else.
    """
    text = _without_surrogates(text[: limit * _MARKUP_FACTOR])
    for _ in range(2):
        if "<" in text:
            text = _without_markup(text)
        if "&" in text:
            text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return _cut(_composed(_tidy(text)), limit)


def _without_surrogates(text: str) -> str:
    """Pairs of surrogates, which careless JSON decoders leave, as the character that they mean; others left out."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text


def _without_markup(text: str) -> str:
    return _MARKUP.sub(_in_place_of, " ".join(text.split())) if _MARKUP.search(text) else text


def _in_place_of(markup: re.Match[str]) -> str:
    """A newline, nothing, or what is no tag of HTML as it is."""
    tag = markup["tag"]  # None: a comment, or an element left out with its content
    return _REPLACED_BY.get(tag.lower(), markup[0]) if tag else ""


def _tidy(text: str) -> str:
    """Without control characters, white space collapsed, no empty lines."""
    lines = text.split("\n")
    if "  " not in text and all(map(str.isprintable, lines)):
        lines = [line.strip() for line in lines]
    else:
        lines = [" ".join(line.split()) for line in _UNSEEN.sub("", text).splitlines()]
    return "\n".join(filter(None, lines))


def _composed(text: str) -> str:
    """In NFC; of more than 30 combining marks in a row, which no language has, 30 at most: sorting is quadratic.

    See the Stream-Safe Text Format of https://www.unicode.org/reports/tr15/.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", _PILE.sub(r"\1", text))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    end = max(text.rfind(blank, 0, limit + 1) for blank in " \n")
    return text[: end if end > 0 else limit]
