"""What the peers made, and whether it is the same."""

import csv
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import psycopg


class Bar(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: int
    vwap: float
    trade_count: int


Bars = dict[tuple[str, int], Bar]
"""By symbol and start, ms."""


class OtherBarsError(Exception):
    """Two programs made different bars of the same ticks."""


def bars_in(folder: pathlib.Path) -> Bars:
    """Those that a peer left; files that are not CSV by name or by Flink's naming (part-...) are none of them."""
    bars = {}
    for path in sorted([*folder.glob("bars*"), *folder.glob("part-*")]):
        with path.open(newline="") as file:
            for symbol, start, *prices, volume, vwap, count in csv.reader(file):
                bars[symbol, int(start)] = Bar(*map(float, prices), int(volume), float(vwap), int(count))
    return bars


def final_bars(dsn: str) -> Bars:
    """Those in `market_bars_ts` that the log itself closed."""
    query = """
        SELECT symbol, (extract(epoch FROM time) * 1000)::bigint, open::float8, high::float8, low::float8,
               close::float8, volume, vwap::float8, trade_count
        FROM market_bars_ts WHERE is_final AND bar_seconds = 60"""
    with psycopg.connect(dsn) as connection:
        return {(symbol, start): Bar(*values) for symbol, start, *values in connection.execute(query)}


def check_same(expected: Mapping[tuple[str, int], Bar], found: Mapping[tuple[str, int], Bar], title: str) -> None:
    """Makes sure that `found` has all bars of `expected`, exactly but for the last digits of vwap.

    Raises:
      OtherBarsError: if it has not, or if nothing is expected.
    """
    if not expected:
        raise OtherBarsError(f"{title}: the ticks close no bar, so nothing was compared: give more of them")
    for key, bar in expected.items():
        other = found.get(key)
        if other is None or not _same(bar, other):
            raise OtherBarsError(f"{title}: {key} is {other} and should be {bar}")


def _same(a: Bar, b: Bar) -> bool:
    return a._replace(vwap=0) == b._replace(vwap=0) and math.isclose(a.vwap, b.vwap, rel_tol=1e-9)
