"""The demonstration, while everything that runs in it is killed: every sink holds just what the log says."""

import pathlib
import subprocess
import sys

import pytest

from beam_pipelines.faults import FAULTS

pytestmark = pytest.mark.servers


@pytest.mark.timeout(600)
def test_kill_9_of_any_process_loses_and_doubles_nothing(tmp_path: pathlib.Path) -> None:
    flags = [f"--kill={','.join(FAULTS)}", "--seconds=60", "--rate=1000", f"--state_dir={tmp_path / 'demo'}"]
    command = [sys.executable, "-m", "beam_pipelines.demo", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("with -9: ready after") == len(FAULTS)
    assert "nothing is missing, doubled or different" in done.stdout
