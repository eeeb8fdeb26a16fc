"""What a pipeline tells of itself: the metrics, and `PipelineMonitor`, which takes them down.

Everything is counted once a batch, never once a row, and costs about a microsecond; `beam_pipelines.runners.metrics`
shows it to Prometheus.  This module imports neither Beam nor prometheus_client.

**What is exact.**  `record_...` counts work done: after a restart from a checkpoint, records that are read again count
again.  What `publish_totals` is given is exact: how many records of a partition, up to an offset, were valid, late,
repeated or dead is a function of the log, and so the highest total that any process has published is the truth, in
whatever order the partition moved between processes and however often they began anew.  The counters that it fills
are the sums of these over partitions:

| metric | labels | |
|---|---|---|
| `pipeline_messages_processed_total` | pipeline, topic, status | exact if published; Beam: `<pipeline>/records`, ... |
| `pipeline_partition_messages_total` | pipeline, topic, partition, status | exact; the same by partition |
| `pipeline_dead_letters_total` | pipeline, reason | exact if published; Beam: `dead_letters/<reason>` |
| `pipeline_late_total` | pipeline | exact if published; Beam: `<pipeline>/late` |
| `pipeline_duplicates_total` | pipeline | exact if published; Beam: `<pipeline>/duplicates` |
| `pipeline_quality_incidents_total` | pipeline, dataset, check | counts work |
| `pipeline_sink_errors_total` | pipeline, sink | counts work |
| `pipeline_processing_latency_seconds`, `pipeline_end_to_end_latency_seconds` | pipeline, stage | count work |
| `pipeline_sink_batch_rows` | pipeline, sink | counts work |
| `pipeline_last_record_timestamp_seconds` | pipeline, topic | exact: the highest told |
| `pipeline_data_quality_score` | pipeline, dataset | the last one told, also of a process that has ended |
| `pipeline_queue_depth` | pipeline, queue | the last one told by a process that lives |
| `pipeline_watermark_lag_seconds` | pipeline, partition | the last one told by a process that lives |

Those of Beam are its user counters for the same, which a runner shows of finished bundles; on Flink they count work.
Let each (pipeline, topic, status) be published or recorded, not both: the two are added.

**Labels are bounded.**  A process keeps MAX_VALUES different texts of a label of a metric; what comes later is counted
as "other".  Partitions are numbers and all kept.  Texts are cut at 200 characters.
"""

import enum
import time
from collections.abc import Mapping
from typing import NamedTuple

from beam_pipelines.transforms.metric_store import Origin, Series, process_store

__all__ = ["METRICS", "NO_RUN", "UNNAMED", "Kind", "Metric", "PipelineMonitor", "Run"]


class Kind(enum.Enum):
    """What a metric is, and how the values of several processes become one."""

    COUNTER = "counter"  # their sum
    HISTOGRAM = "histogram"  # their sum
    HIGHEST = "highest"  # a gauge: the highest
    NEWEST = "newest"  # a gauge: the one that was set last
    LIVE = "live"  # the same, of processes that live


class Metric(NamedTuple):
    """A metric as Prometheus sees it."""

    name: str
    help: str
    labels: tuple[str, ...]
    kind: Kind
    bounds: tuple[float, ...] = ()  # upper ends of a histogram's buckets; one more is unbounded

    @property
    def size(self) -> int:
        """Doubles of a series of it, as `metric_store.Content` tells."""
        return {Kind.COUNTER: 1, Kind.HISTOGRAM: len(self.bounds) + 2, Kind.HIGHEST: 1}.get(self.kind, 2)


_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
_ROWS = (1.0, 10.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0)

