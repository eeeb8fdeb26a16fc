"""Alert rules, Alertmanager's configuration and dashboards, without a server; `tests/integration` has them live."""

import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.servers.base import Server
from beam_pipelines.runners.servers.exporters import PostgresExporter
from beam_pipelines.runners.servers.prometheus import Alertmanager, Prometheus, sped_up, with_webhook

INFRA = pathlib.Path(__file__).parents[2] / "infra"
RULES = INFRA / "monitoring" / "alerts.yml"
TESTS = INFRA / "monitoring" / "alerts_test.yml"
ALERTMANAGER = INFRA / "monitoring" / "alertmanager.yml"
DASHBOARDS = sorted((INFRA / "grafana").glob("*.json"))
needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="apt-get install prometheus-alertmanager")


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@needs_prometheus
def test_each_alert_fires_and_ends_and_does_not_fire_just_below() -> None:
    run("promtool", "test", "rules", TESTS)


def names_in(text: str) -> set[str]:
    return set(re.findall(r'alertname="(\w+)"', text))


def test_each_alert_is_tested_both_ways() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        cases = test.get("promql_expr_test", [])
        seen = names_in(str([case["exp_samples"] for case in cases]))
        fires |= seen
        for case in cases:
            if not case["exp_samples"]:  # where the query is for all alerts, it speaks of those that the test sees
                silent |= names_in(case["expr"]) or seen
    assert fires == {alert["alert"] for alert in alerts()}
    assert silent >= fires


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "description"}, alert["alert"]
        assert len(alert["annotations"]["description"].split(".")) > 2, alert["alert"]


def test_inhibitions_name_alerts_that_exist() -> None:
    named = set(re.findall(r'alertname=~?"([\w|]+)"', ALERTMANAGER.read_text()))
    assert {name for names in named for name in names.split("|")} <= {alert["alert"] for alert in alerts()}


def test_speeding_up_divides_ranges_offsets_and_waits_and_nothing_else() -> None:
    slow = """
      interval: 15s
      record: a:ratio_5m
      expr: rate(x[5m]) / rate(x[1h] offset 30m) > 0.9 and time() - y > 300
      for: 10m
      group_interval: 1d
      summary: for 5m
    """
    assert (
        sped_up(slow, 10)
        == """
      interval: 1500ms
      record: a:ratio_5m
      expr: rate(x[30000ms]) / rate(x[360000ms] offset 180000ms) > 0.9 and time() - y > 300
      for: 60000ms
      group_interval: 8640000ms
      summary: for 5m
    """
    )
    assert sped_up(slow, 1) == slow


@given(st.integers(1, 10_000), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]), st.integers(2, 60))
def test_a_range_is_the_nth_part_to_the_millisecond(count: int, unit: tuple[str, int], speedup: int) -> None:
    found = re.fullmatch(r"rate\(x\[(\d+)ms\]\)", sped_up(f"rate(x[{count}{unit[0]}])", speedup))
    assert found is not None
    assert 0 <= count * unit[1] * 1000 - int(found[1]) * speedup < speedup


@needs_prometheus
def test_sped_up_rules_are_rules(tmp_path: pathlib.Path) -> None:
    fast = tmp_path / "alerts.yml"
    fast.write_text(sped_up(RULES.read_text(), 15))
    run("promtool", "check", "rules", fast)
    durations = re.findall(r"\[(\w+)\]|for: (\w+)$", fast.read_text(), re.MULTILINE)
    assert durations
    assert all((ranged or waited).endswith("ms") for ranged, waited in durations)


def test_without_a_webhook_alertmanager_keeps_alerts() -> None:
    (receiver,) = yaml.safe_load(with_webhook(ALERTMANAGER.read_text(), None))["receivers"]
    assert receiver == {"name": "operators"}


def test_with_a_webhook_the_url_stands_in_place_of_the_file() -> None:
    url = r"https://hooks.example/\1?a=b&c: d"
    (receiver,) = yaml.safe_load(with_webhook(ALERTMANAGER.read_text(), url))["receivers"]
    assert receiver["webhook_configs"] == [{"url": url, "send_resolved": True}]


@needs_amtool
@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/hook"])
def test_alertmanager_takes_its_configuration_which_only_the_owner_may_read(
    tmp_path: pathlib.Path, url: str | None
) -> None:
    if url:
        (tmp_path / "webhook_url").write_text(f"{url}\n")
    Alertmanager(tmp_path, {"alertmanager": 0}, speedup=15).prepare()
    config = tmp_path / "alertmanager.yml"
    run("amtool", "check-config", config)
    assert config.stat().st_mode & 0o077 == 0
    assert ("webhook_configs" in config.read_text()) == (url is not None)


@needs_prometheus
def test_prometheus_takes_its_configuration(tmp_path: pathlib.Path) -> None:
    Prometheus(tmp_path, {"prometheus": 0}, {"kafka": "127.0.0.1:1"}, "127.0.0.1:2", speedup=5).prepare()
    run("promtool", "check", "config", tmp_path / "prometheus.yml")
    config = json.loads((tmp_path / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == "3000ms"
    assert [job["job_name"] for job in config["scrape_configs"]] == ["kafka", "prometheus"]


@pytest.mark.parametrize(
    ("kind", "arguments", "package"),
    [
        (Prometheus, [], "prometheus"),
        (Alertmanager, [], "prometheus-alertmanager"),
        (PostgresExporter, ["postgresql://nowhere"], "prometheus-postgres-exporter"),
    ],
)
def test_a_missing_program_is_one_sentence_with_the_cure(
    kind: type[Server], arguments: list[str], package: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=rf"--monitoring needs {package}, .*: apt-get install {package}$"):
        kind(tmp_path, {}, *arguments).provide()


def test_the_exporter_gets_the_password_by_its_environment_alone(tmp_path: pathlib.Path) -> None:
    dsn = "postgresql://postgres:secret@127.0.0.1/x"
    if shutil.which("prometheus-postgres-exporter") is None:
        pytest.skip("apt-get install prometheus-postgres-exporter")
    command = PostgresExporter(tmp_path, {"postgres_exporter": 0}, dsn).prepare()
    assert "secret" not in str(command.arguments)
    assert command.environment["DATA_SOURCE_NAME"] == f"{dsn}?sslmode=disable"


def overlaps(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(panels):
        for other in panels[:index]:
            a, b = one["gridPos"], other["gridPos"]
            beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            if not (beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]):
                yield one["title"], other["title"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported(file: pathlib.Path) -> None:
    board = json.loads(file.read_text())
    assert board["schemaVersion"] >= 38  # Grafana 10
    assert board["uid"] == f"waardhaven-{file.stem}"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert list(overlaps(board["panels"])) == []
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        used = set(re.findall(r"\$(\w+)", str([target["expr"] for target in panel["targets"]])))
        assert used <= {*variables, "__rate_interval"}


def test_there_are_the_five_dashboards() -> None:
    assert [file.stem for file in DASHBOARDS] == ["flink", "kafka", "overview", "pipelines", "postgres"]
