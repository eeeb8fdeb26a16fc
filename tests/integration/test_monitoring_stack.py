"""The monitored stack with a stream on it: all targets are up, every query finds its metrics, an alert arrives."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import yaml

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.runners.local import Endpoints, Stack
from beam_pipelines.sending import ensure_topic
from beam_pipelines.stack import initialise
from beam_pipelines.transforms.monitor import METRICS, Kind

PROGRAMS = ("prometheus", "prometheus-alertmanager", "prometheus-postgres-exporter")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}"),
]
INFRA = pathlib.Path(__file__).parents[2] / "infra"
SPEEDUP = 15  # a scrape a second
PIPELINE_METRICS = {
    name + suffix
    for name, metric in METRICS.items()
    for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
}
OF_TROUBLE = {"pipeline_dead_letters_total", "pipeline_sink_errors_total", "pipeline_quality_incidents_total"}
WORDS = {"and", "or", "unless", "bool", "offset"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((INFRA / "monitoring" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    """Of all rules and all panels, with the dashboards' variables at "All"."""
    boards = [json.loads(file.read_text()) for file in sorted((INFRA / "grafana").glob("*.json"))]
    panels = [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]
    shown = [re.sub(r"\$(?!__)\w+", ".*", expr.replace("$__rate_interval", "1m")) for expr in panels]
    return [rule["expr"] for rule in rules()] + shown


def metrics_in(query: str) -> set[str]:
    """The names of what a query reads: its words that are no function, label, duration or operator."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|offset \w+", " ", query)
    bare = re.sub(r"\b(?:by|on|group_left)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w:])[a-zA-Z_][\w:]*\b(?!\s*\()", bare)) - WORDS


def variables() -> set[str]:
    """The metrics whose labels are the choices of a dashboard's variable."""
    texts = [file.read_text() for file in (INFRA / "grafana").glob("*.json")]
    return {name for text in texts for name in re.findall(r"label_values\((\w+),", text)}


