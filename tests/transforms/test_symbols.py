"""Symbols are found where a text names a company, and nowhere else; the labelled headlines say how well."""

import itertools
import json
import pathlib
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.company_names import is_common
from beam_pipelines.transforms.symbols import (
    Company,
    Directory,
    Mention,
    packaged_directory,
    read_directory,
    symbols_of,
)
from beam_pipelines.transforms.tickers import common_words, packaged_companies, read_companies

DATA = pathlib.Path(__file__).parent / "data"
LISTS_FOLDER = pathlib.Path(__file__).parents[2] / ".." / "shared" / "tickers"
FULL_LISTS = ("nasdaqlisted_2025-07.txt", "otherlisted_2025-07.txt")

needs_lists = pytest.mark.skipif(not LISTS_FOLDER.exists(), reason="needs the ticker lists of ../shared/tickers")


def found(text: str, directory: Directory | None = None) -> str:
    return " ".join(symbols_of((directory or packaged_directory()).mentions(text)))


@pytest.fixture(scope="module")
def full() -> Directory:
    return read_directory(*(LISTS_FOLDER / name for name in FULL_LISTS))


# --- references ---


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("$AAPL", "AAPL"),
        ("Long $AAPL, short $TSLA.", "AAPL TSLA"),
        ("$AAPL/$MSFT spread", "AAPL MSFT"),
        ("($NVDA)", "NVDA"),
        ("$BRK.B and $BF.B", "BF.B BRK.B"),
        ("$BRK-B", "BRK.B"),
        ("$BRK/B", "BRK.B"),
        ("Watching $aapl today", "AAPL"),
        ("$btc to the moon", "BTC"),
        ("$BTC $ETH $DOGE", "BTC DOGE ETH"),
        ("I bought $PLTR.", "PLTR"),
        ("$NVDA\u2019s run", "NVDA"),
        ("$ZZYX breaks out", "ZZYX"),
        ("Loading up on $F today", "F"),
        ("$T raises its dividend", "T"),
        ("$T and $VZ yield 6%", "T VZ"),
    ],
)
def test_a_cashtag_is_its_symbol(text, symbols):
    assert found(text) == symbols


@pytest.mark.parametrize(
    "text",
    [
        "It cost $5, $10M, $1.2bn or US$5",
        "A$10 and C$20m and NZ$30",
        "$5B in cash, $3M raised, 3M people came",
        "$zzyx is unknown in small letters",
        "$now or never, $it is $all you can $eat",
        "The $A fell below 65 US cents",
        "Revenue ($M) and margin ($K)",
        "a$AAPL and $AAPL1 and $$AAPL and $AAPL_x",
        "$USD/$EUR rate",
        "MAKE $MONEY FAST WITH $MOON TODAY, THEY SAID",
        "EVERYBODY WANTS $CASH RIGHT $NOW BECAUSE $ALL THINGS END",
        "echo $HOME_DIR and $LONGNAME",
    ],
)
def test_what_is_no_cashtag(text):
    assert found(text) == ""


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("the chipmaker (NASDAQ: MU) said", "MU"),
        ("(NASDAQ:AAPL)", "AAPL"),
        ("NYSE:BRK.B", "BRK.B"),
        ("NYSE: BRK-A", "BRK.A"),
        ("(Nasdaq: GOOG, GOOGL)", "GOOG GOOGL"),
        ("(NasdaqGS: ZZYX)", "ZZYX"),
        ("(NYSE American: ZZYX)", "ZZYX"),
        ("(TSX: ZZYX; NYSE: SHOP)", "SHOP"),
        ("OTC: ZZYX", "ZZYX"),
        ("the maker of memory (MU) said", "MU"),
        ("Gartner (IT) beats", "IT"),
        ("Allstate (ALL) and Ford (F)", "ALL F"),
    ],
)
def test_a_listing_is_its_symbol(text, symbols):
    assert found(text) == symbols


@pytest.mark.parametrize(
    "text",
    [
        "information technology (IT) spending",
        "all of it (ALL)",
        "plan (A) and plan (C)",
        "unknown (ZZYX)",
        "artificial intelligence (AI) and multiple sclerosis (MS)",
        "earnings per share (EPS), chief executive (CEO), Federal Aviation Administration (FAA)",
        "Note: THIS is not listed",
        "LSE: TGT",
    ],
)
def test_what_is_no_listing(text):
    assert found(text) == ""


