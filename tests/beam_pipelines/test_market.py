"""The market program as its user meets it without any server."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from beam_pipelines import market
from beam_pipelines.command_line import Parser

ROOT = pathlib.Path(__file__).parents[2]
LEAN = ROOT.parent / "shared" / "ticks" / "lean_ibm_20131007_trade_tick.zip"
TICKS = [
    {"symbol": symbol, "timestamp": 1_736_173_800_000 + 1000 * n, "price": 100 + n % 7, "volume": n, "seq": n}
    for n, symbol in enumerate(["AAPL", "MSFT", "V"] * 100, start=1)
]
Shown = dict[str, str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIMESCALE_DSN", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Shown:
    """Runs the market stream and gives the rows of the summary that it prints."""
    assert market.main([str(argument) for argument in arguments]) == 0
    return rows_of(capsys.readouterr().out)


def rows_of(summary: str) -> Shown:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in summary.splitlines() if "│" in line]
    return dict(cells)


def objects(lake: str = "lake") -> Mapping[str, bytes]:
    return {str(path.relative_to(lake)): path.read_bytes() for path in sorted(pathlib.Path(lake).rglob("*.parquet"))}


def ticks_in(lake: str) -> list[dict]:
    table = ds.dataset(f"{lake}/market-data", partitioning="hive").to_table(
        columns=["symbol", "timestamp", "price", "seq"]
    )
    return table.sort_by([("symbol", "ascending"), ("seq", "ascending")]).to_pylist()


def test_without_a_flag_it_simulates_a_session_into_a_lake_here_and_says_so(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipelines.market"], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = rows_of(done.stdout)
    assert (shown["records read"], shown["enriched ticks"], shown["dead letters"]) == ("100,000", "100,000", "0")
    assert int(shown["bars, revisions included"].replace(",", "")) > 1000
    assert shown["lake files of ticks"] == str(len(objects()))
    assert shown["lake"] == "./lake"
    assert ds.dataset("lake/market-data", partitioning="hive").count_rows() == 100_000


def test_a_second_run_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "--ticks=3000")
    before = objects()
    again = run(capsys, "--ticks=3000")
    assert again == first
    assert objects() == before
    assert before


def test_another_session_is_another_log(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--ticks=1000")
    before = objects()
    run(capsys, "--ticks=1000", "--seed=2")
    assert objects().items() > before.items()


def test_all_kinds_of_files_give_the_same_ticks(capsys: pytest.CaptureFixture[str]) -> None:
    with pathlib.Path("ticks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TICKS[0].keys())
        writer.writeheader()
        writer.writerows(TICKS)
    pathlib.Path("ticks.ndjson").write_text("".join(json.dumps(tick) + "\n" for tick in TICKS))
    pq.write_table(pa.Table.from_pylist(TICKS), "ticks.parquet")
    told, found = {}, {}
    for kind in ("csv", "ndjson", "parquet"):
        shown = run(capsys, f"--input=ticks.{kind}", f"--lake={kind}")
        told[kind] = {name: value for name, value in shown.items() if name != "lake"}
        found[kind] = ticks_in(kind)
    assert told["csv"]["enriched ticks"] == str(len(TICKS))
    assert told["csv"] == told["ndjson"] == told["parquet"]
    assert len(found["csv"]) == len(TICKS)
    assert found["csv"] == found["ndjson"] == found["parquet"]


def test_bad_lines_of_a_file_are_counted_by_reason_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(TICKS[0]), "nonsense", "[1]", json.dumps({**TICKS[1], "price": -1}), json.dumps(TICKS[0])]
    pathlib.Path("ticks.ndjson").write_text("\n".join(lines))
    shown = run(capsys, "--input=ticks.ndjson")
    reasons = {name: shown.get(name) for name in ("not_json", "not_an_object", "bad_value")}
    assert reasons == dict.fromkeys(reasons, "1")
    assert (shown["dead letters"], shown["enriched ticks"], shown["duplicates, dropped"]) == ("3", "1", "1")
    letters = ds.dataset("lake/dead-letter", partitioning="hive").to_table(columns=["value"])["value"].to_pylist()
    assert sorted(letters) == sorted(line.encode() for line in lines[1:4])


def test_damage_at_the_end_of_a_file_is_told_before_anything_is_written(tmp_path: pathlib.Path) -> None:
    rows = "".join(f"A,{tick['timestamp']},1,1\n" for tick in TICKS * 200)
    pathlib.Path("ticks.csv").write_text(f"symbol,timestamp,price,volume\n{rows}A,1\n")
    command = [sys.executable, "-m", "beam_pipelines.market", "--input=ticks.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: input file ticks\.csv cannot be read \(.*Expected 4 columns, got 2: A,1\).*\n", done.stderr
    )
    assert not pathlib.Path("lake").exists()


@pytest.mark.skipif(not LEAN.exists(), reason="the real ticks beside the checkout are missing")
def test_a_real_day_goes_through(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, f"--input={LEAN}")
    assert shown["dead letters"] == "0"
    assert shown["records read"] == shown["enriched ticks"] != "0"
    assert len(ticks_in("lake")) == int(shown["records read"].replace(",", ""))


def test_longer_objects_hold_the_same_ticks(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--ticks=2000", "--lake=hours")
    run(capsys, "--ticks=2000", "--lake=days", "--lake_slot_seconds=86400", "--lake_compression=zstd")
    assert ticks_in("hours") == ticks_in("days")
    codec = pq.ParquetFile(next(pathlib.Path("days").rglob("*.parquet"))).metadata.row_group(0).column(0).compression
    assert codec == "ZSTD"


@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
def test_help_names_every_flag_from_anywhere(tmp_path: pathlib.Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipelines.market", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT if where == "checkout" else tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    parser = Parser()
    market.add_flags(parser)
    assert {flag for flag in parser.flags() if flag not in done.stdout} == set()
    for word in ("--runner", "FlinkRunner", "--flink_master", "--checkpointing_interval"):
        assert word in done.stdout


def test_prometheus_beam_and_the_sinks_count_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    late = TICKS[0] | {"timestamp": TICKS[0]["timestamp"] + 270_000, "seq": 1000}  # its bar has closed when it comes
    bad = [{"symbol": "V"}, {"symbol": "V", "timestamp": "noon", "price": 1, "volume": 1}]
    records = [*TICKS, late, TICKS[-3], TICKS[-1], *bad, TICKS[0] | {"seq": 2000}]
    pathlib.Path("faults.ndjson").write_text("\n".join(map(json.dumps, records)))
    shown = run(capsys, "--input=faults.ndjson", "--bar_seconds=10", "--metrics_file=m.prom")
    mine = r'_processed_total{pipeline="market",status="(\w+)",topic="faults.ndjson"} (\S+)'
    told = re.findall(mine, pathlib.Path("m.prom").read_text())
    counts = {status: float(count) for status, count in told}
    assert sum(counts.values()) == len(records) == int(shown["records read"])
    assert counts["success"] == int(shown["enriched ticks"])
    assert counts["duplicate"] == int(shown["duplicates, dropped"]) == 2
    assert counts["dead_letter"] == int(shown["dead letters"]) == len(bad) + 1  # the last is too late
    in_lake = ds.dataset("lake/market-data", partitioning="hive").count_rows()
    assert in_lake == len(records) - len(bad)  # repeated and late ones too
    dead = ds.dataset("lake/dead-letter", partitioning="hive").to_table(columns=["reason"])
    assert dead.num_rows == counts["dead_letter"]
