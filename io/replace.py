"""A stretch of time replaced in tables: new rows gather beside them, and take the place of the old ones at once.

Whoever reads the tables sees the old rows or the new ones, never some of both and never none.  What the stream wrote
of records that the replacement has not read stays.
"""

import contextlib
import dataclasses
import datetime
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import psycopg
import pyarrow as pa
from apache_beam.metrics import Metrics
from psycopg import sql

from beam_pipelines.errors import UsageError
from beam_pipelines.io.postgres import Dsn, describe, is_transient
from beam_pipelines.io.tables import (
    DAILY_SUMMARY,
    MARKET_ANOMALIES,
    MARKET_BARS,
    MARKET_DATA,
    NEWS_SENTIMENT,
    NEWS_WINDOWS,
    Table,
)
from beam_pipelines.io.timescale import WriteToTimescale

__all__ = ["MARKET_TABLES", "NEWS_TABLES", "STREAM_TABLES", "ReplaceRows", "ReplacedRows", "Replacement", "new_run"]

_ATTEMPTS, _PAUSE_S = 5, 2.0  # of a transaction that may meet the stream's in a deadlock
_LEFT = "SELECT relname, (regexp_match(relname, %s))[1] FROM pg_class WHERE pg_table_is_visible(oid) AND relkind = 'r'"
_LEFT_AFTER_S = 2 * 86_400  # longer than any run
_LOCK = "SELECT pg_advisory_xact_lock(hashtext(%s))"
_RECORD = """
    INSERT INTO daily_replacements (run, begin_time, end_time, symbols, rows_removed, rows_changed)
    VALUES (%s, 'epoch'::timestamptz + %s * interval '1 ms', 'epoch'::timestamptz + %s * interval '1 ms', %s, %s, %s)"""
_AT = sql.SQL("('epoch'::timestamptz + {} * interval '1 ms')")


class Replaced(NamedTuple):
    """A table, and when a row of the stretch that is not among the new ones is to go; `old` is the row.

    The condition must be one that PostgreSQL can join by: what it asks row by row takes hours for a day.
    """

    table: Table
    time: str  # column that puts a row in the stretch
    goes: sql.SQL


# Not if it is of a record beyond those that the new rows are made of, which those of the first table tell.
_READ = sql.SQL(
    'NOT EXISTS (SELECT FROM (SELECT partition, max("offset") AS last FROM {first} GROUP BY partition) AS read '
    'WHERE read.partition = old.partition AND read.last < old."offset")'
)

_TICKS_AND_BARS = (
    Replaced(MARKET_DATA, "time", _READ),
    Replaced(
        MARKET_BARS,
        "time",
        # Not if a tick of it is left; and those of another length are of another job.
        sql.SQL(
            "old.bar_seconds = {bar_seconds} AND NOT EXISTS (SELECT FROM market_data_ts AS tick "
            "WHERE tick.symbol = old.symbol AND tick.time >= old.time "
            "AND tick.time < old.time + old.bar_seconds * interval '1 s')"
        ),
    ),
)

STREAM_TABLES = (*_TICKS_AND_BARS, Replaced(MARKET_ANOMALIES, "time", _READ))
"""The tables that the market stream writes, in the order in which they are replaced."""

MARKET_TABLES = (*_TICKS_AND_BARS, Replaced(DAILY_SUMMARY, "day", sql.SQL("true")))
"""The tables of the market that are computed anew: anomalies stay as they were told."""

NEWS_TABLES = (
    Replaced(NEWS_SENTIMENT, "time", _READ),
    Replaced(
        NEWS_WINDOWS,
        "time",
        # Not if there is an article in it that became known after those that the new rows are made of.
        sql.SQL("old.newest_at <= COALESCE((SELECT max(newest_at) FROM {new}), 'infinity')"),
    ),
)
"""All tables of the news."""


