"""Runs a peer as a process of its own, and tells what it cost and what it made."""

import hashlib
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from beam_pipelines.runners import maven
from beam_pipelines.runners.cache import cache_dir, locked
from beam_pipelines.runners.local import Stack
from tests.bench.live import cpu_of
from tests.bench.peers.bars import Bars, bars_in
from tests.bench.stream import CLIENT

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE_S = 900
LOG_BYTES = 3000


class Peer(NamedTuple):
    """A program of this folder.

    Attributes:
      title: its row in the table.
      module: its name.
      slow: whether it gets the first tenth of the ticks only.
      on_cluster: whether the CPU time of the Flink cluster and its workers is its own too.
      requirements: what it needs in a virtual environment of its own; none: it runs in ours.
      pom: of what it needs in Java; the file's name in this folder.
    """

    title: str
    module: str
    slow: bool = False
    on_cluster: bool = False
    requirements: tuple[str, ...] = ()
    pom: str = ""


PEERS = (
    Peer("confluent-kafka + polars, one script", "polars_script"),
    Peer("confluent-kafka + orjson, one tuned script", "orjson_script"),
    Peer("confluent-kafka poll() + json, the script people write", "json_script"),
    Peer("Flink SQL 1.19", "flink_sql", on_cluster=True, pom="flink_sql.xml"),
    Peer("Flink SQL 1.19, duplicates dropped", "flink_sql_distinct", on_cluster=True, pom="flink_sql.xml"),
    Peer("Flink SQL by PyFlink 1.19", "pyflink_sql", requirements=("apache-flink==1.19.3",), pom="flink_sql.xml"),
    Peer(
        "Bytewax 0.21, a tenth of the ticks",
        "bytewax_flow",
        slow=True,
        requirements=("bytewax==0.21.1", "confluent-kafka==2.16.1"),
    ),
    Peer("Quix Streams 3.28, a tenth of the ticks", "quix_flow", slow=True, requirements=("quixstreams==3.28.1",)),
    Peer("Beam, an element per tick, on Flink, a tenth of the ticks", "beam_elements", slow=True, on_cluster=True),
)


class PeerError(Exception):
    """A peer failed, with its exit code and the end of its output, or what was measured cannot be."""


class Cost(NamedTuple):
    """Of one run, from the start of its process to the end of all that it started; user and system time."""

    seconds: float
    cpu: float


class Count:
    """What is spent from now on by our children that end, with all of theirs, and by the clients on a stack, if any."""

    def __init__(self, stack: Stack | None) -> None:
        self._stack = stack
        self._before, self._began = self._cpu(), time.monotonic()

    def cost(self) -> Cost:
        return Cost(time.monotonic() - self._began, self._cpu() - self._before)

    def _cpu(self) -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cluster = cpu_of(self._stack) if self._stack else {}
        return usage.ru_utime + usage.ru_stime + sum(cluster.get(name, 0.0) for name in CLIENT)


def provide(peer: Peer) -> str:
    """The path of a Python that has what the peer needs; its virtual environment is made in the cache when absent."""
    if not peer.requirements:
        return sys.executable
    digest = hashlib.sha256(" ".join((sys.version, *peer.requirements)).encode()).hexdigest()[:12]
    folder = cache_dir() / "peers" / f"{peer.module}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    with locked(cache_dir() / "peers" / ".lock"):
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *peer.requirements], check=True)
            ready.touch()
    return str(python)


def run(peer: Peer, topic: str, stack: Stack) -> tuple[Cost, Bars]:
    """Lets the peer read the topic to its present end.

    Raises:
      PeerError: if it fails, or its cost is impossible.
    """
    command = [provide(peer), "-m", f"tests.bench.peers.{peer.module}", topic]
    environment = {**os.environ, **stack.endpoints.environment(), **_jars(peer)}
    with tempfile.TemporaryDirectory(prefix="peer-") as folder, tempfile.TemporaryFile() as log:
        count = Count(stack if peer.on_cluster else None)
        done = subprocess.run(
            [*command, folder], cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=PATIENCE_S, check=False
        )
        cost = count.cost()
        if done.returncode:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            raise PeerError(f"{peer.title}: exit code {done.returncode}\n{log.read().decode(errors='replace')}")
        if cost.cpu > cost.seconds * (os.cpu_count() or 1):
            raise PeerError(f"{peer.title}: {cost} is more than this machine can do: something is counted twice")
        return cost, bars_in(pathlib.Path(folder))


def _jars(peer: Peer) -> dict[str, str]:
    """Where the peer finds what it needs in Java; downloaded when the cache has none."""
    if not peer.pom:
        return {}
    pom = pathlib.Path(__file__).with_name(peer.pom)
    return {"PEER_JARS": str(maven.resolve_pom(pom.stem, pom.read_bytes()))}
