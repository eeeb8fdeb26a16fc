"""What others see of a stream's progress in a topic."""

import json
import time

import pyarrow as pa
import pytest

from beam_pipelines.io import kafka_follow, repartition
from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_follow import Follower, Pace
from beam_pipelines.io.kafka_offsets import Log
from beam_pipelines.io.kafka_tail import raw_batch
from beam_pipelines.io.repartition import CopyBySymbol
from beam_pipelines.transforms.batches import Place, Span, with_span


class EndlessTail:
    """A partition with three records whenever it is asked."""

    full = False

    def __init__(self, _config: KafkaConfig, topic: str, partition: int) -> None:
        self.topic, self.partition, self.position = topic, partition, 0
        self.commits: list[int] = []

    def seek(self, offset: int) -> None:
        self.position = offset

    def commit(self, offset: int) -> None:
        self.commits.append(offset)

    def poll(self, *_limits: object) -> pa.RecordBatch:
        first, self.position = self.position, self.position + 3
        return with_span(raw_batch(()), Span(self.topic, self.partition, first, self.position))

    def lag(self) -> int:
        return 0


@pytest.fixture
def tails(monkeypatch: pytest.MonkeyPatch) -> list[EndlessTail]:
    """Those that the test's readers have made."""
    made: list[EndlessTail] = []

    def make(*arguments: object) -> EndlessTail:
        made.append(EndlessTail(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(kafka_follow, "Tail", make)
    monkeypatch.setattr(repartition, "Tail", make)
    return made


LOG = Log("ticks", "id", {0: 0}, {0: 18}, {}, {})
BUNDLES = ([0, 3], [6, 9, 12], [15])


def test_an_offset_is_committed_only_when_the_bundle_that_reached_it_has_ended(tails: list[EndlessTail]) -> None:
    follower = Follower(LOG, {}, KafkaConfig("127.0.0.1:1"), Pace())
    follower.open()
    for places in BUNDLES:
        follower.begin_bundle()
        for place in places:
            assert len(list(follower.poll(0, Place(place, "id")))) == 1
    assert tails[0].commits == [0, 6, 15]


class Written:
    """The state of the copy, as the bundles before left it."""

    def __init__(self, place: int) -> None:
        self._place = place

    def read(self) -> bytes:
        return json.dumps({"log_id": "id", "places": {"0": self._place}}).encode()


def test_so_does_the_copy_by_symbol(tails: list[EndlessTail], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repartition, "_ROUND_S", 0.0)  # bundles that have no time to copy more
    monkeypatch.setattr(repartition, "log_of", lambda *_: LOG)
    copy = CopyBySymbol("ticks", KafkaConfig("127.0.0.1:1"), "earliest", Pace(interval_ms=1))._copy
    copy.setup()
    for places in BUNDLES:
        copy.start_bundle()
        for place in places:
            time.sleep(0.001)
            assert list(copy.process((0, 0), Written(place))) == []
    assert tails[0].commits == [0, 6, 15]
