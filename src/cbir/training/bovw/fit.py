"""Fits a recipe to images, tunes on held-out images, measures, and returns the model files."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.about import NOT_STATED
from cbir.descriptors.bovw import HEAD, BovwCard, BovwDescriptor, model_files
from cbir.descriptors.fusion import Posterior, fit_projection, fuse, projected
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.machine import processor, usable_cores
from cbir.training.bovw.linear import Head, fit_heads, standard_of
from cbir.training.bovw.recipes import HeadPlan, Projection, Recipe
from cbir.training.bovw.rows import Encoder, preparing
from cbir.training.bovw.sample import Fitted, fit_block
from cbir.training.choose import MEASURE, choose_fusion, choose_weights, cosines, score
from cbir.training.classification import CLASSIFICATION, Classification, classification
from cbir.training.labelled import (
    FEWEST_IMAGES,
    Labelled,
    Say,
    accuracy,
    prefix_of,
    random_tenth,
    read_labelled,
    read_test,
    require_distinct,
    split,
)
from cbir.types import Floats, Vectors

PROJECTION_IMAGES = 10_000
SPREADS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Candidate temperatures, as multiples of the logits' deviation, as heads differ in scale."""
CHECKED_IMAGES = 64
SAME = 1e-3
PACKAGES = ("numpy", "opencv-python-headless", "scikit-learn")


@dataclass(frozen=True)
class Embedding:
    """The mean, projection and share of each block."""

    parts: Sequence[Fitted]
    columns: Sequence[slice]
    shares: Sequence[float]

    def blocks(self, rows: Floats) -> list[Vectors]:
        """The unit rows (n, dim) of each block with a share."""
        return [
            projected(rows[:, own], part.get("mean"), part.get("projection"))
            for part, own, share in zip(self.parts, self.columns, self.shares, strict=True)
            if share
        ]

    def vectors(self, rows: Floats) -> Vectors:
        """The unit vectors (n, dim) of `rows`."""
        return fuse(self.blocks(rows), [share for share in self.shares if share])


@dataclass(frozen=True)
class ChosenHead:
    """The head with the best strength on the held-out images, and its fusion settings."""

    head: Head
    strength: float
    posterior: Posterior


