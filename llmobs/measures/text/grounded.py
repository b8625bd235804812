"""How much of an answer is borne out by the documents it was given: no model call."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.indirect import sentences
from llmobs.measures.text.kernels.support import supports
from llmobs.measures.text.packaged import packaged
from llmobs.measures.text.relevance import RelevanceModel, load_relevance

__all__ = ["Grounding", "GroundingModel", "groundedness", "load_grounding"]

# Idf below which a word piece says nothing about a matter: articles, prepositions, "you".
_COMMON_IDF: Final = 1.5
# Idf that a sentence needs to claim anything, about two telling words: "I hope this helps!"
# does not.
_MIN_MASS: Final = 12.0
# Of answers and documents of more sentences the first and the last half are read: the work is
# the product of the two.
_MAX_SENTENCES: Final = 400
# Said to the user or about oneself, and nothing of the matter (in English): most answers of
# assistants end with one.
_ASIDE: Final = re.compile(
    r"\W*(?:let me know|please let me|feel free|i hope|if you (?:have any|need any|would like)"
    r"|i(?:['’]m| am) (?:sorry|unable|happy|here)|i (?:could|can|do|did)(?:n['’]t| ?not))\b",
    re.IGNORECASE,
)
# Keys and braces are no sentences.
_JSON: Final = re.compile(r"\s*(\{|\[\s*[{\[\"])")
# Citations such as [1, 2] match without the group: they are no numbers of the answer's own.
_NUMBER: Final = re.compile(r"\[[\d,;\s–-]+\]|(?<!\w)(\d+(?:[.,:]\d+)*)")
_LIST_MARK: Final = re.compile(r"\s*\d{1,3}[.)]\s")
# Not "one", which is rarely a number.
_WORDS: Final = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_SPELLED: Final = {word: str(number) for number, word in enumerate(_WORDS, start=2)}
_AS_WORD: Final = {number: word for word, number in _SPELLED.items()}
_SPELLED_NUMBER: Final = re.compile(rf"\b(?:{'|'.join(_SPELLED)})\b")
# A capital after a word or a comma, so not the one that begins a sentence.
_NAME: Final = re.compile(r"(?<=[\w,;:(] )[A-Z]\w+")
# English prose has about one name in twenty words; German writes one word in four with a
# capital, and headlines most: there a capital doesn't make a name.
_MOST_NAMES: Final = 1 / 6


class Grounding(NamedTuple):
    """What was found in every answer.

    Attributes:
        values: Share of its sentences that its document supports, in [0, 1], shape (n,); NaN
            without a document or a sentence that claims anything.
        n_sentences: How many sentences were judged, shape (n,).
        places: (start, end) of the least supported sentence in characters; (0, 0) without one.
    """

    values: npt.NDArray[np.float64]
    n_sentences: npt.NDArray[np.int64]
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class GroundingModel:
    """Judges an answer sentence by sentence.

    A sentence's support is the mean of two likenesses: the share of its idf whose word pieces
    stand in one passage (three sentences running), and the cosine to the likest sentence. A
    number or a name that the document doesn't have takes all of it away.

    Attributes:
        words: Says what words weigh.
        supported_from: Support from which a sentence counts as borne out. Of sentences that
            were cut out of the document they are held against, one in four reaches it.
        threshold: An answer fails at this share of supported sentences and below.
        version: Changes whenever a value may.
    """

    words: RelevanceModel
    supported_from: float = 0.58
    threshold: float = 0.5
    version: str = ""

    def judge(self, answers: Sequence[str], documents: Sequence[str]) -> Grounding:
        """Hold every answer against its document, the same number of both."""
        distinct = list(dict.fromkeys(documents))
        number = {text: i for i, text in enumerate(distinct)}
        claims = [_claims(text) for text in answers]
        sources = [_cuts(text) for text in distinct]
        claim_texts = _pieces(answers, claims)
        owners = np.repeat(np.arange(len(answers)), [len(cut) for cut in claims])
        held_against = np.array([number[text] for text in documents], np.int64)[owners]
        ends = len(claim_texts) + np.cumsum([0, *map(len, sources)])
        bounds = np.column_stack((ends[:-1], ends[1:]))[held_against]

        features = TextEncoder.load().encode([*claim_texts, *_pieces(distinct, sources)])
        masses, shares, cosines = supports(
            features.words,
            features.offsets,
            features.table.pieces(),
            self._weights,
            self.words.vectors(features),
            bounds,
        )
        support = (shares + cosines) / 2
        facts = [_Facts(text) for text in distinct]
        for i, (text, document) in enumerate(zip(claim_texts, held_against.tolist(), strict=True)):
            if support[i] >= self.supported_from and not facts[document].has_all_of(text):
                support[i] = 0.0
        judged = (masses >= _MIN_MASS) & (bounds[:, 1] > bounds[:, 0])
        return self._by_answer(len(answers), claims, owners, np.where(judged, support, np.nan))

    def _by_answer(
        self,
        n: int,
        claims: Sequence[Sequence[tuple[int, int]]],
        owners: npt.NDArray[np.int64],
        support: npt.NDArray[np.float64],
    ) -> Grounding:
        """Sum up what was found of every sentence; NaN where it was not judged."""
        judged = np.isfinite(support)
        n_sentences = np.bincount(owners[judged], minlength=n)
        n_supported = np.bincount(owners[support >= self.supported_from], minlength=n)
        values = np.full(n, np.nan)
        np.divide(n_supported, n_sentences, out=values, where=n_sentences > 0)
        places, first = [(0, 0)] * n, 0
        ranked = np.where(judged, support, np.inf)
        for row, cut in enumerate(claims):
            if n_sentences[row]:
                places[row] = cut[int(ranked[first : first + len(cut)].argmin())]
            first += len(cut)
        return Grounding(values, n_sentences, places)

    @cached_property
    def _weights(self) -> npt.NDArray[np.float32]:
        weights: npt.NDArray[np.float32] = np.maximum(self.words.idf - np.float32(_COMMON_IDF), 0)
        return weights


class _Facts:
    """Numbers and names of a document, read when first asked for."""

    def __init__(self, document: str) -> None:
        self._document = document

    def has_all_of(self, sentence: str) -> bool:
        """Tell whether every number and every name of a sentence stands in the document."""
        spelled = [_SPELLED[word] for word in _SPELLED_NUMBER.findall(sentence.lower())]
        if not all(map(self._has_number, _numbers(sentence) + spelled)):
            return False
        names = _NAME.findall(sentence)
        return all(name.lower() in self._lower for name in names) or self._capitals_mean_little

    def _has_number(self, number: str) -> bool:
        return number in self._numbers or _AS_WORD.get(number) in self._spelled

    @cached_property
    def _lower(self) -> str:
        return self._document.lower()

    @cached_property
    def _numbers(self) -> frozenset[str]:
        return frozenset(_numbers(self._document))

    @cached_property
    def _spelled(self) -> frozenset[str | None]:
        return frozenset(_SPELLED_NUMBER.findall(self._lower))

    @cached_property
    def _capitals_mean_little(self) -> bool:
        n_words = 1 + self._document.count(" ")
        return len(_NAME.findall(self._document)) > _MOST_NAMES * n_words


def _numbers(text: str) -> list[str]:
    """Return numbers as written, without thousands' commas, list marks and citations."""
    mark = _LIST_MARK.match(text)
    found = _NUMBER.findall(text, mark.end() if mark else 0)
    return [number.replace(",", "") for number in found if number]


