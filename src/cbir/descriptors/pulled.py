"""Tells which models came from the hub, and which of them describes photos by default."""

from __future__ import annotations

from cbir.descriptors.cards import Model, ModelCard
from cbir.descriptors.hub.known import PREFIX
from cbir.descriptors.models import models

PERMISSIVE = (
    *("apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "mit"),
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
)
"""Licences that allow every use, in lower case; docs/descriptors.md lists them."""


def pulled_default() -> Model | None:
    """The model of the store that was pulled last, of those with a permissive licence."""
    for model in models():
        card = model.descriptor.card
        if model.origin == "store" and hub_source(card) and card.licence.lower() in PERMISSIVE:
            return model.descriptor
    return None


def hub_source(card: ModelCard) -> str | None:
    """`hf:OWNER/NAME@COMMIT` of a model that was pulled from the hub, None for all others."""
    source = str(card.training.get("source")) if isinstance(card.training, dict) else ""
    return source if source.startswith(PREFIX) else None
