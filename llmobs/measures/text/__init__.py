"""Measures of texts: lists of texts in, arrays out. One pass over the words serves them all.

``encoder.py`` cuts texts into words (``words.py``), ``features.py`` holds what follows from them,
``heads.py`` and ``relevance.py`` judge by it, all heads in one pass (``panel.py``), and
``indirect.py`` sentence by sentence; ``pii.py`` and ``language.py`` read the text itself.
``kernels/`` has the compiled loops, ``train/`` makes the packaged weights.
"""

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.heads import Head, Judgement, load_head
from llmobs.measures.text.indirect import (
    IndirectModel,
    PlantedOrders,
    indirect_injection,
    load_indirect,
)
from llmobs.measures.text.judgements import injection, refusal, toxicity
from llmobs.measures.text.language import LANGUAGE_VERSION, UNDETERMINED, language
from llmobs.measures.text.pii import PII_VERSION, PiiSpan, pii
from llmobs.measures.text.relevance import RelevanceModel, load_relevance, relevance


def warm() -> None:
    """Load the weights and compile what is compiled on first use, some seconds' work at most."""
    text = ["What is compiled on first use, is compiled by this."]
    toxicity(text)
    relevance(text, text)
    indirect_injection(text)
    language(text)
    pii(text)


__all__ = [
    "LANGUAGE_VERSION",
    "PII_VERSION",
    "UNDETERMINED",
    "Head",
    "IndirectModel",
    "Judgement",
    "PiiSpan",
    "PlantedOrders",
    "RelevanceModel",
    "TextEncoder",
    "TextFeatures",
    "indirect_injection",
    "injection",
    "language",
    "load_head",
    "load_indirect",
    "load_relevance",
    "pii",
    "refusal",
    "relevance",
    "toxicity",
    "warm",
]
