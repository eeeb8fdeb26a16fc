"""Flink SQL that is tuned for these ticks, whose prices are cents: a number is made of place and price, its least the open."""

import sys

from tests.bench.peers.flink_sql import make_bars

# Time in the minute (16 bits), offset (24 bits), cents (23 bits).  MOD has the type of its divisor.
NUMBER = """
(CAST(MOD(`timestamp`, 60000) AS BIGINT) * 16777216 + MOD(`offset`, 16777216)) * 8388608
  + CAST(ROUND(price * 100) AS BIGINT)"""
PRICE_OF_NUMBER = "CAST(MOD({}, 8388608) AS DOUBLE) / 100"


if __name__ == "__main__":
    make_bars(sys.argv[1], sys.argv[2], NUMBER, PRICE_OF_NUMBER)
