"""Thresholds of scores from the traffic itself, to a chosen share of false positives.

What users send is almost all benign: a threshold that one text in a hundred crosses flags one
benign text in a hundred at most, and the attacks among the texts only make it stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Final

import numpy as np

from llmobs.analyzer.store.base import Row, Store
from llmobs.errors import ConfigurationError
from llmobs.measures.text.thresholds import threshold_for

__all__ = ["Calibrator"]

# Of so many a share of 1 % is known to a tenth of a percent.
_MAX_VALUES: Final = 50_000
# Of ours the low values fail; of others what was seen to fail says it.
_FAIL_BELOW: Final = frozenset({"format", "groundedness", "helpfulness", "relevance"})


class Calibrator:
    """Finds thresholds by score, target, service and language.

    Args:
        store: Has the scores.
        names: Gives the names of the scorers that run.
    """

    def __init__(self, store: Store, names: Callable[[], Collection[str]]) -> None:
        self._store, self._names = store, names

    def thresholds(
        self, since_ns: int, until_ns: int, share: float, names: Sequence[str] = ()
    ) -> list[Row]:
        """Return a threshold for each place that has scores with a verdict.

        Args:
            since_ns: Begin of the window.
            until_ns: Its end, exclusive.
            share: Of false positives, in (0, 1).
            names: Of scorers; empty: all that run.

        Returns:
            name, target, version, service, language ("": not known), fails (``from`` the
            threshold on, or ``below`` it), n (values), threshold (None: no value has so small a
            share), low, high (95 % interval; None: the sample is too small), share (that the
            threshold flags), share_now (that fails at present).

        Raises:
            ConfigurationError: A name is no scorer's.
        """
        known = self._names()
        if unknown := sorted(set(names) - set(known)):
            raise ConfigurationError(
                f"no scorer {unknown[0]!r} runs here; there are {', '.join(sorted(known))}"
            )
        samples = self._store.score_samples(since_ns, until_ns, names or known, _MAX_VALUES)
        rows = []
        for _, places in groupby(samples, key=lambda row: (row["name"], row["target"])):
            of_score = list(places)
            fails_below = _fails_below(of_score)
            rows += [_threshold(row, share, fails_below=fails_below) for row in of_score]
        return rows


def _fails_below(places: Sequence[Row]) -> bool:
    """Return whether it is low values that fail, by a place where some failed and some passed."""
    for row in places:
        if row["most_failing"] is not None and row["least_passing"] is not None:
            return bool(row["most_failing"] <= row["least_passing"])
    return places[0]["name"] in _FAIL_BELOW


def _threshold(row: Row, share: float, *, fails_below: bool) -> Row:
    found = threshold_for(np.asarray(row["values"], np.float64), share, fails_below=fails_below)
    return {
        **{key: row[key] for key in ("name", "target", "version", "service", "language", "n")},
        "fails": "below" if fails_below else "from",
        "threshold": found.value,
        "low": found.low,
        "high": found.high,
        "share": found.share,
        "share_now": row["n_fail"] / row["n"],
    }
