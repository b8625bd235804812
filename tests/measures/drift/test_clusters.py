from __future__ import annotations

import numpy as np
import pytest

from llmobs.measures.drift import Basis, Codebook

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(5, 16))


def rows(n: int, topics: int = 4) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    topic = RNG.integers(0, topics, n)
    return (CENTRES[topic] + RNG.normal(size=(n, 16)) / 10).astype(np.float32)


def test_rows_of_one_topic_share_few_codes_and_a_new_topic_is_far() -> None:
    book = Codebook.fit(rows(400))
    near = (CENTRES[0] + RNG.normal(size=(200, 16)) / 10).astype(np.float32)
    new = (CENTRES[4] + RNG.normal(size=(200, 16)) / 10).astype(np.float32)
    assert (book.assign(new) == book.n_codes - 1).mean() > 0.95
    assert (book.assign(near) == book.n_codes - 1).mean() < 0.1


def test_the_same_sample_gives_the_same_clusters() -> None:
    sample = rows(300)
    a, b = Codebook.fit(sample), Codebook.fit(sample.copy())
    assert a.centroids.tobytes() == b.centroids.tobytes()
    assert a.far == b.far


def test_a_row_without_embedding_has_no_code() -> None:
    book = Codebook.fit(rows(100))
    some = rows(3)
    some[1] = np.nan
    assert (book.assign(some) >= 0).tolist() == [True, False, True]
    assert book.assign(some[:0]).shape == (0,)


def test_equal_rows_make_one_cluster() -> None:
    book = Codebook.fit(np.ones((50, 4), np.float32))
    assert book.n_codes == 2
    assert np.isfinite(book.centroids).all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="10 rows"):
        Codebook.fit(rows(9))


def test_a_basis_keeps_lengths_and_shows_what_it_never_saw() -> None:
    sample = np.zeros((100, 8), np.float32)
    sample[:, :3] = RNG.normal(size=(100, 3))
    basis = Basis.fit(sample, n_directions=3)
    projected = basis.project(sample)
    assert np.abs(projected[:, 3]).max() < 1e-2
    new = sample[:1].copy()
    new[0, 7] = 2.0
    assert basis.project(new)[0, 3] == pytest.approx(2.0, rel=1e-3)


def test_equal_rows_are_never_far_whatever_batch_they_come_in() -> None:
    row = RNG.normal(size=256).astype(np.float32)
    row /= np.linalg.norm(row)
    book = Codebook.fit(np.tile(row, (100, 1)))
    for n in (1, 2, 3, 7, 64, 1000):
        assert (book.assign(np.tile(row, (n, 1))) == 0).all()
