"""Centring, PCA, whitening and fusion after a network: what they compute, and what is chosen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe
from cbir.descriptors.fusion import (
    EXPECTED_LIKELIHOOD,
    Posterior,
    fit_projection,
    principal_components,
    unit_rows,
)
from cbir.descriptors.onnx import NETWORK_FILE, PROJECTION_FILE, OnnxCard, OnnxDescriptor
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.runtime import Network
from cbir.training import projections
from cbir.training.choose import choose_fusion
from cbir.training.projections import AfterNetwork, Form, fit_after_network
from cbir.types import Floats
from tests.descriptors import support_networks

CLASSES = 5
RANDOM = np.random.default_rng(7)


def noise(count: int, seed: int = 9) -> Floats:
    """Logits that say nothing about the class."""
    return np.random.default_rng(seed).normal(size=(count, CLASSES)).astype(np.float32)


def class_numbers(count: int, seed: int) -> np.ndarray:
    numbers: np.ndarray = np.random.default_rng(seed).integers(0, CLASSES, count)
    return numbers


def embeddings(labels: np.ndarray, deviations: Floats, signal: Floats, seed: int) -> Floats:
    """Normal rows of these deviations per dimension, plus `signal` (classes, dim) of the class."""
    random = np.random.default_rng(seed)
    rows = deviations * random.normal(size=(len(labels), len(deviations))) + signal[labels]
    return (rows + 3).astype(np.float32)


def steps(first: float, dims: int, then: float, others: int) -> Floats:
    """The deviations of `dims` dimensions and then of `others`."""
    return np.repeat(np.asarray([first, then], dtype=np.float32), [dims, others])


def fitted(deviations: Floats, signal: Floats, count: int = 600) -> tuple[AfterNetwork, Floats]:
    """The choice for such embeddings, and the held-out ones."""
    training_labels, labels = class_numbers(3000, 0), class_numbers(count, 1)
    training = embeddings(training_labels, deviations, signal, 2)
    held_out = embeddings(labels, deviations, signal, 3)
    return fit_after_network(training, held_out, noise(count), labels), held_out


def random_signal(dims: int, size: float, seed: int = 4) -> Floats:
    return (size * np.random.default_rng(seed).normal(size=(CLASSES, dims))).astype(np.float32)


@pytest.fixture(autouse=True)
def few_dimensions_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that examples may be small."""
    monkeypatch.setattr(projections, "LEAST_DIMS", 8)


def test_fewer_than_64_dimensions_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would lose what tells unknown classes and copies apart."""
    monkeypatch.undo()
    found, _ = few_strong_dimensions()
    tried = {int(name.split()[1].rstrip(",")) for name in found.tried if name.startswith("PCA")}
    assert tried == {64, 128}


def few_strong_dimensions() -> tuple[AfterNetwork, Floats]:
    """Classes differ in 8 dimensions of large variance, turned; 120 others are noise."""
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(128, 128)))[0]
    signal = np.pad(random_signal(8, 2.5), ((0, 0), (0, 120))).astype(np.float32)
    labels, held_labels = class_numbers(3000, 0), class_numbers(600, 1)
    deviations = steps(2.0, 8, 1.2, 120)
    training = (embeddings(labels, deviations, signal, 2) @ turn).astype(np.float32)
    held_out = (embeddings(held_labels, deviations, signal, 3) @ turn).astype(np.float32)
    return fit_after_network(training, held_out, noise(600), held_labels), held_out


def test_the_dimensions_that_differ_between_classes_are_found() -> None:
    found, held_out = few_strong_dimensions()
    assert found.form.name.startswith("PCA 8")
    assert found.form.vectors(held_out).shape == (600, 8)
    assert found.score > found.tried["centred"] + 0.02 and found.p < 0.05


def test_whitening_is_chosen_where_the_classes_differ_in_small_directions() -> None:
    """And the vectors are those of scikit-learn's whitened PCA, scaled to unit length."""
    from sklearn.decomposition import PCA

    deviations = steps(6.0, 8, 0.5, 8)
    signal = np.pad(random_signal(8, 0.6), ((0, 0), (8, 0))).astype(np.float32)
    found, held_out = fitted(deviations, signal)
    assert found.form.name == "PCA 16, whitened 1"
    assert found.score > found.tried["centred"] + 0.1
    training = embeddings(class_numbers(3000, 0), deviations, signal, 2).astype(np.float64)
    reference = PCA(16, whiten=True).fit(training).transform(held_out.astype(np.float64))
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    ours = found.form.vectors(held_out)
    signs = np.sign((ours * reference).sum(axis=0))
    np.testing.assert_allclose(ours, reference * signs, atol=1e-4)


