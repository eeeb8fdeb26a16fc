"""Whole objects in a folder or an S3 bucket: a reader sees all of an object, or nothing of it."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import fs

from beam_pipelines.errors import UsageError

__all__ = ["Bucket", "Folder", "Objects", "Version", "objects_in"]

_CHECK_SECONDS = 8.0
_CONNECT_SECONDS = 3.0
_ATTEMPTS = 5  # with growing pauses: about 10 s of an absent server are sat out before the bundle fails


Version = tuple[int, int] | None
"""When an object was written, ns, and its size; None: there is none."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """Objects as files under a folder of this machine.

    Attributes:
      path: the folder, absolute; it is made when the first object is written.
    """

    path: str

    @property
    def url(self) -> str:
        """What users call it."""
        return self.path

    def write(self, name: str, content: pa.Buffer) -> None:
        """Puts an object in the place of any earlier one of that name."""
        target = pathlib.Path(self.path, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")  # readers skip names that begin with a dot
        try:
            with half.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            half.replace(target)
        except BaseException:
            half.unlink(missing_ok=True)
            raise

    def open(self, name: str) -> Any:
        """The object, as an Arrow file to read at random; FileNotFoundError if there is none."""
        return fs.LocalFileSystem().open_input_file(str(pathlib.Path(self.path, name)))

    def version(self, name: str) -> Version:
        """What changes when an object is written anew."""
        return _version(fs.LocalFileSystem(), str(pathlib.Path(self.path, name)))

    def delete(self, name: str) -> None:
        """Removes an object; one that is not there is none the less gone."""
        pathlib.Path(self.path, name).unlink(missing_ok=True)

    def tree(self) -> tuple[fs.FileSystem, str]:
        """Arrow's file system and the path in it, to read all objects as a dataset."""
        return fs.LocalFileSystem(), self.path

    def check(self) -> None:
        """Raises UsageError if objects cannot be written here; leaves nothing behind."""
        folder = pathlib.Path(self.path)
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not nearest.is_dir():
            raise UsageError(
                f"lake '{self.path}' cannot be a folder, because {nearest} is a file: choose another folder"
            )
        probe = nearest / f".{uuid.uuid4().hex}.tmp"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(f"lake '{self.path}' is not writable ({error.strerror}): choose another folder") from None


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Objects in an S3 bucket.  Credentials come from the usual AWS settings of each process and are not kept here.

    Attributes:
      name: the bucket.
      prefix: the folder in the bucket, may be empty.
      endpoint: URL of the server, None for AWS itself.
      region: AWS region.
    """

    name: str
    prefix: str
    endpoint: str | None
    region: str

    @property
    def url(self) -> str:
        """What users call it."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def write(self, name: str, content: pa.Buffer) -> None:
        """Puts an object in the place of any earlier one of that name.

        An upload becomes visible when it is completed, and only if every part of it arrived.  The content is one
        buffer and not a stream, because a stream that is left by an exception completes what it has.
        """
        with _s3(self.endpoint, self.region, _ATTEMPTS).open_output_stream(self._key(name), compression=None) as upload:
            upload.write(content)

    def open(self, name: str) -> Any:
        """The object, as an Arrow file to read at random; FileNotFoundError if there is none."""
        return _s3(self.endpoint, self.region, _ATTEMPTS).open_input_file(self._key(name))

    def version(self, name: str) -> Version:
        """What changes when an object is written anew."""
        return _version(_s3(self.endpoint, self.region, _ATTEMPTS), self._key(name))

    def delete(self, name: str) -> None:
        """Removes an object; one that is not there is none the less gone."""
        with contextlib.suppress(FileNotFoundError):
            _s3(self.endpoint, self.region, _ATTEMPTS).delete_file(self._key(name))

    def tree(self) -> tuple[fs.FileSystem, str]:
        """Arrow's file system and the path in it, to read all objects as a dataset."""
        return _s3(self.endpoint, self.region, _ATTEMPTS), self._key("").rstrip("/")

    def check(self) -> None:
        """Raises UsageError if objects cannot be written here; leaves nothing behind but the prefix itself."""
        where = self.endpoint or f"AWS, region {self.region}"
        try:
            _within(_CHECK_SECONDS, self._probe)
        except TimeoutError:
            raise UsageError(
                f"lake '{self.url}': {where} did not answer within {_CHECK_SECONDS:.0f} s: check AWS_ENDPOINT_URL"
            ) from None
        except FileNotFoundError:
            raise UsageError(
                f"lake '{self.url}': there is no bucket '{self.name}' at {where}: create it or correct the name"
            ) from None
        except OSError as error:
            raise UsageError(f"lake '{self.url}' cannot be written at {where}: {_cure(error)}") from None

    def _probe(self) -> None:
        s3 = _s3(self.endpoint, self.region, 2)
        if s3.get_file_info(self.name).type is fs.FileType.NotFound:
            raise FileNotFoundError(self.name)  # asked first: some servers make a bucket of any name on the first write
        probe = self._key(f"_check-{uuid.uuid4().hex}")
        with s3.open_output_stream(probe) as upload:
            upload.write(b"")
        with contextlib.suppress(OSError):  # a lake that may be added to but not deleted from will do
            s3.delete_file(probe)

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.name, self.prefix, name)))


Objects = Folder | Bucket


def _version(files: fs.FileSystem, path: str) -> Version:
    info = files.get_file_info(path)
    return None if info.type is fs.FileType.NotFound else (info.mtime_ns, info.size)


def objects_in(root: str) -> Objects:
    """The place that `root` names: `s3://bucket/prefix`, `file:///folder` or a folder.

    S3 is asked at AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, if set, and in AWS_REGION or AWS_DEFAULT_REGION.

    Raises:
      UsageError: if it names nothing of these.
    """
    scheme, separator, rest = root.partition("://")
    if not root:
        raise UsageError("lake '' names no place: give a folder or s3://bucket/prefix")
    if not separator:
        return Folder(str(pathlib.Path(root).expanduser().absolute()))
    if scheme == "file" and rest.startswith("/"):
        return Folder(urllib.parse.unquote(rest))
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise UsageError(
            "lake s3://***@ holds a key: leave it out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
        )
    if scheme != "s3" or not bucket:
        raise UsageError(f"lake '{root}' is not a place this can write to: give a folder or s3://bucket/prefix")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Bucket(bucket, prefix.strip("/"), endpoint, region)


@functools.lru_cache
def _s3(endpoint: str | None, region: str, attempts: int) -> fs.S3FileSystem:
    """One client a process: it is safe to share between threads and keeps its connections."""
    return fs.S3FileSystem(
        endpoint_override=endpoint,  # with its scheme
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Runs `action`, which nothing can interrupt, and leaves it alone when it takes too long."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # handed to the caller
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]


_CURES = {
    "NETWORK_CONNECTION": "the server cannot be reached; check AWS_ENDPOINT_URL and that the server runs",
    "ACCESS_DENIED": "access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
    "INVALID_ACCESS_KEY_ID": "the access key is unknown there; check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
}


def _cure(error: OSError) -> str:
    """What S3's error means for the user, in half a sentence."""
    found = re.search(r"AWS Error (\w+)", str(error))
    code = found.group(1) if found else ""
    return _CURES.get(code) or str(error).splitlines()[0]
