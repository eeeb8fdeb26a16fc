"""Other programs that make one-minute bars of the same topic, each as its users would write it.

Each is run as `python -m tests.bench.peers.NAME TOPIC FOLDER`, reads TOPIC from its beginning to its present end at
KAFKA_BOOTSTRAP_SERVERS, and leaves its bars as CSV files in FOLDER: symbol, start (ms), open, high, low, close, volume,
vwap, trade count.  Nothing but `topic`, `fold`, `flink_bars` and the standard library is shared with them: some run in
a virtual environment of their own.
"""