def train_bovw(
    source: ImageSource,
    name: str,
    recipe: Recipe,
    *,
    seed: int = 0,
    test: ImageSource | None = None,
    sample: int | None = None,
    limit: int | None = None,
    trained_on: str | None = None,
    licence: str = NOT_STATED,
    say: Say = lambda _: None,
) -> dict[str, bytes]:
    """Fit `recipe` to the images of `source` and return the model's files.

    If all images have labels, holds out a tenth to tune strength, temperature and shares (half as
    index, half as queries) and to measure. A recipe without a head needs no labels. `test` is used
    only for the final measurement. `sample` limits the local descriptors for fitting a vocabulary,
    `limit` the images. `trained_on` replaces the source's name and image count in the card, and
    `licence` is that of the weights. The same images, recipe and seed give the same files for the
    same number of BLAS threads.
    """
    if test is not None and recipe.head is None:
        raise CbirError(
            f"recipe '{recipe.name}' has no head, so it has no test accuracy",
            "add one, for example --head ridge, or omit --test",
        )
    prepare, need = preparing(recipe.size), recipe.head is not None
    images = read_labelled(source, prepare, need_labels=need, limit=limit, seed=seed, say=say)
    tested = None if test is None else read_test(test, prepare, images.classes, say)
    held_out, training = _parts(images, recipe, seed)
    say(f"{len(training.images):,} training images, {len(held_out.images):,} held out")
    arrays = [fit_block(plan, training.images, seed, sample, say) for plan in recipe.plans]
    encoder = Encoder([plan.block() for plan in recipe.plans], arrays, recipe.size)
    rows = encoder.rows(training.images, say)
    held_rows = encoder.rows(held_out.images)
    say(f"rows of {rows.shape[1]:,} dimensions")
    embedding = fit_embedding(recipe, rows, encoder.columns, seed, say)
    if recipe.tune_weights and len(held_rows):
        shares, _ = choose_weights(embedding.blocks(held_rows), held_out.labels, embedding.shares)
        embedding = _with_shares(embedding, shares)
        pairs = zip(recipe.plans, embedding.shares, strict=True)
        say("shares: " + ", ".join(f"{plan.feature} {share:.2f}" for plan, share in pairs))
    quality: dict[str, float] = {}
    chosen = predicted = None
    if recipe.head is not None:
        vectors = embedding.vectors(held_rows)
        chosen = _chosen_head(recipe.head, rows, training, held_rows, held_out, vectors, seed, say)
        quality["training_accuracy"] = accuracy(chosen.head.logits(rows), training.labels)
        held_logits = chosen.head.logits(held_rows)
        quality["held_out_accuracy"] = accuracy(held_logits, held_out.labels)
        predicted = classification(held_logits, held_out.labels, images.classes)
        if tested is not None:
            test_rows = encoder.rows(tested.images, say)
            quality["test_accuracy"] = accuracy(chosen.head.logits(test_rows), tested.labels)
    if len(held_rows):
        vectors = _fused(embedding, chosen, held_rows)
        quality[f"held_out_{MEASURE}"] = score(cosines(vectors), held_out.labels)
    for key, value in quality.items():
        say(f"{key.replace('_', ' ')} {value:.4f}")
    card = BovwCard(
        name=name,
        size=recipe.size,
        blocks=tuple(
            plan.block(round(share, 4))
            for plan, share in zip(recipe.plans, embedding.shares, strict=True)
        ),
        posterior=chosen.posterior if chosen else None,
        classes=images.classes if chosen else (),
        trained_on=trained_on or f"{images.origin}, {len(training.images):,} images",
        licence=licence,
        training=_training_facts(source, recipe, chosen, predicted, seed, sample),
        quality={key: round(value, 5) for key, value in quality.items()},
    )
    files = model_files(card, _named(arrays, embedding, chosen))
    _check_same(files, training, _fused(embedding, chosen, rows[:CHECKED_IMAGES]))
    return files


def fit_embedding(
    recipe: Recipe, rows: Floats, columns: Sequence[slice], seed: int, say: Say = lambda _: None
) -> Embedding:
    """Fit the blocks' means and projections on at most 10,000 of `rows`."""
    some = np.sort(np.random.default_rng(seed).permutation(len(rows))[:PROJECTION_IMAGES])
    parts: list[Fitted] = []
    for plan, own in zip(recipe.plans, columns, strict=True):
        part: Fitted = {}
        if plan.projection is not None and plan.weight:
            say(f"{plan.feature}: {own.stop - own.start:,} dimensions to {plan.projection.dims:,}")
            mean, projection = _fit_projection(plan.projection, rows[some, own])
            part = {"mean": mean, "projection": _as_kept(projection)}
        parts.append(part)
    total = sum(plan.weight for plan in recipe.plans)
    return Embedding(parts, columns, [plan.weight / total for plan in recipe.plans])


def _fit_projection(wanted: Projection, rows: Floats) -> tuple[Floats, Floats]:
    if not wanted.standardised:
        return fit_projection(rows, wanted.dims, wanted.whitening)
    deviation = standard_of(rows).deviation.astype(np.float32)
    mean, projection = fit_projection(rows / deviation, wanted.dims, wanted.whitening)
    return mean * deviation, projection / deviation[:, None]


def _parts(everything: Labelled, recipe: Recipe, seed: int) -> tuple[Labelled, Labelled]:
    """(held out, training); without a head, unlabelled or few images are not split."""
    if recipe.head is not None:
        return split(everything, seed)
    count = len(everything.images)
    if count >= FEWEST_IMAGES and len(everything.classes) > 1 and (everything.labels >= 0).all():
        require_distinct(everything.classes)
        return random_tenth(everything, seed)
    order = np.arange(count)
    return everything.take(order[:0]), everything


