"""Measures of texts: lists of texts in, arrays out. One pass over the words serves them all.

``encoder.py`` cuts texts into words (``words.py``), ``features.py`` holds what follows from them,
``heads.py``, ``relevance.py`` and ``repetition.py`` judge by it, all heads in one pass
(``panel.py``), ``indirect.py`` and ``grounded.py`` sentence by sentence; ``pii.py``,
``language.py`` and ``form.py`` (with ``schema.py``) read the text itself.
``kernels/`` has the compiled loops, ``train/`` makes the packaged weights.
"""

from llmobs.measures.text.encoder import TextEncoder
from llmobs.measures.text.features import TextFeatures
from llmobs.measures.text.form import FORM_VERSION, json_faults
from llmobs.measures.text.grounded import (
    Grounding,
    GroundingModel,
    groundedness,
    load_grounding,
)
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
from llmobs.measures.text.repetition import (
    REPETITION_THRESHOLD,
    REPETITION_VERSION,
    Repetition,
    repetition,
    stuck,
)


def warm() -> None:
    """Load the weights and compile what is compiled on first use, some seconds' work at most."""
    text = ["What is compiled on first use, is compiled by this."]
    toxicity(text)
    relevance(text, text)
    groundedness(text, text)
    repetition(text)
    indirect_injection(text)
    language(text)
    pii(text)


__all__ = [
    "FORM_VERSION",
    "LANGUAGE_VERSION",
    "PII_VERSION",
    "REPETITION_THRESHOLD",
    "REPETITION_VERSION",
    "UNDETERMINED",
    "Grounding",
    "GroundingModel",
    "Head",
    "IndirectModel",
    "Judgement",
    "PiiSpan",
    "PlantedOrders",
    "RelevanceModel",
    "Repetition",
    "TextEncoder",
    "TextFeatures",
    "groundedness",
    "indirect_injection",
    "injection",
    "json_faults",
    "language",
    "load_grounding",
    "load_head",
    "load_indirect",
    "load_relevance",
    "pii",
    "refusal",
    "relevance",
    "repetition",
    "stuck",
    "toxicity",
    "warm",
]
