"""Every template on every local runner, launched from a request alone, and what can be done with the jobs then."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import psutil
import psycopg
import psycopg.conninfo
import pytest

from beam_pipelines import ledger, market
from beam_pipelines.errors import UsageError
from beam_pipelines.launching import control, jobs
from beam_pipelines.launching.display import job_fields
from beam_pipelines.runners.cluster import Cluster
from beam_pipelines.runners.servers.postgres import Postgres
from beam_pipelines.simulate import Session, raw_batches
from beam_pipelines.sql.migrate import Dsn, migrate
from tests.contract.logs import MEANING, SEMANTICS, Log, create_topic, fill
from tests.contract.sinks import SINKS, Sinks

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SECRET = "Geheim-launched"  # of these tests alone: they look at all processes of the machine
DAY = "2025-01-06"  # of the simulated session
TEMPLATES = ("market", "news", "daily")
RUNNERS = ("direct", "embedded-flink", "flink-cluster", "embedded-spark", "spark-cluster")
CASES = [f"{template}-on-{runner}" for runner in RUNNERS for template in TEMPLATES]
CANCELLED = ("market-on-direct", "market-on-embedded-flink", "news-on-embedded-flink", "market-on-embedded-spark")
DRAINED = ("market-on-flink-cluster", "news-on-flink-cluster")
AT_ONCE = 4
PAGES = pathlib.Path(__file__).parents[2] / "infra" / "templates"


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]


def launch(*arguments: object, cwd: pathlib.Path | None = None, **environment: str) -> Done:
    """The program as a scheduler runs it."""
    command = [sys.executable, "-m", "beam_pipelines.launch", *map(str, arguments)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=cwd, env=env, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def status(job: str) -> dict[str, Any]:
    done = launch("status", "--json", job)
    assert done.code == 0, done.err
    return json.loads(done.out)


def fields(job: str) -> dict[str, Any]:
    """The same in this process: the program takes seconds of CPU time to be asked often."""
    record = jobs.find(job)
    return job_fields(record, control.status_of(record))


def state(job: str) -> str:
    return control.status_of(jobs.find(job)).state


def await_true(told: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Where the registry, the lakes and the requests are; ends what a failed test has left."""
    made = tmp_path_factory.mktemp("launching")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAARDHAVEN_JOBS", str(made / "jobs"))
        patch.delenv("TIMESCALE_DSN", raising=False)
        yield made
        for record in jobs.all_jobs():
            if control.lives(record):
                control.cancel(record)


@pytest.fixture(scope="module")
def lake(folder: pathlib.Path) -> pathlib.Path:
    """A day of the market."""
    assert market.main(["--ticks=3000", f"--lake={folder / 'day'}"]) == 0
    return folder / "day"


@pytest.fixture(scope="module")
def new_dsn(postgres_server: Postgres) -> Iterator[Callable[[str], str]]:
    """Makes a database with our tables, whose DSN holds a password."""
    made = []

    def make(name: str) -> str:
        made.append(name)
        with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        dsn = psycopg.conninfo.make_conninfo(f"{postgres_server.dsn.rpartition('/')[0]}/{name}", password=SECRET)
        migrate(Dsn(dsn))
        return dsn

    yield make
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def options_of(runner: str, flink_cluster: Any, spark_cluster: Any) -> tuple[str, list[str]]:
    """The runner's name and Beam's options, as in a request."""
    named = {"direct": "DirectRunner", "embedded-flink": "FlinkRunner", "embedded-spark": "SparkRunner"}
    clusters = {"flink-cluster": flink_cluster, "spark-cluster": spark_cluster}
    if runner in named:
        return named[runner], []
    given = [it.removeprefix("--") for it in clusters[runner].arguments]
    return given[0].removeprefix("runner="), given[1:]


def request_of(case: str, parameters: dict[str, str], runner: str, options: list[str]) -> dict[str, Any]:
    return {
        "launchParameter": {
            "jobName": case,
            "containerSpecGcsPath": str(PAGES / f"{case.partition('-')[0]}.json"),
            "parameters": parameters,
            "launchOptions": {"runner": runner},
            "environment": {"additionalPipelineOptions": options},
        }
    }


def parameters_of(case: str, folder: pathlib.Path, lake: pathlib.Path, kafka: str) -> dict[str, str]:
    template, _, runner = case.partition("-on-")
    mine = folder / "lakes" / case
    if template == "daily":
        shutil.copytree(lake, mine)
        return {"date": DAY, "lake": str(mine), "timescale_dsn": "env:LAUNCHING_DSN"}
    if case == "market-on-direct":
        return {"ticks": "3000000", "lake": str(mine)}  # long enough to be cancelled
    if runner == "direct":
        return {"lake": str(mine)}
    if case == "market-on-embedded-spark":
        return {"ticks": "3000000", "lake": str(mine)}
    names = {name: f"{case}-{name}" for name in ("topic", "processed_topic", "dead_letter_topic")}
    for name in names.values():
        create_topic(kafka, name, 1)
    ended = {"bounded": "true"} if "spark" in runner else {}
    return {"bootstrap_servers": kafka, "timescale_dsn": "env:LAUNCHING_DSN", "lake": str(mine), **names, **ended}


