"""The job of Flink SQL that makes the bars: from Kafka to files of CSV, one tumbling window in event time."""

import os
import pathlib
from collections.abc import Iterable, Iterator

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


def statements(topic: str, folder: str, windowed: str = WINDOWED) -> Iterator[str]:
    """Those to execute one after the other, for the ticks that the query `windowed` gives; the last one is the job."""
    where = {"topic": topic, "bootstrap_servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "folder": folder}
    for table in (TICKS, BARS):
        yield table.format(**where)
    for name, query in {"placed": PLACED, "windowed": windowed}.items():
        yield f"CREATE TEMPORARY VIEW {name} AS {query}"
    yield INSERT


def job_settings(jars: Iterable[str]) -> dict[str, str]:
    """For two slots, with those jars of the folder PEER_JARS that `jars` are patterns of."""
    folder = pathlib.Path(os.environ["PEER_JARS"])
    return {
        "pipeline.jars": ";".join(jar.as_uri() for pattern in jars for jar in folder.glob(pattern)),
        "parallelism.default": "2",
        "table.local-time-zone": "UTC",
    }
