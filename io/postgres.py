"""PostgreSQL: where the database is, told without its secret, and what its errors mean."""

import copy
import os
import re
from collections.abc import Mapping
from typing import Any

import psycopg
import psycopg.conninfo

from beam_pipelines.errors import UsageError
from beam_pipelines.secrets import resolve

__all__ = ["Dsn", "describe", "is_data_error", "is_transient", "reason_of"]

EXAMPLE = "postgresql://user:password@host:5432/database"

_DEFAULTS = {
    "connect_timeout": "10",
    # A peer that vanished without a word is noticed after half a minute instead of two hours.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
_TRANSIENT_CLASSES = {
    "08",  # connection exception
    "40",  # transaction rollback: deadlock, serialization failure
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "57",  # operator intervention: shutdown, restart, cancelled statement
    "58",  # system error: input and output
}
_TRANSIENT_STATES = {
    "25006",  # read-only transaction: the primary has just become a standby
    "55006",  # object in use
    "55P03",  # lock not available
}
_DATA_CLASSES = {"22", "23"}  # data exception; integrity constraint violation
_DATA_STATES = {"54000"}  # program limit exceeded: a value too long for an index
_FORMAT_STATES = {"22P03", "22P04"}  # the COPY itself was malformed: not the fault of any row


class Dsn:
    """A libpq connection string that does not show its secret when it is printed, logged or displayed.

    The password may also be left to libpq: PGPASSWORD, a password file or a service file, where the workers run.

    Args:
      conninfo: URI or keyword form, or a reference to it as of `secrets.resolve`.

    Raises:
      UsageError: if it is not a connection string; the message does not repeat it.
    """

    def __init__(self, conninfo: str) -> None:
        self._parameters = _parsed(resolve(conninfo))

    @classmethod
    def from_option(cls, option: str | None, environ: Mapping[str, str] = os.environ) -> "Dsn":
        """The DSN of --timescale_dsn, else of the environment variable TIMESCALE_DSN.

        Raises:
          UsageError: if neither is there or it is malformed.
        """
        conninfo = option or environ.get("TIMESCALE_DSN")
        if not conninfo:
            raise UsageError(f"no database is named: give --timescale_dsn or set TIMESCALE_DSN, such as {EXAMPLE}")
        return cls(conninfo)

    def replace(self, **parameters: str) -> "Dsn":
        """The same with other connection parameters."""
        changed = copy.copy(self)
        changed._parameters = {**self._parameters, **parameters}
        return changed

    def connect(self, application_name: str) -> "psycopg.Connection[tuple[Any, ...]]":
        """A new connection in autocommit mode, without prepared statements so that poolers can stand between.

        Raises:
          psycopg.OperationalError: if there is no answer or a refusal.
        """
        defaults = {**_DEFAULTS, "application_name": application_name}
        conninfo = psycopg.conninfo.make_conninfo(**{**defaults, **self._parameters, "client_encoding": "utf8"})
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)

    def scrub(self, text: str) -> str:
        """`text` without the password."""
        password = self._parameters.get("password")
        return text.replace(password, "***") if password else text

    def __str__(self) -> str:
        part = self._parameters.get
        host, port = part("host") or part("hostaddr") or "the default host", part("port") or "5432"
        return f"database {part('dbname') or part('user') or 'by default'} on {host}:{port}"

    def __repr__(self) -> str:
        return f"Dsn({self})"


def _parsed(conninfo: str) -> dict[str, str]:
    try:
        parameters = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:  # its message quotes the string
        raise UsageError(f"--timescale_dsn is not a PostgreSQL connection string, such as {EXAMPLE}") from None
    found = {name: str(value) for name, value in parameters.items() if value is not None}
    ports = found.get("port", "").replace(",", "")
    misplaced = "@" in found.get("host", "") or ("@" in found.get("dbname", "") and "://" in conninfo)
    if misplaced or (ports and not ports.isdigit()):  # then libpq's messages would quote pieces of the password
        raise UsageError(
            f"--timescale_dsn cannot be read as {EXAMPLE}: "
            "write special characters of the password as %40 (@), %2F (/), %3A (:)"
        )
    return found


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed a moment later, on this connection or a new one."""
    state = error.sqlstate
    if state is None:  # no word from the server: refused, timed out, or lost in the middle
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES


def is_data_error(error: psycopg.Error) -> bool:
    """Whether a value of some row was refused, so that the other rows can be written without it."""
    state = error.sqlstate or ""
    return (state[:2] in _DATA_CLASSES or state in _DATA_STATES) and state not in _FORMAT_STATES


def describe(error: psycopg.Error) -> str:
    """The server's message in one line, with the column where it names one."""
    message = error.diag.message_primary or reason_of(error)
    column = error.diag.column_name or _column_of_context(error.diag.context)
    return message if not column or f'"{column}"' in message else f'{message} (column "{column}")'


def _column_of_context(context: str | None) -> str | None:
    found = re.search(r"^COPY .*, column ([^:\n]+)", context or "", re.MULTILINE)
    return found[1] if found else None


def reason_of(error: psycopg.Error) -> str:
    """The heart of libpq's message of several lines."""
    text = str(error)
    reasons: list[str] = re.findall(r"^.* failed: (?:FATAL:\s+)?(.+)$", text, re.MULTILINE)
    return (reasons[-1] if reasons else text.strip().partition("\n")[0]).strip()
