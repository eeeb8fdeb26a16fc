"""ReadFromKafka: records of a topic as record batches, without end on Flink or up to an offset on any runner."""

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineRunner

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka_config import KafkaConfig
from beam_pipelines.io.kafka_follow import FollowTopic
from beam_pipelines.io.kafka_offsets import log_of, parse_position
from beam_pipelines.io.kafka_ranges import ReadRanges, ranges_of

__all__ = ["ReadFromKafka"]


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
      max_records: most records in a batch.
      idle_ms: how long a partition must bring nothing to be idle, ms of wall time.
      interval_ms: how often partitions are polled, ms.

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
        max_records: int = 10_000,
        idle_ms: int = 5000,
        interval_ms: int = 100,
    ) -> None:
        super().__init__()
        if min(max_records, idle_ms, interval_ms) < 1:
            raise UsageError("max_records, idle_ms and interval_ms must be at least 1: correct them")
        self._topic = topic
        self._config = config
        self._start = parse_position(start)
        self._end = parse_position(end)
        self._bounded = bounded
        self._max_records = max_records
        self._idle_ms = idle_ms
        self._interval_ms = interval_ms

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Resolves the positions and wires the read."""
        if self._bounded:
            log = log_of(self._config, self._topic, self._start, self._end)
            ranges = ranges_of(self._topic, log.start(self._start), log.end(self._end))
            return pbegin | "Bounded" >> ReadRanges(ranges, self._config, self._max_records)
        _check_endless(pbegin.pipeline.runner)
        log = log_of(self._config, self._topic, self._start)
        return pbegin | "Unbounded" >> FollowTopic(
            log, log.start(self._start), self._config, self._max_records, self._idle_ms, self._interval_ms
        )


def _check_endless(runner: PipelineRunner) -> None:
    # The job server behind a plain PortableRunner is not known before the job is submitted.
    if not isinstance(runner, FlinkRunner) and type(runner) is not PortableRunner:
        raise UsageError(
            f"runner {type(runner).__name__} cannot read Kafka without end: use --runner=FlinkRunner, or a bounded read"
        )