_MESSAGES = Metric(
    "pipeline_messages_processed_total",
    "Messages by what became of them; exact where the pipeline publishes totals of its log, else work done.",
    ("pipeline", "topic", "status"),
    Kind.COUNTER,
)
_DEAD_LETTERS = Metric(
    "pipeline_dead_letters_total",
    "Records that could not be used, by reason; exact where totals are published, else work done.",
    ("pipeline", "reason"),
    Kind.COUNTER,
)
_LATE = Metric(
    "pipeline_late_total",
    "Records behind the clock of their partition; exact where totals are published, else work done.",
    ("pipeline",),
    Kind.COUNTER,
)
_DUPLICATES = Metric(
    "pipeline_duplicates_total",
    "Records that were there before and were dropped; exact where totals are published, else work done.",
    ("pipeline",),
    Kind.COUNTER,
)
_INCIDENTS = Metric(
    "pipeline_quality_incidents_total",
    "What was not as usual in a minute of a partition, by the check that told it.",
    ("pipeline", "dataset", "check"),
    Kind.COUNTER,
)
_SINK_ERRORS = Metric(
    "pipeline_sink_errors_total", "Failed writes, those that were repeated too.", ("pipeline", "sink"), Kind.COUNTER
)
_PROCESSING = Metric(
    "pipeline_processing_latency_seconds", "Time spent on a batch.", ("pipeline", "stage"), Kind.HISTOGRAM, _SHORT_S
)
_END_TO_END = Metric(
    "pipeline_end_to_end_latency_seconds",
    "Time from a record's event, or from its entry into the log, to its emission by the stage.",
    ("pipeline", "stage"),
    Kind.HISTOGRAM,
    _LONG_S,
)
_BATCH_ROWS = Metric("pipeline_sink_batch_rows", "Rows of a write.", ("pipeline", "sink"), Kind.HISTOGRAM, _ROWS)
_QUEUE_DEPTH = Metric("pipeline_queue_depth", "Messages that wait to be read.", ("pipeline", "queue"), Kind.LIVE)
_WATERMARK_LAG = Metric(
    "pipeline_watermark_lag_seconds",
    "How far the clock of a partition, its event time, is behind the time of day.",
    ("pipeline", "partition"),
    Kind.LIVE,
)
_QUALITY = Metric("pipeline_data_quality_score", "From 0 to 1.", ("pipeline", "dataset"), Kind.NEWEST)
_LAST_RECORD = Metric(
    "pipeline_last_record_timestamp_seconds",
    "When the newest record was written, Unix time; shows feeds that went silent.",
    ("pipeline", "topic"),
    Kind.HIGHEST,
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        *(_MESSAGES, _DEAD_LETTERS, _LATE, _DUPLICATES, _INCIDENTS, _SINK_ERRORS),
        *(_PROCESSING, _END_TO_END, _BATCH_ROWS),
        *(_QUEUE_DEPTH, _WATERMARK_LAG, _QUALITY, _LAST_RECORD),
    )
}
"""All metrics by name."""