class Lives(NamedTuple):
    """Every template on every runner, from its launch to its end."""

    cases: dict[str, Future[None]]
    shown: set[str]  # all command lines that the list of processes showed meanwhile
    dsn: str


@pytest.fixture(scope="module")
def lives(folder, lake, new_dsn, kafka_server, spark_cluster, flink_cluster) -> Iterator[Lives]:
    dsn, requests = new_dsn("launching"), {}
    for case in CASES:
        runner, options = options_of(case.partition("-on-")[2], flink_cluster, spark_cluster)
        request = request_of(case, parameters_of(case, folder, lake, kafka_server), runner, options)
        requests[case] = folder / f"{case}.json"
        requests[case].write_text(json.dumps(request))
    with listed() as shown, ThreadPoolExecutor(AT_ONCE) as pool:
        yield Lives({case: pool.submit(live, case, path, dsn) for case, path in requests.items()}, shown, dsn)


@contextlib.contextmanager
def listed() -> Iterator[set[str]]:
    """Keeps the command lines of all processes, as long as the block lasts."""
    shown: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            shown.update(" ".join(it.info["cmdline"] or ()) for it in psutil.process_iter(["cmdline"]))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield shown
    finally:
        over.set()
        watching.join()


@pytest.mark.parametrize("case", CASES)
def test_each_template_lives_and_ends_on_each_runner_by_its_request_alone(lives, case) -> None:
    lives.cases[case].result()


def live(case: str, request: pathlib.Path, dsn: str) -> None:
    """Launch, status, logs, and drain, cancel or the end by itself."""
    done = launch("run", f"--request={request}", LAUNCHING_DSN=dsn)
    assert done.code == 0, done.out + done.err
    job, lines = done.last, done.out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d-\d{9}", job)
    assert any(line.startswith("✓ lake ") for line in lines)
    assert not any(line.startswith("✗") for line in lines)
    told = fields(job)
    runner = json.loads(request.read_text())["launchParameter"]["launchOptions"]["runner"]
    assert (told["name"], told["template"], told["runner"]) == (case, case.partition("-")[0], runner)
    assert told["state"] in ("RUNNING", "DONE")
    if case in DRAINED:
        drained(case, job)
    elif case in CANCELLED:
        cancelled(case, job)
    else:
        done_by_itself(case, job)


def done_by_itself(case: str, job: str) -> None:
    await_true(lambda: state(job) not in ("STARTING", "RUNNING"), 300)
    told, log = fields(case), control.log_of(jobs.find(job))
    assert (told["state"], told["exit_code"]) == ("DONE", 0), log
    assert "└──" in log, "it says what it has done"
    with pytest.raises(UsageError, match="has ended as DONE and cannot be cancelled"):
        control.cancel(jobs.find(job))


def drained(case: str, job: str) -> None:
    await_true(lambda: control.status_of(jobs.find(job)).checkpoint)
    await_true(lambda: control.status_of(jobs.find(job)).restarts is not None)  # Flink tells its metrics when it likes
    told = fields(job)
    assert (told["state"], told["restarts"], told["exit_code"]) == ("RUNNING", 0, None)
    done = launch("drain", job)
    assert done.code == 0, done.err
    told = fields(case)
    assert (told["state"], told["savepoint"], told["exit_code"]) == ("DRAINED", done.last, 0)
    assert (pathlib.Path(done.last.removeprefix("file:")) / "_metadata").is_file()
    assert "the job was stopped; with --savepoint_path" in control.log_of(jobs.find(job))


def cancelled(case: str, job: str) -> None:
    with pytest.raises(UsageError) as refused:
        control.drain(jobs.find(case))
    kind = "an embedded runner's" if "flink" in case else "bounded, so it ends by itself"
    assert f"({case}) is {kind} and cannot be drained" in str(refused.value)
    assert f"cancel it (python -m beam_pipelines.launch cancel {job})" in str(refused.value)
    done = launch("cancel", case)
    assert (done.code, done.err) == (0, "")
    assert state(case) == "CANCELLED"
    assert not [it for it in psutil.process_iter() if job in environment_of(it)], "its job server goes on"


def environment_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.environ().values())
    except psutil.Error:
        return ""


