"""Bars by plain Python, a tick at a time, for the peers that have nothing better."""

import csv
import pathlib
from collections.abc import Iterable
from typing import Any

Bar = list[Any]
"""First time, last time, open, high, low, close, volume, turnover, count; empty before the first tick."""

MINUTE_MS = 60_000


def add(bar: Bar, tick: dict[str, Any]) -> Bar:
    """The bar with the tick; those of a symbol come in the order of the log, which decides between equal times."""
    time, price, volume = tick["timestamp"], tick["price"], tick["volume"]
    if not bar:
        bar[:] = time, time, price, price, price, price, volume, price * volume, 1
        return bar
    if time < bar[0]:
        bar[0], bar[2] = time, price
    if time >= bar[1]:
        bar[1], bar[5] = time, price
    if price > bar[3]:
        bar[3] = price
    elif price < bar[4]:
        bar[4] = price
    bar[6] += volume
    bar[7] += price * volume
    bar[8] += 1
    return bar


class Bars(dict[tuple[str, int], Bar]):
    """Bars by symbol and minute."""

    def __missing__(self, key: tuple[str, int]) -> Bar:
        bar = self[key] = []
        return bar

    def add(self, ticks: Iterable[dict[str, Any]]) -> None:
        for tick in ticks:
            add(self[tick["symbol"], tick["timestamp"] // MINUTE_MS], tick)

    def write(self, folder: str) -> None:
        """Leaves them where they are looked for."""
        with pathlib.Path(folder, "bars.csv").open("w", newline="") as file:
            csv.writer(file).writerows(row_of(*key, bar) for key, bar in self.items())


def row_of(symbol: str, minute: int, bar: Bar) -> list[Any]:
    *prices, volume, turnover, count = bar[2:]
    return [symbol, minute * MINUTE_MS, *prices, volume, turnover / volume, count]
