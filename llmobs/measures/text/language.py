"""Which language a text is in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Identify the language of each text by its first 200 characters.

    Returns:
        ISO 639-1 codes, or 639-3 where a language has none there (`UNDETERMINED` for a text
        with fewer than three letters, and below a confidence of 0.1), and the identifier's
        confidence in [0, 1], shape (n,), NaN where undetermined.
    """
    classify = _identifier().classify
    labels: list[str] = []
    confidences = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        start = text[:_MAX_CHARS]
        label, confidence = UNDETERMINED, 0.0
        if sum(map(str.isalpha, start)) >= _MIN_LETTERS:
            label, confidence = classify(start)
        if confidence >= _MIN_CONFIDENCE:
            labels.append(_TAKEN_FOR.get(label, label))
            confidences[row] = confidence
        else:
            labels.append(UNDETERMINED)
    return labels, confidences
