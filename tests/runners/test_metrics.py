"""What Prometheus sees of processes that work, end, are killed and begin anew."""

import contextlib
import itertools
import os
import pathlib
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.metrics import (
    PipelineMonitor,
    Run,
    gathered,
    main,
    push,
    serve,
    write_textfile,
)
from beam_pipelines.transforms import metric_store
from beam_pipelines.transforms.metric_store import MetricStore, Origin, Series

Samples = dict[tuple[str, ...], float]
"""Values by name and label values, in the order of the labels' names."""

MESSAGES, BY_PARTITION = "pipeline_messages_processed_total", "pipeline_partition_messages_total"

WORKER = """
import sys
from beam_pipelines.transforms.monitor import PipelineMonitor, Run
market = PipelineMonitor("market", Run(1_000, False))
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Worker:
    """A process that measures as it is told, and answers when it has."""

    def __init__(self, folder: pathlib.Path) -> None:
        environment = {**os.environ, metric_store.FOLDER_VARIABLE: str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, code: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker(tmp_path: pathlib.Path) -> Iterator[Callable[[], Worker]]:
    workers = []

    def start() -> Worker:
        workers.append(Worker(tmp_path / "metrics"))
        return workers[-1]

    yield start
    for it in workers:
        it.kill()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> PipelineMonitor:
    """A monitor whose process has measured nothing yet."""
    monkeypatch.setattr(metric_store, "_STORES", {})
    return PipelineMonitor("market")


def samples_of(text: str) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *(sample.labels[label] for label in sorted(sample.labels)))
            assert key not in found
            found[key] = sample.value
    return found


def text_at(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def scraped(folder: pathlib.Path | None) -> Samples:
    server = serve(0, folder)
    try:
        return samples_of(text_at(server.port))
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_process_shows_what_it_measured(own: PipelineMonitor) -> None:
    own.record_message_processed("ticks")
    own.record_messages("ticks", "success", 41)
    own.record_messages("ticks", "duplicate", 2)
    own.record_processing_time("enrich", 0.005)
    own.record_processing_time("enrich", 7)
    own.record_end_to_end_latency("enrich", 0.2, 1_000)
    own.record_end_to_end_latency("enrich", -3)  # clocks that disagree
    own.record_end_to_end_latency("enrich", float("nan"))
    own.update_queue_depth("ticks/3", 9)
    own.update_queue_depth("ticks/3", 4)
    own.update_data_quality("ticks", 0.75)
    own.update_watermark_lag(3, 1.5)
    own.update_last_record("ticks", 1_700_000_000.5)
    own.update_last_record("ticks", 1_600_000_000)
    own.record_dead_letters("bad_json", 6)
    own.record_late(7)
    own.record_duplicates(8)
    own.record_batch("kafka", 1_000)
    own.record_sink_error("kafka")
    found = scraped(None)
    buckets = {key: found.pop(key) for key in list(found) if "_bucket" in key[0]}
    assert found == {
        (MESSAGES, "market", "success", "ticks"): 42,
        (MESSAGES, "market", "duplicate", "ticks"): 2,
        ("pipeline_processing_latency_seconds_count", "market", "enrich"): 2,
        ("pipeline_processing_latency_seconds_sum", "market", "enrich"): 7.005,
        ("pipeline_end_to_end_latency_seconds_count", "market", "enrich"): 1_002,
        ("pipeline_end_to_end_latency_seconds_sum", "market", "enrich"): 200,
        ("pipeline_queue_depth", "market", "ticks/3"): 4,
        ("pipeline_data_quality_score", "ticks", "market"): 0.75,
        ("pipeline_watermark_lag_seconds", "3", "market"): 1.5,
        ("pipeline_last_record_timestamp_seconds", "market", "ticks"): 1_700_000_000.5,
        ("pipeline_dead_letters_total", "market", "bad_json"): 6,
        ("pipeline_late_total", "market"): 7,
        ("pipeline_duplicates_total", "market"): 8,
        ("pipeline_sink_batch_rows_count", "market", "kafka"): 1,
        ("pipeline_sink_batch_rows_sum", "market", "kafka"): 1_000,
        ("pipeline_sink_errors_total", "market", "kafka"): 1,
    }
    times = {key[1]: count for key, count in buckets.items() if key[0].startswith("pipeline_processing")}
    assert times["0.0025"] == 0
    assert times["0.005"] == times["5.0"] == 1
    assert times["10.0"] == times["+Inf"] == 2


def test_what_makes_no_sense_is_refused(own: PipelineMonitor) -> None:
    with pytest.raises(ValueError, match="pipeline_messages_processed_total cannot fall: -1 was to be added"):
        own.record_messages("ticks", "success", -1)
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="the score of ticks must be from 0 to 1, not"):
            own.update_data_quality("ticks", score)
    assert scraped(None) == {}


def test_a_monitor_can_be_pickled(own: PipelineMonitor) -> None:
    run = Run.begin(resumed=True)
    pickle.loads(pickle.dumps(PipelineMonitor("news", run))).publish_totals("articles", 1, {"success": 5})
    origins = {series.origin for series in metric_store.process_store().content()}
    assert origins == {Origin("articles", 1, run.began_ms, True)}
    assert abs(run.began_ms / 1_000 - time.time()) < 60


def test_counts_of_killed_workers_stay_and_add_up(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    workers = [worker() for _ in range(3)]
    for number, it in enumerate(workers):
        it.do(f"market.record_messages('ticks', 'success', {10**number})")
        it.do(f"market.record_processing_time('enrich', {10**number})")
    workers[0].kill()
    key = (MESSAGES, "market", "success", "ticks")
    total = ("pipeline_processing_latency_seconds_sum", "market", "enrich")
    found = scraped(tmp_path / "metrics")
    assert (found[key], found[total]) == (111, 111)
    workers[1].do("market.record_messages('ticks', 'success', 1_000)")
    workers[1].kill()
    worker().do("market.record_messages('ticks', 'success', 10_000)")
    for _ in range(2):
        found = scraped(tmp_path / "metrics")
        assert (found[key], found[total]) == (11_111, 111)
    assert len(list((tmp_path / "metrics").glob("*.metrics"))) == 3  # two that live, and one for all that ended


def test_a_worker_killed_while_counting_loses_nothing(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    victim = worker()
    victim.do("pass")
    assert victim.process.stdin is not None
    assert victim.process.stdout is not None
    counting = "[(market.record_messages('ticks', 'success', 1), print(n, flush=True)) for n in range(1, 10**9)]"
    victim.process.stdin.write(counting + "\n")
    victim.process.stdin.flush()
    for _ in range(1_000):
        told = victim.process.stdout.readline()
    victim.process.kill()
    last = int((told + victim.process.stdout.read()).rpartition("\n")[0].splitlines()[-1])
    counted = scraped(tmp_path / "metrics")[MESSAGES, "market", "success", "ticks"]
    assert last <= counted <= last + 1


def test_a_partition_that_moves_is_counted_once(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    first, second = worker(), worker()
    first.do("market.publish_totals('ticks', 0, {'success': 100}, {'bad_json': 3}, late=5, duplicates=2)")
    first.do("market.publish_totals('ticks', 1, {'success': 30})")
    second.do("market.publish_totals('ticks', 0, {'success': 150}, {'bad_json': 4}, late=6, duplicates=2)")
    first.do("market.publish_totals('ticks', 0, {'success': 120}, {'bad_json': 3}, late=5, duplicates=2)")
    expected = {
        (MESSAGES, "market", "success", "ticks"): 180,
        (BY_PARTITION, "0", "market", "success", "ticks"): 150,
        (BY_PARTITION, "1", "market", "success", "ticks"): 30,
        ("pipeline_dead_letters_total", "market", "bad_json"): 4,
        ("pipeline_late_total", "market"): 6,
        ("pipeline_duplicates_total", "market"): 2,
    }
    assert scraped(tmp_path / "metrics") == expected
    second.kill()
    assert scraped(tmp_path / "metrics") == expected
    first.do("market.publish_totals('ticks', 0, {'success': 151}, {'bad_json': 4}, late=6, duplicates=2)")
    assert scraped(tmp_path / "metrics") == expected | {
        (MESSAGES, "market", "success", "ticks"): 181,
        (BY_PARTITION, "0", "market", "success", "ticks"): 151,
    }


def test_a_job_that_begins_anew_begins_at_nothing(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    old, new = worker(), worker()
    old.do("market.publish_totals('ticks', 0, {'success': 100})")
    old.do("market.publish_totals('ticks', 1, {'success': 100})")
    old.do("PipelineMonitor('news', Run(1_000, False)).publish_totals('articles', 0, {'success': 7})")
    new.do("resumed = PipelineMonitor('market', Run(2_000, True))")
    new.do("resumed.publish_totals('ticks', 0, {'success': 110})")
    key = (MESSAGES, "market", "success", "ticks")
    assert scraped(tmp_path / "metrics")[key] == 210
    new.do("PipelineMonitor('market', Run(3_000, False)).publish_totals('ticks', 0, {'success': 4})")
    old.do("market.publish_totals('ticks', 0, {'success': 105})")  # what has not noticed yet that its job is over
    assert scraped(tmp_path / "metrics")[key] == 4
    old.kill()
    new.do("PipelineMonitor('market', Run(4_000, True)).publish_totals('ticks', 0, {'success': 9})")
    assert scraped(tmp_path / "metrics")[key] == 9
    new.kill()
    found = scraped(tmp_path / "metrics")
    assert found[key] == 9
    assert found[MESSAGES, "news", "success", "articles"] == 7


def test_a_gauge_is_the_last_one_of_who_lives(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    first, second = worker(), worker()
    first.do("market.update_queue_depth('ticks/0', 500)")
    second.do("market.update_queue_depth('ticks/0', 20)")
    first.do("market.update_watermark_lag(7, 33)")
    first.do("market.update_data_quality('ticks', 0.5)")
    first.do("market.update_last_record('ticks', 99)")
    depth, lag = ("pipeline_queue_depth", "market", "ticks/0"), ("pipeline_watermark_lag_seconds", "7", "market")
    kept = {
        ("pipeline_data_quality_score", "ticks", "market"): 0.5,
        ("pipeline_last_record_timestamp_seconds", "market", "ticks"): 99.0,
    }
    assert scraped(tmp_path / "metrics") == {depth: 20, lag: 33} | kept
    first.kill()
    assert scraped(tmp_path / "metrics") == {depth: 20} | kept
    second.do("market.update_data_quality('ticks', 0.25)")
    second.kill()
    kept["pipeline_data_quality_score", "ticks", "market"] = 0.25
    for _ in range(2):
        assert scraped(tmp_path / "metrics") == kept


def test_scrapes_while_workers_count_and_die_never_fall(worker: Callable[[], Worker], tmp_path: pathlib.Path) -> None:
    server = serve(0, tmp_path / "metrics")
    seen: list[list[float]] = [[], []]
    ended = threading.Event()

    def scrape(into: list[float]) -> None:
        while not ended.is_set():
            into.append(samples_of(text_at(server.port)).get((MESSAGES, "market", "success", "ticks"), 0.0))

    scrapers = [threading.Thread(target=scrape, args=(into,)) for into in seen]
    for it in scrapers:
        it.start()
    for _ in range(6):
        it = worker()
        for _ in range(20):
            it.do("[market.record_messages('ticks', 'success', 1) for _ in range(500)]")
        it.kill()
    ended.set()
    for thread in scrapers:
        thread.join()
    assert samples_of(text_at(server.port))[MESSAGES, "market", "success", "ticks"] == 60_000
    server.close()
    for values in seen:
        assert len(values) > 2
        assert values == sorted(values)


SCRAPER = """
import os, pathlib, sys
from beam_pipelines.runners.metrics import gathered
folder, seen = pathlib.Path(sys.argv[1]), []
while not (folder / "stop").exists():
    seen.append(sum(values[0] for values in gathered(folder).values()))
    if len(set(seen)) > 3:
        (folder / f"at-it-{os.getpid()}").touch()
