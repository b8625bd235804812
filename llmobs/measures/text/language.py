"""Which language a text is in."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels import walk

__all__ = ["LANGUAGE_VERSION", "UNDETERMINED", "language"]

LANGUAGE_VERSION: Final = f"1+py3langid-{version('py3langid')}"
UNDETERMINED: Final = "und"
"""ISO 639-2 for "could not tell"."""

# More tells little: accuracy on prompts is the same, and a text costs what its length costs.
_MAX_CHARS: Final = 200
_MIN_LETTERS: Final = 3
# On short UI strings of 17 languages 0.9 % stay below; half of those would be wrong.
_MIN_CONFIDENCE: Final = 0.1
# Of larger products BLAS makes several threads' work, and those spin between the calls; in
# numbers of weights, OpenBLAS's own limit. The sums stay those of py3langid to the last bit.
_ONE_THREAD: Final = 9_000
# The identifier takes short English questions ("do i need to pay …") for Nigerian Pidgin.
_TAKEN_FOR: Final = {"pcm": "en"}


class _Model(NamedTuple):
    """What py3langid's identifier holds, as arrays.

    Attributes:
        weights: Of every feature for every class, shape (n_features, n_classes).
        prior: Log share of every class, shape (n_classes,).
        classes: Codes; one may come twice, in two scripts.
        aliases: Pairs of classes with one code: the first and another.
        next_move: The automaton; see `walk`.
        rows: Row of every state of the automaton.
        output: Feature of every state.
    """

    weights: npt.NDArray[np.float32]
    prior: npt.NDArray[np.float32]
    classes: Sequence[str]
    aliases: Sequence[tuple[int, int]]
    next_move: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint16]
    output: npt.NDArray[np.int32]


@cache
def _model() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # Its own loop over the bytes is Python's, and ten times slower than all else here.
    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    classes = list(identifier.nb_classes)
    return _Model(
        np.asarray(identifier.nb_ptc, np.float32),
        np.asarray(identifier.nb_pc, np.float32),
        classes,
        [(classes.index(c), i) for i, c in enumerate(classes) if classes.index(c) < i],
        np.asarray(identifier.tk_nextmove, np.uint32),
        np.asarray(identifier.tk_row, np.uint16),
        np.asarray(identifier.tk_output, np.int32),
    )


def _classify(text: str) -> tuple[str, float]:
    """Return what py3langid's ``classify`` does with normalized probabilities."""
    model = _model()
    text = unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
    data = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    counts, weights = walk(data, model.next_move, model.rows, model.output, model.weights)
    if not len(counts):
        return UNDETERMINED, 0.0
    factors = np.log1p(counts)
    width = max(_ONE_THREAD // len(counts), 1)
    parts = [factors @ weights[:, i : i + width] for i in range(0, len(model.classes), width)]
    scores = np.concatenate(parts) + model.prior
    scores *= 1.0 / math.sqrt(len(data))
    np.exp(scores - scores.max(), out=scores)
    scores /= scores.sum()
    for first, second in model.aliases:
        scores[first] += scores[second]
        scores[second] = 0
    best = int(scores.argmax())
    return model.classes[best], float(scores[best])


def language(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Identify the language of each text by its first 200 characters.

    Returns:
        ISO 639-1 codes, or 639-3 where a language has none there (`UNDETERMINED` for a text
        with fewer than three letters, and below a confidence of 0.1), and the identifier's
        confidence in [0, 1], shape (n,), NaN where undetermined.
    """
    labels: list[str] = []
    confidences = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        start = text[:_MAX_CHARS]
        label, confidence = UNDETERMINED, 0.0
        if sum(map(str.isalpha, start)) >= _MIN_LETTERS:
            label, confidence = _classify(start)
        if confidence >= _MIN_CONFIDENCE:
            labels.append(_TAKEN_FOR.get(label, label))
            confidences[row] = confidence
        else:
            labels.append(UNDETERMINED)
    return labels, confidences
