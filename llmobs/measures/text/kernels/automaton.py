"""A naive Bayes classifier over what a finite automaton emits: py3langid's loop over bytes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["classify"]

_Ids: TypeAlias = npt.NDArray[np.int32]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Singles: TypeAlias = npt.NDArray[np.float32]


@compiled
def _walk(
    text: npt.NDArray[np.uint8],
    next_move: npt.NDArray[np.uint32],
    rows: npt.NDArray[np.uint16],
    output: _Ids,
    features: _Ids,
    counts: _Ids,
    places: _Ids,
) -> int:
    """Run a text through the automaton and count what it emits.

    Args:
        text: Bytes of one text.
        next_move: As in `classify`, like the next two.
        rows: Row of every state.
        output: Feature that a state emits.
        features: Written: the distinct features, in order of their first appearance.
        counts: Written: how often each came.
        places: Scratch space for a hash table of places in `features`, a power of two.

    Returns:
        How many features there are.
    """
    mask = len(places) - 1
    places[:] = -1
    n, state = 0, np.int64(0)
    for byte in text:
        state = np.int64(next_move[256 * np.int64(rows[state]) + byte])
        feature = output[state]
        if feature >= 0:
            slot = feature & mask
            while places[slot] >= 0 and features[places[slot]] != feature:
                slot = (slot + 1) & mask
            if places[slot] < 0:
                features[n], counts[n], places[slot] = feature, 0, n
                n += 1
            counts[places[slot]] += 1
    return n


@compiled
def classify(
    data: npt.NDArray[np.uint8],
    ends: _Ints,
    next_move: npt.NDArray[np.uint32],
    rows: npt.NDArray[np.uint16],
    output: _Ids,
    weights: _Singles,
    prior: _Singles,
    aliases: _Ints,
) -> tuple[_Ints, npt.NDArray[np.float64]]:
    """Find the likeliest class of every text.

    Args:
        data: Bytes of all texts in a row.
        ends: Where each text ends, shape (n,).
        next_move: From state s by byte b to ``next_move[256 * rows[s] + b]``.
        rows: Row of every state.
        output: Feature that a state emits; -1: none.
        weights: Log likelihoods, shape (n_features, n_classes).
        prior: Log prior of every class.
        aliases: Pairs of classes of which the first gets the other's share, too.

    Returns:
        The class and its share, 0 for a text without a feature; each of shape (n,).
    """
    n_texts, n_classes = len(ends), len(prior)
    best, shares = np.zeros(n_texts, np.int64), np.zeros(n_texts, np.float64)
    longest, begin = 0, 0
    for row in range(n_texts):
        longest = max(longest, ends[row] - begin)
        begin = ends[row]
    size = 2
    while size < 2 * longest:
        size *= 2
    features, counts = np.empty(longest, np.int32), np.empty(longest, np.int32)
    places, scores = np.empty(size, np.int32), np.empty(n_classes, np.float32)
    begin = 0
    for row in range(n_texts):
        text = data[begin : ends[row]]
        begin = ends[row]
        n = _walk(text, next_move, rows, output, features, counts, places)
        if n == 0:
            continue
        scores[:] = prior
        for i in range(n):
            factor = np.float32(np.log1p(np.float32(counts[i])))
            likelihoods = weights[features[i]]
            for k in range(n_classes):
                scores[k] += factor * likelihoods[k]
        # The root of the length keeps the shares calibrated from short texts to long ones.
        scale, top = np.float32(1 / np.sqrt(len(text))), scores.max()
        for k in range(n_classes):
            scores[k] = np.exp((scores[k] - top) * scale)
        total = scores.sum()
        for pair in aliases:
            scores[pair[0]] += scores[pair[1]]
            scores[pair[1]] = 0
        best[row] = scores.argmax()
        shares[row] = scores[best[row]] / total
    return best, shares
