"""Parameters of a template as the flags of its pipeline, checked all at once before anything starts."""

import argparse
import difflib
import importlib
import re
from collections.abc import Iterator, Mapping

from beam_pipelines.command_line import Parser
from beam_pipelines.errors import UsageError
from beam_pipelines.launching.templates import BOOLEAN, Parameter, Template

__all__ = ["Mistakes", "argv_of", "flags_of", "values_of"]


class Mistakes(UsageError):  # noqa: N818  # of the user, as UsageErrors are
    """All that is wrong with the parameters of a launch.

    Attributes:
      sentences: one for each mistake, with the parameter, the value (unless it is secret) and what it must look like.
    """

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def flags_of(pipeline: str) -> dict[str, argparse.Action]:
    """The flags of a pipeline, by name, without the dashes, in their order; imports the pipeline."""
    parser = Parser(add_help=False)
    importlib.import_module(f"beam_pipelines.{pipeline}").add_flags(parser)
    return {action.option_strings[-1].lstrip("-"): action for action in parser._actions}


def argv_of(template: Template, parameters: Mapping[str, str]) -> list[str]:
    """The command line of the template's pipeline that says the same.

    Args:
      template: which parameters there are.
      parameters: name to value. That of a BOOLEAN is true or false; several values stand in one text, with blanks
        between where the flag takes them so, otherwise with commas.

    Raises:
      Mistakes: if any value cannot be used, any name is not known, or a parameter is missing; tells all of these.
    """
    flags = flags_of(template.id)
    sentences = [_unknown(name, template) for name in parameters if template.parameter(name) is None]
    argv: list[str] = []
    for parameter in template.parameters:
        flag = flags.get(parameter.name)
        if parameter.name not in parameters:
            if not parameter.is_optional:
                looks = parameter.custom_metadata.get("format", "it")
                sentences.append(f"parameter {parameter.name} is missing: give {looks}")
        elif flag is None:
            sentences.append(f"parameter {parameter.name} of the template is no flag of beam_pipelines.{template.id}")
        else:
            found = list(_mistakes(parameter, flag, parameters[parameter.name]))
            sentences += found
            argv += [] if found else _words(flag, parameters[parameter.name])
    if sentences:
        raise Mistakes(sentences)
    return argv


def _unknown(name: str, template: Template) -> str:
    """Without the value: that of a misspelt secret would be shown."""
    names = [it.name for it in template.parameters]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    cure = f"did you mean {near[0]}?" if near else f"{template.id} has {', '.join(names)}"
    return f"parameter {name} is not known: {cure}"


def _mistakes(parameter: Parameter, flag: argparse.Action, value: str) -> Iterator[str]:
    """What is wrong with a value: that it is not of the template's form, else what the flag itself says."""
    told = "this value, which is secret and so not shown" if parameter.secret else repr(value)
    options = [it.value for it in parameter.enum_options]
    if options and value not in options:
        yield f"parameter {parameter.name} must be one of {', '.join(options)}, not {told}"
    elif not all(re.fullmatch(regex, _plain(parameter, value)) for regex in parameter.regexes):
        looks = parameter.custom_metadata.get("format") or f"a text that matches {' and '.join(parameter.regexes)}"
        yield f"parameter {parameter.name} must be {looks}, not {told}"
    elif said := _refusal(flag, value):
        yield f"parameter {parameter.name}={'***' if parameter.secret else repr(value)}: {said}"


def _plain(parameter: Parameter, value: str) -> str:
    return value.lower() if parameter.param_type == BOOLEAN else value


def _refusal(flag: argparse.Action, value: str) -> str | None:
    """What the flag says of a value that it does not take."""
    if flag.nargs == 0 and value.lower() not in ("true", "false"):
        return "must be true or false"
    try:
        for word in values_of(flag, value):
            made = flag.type(word) if callable(flag.type) else word
            if flag.choices is not None and made not in flag.choices:
                return f"must be one of {', '.join(map(str, flag.choices))}"
    except (argparse.ArgumentTypeError, UsageError) as refused:
        return str(refused)
    return None


def values_of(flag: argparse.Action, value: str) -> list[str]:
    """The values that a parameter's text holds: several if the flag takes several."""
    if flag.nargs == 0:
        return []
    if flag.nargs == "+":
        return value.split()
    if isinstance(flag, argparse._AppendAction):
        return [it.strip() for it in value.split(",")]
    return [value]


def _words(flag: argparse.Action, value: str) -> list[str]:
    name = flag.option_strings[-1]
    if flag.nargs == 0:
        return [name] if value.lower() == "true" else []
    if flag.nargs == "+":
        return [name, *values_of(flag, value)]
    return [f"{name}={it}" for it in values_of(flag, value)]
