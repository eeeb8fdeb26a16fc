"""A benchmark's own servers, the market stream with all sinks as a user starts it, and a session in real time."""

import contextlib
import os
import sys
from collections.abc import Iterator

from beam_pipelines.runners.cache import cache_dir
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.stack import initialise


@contextlib.contextmanager
def fresh_stack(name: str, slots: int = 2) -> Iterator[tuple[Stack, Endpoints]]:
    """Servers with empty tables, gone at the block's end; programs that are started in it find them."""
    stack = Stack(cache_dir() / f"bench-{name}", slots=slots)
    try:
        ends = stack.up()
        os.environ.update(ends.environment())
        initialise(ends)
        yield stack, ends
    finally:
        stack.down(purge=True)


def market(ends: Endpoints, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "beam_pipelines.market", "--runner=FlinkRunner", f"--flink_master={ends.flink_rest}"),
        *("--environment_type=EXTERNAL", f"--environment_config={ends.worker_pool}", "--parallelism=2"),
        *(f"--artifacts_dir={ends.artifacts_dir}", f"--bootstrap_servers={ends.kafka}"),
        *(f"--lake=s3://{ends.s3_bucket}/bench", *more),
    ]


def replay(ends: Endpoints, seconds: int, rate: int, symbols: int = 500) -> list[str]:
    flags = f"--speed=real --restamp --symbols={symbols} --duration_seconds={seconds} --ticks={seconds * rate}"
    return [sys.executable, "-m", "beam_pipelines.replay", f"--bootstrap_servers={ends.kafka}", *flags.split()]
