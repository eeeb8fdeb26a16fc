"""WriteToTimescale: record batches into tables of TimescaleDB or plain PostgreSQL, so that a repeat changes nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import msgspec
import psycopg
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from beam_pipelines.errors import UsageError
from beam_pipelines.io.postgres import Dsn, describe, reason_of
from beam_pipelines.io.table_writer import MIGRATE, Rejected, TableWriter
from beam_pipelines.io.tables import MARKET_BARS, MARKET_DATA, Column, Table, columns_of
from beam_pipelines.transforms.batches import DEAD_LETTERS, joined, span_of
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor

__all__ = ["MARKET_BARS", "MARKET_DATA", "Column", "Table", "WriteToTimescale", "check_timescale", "columns_of"]

REASON = "rejected_by_database"

_FLUSH_ROWS = 50_000
_FLUSH_BYTES = 64 << 20
_TOPIC = "topic of the record"  # a column that rows carry until they are written; no field of ours has blanks


class _WriteRowsDoFn(beam.DoFn):
    """Collects batches and writes them, a transaction a flush, at the latest when the bundle ends."""

    def __init__(self, table: Table, dsn: Dsn, topic: str, give_up_after_s: float, monitor: PipelineMonitor) -> None:
        self._table, self._dsn, self._topic, self._give_up_after_s = table, dsn, topic, give_up_after_s
        self._monitor = monitor
        self._rows = Metrics.counter("timescale", f"{table.name}_rows")
        self._rejected = Metrics.counter("timescale", f"{table.name}_rejected")

    def setup(self) -> None:
        """Connects later: a worker that has nothing to write needs no connection."""
        self._writer = TableWriter(self._table, self._dsn, self._give_up_after_s, self._monitor)

    def teardown(self) -> None:
        """Gives the connection back."""
        self._writer.close()

    def start_bundle(self) -> None:
        """Forgets what a failed bundle left."""
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Keeps the batch; writes when there is much, so that memory is bounded whatever the runner's bundles are."""
        if batch.num_rows:
            self._pending.append(_with_topic(batch, self._topic))
            self._pending_rows += batch.num_rows
            self._pending_bytes += batch.nbytes
        if self._pending_rows >= _FLUSH_ROWS or self._pending_bytes >= _FLUSH_BYTES:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Writes the rest."""
        yield from map(GlobalWindows.windowed_value, self._flush())

    def _flush(self) -> list[pa.RecordBatch]:
        pending, self._pending = self._pending, []
        self._pending_rows = self._pending_bytes = 0
        if not pending:
            return []
        rows = joined(pending)
        rejected = self._writer.write(rows)
        self._rows.inc(rows.num_rows - len(rejected))
        self._rejected.inc(len(rejected))
        self._monitor.record_batch(f"timescale {self._table.name}", rows.num_rows)
        return [_dead_letters(rejected)] if rejected else []


def _with_topic(batch: pa.RecordBatch, default: str) -> pa.RecordBatch:
    """The batch with its records' topic as one more column, so that batches of several can be written together."""
    topic = span_of(batch).topic if b"topic" in (batch.schema.metadata or {}) else default
    column = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows), pa.array([topic]))
    return batch.replace_schema_metadata(None).append_column(_TOPIC, column)


def _dead_letters(rejected: Sequence[Rejected]) -> pa.RecordBatch:
    letters = [_dead_letter(row.to_pylist()[0], detail) for row, detail in rejected]
    return pa.RecordBatch.from_pylist(letters, DEAD_LETTERS)


def _dead_letter(row: dict[str, Any], detail: str) -> dict[str, Any]:
    return {
        "topic": row.pop(_TOPIC),
        "partition": row.get("partition", -1),
        "offset": row.get("offset", -1),
        "timestamp": row.get("log_time", -1),
        "reason": REASON,
        "detail": detail,
        "value": msgspec.json.encode(row),
    }


class WriteToTimescale(beam.PTransform):
    """PCollection[RecordBatch] to rows of `table`, upserted; bounded or unbounded, in the global window.

    Gives PCollection[RecordBatch DEAD_LETTERS]: the rows that the database refuses (a number too large, a constraint),
    while the rest of their batch is written.  Their reason is `rejected_by_database`, their detail the database's
    message, their value the row as JSON, which is not the original record: that is at topic, partition and offset (-1
    where the row, such as a bar's, is not made of one record).

    Of rows with the same identity the last written stands.  Prices are rounded half to even to 8 decimals; NaN and
    infinity become null.  Errors that may pass (restart, failover, deadlock, disk full) are retried with growing
    pauses; then, or when the table does not fit, the bundle fails and with it nothing is lost: the runner repeats it.

    Args:
      table: what to write; its columns are fields of the batches.
      dsn: the database.  It goes to the workers inside the pickled DoFn, and is never displayed.
      topic: for dead letters of batches that carry no span.
      give_up_after_s: how long errors that may pass are retried, s.
      monitor: takes down batches and errors.
    """

    def __init__(
        self,
        table: Table,
        dsn: Dsn | str,
        topic: str = "",
        give_up_after_s: float = 60.0,
        monitor: PipelineMonitor = UNNAMED,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._table, self._topic, self._give_up_after_s = table, topic, give_up_after_s
        self._dsn = Dsn(dsn) if isinstance(dsn, str) else dsn

    def default_label(self) -> str:
        """Named by the table, since a pipeline writes several."""
        return f"WriteToTimescale({self._table.name})"

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Wires the one step."""
        if not isinstance(batches.windowing.windowfn, GlobalWindows):
            raise ValueError(f"{self.label} takes batches in the global window")
        write = _WriteRowsDoFn(self._table, self._dsn, self._topic, self._give_up_after_s, self._monitor)
        return batches | "Write" >> beam.ParDo(write).with_output_types(pa.RecordBatch)


def check_timescale(dsn: Dsn | str, tables: Sequence[Table] = (MARKET_DATA, MARKET_BARS)) -> None:
    """Makes sure, in less than ten seconds, that these tables can be written.

    Raises:
      UsageError: unreachable, refused, a table or column missing or of another type, or no right to write.
    """
    dsn = Dsn(dsn) if isinstance(dsn, str) else dsn
    for table in tables:
        writer = TableWriter(table, dsn.replace(connect_timeout="3"))
        try:
            writer.rehearse()
        except psycopg.Error as error:
            raise _refusal(dsn, table, error) from None
        finally:
            writer.close()


def _refusal(dsn: Dsn, table: Table, error: psycopg.Error) -> UsageError:
    if error.sqlstate is None:
        return UsageError(f"cannot connect to {dsn}: {dsn.scrub(reason_of(error))}: check --timescale_dsn")
    return UsageError(f"table {table.name} in {dsn} cannot be written: {dsn.scrub(describe(error))}: {MIGRATE}")
