"""A tuned script: batches of 50,000, orjson, a dictionary of bars."""

import sys

import orjson

from tests.bench.peers.fold import Bars
from tests.bench.peers.topic import BATCH, TUNED, consumer_of


def main(topic: str, folder: str) -> None:
    bars = Bars()
    consumer, left = consumer_of(topic, **TUNED)
    while left:
        messages = consumer.consume(BATCH, 0.1)
        values = [message.value() for message in messages if not message.error()]
        left -= len(messages) - len(values)
        bars.add(orjson.loads(b"[" + b",".join(values) + b"]"))
    consumer.close()
    bars.write(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
