"""`flink_sql`, but a tick that comes again in its bar does not count again.

In favour of it: duplicates are neither counted nor looked for beyond the bar, and the state is in the heap.  A lookup a
tick in RocksDB, as this cluster sets it up for few and large values, had taken seven times as much when it was stopped.
"""

import sys

from tests.bench.peers.flink_sql import WINDOWED, run

COPIES = f"""
SELECT *, ROW_NUMBER() OVER (
  PARTITION BY window_start, window_end, symbol, source, `timestamp`, `offset` ORDER BY event_time
) AS copy FROM ({WINDOWED})"""
HEAP = {"state.backend.type": "hashmap"}

if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], f"SELECT * FROM ({COPIES}) WHERE copy = 1", HEAP)
