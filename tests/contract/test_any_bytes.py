"""Whatever bytes are in the topic, the stream goes on, and each record is either a tick or a dead letter, untouched."""

from typing import Any, NamedTuple

import pytest

from beam_pipelines import ledger, market
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.tables import MARKET_DATA
from beam_pipelines.simulate import Session
from beam_pipelines.transforms.batches import span_of

from ..transforms.tick_oracle import meaning
from .anything import EXTREMES, ZOO, drawn
from .logs import MEANING, SEMANTICS, Log, create_topic, fill, log_of, mixed
from .sinks import Sinks

pytestmark = pytest.mark.servers

SESSION = Session(seed=5, symbols=6, duration_ms=60_000, ticks=2_000)


@pytest.fixture(scope="module")
def log(kafka_server) -> Log:
    others = [*ZOO, *EXTREMES, *drawn(800)]
    log = log_of("any-bytes-raw", mixed("any-bytes-raw", [SESSION], 1, others))
    create_topic(kafka_server, log.topic, log.partitions)
    fill(kafka_server, log.topic, *log.cut(1))
    return log


@pytest.fixture(scope="module")
def sinks(log, new_sinks, tmp_path_factory) -> Sinks:
    sinks = new_sinks(str(tmp_path_factory.mktemp("lake")))
    assert market.main([f"--topic={log.topic}", "--bounded", *MEANING, *sinks.arguments]) == 0
    return sinks


class Letter(NamedTuple):
    value: bytes | None
    headers: dict[str, str]

    @property
    def identity(self) -> tuple[int, int]:
        return int(self.headers["partition"]), int(self.headers["offset"])


@pytest.fixture(scope="module")
def letters(sinks) -> list[Letter]:
    config = KafkaConfig(sinks.bootstrap_servers)
    return [Letter(it.value, it.headers) for it in ledger.records_of(config, sinks.dead_letters)]


@pytest.fixture(scope="module")
def refused_rows(letters) -> set[tuple[int, int]]:
    """Ticks and bars that are right but beyond what the database can hold, by the record; a bar's has none."""
    return {letter.identity for letter in letters if letter.headers["reason"] == "rejected_by_database"}


def test_each_record_that_is_no_tick_is_a_dead_letter_with_its_reason_and_its_bytes(log, letters):
    written = {
        letter.identity: (letter.headers["reason"], letter.value)
        for letter in letters
        if letter.headers["reason"] not in ("too_late", "rejected_by_database")
    }
    wanted: dict[tuple[int, int], Any] = {}
    for batch in log.batches:
        rows = zip(*(batch[name].to_pylist() for name in ("offset", "timestamp", "value")), strict=True)
        for offset, log_time, value in rows:
            bad = meaning(value, log_time, offset, SEMANTICS.max_future_ms)[1]
            if bad:
                wanted[span_of(batch).partition, offset] = (bad[0], value)
    assert len(wanted) > 500
    assert written == wanted


def test_each_dead_letter_says_where_it_comes_from_and_what_is_wrong(log, letters):
    for letter in letters:
        assert letter.headers.keys() == {"pipeline", "reason", "detail", "topic", "partition", "offset"}
        assert letter.headers["pipeline"] == "market"
        assert letter.headers["detail"]
        assert letter.headers["topic"] == log.topic or letter.identity == (-1, -1)


def test_all_others_are_in_every_sink_unless_the_database_cannot_hold_them(log, sinks, refused_rows):
    held = dict(sinks.differences(log.expected))
    assert held["topic of ticks"].clean
    assert held["lake of ticks"].clean
    assert held["lake of dead letters"].clean
    names = [column.name for column in MARKET_DATA.columns]
    at = names.index("partition")
    assert names[at + 1] == "offset"
    missing = {log.expected.table_ticks[identity][at : at + 2] for identity in held["table of ticks"].missing}
    assert missing == refused_rows - {(-1, -1)}
    assert not held["table of ticks"].surplus
    assert not held["table of ticks"].different
