"""A row that the database cannot hold: the rest of its batch is written, and the row is kept elsewhere."""

import json

import psycopg
import pyarrow.parquet as pq
import pytest

from beam_pipelines import market
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.sql.migrate import migrate

TOO_LARGE = 1e15  # NUMERIC(20,8) has twelve digits before the point


@pytest.mark.servers
def test_a_price_too_large_is_kept_in_the_lake_and_the_rest_is_written(postgres_dsn, tmp_path, monkeypatch):
    migrate(Dsn(postgres_dsn))
    monkeypatch.setenv("TIMESCALE_DSN", postgres_dsn)
    rows = [f"ABC,{1_700_000_000_000 + i},{price},10" for i, price in enumerate((1.5, TOO_LARGE, 2.5))]
    (tmp_path / "ticks.csv").write_text("\n".join(["symbol,timestamp,price,volume", *rows]))
    arguments = [f"--input={tmp_path / 'ticks.csv'}", f"--lake={tmp_path / 'lake'}"]
    for _ in range(2):  # a second run changes nothing
        assert market.main(arguments) == 0
    with psycopg.connect(postgres_dsn) as connection:
        written = connection.execute("SELECT price FROM market_data_ts ORDER BY time").fetchall()
    assert [float(price) for (price,) in written] == [1.5, 2.5]
    refused = [pq.read_table(path).to_pylist()[0] for path in (tmp_path / "lake" / "dead-letter-refused").iterdir()]
    assert {row["reason"] for row in refused} == {"rejected_by_database"}
    ticks = [json.loads(row["value"]) for row in refused if row["offset"] == 1]
    assert [tick["price"] for tick in ticks] == [TOO_LARGE]
    assert all("market_" in row["detail"] for row in refused)
