"""Words seen so far: their ids, and what each means."""

from __future__ import annotations

import secrets
import threading
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from llmobs.measures.text.characters import code_points, runs
from llmobs.measures.text.kernels.words import ALONE, SPACE, WORD, cut, hash_words, insert

__all__ = ["WordTable", "character_classes"]

_Ids: TypeAlias = npt.NDArray[np.int32]
_Ints: TypeAlias = npt.NDArray[np.int64]

# WordPiece gives up on longer words, so they mean nothing to the embedding anyway.
_MAX_WORD_CHARS: Final = 100
# Those that BERT keeps as spaces. Other control characters are dropped inside a word by the
# tokenizer itself, so here they belong to it.
_SPACES: Final = "\t\n\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_CJK: Final = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


@cache
def character_classes() -> npt.NDArray[np.uint8]:
    """Say how to cut as BERT's pre-tokenizer does, after its clean-up.

    Marks (of the basic plane, as BERT has it) and CJK characters stand alone.

    Returns:
        One class a code point; see `cut`. What lies behind the last one belongs to words.
    """
    classes = np.full(_CJK[-1][1] + 1, WORD, np.uint8)
    for code in range(0x10000):
        char = chr(code)
        ascii_mark = code < 0x80 and char.isprintable() and not char.isalnum()
        if ascii_mark or unicodedata.category(char).startswith("P"):
            classes[code] = ALONE
    for first, last in _CJK:
        classes[first : last + 1] = ALONE
    classes[list(map(ord, _SPACES))] = SPACE
    return classes


def _plain(word: str) -> str:
    """Return the word as the hash sees it: no accents, invisible or compatibility forms."""
    if word.isascii():
        return word
    return "".join(
        char
        for char in unicodedata.normalize("NFKD", word).lower()
        if unicodedata.category(char) not in ("Mn", "Cf", "Cc")
    )


class WordTable:
    """Words seen so far. Only ever appended to, so that a word's id keeps its meaning.

    Safe to share between threads: who reads takes hold of arrays in which nothing changes but
    that free slots fill up, and asks for the lock only with words that it doesn't find.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._hashes = _Growing(np.dtype(np.uint32))
        self._first = _Growing(np.dtype(np.int64))
        self._count = _Growing(np.dtype(np.int64))
        self._flat = _Growing(np.dtype(np.int32))
        # A secret start and an odd multiplier, so that nobody can choose words that collide.
        self._seed = np.array([secrets.randbits(64), secrets.randbits(64) | 1], np.uint64)
        self._slots = np.full(4096, -1, np.int32)
        self._keys = _Growing(np.dtype(np.uint64))
        self._ends = _Growing(np.dtype(np.int64))
        self._spelled = _Growing(np.dtype(np.uint32))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def n_chars(self) -> int:
        """Characters of all words together."""
        return len(self._spelled)

    def hashes(self) -> npt.NDArray[np.uint32]:
        """Hash of every word, shape (n_words,), the same in every process."""
        hashes: npt.NDArray[np.uint32] = self._hashes.view()
        return hashes

    def pieces(self) -> tuple[_Ints, _Ints, _Ids]:
        """Return (first, count, flat): word w has ``flat[first[w]:first[w] + count[w]]``."""
        return self._first.view(), self._count.view(), self._flat.view()

    def cut(self, texts: Sequence[str]) -> tuple[_Ids, _Ints]:
        """Cut texts in lower case into words.

        Returns:
            The ids of all texts' words in a row, and the offsets of the texts, shape (n + 1,).
        """
        words, offsets, n_words = [np.empty(0, np.int32)], [np.zeros(1, np.int64)], 0
        for run in runs(texts):
            ids, ends, unknown = cut(
                run.codes,
                run.ends,
                character_classes(),
                self._seed,
                self._slots,
                self._keys.view(),
                self._ends.view(),
                self._spelled.view(),
            )
            if len(unknown):
                spelled = [run.text[begin:end] for begin, end in unknown[:, 1:].tolist()]
                ids[unknown[:, 0]] = self._learn(spelled)
            words.append(ids)
            offsets.append(ends + n_words)
            n_words += len(ids)
        return np.concatenate(words), np.concatenate(offsets)

    def _learn(self, words: Sequence[str]) -> list[int]:
        """Return the ids of words, of new ones, too."""
        with self._lock:
            new = [word for word in dict.fromkeys(words) if word not in self._ids]
            if new:
                self._add(new)
            return [self._ids[word] for word in words]

    def _add(self, new: Sequence[str]) -> None:
        n_before = len(self._ids)
        pieces = [self._pieces_of(word) for word in new]
        counts = [len(run) for run in pieces]
        self._first.extend(np.cumsum([0, *counts])[:-1] + len(self._flat))
        self._count.extend(counts)
        self._flat.extend([piece for run in pieces for piece in run])
        self._hashes.extend([zlib.crc32(_plain(w).encode(errors="replace")) for w in new])
        codes, ends = code_points("".join(new)), np.cumsum([len(word) for word in new])
        self._ends.extend(ends + len(self._spelled))
        self._spelled.extend(codes)
        # In this order: `cut` believes in a word whose key it has got, and takes hold of the keys
        # before the rest.
        self._keys.extend(hash_words(codes, ends, self._seed))
        keys = self._keys.view()
        if 2 * len(keys) > len(self._slots):
            slots = np.full(4 << len(keys).bit_length(), -1, np.int32)
            insert(slots, keys, 0)
            self._slots = slots
        else:
            insert(self._slots, keys, n_before)
        self._ids.update(zip(new, range(n_before, n_before + len(new)), strict=True))

    def _pieces_of(self, word: str) -> list[int]:
        if len(word) > _MAX_WORD_CHARS:
            return []
        text = word.encode(errors="replace").decode()  # lone surrogates can't reach the tokenizer
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [piece for piece in ids if piece != self._unknown]


class _Growing:
    """A NumPy array that grows by doubling; views of it stay valid."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._data = np.empty(1024, dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def view(self) -> Any:
        return self._data[: self._n]

    def extend(self, values: Sequence[int] | npt.NDArray[Any]) -> None:
        n = self._n + len(values)
        if n > len(self._data):
            grown = np.empty(max(n, 2 * len(self._data)), self._data.dtype)
            grown[: self._n] = self._data[: self._n]
            self._data = grown
        self._data[self._n : n] = values
        self._n = n
