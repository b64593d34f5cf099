"""Histograms of brightness and colour, held against NumPy's and scikit-image's."""

import numpy as np
import pytest

from cbir.descriptors.local.histograms import (
    gray_histogram,
    grid_spans,
    hsv_histogram,
    lab_histogram,
)
from cbir.descriptors.local.sift import grey
from tests.images.support_images import noise

HISTOGRAMS = [gray_histogram, lab_histogram, hsv_histogram]
SIZES = {gray_histogram: 32, lab_histogram: 4 * 7 * 7, hsv_histogram: 8 * 4 * 4}


def of_cells(values, bins, ranges, grid):
    """Histograms of (h, w, channels) values by numpy.histogramdd, cell by cell."""
    height, width = values.shape[:2]
    rows = []
    for i in range(grid):
        for j in range(grid):
            y = [
                p
                for p in range(height)
                if p + 1 > i * height / grid and p < (i + 1) * height / grid
            ]
            x = [p for p in range(width) if p + 1 > j * width / grid and p < (j + 1) * width / grid]
            cell = values[np.ix_(y, x)].reshape(-1, values.shape[2])
            low, high = np.array(ranges).T
            cell = np.clip(cell, low, high)
            counts, _ = np.histogramdd(cell, bins=bins, range=ranges)
            rows.append(counts.ravel() / len(cell) / grid**2)
    return np.concatenate(rows)


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("bins", [8, 10, 32, 256])
def test_the_gray_histogram_is_numpys(grid, bins):
    images = [noise(1, 32, 32), noise(2, 31, 20), noise(3, 2, 1)]
    rows = gray_histogram(images, bins, grid)
    expected = [of_cells(grey(i)[..., None], [bins], [(0, 256)], grid) for i in images]
    assert rows.dtype == np.float32
    assert np.allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("grid", [1, 2])
def test_the_lab_histogram_is_that_of_scikit_images_conversion(grid):
    color = pytest.importorskip("skimage.color")
    images = [noise(1, 64, 64), noise(2, 50, 70)]
    ranges = [(0, 100), (-64, 64), (-64, 64)]
    expected = [of_cells(color.rgb2lab(i), [4, 7, 7], ranges, grid) for i in images]
    moved = np.abs(lab_histogram(images, grid=grid) - expected).sum(axis=1) / 2
    # OpenCV's tables are right to about 0.3, which moves pixels near an edge to the next bin.
    assert (moved < 0.02).all()


@pytest.mark.parametrize("grid", [1, 2])
def test_the_hsv_histogram_is_that_of_scikit_images_conversion(grid):
    color = pytest.importorskip("skimage.color")
    images = [noise(1, 64, 64), noise(2, 50, 70)]
    expected = [of_cells(color.rgb2hsv(i) + 1e-5, [8, 4, 4], [(0, 1)] * 3, grid) for i in images]
    moved = np.abs(hsv_histogram(images, grid=grid) - expected).sum(axis=1) / 2
    assert (moved < 0.0005).all()


def test_colours_lie_in_the_bins_that_the_documentation_says():
    def bin_of(histogram, colour, bins):
        (row,) = histogram([np.full((4, 4, 3), colour, dtype=np.uint8)], bins)
        assert row.max() == 1
        return np.unravel_index(row.argmax(), bins)

    # CIE L*a*b* of sRGB red is (53, 80, 67), of blue (32, 79, -108), of mid grey (54, 0, 0).
    assert bin_of(lab_histogram, (255, 0, 0), (4, 8, 8)) == (2, 7, 7)
    assert bin_of(lab_histogram, (0, 0, 255), (4, 8, 8)) == (1, 7, 0)
    assert bin_of(lab_histogram, (128, 128, 128), (4, 5, 5)) == (2, 2, 2)
    # Hue 0, 120 and 240 degrees; white has no hue and no saturation.
    assert bin_of(hsv_histogram, (255, 0, 0), (6, 4, 4)) == (0, 3, 3)
    assert bin_of(hsv_histogram, (0, 100, 0), (5, 4, 4)) == (1, 3, 1)
    assert bin_of(hsv_histogram, (0, 0, 255), (5, 4, 4)) == (3, 3, 3)
    assert bin_of(hsv_histogram, (255, 255, 255), (6, 4, 4)) == (0, 0, 3)


@pytest.mark.parametrize("histogram", HISTOGRAMS)
@pytest.mark.parametrize("grid", [1, 2, 5])
def test_every_row_sums_to_one_whatever_the_size(histogram, grid):
    shapes = [(1, 1), (1, 9), (3, 2), (8, 8), (33, 17), (4000, 10)]
    images = [noise(seed, *shape) for seed, shape in enumerate(shapes)]
    rows = histogram(images, grid=grid)
    assert rows.shape == (len(images), SIZES[histogram] * grid**2)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(rows.reshape(len(images), grid**2, -1).sum(axis=2), 1 / grid**2, atol=1e-6)


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_a_mirrored_picture_has_mirrored_cells(histogram):
    image = noise(4, 15, 13)
    row, mirrored = histogram([image, image[:, ::-1]], grid=2)
    cells = row.reshape(2, 2, -1)
    assert np.array_equal(mirrored.reshape(2, 2, -1), cells[:, ::-1])


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_no_pictures_are_no_rows(histogram):
    assert histogram([], grid=2).shape == (0, 4 * SIZES[histogram])


def test_the_cells_of_a_side_cover_it_and_share_at_most_a_pixel():
    assert grid_spans(4, 2) == [(0, 2), (2, 4)]
    assert grid_spans(5, 2) == [(0, 3), (2, 5)]
    assert grid_spans(1, 3) == [(0, 1), (0, 1), (0, 1)]


def test_greys_of_every_brightness_share_the_middle_bins_of_lab():
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    (row,) = lab_histogram([image])
    assert row.reshape(4, 7, 7)[:, 3, 3].sum() == pytest.approx(1)