class Hook(http.server.BaseHTTPRequestHandler):
    """Receives what Alertmanager sends."""

    received: list[tuple[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received += [(alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"]]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def hook() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret"
    server.shutdown()


@pytest.fixture(scope="module")
def stack(servers_folder: pathlib.Path, hook: str) -> Iterator[Stack]:
    """With a market stream that reads what is replayed."""
    ports = dict.fromkeys(Stack.port_names, 0)
    monitored = Stack(servers_folder / "monitored", ports, monitoring=True, monitoring_speedup=SPEEDUP)
    monitored.alertmanager.folder.mkdir(parents=True)
    (monitored.alertmanager.folder / "webhook_url").write_text(hook)
    try:
        ends = monitored.up()
        initialise(ends)
        with running("market", stream(ends), monitored), running("replay", replay(ends), monitored):
            yield monitored
    finally:
        monitored.down()


def stream(ends: Endpoints) -> list[str]:
    return [
        *("--runner=FlinkRunner", f"--flink_master={ends.flink_rest}", "--parallelism=1", "--job_name=market"),
        *("--environment_type=EXTERNAL", f"--environment_config={ends.worker_pool}", "--checkpointing_interval=2000"),
        *(f"--artifacts_dir={ends.artifacts_dir}", f"--timescale_dsn={ends.postgres_dsn}"),
        f"--bootstrap_servers={ends.kafka}",
    ]


def replay(ends: Endpoints) -> list[str]:
    """100 ticks a second, for longer than the tests last."""
    return [f"--bootstrap_servers={ends.kafka}", "--speed=real", "--restamp", "--ticks=60000", "--duration_seconds=600"]


@contextlib.contextmanager
def running(program: str, arguments: list[str], stack: Stack) -> Iterator[None]:
    """A program of the package, until the block ends; what it prints is in the stack's folder."""
    command = [sys.executable, "-m", f"beam_pipelines.{program}", *arguments]
    env = {**os.environ, **stack.endpoints.environment()}
    with (
        (stack.state_dir / f"{program}.log").open("wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its job server


def get(stack: Stack, path: str, **parameters: str) -> Any:
    """The data that Prometheus gives."""
    url = f"{stack.prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def eventually(holds: Callable[[], object], seconds: float) -> None:
    """Waits until it gives nothing that is left to wait for."""
    deadline = time.monotonic() + seconds
    while (left := holds()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def test_all_targets_are_up(stack: Stack) -> None:
    def unhealthy() -> dict[str, str]:
        targets = get(stack, "targets")["activeTargets"]
        assert {it["labels"]["job"] for it in targets} >= {
            *("kafka", "jobmanager", "taskmanager", "postgres", "workers", "alertmanager", "prometheus")
        }
        return {it["labels"]["job"]: it["lastError"] for it in targets if it["health"] != "up"}

    eventually(unhealthy, 30)


def test_each_query_of_rules_and_dashboards_is_answered(stack: Stack) -> None:
    for query in queries():
        assert get(stack, "query", query=query)["resultType"] in ("vector", "scalar"), query


def test_each_metric_that_a_query_reads_is_there(stack: Stack) -> None:
    used = set.union(variables(), *map(metrics_in, queries())) - {"ALERTS"}  # which is there when one fires
    assert len(used) > 70
    pipelines = {name for name in used if name.startswith("pipeline_")}
    assert pipelines <= PIPELINE_METRICS
    eventually(lambda: used - OF_TROUBLE - set(get(stack, "label/__name__/values")), 150)


def test_no_rule_fails(stack: Stack) -> None:
    found = [rule for group in get(stack, "rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert {rule["name"]: rule["lastError"] for rule in found if rule["health"] == "err"} == {}


def test_the_words_of_a_query_that_are_metrics() -> None:
    query = 'sum by (a) (rate(b_total{c="d"}[5m])) / on (e) group_left () f:g:h offset 5m > 0.9 unless vector(0)'
    assert metrics_in(query) == {"b_total", "f:g:h"}


def test_the_end_of_a_broker_is_told_and_that_it_is_back(stack: Stack) -> None:
    assert stack.kafka.process is not None
    assert_over(stack, {"KafkaDown"})
    Hook.received.clear()  # what was told of its start
    os.kill(stack.kafka.process.pid, signal.SIGKILL)
    eventually(lambda: ("KafkaDown", "firing") not in Hook.received, 60)
    stack.kafka.start()
    eventually(lambda: ("KafkaDown", "resolved") not in Hook.received, 120)


def firing(stack: Stack) -> set[str]:
    return {it["labels"]["alertname"] for it in get(stack, "alerts")["alerts"] if it["state"] == "firing"}


def assert_told(stack: Stack, alerts: set[str]) -> None:
    eventually(lambda: alerts - firing(stack), 150)


def assert_over(stack: Stack, alerts: set[str]) -> None:
    eventually(lambda: alerts & firing(stack), 180)


def test_bad_data_is_told_and_that_it_has_ended(stack: Stack) -> None:
    assert_over(stack, {"DeadLettersMany"})
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(produce_until, over, stack, "market-data-raw", lambda: [(None, b"no tick", now_ms())] * 20)
        try:
            assert_told(stack, {"DeadLettersMany"})
        finally:
            over.set()
        sent.result()
    assert_over(stack, {"DeadLettersMany"})


def test_a_sink_that_stands_is_told_and_that_it_goes_on(stack: Stack) -> None:
    told = {"CheckpointTooOld", "ThroughputLow", "PostgresDown"}
    assert_over(stack, told)
    assert stack.database.process is not None
    server = psutil.Process(stack.database.process.pid)
    stopped = [server, *server.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        assert_told(stack, told)
    finally:
        for process in stopped:
            process.resume()
    assert_over(stack, told)


def test_a_symbol_that_falls_silent_is_told_and_that_it_is_back(stack: Stack) -> None:
    """On a log of an hour of a Tuesday's session, which is read in a moment."""
    ends, begin = stack.endpoints, 1_795_532_400_000  # 2026-11-24 15:00 UTC
    ensure_topic(KafkaConfig(ends.kafka), "silence", 1)
    flags = [*stream(ends), "--topic=silence", "--job_name=silence", "--max_future_ms=0"]
    with running("market", flags, stack):
        produce(stack, "silence", [tick("MSFT", begin + second * 1000) for second in range(60)])
        name = "pipeline_last_record_timestamp_seconds"
        eventually(lambda: not get(stack, "query", query=f'{name}{{topic="silence"}}')["result"], 120)
        assert_over(stack, {"SymbolSilent"})
        both = [tick(symbol, begin + second * 1000) for second in range(60, 2_400) for symbol in ("AAPL", "MSFT")]
        one = [tick("MSFT", begin + second * 1000) for second in range(2_400, 3_600)]
        produce(stack, "silence", [*both, *one])
        assert_told(stack, {"SymbolSilent"})
        assert_over(stack, {"SymbolSilent"})


def tick(symbol: str, time_ms: int) -> tuple[bytes | None, bytes, int]:
    value = {"symbol": symbol, "timestamp": time_ms, "price": 100.0, "volume": 5_000}
    return symbol.encode(), json.dumps(value).encode(), time_ms


def produce(stack: Stack, topic: str, records: list[tuple[bytes | None, bytes, int]]) -> None:
    """Sends records with their keys and Kafka timestamps."""
    producer = KafkaConfig(stack.endpoints.kafka).producer(lambda error, _message: pytest.fail(error.str()))
    for key, value, time_ms in records:
        producer.produce(topic, value, key, timestamp=time_ms)
    assert producer.flush(30) == 0


def produce_until(
    over: threading.Event,
    stack: Stack,
    topic: str,
    records: Callable[[], list[tuple[bytes | None, bytes, int]]],
) -> None:
    while not over.wait(0.5):
        produce(stack, topic, records())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_its_addresses_are_exported_and_remembered(stack: Stack) -> None:
    again = Stack(stack.state_dir)
    assert again.endpoints.environment()["PROMETHEUS_URL"] == stack.prometheus.url
    assert again.endpoints.environment()["ALERTMANAGER_URL"] == stack.alertmanager.url
    assert {"prometheus", "alertmanager", "pgexporter"} <= {server.name for server in again.servers}


def test_it_can_be_left_out_again_without_touching_the_rest(stack: Stack) -> None:
    kafka = Stack(stack.state_dir).kafka.process
    Stack(stack.state_dir, monitoring=False).up()
    after = Stack(stack.state_dir)
    assert [it.name for it in (after.prometheus, after.alertmanager, after.postgres_exporter) if it.running] == []
    assert after.kafka.process == kafka
    assert after.kafka.running
    assert "PROMETHEUS_URL" not in after.endpoints.environment()
