"""Objects are seen whole or not at all, whatever happens to their writer."""

import contextlib
import gzip
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from pyarrow import fs

from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake import check_lake
from beam_pipelines.io.objects import Bucket, Folder, objects_in

HALF = 6 << 20
WHOLE = 16 << 20
WRITE = """
import sys, pyarrow
from beam_pipelines.io.objects import objects_in
objects_in(sys.argv[1]).write('a/x', pyarrow.py_buffer(bytes({size})))
"""


class Proxy:
    """Passes bytes on to a server, until it has passed `limit`; then it keeps silent or hangs up."""

    def __init__(self, endpoint: str, limit: int, hang_up: bool) -> None:
        self._target, self._left, self._hang_up = urlsplit(endpoint), limit, hang_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reached = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._target.hostname, self._target.port))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, limited: bool) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                self._left -= len(data) if limited else 0
                if self._left >= 0:
                    sink.sendall(data)
                    continue
                self.reached.set()
                if self._hang_up:
                    return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def bucket(s3_server, tmp_path: pathlib.Path) -> Bucket:
    return objects_in(f"s3://{s3_server.bucket}/{tmp_path.name}")


@pytest.fixture
def proxy(s3_server, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """To the S3 server; lets the first half of an object pass."""
    proxy = Proxy(s3_server.endpoint, HALF, hang_up=request.param)
    yield proxy
    proxy.close()


def content(objects: Bucket | Folder, name: str) -> bytes:
    with objects.open(name) as file:
        return file.read()


@pytest.mark.servers
@pytest.mark.parametrize("proxy", [False], indirect=True, ids=["silent"])
def test_a_writer_killed_in_the_middle_of_an_upload_leaves_the_earlier_object(bucket, proxy, monkeypatch):
    bucket.write("a/x", pa.py_buffer(b"earlier"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    writer = subprocess.Popen([sys.executable, "-c", WRITE.format(size=WHOLE), bucket.url])
    try:
        assert proxy.reached.wait(60)
        assert content(bucket, "a/x") == b"earlier"
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert content(bucket, "a/x") == b"earlier"


@pytest.mark.servers
@pytest.mark.parametrize("proxy", [True], indirect=True, ids=["hangs up"])
def test_an_upload_that_fails_raises_and_leaves_the_earlier_object(bucket, proxy, monkeypatch):
    bucket.write("a/x", pa.py_buffer(b"earlier"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        objects_in(bucket.url).write("a/x", pa.py_buffer(bytes(WHOLE)))
    assert content(bucket, "a/x") == b"earlier"


def test_a_writer_killed_in_the_middle_of_a_file_leaves_nothing_that_readers_see(tmp_path):
    script = "import os, time; os.fsync = lambda _: (print('half', flush=True), time.sleep(600)); " + WRITE.format(
        size=9
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"half\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert [path.name[0] for path in (tmp_path / "a").iterdir()] == ["."]
    objects_in(str(tmp_path)).write("a/x", pa.py_buffer(b"again"))
    assert content(objects_in(str(tmp_path)), "a/x") == b"again"


def test_a_write_that_fails_leaves_no_file(tmp_path):
    (tmp_path / "a" / "x").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        objects_in(str(tmp_path)).write("a/x", pa.py_buffer(b"content"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_an_object_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        objects_in(str(tmp_path)).open("a/x")


@pytest.mark.servers
def test_an_object_that_is_not_in_the_bucket_is_not_found(bucket):
    with pytest.raises(FileNotFoundError):
        bucket.open("a/x")


@pytest.mark.servers
def test_a_gzipped_object_is_not_gzipped_again_because_of_its_name(bucket):
    written = gzip.compress(b'{"article_id":"x"}\n', mtime=0)
    bucket.write("a/x.json.gz", pa.py_buffer(written))
    s3 = fs.S3FileSystem(endpoint_override=bucket.endpoint, region=bucket.region)
    (stored,) = s3.get_file_info([f"{bucket.name}/{bucket.prefix}/a/x.json.gz"])
    assert stored.size == len(written)
    assert content(bucket, "a/x.json.gz") == written


def test_roots_name_folders_and_buckets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert objects_in("./lake") == Folder(str(tmp_path / "lake"))
    assert objects_in("file:///a%20b") == Folder("/a b")
    assert objects_in("s3://bucket/a/b/") == Bucket("bucket", "a/b", "http://127.0.0.1:9", "eu-central-1")
    assert objects_in("s3://bucket").url == "s3://bucket"


@pytest.mark.parametrize("root", ["", "gs://bucket/x", "s3:///x", "file://relative"])
def test_other_roots_are_refused(root):
    with pytest.raises(UsageError, match=f"lake '{root}'.*: give a folder or s3://bucket/prefix"):
        objects_in(root)


def test_a_folder_passes_the_check_and_is_not_made_by_it(tmp_path):
    check_lake(str(tmp_path / "new" / "lake"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file: choose another folder"):
        check_lake(str(tmp_path / "file" / "lake"))


def test_a_folder_that_cannot_be_written_is_told():
    with pytest.raises(UsageError, match="lake '/proc/lake' is not writable"):
        check_lake("/proc/lake")


@pytest.mark.servers
def test_a_bucket_passes_the_check_which_leaves_no_object(bucket):
    check_lake(bucket.url)
    s3 = fs.S3FileSystem(endpoint_override=bucket.endpoint, region=bucket.region)
    found = s3.get_file_info(fs.FileSelector(f"{bucket.name}/{bucket.prefix}", recursive=True, allow_not_found=True))
    assert [info.path for info in found] == []


@pytest.mark.servers
def test_a_missing_bucket_is_told(s3_server):
    with pytest.raises(UsageError, match="there is no bucket 'elsewhere' at http"):
        check_lake("s3://elsewhere/lake")


CHECK = """
import sys
from beam_pipelines.errors import run_main
from beam_pipelines.io.lake import check_lake
run_main(lambda arguments: check_lake(arguments[0]))
"""


def check_with(environment: dict[str, str], root: str) -> str:
    """What a program of its own says of the lake, in less than 15 seconds."""
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", CHECK, root], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert time.monotonic() - begun < 15
    said = [line for line in ended.stderr.splitlines() if not line.startswith("WARNING:")]  # Beam's own, at import
    assert (ended.returncode, len(said)) == (2, 1), ended.stderr
    return said[0]


@pytest.mark.servers
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told_without_repeating_them(bucket, name):
    said = check_with({name: "mistaken"}, bucket.url)
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "mistaken" not in said


@pytest.mark.servers
@pytest.mark.parametrize("proxy", [False], indirect=True, ids=["silent"])
def test_a_server_that_does_not_answer_is_told(bucket, proxy):
    proxy._left = 0
    assert "AWS_ENDPOINT_URL" in check_with({"AWS_ENDPOINT_URL": proxy.endpoint}, bucket.url)


def test_a_server_that_is_not_there_is_told():
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert "cannot be reached" in check_with({**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://bucket/lake")
