"""The day's bars and summaries by polars, which reads the lake in a stream: no indicators, no tables."""

import sys
from pathlib import Path

import polars as pl


def aggregates() -> list[pl.Expr]:
    price, volume = pl.col("price"), pl.col("volume")
    order = ["timestamp", "seq", "offset"]
    return [
        price.sort_by(order).first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.sort_by(order).last().alias("close"),
        volume.sum(),
        ((price * volume).sum() / volume.sum()).alias("vwap"),
        pl.len().alias("trade_count"),
    ]


def main(lake: str, folder: str) -> None:
    ticks = pl.scan_parquet(f"{lake}/market-data/**/*.parquet", hive_partitioning=False)
    ticks = ticks.select("symbol", "timestamp", "seq", "offset", "price", "volume")
    minutes = ticks.with_columns(time=pl.col("timestamp").dt.truncate("1m"))
    bars = minutes.group_by("symbol", "time").agg(aggregates())
    days = ticks.group_by("symbol").agg(aggregates())
    for name, rows in {"bars": bars.sort("symbol", "time"), "summaries": days.sort("symbol")}.items():
        rows.collect(engine="streaming").write_parquet(Path(folder, f"{name}.parquet"))


if __name__ == "__main__":
    main(*sys.argv[1:])
