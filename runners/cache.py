"""The folder outside the checkout in which downloaded and assembled things are kept."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

__all__ = ["cache_dir", "locked"]


def cache_dir() -> pathlib.Path:
    """`$WAARDHAVEN_CACHE`, else `waardhaven-pipelines` in the user's cache folder; made when absent."""
    own = os.environ.get("WAARDHAVEN_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(own).absolute() if own else pathlib.Path(shared) / "waardhaven-pipelines"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` among processes; the system releases it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
