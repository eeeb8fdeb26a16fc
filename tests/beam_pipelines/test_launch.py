"""Launching without any server: requests, mistakes, names, exit codes, and what becomes of jobs."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer

from beam_pipelines import launch
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.launching import control, jobs
from beam_pipelines.launching.graph import Step, differences, stateful_steps
from beam_pipelines.launching.parameters import Mistakes
from beam_pipelines.launching.preflight import look
from beam_pipelines.launching.requests import dataflow_call, program_of, read_request, spec_of, unused
from beam_pipelines.launching.templates import packaged, to_json
from beam_pipelines.stream import Check

LONG = "ticks=3000000"  # a session that lasts long enough to be watched


@pytest.fixture(autouse=True)
def registry(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An empty registry, and a folder to run in; ends what a test has left."""
    monkeypatch.setenv("WAARDHAVEN_JOBS", str(tmp_path / "jobs"))
    monkeypatch.delenv("TIMESCALE_DSN", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "jobs"
    for record in jobs.all_jobs():
        own = record.process and record.process.pid == os.getpid()  # reserved, and never started
        if control.lives(record) and not own:
            control.cancel(record)


class Done(NamedTuple):
    """A command that has ended."""

    code: Any
    out: list[str]
    err: list[str]


Command = Callable[..., Done]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the program in this process, as its module does."""

    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["launch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_main(launch.main)
        out, err = capfd.readouterr()
        return Done(ended.value.code, out.splitlines(), err.splitlines())

    return command


def request(**launched: Any) -> str:
    return json.dumps({"launchParameter": {"jobName": "a", "containerSpecGcsPath": "market", **launched}})


# --- requests ---


def test_a_request_is_read_in_the_names_of_the_api_and_in_snake_case() -> None:
    camel = {
        "projectId": "p",
        "location": "europe-west4",
        "validateOnly": True,
        "launchParameter": {
            "jobName": "a",
            "containerSpecGcsPath": "market",
            "parameters": {"ticks": "10"},
            "launchOptions": {"runner": "FlinkRunner", "x": "y"},
            "environment": {"numWorkers": 2, "additionalPipelineOptions": ["flink_master=h:1"]},
            "update": True,
        },
    }
    snake = {
        "project_id": "p",
        "location": "europe-west4",
        "validate_only": "true",
        "launch_parameter": {
            "job_name": "a",
            "container_spec_gcs_path": "market",
            "parameters": {"ticks": 10},
            "launch_options": {"runner": "flinkrunner", "x": "y"},
            "environment": {"num_workers": "2", "additional_pipeline_options": ["flink_master=h:1"]},
            "update": "True",
        },
    }
    one, other = (read_request(json.dumps(it)) for it in (camel, snake))
    assert one == other
    assert (one.job_name, one.runner, one.project, one.location) == ("a", "FlinkRunner", "p", "europe-west4")
    assert (one.update, one.validate_only, one.parameters, one.launch_options) == (
        *(True, True, {"ticks": "10"}, {"x": "y"}),
    )
    assert one.spec == packaged("market")


def test_the_template_of_a_request_stands_in_it_or_in_a_file(tmp_path: pathlib.Path) -> None:
    spec = to_json(packaged("news"))
    (tmp_path / "my own.json").write_text(spec)
    given = [
        {"containerSpec": json.loads(spec)},
        {"containerSpecGcsPath": "my own.json"},
        {"containerSpecGcsPath": (tmp_path / "my own.json").as_uri()},
    ]
    for it in given:
        read = read_request(json.dumps({"launchParameter": {"jobName": "a", **it}}))
        assert read.spec == packaged("news")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "the request is no JSON"),
        ("[]", "the request must be an object, not []"),
        ("{}", "the request has no launchParameter"),
        ('{"launchParameters": {}}', "the request has no field launchParameters: did you mean launchParameter?"),
        (request(paramaters={}), "launchParameter has no field paramaters: did you mean parameters?"),
        (
            request(containerSpec={}),
            "launchParameter needs containerSpec or containerSpecGcsPath, a path, and not both",
        ),
        ('{"launchParameter": {"jobName": "a"}}', "launchParameter needs containerSpec or containerSpecGcsPath"),
        (request(containerSpecGcsPath="none.json"), "template none.json cannot be read (No such file or directory)"),
        (request(containerSpecGcsPath="gs://b/market.json"), "gs://b/market.json is not read here: give containerSpec"),
        (request(update="perhaps"), "launchParameter.update must be true or false"),
        (request(parameters=[]), "launchParameter.parameters must be an object"),
    ],
)
def test_a_request_that_is_wrong_is_refused(content: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        read_request(content)


def test_the_pipelines_command_line_holds_parameters_the_runner_the_name_and_beams_options() -> None:
    environment = {"numWorkers": 3, "additionalPipelineOptions": ["--flink_master=h:1", "object_reuse"]}
    read = read_request(
        request(
            parameters={"ticks": "10", "bounded": "TRUE", "repartition": "false"},
            launchOptions={"runner": "FlinkRunner"},
            environment=environment,
        )
    )
    argv = program_of(read)
    assert sorted(argv[:2]) == ["--bounded", "--ticks=10"]
    assert argv[2:] == [
        "--runner=FlinkRunner",
        "--job_name=a",
        "--parallelism=3",
        "--flink_master=h:1",
        "--object_reuse",
    ]


def test_what_the_template_says_of_the_environment_holds_where_the_request_says_nothing() -> None:
    spec = packaged("market")._replace(default_environment={"numWorkers": 4, "additionalPipelineOptions": ("x=1",)})
    read = read_request(request(launchOptions={"runner": "FlinkRunner"}))._replace(spec=spec)
    assert read.options == ["x=1"]
    assert read._replace(environment={"additionalPipelineOptions": ()}).options == []


def test_what_is_for_dataflow_alone_is_named() -> None:
    environment = {"machineType": "n2", "numWorkers": 2, "additionalPipelineOptions": []}
    direct = read_request(request(environment=environment, launchOptions={"x": "y"}))
    assert unused(direct) == ["environment.machineType", "environment.numWorkers", "launchOptions.x"]
    assert unused(direct._replace(runner="FlinkRunner")) == ["environment.machineType", "launchOptions.x"]


# --- Dataflow ---


def test_for_dataflow_the_exact_call_is_made() -> None:
    content = {
        "projectId": "shop",
        "location": "europe-west4",
        "launchParameter": {
            "job_name": "market-live",
            "container_spec_gcs_path": "gs://templates/market.json",
            "parameters": {"bootstrap_servers": "k:9092"},
            "launch_options": {"runner": "DataflowRunner"},
            "environment": {
                "maxWorkers": "5",
                "enable_streaming_engine": "true",
                "additionalUserLabels": {"team": "a"},
                "additionalPipelineOptions": ["max_num_workers=9"],
            },
            "update": "true",
            "transformNameMappings": {"Old": "New"},
        },
    }
    assert dataflow_call(read_request(json.dumps(content))) == (
        "https://dataflow.googleapis.com/v1b3/projects/shop/locations/europe-west4/flexTemplates:launch",
        {
            "launchParameter": {
                "jobName": "market-live",
                "containerSpecGcsPath": "gs://templates/market.json",
                "parameters": {"bootstrap_servers": "k:9092"},
                "environment": {
                    "maxWorkers": 5,
                    "enableStreamingEngine": True,
                    "additionalUserLabels": {"team": "a"},
                    "additionalPipelineOptions": ["max_num_workers=9"],
                },
                "update": True,
                "transformNameMappings": {"Old": "New"},
            }
        },
    )


def test_for_dataflow_nothing_is_started_and_the_body_can_be_sent_as_it_is(
    run: Command, registry: pathlib.Path
) -> None:
    command = ("run", "market", "--job_name=a", "--runner=DataflowRunner", "--parameters", "ticks=10", "--options")
    done = run(*command, "project=shop", "region=us-central1")
    assert done.code == 0
    url = "https://dataflow.googleapis.com/v1b3/projects/shop/locations/us-central1/flexTemplates:launch"
    assert done.err == [f"nothing was started: POST this body to {url}"]
    sent = json.loads("\n".join(done.out))
    assert sent == {
        "launchParameter": {
            "jobName": "a",
            "containerSpec": json.loads(to_json(packaged("market"))),
            "parameters": {"ticks": "10"},
        }
    }
    assert jobs.all_jobs() == []
    missing = run("run", "market", "--job_name=a", "--runner=DataflowRunner")
    assert (missing.code, len(missing.err)) == (2, 1)
    assert "needs a project and a location" in missing.err[0]


# --- mistakes ---


def test_all_mistakes_are_told_at_once_and_nothing_starts(run: Command) -> None:
    parameters = ("ticks=x", "bar_seconds=0", "tiks=1", "timescale_dsn=postgresql://a:Geheim-7@b/c")
    options = ("paralelism=2",)
    done = run(
        "run", "market", "--job_name=A_1", "--runner=Hamster", "--parameters", *parameters, "--options", *options
    )
    assert (done.code, done.out) == (2, [])
    assert all(line.startswith("error: ") for line in done.err)
    said = [
        "job name 'A_1' must be lower-case letters, digits and hyphens",
        "runner 'Hamster' must be one of DirectRunner, FlinkRunner, SparkRunner, DataflowRunner",
        "parameter tiks is not known: did you mean ticks?",
        "parameter ticks must be a whole number from 1 to 10000000, not 'x'",
        "parameter timescale_dsn must be a reference to the secret",
        "parameter bar_seconds",
        "options: unknown flag or argument --paralelism: did you mean --parallelism?",
    ]
    for words, line in zip(said, done.err, strict=True):
        assert words in line
    assert "Geheim-7" not in " ".join(done.err)
    assert jobs.all_jobs() == []
    assert not pathlib.Path("lake").exists()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("runner=FlinkRunner", "option runner is the launch's own"),
        ("--job_name=b", "option job_name is the launch's own"),
        ("bar_seconds=5", "option bar_seconds is a parameter of market: give it among the parameters"),
        ("s3_secret_access_key=abc", "option s3_secret_access_key would show a secret"),
        ("fantasy=1", "unknown flag or argument --fantasy"),
    ],
)
def test_options_are_beams_alone_and_never_secret(option: str, says: str) -> None:
    with pytest.raises(Mistakes) as refused:
        program_of(read_request(request(environment={"additionalPipelineOptions": [option]})))
    (sentence,) = refused.value.sentences
    assert says in sentence
    assert "abc" not in sentence


@pytest.mark.parametrize(("name", "good"), [("a", True), ("market-live-2", True), ("m" * 1024, True)])
def test_names_are_those_that_dataflow_takes(name: str, good: bool) -> None:
    program_of(read_request(request(jobName=name)))
    for bad in ("", "-a", "a-", "A", "a_b", "1a", "a b", "é", "m" * 1025, "a\n"):
        with pytest.raises(Mistakes):
            program_of(read_request(request(jobName=bad)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run", "name a template to run, one of daily, market, news, or give --request=FILE"),
        ("run market", "--job_name is missing"),
        ("run fantasy --job_name=a", "template fantasy cannot be read"),
        ("run market --job_name=a --timeout=5", "--timeout is how long --wait waits: give that too"),
        ("run market --job_name=a --wait --timeout=0", "--timeout: must be a whole number from 1"),
        ("run market --request=r.json", "--request says all that --template says: leave one of them out"),
        ("run --request=none.json", "--request=none.json cannot be read"),
        ("run market --job_name=a --parameters ticks", "--parameters: ticks is no name=value"),
        ("run market --job_name=a --parameters ticks=1 ticks=2", "--parameters: ticks is given twice"),
        ("run market --update=a", "no job that was launched here has the id or name a"),
        ("status a", "no job that was launched here has the id or name a"),
        ("cancel", "the following arguments are required: JOB"),
        ("describe fantasy", "template fantasy cannot be read (No such file or directory)"),
        ("validate market --parameters ticks=x", "parameter ticks must be a whole number"),
    ],
)
def test_bad_use_is_one_sentence(run: Command, line: str, says: str) -> None:
    done = run(*line.split())
    assert (done.code, done.out, len(done.err)) == (2, [], 1)
    assert says in done.err[0]


def test_flags_that_do_not_go_together_are_a_mistake(run: Command) -> None:
    done = run("run", "market", "--job_name=a", "--parameters", "repartition=true")
    assert (done.code, done.out) == (2, [])
    assert "--repartition is for a topic" in done.err[0]


def test_a_template_can_be_looked_at_and_its_parameters_tried(run: Command) -> None:
    assert [line.split()[0] for line in run("list").out] == ["daily", "market", "news"]
    told = "\n".join(run("describe", "market").out)
    assert re.search(r"^market: .+, a stream$", told, re.MULTILINE)
    assert re.search(r"^  bar_seconds \(NUMBER, default 60\)$", told, re.MULTILINE)
    assert re.search(r"^  lake \(TEXT, required\)$", "\n".join(run("describe", "daily").out), re.MULTILINE)
    assert json.loads("\n".join(run("describe", "market", "--json").out)) == json.loads(to_json(spec_of("market")))
    assert run("validate", "market", "--parameters", "ticks=10").code == 0
    assert not pathlib.Path("lake").exists()


# --- preflight ---


def test_everything_is_looked_at_but_what_needs_what_is_missing() -> None:
    looked = []

    def absent() -> None:
        looked.append("absent")
        raise UsageError("it is\nnot there: start it")

    checks = [
        Check("broker", absent),
        Check("topic", lambda: looked.append("topic"), "broker"),
        Check("lake", lambda: looked.append("lake")),
    ]
    lines: list[str] = []
    assert not look(checks, lines.append)
    assert lines == ["✗ broker: it is not there: start it", "✗ topic: not looked at without broker", "✓ lake"]
    assert looked == ["absent", "lake"]
    assert look(checks[2:], lines.append)


def test_what_does_not_answer_is_told_and_nothing_starts(run: Command) -> None:
    pathlib.Path("a_file").touch()
    done = run("run", "market", "--job_name=a", "--parameters", "input=none.csv", "lake=a_file/x")
    assert done.code == 4
    assert [line.partition(":")[0] for line in done.out] == [
        "✗ file none.csv",
        "✗ lake a_file/x",
        "✓ runner DirectRunner",
    ]
    assert jobs.all_jobs() == []


def test_only_looking_starts_nothing(run: Command) -> None:
    done = run("run", "market", "--job_name=a", "--validate_only")
    assert (done.code, done.out[-1]) == (0, "all is there; nothing was started")
    assert jobs.all_jobs() == []


# --- jobs ---


def test_a_job_that_is_waited_for_gives_its_end(run: Command) -> None:
    done = run("run", "market", "--job_name=a", "--wait", "--parameters", "ticks=50", "lake=here")
    assert (done.code, done.err) == (0, [])
    assert pathlib.Path("here", "market-data").is_dir()
    told = json.loads("\n".join(run("status", done.out[-1], "--json").out))
    assert (told["name"], told["state"], told["exit_code"], told["runner"]) == ("a", "DONE", 0, "DirectRunner")
    assert any("ticks enriched" in line or "│" in line for line in run("logs", "a").out)
    assert run("status").out == [f"{done.out[-1]}  DONE       market   DirectRunner  a"]


def test_a_job_that_fails_is_told_with_the_last_lines_of_its_log(run: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        parameters = ("ticks=50", f"metrics_port={port}")
        done = run("run", "market", "--job_name=a", "--parameters", *parameters)
    assert done.code == 1
    assert str(port) in done.err[-2]
    assert done.err[-1] == f"error: job {done.out[-1]} (a) ended as FAILED"
    assert control.status_of(jobs.find("a")).exit_code == 2


def test_a_job_that_takes_too_long_goes_on_and_can_be_cancelled(run: Command) -> None:
    done = run("run", "market", "--job_name=a", "--wait", "--timeout=1", "--parameters", LONG)
    assert done.code == 3
    assert done.err == [f"error: job {done.out[-1]} (a) did not end within 1 s and goes on"]
    assert control.lives(jobs.find("a"))
    refused = run("drain", "a")
    assert refused.code == 2
    assert "is bounded, so it ends by itself and cannot be drained" in refused.err[0]
    assert run("cancel", "a").code == 0
    assert control.status_of(jobs.find("a")).state == control.CANCELLED
    assert "has ended as CANCELLED and cannot be cancelled" in run("cancel", "a").err[0]


def test_of_two_launches_with_one_name_at_once_one_is_refused(registry: pathlib.Path) -> None:
    command = [sys.executable, "-m", "beam_pipelines.launch", "run", "market", "--job_name=same", "--parameters", LONG]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = sorted((*it.communicate(timeout=200), it.returncode) for it in both)
    ended.sort(key=lambda it: it[-1])
    (out, _, first), (_, err, second) = ended
    assert (first, second) == (0, 2)
    (record,) = jobs.all_jobs()
    assert out.splitlines()[-1] == record.id
    assert f"error: --job_name=same: job {record.id} has this name and has not ended" in err


def test_a_job_whose_program_was_killed_is_lost_and_its_name_is_free(run: Command) -> None:
    begun = run("run", "market", "--job_name=a", "--parameters", LONG)
    assert begun.code == 0
    record = jobs.find("a")
    process = record.process
    assert process
    assert control.status_of(record).state == control.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    assert control.status_of(record).state == control.LOST
    again = run("run", "market", "--job_name=a", "--wait", "--parameters", "ticks=50")
    assert again.code == 0
    assert jobs.find("a").id == again.out[-1] != record.id
    assert jobs.find(record.id).id == record.id


def job(**fields: Any) -> jobs.Job:
    return jobs.Job(
        **{"name": "a", "template": "market", "runner": "DirectRunner", "parameters": {}, "argv": [], **fields}
    )


def test_what_became_of_a_job_is_told_by_its_folder(registry: pathlib.Path) -> None:
    record = jobs.reserve(job(folder="."), control.lives, None)
    assert control.status_of(record).state == control.STARTING, "this process stands for it"
    record.tell("running", at=5.0)
    assert control.status_of(record)[:2] == (control.RUNNING, 5.0)
    record.tell("process", pid=2**22, created=0.0)
    assert control.status_of(record).state == control.LOST
    for code, state in ((0, control.DONE), (1, control.FAILED), (2, control.FAILED)):
        record.tell("ended", code=code, at=7.0)
        assert control.status_of(record)[:3] == (state, 7.0, code)
    record.tell("stopped", state=control.DRAINED, at=6.0, savepoint="file:/x")
    assert control.status_of(record) == control.Status(control.DRAINED, 6.0, 2, savepoint="file:/x")


def test_where_the_cluster_does_not_answer_the_program_tells_and_it_is_said(registry: pathlib.Path) -> None:
    record = jobs.reserve(job(folder=".", flink_master="127.0.0.1:1", unbounded=True), control.lives, None)
    assert control.status_of(record).remark == "", "nothing was submitted yet"
    record.log.touch()
    told = control.status_of(record)
    assert told.state == control.STARTING
    assert "127.0.0.1:1: no Flink cluster answers there" in told.remark
    record.tell("process", pid=2**22, created=0.0)
    assert control.status_of(record).state == control.LOST


def test_ids_are_as_dataflows_and_names_are_found_though_misspelt(registry: pathlib.Path) -> None:
    record = jobs.reserve(job(name="market-live", folder="."), control.lives, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d-\d{9}", record.id)
    assert abs(time.time() - record.job.launched) < 60
    assert jobs.find("market-live") == jobs.find(record.id) == record
    with pytest.raises(UsageError, match="did you mean market-live"):
        jobs.find("market-liv")
    assert (registry / record.id).stat().st_mode & 0o77 == 0


# --- graphs ---


class Keep(beam.DoFn):
    HELD = BagStateSpec("held", BytesCoder())
    LAST = ReadModifyWriteStateSpec("last", VarIntCoder())
    END = TimerSpec("end", TimeDomain.REAL_TIME)

    def process(
        self, element, held=beam.DoFn.StateParam(HELD), last=beam.DoFn.StateParam(LAST), end=beam.DoFn.TimerParam(END)
    ):
        return []

    @on_timer(END)
    def clear(self):
        return []


class KeepOther(beam.DoFn):
    HELD = BagStateSpec("held", VarIntCoder())

    def process(self, element, held=beam.DoFn.StateParam(HELD)):
        return []


def steps_of(*kept: tuple[str, beam.DoFn], before: str = "Make") -> dict[str, Step]:
    pipeline = beam.Pipeline()
    made = pipeline | before >> beam.Create([(1, b"a")]).with_output_types(tuple[int, bytes])
    for name, function in kept:
        made | name >> beam.ParDo(function)
    return dict(stateful_steps(pipeline))


def test_a_graphs_stateful_steps_are_known_by_name_state_timer_and_coder() -> None:
    steps = steps_of(("Keep", Keep()))
    assert list(steps) == ["Keep"]
    step = steps["Keep"]
    assert step.states == {"held": "bag of bytes:v1", "last": "read_modify_write of varint:v1"}
    assert list(step.timers) == ["ts-end"]
    assert step.timers["ts-end"].startswith("PROCESSING_TIME ")
    assert step.key == "kv:v1(varint:v1, bytes:v1)"
    assert differences(steps, steps_of(("Keep", Keep()))) == []
    assert differences(steps, steps_of(("Keep", Keep()), ("New", KeepOther()))) == [], "what is new begins anew"


def test_what_would_lose_or_misread_state_is_told() -> None:
    old = steps_of(("Keep", Keep()), ("Other", KeepOther()))
    (gone,) = differences(old, steps_of(("Keep", Keep())))
    assert gone.startswith("step Other keeps state and is gone")
    assert differences(old, steps_of(("Keep", Keep())), may_forget=True) == []
    assert differences(old, steps_of(("Keep", KeepOther()), ("Other", KeepOther()))) == [
        "the state held of step Keep has another kind or coder",
        "the state last of step Keep is gone",
        "the timer ts-end of step Keep is gone",
    ]
    (moved, *_) = differences(old, steps_of(("Keep", Keep()), ("Other", KeepOther()), before="Made"))
    assert "step Keep reads" in moved
    assert "by which Flink finds its state" in moved


def test_a_graph_is_the_same_in_another_process(registry: pathlib.Path) -> None:
    script = (
        "import apache_beam as beam, json, typing\n"
        "from apache_beam.coders import registry, RowCoder\n"
        "from apache_beam.transforms.userstate import BagStateSpec\n"
        "from beam_pipelines.launching.graph import stateful_steps\n"
        "class Row(typing.NamedTuple):\n    a: int\n"
        "registry.register_coder(Row, RowCoder)\n"
        "class Keep(beam.DoFn):\n"
        "    HELD = BagStateSpec('held', registry.get_coder(Row))\n"
        "    def process(self, element, held=beam.DoFn.StateParam(HELD)):\n        return []\n"
        "p = beam.Pipeline()\n"
        "p | beam.Create([(1, Row(1))]).with_output_types(tuple[int, Row]) | beam.ParDo(Keep())\n"
        "print(json.dumps(stateful_steps(p)))\n"
    )
    told = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({**os.environ, "PYTHONHASHSEED": seed} for seed in "12")
    }
    assert len(told) == 1
    assert "row:v1" in told.pop()


def test_a_graph_is_kept_with_its_job(registry: pathlib.Path) -> None:
    steps = steps_of(("Keep", Keep()))
    record = jobs.reserve(job(folder="."), control.lives, steps)
    assert record.graph == steps
    record.tell("ended", code=0, at=0.0)
    assert jobs.reserve(job(folder="."), control.lives, None).graph is None
