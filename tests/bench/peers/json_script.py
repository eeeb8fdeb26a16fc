"""The script that people write: poll(), json.loads, a dictionary of bars."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from tests.bench.peers.fold import Bars
from tests.bench.peers.topic import consumer_of


def ticks_of(topic: str) -> Iterator[dict[str, Any]]:
    consumer, left = consumer_of(topic)
    while left:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            left -= 1
            continue
        yield json.loads(message.value())
    consumer.close()


def main(topic: str, folder: str) -> None:
    bars = Bars()
    bars.add(ticks_of(topic))
    bars.write(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
