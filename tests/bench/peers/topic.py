"""Where the scripts read: every partition of a topic, from its beginning."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck

BATCH = 50_000
TUNED = {
    "fetch.queue.backoff.ms": 10,  # the default of 1000 halts a fast reader for a second at a time
    "queued.min.messages": 500_000,
    "check.crcs": False,
}


def consumer_of(topic: str, **settings: Any) -> tuple[ck.Consumer, int]:
    """A consumer that tells of the end of each partition as of an error, and how many partitions there are."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": topic,  # a setting that must be there; nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **settings,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in partitions])
    return consumer, len(partitions)


def batches(topic: str) -> Iterator[list[bytes]]:
    """The values of 50,000 messages at a time, to the topic's present end, as fast as the client goes.

    The garbage collector, off meanwhile, would look through all messages and ticks of a batch again and again.
    """
    consumer, left = consumer_of(topic, **TUNED)
    gc.disable()
    try:
        while left:
            messages = consumer.consume(BATCH, 0.1)
            values = [message.value() for message in messages if not message.error()]
            left -= len(messages) - len(values)
            if values:
                yield values
    finally:
        gc.enable()
        consumer.close()
