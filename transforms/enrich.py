"""Enrichment of raw records: decode, then advance the partition's kernel; one step, two drivers.

Unbounded, a stateful DoFn keyed by partition polls the log and takes each batch as it comes: records never cross from
one stage to another, and the place in the log is part of the same state as what was made of it.  Bounded, the batches
of a partition are grouped and put in the order of their offsets (runners do not order the values of a key).
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import (
    BagRuntimeState,
    BagStateSpec,
    ReadModifyWriteRuntimeState,
    ReadModifyWriteStateSpec,
)
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.advance import FOREVER, Advanced, Semantics, advance, provisional
from beam_pipelines.transforms.batches import (
    MANY,
    PLACE_CODER,
    TICKS,
    Place,
    Span,
    empty,
    from_bytes,
    span_of,
    to_bytes,
    with_span,
)
from beam_pipelines.transforms.closing_state import ClosingState, no_prior
from beam_pipelines.transforms.copies import first_copies
from beam_pipelines.transforms.dead_letters import by_reason, counted, dead_letters
from beam_pipelines.transforms.duplicates import Identities
from beam_pipelines.transforms.gather import Gather
from beam_pipelines.transforms.monitor import UNNAMED, PipelineMonitor
from beam_pipelines.transforms.packing import packed
from beam_pipelines.transforms.partition_state import NEVER, Changes, EncodedState, PartitionState
from beam_pipelines.transforms.quality_minutes import Minutes, QualityRules, tell_scores
from beam_pipelines.transforms.ticks import Decoded, decode
from beam_pipelines.transforms.typed import of_type

__all__ = [
    "ANOMALIES_TAG",
    "BARS_TAG",
    "DEAD_LETTERS_TAG",
    "QUALITY_TAG",
    "TICKS_TAG",
    "VALID_TAG",
    "EnrichTicks",
    "Enriched",
    "judge_step",
    "take_step",
]

TICKS_TAG, BARS_TAG, ANOMALIES_TAG, QUALITY_TAG = "ticks", "bars", "anomalies", "quality"
DEAD_LETTERS_TAG, VALID_TAG = "dead_letters", "valid"

_SEEN_SLACK = 65_536  # identities that may be appended beyond twice the live ones before the bag is written anew
_BARS_A_SYMBOL = 8  # bars that may be appended before what they add to is written anew: fewer bytes than that has
_NOT_WRITTEN = 2**62  # appended to what was never written


class Step(NamedTuple):
    """What one batch of raw records gave."""

    ticks: pa.RecordBatch  # ENRICHED
    bars: pa.RecordBatch  # BARS
    anomalies: pa.RecordBatch  # ANOMALIES
    dead_letters: pa.RecordBatch | None  # DEAD_LETTERS
    valid: pa.RecordBatch  # TICKS: all valid ticks, late and repeated ones too
    dropped: dict[str, int]  # records by why they are in no other output
    gained: Changes  # what the state gained
    read: pa.RecordBatch  # RAW: the records, less those that were copied before
    repeated: NDArray[np.int64]  # offsets of duplicates


def take_step(state: PartitionState, raw: pa.RecordBatch, semantics: Semantics) -> Step:
    """Decodes the next records of a partition and advances its state, which is changed in place."""
    count = len(raw)
    if "copied_from" in raw.schema.names:
        raw = first_copies(raw, state.copied)
    decoded = decode(raw, semantics.max_future_ms)
    advanced = advance(state, decoded.ticks, semantics)
    dead = _dead_letters_of(raw, decoded, advanced)
    dropped = {"duplicates": len(advanced.duplicates), "before_begin": len(advanced.before_begin)}
    dropped["repeated_copies"] = count - len(raw)
    state.totals.update(_outcomes(count, advanced, dead, dropped))
    repeated = decoded.ticks["offset"].to_numpy()[advanced.duplicates]
    told = advanced.ticks, advanced.bars, advanced.anomalies
    return Step(*told, dead, decoded.ticks, dropped, state.drain(), raw, repeated)


_DEAD = "dead_letter "  # and the reason
_STATUSES = {  # by what totals call them
    "success": "success",
    "duplicates": "duplicate",
    "before_begin": "before_begin",
    "repeated_copies": "repeated_copy",
}


def _outcomes(
    records: int, advanced: Advanced, dead: pa.RecordBatch | None, dropped: Mapping[str, int]
) -> dict[str, int]:
    """How many records became what; `late` ones are among `success`."""
    lost = {f"{_DEAD}{reason}": count for reason, count in by_reason(dead).items()}
    success = records - sum(dropped.values()) - sum(lost.values())
    return {"success": success, "late": advanced.ticks["late"].true_count, **dropped, **lost}


def _dead_letters_of(raw: pa.RecordBatch, decoded: Decoded, advanced: Advanced) -> pa.RecordBatch | None:
    """The records that cannot be used: invalid ones and those that come too late, in offset order."""
    rejects = decoded.rejects
    if not len(rejects.rows) and not len(advanced.too_late):
        return None
    valid = np.delete(np.arange(len(raw)), rejects.rows)
    too_late = valid[advanced.too_late]
    rows = np.concatenate([rejects.rows, too_late]).astype(np.int64)
    reasons = [*rejects.reasons, *["too_late"] * len(too_late)]
    details = [
        *rejects.details,
        *(f"timestamp is {ms} ms behind the clock of its partition" for ms in advanced.behind_ms),
    ]
    order = np.argsort(rows)
    return dead_letters(raw, rows[order], [reasons[i] for i in order], [details[i] for i in order])


class Enriched(NamedTuple):
    """The outputs of `EnrichTicks`, collections of record batches."""

    ticks: beam.PCollection  # ENRICHED
    bars: beam.PCollection  # BARS
    anomalies: beam.PCollection  # ANOMALIES
    quality: beam.PCollection  # QUALITY
    dead_letters: beam.PCollection  # DEAD_LETTERS
    valid: beam.PCollection  # (partition, TICKS with span), for the lake; unbounded, packed if they are many


class Records(Protocol):
    """A log that is polled from within a DoFn; `beam_pipelines.io.kafka.follow_kafka` makes one of a topic."""

    log_id: str

    def open(self) -> None:
        """For `setup`."""

    def begin_bundle(self) -> None:
        """For `start_bundle`."""

    def close(self) -> None:
        """For `teardown`."""

    def is_due(self, partition: int) -> bool:
        """Whether to poll now."""

    def start_of(self, partition: int) -> Place:
        """Where to begin."""

    def poll(self, partition: int, place: tuple[int, str]) -> Iterator[pa.RecordBatch]:
        """The RAW batches that are there now, from `place` on, or a heartbeat."""


class EnrichTicks(beam.PTransform):
    """(partition, RAW) batches, bounded, to `Enriched`; or, unbounded, (partition, 0) whenever it is to be polled.

    Args:
      semantics: the options that the meaning of the outputs depends on.
      records: what to poll; None: elements are the batches.
      prior: gives the closing state that a log begins with, once in each process of workers; None: nothing.
      monitor: takes down what became of the records, and when.
      quality: by what the log is judged; None: it is not.
    """

    def __init__(
        self,
        semantics: Semantics,
        records: Records | None = None,
        prior: Callable[[], ClosingState] | None = None,
        monitor: PipelineMonitor = UNNAMED,
        quality: QualityRules | None = None,
    ) -> None:
        super().__init__()
        self._monitor, self._quality = monitor, quality
        self._semantics = semantics
        self._records = records
        self._prior = prior or no_prior

    def expand(self, elements: beam.PCollection) -> Any:  # noqa: D102  (Beam warns of hints other than collections)
        if self._records is None:
            checked = elements | "CheckKeys" >> _CheckKeys(self._semantics.max_future_ms)
            elements = elements | "ByPartition" >> Gather(int)
            driver = _BoundedDriver(self._semantics, self._prior, self._monitor, self._quality)
            advance = beam.ParDo(driver, beam.pvalue.AsIter(checked))
        else:
            follow = _UnboundedDriver(self._semantics, self._prior, self._monitor, self._quality, self._records)
            advance = beam.ParDo(follow)
        outputs = elements | "Advance" >> advance.with_outputs(*Enriched._fields)
        valid = of_type(outputs[VALID_TAG], tuple[int, pa.RecordBatch])
        if self._records is not None:
            valid |= "Valid" >> beam.Map(_packed).with_output_types(tuple[int, pa.RecordBatch])
        batches = {tag: of_type(outputs[tag], pa.RecordBatch) for tag in Enriched._fields[:-1]}
        return Enriched(**batches, valid=valid)


def _packed(element: tuple[int, pa.RecordBatch]) -> tuple[int, pa.RecordBatch]:
    """Many rows in half of their bytes or less: they cross to another stage, and wait there in state."""
    partition, ticks = element
    return partition, packed(ticks) if len(ticks) >= MANY else ticks


class _CheckKeys(beam.PTransform):
    """(partition, RAW) batches, bounded, to an empty collection; fails if a symbol has ticks in two partitions."""

    def __init__(self, max_future_ms: int) -> None:
        super().__init__()
        self._max_future_ms = max_future_ms

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        homes = beam.FlatMap(_homes, self._max_future_ms).with_output_types(tuple[str, tuple[str, int]])
        gathered = batches | "Homes" >> homes | "BySymbol" >> beam.CombinePerKey(beam.combiners.ToSetCombineFn())
        return gathered | "OneEach" >> beam.FlatMap(_check_home).with_output_types(None)


def _homes(element: tuple[int, pa.RecordBatch], max_future_ms: int) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each symbol of a batch, with the topic and partition."""
    span = span_of(element[1])
    for symbol in pc.unique(decode(element[1], max_future_ms).ticks["symbol"]).to_pylist():
        yield symbol, (span.topic, span.partition)


