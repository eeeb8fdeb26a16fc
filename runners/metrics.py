"""Metrics of pipelines for Prometheus: `serve` them, `push` them, or `write_textfile`.

`PipelineMonitor` (of `beam_pipelines.transforms.monitor`, which tells the metrics and what is exact) measures in the
memory of its process, or, where PIPELINE_METRICS_DIR names a folder, in files there, so that one exporter shows all
processes of a machine:

    PIPELINE_METRICS_DIR=/var/lib/pipelines/metrics python -m apache_beam.runners.worker.worker_pool_main ...
    python -m beam_pipelines.runners.metrics --folder=/var/lib/pipelines/metrics --port=9102

The folder belongs to the pool and is kept when that begins anew: counters that go back to 0 are counted again by
Prometheus.  Files of processes that have ended are folded into one at the next scrape.

A partition that moves between pools has a total in the folder of each, and a sum over exporters would count it twice.
With several pools the totals are

    sum by (pipeline, topic, status) (max by (pipeline, topic, partition, status) (pipeline_partition_messages_total))
"""

import contextlib
import http.client
import itertools
import os
import pathlib
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from beam_pipelines.command_line import Parser, filled, whole
from beam_pipelines.command_line import folder as as_folder
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.runners.cache import locked
from beam_pipelines.transforms.metric_store import (
    SUFFIX,
    Content,
    Series,
    encode,
    is_final,
    process_store,
    read_file,
)
from beam_pipelines.transforms.monitor import METRICS, Kind, Metric, PipelineMonitor, Run

__all__ = [
    "MetricsServer",
    "PipelineMonitor",
    "Run",
    "families",
    "gathered",
    "main",
    "merged",
    "push",
    "serve",
    "write_textfile",
]

_FOLDED = f"ended{SUFFIX}"  # what the files of ended processes held
_TIMEOUT_S = 10
_PARTITIONS = Metric(
    "pipeline_partition_messages_total",
    "Published totals of messages by partition.",
    ("pipeline", "topic", "partition", "status"),
    Kind.COUNTER,
)

Labels = tuple[str | int, ...]


# How the measurements of several processes become one.


def merged(contents: Iterable[Content]) -> Content:
    """The series of several processes as of one; what is no metric here, as another version may write, is left out."""
    joined: dict[Series, tuple[float, ...]] = {}
    for series, values in itertools.chain.from_iterable(content.items() for content in contents):
        metric = METRICS.get(series.metric)
        if metric is not None and len(values) == metric.size:
            before = joined.get(series)
            joined[series] = values if before is None else _join(series, before, values)
    return joined


