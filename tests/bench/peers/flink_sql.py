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

# FIRST_VALUE goes by arrival, not by time, and a Top-N a window costs another pass and a join.  So the time and offset
# of a tick, in digits of one length, are put before its price: the least of these texts ends in the open.
PLACE = "CAST(`timestamp` AS STRING) || LPAD(CAST(`offset` AS STRING), 19, '0') || CAST(price AS STRING)"
TICKS = """
CREATE TABLE ticks (
  symbol STRING, `timestamp` BIGINT, price DOUBLE, volume BIGINT, source STRING, `offset` BIGINT METADATA VIRTUAL,
  event_time AS TO_TIMESTAMP_LTZ(`timestamp`, 3),
  WATERMARK FOR event_time AS event_time - INTERVAL '1' SECOND
) WITH (
  'connector' = 'kafka', 'format' = 'json', 'topic' = '{topic}',
  'properties.bootstrap.servers' = '{bootstrap_servers}', 'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'
)"""
BARS = """
CREATE TABLE bars (
  symbol STRING, start_ms BIGINT, `open` DOUBLE, high DOUBLE, low DOUBLE, `close` DOUBLE, volume BIGINT, vwap DOUBLE,
  trade_count BIGINT
) WITH ('connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{folder}')"""
PLACED = f"SELECT *, {PLACE} AS place FROM ticks"
WINDOWED = "SELECT * FROM TABLE(TUMBLE(TABLE placed, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))"
INSERT = """
INSERT INTO bars SELECT
  symbol, MIN(`timestamp`) / 60000 * 60000,
  CAST(SUBSTRING(MIN(place) FROM 33) AS DOUBLE), MAX(price), MIN(price), CAST(SUBSTRING(MAX(place) FROM 33) AS DOUBLE),
  SUM(volume), SUM(price * volume) / SUM(volume), COUNT(*)
FROM windowed
GROUP BY symbol, window_start, window_end"""

RUNTIME = ("flink-table-[acr]*", "flink-connector-[bfk]*", "flink-c[es]*", "flink-json*", "kafka-clients*")
"""The jars that the cluster does not have and the tasks need; the planner's are for the client only."""


def jvm_of(cluster: pathlib.Path, sql: pathlib.Path) -> JavaGateway:
    """A JVM with Flink's client and its SQL planner."""
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in ADD_OPENS]
    return JavaGateway.launch_gateway(
        classpath=f"{cluster}/*:{sql}/*", javaopts=["-Xmx768m", *opens], java_path=maven.java(), die_on_exit=True
    )


def settings(sql: pathlib.Path, topic: str) -> dict[str, str]:
    host, _, port = os.environ["FLINK_MASTER"].rpartition(":")
    jars = (jar for pattern in RUNTIME for jar in sql.glob(pattern))
    return {
        "execution.target": "remote",
        "rest.address": host,
        "rest.port": port,
        "parallelism.default": "2",
        "pipeline.name": topic,
        "pipeline.jars": ";".join(jar.as_uri() for jar in jars),
        "classloader.resolve-order": "parent-first",
        "table.local-time-zone": "UTC",
    }


def run(topic: str, folder: str, windowed: str = WINDOWED, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes the bars of `topic` to `folder`, of the ticks that the query `windowed` gives, with `more` settings."""
    cluster = maven.resolve("flink")
    sql = maven.resolve_pom("flink-sql", pathlib.Path(__file__).with_suffix(".xml").read_bytes())
    gateway = jvm_of(cluster, sql)
    flink = gateway.jvm.org.apache.flink
    configuration = flink.configuration.Configuration()
    for name, value in {**settings(sql, topic), **more}.items():
        configuration.setString(name, value)
    builder = flink.table.api.EnvironmentSettings.newInstance().withConfiguration(configuration)
    tables = flink.table.api.TableEnvironment.create(builder.inStreamingMode().build())
    where = {"topic": topic, "bootstrap_servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "folder": folder}
    for statement in (TICKS, BARS):
        tables.executeSql(statement.format(**where))
    for name, query in {"placed": PLACED, "windowed": windowed}.items():
        tables.executeSql(f"CREATE TEMPORARY VIEW {name} AS {query}")
    tables.executeSql(INSERT).__getattr__("await")()
    gateway.shutdown()
    gateway.java_process.stdin.close()  # the gateway ends with it
    gateway.java_process.wait()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
