"""The market stream with all sinks, as a user starts it, and a session that is sent to it in real time."""

import sys

from beam_pipelines.runners.local import Endpoints


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
