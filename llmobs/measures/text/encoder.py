"""Text in, word ids out: the one pass that every head shares.

WordPiece never crosses a word, so what a word means (its pieces, its hash) is looked up in a
dict and worked out once. A batch then costs one regex, one dict look-up a word and one sparse
product: some five times less than running the tokenizer over the texts, with the same vectors.
"""

from __future__ import annotations

import re
import threading
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from tokenizers import Tokenizer

from llmobs.measures.text.features import TextFeatures

__all__ = ["TextEncoder", "WordTable", "as_features", "packaged", "weights"]

# WordPiece gives up on longer words, so they mean nothing to the embedding anyway.
_MAX_WORD_CHARS: Final = 100


def packaged(name: str) -> bytes:
    """Read a file that ships with this room."""
    return files("llmobs.measures.text").joinpath("weights", name).read_bytes()


def weights(name: str) -> dict[str, npt.NDArray[Any]]:
    """Read packaged arrays; what is stored in half precision is computed with in single."""
    arrays = safetensors.numpy.load(packaged(name))
    half = np.dtype(np.float16)
    return {key: a.astype(np.float32) if a.dtype == half else a for key, a in arrays.items()}


@cache
def _word_pattern() -> re.Pattern[str]:
    """Cut as BERT's pre-tokenizer does, after its clean-up: marks and CJK characters stand alone.

    Spaces are those that BERT keeps as spaces. Other control characters are dropped inside a
    word by the tokenizer itself, so here they belong to it.
    """

    def is_mark(char: str) -> bool:
        ascii_mark = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
        return ascii_mark or unicodedata.category(char).startswith("P")

    marks = _character_class(map(chr, range(0x10000)), is_mark)
    cjk = (
        "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
        "\U0002b740-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f"
    )
    space = r"\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(f"[^{space}{marks}{cjk}]+|[{marks}{cjk}]")


def _character_class(chars: Iterable[str], belongs: Callable[[str], bool]) -> str:
    """Return the inside of a regex class, as ranges."""
    ranges: list[list[int]] = []
    for code in (ord(char) for char in chars if belongs(char)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges)


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
    """Words seen so far. Only ever appended to, so that a word's id keeps its meaning."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")
        self._lock = threading.Lock()
        self.ids: dict[str, int] = {}
        self.n_chars = 0
        self._hashes = _Growing(np.dtype(np.uint32))
        self._first = _Growing(np.dtype(np.int64))
        self._count = _Growing(np.dtype(np.int64))
        self._flat = _Growing(np.dtype(np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    def hashes(self) -> npt.NDArray[np.uint32]:
        """Hash of every word, shape (n_words,)."""
        hashes: npt.NDArray[np.uint32] = self._hashes.view()
        return hashes

    def pieces(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Return (first, count, flat): word w has ``flat[first[w]:first[w] + count[w]]``."""
        return self._first.view(), self._count.view(), self._flat.view()

    def add(self, words: Iterable[str]) -> None:
        """Learn the words that are new."""
        with self._lock:
            new = [word for word in dict.fromkeys(words) if word not in self.ids]
            pieces = [self._pieces_of(word) for word in new]
            counts = [len(run) for run in pieces]
            start = len(self._flat)
            self._flat.extend([piece for run in pieces for piece in run])
            self._first.extend((np.cumsum([0, *counts])[:-1] + start).tolist())
            self._count.extend(counts)
            self._hashes.extend([zlib.crc32(_plain(w).encode(errors="replace")) for w in new])
            self.n_chars += sum(map(len, new))
            # Last, so that whoever finds an id finds all that belongs to it.
            for word in new:
                self.ids[word] = len(self.ids)

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

    def extend(self, values: Sequence[int]) -> None:
        n = self._n + len(values)
        if n > len(self._data):
            grown = np.empty(max(n, 2 * len(self._data)), self._data.dtype)
            grown[: self._n] = self._data[: self._n]
            self._data = grown
        self._data[self._n : n] = values
        self._n = n


class TextEncoder:
    """Turns texts into `TextFeatures`. Safe to share between threads.

    Args:
        tokenizer: WordPiece, uncased.
        vectors: One row per word piece, float32 of shape (n_vocabulary, n_dimensions).
        idf: Inverse document frequency of every n-gram bucket, float32 of shape (`N_BUCKETS`,).
        max_words: Distinct words kept; past that, or past 32 characters a word on average,
            the table starts anew. Without spaces a whole sentence is one word.
        max_chars: Of a longer text only the first and the last half of that many characters
            are read, so that one document can't cost what a thousand prompts cost.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vectors: npt.NDArray[np.float32],
        idf: npt.NDArray[np.float32],
        *,
        max_words: int = 200_000,
        max_chars: int = 16_384,
    ) -> None:
        self.vectors = vectors
        self.idf = idf
        self.tokenizer = tokenizer
        self._max_words = max_words
        self._half = max_chars // 2
        self._table = WordTable(tokenizer)
        self._find = _word_pattern().findall

    @classmethod
    @cache
    def load(cls) -> TextEncoder:
        """Return the encoder with the packaged weights; the same one every time."""
        tokenizer = Tokenizer.from_str(packaged("tokenizer.json").decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        vectors = weights("static.safetensors")["embeddings"]
        return cls(tokenizer, vectors, weights("ngrams.safetensors")["idf"])

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Cut texts into words; the rest follows when asked for."""
        table = self._table
        if len(table) > self._max_words or table.n_chars > 32 * self._max_words:
            # Features made before keep the old table alive for as long as they need it.
            table = self._table = WordTable(self.tokenizer)
        id_of = table.ids.__getitem__
        ids = array("i")
        ends = np.zeros(len(texts) + 1, np.int64)
        for row, text in enumerate(texts):
            words = self._find(self._lower(text))
            n_before = len(ids)
            try:
                ids.extend(map(id_of, words))
            except KeyError:
                table.add(words)
                del ids[n_before:]
                ids.extend(map(id_of, words))
            ends[row + 1] = len(ids)
        return TextFeatures(texts, np.frombuffer(ids, np.int32), ends, self, table)

    def _lower(self, text: str) -> str:
        if len(text) > 2 * self._half:
            text = f"{text[: self._half]}\n{text[-self._half :]}"
        if text.isascii():
            return text.lower()
        # BERT lowers character by character: no final sigma, which str.lower() would make.
        return text.replace("Σ", "σ").lower()


def as_features(texts: Sequence[str] | TextFeatures) -> TextFeatures:
    """Return features as they are, texts through the packaged encoder."""
    return texts if isinstance(texts, TextFeatures) else TextEncoder.load().encode(texts)
