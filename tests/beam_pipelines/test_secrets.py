"""Secrets by reference."""

import pathlib

import pytest

from beam_pipelines import market
from beam_pipelines.errors import UsageError
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.secrets import resolve

SECRET = "pa55word"
DSN = f"postgresql://user:{SECRET}@127.0.0.1:1/ticks"


@pytest.fixture(autouse=True)
def no_other_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIMESCALE_DSN", raising=False)


@pytest.fixture(params=["env", "file", "file with a line's end"])
def reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> str:
    if request.param == "env":
        monkeypatch.setenv("MARKET_DSN", DSN)
        return "env:MARKET_DSN"
    (tmp_path / "a dsn").write_text(DSN + ("\n" if "line" in request.param else ""))
    return f"file:{tmp_path}/a dsn"


def test_a_reference_becomes_the_secret(reference: str) -> None:
    assert resolve(reference) == DSN
    assert str(Dsn(reference)) == str(Dsn(DSN)) == "database ticks on 127.0.0.1:1"
    assert Dsn(reference).scrub(f"it is {SECRET}") == "it is ***"


def test_any_other_text_is_the_secret_itself() -> None:
    assert resolve(DSN) == DSN
    assert resolve("host=h") == "host=h"


def test_the_environment_may_hold_a_reference(reference: str) -> None:
    assert str(Dsn.from_option(None, {"TIMESCALE_DSN": reference})) == "database ticks on 127.0.0.1:1"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "env:NO_SUCH",
            "secret env:NO_SUCH is not set or empty: set it where the job is launched, or correct the name",
        ),
        ("env:EMPTY", "secret env:EMPTY is not set or empty"),
        ("file:/no/such", "secret file:/no/such cannot be read (No such file or directory): correct the path"),
        ("file:/dev/null", "secret file:/dev/null is not set or empty"),
        ("file:/usr", "secret file:/usr cannot be read (Is a directory): correct the path"),
        ("env:", "a secret must be a reference to the secret, env:NAME or file:/path, and what was given (not shown)"),
        (f"env:{DSN}", "what was given (not shown) begins like one but is none"),
        ("file:relative", "what was given (not shown) begins like one but is none"),
    ],
)
def test_what_is_wrong_with_a_reference_is_told_without_the_secret(
    named: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", " ")
    with pytest.raises(UsageError) as mistake:
        resolve(named)
    assert said in str(mistake.value)
    assert SECRET not in str(mistake.value)


def test_a_file_that_is_no_text_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary cannot be read \(it is no text\)"):
        resolve(f"file:{tmp_path}/binary")


def test_a_pipeline_takes_a_reference_for_its_database(reference: str, tmp_path: pathlib.Path) -> None:
    given = [f"--lake={tmp_path}/lake", "--ticks=100"]
    with pytest.raises(UsageError, match=r"cannot connect to database ticks on 127\.0\.0\.1:1: ") as told:
        market.main([*given, f"--timescale_dsn={reference}"])
    assert SECRET not in str(told.value)
    with pytest.raises(UsageError, match="secret env:NO_SUCH is not set"):
        market.main([*given, "--timescale_dsn=env:NO_SUCH"])
    with pytest.raises(UsageError, match="begins like one but is none"):
        market.main([*given, f"--timescale_dsn=env:{DSN}"])
