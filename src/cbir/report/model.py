"""What a report says of the model: how it was trained, and what it sees in a query."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.cards import ModelCard
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import card_of
from cbir.images.decode import decode
from cbir.report.content import Block, Picture, Plot, Section, Table, Text
from cbir.report.model_pictures import filter_pictures, image_pictures
from cbir.report.plots import sweep_plot, training_plot
from cbir.types import RgbImage

_JPEG_QUALITY = 88


def model_sections(descriptor: Descriptor, query: bytes | None, name: str) -> list[Section]:
    """The sections on the descriptor, none where it has no card.

    `query` is the encoded picture of the query called `name` that a model of local features is
    shown at work on.
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
        "hog": "Histograms of oriented gradients: which way the edges run.",
        "words": "How often each visual word (or filter) is found, and the strongest of them.",
    }
    blocks: list[Block] = [Text(f"Drawn from the thumbnail of {name}, the first query at random.")]
    for kind, picture in drawn.items():
        caption = said.get(kind, "The patch filters of the model.")
        blocks.append(Picture(f"model-{kind}", _jpeg(picture), f"{name}: {caption}", caption))
    return blocks


def _training(card: ModelCard) -> Section:
    blocks: list[Block] = []
    log = card.training.get("log")
    if isinstance(log, list) and log:
        blocks.append(_training_curves(log))
    sweep = card.training.get("sweep")
    if isinstance(sweep, dict) and sweep.get("rows"):
        blocks.append(_sweep(sweep))
    facts = [
        ("trained on", card.trained_on),
        *((_spoken(name), _told(value)) for name, value in _flat(card.training)),
        *((_spoken(name), _told(value)) for name, value in card.quality.items()),
    ]
    blocks.append(Table("What its card says", ["", ""], facts, numbers=False, wide=True))
    return Section("training", "How the model was trained", blocks)


def _training_curves(log: list[dict[str, Any]]) -> Plot:
    epochs = [float(row["epoch"]) for row in log]
    shares = {
        "training images": _column(log, "train_accuracy"),
        "held-out images": _column(log, "held_out_accuracy"),
    }
    shares = {name: values for name, values in shares.items() if np.isfinite(values).any()}
    last = ", ".join(f"{name} {values[-1]:.3f}" for name, values in shares.items())
    figure = training_plot(epochs, _column(log, "loss"), shares)
    return Plot(
        "training",
        "Accuracy and loss, epoch by epoch",
        figure,
        f"Lines over {len(log)} epochs: accuracy and loss. Accuracy at the end: {last}.",
        f"At the end, accuracy: {last}. Held-out images were not learnt from.",
        wide=True,
    )


def _sweep(sweep: Mapping[str, Any]) -> Plot:
    rows = sorted((int(row["words"]), float(row["davies_bouldin"])) for row in sweep["rows"])
    words, index = min(rows, key=lambda row: row[1])
    figure = sweep_plot([row[0] for row in rows], [row[1] for row in rows])
    said = f"Lowest, so best separated: {words:,} words, {index:.3f}."
    return Plot("sweep", "How many visual words?", figure, f"A line over sizes. {said}", said)


def _column(log: list[dict[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(row.get(name, np.nan)) for row in log])


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What can be said in a line: plain values, and objects of plain values."""
    found: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict) and name != "sweep":
            told = ", ".join(f"{_spoken(k)} {_told(v)}" for k, v in value.items() if v is not None)
            found.append((name, told))
        elif not isinstance(value, (dict, list)) and value is not None:
            found.append((name, value))
    return found


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _jpeg(picture: RgbImage) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return target.getvalue()
