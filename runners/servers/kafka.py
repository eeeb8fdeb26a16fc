"""A Kafka broker in KRaft mode: one process that is broker and controller."""

import importlib.resources
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import ClassVar

import confluent_kafka.admin

from beam_pipelines.runners import maven
from beam_pipelines.runners.servers.base import HOST, Command, Server, ServerError, accepts

__all__ = ["Kafka"]

JVM = ["-Xms256m", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
VALUE_LIMIT = 16 * 1024 * 1024  # bytes; raw values over Kafka's default of 1 MB must reach the dead letters


class Kafka(Server):
    """The broker, for clients at `address("kafka")`.

    An agent in its process tells Prometheus what `kafka_metrics.yml` names.  Nothing measurable is lost by it while
    nobody asks, and a scrape takes about 30 ms of CPU time.
    """

    name = "kafka"
    preferred_ports: ClassVar[Mapping[str, int]] = {"kafka": 9092, "kafka_controller": 0, "kafka_metrics": 9404}

    def provide(self) -> None:
        """Downloads the broker's jars."""
        maven.java()
        maven.resolve("kafka")

    def prepare(self) -> Command:
        """Writes server.properties and formats the log folder the first time."""
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        class_path = f"{maven.resolve('kafka')}/*"
        if not (self.folder / "data" / "bootstrap.checkpoint").exists():
            self._format(class_path, str(properties))
        return Command([maven.java(), *JVM, self._agent(), "-cp", class_path, "kafka.Kafka", str(properties)])

    def ready(self) -> bool:
        """Whether the broker answers for its metadata."""
        if not accepts(self.address("kafka")):
            return False
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.address("kafka"), "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=5).brokers)
        except confluent_kafka.KafkaException:
            return False

    def _settings(self) -> dict[str, object]:
        broker, controller = self.address("kafka"), self.address("kafka_controller")
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",  # a misspelt topic is to be an error, not a new topic
            "message.max.bytes": VALUE_LIMIT,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # of the heap; the default is 128 MB
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 4,  # one broker gains nothing from the default of 50
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }

    def _agent(self) -> str:
        jar = next(maven.resolve("kafka").glob("jmx_prometheus_javaagent-*.jar"))
        metrics = importlib.resources.files("beam_pipelines.runners") / "kafka_metrics.yml"
        return f"-javaagent:{jar}={self.address('kafka_metrics')}:{metrics}"

    def _format(self, class_path: str, properties: str) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=", because one id in 64 begins with a hyphen.
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", f"--cluster-id={cluster}", "-c", properties]
        command = [maven.java(), maven.QUICK_COMPILER, JVM[-1], "-cp", class_path, *tool]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise ServerError(f"kafka: its log folder at {HOST} could not be formatted: {done.stdout}{done.stderr}")
