"""A standalone Spark cluster: one master and one worker, from the jars that also submit the jobs."""

import json
import pathlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from beam_pipelines.runners import maven
from beam_pipelines.runners.servers.base import HOST, Command, Server

__all__ = ["SparkMaster", "SparkWorker"]

MASTER_CLASS = "org.apache.spark.deploy.master.Master"
WORKER_CLASS = "org.apache.spark.deploy.worker.Worker"
MEMORY = "2g"  # for all executors together
OPENS = ("java.base/java.nio", "java.base/sun.nio.ch")  # network buffers


class SparkMaster(Server):
    """Takes the jobs, at `url`.

    Its web page tells what it knows of its workers.
    """

    name = "sparkmaster"
    preferred_ports: ClassVar[Mapping[str, int]] = {"spark": 7077, "spark_ui": 8082}

    @property
    def url(self) -> str:
        """As for `--spark_master_url`."""
        return f"spark://{self.address('spark')}"

    def provide(self) -> None:
        """Downloads Spark's jars."""
        provide_spark()

    def prepare(self) -> Command:
        """Nothing to write."""
        ports = ["--port", str(self.ports["spark"]), "--webui-port", str(self.ports["spark_ui"])]
        return Command(spark_command(MASTER_CLASS, "--host", HOST, *ports))

    def ready(self) -> bool:
        """Whether it takes jobs."""
        told = self.get()
        return told is not None and told["status"] == "ALIVE"

    def get(self) -> Any:
        """What its web page tells, as JSON; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address('spark_ui')}/json/", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return None


class SparkWorker(Server):
    """Starts the executors of a master's jobs.

    Args:
      folder: where it keeps everything, shuffle files too.
      ports: as for every server.
      master: whom it serves.
      cores: how many tasks its executors run at a time.
    """

    name = "sparkworker"
    preferred_ports: ClassVar[Mapping[str, int]] = {"spark_worker": 0, "spark_worker_ui": 0}

    def __init__(
        self, folder: pathlib.Path, ports: Mapping[str, int] | None, master: SparkMaster, cores: int = 2
    ) -> None:
        super().__init__(folder, ports)
        self._master = master
        self._cores = cores

    def provide(self) -> None:
        """Downloads Spark's jars."""
        provide_spark()

    def prepare(self) -> Command:
        """Makes what its executors take for an installation of Spark, and waits for the master.

        A worker that knocks too early does not do so again for 5 to 15 seconds.
        """
        deadline = time.monotonic() + self.patience_s
        while not self._master.ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "RELEASE").touch()  # without it Spark looks for jars where its developers build them
        (home / "jars").symlink_to(maven.resolve("spark"))
        shutil.rmtree(self.folder / "local", ignore_errors=True)  # what killed executors left
        ports = ["--port", str(self.ports["spark_worker"]), "--webui-port", str(self.ports["spark_worker_ui"])]
        means = ["--cores", str(self._cores), "--memory", MEMORY, "--work-dir", str(self.folder / "work")]
        environment = {
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_SCALA_VERSION": "2.12",
        }
        return Command(spark_command(WORKER_CLASS, "--host", HOST, *ports, *means, self._master.url), environment)

    def ready(self) -> bool:
        """Whether the master has taken it on."""
        known = (self._master.get() or {"workers": []})["workers"]
        return any(it["port"] == self.ports["spark_worker"] and it["state"] == "ALIVE" for it in known)


def provide_spark() -> None:
    """Downloads the jars."""
    maven.java()
    maven.resolve("spark")


def spark_command(main_class: str, *arguments: str) -> list[str]:
    """How a Spark process is run."""
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENS]
    class_path = f"{maven.resolve('spark')}/*"
    java = [maven.java(), "-Xms64m", "-Xmx256m", *opens, "-Dspark.worker.cleanup.enabled=true", "-cp", class_path]
    return [*java, main_class, *arguments]
