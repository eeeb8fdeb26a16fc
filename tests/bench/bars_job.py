"""The market stream with bars as its only output: `python -m tests.bench.bars_job --topic=... <Beam options>`."""

import argparse
import os
import sys

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.io.kafka import KafkaConfig, follow_kafka
from beam_pipelines.io.timescale import MARKET_BARS, WriteToTimescale
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.transforms.advance import Semantics
from beam_pipelines.transforms.enrich import EnrichTicks


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap_servers", required=True)
    parser.add_argument("--topic", required=True)
    options, beam_arguments = parser.parse_known_args(arguments)
    pipeline = new_pipeline(PipelineOptions(beam_arguments), unbounded=True)
    topic = follow_kafka(options.topic, KafkaConfig(options.bootstrap_servers))
    market = pipeline | "Read" >> topic | "Enrich" >> EnrichTicks(Semantics(), topic.records)
    market.bars | "WriteBars" >> WriteToTimescale(MARKET_BARS, os.environ["TIMESCALE_DSN"])
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    main(sys.argv[1:])
