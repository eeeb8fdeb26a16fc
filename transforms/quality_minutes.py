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
import msgspec
import numpy as np
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import ReadModifyWriteRuntimeState, ReadModifyWriteStateSpec
from numpy.typing import NDArray

from beam_pipelines.transforms.batches import (
    QUALITY,
    TICKS,
    empty,
    from_bytes,
    joined,
    span_of,
    to_bytes,
    to_fewer_bytes,
)
from beam_pipelines.transforms.completeness import CHECKS, MINUTE_MS, Check, Completeness
from beam_pipelines.transforms.completeness.pieces import LETTERS, OTHERS, TICK_COLUMNS, VALUES, Piece, offsets_of
from beam_pipelines.transforms.completeness.schemas import first_of_each
from beam_pipelines.transforms.monitor import PipelineMonitor
from beam_pipelines.transforms.quality_kernels import judge
from beam_pipelines.transforms.quality_result import Failure, Quality, Window
from beam_pipelines.transforms.quality_suites import Suite
from beam_pipelines.transforms.sessions import DEFAULT, Calendars

__all__ = ["SAMPLE", "JudgeMinutes", "Minute", "Minutes", "QualityRules", "Samples", "row_of", "rows_of", "tell_scores"]

SAMPLE = 1_000
"""Records of a minute that are judged, about."""