def test_no_secret_is_shown_anywhere(lives, folder) -> None:
    wait(lives.cases.values())
    kept = [path for path in folder.rglob("*") if path.is_file() and "lakes" not in path.parts]
    assert {path.name for path in kept} >= {
        "job.json",
        "log",
        "graph.json",
        "ended.json",
        "market-on-flink-cluster.json",
    }
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    for case in CASES:
        assert SECRET not in json.dumps(fields(case))
        assert SECRET not in control.log_of(jobs.find(case))
    assert any("launching.carry_out" in line for line in lives.shown)
    assert any("--flink-master" in line for line in lives.shown)
    assert not [line for line in lives.shown if SECRET in line]
    with psycopg.connect(lives.dsn) as connection:  # it was known where it is needed
        assert connection.execute("SELECT count(*) > 0 FROM daily_market_summary").fetchone() == (True,)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_line_in_the_docs_launches_it(template, tmp_path_factory, folder) -> None:
    """The batch's goes on from what the stream's has left."""
    (line,) = re.findall(r"^```sh\n(.+?)\n```", (PAGES / f"{template}.md").read_text(), re.DOTALL | re.MULTILINE)[:1]
    python, *words = shlex.split(line.replace("\\\n", " "))
    assert (python, words[:3]) == ("python", ["-m", "beam_pipelines.launch", "run"])
    where = folder / "docs"
    where.mkdir(exist_ok=True)
    done = launch(*words[2:], cwd=where)
    assert done.code == 0, done.out + done.err
    assert status(done.last)["state"] == "DONE"


# --- a stream on the Flink cluster ---


class Stream(NamedTuple):
    """A log, the sinks of a stream over it, and the parameters that name both."""

    log: Log
    sinks: Sinks
    parameters: dict[str, str]
    options: list[str]

    def run(self, *more: str, parameters: dict[str, str] | None = None, options: tuple[str, ...] = ()) -> Done:
        given = [f"{name}={value}" for name, value in {**self.parameters, **(parameters or {})}.items()]
        fixed = ["run", "market", "--runner=FlinkRunner", "--options", *self.options, *options]
        return launch(*fixed, *more, "--parameters", *given, STREAM_DSN=self.sinks.dsn)


@pytest.fixture(scope="module")
def in_memory() -> Log:
    session = Session(seed=5, ticks=20_000, symbols=8, disorder=0.1, late=0.01, duplicate=0.02, tie=0.05)
    batches = [batch for _, batch in raw_batches(session, 3)]
    return Log("", batches, ledger.expected_of(batches, SEMANTICS))


@pytest.fixture
def stream(in_memory, kafka_server, flink_cluster, new_dsn, tmp_path, request) -> Iterator[Stream]:
    name = re.sub("[^a-z]+", "-", request.node.name)[:60]
    log = in_memory._replace(topic=name)
    topics = [f"{name}-{what}" for what in ("processed", "dead", "anomalies")]
    create_topic(kafka_server, name, 3)
    for topic in topics:
        create_topic(kafka_server, topic, 2)
    sinks = Sinks(kafka_server, *topics, new_dsn(name.replace("-", "_")), str(tmp_path / "lake"))
    named = dict(flag.removeprefix("--").split("=", 1) for flag in [*sinks.arguments, *MEANING])
    parameters = {**named, "topic": name, "timescale_dsn": "env:STREAM_DSN", "idle_ms": "2000"}
    options = [it.removeprefix("--") for it in flink_cluster.arguments[1:]]
    yield Stream(log, sinks, parameters, [*options, "checkpointing_interval=1000"])
    for record in jobs.all_jobs():
        if control.lives(record):
            control.cancel(record)


def test_an_update_that_fails_or_comes_under_load_loses_and_doubles_nothing(stream) -> None:
    begun = stream.run("--job_name=updated", options=("max_parallelism=16",))
    assert begun.code == 0, begun.err
    parts = stream.log.cut(4)
    fill(stream.sinks.bootstrap_servers, stream.log.topic, parts[0])
    refused_for_its_parameters(stream, begun.last)
    refused_for_its_graph(stream)
    assert state(begun.last) == "RUNNING"
    old = put_back(stream, begun.last)

    def fill_the_rest() -> None:
        for part in parts[1:]:
            fill(stream.sinks.bootstrap_servers, stream.log.topic, part, 10.0)

    filler = threading.Thread(target=fill_the_rest)
    before = stream.sinks.count("market_data_ts")
    filler.start()
    await_true(lambda: stream.sinks.count("market_data_ts") > before)
    options = ("max_parallelism=16", "parallelism=2")
    updated = stream.run("--update=updated", parameters={"idle_ms": "1500"}, options=options)
    assert updated.code == 0, updated.out + updated.err
    told = [fields(old), fields("updated")]
    assert [(it["id"], it["state"], it["exit_code"]) for it in told] == [
        (old, "UPDATED", 0),
        (updated.last, "RUNNING", None),
    ]
    assert told[1]["replaces"] == old
    filler.join()
    await_true(lambda: stream.sinks.is_clean(stream.log.expected))
    found = dict(stream.sinks.differences(stream.log.expected))
    assert set(found) == set(SINKS)
    assert found["table of ticks"].repeated == 0
    assert launch("drain", "updated").code == 0


