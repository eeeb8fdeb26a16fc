"""Tables that sinks write: which column of a record batch goes where, and what identifies a row."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from psycopg import sql

from beam_pipelines.transforms.batches import BARS, ENRICHED, SUMMARIES

__all__ = ["DAILY_SUMMARY", "MARKET_BARS", "MARKET_DATA", "Column", "Table", "columns_of"]

_TIMES = {"timestamp": "time", "time": "time", "processed_at": "processed_at", "day": "day"}  # int64 ms in batches
_SQL_TYPES = {
    pa.string(): "text",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.float64(): "numeric(20,8)",
}


class Column(NamedTuple):
    """A column of a table.

    `field` is the name in the record batch; `kind` is the SQL type as PostgreSQL's format_type() spells it.
    """

    name: str
    field: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is upserted.

    `identity` are the columns of its primary key.  `revised` says that rows come again with other values as a rule, so
    that it is not worth trying to insert them plainly first.
    """

    name: str
    identity: tuple[str, ...]
    columns: tuple[Column, ...]
    revised: bool = False

    def latest(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The last row of each identity, in the order of `rows`."""
        fields = [column.field for column in self.columns if column.name in self.identity]
        keys = {field: _plain(rows.column(field)) for field in fields}
        numbered = pa.table({**keys, "row": np.arange(rows.num_rows)})
        last = numbered.group_by(fields, use_threads=False).aggregate([("row", "max")])["row_max"]
        return rows if len(last) == rows.num_rows else rows.take(np.sort(last.to_numpy()))

    def clustered(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with those of one key together, where the key begins with a name: so the key's pages are gone
        through one after the other, which spares the server a tenth of its time.
        """
        names = rows.column(next(column.field for column in self.columns if column.name == self.identity[0]))
        if not pa.types.is_dictionary(names.type):
            return rows
        return rows.take(pa.array(np.argsort(names.indices.to_numpy(), kind="stable")))

    def values(self, rows: pa.RecordBatch) -> list[tuple[str, pa.Array]]:
        """Type and values of each column, for `pgcopy.binary_copy`."""
        return [(column.kind, _plain(rows.column(column.field))) for column in self.columns]

    def names(self, order: Iterable[int]) -> sql.Composed:
        """The columns at these positions, as a list in SQL."""
        return sql.SQL(", ").join(sql.Identifier(self.columns[at].name) for at in order)

    @property
    def staging(self) -> sql.Identifier:
        """The temporary table in which rows wait for the upsert."""
        return sql.Identifier("pg_temp", f"pending_{self.name}")

    @functools.cached_property
    def create_staging(self) -> sql.Composed:
        """Emptied, not dropped, at each commit: neither writes to the catalogue."""
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.kind)) for column in self.columns
        )
        statement = sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS")
        return statement.format(sql.Identifier(f"pending_{self.name}"), columns)

    @functools.cached_property
    def upsert(self) -> sql.Composed:
        """From the staging table into the table."""
        return self.upsert_from(self.staging)

    def upsert_from(self, source: sql.Identifier) -> sql.Composed:
        """From a table with the same columns; a row that is there with the same values is not touched."""
        others = [column.name for column in self.columns if column.name not in self.identity]
        return sql.SQL(
            "INSERT INTO {table} AS old ({names}) SELECT {names} FROM {source} "
            "ON CONFLICT ({identity}) DO UPDATE SET {changes} WHERE ({old}) IS DISTINCT FROM ({new})"
        ).format(
            table=sql.Identifier(self.name),
            source=source,
            names=self.names(range(len(self.columns))),
            identity=sql.SQL(", ").join(map(sql.Identifier, self.identity)),
            changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others),
            old=sql.SQL(", ").join(sql.Identifier("old", name) for name in others),
            new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in others),
        )


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def columns_of(schema: pa.Schema, without: Iterable[str] = (), doubles: Iterable[str] = ()) -> tuple[Column, ...]:
    """The table's columns for a batch schema, name by name; times become timestamptz, floats NUMERIC(20,8).

    Args:
      schema: of the record batches.
      without: fields that the table does not have.
      doubles: float fields that stay double precision.
    """
    return tuple(_column(field, field.name in doubles) for field in schema if field.name not in without)


def _column(field: pa.Field, double: bool) -> Column:
    if field.name in _TIMES:
        return Column(_TIMES[field.name], field.name, "timestamp with time zone")
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return Column(field.name, field.name, "double precision" if double else _SQL_TYPES[kind])


MARKET_DATA = Table(
    "market_data_ts",
    identity=("symbol", "time", "source", "seq"),
    columns=columns_of(ENRICHED, without=("updates", "log_time"), doubles=("rsi",)),
)
"""Enriched ticks (ENRICHED)."""

MARKET_BARS = Table(
    "market_bars_ts",
    identity=("symbol", "time", "bar_seconds"),
    columns=columns_of(BARS, doubles=("rsi",)),
    revised=True,
)
"""Bars (BARS)."""

DAILY_SUMMARY = Table(
    "daily_market_summary",
    identity=("symbol", "day"),
    columns=columns_of(SUMMARIES, doubles=("daily_return", "realised_volatility", "dollar_volume", "late_share")),
    revised=True,
)
"""Days of symbols (SUMMARIES)."""
