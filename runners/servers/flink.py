"""A Flink session cluster: one JobManager and one TaskManager, from the jars that also submit the jobs."""

import json
import pathlib
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from beam_pipelines.runners import maven
from beam_pipelines.runners.flink import ADD_OPENS
from beam_pipelines.runners.servers.base import HOST, Command, Server
from beam_pipelines.runners.servers.s3 import S3

__all__ = ["CheckpointStore", "JobManager", "TaskManager", "checkpoints_on"]

JOB_MANAGER_CLASS = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER_CLASS = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
REPORTER = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
# MiB, 1.9 GiB together. Flink's scripts derive these from a total; the process itself wants each of them.
# What is sent to the workers waits in direct memory beside Flink's own network memory: where that is too little,
# connections break and bounded jobs hang.
FRAMEWORK_HEAP, TASK_HEAP, FRAMEWORK_DIRECT, NETWORK, MANAGED, METASPACE, OVERHEAD = 128, 512, 512, 128, 256, 256, 128
SHARED = {
    "jobmanager.rpc.address": HOST,
    "jobmanager.bind-host": HOST,
    "taskmanager.host": HOST,
    "taskmanager.bind-host": HOST,
    "rest.address": HOST,
    "rest.bind-address": HOST,
    # The cluster has Beam on its class path: jobs share those classes, so that later ones start warm.
    "classloader.resolve-order": "parent-first",
    "classloader.check-leaked-classloader": False,
    "state.backend.type": "rocksdb",
    "state.backend.incremental": True,
    # What fills the state is compressed before it gets here, or hashes; and each checkpoint makes files of it, which
    # the default style merges again and again.
    "state.backend.rocksdb.compression.per.level": "NO_COMPRESSION",
    "state.backend.rocksdb.compaction.style": "UNIVERSAL",
    # For bounded jobs, which end when they fail for good; streams ask for more themselves.
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 3,
    "restart-strategy.fixed-delay.delay": "3 s",
    "heartbeat.interval": 2000,  # a killed TaskManager is noticed after two of these, by refused connections
    "heartbeat.timeout": 30000,
    "pekko.ask.timeout": "30 s",
    # Of each shuffle of each subtask of a bounded job; the default of 512 makes 16 MiB, more than all of them get here.
    "taskmanager.network.sort-shuffle.min-buffers": 64,
    "metrics.reporter.prom.factory.class": REPORTER,
}


class CheckpointStore(NamedTuple):
    """Where a cluster keeps checkpoints and savepoints, and what its processes need to reach it."""

    url: str
    settings: Mapping[str, object] = {}
    environment: Mapping[str, str] = {}  # for keys: a configuration is shown on the web page
    plugin: str | None = None  # the pom of the file system that Flink is to load


def checkpoints_on(s3: S3) -> CheckpointStore:
    """The store in the bucket of a server."""
    settings = {"s3.endpoint": s3.endpoint, "s3.path.style.access": True}
    return CheckpointStore(f"s3://{s3.bucket}/flink", settings, s3.environment, "flink-s3")


