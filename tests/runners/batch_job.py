"""A bounded job, run as a program: writes sums to the file named first, `batch_job.py <file> <Beam options>`."""

import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.runners.defaults import new_pipeline


def main(target: str, arguments: list[str]) -> None:
    with new_pipeline(PipelineOptions(arguments), unbounded=False) as pipeline:
        sums = pipeline | beam.Create([("a", 1), ("b", 2), ("a", 3)]) | beam.CombinePerKey(sum)
        _ = sums | beam.Map(str) | beam.io.WriteToText(target, shard_name_template="")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