def _check_home(element: tuple[str, set[tuple[str, int]]]) -> Iterable[None]:
    symbol, homes = element
    (topic, partition), *others = sorted(homes)
    if others:
        raise UsageError(
            f"symbol {symbol} is in partitions {partition} and {others[0][1]} of topic {topic}, so its ticks have no "
            "order: have the topic written with the symbol as key, or read a copy of it with --repartition"
        )
    return ()


class _Driver(beam.DoFn):
    """What both drivers share: the closing state to begin with, outputs and counters."""

    def __init__(
        self,
        semantics: Semantics,
        prior: Callable[[], ClosingState],
        monitor: PipelineMonitor,
        quality: QualityRules | None,
    ) -> None:
        self._semantics = semantics
        self._monitor, self._quality = monitor, quality
        self._load_prior = prior
        self._shared_prior = Shared()
        names = ("ticks", "late", "duplicates", "before_begin", "repeated_copies", "bars", "records", "anomalies")
        self._counters = {name: Metrics.counter("market", name) for name in names}

    def setup(self) -> None:
        self._prior: ClosingState = self._shared_prior.acquire(self._load_prior)

    def _outputs(self, partition: int, raw: pa.RecordBatch, step: Step) -> Iterator[beam.pvalue.TaggedOutput]:
        self._counters["records"].inc(len(raw))
        for why, count in step.dropped.items():
            self._counters[why].inc(count)
        yield from self._emitted(step.ticks, step.bars)
        if len(step.anomalies):
            self._counters["anomalies"].inc(len(step.anomalies))
            yield beam.pvalue.TaggedOutput(ANOMALIES_TAG, step.anomalies)
        if step.dead_letters is not None:
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS_TAG, counted(step.dead_letters))
        yield beam.pvalue.TaggedOutput(VALID_TAG, (partition, with_span(step.valid, span_of(raw))))

    def _judged(self, rows: pa.RecordBatch) -> Iterator[beam.pvalue.TaggedOutput]:
        tell_scores(self._monitor, rows)
        if len(rows):
            yield beam.pvalue.TaggedOutput(QUALITY_TAG, rows)

    def _publish(self, span: Span, state: PartitionState) -> None:
        """Tells what became of a partition's records so far: a function of the log, so a restart counts none twice."""
        dead = {name.removeprefix(_DEAD): count for name, count in state.totals.items() if name.startswith(_DEAD)}
        statuses = {status: state.totals[name] for name, status in _STATUSES.items()}
        statuses["dead_letter"] = sum(dead.values())
        late, duplicates = state.totals["late"], state.totals["duplicates"]
        self._monitor.publish_totals(span.topic, span.partition, statuses, dead, late, duplicates)

    def _emitted(self, ticks: pa.RecordBatch, bars: pa.RecordBatch) -> Iterator[beam.pvalue.TaggedOutput]:
        if len(ticks):
            self._counters["ticks"].inc(len(ticks))
            self._counters["late"].inc(ticks["late"].true_count)
            yield beam.pvalue.TaggedOutput(TICKS_TAG, ticks)
        if len(bars):
            self._counters["bars"].inc(len(bars))
            yield beam.pvalue.TaggedOutput(BARS_TAG, bars)