class JobManager(Server):
    """Takes the jobs, at `address("flink")`, which also serves the web page.

    Args:
      folder: where it keeps everything.
      ports: as for every server.
      store: of checkpoints and savepoints; by default its folder.
    """

    name = "jobmanager"
    preferred_ports: ClassVar[Mapping[str, int]] = {
        "flink": 8081,
        "flink_rpc": 0,
        "flink_blob": 0,
        "jobmanager_metrics": 9249,
    }

    def __init__(
        self, folder: pathlib.Path, ports: Mapping[str, int] | None = None, store: CheckpointStore | None = None
    ) -> None:
        super().__init__(folder, ports)
        self.store = store or CheckpointStore(self.folder.as_uri())

    def provide(self) -> None:
        """Downloads Flink's jars."""
        provide_flink(self.store)

    def prepare(self) -> Command:
        """Writes the configuration."""
        write_configuration(
            self.folder,
            {
                **self.shared_settings,
                "blob.server.port": self.ports["flink_blob"],
                "metrics.reporter.prom.port": str(self.ports["jobmanager_metrics"]),  # Flink overlooks a number
                "rest.port": self.ports["flink"],
                "rest.bind-port": self.ports["flink"],
            },
        )
        options = ["-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", maven.QUICK_COMPILER]
        return java_command(self, self.store, JOB_MANAGER_CLASS, options)

    def ready(self) -> bool:
        """Whether it answers."""
        return self.get("overview") is not None

    @property
    def shared_settings(self) -> dict[str, object]:
        """What the TaskManagers must be told too."""
        return {
            "jobmanager.rpc.port": self.ports["flink_rpc"],
            "state.checkpoints.dir": f"{self.store.url}/checkpoints",
            "state.savepoints.dir": f"{self.store.url}/savepoints",
            **self.store.settings,
        }

    def get(self, path: str) -> Any:
        """The JSON that its REST interface gives for `path`; None while it does not answer or has no such thing."""
        try:
            with urllib.request.urlopen(f"http://{self.address('flink')}/{path}", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return None


class TaskManager(Server):
    """Runs the tasks of a JobManager's jobs.

    Args:
      folder: where it keeps everything, RocksDB's files too.
      ports: as for every server.
      job_manager: whom it serves.
      slots: how many parallel parts of jobs it can run.

    Attributes:
      compiler: options of its virtual machine.  For jobs in Python it hands bytes on; jobs in Java gain from `()`.
    """

    name = "taskmanager"
    preferred_ports: ClassVar[Mapping[str, int]] = {"taskmanager_metrics": 9250}

    def __init__(
        self, folder: pathlib.Path, ports: Mapping[str, int] | None, job_manager: JobManager, slots: int = 2
    ) -> None:
        super().__init__(folder, ports)
        self._job_manager = job_manager
        self._slots = slots
        self.compiler: tuple[str, ...] = (maven.QUICK_COMPILER,)
        self._identity = self.folder / "resource-id"

    def provide(self) -> None:
        """Downloads Flink's jars."""
        provide_flink(self._job_manager.store)

    def prepare(self) -> Command:
        """Writes the configuration."""
        identity = f"{self.name}-{uuid.uuid4()}"  # a new one each start: the JobManager still lists a killed one
        self._identity.write_text(identity)
        write_configuration(
            self.folder,
            {
                **self._job_manager.shared_settings,
                "metrics.reporter.prom.port": str(self.ports["taskmanager_metrics"]),
                "taskmanager.cpu.cores": self._slots,
                "taskmanager.memory.framework.heap.size": f"{FRAMEWORK_HEAP}m",
                "taskmanager.memory.framework.off-heap.size": f"{FRAMEWORK_DIRECT}m",
                "taskmanager.memory.jvm-metaspace.size": f"{METASPACE}m",
                "taskmanager.memory.jvm-overhead.max": f"{OVERHEAD}m",
                "taskmanager.memory.jvm-overhead.min": f"{OVERHEAD}m",
                "taskmanager.memory.managed.size": f"{MANAGED}m",
                "taskmanager.memory.network.max": f"{NETWORK}m",
                "taskmanager.memory.network.min": f"{NETWORK}m",
                "taskmanager.memory.task.heap.size": f"{TASK_HEAP}m",
                "taskmanager.memory.task.off-heap.size": "0m",
                "taskmanager.numberOfTaskSlots": self._slots,
                "taskmanager.resource-id": identity,
                # Any, a new one each start: the JobManager still sends to a killed one's, and talks at cross purposes
                # with whoever listens there next, for minutes.
                "taskmanager.rpc.port": "0",
            },
        )
        memory = [
            "-XX:+UseParallelGC",  # nothing here waits for a pause; G1's threads would take the workers' time
            f"-Xmx{FRAMEWORK_HEAP + TASK_HEAP}m",
            f"-XX:MaxDirectMemorySize={FRAMEWORK_DIRECT + NETWORK}m",
            f"-XX:MaxMetaspaceSize={METASPACE}m",
        ]
        return java_command(self, self._job_manager.store, TASK_MANAGER_CLASS, [*memory, *self.compiler])

    def ready(self) -> bool:
        """Whether its slots are known to the JobManager."""
        if not self._identity.exists():
            return False
        known = self._job_manager.get("taskmanagers") or {"taskmanagers": []}
        identity = self._identity.read_text()
        return any(it["id"] == identity and it["slotsNumber"] == self._slots for it in known["taskmanagers"])


def write_configuration(folder: pathlib.Path, settings: Mapping[str, object]) -> None:
    """Writes Flink's `conf/config.yaml`."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)  # what a killed process left
    (folder / "tmp").mkdir()
    (folder / "conf").mkdir(exist_ok=True)
    lines = {**SHARED, "io.tmp.dirs": str(folder / "tmp"), **settings}.items()
    (folder / "conf" / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines))


def provide_flink(store: CheckpointStore) -> None:
    """Downloads the jars."""
    maven.java()
    maven.resolve("flink")
    if store.plugin:
        maven.resolve(store.plugin)


def java_command(server: Server, store: CheckpointStore, main_class: str, machine: list[str]) -> Command:
    """How a Flink process is run."""
    logging = [f"-Dorg.slf4j.simpleLogger.{key}" for key in ("showDateTime=true", "dateTimeFormat=HH:mm:ss.SSS")]
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in ADD_OPENS]
    options = [*machine, *opens, *logging, f"-Dlog.file={server.log}"]  # log.file: for the web page
    class_path = f"{maven.resolve('flink')}/*"
    conf = str(server.folder / "conf")
    environment = {
        # RocksDB allocates from many threads: with an arena of glibc's for each, it grows though nothing leaks.
        "MALLOC_ARENA_MAX": "2",
        "FLINK_PLUGINS_DIR": str(plugins(server.folder, store)),
        **store.environment,
    }
    return Command([maven.java(), *options, "-cp", class_path, main_class, "--configDir", conf], environment)


def plugins(server: pathlib.Path, store: CheckpointStore) -> pathlib.Path:
    """The folder from which Flink loads file systems, each with a class loader of its own."""
    folder = server / "plugins"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if store.plugin:
        (folder / store.plugin).symlink_to(maven.resolve(store.plugin))
    return folder
