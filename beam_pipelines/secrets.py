"""Secrets by reference: what can be read in requests, process lists and logs says only where the secret is.

A reference is `env:NAME`, a variable of the environment, or `file:/path`, a file whose whole content is the secret, as
orchestrators mount them.
"""

import argparse
import os
import pathlib
import re

from beam_pipelines.command_line import Kind, filled
from beam_pipelines.errors import UsageError

__all__ = ["referred", "resolve"]

_SCHEMES = ("env:", "file:")
_REFERENCE = r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.*\S"
_MUST = "a reference to the secret, env:NAME or file:/path"


def resolve(reference: str) -> str:
    """The secret that a reference names; any other text is the secret itself.

    Raises:
      UsageError: if there is no such variable or file, or nothing in it; shows the reference, never what it might hold.
    """
    if not reference.startswith(_SCHEMES):
        return reference
    scheme, _, name = _checked(reference).partition(":")
    secret = os.environ.get(name, "") if scheme == "env" else _content(reference, name)
    if not secret.strip():
        raise UsageError(
            f"secret {reference} is not set or empty: set it where the job is launched, or correct the name"
        )
    return secret.strip()


def _content(reference: str, path: str) -> str:
    try:
        return pathlib.Path(path).read_text("utf-8")
    except (OSError, ValueError) as failed:
        reason = failed.strerror if isinstance(failed, OSError) else "it is no text"
        raise UsageError(f"secret {reference} cannot be read ({reason}): correct the path") from None


def _checked(text: str) -> str:
    """The same text; whatever begins like a reference and is none may be the secret itself, so it is not shown."""
    if text.startswith(_SCHEMES) and not re.fullmatch(_REFERENCE, text):
        raise UsageError(f"a secret must be {_MUST}, and what was given (not shown) begins like one but is none")
    return text


def _secret(text: str) -> str:
    try:
        return _checked(filled(text))
    except UsageError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None


referred = Kind(
    _secret,
    _MUST,
    _REFERENCE,
    ("env:TIMESCALE_DSN", "file:/run/secrets/timescale_dsn"),
    ("", "env:", "env:two words", "env:postgresql://user:password@host/database", "file:relative"),
    secret=True,
)
"""Takes a secret, or a reference to one; templates take references alone."""
