"""The local stack: all servers together, recorded in one folder, from which a later run knows them again."""

import json
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.cache import cache_dir, locked
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.runners.servers.exporters import PostgresExporter, WorkersExporter
from beam_pipelines.runners.servers.flink import JobManager, TaskManager, checkpoints_on
from beam_pipelines.runners.servers.kafka import Kafka
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.runners.servers.prometheus import Alertmanager, Prometheus
from beam_pipelines.runners.servers.s3 import S3
from beam_pipelines.runners.servers.spark import SparkMaster, SparkWorker
from beam_pipelines.runners.servers.timescale import Timescale
from beam_pipelines.runners.servers.worker_pool import WorkerPool

__all__ = ["Endpoints", "Stack", "default_state_dir"]

SLOTS = 2


class Endpoints(NamedTuple):
    """Where the servers are."""

    kafka: str  # bootstrap servers
    flink_rest: str  # host:port, as for --flink_master
    worker_pool: str  # host:port, as for --environment_config
    postgres_dsn: str
    s3_endpoint: str  # URL
    s3_bucket: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str
    artifacts_dir: str  # for --artifacts_dir; Beam's default vanishes with the program that submits a job
    spark_master: str | None = None  # as for --spark_master_url
    prometheus: str | None = None  # URL
    alertmanager: str | None = None  # URL

    def environment(self) -> dict[str, str]:
        """The same as environment variables, under the names that clients read."""
        optional = {
            "SPARK_MASTER_URL": self.spark_master,
            "PROMETHEUS_URL": self.prometheus,
            "ALERTMANAGER_URL": self.alertmanager,
        }
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "FLINK_MASTER": self.flink_rest,
            "BEAM_WORKER_POOL": self.worker_pool,
            "TIMESCALE_DSN": self.postgres_dsn,
            "AWS_ENDPOINT_URL": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "AWS_DEFAULT_REGION": self.s3_region,
            "LAKE": f"s3://{self.s3_bucket}",
            "ARTIFACTS_DIR": self.artifacts_dir,
            **{name: value for name, value in optional.items() if value},
        }


def default_state_dir() -> pathlib.Path:
    """Where the stack keeps its data unless told otherwise."""
    return cache_dir() / "stack"


