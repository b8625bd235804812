"""From characters to word ids: cutting, hashing and looking up in one pass."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["ALONE", "SPACE", "WORD", "cut", "hash_words", "insert"]

_Codes: TypeAlias = npt.NDArray[np.uint32]
_Ids: TypeAlias = npt.NDArray[np.int32]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Keys: TypeAlias = npt.NDArray[np.uint64]

WORD: Final = 0
"""Class of a character that stands with its neighbours; also of what `classes` doesn't reach."""
SPACE: Final = 1
"""Class of a character that parts words."""
ALONE: Final = 2
"""Class of a character that is a word of its own."""


@compiled
def _hash(codes: _Codes, begin: int, end: int, seed: _Keys) -> np.uint64:
    """Hash a word: three characters of 21 bits at a time."""
    key = seed[0]
    for at in range(begin, end, 3):
        packed = np.uint64(end - begin)
        for place in range(at, min(at + 3, end)):
            packed = (packed << np.uint64(21)) ^ np.uint64(codes[place])
        key = (key ^ packed) * seed[1]
        key ^= key >> np.uint64(32)
    key *= seed[1]
    mixed: np.uint64 = key ^ (key >> np.uint64(29))
    return mixed


@compiled
def _find(
    codes: _Codes,
    begin: int,
    end: int,
    key: np.uint64,
    slots: _Ids,
    keys: _Keys,
    ends: _Ints,
    spelled: _Codes,
) -> int:
    """Return the id of a word, or -1."""
    mask = len(slots) - 1
    slot = np.int64(key) & mask
    while True:
        word = slots[slot]
        # Another thread may have added words since the caller took hold of the arrays.
        if word < 0 or word >= len(keys):
            return -1
        if keys[word] == key:
            start = ends[word - 1] if word else 0
            if ends[word] - start == end - begin:
                same = True
                for i in range(end - begin):
                    if spelled[start + i] != codes[begin + i]:
                        same = False
                        break
                if same:
                    return int(word)
        slot = (slot + 1) & mask


@compiled
def cut(
    codes: _Codes,
    text_ends: _Ints,
    classes: npt.NDArray[np.uint8],
    seed: _Keys,
    slots: _Ids,
    keys: _Keys,
    ends: _Ints,
    spelled: _Codes,
) -> tuple[_Ids, _Ints, _Ints]:
    """Cut texts into words and look them up.

    Args:
        codes: Code points of all texts in a row.
        text_ends: Where each text ends in `codes`, shape (n,).
        classes: `WORD`, `SPACE` or `ALONE` of every code point below its length.
        seed: Start and multiplier of the hash, shape (2,); secret, the second one odd.
        slots: Word ids at the place of their hash or behind it, -1 where free; a power of two.
        keys: Hash of every known word.
        ends: Where each known word ends in `spelled`.
        spelled: Code points of all known words in a row.

    Returns:
        Word ids, -1 where unknown; how many words up to the end of every text, shape (n,); and
        for every unknown word (its place among the ids, its start and end in `codes`).
    """
    words, unknown = np.empty(len(codes), np.int32), np.empty((len(codes), 3), np.int64)
    n_words = np.empty(len(text_ends), np.int64)
    n, n_unknown, at = 0, 0, 0
    for row in range(len(text_ends)):
        stop = text_ends[row]
        while at < stop:
            code = codes[at]
            kind = classes[code] if code < len(classes) else WORD
            begin = at
            at += 1
            if kind == SPACE:
                continue
            while kind == WORD and at < stop:
                code = codes[at]
                kind = classes[code] if code < len(classes) else WORD
                if kind == WORD:
                    at += 1
            key = _hash(codes, begin, at, seed)
            words[n] = _find(codes, begin, at, key, slots, keys, ends, spelled)
            if words[n] < 0:
                unknown[n_unknown, 0] = n
                unknown[n_unknown, 1], unknown[n_unknown, 2] = begin, at
                n_unknown += 1
            n += 1
        n_words[row] = n
    return words[:n].copy(), n_words, unknown[:n_unknown].copy()


@compiled
def hash_words(codes: _Codes, ends: _Ints, seed: _Keys) -> _Keys:
    """Hash words that stand in a row, as `cut` does."""
    keys = np.empty(len(ends), np.uint64)
    begin = 0
    for word in range(len(ends)):
        keys[word] = _hash(codes, begin, ends[word], seed)
        begin = ends[word]
    return keys


@compiled
def insert(slots: _Ids, keys: _Keys, first: int) -> None:
    """Put the words from id `first` on into their slots; at least one must stay free."""
    mask = len(slots) - 1
    for word in range(first, len(keys)):
        slot = np.int64(keys[word]) & mask
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = word
