"""Measurements of one process, in memory or in a file that outlives it.

A series is an array of doubles that is changed in place.  With a folder the arrays lie in a memory-mapped file there:
what is written is the kernel's at once, so a process that is killed loses nothing, and others can read at any time.
Each process has files of its own, under names that are never used again, and holds a lock (flock) on each as long as it
lives: a file without a lock is final.  Locks tell this across containers that share a folder, where process ids do not;
the folder must be on a disk of the machine.

prometheus_client has a multiprocess mode too.  It is on or off from that package's first import on; its files go by the
process id alone, so that a process which gets a dead one's id goes on in its file; one that was killed between making a
file and giving it a length fails every later scrape; and its files have holes, so that a full disk ends the process
(SIGBUS).  Here the file's space is reserved, and without space the process goes on in memory.
"""

import array
import contextlib
import fcntl
import functools
import json
import logging
import mmap
import os
import pathlib
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

__all__ = [
    "FOLDER_VARIABLE",
    "MAX_VALUES",
    "OTHER",
    "SUFFIX",
    "Content",
    "MetricStore",
    "Origin",
    "Series",
    "encode",
    "is_final",
    "process_store",
    "read_file",
]

FOLDER_VARIABLE = "PIPELINE_METRICS_DIR"
"""Environment variable that names the folder of this machine's processes; without it they measure in memory."""

MAX_VALUES = 1_000
"""Different texts that a label of a metric may have in a process; later ones become OTHER.  Numbers are not counted."""

OTHER = "other"

SUFFIX = ".metrics"
"""What the names of files end with."""

_LONGEST = 200  # characters of a label's value; what is beyond is cut off
_MAGIC = b"metrics1"
_HEADER = struct.Struct("=8sII")  # magic, bytes used, nothing
_ENTRY = struct.Struct("=II")  # bytes of the key, doubles; then the key, filled up to a multiple of 8, and the doubles
_BLOCK = 1 << 18  # bytes of a file, some 2,000 series; who needs more writes several
_LOG = logging.getLogger(__name__)
_Doubles: TypeAlias = "memoryview[float]"


class Origin(NamedTuple):
    """What a published total is the total of."""

    topic: str
    partition: int
    began_ms: int  # the job's start, Unix ms
    resumed: bool  # whether the job went on from another one's state


class Series(NamedTuple):
    """One time series of a metric."""

    metric: str
    labels: tuple[str | int, ...]  # in the metric's order
    origin: Origin | None = None  # of a total; None: of this process


Content = Mapping[Series, tuple[float, ...]]
"""Series and their doubles: a counter's value; a gauge's value, and when it was set, Unix s; or a histogram's buckets
(each by itself, the unbounded one last) and sum."""


