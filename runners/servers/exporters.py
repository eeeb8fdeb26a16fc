"""Exporters: what tells Prometheus about servers that do not speak its format themselves.

Flink does, and Kafka does by an agent in its own process (`kafka.py`).
"""

import importlib.resources
import pathlib
import sys
from collections.abc import Mapping
from typing import ClassVar

from beam_pipelines.runners.servers.base import Command, Server, accepts
from beam_pipelines.runners.servers.prometheus import flags, program

__all__ = ["PostgresExporter", "WorkersExporter"]

PACKAGE, UPSTREAM = "prometheus-postgres-exporter", "postgres_exporter"


class PostgresExporter(Server):
    """The metrics of a PostgreSQL server, and of the tables in one database.

    Args:
      folder: where it keeps its log.
      ports: as for every server.
      dsn: of the database.
    """

    name = "pgexporter"
    preferred_ports: ClassVar[Mapping[str, int]] = {"postgres_exporter": 9187}

    def __init__(self, folder: pathlib.Path, ports: Mapping[str, int] | None, dsn: str) -> None:
        super().__init__(folder, ports)
        self._dsn = dsn

    def provide(self) -> None:
        """Looks for the program."""
        program(PACKAGE, UPSTREAM)

    def prepare(self) -> Command:
        """Names the queries and the database; the DSN may hold a password, so it is no argument."""
        options = {
            "web.listen-address": self.address("postgres_exporter"),
            "extend.query-path": importlib.resources.files("beam_pipelines.runners") / "postgres_metrics.yml",
        }
        # Without the settings, hundreds of series, and the background writer's, whose view PostgreSQL 17 has changed.
        off = ["--disable-settings-metrics", "--no-collector.bgwriter"]
        return Command([program(PACKAGE, UPSTREAM), *flags(options), *off], {"DATA_SOURCE_NAME": self._without_tls()})

    def ready(self) -> bool:
        """Whether it listens; whether the database answers is one of its metrics."""
        return accepts(self.address("postgres_exporter"))

    def _without_tls(self) -> str:
        return self._dsn if "sslmode=" in self._dsn else f"{self._dsn}?sslmode=disable"


class WorkersExporter(Server):
    """The metrics of a worker pool's workers, the killed ones included.

    Args:
      folder: where it keeps its log.
      ports: as for every server.
      metrics: the folder in which the workers measure.
    """

    name = "workersexporter"
    preferred_ports: ClassVar[Mapping[str, int]] = {"worker_metrics": 9102}

    def __init__(self, folder: pathlib.Path, ports: Mapping[str, int] | None, metrics: pathlib.Path) -> None:
        super().__init__(folder, ports)
        self._metrics = metrics

    def provide(self) -> None:
        """Nothing to do: it is part of this package."""

    def prepare(self) -> Command:
        """Names the folder."""
        options = {"folder": self._metrics, "port": self.ports["worker_metrics"]}
        return Command([sys.executable, "-m", "beam_pipelines.runners.metrics", *flags(options)])

    def ready(self) -> bool:
        """Whether it listens."""
        return accepts(self.address("worker_metrics"))
