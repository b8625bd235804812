"""All linear heads over texts and their windows, in one pass over the words."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["Readings", "Terms", "judge"]

_Doubles: TypeAlias = npt.NDArray[np.float64]
_Ids: TypeAlias = npt.NDArray[np.int32]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Pieces: TypeAlias = tuple[_Ints, _Ints, _Ids]
_Singles: TypeAlias = npt.NDArray[np.float32]


class Terms(NamedTuple):
    """What the heads multiply with.

    Attributes:
        dense: Weights of the embedding, shape (n_heads, n_dimensions).
        grams: Of every n-gram bucket its idf squared, and its weight for each head times its
            idf, shape (n_buckets, 1 + n_heads): one place in memory for all heads.
        lexicon: Of every word bucket its weight and its squared idf in the lexicon, 0 where it
            is not in there; shape (n_buckets // 2, 2), or (0, 2) without one.
        lexicon_head: The head that the lexicon belongs to.
        limits: How many first words of a text each head reads, shape (n_heads,); multiples of
            the stride.
        pair: Multiplies the hash of a pair's first word.
    """

    dense: _Singles
    grams: _Singles
    lexicon: _Singles
    lexicon_head: int
    limits: _Ints
    pair: np.uint64


class Readings(NamedTuple):
    """What `judge` returns, by text.

    Attributes:
        embeddings: Sum of the word pieces' vectors at length 1, shape (n, n_dimensions).
        wholes: Linear score of what each head reads, without bias, shape (n, n_heads).
        worst: Highest score of a window, -inf without windows.
        starts: First word of that window, the earliest among equals.
        n_windows: How many windows each head reads.
    """

    embeddings: _Singles
    wholes: _Doubles
    worst: _Doubles
    starts: _Ints
    n_windows: _Ints


# (1 + ln tf) and its square grow by that much from one occurrence to the next.
_KNOWN: Final = 256
_LOG_TF: Final = 1 + np.log(np.arange(1, _KNOWN, dtype=np.float64))
_GROWTH: Final = np.diff(_LOG_TF, prepend=[0, 0])
_SQUARE_GROWTH: Final = np.diff(_LOG_TF**2, prepend=[0, 0])


@compiled
def _growth(count: int) -> tuple[float, float]:
    """Return by how much 1 + ln tf and its square grow with the `count`-th occurrence."""
    if count < _KNOWN:
        return _GROWTH[count], _SQUARE_GROWTH[count]
    now, before = 1 + np.log(count), 1 + np.log(count - 1)
    return now - before, now * now - before * before


@compiled
def _add_vectors(total: _Singles, words: _Ids, pieces: _Pieces, vectors: _Singles) -> None:
    """Add the vectors of words' pieces to a sum."""
    first, count, flat = pieces
    for word in words:
        for place in range(first[word], first[word] + count[word]):
            vector = vectors[flat[place]]
            for d in range(len(total)):
                total[d] += vector[d]


@compiled
def _apply_heads(out: _Doubles, dense: _Singles, vector: _Singles) -> None:
    for head in range(len(out)):
        dot = np.float32(0)
        for d in range(len(vector)):
            dot += dense[head, d] * vector[d]
        out[head] = dot


@compiled
def _scale_of(vector: _Singles, other: _Singles) -> np.float32:
    """Return what brings the sum of two vectors to length 1; 0 where it has none."""
    square = np.float32(0)
    for d in range(len(vector)):
        both = vector[d] + other[d]
        square += both * both
    return np.float32(1) / np.sqrt(square) if square > 0 else np.float32(0)


@compiled
def _read_vectors(
    total: _Singles,
    wholes: _Doubles,
    words: _Ids,
    pieces: _Pieces,
    vectors: _Singles,
    terms: Terms,
    cuts: tuple[int, int],
) -> _Doubles:
    """Read the embedding of a text, of what each head reads of it, and of its windows.

    Args:
        total: Written: the embedding; zeros before.
        wholes: Added to: each head's score of what it reads.
        words: Of one text.
        pieces: As in `judge`, like the rest.
        vectors: Of all pieces.
        terms: The heads.
        cuts: Words in a block, and words up to which a text has no windows.

    Returns:
        Each head's score of every window, shape (n_windows, n_heads).
    """
    block, uncut = cuts
    n_heads, n = len(wholes), len(words)
    nothing, now, before = np.zeros_like(total), np.zeros_like(total), np.zeros_like(total)
    dots, dots_before, read = np.zeros(n_heads), np.zeros(n_heads), np.zeros(n_heads)
    windows = np.empty(((n - 1) // block if n > uncut else 0, n_heads))
    for start in range(0, n, block):
        stop = min(start + block, n)
        now, before = before, now
        dots, dots_before = dots_before, dots
        now[:] = 0
        _add_vectors(now, words[start:stop], pieces, vectors)
        for d in range(len(total)):
            total[d] += now[d]
        _apply_heads(dots, terms.dense, now)
        for head in range(n_heads):
            read[head] += dots[head]
            if stop == min(terms.limits[head], n):
                wholes[head] += read[head] * _scale_of(total, nothing)
        if len(windows) and start > 0:
            if stop < start + block:  # the last window: the text's last two blocks' worth
                now[:] = 0
                _add_vectors(now, words[n - 2 * block :], pieces, vectors)
                _apply_heads(dots, terms.dense, now)
                before[:] = 0
                dots_before[:] = 0
            scale = _scale_of(before, now)
            for head in range(n_heads):
                windows[start // block - 1, head] = (dots_before[head] + dots[head]) * scale
    scale = _scale_of(total, nothing)
    for d in range(len(total)):
        total[d] *= scale
    return windows


@compiled
def _find_grams(
    words: _Ids, hashes: npt.NDArray[np.uint32], n_buckets: int, factor: np.uint64
) -> tuple[_Ids, _Ids, _Ids]:
    """Find the buckets of a text's words (at even places) and of the pairs between them.

    Args:
        words: Of one text.
        hashes: Hash of every word.
        n_buckets: A power of two; words hash into the lower half, pairs into the upper.
        factor: Multiplies the hash of a pair's first word.

    Returns:
        The buckets; for each the last place before with the same one, -1 at the first; and how
        many there are up to and with it.
    """
    n = 2 * len(words) - 1
    half = np.uint64(n_buckets // 2)
    buckets, before, nth = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    left = np.uint64(0)
    for i in range(len(words)):
        right = np.uint64(hashes[words[i]])
        buckets[2 * i] = np.int32(right & (half - np.uint64(1)))
        if i:
            pair = left * factor + right
            buckets[2 * i - 1] = np.int32(half + (pair & (half - np.uint64(1))))
        left = right
    # A hash table of the last place of every bucket.
    size = 2
    while size < 2 * n:
        size *= 2
    last = np.full(size, -1, np.int32)
    for place in range(n):
        slot = (np.int64(buckets[place]) * 40503 >> 4) & (size - 1)
        while last[slot] >= 0 and buckets[last[slot]] != buckets[place]:
            slot = (slot + 1) & (size - 1)
        before[place] = last[slot]
        nth[place] = 1 + (nth[last[slot]] if last[slot] >= 0 else 0)
        last[slot] = place
    return buckets, before, nth


@compiled
def _sum_up(buckets: _Ids, terms: Terms) -> _Doubles:
    """Sum up what n-grams count for, as if each came once.

    Returns:
        Shape (n + 1, n_heads + 3), at i the sums over the first i: idf squared, idf times weight
        for every head, and weight and squared idf in the lexicon.
    """
    n, width = len(buckets), terms.grams.shape[1]
    sums = np.zeros((n + 1, width + 2))
    # Fetched before they are added, so that the processor waits for many of them at a time.
    for place in range(n):
        for k in range(width):
            sums[place + 1, k] = terms.grams[buckets[place], k]
    if len(terms.lexicon):
        for place in range(0, n, 2):
            sums[place + 1, width] = terms.lexicon[buckets[place], 0]
            sums[place + 1, width + 1] = terms.lexicon[buckets[place], 1]
    for place in range(n):
        for k in range(width + 2):
            sums[place + 1, k] += sums[place, k]
    return sums


@compiled
def _take_grams(
    out: _Doubles, sums: _Doubles, begin: int, end: int, before: _Ids, nth: _Ids
) -> None:
    """Sum up some n-grams with 1 + ln tf for each, where tf counts among them alone."""
    last = len(out) - 1
    for k in range(last + 1):
        out[k] = sums[end, k] - sums[begin, k]
    for place in range(begin, end):
        if before[place] >= begin:
            count = nth[place]
            if begin > 0:
                count, at = 1, before[place]
                while at >= begin:
                    count, at = count + 1, before[at]
            growth, square_growth = _growth(count)
            for k in range(last + 1):
                own = sums[place + 1, k] - sums[place, k]
                is_square = k in (0, last)
                out[k] += own * ((square_growth if is_square else growth) - 1)


@compiled
def _score(taken: _Doubles, head: int, terms: Terms) -> float:
    """Return a head's score of what `_take_grams` summed up."""
    score: float = taken[1 + head] / np.sqrt(taken[0])
    lexicon, square = taken[-2], taken[-1]
    if head == terms.lexicon_head and square > 0:
        score += lexicon / np.sqrt(square)
    return score


@compiled
def _read_grams(
    out: Readings,
    row: int,
    words: _Ids,
    hashes: npt.NDArray[np.uint32],
    terms: Terms,
    windows: _Doubles,
    cuts: tuple[int, int],
) -> None:
    """Add a text's words and pairs to the scores of its embeddings, and find the worst window.

    Args:
        out: Row `row` is written.
        row: Of the text.
        words: Of one text.
        hashes: As in `judge`, like the rest.
        terms: The heads.
        windows: From `_read_vectors`.
        cuts: Words in a block, and words up to which a text has no windows.
    """
    block, uncut = cuts
    n_heads, n = len(terms.dense), len(words)
    buckets, before, nth = _find_grams(words, hashes, len(terms.grams), terms.pair)
    sums, taken = _sum_up(buckets, terms), np.zeros(n_heads + 3)
    limits = np.minimum(terms.limits, n)
    for head in range(n_heads):
        if head == 0 or limits[head] != limits[head - 1]:
            _take_grams(taken, sums, 0, 2 * limits[head] - 1, before, nth)
        out.wholes[row, head] += _score(taken, head, terms)
    for window in range(len(windows)):
        start = min(window * block, n - 2 * block)
        stop = start + 2 * block
        _take_grams(taken, sums, 2 * start, 2 * stop - 1, before, nth)
        for head in range(n_heads):
            if limits[head] > uncut and stop <= limits[head]:
                score = windows[window, head] + _score(taken, head, terms)
                out.n_windows[row, head] += 1
                if score > out.worst[row, head]:
                    out.worst[row, head], out.starts[row, head] = score, start


@compiled
def judge(
    words: _Ids,
    offsets: _Ints,
    pieces: _Pieces,
    vectors: _Singles,
    hashes: npt.NDArray[np.uint32],
    terms: Terms,
    cuts: tuple[int, int],
) -> Readings:
    """Read every text once: as a whole, and long ones window by window.

    A window is two blocks of words, and the last one the end of its text. So every vector is
    added to its block alone, and blocks to windows and the whole.

    Args:
        words: Word ids of all texts.
        offsets: Text i is ``words[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        pieces: (first, count, flat): word w has ``flat[first[w]:first[w] + count[w]]``.
        vectors: Shape (n_vocabulary, n_dimensions).
        hashes: Hash of every word.
        terms: The heads.
        cuts: Words in a block, and words up to which a text has no windows.
    """
    n, n_heads = len(offsets) - 1, len(terms.dense)
    out = Readings(
        np.zeros((n, vectors.shape[1]), np.float32),
        np.zeros((n, n_heads), np.float64),
        np.full((n, n_heads), -np.inf),
        np.zeros((n, n_heads), np.int64),
        np.zeros((n, n_heads), np.int64),
    )
    for row in range(n):
        own = words[offsets[row] : offsets[row + 1]]
        if len(own):
            windows = _read_vectors(
                out.embeddings[row], out.wholes[row], own, pieces, vectors, terms, cuts
            )
            if n_heads:
                _read_grams(out, row, own, hashes, terms, windows, cuts)
    return out
