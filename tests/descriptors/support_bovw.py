"""Small Bag-of-Visual-Words models of made-up arrays, one for each feature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cbir.descriptors.blocks import Block, raw_dim
from cbir.descriptors.bovw import BovwCard, BovwDescriptor, model_files
from cbir.descriptors.fusion import Posterior

CLASSES = ("cat", "dog", "ship")

BLOCKS: dict[str, Block] = {
    "hog": Block("hog"),
    "hog at its own size": Block("hog", {"size": [24, 16], "cell": 4, "orientations": 6}),
    "gray": Block("gray", {"bins": 8}, power=0.5),
    "lab": Block("lab", {"bins": [2, 4, 4], "grid": 2}, power=0.5),
    "hsv": Block("hsv", {"bins": [6, 2, 2]}),
    "sift words": Block("sift", {"limit": 50, "root": False, "encoding": "hard"}),
    "sift vlad": Block("sift", {"encoding": "vlad"}, power=0.5),
    "dense words": Block("dense-sift", {"step": 8, "sizes": [4], "pyramid": [1, 2], "idf": True}),
    "soft words": Block("dense-sift", {"step": 8, "sizes": [4], "encoding": "soft"}, power=0.5),
    "patches": Block("patches", {"size": [16, 16], "patch": 3, "stride": 2}),
    "patches of both signs": Block(
        "patches", {"size": [16, 16], "patch": 3, "activation": "cosine", "mirror": True}
    ),
    "relu patches": Block(
        "patches", {"size": [16, 16], "patch": 3, "activation": "relu", "bias": 0.5, "grid": 1}
    ),
}


def arrays_of(block: Block, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays that fit `block`, without mean and projection."""
    draw = np.random.default_rng(seed)
    if block.feature in ("sift", "dense-sift"):
        words = np.abs(draw.standard_normal((12, 128)))
        scale = 1 if block.params.get("root", True) else 512
        words *= scale / np.linalg.norm(words, axis=1, keepdims=True)
        idf = {"idf": draw.random(12).astype(np.float32)} if block.params.get("idf") else {}
        return {"words": words.astype(np.float32), **idf}
    if block.feature == "patches":
        filters = draw.standard_normal((10, 27))
        filters /= np.linalg.norm(filters, axis=1, keepdims=True)
        return {
            "filters": filters.astype(np.float16),
            "whitening": np.eye(27, dtype=np.float32),
            "whitening-mean": np.zeros(27, dtype=np.float32),
        }
    return {}


def card(*blocks: Block, head: bool = False, size: tuple[int, int] | int = (32, 32)) -> BovwCard:
    """A card of `blocks`, with a posterior and three classes where it has a head."""
    return BovwCard(
        name="words",
        classes=CLASSES if head else (),
        trained_on="made-up pictures",
        licence="MIT",
        training={"images": "photos/"},
        quality={"held_out_accuracy": 0.5},
        size=size,
        blocks=blocks,
        posterior=Posterior(temperature=0.5, weight=0.4) if head else None,
    )


def arrays_for(card: BovwCard, project: int | None = None) -> dict[str, np.ndarray]:
    """Arrays that fit a card: each block's, its projection to `project` numbers, the head."""
    draw = np.random.default_rng(1)
    arrays, widths = {}, []
    for number, block in enumerate(card.blocks):
        own = arrays_of(block, seed=number)
        width = raw_dim(block, own, card.size)
        if project:
            own["mean"] = draw.standard_normal(width).astype(np.float32) / width
            own["projection"] = draw.standard_normal((width, project)).astype(np.float16)
        arrays |= {f"{number}/{name}": array for name, array in own.items()}
        widths.append(width)
    if card.posterior:
        shape = (sum(widths), len(card.classes))
        arrays["head/weights"] = draw.standard_normal(shape).astype(np.float16)
        arrays["head/bias"] = draw.standard_normal(len(card.classes)).astype(np.float32)
    return arrays


def small_model(name: str = "words", *, head: bool = False, seed: int = 0) -> dict[str, bytes]:
    """The files of a quick model of two blocks; another `seed` is another model."""
    made = replace(card(BLOCKS["hog"], BLOCKS["dense words"], head=head), name=name)
    arrays = arrays_for(made, project=6)
    arrays["1/idf"] = arrays["1/idf"] + np.float32(seed)
    return model_files(made, arrays)


def descriptor(*blocks: Block, head: bool = False, project: int | None = None) -> BovwDescriptor:
    """A descriptor of `blocks` with made-up arrays."""
    made = card(*blocks, head=head)
    return BovwDescriptor(model_files(made, arrays_for(made, project)))
