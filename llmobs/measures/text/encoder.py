"""Text in, word ids out: the one pass that every head shares.

WordPiece never crosses a word, so what a word means (its pieces, its hash) is looked up in a
table and worked out once: some ten times less work than running the tokenizer over the texts,
with the same vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.heads import Head, load_head
from llmobs.measures.text.packaged import packaged, weights
from llmobs.measures.text.panel import Panel
from llmobs.measures.text.words import WordTable

__all__ = ["TextEncoder", "as_features"]


class TextEncoder:
    """Turns texts into `TextFeatures`. Safe to share between threads.

    Args:
        tokenizer: WordPiece, uncased.
        vectors: One row per word piece, float32 of shape (n_vocabulary, n_dimensions).
        idf: Inverse document frequency of every n-gram bucket, float32 of shape (`N_BUCKETS`,).
        heads: Read every text together, when the first of them is asked.
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
        heads: Sequence[Head] = (),
        *,
        max_words: int = 200_000,
        max_chars: int = 16_384,
    ) -> None:
        self.vectors = vectors
        self.idf = idf
        self.tokenizer = tokenizer
        self.panel = Panel(heads, idf)
        self._max_words = max_words
        self._half = max_chars // 2
        self._table = WordTable(tokenizer)

    @classmethod
    @cache
    def load(cls) -> TextEncoder:
        """Return the encoder with the packaged weights; the same one every time."""
        tokenizer = Tokenizer.from_str(packaged("tokenizer.json").decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        vectors = weights("static.safetensors")["embeddings"]
        heads = [load_head(name) for name in ("toxicity", "injection", "refusal")]
        return cls(tokenizer, vectors, weights("ngrams.safetensors")["idf"], heads)

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Cut texts into words; the rest follows when asked for."""
        table = self._table
        if len(table) > self._max_words or table.n_chars > 32 * self._max_words:
            # Features made before keep the old table alive for as long as they need it.
            table = self._table = WordTable(self.tokenizer)
        words, offsets = table.cut([self._lower(text) for text in texts])
        return TextFeatures(texts, words, offsets, self, table)

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
