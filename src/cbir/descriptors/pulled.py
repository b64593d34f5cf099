"""Which model of the hub may describe photos by default."""

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
        if model.origin == "store" and _came_from_hub(card) and card.licence.lower() in PERMISSIVE:
            return model.descriptor
    return None


def _came_from_hub(card: ModelCard) -> bool:
    return isinstance(card.training, dict) and str(card.training.get("source")).startswith(PREFIX)
