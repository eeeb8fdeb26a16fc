"""Beam's Python SDK worker pool, which starts the workers of a cluster's jobs."""

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

from beam_pipelines.runners.servers.base import Command, Server, accepts

__all__ = ["WorkerPool"]


class WorkerPool(Server):
    """The pool, for `--environment_type=EXTERNAL --environment_config=<address("worker_pool")>`."""

    name = "workers"
    preferred_ports: ClassVar[Mapping[str, int]] = {"worker_pool": 50000}

    def prepare(self) -> Command:
        """Puts a `python` that is this interpreter first on the pool's PATH: it starts its workers by that name."""
        binaries = self.folder / "bin"
        binaries.mkdir(exist_ok=True)
        launcher = binaries / "python"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # not a link: it would hide the venv
        launcher.chmod(0o755)
        pool = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self.ports['worker_pool']}"]
        return Command([sys.executable, *pool], {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"})

    def ready(self) -> bool:
        """Whether it listens."""
        return accepts(self.address("worker_pool"))
