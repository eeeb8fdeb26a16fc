"""What every server of the local stack has in common."""

import abc
import json
import pathlib
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import psutil

from beam_pipelines.errors import UsageError
from beam_pipelines.runners.processes import Process, spawn, stop, sweep

__all__ = ["HOST", "Command", "Server", "ServerError", "accepts", "free_port"]

HOST = "127.0.0.1"
LOG_LINES = 15
PORTS = (20000, 32000)  # below the range from which the system takes the ports of outgoing connections
_given: dict[int, pathlib.Path] = {}  # ports chosen here whose server may not listen yet, and its folder


class ServerError(Exception):
    """A server did not start: which one, why, and the last lines of its log."""


class Command(NamedTuple):
    """What to run, and what to add to its environment."""

    arguments: list[str]
    environment: Mapping[str, str] = {}


class Server(abc.ABC):
    """One server process with its data, log and record in a folder of its own.

    Args:
      folder: where it keeps everything; made when absent.
      ports: wanted port numbers by name; a missing one stays as it was, or is free, the preferred one first; 0 is any.
    """

    name: ClassVar[str]
    preferred_ports: ClassVar[Mapping[str, int]]  # 0: any; the first is its clients'
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    patience_s: ClassVar[float] = 180.0  # a cold JVM takes seconds, on a badly overloaded machine a minute and more

    def __init__(self, folder: pathlib.Path, ports: Mapping[str, int] | None = None) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "log"
        self._record = self.folder / "server.json"
        self.process, kept = self._recall()
        self.ports = {
            name: self._choose(name, (ports or {}).get(name), kept.get(name), preferred)
            for name, preferred in self.preferred_ports.items()
        }

    @abc.abstractmethod
    def provide(self) -> None:
        """Downloads the program unless it is there, and says what is missing on the machine.

        Raises:
          UsageError: when the user has to install something.
        """

    @abc.abstractmethod
    def prepare(self) -> Command:
        """Writes the configuration, and the empty data the first time."""

    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether it does its work now; asked again until it does."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.running()

    def address(self, port: str) -> str:
        """`host:port` of a named port."""
        return f"{HOST}:{self.ports[port]}"

    @property
    def usable(self) -> bool:
        """Whether it is ready, and it is ours that answers: another's server may have taken a port just before."""
        return self.running and self.ready() and self._listens()

    def start(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Starts it unless it runs, and returns when it is ready; what a crashed run left is swept away first.

        Args:
          give_up: asked while waiting; says whether to wait no longer.

        Raises:
          ServerError: when it dies or is not ready in time.
        """
        deadline, launched = time.monotonic() + self.patience_s, False
        while not self.usable:
            if not self.running:  # perhaps not until now: a killed process is there for some moments more
                if launched:
                    raise self._failure("ended while starting")
                self._launch()
                launched = True
            if give_up():
                raise self._failure("was not waited for any longer")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {self.patience_s:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it in order, with all that it started."""
        if self.process is not None:
            stop(self.process, self.folder, self.stop_signal)
        else:  # a start that was killed before it was recorded
            sweep(self.folder)

    def last_log_lines(self, count: int = LOG_LINES) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else ""

    def _launch(self) -> None:
        sweep(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.prepare()
        self.process = spawn(command.arguments, command.environment, self.folder, self.log)
        self._record.write_text(json.dumps({"process": self.process, "ports": self.ports}))

    def _listens(self) -> bool:
        first = next(iter(self.ports.values()))
        try:
            sockets = psutil.Process(self.process.pid).net_connections("tcp") if self.process else []
        except psutil.Error:  # some containers keep even root from looking at other users' processes
            return True
        return any(it.status == psutil.CONN_LISTEN and it.laddr.port == first for it in sockets)

    def _failure(self, what: str) -> ServerError:
        return ServerError(f"{self.name} {what}; the last lines of {self.log}:\n{self.last_log_lines()}")

    def _recall(self) -> tuple[Process | None, dict[str, int]]:
        """The process and ports of an earlier run; a record cut short by a crash counts as none."""
        try:
            record = json.loads(self._record.read_text())
            return Process(*record["process"]), record["ports"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None, {}

    def _choose(self, name: str, wanted: int | None, kept: int | None, preferred: int) -> int:
        if self.running and kept:
            if wanted and wanted != kept:
                raise UsageError(
                    f"--{name}_port={wanted}: {self.name} already runs on port {kept}; take it down first."
                )
            return kept
        if wanted and not self._may_take(wanted):
            raise UsageError(f"--{name}_port={wanted}: that port is in use; give another, or 0 for any.")
        candidates = [wanted] if wanted is not None else [kept, preferred]
        port = next((port for port in candidates if port and self._may_take(port)), 0)
        while not port or not self._may_take(port):
            port = random.randint(*PORTS)  # noqa: S311
        _given[port] = self.folder
        return port

    def _may_take(self, port: int) -> bool:
        return _given.get(port, self.folder) == self.folder and _is_free(port)


def free_port() -> int:
    """A port at which nobody listens, and that the system gives to no outgoing connection."""
    while not _is_free(port := random.randint(*PORTS)):  # noqa: S311
        pass
    return port


def accepts(address: str) -> bool:
    """Whether somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: an old connection may linger
        try:
            probe.bind(("", port))  # all interfaces: Flink's metrics reporter cannot be told to take loopback alone
        except OSError:
            return False
        return True