# --- names ---


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("Microsoft", "MSFT"),
        ("“Microsoft” rose", "MSFT"),
        ("Microsoft's cloud, Nvidia\u2019s chips", "MSFT NVDA"),
        ("McDonald's and McDonald\u2019s", "MCD"),
        ("AT&T and J&J", "JNJ T"),
        ("Procter and Gamble", "PG"),
        ("Bank\nof America", "BAC"),
        ("Ford Motor", "F"),
        ("MICROSOFT TO CUT JOBS AS NVIDIA SOARS", "MSFT NVDA"),
        ("eBay sellers", "EBAY"),
        ("Estée Lauder", "EL"),
        ("Microsoft—and Google", "GOOGL MSFT"),
        ("Amazon.com's warehouse", "AMZN"),
        ("the Microsoft/OpenAI deal", "MSFT"),
        ("Bitcoin and Ethereum slide", "BTC ETH"),
        ("Why NVDA stock is soaring", "NVDA"),
        ("İstanbul: Microsoft opens an office", "MSFT"),
    ],
)
def test_a_name_is_its_symbol(text, symbols):
    assert found(text) == symbols


@pytest.mark.parametrize(
    "text",
    [
        "Microsoftish and PreMicrosoft and Microsofté",
        "microsoft",
        "https://www.microsoft.com/Tesla/Nvidia?q=Boeing",
        "see www.Tesla.com or Tesla.com for more",
        "write to tim@Microsoft.com or Tesla@example.com",
        "@Microsoft @Tesla",
        "#Tesla #Nvidia",
        "Nikola Tesla's notebooks",
        "the Dow and the Nasdaq fell",
        "Dow rises 300 points, Nasdaq falls",
        "Ups and downs of a gm crop",
        "\uff2dicrosoft",
    ],
)
def test_what_is_no_name(text):
    assert found(text) == ""


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("Apple Inc. said", "AAPL"),
        ("Apple, Inc.", "AAPL"),
        ("Apple unveils a phone", "AAPL"),
        ("Apple's CEO steps down", "AAPL"),
        ("Apple Q3 earnings", "AAPL"),
        ("Shares of Apple fell", "AAPL"),
        ("Why chipmaker Intel and retailer Target matter", "INTC TGT"),
        ("Apple and Microsoft rally", "AAPL MSFT"),
        ("Walmart, Target and Costco", "COST TGT WMT"),
        ("Apple is late, says $AAPL bull", "AAPL"),
        ("Target to Cut Jobs", "TGT"),
        ("TARGET SHARES FALL", "TGT"),
        ("GAP INC. CUTS OUTLOOK", "GAP"),
        ("The EU fined Apple again", "AAPL"),
        ("Buffett's Berkshire buys a stake in Chubb", "BRK.B CB"),
        ("Visa Shares Jump After Upgrade", "V"),
        ("Google-owned Apple-backed start-up", "AAPL GOOGL"),
    ],
)
def test_a_word_with_a_reason_is_a_name(text, symbols):
    assert found(text) == symbols


@pytest.mark.parametrize(
    "text",
    [
        "Apple pie recipes",
        "Jane Apple says hello",
        "JANE APPLE SAYS HELLO",
        "Harrison Ford raises money",
        "Mr. Ford sells shares",
        "The Gap widens",
        "The target is 5%",
        "Price Target Raised to $200",
        "PRICE TARGET RAISED TO $200",
        "Amazon rainforest fires",
        "Fires in the Amazon",
        "The Visa says so",
        "Student Visa Rules Tighten",
        "Target-date funds",
        "A Meta-analysis of 20 studies",
        "Best buy of the year",
        "Is This the Best Buy in Chips?",
        "IT IS ALL ABOUT NOW",
        "IT spending and ALL staff, NOW",
        "Carnival draws crowds in Rio",
        "Delta and Omicron variants",
        "Key trade first: block, match, ally",
        "Unity and peace",
        "Cold Snap sends prices up",
    ],
)
def test_a_word_without_a_reason_is_none(text):
    assert found(text) == ""


def test_a_price_target_of_another_company_is_no_retailer():
    assert found("Nvidia Price Target Raised to $200 at Morgan Stanley") == "MS NVDA"


