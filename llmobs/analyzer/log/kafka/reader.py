"""The engine's end of the log in Kafka: a member of a consumer group."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from llmobs.analyzer.log.aside import Aside
from llmobs.analyzer.log.kafka.address import KafkaAddress, source_number
from llmobs.analyzer.log.kafka.outage import Outage
from llmobs.analyzer.log.kafka.shelf import Shelf
from llmobs.errors import LlmobsError
from llmobs.records import Segment, first_number

__all__ = ["KafkaLogReader"]

logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")

# How long one look for a record takes: segments are sealed for their age no later than this.
_POLL_S: Final = 0.05
_COMMIT_EVERY_S: Final = 1.0
_LOOK_EVERY_S: Final = 5.0  # at the lag, and at partitions that could not begin
_REJOIN_AFTER_S: Final = 2.0
_ASK_TIMEOUT_S: Final = 5.0


class KafkaLogReader:
    """Reads the partitions that the group gives it; a `LogReader`.

    One thread of its own talks to Kafka; any thread may call the methods. Segments are read by
    one thread, one after the other.
    """

    def __init__(
        self,
        url: str,
        *,
        resume: Callable[[int], int],
        aside: Path,
        segment_bytes: int = 4 << 20,
        segment_age_s: float = 0.5,
        max_waiting_bytes: int = 128 << 20,
        handover_s: float = 30.0,
        max_aside_bytes: int = 256 << 20,
    ) -> None:
        """Join the group.

        Args:
            url: As `KafkaAddress.parse` reads it.
            resume: Says for a source at which number to go on: `first_number` of the source
                when nothing of it is stored. It may raise, and is asked again later.
            aside: For requests that can't be stored, to be looked at by a person.
            segment_bytes: A segment is sealed before it would grow larger; a record that is
                larger makes one of its own.
            segment_age_s: A segment is sealed so long after its first record was taken, or
                later while the engine is behind.
            max_waiting_bytes: Records that may wait in memory, over all partitions; each may
                have its share, and no more is taken from one that has.
            handover_s: How long a partition that goes to another member is held for the
                segment that is being stored. Less than Kafka's ``max.poll.interval.ms``.
            max_aside_bytes: Size of all that is set aside; what comes after is only counted.

        Raises:
            ConfigurationError: The URL is wrong, or the directory can't be made.
        """
        self._address = KafkaAddress.parse(url)
        self._signals = self._address.topics()
        self._resume = resume
        self._aside = Aside(aside, max_bytes=max_aside_bytes)
        self._max_waiting_bytes = max_waiting_bytes
        self._handover_s = handover_s

        self._shelf = Shelf(
            segment_bytes=segment_bytes, segment_age_s=segment_age_s, max_bytes=max_waiting_bytes
        )
        self._outage = Outage(self._address.servers, next(iter(self._signals)))
        self._closing = threading.Event()

        # What follows is changed by the thread that talks to Kafka alone. Others read it, so
        # that a mapping is replaced and never changed.
        self._places: Mapping[int, TopicPartition] = {}  # all that the group gave, by source
        self._held: Mapping[int, str] = {}  # of these, what can't be read, with the reason
        self._ends: Mapping[int, int] = {}  # offset behind the last record in Kafka
        self._paused: frozenset[int] = frozenset()
        self._committed: Mapping[int, int] = {}
        self._commit_at = self._look_at = 0.0
        self._fatal: KafkaError | None = None
        self._n_rebalances = self._n_lost = self._n_expired = 0

        self._thread = threading.Thread(
            target=self._run, args=(self._consumer(),), name="llmobs-kafka", daemon=True
        )
        self._thread.start()

    def sources(self) -> Collection[int]:
        """Return the sources that the group gave to this member."""
        return tuple(self._places)

    def sealed(self) -> Sequence[int]:
        """Return the numbers of the sealed segments, the next to store first.

        Partitions take turns: the one that was served last comes last.
        """
        return self._shelf.sealed()

    def wait(self, timeout_s: float) -> None:
        """Return when there is a segment that the last `sealed()` did not return.

        Returns after `timeout_s` at the latest.
        """
        self._shelf.wait(timeout_s)

    def read(self, number: int) -> Segment:
        """Return one sealed segment.

        Raises:
            FileNotFoundError: It was removed, or its partition went to another member.
        """
        return self._shelf.read(number)

    def set_aside(self, number: int, index: int, reason: str) -> None:
        """Keep request `index` of a segment in a file of its own, for a person to look at.

        Raises:
            FileNotFoundError: The segment is no longer here.
            OSError: The disk refuses; the segment should not be removed then.
        """
        self._aside.keep_request(number, index, self.read(number).requests[index], reason)

    def remove(self, number: int) -> None:
        """Forget a segment: its content is stored elsewhere, durably."""
        self._shelf.remove(number)

    def problem(self) -> str | None:
        """Say why records are not read now; None when they are."""
        return self._outage.reason or next(iter(self._held.values()), None)

    def lag(self) -> Mapping[int, int]:
        """Return for each source how many records in Kafka are not stored, a few seconds ago."""
        ends = self._ends
        return {s: max(0, ends[s] - n) for s, n in self._shelf.stored().items() if s in ends}

    def stats(self) -> dict[str, float]:
        """Return counters since the start and gauges of now.

        ``n_records`` and ``n_bytes`` taken; ``n_rebalances`` in which partitions came or went,
        ``n_lost`` partitions went without a handover, ``n_late`` segments were stored after
        that; ``n_expired`` records were gone from Kafka before they were read;
        ``n_outages`` of the cluster; ``n_set_aside`` and ``n_aside_dropped`` requests; gauges:
        ``is_connected``, ``n_partitions``, ``n_held`` of these that can't be read,
        ``n_paused``, ``n_segments`` that wait, ``waiting_bytes``, ``oldest_segment_age_s``,
        ``lag_records`` in all, ``bytes_aside``.
        """
        return {
            **self._aside.stats(),
            **self._shelf.stats(),
            "n_rebalances": self._n_rebalances,
            "n_lost": self._n_lost,
            "n_expired": self._n_expired,
            "n_outages": self._outage.n_outages,
            "is_connected": float(self._outage.reason is None),
            "n_partitions": len(self._places),
            "n_held": len(self._held),
            "n_paused": len(self._paused),
            "lag_records": sum(self.lag().values()),
        }

    def close(self) -> None:
        """Commit what is stored and leave the group; may be called twice.

        Nobody should be storing a segment any more: it is not waited for.
        """
        self._closing.set()
        self._shelf.stop()
        self._thread.join()

    # On the thread.

    def _run(self, consumer: Consumer | None) -> None:
        while not self._closing.is_set():
            try:
                # Closing hands over what there is.
                with contextlib.closing(consumer or self._consumer()) as member:
                    self._consume(member)
            except Exception:  # librdkafka gave up: only a new member of the group is sane again
                logger.exception("left the group")
            consumer = None
            self._forget(list(self._places))
            self._closing.wait(_REJOIN_AFTER_S)

    def _consumer(self) -> Consumer:
        self._fatal = None
        return self._address.connect(
            Consumer,
            error_cb=self._on_error,
            on_commit=self._on_commit,
            group_id=self._address.group,
            partition_assignment_strategy="cooperative-sticky",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",  # where to begin is not Kafka's to say
            allow_auto_create_topics=False,
            topic_metadata_refresh_interval_ms=30_000,  # how soon a new topic is found
            # How long a partition that is resumed waits: for the fetch at hand, and for the queue.
            fetch_wait_max_ms=100,
            fetch_queue_backoff_ms=50,
            queued_max_messages_kbytes=max(1, self._max_waiting_bytes >> 12),  # a quarter
        )

    def _consume(self, consumer: Consumer) -> None:
        consumer.subscribe(
            list(self._signals),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        tend_at = 0.0
        while not self._closing.is_set():
            message = consumer.poll(_POLL_S)
            if message is not None:
                self._take(consumer, message)
            if self._fatal is not None:
                raise KafkaException(self._fatal)
            if time.monotonic() >= tend_at:
                self._tend(consumer)
                tend_at = time.monotonic() + _POLL_S

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        self._outage.suspect(error)

    def _take(self, consumer: Consumer, message: Message) -> None:
        if (error := message.error()) is not None:
            self._take_error(consumer, message, error)
            return
        topic, number, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and number is not None and offset is not None
        source = source_number(self._signals[topic], number)
        request = message.value() or b""  # a tombstone; an empty request holds nothing
        if self._shelf.add(source, offset, request) and source not in self._paused:
            consumer.pause([self._places[source]])
            self._paused |= {source}

    def _take_error(self, consumer: Consumer, message: Message, error: KafkaError) -> None:
        topic, number = message.topic(), message.partition()
        if error.code() == KafkaError._AUTO_OFFSET_RESET and topic is not None:
            assert number is not None
            source = source_number(self._signals[topic], number)
            if source in self._places:
                self._held = {**self._held, source: f"the place in {topic}/{number} is gone"}
            self._look_at = 0.0
            return
        logger.warning("kafka error", extra={"topic": topic, "reason": error.str()})

    def _tend(self, consumer: Consumer) -> None:
        now = time.monotonic()
        self._outage.check(consumer)
        self._shelf.seal_due()
        if ready := self._shelf.with_room(self._paused):
            consumer.resume([self._places[source] for source in ready])
            self._paused -= ready
        if now >= self._commit_at:
            self._commit(consumer)
            self._commit_at = now + _COMMIT_EVERY_S
        if now >= self._look_at and self._outage.reason is None:
            self._begin_held(consumer)
            self._measure(consumer)
            self._look_at = time.monotonic() + _LOOK_EVERY_S

    def _measure(self, consumer: Consumer) -> None:
        """Look where the partitions end; fetching tells it of those that are not paused."""
        for source, place in self._places.items():
            is_fetched = source not in self._paused and source not in self._held
            try:
                marks = consumer.get_watermark_offsets(
                    place, timeout=_ASK_TIMEOUT_S, cached=is_fetched
                )
            except KafkaException:  # it will be heard of from `error_cb`
                return
            if marks and marks[1] >= 0:
                self._ends = {**self._ends, source: marks[1]}

    # Where to begin.

    def _begin(self, consumer: Consumer, sources: Collection[int]) -> dict[int, int]:
        """Return at which offset each of `sources` begins; those that can't are held."""
        starts: dict[int, int] = {}
        for source in sources:
            try:
                starts[source] = self._start(consumer, source)
            except Exception as error:  # of the store's or of librdkafka's making
                self._hold(source, str(error))
                continue
            signal = self._signals[self._places[source].topic]
            self._shelf.begin(source, signal, starts[source])
            self._held = _without(self._held, [source])
        return starts

    def _start(self, consumer: Consumer, source: int) -> int:
        place = self._places[source]
        wanted = self._shelf.next_offset(source)
        is_known = wanted is not None
        if wanted is None:
            wanted = self._resume(source) - first_number(source)
            is_known = wanted > 0  # the store has some of it
        marks = consumer.get_watermark_offsets(place, timeout=_ASK_TIMEOUT_S)
        if not marks:
            raise LlmobsError(f"the leader of {place.topic}/{place.partition} does not answer")
        low, end = marks
        if wanted > end:
            raise LlmobsError(
                f"{place.topic}/{place.partition} ends at offset {end}, but all before {wanted} is "
                "stored: the topic was made anew or cut; use topics with another prefix"
            )
        self._ends = {**self._ends, source: end}
        if wanted >= low:
            return wanted
        if is_known:
            self._n_expired += low - wanted
            logger.error(
                "records expired before they were read",
                extra={
                    "topic": place.topic,
                    "partition": place.partition,
                    "n_records": low - wanted,
                    "offset": wanted,
                },
            )
        return low

    def _hold(self, source: int, reason: str) -> None:
        place = self._places[source]
        is_news = self._held.get(source) != reason
        self._held = {**self._held, source: reason}
        if is_news:
            logger.error(
                "partition not read",
                extra={"topic": place.topic, "partition": place.partition, "reason": reason},
            )

    def _begin_held(self, consumer: Consumer) -> None:
        if not self._held:
            return
        starts = self._begin(consumer, list(self._held))
        if starts:
            self._unassign(consumer, [self._places[source] for source in starts])
            consumer.incremental_assign([self._at(source, starts[source]) for source in starts])
            self._paused -= starts.keys()

    def _at(self, source: int, offset: int) -> TopicPartition:
        place = self._places[source]
        return TopicPartition(place.topic, place.partition, offset)

    # What the group gives and takes; called by librdkafka on the thread.

    def _on_assign(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        places = {self._source(place): place for place in given}
        self._places = {**self._places, **places}
        self._n_rebalances += bool(given)
        starts = self._begin(consumer, places)
        consumer.incremental_assign([self._at(s, starts.get(s, OFFSET_END)) for s in places])
        if held := [place for source, place in places.items() if source not in starts]:
            consumer.pause(held)
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def _on_revoke(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        """Let the segments that are being stored finish, then commit and let go."""
        sources = [self._source(place) for place in taken]
        self._n_rebalances += bool(taken)
        if n_unsettled := self._shelf.leave(sources, self._handover_s):
            self._n_lost += n_unsettled
            logger.warning("partition left while a segment was stored", extra={"sources": sources})
        self._commit(consumer)
        self._forget(sources)
        self._unassign(consumer, taken)

    def _on_lost(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        """Drop what others may have by now."""
        sources = [self._source(place) for place in taken]
        self._n_rebalances += bool(taken)
        self._n_lost += len(taken)
        logger.warning("partitions lost", extra={"sources": sources})
        self._forget(sources)
        self._unassign(consumer, taken)

    @staticmethod
    def _unassign(consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.resume(places)  # else one that comes back is still paused
        consumer.incremental_unassign(places)

    def _source(self, place: TopicPartition) -> int:
        return source_number(self._signals[place.topic], place.partition)

    def _forget(self, sources: Collection[int]) -> None:
        self._shelf.drop(sources)
        self._places = _without(self._places, sources)
        self._held = _without(self._held, sources)
        self._ends = _without(self._ends, sources)
        self._committed = _without(self._committed, sources)
        self._paused -= set(sources)

    def _commit(self, consumer: Consumer) -> None:
        """Tell Kafka what is stored, for those who look at the lag."""
        stored = self._shelf.stored()
        fresh = {s: offset for s, offset in stored.items() if self._committed.get(s) != offset}
        if not fresh:
            return
        try:
            consumer.commit(offsets=[self._at(s, offset) for s, offset in fresh.items()])
        except KafkaException as error:
            logger.info("commit failed", extra={"reason": str(error)})
        else:
            self._committed = {**self._committed, **fresh}

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        if error is not None:
            # Once more, soon.
            self._committed = _without(self._committed, [self._source(p) for p in places])


def _without(mapping: Mapping[int, _Value], sources: Collection[int]) -> dict[int, _Value]:
    return {source: value for source, value in mapping.items() if source not in sources}
