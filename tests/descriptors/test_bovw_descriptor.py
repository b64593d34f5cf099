"""Descriptors of local features and visual words: every feature, and every misfit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir.descriptors.arrays import npz_bytes
from cbir.descriptors.blocks import Block, block_rows, head_rows, raw_dim, raw_features, vector_dim
from cbir.descriptors.bovw import ARRAYS_FILE, BovwCard, BovwDescriptor, model_files
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe
from cbir.descriptors.fusion import Posterior, fit_projection, projected
from cbir.errors import CbirError
from cbir.testing import check_descriptor
from tests.descriptors.support_bovw import BLOCKS, CLASSES, arrays_for, arrays_of, card, descriptor
from tests.descriptors.support_photos import picture

ALL = tuple(BLOCKS.values())


def odd_pictures() -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    shapes = [(32, 32), (8, 8), (1, 1), (3, 900), (700, 2), (60, 90)]
    noise = [draw.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    return noise + [np.full((40, 30, 3), value, dtype=np.uint8) for value in (0, 255, 77)]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_keeps_the_contract_of_descriptors(name: str) -> None:
    check_descriptor(descriptor(BLOCKS[name]))
    check_descriptor(descriptor(BLOCKS[name], project=5))


def test_all_blocks_together_with_a_head_keep_the_contract() -> None:
    whole = descriptor(*ALL, head=True, project=4)
    check_descriptor(whole)
    check_descriptor(BovwDescriptor(whole.files, "embedding"))


@pytest.mark.parametrize("name", BLOCKS)
def test_rows_of_odd_pictures_are_finite_and_as_wide_as_said(name: str) -> None:
    block = BLOCKS[name]
    arrays = arrays_of(block)
    images = [descriptor(block).prepare(image) for image in odd_pictures()]
    raw = raw_features(block, arrays, images)
    assert raw.shape == (len(images), raw_dim(block, arrays, (32, 32)))
    assert raw.dtype == np.float32 and np.isfinite(raw).all()
    rows = block_rows(block, arrays, raw)
    assert rows.shape[1] == vector_dim(block, arrays, (32, 32))


def test_a_batch_gives_what_single_images_give_and_odd_ones_shift_nothing() -> None:
    whole = descriptor(*ALL, head=True, project=8)
    images = odd_pictures() * 15  # more than one batch of the descriptor
    together = describe(whole, images)
    alone = np.concatenate([describe(whole, [image]) for image in odd_pictures()])
    np.testing.assert_allclose(together, np.tile(alone, (15, 1)), atol=1e-6)


@pytest.mark.parametrize("name", ["sift words", "sift vlad", "hog"])
def test_pictures_without_anything_to_say_have_one_fixed_vector(name: str) -> None:
    flat = [np.full((40, 30, 3), value, dtype=np.uint8) for value in (0, 77, 255)]
    vectors = describe(descriptor(BLOCKS[name]), flat)
    np.testing.assert_array_equal(vectors, np.eye(vectors.shape[1], dtype=np.float32)[[0, 0, 0]])


# --- Sizes -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(1, 400))
def test_the_longest_side_is_exact_the_shortest_at_least_16_and_preparing_twice_changes_nothing(
    width: int, height: int
) -> None:
    made = card(BLOCKS["gray"], size=64)
    longest = BovwDescriptor(model_files(made, {}))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = longest.prepare(image)
    assert max(small.shape[:2]) == 64 and min(small.shape[:2]) >= 16
    kept = 64 * min(width, height) / max(width, height)
    assert min(small.shape[:2]) == pytest.approx(max(16, kept), abs=0.5)
    np.testing.assert_array_equal(longest.prepare(small), small)
    np.testing.assert_array_equal(longest.describe([small]), longest.describe([image]))


def test_a_block_may_see_the_picture_at_a_size_of_its_own() -> None:
    made = card(Block("hog", {"size": [24, 16]}), BLOCKS["sift words"], size=128)
    mixed = BovwDescriptor(model_files(made, arrays_for(made)))
    check_descriptor(mixed)
    image = picture((9, 99, 199), 4, (100, 50))
    small = Image.fromarray(mixed.prepare(image)).resize((24, 16), 3, reducing_gap=3.0)
    expected = raw_features(Block("hog"), {}, [np.asarray(small)])
    actual = mixed.describe([image])[:, : expected.shape[1]] * np.sqrt(2)
    np.testing.assert_allclose(actual, head_rows(Block("hog"), expected), atol=1e-6)


# --- What a vector is made of ----------------------------------------------------------------


def test_the_vector_is_the_weighted_blocks_and_the_roots_of_the_heads_posterior() -> None:
    blocks = (replace(BLOCKS["hog"], weight=3.0), BLOCKS["gray"], replace(BLOCKS["lab"], weight=0))
    whole = descriptor(*blocks, head=True, project=5)
    images = [picture((200, 20, 20), n, (32, 32)) for n in range(6)]
    fused, embedding = describe(whole, images), BovwDescriptor(whole.files, "embedding")
    arrays = arrays_for(whole.card, project=5)
    rows, heads = [], []
    for number, block in enumerate(blocks):
        own = {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{number}/")}
        raw = raw_features(block, own, images).astype(np.float64)
        unit = np.sign(raw) * np.abs(raw) ** block.power
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        row = (unit - own["mean"]) @ own["projection"].astype(np.float64)
        heads.append(unit)
        rows.append(row / np.linalg.norm(row, axis=1, keepdims=True))
    blocks_alone = np.hstack([np.sqrt(0.75) * rows[0], np.sqrt(0.25) * rows[1]])
    np.testing.assert_allclose(describe(embedding, images), blocks_alone, atol=1e-5)
    np.testing.assert_allclose(fused[:, :10], np.sqrt(0.6) * blocks_alone, atol=1e-5)
    logits = np.hstack(heads) @ arrays["head/weights"].astype(np.float64) + arrays["head/bias"]
    posterior = np.exp(logits / 0.5)
    posterior /= posterior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fused[:, 10:] ** 2 / 0.4, posterior, atol=1e-5)
    np.testing.assert_array_equal(whole.predicted(fused), logits.argmax(axis=1))
    assert embedding.predicted(fused) is None
    assert (whole.spec.dim, embedding.spec.dim) == (13, 10)
    assert (whole.spec.name, embedding.spec.name) == ("words", "words:embedding")


def test_a_model_without_a_head_is_the_same_in_both_variants() -> None:
    plain = descriptor(BLOCKS["gray"])
    assert BovwDescriptor(plain.files, "embedding").spec == plain.spec
    assert plain.predicted(describe(plain, odd_pictures())) is None
    with pytest.raises(CbirError, match="unknown variant 'other'"):
        BovwDescriptor(plain.files, "other")


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(2, 20), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99))
def test_a_projection_is_pca_with_its_components_whitened_as_asked(
    n: int, dim: int, whitening: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    dims = max(1, min(n - 1, dim) - 1)
    mean, projection = fit_projection(rows, dims, whitening)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    spread = np.linalg.svd(centred, compute_uv=False)[:dims] / np.sqrt(n)
    components = (rows - mean) @ projection
    np.testing.assert_allclose(components.mean(axis=0), 0, atol=1e-3)
    covariance = components.T @ components / n
    expected = np.diag(spread ** (2 - 2 * whitening))
    np.testing.assert_allclose(covariance, expected, atol=2e-3 * expected.max())
    np.testing.assert_allclose(np.linalg.norm(projected(rows, mean, projection), axis=1), 1, 1e-5)


def test_a_projection_to_more_than_the_rows_vary_in_is_refused() -> None:
    rows = np.outer(np.arange(9), np.ones(5)).astype(np.float32)
    fit_projection(rows, 1)
    with pytest.raises(CbirError, match="to 2 dimensions: the rows vary in 1 direction"):
        fit_projection(rows, 2)


# --- Identity --------------------------------------------------------------------------------


def test_everything_that_changes_a_vector_changes_the_fingerprint_and_nothing_else() -> None:
    made = card(BLOCKS["hog"], BLOCKS["dense words"], head=True)
    arrays = arrays_for(made, project=6)
    first = BovwDescriptor(model_files(made, arrays)).spec.fingerprint
    hog, words = made.blocks
    changed = [
        replace(made, size=(33, 33)),
        replace(made, posterior=Posterior(0.6, 0.4)),
        replace(made, posterior=Posterior(0.5, 0.5)),
        replace(made, blocks=(replace(hog, weight=2.0), words)),
        replace(made, blocks=(replace(hog, power=0.5), words)),
        replace(made, blocks=(hog, replace(words, params={**words.params, "step": 7}))),
    ]
    fingerprints = {BovwDescriptor(model_files(c, arrays)).spec.fingerprint for c in changed}
    for name, array in arrays.items():
        other = array.copy()
        other.flat[0] += 1
        files = model_files(made, {**arrays, name: other})
        fingerprints.add(BovwDescriptor(files).spec.fingerprint)
    assert len(fingerprints | {first}) == len(changed) + len(arrays) + 1
    told = replace(
        made, quality={}, licence="other", trained_on="elsewhere", classes=("a", "b", "c")
    )
    assert BovwDescriptor(model_files(told, arrays)).spec.fingerprint == first
    defaults = replace(hog, params={"cell": 8, "block": 2})
    same = replace(made, blocks=(defaults, words))
    assert BovwDescriptor(model_files(same, arrays)).spec.fingerprint == first


def test_the_same_card_and_arrays_are_the_same_bytes_and_come_back() -> None:
    made = card(*ALL, head=True)
    arrays = arrays_for(made)
    files = model_files(made, arrays)
    assert files == model_files(made, dict(reversed(arrays.items())))
    assert model_files(BovwCard.parse(files[CARD_FILE]), arrays) == files
    assert json.loads(files[CARD_FILE])["kind"] == "bovw"


def test_a_model_of_grey_and_hog_says_its_sizes_and_opencvs_version() -> None:
    preprocessing = descriptor(BLOCKS["hog"], BLOCKS["lab"], project=7).spec.preprocessing
    assert "324 -> 7" in preprocessing["block 0"] and "weight 0.5" in preprocessing["block 1"]
    assert preprocessing["opencv"][0].isdigit()
    assert "opencv" not in descriptor(BLOCKS["hog"]).spec.preprocessing


def test_reading_a_model_loads_no_opencv() -> None:
    code = (
        "import sys, cbir.descriptors.bovw, cbir.descriptors.models\n"
        "cbir.descriptors.models.load_descriptor('cifar10-cnn').spec\n"
        "assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- What does not fit -----------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


def cut(name: str, rows: int | None = None, columns: int | None = None) -> Change:
    def change(_card: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        array = arrays[name]
        arrays[name] = array[:rows] if array.ndim == 1 else array[:rows, :columns]

    return change


def block_0(**params: object) -> Change:
    return lambda card, arrays: card["blocks"][0]["params"].update(params)


MISFITS: dict[str, tuple[Change, str]] = {
    "words of another width": (
        cut("1/words", columns=64),
        "block 1 is invalid: words of 64 dimensions do not fit SIFT, which has 128",
    ),
    "idf of fewer words": (cut("1/idf", 11), "block 1 is invalid: idf of shape .11,."),
    "no words": (lambda c, a: a.pop("1/words"), "block 1 is invalid: .* lacks .* 'words'"),
    "no idf": (lambda c, a: a.pop("1/idf"), "block 1 is invalid: the setting idf is True"),
    "a mean of another width": (cut("0/mean", 9), "block 0 is invalid: a mean of shape .9,."),
    "a projection of another width": (
        cut("0/projection", 300),
        "block 0 is invalid: a projection of shape .300, 6. does not fit 324 dimensions",
    ),
    "filters of another size": (cut("2/filters", columns=12), "block 2 .* patches of 3x3 pixels"),
    "a head of more classes than the card": (
        lambda c, a: c.update(classes=CLASSES[:2]),
        r"a head of shapes .424, 3. and .3,. does not fit 424 dimensions and 2 classes",
    ),
    "a head for other blocks": (
        cut("head/weights", 100),
        r"a head of shapes .100, 3. and .3,. does not fit 424 dimensions",
    ),
    "half a head": (lambda c, a: a.pop("head/bias"), r"model.npz has no head \(two arrays\)"),
    "a head of odd shapes": (cut("head/bias", 2), r"shapes .424, 3. and .2,. does not fit"),
    "a head without posterior": (lambda c, a: c.update(posterior=None), "has no posterior"),
    "an array of no block": (
        lambda c, a: a.update({"3/words": np.ones((2, 2), np.float32)}),
        "contains '3/words', but the card has no such block",
    ),
    "an array of no use": (
        lambda c, a: a.update({"0/words": np.ones((2, 2), np.float32)}),
        "block 0 is invalid: hog does not use the array 'words'",
    ),
    "no number": (
        lambda c, a: a["0/mean"].__setitem__(3, np.nan),
        "'0/mean' contains non-finite values",
    ),
    "an unknown feature": (lambda c, a: c["blocks"][0].update(feature="surf"), "'surf'"),
    "an unknown setting": (block_0(cels=8), "hog has no setting 'cels'"),
    "an impossible setting": (block_0(cell=0), "hog: cell cannot be 0"),
    "a setting of another type": (block_0(cell="8"), "hog: cell cannot be '8'"),
    "pictures of no fixed size": (lambda c, a: c.update(size=64), "images of one size"),
    "a size that is none": (lambda c, a: c.update(size=[32, -1]), "is not a model card: size"),
    "three sizes": (lambda c, a: c.update(size=[32, 32, 3]), "is not a model card: size"),
    "too small a side": (lambda c, a: c.update(size=8), "is not a model card: size"),
    "no weight": (
        lambda c, a: [block.update(weight=0) for block in c["blocks"]],
        "no block has a weight",
    ),
    "a temperature of zero": (lambda c, a: c["posterior"].update(temperature=0), "model card"),
    "a weight that is NaN": (lambda c, a: c["posterior"].update(weight=np.nan), "model card"),
    "a card without blocks": (lambda c, a: c.pop("blocks"), "is not a model card: 'blocks'"),
    "blocks of another shape": (lambda c, a: c.update(blocks=[3]), "is not a model card"),
    "params that are none": (lambda c, a: c["blocks"][0].update(params=3), "is not a model card"),
    "no origin of the images": (lambda c, a: c.update(training={}), "is not a model card"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    change, why = MISFITS[name]
    made = card(BLOCKS["hog"], BLOCKS["dense words"], BLOCKS["patches"], head=True)
    arrays, told = arrays_for(made, project=6), json.loads(json.dumps(made.to_json()))
    change(told, arrays)
    files = {ARRAYS_FILE: npz_bytes(arrays), CARD_FILE: json.dumps(told).encode()}
    with pytest.raises(CbirError, match=why) as caught:
        BovwDescriptor(files)
    assert "\n" not in caught.value.message


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_tampered_file_is_refused_in_one_line_or_still_describes(data: st.DataObject) -> None:
    made = card(BLOCKS["gray"], head=True)
    files = model_files(made, arrays_for(made, project=4))
    name = data.draw(st.sampled_from([ARRAYS_FILE, CARD_FILE]))
    content = bytearray(files[name])
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place:]
    try:
        tampered = BovwDescriptor({**files, name: bytes(content)})
    except CbirError as error:
        assert "\n" not in error.message
    else:
        describe(tampered, odd_pictures())


def test_vlad_takes_no_pyramid() -> None:
    block = Block("sift", {"encoding": "vlad", "pyramid": [1, 2]})
    with pytest.raises(CbirError, match="vlad has no spatial pyramid"):
        raw_dim(block, arrays_of(block), (32, 32))
