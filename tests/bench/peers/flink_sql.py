"""Flink SQL, all of it in the JVM, on the cluster at FLINK_MASTER: one tumbling window in event time.

Flink's Java Table API plans and submits the statement; Python only hands it over, as PyFlink does.  In favour of it:
no checkpoints, and open and close without a second pass over the ticks (see `PLACE`).
"""

import os
import pathlib
import sys
from collections.abc import Mapping
from types import MappingProxyType

from py4j.java_gateway import JavaGateway

from beam_pipelines.runners import maven
from beam_pipelines.runners.flink import ADD_OPENS
from tests.bench.peers.flink_bars import WINDOWED, job_settings, statements

RUNTIME = ("flink-table-[acr]*", "flink-connector-[bfk]*", "flink-c[es]*", "flink-json*", "kafka-clients*")
"""The jars that the cluster does not have and the tasks need; the planner's are for the client only."""


def jvm_of(cluster: pathlib.Path) -> JavaGateway:
    """A JVM with Flink's client and its SQL planner."""
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in ADD_OPENS]
    return JavaGateway.launch_gateway(
        classpath=f"{cluster}/*:{os.environ['PEER_JARS']}/*",
        javaopts=["-Xmx768m", *opens],
        java_path=maven.java(),
        die_on_exit=True,
    )


def cluster_settings(topic: str) -> dict[str, str]:
    host, _, port = os.environ["FLINK_MASTER"].rpartition(":")
    return {
        "execution.target": "remote",
        "rest.address": host,
        "rest.port": port,
        "pipeline.name": topic,
        "classloader.resolve-order": "parent-first",
    }


def run(topic: str, folder: str, windowed: str = WINDOWED, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes the bars of `topic` to `folder`, of the ticks that the query `windowed` gives, with `more` settings."""
    gateway = jvm_of(maven.resolve("flink"))
    flink = gateway.jvm.org.apache.flink
    configuration = flink.configuration.Configuration()
    for name, value in {**job_settings(RUNTIME), **cluster_settings(topic), **more}.items():
        configuration.setString(name, value)
    builder = flink.table.api.EnvironmentSettings.newInstance().withConfiguration(configuration)
    tables = flink.table.api.TableEnvironment.create(builder.inStreamingMode().build())
    *declarations, insert = statements(topic, folder, windowed)
    for statement in declarations:
        tables.executeSql(statement)
    tables.executeSql(insert).__getattr__("await")()
    gateway.shutdown()
    gateway.java_process.stdin.close()  # the gateway ends with it
    gateway.java_process.wait()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
