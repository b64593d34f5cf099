"""The named recipes for Bag-of-Visual-Words models.

To change a number or add a block, edit only this file. A block's `feature` and `params` are those
of `cbir.descriptors.blocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cbir.descriptors.blocks import Block
from cbir.descriptors.resize import Size
from cbir.errors import CbirError
from cbir.training.bovw.linear import STRENGTHS
from cbir.wording import did_you_mean


@dataclass(frozen=True)
class Words:
    """A vocabulary to fit: `count` words by k-means on at most `sample` local descriptors."""

    count: int
    sample: int = 200_000


@dataclass(frozen=True)
class Filters:
    """Patch filters to fit: `count` filters, ZCA whitening with `epsilon` on `sample` patches.

    `kind` "random": random whitened patches (Thiry et al. 2021); "kmeans": cluster centres (Coates,
    Lee and Ng 2011).
    """

    count: int
    epsilon: float = 0.1
    kind: str = "random"
    sample: int = 200_000


@dataclass(frozen=True)
class Projection:
    """PCA to `dims` dimensions; divides each component by its deviation to the power `whitening`.

    `standardised`: PCA of the correlations instead of the covariances.
    """

    dims: int
    whitening: float = 0.0
    standardised: bool = False


@dataclass(frozen=True)
class Plan:
    """One block of a recipe, and the parts to fit.

    A block of `weight` 0 serves only the head. Without a `projection` its rows enter the vector
    unchanged.
    """

    feature: str
    params: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    power: float = 1.0
    words: Words | None = None
    filters: Filters | None = None
    projection: Projection | None = None

    def block(self, weight: float | None = None) -> Block:
        """The block as it appears in a card."""
        return Block(
            self.feature, self.params, self.weight if weight is None else weight, self.power
        )


@dataclass(frozen=True)
class HeadPlan:
    """A linear head: its `kind` (a name in `linear.KINDS`) and the candidate `strengths`."""

    kind: str
    strengths: tuple[float, ...]


CIFAR: Size = (32, 32)


@dataclass(frozen=True)
class Recipe:
    """The plan of a whole model.

    `size`: width and height, or one number: the longest side. `tune_weights` tunes the blocks'
    shares on held-out images, starting from their weights.
    """

    name: str
    about: str
    plans: tuple[Plan, ...]
    head: HeadPlan | None = None
    tune_weights: bool = False
    size: Size = CIFAR


# At 32 x 32 pixels: 3 x 3 blocks of 2 x 2 cells of 8 x 8 pixels, 9 orientations each: 324.
HOG = Plan("hog")
GRAY = Plan("gray", {"bins": 32}, power=0.5)
GRAY_256 = Plan("gray", {"bins": 256})
LAB = Plan("lab", {"bins": [4, 7, 7], "grid": 2}, power=0.5)
LAB_128 = replace(LAB, projection=Projection(128, 0.5))
SIFT = Plan("sift", {"root": False, "idf": True}, power=0.5, words=Words(400))
# SIFT first blurs the image, which destroys most detail at 32 x 32 pixels: enlarged four times,
# these images score twice as high (nAP@100 0.144 against 0.073 on 8,000 training images).
GRID = {"size": [128, 128], "step": 8, "sizes": [8.0]}
DENSE = Plan(
    "dense-sift",
    {**GRID, "pyramid": [1, 2], "encoding": "soft", "nearest": 4, "sigma": 0.12},
    power=0.5,
    words=Words(1000),
    projection=Projection(256, 0.3),
)
VLAD = Plan(
    "dense-sift",
    {**GRID, "encoding": "vlad"},
    power=0.5,
    words=Words(32),
    projection=Projection(256, 0.5),
)
WORDS = Plan(
    "dense-sift", {"step": 2, "sizes": [2.0, 3.0], "idf": True}, power=0.5, words=Words(4000)
)
PATCHES = Plan("patches", filters=Filters(800, kind="kmeans"), projection=Projection(256, 0.5))
# Cosines of both signs, and each filter with its mirror image: 18,000 dimensions, 2,000 filters.
SIGNED_PATCHES = Plan(
    "patches",
    {"activation": "cosine", "bias": 0.15, "grid": 3, "mirror": True},
    power=0.5,
    filters=Filters(1000, epsilon=1.0),
    projection=Projection(128, 0.5, standardised=True),
)
CLASSIC = (
    Plan(
        "dense-sift",
        {"step": 8, "sizes": [6.0, 12.0], "pyramid": [1, 2]},
        power=0.25,
        words=Words(500),
        projection=Projection(256, 0.7),
    ),
    Plan("hog", {"size": [96, 96], "cell": 16}, projection=Projection(128, 0.5)),
    Plan("lab", {"grid": 3}, weight=0.3, power=0.25, projection=Projection(128, 0.5)),
)
LOGISTIC = HeadPlan("logistic", STRENGTHS["logistic"])

_ALL = (
    Recipe("seed", "SIFT at keypoints in 400 words, and HOG", (SIFT, HOG)),
    Recipe(
        "seed-histogram-hog",
        "a grey histogram of 256 bins and HOG: 580 dimensions, logistic regression",
        (GRAY_256, HOG),
        LOGISTIC,
    ),
    Recipe(
        "seed-hog-sift",
        "HOG and 400 SIFT words: 724 dimensions, logistic regression",
        (HOG, SIFT),
        LOGISTIC,
    ),
    Recipe(
        "seed-all",
        "a grey histogram, HOG and SIFT words: 980 dimensions, logistic regression",
        (GRAY_256, HOG, SIFT),
        LOGISTIC,
    ),
    Recipe("hog", "HOG alone", (HOG,)),
    Recipe("hog+gray", "HOG and a grey histogram", (HOG, GRAY)),
    Recipe("hog+sift", "HOG and 400 SIFT words, shares chosen", (HOG, SIFT), tune_weights=True),
    Recipe(
        "all",
        "HOG, SIFT words, grey and LAB histograms",
        (HOG, SIFT, GRAY, LAB),
        tune_weights=True,
    ),
    Recipe(
        "dense",
        "dense RootSIFT in 1,000 words over a 2x2 pyramid, and LAB histograms",
        (DENSE, LAB_128),
        tune_weights=True,
    ),
    Recipe(
        "words", "4,000 words of dense RootSIFT and nothing else, for inverted indexes", (WORDS,)
    ),
    Recipe(
        "vlad", "VLAD of dense RootSIFT, and LAB histograms", (VLAD, LAB_128), tune_weights=True
    ),
    Recipe(
        "patches",
        "800 k-means filters of whitened patches, ridge head",
        (PATCHES,),
        HeadPlan("ridge", STRENGTHS["ridge"]),
    ),
    Recipe(
        "best",
        "1,000 patch filters and their mirror images, cosines of both signs, ridge head",
        (SIGNED_PATCHES,),
        HeadPlan("ridge", (3e-2, 1.5e-2, 7.5e-3)),
    ),
    Recipe(
        "classic",
        "photos: dense RootSIFT in 500 words over a 2x2 pyramid, HOG, LAB over 3x3; no labels",
        CLASSIC,
        size=256,
    ),
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_called(name: str) -> Recipe:
    """The recipe called `name`; raises `CbirError` with a suggestion if there is none."""
    if name not in RECIPES:
        raise CbirError(f"unknown recipe '{name}'", did_you_mean(name, RECIPES))
    return RECIPES[name]
