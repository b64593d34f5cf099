from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.cli.support_cli import call
from tests.training.network.test_train_cnn import CLASSES, blobs, one_thread

pytestmark = pytest.mark.training

__all__ = ["one_thread"]  # a fixture

METRIC_LOSSES = (
    "triplet-batch-all",
    "triplet-batch-hard",
    "triplet-batch-weighted",
    "triplet-batch-sample",
    "contrastive",
    "supervised-contrastive",
    "proxy-anchor",
    "normalised-softmax",
)


def embedded(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of other lengths than 1, near to each other; one class has a single image."""
    random = np.random.default_rng(seed)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
    return random.normal(1, 1, (len(labels), 5)).astype(np.float32), labels


def upright(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """As `blobs`, but with classes that mirroring does not exchange."""
    images, labels = blobs(count, seed)
    return np.ascontiguousarray(images.transpose(0, 2, 1, 3)), labels


def triplets(embeddings: np.ndarray, labels: np.ndarray):
    """For each anchor: the distances of its positives and of its negatives."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for anchor in range(len(labels)):
        others = [other for other in range(len(labels)) if other != anchor]
        distances = {other: math.dist(unit[anchor], unit[other]) for other in others}
        positives = [distances[o] for o in others if labels[o] == labels[anchor]]
        negatives = [distances[o] for o in others if labels[o] != labels[anchor]]
        if positives and negatives:
            yield positives, negatives


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def value_of(name: str, embeddings: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    import torch

    from cbir.training.network.losses import metric_loss

    loss = metric_loss(name, 4, embeddings.shape[1])
    assert loss is not None
    random = torch.Generator().manual_seed(seed)
    value = loss.compute(torch.from_numpy(embeddings), torch.from_numpy(labels), random)
    return float(value.detach())


def test_batch_weighted_is_the_loop_over_its_definition() -> None:
    from cbir.training.network.losses import MARGIN, TEMPERATURE

    embeddings, labels = embedded()
    terms = []
    for positives, negatives in triplets(embeddings, labels):
        far = softmax([d / TEMPERATURE for d in positives])
        near = softmax([-d / TEMPERATURE for d in negatives])
        positive = sum(w * d for w, d in zip(far, positives, strict=True))
        negative = sum(w * d for w, d in zip(near, negatives, strict=True))
        terms.append(max(0.0, MARGIN + positive - negative))
    assert len(terms) == 9  # the single image is no anchor
    expected = sum(terms) / len(terms)
    assert value_of("triplet-batch-weighted", embeddings, labels) == pytest.approx(expected, 1e-5)


def test_batch_sample_draws_in_proportion_to_hardness() -> None:
    from cbir.training.network.losses import MARGIN, TEMPERATURE

    embeddings, labels = embedded()
    expected = []
    for positives, negatives in triplets(embeddings, labels):
        far = softmax([d / TEMPERATURE for d in positives])
        near = softmax([-d / TEMPERATURE for d in negatives])
        expected.append(
            sum(
                wp * wn * max(0.0, MARGIN + dp - dn)
                for wp, dp in zip(far, positives, strict=True)
                for wn, dn in zip(near, negatives, strict=True)
            )
        )
    drawn = [value_of("triplet-batch-sample", embeddings, labels, seed) for seed in range(2000)]
    error = 4 * np.std(drawn) / math.sqrt(len(drawn))
    assert np.mean(drawn) == pytest.approx(sum(expected) / len(expected), abs=error)
    assert drawn[0] == value_of("triplet-batch-sample", embeddings, labels, 0)
    assert len(set(drawn)) > 100


def test_batch_all_and_batch_hard_are_loops_over_their_definitions() -> None:
    from cbir.training.network.losses import MARGIN

    embeddings, labels = embedded()
    every, hardest = [], []
    for positives, negatives in triplets(embeddings, labels):
        every += [MARGIN + p - n for p in positives for n in negatives if MARGIN + p - n > 0]
        hardest.append(max(0.0, MARGIN + max(positives) - min(negatives)))
    all_value = value_of("triplet-batch-all", embeddings, labels)
    assert all_value == pytest.approx(sum(every) / len(every), 1e-4)
    hard_value = value_of("triplet-batch-hard", embeddings, labels)
    assert hard_value == pytest.approx(sum(hardest) / len(hardest), 1e-4)


@pytest.mark.parametrize("name", METRIC_LOSSES)
def test_a_loss_sees_directions_only_and_survives_copies_and_lone_images(name: str) -> None:
    import torch

    from cbir.training.network.losses import metric_loss

    embeddings, labels = embedded()
    lengths = np.linspace(1, 3, len(labels), dtype=np.float32)[:, None]
    torch.manual_seed(0)
    value = value_of(name, embeddings, labels)
    torch.manual_seed(0)
    assert value_of(name, embeddings * lengths, labels) == pytest.approx(value, 1e-4)
    loss = metric_loss(name, 4, 5)
    assert loss is not None
    for points, classes in (
        (np.ones((4, 5), np.float32), [0, 0, 1, 1]),
        (embeddings[:3], [0, 1, 2]),
        (embeddings[:3], [1, 1, 1]),
    ):
        leaf = torch.from_numpy(points).requires_grad_()
        random = torch.Generator().manual_seed(0)
        loss.compute(leaf, torch.tensor(classes), random).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", METRIC_LOSSES)
def test_a_metric_loss_alone_gives_an_embedding_and_a_classifier(name: str) -> None:
    from cbir.descriptors.fusion import projected
    from cbir.training.network.loop import train
    from cbir.training.network.prediction import predict
    from cbir.training.network.settings import settings_for

    images, labels = upright(320)
    tested, truth = upright(100, seed=1)
    settings = settings_for(320, epochs=3, loss=name, loss_weight=1.0)
    network, log = train(images, labels, (tested, truth), settings, CLASSES)
    embeddings, _ = predict(network, tested)
    unit = projected(embeddings, embeddings.mean(axis=0))
    likeness = unit @ unit.T
    same = truth[:, None] == truth
    assert likeness[same].mean() > likeness[~same].mean() + 0.5
    assert log[-1].held_out_accuracy > 0.9


def test_the_classifier_leaves_the_embedding_to_a_metric_loss_of_weight_1() -> None:
    """Another label smoothing changes the gradient of cross-entropy, so only the classifier."""
    import torch

    from cbir.training.network.loop import train
    from cbir.training.network.settings import TrainSettings

    images, labels = blobs(60)
    weights = {}
    for smoothing in (0.0, 0.5):
        for weight in (0.5, 1.0):
            settings = TrainSettings(
                epochs=1,
                batch_size=30,
                embedding=8,
                label_smoothing=smoothing,
                loss="supervised-contrastive",
                loss_weight=weight,
            )
            network, _ = train(images, labels, blobs(20, 1), settings, CLASSES)
            weights[smoothing, weight] = network
    for weight, same in ((1.0, True), (0.5, False)):
        one, other = weights[0.0, weight], weights[0.5, weight]
        assert torch.equal(one.embedding.weight, other.embedding.weight) == same
        assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    from cbir.errors import CbirError
    from cbir.training.network.loop import train
    from cbir.training.network.settings import TrainSettings

    checkpoint = tmp_path / "state.safetensors"

    def run(**chosen: str | float) -> None:
        settings = TrainSettings(epochs=1, batch_size=25, **chosen)  # type: ignore[arg-type]
        train(*blobs(50), blobs(20, 1), settings, CLASSES, checkpoint)

    run(loss="contrastive")
    for other in ({"loss": "cross-entropy"}, {"loss": "contrastive", "loss_weight": 0.7}):
        with pytest.raises(CbirError, match="of other settings"):
            run(**other)


def test_balanced_batches_have_k_images_of_each_class() -> None:
    import torch

    from cbir.training.network.batch_order import balanced

    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20 + [3] * 3 + [5])
    batches = balanced(labels, 32, 8, torch.Generator().manual_seed(3))
    assert batches.shape == (3, 32)
    for batch in batches:
        assert sorted(torch.unique(labels[batch], return_counts=True)[1].tolist()) == [8] * 4
    again = balanced(labels, 32, 8, torch.Generator().manual_seed(3))
    assert torch.equal(batches, again)
    assert not torch.equal(batches, balanced(labels, 32, 8, torch.Generator().manual_seed(4)))
    # Few classes: more images of each. No image comes again before the others of its class.
    two = balanced(labels[:80], 16, 4, torch.Generator().manual_seed(0))
    assert two.shape == (5, 16)
    first = balanced(labels[:80] * 0, 16, 4, torch.Generator().manual_seed(0))
    assert first.unique().numel() == 80
    assert balanced(torch.tensor([0, 0, 1]), 16, 8, torch.Generator()).shape == (1, 4)


def test_the_command_lists_every_loss() -> None:
    from cbir.training.network.losses import LOSSES

    assert set(LOSSES) == {"cross-entropy", *METRIC_LOSSES}
    shown = call("train", "cnn", "--help").out
    help_text = " ".join(shown.split()).replace("- ", "-")
    assert all(name in help_text for name in LOSSES)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--loss", "triplet-hard"], "unknown loss 'triplet-hard'", "triplet-batch-hard"),
        (["--loss", "contrastive", "--loss-weight", "1.5"], "loss_weight 1.5", "0 to 1"),
        (["--loss", "contrastive", "--loss-weight", "nan"], "loss_weight nan", "0 to 1"),
        (["--loss-weight", "0.3"], "needs a metric loss", "--loss"),
    ],
)
def test_a_wrong_loss_is_one_line_before_images_are_read(
    tmp_path: Path, options: list[str], message: str, hint: str
) -> None:
    from tests.descriptors.support_photos import write_photos

    photos = write_photos(tmp_path / "photos", per_colour=1)  # without labels: refused once read
    said, cure = call("train", "cnn", photos, "--name", "mine", *options).error
    assert message in said
    assert hint in cure