def test_a_mention_is_the_text_between_its_offsets():
    text = "İ: Apple (NASDAQ: AAPL), $MSFT\u2019s rival “Google”"
    shown = [(mention.symbol, text[mention.begin : mention.end]) for mention in packaged_directory().mentions(text)]
    assert shown == [("AAPL", "Apple"), ("AAPL", "AAPL"), ("MSFT", "$MSFT"), ("GOOGL", "Google")]


def test_the_longest_name_counts():
    directory = Directory([Company("F", "Ford"), Company("FM", "Ford Motor")], [])
    assert directory.mentions("Ford Motor, Ford Motorola") == [Mention("FM", 0, 10), Mention("F", 12, 16)]


def test_symbols_are_sorted_and_unique():
    assert symbols_of([Mention("B", 0, 1), Mention("A", 2, 3), Mention("B", 4, 5)]) == ["A", "B"]


def test_only_one_letter_changes_its_length_in_small_letters():
    assert [chr(code) for code in range(0x110000) if len(chr(code).lower()) != 1] == ["İ"]


# --- any text ---

WORDS = [
    "Apple",
    "Target",
    "Microsoft",
    "$AAPL",
    "$A",
    "(MU)",
    "NYSE: F",
    "Inc.",
    "shares",
    "the",
    "$5",
    "Jane",
    "TARGET",
]
SIGNS = [
    " ",
    "\n",
    ", ",
    " and ",
    "'s",
    "\u2019s",
    "İ",
    "é",
    "苹果",
    ".",
    "@",
    "#",
    "://",
    "-",
    "IT",
    "\ud800",
    "Σ",
    "&",
    "/",
]
PIECES = st.sampled_from([*WORDS, *SIGNS])
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join))


@given(TEXTS)
def test_mentions_lie_in_the_text_in_order_and_apart(text):
    mentions = packaged_directory().mentions(text)
    ends = [0, *(mention.end for mention in mentions)]
    for mention, end_before in zip(mentions, ends, strict=False):
        assert end_before <= mention.begin < mention.end <= len(text)


@given(TEXTS)
@example('Jane APPLE"AAPL')  # a first name at the beginning of a line
def test_lines_around_a_text_change_nothing(text):
    before, after = "a day without names\n", "\nand nothing else"
    moved = packaged_directory().mentions(before + text + after)
    shift = len(before)
    assert [Mention(it.symbol, it.begin - shift, it.end - shift) for it in moved] == packaged_directory().mentions(text)


