"""Makes the package's templates, and a page of docs for each, from the pipelines' own flags.

python -m beam_pipelines.launching.generate            writes infra/templates/
python -m beam_pipelines.launching.generate --check    tells what would change, and fails if anything would
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from types import ModuleType

from apache_beam.version import __version__ as beam_version

from beam_pipelines import infra
from beam_pipelines.command_line import Kind, Parser
from beam_pipelines.errors import run_main
from beam_pipelines.launching.parameters import flags_of
from beam_pipelines.launching.templates import BOOLEAN, ENUM, ContainerSpec, Option, Parameter, Template, to_json

__all__ = ["generated", "kind_of", "main"]

PIPELINES = ("market", "news", "daily")

_FOLDER = pathlib.Path(*infra.__path__) / "templates"
_EXAMPLES = {  # parameters of a launch that needs no server; what the market writes, the daily batch reads
    "market": {"ticks": "20000", "lake": "./lake"},
    "news": {"lake": "./lake"},
    "daily": {"date": "2025-01-06", "lake": "./lake"},
}
_WORDS = {"dsn": "DSN", "ms": "(ms)", "seconds": "(seconds)"}

_TRUTH = Kind(lambda text: text == "true", "true or false", "true|false", ("true", "false"), ("", "yes", "1"), BOOLEAN)


def main(argv: Sequence[str]) -> int:
    """Writes the files, or tells which are not as they would be written."""
    parser = Parser(prog="python -m beam_pipelines.launching.generate", description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    check, files = parser.parse(argv).check, generated()
    there = {file.name: file.read_text("utf-8") for file in _FOLDER.glob("*") if file.suffix in (".json", ".md")}
    stale = sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))
    for name in stale:
        if check:
            print(f"infra/templates/{name} is not what the flags say", file=sys.stderr)
        elif name in files:
            (_FOLDER / name).write_text(files[name], "utf-8")
        else:
            (_FOLDER / name).unlink()
    if check and stale:
        print("run python -m beam_pipelines.launching.generate, and look at what it changes", file=sys.stderr)
    return 1 if check and stale else 0


def generated() -> dict[str, str]:
    """The content of each file, by name."""
    specs = {it: _spec_of(it) for it in PIPELINES}
    templates = {f"{it}.json": to_json(spec) for it, spec in specs.items()}
    return templates | {f"{it}.md": _page(spec.template) for it, spec in specs.items()}


def _spec_of(pipeline: str) -> ContainerSpec:
    module, flags = importlib.import_module(f"beam_pipelines.{pipeline}"), flags_of(pipeline)
    name, _, description = str(module.__doc__).splitlines()[0].removeprefix("The ").partition(": ")
    streaming = "bounded" in flags  # others have an end, whatever they are told
    template = Template(
        id=pipeline,
        name=_sentence(name),
        description=_sentence(description),
        streaming=streaming,
        parameters=tuple(_parameter(name, flag, module) for name, flag in flags.items()),
        supports_exactly_once=streaming,  # a state is not to be moved on twice by one record
    )
    image = f"waardhaven-{pipeline}"  # `launch build` puts the name of a real one in its place
    return ContainerSpec(image, template, beam_version, {"sdkContainerImage": image})


def _parameter(name: str, flag: argparse.Action, module: ModuleType) -> Parameter:
    kind = kind_of(flag)
    metadata = {"format": kind.must}
    metadata |= {"secret": "true"} if kind.secret else {}
    metadata |= {"updatable": "false"} if name in getattr(module, "FIXED", ()) else {}
    return Parameter(
        name=name,
        label=_label(name),
        help_text=_help(flag),
        is_optional=not flag.required,
        regexes=() if flag.choices else (f"^({kind.pattern})$",),
        param_type=kind.param_type,
        enum_options=tuple(Option(it, it.capitalize()) for it in flag.choices or ()),
        default_value=_default(flag.default),
        group_name=_sentence(str(flag.container.title)),  # type: ignore[attr-defined]  # argparse sets it
        custom_metadata=metadata,
    )


def kind_of(flag: argparse.Action) -> Kind[object]:
    """What the text of a flag's parameter must look like; of a flag that takes several values, all of them."""
    if flag.nargs == 0:
        return _TRUTH
    if flag.choices:
        options = tuple(map(str, flag.choices))
        return Kind(str, f"one of {', '.join(options)}", "|".join(options), options, ("", "none of these"), ENUM)
    kind = flag.type
    if not isinstance(kind, Kind):
        raise TypeError(f"{flag.option_strings[-1]} has the type {kind}: give a Kind, which says what its values are")
    if flag.nargs == "+":
        return _several(kind, "blanks", " ")
    return _several(kind, "commas", ",") if isinstance(flag, argparse._AppendAction) else kind


def _several(kind: Kind[object], name: str, separator: str) -> Kind[object]:
    return dataclasses.replace(
        kind,
        must=f"{kind.must}; several with {name} between",
        pattern=f"({kind.pattern})({separator}({kind.pattern}))*",
        good=(*kind.good, separator.join(kind.good)),
    )


def _help(flag: argparse.Action) -> str:
    text = str(flag.help) % {**vars(flag), "default": _default(flag.default)}
    return _sentence(re.sub(r"--([a-z])", r"\1", text)) + "."  # other parameters are meant, not their flags


def _label(name: str) -> str:
    return _sentence(" ".join(_WORDS.get(word, word) for word in name.split("_")))


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:]


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | frozenset):
        return ",".join(sorted(value))
    return "" if value is None else str(value)


def _page(template: Template) -> str:
    """The template's page of docs."""
    kind = "stream, which runs until it is drained or cancelled" if template.streaming else "batch, which ends"
    lines = [
        f"# {template.name}",
        "",
        "<!-- Made by python -m beam_pipelines.launching.generate: change the pipeline's flags, not this page. -->",
        "",
        f"{template.description} A {kind}.",
        "",
        *_launches(template),
    ]
    for group, parameters in groupby(template.parameters, lambda it: it.group_name):
        lines += ["", f"## {group}", "", *_table(parameters)]
    return "\n".join(lines) + "\n"


def _launches(template: Template) -> list[str]:
    given = _EXAMPLES[template.id]
    said = " ".join(f"{name}={value}" for name, value in given.items())
    name, spec = f"{template.id}-example", f"infra/templates/{template.id}.json"
    request = {"launchParameter": {"jobName": name, "containerSpecGcsPath": spec, "parameters": given}}
    return [
        "Launched on this machine, without any server:",
        "",
        "```sh",
        f"python -m beam_pipelines.launch run {template.id} --job_name={name} --wait --parameters {said}",
        "```",
        "",
        "The same as a request, for `python -m beam_pipelines.launch run --request FILE`:",
        "",
        "```json",
        json.dumps(request, indent=2),
        "```",
    ]


def _table(parameters: Iterable[Parameter]) -> list[str]:
    head = ["| name | what | type | default | must be |", "|---|---|---|---|---|"]
    return head + [f"| {' | '.join(map(_cell, _cells(it)))} |" for it in parameters]


def _cells(parameter: Parameter) -> tuple[str, ...]:
    notes = "" if parameter.updatable else " An update cannot change it."
    default = f"`{parameter.default_value}`" if parameter.default_value else ""
    return (
        f"`{parameter.name}`",
        parameter.help_text + notes,
        parameter.param_type,
        default if parameter.is_optional else "required",
        parameter.custom_metadata["format"],
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    run_main(main)
