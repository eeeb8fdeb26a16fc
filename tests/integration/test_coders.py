"""How the streams' elements become bytes."""

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.coders.coders import Coder, FastPrimitivesCoder, PickleCoder
from apache_beam.runners.pipeline_context import PipelineContext

from beam_pipelines import market, news
from beam_pipelines.stream import parse

pytestmark = pytest.mark.servers

SINKS = ["--dead_letter_topic=dead", "--timescale_dsn=postgresql://nobody@localhost:1/none", "--lake=s3://none/lake"]
MARKET = ["--processed_topic=processed", "--anomaly_topic=anomalies"]


def parts_of(coder: Coder) -> Iterator[Coder]:
    """A coder and those that it is made of."""
    yield coder
    for part in coder._get_component_coders():
        yield from parts_of(part)


def is_pickled(coder: Coder) -> bool:
    return any(isinstance(part, FastPrimitivesCoder | PickleCoder) for part in parts_of(coder))


@pytest.mark.parametrize(
    ("stream", "flags"),
    [(market, MARKET), (market, [*MARKET, "--repartition"]), (news, ["--processed_topic=processed"])],
    ids=["market", "market that repartitions", "news"],
)
def test_nothing_that_goes_from_step_to_step_is_pickled(stream, flags, topic, kafka_server, monkeypatch):
    """Not even to tell how large it is, which Beam asks of some elements that never leave a process."""
    monkeypatch.setattr(stream, "new_pipeline", lambda options, unbounded: beam.Pipeline(options=options))
    argv = [f"--topic={topic('coders', 2)}", f"--bootstrap_servers={kafka_server}", "--runner=FlinkRunner"]
    options, beam_options = parse([*argv, *SINKS, *flags], stream.add_flags, "coders", "")
    graph = stream.pipeline_of(options, beam_options).pipeline.to_runner_api()
    coders = PipelineContext(graph.components).coders
    read = {name for it in graph.components.transforms.values() if not it.subtransforms for name in it.inputs.values()}
    assert len(read) > 10
    collections = {name: it for name, it in graph.components.pcollections.items() if name in read}
    assert [it.unique_name for it in collections.values() if is_pickled(coders[it.coder_id])] == []
