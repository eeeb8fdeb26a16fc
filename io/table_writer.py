"""Upserts record batches into a PostgreSQL table: a batch a transaction, less the rows that the database refuses."""

import logging
import random
import time
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
from psycopg import sql

from beam_pipelines.errors import UsageError
from beam_pipelines.io.pgcopy import binary_copy
from beam_pipelines.io.postgres import Dsn, describe, is_data_error, is_transient, reason_of
from beam_pipelines.io.tables import Table
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor

__all__ = ["DatabaseUnavailableError", "Rejected", "TableWriter"]

MIGRATE = "run the migrations: python -m beam_pipelines.sql.migrate"

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
_log = logging.getLogger(__name__)

_Connection = psycopg.Connection[tuple[Any, ...]]


class DatabaseUnavailableError(Exception):
    """The database could not be reached, or did not get through a statement, for as long as was allowed."""


class Rejected(NamedTuple):
    """A row, as a batch of one, that the database refuses, and what it said."""

    row: pa.RecordBatch
    detail: str


class TableWriter:
    """Writes record batches into `table` over a connection of its own, opened when needed.  Not for several threads.

    Rows are first copied straight into the table.  Only if one of them is there already (after a restart; always for a
    `revised` table) they take the dearer way over a temporary table and INSERT … ON CONFLICT, which leaves rows that
    are the same as before untouched.

    Args:
      table: what to write to.
      dsn: the database.
      give_up_after_s: how long transient errors are retried, reconnecting, before `write` raises.
      monitor: takes down errors.
    """

    def __init__(
        self, table: Table, dsn: Dsn, give_up_after_s: float = 60.0, monitor: PipelineMonitor = UNNAMED
    ) -> None:
        self._monitor = monitor
        self._table = table
        self._dsn = dsn
        self._give_up_after_s = give_up_after_s
        self._connection: _Connection | None = None
        self._expects_conflicts = table.revised

    def write(self, rows: pa.RecordBatch) -> list[Rejected]:
        """Writes the rows, of one identity the last; returns those that the database refuses.

        A refused row is found by halving: O(k log n) transactions for k of n rows.

        Raises:
          UsageError: if the table does not fit: missing, without a column, not writable.
          DatabaseUnavailableError: when transient errors went on for `give_up_after_s`.
        """
        try:
            self._write_retrying(rows)
        except psycopg.Error as error:
            if not is_data_error(error) or error.diag.column_name not in {None, *self._column_names()}:
                self.close()  # the next one looks at the table's columns anew
                raise _misfit(self._table, error) from error
            if rows.num_rows == 1:
                return [Rejected(rows, f"{self._table.name}: {describe(error)}")]
            middle = rows.num_rows // 2
            return self.write(rows.slice(0, middle)) + self.write(rows.slice(middle))
        return []

    def close(self) -> None:
        """Closes the connection; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def rehearse(self) -> None:
        """Does everything that writing does, without a row and without leaving a trace.

        Raises:
          psycopg.Error: whatever stands in the way.
        """
        connection = self._connected()
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL statement_timeout = '3s'")
            connection.execute(self._table.create_staging)
            connection.execute(self._table.upsert)

    def _column_names(self) -> list[str]:
        return [column.name for column in self._table.columns]

    def _write_retrying(self, rows: pa.RecordBatch) -> None:
        give_up = time.monotonic() + self._give_up_after_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                self._write_once(rows)
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                self._monitor.record_sink_error(f"timescale {self._table.name}")
                self.close()
                self._pause_or_give_up(error, pause, give_up)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                return

    def _pause_or_give_up(self, error: psycopg.Error, pause: float, give_up: float) -> None:
        what = f"{self._table.name} in {self._dsn}: {self._dsn.scrub(reason_of(error))}"
        jittered = pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads workers out, hides nothing
        if time.monotonic() + jittered > give_up:
            raise DatabaseUnavailableError(f"not written for {self._give_up_after_s:g} s: {what}") from None
        _log.warning("trying again in %.1f s: %s", jittered, what)
        time.sleep(jittered)

    def _connected(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            connection = self._dsn.connect(f"beam_pipelines {self._table.name}")
            try:
                _check_columns(connection, self._table)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _write_once(self, rows: pa.RecordBatch) -> None:
        connection = self._connected()
        if not self._expects_conflicts:
            try:
                with connection.transaction():
                    ordered = self._table.clustered(rows)
                    _copy(connection, self._table, sql.Identifier(self._table.name), self._table.values(ordered))
                return
            except psycopg.errors.UniqueViolation:
                self._expects_conflicts = True
        latest = self._table.latest(rows)
        with connection.transaction():
            written = self._stage_and_upsert(connection, self._table.values(latest))
        self._expects_conflicts = self._table.revised or written < rows.num_rows

    def _stage_and_upsert(self, connection: _Connection, values: list[tuple[str, pa.Array]]) -> int:
        connection.execute(self._table.create_staging)  # each time: a pooler may have given us another session
        _copy(connection, self._table, self._table.staging, values)
        return connection.execute(self._table.upsert).rowcount


def _copy(connection: _Connection, table: Table, target: sql.Identifier, values: list[tuple[str, pa.Array]]) -> None:
    order, pieces = binary_copy(values)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, table.names(order))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in pieces:
            copy.write(piece)


def _check_columns(connection: _Connection, table: Table) -> None:
    """Raises UsageError, naming the column, unless the table has the columns and types that it is declared with.

    A binary COPY relies on it: a column of another type would be misread or refused in words that help nobody.
    """
    found: dict[str, str] = dict(connection.execute(_COLUMNS, [f'"{table.name}"']).fetchall())
    if not found:
        raise UsageError(f"there is no table {table.name} in the database: {MIGRATE}")
    missing = [column.name for column in table.columns if column.name not in found]
    if missing:
        raise UsageError(f"table {table.name} has no column {', '.join(missing)}: {MIGRATE}")
    for column in table.columns:
        if found[column.name] != column.kind:
            what = f"{found[column.name]}, but should be {column.kind}"
            raise UsageError(f"column {column.name} of table {table.name} is {what}: {MIGRATE}, or alter the column")


def _misfit(table: Table, error: psycopg.Error) -> Exception:
    """What to raise for an error that no retry and no other row would mend."""
    state = error.sqlstate or ""
    if state[:2] in {"42", "25", "23"}:  # syntax or access rule; transaction state; a column that we do not write
        return UsageError(f"table {table.name} cannot be written: {describe(error)} (SQLSTATE {state}): {MIGRATE}")
    return error
