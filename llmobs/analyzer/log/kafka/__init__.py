"""The log in Kafka: for more than one analyzer, with topics between the receivers and the workers.

Topics and records are those of the OpenTelemetry Collector's `kafka` exporter with encoding
`otlp_proto`: a record's value is one OTLP export request. Receivers of llmobs, Collectors and
anything else may write to them side by side.

What is promised:

1. A record is stored once. The place in a partition stands in the store, beside the data; a
   worker that is given a partition goes on there. What is committed to Kafka is for those who
   look at the lag, and may be wrong or missing.
2. A request is acknowledged when Kafka has it on all in-sync replicas. How much a power cut can
   take then is a matter of the topic: `replication.factor` 3 and `min.insync.replicas` 2.
3. Kafka forgets by time and size, not when llmobs has read: a worker that comes back after the
   topic's retention has lost records. It says so and counts them.
4. A worker that was frozen for longer than its session, in the middle of an insert, may finish
   it after another has taken over: those requests are then twice in the store (until their
   duplicates are dropped by trace and span). It says so and counts it.
"""

from llmobs.errors import ConfigurationError

try:
    from llmobs.analyzer.log.kafka.reader import KafkaLogReader
    from llmobs.analyzer.log.kafka.writer import KafkaLogWriter
except ImportError as error:
    if error.name != "confluent_kafka":
        raise
    raise ConfigurationError(
        "a log in Kafka needs one more package; pip install llmobs[kafka]"
    ) from error

__all__ = ["KafkaLogReader", "KafkaLogWriter"]
