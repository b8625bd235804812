"""Orders inside documents and tool results: an attack there may look like an ordinary request."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from scipy.special import expit

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.heads import Head, load_head
from llmobs.measures.text.packaged import packaged, weights
from llmobs.measures.text.panel import Panel

__all__ = ["IndirectModel", "PlantedOrders", "indirect_injection", "load_indirect", "sentences"]

# The same bounds as the encoder's: of a longer document the first and the last half are read.
_HALF_CHARS: Final = 8_192
# Also between fields of a record ("SUBJECT: …|CONTENT: …"), where no full stop stands.
_BREAK: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+|\|(?=[A-Z_ ]{3,20}:)")
_MIN_WORDS: Final = 2


class PlantedOrders(NamedTuple):
    """What was found in every document.

    Attributes:
        probabilities: That somebody planted an order, shape (n,); NaN without a word.
        places: (start, end) of the sentence that decided, in characters; (0, 0) without one.
    """

    probabilities: npt.NDArray[np.float64]
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class IndirectModel:
    """A head for sentences, and what its worst sentence says about a document.

    Attributes:
        head: Tells a request to an assistant from a sentence of a document.
        slope: Of the worst sentence's logit.
        per_log: Of ln(number of sentences): the more there are, the worse the worst of them.
        threshold: Probability that about 1 % of whole documents reach.
        version: Changes with every weight.
    """

    head: Head
    slope: float
    per_log: float
    bias: float
    threshold: float = 0.5
    version: str = ""

    def judge(self, texts: Sequence[str], encoder: TextEncoder | None = None) -> PlantedOrders:
        """Judge documents by their worst sentence.

        Args:
            texts: Each a document or a tool result of its own.
            encoder: By default the packaged one.
        """
        worst, counts, places = self.worst_sentences(texts, encoder)
        logits = self.slope * worst + self.per_log * np.log(counts) + self.bias
        return PlantedOrders(np.asarray(expit(logits)), places)

    def worst_sentences(
        self, texts: Sequence[str], encoder: TextEncoder | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], list[tuple[int, int]]]:
        """Return each document's highest logit (or NaN), its number of sentences, and the place."""
        cuts = [sentences(text) for text in texts]
        counts = np.array([len(cut) for cut in cuts], np.int64)
        pieces = [t[i:j] for t, cut in zip(texts, cuts, strict=True) for i, j in cut]
        panel = Panel((self.head,), encoder.idf) if encoder else self._panel
        features = (encoder or TextEncoder.load()).encode(pieces)
        values = panel.read(features).judgements[0].probabilities
        values = np.where(np.isnan(values), -1.0, values)
        worst, places, first = np.full(len(texts), np.nan), [(0, 0)] * len(texts), 0
        for row, cut in enumerate(cuts):
            if cut:
                own = values[first : first + len(cut)]
                place = int(own.argmax())
                if own[place] >= 0:
                    worst[row], places[row] = own[place], cut[place]
            first += len(cut)
        # Clipped, or a sentence of probability 1 in double precision would be infinitely bad.
        worst = np.clip(worst, 1e-9, 1 - 1e-9)
        return np.log(worst / (1 - worst)), np.maximum(counts, 1), places

    @cached_property
    def _panel(self) -> Panel:
        return Panel((self.head,), TextEncoder.load().idf)

    def to_bytes(self) -> bytes:
        """Return what stands beside the head, as safetensors."""
        scalars = np.array([self.slope, self.per_log, self.bias, self.threshold])
        return bytes(safetensors.numpy.save({"scalars": scalars}))


def sentences(text: str) -> list[tuple[int, int]]:
    """Cut a text at full stops, line ends and between fields.

    Returns:
        (start, end) in characters of every piece of two words or more; of the whole text where
        no piece has as many; nothing for a blank one.
    """
    if len(text) > 2 * _HALF_CHARS:
        late = len(text) - _HALF_CHARS
        tail = [(late + i, late + j) for i, j in sentences(text[late:])]
        return [*sentences(text[:_HALF_CHARS]), *tail]
    cuts, begin = [], 0
    for gap in _BREAK.finditer(text):
        cuts.append((begin, gap.start()))
        begin = gap.end()
    cuts.append((begin, len(text)))
    long = [(i, j) for i, j in cuts if len(text[i:j].split(None, _MIN_WORDS - 1)) >= _MIN_WORDS]
    return long or ([(0, len(text))] if text.strip() else [])


@cache
def load_indirect() -> IndirectModel:
    """Return the packaged model."""
    slope, per_log, bias, threshold = weights("indirect_document.safetensors")["scalars"].tolist()
    model = IndirectModel(load_head("indirect"), slope, per_log, bias, threshold)
    both = packaged("indirect.safetensors") + packaged("indirect_document.safetensors")
    return replace(model, version=f"1+{zlib.crc32(both):08x}")


def indirect_injection(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return how likely each document holds an order to its reader, shape (n,).

    NaN without a word. Meant for what tools and retrieval bring in, not for a user's message,
    which is an order by its nature.
    """
    return load_indirect().judge(texts).probabilities