def refused_for_its_parameters(stream: Stream, job: str) -> None:
    done = stream.run("--update=updated", parameters={"bar_seconds": "10"})
    assert done.code == 2
    said = f"job {job} (updated) cannot be updated and goes on: parameter bar_seconds was 5 and is now 10, and"
    assert said in done.err


def refused_for_its_graph(stream: Stream) -> None:
    gone = {name: value for name, value in stream.parameters.items() if name != "lake"}
    done = stream._replace(parameters=gone).run("--update=updated")
    assert done.code == 2
    assert re.search(r"goes on: step WriteLake/\S+ keeps state and is gone", done.err)


def put_back(stream: Stream, old: str) -> str:
    """An update that does not start; gives the id under which the old job goes on from the savepoint."""
    done = stream.run("--update=updated", options=("max_parallelism=32",))  # Flink cannot scale its state so
    assert done.code == 1, done.out
    told = re.search(
        r"error: job (\S+) did not start from the savepoint (\S+): it .+; the old one was started again from it and "
        r"runs as (\S+)",
        done.err,
    )
    assert told, done.err
    assert [state(told[1]), state(old), state(told[3])] == ["FAILED", "DRAINED", "RUNNING"]
    assert fields(old)["savepoint"] == told[2]
    return told[3]


def test_a_job_goes_on_without_its_program_and_its_name_is_taken_everywhere(stream, flink_cluster, tmp_path) -> None:
    begun = stream.run("--job_name=orphan")
    assert begun.code == 0, begun.err
    record = jobs.find("orphan")
    again = stream.run("--job_name=orphan")
    assert again.code == 2
    assert f"--job_name=orphan: job {begun.last} has this name and has not ended" in again.err
    os.kill(record.process.pid, signal.SIGKILL)
    await_true(lambda: not record.process.running())
    told = status("orphan")
    assert (told["state"], told["exit_code"]) == ("RUNNING", None)
    assert told["remark"] == "its program is gone: the cluster goes on with the job"
    given = [f"{name}={value}" for name, value in stream.parameters.items()]
    elsewhere = {"WAARDHAVEN_JOBS": str(tmp_path / "another machine"), "STREAM_DSN": stream.sinks.dsn}
    command = ("run", "market", "--runner=FlinkRunner", "--job_name=orphan", "--options", *stream.options)
    refused = launch(*command, "--parameters", *given, **elsewhere)
    assert refused.code == 2
    (running,) = (it.id for it in Cluster(flink_cluster.rest).jobs() if it.name == "orphan" and it.lives)
    assert f"a job of this name ({running}) runs on Flink at {flink_cluster.rest}" in refused.err
    done = launch("cancel", "orphan")
    assert done.code == 0, done.err
    assert done.last.split("/")[-1].startswith("chk-")
    assert state("orphan") == "CANCELLED"


def test_all_that_does_not_answer_is_told_at_once(stream, tmp_path) -> None:
    missing = {"bootstrap_servers": "127.0.0.1:1", "timescale_dsn": "env:STREAM_DSN", "topic": "none"}
    given = [f"{name}={value}" for name, value in {**stream.parameters, **missing}.items()]
    dsn = f"postgresql://someone:{SECRET}@127.0.0.1:1/ticks"
    command = ("run", "market", "--runner=FlinkRunner", "--job_name=absent", "--options", "flink_master=127.0.0.1:1")
    done = launch(*command, "--parameters", *given, STREAM_DSN=dsn)
    assert done.code == 4
    told = [line.partition(":")[0] for line in done.out.splitlines()]
    assert told[:2] == ["✗ Kafka at 127.0.0.1", "✗ topic none"]
    assert "✗ topic none: not looked at without Kafka at 127.0.0.1:1" in done.out
    assert any(line.startswith("✗ tables market_data_ts, ") for line in done.out.splitlines())
    assert any(line.startswith("✓ lake ") for line in done.out.splitlines())
    assert "✗ runner FlinkRunner: --flink_master=127.0.0.1:1: no Flink cluster answers there" in done.out
    assert SECRET not in done.out + done.err
    assert "absent" not in {record.job.name for record in jobs.all_jobs()}
