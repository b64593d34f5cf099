"""The sections on the model: how it was trained, and what it sees in a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.cards import ModelCard
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import card_of
from cbir.errors import CbirError
from cbir.images.decode import decode
from cbir.report.content import Block, Picture, Plot, Section, Table, Text
from cbir.report.model_pictures import filter_pictures, image_pictures
from cbir.report.pictures import file_bytes
from cbir.report.plots import sweep_plot
from cbir.report.training_plots import training_blocks
from cbir.training.classification import CLASSIFICATION

_JPEG_QUALITY = 88
SWEEP_HINT = "make one: cbir train bovw SOURCE --recipe seed --sweep --out sweep"


def model_sections(descriptor: Descriptor, query: bytes | None, name: str) -> list[Section]:
    """The sections on the descriptor, none if it has no card.

    `query`, named `name`, is the encoded picture that illustrates a model of local features.
    """
    card = card_of(descriptor)
    if card is None:
        return []
    sections = []
    if isinstance(descriptor, BovwDescriptor) and query:
        pictures = _pictures(descriptor, query, name)
        if pictures:
            sections.append(Section("sees", "What the model sees", pictures))
    return [*sections, _training(card)]


def _pictures(model: BovwDescriptor, query: bytes, name: str) -> list[Block]:
    drawn = image_pictures(model, decode(query), name.rpartition("/")[2]) | filter_pictures(model)
    said = {
        "keypoints": "Where local descriptors are taken.",
        "hog": "Histograms of oriented gradients: the directions of edges.",
        "words": "The frequency of each visual word (or filter), and the strongest ones.",
    }
    blocks: list[Block] = [Text(f"Drawn from the thumbnail of {name}, a random query.")]
    for kind, picture in drawn.items():
        caption = said.get(kind, "The patch filters of the model.")
        blocks.append(
            Picture(
                f"model-{kind}",
                file_bytes(picture, "JPEG", quality=_JPEG_QUALITY, optimize=True),
                f"{name}: {caption}",
                caption,
            )
        )
    return blocks


def _training(card: ModelCard) -> Section:
    blocks = training_blocks(card)
    sweep = card.training.get("sweep")
    if isinstance(sweep, dict) and sweep.get("rows"):
        blocks.append(_sweep(sweep))
    facts = [
        ("trained on", card.trained_on),
        *((_spoken(name), _told(value)) for name, value in _flat(card.training)),
        *((_spoken(name), _told(value)) for name, value in card.quality.items()),
    ]
    blocks.append(Table("Model card", ["", ""], facts, numbers=False, wide=True))
    return Section("training", "Training of the model", blocks)


def sweep_rows(sweep: Any, where: str) -> tuple[list[int], list[float]]:
    """Vocabulary sizes, rising, and the Davies-Bouldin index of each.

    `sweep` is what `cbir train bovw --sweep` writes; `where` names its source. Raises `CbirError`
    if it is anything else.
    """
    try:
        rows = sorted((int(row["words"]), float(row["davies_bouldin"])) for row in sweep["rows"])
    except (KeyError, TypeError, ValueError):
        rows = []
    if not rows:
        raise CbirError(
            f"{where} holds no sweep of vocabulary sizes",
            SWEEP_HINT,
        )
    return [words for words, _ in rows], [index for _, index in rows]


def _sweep(sweep: Mapping[str, Any]) -> Plot:
    words, index = sweep_rows(sweep, "the model's card")
    best = index.index(min(index))
    said = f"Lowest (best separated): {words[best]:,} words, {index[best]:.3f}."
    title = "Vocabulary size"
    return Plot("sweep", title, sweep_plot(words, index), f"A line over sizes. {said}", said)


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The facts that fit on a line; charts show the others."""
    shown = {k: v for k, v in facts.items() if v is not None and not isinstance(v, list)}
    return [(k, v) for k, v in shown.items() if k not in ("sweep", CLASSIFICATION)]


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_named(name, one) for name, one in value.items() if one not in (None, ""))
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _named(name: str, value: object) -> str:
    told = f"({_told(value)})" if isinstance(value, dict) else _told(value)
    return f"{_spoken(name)} {told}"
