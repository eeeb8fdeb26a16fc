"""A tuned script: batches of 50,000, one parse a batch, a dictionary of bars."""

import sys

import orjson

from tests.bench.peers.fold import Bars
from tests.bench.peers.topic import batches


def main(topic: str, folder: str) -> None:
    bars = Bars()
    for values in batches(topic):
        bars.add(orjson.loads(b"[" + b",".join(values) + b"]"))
    bars.write(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
