"""ReadFromKafka: records of a topic as record batches, without end on Flink or up to an offset on any runner."""

import apache_beam as beam
import pyarrow as pa

from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_follow import USUAL_PACE, FollowTopic, Pace, Poll
from beam_pipelines.io.kafka_offsets import log_of, parse_position
from beam_pipelines.io.kafka_ranges import ReadRanges, ranges_of
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor

__all__ = ["ReadFromKafka", "follow_kafka"]


def follow_kafka(
    topic: str,
    config: KafkaConfig,
    start: str = "earliest",
    pace: Pace = USUAL_PACE,
    monitor: PipelineMonitor = UNNAMED,
) -> FollowTopic:
    """A topic to be polled, without end and on Flink only, by the stage that works on its records.

    Args:
      topic: name of the topic.
      config: how to reach Kafka.
      start: where to begin, see `parse_position`; becomes offsets here and now.
      pace: how to read it.
      monitor: takes down how many records wait.

    Raises:
      UsageError: if Kafka cannot be reached or has no such topic or position.
    """
    position = parse_position(start)
    log = log_of(config, topic, position)
    return FollowTopic(log, log.start(position), config, pace, monitor)


class ReadFromKafka(beam.PTransform):
    """PBegin to PCollection[tuple[int, RecordBatch]]: (partition, RAW batch with its span).

    The spans of a partition tile its log from the start position on, also where the log has holes (compaction,
    transactions).  Positions become offsets when the pipeline is built, so that a job is a function of the log;
    partitions that are added later are read from their beginning.

    Unbounded (the default) runs on Flink only.  The next offset of each partition is state of the job, so a restart
    continues where the checkpoint was.  A partition that brings nothing for `idle_ms` gives a heartbeat every
    `idle_ms`: an empty batch with an empty span and the time it was idle.  The group's offsets are committed to Kafka
    for others to see the lag; they are ahead of the last checkpoint by at most what was read since.

    Bounded reads what is in the log when the pipeline is built, on any runner.  The batches of a partition arrive in
    any order.

    Args:
      topic: name of the topic.
      config: how to reach Kafka.
      start: where to begin, see `parse_position`.
      bounded: whether to stop at `end`.
      end: where a bounded read stops (exclusive), see `parse_position`.
      pace: how to read; a bounded read heeds `max_records` only.
      monitor: takes down how many records wait to be read without end.

    Raises:
      UsageError: when built, if an argument is wrong; when applied, if Kafka cannot be reached, has no such topic or
        position, or the runner cannot read without end.
    """

    def __init__(
        self,
        topic: str,
        config: KafkaConfig,
        start: str = "earliest",
        *,
        bounded: bool = False,
        end: str = "latest",
        pace: Pace = USUAL_PACE,
        monitor: PipelineMonitor = UNNAMED,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._topic = topic
        self._config = config
        self._start = start
        self._from, self._to = parse_position(start), parse_position(end)
        self._bounded = bounded
        self._pace = pace

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Resolves the positions and wires the read."""
        if self._bounded:
            log = log_of(self._config, self._topic, self._from, self._to)
            ranges = ranges_of(self._topic, log.start(self._from), log.end(self._to))
            return pbegin | "Bounded" >> ReadRanges(ranges, self._config, self._pace.max_records)
        topic = follow_kafka(self._topic, self._config, self._start, self._pace, self._monitor)
        return pbegin | "Follow" >> topic | "Poll" >> Poll(topic.records)
