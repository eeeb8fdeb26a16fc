"""Parameters become the flags that say the same, and all that is wrong with them is told at once."""

import argparse
import functools
import importlib
import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.command_line import Parser
from beam_pipelines.errors import UsageError
from beam_pipelines.launching.parameters import Mistakes, argv_of
from beam_pipelines.launching.templates import Option, Parameter, Template, packaged

SECRET = "pa55word"
DSN = f"postgresql://user:{SECRET}@host/database"
MARKET, NEWS, DAILY = (packaged(it).template for it in ("market", "news", "daily"))


def parsed(pipeline: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser()
    importlib.import_module(f"beam_pipelines.{pipeline}").add_flags(parser)
    return parser.parse(argv)


def sentences(template: Template, **parameters: str) -> list[str]:
    with pytest.raises(Mistakes) as mistakes:
        argv_of(template, parameters)
    assert str(mistakes.value) == "\n".join(mistakes.value.sentences)
    return mistakes.value.sentences


@pytest.mark.parametrize(
    ("template", "parameters", "argv"),
    [
        (MARKET, {}, []),
        (MARKET, {"bar_seconds": "5"}, ["--bar_seconds=5"]),
        (MARKET, {"input": "-x=y z"}, ["--input=-x=y z"]),
        (MARKET, {"bounded": "true", "repartition": "false"}, ["--bounded"]),
        (MARKET, {"bounded": "TRUE", "repartition": "False"}, ["--bounded"]),
        (MARKET, {"calendars": ".*=24/7"}, ["--calendars", ".*=24/7"]),
        (
            MARKET,
            {"calendars": "A=24/7 B{1,2}=24/7", "seed": "2"},
            ["--seed=2", "--calendars", "A=24/7", "B{1,2}=24/7"],
        ),
        (MARKET, {"lake_compression": "zstd"}, ["--lake_compression=zstd"]),
        (MARKET, {"timescale_dsn": "env:DSN"}, ["--timescale_dsn=env:DSN"]),
        (NEWS, {"tickers": "a.csv, b c.csv"}, ["--tickers=a.csv", "--tickers=b c.csv"]),
        (NEWS, {"languages": "en,de"}, ["--languages=en,de"]),
        (DAILY, {"from": "2025-01-06", "to": "2025-01-07", "lake": "l"}, None),
    ],
)
def test_parameters_become_flags(template: Template, parameters: dict[str, str], argv: list[str] | None) -> None:
    made = argv_of(template, parameters)
    assert made == (["--from=2025-01-06", "--to=2025-01-07", "--lake=l"] if argv is None else argv)
    parsed(template.id, made)


def test_all_mistakes_are_told_at_once_each_with_its_parameter_its_value_and_what_it_must_look_like() -> None:
    given = {
        "bar_second": "5",
        "ticks": "99999999",
        "bar_seconds": "1.5",
        "bounded": "yes",
        "lake_compression": "gzip",
        "start": "first",
        "topic": "no/such",
        "idle_ms": "700",
        "calendars": "A=XNONE",
        "timescale_dsn": DSN,
    }
    told = sentences(MARKET, **given)
    assert told == [
        "parameter bar_second is not known: did you mean bar_seconds?",
        "parameter topic must be a topic's name of at most 249 letters, digits, '.', '_' and '-', not 'no/such'",
        "parameter start must be earliest, latest, committed, a time (2025-01-31T09:30:00Z, or ms since 1970) or "
        "offsets (0:123,1:456), not 'first'",
        "parameter bounded must be true or false, not 'yes'",
        "parameter ticks='99999999': must be a whole number from 1 to 10000000, not '99999999'",
        "parameter timescale_dsn must be a reference to the secret, env:NAME or file:/path, not this value, which is "
        "secret and so not shown",
        "parameter lake_compression must be one of snappy, zstd, not 'gzip'",
        "parameter bar_seconds must be a whole number from 1 to 604800, not '1.5'",
        "parameter calendars='A=XNONE': --calendars has the calendar 'XNONE' in 'A=XNONE', which does not exist: take "
        "the exchange's ISO 10383 code, such as XNYS or XLON, or 24/7",
    ]


def test_what_is_missing_is_told_with_what_it_looks_like() -> None:
    [told] = sentences(DAILY, date="2025-01-06")
    assert told == "parameter lake is missing: give s3://bucket/prefix, file:///folder or the path of a folder"


def test_what_only_the_flag_knows_is_told_too() -> None:
    assert sentences(DAILY, lake="l", date="9999-01-01") == [
        "parameter date='9999-01-01': 9999-01-01 is still to come (UTC): give today or a day before"
    ]
    assert sentences(DAILY, lake="l", date="2025-02-30") == [
        "parameter date='2025-02-30': '2025-02-30' is no day: give one as 2026-11-20"
    ]
    assert sentences(NEWS, languages="xx") == [
        "parameter languages='xx': 'xx' is no language that is told apart: give ISO 639-1 codes"
    ]


@pytest.mark.parametrize("name", ["timescale_dsn", "timescale_dns", "password"])
def test_a_secret_is_never_repeated(name: str) -> None:
    for value in (DSN, f"env:{DSN}", f"file:{SECRET}", ""):
        told = sentences(MARKET, **{name: value})
        assert len(told) == 1
        assert SECRET not in told[0]


def test_a_number_out_of_all_proportion_is_a_mistake_like_any_other() -> None:
    huge = "9" * 5000  # more digits than Python makes a number of
    for name, value in {"start": f"0:{huge}", "seed": huge, "bar_seconds": huge}.items():
        assert len(sentences(MARKET, **{name: value})) == 1
        with pytest.raises(UsageError, match=f"^argument --{name}: must be "):
            parsed("market", [f"--{name}={value}"])


def test_an_empty_value_is_a_mistake_as_of_a_variable_that_is_not_set() -> None:
    assert sentences(MARKET, lake="", input="") == [
        "parameter input must be the path of a file, not ''",
        "parameter lake must be s3://bucket/prefix, file:///folder or the path of a folder, not ''",
    ]


def test_a_name_that_is_like_no_other_is_told_all_that_there_are() -> None:
    [told] = sentences(NEWS, quux="1")
    assert told.startswith("parameter quux is not known: news has input, bootstrap_servers, ")


def test_a_template_of_ones_own_takes_what_it_names_alone() -> None:
    narrow = Template(
        "market", "Market stream", parameters=(Parameter("ticks"), Parameter("bounded", is_optional=True))
    )
    assert argv_of(narrow, {"ticks": "5", "bounded": "true"}) == ["--ticks=5", "--bounded"]
    assert sentences(narrow, seed="1") == [
        "parameter seed is not known: market has ticks, bounded",
        "parameter ticks is missing: give it",
    ]
    assert sentences(narrow, ticks="x", bounded="yes") == [
        "parameter ticks='x': must be a whole number from 1 to 10000000, not 'x'",
        "parameter bounded='yes': must be true or false",
    ]


def test_a_template_of_ones_own_may_ask_for_more() -> None:
    own = (
        Parameter("ticks", regexes=("^[0-9]+$", "^.*0$")),
        Parameter("lake_compression", is_optional=True),
        Parameter("seed", is_optional=True, enum_options=(Option("7"),)),
        Parameter("color", is_optional=True),
    )
    template = Template("market", "Market stream", parameters=own)
    assert argv_of(template, {"ticks": "10", "seed": "7"}) == ["--ticks=10", "--seed=7"]
    assert sentences(template, ticks="11", seed="8", lake_compression="gzip", color="red") == [
        "parameter ticks must be a text that matches ^[0-9]+$ and ^.*0$, not '11'",
        "parameter lake_compression='gzip': must be one of snappy, zstd",
        "parameter seed must be one of 7, not '8'",
        "parameter color of the template is no flag of beam_pipelines.market",
    ]


def texts(parameter: Parameter) -> st.SearchStrategy[str]:
    """Any text, those of the parameter's form, and those that are nearly so."""
    formed = st.one_of(*map(functools.partial(st.from_regex, fullmatch=True), parameter.regexes or ("x",)))
    return st.one_of(
        st.text(max_size=20), formed, formed.map(lambda it: it + "\n"), formed.map(lambda it: f"{it},"), st.just(" - ")
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pipeline", ["market", "news", "daily"])
def test_no_value_keeps_a_regex_busy(pipeline: str) -> None:
    """Python's `re` tries every way in which a part can match, for every part: what RE2 says, it must say soon."""
    parts = ("aaaa,", "a=b=c=d ", "a:1:2,", " a b ,", "a b,", "0:1,")
    values = pa.array([f"{part * 40}{end}" for part in parts for end in ("", "x", ",", ":", "@", " ,")])
    for regex in {regex for parameter in packaged(pipeline).template.parameters for regex in parameter.regexes}:
        matched = [re.fullmatch(regex, value) is not None for value in values.to_pylist()]
        assert matched == pc.match_substring_regex(values, regex).to_pylist(), regex


@pytest.mark.parametrize("pipeline", ["market", "news", "daily"])
@given(data=st.data())
def test_what_is_taken_the_pipeline_takes_and_what_is_not_names_the_parameter(
    pipeline: str, data: st.DataObject
) -> None:
    template = packaged(pipeline).template
    parameter = template.parameters[data.draw(st.integers(0, len(template.parameters) - 1), label="parameter")]
    value = data.draw(texts(parameter), label="value")
    try:
        argv = argv_of(template, {"lake": "./lake", parameter.name: value})
    except Mistakes as mistakes:
        [told] = mistakes.sentences
        assert told.startswith(f"parameter {parameter.name}")
    else:
        parsed(template.id, argv)
