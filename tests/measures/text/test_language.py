from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmobs.measures.text import UNDETERMINED, language
from llmobs.measures.text.train.corpora import Corpora

HELD_OUT = Corpora(Path(__file__).parent / "data", held_out=True)


def test_short_interface_strings_of_seventeen_languages_are_told_apart() -> None:
    rows = HELD_OUT.rows("language_ui_strings")
    codes, _ = language([row["text"] for row in rows])
    right = [code == row["label"] for code, row in zip(codes, rows, strict=True)]
    assert np.mean(right) >= 0.93


def test_english_prompts_are_english() -> None:
    codes, _ = language([row["text"] for row in HELD_OUT.rows("benign_prompts")])
    assert codes.count("en") / len(codes) >= 0.99


@pytest.mark.parametrize("text", ["", "42", "?!", "ok", "12 + 30 = 42"])
def test_a_text_without_words_has_no_language(text: str) -> None:
    codes, confidences = language([text])
    assert codes == [UNDETERMINED]
    assert np.isnan(confidences[0])


def test_confidence_is_a_share() -> None:
    codes, confidences = language(["Wie spät ist es, und wann kommt der Zug?"])
    assert codes == ["de"]
    assert 0.5 < confidences[0] <= 1


def test_it_says_what_the_library_says() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    rows = [*HELD_OUT.rows("language_ui_strings"), *HELD_OUT.rows("benign_prompts")]
    texts = [row["text"] for row in rows] + [
        "ПРИВЕТ, МИР",
        "Živeo život! Живео живот!",
        "日本語の文章",
    ]
    for text, code, confidence in zip(texts, *language(texts), strict=True):
        expected, share = theirs.classify(text[:200])
        if code != UNDETERMINED and expected != "pcm":
            assert (code, confidence) == (expected, pytest.approx(share, abs=1e-4))


def test_a_text_is_told_the_same_in_any_company() -> None:
    texts = [row["text"] for row in HELD_OUT.rows("language_ui_strings")][:60]
    texts += ["", "42", "ПРИВЕТ", "\ud800abc", "日本語の文章"]
    codes, confidences = language(texts)
    for text, code, confidence in zip(texts, codes, confidences, strict=True):
        (alone,), (share,) = language([text])
        assert (alone, share) == (code, pytest.approx(confidence, nan_ok=True))


def test_no_texts_have_no_languages() -> None:
    codes, confidences = language([])
    assert (codes, len(confidences)) == ([], 0)
