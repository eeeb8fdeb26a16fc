"""How to reach Kafka: the settings of every client, and a check of them before a job is launched."""

import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from beam_pipelines.errors import UsageError

__all__ = ["ErrorLog", "KafkaConfig", "check_kafka"]

_LOG = logging.getLogger(__name__)

_LOG_EVERY = 30.0  # s
_CLIENT: Mapping[str, Any] = {
    "log_level": 2,  # errors come back through calls and callbacks; on stderr they would only repeat, many a second
    "reconnect.backoff.max.ms": 2000,
    "socket.keepalive.enable": True,
    "topic.metadata.propagation.max.ms": 10_000,  # how long a topic may seem gone before it is
}
_CONSUMER: Mapping[str, Any] = {
    **_CLIENT,
    "group.id": "beam-pipelines",
    "isolation.level": "read_committed",
    "fetch.min.bytes": 65_536,  # else a broker answers at each record, thousands of times a second
    "fetch.wait.max.ms": 50,
    "fetch.queue.backoff.ms": 10,  # with the default of 1000 a fast reader stands still for a second at a time
    "queued.max.messages.kbytes": 16384,  # for each partition that is read
}
_PRODUCER: Mapping[str, Any] = {
    **_CLIENT,
    "compression.type": "lz4",
    "linger.ms": 10,
    "message.max.bytes": 16 * 1024 * 1024,  # what is too large is the topic's to say
    "partitioner": "murmur2_random",  # where the Java clients put the same key
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 131_072,
}
_CONSUMER_FIXED: Mapping[str, Any] = {
    "enable.auto.commit": False,  # the runner's checkpoint holds the truth
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # a lost position is an error, never a jump
    "allow.auto.create.topics": False,
    "enable.partition.eof": True,  # idle is told from slow by it
}
_PRODUCER_FIXED: Mapping[str, Any] = {
    "enable.idempotence": True,
    "delivery.report.only.error": True,  # a callback for each delivered record would cost as much as sending it
}
_FIXED = {**_CONSUMER_FIXED, **_PRODUCER_FIXED}


