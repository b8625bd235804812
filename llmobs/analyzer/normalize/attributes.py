"""The attributes of one part, by key: columns are gathered without a Python object per value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs.analyzer.normalize.mapping import Source
from llmobs.records import (
    OWNER_RESOURCE,
    OWNER_SCOPE,
    OWNER_SPAN,
    RAW_ATTRIBUTE_SCHEMA,
    VALUE_BOOL,
    VALUE_DOUBLE,
    VALUE_INT,
    VALUE_STRING,
    VALUE_UNSET,
    FloatArray,
    RawPart,
)

__all__ = ["Attributes", "Extra", "text_array"]

Rows = npt.NDArray[np.int64]
_NONE = np.empty(0, np.int64)

_MAX_INHERITED_BYTES: Final = 256 << 20
"""What spans of a part may inherit in all. The product of two numbers that a sender chooses, spans
and attributes of their resource, would know no other limit; ten times what is usual is 100 KiB."""
_ROW_BYTES: Final = 24  # offsets, numbers, indices
Mask = npt.NDArray[np.bool_]


class Extra(NamedTuple):
    """A text attribute that a span gets from elsewhere (its events); its own one wins."""

    span: int
    key: str
    text: str


class Attributes:
    """Attributes of the spans of one part.

    Rows are those of `RawPart.attributes`, with extras after them. A row that has filled a
    column is *used*; the others end in the two maps.
    """

    def __init__(self, part: RawPart, extras: Sequence[Extra] = ()) -> None:
        names = part.keys.to_pylist()
        batch = part.attributes
        if extras:
            number_of = {name: i for i, name in enumerate(names)}
            for extra in extras:
                number_of.setdefault(extra.key, len(number_of))
            names = list(number_of)
            batch = _with_extras(batch, extras, number_of)
        self.n_spans = part.spans.num_rows
        self.names: list[str] = names
        self.number_of = {name: i for i, name in enumerate(names)}
        self.has_extras = bool(extras)
        self._owner_kind, self._owner, self._key, self._kind, self._number = (
            batch.column(name).to_numpy() for name in RAW_ATTRIBUTE_SCHEMA.names[:-1]
        )
        self._text: pa.StringArray = batch.column("text")
        self._used = np.zeros(len(self._key), np.bool_)
        # Rows of spans, by key: those of key k are self._by_key[starts[k] : starts[k + 1]].
        self._own = np.flatnonzero(self._owner_kind == OWNER_SPAN)
        said = self._own[self._kind[self._own] != VALUE_UNSET]
        keys = self._key[said]
        # 16 bits sort by radix, four times as fast.
        small = keys.astype(np.uint16) if len(names) < 1 << 16 else keys
        self._by_key: Rows = said[np.argsort(small, kind="stable")]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=len(names)))])

    def rows_of(self, key: str) -> Rows:
        """Return the rows of spans that have a key."""
        number = self.number_of.get(key)
        start, end = (0, 0) if number is None else self._starts[number : number + 2]
        rows: Rows = self._by_key[start:end]
        return rows

    def owners(self, rows: Rows) -> Rows:
        """Return which span each row belongs to."""
        owners: Rows = self._owner[rows]
        return owners

    def has_any(self, sources: Iterable[Source]) -> bool:
        """Tell whether anything in the part has one of some attributes: most are of others."""
        return any(source.key in self.number_of for source in sources)

    def starting_with(self, prefixes: tuple[str, ...]) -> list[str]:
        """Return the keys that begin with one of some prefixes."""
        return [name for name in self.names if name.startswith(prefixes)]

    def first(
        self,
        sources: Sequence[Source],
        dialects: npt.NDArray[np.uint8],
        roots: Mask | None = None,
    ) -> tuple[Rows, npt.NDArray[np.int8]]:
        """Find for each span the first of some attributes that it has.

        Args:
            sources: In order of preference.
            dialects: Producer of each span.
            roots: Which spans are the outermost of their trace; None: not asked for.

        Returns:
            The row of each span, -1 where it has none, and the place of the source.
        """
        found = np.full(self.n_spans, -1, np.int64)
        place = np.full(self.n_spans, -1, np.int8)
        for i in range(len(sources) - 1, -1, -1):
            source = sources[i]
            if source.key not in self.number_of:
                continue
            rows = self.rows_of(source.key)
            # Where an extra repeats a span's own key, the own one, which comes first, stays.
            rows = rows[::-1] if self.has_extras else rows
            spans = self._owner[rows]
            if source.of is not None:
                meant = dialects[spans] == source.of
                rows, spans = rows[meant], spans[meant]
            if source.at_root and roots is not None:
                rows, spans = rows[roots[spans]], spans[roots[spans]]
            found[spans] = rows
            place[spans] = i
        return found, place

    def use(self, rows: Rows) -> None:
        """Leave rows out of the maps; -1 is no row."""
        self._used[rows[rows >= 0]] = True

    def use_keys(self, keys: Iterable[str]) -> None:
        """Leave all rows of some keys out of the maps."""
        for key in keys:
            self._used[self.rows_of(key)] = True

    def texts_in_place(self, rows: Rows) -> tuple[pa.StringArray, Rows]:
        """Return texts, and which of them is that of each row: no copy unless one is a number.

        -1 stays where the row is -1.
        """
        held = rows >= 0
        if not self._is_number[rows[held]].any():
            return self._text, rows
        return self.texts(rows), np.where(held, np.arange(len(rows)), -1)

    def texts(self, rows: Rows) -> pa.StringArray:
        """Return values as text, "" where the row is -1."""
        missing = rows < 0
        if missing.all():
            return pa.repeat("", len(rows))
        taken = self._text.take(pa.array(np.where(missing, 0, rows), mask=missing))
        taken = pc.fill_null(taken, "") if missing.any() else taken
        numeric = np.flatnonzero(~missing & self._is_number[np.where(missing, 0, rows)])
        if not len(numeric):
            return taken
        values = taken.to_pylist()
        for i in numeric.tolist():
            values[i] = self._number_text(int(rows[i]))
        return pa.array(values, pa.string())

    def text(self, row: int) -> str:
        """Return one value as text."""
        return self._number_text(row) if self._is_number[row] else self._text[row].as_py()

    def numbers(self, rows: Rows) -> FloatArray:
        """Return values as numbers; NaN where the row is -1 or holds none."""
        out = np.full(len(rows), np.nan)
        held = np.flatnonzero(rows >= 0)
        kinds = self._kind[rows[held]]
        ints = held[(kinds == VALUE_INT) | (kinds == VALUE_BOOL)]
        out[ints] = self._number[rows[ints]]
        doubles = held[kinds == VALUE_DOUBLE]
        out[doubles] = self._number[rows[doubles]].view(np.float64)
        for i in held[kinds == VALUE_STRING].tolist():
            out[i] = _float(self._text[int(rows[i])].as_py())
        return out

    def of_resource(self, keys: Sequence[str], resources: Rows) -> pa.StringArray:
        """Return for each span the first of some attributes that its resource has, else ""."""
        values: dict[int, str] = {}  # of resources that have no span too
        numbers = [self.number_of[key] for key in reversed(keys) if key in self.number_of]
        of_resources = self._owner_kind == OWNER_RESOURCE
        for number in numbers:
            for row in np.flatnonzero(of_resources & (self._key == number)).tolist():
                self._used[row] = True
                owner = int(self._owner[row])
                values[owner] = self.text(row) or values.get(owner, "")
        texts = [values.get(i, "") for i in range(int(resources.max(initial=-1)) + 1)]
        return pa.array(texts, pa.string()).take(pa.array(resources))

    def maps(
        self, resources: Rows, scopes: Rows, repairs: Counter[str]
    ) -> tuple[pa.MapArray, pa.MapArray]:
        """Return what no column has used: per span a map of texts and a map of numbers.

        A span inherits the attributes of its resource and its scope; its own ones win. Where
        these would make a part larger than `_MAX_INHERITED_BYTES`, none are inherited.

        Args:
            resources: Resource of each span.
            scopes: Scope of each span; all spans of a scope have one resource.
            repairs: Counts spans that inherit nothing for that reason.
        """
        left = np.flatnonzero(~self._used)
        of_text = left[~self._is_number[left]]
        of_number = left[self._is_number[left]]
        rows, offsets = self._with_inherited(of_text, resources, scopes, repairs)
        texts = pa.MapArray.from_arrays(offsets, self._keys_of(rows), self._text.take(rows))
        rows, offsets = self._with_inherited(of_number, resources, scopes, repairs)
        values = pa.array(self.numbers(rows))
        return texts, pa.MapArray.from_arrays(offsets, self._keys_of(rows), values)

    def _keys_of(self, rows: Rows) -> pa.StringArray:
        return pa.array(self.names, pa.string()).take(pa.array(self._key[rows]))

    def _with_inherited(
        self, rows: Rows, resources: Rows, scopes: Rows, repairs: Counter[str]
    ) -> tuple[Rows, npt.NDArray[np.int32]]:
        """Return rows of span after span with those it inherits, and where each span begins."""
        kinds = self._owner_kind[rows]
        own = rows[kinds == OWNER_SPAN]
        n = self.n_spans
        if self.has_extras:
            own = own[np.argsort(self._owner[own], kind="stable")]
        spans = self._owner[own].astype(np.int64)
        n_own = np.bincount(spans, minlength=n)
        above, starts = self._above(rows[kinds != OWNER_SPAN], resources, scopes)
        sizes = np.concatenate([[0], np.cumsum(self._sizes(above))])[starts]
        if np.diff(sizes)[scopes].sum() > _MAX_INHERITED_BYTES:
            repairs["inherited_attributes"] += n
            above, starts = _NONE, np.zeros_like(starts)
        n_above = np.diff(starts)[scopes]
        # The k-th inherited row of a span stands behind its own ones.
        index = np.arange(n_above.sum()) - np.repeat(np.cumsum(n_above) - n_above, n_above)
        heirs = np.repeat(np.arange(n), n_above)
        inherited = above[starts[scopes[heirs]] + index]
        counts = n_own + n_above
        offsets = np.concatenate([[0], np.cumsum(counts)])
        out = np.empty(offsets[-1], np.int64)
        out[offsets[spans] + np.arange(len(own)) - (np.cumsum(n_own) - n_own)[spans]] = own
        out[offsets[heirs] + n_own[heirs] + index] = inherited
        twice = self.has_extras or len(np.intersect1d(self._key[own], self._key[above]))
        if twice:
            owners = np.repeat(np.arange(n), counts)
            _, kept = np.unique(owners * len(self.names) + self._key[out], return_index=True)
            kept.sort()
            out, counts = out[kept], np.bincount(owners[kept], minlength=n)
            offsets = np.concatenate([[0], np.cumsum(counts)])
        return out, offsets.astype(np.int32)

    def _above(self, rows: Rows, resources: Rows, scopes: Rows) -> tuple[Rows, Rows]:
        """Return the rows that spans of scope 0, 1, … inherit, and where each scope begins."""
        n_scopes = int(scopes.max(initial=-1)) + 1
        resource_of = np.zeros(n_scopes, np.int64)
        resource_of[scopes] = resources
        of_scopes = self._by_owner(rows, OWNER_SCOPE)
        of_resources = self._by_owner(rows, OWNER_RESOURCE)
        parts = []
        for scope, resource in enumerate(resource_of.tolist()):
            parts += [of_scopes.get(scope, _NONE), of_resources.get(resource, _NONE)]
        lengths = np.array([len(part) for part in parts], np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])[::2]
        return np.concatenate([*parts, _NONE]), starts

    def _sizes(self, rows: Rows) -> Rows:
        """Return about how many bytes each row takes in a map."""
        keys = np.array([len(name) for name in self.names], np.int64)[self._key[rows]]
        texts = pc.binary_length(self._text.take(rows)).to_numpy()
        sizes: Rows = keys + texts + _ROW_BYTES
        return sizes

    def _by_owner(self, rows: Rows, owner_kind: int) -> dict[int, Rows]:
        rows = rows[self._owner_kind[rows] == owner_kind]
        owners, starts = np.unique(self._owner[rows], return_index=True)
        return dict(zip(owners.tolist(), np.split(rows, starts[1:]), strict=len(owners) > 0))

    @cached_property
    def _is_number(self) -> Mask:
        mask: Mask = (self._kind >= VALUE_BOOL) & (self._kind <= VALUE_DOUBLE)
        return mask

    def _number_text(self, row: int) -> str:
        number = int(self._number[row])
        match self._kind[row]:
            case kind if kind == VALUE_BOOL:
                return "true" if number else "false"
            case kind if kind == VALUE_INT:
                return str(number)
            case _:
                return repr(float(self._number[row : row + 1].view(np.float64)[0]))


def text_array(texts: Sequence[str]) -> pa.StringArray:
    """Return texts as an Arrow array; half a character (a lone surrogate in JSON) becomes "?"."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([text.encode(errors="replace").decode() for text in texts], pa.string())


def _with_extras(
    batch: pa.RecordBatch, extras: Sequence[Extra], number_of: dict[str, int]
) -> pa.RecordBatch:
    n = len(extras)
    columns = {
        "owner_kind": [OWNER_SPAN] * n,
        "owner": [extra.span for extra in extras],
        "key": [number_of[extra.key] for extra in extras],
        "kind": [VALUE_STRING] * n,
        "number": [0] * n,
        "text": text_array([extra.text for extra in extras]),
    }
    arrays = [
        pa.concat_arrays([batch.column(f.name), pa.array(columns[f.name], f.type)])
        for f in RAW_ATTRIBUTE_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_ATTRIBUTE_SCHEMA)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
