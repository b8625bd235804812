"""Where the topics are: one URL for the writer and the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import KafkaException

from llmobs.errors import ConfigurationError
from llmobs.records import Signal

__all__ = ["MAX_PARTITIONS", "KafkaAddress", "source_number"]

Client = TypeVar("Client")

# With two bits for the signal a source is below 2^15, so that a segment's number fits into a
# signed 64-bit integer, the only one that SQLite and many others have.
_PARTITION_BITS: Final = 13
MAX_PARTITIONS: Final = 1 << _PARTITION_BITS
_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")
# As the Collector's exporter names them by default, behind the prefix `otlp_`.
_TOPICS: Final[Mapping[Signal, str]] = {"traces": "spans", "logs": "logs", "metrics": "metrics"}

_CALLBACKS: Final = frozenset({"error_cb", "on_commit"})

# What the promises of the log hang on.
_OURS: Final = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "partition.assignment.strategy",
        "request.required.acks",
    }
)


def source_number(signal: Signal, partition: int) -> int:
    """Return the source that a partition is, in [0, 24576).

    Raises:
        ConfigurationError: The topic has too many partitions.
    """
    if partition >= MAX_PARTITIONS:
        raise ConfigurationError(
            f"partition {partition} of {signal} can't be numbered; "
            f"use topics with at most {MAX_PARTITIONS} partitions"
        )
    return _SIGNALS.index(signal) << _PARTITION_BITS | partition


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A Kafka cluster, the topics, and the consumer group of the workers.

    Attributes:
        servers: Bootstrap servers, ``host:port`` with commas between.
        options: Properties of librdkafka, secrets among them: never to be shown.
    """

    servers: str
    group: str
    prefix: str
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Read ``kafka://[user:password@]host[:port][,host[:port]…]/?option=value&…``.

        ``kafkas`` instead of ``kafka`` means TLS. A user, or any ``sasl_`` option, means SASL,
        with the mechanism PLAIN unless ``sasl_mechanism`` says otherwise. The options ``group``
        (default ``llmobs``) and ``prefix`` of the topics (``otlp_``) are ours; every other is a
        property of librdkafka, with ``_`` for a dot: ``session_timeout_ms=10000``.

        Raises:
            ConfigurationError: It can't be read so. Values of options are not repeated.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"kafka", "kafkas"}:
            raise ConfigurationError(
                f"a log in Kafka is named kafka://host:port or kafkas://host:port, "
                f"not {parts.scheme}://"
            )
        user_and_password, _, servers = parts.netloc.rpartition("@")
        if parts.path not in {"", "/"} or parts.fragment:
            raise ConfigurationError(
                f"nothing but options may follow {servers} in the Kafka URL: "
                f"kafka://{servers}/?prefix=otlp_"
            )
        options = _options(parts.query)
        group, prefix = options.pop("group", "llmobs"), options.pop("prefix", "otlp_")
        user, _, password = user_and_password.partition(":")
        if user:
            options["sasl.username"] = unquote(user)
            options["sasl.password"] = unquote(password)
        _secure(options, with_tls=parts.scheme == "kafkas")
        return cls(",".join(map(_server, servers.split(","))), group, prefix, options)

    def topics(self) -> Mapping[str, Signal]:
        """Return which topic holds which signal."""
        return {self.topic(signal): signal for signal in _SIGNALS}

    def topic(self, signal: Signal) -> str:
        """Return the topic of a signal."""
        return self.prefix + _TOPICS[signal]

    def connect(self, client: Callable[[dict[str, Any]], Client], **ours: object) -> Client:
        """Make a client of this cluster; no connection is made yet.

        Args:
            client: A class of confluent_kafka.
            ours: More properties, with ``_`` for a dot; the URL's own win.

        Raises:
            ConfigurationError: librdkafka doesn't know a property or its value.
        """
        config: dict[str, Any] = {
            "client.id": "llmobs",
            # librdkafka would write to stderr; what matters of it comes by error_cb.
            "log_level": 0,
            **{n if n in _CALLBACKS else _dotted(n): value for n, value in ours.items()},
            **self.options,
            "bootstrap.servers": self.servers,
        }
        try:
            return client(config)
        except KafkaException as error:
            reason = error.args[0].str()
            raise ConfigurationError(f"the Kafka URL has a wrong option: {reason}") from None


def _dotted(name: str) -> str:
    return name.replace("_", ".")


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        dotted = _dotted(name)
        if dotted in _OURS:
            raise ConfigurationError(
                f"the option {name} of the Kafka URL is not for choosing; leave it out"
                + ("; the consumer group is group=…" if dotted == "group.id" else "")
            )
        if dotted in options:
            raise ConfigurationError(
                f"the option {name} stands twice in the Kafka URL; say it once"
            )
        options[dotted] = value
    return options


def _secure(options: dict[str, str], *, with_tls: bool) -> None:
    """Fill in the security protocol that scheme, user and options ask for."""
    with_sasl = any(name.startswith("sasl.") for name in options)
    protocol = ("SASL_" if with_sasl else "") + ("SSL" if with_tls else "PLAINTEXT")
    said = options.setdefault("security.protocol", protocol)
    if with_tls and not said.upper().endswith("SSL"):
        raise ConfigurationError(
            f"kafkas:// means TLS, but the option security_protocol says {said}; drop one of them"
        )
    if with_sasl and not {"sasl.mechanism", "sasl.mechanisms"} & options.keys():
        options["sasl.mechanism"] = "PLAIN"


def _server(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, port = text, "9092"
    if not host or not port.isdecimal():
        raise ConfigurationError(
            f"{text!r} is no Kafka server; write host:port, with commas between several"
        )
    return f"{host}:{port}"
