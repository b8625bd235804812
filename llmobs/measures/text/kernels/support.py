"""How far the sentences of one text are borne out by those of another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["supports"]

_Ints = npt.NDArray[np.int64]
_Singles = npt.NDArray[np.float32]


@compiled
def supports(
    words: npt.NDArray[np.int32],
    offsets: _Ints,
    pieces: tuple[_Ints, _Ints, npt.NDArray[np.int32]],
    weights: _Singles,
    vectors: _Singles,
    sources: _Ints,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Find the best passage for every claim: a sentence of the source with its two neighbours.

    Args:
        words: Word ids of all sentences.
        offsets: Sentence i is ``words[offsets[i]:offsets[i + 1]]``.
        pieces: (first, count, flat): word w has ``flat[first[w]:first[w] + count[w]]``.
        weights: What each word piece counts for, shape (n_vocabulary,).
        vectors: One a sentence, at length 1, shape (n_sentences, n_dimensions).
        sources: First and one past the last sentence that may bear out each claim, shape
            (n, 2); the claims are the first n sentences.

    Returns:
        Three arrays of shape (n,): the claim's weight, the share of it whose pieces the best
        passage has, and the cosine to the likest sentence of the source.
    """
    first, count, flat = pieces
    n = len(sources)
    masses, shares, cosines = np.zeros(n), np.zeros(n), np.zeros(n)
    # The claim that last had a piece, and the passage that it was last counted in.
    wanted, counted = np.full(len(weights), -1, np.int64), np.full(len(weights), -1, np.int64)
    passage = 0
    for row in range(n):
        for at in range(offsets[row], offsets[row + 1]):
            word = words[at]
            for place in range(first[word], first[word] + count[word]):
                piece = flat[place]
                if wanted[piece] != row:
                    wanted[piece] = row
                    masses[row] += weights[piece]
        begin, end = sources[row, 0], sources[row, 1]
        best = 0.0
        for source in range(begin, end):
            passage += 1
            shared = 0.0
            from_, to = offsets[max(source - 1, begin)], offsets[min(source + 2, end)]
            for at in range(from_, to):
                word = words[at]
                for place in range(first[word], first[word] + count[word]):
                    piece = flat[place]
                    if wanted[piece] == row and counted[piece] != passage:
                        counted[piece] = passage
                        shared += weights[piece]
            best = max(best, shared)
            cosine = np.float32(0)
            for d in range(vectors.shape[1]):
                cosine += vectors[row, d] * vectors[source, d]
            cosines[row] = max(cosines[row], np.float64(cosine))
        if masses[row] > 0:
            shares[row] = best / masses[row]
    return masses, shares, cosines
