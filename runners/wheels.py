"""Where the wheels of the extra `stack` keep the programs that they bring."""

import importlib.util
import pathlib

from beam_pipelines.errors import UsageError

__all__ = ["folder_of"]


def folder_of(package: str, program: str) -> pathlib.Path:
    """The folder of an installed package, which is not imported: some make folders and users of their own then.

    Raises:
      UsageError: when it is not installed; says that `program` is missing.
    """
    wheel = importlib.util.find_spec(package)
    if wheel is None or wheel.origin is None:
        raise UsageError(f"{program} is missing: pip install 'waardhaven-pipelines[stack]'.")
    return pathlib.Path(wheel.origin).parent
