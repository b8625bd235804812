"""How much of what was sent has come in, from the numbers that producers give their spans.

The SDK numbers the spans of a process from 0 without a hole, and a span that it drops keeps its
number. So a number that does not come is a span that was lost: in a full queue, on the network,
in a Collector. Spans that a sampler left out have no number. Nobody knows of what a process had
not sent when it was killed and sent nothing after.

Numbers that came twice, late or again after a restart change nothing: what counts is which ones
have come, kept as the gaps between them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.errors import ConfigurationError
from llmobs.measures.drift import Tree, pack, unpack
from llmobs.records import Seen, SpanBatch

__all__ = ["GRACE_S", "OTHER_SERVICE", "Completeness"]

GRACE_S: Final = 300.0
"""A Collector sends a batch that failed again for so long by default, and others overtake it."""

OTHER_SERVICE: Final = "(other)"
"""Where the numbers of services beyond `MAX_SERVICES` are counted together."""
MAX_SERVICES: Final = 1000
MAX_PROCESSES: Final = 10_000
MAX_GAPS: Final = 16_384
"""Of one process, 32 bytes each. Spans that come by several partitions make many for a moment."""

# The ratio is of the last day, hour by hour: an incident shows for a day and is then over.
_HOUR_NS: Final = 3_600_000_000_000
_WINDOW_HOURS: Final = 24
_FORGET_NS: Final = 7 * 24 * _HOUR_NS
_SETTLE_EVERY_NS: Final = 1_000_000_000
# A sender is not to be trusted: a larger step forward is no loss, but a number made up.
_MAX_LEAP: Final = 100_000_000
_MAX_ID_CHARS: Final = 64
# Of the layout of the state.
_VERSION: Final = 1

_Ints: TypeAlias = npt.NDArray[np.int64]
_Mask: TypeAlias = npt.NDArray[np.bool_]
_ProcessKey: TypeAlias = tuple[str, str]  # (service, llmobs.process.id)


class _Gaps(NamedTuple):
    """Numbers that have not come: disjoint ranges in ascending order, none of them empty."""

    begins: _Ints
    ends: _Ints  # exclusive
    noticed_ns: _Ints
    kinds: _Ints  # one of the three below

    def where(self, rows: _Mask) -> _Gaps:
        return _Gaps(*(column[rows] for column in self))

    def plus(self, begins: _Ints, ends: _Ints, noticed_ns: int, kind: int) -> _Gaps:
        """Add gaps that lie behind all others."""
        new = (begins, ends, np.full(len(begins), noticed_ns), np.full(len(begins), kind))
        return _Gaps(*map(np.concatenate, zip(self, new, strict=True)))

    def without(self, numbers: _Ints) -> tuple[_Gaps, _Ints]:
        """Take numbers (ascending) out, and return in which gap each of those taken lay."""
        if not len(self.begins):
            return self, np.zeros(0, np.int64)
        where = np.searchsorted(self.begins, numbers, side="right") - 1
        inside = (where >= 0) & (numbers < self.ends[where])
        numbers, where = numbers[inside], where[inside]
        # A number splits its gap: it ends one part, and the next begins behind it.
        owners = np.concatenate([np.arange(len(self.begins)), where])
        begins = np.concatenate([self.begins, numbers + 1])
        order = np.argsort(begins, kind="stable")
        owners = owners[order]
        ends = np.sort(np.concatenate([self.ends, numbers]))
        left = _Gaps(begins[order], ends, self.noticed_ns[owners], self.kinds[owners])
        return left.where(left.begins < left.ends), where


_OPEN: Final = 0  # may be filled still
_MISSING: Final = 1  # was counted
_BEFORE: Final = 2  # was perhaps sent before this analyzer was there: is never counted
_NO_GAPS: Final = _Gaps(*(np.zeros(0, np.int64) for _ in range(4)))


@dataclass(slots=True)
class _Process:
    """Numbers of one process: all below `next_number` have come, but for the gaps."""

    counted_as: str  # name of its service among those that are counted
    next_number: int = 0
    last_ns: int = 0
    gaps: _Gaps = _NO_GAPS


@dataclass(slots=True)
class _Service:
    """What came and what is missing, by hour since 1970, and all that was ever missing."""

    seen: Counter[int] = field(default_factory=Counter)
    missing: Counter[int] = field(default_factory=Counter)
    n_missing: int = 0


class Completeness:
    """Which numbers of which process have come.

    Args:
        grace_s: A gap counts when it is still there so long after it was noticed, and all that
            is stored has been read.
    """

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._grace_ns = round(grace_s * 1e9)
        self._processes: dict[_ProcessKey, _Process] = {}
        self._services: dict[str, _Service] = {}
        self._since_ns: int | None = None
        self._settled_ns = 0

    def observe(self, spans: SpanBatch, *, now_ns: int) -> None:
        """Note which numbers came; spans may come in any order and several times."""
        if self._since_ns is None:
            self._since_ns = now_ns
        for key, numbers, newest_ns in _numbers(spans):
            process = self._processes.pop(key, None)
            if process is None:
                if newest_ns < now_ns - _WINDOW_HOURS * _HOUR_NS:
                    continue  # recorded long ago and sent again: its other spans may be elsewhere
                process = self._new(key[0], int(numbers[0]), now_ns)
            self._processes[key] = process  # the one that was silent for longest comes first
            process.last_ns = now_ns
            self._note(process, numbers, now_ns)

    def settle(self, now_ns: int) -> None:
        """Count gaps that were there for too long. Call it when all that is stored was read."""
        if 0 <= now_ns - self._settled_ns < _SETTLE_EVERY_NS:
            return
        self._settled_ns = now_ns
        oldest = now_ns // _HOUR_NS - _WINDOW_HOURS
        for key, process in list(self._processes.items()):
            gaps = process.gaps
            if len(gaps.begins):
                # A clock that was set back is not waited for.
                gaps = gaps._replace(noticed_ns=np.minimum(gaps.noticed_ns, now_ns))
                is_due = gaps.noticed_ns <= now_ns - self._grace_ns
                gaps = _counted(gaps, is_due, self._services[process.counted_as])
                is_over = gaps.noticed_ns // _HOUR_NS <= oldest
                process.gaps = gaps.where((gaps.kinds == _OPEN) | ~is_over)
            elif now_ns - process.last_ns > _FORGET_NS:
                del self._processes[key]
        living = {process.counted_as for process in self._processes.values()}
        for name, service in list(self._services.items()):
            for hours in (service.seen, service.missing):
                for hour in [hour for hour in hours if hour <= oldest]:
                    del hours[hour]
            if name not in living and not service.seen and not service.missing:
                del self._services[name]

    def by_service(self) -> dict[str, Seen]:
        """Return how complete each service is; one without numbers is not among them."""
        return {name: _seen(service) for name, service in self._services.items()}

    def to_state(self) -> bytes:
        """Return the whole state as bytes."""
        names = list(self._services)
        place = {name: i for i, name in enumerate(names)}
        processes = self._processes.values()
        columns = zip(*(process.gaps for process in processes), strict=True)
        gaps = _Gaps(*map(np.concatenate, columns)) if processes else _NO_GAPS
        return pack(
            {
                "version": _VERSION,
                "since_ns": self._since_ns,
                "services": [
                    [name, one.n_missing, _pairs(one.seen), _pairs(one.missing)]
                    for name, one in self._services.items()
                ],
                "processes": [
                    [service, process_id, place[process.counted_as]]
                    for (service, process_id), process in self._processes.items()
                ],
                "next_numbers": np.array([one.next_number for one in processes], np.int64),
                "last_ns": np.array([one.last_ns for one in processes], np.int64),
                "n_gaps": np.array([len(one.gaps.begins) for one in processes], np.int64),
                "gaps": dict(zip(_Gaps._fields, gaps, strict=True)),
            }
        )

    @classmethod
    def from_state(cls, state: bytes, *, now_ns: int, grace_s: float = GRACE_S) -> Completeness:
        """Go on where `to_state` was called.

        What came meanwhile was not read yet, so open gaps have their time of grace again.

        Raises:
            ConfigurationError: The bytes are no state, are damaged, or were written by another
                version of llmobs.
        """
        completeness = cls(grace_s=grace_s)
        try:
            completeness._restore(unpack(state), now_ns)
        except Exception as error:  # whatever bytes lie there, they must not stop the engine
            raise ConfigurationError(
                f"the state of completeness can't be read ({type(error).__name__}: {error}): "
                "start without it"
            ) from error
        return completeness

    def _restore(self, tree: Tree, now_ns: int) -> None:
        if tree["version"] != _VERSION:
            raise ValueError(f"its version is {tree['version']!r}, not {_VERSION}")
        self._since_ns = tree["since_ns"]
        for name, n_missing, seen, missing in tree["services"]:
            self._services[name] = _Service(Counter(dict(seen)), Counter(dict(missing)), n_missing)
        names = list(self._services)
        gaps = _Gaps(**tree["gaps"])
        is_open = gaps.kinds == _OPEN
        gaps = gaps._replace(noticed_ns=np.where(is_open, now_ns, gaps.noticed_ns))
        columns = (tree[name].tolist() for name in ("next_numbers", "last_ns", "n_gaps"))
        begin = 0
        for (service, process_id, place), next_number, last_ns, n_gaps in zip(
            tree["processes"], *columns, strict=True
        ):
            part = _Gaps(*(column[begin : begin + n_gaps] for column in gaps))
            begin += n_gaps
            process = _Process(names[place], next_number, last_ns, part)
            self._processes[service, process_id] = process

    def _new(self, service: str, first: int, now_ns: int) -> _Process:
        """Make the state of a process that began with that number; another may have to go."""
        if len(self._processes) >= MAX_PROCESSES:
            silent = self._processes.pop(next(iter(self._processes)))
            are_due = np.ones(len(silent.gaps.begins), np.bool_)
            _counted(silent.gaps, are_due, self._services[silent.counted_as])
        if service not in self._services and len(self._services) >= MAX_SERVICES:
            service = OTHER_SERVICE
        self._services.setdefault(service, _Service())
        assert self._since_ns is not None
        if not first or now_ns - self._since_ns >= self._grace_ns:
            return _Process(service)
        # It was perhaps there before this analyzer.
        gap = np.array([0]), np.array([first])
        return _Process(service, first, now_ns, _NO_GAPS.plus(*gap, now_ns, _BEFORE))

    def _note(self, process: _Process, numbers: _Ints, now_ns: int) -> None:
        service = self._services[process.counted_as]
        n, expected = len(numbers), process.next_number
        hour = now_ns // _HOUR_NS
        if numbers[0] == expected and numbers[-1] == expected + n - 1:  # nearly always
            process.next_number = expected + n
            service.seen[hour] += n
            return
        begin = int(np.searchsorted(numbers, expected))
        if begin:
            _fill(process, service, numbers[:begin])
        numbers = numbers[begin:]
        numbers = numbers[numbers <= expected + _MAX_LEAP]
        if not len(numbers):
            return
        begins = np.concatenate([[expected], numbers[:-1] + 1])
        is_gap = begins < numbers
        gaps = process.gaps.plus(begins[is_gap], numbers[is_gap], now_ns, _OPEN)
        if (n_excess := len(gaps.begins) - MAX_GAPS) > 0:
            is_excess = np.arange(len(gaps.begins)) < n_excess
            gaps = _counted(gaps, is_excess, service).where(~is_excess)
        process.gaps = gaps
        process.next_number = int(numbers[-1]) + 1
        service.seen[hour] += len(numbers)


def _counted(gaps: _Gaps, is_due: _Mask, service: _Service) -> _Gaps:
    """Count those of the open gaps that are due as missing."""
    is_new = is_due & (gaps.kinds == _OPEN)
    if not is_new.any():
        return gaps
    new = gaps.where(is_new)
    for hour, length in zip(
        (new.noticed_ns // _HOUR_NS).tolist(), (new.ends - new.begins).tolist(), strict=True
    ):
        service.missing[hour] += length
        service.n_missing += length
    return gaps._replace(kinds=np.where(is_new, _MISSING, gaps.kinds))


def _fill(process: _Process, service: _Service, numbers: _Ints) -> None:
    """Take late numbers out of the gaps; what was counted as missing has come after all."""
    gaps = process.gaps
    process.gaps, where = gaps.without(numbers)
    hours = (gaps.noticed_ns[where] // _HOUR_NS).tolist()
    service.seen.update(hours)
    service.missing.subtract(
        hour
        for hour, kind in zip(hours, gaps.kinds[where].tolist(), strict=True)
        if kind == _MISSING
    )


def _seen(service: _Service) -> Seen:
    seen, missing = service.seen.total(), max(0, service.missing.total())
    ratio = seen / (seen + missing) if seen + missing else math.nan
    return Seen(ratio, service.n_missing)


def _pairs(hours: Counter[int]) -> list[list[int]]:
    return [list(pair) for pair in sorted(hours.items())]


def _numbers(spans: SpanBatch) -> Iterator[tuple[_ProcessKey, _Ints, int]]:
    """Yield each process of a batch with its numbers, ascending, and the end of its newest span."""
    table = spans.table
    said = _attribute(table.column("attributes_n"), semconv.LLMOBS_SEQUENCE)
    sent = said.to_numpy(zero_copy_only=False).astype(np.float64)
    ids = _attribute(table.column("attributes_s"), semconv.LLMOBS_PROCESS_ID)
    length = pc.fill_null(pc.utf8_length(ids), 0).to_numpy(zero_copy_only=False)
    is_number = (sent >= 0) & (sent < 2**53) & (np.floor(sent) == sent)  # NaN is none of it
    rows = np.flatnonzero(is_number & (length > 0) & (length <= _MAX_ID_CHARS))
    if not len(rows):
        return
    service_names, services = _encoded(table.column("service"), rows)
    process_ids, processes = _encoded(ids, rows)
    keys = services * len(process_ids) + processes
    numbers = sent[rows].astype(np.int64)
    ends_ns = (spans.ints("ts_ns") + spans.ints("duration_ns"))[rows]
    order = np.lexsort((numbers, keys))
    keys, numbers, ends_ns = keys[order], numbers[order], ends_ns[order]
    is_first = np.diff(keys, prepend=-1) != 0
    is_new = is_first | (np.diff(numbers, prepend=-1) != 0)
    keys, numbers, ends_ns = keys[is_new], numbers[is_new], ends_ns[is_new]
    starts = np.flatnonzero(is_first[is_new])
    newest_ns = np.maximum.reduceat(ends_ns, starts).tolist()
    ends = [*starts[1:].tolist(), len(keys)]
    for key, start, end, newest in zip(
        keys[starts].tolist(), starts.tolist(), ends, newest_ns, strict=True
    ):
        service, process = divmod(key, len(process_ids))
        yield (service_names[service], process_ids[process]), numbers[start:end], newest


def _attribute(column: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    """Return an attribute of each span, null where it has none."""
    return pa.chunked_array(
        [_of_chunk(chunk, key) for chunk in column.chunks], column.type.item_type
    )


def _of_chunk(chunk: pa.MapArray, key: str) -> pa.Array:
    # A tenth of the time of pc.map_lookup, which looks at one map after the other.
    at = np.flatnonzero(pc.equal(chunk.keys, key).to_numpy(zero_copy_only=False))
    rows = np.searchsorted(chunk.offsets.to_numpy(), at, side="right") - 1
    is_inside = (rows >= 0) & (rows < len(chunk))  # a slice's keys are those of the whole
    found = np.full(len(chunk), -1, np.int64)
    found[rows[is_inside]] = at[is_inside]
    return chunk.items.take(pa.array(found, mask=found < 0))


def _encoded(column: pa.ChunkedArray, rows: _Ints) -> tuple[list[str], _Ints]:
    """Return the distinct values of some rows, and which one each row has."""
    encoded = pa.concat_arrays(column.take(pa.array(rows)).chunks).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), codes
