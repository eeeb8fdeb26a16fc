"""Ticks in a topic, most of which are held back until all of them are to be read at once."""

from collections.abc import Iterator

import confluent_kafka as ck
import numpy as np

from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.sending import ensure_topic

PARTITIONS = 8
PIECE = 10_000  # ticks made, and handed to the client, at once
START_MS = 1_736_173_800_000
BAR_MS, DISORDER_MS, CLOCK_BEHIND_MS = 60_000, 900, 1000


class Load:
    """A new topic with JSON ticks of 150 B, keyed by symbol; what is held back is in it, but in a transaction.

    Args:
      bootstrap_servers: of Kafka.
      topic: its name.
      ticks: how many, in order but for `DISORDER_MS`.
      symbols: evenly traded, and evenly spread over `PARTITIONS`.
      rate: ticks a second of event time.

    Attributes:
      topic: its name.
      warm: ticks that can be read at once, for a job to warm up on.
      warm_until: event time up to which bars are closed by the warm ticks alone, ms.
      ticks: in all.
      closed: how many of them are in bars that the log itself closes.
    """

    def __init__(self, bootstrap_servers: str, topic: str, ticks: int, symbols: int = 500, rate: int = 5000):
        ensure_topic(KafkaConfig(bootstrap_servers), topic, PARTITIONS)
        self.topic, self.ticks, self.warm, self.closed = topic, ticks, ticks // 10, 0
        self._symbols, self._rate = symbols, rate
        self._producer = ck.Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": topic,
                "transaction.timeout.ms": 900_000,
                "linger.ms": 50,
                "compression.type": "lz4",
            }
        )
        self._producer.init_transactions()
        self._newest, self._ends = [0] * PARTITIONS, np.zeros((PARTITIONS, ticks // rate // 60 + 2), np.int64)
        self._send(0, self.warm)
        self.warm_until = min(self._newest[:symbols]) - CLOCK_BEHIND_MS  # fewer symbols leave partitions empty
        self._producer.commit_transaction()
        self._send(self.warm, ticks)
        for partition, newest in enumerate(self._newest):
            self.closed += int(self._ends[partition, : (newest - CLOCK_BEHIND_MS - START_MS) // BAR_MS].sum())

    def release(self) -> None:
        """Lets the rest be read."""
        self._producer.commit_transaction()

    def _send(self, first: int, last: int) -> None:
        self._producer.begin_transaction()
        for start in range(first, last, PIECE):
            for partition, messages in self._messages(start, min(start + PIECE, last)):
                self._produce(messages, partition)
        self._producer.flush()

    def _messages(self, first: int, last: int) -> Iterator[tuple[int, list[dict[str, object]]]]:
        chance = np.random.default_rng(first)
        symbol = chance.integers(0, self._symbols, last - first)
        time = START_MS + np.arange(first, last) * 1000 // self._rate - chance.integers(0, DISORDER_MS, last - first)
        time = np.maximum(time, START_MS)
        cents = 10_000 + 17 * symbol + chance.integers(-50, 50, last - first)
        for partition in range(PARTITIONS):
            mine = np.flatnonzero(symbol % PARTITIONS == partition)
            self._newest[partition] = int(time[mine].max(initial=self._newest[partition]))
            np.add.at(self._ends[partition], (time[mine] - START_MS) // BAR_MS, 1)
            rows = zip(symbol[mine].tolist(), time[mine].tolist(), cents[mine].tolist(), strict=True)
            yield (
                partition,
                [
                    {
                        "key": f"S{s:05d}",
                        "value": f'{{"symbol":"S{s:05d}","timestamp":{t},"price":{c / 100},"volume":{c % 900 + 100},'
                        f'"bid":{(c - 1) / 100},"ask":{(c + 1) / 100},"bid_size":{c % 7 + 1},"ask_size":{c % 9 + 1},'
                        '"source":"bench"}',
                    }
                    for s, t, c in rows
                ],
            )

    def _produce(self, messages: list[dict[str, object]], partition: int) -> None:
        while messages:
            self._producer.produce_batch(self.topic, messages, partition)
            self._producer.poll(0.02 if any("_error" in it for it in messages) else 0)
            messages = [message for message in messages if message.pop("_error", None)]