@pytest.mark.parametrize(
    "piece", ["a" * 50, "apple, ", "(A", "İ ", "' ", "Jane ", "$5 ", "://a.b/c-", ":A", "$ABCDEFG", "NYSE "]
)
@pytest.mark.timeout(120)
def test_ten_megabytes_without_companies_take_seconds(piece):
    assert packaged_directory().mentions(piece * (10_000_000 // len(piece))) == []


@pytest.mark.parametrize(
    "piece",
    ["Apple ", "$A ", "$AAPL ", "NYSE: F, ", "Target and ", "://Apple", "Apple-", "Visa, ", "(MU)", "Bank of America "],
)
def test_work_grows_with_the_text_and_no_faster(piece):
    short, long = (calls_of(piece * count) for count in (1_000, 10_000))
    assert long <= 10.5 * short


def calls_of(text: str) -> int:
    """Function calls that finding the mentions of a text takes, C functions' too."""
    directory, calls = packaged_directory(), itertools.count()
    directory.mentions(text[:100])  # what is loaded once is loaded
    sys.setprofile(lambda *_: next(calls))
    try:
        directory.mentions(text)
    finally:
        sys.setprofile(None)
    return next(calls)


# --- headlines ---


def quality(directory: Directory) -> tuple[float, float]:
    """Precision and recall of symbols over the labelled headlines."""
    right = told = wanted = 0
    for line in (DATA / "headlines.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            labels, headline = line.split("\t")
            expected, answer = set(labels.split()) - {"-"}, set(found(headline, directory).split())
            right, told, wanted = right + len(expected & answer), told + len(answer), wanted + len(expected)
    return right / told, right / wanted


def test_headlines_are_understood():
    precision, recall = quality(packaged_directory())
    assert precision >= 0.95
    assert recall >= 0.90


@needs_lists
def test_headlines_are_understood_with_all_listed_companies(full):
    precision, recall = quality(full)
    assert precision >= 0.95
    assert recall >= 0.90


# --- directories ---


def test_packaged_symbols_are_unique_and_their_names_are_found():
    companies = packaged_companies()
    symbols = [company.symbol for company in companies]
    assert len(set(symbols)) == len(symbols) > 500
    for company in companies:
        assert company.symbol in found(f"(NYSE: {company.symbol})").split()


@pytest.mark.parametrize(
    "word", ["target", "gap", "visa", "block", "match", "ally", "key", "trade", "first", "best", "buy"]
)
def test_common_words_are_known(word):
    assert is_common(word, common_words())


@needs_lists
@pytest.mark.parametrize(
    "text", ["Key findings", "First trade of the day", "Trade war", "Target practice", "Match point", "Square one"]
)
def test_a_full_directory_makes_no_word_a_company(full, text):
    assert found(text, full) == ""


@needs_lists
@pytest.mark.parametrize(
    "name", [*FULL_LISTS, "nasdaqlisted_2016-08.txt", "otherlisted_2016-08.txt", "sec_company_tickers.json"]
)
def test_public_lists_are_read(name):
    companies = read_companies(LISTS_FOLDER / name)
    assert len(companies) > 3000
    assert len({company.symbol for company in companies if company.name}) > 1500


def test_a_nasdaq_list_is_read_as_it_is_published(tmp_path):
    path = tmp_path / "nasdaqlisted.txt"
    path.write_text(
        "Symbol|Security Name|Market Category|Test Issue|Financial Status|Round Lot Size|ETF|NextShares\n"
        "AAPL|Apple Inc. - Common Stock|Q|N|N|100|N|N\n"
        "QQQ|Invesco QQQ Trust, Series 1|G|N|N|100|Y|N\n"
        "ZAZZT|Tick Pilot Test Stock|G|Y|N|100|N|N\n"
        "ABEOW|Abeona Therapeutics Inc. - Warrant|S|N|N|100|N|N\n"
        "File Creation Time: 0721202521:31|||||||\n"
    )
    rows = [("AAPL", "Apple Inc. - Common Stock"), ("QQQ", ""), ("ABEOW", "")]
    assert read_companies(path) == [Company(symbol, name) for symbol, name in rows]
    assert found("Apple Pay, Apple shares and $QQQ", read_directory(path)) == "AAPL QQQ"


def test_classes_of_shares_stand_behind_a_dot_in_any_file(tmp_path):
    path = tmp_path / "company_tickers.json"
    path.write_text(json.dumps({"0": {"cik_str": 1, "ticker": "BRK-B", "title": "BERKSHIRE HATHAWAY INC"}}))
    assert read_companies(path) == [Company("BRK.B", "BERKSHIRE HATHAWAY INC")]


def test_a_users_csv_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('symbol,name,also\nZZYX,"Zyxon, Inc.",Zyx|Zyxo\nBRK/B,Berkshire Hathaway,\n')
    assert found("Zyxo and Berkshire Hathaway, not Microsoft", read_directory(path)) == "BRK.B ZZYX"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 1: the header was ''"),
        ("ticker,title\nA,B\n", "line 1: the header was 'ticker,title'"),
        ("symbol,name\nA,B\nC,D,E,F\n", "line 3: has 4 fields, not 2; put names with commas in quotes"),
        ("symbol,name\n\nAA PL,Apple\n", "line 3: the symbol must be"),
        ('symbol,name\nA,"B"x\n', "line 2: is not CSV"),
        ("{\n oops", "line 2: is not JSON"),
        ('{"0": {"symbol": "A"}}', "entry 0 has no texts ticker and title"),
        ("Symbol|Security Name|Test Issue|ETF\nA|B\n", "line 2: has 2 fields between |, not 4"),
        ("Symbol|Name\nA|B\n", "line 1"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path, content, told):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(UsageError) as failed:
        read_directory(path)
    assert told in str(failed.value)


def test_a_missing_or_binary_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_directory(tmp_path / "none.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_directory(tmp_path / "binary")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apple rises while Tesla falls", ["AAPL", "TSLA"]),
        ("Apple rises", ["AAPL"]),
        ("Apple beat estimates", ["AAPL"]),
        ("Target drops", ["TGT"]),
        ("Target prices rise", []),
        ("Gap widens between rich and poor", []),
        ("Visa rules tightened", []),
        ("Apple overtakes Microsoft as the most valuable company", ["AAPL", "MSFT"]),
    ],
)
def test_a_word_that_does_what_companies_do_is_one(text, expected):
    assert symbols_of(packaged_directory().mentions(text)) == expected
