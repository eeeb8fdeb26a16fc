"""Class paths: downloaded whole or not at all, and named by one small jar."""

import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.runners import maven

FAKE_MAVEN = """#!/bin/sh
echo run >> {runs}
for argument; do case "$argument" in -DoutputDirectory=*) folder="${{argument#*=}}"; esac; done
sleep 0.2; touch "$folder/a.jar"; {end}
"""


def unfolded(manifest: bytes) -> dict[str, str]:
    lines = manifest.replace(b"\r\n ", b"").decode().split("\r\n")
    return dict(line.split(": ", 1) for line in lines if line)


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=300))
def test_a_manifest_says_what_it_was_given_in_lines_of_72_bytes(value: str) -> None:
    folded = maven.manifest([("Class-Path", value)])
    assert all(len(line) <= 72 for line in folded.split(b"\r\n"))
    assert folded.endswith(b"\r\n\r\n")
    assert unfolded(folded) == {"Manifest-Version": "1.0", "Class-Path": value}


def test_a_pathing_jar_names_every_jar_and_is_the_same_each_time(tmp_path: pathlib.Path) -> None:
    lib = tmp_path / "a lib"
    lib.mkdir()
    for name in ("b.jar", "a.jar", "notes.txt"):
        (lib / name).touch()
    jar = maven.pathing_jar(lib, "org.example.Main", ["java.base/java.lang"])
    said = unfolded(zipfile.ZipFile(jar).read("META-INF/MANIFEST.MF"))
    assert said["Class-Path"].split() == [(lib / "a.jar").as_uri(), (lib / "b.jar").as_uri()]
    assert said["Main-Class"] == "org.example.Main"
    assert said["Add-Opens"] == "java.base/java.lang"
    content = jar.read_bytes()
    jar.unlink()
    assert maven.pathing_jar(lib, "org.example.Main", ["java.base/java.lang"]).read_bytes() == content


@pytest.mark.servers
def test_java_runs_a_class_that_only_the_manifest_leads_to(tmp_path: pathlib.Path) -> None:
    lib = maven.resolve("kafka")
    jar = maven.pathing_jar(lib, "kafka.tools.StorageTool")
    done = subprocess.run([maven.java(), "-jar", jar, "random-uuid"], capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 22


def machine_with(path: pathlib.Path, patch: pytest.MonkeyPatch, *programs: tuple[str, str]) -> None:
    """Leaves only `programs` (name and shell script) to be found, and an empty cache."""
    binaries = path / "bin"
    binaries.mkdir()
    for name, script in programs:
        (binaries / name).write_text(script)
        (binaries / name).chmod(0o755)
    patch.setenv("PATH", str(binaries))
    patch.delenv("JAVA_HOME", raising=False)
    patch.setenv("WAARDHAVEN_CACHE", str(path / "cache"))


JAVA_17 = ("java", "#!/bin/sh\necho 'openjdk version \"17.0.15\"' >&2\n")
JAVA_8 = ("java", "#!/bin/sh\necho 'java version \"1.8.0_402\"' >&2\n")


@pytest.fixture(autouse=True)
def _fresh_java() -> Iterator[None]:
    """What `java` remembers of one machine is not carried into another."""
    maven.java.cache_clear()
    yield
    maven.java.cache_clear()


@pytest.mark.parametrize(
    ("programs", "complaint"),
    [
        ((), "Java 17 or newer is needed and there is none in PATH"),
        ((JAVA_8,), r"Java 17 or newer is needed and .* is 8"),
        ((JAVA_17,), r"Maven \(mvn\) is needed"),
    ],
)
def test_what_is_missing_on_the_machine_is_one_sentence(
    programs: tuple[tuple[str, str], ...], complaint: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(tmp_path, monkeypatch, *programs)
    with pytest.raises(UsageError, match=complaint):
        maven.resolve("kafka")


def test_maven_is_run_once_by_two_who_want_the_same(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = FAKE_MAVEN.format(runs=tmp_path / "runs", end="exit 0")
    machine_with(tmp_path, monkeypatch, JAVA_17, ("mvn", script))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    resolve = "from beam_pipelines.runners import maven; print(maven.resolve('kafka'))"
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(subprocess.check_output, [sys.executable, "-c", resolve], text=True) for _ in range(2)]
        folders = {pathlib.Path(job.result().strip()) for job in jobs}
    assert [jar.name for folder in folders for jar in folder.iterdir()] == ["a.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_failed_download_leaves_nothing_that_looks_whole_and_names_its_log(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = FAKE_MAVEN.format(runs=tmp_path / "runs", end="echo no such artifact; exit 1")
    machine_with(tmp_path, monkeypatch, JAVA_17, ("mvn", script))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(UsageError, match=r"exit code 1\): its output is in") as failure:
        maven.resolve("kafka")
    log = pathlib.Path(str(failure.value).rpartition(" is in ")[2].rstrip("."))
    assert "no such artifact" in log.read_text()
    (tmp_path / "bin" / "mvn").write_text(FAKE_MAVEN.format(runs=tmp_path / "runs", end="exit 0"))
    assert [jar.name for jar in maven.resolve("kafka").iterdir()] == ["a.jar"]
