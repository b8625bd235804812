"""Runs of words that a text has said before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["repeats"]

_Ints = npt.NDArray[np.int64]


@compiled
def repeats(
    words: npt.NDArray[np.int32],
    offsets: _Ints,
    hashes: npt.NDArray[np.uint32],
    drawn: npt.NDArray[np.uint32],
    n_words: int,
    n_before: int,
) -> tuple[npt.NDArray[np.float64], _Ints]:
    """Count every row's runs of words that came up a number of times before.

    Args:
        words: Word ids of all rows.
        offsets: Row i is ``words[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        hashes: Hash of every word.
        drawn: Hashes of marks that lines are drawn with: a row of one of them counts as one.
        n_words: Length of a run.
        n_before: How often a run may come up without being counted.

    Returns:
        The share of the row's runs that are counted, NaN for a row shorter than a run, and the
        position in words of the first one, -1 without one; both of shape (n,).
    """
    # Odd, so that every word of a run tells (FNV's 64-bit prime).
    base = np.uint64(1_099_511_628_211)
    oldest = np.uint64(1)
    for _ in range(n_words):
        oldest *= base
    n = len(offsets) - 1
    shares, firsts = np.full(n, np.nan), np.full(n, -1, np.int64)
    for row in range(n):
        places = np.empty(offsets[row + 1] - offsets[row], np.int64)
        n_kept = 0
        for at in range(offsets[row], offsets[row + 1]):
            again = at > offsets[row] and words[at] == words[at - 1]
            if not (again and np.any(drawn == hashes[words[at]])):
                places[n_kept] = at
                n_kept += 1
        n_runs = n_kept - n_words + 1
        if n_runs <= 0:
            continue
        keys = np.empty(n_runs, np.uint64)
        key = np.uint64(0)
        for i in range(n_kept):
            key = key * base + np.uint64(hashes[words[places[i]]])
            if i >= n_words:
                key -= oldest * np.uint64(hashes[words[places[i - n_words]]])
            if i >= n_words - 1:
                keys[i - n_words + 1] = key
        order = np.argsort(keys, kind="mergesort")  # equal keys stay in the text's order
        counted, same = 0, 0
        for i in range(n_runs):
            same = same + 1 if i and keys[order[i]] == keys[order[i - 1]] else 0
            if same >= n_before:
                counted += 1
                start = places[order[i]] - offsets[row]
                if firsts[row] < 0 or start < firsts[row]:
                    firsts[row] = start
        shares[row] = counted / n_runs
    return shares, firsts
