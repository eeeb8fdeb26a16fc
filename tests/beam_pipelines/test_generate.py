"""Templates are what the pipelines' flags say, and each form that they ask for is one that the flag asks for too."""

import argparse
import importlib
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from beam_pipelines import market
from beam_pipelines.command_line import Kind, Parser, filled, share, whole
from beam_pipelines.errors import UsageError
from beam_pipelines.launching import generate
from beam_pipelines.launching.parameters import argv_of, flags_of
from beam_pipelines.launching.templates import Parameter, packaged

PIPELINES = ("market", "news", "daily")
EVERY = [
    pytest.param(pipeline, parameter, id=f"{pipeline}-{parameter.name}")
    for pipeline in PIPELINES
    for parameter in packaged(pipeline).template.parameters
]
NEEDED = {"daily": {"lake": "./lake"}}


def parsed(pipeline: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser()
    importlib.import_module(f"beam_pipelines.{pipeline}").add_flags(parser)
    return parser.parse(argv)


def of_template(pipeline: str, **given: str) -> argparse.Namespace:
    return parsed(pipeline, argv_of(packaged(pipeline).template, {**NEEDED.get(pipeline, {}), **given}))


def examples(pipeline: str, parameter: Parameter) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kind = generate.kind_of(flags_of(pipeline)[parameter.name])
    return kind.good, kind.bad


def forms(parameter: Parameter) -> list[str]:
    return [*parameter.regexes] or ["^(" + "|".join(re.escape(it.value) for it in parameter.enum_options) + ")$"]


@pytest.mark.parametrize(("pipeline", "parameter"), EVERY)
def test_each_form_takes_its_good_examples_and_refuses_its_bad_ones(pipeline: str, parameter: Parameter) -> None:
    good, bad = examples(pipeline, parameter)
    assert good
    assert bad
    for regex in forms(parameter):
        assert regex.startswith("^")
        assert regex.endswith("$")
        assert [it for it in good if not re.fullmatch(regex, it)] == []
        assert [it for it in bad if re.fullmatch(regex, it)] == []


@pytest.mark.parametrize(("pipeline", "parameter"), EVERY)
def test_the_api_reads_each_form_alike(pipeline: str, parameter: Parameter) -> None:
    """By RE2, which is what Arrow has, too."""
    good, bad = examples(pipeline, parameter)
    for regex in forms(parameter):
        told = pc.match_substring_regex(pa.array([*good, *bad]), regex).to_pylist()
        assert told == [True] * len(good) + [False] * len(bad)


@pytest.mark.parametrize(("pipeline", "parameter"), EVERY)
def test_the_flag_agrees_with_each_example(pipeline: str, parameter: Parameter, tmp_path: pathlib.Path) -> None:
    good, bad = examples(pipeline, parameter)
    flag = flags_of(pipeline)[parameter.name]
    for text in good:
        given = of_template(pipeline, **{parameter.name: text})
        if flag.nargs is None and not isinstance(flag, argparse._AppendAction):
            typed = parsed(pipeline, [f"--{parameter.name}={text}", *required(pipeline, parameter)])
            assert getattr(given, flag.dest) == getattr(typed, flag.dest)
    for text in bad:
        words = [f"--{parameter.name}", text] if flag.nargs == "+" else [f"--{parameter.name}={text}"]
        with pytest.raises(UsageError):
            parsed(pipeline, [*required(pipeline, parameter), *words])


def required(pipeline: str, parameter: Parameter) -> list[str]:
    return [f"--{name}={value}" for name, value in NEEDED.get(pipeline, {}).items() if name != parameter.name]


@pytest.mark.parametrize(("pipeline", "parameter"), EVERY)
def test_to_give_the_default_is_to_give_nothing(pipeline: str, parameter: Parameter) -> None:
    if parameter.default_value:
        assert of_template(pipeline, **{parameter.name: parameter.default_value}) == of_template(pipeline)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_there_is_a_parameter_for_each_flag_and_it_says_all_about_it(pipeline: str) -> None:
    flags = flags_of(pipeline)
    parameters = {it.name: it for it in packaged(pipeline).template.parameters}
    assert list(parameters) == list(flags)
    assert "help" not in parameters
    for name, flag in flags.items():
        it = parameters[name]
        assert it.is_optional is (not flag.required)
        assert [option.value for option in it.enum_options] == list(flag.choices or ())
        assert (it.param_type == "BOOLEAN") is (flag.nargs == 0)
        assert (it.param_type == "ENUM") is (flag.choices is not None)
        assert it.label
        assert it.group_name
        assert it.help_text.endswith(".")
        assert not re.search(r"%\(|--[a-z]|None|frozenset", it.help_text), it.help_text
        assert it.custom_metadata["format"]


def test_what_the_flags_say_is_what_people_read() -> None:
    template = packaged("market").template
    assert (template.name, template.streaming) == ("Market stream", True)
    assert template.description == "Raw ticks become enriched ticks and bars."
    assert not packaged("daily").template.streaming
    bar = template.parameter("bar_seconds")
    assert bar
    assert (bar.label, bar.param_type, bar.default_value) == ("Bar (seconds)", "NUMBER", "60")
    assert bar.help_text == "Length of a bar, s (60)."
    assert bar.custom_metadata == {"format": "a whole number from 1 to 604800", "updatable": "false"}
    types = {name: template.parameter(name) for name in ("topic", "processed_topic", "anomaly_topic", "bounded")}
    assert [it and it.param_type for it in types.values()] == [
        "KAFKA_READ_TOPIC",
        "KAFKA_WRITE_TOPIC",
        "KAFKA_WRITE_TOPIC",
        "BOOLEAN",
    ]
    assert [it.name for it in packaged("daily").template.parameters if not it.is_optional] == ["lake"]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_template_takes_a_secret_by_reference_alone(pipeline: str) -> None:
    secret = [it for it in packaged(pipeline).template.parameters if it.secret]
    assert [it.name for it in secret] == ["timescale_dsn"]
    [regex] = secret[0].regexes
    assert not re.fullmatch(regex, "postgresql://user:password@host/database")
    assert not re.fullmatch(regex, "host=h password=p")
    assert re.fullmatch(regex, "env:TIMESCALE_DSN")


def test_what_a_state_is_made_for_is_not_updated() -> None:
    fixed = {p: [it.name for it in packaged(p).template.parameters if not it.updatable] for p in PIPELINES}
    assert set(fixed["market"]) == market.FIXED
    assert {"topic", "bar_seconds", "repartition", "start_state"} <= set(fixed["market"])
    assert fixed["news"] == ["topic", "start"]
    assert fixed["daily"] == []


def checked(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(generate, "_FOLDER", folder)
    return generate.main(["--check"])


def test_the_templates_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def action(parser: argparse.ArgumentParser, name: str) -> argparse.Action:
    return next(it for it in parser._actions if f"--{name}" in it.option_strings)


DRIFTS: dict[str, Callable[[argparse.ArgumentParser], Any]] = {
    "a new flag": lambda it: it.add_argument("--new", type=filled, help="new"),
    "one fewer": lambda it: it._actions.remove(action(it, "seed")),
    "another default": lambda it: setattr(action(it, "bar_seconds"), "default", 61),
    "another help": lambda it: setattr(action(it, "idle_ms"), "help", "other"),
    "another bound": lambda it: setattr(action(it, "ticks"), "type", whole(1, 10**7 + 1)),
    "another choice": lambda it: setattr(action(it, "lake_compression"), "choices", ("snappy", "zstd", "gzip")),
    "required": lambda it: setattr(action(it, "lake"), "required", True),
    "another group": lambda it: setattr(action(it, "lake"), "container", it._action_groups[-1]),
    "another order": lambda it: it._actions.reverse(),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_flag_that_drifts_is_told(
    drift: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    folder = pathlib.Path(shutil.copytree(generate._FOLDER, tmp_path / "templates"))
    before = {it.name: it.read_text() for it in folder.iterdir()}
    add_flags = market.add_flags

    def drifted(parser: argparse.ArgumentParser) -> None:
        add_flags(parser)
        DRIFTS[drift](parser)

    monkeypatch.setattr(market, "add_flags", drifted)
    assert checked(folder, monkeypatch) == 1
    assert "infra/templates/market.json is not what the flags say" in capsys.readouterr().err
    assert {it.name: it.read_text() for it in folder.iterdir()} == before, "--check writes nothing"


def test_files_that_drift_are_told_and_mended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    folder = pathlib.Path(shutil.copytree(generate._FOLDER, tmp_path / "templates"))
    before = {it.name: it.read_text() for it in folder.iterdir()}
    (folder / "news.md").write_text("edited")
    (folder / "daily.json").unlink()
    (folder / "gone.json").write_text("{}")
    assert checked(folder, monkeypatch) == 1
    told = re.findall(r"infra/templates/(\S+) is not", capsys.readouterr().err)
    assert told == ["daily.json", "gone.json", "news.md"]
    assert generate.main([]) == 0
    assert {it.name: it.read_text() for it in folder.iterdir()} == before
    assert checked(folder, monkeypatch) == 0


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_page_has_a_launch_line_first_and_a_row_for_each_parameter(pipeline: str) -> None:
    page = (generate._FOLDER / f"{pipeline}.md").read_text()
    fence, line = re.findall(r"^```(\w+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    assert fence == "sh"
    assert line.startswith(f"python -m beam_pipelines.launch run {pipeline} --job_name=")
    rows = [re.split(r"(?<!\\) \| ", row) for row in page.splitlines() if row.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{it.name}`" for it in packaged(pipeline).template.parameters]
    assert {len(row) for row in rows} == {5}
    for group in {it.group_name for it in packaged(pipeline).template.parameters}:
        assert page.count(f"\n## {group}\n") == 1


@pytest.mark.parametrize("kind", [share, filled, whole(0, 9)], ids=["share", "filled", "whole"])
def test_a_kind_agrees_with_its_own_examples_also_where_no_template_has_it(kind: Kind[object]) -> None:
    for text in kind.good:
        assert re.fullmatch(kind.pattern, text)
        kind(text)
    for text in kind.bad:
        assert not re.fullmatch(kind.pattern, text)
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_a_flag_whose_values_nobody_describes_is_refused() -> None:
    flag = argparse.ArgumentParser().add_argument("--new", type=int)
    with pytest.raises(TypeError, match="--new has the type"):
        generate.kind_of(flag)
