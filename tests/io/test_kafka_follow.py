"""What others see of a stream's progress in a topic."""

import pyarrow as pa
import pytest

from beam_pipelines.io import kafka_follow
from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_follow import Follower, Pace
from beam_pipelines.io.kafka_offsets import Log
from beam_pipelines.io.kafka_tail import raw_batch
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


def test_an_offset_is_committed_only_when_the_bundle_that_reached_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    tails: list[EndlessTail] = []

    def make(*arguments: object) -> EndlessTail:
        tails.append(EndlessTail(*arguments))  # type: ignore[arg-type]
        return tails[-1]

    monkeypatch.setattr(kafka_follow, "Tail", make)
    follower = Follower(Log("ticks", "id", {}, {}, {}, {}), {}, KafkaConfig("127.0.0.1:1"), Pace())
    follower.open()
    for places in ([0, 3], [6, 9, 12], [15]):
        follower.begin_bundle()
        for place in places:
            assert len(list(follower.poll(0, Place(place, "id")))) == 1
    assert tails[0].commits == [0, 6, 15]
