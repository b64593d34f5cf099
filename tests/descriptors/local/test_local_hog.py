"""HOG, held against scikit-image's."""

import numpy as np
import pytest

from cbir.descriptors.local.hog import hog, hog_picture
from tests.images.support_images import noise


def batch(shape, count=3):
    return np.stack([noise(seed, *shape) for seed in range(count)])


@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (50, 37), (33, 64), (200, 300)])
@pytest.mark.parametrize(("orientations", "cell", "block"), [(9, 8, 2), (8, 5, 3), (12, 4, 1)])
def test_hog_is_that_of_scikit_image(shape, orientations, cell, block):
    feature = pytest.importorskip("skimage.feature")
    colours = batch(shape)
    settings = (orientations, (cell, cell), (block, block), "L2-Hys")
    for images, axis in ((colours, -1), (colours[..., 1], None)):
        rows = hog(images, orientations=orientations, cell=cell, block=block)
        expected = np.array([feature.hog(i, *settings, channel_axis=axis) for i in images])
        assert rows.dtype == np.float32
        assert rows.shape == expected.shape
        assert np.abs(rows - expected).max() < 1e-5


def test_weak_gradients_are_normalised_as_scikit_image_does():
    feature = pytest.importorskip("skimage.feature")
    image = np.full((32, 32), 100, dtype=np.uint8)
    image[10, 10:13] = 101
    expected = feature.hog(image, 9, (8, 8), (2, 2), "L2-Hys")
    assert expected.any()
    assert np.abs(hog(image[None])[0] - expected).max() < 1e-5


def test_a_batch_is_its_images_one_by_one():
    images = batch((32, 32), 300)  # more than are worked on at a time
    assert np.array_equal(hog(images), np.concatenate([hog(i[None]) for i in images]))


def test_no_images_are_no_rows():
    assert hog(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 324)


@pytest.mark.parametrize("shape", [(16, 16), (32, 48), (1, 1)])
def test_a_flat_image_is_a_row_of_zeros(shape):
    assert not hog(np.full((1, *shape, 3), 200, dtype=np.uint8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 40), (8, 8), (15, 16), (4000, 10)])
def test_an_image_smaller_than_a_block_is_filled_up_with_its_last_pixels(shape):
    images = batch(shape)
    height, width = (max(side, 16) for side in shape)
    y, x = np.minimum(np.arange(height), shape[0] - 1), np.minimum(np.arange(width), shape[1] - 1)
    assert np.array_equal(hog(images), hog(images[:, y][:, :, x]))
    assert np.isfinite(hog(images)).all()


def stripes(degrees):
    """Waves whose edges run at `degrees` (0: level, 90: upright), 64 x 64 pixels."""
    y, x = np.mgrid[:64, :64]
    across = np.sin(np.radians(degrees)) * x + np.cos(np.radians(degrees)) * y
    shade = (128 + 100 * np.sin(across * 0.8)).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("degrees", "bright", "dark"),
    [(0, (8, 2), (2, 8)), (90, (2, 8), (8, 2)), (45, (3, 12), (3, 3)), (135, (3, 3), (3, 12))],
)
def test_the_picture_shows_rays_along_the_edges(degrees, bright, dark):
    picture = hog_picture(stripes(degrees))
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8
    star = picture[48:64, 48:64, 0].astype(int)
    assert star[bright] > 2 * star[dark]


def test_the_picture_of_a_flat_or_tiny_image_is_black():
    assert not hog_picture(np.full((32, 32, 3), 9, dtype=np.uint8)).any()
    assert hog_picture(noise(1, 1, 1)).shape == (16, 16, 3)
    assert not hog_picture(noise(1, 1, 1)).any()
