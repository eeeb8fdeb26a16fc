"""The market stream with no flag at all: a simulated session into ./lake, by the program itself."""

import pathlib
import subprocess
import sys

import pytest

from beam_pipelines import ledger
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.transforms.advance import Semantics

TICKS = 5_000


def market(folder: pathlib.Path) -> str:
    command = [sys.executable, "-m", "beam_pipelines.market", f"--ticks={TICKS}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module")
def printed(folder) -> str:
    return market(folder)


def test_the_embedded_default_fills_the_lake_with_its_session(folder, printed):
    log = (batch for _, batch in raw_batches(Session(ticks=TICKS), 4))
    expected = ledger.expected_of(log, Semantics())
    assert len(expected.lake) == TICKS
    assert ledger.compare(expected.lake, ledger.rows_of_lake(str(folder / "lake"))).clean


def test_it_says_how_many_ticks_went_through(printed):
    assert f"{TICKS:,}" in printed


def test_again_it_leaves_the_lake_as_it_is(folder, printed):
    before = objects(folder)
    market(folder)
    assert objects(folder) == before
