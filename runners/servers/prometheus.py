"""Prometheus and Alertmanager, from the packages of the system, with the rules of `infra/monitoring`."""

import importlib.resources
import json
import pathlib
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.servers.base import Command, Server

__all__ = ["Alertmanager", "Prometheus", "monitoring_file", "program", "sped_up"]

SCRAPE_S = 15  # the rules' shortest range is four of these
RETENTION = "15d"  # the longest window of a rule is 3 days
UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = r"(?P<count>\d+)(?P<unit>ms|[smhd])\b"
# Where the rules and Alertmanager's configuration have a duration: a range, an offset, or a key's value.
DURATIONS = re.compile(
    rf"(?P<before>\[|\boffset\s+|\b(?:interval|for|group_wait|group_interval|repeat_interval):\s*){DURATION}"
)


class Alertmanager(Server):
    """Groups and keeps the alerts; its page and interface are at `address("alertmanager")`.

    A file `webhook_url` in its folder makes it send them to that URL too: the URL is a secret, so it is in no
    configuration of ours.  The file is read when the server starts.

    Args:
      folder: where it keeps everything.
      ports: as for every server.
      speedup: all durations are divided by this.
    """

    name = "alertmanager"
    preferred_ports: ClassVar[Mapping[str, int]] = {"alertmanager": 9093}

    def __init__(self, folder: pathlib.Path, ports: Mapping[str, int] | None = None, speedup: int = 1) -> None:
        super().__init__(folder, ports)
        self._speedup = speedup

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://{self.address('alertmanager')}"

    def provide(self) -> None:
        """Looks for the program."""
        program("prometheus-alertmanager", "alertmanager")

    def prepare(self) -> Command:
        """Writes the configuration, which only its owner may read."""
        config = self.folder / "alertmanager.yml"
        config.touch(mode=0o600)
        config.write_text(with_webhook(sped_up(monitoring_file("alertmanager.yml"), self._speedup), self._webhook()))
        options = {
            "config.file": config,
            "storage.path": self.folder / "data",
            "web.listen-address": self.address("alertmanager"),
            "cluster.listen-address": "",  # it has no peers
        }
        return Command([program("prometheus-alertmanager", "alertmanager"), *flags(options)])

    def ready(self) -> bool:
        """Whether it takes alerts."""
        return answers(f"{self.url}/-/ready")

    def _webhook(self) -> str | None:
        file = self.folder / "webhook_url"
        return file.read_text().strip() if file.exists() else None


class Prometheus(Server):
    """Scrapes the other servers and evaluates the rules; its page and interface are at `url`.

    Args:
      folder: where it keeps everything.
      ports: as for every server.
      targets: what to scrape besides itself: `host:port` by the name that its metrics get as label `job`.
      alertmanager: `host:port` of the one that gets the alerts; None: they are only shown.
      speedup: the interval of scrapes and all durations of the rules are divided by this; so what is to fire after
        five minutes fires after 20 seconds with 15.
    """

    name = "prometheus"
    preferred_ports: ClassVar[Mapping[str, int]] = {"prometheus": 9090}

    def __init__(
        self,
        folder: pathlib.Path,
        ports: Mapping[str, int] | None = None,
        targets: Mapping[str, str] | None = None,
        alertmanager: str | None = None,
        speedup: int = 1,
    ) -> None:
        super().__init__(folder, ports)
        self._targets = {**(targets or {}), self.name: self.address("prometheus")}
        self._alertmanager = alertmanager
        self._speedup = speedup

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://{self.address('prometheus')}"

    def provide(self) -> None:
        """Looks for the program."""
        program("prometheus", "prometheus")

    def prepare(self) -> Command:
        """Writes the configuration and the rules."""
        (self.folder / "alerts.yml").write_text(sped_up(monitoring_file("alerts.yml"), self._speedup))
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps(self._configuration(), indent=2))  # JSON is YAML too
        options = {
            "config.file": config,
            "storage.tsdb.path": self.folder / "data",
            "storage.tsdb.retention.time": RETENTION,
            "web.listen-address": self.address("prometheus"),
        }
        return Command([program("prometheus", "prometheus"), *flags(options)])

    def ready(self) -> bool:
        """Whether it answers queries."""
        return answers(f"{self.url}/-/ready")

    def _configuration(self) -> dict[str, Any]:
        interval = f"{SCRAPE_S * 1000 // self._speedup}ms"
        alertmanagers = [static(self._alertmanager)] if self._alertmanager else []
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["alerts.yml"],
            "alerting": {"alertmanagers": alertmanagers},
            "scrape_configs": [{"job_name": job, **static(address)} for job, address in self._targets.items()],
        }


def static(address: str) -> dict[str, Any]:
    """A target that does not move, as Prometheus's configuration has it."""
    return {"static_configs": [{"targets": [address]}]}


def flags(options: Mapping[str, object]) -> list[str]:
    """Command-line flags as these programs take them."""
    return [f"--{name}={value}" for name, value in options.items()]


def sped_up(text: str, speedup: int) -> str:
    """Rules, or a configuration of Alertmanager, with all their durations divided by `speedup`, in whole milliseconds.

    Thresholds stay: what is compared with a number of seconds must be said with a range to be sped up.
    """
    if speedup == 1:
        return text

    def shorter(found: re.Match[str]) -> str:
        return f"{found['before']}{int(found['count']) * UNIT_MS[found['unit']] // speedup}ms"

    return DURATIONS.sub(shorter, text)


def with_webhook(config: str, url: str | None) -> str:
    """Alertmanager's configuration with the URL in place of the file that is to hold it; without, alerts are kept.

    Alertmanager reads `url_file` itself from 0.26 on; Debian 12 has 0.25.
    """
    if url is None:
        return re.sub(r"(?m)^    webhook_configs:\n(?:      .*\n)+", "", config)
    return re.sub(r"url_file: \S+", lambda _: f"url: {json.dumps(url)}", config)


def monitoring_file(name: str) -> str:
    """The text of a file of `infra/monitoring`."""
    return (importlib.resources.files("beam_pipelines.infra") / "monitoring" / name).read_text()


def program(package: str, upstream: str) -> str:
    """The path of a program, which Debian calls as its package and others as its makers do.

    Raises:
      UsageError: when it is not installed.
    """
    found = shutil.which(package) or shutil.which(upstream)
    if found is None:
        raise UsageError(f"--monitoring needs {package}, which is not in PATH: apt-get install {package}")
    return found


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a server of ours
            return True
    except (urllib.error.URLError, OSError):
        return False
