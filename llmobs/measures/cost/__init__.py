"""What calls cost, from published prices and counted tokens."""

from __future__ import annotations

from llmobs.measures.cost.prices import Bill, Call, Override, PriceBook, UnpricedModel, Usage

__all__ = ["Bill", "Call", "Override", "PriceBook", "UnpricedModel", "Usage"]