def _claims(answer: str) -> list[tuple[int, int]]:
    """Return the sentences of an answer that may claim something."""
    if _JSON.match(answer):
        return []
    return [
        (i, j)
        for i, j in _cuts(answer)
        if not (answer.endswith("?", i, j) or _ASIDE.match(answer, i, j))
    ]


def _cuts(text: str) -> list[tuple[int, int]]:
    cuts = sentences(text)
    half = _MAX_SENTENCES // 2
    return cuts if len(cuts) <= _MAX_SENTENCES else [*cuts[:half], *cuts[-half:]]


def _pieces(texts: Sequence[str], cuts: Sequence[Sequence[tuple[int, int]]]) -> list[str]:
    return [text[i:j] for text, cut in zip(texts, cuts, strict=True) for i, j in cut]


@cache
def load_grounding() -> GroundingModel:
    """Return the model over the packaged weights."""
    both = packaged("relevance.safetensors") + packaged("static.safetensors")
    return GroundingModel(load_relevance(), version=f"1+{zlib.crc32(both):08x}")


def groundedness(answers: Sequence[str], documents: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the share of each answer's sentences that its document supports, shape (n,).

    NaN without a document, without a sentence that claims anything, and for JSON. It tells what
    the document doesn't speak of, and numbers and names that it doesn't have; it can't tell a
    fact turned round in the document's own words.
    """
    return load_grounding().judge(answers, documents).values
