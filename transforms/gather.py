"""Gather: record batches of one key together, whatever their size."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagRuntimeState, BagStateSpec, RuntimeTimer, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints import KV, Iterable

from beam_pipelines.transforms.batches import ArrowCoder
from beam_pipelines.transforms.typed import typed

__all__ = ["Gather"]


class Gather(beam.PTransform):
    """(key, RecordBatch), bounded and in no windows, to (key, Iterable[RecordBatch]).

    The same as GroupByKey, which Beam's portable Flink runner makes of a combiner that puts the values of a key
    in one record before it shuffles them: as soon as they fill a sort buffer of a few MB, that record fits in none.
    Here it is the batches that are shuffled.  The values of a key are in memory where they are processed, as there.

    Args:
      key: type of the keys, for their coder.
    """

    def __init__(self, key: Any) -> None:
        super().__init__()
        self._key = key

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """A bag for each key, given away at the end."""
        keyed = batches | "Keyed" >> typed(KV[self._key, pa.RecordBatch])
        together = beam.ParDo(_GatherDoFn()).with_output_types(KV[self._key, Iterable[pa.RecordBatch]])
        return keyed | "Together" >> together


class _GatherDoFn(beam.DoFn):
    """Keeps the batches of a key until there are no more."""

    HELD = BagStateSpec("held", ArrowCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(
        self,
        element: tuple[Any, pa.RecordBatch],
        held: BagRuntimeState = beam.DoFn.StateParam(HELD),
        end: RuntimeTimer = beam.DoFn.TimerParam(END),
    ) -> None:
        held.add(element[1])
        end.set(GlobalWindow().max_timestamp())

    @on_timer(END)
    def give(
        self,
        key: Any = beam.DoFn.KeyParam,
        held: BagRuntimeState = beam.DoFn.StateParam(HELD),
    ) -> Iterator[tuple[Any, list[pa.RecordBatch]]]:
        yield key, list(held.read())
        held.clear()
