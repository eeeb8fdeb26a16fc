"""Lakes to write to."""

import pathlib

import pytest

from tests.io.lakes import Lake


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def lake(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Lake:
    if request.param == "folder":
        return Lake(str(tmp_path / "lake"))
    server = request.getfixturevalue("s3_server")
    return Lake(f"s3://{server.bucket}/{tmp_path.name}")
