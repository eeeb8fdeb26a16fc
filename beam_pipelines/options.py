"""Command lines of the pipelines: their own flags beside Beam's, checked before anything starts.

Beam ignores a flag that it does not know; here a misspelt one is an error.  A pipeline's own flags, which may hold a
password, do not become Beam options: those travel to job servers and are shown in their web pages.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from beam_pipelines.command_line import Parser, unknown_flag
from beam_pipelines.errors import UsageError

__all__ = ["parse"]


class _BeamParser(_BeamArgumentParser):
    """Beam's parser, which tells a mistake in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see Beam's documentation of its pipeline options)")


def parse(
    argv: Sequence[str], add_flags: Callable[[argparse.ArgumentParser], None], program: str, description: str
) -> tuple[argparse.Namespace, PipelineOptions]:
    """The flags of one pipeline, and Beam's.

    Args:
      argv: the command line without the program's name.
      add_flags: declares the pipeline's own flags.
      program: the module to run, for --help.
      description: what the pipeline does, for --help.

    Raises:
      UsageError: names a flag that neither knows, or a value that does not fit.
    """
    parser = Parser(prog=f"python -m {program}", description=description, epilog=_EPILOG)
    add_flags(parser)
    mine, rest = parser.parse_known_args(argv)
    _refuse_unknown(rest, parser)
    return mine, PipelineOptions([_AS_MANY_AS_SUIT, *rest])


# Beam's default of one worker process cannot be told from a user's wish for one; of two flags the last counts.
_AS_MANY_AS_SUIT = "--sdk_worker_parallelism=0"

_EPILOG = (
    "Beam's own flags are taken too: --runner (DirectRunner, FlinkRunner, SparkRunner), --flink_master, --parallelism, "
    "--environment_type, --checkpointing_interval and so on."
)


def _refuse_unknown(flags: Sequence[str], own: Parser) -> None:
    """Parses `flags` as Beam will, and refuses what would be left over."""
    beam = _BeamParser(allow_abbrev=False, add_help=False)
    for declared in {str(options): options for options in PipelineOptions.__subclasses__()}.values():
        declared._add_argparse_args(beam)
    _, unknown = beam.parse_known_args(list(flags))
    if unknown:
        raise unknown_flag(unknown[0], [*own.flags(), *beam._option_string_actions])