class ErrorLog:
    """Logs the errors that a client recovers from by itself: there are many a second while a broker is away.

    Args:
      what: what goes on in spite of them.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._logged_at = float("-inf")

    def __call__(self, error: ck.KafkaError) -> None:
        """Logs `error`, unless there was one lately."""
        if time.monotonic() - self._logged_at > _LOG_EVERY:
            self._logged_at = time.monotonic()
            _LOG.warning("%s goes on after: %s", self._what, error.str())


@dataclasses.dataclass(frozen=True)
class KafkaConfig:
    """Where the brokers are, and librdkafka's settings for reaching them.

    The settings travel to the workers inside the pipeline and are shown nowhere: they may hold passwords.

    Args:
      bootstrap_servers: host:port[,host:port...] of some brokers.
      settings: any settings of librdkafka; they win over this project's defaults, except for those that delivery
        rests on, which are refused.

    Raises:
      UsageError: if there is no server, or a setting is refused.
    """

    bootstrap_servers: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise UsageError("bootstrap_servers is empty: give host:port of a Kafka broker with --bootstrap_servers")
        refused = sorted(_FIXED.keys() & self.settings.keys())
        if refused:
            raise UsageError(f"Kafka setting {refused[0]} cannot be changed: delivery rests on it; remove it")

    @classmethod
    def load(cls, bootstrap_servers: str | None, file: str | pathlib.Path | None = None) -> Self:
        """The configuration of the command line: `bootstrap_servers` wins over the file's `bootstrap.servers`.

        Args:
          bootstrap_servers: host:port[,host:port...], or None to take the file's.
          file: a JSON object, or lines of `name=value` with `#` comments; None for no further settings.

        Raises:
          UsageError: if the file cannot be read, or neither gives a server.
        """
        settings = _read_settings(pathlib.Path(file)) if file else {}
        in_file = str(settings.pop("bootstrap.servers", ""))
        return cls(bootstrap_servers or in_file, settings)

    def consumer(self, on_error: Callable[[ck.KafkaError], None] | None = None, **tuned: Any) -> ck.Consumer:
        """A consumer that is assigned nothing.

        Args:
          on_error: gets the errors that belong to no record, from within consume(); they are logged otherwise.
          **tuned: defaults of this use, with `_` for `.` in their names; the user's settings win over them.
        """
        own = {name.replace("_", "."): value for name, value in tuned.items()}
        return ck.Consumer(self._client({**_CONSUMER, **own}, _CONSUMER_FIXED, on_error))

    def producer(
        self,
        on_failure: Callable[[ck.KafkaError, ck.Message], None],
        on_error: Callable[[ck.KafkaError], None] | None = None,
    ) -> ck.Producer:
        """An idempotent producer.

        Args:
          on_failure: called from poll() and flush(), for records that could not be delivered only.
          on_error: gets the errors that belong to no record, from there too; they are logged otherwise.
        """
        return ck.Producer({**self._client(_PRODUCER, _PRODUCER_FIXED, on_error), "on_delivery": on_failure})

    def admin(self) -> AdminClient:
        """A client for questions about topics."""
        return AdminClient(self._client(_CLIENT, {}, None))

    def _client(
        self, defaults: Mapping[str, Any], fixed: Mapping[str, Any], on_error: Callable[[ck.KafkaError], None] | None
    ) -> dict[str, Any]:
        servers = {"bootstrap.servers": self.bootstrap_servers, "error_cb": on_error or ErrorLog("Kafka client")}
        return {**defaults, **self.settings, **fixed, **servers}


def check_kafka(config: KafkaConfig, *topics: str, timeout: float = 5.0) -> None:
    """Makes sure that Kafka is reachable with `config` and has all of `topics`, before a job is launched.

    Args:
      config: how to reach Kafka.
      *topics: topics that must be there; they are not created.
      timeout: how long a broker may take to answer, s.

    Raises:
      UsageError: which says what is wrong and what to do.
    """
    errors: list[ck.KafkaError] = []
    try:
        config.producer(lambda _error, _message: None, errors.append).close()
        consumer = config.consumer(errors.append)
    except ck.KafkaException as refused:
        raise UsageError(f"Kafka settings are wrong ({_reason(refused)}): correct --kafka_config") from refused
    try:
        for topic in topics or (None,):
            _check_topic(consumer, config, topic, timeout, errors)
    finally:
        consumer.close()


def _check_topic(
    consumer: ck.Consumer, config: KafkaConfig, topic: str | None, timeout: float, errors: list[ck.KafkaError]
) -> None:
    begun = time.monotonic()
    while True:
        try:
            metadata = consumer.list_topics(topic, timeout=0.5)
        except ck.KafkaException as unreachable:
            consumer.poll(0)  # hands over what the connections reported, which says why
            if time.monotonic() - begun > timeout or any(error.code() in _HOPELESS for error in errors):
                raise UsageError(_unreachable(config, errors, unreachable)) from unreachable
            continue
        if topic is None or metadata.topics[topic].error is None:
            return
        error = metadata.topics[topic].error
        if time.monotonic() - begun > min(timeout, _PROPAGATION):
            raise UsageError(_unusable(config, topic, error))
        time.sleep(0.1)


_PROPAGATION = 1.0  # s until all brokers know of a topic that was just created
_HOPELESS = {ck.KafkaError._AUTHENTICATION, ck.KafkaError._SSL}


def _unreachable(config: KafkaConfig, errors: list[ck.KafkaError], exception: ck.KafkaException) -> str:
    told = [error.str() for error in errors if error.code() != ck.KafkaError._ALL_BROKERS_DOWN]
    why = told[-1] if told else _reason(exception)
    return (
        f"Kafka at {config.bootstrap_servers} cannot be reached ({why}): "
        "start the broker or correct --bootstrap_servers and --kafka_config"
    )


def _unusable(config: KafkaConfig, topic: str, error: ck.KafkaError) -> str:
    if error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
        return f"topic {topic} does not exist on Kafka at {config.bootstrap_servers}: create it or correct its name"
    return (
        f"topic {topic} on Kafka at {config.bootstrap_servers} cannot be used ({error.str()}): "
        "correct its name, or the user's rights"
    )


def _reason(exception: ck.KafkaException) -> str:
    error: ck.KafkaError = exception.args[0]
    return error.str()


def _read_settings(file: pathlib.Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"kafka_config {file} cannot be read ({reason}): give a readable file") from unreadable
    return _json_settings(file, text) if text.lstrip().startswith("{") else _property_settings(file, text)


def _json_settings(file: pathlib.Path, text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as malformed:  # whose text may quote a secret, so it is not passed on
        raise UsageError(f"kafka_config {file} is not a JSON object of settings: correct it") from malformed
    wrong = [name for name, value in settings.items() if not isinstance(value, str | int | float | bool)]
    if wrong:
        raise UsageError(f"kafka_config {file}: {wrong[0]} is not a string, a number or a boolean: correct it")
    return dict(settings)


def _property_settings(file: pathlib.Path, text: str) -> dict[str, Any]:
    settings = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if name and not name.startswith(("#", "!")):
            if not equals:
                raise UsageError(f"kafka_config {file}, line {number} is not name=value: correct it")
            settings[name] = value
    return settings
