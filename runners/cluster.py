"""A Flink cluster by its REST interface: its jobs, their checkpoints, and how to end them."""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError

__all__ = ["Cluster", "ClusterError", "Job", "Saved", "check_restored", "url_of"]

_ANSWER_S = 8.0
_POLL_S = 0.2
_ENDED = ("CANCELED", "FAILED", "FINISHED")


class ClusterError(Exception):
    """The cluster could not do what it was asked: one sentence with its own reason."""


class Saved(NamedTuple):
    """A checkpoint or savepoint, from which a job can go on."""

    path: str
    time_s: float  # when it was complete, Unix s
    size: int  # bytes; what others share with it included


class Job(NamedTuple):
    """A job of the cluster; ended ones are told of too, until it forgets them."""

    id: str
    name: str
    state: str  # as Flink calls it

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.state not in _ENDED


class Cluster:
    """The cluster at an address.

    Args:
      flink_master: host:port or URL, as in Beam's `--flink_master`.

    Raises:
      UsageError: from all methods, when no cluster answers there.
      ClusterError: from all methods, when it answers that it cannot.
    """

    def __init__(self, flink_master: str) -> None:
        self._master = flink_master

    def class_path(self) -> list[str]:
        """The class path of the JobManager."""
        try:
            entries: list[str] = self.ask("jobmanager/environment")["classpath"]
        except (ClusterError, KeyError, TypeError) as other:  # what answers is something else
            raise self._absent(other) from None
        return entries

    def slots(self) -> int:
        """Task slots of the TaskManager that has most; while there is none, what the configuration says of one."""
        there = [int(it["slotsNumber"]) for it in self.ask("taskmanagers")["taskmanagers"]]
        return max(there) if there else int(self.setting("taskmanager.numberOfTaskSlots") or 1)

    def jobs(self) -> list[Job]:
        """All that it knows, the oldest first."""
        told = sorted(self.ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])
        return [Job(job["jid"], job["name"], job["state"]) for job in told]

    def find(self, named: str | None) -> Job:
        """The job that lives and has this id or name; if none is given, the only one.

        Raises:
          UsageError: when there is none, or there are several.
        """
        alive = [job for job in self.jobs() if job.lives]
        chosen = [job for job in alive if named in (None, job.id, job.name)]
        if len(chosen) == 1:
            return chosen[0]
        who = f"the name or id {named}" if named else "any name"
        there = ", ".join(f"{job.name} ({job.id})" for job in alive) or "none"
        raise UsageError(f"JOB: {len(chosen)} running jobs have {who} at {self._master}: name one of these: {there}")

    def restarts(self, job: str) -> int | None:
        """How often the job with this id was restarted; None when that is not known, yet or any more."""
        metrics = self.ask(f"jobs/{job}/metrics?get=numRestarts")
        return next((int(it["value"]) for it in metrics), None)

    def checkpoint(self, job: str) -> Saved | None:
        """The last completed checkpoint of the job with this id."""
        try:
            latest = self.ask(f"jobs/{job}/checkpoints")["latest"]["completed"]
        except (ClusterError, KeyError, TypeError):  # the job takes none, as bounded ones do, or only begins
            return None
        return latest and Saved(latest["external_path"], latest["latest_ack_timestamp"] / 1000, latest["state_size"])

    def cancel(self, job: str) -> None:
        """Ends the job with this id, without a savepoint; `await_end` says when."""
        self.ask(f"jobs/{job}?mode=cancel", "PATCH")

    def await_end(self, job: str) -> None:
        """Returns when the job with this id has ended."""
        while self.ask(f"jobs/{job}")["state"] not in _ENDED:
            time.sleep(_POLL_S)

    def stop(self, job: str, folder: str | None) -> str:
        """Ends the job with this id in order, with a savepoint, after which it reads and writes nothing more.

        Args:
          job: its id.
          folder: where to put the savepoint; None: where the cluster puts them.

        Returns:
          The savepoint's path, for `--savepoint_path`.

        Raises:
          ClusterError: when the savepoint failed; the job goes on.
        """
        asked = self.ask(f"jobs/{job}/stop", "POST", {"drain": False, "targetDirectory": folder})["request-id"]
        while (told := self.ask(f"jobs/{job}/savepoints/{asked}"))["status"]["id"] == "IN_PROGRESS":
            time.sleep(_POLL_S)
        failure = told["operation"].get("failure-cause")
        if failure:
            raise ClusterError(
                f"the savepoint of job {job} failed, and the job goes on: {_reason(failure['stack-trace'])}"
            )
        self.await_end(job)
        return str(told["operation"]["location"])

    def setting(self, name: str) -> str | None:
        """What the cluster's configuration says."""
        settings = {pair["key"]: pair["value"] for pair in self.ask("jobmanager/config")}
        return settings.get(name)

    def ask(self, path: str, method: str = "GET", body: Mapping[str, object] | None = None) -> Any:
        """What it answers, from JSON."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{url_of(self._master)}/{path}"
        try:
            request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refused:
            raise ClusterError(
                f"Flink at {self._master} refuses {path} ({refused.code}): {_told_by(refused)}"
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._absent(error.reason if isinstance(error, urllib.error.URLError) else error) from None

    def _absent(self, why: object) -> UsageError:
        return UsageError(
            f"--flink_master={self._master}: no Flink cluster answers there ({why}): start it or correct host:port"
        )


def url_of(flink_master: str) -> str:
    """The URL of a cluster that may be named by host:port alone."""
    given = flink_master.strip().rstrip("/")
    return given if given.startswith(("http://", "https://")) else f"http://{given}"


def check_restored(failure: str) -> None:
    """Looks whether a job failed because it cannot go on from `--savepoint_path`, which only the user can mend.

    Args:
      failure: what Flink said of it.

    Raises:
      UsageError: if so.
    """
    left_out = re.search(r"Failed to rollback to checkpoint/savepoint (\S+)\. Cannot map .* not available", failure)
    absent = re.search(r"Cannot find (?:checkpoint or savepoint|meta data) file.*?'(.+?)'", failure)
    if left_out:
        raise UsageError(
            f"--savepoint_path={left_out[1]} has state of a step that the job has no more, such as an output that is "
            "left out now: give that again, or --allow_non_restored_state to forget it"
        )
    if absent:
        raise UsageError(f"--savepoint_path={absent[1]}: no checkpoint or savepoint is there: correct the path")


def _told_by(refused: urllib.error.HTTPError) -> str:
    try:
        return _reason("\n".join(json.loads(refused.read())["errors"]))
    except (ValueError, KeyError, TypeError):  # somebody else's server
        return refused.reason


def _reason(trace: str) -> str:
    """The innermost cause of a Java stack trace, without the names of its class."""
    causes = re.findall(r"^(?:Caused by: )?([\w.$]+(?:Exception|Error)\b.*)$", trace, re.MULTILINE)
    return re.sub(r"^([\w$]+\.)+", "", causes[-1]) if causes else trace.partition("\n")[0]
