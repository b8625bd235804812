from __future__ import annotations

import pytest
from confluent_kafka import Consumer

from llmobs.analyzer.log.kafka.address import KafkaAddress, source_number
from llmobs.errors import ConfigurationError
from llmobs.records import first_number


def test_a_bare_address_means_the_collectors_topics_and_the_group_llmobs() -> None:
    address = KafkaAddress.parse("kafka://one:9093,two")
    assert address.servers == "one:9093,two:9092"
    assert address.group == "llmobs"
    assert address.topics() == {
        "otlp_spans": "traces",
        "otlp_logs": "logs",
        "otlp_metrics": "metrics",
    }
    assert address.options == {"security.protocol": "PLAINTEXT"}


def test_options_name_group_and_prefix_and_properties_of_librdkafka() -> None:
    address = KafkaAddress.parse("kafka://[::1]:1/?group=g&prefix=p.&session_timeout_ms=9000")
    assert (address.servers, address.group, address.topic("logs")) == ("[::1]:1", "g", "p.logs")
    assert address.options["session.timeout.ms"] == "9000"


@pytest.mark.parametrize(
    ("url", "protocol", "mechanism"),
    [
        ("kafkas://host", "SSL", None),
        ("kafka://me:secret@host", "SASL_PLAINTEXT", "PLAIN"),
        ("kafkas://me:secret@host", "SASL_SSL", "PLAIN"),
        (
            "kafkas://host/?sasl_username=me&sasl_mechanism=SCRAM-SHA-512",
            "SASL_SSL",
            "SCRAM-SHA-512",
        ),
        ("kafka://host/?security_protocol=ssl", "ssl", None),
    ],
)
def test_scheme_and_user_choose_the_security(
    url: str, protocol: str, mechanism: str | None
) -> None:
    options = KafkaAddress.parse(url).options
    assert options["security.protocol"] == protocol
    assert options.get("sasl.mechanism") == mechanism


def test_a_password_is_taken_as_meant_and_not_shown() -> None:
    address = KafkaAddress.parse("kafka://me:p%40ss%3Aword@host")
    assert address.options["sasl.password"] == "p@ss:word"
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://host", "kafka://host:port"),
        ("kafka://", "no Kafka server"),
        ("kafka://host:port", "no Kafka server"),
        ("kafka://host/topic", "nothing but options"),
        ("kafka://host/?acks=1", "option acks"),
        ("kafka://host/?enable_auto_commit=true", "option enable_auto_commit"),
        ("kafka://host/?group_id=g", "group="),
        ("kafka://host/?client_id=a&client_id=b", "twice"),
        ("kafkas://host/?security_protocol=PLAINTEXT", "means TLS"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        KafkaAddress.parse(url)


def test_an_option_that_librdkafka_does_not_know_is_refused_without_its_value() -> None:
    address = KafkaAddress.parse("kafka://host/?sasl_pasword=secret&sasl_username=me")
    with pytest.raises(ConfigurationError, match=r"sasl\.pasword") as raised:
        address.connect(Consumer, group_id="g")
    assert "secret" not in str(raised.value)


def test_every_partition_has_a_source_whose_numbers_fit_into_63_bits() -> None:
    assert source_number("traces", 0) == 0
    assert source_number("logs", 0) == 1 << 13
    assert source_number("metrics", 5) == 2 << 13 | 5
    assert first_number(source_number("metrics", (1 << 13) - 1) + 1) < 1 << 63
    with pytest.raises(ConfigurationError, match="at most 8192 partitions"):
        source_number("traces", 1 << 13)
