"""Files of articles as a log: lines of JSON, plain or gzipped, each line the value of a record."""

import gzip
import itertools
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from importlib import resources

import msgspec
import pyarrow as pa

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms import records as keyed
from beam_pipelines.transforms.articles import key_of
from beam_pipelines.transforms.records import RECORDS

__all__ = ["check_articles", "raw_articles", "sample_articles"]

_BATCH_LINES = 1_000
_SUFFIXES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_SAMPLE = "sample_articles.ndjson"


class _Identity(msgspec.Struct):
    id: str | int | None = None


_IDENTITY = msgspec.json.Decoder(_Identity)


def check_articles(path: str) -> None:
    """Makes sure that a file can be read, before anything of it is written anywhere.

    Raises:
      UsageError: if it is missing, of an unknown kind or damaged.
    """
    for _ in _lines(path):
        pass


def raw_articles(path: str, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A file as a log: (partition, RAW batch with span).

    The partition is the stable hash of the id, the offset counts the partition's rows, the Kafka timestamp is -1, the
    topic of the spans is the file's name.

    Raises:
      UsageError: as `check_articles`.
    """
    return _raw(_lines(path), pathlib.Path(path).name, partitions)


def sample_articles(partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The articles that the package brings, as a log."""
    lines = (resources.files("beam_pipelines") / _SAMPLE).read_bytes().splitlines()
    return _raw(lines, _SAMPLE, partitions)


def _lines(path: str) -> Iterator[bytes]:
    if not path.endswith(_SUFFIXES):
        raise UsageError(f"input file {path} is of no kind that can be read: give one of {', '.join(_SUFFIXES)}")
    try:
        with open(path, "rb") as opened:
            yield from filter(None, map(bytes.strip, gzip.GzipFile(fileobj=opened) if path.endswith(".gz") else opened))
    except FileNotFoundError:
        raise UsageError(f"input file {path} does not exist: correct the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"input file {path} cannot be read ({error}): repair it") from None


def _raw(lines: Iterable[bytes], topic: str, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    return keyed.raw_batches(map(_records, _batched(lines)), topic, partitions)


def _batched(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(lines)
    while batch := list(itertools.islice(rest, _BATCH_LINES)):
        yield batch


def _records(lines: list[bytes]) -> pa.RecordBatch:
    columns = [
        pa.array([-1] * len(lines), pa.int64()),
        pa.array([_key(line) for line in lines], pa.binary()).dictionary_encode(),
        pa.array(lines, pa.binary()),
        pa.array(["article"] * len(lines), pa.string()).dictionary_encode(),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RECORDS)


def _key(line: bytes) -> bytes | None:
    try:
        identity = _IDENTITY.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it will be a dead letter
        return None
    return None if identity is None else key_of(identity)
