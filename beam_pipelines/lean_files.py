"""QuantConnect Lean's tick zips: one CSV file without a header, times in ms since local midnight.

https://www.quantconnect.com/docs/v2/lean-engine/data-format
"""

import datetime
import pathlib
import re
import zipfile
import zoneinfo
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from beam_pipelines.errors import UsageError

__all__ = ["ticks"]

_NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
_FXCM = datetime.timezone(datetime.timedelta(hours=-5))  # all year
_BATCH_ROWS = 32_768
_INNER_NAME = re.compile(r"(?P<date>\d{8})_(?P<symbol>[^_]+)_(?P<words>\w+)\.csv", re.IGNORECASE)
_Floats = npt.NDArray[np.float64]


def ticks(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    """The ticks of a trade or quote zip of tick resolution.

    `seq` is the number of the row, from 1; `source` the code of the exchange.  A quote is a tick without volume at the
    middle of the latest bid and ask.  The flag `suspicious` and the conditions are not used.

    Raises:
      UsageError: if the zip holds something else.
    """
    with zipfile.ZipFile(path) as archive:
        inner = archive.namelist()[0] if archive.namelist() else ""
        name = _INNER_NAME.fullmatch(inner)
        if name is None or "tick" not in name["words"].lower():
            raise UsageError(f"input file {path} is not a Lean tick zip: it holds {inner or 'nothing'}")
        with archive.open(inner) as file:
            options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
            rows = pyarrow.csv.read_csv(file, options).combine_chunks()
    layout = _LAYOUTS.get((("quote" in name["words"].lower()), rows.num_columns))
    if layout is None:
        raise UsageError(f"input file {path} is not a Lean tick zip: {inner} has {rows.num_columns} columns")
    common = {
        "symbol": pa.array([name["symbol"].upper()] * rows.num_rows),
        "timestamp": _utc(rows["f0"].to_numpy(), name["date"], layout.zone(path)),
    }
    table = pa.table({**common, **layout.fields(rows), "seq": np.arange(1, rows.num_rows + 1)})
    yield from table.to_batches(_BATCH_ROWS)


def _utc(since_midnight: npt.NDArray[np.int64], date: str, zone: datetime.tzinfo) -> npt.NDArray[np.int64]:
    """Wall-clock ms since midnight as ms UTC, with the offset of that day's noon (clocks change on Sunday nights)."""
    day = datetime.datetime.strptime(date, "%Y%m%d").replace(tzinfo=datetime.timezone.utc)
    offset = day.replace(hour=12, tzinfo=zone).utcoffset() or datetime.timedelta()
    return since_midnight + round((day.timestamp() - offset.total_seconds()) * 1000)


def _trades(rows: pa.Table) -> dict[str, object]:
    """ms, price x 10000, size, exchange, condition, suspicious."""
    return {
        "price": rows["f1"].to_numpy() / 10_000,
        "volume": rows["f2"].cast(pa.int64()),
        "source": _exchange(rows["f3"]),
    }


def _quotes(rows: pa.Table) -> dict[str, object]:
    """ms, bid x 10000, bid size, ask x 10000, ask size, exchange, condition, suspicious; 0: not that side."""
    bid, ask = rows["f1"].to_numpy(), rows["f3"].to_numpy()
    sides = {
        "bid": pa.array(bid / 10_000, mask=bid == 0),
        "ask": pa.array(ask / 10_000, mask=ask == 0),
        "bid_size": pa.array(rows["f2"].to_numpy(), mask=bid == 0),
        "ask_size": pa.array(rows["f4"].to_numpy(), mask=ask == 0),
    }
    return {"price": _middle(bid, ask) / 10_000, "volume": _none(rows), **sides, "source": _exchange(rows["f5"])}


def _currency_quotes(rows: pa.Table) -> dict[str, object]:
    """ms, bid, ask."""
    bid, ask = rows["f1"].to_numpy(), rows["f2"].to_numpy()
    return {"price": np.round(_middle(bid, ask), 8), "volume": _none(rows), "bid": bid, "ask": ask}


def _none(rows: pa.Table) -> npt.NDArray[np.int64]:
    return np.zeros(rows.num_rows, np.int64)


def _exchange(codes: pa.ChunkedArray) -> pa.ChunkedArray:
    """The exchange's code; Lean itself where a row names none."""
    text = codes.cast(pa.string()).fill_null("")
    return pc.if_else(pc.equal(text, ""), "lean", text)


def _middle(bid: _Floats, ask: _Floats) -> _Floats:
    """The middle of the latest bid and the latest ask; the one that is known before both are."""
    latest_bid, latest_ask = _latest(bid), _latest(ask)
    return np.where(latest_bid == 0, latest_ask, np.where(latest_ask == 0, latest_bid, (latest_bid + latest_ask) / 2))


def _latest(side: _Floats) -> _Floats:
    """Each value, or where it is 0 the last before that is not."""
    known = np.maximum.accumulate(np.where(side != 0, np.arange(len(side)), 0))
    return side[known]


def _new_york(_path: pathlib.Path) -> datetime.tzinfo:
    return _NEW_YORK


def _currency_zone(path: pathlib.Path) -> datetime.tzinfo:
    """FXCM's files are in UTC-5 all year, the other markets' in UTC; only the path tells which it is."""
    return _FXCM if "fxcm" in str(path.absolute()).lower() else datetime.timezone.utc


class _Layout(NamedTuple):
    """How the rows of one sort of file become ticks."""

    fields: Callable[[pa.Table], dict[str, object]]
    zone: Callable[[pathlib.Path], datetime.tzinfo]


_LAYOUTS = {  # by whether quotes, and number of columns
    (False, 6): _Layout(_trades, _new_york),
    (True, 8): _Layout(_quotes, _new_york),
    (True, 3): _Layout(_currency_quotes, _currency_zone),
}
