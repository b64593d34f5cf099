"""Fits visual words to local descriptors and filters to patches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.blocks import Block, local_features, raw_features, settings_of
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.local.patches import fit_whitening, mirrored_patches, normalised_patches
from cbir.descriptors.resize import resized
from cbir.descriptors.vocabulary import inverse_document_frequency
from cbir.errors import CbirError
from cbir.machine import limited_threads, usable_cores
from cbir.training.bovw.recipes import Filters, Plan, Words
from cbir.training.bovw.rows import BATCH
from cbir.training.labelled import Say
from cbir.types import Floats, RgbImage

Fitted = dict[str, NDArray[np.floating[Any]]]

FEWEST_OF_AN_IMAGE = 20
IDF_IMAGES = 10_000
KMEANS_BATCH = 4096
RESTARTS = 3


def fit_block(
    plan: Plan, images: Sequence[RgbImage], seed: int, sample: int | None, say: Say
) -> Fitted:
    """Fit the arrays that `plan` needs for raw rows: words and idf, or filters and whitening.

    All random choices depend on `seed`. `sample` limits the local descriptors (or patches) for
    fitting; None uses the plan's limit. Raises `CbirError` if the images do not yield enough of
    them. Words and filters are float16 as in the model, so that later fits see the model's rows.
    """
    if plan.words is not None:
        return _fit_words(plan, plan.words, images, seed, sample, say)
    if plan.filters is not None:
        return _fit_filters(plan, plan.filters, images, seed, sample, say)
    return {}


def sample_local(block: Block, images: Sequence[RgbImage], most: int, seed: int) -> Floats:
    """At most `most` local descriptors (n, dim), a few per random image, shuffled."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(images))
    quota = max(FEWEST_OF_AN_IMAGE, -(-most // len(images)))
    parts: list[Floats] = []
    with limited_threads(), ThreadPoolExecutor(usable_cores()) as pool:
        for rows in batches(order, BATCH):
            some = [images[row] for row in rows]
            for found in pool.map(lambda image: local_descriptors(block, image), some):
                parts.append(found[random.permutation(len(found))[:quota]])
            if sum(map(len, parts)) >= most:
                break
    everything = np.concatenate(parts)
    return everything[random.permutation(len(everything))[:most]]


def local_descriptors(block: Block, image: RgbImage) -> Floats:
    """The descriptors of `image` for the words of `block` (n, 128), or its patches (n, d)."""
    settings = settings_of(block)
    if settings["size"] is not None:
        image = resized(image, *settings["size"])
    if block.feature == "patches":
        patches = normalised_patches(image[None], settings["patch"])
        return patches.reshape(-1, patches.shape[-1])
    return local_features(block.feature, settings, image).descriptors


def fit_words(descriptors: Floats, count: int, seed: int) -> Floats:
    """Fit words (`count`, dim) to `descriptors` (n, dim) by mini-batch k-means (Sculley 2010)."""
    from sklearn.cluster import MiniBatchKMeans

    if len(descriptors) < count:
        raise CbirError(
            f"{len(descriptors):,} local descriptors are too few for {count:,} words",
            "give more or larger images, or use fewer words",
        )
    model = MiniBatchKMeans(
        count, batch_size=KMEANS_BATCH, n_init=RESTARTS, random_state=seed, max_no_improvement=20
    )
    # One thread: several would add their sums in varying order.
    with limited_threads():
        model.fit(descriptors)
    return np.asarray(model.cluster_centers_, dtype=np.float32)


def _fit_words(
    plan: Plan, wanted: Words, images: Sequence[RgbImage], seed: int, sample: int | None, say: Say
) -> Fitted:
    descriptors = sample_local(plan.block(), images, sample or wanted.sample, seed)
    say(f"{plan.feature}: {wanted.count:,} words from {len(descriptors):,} local descriptors")
    fitted: Fitted = {"words": fit_words(descriptors, wanted.count, seed).astype(np.float16)}
    if settings_of(plan.block())["idf"]:
        some = np.random.default_rng(seed).permutation(len(images))[:IDF_IMAGES]
        fitted["idf"] = _idf(plan, fitted, [images[row] for row in some])
    return fitted


def _idf(plan: Plan, words: Fitted, images: Sequence[RgbImage]) -> Floats:
    """The idf (k,) of the words, from the number of `images` with each word."""
    block = replace(plan.block(), params={**plan.params, "idf": False, "pyramid": [1]})
    if settings_of(block)["encoding"] == "vlad":
        raise CbirError(f"{plan.feature}: vlad has no idf", "remove it from the recipe")
    with limited_threads(), ThreadPoolExecutor(usable_cores()) as pool:
        rows = list(pool.map(lambda some: raw_features(block, words, some), batches(images, BATCH)))
    return inverse_document_frequency(np.concatenate(rows))


def _fit_filters(
    plan: Plan, wanted: Filters, images: Sequence[RgbImage], seed: int, sample: int | None, say: Say
) -> Fitted:
    patches = sample_local(plan.block(), images, sample or wanted.sample, seed)
    say(f"{plan.feature}: {wanted.count:,} filters from {len(patches):,} patches")
    settings = settings_of(plan.block())
    turned = [mirrored_patches(patches, settings["patch"])] if settings["mirror"] else []
    mean, whitening = fit_whitening(np.concatenate([patches, *turned]), wanted.epsilon)
    white = np.asarray((patches - mean) @ whitening, dtype=np.float32)
    if wanted.kind == "kmeans":
        filters = fit_words(white, wanted.count, seed)
    elif len(white) < wanted.count:
        raise CbirError(
            f"{len(white):,} patches are too few for {wanted.count:,} filters", "give more images"
        )
    else:
        filters = white[: wanted.count]
    return {
        "filters": unit_rows(filters).astype(np.float16),
        "whitening": whitening,
        "whitening-mean": mean,
    }
