from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import cbir
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe, describe_each, prepare
from cbir.descriptors.fusion import Posterior, fuse, projected, unit_rows
from cbir.descriptors.models import SHIPPED, descriptor_of, keep_model, models, newer_model
from cbir.descriptors.onnx import NETWORK_FILE, PROJECTION_FILE, OnnxDescriptor
from cbir.errors import CbirError
from cbir.files import content, place
from cbir.testing import check_descriptor
from cbir.types import DescriptorSpec
from tests.descriptors.support_photos import MeanColour, picture

FINITE = st.floats(-1e3, 1e3, width=32)


@pytest.fixture(scope="module")
def cnn() -> OnnxDescriptor:
    descriptor = cbir.load_descriptor("cifar10-cnn")
    assert isinstance(descriptor, OnnxDescriptor)
    return descriptor


@pytest.mark.parametrize("name", ["cifar10-cnn", "cifar10-cnn:embedding"])
def test_shipped_descriptors_pass_the_conformance_checks(name: str) -> None:
    check_descriptor(cbir.load_descriptor(name))


def test_a_descriptor_of_ones_own_needs_no_base_class() -> None:
    check_descriptor(MeanColour())
    assert isinstance(MeanColour(), cbir.Descriptor)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32, 3), dtype=np.uint8),
        np.full((1, 1, 3), 255, dtype=np.uint8),
        np.zeros((3, 900, 3), dtype=np.uint8),
        picture((10, 200, 90), 1, (8, 8)),
    ],
    ids=["all black", "one pixel", "extreme aspect", "8x8"],
)
def test_odd_pictures_get_valid_vectors(cnn: OnnxDescriptor, image: np.ndarray) -> None:
    vector = describe(cnn, [image])[0]
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_preparing_first_changes_nothing(cnn: OnnxDescriptor) -> None:
    image = picture((90, 120, 30), 3, (200, 120))
    small = prepare(cnn, image)
    assert small.shape == (32, 32, 3)
    np.testing.assert_array_equal(describe(cnn, [small]), describe(cnn, [image]))


def test_resizing_is_pillows(cnn: OnnxDescriptor) -> None:
    image = picture((90, 120, 30), 3, (64, 48))
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cnn.prepare(image), np.asarray(expected))


