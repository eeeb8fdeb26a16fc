"""The program that carries a launched job out: `python -m beam_pipelines.launching.carry_out FOLDER`.

It takes from the folder what is to be done, so that no list of processes shows a parameter.
"""

import importlib
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.jobs import Record, read

__all__ = ["main"]

INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Runs the job of a folder to its end, and leaves its exit code there."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what a pipeline does at its end is done
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    record = read(pathlib.Path(arguments[0]))
    code = _run(record)
    sys.stdout.flush()
    record.tell("ended", code=code, at=time.time())
    if code == INTERRUPTED:
        os._exit(code)  # threads that wait for a runner would wait on; who ended this ends the runner, too
    return code


def _run(record: Record) -> int:
    try:
        os.chdir(record.job.folder)
        pipeline = importlib.import_module(f"beam_pipelines.{record.job.template}")
        code: int = pipeline.main(record.job.argv, partial(_begun, record))
    except UsageError as mistake:
        print("error:", " ".join(str(mistake).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # the job's failure: whatever it is, its end is taken down
        traceback.print_exc()
        return 1
    return code


def _begun(record: Record) -> None:
    if record.told("running") is None:  # a pipeline may run several of Beam's
        record.tell("running", at=time.time())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