def _join(series: Series, one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    kind = METRICS[series.metric].kind
    if series.origin is not None or kind is Kind.HIGHEST:
        return max(one, other)
    if kind in (Kind.COUNTER, Kind.HISTOGRAM):
        return tuple(a + b for a, b in zip(one, other, strict=True))
    return max(one, other, key=lambda value_and_time: value_and_time[1])


def _without_superseded(content: Content) -> Content:
    """Leaves out totals of runs before the newest, of the pipeline on the topic, that was not resumed."""
    begun: defaultdict[Labels, int] = defaultdict(int)
    for series in content:
        if series.origin and not series.origin.resumed:
            log = (series.labels[0], series.origin.topic)
            begun[log] = max(begun[log], series.origin.began_ms)
    return {
        it: values
        for it, values in content.items()
        if not it.origin or it.origin.began_ms >= begun[it.labels[0], it.origin.topic]
    }


def _without_dominated(content: Content) -> Content:
    """Leaves out totals of resumed runs where a later run has as much.

    So a pipeline that is resumed a thousand times keeps few, and whichever run is the first to count, the highest total
    stays what it is.
    """
    kept: dict[Series, tuple[float, ...]] = {}
    highest: dict[Series, tuple[float, ...]] = {}
    for series in sorted(content, key=lambda it: it.origin.began_ms if it.origin else 0, reverse=True):
        values = content[series]
        place = _place(series)
        if not series.origin or not series.origin.resumed or values > highest.get(place, ()):
            kept[series] = values
            highest[place] = max(values, highest.get(place, values))
    return kept


def _place(series: Series) -> Series:
    """The same for all runs."""
    return series._replace(origin=series.origin._replace(began_ms=0, resumed=False)) if series.origin else series


# The folder of a machine's processes.


def gathered(folder: pathlib.Path) -> Content:
    """The series of all processes that write, or wrote, into a folder; folds the files of those that have ended.

    Raises:
      OSError: if the folder cannot be read and written.
    """
    with locked(folder / ".lock"):
        ended, folded = _read_folded(folder / _FOLDED)
        paths = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.name in folded:
                path.unlink()  # somebody was killed while folding
            elif path.name != _FOLDED:
                paths.append(path)
        final = [path for path in paths if is_final(path)]
        if final:
            ended = _fold(folder, ended, final)
        return merged([ended, *(read_file(path) for path in paths if path not in final)])


def _fold(folder: pathlib.Path, ended: Content, final: Sequence[pathlib.Path]) -> Content:
    """Adds final files to the folded one and deletes them; killed at any point, nothing is lost or counted twice."""
    joined = merged([ended, *map(read_file, final)])
    kept = {it: values for it, values in joined.items() if METRICS[it.metric].kind is not Kind.LIVE}
    ended = _without_dominated(_without_superseded(kept))
    unfinished = folder / f"{_FOLDED}.new"
    with unfinished.open("wb") as file:
        file.write(encode({Series(_FOLDED, tuple(path.name for path in final)): (), **ended}))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / _FOLDED)
    for path in final:
        path.unlink()
    return ended


def _read_folded(path: pathlib.Path) -> tuple[Content, frozenset[str | int]]:
    """What ended processes measured, and the names of the files that were folded last."""
    if not path.exists():
        return {}, frozenset()
    content = read_file(path)
    names = next((series.labels for series in content if series.metric == _FOLDED), ())
    return merged([content]), frozenset(names)


# What Prometheus sees.


def families(content: Content) -> Iterator[Family]:
    """The metrics that have values, totals summed over partitions."""
    values: defaultdict[str, defaultdict[Labels, tuple[float, ...]]] = defaultdict(lambda: defaultdict(tuple))
    current: dict[Series, tuple[float, ...]] = {}
    for series, total in _without_superseded(content).items():
        current[_place(series)] = max(total, current.get(_place(series), total))
    for series, added in current.items():
        before = values[series.metric][series.labels]
        values[series.metric][series.labels] = tuple(map(sum, zip(before, added, strict=True))) if before else added
    for metric in METRICS.values():
        if metric.name in values:
            yield _family(metric, values[metric.name])
    by_partition = dict(_by_partition(current))
    if by_partition:
        yield _family(_PARTITIONS, by_partition)


def _by_partition(content: Content) -> Iterator[tuple[Labels, tuple[float, ...]]]:
    for (name, labels, origin), values in content.items():
        if name == "pipeline_messages_processed_total" and origin is not None:
            pipeline, topic, status = labels
            yield (pipeline, topic, origin.partition, status), values