def _chosen_head(
    plan: HeadPlan,
    rows: Floats,
    training: Labelled,
    held_rows: Floats,
    held_out: Labelled,
    vectors: Vectors,
    seed: int,
    say: Say,
) -> ChosenHead:
    """Fit the head to `rows`; tune its strength and, with the held-out `vectors`, its fusion."""
    labels, count = training.labels, len(training.classes)
    best, head, strength = -1.0, None, 0.0
    for tried, fitted in fit_heads(plan.kind, rows, labels, count, plan.strengths, seed):
        right = accuracy(fitted.logits(held_rows), held_out.labels)
        say(f"{plan.kind} {tried:g}: held-out accuracy {right:.4f}")
        if right > best:
            best, head, strength = right, fitted, tried
    assert head is not None
    logits = head.logits(held_rows)
    spread = float(logits.std())
    if not spread > 0:
        raise CbirError(
            "the head gives all images the same scores: their features do not differ",
            "use larger images with more detail, or another recipe",
        )
    temperatures = [float(f"{factor * spread:.3g}") for factor in SPREADS]
    posterior, _ = choose_fusion(vectors, logits, held_out.labels, temperatures)
    say(f"fusion: temperature {posterior.temperature:g}, posterior weight {posterior.weight:g}")
    return ChosenHead(head, strength, posterior)


def _with_shares(embedding: Embedding, shares: Sequence[float]) -> Embedding:
    """`embedding` with new shares for its weighted blocks."""
    rest = iter(shares)
    return replace(embedding, shares=[next(rest) if old else 0.0 for old in embedding.shares])


def _fused(embedding: Embedding, chosen: ChosenHead | None, rows: Floats) -> Vectors:
    vectors = embedding.vectors(rows)
    return chosen.posterior.fused(vectors, chosen.head.logits(rows)) if chosen else vectors


def _as_kept(array: Floats) -> Floats:
    """`array` rounded to float16 as in the model, so that later steps see the rounding."""
    kept: Floats = array.astype(np.float16).astype(np.float32)
    return kept


def _named(
    arrays: Sequence[Fitted], embedding: Embedding, chosen: ChosenHead | None
) -> dict[str, NDArray[np.floating[Any]]]:
    """All arrays by their names in the model file."""
    named: dict[str, NDArray[np.floating[Any]]] = {}
    for number, (own, part) in enumerate(zip(arrays, embedding.parts, strict=True)):
        named |= {f"{number}/{name}": array for name, array in {**own, **part}.items()}
        if "projection" in part:
            named[f"{number}/projection"] = part["projection"].astype(np.float16)
    if chosen is not None:
        named |= {f"{HEAD}/weights": chosen.head.weights, f"{HEAD}/bias": chosen.head.bias}
    return named


def _training_facts(
    source: ImageSource,
    recipe: Recipe,
    chosen: ChosenHead | None,
    predicted: Classification | None,
    seed: int,
    sample: int | None,
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "images": prefix_of(source),
        "recipe": recipe.name,
        "seed": seed,
        "sample": sample,
        "head": None,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "processor": processor(),
        "cores": usable_cores(),
    }
    if recipe.head is not None and chosen is not None:
        facts["head"] = {"kind": recipe.head.kind, "strength": chosen.strength}
    if predicted is not None:
        facts[CLASSIFICATION] = predicted.to_json()
    return facts


def _check_same(files: dict[str, bytes], training: Labelled, expected: Vectors) -> None:
    """Raise if the finished model does not reproduce the measured vectors."""
    described = BovwDescriptor(files).describe(training.images[: len(expected)])
    furthest = float(np.abs(described - expected).max())
    if furthest > SAME:
        raise CbirError(f"the finished model differs from the fitted one by {furthest:g}")
