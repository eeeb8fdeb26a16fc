"""The day's bars and summaries by Spark SQL, on this machine's cores: no indicators, no tables."""

import sys

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as f


def aggregates() -> list[Column]:
    order = f.struct("timestamp", "seq", "offset")
    return [
        f.min_by("price", order).alias("open"),
        f.max("price").alias("high"),
        f.min("price").alias("low"),
        f.max_by("price", order).alias("close"),
        f.sum("volume").alias("volume"),
        (f.sum(f.col("price") * f.col("volume")) / f.sum("volume")).alias("vwap"),
        f.count("*").alias("trade_count"),
    ]


def main(lake: str, folder: str) -> None:
    settings = {"spark.driver.memory": "2g", "spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false"}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    ticks = spark.read.option("recursiveFileLookup", "true").parquet(f"{lake}/market-data")
    ticks = ticks.select("symbol", "timestamp", "seq", "offset", "price", "volume")
    minutes = ticks.withColumn("time", f.date_trunc("minute", "timestamp"))
    minutes.groupBy("symbol", "time").agg(*aggregates()).orderBy("symbol", "time").write.parquet(f"{folder}/bars")
    ticks.groupBy("symbol").agg(*aggregates()).orderBy("symbol").write.parquet(f"{folder}/summaries")


if __name__ == "__main__":
    main(*sys.argv[1:])
