"""Whitened patch features, held against loops over patches and filters."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cbir.descriptors.local.patches import (
    PatchFilters,
    fit_whitening,
    normalised_patches,
    patch_features,
    patch_places,
)
from cbir.errors import CbirError
from tests.images.support_images import noise


def batch(*shape, count=2):
    return np.stack([noise(seed, *shape) for seed in range(count)])


def plain_patch(image, y, x, size):
    patch = np.array(
        [
            image[min(y + dy, image.shape[0] - 1), min(x + dx, image.shape[1] - 1), channel]
            for dy in range(size)
            for dx in range(size)
            for channel in range(3)
        ],
        dtype=np.float64,
    )
    return (patch - patch.mean()) / np.sqrt(patch.var() + 10)


def plain_features(image, filters, activation, bias, grid, stride):
    """The definition, a patch and a filter at a time, in float64."""
    size = filters.size
    ys = range(0, max(1, image.shape[0] - size + 1), stride)
    xs = range(0, max(1, image.shape[1] - size + 1), stride)
    answers = 2 if activation == "cosine" else 1
    pooled = np.zeros((grid, grid, answers * len(filters.filters)))
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            white = (plain_patch(image, y, x, size) - filters.mean) @ filters.whitening.astype(
                float
            )
            if activation == "triangle":
                z = np.array([np.linalg.norm(white - w) for w in filters.filters])
                answer = np.maximum(0, z.mean() - z - bias)
            elif activation == "cosine":
                cosines = filters.filters @ (white / np.linalg.norm(white))
                cosines /= np.linalg.norm(filters.filters, axis=1)
                answer = np.maximum(0, np.concatenate([cosines, -cosines]) - bias)
            else:
                answer = np.maximum(0, filters.filters @ white - bias)
            for i in range(grid):
                for j in range(grid):
                    down = row + 1 > i * len(ys) / grid and row < (i + 1) * len(ys) / grid
                    across = column + 1 > j * len(xs) / grid and column < (j + 1) * len(xs) / grid
                    if down and across:
                        pooled[i, j] += answer
    return pooled.ravel()


def random_filters(size, k, seed=0):
    rng = np.random.default_rng(seed)
    dim = size * size * 3
    patches = normalised_patches(batch(24, 24, count=8), size).reshape(-1, dim)
    mean, whitening = fit_whitening(patches, 0.1)
    filters = rng.normal(size=(k, dim))
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    return PatchFilters(filters.astype(np.float32), whitening, mean, size)


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("shape", [(9, 12), (6, 6), (1, 1), (3, 20)])
def test_patches_are_normalised_in_order_of_rows_columns_and_colours(shape, stride):
    images = batch(*shape)
    patches = normalised_patches(images, 6, stride)
    rows, columns = (patch_places(side, 6, stride) for side in shape)
    assert patches.dtype == np.float32
    assert patches.shape == (2, rows, columns, 108)
    for n, r, c in np.ndindex(2, rows, columns):
        expected = plain_patch(images[n], r * stride, c * stride, 6)
        assert np.allclose(patches[n, r, c], expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["triangle", "relu", "cosine"])
@pytest.mark.parametrize(
    ("shape", "size", "grid", "stride", "bias"),
    [
        ((14, 14), 6, 2, 1, 0.0),
        ((15, 11), 5, 2, 1, 0.3),
        ((20, 17), 6, 3, 2, 0.0),
        ((8, 8), 6, 1, 1, 0.1),
        ((7, 7), 6, 4, 1, 0.0),
        ((2, 9), 6, 2, 1, 0.0),
        ((1, 1), 3, 2, 1, 0.0),
    ],
)
def test_features_are_those_of_the_definition(activation, shape, size, grid, stride, bias):
    filters = random_filters(size, 20)
    images = batch(*shape)
    rows = patch_features(
        images, filters, activation=activation, bias=bias, grid=grid, stride=stride
    )
    expected = [plain_features(i, filters, activation, bias, grid, stride) for i in images]
    assert rows.dtype == np.float32
    assert rows.shape == (2, grid * grid * 20 * (2 if activation == "cosine" else 1))
    assert np.allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_filters_need_not_be_of_unit_length():
    unit = random_filters(4, 12)
    scales = np.linspace(0.5, 9, 12, dtype=np.float32)[:, None]
    filters = PatchFilters(unit.filters * scales, unit.whitening, unit.mean, 4)
    images = batch(10, 10)
    expected = [plain_features(i, filters, "triangle", 0, 2, 1) for i in images]
    assert np.allclose(patch_features(images, filters), expected, rtol=1e-4, atol=1e-3)


def test_a_patch_that_is_a_filter_is_at_no_distance():
    filters = random_filters(6, 12)
    image = batch(6, 6, count=1)
    white = (normalised_patches(image, 6)[0, 0] - filters.mean) @ filters.whitening
    own = np.concatenate([white, filters.filters[1:]])
    filters = PatchFilters(own, filters.whitening, filters.mean, 6)
    expected = plain_features(image[0], filters, "triangle", 0, 1, 1)
    assert np.allclose(patch_features(image, filters, grid=1), expected, atol=0.01)


@pytest.mark.parametrize("activation", ["triangle", "relu"])
def test_large_images_and_many_filters_are_answered_in_parts(activation):
    filters = random_filters(4, 3000)  # 87 patches at a time
    image = batch(12, 400, count=1)  # 3,573 patches, 1,024 in a strip
    rows = patch_features(image, filters, activation=activation)
    patches = normalised_patches(image, 4)[0].reshape(-1, 48).astype(np.float64)
    white = (patches - filters.mean) @ filters.whitening
    products = white @ filters.filters.T.astype(np.float64)
    answers = np.maximum(0, products)
    if activation == "triangle":
        z = np.sqrt((white**2).sum(axis=1, keepdims=True) + 1 - 2 * products)
        answers = np.maximum(0, z.mean(axis=1, keepdims=True) - z)
    places = answers.reshape(9, 397, -1)
    halves = [
        places[top, left].sum(axis=(0, 1))
        for top in (slice(0, 5), slice(4, 9))
        for left in (slice(0, 199), slice(198, 397))
    ]
    assert np.allclose(rows[0], np.concatenate(halves), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("activation", ["triangle", "relu", "cosine"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_flat_image_has_finite_features(activation, value):
    images = np.full((1, 32, 32, 3), value, dtype=np.uint8)
    assert np.isfinite(patch_features(images, random_filters(6, 10), activation=activation)).all()


def test_a_batch_is_its_images_one_by_one_in_threads_too():
    filters = random_filters(6, 50)
    images = batch(32, 32, count=12)
    together = patch_features(images, filters)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda i: patch_features(i[None], filters)[0], images))
    assert np.allclose(together, alone, rtol=1e-6, atol=1e-5)


def test_mirrored_filters_give_mirrored_features():
    images = batch(24, 25, count=6)
    both = np.concatenate([images, images[:, :, ::-1]])
    mean, whitening = fit_whitening(normalised_patches(both, 6).reshape(-1, 108), 0.1)
    half = random_filters(6, 15).filters
    turned = half.reshape(15, 6, 6, 3)[:, :, ::-1].reshape(15, 108)
    filters = PatchFilters(np.concatenate([half, turned]), whitening, mean, 6)
    for activation in ("triangle", "relu"):
        rows = patch_features(images, filters, activation=activation).reshape(6, 2, 2, 2, 15)
        mirrored = patch_features(images[:, :, ::-1], filters, activation=activation)
        assert np.allclose(mirrored.reshape(rows.shape), rows[:, :, ::-1, ::-1], atol=0.01)


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("activation", ["triangle", "relu", "cosine"])
def test_an_image_and_its_mirror_image_can_have_the_same_features(activation, grid):
    images = batch(24, 25, count=6)
    both = np.concatenate([images, images[:, :, ::-1]])
    mean, whitening = fit_whitening(normalised_patches(both, 6).reshape(-1, 108), 0.1)
    filters = PatchFilters(random_filters(6, 15).filters, whitening, mean, 6)
    wanted = {"activation": activation, "bias": 0.1, "grid": grid}
    rows = patch_features(images, filters, **wanted, mirror=True)
    assert np.allclose(
        rows, patch_features(images[:, :, ::-1], filters, **wanted, mirror=True), atol=0.02
    )
    if activation != "triangle":  # which compares with the mean over all filters
        turned = patch_features(images[:, :, ::-1], filters, **wanted)
        summed = patch_features(images, filters, **wanted) + turned
        assert np.allclose(rows, summed, atol=0.02)


def test_whitened_patches_are_white():
    rng = np.random.default_rng(5)
    patches = (rng.normal(size=(5000, 12)) @ rng.normal(size=(12, 12)) + 3).astype(np.float32)
    mean, whitening = fit_whitening(patches, 1e-6)
    white = (patches - mean) @ whitening
    assert mean.dtype == whitening.dtype == np.float32
    assert np.allclose(white.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(np.cov(white.T), np.eye(12), atol=0.01)
    assert np.allclose(whitening, whitening.T, atol=1e-5)  # ZCA: no turning


def test_whitening_leaves_directions_without_variance_finite():
    patches = np.zeros((100, 6), dtype=np.float32)
    patches[:, 0] = np.random.default_rng(6).normal(size=100)
    _, whitening = fit_whitening(patches, 0.1)
    assert np.allclose(np.diag(whitening)[1:], 1 / np.sqrt(0.1), rtol=1e-4)


def test_an_unknown_activation_is_one_line_that_names_the_known():
    with pytest.raises(CbirError, match=r"unknown patch activation 'step'.*triangle, relu, cosine"):
        patch_features(batch(8, 8), random_filters(6, 4), activation="step")
