"""Anomalies as rows, with a sentence each."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.anomalies import KINDS, Found, Rows
from beam_pipelines.transforms.batches import ANOMALIES, empty

__all__ = ["anomaly_rows", "explanations"]


def anomaly_rows(
    told: Sequence[tuple[Found, Rows]], symbols: Sequence[str], bar_ms: int, log: pa.RecordBatch
) -> pa.RecordBatch:
    """ANOMALIES in the order of the log.

    Args:
      told: what was found, and for each the row of `log` at which it showed.
      symbols: name of each column.
      bar_ms: length of the bars, ms.
      log: TICKS.
    """
    told = [(found, rows) for found, rows in told if len(found)]
    if not told:
        return empty(ANOMALIES)
    found = {field.name: np.concatenate([getattr(part, field.name) for part, _ in told]) for field in fields(Found)}
    at = np.concatenate([rows for _, rows in told])
    order = np.lexsort((found["kind"], found["symbol"], found["start"], at))
    ordered, record = Found(**{name: values[order] for name, values in found.items()}), log.take(pa.array(at[order]))
    columns = {
        "symbol": pa.array([symbols[column] for column in ordered.symbol], pa.string()).dictionary_encode(),
        "time": ordered.start,
        "bar_seconds": np.full(len(order), bar_ms // 1000),
        "kind": pa.DictionaryArray.from_arrays(pa.array(ordered.kind, pa.int32()), pa.array(KINDS)),
        **{name: getattr(ordered, name) for name in ("score", "threshold", "value", "reference")},
        "explanation": explanations(ordered),
        "detected_at": record["log_time"],
        "partition": record["partition"],
        "offset": record["offset"],
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, ANOMALIES.field(name).type)
        for name, values in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ANOMALIES)


class _Case(NamedTuple):
    """The numbers of a sentence."""

    value: float
    reference: float
    score: float
    bars: int

    def far(self) -> str:
        """How far, and in which direction."""
        return f"{self.score:.1f} robust standard deviations {'above' if self.value > self.reference else 'below'}"


def explanations(found: Found) -> list[str]:
    """A sentence for each, in English."""
    columns = (found.kind, found.value, found.reference, found.score, found.bars)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [_SENTENCES[kind](_Case(*numbers)) for kind, *numbers in rows]


def _number(value: float) -> str:
    """The shortest decimal of at most eight places, as in tables, without an exponent."""
    return np.format_float_positional(round(value, 8), trim="-")


def _short(value: float) -> str:
    """Six significant digits, for what was computed, without an exponent."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")


def _bars(count: int) -> str:
    return "1 bar" if count == 1 else f"{count} bars"


def _jump_sentence(case: _Case) -> str:
    expected = f"{_short(case.reference)}, the close expected from the last {_bars(case.bars)}"
    return f"close {_number(case.value)} is {case.far()} {expected}"


def _spike_sentence(case: _Case) -> str:
    usual = f"the usual {case.reference:.0f} of the last {_bars(case.bars)}, in logarithms"
    return f"volume {case.value:.0f} is {case.far()} {usual}"


def _stale_sentence(case: _Case) -> str:
    moved = f"it moved in {case.reference:.0%} of the {_bars(case.bars)} before"
    return f"price {_number(case.value)} has not moved for {_bars(int(case.score))}, but {moved}"


def _crash_sentence(case: _Case) -> str:
    fall = (
        f"{1 - case.value / case.reference:.1%} below the close {_number(case.reference)} of {_bars(case.bars)} before"
    )
    return f"low {_number(case.value)} is {fall}, a fall of {case.score:.1f} robust standard deviations"


def _recovery_sentence(case: _Case) -> str:
    crash = f"the flash crash from {_number(case.reference)}, {_bars(case.bars)} after that was told"
    return f"close {_number(case.value)} makes good {case.score:.0%} of {crash}"


def _crossed_sentence(case: _Case) -> str:
    return f"bid {_number(case.value)} is above ask {_number(case.reference)}"


def _locked_sentence(case: _Case) -> str:
    return f"bid and ask are both {_number(case.value)}"


def _blowout_sentence(case: _Case) -> str:
    usual = f"the usual {_short(case.reference)} bps of the last {_bars(case.bars)}"
    return f"spread of {_short(case.value)} bps is {case.far()} {usual}"


def _off_market_sentence(case: _Case) -> str:
    if case.bars:
        reference = f"the close {_number(case.reference)} of {_bars(case.bars)} before"
    else:
        reference = f"its own {'ask' if case.value > case.reference else 'bid'} {_number(case.reference)}"
    return f"price {_number(case.value)} is {case.far()} {reference}"


_SENTENCES: tuple[Callable[[_Case], str], ...] = (
    _jump_sentence,
    _spike_sentence,
    _stale_sentence,
    _crash_sentence,
    _recovery_sentence,
    _crossed_sentence,
    _locked_sentence,
    _blowout_sentence,
    _off_market_sentence,
)
