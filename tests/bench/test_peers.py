"""The scripts beside which the stream is measured make the same bars as the kernel, ties and disorder included."""

import pathlib
from collections.abc import Callable
from types import ModuleType

import pytest

from beam_pipelines import ledger
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.tables import MARKET_BARS
from beam_pipelines.transforms.advance import Semantics

from .loads import Load
from .peers import json_script, orjson_script, polars_script
from .peers.bars import Bar, Bars, OtherBarsError, bars_in, check_same

NAMES = [column.name for column in MARKET_BARS.columns]


def bars_of_kernel(log: ledger.Expected) -> Bars:
    rows = [dict(zip(NAMES, row, strict=True)) for row in log.table_bars.values()]
    return {
        (row["symbol"], row["time"]): Bar(
            *(row[name] for name in ("open", "high", "low", "close")),
            row["volume"],
            row["vwap"],
            row["trade_count"],
        )
        for row in rows
    }


@pytest.mark.servers
@pytest.mark.parametrize("peer", [json_script, orjson_script, polars_script])
def test_a_script_makes_the_bars_that_the_kernel_makes(
    peer: ModuleType,
    kafka_server: str,
    topic: Callable[[str], str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_server)
    load = Load(kafka_server, topic(peer.__name__.rpartition(".")[2], 8), ticks=36_000, symbols=8, rate=180)
    load.release()
    expected = bars_of_kernel(ledger.expected_of(ledger.read_log(KafkaConfig(kafka_server), load.topic), Semantics()))
    peer.main(load.topic, str(tmp_path))
    check_same(expected, bars_in(tmp_path), peer.__name__)
    assert len(expected) == 8 * 4
    assert sum(bar.trade_count for bar in expected.values()) == load.ticks


def test_other_bars_and_no_bars_are_noticed() -> None:
    key, bar = ("A", 0), Bar(1.0, 2.0, 0.5, 1.5, 10, 1.25, 3)
    check_same({key: bar}, {key: bar._replace(vwap=1.25 + 1e-12), ("B", 0): bar}, "peer")
    for other in ({}, {key: bar._replace(close=1.6)}, {key: bar._replace(vwap=1.26)}, {key: bar._replace(volume=11)}):
        with pytest.raises(OtherBarsError, match="peer"):
            check_same({key: bar}, other, "peer")
    with pytest.raises(OtherBarsError, match="no bar"):
        check_same({}, {key: bar}, "peer")
