"""Linear heads over the shared features, each a calibrated probability."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from llmobs.measures.text.features import N_BUCKETS, TextFeatures
from llmobs.measures.text.packaged import packaged, weights

__all__ = ["Head", "Judgement", "Lexicon", "load_head", "worst_window"]

_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lexicon:
    """A second, older opinion: single words with weights, at a norm of its own.

    Attributes:
        buckets: N-gram buckets of its words, int32 of shape (n_entries,).
        weights: Logits per unit of a bucket's own tf-idf value.
        squares: Squares of its own idf.
    """

    buckets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float32]

    def logits(self, features: TextFeatures) -> npt.NDArray[np.float32]:
        """Return one logit a text, without a constant; 0 where it knows no word."""
        # The shared n-grams carry another idf; dividing it out leaves log-tf up to a factor
        # a row, which the division by the row's own length takes away.
        idf = features.encoder.idf
        tf = features.ngrams
        sums = tf @ self._spread(self.weights / idf[self.buckets])
        squares = tf.multiply(tf) @ self._spread(self.squares / idf[self.buckets] ** 2)
        known = squares > 0
        logits: npt.NDArray[np.float32] = np.zeros_like(sums)
        np.divide(sums, np.sqrt(squares), out=logits, where=known)
        return logits

    def _spread(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        out = np.zeros(N_BUCKETS, np.float32)
        out[self.buckets] = values
        return out


class Judgement(NamedTuple):
    """What a head says about every text.

    Attributes:
        probabilities: Shape (n,); NaN for a text without a word.
        positions: Where the window that decided starts, in words; -1: the text as a whole.
    """

    probabilities: _Floats
    positions: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A logistic regression on [embedding | n-grams], with its calibration folded in.

    A long text is judged twice: as a whole and as its worst window. The more
    windows, the higher the worst of them lies by chance; `window_penalty` times the log of
    their number takes that back, so that a long text is not suspicious for being long.

    Attributes:
        threshold: Probability that about 1 % of benign texts reach.
        opening_words: Only that many first words are judged; 0: all.
        whole_penalty: Taken from the logit of the whole where there are windows, too.
        window_penalty: Taken from a window's logit, times ln(number of windows); inf: no windows.
        version: Changes with every weight.
    """

    dense: npt.NDArray[np.float32]
    ngrams: npt.NDArray[np.float32]
    bias: float
    threshold: float = 0.5
    opening_words: int = 0
    whole_penalty: float = 0.0
    window_penalty: float = np.inf
    lexicon: Lexicon | None = None
    version: str = ""

    def judge(self, features: TextFeatures) -> Judgement:
        """Return calibrated probabilities and what part of each text they rest on.

        Heads of the encoder's panel read a batch together, when the first of them is asked.
        """
        return features.encoder.panel.judgement(self, features)

    def logits(self, features: TextFeatures) -> _Floats:
        """Return the plain linear score of every text, shape (n,), without windows."""
        # Not `@`: for as little as this, BLAS wakes its threads, and they spin between the calls.
        logits = np.einsum("ij,j->i", features.embeddings, self.dense)
        logits = logits + features.ngrams @ self.ngrams + self.bias
        if self.lexicon is not None:
            logits = logits + self.lexicon.logits(features)
        return np.asarray(logits, np.float64)

    def rescaled(self, slope: float, offset: float) -> Head:
        """Return the head whose logit is ``slope * logit + offset``."""
        lexicon = self.lexicon
        return replace(
            self,
            dense=np.float32(slope) * self.dense,
            ngrams=np.float32(slope) * self.ngrams,
            bias=slope * self.bias + offset,
            lexicon=lexicon and replace(lexicon, weights=np.float32(slope) * lexicon.weights),
        )

    def to_bytes(self) -> bytes:
        """Return the head as safetensors, weights in half precision."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "dense": self.dense.astype(np.float16),
            "ngrams": self.ngrams.astype(np.float16),
            "scalars": np.array([getattr(self, name) for name in _SCALARS], np.float64),
        }
        if self.lexicon is not None:
            arrays["lexicon_buckets"] = self.lexicon.buckets
            arrays["lexicon_weights"] = self.lexicon.weights.astype(np.float16)
            arrays["lexicon_squares"] = self.lexicon.squares.astype(np.float16)
        return bytes(safetensors.numpy.save(arrays))


_SCALARS: Final = ("bias", "threshold", "opening_words", "whole_penalty", "window_penalty")


def worst_window(
    logits: _Floats, owners: npt.NDArray[np.int64]
) -> tuple[_Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the highest window of every text.

    Args:
        logits: One per window, shape (n_windows,), n_windows > 0.
        owners: Row of the text each was cut from, ascending.

    Returns:
        Per text that has windows: the highest logit, the index of that window, how many there are.
    """
    order = np.lexsort((-logits, owners))  # per text: highest first, earliest among equals
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    return logits[order[first]], order[first], np.diff(first, append=len(owners))


@cache
def load_head(name: str) -> Head:
    """Return a packaged head: ``toxicity``, ``injection``, ``refusal`` or ``indirect``."""
    arrays = weights(f"{name}.safetensors")
    scalars = dict(zip(_SCALARS, arrays["scalars"].tolist(), strict=True))
    lexicon = None
    if "lexicon_buckets" in arrays:
        lexicon = Lexicon(
            arrays["lexicon_buckets"], arrays["lexicon_weights"], arrays["lexicon_squares"]
        )
    return Head(
        dense=arrays["dense"],
        ngrams=arrays["ngrams"],
        bias=scalars["bias"],
        threshold=scalars["threshold"],
        opening_words=int(scalars["opening_words"]),
        whole_penalty=scalars["whole_penalty"],
        window_penalty=scalars["window_penalty"],
        lexicon=lexicon,
        version=f"1+{zlib.crc32(packaged(f'{name}.safetensors')):08x}",
    )