_HELD = 32_768  # records that wait to be counted
_WRITTEN = 8_192  # of them written down as they are, at a time; what is counted of more is fewer bytes
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
        self._sampled = 0

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
            of_minute = rows.slice(first, last - first)
            self.add(len(of_minute), self.chosen(of_minute))
        ended += self._moved(clock // MINUTE_MS)
        self.clock = clock
        return ended

    def _moved(self, minute: int) -> list[Minute]:
        """Begins a minute; gives the one before if it is over and had records."""
        if minute == self.clock // MINUTE_MS:
            return []
        ended = [self.open()] if self._records else []
        if ended:
            self._every = max(1, self._records // SAMPLE)
            self._records, self._sample, self._sampled = 0, [], 0
        self.clock = minute * MINUTE_MS
        return ended

    def chosen(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Those of the next records of the open minute that the sample gains."""
        room = _MOST - self._sampled
        chosen = np.flatnonzero(rows["offset"].to_numpy() % self._every == 0)[:room]
        return rows.take(pa.array(chosen)).replace_schema_metadata(None)

    def add(self, records: int, sample: pa.RecordBatch) -> None:
        """Takes in records of the open minute of which these were chosen."""
        self._records += records
        if len(sample):
            self._sample.append(sample)
            self._sampled += len(sample)

    def open(self) -> Minute:
        """The open minute as far as it has come."""
        self._sample = [joined(self._sample)] if self._sample else []
        return Minute(self.clock // MINUTE_MS * MINUTE_MS, self._records, self._sample[0] if self._sample else None)

    def encode(self) -> bytes:
        """The whole state; `decode` makes it again."""
        sample = self.open().sample
        marks = json.dumps({"clock": self.clock, "every": self._every, "records": self._records})
        columns = {"sample": pa.array([None if sample is None else to_fewer_bytes(sample)], pa.binary())}
        return to_bytes(pa.record_batch(columns).replace_schema_metadata({"state": marks}))

    @classmethod
    def decode(cls, encoded: bytes) -> "Samples":
        """The state that `encode` wrote."""
        whole, state = from_bytes(encoded), cls()
        marks = json.loads(whole.schema.metadata[b"state"])
        state.clock, state._every, state._records = marks["clock"], marks["every"], marks["records"]
        sample = whole["sample"][0].as_py()
        if sample is not None:
            state.add(0, from_bytes(sample))
        return state


class Held(NamedTuple):
    """Records of the open minute that are not counted yet, and the sample that they bring."""

    piece: Piece
    sample: pa.RecordBatch  # TICKS

    def encode(self) -> bytes:
        """All of it; what the sample has in common with the piece is written once."""
        piece, sample = self
        rows = np.searchsorted(offsets_of(piece.ticks), offsets_of(sample))
        marks = {"duplicates": piece.duplicates.tolist(), "late": piece.late.tolist(), "rows": rows.tolist()}
        marks |= {"others": piece.others.to_pydict(), "dead": piece.dead.to_pydict()}
        parts = {"ticks": piece.ticks, "values": piece.values, "rest": sample.select(_REST)}
        columns = {name: pa.array([to_bytes(part)], pa.binary()) for name, part in parts.items() if len(part)}
        return to_bytes(pa.record_batch(columns).replace_schema_metadata({"held": msgspec.json.encode(marks)}))

    @classmethod
    def decode(cls, encoded: bytes) -> "Held":
        """What `encode` wrote."""
        whole = from_bytes(encoded)
        marks = json.loads(whole.schema.metadata[b"held"])
        parts = {name: from_bytes(column[0].as_py()) for name, column in zip(whole.schema.names, whole, strict=True)}
        ticks, values = parts.get("ticks", _NO_TICKS.select(TICK_COLUMNS)), parts.get("values", empty(VALUES))
        others, dead = (pa.RecordBatch.from_pydict(marks[it], of) for it, of in (("others", OTHERS), ("dead", LETTERS)))
        duplicates, late = (np.array(marks[name], np.int64) for name in ("duplicates", "late"))
        common, rest = ticks.take(pa.array(marks["rows"], pa.int64())), parts.get("rest", _NO_TICKS)
        sample = [(rest if name in _REST else common)[name] for name in TICKS.names]
        piece = Piece(ticks, others, dead, duplicates, late, values)
        return cls(piece, pa.RecordBatch.from_arrays(sample, schema=TICKS))


_NO_TICKS = empty(TICKS)
_REST = [name for name in TICKS.names if name not in TICK_COLUMNS]  # what only a sample has


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
        self._waiting = 0  # records that are held
        self._valued = Counter[str]()  # those of them with their bytes, by source
        self._saved: int | None = 0  # how many of those held are durable; None: the counts are not

    def take(
        self, raw: pa.RecordBatch, ticks: pa.RecordBatch, dead: pa.RecordBatch | None, duplicates: Ints, late: Ints
    ) -> pa.RecordBatch:
        """Takes in the next records, as `Piece.of` does; gives QUALITY of the minutes that they end."""
        piece = Piece.of(raw, ticks, dead, duplicates, late)
        offsets, times = piece.times()
        clock = int(times.max(initial=self._samples.clock))
        if clock // MINUTE_MS == self._samples.clock // MINUTE_MS and self._waiting + piece.records < _HELD:
            self._hold(Held(self._lean(piece), self._samples.chosen(ticks)))
            return empty(QUALITY)
        times = np.maximum.accumulate(np.maximum(times, self._samples.clock))
        ended = self._samples.take(ticks, times[np.searchsorted(offsets, offsets_of(ticks))], clock)
        return rows_of(self._rules.suite, self._partition, ended, self._counted(piece))

    def _lean(self, piece: Piece) -> Piece:
        """The piece with the bytes of those records alone that may be looked at."""
        wanted = self._completeness.wants_values
        ticks = first_of_each(piece.ticks["source"], self._valued) if wanted else np.empty(0, np.int64)
        if not len(ticks):
            return piece._replace(values=piece.values.slice(0, 0))
        rows = np.searchsorted(offsets_of(piece.values), offsets_of(piece.ticks)[ticks])
        return piece._replace(values=piece.values.take(pa.array(rows)))

    def _hold(self, held: Held) -> None:
        self._held.append(held)
        self._waiting += held.piece.records
        self._samples.add(len(held.piece.ticks), held.sample)
        self._samples.clock = int(held.piece.times()[1].max(initial=self._samples.clock))

    def _counted(self, *more: Piece) -> list[Check]:
        """Counts what is held, and more; gives the checks of the minutes that are over."""
        pieces = [*(it.piece for it in self._held), *more]
        if not pieces:
            return []
        self._held, self._waiting, self._saved = [], 0, None
        self._valued.clear()
        return self._completeness.take(Piece.joined(pieces))

    def so_far(self) -> pa.RecordBatch:
        """QUALITY of the open minute; what comes later takes its place."""
        return rows_of(self._rules.suite, self._partition, [self._samples.open()])

    def idle(self, idle_ms: int) -> pa.RecordBatch:
        """QUALITY if nothing came for so long that the open minute is over; once for each minute that passes so."""
        now = self._samples.clock + idle_ms
        if now // MINUTE_MS <= max(self._told, self._samples.clock // MINUTE_MS):
            return empty(QUALITY)
        self._told = now // MINUTE_MS
        self._counted()  # no minute ends by it
        checks = self._completeness.idle(now)
        return rows_of(self._rules.suite, self._partition, [self._samples.open()], checks)

    def unsaved(self) -> tuple[bytes | None, list[bytes]]:
        """What has to be written down: all that is counted, or None if it is; and what is held beside it and new."""
        new = self._held[self._saved or 0 :]
        if self._saved is None or sum(it.piece.records for it in new) > _WRITTEN:
            self._counted()  # the sample has what is held, too
            self._saved = 0
            return self.encode(), []
        self._saved = len(self._held)
        return None, [it.encode() for it in new]

    def encode(self) -> bytes:
        """What is counted."""
        parts = {"samples": self._samples.encode(), "completeness": self._completeness.encode()}
        return to_bytes(pa.record_batch({name: pa.array([part], pa.binary()) for name, part in parts.items()}))

    @classmethod
    def decode(cls, counts: bytes | None, held: Iterable[bytes], rules: QualityRules, partition: int) -> "Minutes":
        """What `unsaved` gave: the last counts, None if there are none yet, and all that was held since."""
        state = cls(rules, partition)
        if counts is not None:
            parts = from_bytes(counts)
            state._samples = Samples.decode(parts["samples"][0].as_py())
            state._completeness = Completeness.decode(parts["completeness"][0].as_py(), rules.calendars)
        for records in held:
            state._hold(Held.decode(records))
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
