"""Sequential drift detection: references, e-detectors, effect sizes. Pure, exact, small.

Start with `evidence.py` (why one may look at any time), then `mean.py`, the plainest detector.
"""

from llmobs.measures.drift.category import CategoryE, CategoryReference
from llmobs.measures.drift.clusters import Codebook
from llmobs.measures.drift.effect import (
    histogram_wasserstein,
    jeffreys_interval,
    jensen_shannon,
    mean_shift_sd,
    population_stability_index,
    rate_ratio,
)
from llmobs.measures.drift.evidence import log_threshold
from llmobs.measures.drift.mean import MeanE, MeanReference
from llmobs.measures.drift.rate import OPENED, TURNED, RateE, RateReference
from llmobs.measures.drift.reference import CELLS_PER_ROUTE, Sample, hour_cells
from llmobs.measures.drift.state import Tree, pack, unpack
from llmobs.measures.drift.witness import Basis, WitnessE, WitnessReference

__all__ = [
    "CELLS_PER_ROUTE",
    "OPENED",
    "TURNED",
    "Basis",
    "CategoryE",
    "CategoryReference",
    "Codebook",
    "MeanE",
    "MeanReference",
    "RateE",
    "RateReference",
    "Sample",
    "Tree",
    "WitnessE",
    "WitnessReference",
    "histogram_wasserstein",
    "hour_cells",
    "jeffreys_interval",
    "jensen_shannon",
    "log_threshold",
    "mean_shift_sd",
    "pack",
    "population_stability_index",
    "rate_ratio",
    "unpack",
]
