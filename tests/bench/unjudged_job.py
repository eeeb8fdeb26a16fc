"""The market stream with all its outputs but quality: `python -m tests.bench.unjudged_job`, with market's flags."""

import sys

from beam_pipelines import market
from beam_pipelines.options import parse
from beam_pipelines.runners.defaults import new_pipeline
from beam_pipelines.stream import monitor_of


def main(arguments: list[str]) -> None:
    options, beam_options = parse(arguments, market.add_flags, "tests.bench.unjudged_job", str(__doc__))
    sinks = market.market_sinks_of(options)._replace(monitor=monitor_of("market", beam_options))
    pipeline = new_pipeline(beam_options, unbounded=True)
    market.build(pipeline, market.source_of(options, sinks), market.semantics_of(options), sinks)
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    main(sys.argv[1:])