class Run(NamedTuple):
    """Which job publishes totals; made where the job is submitted, and the same after its restarts.

    Totals of a pipeline and topic from before the newest run that was not resumed are forgotten, so a job that reads
    the log anew begins at 0.  Of two jobs at once on one topic, under one pipeline's name, only one would be seen.
    """

    began_ms: int  # Unix ms
    resumed: bool  # whether it goes on from the state of another (a savepoint), and with it from its totals

    @classmethod
    def begin(cls, resumed: bool = False) -> "Run":
        """A run that begins now."""
        return cls(time.time_ns() // 1_000_000, resumed)


NO_RUN = Run(0, False)
"""Of who publishes no totals."""


class PipelineMonitor:
    """Takes down what a pipeline does.  It holds no measurements: it can be pickled, and all those of a process share.

    Args:
      pipeline_name: the label `pipeline`.
      run: of the job; needed by who publishes totals.
    """

    def __init__(self, pipeline_name: str, run: Run = NO_RUN) -> None:
        self._name = pipeline_name
        self._run = run

    def record_message_processed(self, topic: str, status: str = "success") -> None:
        """Counts one message."""
        self.record_messages(topic, status, 1)

    def record_messages(self, topic: str, status: str, count: int) -> None:
        """Counts the messages of a batch that have this status."""
        self._add(_MESSAGES, count, topic, status)

    def record_dead_letters(self, reason: str, count: int) -> None:
        """Counts records that could not be used; `reason` is a word of a fixed set, not an exception's text."""
        self._add(_DEAD_LETTERS, count, reason)

    def record_late(self, count: int) -> None:
        """Counts records behind their clock."""
        self._add(_LATE, count)

    def record_duplicates(self, count: int) -> None:
        """Counts records that were dropped because they were there before."""
        self._add(_DUPLICATES, count)

    def record_incidents(self, dataset: str, check: str, count: int) -> None:
        """Counts how often a check did not pass; 0 too, because Prometheus sees no increase in what begins at 1."""
        self._add(_INCIDENTS, count, dataset, check)

    def record_sink_error(self, sink: str) -> None:
        """Counts a write that failed."""
        self._add(_SINK_ERRORS, 1, sink)

    def publish_totals(
        self,
        topic: str,
        partition: int,
        statuses: Mapping[str, int],
        dead_letters: Mapping[str, int] | None = None,
        late: int = 0,
        duplicates: int = 0,
    ) -> None:
        """Tells the totals of a partition since its first record, as the state at the offset reached knows them.

        Args:
          topic: of the log.
          partition: of the topic.
          statuses: messages by status.
          dead_letters: records that could not be used, by reason.
          late: records behind their clock.
          duplicates: records that were there before.
        """
        store, origin = process_store(), Origin(topic, partition, *self._run)
        for status, total in statuses.items():
            store.raise_to(Series(_MESSAGES.name, (self._name, topic, status), origin), total)
        for reason, total in (dead_letters or {}).items():
            store.raise_to(Series(_DEAD_LETTERS.name, (self._name, reason), origin), total)
        store.raise_to(Series(_LATE.name, (self._name,), origin), late)
        store.raise_to(Series(_DUPLICATES.name, (self._name,), origin), duplicates)

    def record_processing_time(self, stage: str, duration: float) -> None:
        """Takes down the time that a batch took, s."""
        self._observe(_PROCESSING, duration, 1, stage)

    def record_end_to_end_latency(self, stage: str, seconds: float, messages: int = 1) -> None:
        """Takes down how long ago the records were made that a stage now emits, s; of clocks that disagree, 0.

        Args:
          stage: that emits them.
          seconds: the latency of these messages, or of one that stands for them.
          messages: for how many it stands.
        """
        self._observe(_END_TO_END, seconds, messages, stage)

    def record_batch(self, sink: str, rows: int) -> None:
        """Takes down the rows of a write."""
        self._observe(_BATCH_ROWS, rows, 1, sink)

    def update_queue_depth(self, queue: str, depth: float) -> None:
        """Tells how many messages wait, such as those of a partition that are still to be read."""
        self._set(_QUEUE_DEPTH, depth, queue)

    def update_watermark_lag(self, partition: int, seconds: float) -> None:
        """Tells how far the clock of a partition is behind the time of day, s."""
        self._set(_WATERMARK_LAG, seconds, partition)

    def update_data_quality(self, dataset: str, score: float) -> None:
        """Tells how good a dataset is.

        Raises:
          ValueError: if the score is not from 0 to 1.
        """
        if not 0 <= score <= 1:
            raise ValueError(f"the score of {dataset} must be from 0 to 1, not {score}")
        self._set(_QUALITY, score, dataset)

    def update_last_record(self, topic: str, timestamp_s: float) -> None:
        """Tells when the newest record of a topic was written, Unix s."""
        process_store().raise_to(Series(_LAST_RECORD.name, (self._name, topic)), timestamp_s)

    def _add(self, metric: Metric, count: int, *labels: str | int) -> None:
        if count < 0:
            raise ValueError(f"{metric.name} cannot fall: {count} was to be added")
        process_store().add(Series(metric.name, (self._name, *labels)), count)

    def _observe(self, metric: Metric, value: float, count: int, label: str) -> None:
        # In this order max() makes 0 of a NaN, which would be in the sum for ever.
        process_store().observe(Series(metric.name, (self._name, label)), metric.bounds, max(0.0, value), count)

    def _set(self, metric: Metric, value: float, label: str | int) -> None:
        process_store().set(Series(metric.name, (self._name, label)), value)


UNNAMED = PipelineMonitor("unnamed")
"""Of transforms that are used outside of our pipelines."""
