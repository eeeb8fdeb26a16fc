"""What Dataflow needs to launch a template: its container spec, and an image whose program runs the pipeline."""

import pathlib
import re
import runpy
import subprocess
import sys
from typing import Any

import pytest
import setuptools

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.image import build
from beam_pipelines.launching.templates import packaged, parse_spec

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = "europe-docker.pkg.dev/some-project/images/market:1.0"


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py says of the package."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: said.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return said


@pytest.fixture
def dockerfile(tmp_path: pathlib.Path) -> str:
    build("market", IMAGE, tmp_path / "built")
    return (tmp_path / "built" / "Dockerfile").read_text()


@pytest.mark.parametrize("template", ["market", "news", "daily"])
def test_the_container_spec_names_the_image_and_is_otherwise_the_template(
    template: str, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "not" / "there"
    files = build(template, IMAGE, folder)
    assert files == [folder / f"{template}.json", folder / "Dockerfile", folder / "Dockerfile.dockerignore"]
    assert all(it.is_file() for it in files)
    spec = parse_spec(files[0].read_text())
    assert (spec.image, spec.default_environment) == (IMAGE, {"sdkContainerImage": IMAGE})
    assert spec.template == packaged(template).template


def test_the_image_has_the_beam_that_the_package_is_made_for(dockerfile: str, setup: dict[str, Any]) -> None:
    [pinned] = [it for it in setup["install_requires"] if it.startswith("apache-beam==")]
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert bases == [
        "gcr.io/dataflow-templates-base/python311-template-launcher-base:latest",
        f"apache/beam_python3.11_sdk:{pinned.removeprefix('apache-beam==')}",
    ]
    assert setup["python_requires"] == ">=3.11"
    assert "gcp" in setup["extras_require"]


def test_all_that_is_installed_goes_into_the_image_and_nothing_else(
    tmp_path: pathlib.Path, setup: dict[str, Any]
) -> None:
    build("market", IMAGE, tmp_path)
    first, *others = (tmp_path / "Dockerfile.dockerignore").read_text().split()
    assert first == "*"
    sources = [it.removeprefix("!") for it in others if it.startswith("!")]
    assert set(setup["package_dir"].values()) <= set(sources)
    assert [it for it in sources if not (ROOT / it).exists()] == []
    assert not {".git", ".venv", "tests"} & set(sources)
    copied = {it for it in ("README.md", "setup.py", "pyproject.toml", "infra") if it in sources}
    assert len(copied) == 4, "pip needs them"


def program(dockerfile: str, folder: pathlib.Path) -> pathlib.Path:
    """The program that the image's build writes, as the build writes it."""
    [instruction] = re.findall(r"^RUN (mkdir /template.*?[^\\])$", dockerfile, re.DOTALL | re.MULTILINE)
    subprocess.run(["sh", "-ec", instruction.replace("/template", f"{folder}/template")], check=True)
    [named] = re.findall(r"^ENV FLEX_TEMPLATE_PYTHON_PY_FILE=(\S+)", dockerfile, re.MULTILINE)
    return folder / named.lstrip("/")


def test_its_program_runs_the_pipeline_with_the_parameters_as_the_launcher_gives_them(
    dockerfile: str, tmp_path: pathlib.Path
) -> None:
    main = program(dockerfile, tmp_path)
    given = ["--bounded=false", f"--lake={tmp_path}/lake", "--calendars=A=24/7 B=24/7", "--ticks=1000"]
    beams = ["--runner=DirectRunner", "--job_name=market-1"]
    done = subprocess.run([sys.executable, main, *given, *beams], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1,000" in done.stdout
    assert list((tmp_path / "lake").rglob("*.parquet"))
    done = subprocess.run([sys.executable, main, "--bounded=maybe", "--ticks=0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: parameter bounded must be true or false, not 'maybe' parameter ticks='0': must"
    )


@pytest.mark.parametrize("image", ["", "Upper/Case", "a b", "a/", "-a", "a:", "a@sha256:12", "a/b:c d", "a//b"])
def test_a_name_that_is_no_images_is_refused(image: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=f"^image={image!r} is no name of an image: give one as HOST"):
        build("market", image, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image", ["market", "localhost:5000/market", "gcr.io/a/b_c/d-e:1.0_x", f"a@sha256:{'0' * 64}"])
def test_a_name_that_is_an_images_is_taken(image: str, tmp_path: pathlib.Path) -> None:
    build("news", image, tmp_path)
    assert parse_spec((tmp_path / "news.json").read_text()).image == image


def test_what_cannot_be_built_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"folder .*/file/x cannot be written \(Not a directory\): give another"):
        build("market", IMAGE, tmp_path / "file" / "x")
    with pytest.raises(UsageError, match="there is no template 'nothing'"):
        build("nothing", IMAGE, tmp_path)
