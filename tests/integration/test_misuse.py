"""Bad use of every program: one clear sentence, exit code 2, no traceback, no secret, within 15 seconds."""

import argparse
import gzip
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import psycopg
import psycopg.conninfo
import pytest

from beam_pipelines import daily, demo, jobs, market, news, replay, stack
from beam_pipelines.command_line import Parser
from beam_pipelines.errors import UsageError, run_main
from beam_pipelines.io.kafka import KafkaConfig
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.sql import migrate

SECRET = "Geheim-7"  # the password wherever one is given
WAIT_S = 10  # of the 15 s; a busy machine may need the others to start Python
CPU_S = 5
CLOSED = "127.0.0.1:1"
DSN = f"postgresql://someone:{SECRET}@{CLOSED}/ticks"
FLINK = "--runner=FlinkRunner"
SPARK = "--runner=SparkRunner"
HUGE = "9" * 30

Refusal = Callable[..., str]


@pytest.fixture(autouse=True)
def in_a_folder_with_files_of_every_damage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TIMESCALE_DSN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    texts = {
        "a_file": "x",
        "broken.json": "{",
        "list.json": '{"bootstrap.servers": ["a"]}',
        "forbidden.json": '{"enable.auto.commit": true}',
        "unknown.conf": f"no.such.setting=1\nsasl.password={SECRET}\n",
        "lines.conf": f"sasl.password {SECRET}\n",
        "columns.csv": "x,y\n1,2\n",
        "ragged.csv": "symbol,timestamp,price,volume\nA,1,2,3\nA,1,2\n",
        "empty.csv": "",
        "noise.parquet": "PAR1 and nothing more",
        "noise.zip": "PK",
        "ticks.xlsx": "x",
        "good.ndjson": '{"id":"a","title":"Apple rises","published_at":1795180000000}\n',
        "noise.ndjson.gz": "no gzip",
    }
    for name, text in texts.items():
        pathlib.Path(name).write_text(text)
    pathlib.Path("latin.csv").write_bytes(b"symbol,timestamp,price,volume\n\xff\xfe\xe9,1,2,3\n\xe9")
    whole = gzip.compress(b"".join(b'{"id":%d}\n' % number for number in range(1000)))
    pathlib.Path("torn.ndjson.gz").write_bytes(whole[:20] + bytes(10) + whole[30:])
    pathlib.Path("precious").mkdir()
    pathlib.Path("precious", "thesis.txt").write_text("all my work")


