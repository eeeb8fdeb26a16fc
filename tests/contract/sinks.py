"""Everything that one run of the market stream writes to, and how it differs from what the log says."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import psycopg
import pyarrow.dataset as ds
from pyarrow import fs

from beam_pipelines import ledger
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.objects import objects_in
from beam_pipelines.io.tables import DATA_QUALITY, MARKET_ANOMALIES, MARKET_BARS, MARKET_DATA

SINKS = (
    "table of bars",
    "table of ticks",
    "topic of ticks",
    "topic of dead letters",
    "table of anomalies",
    "topic of anomalies",
    "lake of ticks",
    "lake of dead letters",
)
Rows = Iterable[tuple[Hashable, Any]]


class Sinks(NamedTuple):
    """Topics, a database and a lake that nobody else writes to."""

    bootstrap_servers: str
    processed: str
    dead_letters: str
    anomalies: str
    dsn: str
    lake: str

    @property
    def arguments(self) -> list[str]:
        """The flags of `market` that name them."""
        return [
            f"--bootstrap_servers={self.bootstrap_servers}",
            f"--processed_topic={self.processed}",
            f"--dead_letter_topic={self.dead_letters}",
            f"--anomaly_topic={self.anomalies}",
            f"--timescale_dsn={self.dsn}",
            f"--lake={self.lake}",
            "--lake_slot_seconds=60",
        ]

    def differences(self, expected: ledger.Expected) -> Iterator[tuple[str, ledger.Difference]]:
        """Each of SINKS against what it should hold; read when asked for."""
        rows = (
            expected.table_bars,
            expected.table_ticks,
            expected.ticks,
            expected.dead_letters,
            expected.table_anomalies,
            expected.alerts,
            expected.lake,
            expected.dead_letters,
        )
        found: tuple[Callable[[], Rows], ...] = (
            lambda: ledger.rows_of_table(self.dsn, MARKET_BARS),
            lambda: ledger.rows_of_table(self.dsn, MARKET_DATA),
            self.copies,
            lambda: ledger.rows_of_topic(self._kafka, self.dead_letters, dead_letters=True),
            lambda: ledger.rows_of_table(self.dsn, MARKET_ANOMALIES),
            lambda: ledger.alerts_of_topic(self._kafka, self.anomalies),
            lambda: ledger.rows_of_lake(self.lake) if self._has("market-data") else [],
            self._dead_letters_in_lake,
        )
        for name, wanted, read in zip(SINKS, rows, found, strict=True):
            yield name, ledger.compare(wanted, read())

    def copies(self) -> Rows:
        """All messages of the topic of ticks, with the raw record that each was made of."""
        return ledger.rows_of_topic(self._kafka, self.processed)

    def is_clean(self, expected: ledger.Expected) -> bool:
        return all(difference.clean for _, difference in self.differences(expected))

    def quality(self, minutes: Iterable[Hashable]) -> dict[Hashable, Any]:
        """The rows of the table of quality for these minutes of partitions; None: there is none."""
        held = dict(ledger.rows_of_table(self.dsn, DATA_QUALITY))
        return {minute: held.get(minute) for minute in minutes}

    def objects(self) -> dict[str, bytes]:
        """Every object of the lake, by its path under the root."""
        files, root = objects_in(self.lake).tree()
        found = files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        paths = [it.path for it in found if it.type is fs.FileType.File]
        return {path.removeprefix(root): files.open_input_file(path).readall() for path in paths}

    def versions(self) -> dict[str, list[tuple[Any, ...]]]:
        """Which transaction wrote each row of each table, and where it lies."""
        with psycopg.connect(self.dsn) as connection:
            return {
                table.name: connection.execute(
                    f"SELECT xmin::text, ctid::text FROM {table.name} ORDER BY ctid"
                ).fetchall()
                for table in (MARKET_DATA, MARKET_BARS, MARKET_ANOMALIES)
            }

    def count(self, table: str, condition: str = "true") -> int:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0]

    def _has(self, dataset: str) -> bool:
        return any(path.startswith(f"/{dataset}/") for path in self.objects())

    @property
    def _kafka(self) -> KafkaConfig:
        return KafkaConfig(self.bootstrap_servers)

    def _dead_letters_in_lake(self) -> Rows:
        if not self._has("dead-letter"):
            return []
        files, root = objects_in(self.lake).tree()
        columns = ["partition", "offset", "reason", "value"]
        table = ds.dataset(f"{root}/dead-letter", filesystem=files, format="parquet").to_table(columns=columns)
        return [((p, o), (reason, value)) for p, o, reason, value in zip(*table.to_pydict().values(), strict=True)]
