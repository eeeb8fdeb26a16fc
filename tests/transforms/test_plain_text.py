"""Plain text of HTML is what a browser's parser sees; text that is none stays as it is; hostile text is harmless."""

import json
import pathlib
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from beam_pipelines.transforms.plain_text import TEXT_LIMIT, plain_text

SOURCES = pathlib.Path(__file__).parents[2] / ".." / "shared" / "sources"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "profit < $5",
        "a<b and c>d",
        "if x<y then y>x",
        "<3 $AAPL",
        "List<String> of <TSLA> & co",
        "AT&T, R&D, S&P 500 & Q&A; ?a=1&copy=2&lt=3",
        "1 <2> 3 </4>",
        "a <",
        "a <- b <= c <> d",
        "one\ntwo",
        "\u0627\u0644\u0633\u0648\u0642 \u682a\u4fa1 \U0001f680",
        "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627",  # a zero-width non-joiner is part of Persian words
        "\U0001f468\u200d\U0001f4bb",  # and a joiner of emoji
    ],
)
def test_text_without_markup_stays_as_it_is(text):
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\nTwo"),
        ("One<br>Two<BR/>Three<br />Four", "One\nTwo\nThree\nFour"),
        ("<p class='a'\n id=b >One</p\n>Two", "One\nTwo"),
        ("<ul><li>One<li>Two</ul>", "One\nTwo"),
        ("<table><tr><td>EPS</td><td>1.26</td></tr></table>", "EPS\n1.26"),
        ("<b>App</b>le <a href=x>ne</a>ws", "Apple news"),
        ("<p>a line\nbroken in the source</p>", "a line broken in the source"),
        ('<img alt="a > b" src=x>text', "text"),
        ("<img alt='<p>caption</p>' src=x>text", "text"),
        ("<input disabled><script async src=x>y</script>text", "text"),
        ("<SCRIPT>if (a<b) { x('</p>') }</SCRIPT>text<style>p > a {}</style>", "text"),
        ("one<noscript><img src=x></noscript> two", "one two"),
        ("one <!-- <p>not</p> --> two <!doctype html>", "one two"),
        ("one <!-- two", "one"),
        ("one <script>two", "one"),
        ("one <a href='two", "one"),
        ("<svg-icon/>", "<svg-icon/>"),
        ("<p>profit < $5 & a<b and c>d</p>", "profit < $5 & a<b and c>d"),
    ],
)
def test_markup_is_left_out_and_blocks_are_lines(markup, text):
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("R&amp;D", "R&D"),
        ("R&amp;amp;D", "R&D"),
        ("R&amp;amp;amp;D", "R&amp;D"),
        ("Apple&#8217;s", "Apple\u2019s"),
        ("Apple&amp;#8217;s", "Apple\u2019s"),
        ("Apple&#x2019;s", "Apple\u2019s"),
        ("&euro;5&nbsp;bn", "\u20ac5 bn"),
        ("1 &lt; 2 &amp;lt; 3", "1 < 2 < 3"),
        ("&lt;p&gt;One&lt;/p&gt;&lt;p&gt;Two", "One\nTwo"),
        ("&#0;&#xD800;&#1114112;x&#7;", "\ufffd\ufffd\ufffdx"),
        ("&unknown; &#; &;", "&unknown; &#; &;"),
    ],
)
def test_entities_are_decoded_twice(encoded, text):
    assert plain_text(encoded) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a \t b\u00a0\u3000c  ", "a b c"),
        ("a\r\n \n\n b", "a\nb"),
        ("a\x00b\x07c\x7fd\x9fe", "abcde"),
        ("pre\u00admium \u200b\u202edetsil\u202c\ufeff", "premium detsil"),
        ("\ud83d\ude80 \ud800x\udfff", "\U0001f680 x"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_what_cannot_be_seen_is_left_out(text, clean):
    assert plain_text(text) == clean


def test_a_long_text_is_cut_between_words():
    assert plain_text("one two three", 13) == "one two three"
    assert plain_text("one two three", 12) == "one two"
    assert plain_text("one two three", 7) == "one two"
    assert plain_text("one two three", 6) == "one"
    assert plain_text("onetwothree", 6) == "onetwo"
    assert plain_text("word " * 100_000) == ("word " * (TEXT_LIMIT // 5))[:-1]


MARKUP = """<p>|</p>|<b>|</b>|<br>|<div class='x'>|</div>|<i>|<a href="?a=1">|</a>"""
TAGS = st.sampled_from(MARKUP.split("|"))
PIECES = st.lists(TAGS | st.text("abc é$.5", max_size=5), max_size=30)


@given(PIECES)
def test_the_words_are_those_that_lexbors_parser_finds(pieces):
    markup = "<p>" + "".join(pieces)
    visible = LexborHTMLParser(markup.replace("<", " <")).text()
    apart = plain_text(markup.replace("<", " <"))
    assert apart.split() == visible.split()
    assert "".join(plain_text(markup).split()) == "".join(visible.split())


@given(st.text(st.characters(exclude_categories=[]), max_size=300) | PIECES.map("".join), st.integers(1, 400))
def test_any_text_gives_short_clean_text(text, limit):
    plain = plain_text(text, limit)
    assert len(plain) <= limit
    assert plain == unicodedata.normalize("NFC", plain)
    assert plain.encode().decode() == plain
    assert all(" ".join(line.split()) == line != "" for line in plain.split("\n")) or plain == ""
    assert not any(unicodedata.category(char) == "Cc" and char != "\n" for char in plain)


@given(st.text(st.characters(exclude_characters="<&"), max_size=300))
def test_plain_text_of_plain_text_is_itself(text):
    assert plain_text(plain_text(text)) == plain_text(text)


TEN_MEGABYTES = 10**7
HOSTILE = {
    "lesser": "<" * TEN_MEGABYTES,
    "ampersands": "&" * TEN_MEGABYTES,
    "nested": "<div>" * 10**6,
    "nested lists": "<ul><li>" * 10**6,
    "unclosed comments": "<!--" * (TEN_MEGABYTES // 4),
    "unclosed scripts": "<script>" * (TEN_MEGABYTES // 8),
    "unclosed quotes": '<a "' * (TEN_MEGABYTES // 4),
    "unclosed values": "<a b='<a c=\"" * (TEN_MEGABYTES // 12),
    "unclosed tags": "<p " * (TEN_MEGABYTES // 3),
    "unclosed entities": "&#1" * (TEN_MEGABYTES // 3),
    "nested entities": "&" + "amp;" * (TEN_MEGABYTES // 4),
    "a long attribute": "<p " + "a" * TEN_MEGABYTES,
    "a long space": "<p " + " " * TEN_MEGABYTES,
    "combining marks": "a" + "\u0301\u0316" * (TEN_MEGABYTES // 2),
    "controls": "\0" * TEN_MEGABYTES,
    "surrogates": "\ud800" * TEN_MEGABYTES,
    "one word": "x" * TEN_MEGABYTES,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name):
    def seconds(limit):
        begin = time.perf_counter()
        assert len(plain_text(HOSTILE[name], limit)) <= limit
        return time.perf_counter() - begin

    assert seconds(TEXT_LIMIT) < 1
    assert seconds(TEXT_LIMIT * 10) < 10


@pytest.mark.skipif(not SOURCES.exists(), reason="needs the recorded payloads of ../shared/sources")
@pytest.mark.parametrize("file", ["finnhub/company_news.json", "newsapi/everything.json", "hackernews/comment.json"])
def test_recorded_texts_are_read_as_a_browser_would(file):
    def texts(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)
        elif isinstance(value, str) and " " in value:
            yield value

    recorded = list(texts(json.loads((SOURCES / file).read_text(encoding="utf-8"))))
    assert recorded
    for text in recorded:
        visible = unicodedata.normalize("NFC", LexborHTMLParser(text).text())
        assert "".join(plain_text(text).split()) == "".join(visible.replace("\u200b", "").split())