def _family(metric: Metric, values: Mapping[Labels, tuple[float, ...]]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        return _histogram(metric, values)
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, (value, *_) in sorted(values.items(), key=_as_text):
        family.add_metric([str(it) for it in labels], value)
    return family


def _histogram(metric: Metric, values: Mapping[Labels, tuple[float, ...]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    ends = [*(str(bound) for bound in metric.bounds), "+Inf"]
    for labels, (*counts, total) in sorted(values.items(), key=_as_text):
        buckets = list(zip(ends, itertools.accumulate(counts), strict=True))
        family.add_metric([str(it) for it in labels], buckets, total)
    return family


def _as_text(item: tuple[Labels, tuple[float, ...]]) -> list[str]:
    return [str(label) for label in item[0]]


class _Collector(Collector):
    def __init__(self, read: Callable[[], Content]) -> None:
        self._read = read

    def collect(self) -> Iterable[Family]:
        return families(self._read())


def _registry(folder: pathlib.Path | None) -> prometheus_client.CollectorRegistry:
    """The metrics of a folder, or of this process; the global registry is left alone.

    Raises:
      UsageError: if the folder cannot be used.
    """
    if folder is None:
        read: Callable[[], Content] = process_store().content
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / ".lock"):
                pass
        except OSError as failed:
            raise UsageError(f"folder={folder} cannot hold metrics ({failed}): choose one that is writable") from None
        where = folder

        def read() -> Content:
            return gathered(where)

    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collector(read))
    return registry


# Ways to Prometheus.


class MetricsServer(NamedTuple):
    """An HTTP endpoint that runs in a thread of this process."""

    http: WSGIServer
    thread: threading.Thread

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.http.server_port

    def close(self) -> None:
        """Ends it."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def serve(port: int, folder: pathlib.Path | None = None, address: str = "127.0.0.1") -> MetricsServer:
    """Starts an endpoint for Prometheus at http://address:port/metrics.

    Args:
      port: 0: any.
      folder: of the processes whose metrics are shown, made when absent; None: those of this process.
      address: to listen at; the endpoint asks nobody who they are.

    Raises:
      UsageError: if the port, the address or the folder cannot be used.
    """
    registry = _registry(folder)
    try:
        return MetricsServer(*prometheus_client.start_http_server(port, address, registry))
    except (OSError, OverflowError) as failed:
        raise UsageError(f"port={port} of {address} cannot be listened at ({failed}): choose another") from None


def write_textfile(path: pathlib.Path, folder: pathlib.Path | None = None) -> None:
    """Writes the metrics at once where the node exporter's textfile collector finds them, for jobs that end.

    Args:
      path: a file that ends in .prom, replaced in one step.
      folder: as for `serve`.

    Raises:
      UsageError: if the file or the folder cannot be used.
    """
    if path.suffix != ".prom":
        raise UsageError(f"path={path} must end in .prom: the node exporter's textfile collector reads no other files")
    registry = _registry(folder)
    try:
        prometheus_client.write_to_textfile(str(path), registry)
    except OSError as failed:
        raise UsageError(f"path={path} cannot be written ({failed}): choose a file in a writable folder") from None


def push(gateway: str, job: str, folder: pathlib.Path | None = None) -> None:
    """Sends the metrics to a Pushgateway, for jobs that end; they replace what it has of the same job.

    Args:
      gateway: host:port, or its URL.
      job: the label `job` there.
      folder: as for `serve`.

    Raises:
      UsageError: if the gateway does not take them, or the folder cannot be used.
    """
    registry = _registry(folder)
    try:
        prometheus_client.push_to_gateway(gateway, job, registry, timeout=_TIMEOUT_S)
    except (OSError, ValueError, http.client.HTTPException) as failed:
        shown = gateway.rsplit("@", 1)[-1]  # without the password
        raise UsageError(f"gateway={shown} does not take metrics of job {job!r} ({failed}): correct it") from None


def main(arguments: Sequence[str]) -> int:
    """Serves a folder's metrics until it is told to end."""
    parser = Parser(
        prog="python -m beam_pipelines.runners.metrics",
        description="Shows Prometheus the metrics of the processes that write them into a folder.",
    )
    parser.add_argument("--folder", type=as_folder, required=True, help="the workers' PIPELINE_METRICS_DIR")
    parser.add_argument("--port", type=whole(1, 65_535), required=True, help="where to listen")
    parser.add_argument("--address", type=filled, default="127.0.0.1", help="the same (%(default)s)")
    options = parser.parse(arguments)
    server = serve(options.port, options.folder, options.address)
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server.thread.join()
    server.close()
    return 0


if __name__ == "__main__":
    run_main(main)
