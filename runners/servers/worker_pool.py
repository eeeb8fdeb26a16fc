"""Beam's Python SDK worker pool, which starts the workers of a cluster's jobs."""

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import ClassVar

import psutil

from beam_pipelines.runners.servers.base import Command, Server, accepts
from beam_pipelines.transforms.metric_store import FOLDER_VARIABLE

__all__ = ["WorkerPool"]

KEEP_MEMORY = {
    # Each batch takes megabytes and gives them back: by glibc's defaults to the system, which clears every page anew.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    # Each arena keeps what batches gave back for its own threads: glibc's sixteen on two cores kept 2.6 times what was
    # in use, and went on growing for half an hour.
    "MALLOC_ARENA_MAX": "2",
}


class WorkerPool(Server):
    """The pool, for `--environment_type=EXTERNAL --environment_config=<address("worker_pool")>`.

    Args:
      folder: where it keeps everything.
      ports: as for every server.
      environment: variables for the workers, such as credentials, which no pipeline should carry.
    """

    name = "workers"
    preferred_ports: ClassVar[Mapping[str, int]] = {"worker_pool": 0}  # any outgoing connection may have Beam's 50000

    def provide(self) -> None:
        """Nothing to do: it is part of Beam."""

    def __init__(
        self, folder: pathlib.Path, ports: Mapping[str, int] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, ports)
        self._environment = environment or {}

    def prepare(self) -> Command:
        """Puts a `python` that is this interpreter first on the pool's PATH: it starts its workers by that name."""
        binaries = self.folder / "bin"
        binaries.mkdir(exist_ok=True)
        launcher = binaries / "python"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # not a link: it would hide the venv
        launcher.chmod(0o755)
        pool = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self.ports['worker_pool']}"]
        path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
        measured = {FOLDER_VARIABLE: str(self.metrics)}
        return Command([sys.executable, *pool], {**KEEP_MEMORY, **self._environment, **measured, "PATH": path})

    @property
    def metrics(self) -> pathlib.Path:
        """The folder in which its workers measure; it stays when the pool is started anew."""
        return self.folder / "metrics"

    def ready(self) -> bool:
        """Whether it listens."""
        return accepts(self.address("worker_pool"))

    @property
    def workers(self) -> list[psutil.Process]:
        """The SDK workers that it has started and that live."""
        if not self.running or self.process is None:
            return []
        return [it for it in psutil.Process(self.process.pid).children(recursive=True) if _is_worker(it)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "SdkHarness" in str(process.cmdline())
    except psutil.Error:  # killed before, and not yet buried by the pool
        return False
