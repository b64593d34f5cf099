"""SIFT at keypoints and on a grid, held against OpenCV's own."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from cbir.descriptors.local.sift import dense_grid, dense_sift, grey, keypoint_sift, root_sift
from cbir.errors import CbirError
from tests.images.support_images import noise

SHAPES = [(1, 1), (2, 3), (8, 8), (32, 32), (37, 50), (1, 40), (600, 10), (10, 600)]


def smooth(seed, height, width):
    """Noise with structure larger than a pixel, as photos have."""
    blurred = cv2.GaussianBlur(noise(seed, height, width), (0, 0), 1.5)
    return blurred.reshape(height, width, 3)


def test_grey_is_the_luma_of_television():
    image = noise(1, 20, 30)
    expected = image @ np.array([0.299, 0.587, 0.114])
    assert grey(image).dtype == np.uint8
    assert np.abs(grey(image) - expected).max() <= 0.51


def test_grey_takes_a_view_as_it_takes_a_copy():
    image = noise(2)
    assert np.array_equal(grey(image[:, ::-1]), grey(image)[:, ::-1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_dense_descriptor_is_opencvs_of_an_upright_keypoint_there(shape, step):
    image = smooth(3, *shape)
    sizes = [2.0, 5.3, 12.0]
    features = dense_sift(image, step, sizes)
    keypoints = [cv2.KeyPoint(float(x), float(y), float(s), 0) for x, y, s, _ in features.points]
    kept, expected = cv2.SIFT.create().compute(grey(image), keypoints)
    assert [k.pt for k in kept] == [k.pt for k in keypoints]
    difference = np.abs(features.descriptors - expected)
    assert difference.max() <= 1  # a rounding that falls to the other side
    assert (difference > 0).mean() < 0.001


def test_the_dense_grid_goes_by_size_then_y_then_x():
    points = dense_sift(noise(4, 10, 14), 4, [3.0, 2.0]).points
    expected = [(x, y, s, 0) for s in (3, 2) for y in (0, 4, 8) for x in (0, 4, 8, 12)]
    assert points.tolist() == [list(map(float, p)) for p in expected]


@pytest.mark.parametrize("length", range(1, 20))
@pytest.mark.parametrize("step", [1, 2, 5])
def test_the_grid_is_inside_centred_and_never_empty(length, step):
    grid = dense_grid(length, step)
    before, after = grid[0], length - 1 - grid[-1]
    assert len(grid) > 0
    assert 0 <= before <= after < step
    assert after - before <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_image_has_no_keypoints_and_dense_descriptors_of_zero(shape):
    image = np.full((*shape, 3), 77, dtype=np.uint8)
    found = keypoint_sift(image)
    assert found.points.shape == (0, 4)
    assert found.descriptors.shape == (0, 128)
    features = dense_sift(image, 4, [4.0])
    assert len(features.points) == len(features.descriptors) > 0
    assert not features.descriptors.any()


@pytest.mark.parametrize(("step", "sizes"), [(0, [2.0]), (4, []), (4, [2.0, 0.0])])
def test_a_grid_that_cannot_be_is_refused_in_one_line(step, sizes):
    with pytest.raises(CbirError, match="dense SIFT: invalid step"):
        dense_sift(noise(5), step, sizes)


@pytest.mark.parametrize("shape", SHAPES)
def test_keypoints_are_those_that_opencv_finds(shape):
    image = smooth(6, *shape)
    found = keypoint_sift(image)
    detector = cv2.SIFT.create()
    keypoints = detector.detect(grey(image), None)
    descriptors = detector.detectAndCompute(grey(image), None)[1] if keypoints else []
    assert found.points.dtype == found.descriptors.dtype == np.float32
    assert found.points.shape == (len(keypoints), 4)
    assert found.descriptors.shape == (len(keypoints), 128)
    ours = sorted(np.hstack([found.points, found.descriptors]).tolist())
    theirs = sorted(
        [*k.pt, k.size, k.angle, *d] for k, d in zip(keypoints, descriptors, strict=True)
    )
    assert np.allclose(ours, theirs)


def test_a_limit_keeps_the_strongest_keypoints_in_order():
    image = smooth(7, 200, 200)
    keypoints = cv2.SIFT.create().detect(grey(image), None)
    strength = {tuple(np.float32([*k.pt, k.size, k.angle])): k.response for k in keypoints}
    everything = keypoint_sift(image)
    strengths = [strength[tuple(p)] for p in everything.points]
    assert strengths == sorted(strengths, reverse=True)
    for limit in (1, 2, 50, 10_000):
        some = keypoint_sift(image, limit)
        assert len(some.points) == min(limit, len(keypoints))
        assert np.array_equal(some.points, everything.points[:limit])
        assert np.array_equal(some.descriptors, everything.descriptors[:limit])


def test_threads_get_the_same_answers():
    images = [smooth(seed, 60, 80) for seed in range(12)]
    alone = [(keypoint_sift(i), dense_sift(i, 4, [2.0])) for i in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: (keypoint_sift(i), dense_sift(i, 4, [2.0])), images))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a.points, b.points)
            assert np.array_equal(a.descriptors, b.descriptors)


def test_root_sift_rows_multiply_to_the_hellinger_kernel():
    descriptors = dense_sift(smooth(8, 40, 40), 8, [3.0]).descriptors
    shares = descriptors / descriptors.sum(axis=1, keepdims=True)
    expected = [[np.sqrt(a * b).sum() for b in shares] for a in shares]
    rows = root_sift(descriptors)
    assert rows.dtype == np.float32
    assert np.allclose(rows @ rows.T, expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_root_sift_of_nothing_is_uniform_and_of_no_rows_is_no_rows():
    assert np.allclose(root_sift(np.zeros((2, 128), np.float32)), 1 / np.sqrt(128))
    assert root_sift(np.zeros((0, 128), np.float32)).shape == (0, 128)
