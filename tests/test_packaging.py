"""The package as it is installed: from a wheel, without the checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
WHERE = """
import json, sys
from beam_pipelines import market, replay, stack
from beam_pipelines.sql import migrate
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "beam_pipelines"]
print(json.dumps({"files": files, "path": sys.path, "migrations": len(migrate.available())}))
"""
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a copy, so that nothing is left in the checkout and nothing that lies there gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    pip("wheel", "--wheel-dir", folder, folder / "source")
    return next(folder.glob("*.whl"))


def pip(command: str, *arguments: object) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    if command == "wheel":
        options.append("--no-build-isolation")  # which would download setuptools
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def python(folder: pathlib.Path, site: pathlib.Path, *arguments: str) -> str:
    """The output of a Python that finds this package in `site` first."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_wheel_has_every_module_and_data_file(wheel: pathlib.Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for folder in ("beam_pipelines", "transforms", "io", "runners", "sql", "infra"):
        inside = "" if folder == "beam_pipelines" else f"{folder}/"
        for kind in ("*.py", "*.sql", "poms/*.xml", "*.mjs", "py.typed", "templates/*"):
            for file in (ROOT / folder).rglob(kind):
                expected.add(f"beam_pipelines/{inside}{file.relative_to(ROOT / folder).as_posix()}")
    assert expected - packed == set()
    assert {
        "beam_pipelines/py.typed",
        "beam_pipelines/sql/0001_market_data.sql",
        "beam_pipelines/io/kafka.py",
    } <= packed
    assert any(name.startswith("beam_pipelines/sql/timescale/") for name in packed)
    assert any(name.startswith("beam_pipelines/runners/poms/") for name in packed)
    assert {name.split("/")[0] for name in packed if ".dist-info" not in name} == {"beam_pipelines"}


def test_the_programs_run_from_an_installed_wheel_alone(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip("install", "--target", site, wheel)
    assert "--bootstrap_servers" in python(empty, site, "-m", "beam_pipelines.market", "--help")
    python(empty, site, "-m", "beam_pipelines.market", "--ticks=1000")
    assert list((empty / "lake").rglob("*.parquet"))
    told = json.loads(python(empty, site, "-c", WHERE))
    assert [file for file in told["files"] if not pathlib.Path(file).is_relative_to(site)] == []
    assert len(told["files"]) > 5
    assert str(ROOT) not in told["path"]
    assert told["migrations"] == len(list((ROOT / "sql").rglob("*.sql")))


def test_an_editable_install_follows_the_checkout(tmp_path: pathlib.Path) -> None:
    """As `make` sets it up: this run's own environment, unless it was installed otherwise."""
    found = subprocess.run(
        [sys.executable, "-c", "import beam_pipelines.transforms.ticks as it; print(it.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    ).stdout.strip()
    if pathlib.Path(found).is_relative_to(sysconfig.get_paths()["purelib"]):
        pytest.skip("the package is not installed in editable mode here")
    assert pathlib.Path(found) == ROOT / "transforms" / "ticks.py"
