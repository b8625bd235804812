"""Which language a text is in."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.automaton import classify

__all__ = ["LANGUAGE_VERSION", "UNDETERMINED", "language"]

LANGUAGE_VERSION: Final = f"1+py3langid-{version('py3langid')}"
UNDETERMINED: Final = "und"
"""ISO 639-2 for "could not tell"."""

# More tells little: accuracy on prompts is the same, and a text costs what its length costs.
_MAX_CHARS: Final = 200
_MIN_LETTERS: Final = 3
# On short UI strings of 17 languages 0.9 % stay below; half of those would be wrong.
_MIN_CONFIDENCE: Final = 0.1
# The identifier takes short English questions ("do i need to pay …") for Nigerian Pidgin.
_TAKEN_FOR: Final = {"pcm": "en"}


class _Model(NamedTuple):
    """What py3langid's identifier holds, as arrays.

    Attributes:
        weights: Of every feature for every class, shape (n_features, n_classes).
        prior: Log share of every class, shape (n_classes,).
        labels: Code of every class; one may come twice, in two scripts.
        aliases: Pairs of classes with one code: the first and another; shape (n_pairs, 2).
        next_move: The automaton; see `classify`.
        rows: Row of every state of the automaton.
        output: Feature of every state.
    """

    weights: npt.NDArray[np.float32]
    prior: npt.NDArray[np.float32]
    labels: Sequence[str]
    aliases: npt.NDArray[np.int64]
    next_move: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint16]
    output: npt.NDArray[np.int32]


@cache
def _model() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # Its own loop over the bytes is Python's, and ten times slower than all else here.
    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    classes = list(identifier.nb_classes)
    aliases = [(classes.index(c), i) for i, c in enumerate(classes) if classes.index(c) < i]
    return _Model(
        np.asarray(identifier.nb_ptc, np.float32),
        np.asarray(identifier.nb_pc, np.float32),
        [_TAKEN_FOR.get(code, code) for code in classes],
        np.array(aliases, np.int64).reshape(-1, 2),
        np.asarray(identifier.tk_nextmove, np.uint32),
        np.asarray(identifier.tk_row, np.uint16),
        np.asarray(identifier.tk_output, np.int32),
    )


def _has_letters(text: str) -> bool:
    return sum(1 for _ in islice(filter(str.isalpha, text), _MIN_LETTERS)) == _MIN_LETTERS


def _as_bytes(text: str) -> bytes:
    """Return what py3langid reads of a text."""
    text = unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
    return text.encode(errors="surrogatepass")


def language(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Identify the language of each text by its first 200 characters.

    Says what py3langid's ``classify`` says with normalized probabilities.

    Returns:
        ISO 639-1 codes, or 639-3 where a language has none there (`UNDETERMINED` for a text
        with fewer than three letters, and below a confidence of 0.1), and the identifier's
        confidence in [0, 1], shape (n,), NaN where undetermined.
    """
    starts = [text[:_MAX_CHARS] for text in texts]
    read = [_as_bytes(start) if _has_letters(start) else b"" for start in starts]
    model = _model()
    best, confidences = classify(
        np.frombuffer(b"".join(read), np.uint8),
        np.cumsum([len(data) for data in read], dtype=np.int64),
        model.next_move,
        model.rows,
        model.output,
        model.weights,
        model.prior,
        model.aliases,
    )
    sure = confidences >= _MIN_CONFIDENCE
    labels = [
        model.labels[which] if known else UNDETERMINED
        for which, known in zip(best.tolist(), sure.tolist(), strict=True)
    ]
    return labels, np.where(sure, confidences, np.nan)