def test_an_embedding_that_centring_would_spoil_stays_as_it_is() -> None:
    """One class is the mean of the others: centred, its vectors point anywhere."""
    signal = np.zeros((CLASSES, 8), dtype=np.float32)
    signal[1:, :4] = 6 * np.eye(4)
    signal[0, :4] = signal[1:, :4].mean(axis=0)
    deviations = np.full(8, 0.5, dtype=np.float32)
    found, held_out = fitted(deviations, signal)
    assert found.form.name == "as it is"
    np.testing.assert_allclose(found.form.vectors(held_out), unit_rows(held_out), atol=1e-7)
    assert found.card_fields({})["dim"] == 8 and "mean" not in found.card_fields({})


def test_plain_centring_stays_where_nothing_is_better() -> None:
    """Round clusters: all directions say as much."""
    deviations, signal = np.ones(16, dtype=np.float32), random_signal(16, 3.0)
    found, held_out = fitted(deviations, signal)
    training = embeddings(class_numbers(3000, 0), deviations, signal, 2)
    assert found.form.name == "centred" and found.p >= 0.05
    mean = training.mean(axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(found.form.vectors(held_out), unit_rows(held_out - mean), atol=1e-6)
    assert found.files(b"net") == {NETWORK_FILE: b"net"}
    assert found.card_fields({})["mean"] == pytest.approx(mean, abs=1e-6)


def test_what_is_better_by_chance_is_not_chosen() -> None:
    """Of several forms of noise, one is nearly always a little better than plain centring."""
    higher = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        training = random.normal(size=(300, 16)).astype(np.float32)
        held_out = random.normal(size=(120, 16)).astype(np.float32)
        labels = random.integers(0, CLASSES, 120)
        found = fit_after_network(training, held_out, noise(120, seed), labels)
        assert found.form.name == "centred"
        higher += max(found.tried.values()) > found.tried["centred"]
    assert higher >= 8


def test_the_number_of_forms_counts_against_the_best_of_them() -> None:
    """30 queries that would be enough if there were one other form."""
    found, _ = fitted(np.ones(16, dtype=np.float32), random_signal(16, 0.5, seed=2), count=60)
    assert len(found.tried) == 9 and max(found.tried.values()) > found.tried["centred"] + 0.05
    assert found.p / 8 < 0.03 < 0.05 < found.p
    assert found.form.name == "centred"


def average_precision_at_100(vectors: Floats, labels: np.ndarray) -> float:
    """The mean nAP@100 of the second half as queries to the first, hit by hit."""
    half = len(labels) // 2
    values = []
    for query in range(half, len(labels)):
        ranked = np.argsort(-(vectors[:half] @ vectors[query]), kind="stable")[:100]
        right, total = 0, 0.0
        for rank, row in enumerate(ranked, 1):
            if labels[row] == labels[query]:
                right += 1
                total += right / rank
        values.append(total / min(100, int((labels[:half] == labels[query]).sum())))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_that_of_the_vectors_and_never_worse_than_plain_centring(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = class_numbers(300, seed)
    deviations = np.exp(random.normal(size=12)).astype(np.float32)
    signal = random_signal(12, 1.0, seed)
    training = embeddings(class_numbers(900, seed + 10), deviations, signal, seed + 20)
    held_out = embeddings(labels, deviations, signal, seed + 30)
    logits = noise(300) + np.eye(CLASSES, dtype=np.float32)[labels]
    found = fit_after_network(training, held_out, logits, labels)
    scored = average_precision_at_100(found.vectors(held_out, logits), labels)
    assert found.score == pytest.approx(scored, abs=1e-4)
    assert found.score == found.tried[found.form.name]
    plain = choose_fusion(unit_rows(held_out - training.mean(axis=0)), logits, labels)[1]
    assert found.tried["centred"] == pytest.approx(plain, abs=1e-4)
    assert found.score >= found.tried["centred"]


def test_temperature_and_weight_are_chosen_for_the_form_that_is_kept() -> None:
    """The centred embedding says nothing here, the projected one more than the posterior."""
    deviations = steps(60.0, 8, 0.1, 8)
    signal = np.pad(random_signal(8, 2.0), ((0, 0), (8, 0))).astype(np.float32)
    labels = class_numbers(600, 1)
    training = embeddings(class_numbers(3000, 0), deviations, signal, 2)
    held_out = embeddings(labels, deviations, signal, 3)
    logits = noise(600) + np.eye(CLASSES, dtype=np.float32)[labels]
    found = fit_after_network(training, held_out, logits, labels)
    alone, _ = choose_fusion(unit_rows(held_out - training.mean(axis=0)), logits, labels)
    assert found.form.projection is not None
    assert alone != found.posterior
    again, score = choose_fusion(found.form.vectors(held_out), logits, labels)
    assert (found.posterior, found.score) == (again, score)


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        (np.ones((50, 4)), np.ones((20, 4))),
        (RANDOM.normal(size=(6, 40)), RANDOM.normal(size=(20, 40))),
        (RANDOM.normal(size=(18, 3)), RANDOM.normal(size=(2, 3))),
    ],
    ids=["equal rows", "fewer rows than dimensions", "two held out"],
)
def test_little_to_fit_is_enough(training: np.ndarray, held_out: np.ndarray) -> None:
    labels = class_numbers(len(held_out), 0)
    rows = held_out.astype(np.float32)
    found = fit_after_network(training.astype(np.float32), rows, noise(len(rows)), labels)
    assert found.form.name == "centred"
    assert np.isfinite(found.vectors(rows, noise(len(rows)))).all()


