"""The quality of a stream, a minute of the log at a time: a sample of its records is judged by the dataset's suite.

A minute is one of the partition's Kafka time, the highest timestamp of a record so far; it is over when the first
record of a later one comes.  Its sample are the valid records at every n-th offset, n by the number of the minute
before: some SAMPLE of them, spread over the minute.  So all is a function of the log, however it was batched.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import ReadModifyWriteRuntimeState, ReadModifyWriteStateSpec
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import (
    DEAD_LETTERS,
    QUALITY,
    RAW,
    Span,
    empty,
    from_bytes,
    joined,
    span_of,
    to_bytes,
    with_span,
)
from beam_pipelines.transforms.completeness import CHECKS, MINUTE_MS, Check, Completeness, log_times
from beam_pipelines.transforms.monitor import PipelineMonitor
from beam_pipelines.transforms.quality_kernels import judge
from beam_pipelines.transforms.quality_result import Failure, Quality, Window
from beam_pipelines.transforms.quality_suites import Suite
from beam_pipelines.transforms.sessions import DEFAULT, Calendars
from beam_pipelines.transforms.ticks import decode

__all__ = ["SAMPLE", "JudgeMinutes", "Minute", "Minutes", "QualityRules", "Samples", "row_of", "rows_of", "tell_scores"]

SAMPLE = 1_000
"""Records of a minute that are judged, about."""

_HELD = 8_192  # records that wait to be counted
_MOST = 4 * SAMPLE  # where a minute has many more than the one before

Ints = NDArray[np.int64]


class QualityRules(NamedTuple):
    """By what a stream is judged."""

    suite: Suite
    calendars: Calendars = DEFAULT


class Minute(NamedTuple):
    """A minute that is over, or as far as it has come."""

    start: int  # ms of Kafka time
    records: int  # valid ones
    sample: pa.RecordBatch | None  # of them; None: there are none


class Samples:
    """A sample of the open minute of a partition."""

    def __init__(self) -> None:
        self.clock = -1  # Kafka time so far, ms
        self._every, self._records = 1, 0
        self._sample: list[pa.RecordBatch] = []

    def take(self, rows: pa.RecordBatch, times: Ints, clock: int) -> list[Minute]:
        """Takes in the next valid records; gives the minutes that are over.

        Args:
          rows: with their `offset`, in its order.
          times: the Kafka time of the partition at each of them, ms; shape [rows].
          clock: the same after them, and after records that are not valid.
        """
        ended = []
        minutes = times // MINUTE_MS
        for minute in np.unique(minutes).tolist():
            ended += self._moved(minute)
            first, last = np.searchsorted(minutes, [minute, minute + 1]).tolist()
            self._add(rows.slice(first, last - first))
        ended += self._moved(clock // MINUTE_MS)
        self.clock = clock
        return ended

    def _moved(self, minute: int) -> list[Minute]:
        """Begins a minute; gives the one before if it is over and had records."""
        if minute == self.clock // MINUTE_MS:
            return []
        ended = [self.open()] if self._records else []
        if ended:
            self._every, self._records, self._sample = max(1, self._records // SAMPLE), 0, []
        self.clock = minute * MINUTE_MS
        return ended

    def _add(self, rows: pa.RecordBatch) -> None:
        self._records += len(rows)
        room = _MOST - sum(map(len, self._sample))
        chosen = np.flatnonzero(rows["offset"].to_numpy() % self._every == 0)[:room]
        if len(chosen):
            self._sample.append(rows.take(pa.array(chosen)).replace_schema_metadata(None))

    def open(self) -> Minute:
        """The open minute as far as it has come."""
        self._sample = [joined(self._sample)] if self._sample else []
        return Minute(self.clock // MINUTE_MS * MINUTE_MS, self._records, self._sample[0] if self._sample else None)

    def encode(self) -> bytes:
        """The whole state; `decode` makes it again."""
        sample = self.open().sample
        marks = json.dumps({"clock": self.clock, "every": self._every, "records": self._records})
        columns = {"sample": pa.array([None if sample is None else to_bytes(sample)], pa.binary())}
        return to_bytes(pa.record_batch(columns).replace_schema_metadata({"state": marks}))

    @classmethod
    def decode(cls, encoded: bytes) -> "Samples":
        """The state that `encode` wrote."""
        whole, state = from_bytes(encoded), cls()
        marks = json.loads(whole.schema.metadata[b"state"])
        state.clock, state._every, state._records = marks["clock"], marks["every"], marks["records"]
        sample = whole["sample"][0].as_py()
        state._sample = [] if sample is None else [from_bytes(sample)]
        return state


class Held(NamedTuple):
    """Records that are not counted yet."""

    raw: pa.RecordBatch  # RAW
    ticks: pa.RecordBatch  # TICKS, the valid ones
    dead: pa.RecordBatch  # offset and reason of those that could not be used or came too late
    duplicates: Ints  # offsets
    late: Ints  # offsets

    @classmethod
    def of(
        cls, raw: pa.RecordBatch, ticks: pa.RecordBatch, dead: pa.RecordBatch | None, duplicates: Ints, late: Ints
    ) -> "Held":
        """What `Completeness.take` takes, without what it does not look at."""
        letters = _NO_LETTERS if dead is None else dead.select(_NO_LETTERS.schema.names)
        return cls(raw.select(RAW.names), ticks, letters.replace_schema_metadata(None), duplicates, late)

    def encode(self) -> bytes:
        """All of it but the ticks, which are in the raw records."""
        marks = {"duplicates": self.duplicates.tolist(), "late": self.late.tolist(), "dead": self.dead.to_pydict()}
        return to_bytes(self.raw.replace_schema_metadata({"held": json.dumps(marks)}))

    @classmethod
    def decode(cls, encoded: bytes, max_future_ms: int) -> "Held":
        """What `encode` wrote."""
        raw = from_bytes(encoded)
        marks = json.loads(raw.schema.metadata[b"held"])
        ticks = decode(with_span(raw, Span("", -1, 0, 0)), max_future_ms).ticks
        dead = pa.RecordBatch.from_pydict(marks["dead"], _NO_LETTERS.schema)
        duplicates, late = (np.array(marks[name], np.int64) for name in ("duplicates", "late"))
        return cls(raw.replace_schema_metadata(None), ticks, dead, duplicates, late)


_NO_LETTERS = empty(pa.schema([DEAD_LETTERS.field("offset"), DEAD_LETTERS.field("reason")]))


class Minutes:
    """What the quality of a partition of ticks is judged by: a sample, and what is missing.

    Counting costs milliseconds however few the records are, so they are held until there are many or a minute is over.

    Args:
      rules: by what.
      partition: of the log.
    """

    def __init__(self, rules: QualityRules, partition: int) -> None:
        self._rules, self._partition = rules, partition
        self._told = -1  # the minute up to which `idle` has told; whoever begins anew tells it again
        self._samples, self._completeness = Samples(), Completeness(rules.calendars)
        self._held: list[Held] = []
        self._waiting, self._clock = 0, -1  # records held, and Kafka time with them, ms
        self._saved: int | None = 0  # how many of those held are durable; None: the counts are not

    def take(
        self, raw: pa.RecordBatch, ticks: pa.RecordBatch, dead: pa.RecordBatch | None, duplicates: Ints, late: Ints
    ) -> pa.RecordBatch:
        """Takes in the next records, as `Completeness.take` does; gives QUALITY of the minutes that they end."""
        before = self._clock // MINUTE_MS
        self._hold(Held.of(raw, ticks, dead, duplicates, late))
        if self._waiting >= _HELD or self._clock // MINUTE_MS > before:
            return self._counted()
        return empty(QUALITY)

    def _hold(self, held: Held) -> None:
        self._held.append(held)
        self._waiting += len(held.raw)
        self._clock = max(self._clock, int(log_times(held.raw, held.ticks).max(initial=-1)))

    def _counted(self) -> pa.RecordBatch:
        """Counts what is held; gives QUALITY of the minutes that are over."""
        if not self._held:
            return empty(QUALITY)
        raw, ticks, dead = (joined([it[place] for it in self._held]) for place in range(3))
        duplicates, late = (np.concatenate([it[place] for it in self._held]) for place in (3, 4))
        self._held, self._waiting, self._saved = [], 0, None
        times = np.maximum.accumulate(np.maximum(log_times(raw, ticks), self._samples.clock))
        at = np.searchsorted(raw["offset"].to_numpy(), ticks["offset"].to_numpy())
        ended = self._samples.take(ticks, times[at], int(times.max(initial=self._samples.clock)))
        checks = self._completeness.take(raw, ticks, dead, duplicates, late)
        return rows_of(self._rules.suite, self._partition, ended, checks)

    def so_far(self) -> pa.RecordBatch:
        """QUALITY of what is over, and of the open minute; what comes later takes the place of that."""
        over = self._counted()
        return joined([over, rows_of(self._rules.suite, self._partition, [self._samples.open()])])

    def idle(self, idle_ms: int) -> pa.RecordBatch:
        """QUALITY if nothing came for so long that the open minute is over; once for each minute that passes so."""
        self._counted()  # no minute ends by it
        now = self._samples.clock + idle_ms
        if now // MINUTE_MS <= max(self._told, self._samples.clock // MINUTE_MS):
            return empty(QUALITY)
        self._told = now // MINUTE_MS
        checks = self._completeness.idle(now)
        return rows_of(self._rules.suite, self._partition, [self._samples.open()], checks)

    def unsaved(self) -> tuple[bytes | None, list[bytes]]:
        """What has to be written down: all that is counted, or None if it is; and what is held beside it and new."""
        counts = self.encode() if self._saved is None else None
        held = [it.encode() for it in self._held[self._saved or 0 :]]
        self._saved = len(self._held)
        return counts, held

    def encode(self) -> bytes:
        """What is counted."""
        parts = {"samples": self._samples.encode(), "completeness": self._completeness.encode()}
        return to_bytes(pa.record_batch({name: pa.array([part], pa.binary()) for name, part in parts.items()}))

    @classmethod
    def decode(
        cls,
        counts: bytes | None,
        held: Iterable[bytes],
        rules: QualityRules,
        partition: int,
        max_future_ms: int,
    ) -> "Minutes":
        """What `unsaved` gave: the last counts, None if there are none yet, and all that was held since."""
        state = cls(rules, partition)
        if counts is not None:
            parts = from_bytes(counts)
            state._samples = Samples.decode(parts["samples"][0].as_py())
            state._completeness = Completeness.decode(parts["completeness"][0].as_py(), rules.calendars)
        state._clock = state._samples.clock
        for records in held:
            state._hold(Held.decode(records, max_future_ms))
        state._saved = len(state._held)
        return state


def rows_of(suite: Suite, partition: int, minutes: Sequence[Minute], checks: Iterable[Check] = ()) -> pa.RecordBatch:
    """QUALITY, one row a minute; minutes in which nothing came have one if that is odd."""
    failed: dict[int, list[Check]] = {}
    for check in checks:
        if not check.passed:
            failed.setdefault(check.window, []).append(check)
    known = {minute.start: minute for minute in minutes if minute.records}
    starts = sorted(known.keys() | failed.keys())
    rows = []
    for start in starts:
        minute, window = known.get(start, Minute(start, 0, None)), Window(start, start + MINUTE_MS)
        quality = None if minute.sample is None else judge(suite, minute.sample, window)
        rows.append(row_of(suite, window, partition, minute.records, quality, failed.get(start, [])))
    return pa.RecordBatch.from_pylist(rows, QUALITY)


def row_of(
    suite: Suite,
    window: Window,
    partition: int,
    records: int,
    quality: Quality | None,
    failed: Iterable[Check] = (),
) -> dict[str, Any]:
    """A row of QUALITY; None: there was nothing to judge."""
    return {
        "dataset": suite.dataset,
        "time": window.start,
        "window_seconds": (window.end - window.start) // 1000,
        "partition": partition,
        "records": records,
        "sampled": quality.rows if quality else 0,
        "score": quality.score if quality else None,
        "expectations": quality.expectations if quality else 0,
        "failures": list(_sentences(quality.failures)) if quality else [],
        "incidents": [f"{check.name}: {check.detail}" for check in failed],
    }


def _sentences(failures: Iterable[Failure]) -> Iterator[str]:
    for it in failures:
        about = it.expectation + (f" of {it.column}" if it.column else "")
        count = "" if it.unexpected is None else f": {it.unexpected} values ({it.share:.1%})"
        examples = f", such as {', '.join(map(str, it.examples))}" if it.examples else ""
        yield f"{about}{count}{examples}{f'; {it.detail}' if it.detail else ''}"


class JudgeMinutes(beam.PTransform):
    """(partition, batch with span) of any dataset, unbounded, to PCollection[RecordBatch QUALITY]; for few records.

    Batches have `offset` and `log_time`.  What is missing or not as usual is not told: for that is `Minutes`.

    Args:
      suite: by what.
      monitor: takes down the scores.
    """

    def __init__(self, suite: Suite, monitor: PipelineMonitor) -> None:
        super().__init__()
        self._suite, self._monitor = suite, monitor

    def expand(self, batches: beam.PCollection) -> beam.PCollection:  # noqa: D102
        return batches | "Minutes" >> beam.ParDo(_JudgeDoFn(self._suite, self._monitor)).with_output_types(
            pa.RecordBatch
        )


class _JudgeDoFn(beam.DoFn):
    """Keyed by partition, whose batches come in order."""

    SAMPLES = ReadModifyWriteStateSpec("samples", BytesCoder())

    def __init__(self, suite: Suite, monitor: PipelineMonitor) -> None:
        self._suite, self._monitor = suite, monitor

    def process(
        self,
        element: tuple[int, pa.RecordBatch],
        kept: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(SAMPLES),
    ) -> Iterator[pa.RecordBatch]:
        partition, batch = element
        before = kept.read()
        samples = Samples.decode(before) if before else Samples()
        if span_of(batch).idle_ms:
            over = samples.clock // MINUTE_MS < (samples.clock + span_of(batch).idle_ms) // MINUTE_MS
            ended = [samples.open()] if over else []
        else:
            times = np.maximum.accumulate(np.maximum(batch["log_time"].to_numpy(), samples.clock))
            ended = samples.take(batch, times, int(times.max(initial=samples.clock)))
            kept.write(samples.encode())
        rows = rows_of(self._suite, partition, ended)
        tell_scores(self._monitor, rows)
        if len(rows):
            yield rows


def tell_scores(monitor: PipelineMonitor, rows: pa.RecordBatch) -> None:
    """Takes down the scores and incidents of QUALITY."""
    for row in rows.select(["dataset", "score", "incidents"]).to_pylist():
        if row["score"] is not None:
            monitor.update_data_quality(row["dataset"], row["score"])
        counts = Counter(incident.partition(":")[0] for incident in row["incidents"])
        for check in CHECKS:
            monitor.record_incidents(row["dataset"], check, counts[check])