assert seen == sorted(seen), seen
"""


def test_several_exporters_may_fold_one_folder(tmp_path: pathlib.Path) -> None:
    exporters = [subprocess.Popen([sys.executable, "-c", SCRAPER, tmp_path]) for _ in range(2)]
    while not (tmp_path / "ended.metrics").exists():
        MetricStore(tmp_path).add(Series("pipeline_late_total", ("market",)), 0)
        time.sleep(0.05)
    added = 0
    while added < 1_000 or len(list(tmp_path.glob("at-it-*"))) < 2:
        MetricStore(tmp_path).add(Series("pipeline_late_total", ("market",)), 1)
        added += 1
    (tmp_path / "stop").touch()
    assert [exporter.wait(60) for exporter in exporters] == [0, 0]
    assert scraped(tmp_path) == {("pipeline_late_total", "market"): added}


@pytest.mark.parametrize(("resumed", "kept"), [(True, 2), (False, 1)])  # the first run's that counts, and the last's
def test_a_pipeline_that_is_started_for_ever_keeps_few_totals(tmp_path: pathlib.Path, resumed: bool, kept: int) -> None:
    series = Series(MESSAGES, ("market", "ticks", "success"))
    for run in range(200):
        origin = Origin("ticks", 0, 1_000 + run, resumed and run > 0)
        MetricStore(tmp_path).raise_to(series._replace(origin=origin), 10 * run)
        gathered(tmp_path)
    assert scraped(tmp_path)[MESSAGES, "market", "success", "ticks"] == 1_990
    assert len(gathered(tmp_path)) == kept


def test_files_of_a_thousand_workers_become_one(tmp_path: pathlib.Path) -> None:
    for number in range(1_000):
        MetricStore(tmp_path).add(Series("pipeline_late_total", (f"pipeline {number % 10}",)), 1)
        if number % 100 == 99:
            gathered(tmp_path)
    assert [path.name for path in tmp_path.glob("*.metrics")] == ["ended.metrics"]
    assert (tmp_path / "ended.metrics").stat().st_size < 10_000
    assert scraped(tmp_path) == {("pipeline_late_total", f"pipeline {number}"): 100 for number in range(10)}


def test_who_is_killed_while_folding_counts_nothing_twice(tmp_path: pathlib.Path) -> None:
    MetricStore(tmp_path).add(Series("pipeline_late_total", ("market",)), 5)
    (ended,) = tmp_path.glob("*.metrics")
    kept = shutil.copy(ended, tmp_path / "kept")
    gathered(tmp_path)
    shutil.copy(kept, ended)  # as if it had not come to deleting
    MetricStore(tmp_path).add(Series("pipeline_late_total", ("market",)), 1)
    for _ in range(2):
        assert scraped(tmp_path) == {("pipeline_late_total", "market"): 6}
    assert [path.name for path in tmp_path.glob("*.metrics")] == ["ended.metrics"]


actions = st.one_of(
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(1, 9)),
    st.tuples(st.just("end"), st.integers(0, 2)),
    st.tuples(st.just("scrape")),
    st.tuples(
        st.just("publish"),
        st.integers(0, 2),
        st.builds(Origin, st.just("ticks"), st.integers(0, 2), st.sampled_from([1, 2]), st.just(False))
        | st.builds(Origin, st.just("ticks"), st.integers(0, 2), st.sampled_from([3, 4]), st.just(True)),
        st.integers(0, 100),
    ),
)


@settings(max_examples=60)
@example(  # the run that begins anew is known from a file that is not folded yet
    [
        ("publish", 0, Origin("ticks", 0, 1, False), 2),
        ("publish", 0, Origin("ticks", 0, 3, True), 1),
        ("publish", 1, Origin("ticks", 0, 2, False), 0),
        ("end", 0),
    ]
)
@given(st.lists(actions, max_size=30))
def test_the_sum_is_that_of_the_highest_totals_and_of_all_counts(done: list[tuple]) -> None:  # type: ignore[type-arg]
    series = Series(MESSAGES, ("market", "ticks", "success"))
    counted, published = 0, defaultdict[Origin, int](int)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        stores: defaultdict[int, MetricStore] = defaultdict(lambda: MetricStore(folder))
        for what, *how in [*done, ("scrape",)]:
            if what == "count":
                stores[how[0]].add(series, how[1])
                counted += how[1]
            elif what == "end":
                stores.pop(how[0], None)
            elif what == "publish":
                stores[how[0]].raise_to(series._replace(origin=how[1]), how[2])
                published[how[1]] = max(published[how[1]], how[2])
            else:
                expected = counted + sum(highest_by_partition(published).values())
                assert scraped_total(folder) == expected


def highest_by_partition(published: dict[Origin, int]) -> dict[int, int]:
    newest = max((origin.began_ms for origin in published if not origin.resumed), default=0)
    counts = sorted((it.partition, total) for it, total in published.items() if it.began_ms >= newest)
    return dict(counts)


def scraped_total(folder: pathlib.Path) -> float:
    write_textfile(folder / "all.prom", folder)
    return samples_of((folder / "all.prom").read_text()).get((MESSAGES, "market", "success", "ticks"), 0.0)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's prometheus, is not installed")
def test_prometheus_finds_nothing_to_complain_of(own: PipelineMonitor) -> None:
    test_a_process_shows_what_it_measured(own)
    own.publish_totals("ticks", 3, {"success": 5})
    odd = 'a "quoted" \\ text\nwith lines, \ud800 and 🐟'
    own.record_messages(odd, "success", 1)
    server = serve(0)
    text = text_at(server.port)
    server.close()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert samples_of(text)[MESSAGES, "market", "success", odd.replace("\ud800", "?")] == 1


def test_a_textfile_is_replaced_in_one_step(own: PipelineMonitor, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "market.prom"
    for total in (3, 5):
        own.record_late(total)
        write_textfile(path)
    assert samples_of(path.read_text()) == {("pipeline_late_total", "market"): 8}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match=r"path=market\.txt must end in \.prom"):
        write_textfile(pathlib.Path("market.txt"))
    with pytest.raises(UsageError, match=r"path=.*/none/market\.prom cannot be written .*: choose a file"):
        write_textfile(tmp_path / "none" / "market.prom")


@contextlib.contextmanager
def gateway() -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                    break
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()


@pytest.mark.skipif(
    shutil.which("prometheus-pushgateway") is None, reason="Debian's prometheus-pushgateway is not installed"
)
def test_a_gateway_keeps_what_was_pushed_last(own: PipelineMonitor, tmp_path: pathlib.Path) -> None:
    MetricStore(tmp_path).add(Series("pipeline_late_total", ("daily",)), 9)
    with gateway() as address:
        for _ in range(2):
            own.record_messages("ticks", "success", 21)
            push(address, "market of today")
        push(f"http://{address}/", "daily", tmp_path)
        found = samples_of(text_at(int(address.rpartition(":")[2])))
    assert found[MESSAGES, "", "market of today", "market", "success", "ticks"] == 42
    assert found["pipeline_late_total", "", "daily", "daily"] == 9


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no host:9091", "127.0.0.1:port", "http://user:secret@127.0.0.1:1"])
def test_a_gateway_that_is_not_there_is_told(own: PipelineMonitor, address: str) -> None:
    with pytest.raises(
        UsageError, match=r"gateway=.* does not take metrics of job 'market' \(.+\): correct it"
    ) as told:
        push(address, "market")
    assert "secret" not in str(told.value)


def test_a_port_or_folder_that_cannot_be_used_is_told(own: PipelineMonitor, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    server = serve(0)
    with pytest.raises(UsageError, match=rf"port={server.port} of 127\.0\.0\.1 cannot be listened at .*: choose anoth"):
        serve(server.port)
    server.close()
    with pytest.raises(UsageError, match=r"port=70000 of 127\.0\.0\.1 cannot be listened at"):
        serve(70_000)
    with pytest.raises(UsageError, match=r"port=0 of nowhere\.invalid cannot be listened at"):
        serve(0, address="nowhere.invalid")
    with pytest.raises(UsageError, match=r"folder=.*/file cannot hold metrics .*: choose one that is writable"):
        serve(0, tmp_path / "file")
    for arguments in (["--port=9102"], [f"--folder={tmp_path}"], [f"--folder={tmp_path}", "--port=0"]):
        with pytest.raises(UsageError):
            main(arguments)


def test_an_exporter_runs_as_a_process_until_it_is_told_to_end(
    worker: Callable[[], Worker], tmp_path: pathlib.Path
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "beam_pipelines.runners.metrics", f"--folder={tmp_path / 'metrics'}"]
    environment = {**os.environ, metric_store.FOLDER_VARIABLE: str(tmp_path / "metrics")}
    with subprocess.Popen([*command, f"--port={port}"], env=environment, stderr=subprocess.PIPE, text=True) as exporter:
        try:
            found = eventually_scraped(port)
            assert found == {}
            worker().do("market.record_late(3)")
            assert eventually_scraped(port) == {("pipeline_late_total", "market"): 3}
        finally:
            exporter.send_signal(signal.SIGTERM)
        _, told = exporter.communicate(timeout=30)
    assert (exporter.returncode, told) == (0, "")


def eventually_scraped(port: int) -> Samples:
    for attempt in itertools.count(1):
        try:
            return samples_of(text_at(port))
        except OSError:
            assert attempt < 300
            time.sleep(0.1)
    raise AssertionError
