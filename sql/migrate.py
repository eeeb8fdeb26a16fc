"""Applies the numbered migrations beside this module, each once, in the order of their numbers.

    python -m beam_pipelines.sql.migrate [--timescale_dsn DSN] [--status]

Those under timescale/ are for databases with TimescaleDB (the community edition); elsewhere they wait, and are applied
by the first run after the extension has come.  Table schema_migrations records what was done.
"""

import contextlib
import hashlib
import importlib.resources
from collections.abc import Iterator, Sequence
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

import psycopg

from beam_pipelines.command_line import Parser
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.postgres import Dsn, describe, reason_of
from beam_pipelines.secrets import referred

__all__ = ["Migration", "available", "main", "migrate", "status"]

_Connection = psycopg.Connection[tuple[Any, ...]]

_LOCK = 0x6265616D_73716C  # any number, as long as all appliers take the same
_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class Migration(NamedTuple):
    """A file of statements that is applied once, in one transaction, and never edited afterwards."""

    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """Of the text, however the checkout ends its lines."""
        return hashlib.sha256(self.statements.encode()).hexdigest()

    @property
    def needs_timescale(self) -> bool:
        """Whether it waits for the extension."""
        return self.name.startswith("timescale/")


def available() -> list[Migration]:
    """The migrations of this version of the package, by number."""
    here = importlib.resources.files("beam_pipelines.sql")
    return sorted([*_read(here, ""), *_read(here / "timescale", "timescale/")])


def _read(folder: Traversable, prefix: str) -> Iterator[Migration]:
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            yield Migration(int(file.name.partition("_")[0]), prefix + file.name, file.read_text(encoding="utf-8"))


def migrate(dsn: Dsn, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Applies what is not applied yet; returns the names of those applied now.

    Safe to call from several places at once: each migration is applied under a lock, by one of them.

    Raises:
      UsageError: unreachable, a migration was edited after it had been applied, or one fails; those before it stay.
    """
    migrations = available() if migrations is None else migrations
    with _connect(dsn) as connection:
        _enable_timescale(dsn)
        timescale = _has_timescale(connection)
        usable = [migration for migration in migrations if timescale or not migration.needs_timescale]
        return [migration.name for migration in usable if _apply(connection, migration)]


def status(dsn: Dsn) -> list[tuple[str, str]]:
    """Each migration's name and state: when it was applied, or what it waits for.

    Raises:
      UsageError: unreachable.
    """
    with _connect(dsn) as connection:
        timescale, done = _has_timescale(connection), _applied(connection)
        return [(migration.name, _state(migration, done, timescale)) for migration in available()]


def _state(migration: Migration, done: dict[int, tuple[str, str]], timescale: bool) -> str:
    if migration.version in done:
        checksum, applied_at = done[migration.version]
        return f"applied {applied_at}" if checksum == migration.checksum else f"applied {applied_at}, edited since"
    return "waits for TimescaleDB" if migration.needs_timescale and not timescale else "pending"


def _connect(dsn: Dsn) -> _Connection:
    try:
        return dsn.connect("beam_pipelines migrations")
    except psycopg.Error as error:
        reason = dsn.scrub(reason_of(error))
        raise UsageError(f"cannot connect to {dsn}: {reason}: check --timescale_dsn") from None


def _enable_timescale(dsn: Dsn) -> None:
    """Creates the extension where the server has it and lets us.

    On a connection of its own, because a server that has not preloaded it ends the one that asks.
    """
    with _connect(dsn) as connection:
        offered = "SELECT FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
        if connection.execute(offered).fetchone() is not None:
            with contextlib.suppress(psycopg.Error):
                connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")


def _has_timescale(connection: _Connection) -> bool:
    """Whether the extension is there, with the features that only its community edition has."""
    if connection.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is None:
        return False
    return connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone() == ("timescale",)


def _applied(connection: _Connection) -> dict[int, tuple[str, str]]:
    if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
        return {}
    rows = connection.execute("SELECT version, checksum, applied_at::timestamptz(0)::text FROM schema_migrations")
    return {version: (checksum, applied_at) for version, checksum, applied_at in rows}


def _apply(connection: _Connection, migration: Migration) -> bool:
    """Applies the migration unless it is applied; whether it did."""
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute(_RECORD)
            done = _applied(connection).get(migration.version)
            if done is None:
                _execute(connection, migration)
    except psycopg.Error as error:
        raise UsageError(f"migration {migration.name} failed and changed nothing: {describe(error)}") from error
    if done is not None and done[0] != migration.checksum:
        raise UsageError(
            f"migration {migration.name} was edited after it had been applied ({done[1]}): "
            "restore it and put the change into a new migration"
        )
    return done is None


def _execute(connection: _Connection, migration: Migration) -> None:
    connection.execute(migration.statements)
    record = "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)"
    connection.execute(record, [migration.version, migration.name, migration.checksum])


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = Parser(prog="python -m beam_pipelines.sql.migrate", description="Creates or updates the tables.")
    parser.add_argument(
        "--timescale_dsn",
        type=referred,
        help="connection string, or env:NAME or file:/path of it; better in the environment variable TIMESCALE_DSN",
    )
    parser.add_argument("--status", action="store_true", help="only tell what is applied and what is not")
    options = parser.parse(argv)
    dsn = Dsn.from_option(options.timescale_dsn)
    if not options.status:
        for name in migrate(dsn):
            print(f"applied now: {name}")
    for name, state in status(dsn):
        print(f"{name:45} {state}")
    return 0


if __name__ == "__main__":
    run_main(main)
