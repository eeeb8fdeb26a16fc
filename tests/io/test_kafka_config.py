"""Settings reach the clients, mistakes become sentences, secrets stay out of sight."""

import time

import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.io.kafka import KafkaConfig, check_kafka

JSON = '{"sasl.username": "me", "sasl.password": "hunter2", "socket.keepalive.enable": true, "retries": 5}'
PROPERTIES = """
# how we sign in
sasl.username = me
sasl.password=hunter2=
! and more
retries=5
"""


def test_settings_come_from_a_json_object(tmp_path):
    (tmp_path / "kafka.json").write_text(JSON)
    config = KafkaConfig.load("broker:9092", tmp_path / "kafka.json")
    assert config.settings == {
        "sasl.username": "me",
        "sasl.password": "hunter2",
        "socket.keepalive.enable": True,
        "retries": 5,
    }


def test_settings_come_from_lines_of_properties(tmp_path):
    (tmp_path / "kafka.properties").write_text(PROPERTIES)
    config = KafkaConfig.load("broker:9092", tmp_path / "kafka.properties")
    assert config.settings == {"sasl.username": "me", "sasl.password": "hunter2=", "retries": "5"}


def test_the_servers_of_the_command_line_win_over_those_of_the_file(tmp_path):
    (tmp_path / "kafka.properties").write_text("bootstrap.servers=file:9092")
    assert KafkaConfig.load(None, tmp_path / "kafka.properties").bootstrap_servers == "file:9092"
    assert KafkaConfig.load("line:9092", tmp_path / "kafka.properties").bootstrap_servers == "line:9092"


def test_secrets_show_neither_in_the_configuration_nor_in_a_clients_error():
    config = KafkaConfig("127.0.0.1:1", {"sasl.password": "hunter2", "sasl.usernam": "me"})
    assert "hunter2" not in f"{config!r} {config}"
    with pytest.raises(UsageError) as error:
        check_kafka(config)
    assert "sasl.usernam" in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"sasl.password": "hunter2"', "is not a JSON object"),
        ('{"ssl": {"password": "hunter2"}}', "ssl is not a string"),
        ("sasl.password hunter2", "line 1 is not name=value"),
        ("enable.idempotence=false", "enable.idempotence cannot be changed"),
    ],
)
def test_a_malformed_file_is_named_without_quoting_it(tmp_path, text, told):
    (tmp_path / "kafka.txt").write_text(text)
    with pytest.raises(UsageError, match=told) as error:
        KafkaConfig.load("broker:9092", tmp_path / "kafka.txt")
    assert "hunter2" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.json cannot be read \(No such file"):
        KafkaConfig.load("broker:9092", tmp_path / "nowhere.json")


def test_no_server_at_all_is_an_error():
    with pytest.raises(UsageError, match="give host:port"):
        KafkaConfig.load(None)


@pytest.mark.parametrize(("servers", "why"), [("127.0.0.1:1", "Connection refused"), ("no.invalid:9092", "resolve")])
def test_an_unreachable_broker_is_told_within_ten_seconds(servers, why):
    begun = time.monotonic()
    with pytest.raises(UsageError, match=f"Kafka at {servers} cannot be reached.*{why}"):
        check_kafka(KafkaConfig(servers), "any")
    assert time.monotonic() - begun < 10


def test_settings_that_contradict_delivery_are_told_before_the_launch():
    with pytest.raises(UsageError, match="`acks` must be set to `all`"):
        check_kafka(KafkaConfig("127.0.0.1:1", {"acks": "1"}))


@pytest.mark.servers
def test_a_missing_topic_is_named_and_not_created(kafka_server):
    config = KafkaConfig(kafka_server)
    for _ in range(2):
        with pytest.raises(UsageError, match="topic no-such-topic does not exist"):
            check_kafka(config, "no-such-topic")


@pytest.mark.servers
def test_a_reachable_broker_with_all_topics_passes(kafka_server, topic):
    check_kafka(KafkaConfig(kafka_server), topic("there"), topic("there"))
