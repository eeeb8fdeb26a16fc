"""What tables say of the order of their rows."""

import numpy as np

from beam_pipelines.io.tables import MARKET_DATA, Column, Table
from tests.io.market_rows import ticks


def test_rows_of_a_symbol_come_together_and_keep_their_order() -> None:
    rows = ticks(50)
    clustered = MARKET_DATA.clustered(rows)
    symbols = np.array(clustered["symbol"].to_pylist())
    assert np.count_nonzero(symbols[1:] != symbols[:-1]) == len(set(symbols)) - 1
    for symbol in set(symbols):
        seq = clustered["seq"].to_numpy()[symbols == symbol]
        assert seq.tolist() == sorted(row["seq"] for row in rows.to_pylist() if row["symbol"] == symbol)


def test_a_key_that_begins_with_no_name_leaves_rows_as_they_are() -> None:
    by_time = Table("x", ("time", "symbol"), (Column("time", "timestamp", "timestamp with time zone"),))
    assert by_time.clustered(ticks(50)).equals(ticks(50))
