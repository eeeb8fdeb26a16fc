"""What the migrations and their applier promise, on a real PostgreSQL and, where it is there, TimescaleDB."""

import concurrent.futures
import subprocess
import sys

import psycopg
import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.sql.migrate import Migration, available, main, migrate, status

pytestmark = pytest.mark.servers

PLAIN = [migration.name for migration in available() if not migration.needs_timescale]
SECRET = "s3cr3t"


def test_numbers_are_unique_and_without_gaps() -> None:
    assert [migration.version for migration in available()] == list(range(1, len(available()) + 1))


def test_each_is_applied_once(postgres_dsn: str) -> None:
    assert migrate(Dsn(postgres_dsn)) == PLAIN
    assert migrate(Dsn(postgres_dsn)) == []


def test_appliers_do_not_race(postgres_dsn: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [Dsn(postgres_dsn)] * 4))
    assert sorted(name for names in applied for name in names) == PLAIN


def test_one_that_fails_leaves_nothing_and_keeps_those_before_it(postgres_dsn: str) -> None:
    good = Migration(1, "0001_good.sql", "CREATE TABLE good ()")
    bad = Migration(2, "0002_bad.sql", "CREATE TABLE half (); SELECT nonsense")
    with pytest.raises(UsageError, match=r'0002_bad.sql failed and changed nothing: column "nonsense" does not exist'):
        migrate(Dsn(postgres_dsn), [good, bad])
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT to_regclass('good'), to_regclass('half')").fetchone() == ("good", None)
    mended = bad._replace(statements="CREATE TABLE whole ()")
    assert migrate(Dsn(postgres_dsn), [good, mended]) == ["0002_bad.sql"]


def test_an_edited_one_is_an_error(postgres_dsn: str) -> None:
    original = Migration(1, "0001_good.sql", "CREATE TABLE good ()")
    migrate(Dsn(postgres_dsn), [original])
    with pytest.raises(UsageError, match=r"0001_good.sql was edited after it had been applied"):
        migrate(Dsn(postgres_dsn), [original._replace(statements="CREATE TABLE good (id integer)")])


def test_the_command_tells_what_it_did(postgres_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--timescale_dsn", postgres_dsn, "--status"]) == 0
    before = capsys.readouterr().out
    assert main(["--timescale_dsn", postgres_dsn]) == 0
    after = capsys.readouterr().out
    assert before.count("pending") == len(PLAIN)
    assert after.count("applied now: ") == after.count(" applied 20") == len(PLAIN)
    assert after.count("waits for TimescaleDB") == len(available()) - len(PLAIN)


def test_an_unreachable_database_is_one_sentence_without_the_password() -> None:
    command = [sys.executable, "-m", "beam_pipelines.sql.migrate"]
    environment = {"TIMESCALE_DSN": f"postgresql://u:{SECRET}@127.0.0.1:1/x"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: cannot connect to database x on 127.0.0.1:1: Connection refused: check --timescale_dsn\n"
    )


def test_states_are_told(postgres_dsn: str) -> None:
    migrate(Dsn(postgres_dsn))
    states = dict(status(Dsn(postgres_dsn)))
    assert all(states[name].startswith("applied ") for name in PLAIN)