def test_a_batch_gives_what_single_images_give(cnn: OnnxDescriptor) -> None:
    images = [picture((n, 255 - n, 3 * n % 255), n, (32, 32)) for n in range(0, 250, 2)]
    together = describe(cnn, images)
    alone = np.concatenate([describe(cnn, [image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_array_equal(together, describe(cnn, images))


def test_the_fused_vector_holds_the_embedding_and_the_posterior(cnn: OnnxDescriptor) -> None:
    images = [picture((200, 20, 20), 1, (32, 32)), picture((20, 20, 200), 2, (32, 32))]
    fused = describe(cnn, images)
    weight = cnn.card.posterior_weight
    features, logits = cnn.network.outputs(np.stack(images))
    with np.load(io.BytesIO(content(cnn.files[PROJECTION_FILE]))) as fitted:
        mean, projection = fitted["mean"], fitted["beside_posterior"]
    whitened = (features - mean) @ projection
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    tempered = np.exp(logits / cnn.card.temperature)
    posterior = tempered / tempered.sum(axis=1, keepdims=True)
    rest = np.sqrt(1 - weight * (posterior**2).sum(axis=1, keepdims=True))
    dim = whitened.shape[1]
    np.testing.assert_allclose(fused[:, dim:], np.sqrt(weight) * posterior, atol=1e-5)
    np.testing.assert_allclose(fused[:, :dim], rest * whitened, atol=1e-5)
    centred = projected(features, mean)
    np.testing.assert_allclose(
        describe(cbir.load_descriptor("cifar10-cnn:embedding"), images), centred, atol=1e-6
    )


def test_everything_that_changes_a_vector_changes_the_fingerprint(cnn: OnnxDescriptor) -> None:
    card = json.loads(content(cnn.files[CARD_FILE]))
    seen = {cnn.spec.fingerprint, OnnxDescriptor(cnn.files, "embedding").spec.fingerprint}
    for change in (
        {"temperature": 9.0},
        {"posterior_weight": 0.11},
        {"posterior_power": 0.5},
        *({"files": {**card["files"], name: "0" * 64}} for name in card["files"]),
    ):
        files = {**cnn.files, CARD_FILE: json.dumps({**card, **change}).encode()}
        seen.add(OnnxDescriptor(files).spec.fingerprint)
    assert card["files"].keys() == {NETWORK_FILE, PROJECTION_FILE} and len(seen) == 7
    told = {**cnn.files, CARD_FILE: json.dumps({**card, "quality": {}}).encode()}
    assert OnnxDescriptor(told).spec.fingerprint == cnn.spec.fingerprint


def test_the_model_store_keeps_every_version(cnn: OnnxDescriptor) -> None:
    card = json.loads(content(cnn.files[CARD_FILE]))
    versions = [
        {**cnn.files, CARD_FILE: json.dumps({**card, "name": "mine", "temperature": t}).encode()}
        for t in (1.25, 1.75)
    ]
    for files in versions:
        keep_model(files)
    for files in versions:
        spec = OnnxDescriptor(files).spec
        assert descriptor_of(spec, {}).spec == spec
        assert cbir.load_descriptor(f"mine@{spec.fingerprint[:8]}").spec == spec
    assert {m.descriptor.spec.name for m in models()} == {*SHIPPED, "mine"}


def test_an_older_version_is_told_of_the_newer(cnn: OnnxDescriptor) -> None:
    old = DescriptorSpec("cifar10-cnn", 74, "00" * 32)
    newer = newer_model(old)
    assert newer is not None and newer.fingerprint == cnn.spec.fingerprint
    assert newer_model(cnn.spec) is None


def test_a_model_that_is_gone_is_one_clear_error() -> None:
    with pytest.raises(CbirError, match="built with cifar10-cnn@00000000, but only"):
        descriptor_of(DescriptorSpec("cifar10-cnn", 74, "00" * 32), {})


def test_a_damaged_folder_of_the_store_costs_only_itself(cnn: OnnxDescriptor) -> None:
    from cbir.descriptors.models import damaged_models

    card = json.loads(content(cnn.files[CARD_FILE]))
    files = {**cnn.files, CARD_FILE: json.dumps({**card, "name": "mine"}).encode()}
    (keep_model(files) / NETWORK_FILE).unlink()
    assert [m.origin for m in models()] == ["shipped"] * len(SHIPPED)
    assert cbir.load_descriptor("cifar10-cnn").spec == cnn.spec
    ((place, reason),) = damaged_models().items()
    assert "mine@" in place and NETWORK_FILE in reason


def test_a_folder_is_taken_only_when_it_is_written_as_a_path(
    cnn: OnnxDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = json.loads(content(cnn.files[CARD_FILE]))
    folder = tmp_path / "cifar10-cnn"
    folder.mkdir()
    for name in (NETWORK_FILE, PROJECTION_FILE):
        place(cnn.files[name], folder / name)
    (folder / CARD_FILE).write_text(json.dumps({**card, "temperature": 3.0}))
    monkeypatch.chdir(tmp_path)
    assert cbir.load_descriptor("cifar10-cnn").spec == cnn.spec
    assert cbir.load_descriptor(str(folder)).spec != cnn.spec
    with pytest.raises(CbirError, match="no model in"):
        cbir.load_descriptor(str(tmp_path / "nowhere"))


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(CbirError) as caught:
        cbir.load_descriptor("cifar10-cn")
    assert caught.value.hint == "did you mean 'cifar10-cnn'?"


def test_a_descriptor_can_be_named_by_module_and_attribute() -> None:
    descriptor = cbir.load_descriptor("tests.descriptors.support_photos:MeanColour")
    assert descriptor.spec.name == "mean-colour"


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((2, 4), dtype=np.float32),
        np.full((2, 4), np.nan, dtype=np.float32),
        np.eye(4, dtype=np.float32)[:1],
        np.ones((2, 4), dtype=np.float32),
    ],
    ids=["zero", "nan", "a row too few", "not of unit norm"],
)
def test_broken_answers_are_refused(answer: np.ndarray) -> None:
    class Fixed(MeanColour):
        def describe(self, images: object) -> np.ndarray:  # type: ignore[override]
            return answer

    with pytest.raises(CbirError, match="mean-colour"):
        describe(Fixed(), [picture((1, 2, 3), 1)] * 2)


def test_one_bad_image_does_not_shift_the_others() -> None:
    class NoSquares(MeanColour):
        def describe(self, images: list[np.ndarray]) -> np.ndarray:  # type: ignore[override]
            if any(image.shape[0] == image.shape[1] for image in images):
                raise ValueError("no squares")
            return super().describe(images)

    images = [picture((20 * n, 9, 9), n) for n in range(6)]
    images[2] = picture((9, 9, 9), 1, (5, 5))
    results = describe_each(NoSquares(), images)
    assert isinstance(results[2], ValueError)
    for number in (0, 1, 3, 4, 5):
        expected = MeanColour().describe([images[number]])[0]
        np.testing.assert_array_equal(results[number], expected)


@settings(deadline=None)
@given(arrays(np.float32, (5, 7), elements=FINITE))
def test_rows_are_always_of_unit_norm(rows: np.ndarray) -> None:
    units = unit_rows(rows)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-5)
    assert np.isfinite(units).all()


def test_a_row_with_nothing_to_say_is_the_first_unit_vector() -> None:
    mean = np.array([1, 2, 3], dtype=np.float32)
    np.testing.assert_array_equal(projected(mean[None], mean), [[1, 0, 0]])


@settings(deadline=None)
@given(arrays(np.float32, (4, 6), elements=FINITE), st.floats(0.2, 9))
def test_fused_vectors_are_units_and_multiply_as_their_kernel_says(
    logits: np.ndarray, temperature: float
) -> None:
    scaled = logits.astype(np.float64) / temperature
    posterior = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    embedding = unit_rows(np.random.default_rng(0).normal(size=(4, 3)))
    cosines, roots = embedding @ embedding.T, np.sqrt(posterior)
    bhattacharyya = Posterior(temperature, 0.8).fused(embedding, logits)
    expected = 0.2 * cosines + 0.8 * roots @ roots.T
    np.testing.assert_allclose(bhattacharyya @ bhattacharyya.T, expected, atol=1e-5)
    likelihood = Posterior(temperature, 0.8, 1).fused(embedding, logits)
    same_class = posterior @ posterior.T  # the probability, if the posteriors are right
    rest = np.sqrt(1 - 0.8 * same_class.diagonal())
    expected = 0.8 * same_class + np.outer(rest, rest) * cosines
    np.testing.assert_allclose(likelihood @ likelihood.T, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(likelihood, axis=1), 1, atol=1e-6)


@settings(deadline=None)
@given(arrays(np.float32, (2, 5), elements=FINITE), arrays(np.float32, (2, 3), elements=FINITE))
def test_fused_cosines_are_weighted_sums(first: np.ndarray, second: np.ndarray) -> None:
    blocks = [unit_rows(first), unit_rows(second)]
    fused = fuse(blocks, [0.7, 0.3])
    cosines = [float(block[0] @ block[1]) for block in blocks]
    assert float(fused[0] @ fused[1]) == pytest.approx(
        0.7 * cosines[0] + 0.3 * cosines[1], abs=1e-5
    )
