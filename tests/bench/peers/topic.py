"""Where the scripts read: every partition of a topic, from its beginning."""

import os
from typing import Any

import confluent_kafka as ck


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


TUNED = {
    "fetch.queue.backoff.ms": 10,  # the default of 1000 halts a fast reader for a second at a time
    "queued.min.messages": 500_000,
    "check.crcs": False,
}
BATCH = 50_000
