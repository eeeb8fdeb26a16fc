"""The same Flink SQL as PyFlink users run it: its Table API, and a Flink of its own in the JVM that it starts."""

import contextlib
import os
import sys

from py4j.protocol import Py4JError
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment

from tests.bench.peers.flink_bars import job_settings, statements

CONNECTOR = ("flink-connector-[bk]*", "kafka-clients*")
"""The jars that PyFlink does not bring."""


def main(topic: str, folder: str) -> None:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in job_settings(CONNECTOR).items():
        tables.get_config().set(name, value)
    *declarations, insert = statements(topic, folder)
    for statement in declarations:
        tables.execute_sql(statement)
    tables.execute_sql(insert).wait()
    with contextlib.suppress(Py4JError):  # it ends before it answers
        get_gateway().jvm.System.exit(0)
    os.wait()  # otherwise the JVM would outlive this process, and its CPU time be nobody's
    os._exit(0)  # an ordinary exit would look for the JVM, to free what Python held in it


if __name__ == "__main__":
    main(*sys.argv[1:])