class Stack:
    """The servers of one state folder.

    Args:
      state_dir: where they keep data, logs and records; made when absent.
      ports: wanted port numbers by name (`Stack.port_names`); 0 is any; a missing one stays as it was or is chosen.
      slots: task slots of the Flink cluster, and cores of the Spark cluster; as it was, or 2, when missing.
      timescale: TimescaleDB instead of PostgreSQL; as it was, or not, when missing.
      spark: a Spark cluster too; as it was, or not, when missing.
      checkpoints: where Flink keeps them, one of `Stack.places`; as it was, or a folder, when missing.
      monitoring: Prometheus, Alertmanager and an exporter too; as it was, or not, when missing.
      monitoring_speedup: what Prometheus's interval and all durations of the alert rules are divided by; as it was, or
        1, when missing.
    """

    port_names = (
        *("kafka", "flink", "worker_pool", "postgres", "s3", "spark", "spark_ui"),
        *("jobmanager_metrics", "taskmanager_metrics", "kafka_metrics", "postgres_exporter"),
        "worker_metrics",
        *("prometheus", "alertmanager"),
    )
    places = ("folder", "s3")

    def __init__(
        self,
        state_dir: pathlib.Path | None = None,
        ports: Mapping[str, int] | None = None,
        slots: int | None = None,
        timescale: bool | None = None,
        checkpoints: str | None = None,
        spark: bool | None = None,
        monitoring: bool | None = None,
        monitoring_speedup: int | None = None,
    ) -> None:
        self.state_dir = (state_dir or default_state_dir()).absolute()
        self._settings_file = self.state_dir / "stack.json"
        kept = self._kept_settings()
        self._slots = slots or kept.get("slots", SLOTS)
        self._timescale = bool(kept.get("timescale")) if timescale is None else timescale
        self._spark = bool(kept.get("spark")) if spark is None else spark
        self._monitoring = bool(kept.get("monitoring")) if monitoring is None else monitoring
        self._monitoring_speedup = monitoring_speedup or kept.get("monitoring_speedup", 1)
        self._checkpoints = checkpoints or kept.get("checkpoints", self.places[0])
        ports = ports or {}
        self.kafka = Kafka(self.state_dir / Kafka.name, ports)
        database = Timescale if self._timescale else Postgres
        self.database: Postgres | Timescale = database(self.state_dir / database.name, ports)
        self.s3 = S3(self.state_dir / S3.name, ports)
        store = checkpoints_on(self.s3) if self._checkpoints == "s3" else None
        self.job_manager = JobManager(self.state_dir / JobManager.name, ports, store)
        self.task_manager = TaskManager(self.state_dir / TaskManager.name, ports, self.job_manager, self._slots)
        self.worker_pool = WorkerPool(self.state_dir / WorkerPool.name, ports, self.s3.environment)
        self.spark_master = SparkMaster(self.state_dir / SparkMaster.name, ports)
        self.spark_worker = SparkWorker(self.state_dir / SparkWorker.name, ports, self.spark_master, self._slots)
        self._build_monitoring(ports)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All of them, in the order in which they are started."""
        flink = (self.task_manager, self.job_manager)
        spark = (self.spark_worker, self.spark_master) if self._spark else ()
        monitoring = self._monitors if self._monitoring else ()
        return (self.kafka, self.database, self.s3, self.worker_pool, *monitoring, *spark, *flink)

    @property
    def endpoints(self) -> Endpoints:
        """Where the servers are, or would be."""
        return Endpoints(
            kafka=self.kafka.address("kafka"),
            flink_rest=self.job_manager.address("flink"),
            worker_pool=self.worker_pool.address("worker_pool"),
            postgres_dsn=self.database.dsn,
            s3_endpoint=self.s3.endpoint,
            s3_bucket=self.s3.bucket,
            s3_access_key=self.s3.access_key,
            s3_secret_key=self.s3.secret_key,
            s3_region=self.s3.region,
            artifacts_dir=str(self.job_manager.folder / "artifacts"),
            spark_master=self.spark_master.url if self._spark else None,
            prometheus=self.prometheus.url if self._monitoring else None,
            alertmanager=self.alertmanager.url if self._monitoring else None,
        )

    def up(self, told: Callable[[Server, float], None] = lambda _server, _seconds: None) -> Endpoints:
        """Starts what does not run and returns when all are ready; what runs is left alone.

        Args:
          told: called with each server when it is ready, and the seconds it took.

        Raises:
          ServerError: when one does not start; the others are left running, for their logs and another try.
          UsageError: when something on the machine is missing.
        """
        for server in self.servers:
            server.provide()
        with locked(self.state_dir / ".lock"):
            self._settings_file.write_text(json.dumps(self._settings()))
            self._stop_others()
            with ThreadPoolExecutor(len(self.servers)) as pool:
                failed = threading.Event()
                starts = {pool.submit(_start, server, failed): server for server in self.servers}
                for done in as_completed(starts):
                    told(starts[done], done.result())
        return self.endpoints

    def down(self, purge: bool = False) -> None:
        """Ends all servers and whatever they started; `purge` deletes their data too.

        Raises:
          UsageError: when what is to be deleted is not a stack's.
        """
        if not self.state_dir.is_dir():
            return
        if purge and not self._settings_file.exists() and {it.name for it in self.state_dir.iterdir()} - {".lock"}:
            raise UsageError(f"--state_dir={self.state_dir} is no stack's folder and is not deleted: correct the path")
        with locked(self.state_dir / ".lock"):
            for server in reversed(self.servers):
                server.stop()
            self._stop_others()
        if purge:
            shutil.rmtree(self.state_dir)

    def server(self, name: str) -> Server:
        """The server of that name.

        Raises:
          UsageError: when there is none.
        """
        for server in self.servers:
            if server.name == name:
                return server
        raise UsageError(f"There is no server {name}; the stack has {', '.join(it.name for it in self.servers)}.")

    def _build_monitoring(self, ports: Mapping[str, int]) -> None:
        speedup = self._monitoring_speedup
        dsn = self.database.dsn
        self.postgres_exporter = PostgresExporter(self.state_dir / PostgresExporter.name, ports, dsn)
        self.workers_exporter = WorkersExporter(self.state_dir / WorkersExporter.name, ports, self.worker_pool.metrics)
        self.alertmanager = Alertmanager(self.state_dir / Alertmanager.name, ports, speedup)
        targets = {
            "kafka": self.kafka.address("kafka_metrics"),
            "jobmanager": self.job_manager.address("jobmanager_metrics"),
            "taskmanager": self.task_manager.address("taskmanager_metrics"),
            "postgres": self.postgres_exporter.address("postgres_exporter"),
            "workers": self.workers_exporter.address("worker_metrics"),
            "alertmanager": self.alertmanager.address("alertmanager"),
        }
        alerts_to = self.alertmanager.address("alertmanager")
        self.prometheus = Prometheus(self.state_dir / Prometheus.name, ports, targets, alerts_to, speedup)

    @property
    def _monitors(self) -> tuple[Server, ...]:
        return (self.postgres_exporter, self.workers_exporter, self.alertmanager, self.prometheus)

    def _stop_others(self) -> None:
        """Ends what the stack once had and no longer wants."""
        other = Postgres if self._timescale else Timescale
        unwanted = [
            other(self.state_dir / other.name),
            *(() if self._spark else (self.spark_worker, self.spark_master)),
            *(() if self._monitoring else self._monitors),
        ]
        for server in unwanted:
            if server.folder.is_dir():
                server.stop()

    def _settings(self) -> dict[str, Any]:
        return {
            "slots": self._slots,
            "timescale": self._timescale,
            "spark": self._spark,
            "checkpoints": self._checkpoints,
            "monitoring": self._monitoring,
            "monitoring_speedup": self._monitoring_speedup,
        }

    def _kept_settings(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._settings_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _start(server: Server, failed: threading.Event) -> float:
    """Starts one and gives the seconds it took; a failure ends the waiting for the others too."""
    began = time.monotonic()
    try:
        server.start(failed.is_set)
    except Exception:
        failed.set()
        raise
    return time.monotonic() - began
