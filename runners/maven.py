"""Java class paths from Maven coordinates, resolved once into the cache."""

import functools
import hashlib
import importlib.resources
import os
import pathlib
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.cache import cache_dir, locked

__all__ = ["QUICK_COMPILER", "java", "manifest", "pathing_jar", "resolve", "resolve_pom", "unstaged"]

JAVA_OLDEST = 17
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
"""For virtual machines that start things or hand bytes on: the optimising compiler would cost more than it spares."""
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
MANIFEST_LINE = 72  # bytes, without the line break: what the JAR specification allows
EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip files; a fixed date makes equal jars equal bytes


@functools.cache
def java() -> str:
    """The path of a Java launcher, 17 or newer: from `JAVA_HOME`, else from `PATH`.

    Raises:
      UsageError: when there is none or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        place = f"JAVA_HOME={home}" if home else "PATH"
        raise UsageError(f"Java {JAVA_OLDEST} or newer is needed and there is none in {place}: install a JDK or JRE.")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None or int(version[1]) < JAVA_OLDEST:
        has = version[1] if version else "of unknown version"
        raise UsageError(f"Java {JAVA_OLDEST} or newer is needed and {found} is {has}: install it or set JAVA_HOME.")
    return found


def resolve(name: str) -> pathlib.Path:
    """The folder of jars of `poms/<name>.xml` with all it depends on; downloaded when the cache has none.

    Raises:
      UsageError: when Java or Maven is missing, or Maven fails.
    """
    return resolve_pom(name, importlib.resources.files(__package__).joinpath("poms", f"{name}.xml").read_bytes())


def resolve_pom(name: str, pom: bytes) -> pathlib.Path:
    """The same for a pom of the caller's, under a name of its own.

    Raises:
      UsageError: as `resolve`.
    """
    folder = cache_dir() / "maven" / f"{name}-{hashlib.sha256(pom).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    with locked(cache_dir() / "maven" / ".lock"):  # Maven's own repository does not bear two writers either
        if not folder.is_dir():
            _download(name, pom, folder)
    return folder


def _download(name: str, pom: bytes, folder: pathlib.Path) -> None:
    """Fills `folder` whole or not at all."""
    java()
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError("Maven (mvn) is needed to download the Java servers and is not in PATH: install Maven 3.6+.")
    draft = folder.with_suffix(".part")  # one a pom: the lock is held, so it can only be a crashed run's
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    pom_file = folder.with_suffix(".xml")
    pom_file.write_bytes(pom)
    log = folder.with_suffix(".log")
    command = [maven, "-q", "-B", "-ntp", "-f", str(pom_file), PLUGIN, f"-DoutputDirectory={draft}"]
    with log.open("wb") as out:
        code = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    if code:
        raise UsageError(f"Maven could not download the jars of {name} (exit code {code}): its output is in {log}.")
    draft.rename(folder)


def manifest(attributes: Sequence[tuple[str, str]]) -> bytes:
    """A JAR manifest of `attributes`, with long lines folded as the specification wants it."""
    lines = []
    for key, value in attributes:
        rest = f"{key}: {value}".encode()
        lines.append(rest[:MANIFEST_LINE])
        rest = rest[MANIFEST_LINE:]
        while rest:  # a continuation starts with one space
            lines.append(b" " + rest[: MANIFEST_LINE - 1])
            rest = rest[MANIFEST_LINE - 1 :]
    return b"\r\n".join([b"Manifest-Version: 1.0", *lines, b"", b""])


def pathing_jar(lib: pathlib.Path, main_class: str, add_opens: Sequence[str] = ()) -> pathlib.Path:
    """A small jar beside `lib` that `java -jar` runs with all jars of `lib` on the class path.

    Args:
      lib: folder of jars, as `resolve` gives it.
      main_class: the class to run.
      add_opens: `module/package` that the Java module system is to open to the program.
    """
    content = manifest(
        [
            ("Main-Class", main_class),
            *([("Add-Opens", " ".join(add_opens))] if add_opens else []),
            ("Class-Path", " ".join(jar.as_uri() for jar in sorted(lib.glob("*.jar")))),
        ]
    )
    jar = lib.with_name(f"{lib.name}-{main_class.rpartition('.')[2]}-{hashlib.sha256(content).hexdigest()[:12]}.jar")
    if not jar.exists():
        draft = jar.with_suffix(f".{os.getpid()}.part")
        with zipfile.ZipFile(draft, "w") as file:
            file.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF", EPOCH), content)
        draft.rename(jar)
    return jar


def unstaged(lib: pathlib.Path) -> pathlib.Path:
    """The same jars, as hard links in a folder that Beam uploads nothing of.

    Beam has no option for it, but its PipelineResources.isStageable leaves out all below a `gradle/wrapper`.
    """
    folder = lib.parent / "gradle" / "wrapper" / lib.name
    with locked(lib.parent / ".lock"):
        if not folder.is_dir():
            draft = folder.with_suffix(".part")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(lib, draft, copy_function=os.link)
            draft.rename(folder)
    return folder