def new_run(day: datetime.date) -> str:
    """A name for a run over a day: with the time, in hexadecimal, by which its tables can be swept."""
    return f"{day:%Y%m%d}_{int(time.time()):08x}{uuid.uuid4().hex[:8]}"


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What is replaced where.

    Attributes:
      dsn: the database.
      run: of one run alone, as `new_run` gives it; names its tables.
      begin: of the rows' time, ms.
      end: of the rows' time, ms; the first that stays.
      bar_seconds: length of the market's bars.
      symbols: whose rows; None: all.
      tables: which.
    """

    dsn: Dsn
    run: str
    begin: int
    end: int
    bar_seconds: int = 0
    symbols: tuple[str, ...] | None = None
    tables: tuple[Replaced, ...] = MARKET_TABLES

    def staged(self, table: Table) -> Table:
        """The table beside `table` in which its new rows gather."""
        return dataclasses.replace(table, name=f"{table.name}_{self.run}", revised=False)

    def sweep(self) -> None:
        """Drops what runs of days ago have left that were killed.

        Raises:
          UsageError: if the database refuses.
        """
        with self._refusals(), self.dsn.connect("beam_pipelines daily") as connection:
            for table in self.tables:
                ours = f"^{table.table.name}_\\d{{8}}_([0-9a-f]{{8}})[0-9a-f]+$"
                for name, began in connection.execute(_LEFT, [ours]).fetchall():
                    if began and int(began, 16) < time.time() - _LEFT_AFTER_S:
                        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))

    def prepare(self) -> None:
        """Makes the tables for the new rows, unless they are there.

        Raises:
          UsageError: if the database lacks the migrations or the right to make tables.
        """
        with self._refusals(), self.dsn.connect("beam_pipelines daily") as connection:
            connection.execute("SELECT FROM daily_replacements LIMIT 0")
            connection.execute(_LOCK, [self.run])  # workers come together
            for table, *_ in self.tables:
                connection.execute(
                    sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(
                        sql.Identifier(self.staged(table).name), sql.Identifier(table.name)
                    )
                )

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
            raise UsageError(
                f"database {self.dsn} cannot take a day's rows: {describe(error)}: run the migrations (python -m "
                "beam_pipelines.sql.migrate), and let the user make tables"
            ) from None

    def replace(self) -> tuple[int, int]:
        """Puts the new rows in the place of the old ones; gives how many rows went, and how many came or changed.

        A second time it does nothing, since a runner may repeat what it has done; table daily_replacements tells.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.dsn.connect("beam_pipelines daily") as connection:
                    return self._replaced(connection)
            except psycopg.Error as error:
                if not is_transient(error) or attempt == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE_S * attempt)
        raise AssertionError("unreachable")

    def clean(self) -> None:
        """Drops what a run that failed has left."""
        with self.dsn.connect("beam_pipelines daily") as connection:
            for table, *_ in self.tables:
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.staged(table).name)))

    def _replaced(self, connection: psycopg.Connection[Any]) -> tuple[int, int]:
        connection.execute(_LOCK, [self.run])
        if connection.execute("SELECT FROM daily_replacements WHERE run = %s", [self.run]).fetchone() is not None:
            return 0, 0
        gone = changed = 0
        for it in self.tables:
            table = it.table
            new = sql.Identifier(self.staged(table).name)
            connection.execute(sql.SQL("ANALYZE {}").format(new))
            gone += connection.execute(self._removal(it, new)).rowcount
            changed += connection.execute(table.upsert_from(new)).rowcount
        for it in self.tables:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(self.staged(it.table).name)))
        connection.execute(
            _RECORD, [self.run, self.begin, self.end, list(self.symbols) if self.symbols else None, gone, changed]
        )
        return gone, changed

    def _removal(self, it: Replaced, new: sql.Identifier) -> sql.Composed:
        names = [sql.Identifier(name) for name in it.table.identity]
        first = sql.Identifier(self.staged(self.tables[0].table).name)
        return sql.SQL(
            "DELETE FROM {table} AS old WHERE old.{time} >= {begin} AND old.{time} < {end} AND {asked} "
            "AND NOT EXISTS (SELECT FROM {new} AS new WHERE {same}) AND {goes}"
        ).format(
            table=sql.Identifier(it.table.name),
            time=sql.Identifier(it.time),
            begin=_AT.format(sql.Literal(self.begin)),
            end=_AT.format(sql.Literal(self.end)),
            asked=sql.SQL("old.symbol = ANY({})").format(sql.Literal(list(self.symbols)))
            if self.symbols
            else sql.SQL("true"),
            new=new,
            same=sql.SQL(" AND ").join(sql.SQL("new.{0} = old.{0}").format(name) for name in names),
            goes=it.goes.format(new=new, first=first, bar_seconds=sql.Literal(self.bar_seconds)),
        )


class ReplacedRows(NamedTuple):
    """The outputs of `ReplaceRows`."""

    refused: beam.PCollection  # DEAD_LETTERS of the rows that the database refuses
    done: beam.PCollection  # the name of the run, when the new rows are in their place


class ReplaceRows(beam.PTransform):
    """Collections of batches for each of the replacement's tables to `ReplacedRows`.

    The tables are replaced when all is written, so a run that fails has changed nothing.

    Args:
      replacement: what is replaced where.
      topic: for dead letters.
    """

    def __init__(self, replacement: Replacement, topic: str = "") -> None:
        super().__init__()
        self._replacement, self._topic = replacement, topic

    def expand(self, tables: Sequence[beam.PCollection]) -> Any:  # noqa: D102  (Beam warns of hints other than collections)
        refused = [
            batches
            | f"Prepare({it.table.name})"
            >> beam.ParDo(_PrepareDoFn(self._replacement)).with_output_types(pa.RecordBatch)
            | WriteToTimescale(self._replacement.staged(it.table), self._replacement.dsn, self._topic)
            for it, batches in zip(self._replacement.tables, tables, strict=True)
        ]
        together = refused | "Refused" >> beam.Flatten()
        once = tables[0].pipeline | "Once" >> beam.Impulse()
        replace = beam.Map(_replace, self._replacement, beam.pvalue.AsIter(together)).with_output_types(str)
        return ReplacedRows(together, once | "Replace" >> replace)


class _PrepareDoFn(beam.DoFn):
    """Lets batches pass when there is a table for them, after a repeat too."""

    def __init__(self, replacement: Replacement) -> None:
        self._replacement = replacement

    def setup(self) -> None:
        self._replacement.prepare()

    def process(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        yield batch


def _replace(_: bytes, replacement: Replacement, _written: Iterable[pa.RecordBatch]) -> str:
    gone, changed = replacement.replace()
    Metrics.counter("daily", "rows_removed").inc(gone)
    Metrics.counter("daily", "rows_changed").inc(changed)
    return replacement.run
