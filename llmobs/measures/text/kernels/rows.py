"""Rows of vectors and counts, one a text, without a matrix of all occurrences before them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["overlaps", "row_ngrams", "row_vectors"]

_Ints = npt.NDArray[np.int64]
_Singles = npt.NDArray[np.float32]
_Pieces = tuple[_Ints, _Ints, npt.NDArray[np.int32]]


@compiled
def row_vectors(
    words: npt.NDArray[np.int32],
    offsets: _Ints,
    pieces: _Pieces,
    vectors: _Singles,
    weights: _Singles,
) -> _Singles:
    """Sum the vectors of every row's word pieces and scale the sum to length 1.

    Args:
        words: Word ids of all rows.
        offsets: Row i is ``words[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        pieces: (first, count, flat): word w has ``flat[first[w]:first[w] + count[w]]``.
        vectors: Shape (n_vocabulary, n_dimensions).
        weights: What each piece counts for, shape (n_vocabulary,).

    Returns:
        Shape (n, n_dimensions); zeros for a row without a piece.
    """
    first, count, flat = pieces
    n, dimensions = len(offsets) - 1, vectors.shape[1]
    out = np.zeros((n, dimensions), np.float32)
    for row in range(n):
        total = out[row]
        for at in range(offsets[row], offsets[row + 1]):
            word = words[at]
            for place in range(first[word], first[word] + count[word]):
                piece = flat[place]
                vector = vectors[piece]
                weight = weights[piece]
                for d in range(dimensions):
                    total[d] += weight * vector[d]
        square = np.float32(0)
        for d in range(dimensions):
            square += total[d] * total[d]
        if square > 0:
            scale = np.float32(1) / np.sqrt(square)
            for d in range(dimensions):
                total[d] *= scale
    return out


@compiled
def row_ngrams(
    words: npt.NDArray[np.int32],
    offsets: _Ints,
    hashes: npt.NDArray[np.uint32],
    idf: _Singles,
    pair: np.uint64,
) -> tuple[_Singles, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Count every row's words and pairs of neighbours: (1 + ln tf) · idf at length 1.

    Args:
        words: Word ids of all rows.
        offsets: Row i is ``words[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        hashes: Hash of every word.
        idf: One a bucket; words hash into the lower half, pairs into the upper.
        pair: Multiplies the hash of a pair's first word.

    Returns:
        The data, indices and offsets of a CSR matrix with sorted indices.
    """
    n = len(offsets) - 1
    half = np.uint64(len(idf) // 2)
    most = 2 * (offsets[n] - offsets[0])
    values, buckets = np.empty(most, np.float32), np.empty(most, np.int32)
    ends = np.zeros(n + 1, np.int32)
    filled = 0
    for row in range(n):
        begin, end = offsets[row], offsets[row + 1]
        if begin < end:
            keys = np.empty(2 * (end - begin) - 1, np.int32)
            for i in range(begin, end):
                keys[i - begin] = np.int32(np.uint64(hashes[words[i]]) % half)
            for i in range(begin, end - 1):
                both = np.uint64(hashes[words[i]]) * pair + np.uint64(hashes[words[i + 1]])
                keys[end + i - 2 * begin] = np.int32(both % half + half)
            keys.sort()
            start, squares, i = filled, 0.0, 0
            while i < len(keys):
                j = i + 1
                while j < len(keys) and keys[j] == keys[i]:
                    j += 1
                value = idf[keys[i]]
                if j - i > 1:
                    value *= np.float32(1) + np.log(np.float32(j - i))
                buckets[filled], values[filled] = keys[i], value
                squares += np.float64(value) * np.float64(value)
                filled += 1
                i = j
            scale = 1 / np.sqrt(squares) if squares > 0 else 0.0
            for k in range(start, filled):
                values[k] = np.float32(values[k] * scale)
        ends[row + 1] = filled
    return values[:filled].copy(), buckets[:filled].copy(), ends


@compiled
def overlaps(
    asked: npt.NDArray[np.int32],
    asked_offsets: _Ints,
    asked_pieces: _Pieces,
    answered: npt.NDArray[np.int32],
    answered_offsets: _Ints,
    answered_pieces: _Pieces,
    weights: _Singles,
) -> npt.NDArray[np.float64]:
    """Return the share of every asked row's weight whose pieces its answer has, too.

    Each piece counts once. 0 where the asked row has no weight.

    Args:
        asked: Word ids of all questions; rows and pieces as in `row_vectors`.
        asked_offsets: Shape (n + 1,).
        asked_pieces: (first, count, flat).
        answered: Word ids of all answers.
        answered_offsets: Shape (n + 1,).
        answered_pieces: Of the answers' own table of words.
        weights: One a piece, shape (n_vocabulary,).
    """
    n = len(asked_offsets) - 1
    out = np.zeros(n, np.float64)
    # 2 · row: the row's answer has the piece; 2 · row + 1: its question has been seen to.
    seen = np.full(len(weights), -1, np.int64)
    for row in range(n):
        first, count, flat = answered_pieces
        for at in range(answered_offsets[row], answered_offsets[row + 1]):
            word = answered[at]
            for place in range(first[word], first[word] + count[word]):
                seen[flat[place]] = 2 * row
        shared, whole = 0.0, 0.0
        first, count, flat = asked_pieces
        for at in range(asked_offsets[row], asked_offsets[row + 1]):
            word = asked[at]
            for place in range(first[word], first[word] + count[word]):
                piece = flat[place]
                if seen[piece] != 2 * row + 1:
                    whole += weights[piece]
                    if seen[piece] == 2 * row:
                        shared += weights[piece]
                    seen[piece] = 2 * row + 1
        if whole > 0:
            out[row] = shared / whole
    return out