class _BoundedDriver(_Driver):
    """All batches of a partition, in any order."""

    def process(
        self, element: tuple[int, Iterable[pa.RecordBatch]], _checked_before: Iterable[None]
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        partition, batches = element
        state, expected = PartitionState(self._semantics.bar_ms, self._prior), None
        minutes = Minutes(self._quality, partition) if self._quality else None
        for raw in sorted(batches, key=lambda batch: span_of(batch).first):
            expected = _checked(span_of(raw), expected)
            step = take_step(state, raw, self._semantics)
            yield from self._outputs(partition, raw, step)
            self._publish(span_of(raw), state)
            if minutes:
                yield from self._judged(judge_step(minutes, step))
        if minutes:
            yield from self._judged(minutes.so_far())
        rest = provisional(state, FOREVER, NEVER, self._semantics)
        yield from self._emitted(rest.ticks, rest.bars)


def judge_step(minutes: Minutes, step: Step) -> pa.RecordBatch:
    """QUALITY of the minutes that a step ends."""
    late = step.ticks["offset"].filter(step.ticks["late"]).to_numpy()
    return minutes.take(step.read, step.valid, step.dead_letters, step.repeated, late)


class _Appended(NamedTuple):
    """How much is in the bags."""

    seen: int = 0  # identities
    history: int = _NOT_WRITTEN  # bars and symbols
    usual: int = _NOT_WRITTEN  # bars


class _Known(NamedTuple):
    """A state in memory: a copy of the durable one as long as the offsets agree."""

    next: int
    state: PartitionState
    told: int  # up to where provisional rows were emitted, ms
    appended: _Appended
    minutes: Minutes | None  # by which the log is judged; None: it is not


class _KnownStates(dict[int, _Known]):
    """The states in memory of one job's partitions, for all bundles of this process: any may get any partition next."""


class _Large(NamedTuple):
    """A part that is too large to be written whenever it gains something."""

    whole: ReadModifyWriteRuntimeState
    since: BagRuntimeState  # what it gained after it was written whole


class _Parts(NamedTuple):
    """The parts of a partition's state in Beam's keeping."""

    open: ReadModifyWriteRuntimeState
    seen: BagRuntimeState
    history: _Large
    usual: _Large
    quality: ReadModifyWriteRuntimeState
    held: BagRuntimeState  # records that the quality is still to be counted of


class _UnboundedDriver(_Driver):
    """The records of a partition as they come, the state in Beam's keeping.

    The state in memory is used only where the durable offset equals its own: it is a function of the log up to there.
    """

    PLACE = ReadModifyWriteStateSpec("place", PLACE_CODER)
    OPEN = ReadModifyWriteStateSpec("open", BytesCoder())
    SEEN = BagStateSpec("seen", BytesCoder())
    HISTORY = ReadModifyWriteStateSpec("history", BytesCoder())
    HISTORY_SINCE = BagStateSpec("history_since", BytesCoder())
    USUAL = ReadModifyWriteStateSpec("usual", BytesCoder())
    USUAL_SINCE = BagStateSpec("usual_since", BytesCoder())
    QUALITY = ReadModifyWriteStateSpec("quality", BytesCoder())
    HELD = BagStateSpec("held", BytesCoder())

    def __init__(
        self,
        semantics: Semantics,
        prior: Callable[[], ClosingState],
        monitor: PipelineMonitor,
        quality: QualityRules | None,
        records: Records,
    ) -> None:
        super().__init__(semantics, prior, monitor, quality)
        self._records = records
        self._shared = Shared()

    def setup(self) -> None:
        super().setup()
        self._known: _KnownStates = self._shared.acquire(_KnownStates)
        self._records.open()

    def start_bundle(self) -> None:
        self._records.begin_bundle()

    def teardown(self) -> None:
        self._known.clear()  # also after a failed bundle, whose provisional rows may not have been written
        self._records.close()

    def process(
        self,
        element: tuple[int, int],
        place: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(PLACE),
        opened: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(OPEN),
        seen: BagRuntimeState = beam.DoFn.StateParam(SEEN),
        history: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(HISTORY),
        history_since: BagRuntimeState = beam.DoFn.StateParam(HISTORY_SINCE),
        usual: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(USUAL),
        usual_since: BagRuntimeState = beam.DoFn.StateParam(USUAL_SINCE),
        quality: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(QUALITY),
        held: BagRuntimeState = beam.DoFn.StateParam(HELD),
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        partition, _ = element
        if self._records.is_due(partition):
            durable = place.read()
            if durable is None:
                durable = self._records.start_of(partition)
                place.write(durable)
            known = self._known.pop(partition, None)  # put back only when all went well
            large = _Large(history, history_since), _Large(usual, usual_since)
            parts = _Parts(opened, seen, *large, quality, held)
            if known is None or known.next != durable[0]:
                known = self._restored(partition, durable[0], parts)
            known, gained = yield from self._polled(partition, durable, known)
            if known.next != durable[0]:
                known = _saved(known, gained, parts)
                place.write(Place(known.next, self._records.log_id))
            self._known[partition] = known

    def _polled(
        self, partition: int, place: tuple[int, str], known: _Known
    ) -> Generator[beam.pvalue.TaggedOutput, None, tuple[_Known, Changes]]:
        """Emits what the records bring that are there; gives the state after them, and what it gained."""
        gained: list[Changes] = []
        for raw in self._records.poll(partition, place):
            if span_of(raw).idle_ms:
                known = yield from self._idle(known, raw)
                continue
            began = time.perf_counter()
            step = take_step(known.state, raw, self._semantics)
            known = known._replace(next=_checked(span_of(raw), known.next), told=NEVER)
            gained.append(step.gained)
            yield from self._outputs(partition, raw, step)
            self._publish(span_of(raw), known.state)
            if known.minutes:
                yield from self._judged(judge_step(known.minutes, step))
            self._tell_times(raw, known.state, time.perf_counter() - began)
        seen, history, usual = (list(itertools.chain(*part)) for part in zip(Changes(), *gained, strict=True))
        return known, Changes(seen, history, usual)

    def _tell_times(self, raw: pa.RecordBatch, state: PartitionState, spent: float) -> None:
        """Tells how long a batch took, how old its records are by now, and how far the partition's clock is behind."""
        span, now, written = span_of(raw), time.time(), raw["timestamp"].to_numpy()
        self._monitor.record_processing_time("enrich", spent)
        self._monitor.record_end_to_end_latency("enrich", now - float(written.mean()) / 1000, len(raw))
        self._monitor.update_last_record(span.topic, int(written[-1]) / 1000)
        if state.newest > NEVER:
            clock = state.newest - self._semantics.out_of_orderness_ms
            self._monitor.update_watermark_lag(span.partition, now - clock / 1000)

    def _restored(self, partition: int, next_offset: int, parts: _Parts) -> _Known:
        newest = parts.open.read()
        if newest is None:
            state = PartitionState(self._semantics.bar_ms, self._prior)
            return _Known(next_offset, state, NEVER, _Appended(), self._restored_minutes(partition, parts))
        bags = parts.seen, parts.history.since, parts.usual.since
        seen, history, usual = (list(map(from_bytes, bag.read())) for bag in bags)
        since = Changes(list(map(Identities.from_batch, seen)), history, usual)
        encoded = EncodedState(newest, parts.history.whole.read(), [], parts.usual.whole.read())
        state = PartitionState.decode(encoded, self._semantics.bar_ms, self._prior, since)
        appended = _Appended(len(state.seen), sum(map(len, history)), sum(map(len, usual)))
        return _Known(next_offset, state, NEVER, appended, self._restored_minutes(partition, parts))

    def _restored_minutes(self, partition: int, parts: _Parts) -> Minutes | None:
        if self._quality is None:
            return None
        counts, held = parts.quality.read(), parts.held.read()
        return Minutes.decode(counts, held, self._quality, partition)

    def _idle(self, known: _Known, heartbeat: pa.RecordBatch) -> Generator[beam.pvalue.TaggedOutput, None, _Known]:
        """Emits what would be closed by now had the log gone on, and passes the heartbeat to the lake."""
        span = span_of(heartbeat)
        until = known.state.newest + span.idle_ms
        rest = provisional(known.state, until, known.told, self._semantics)
        yield from self._emitted(rest.ticks, rest.bars)
        if known.minutes:
            yield from self._judged(known.minutes.idle(span.idle_ms))
        yield beam.pvalue.TaggedOutput(VALID_TAG, (span.partition, with_span(empty(TICKS), span)))
        return known._replace(told=max(until, known.told))


def _saved(known: _Known, gained: Changes, parts: _Parts) -> _Known:
    """Makes the state durable, as it is after the records of a poll."""
    state, before = known.state, known.appended
    most = _BARS_A_SYMBOL * len(state.symbols)
    appended = _Appended(
        _save_seen(parts.seen, known, gained.seen),
        _save_large(parts.history, gained.history, before.history, most, state.encode_history),
        _save_large(parts.usual, gained.usual, before.usual, most, state.encode_usual),
    )
    parts.open.write(state.encode_open())
    if known.minutes:
        _save_minutes(known.minutes, parts)
    return known._replace(appended=appended)


def _save_large(
    part: _Large, gained: Sequence[pa.RecordBatch], before: int, most: int, encode: Callable[[], bytes]
) -> int:
    """Appends what a part gained, or writes it whole if that makes more than `most` rows; gives those appended."""
    appended = before + sum(map(len, gained))
    if appended > most:
        part.whole.write(encode())
        part.since.clear()
        return 0
    for batch in gained:
        part.since.add(to_bytes(batch))
    return appended


def _save_minutes(minutes: Minutes, parts: _Parts) -> None:
    counts, held = minutes.unsaved()
    if counts is not None:
        parts.quality.write(counts)
        parts.held.clear()
    for records in held:
        parts.held.add(records)


def _checked(span: Span, expected: int | None) -> int:
    """The offset after `span`, which must begin at `expected`."""
    if expected is not None and span.first != expected:
        raise ValueError(
            f"partition {span.partition} of {span.topic} goes on at offset {span.first}, not at {expected}: "
            "records are missing or repeated between reader and kernel"
        )
    return span.next


def _save_seen(bag: BagRuntimeState, known: _Known, added: Sequence[Identities]) -> int:
    """Appends new identities to the bag, or writes it anew when most of it is forgotten; gives its size."""
    appended = known.appended.seen + sum(map(len, added))
    if appended > 2 * len(known.state.seen) + _SEEN_SLACK:
        bag.clear()
        known.state.forget_sources()
        added = known.state.seen.identities()
        appended = len(known.state.seen)
    for identities in added:
        bag.add(to_bytes(identities.to_batch()))
    return appended
