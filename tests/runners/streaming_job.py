"""A streaming job that counts in keyed state, run as a program: `streaming_job.py <Beam options>`."""

import sys
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.io.flink.flink_streaming_impulse_source import FlinkStreamingImpulseSource
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec


class CountFn(beam.DoFn):
    COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())

    def process(self, element: tuple[int, int], count=beam.DoFn.StateParam(COUNT)) -> Iterator[int]:  # type: ignore[no-untyped-def]
        number = (count.read() or 0) + 1
        count.write(number)
        Metrics.counter("streaming_job", "counted").inc()
        yield number


def main(arguments: list[str]) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions([*arguments, "--streaming"]))
    impulses = pipeline | FlinkStreamingImpulseSource().set_interval_ms(100)
    keyed = impulses | beam.FlatMap(lambda _: [(0, 0), (1, 0)]).with_output_types(tuple[int, int])
    _ = keyed | beam.ParDo(CountFn())
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    main(sys.argv[1:])