@pytest.fixture
def refusal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Refusal:
    """Runs a program in this process, as its module does, and gives the one line that it says."""

    def run(program: ModuleType, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        began = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            run_main(program.main)
        assert time.monotonic() - began < WAIT_S
        out, err = capfd.readouterr()
        assert not [record for record in caplog.records if record.levelname != "INFO"], "it would show on stderr"
        return sentence(ended.value.code, out, err)

    return run


def sentence(code: object, out: str, err: str) -> str:
    """The one line on stderr, of a program that was used badly."""
    assert code == 2, err
    assert re.fullmatch(r"error: \S[^\n]*\S\n", err), err
    assert out == ""
    assert SECRET not in err
    return err


def split(line: str) -> list[str]:
    """The words of a command line; `_` is a space within one, '' an empty one."""
    return [word.replace("_space_", " ") for word in line.split()]


WATCHED = [
    ("--quality_topic=", "--quality_topic: is empty"),
    ("--bootstrap_servers=h:1 --quality_topic=dead-letters", "--quality_topic=dead-letters is another flag's topic"),
    (
        "--quality_suites=none",
        "/none has no file DATASET.json, such as market.json; give a folder of suites, or leave the flag off",
    ),
    ("--metrics_port=x", "--metrics_port: must be a whole number from 0 to 65535"),
    ("--metrics_file=m.txt", "path=m.txt must end in .prom"),
    ("--metrics_file=none/m.prom", "path=none/m.prom cannot be written"),
    ("--pushgateway=127.0.0.1:1", "gateway=127.0.0.1:1 does not take metrics of job"),
]
MARKET_VALUES = [  # arguments, and what the sentence must say of them
    ("--ticks=x", "--ticks: must be a whole number from 1 to 10000000, not 'x'"),
    ("--ticks=0", "--ticks: must be a whole number"),
    ("--ticks=-1", "--ticks: must be a whole number"),
    (f"--ticks={HUGE}", "--ticks: must be a whole number"),
    ("--ticks=1.5", "--ticks: must be a whole number"),
    ("--ticks=", "--ticks: must be a whole number"),
    ("--seed=x", "--seed: must be a whole number from 0 to"),
    ("--seed=-1", "--seed: must be a whole number"),
    (f"--seed={HUGE}", "--seed: must be a whole number"),
    ("--bar_seconds=0", "--bar_seconds: must be a whole number from 1 to 604800, not '0'"),
    ("--bar_seconds=1.5", "--bar_seconds: must be a whole number"),
    (f"--bar_seconds={HUGE}", "--bar_seconds: must be a whole number"),
    ("--bar_seconds=3600", "--allowed_lateness_ms must be at least one bar (3600000), not 60000"),
    ("--out_of_orderness_ms=-1", "--out_of_orderness_ms: must be a whole number from 0"),
    (f"--out_of_orderness_ms={HUGE}", "--out_of_orderness_ms: must be a whole number"),
    ("--allowed_lateness_ms=0", "--allowed_lateness_ms: must be a whole number from 1"),
    ("--allowed_lateness_ms=59999", "--allowed_lateness_ms must be at least one bar (60000), not 59999"),
    ("--dedup_ms=-1", "--dedup_ms: must be a whole number from 0"),
    (f"--dedup_ms={HUGE}", "--dedup_ms: must be a whole number"),
    ("--max_future_ms=x", "--max_future_ms: must be a whole number from 0"),
    ("--max_future_ms=60001", "--max_future_ms must be at most --allowed_lateness_ms (60000), not 60001"),
    ("--idle_ms=0", "--idle_ms: must be a whole number from 1"),
    ("--lake_slot_seconds=0", "--lake_slot_seconds: must be a whole number from 1 to 86400, not '0'"),
    (f"--lake_slot_seconds={HUGE}", "--lake_slot_seconds: must be a whole number"),
    ("--lake_compression=gzip", "--lake_compression: invalid choice: 'gzip' (choose from"),
    ("--lake=ftp://x", "lake 'ftp://x' is not a place this can write to: give a folder or s3://bucket/prefix"),
    ("--lake=s3://", "lake 's3://' is not a place"),
    ("--lake=", "--lake: is empty"),
    ("--lake=/proc/x", "lake '/proc/x' is not writable (No such file or directory): choose another folder"),
    ("--lake=a_file/x", "a_file is a file: choose another folder"),
    ("--lake=a_file", "a_file is a file: choose another folder"),
    (f"--lake=s3://key:{SECRET}@bucket/x", "holds a key: leave it out and set AWS_ACCESS_KEY_ID"),
    ("--input=", "--input: is empty"),
    ("--input=none.csv", "input file none.csv does not exist: correct the path"),
    ("--input=precious", "input file precious has an unknown suffix ''"),
    ("--input=ticks.xlsx", "unknown suffix '.xlsx': it must be one of .csv"),
    ("--input=columns.csv", "columns.csv lacks the column symbol: it has x, y"),
    ("--input=empty.csv", "empty.csv lacks the column symbol"),
    ("--input=ragged.csv", "ragged.csv cannot be read (CSV parse error: Expected 4 columns, got 3: A,1,2)"),
    ("--input=latin.csv", "latin.csv cannot be read"),
    ("--input=noise.parquet", "noise.parquet cannot be read"),
    ("--input=noise.zip", "noise.zip cannot be read (File is not a zip file): repair or replace it"),
    ("--bootstrap_servers=", "--bootstrap_servers: is empty"),
    ("--kafka_config=", "--kafka_config: is empty"),
    ("--kafka_config=none.json", "kafka_config none.json cannot be read (No such file or directory)"),
    ("--kafka_config=precious", "kafka_config precious cannot be read (Is a directory)"),
    ("--kafka_config=broken.json", "kafka_config broken.json is not a JSON object of settings: correct it"),
    ("--kafka_config=list.json", "kafka_config list.json: bootstrap.servers is not a string"),
    ("--kafka_config=lines.conf", "kafka_config lines.conf, line 1 is not name=value: correct it"),
    ("--kafka_config=forbidden.json --bootstrap_servers=h:1", "setting enable.auto.commit cannot be changed"),
    ("--kafka_config=unknown.conf --bootstrap_servers=h:1", 'No such configuration property: "no.such.setting"'),
    ("--kafka_config=unknown.conf", "bootstrap_servers is empty: give host:port of a Kafka broker"),
    ("--topic=", "--topic: is empty"),
    ("--processed_topic=", "--processed_topic: is empty"),
    *WATCHED,
    ("--anomaly_topic=", "--anomaly_topic: is empty"),
    ("--bootstrap_servers=h:1 --anomaly_topic=market-data-raw", "--anomaly_topic=market-data-raw is another flag's"),
    ("--calendars x", "--calendars takes PATTERN=CALENDAR, such as '.*\\.L=XLON', not 'x'"),
    ("--calendars A=XNONE", "--calendars has the calendar 'XNONE' in 'A=XNONE', which does not exist"),
    ("--calendars (=XNYS", "--calendars has the pattern '(', which is no regular expression"),
    ("--dead_letter_topic=_space_", "--dead_letter_topic: is empty"),
    ("--bootstrap_servers=h:1 --processed_topic=market-data-raw", "--dead_letter_topic must differ"),
    ("--start=noon", "--start: position 'noon' is not understood: give earliest, latest, committed, a time"),
    ("--start=0:x", "--start: position '0:x' is not understood"),
    ("--start=0:-1", "--start: position '0:-1' is not understood"),
    ("--start=0:1,0:2", "--start: position '0:1,0:2' names a partition twice"),
    ("--start=2025-02-30", "--start: position '2025-02-30' is not understood"),
    ("--start=1969-12-31T23:59:59.999Z", "is not within the years 1970 to 9999: correct it"),
    (f"--start={HUGE}", "is not within the years 1970 to 9999"),
    ("--start_state=yesterday", "--start_state: 'yesterday' is no day: give one as 2024-01-31, or latest"),
    ("--start_state=2024-02-30", "--start_state: '2024-02-30' is no day"),
    ("--start_state=", "--start_state: '' is no day"),
    ("--start_state=2024-01-31", "has no such closing state (it holds none): choose a day that is there"),
    ("--start_state=latest --lake=precious", "--start_state=latest: lake"),
    ("--start_state=latest --bootstrap_servers=h:1", "--start_state=latest is read from the lake: name it with --lake"),
    ("--repartition=1", "--repartition: ignored explicit argument '1'"),
    ("--repartition", "--repartition is for a topic: name Kafka with --bootstrap_servers, and leave --input out"),
    ("--repartition --bootstrap_servers=h:1 --input=columns.csv", "--repartition is for a topic"),
    (
        "--repartition --bootstrap_servers=h:1 --topic=a --processed_topic=a-by-symbol",
        "must differ, not a, a-by-symbol, a-by-symbol, dead-letters: the stream would read what it writes",
    ),
    ("--bounded=x", "--bounded: ignored explicit argument 'x'"),
    ("--timescale_dsn=", "--timescale_dsn: is empty"),
    ("--timescale_dsn=nonsense", "--timescale_dsn is not a PostgreSQL connection string, such as postgresql://"),
    (f"--timescale_dsn=postgresql://u:{SECRET}@h:x/d", "--timescale_dsn"),
    (f"--timescale_dsn=postgresql://u:{SECRET}@{SECRET}@h/d", "write special characters of the password as %40"),
    (f"--timescale_dsn={DSN}", "cannot connect to database ticks on 127.0.0.1:1: Connection refused: check --time"),
    (f"--timescale_dsn=host=127.0.0.1_space_port=1_space_password={SECRET}", "on 127.0.0.1:1: Connection refused"),
]
MARKET_ARGUMENTS = [
    ("--streming", "unknown flag or argument --streming: did you mean --streaming?"),
    ("--chekpointing_interval=1", "did you mean --checkpointing_interval?"),
    ("--lak=x", "unknown flag or argument --lak: did you mean --lake?"),
    ("--tick=5", "did you mean --ticks?"),
    ("--zzz", "unknown flag or argument --zzz: see --help"),
    (f"--timescale_dns={DSN}", "did you mean --timescale_dsn?"),
    ("extra", "unknown flag or argument extra"),
    (DSN, "unknown flag or argument postgresql://***@"),
    ("--lake", "--lake: expected one argument"),
    ("--streaming", "--streaming needs --runner=FlinkRunner"),
    ("--runner=", "--runner= cannot run this"),
    ("--runner=Nonsense", "--runner=Nonsense cannot run this"),
    ("--runner=no.such.Runner", "--runner=no.such.Runner cannot run this (No module named 'no')"),
    ("--runner=PortableRunner", "--runner=PortableRunner needs --job_endpoint=host:port"),
    (f"--runner=PortableRunner --job_endpoint={CLOSED}", f"--job_endpoint={CLOSED}: no job server answers there"),
    ("--setup_file=none.py", "--setup_file=none.py does not exist"),
    ("--requirements_file=none.txt", "--requirements_file=none.txt does not exist"),
    ("--environment_type=Nonsense", "--environment_type=Nonsense is unknown: give one of LOOPBACK"),
    ("--flink_master=h:1", "--flink_master=h:1 needs --runner=FlinkRunner"),
    (f"{FLINK} --flink_master={CLOSED}", f"--flink_master={CLOSED}: no Flink cluster answers there"),
    (f"{FLINK} --flink_master=h:x", "--flink_master=h:x: no Flink cluster answers there (nonnumeric port: 'x')"),
    (f"{FLINK} --flink_version=1.2", "--flink_version: invalid choice: '1.2'"),
    (f"{FLINK} --flink_job_server_jar=none.jar", "--flink_job_server_jar=none.jar does not exist"),
    (f"{FLINK} --parallelism=0", "--parallelism must be from 1 to 32768, not 0"),
    (f"{FLINK} --parallelism=x", "--parallelism: invalid int value: 'x'"),
    (f"{FLINK} --sdk_worker_parallelism=x", "--sdk_worker_parallelism must be a whole number from 0 to 1000, not 'x'"),
    (f"{FLINK} --max_parallelism=32769", "--max_parallelism must be from 1 to 32768"),
    (f"{FLINK} --checkpointing_interval=0", "--checkpointing_interval: must be a whole number from 10"),
    (f"{FLINK} --checkpointing_mode=ONCE", "--checkpointing_mode: invalid choice: 'ONCE'"),
    (f"{FLINK} --state_backend=disk", "--state_backend: invalid choice: 'disk' (choose from"),
    (f"{FLINK} --max_bundle_size=-1", "--max_bundle_size: must be a whole number from 1"),
    (f"{FLINK} --environment_type=EXTERNAL", "needs --environment_config=host:port of a worker pool"),
    (f"{FLINK} --environment_type=EXTERNAL --environment_config={{x", "--environment_config={x is not JSON"),
    (
        f"{FLINK} --environment_type=EXTERNAL --environment_config={CLOSED}",
        f"--environment_config={CLOSED}: no worker pool answers there: start one",
    ),
    (
        f"{SPARK} --spark_master_url=spark://{CLOSED}",
        f"--spark_master_url=spark://{CLOSED}: no Spark master answers there",
    ),
    (
        f"{SPARK} --spark_master_url=yarn",
        "--spark_master_url=yarn is no place to run: give spark://host:port, or local[*]",
    ),
    (f"{SPARK} --spark_job_server_jar=none.jar", "--spark_job_server_jar=none.jar does not exist"),
    (f"{SPARK} --environment_type=EXTERNAL", "needs --environment_config=host:port of a worker pool"),
]


@pytest.mark.parametrize(("line", "says"), [*MARKET_VALUES, *MARKET_ARGUMENTS])
def test_market_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(market, *split(line))
    assert not pathlib.Path("lake").exists()


READING = [  # flags that the stream and the batch have in common
    ("--sentiment_model=", "--sentiment_model: '' is no model: give default, or onnx:FOLDER"),
    ("--sentiment_model=bert", "--sentiment_model: 'bert' is no model: give default, or onnx:FOLDER"),
    ("--sentiment_model=onnx:", "--sentiment_model: 'onnx:' is no model: give default, or onnx:FOLDER"),
    ("--sentiment_model=onnx:none", "--sentiment_model=onnx:none: there is no folder none: correct it"),
    ("--sentiment_model=onnx:a_file", "--sentiment_model=onnx:a_file: there is no folder a_file: correct it"),
    ("--sentiment_model=onnx:precious", "sentiment model precious cannot be loaded ([Errno 2] No such file or dir"),
    ("--languages=xx", "--languages: 'xx' is no language that is told apart: give ISO 639-1 codes"),
    ("--languages=en,german", "--languages: 'german' is no language that is told apart"),
    ("--languages=", "--languages: '' is no language that is told apart"),
    ("--languages=en,", "--languages: '' is no language that is told apart"),
    ("--tickers=", "--tickers: is empty"),
    ("--tickers=none.csv", "The ticker directory none.csv cannot be read as UTF-8 text"),
    ("--tickers=precious", "The ticker directory precious cannot be read as UTF-8 text"),
    ("--tickers=latin.csv", "The ticker directory latin.csv cannot be read as UTF-8 text"),
    ("--tickers=columns.csv", "columns.csv, line 1: the header was 'x,y'; give a CSV file with the header symbol,name"),
    ("--tickers=empty.csv", "empty.csv, line 1: the header was ''"),
    ("--tickers=broken.json", "broken.json, line 1: is not JSON"),
]
NEWS = [
    *WATCHED,
    *READING,
    ("--input=", "--input: is empty"),
    ("--input=none.ndjson", "input file none.ndjson does not exist: correct the path"),
    ("--input=precious", "input file precious is of no kind that can be read: give one of .ndjson, .jsonl"),
    ("--input=columns.csv", "input file columns.csv is of no kind that can be read"),
    ("--input=noise.ndjson.gz", "input file noise.ndjson.gz cannot be read (Not a gzipped file"),
    ("--input=torn.ndjson.gz", "input file torn.ndjson.gz cannot be read (Error -3 while decompressing data"),
    ("--max_future_ms=x", "--max_future_ms: must be a whole number from 0"),
    (f"--max_future_ms={HUGE}", "--max_future_ms: must be a whole number"),
    ("--bootstrap_servers=", "--bootstrap_servers: is empty"),
    ("--bootstrap_servers=h:x", "h:x"),
    ("--kafka_config=none.json", "kafka_config none.json cannot be read (No such file or directory)"),
    ("--kafka_config=broken.json", "kafka_config broken.json is not a JSON object of settings: correct it"),
    ("--topic=", "--topic: is empty"),
    ("--processed_topic=", "--processed_topic: is empty"),
    ("--dead_letter_topic=_space_", "--dead_letter_topic: is empty"),
    (
        "--bootstrap_servers=h:1 --processed_topic=news-raw",
        "must differ, not news-raw, news-raw, dead-letters: the stream would read what it writes",
    ),
    ("--bootstrap_servers=h:1 --topic=a --dead_letter_topic=a", "must differ, not a, news-sentiment-stream, a: the"),
    (
        "--input=good.ndjson --bootstrap_servers=h:1 --processed_topic=a --dead_letter_topic=a",
        "--topic, --processed_topic and --dead_letter_topic must differ, not a, a",
    ),
    ("--start=noon", "--start: position 'noon' is not understood: give earliest, latest, committed, a time"),
    ("--bounded=x", "--bounded: ignored explicit argument 'x'"),
    ("--lake=ftp://x", "lake 'ftp://x' is not a place this can write to: give a folder or s3://bucket/prefix"),
    ("--lake=a_file/x", "a_file is a file: choose another folder"),
    ("--timescale_dsn=nonsense", "--timescale_dsn is not a PostgreSQL connection string"),
    (f"--timescale_dsn={DSN}", "cannot connect to database ticks on 127.0.0.1:1: Connection refused: check --time"),
    ("--langages=en", "unknown flag or argument --langages: did you mean --languages?"),
    ("--ticker=x", "unknown flag or argument --ticker: did you mean --tickers?"),
    ("--zzz", "unknown flag or argument --zzz: see --help"),
    ("extra", "unknown flag or argument extra"),
    ("--streaming", "--streaming needs --runner=FlinkRunner"),
    (f"{FLINK} --flink_master={CLOSED}", f"--flink_master={CLOSED}: no Flink cluster answers there"),
]


@pytest.mark.parametrize(("line", "says"), NEWS)
def test_news_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(news, *split(line))
    assert not pathlib.Path("lake").exists()


DAILY = [
    ("--lake=x --metrics_port=x", "--metrics_port: must be a whole number from 0 to 65535"),
    ("--lake=x --metrics_file=m.txt", "path=m.txt must end in .prom"),
    ("--lake=x --pushgateway=127.0.0.1:1", "gateway=127.0.0.1:1 does not take metrics of job 'daily'"),
    ("--lake=x --quality_suites=none", "/none has no file DATASET.json"),
    *((f"--lake=x {line}", says) for line, says in READING),
    ("--lake=x --news_topic=", "--news_topic: is empty"),
    ("", "the following arguments are required: --lake (see --help)"),
    ("--lake=", "--lake: is empty"),
    ("--lake=ftp://x", "lake 'ftp://x' is not a place"),
    ("--lake=a_file", "a_file is a file: choose another folder"),
    ("--lake=precious --date=2025-01-06", "has no market-data of 2025-01-06, it holds no day at all: choose a day"),
    ("--lake=x --date=2025-02-30", "--date: '2025-02-30' is no day: give one as 2026-11-20"),
    ("--lake=x --date=2999-01-01", "--date: 2999-01-01 is still to come (UTC): give today or a day before"),
    ("--lake=x --from=2025-02-30", "--from: '2025-02-30' is no day"),
    ("--lake=x --from=2025-01-06", "--from and --to need each other: give both"),
    ("--lake=x --to=2025-01-06", "--from and --to need each other: give both"),
    ("--lake=x --from=2025-01-07 --to=2025-01-06", "--from=2025-01-07 is after --to=2025-01-06: correct one of them"),
    ("--lake=x --from=2025-01-06 --to=2025-01-07 --date=2025-01-06", "--date is for one day, --from and --to for"),
    ("--lake=x --resume", "--resume is for several days: give --from and --to"),
    ("--lake=x --symbols=A,,B", "--symbols: 'A,,B' names an empty symbol: give them as A,B,C"),
    ("--lake=x --warmup_days=-1", "--warmup_days: must be a whole number from 0 to 366"),
    ("--lake=x --on_bad_file=ask", "--on_bad_file: invalid choice: 'ask' (choose from"),
    ("--lake=x --bar_seconds=0", "--bar_seconds: must be a whole number from 1"),
    ("--lake=x --out_of_orderness_ms=-1", "--out_of_orderness_ms: must be a whole number from 0"),
    ("--lake=x --dedup_ms=-1", "--dedup_ms: must be a whole number from 0"),
    ("--lake=x --as_live --symbols=A", "--as_live is for all symbols, because they share a clock: leave --symbols out"),
    ("--lake=x --as_live --allowed_lateness_ms=0", "--allowed_lateness_ms: must be a whole number from 1"),
    ("--lake=x --topic=", "--topic: is empty"),
    ("--lake=x --start_state=2025-01-05", "--start_state is what the stream began with, for --as_live: leave it out"),
    (
        "--lake=x --as_live --start_state=latest",
        "--start_state: 'latest' is no day: give the one that the stream began",
    ),
    ("--lake=x --timescale_dsn=", "--timescale_dsn: is empty"),
    (f"--lake=x --timescale_dsn={DSN}", "cannot connect to database ticks on 127.0.0.1:1: Connection refused"),
    ("--lake=x --dat=2025-01-06", "unknown flag or argument --dat: did you mean --date?"),
]


@pytest.mark.parametrize(("line", "says"), DAILY)
def test_daily_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(daily, *split(line))


def test_daily_refuses_a_topic_of_which_there_are_no_articles(
    refusal: Refusal, capfd: pytest.CaptureFixture[str]
) -> None:
    assert news.main(["--input=good.ndjson", "--lake=lake"]) == 0
    capfd.readouterr()
    said = refusal(daily, "--lake=lake", "--date=2026-11-20", "--news_topic=typo")
    assert "has news of good.ndjson here, not of typo: choose one with --news_topic" in said


SESSION = f"--bootstrap_servers={CLOSED}"
REPLAY = [
    ("", "bootstrap_servers is empty: give host:port of a Kafka broker with --bootstrap_servers"),
    ("--bootstrap_servers=", "--bootstrap_servers: is empty"),
    ("--kafka_config=none.conf", "kafka_config none.conf cannot be read"),
    ("--kafka_config=lines.conf", "kafka_config lines.conf, line 1 is not name=value"),
    (f"{SESSION} --kafka_config=unknown.conf", 'No such configuration property: "no.such.setting"'),
    (f"{SESSION} --topic=", "--topic: is empty"),
    (f"{SESSION} --create_topic=1", "--create_topic: ignored explicit argument '1'"),
    (f"{SESSION} --partitions=0", "--partitions: must be a whole number from 1 to 10000, not '0'"),
    (f"{SESSION} --partitions={HUGE}", "--partitions: must be a whole number"),
    (f"{SESSION} --simulate=1", "--simulate: ignored explicit argument '1'"),
    (f"{SESSION} --input", "--input: expected at least one argument"),
    (f"{SESSION} --input=none.csv", "input file none.csv does not exist: correct the path"),
    (f"{SESSION} --input columns.csv --seed=1", "--seed is for simulated sessions: leave it out with --input"),
    (f"{SESSION} --input columns.csv --simulate", "--simulate: not allowed with argument --input"),
    (f"{SESSION} --input ragged.csv --restamp", "ragged.csv cannot be read"),
    (f"{SESSION} --restamp=1", "--restamp: ignored explicit argument '1'"),
    (f"{SESSION} --json=1", "--json: ignored explicit argument '1'"),
    (f"{SESSION} --speed=0", "--speed: '0' must be real, a number above 0, or max"),
    (f"{SESSION} --speed=fast", "--speed: 'fast' must be real"),
    (f"{SESSION} --limit=0", "--limit: must be a whole number from 1"),
    (f"{SESSION} --activity=noon", "activity must be day or steady, was 'noon'"),
    (f"{SESSION} --seed=x", "--seed: must be a whole number from 0"),
    (f"{SESSION} --seed=-1", "--seed: must be a whole number from 0"),
    (f"{SESSION} --symbols=0", "--symbols: must be a whole number from 1 to 100000, not '0'"),
    (f"{SESSION} --symbols={HUGE}", "--symbols: must be a whole number"),
    (f"{SESSION} --symbols=,", "symbols must name or number at least one"),
    (f"{SESSION} --symbols=ABCDEFGHIJKLMNOPQRSTU", "'ABCDEFGHIJKLMNOPQRSTU' is longer than 20 characters"),
    (f"{SESSION} --start=noon", "--start: 'noon' is neither ISO 8601 nor ms since 1970"),
    (f"{SESSION} --start={HUGE}", "is not within the years 1970 to 9998"),
    (f"{SESSION} --duration_seconds=0", "--duration_seconds: '0' is not a length in seconds"),
    (f"{SESSION} --duration_seconds=9999999", "duration_ms must be at most 2678400000 (31 days)"),
    (f"{SESSION} --ticks=0", "--ticks: must be a whole number from 1"),
    (f"{SESSION} --disorder_share=2", "--disorder_share: must be a share between 0 and 1, not '2'"),
    (f"{SESSION} --disorder_share=nan", "--disorder_share: must be a share"),
    (f"{SESSION} --max_delay_ms=0", "--max_delay_ms: must be a whole number from 1"),
    (f"{SESSION} --max_delay_ms=1001", "max_delay_ms must be at most out_of_orderness_ms, was 1001"),
    (f"{SESSION} --late_share=x", "--late_share: must be a share"),
    (f"{SESSION} --too_late_share=-1", "--too_late_share: must be a share"),
    (f"{SESSION} --late_share=1", "disorder, late and too_late together must be at most 1"),
    (f"{SESSION} --out_of_orderness_ms={HUGE}", "--out_of_orderness_ms: must be a whole number"),
    (f"{SESSION} --allowed_lateness_ms=0", "--allowed_lateness_ms: must be a whole number from 1"),
    (f"{SESSION} --bad_share=2", "--bad_share: must be a share"),
    (f"{SESSION} --duplicate_share=2", "--duplicate_share: must be a share"),
    (f"{SESSION} --tie_share=2", "--tie_share: must be a share"),
    (f"{SESSION} --sped=1", "unknown flag or argument --sped: did you mean --speed?"),
    (f"{SESSION} extra", "unknown flag or argument extra"),
]


@pytest.mark.parametrize(("line", "says"), REPLAY)
def test_replay_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(replay, *split(line))


STACK = [
    ("up --monitoring=x", "ignored explicit argument 'x'"),
    ("", "the following arguments are required: COMMAND (see --help)"),
    ("fly", "COMMAND: invalid choice: 'fly' (choose from"),
    *(
        (f"up --{name}_port=x", f"--{name}_port: must be a whole number from 0 to 65535")
        for name in stack.Stack.port_names
    ),
    ("up --kafka_prt=1", "unknown flag or argument --kafka_prt: did you mean --kafka_port?"),
    ("up --slots=0", "--slots: must be a whole number from 1 to 64, not '0'"),
    ("up --checkpoints=disk", "--checkpoints: invalid choice: 'disk' (choose from"),
    ("up --timescale=1", "ignored explicit argument '1'"),
    ("up --spark=1", "ignored explicit argument '1'"),
    ("up --state_dir=/proc/x", "--state_dir=/proc/x cannot be made (No such file or directory)"),
    ("up --state_dir=a_file/x", "a_file is a file: choose another"),
    ("status --state_dir=a_file", "a_file is a file: choose another"),
    ("status --state_dir=", "--state_dir: is empty"),
    ("status --json=1", "--json: ignored explicit argument '1'"),
    ("status --jsn", "did you mean --json?"),
    ("status extra", "unknown flag or argument extra"),
    ("init --state_dir=none", "none: no stack runs there: start it with the command up"),
    ("logs --state_dir=none", "there are no logs; the stack was never up"),
    ("logs redis --state_dir=none", "There is no server redis; the stack has kafka, postgres, s3"),
    ("logs --follow=1", "--follow: ignored explicit argument '1'"),
    ("down --purge --state_dir=precious", "precious is no stack's folder and is not deleted: correct the path"),
    ("down --purge=1", "--purge: ignored explicit argument '1'"),
]


@pytest.mark.parametrize(("line", "says"), STACK)
def test_stack_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(stack, *split(line))
    assert pathlib.Path("precious", "thesis.txt").read_text() == "all my work"


MIGRATE = [
    ("", "no database is named: give --timescale_dsn or set TIMESCALE_DSN"),
    ("--timescale_dsn=", "--timescale_dsn: is empty"),
    ("--timescale_dsn=nonsense", "--timescale_dsn is not a PostgreSQL connection string"),
    (f"--timescale_dsn={DSN}", "cannot connect to database ticks on 127.0.0.1:1: Connection refused"),
    (f"--status --timescale_dsn={DSN}", "cannot connect to database ticks on 127.0.0.1:1"),
    ("--status=1", "--status: ignored explicit argument '1'"),
    ("--stat", "unknown flag or argument --stat: did you mean --status?"),
    (DSN, "unknown flag or argument postgresql://***@"),
]


@pytest.mark.parametrize(("line", "says"), MIGRATE)
def test_migrate_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(migrate, *split(line))


DEMO = [
    ("--seconds=0", "--seconds: must be a whole number from 1"),
    ("--rate=x", "--rate: must be a whole number from 1"),
    (
        "--kill=kafka,redis",
        "--kill: must be some of worker,workers,taskmanager,client,kafka,postgres,s3, not 'redis'",
    ),
    ("--seed=x", "--seed: must be a whole number from 0"),
    ("--state_dir=a_file", "a_file is a file: choose another"),
    ("--state_dir=precious", "precious is no stack's folder and is not deleted"),
    ("--keep=1", "--keep: ignored explicit argument '1'"),
    ("--kep", "unknown flag or argument --kep: did you mean --keep?"),
    ("extra", "unknown flag or argument extra"),
]


@pytest.mark.parametrize(("line", "says"), DEMO)
def test_demo_refuses(refusal: Refusal, line: str, says: str) -> None:
    assert says in refusal(demo, *split(line))
    assert pathlib.Path("precious", "thesis.txt").read_text() == "all my work"


MASTER = f"--flink_master={CLOSED}"
JOBS = [
    ("", "the following arguments are required: COMMAND (see --help)"),
    ("list", "the following arguments are required: --flink_master"),
    ("list --flink_master=", "--flink_master: is empty"),
    (f"list {MASTER}", f"{MASTER}: no Flink cluster answers there ([Errno 111] Connection refused): start it"),
    ("list --flink_master=h:x", "--flink_master=h:x: no Flink cluster answers there (nonnumeric port: 'x')"),
    (f"saved {MASTER}", f"{MASTER}: no Flink cluster answers there"),
    (f"cancel {MASTER} some_job", f"{MASTER}: no Flink cluster answers there"),
    (f"stop {MASTER} --savepoint some_job", f"{MASTER}: no Flink cluster answers there"),
    (f"stop {MASTER} --savepont=x", "unknown flag or argument --savepont: did you mean --savepoint?"),
    (f"stop {MASTER} one another", "unknown flag or argument another"),
]


@pytest.mark.parametrize(("line", "says"), JOBS)
def test_jobs_refuses(refusal: Refusal, monkeypatch: pytest.MonkeyPatch, line: str, says: str) -> None:
    monkeypatch.delenv("FLINK_MASTER", raising=False)
    assert says in refusal(jobs, *split(line))


def flags_of(program: ModuleType) -> list[str]:
    parser = Parser()
    program.add_flags(parser)
    return parser.flags()


def own_flags(parser: argparse.ArgumentParser) -> list[str]:
    assert isinstance(parser, Parser)
    return parser.flags()


@pytest.mark.parametrize(
    ("flags", "cases"),
    [
        (flags_of(market), MARKET_VALUES),
        (flags_of(news), NEWS),
        (flags_of(daily), DAILY),
        (own_flags(replay._parser()), REPLAY),
        (own_flags(stack._parser()), STACK),
        (own_flags(jobs._parser()), JOBS),
    ],
    ids=["market", "news", "daily", "replay", "stack", "jobs"],
)
def test_no_flag_is_left_out_above(flags: list[str], cases: list[tuple[str, str]]) -> None:
    lines = " ".join(line for line, _ in cases)
    asked = {flag for flag in flags if flag.startswith("--") and not flag.startswith(("--help", "--no-"))}
    assert {flag for flag in asked if not re.search(rf"{flag}\b", lines)} == set()


def cpu_of_children() -> float:
    """CPU time of ended child processes, s: unlike wall time it is the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_a_process(program: str, *arguments: object, **environment: str) -> str:
    """What a program says on stderr when it is started as its users do."""
    command = [sys.executable, "-m", f"beam_pipelines.{program}", *map(str, arguments)]
    before = cpu_of_children()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert cpu_of_children() - before < CPU_S  # the other tests bound what is waited for
    return sentence(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("program", "line", "says"),
    [
        ("market", f"--bootstrap_servers={CLOSED} --bounded", f"Kafka at {CLOSED} cannot be reached"),
        ("market", "--streming", "did you mean --streaming?"),
        ("news", "--languages=xx", "'xx' is no language that is told apart"),
        ("news", "--input=torn.ndjson.gz", "torn.ndjson.gz cannot be read"),
        ("market", f"{FLINK} --environment_type=EXTERNAL --environment_config={CLOSED}", "no worker pool answers"),
        ("replay", SESSION, f"Kafka at {CLOSED} cannot be reached"),
        ("jobs", f"list {MASTER}", "no Flink cluster answers there"),
        ("stack", "up --slots=0", "--slots: must be a whole number"),
        ("sql.migrate", f"--timescale_dsn={DSN}", "Connection refused: check --timescale_dsn"),
        ("demo", "--rate=0", "--rate: must be a whole number"),
    ],
)
def test_a_program_says_one_line_and_nothing_else(program: str, line: str, says: str) -> None:
    assert says in in_a_process(program, *split(line))


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--bootstrap_servers={silent}", "Kafka at {silent} cannot be reached"),
        (f"--timescale_dsn=postgresql://u:{SECRET}@{{silent}}/d", "on {silent}: connection timeout expired"),
        ("--lake=s3://bucket/x", "cannot be written at http://{silent}: the server cannot be reached"),
        (f"{FLINK} --flink_master={{silent}}", "--flink_master={silent}: no Flink cluster answers there (timed out)"),
        (
            f"{FLINK} --environment_type=EXTERNAL --environment_config={{silent}}",
            "--environment_config={silent}: no worker pool answers there",
        ),
    ],
    ids=["kafka", "database", "s3", "flink", "workers"],
)
def test_a_server_that_never_answers_is_not_waited_for(
    refusal: Refusal, silent: str, monkeypatch: pytest.MonkeyPatch, line: str, says: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{silent}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert says.format(silent=silent) in refusal(market, *split(line.format(silent=silent)))


@pytest.mark.servers
def test_market_refuses_what_is_not_in_kafka(
    refusal: Refusal, kafka_server: str, topic: Callable[[str, int], str]
) -> None:
    raw, out, dead = topic("raw", 2), topic("out", 1), topic("dead", 1)

    def told(**changes: str) -> str:
        flags = {"topic": raw, "processed_topic": out, "dead_letter_topic": dead, **changes}
        where = (f"--bootstrap_servers={kafka_server}", "--bounded")
        return refusal(market, *where, *(f"--{name}={value}" for name, value in flags.items()))

    for flag in ("topic", "processed_topic", "dead_letter_topic"):
        assert f"topic none does not exist on Kafka at {kafka_server}: create it or correct" in told(**{flag: "none"})
    assert "topic no/such on Kafka" in told(topic="no/such")
    assert f"offset 5 of topic {raw}, partition 0 (offsets) is not in the log" in told(start="0:5")
    assert f"topic {raw} has no partition 7: it has 2, from 0" in told(start="7:0")
    assert f"topic {raw} has no partition {HUGE}" in told(start=f"{HUGE}:0")
    assert "an unbounded read needs --runner=FlinkRunner" in refusal(
        market,
        f"--bootstrap_servers={kafka_server}",
        f"--topic={raw}",
        f"--processed_topic={out}",
        f"--dead_letter_topic={dead}",
    )
    assert f"topic {raw}-by-symbol does not exist" in refusal(
        market,
        *(f"--bootstrap_servers={kafka_server}", f"--topic={raw}", "--repartition", "--bounded"),
        *(f"--processed_topic={out}", f"--dead_letter_topic={dead}"),
    )
    assert "topic none does not exist" in refusal(replay, f"--bootstrap_servers={kafka_server}", "--topic=none")
    tls = pathlib.Path("tls.json")
    tls.write_text(json.dumps({"security.protocol": "SSL"}))
    assert f"Kafka at {kafka_server} cannot be reached" in told(kafka_config=str(tls))


@pytest.mark.servers
def test_a_bounded_run_ends_with_the_symbol_that_it_met_in_two_partitions(
    capfd: pytest.CaptureFixture[str], kafka_server: str, topic: Callable[[str, int], str]
) -> None:
    raw, out, dead = topic("raw", 2), topic("out", 1), topic("dead", 1)
    producer = KafkaConfig(kafka_server).producer(lambda error, _message: pytest.fail(error.str()))
    for partition in (0, 1):
        producer.produce(raw, b'{"symbol":"IBM","timestamp":0,"price":1,"volume":1}', partition=partition)
    producer.flush()
    flags = [f"--topic={raw}", f"--processed_topic={out}", f"--dead_letter_topic={dead}", "--bounded", "--lake=lake"]
    with pytest.raises(UsageError, match=f"symbol IBM is in partitions 0 and 1 of topic {raw}, so its ticks have no"):
        market.main([f"--bootstrap_servers={kafka_server}", *flags])
    assert not list(pathlib.Path("lake").rglob("*.parquet"))
    assert not capfd.readouterr().out


def require_a_password(connection: psycopg.Connection, role: str) -> None:
    """The test server trusts everyone else."""
    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'another'")
    rules = pathlib.Path(str(connection.execute("SHOW hba_file").fetchone()[0]))
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    connection.execute("SELECT pg_reload_conf()")


@pytest.mark.servers
def test_market_refuses_a_database_that_it_cannot_write(refusal: Refusal, postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        require_a_password(connection, "locked")

    def told(**changes: str) -> str:
        return refusal(market, "--timescale_dsn=" + psycopg.conninfo.make_conninfo(postgres_dsn, **changes))

    assert 'role "nobody" does not exist: check --timescale_dsn' in told(user="nobody", password=SECRET)
    assert 'database "none" does not exist: check --timescale_dsn' in told(dbname="none", password=SECRET)
    assert 'password authentication failed for user "locked"' in told(user="locked", password=SECRET)
    assert "there is no table market_data_ts in the database: run the migrations: python -m" in told(password=SECRET)
    migrate.migrate(Dsn(postgres_dsn))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE market_bars_ts DROP COLUMN vwap CASCADE")
    assert "table market_bars_ts has no column vwap: run the migrations" in told(password=SECRET)


@pytest.mark.servers
def test_market_refuses_a_lake_that_it_cannot_write(refusal: Refusal, s3_server: object) -> None:
    assert "there is no bucket 'none' at http://" in refusal(market, "--lake=s3://none/x")
    said = in_a_process("market", f"--lake=s3://{s3_server.bucket}/x", AWS_SECRET_ACCESS_KEY=SECRET)  # type: ignore[attr-defined]
    assert "access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in said
