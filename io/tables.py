"""Tables that sinks write: which column of a record batch goes where, and what identifies a row."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from psycopg import sql

from beam_pipelines.transforms.batches import ANOMALIES, BARS, ENRICHED, QUALITY, SCORED, SUMMARIES, WINDOWS

__all__ = [
    "DAILY_SUMMARY",
    "DATA_QUALITY",
    "MARKET_ANOMALIES",
    "MARKET_BARS",
    "MARKET_DATA",
    "NEWS_SENTIMENT",
    "NEWS_WINDOWS",
    "Column",
    "Table",
    "columns_of",
]

_TIMES = {  # int64 ms in batches
    **dict.fromkeys(("timestamp", "time", "published_at"), "time"),
    **{name: name for name in ("processed_at", "day", "detected_at", "known_at", "newest_at")},
}
_DOUBLE = "double precision"
_SQL_TYPES = {
    pa.string(): "text",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.float64(): "numeric(20,8)",
    pa.list_(pa.string()): "text[]",
    pa.list_(pa.float64()): "double precision[]",
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
    that it is not worth trying to insert them plainly first.  `version` is the column by which one row of an identity
    is newer than another, in whatever order they come; without it the last that comes is.
    """

    name: str
    identity: tuple[str, ...]
    columns: tuple[Column, ...]
    revised: bool = False
    version: str = ""

    def latest(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The newest row of each identity, in the order of `rows`."""
        if self.version:
            rows = rows.take(pa.array(np.argsort(rows.column(self.version).to_numpy(), kind="stable")))
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
            "ON CONFLICT ({identity}) DO UPDATE SET {changes} WHERE ({old}) IS DISTINCT FROM ({new}){newer}"
        ).format(
            table=sql.Identifier(self.name),
            source=source,
            names=self.names(range(len(self.columns))),
            identity=sql.SQL(", ").join(map(sql.Identifier, self.identity)),
            changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others),
            old=sql.SQL(", ").join(sql.Identifier("old", name) for name in others),
            new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in others),
            newer=sql.SQL(" AND old.{0} <= excluded.{0}" if self.version else "").format(sql.Identifier(self.version)),
        )


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def columns_of(
    schema: pa.Schema, without: Iterable[str] = (), kinds: Mapping[str, str] | None = None
) -> tuple[Column, ...]:
    """The table's columns for a batch schema, name by name; times become timestamptz, floats NUMERIC(20,8).

    Args:
      schema: of the record batches.
      without: fields that the table does not have.
      kinds: SQL types of fields that have another.
    """
    return tuple(_column(field, kinds or {}) for field in schema if field.name not in without)


def _column(field: pa.Field, kinds: Mapping[str, str]) -> Column:
    if field.name in _TIMES:
        return Column(_TIMES[field.name], field.name, "timestamp with time zone")
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return Column(field.name, field.name, kinds.get(field.name) or _SQL_TYPES[kind])


MARKET_DATA = Table(
    "market_data_ts",
    identity=("symbol", "time", "source", "seq"),
    columns=columns_of(ENRICHED, without=("updates", "log_time"), kinds={"rsi": _DOUBLE}),
)
"""Enriched ticks (ENRICHED)."""

MARKET_BARS = Table(
    "market_bars_ts",
    identity=("symbol", "time", "bar_seconds"),
    columns=columns_of(BARS, kinds={"rsi": _DOUBLE}),
    revised=True,
)
"""Bars (BARS)."""

MARKET_ANOMALIES = Table(
    "market_anomalies_ts",
    identity=("symbol", "time", "bar_seconds", "kind"),
    columns=columns_of(ANOMALIES, kinds=dict.fromkeys(("score", "threshold", "value", "reference"), _DOUBLE)),
)
"""Anomalies (ANOMALIES)."""

DAILY_SUMMARY = Table(
    "daily_market_summary",
    identity=("symbol", "day"),
    columns=columns_of(
        SUMMARIES,
        kinds=dict.fromkeys(("daily_return", "realised_volatility", "dollar_volume", "late_share"), _DOUBLE),
    ),
    revised=True,
)
"""Days of symbols (SUMMARIES)."""

NEWS_SENTIMENT = Table(
    "news_sentiment_ts",
    identity=("time", "article_id"),
    columns=columns_of(SCORED, without=("signature",), kinds={"article_id": "uuid", "sentiment_score": "numeric(5,4)"}),
    version="offset",
)
"""Articles with their sentiment (SCORED)."""

NEWS_WINDOWS = Table(
    "news_windows_ts",
    identity=("symbol", "time", "window_seconds"),
    columns=columns_of(WINDOWS, kinds=dict.fromkeys(("sentiment", "decayed_sentiment"), _DOUBLE)),
    revised=True,
)
"""What the news said of a symbol in a window (WINDOWS)."""

DATA_QUALITY = Table(
    "data_quality_ts",
    identity=("dataset", "time", "window_seconds", "partition"),
    columns=columns_of(QUALITY, kinds={"score": _DOUBLE}),
)
"""How good the records were (QUALITY)."""
