"""The demonstration, while what runs in it is killed: every sink holds just what the log and the batch say."""

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers


KILLED = ("client", "taskmanager")  # all of them, at a higher rate: `python -m beam_pipelines.demo --kill=...`


@pytest.mark.timeout(600)  # a minute and a half on an idle machine
def test_kill_9_loses_and_doubles_nothing(tmp_path: pathlib.Path) -> None:
    flags = [f"--kill={','.join(KILLED)}", "--seconds=24", "--rate=1000", f"--state_dir={tmp_path / 'demo'}"]
    command = [sys.executable, "-m", "beam_pipelines.demo", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("with -9: there again after") == len(KILLED)
    assert "nothing is missing, doubled or different, and the batch equals the stream" in done.stdout