class MetricStore:
    """All series of a process; threads may share it.

    Args:
      folder: where files go, made when absent; None: in memory.
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self._folder = folder
        self._block: _Block | None = None
        self._slots: dict[Series, _Doubles] = {}
        self._values: dict[tuple[str, int], set[str]] = {}
        self._lock = threading.Lock()

    def add(self, series: Series, amount: float) -> None:
        """Adds to a counter."""
        slot = self._slots.get(series) or self._admit(series, 1)
        with self._lock:
            slot[0] += amount

    def raise_to(self, series: Series, value: float) -> None:
        """Sets a value that never falls."""
        slot = self._slots.get(series) or self._admit(series, 1)
        with self._lock:
            slot[0] = max(slot[0], value)

    def set(self, series: Series, value: float) -> None:
        """Sets a gauge, now."""
        slot = self._slots.get(series) or self._admit(series, 2)
        with self._lock:
            slot[0], slot[1] = value, time.time()

    def observe(self, series: Series, bounds: Sequence[float], value: float, count: int) -> None:
        """Adds `count` observations of `value` to a histogram whose buckets end at `bounds`, inclusive."""
        slot = self._slots.get(series) or self._admit(series, len(bounds) + 2)
        with self._lock:
            slot[bisect_left(bounds, value)] += count
            slot[-1] += value * count

    def content(self) -> Content:
        """A copy of all series."""
        with self._lock:
            return {series: tuple(slot) for series, slot in self._slots.items()}

    def _admit(self, series: Series, size: int) -> _Doubles:
        """The slot of a series that is new, or whose labels are not kept as they are."""
        with self._lock:
            series = series._replace(
                labels=tuple(self._admitted(series.metric, *label) for label in enumerate(series.labels))
            )
            if series not in self._slots:
                self._slots[series] = self._allocate(series, size)
            return self._slots[series]

    def _admitted(self, metric: str, place: int, value: str | int) -> str | int:
        if isinstance(value, int):
            return value
        text = value[:_LONGEST].encode("utf-8", "replace").decode()
        known = self._values.setdefault((metric, place), set())
        if text not in known and len(known) >= MAX_VALUES:
            return OTHER
        known.add(text)
        return text

    def _allocate(self, series: Series, size: int) -> _Doubles:
        entry = _entry(series, (0.0,) * size)
        while self._folder is not None:
            slot = self._block.append(entry, size) if self._block else None
            if slot is not None:
                return slot
            try:
                self._block = _Block(self._folder)
            except OSError as failed:  # the data is worth more than its metrics
                _LOG.warning("metrics of process %d are not all in %s: %s", os.getpid(), self._folder, failed)
                self._folder = None
        return memoryview(array.array("d", bytes(8 * size)))


class _Block:
    """A file of series that is being written.  Its slots keep it open and locked."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{time.time_ns()}{SUFFIX}"
        unlocked = path.with_suffix(".new")  # nobody shall take it for a dead process's before it is locked
        with unlocked.open("xb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                os.posix_fallocate(file.fileno(), 0, _BLOCK)
                self._bytes = memoryview(mmap.mmap(file.fileno(), _BLOCK))  # it keeps a descriptor, and so the lock
                self._bytes[: _HEADER.size] = _HEADER.pack(_MAGIC, _HEADER.size, 0)
                unlocked.rename(path)
            except OSError:
                unlocked.unlink(missing_ok=True)
                raise
        self._used = self._bytes[8:12].cast("I")

    def append(self, entry: bytes, size: int) -> "_Doubles | None":
        """The doubles of a new entry; None if there is no room for it."""
        begin = self._used[0]
        end = begin + len(entry)
        if end > _BLOCK:
            return None
        self._bytes[begin:end] = entry
        self._used[0] = end  # only now is it seen
        return self._bytes[end - 8 * size : end].cast("d")


def _entry(series: Series, values: Sequence[float]) -> bytes:
    key = json.dumps(series).encode()
    key += b" " * (-len(key) % 8)
    return _ENTRY.pack(len(key), len(values)) + key + struct.pack(f"={len(values)}d", *values)


def encode(content: Content) -> bytes:
    """A file of these series."""
    entries = b"".join(_entry(series, values) for series, values in content.items())
    return _HEADER.pack(_MAGIC, _HEADER.size + len(entries), 0) + entries


def read_file(path: pathlib.Path) -> Content:
    """The series of a file, which may be written meanwhile; of one that a crash of the machine has damaged, the rest.

    Raises:
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _HEADER.size:
            return {}
        # Mapped, because doubles are then loaded whole; in a copy they may be half of one moment, half of the next.
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    content: dict[Series, tuple[float, ...]] = {}
    with contextlib.suppress(ValueError, TypeError, struct.error):
        content.update(_entries(mapped))
    return content


def _entries(mapped: memoryview) -> Iterator[tuple[Series, tuple[float, ...]]]:
    magic, used, _ = _HEADER.unpack_from(mapped)
    end = _HEADER.size
    while magic == _MAGIC and end < used:
        length, size = _ENTRY.unpack_from(mapped, end)
        key = end + _ENTRY.size
        values, end = key + length, key + length + 8 * size
        if end > len(mapped):
            return
        yield _series(bytes(mapped[key:values])), tuple(mapped[values:end].cast("d"))


@functools.lru_cache(1 << 16)
def _series(key: bytes) -> Series:
    metric, labels, origin = json.loads(key)
    return Series(metric, tuple(labels), Origin(*origin) if origin else None)


def is_final(path: pathlib.Path) -> bool:
    """Whether the process that wrote a file has ended, however it did."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


_STORES: dict[str, MetricStore] = {}
os.register_at_fork(after_in_child=_STORES.clear)  # a child begins its own; it must not write in its parent's file


def process_store() -> MetricStore:
    """The store of this process: in the folder that FOLDER_VARIABLE names, or in memory."""
    return _STORES.get("") or _STORES.setdefault("", _new_store())  # of two threads one wins; the other wrote nothing


def _new_store() -> MetricStore:
    folder = os.environ.get(FOLDER_VARIABLE)
    return MetricStore(pathlib.Path(folder) if folder else None)