# --- The card --------------------------------------------------------------------------------

SIDE = 16
PIXELS = np.random.default_rng(6).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
PREPROCESSING = Preprocessing(height=SIDE, width=SIDE, scale=1 / 255)


def small_network() -> bytes:
    """A network whose logits are its embedding."""
    pytest.importorskip("onnx", reason="needs the `photos` extra")
    return support_networks.network(["embedding", "logits"])


def outputs() -> Floats:
    """What the network returns for the images, as embedding and as logits."""
    network = Network(small_network(), NETWORK_FILE)
    return network.outputs(PREPROCESSING.inputs(list(PIXELS)), ["embedding"])[0]


def model(after: AfterNetwork) -> dict[str, bytes]:
    files = after.files(small_network())
    card = OnnxCard(
        name="small",
        preprocessing=PREPROCESSING,
        classes=tuple("abcdef"),
        trained_on="nothing",
        licence="MIT",
        training={"images": "none/", "vectors": after.recorded()},
        quality={},
        **after.card_fields(files),
    )
    return {**files, CARD_FILE: json.dumps(card.to_json()).encode()}


def forms() -> list[Form]:
    rows = outputs()
    mean, half = fit_projection(rows, 3, 0.5)
    whole = principal_components(rows, support_networks.DIM).projection(support_networks.DIM, 1.0)
    return [
        Form("as it is"),
        Form("centred", mean),
        Form("PCA 3, whitened 0.5", mean, half),
        Form("PCA 6, whitened 1", mean, whole),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_descriptor_of_the_files_computes_the_same_vectors(number: int) -> None:
    form, rows = forms()[number], outputs()
    posterior = Posterior(0.4, 0.35, EXPECTED_LIKELIHOOD)
    after = AfterNetwork(support_networks.DIM, form, posterior, 0.5)
    files = model(after)
    fused, alone = OnnxDescriptor(files), OnnxDescriptor(files, "embedding")
    np.testing.assert_allclose(describe(fused, list(PIXELS)), after.vectors(rows, rows), atol=1e-6)
    plain = form if form.projection is None else Form("centred", form.mean)
    np.testing.assert_allclose(describe(alone, list(PIXELS)), plain.vectors(rows), atol=1e-6)
    np.testing.assert_allclose(fused.classified(list(PIXELS))[0], plain.vectors(rows), atol=1e-6)
    assert (PROJECTION_FILE in files) == (form.projection is not None)
    assert set(OnnxDescriptor.file_names(json.loads(files[CARD_FILE]), files)) == set(files)


def test_what_is_chosen_becomes_a_model_with_its_record() -> None:
    rows = outputs()
    after = fit_after_network(rows, rows, rows, class_numbers(len(rows), 0))
    files = model(after)
    found = describe(OnnxDescriptor(files), list(PIXELS))
    np.testing.assert_allclose(found, after.vectors(rows, rows), atol=1e-6)
    record: dict[str, Any] = OnnxDescriptor(files).card.training["vectors"]
    assert record["form"] == after.form.name
    assert record["held_out_nAP@100"][after.form.name] == pytest.approx(after.score, abs=1e-5)
    assert {"centred", "as it is", "PCA 6, whitened 1"} < record["held_out_nAP@100"].keys()
