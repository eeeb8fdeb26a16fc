"""Kafka: `ReadFromKafka`, `WriteToKafka`, and how to reach it.  Over librdkafka, the fastest client for Python."""

from beam_pipelines.io.kafka_config import KafkaConfig, check_kafka
from beam_pipelines.io.kafka_follow import Pace
from beam_pipelines.io.kafka_offsets import parse_position
from beam_pipelines.io.kafka_read import ReadFromKafka, follow_kafka
from beam_pipelines.io.kafka_tail import KafkaReadError
from beam_pipelines.io.kafka_write import KafkaWriteError, WriteToKafka

__all__ = [
    "KafkaConfig",
    "KafkaReadError",
    "KafkaWriteError",
    "Pace",
    "ReadFromKafka",
    "WriteToKafka",
    "check_kafka",
    "follow_kafka",
    "parse_position",
]
