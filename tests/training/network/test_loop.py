"""What the settings of the training loop do, on images that are learnt in a few steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.network.test_train_cnn import CLASSES, blobs, one_thread

pytestmark = pytest.mark.training

_ = one_thread
SMALL: dict[str, Any] = {"width": 0.125, "batch_size": 50}


def trained(checkpoint: Path | None = None, stop_after: int = 0, **chosen: Any) -> Any:
    """(network, log) of a small network; interrupted after so many epochs if told."""
    from cbir.training.network.loop import train
    from cbir.training.network.settings import settings_for
    from cbir.training.network.state import EpochResult

    def on_epoch(result: EpochResult) -> None:
        if result.epoch == stop_after:
            raise KeyboardInterrupt

    images, labels = blobs(200)
    settings = settings_for(200, **{**SMALL, "epochs": 3, **chosen})
    return train(images, labels, blobs(40, 1), settings, CLASSES, checkpoint, on_epoch)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"loss": "triplet-batch-sample"},
        {"loss": "proxy-anchor", "freeze": 0.5},
        {"ema": 0.9},
        {"optimizer": "adamw", "peak_rate": 1e-3},
        {"patience": 2},
        {"dropout": 0.3, "embedding": 8, "mix": "cutmix"},
        {"balance": True, "clip": 1.0, "schedule": "cosine"},
        {"jpeg": 0.5, "brightness": 0.2, "cutout": 8, "crop": 0.5},
        {"freeze": 1.0},
    ],
    ids=str,
)
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path: Path, chosen: dict[str, Any]) -> None:
    whole, _ = trained(**chosen)
    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint, stop_after=2, **chosen)
    resumed, log = trained(checkpoint, **chosen)
    assert [result.epoch for result in log] == [1, 2, 3]
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[name].numpy(), value.numpy())


def test_averaged_weights_are_the_moving_average() -> None:
    """One step, so that the average is of the first weights alone (it starts there)."""
    import torch

    from cbir.training.network.backbones import plan_of
    from cbir.training.network.network import EmbeddingNet
    from cbir.training.network.state import moving_average

    backbone = plan_of("airbench94").build(32, 0.125, 0, "")
    network = EmbeddingNet(backbone, 4, 3, torch.zeros(3), torch.ones(3))
    averaged = moving_average(network, 0.9)
    assert averaged is not None
    expected: torch.Tensor | None = None
    for step in range(4):
        with torch.no_grad():
            network.classifier.weight.fill_(step)
        averaged.update_parameters(network)
        now = torch.full((3, 4), float(step))
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    measured = averaged.module.state_dict()["classifier.weight"]
    torch.testing.assert_close(measured, expected)


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_a_clipped_step_has_the_direction_of_the_gradient_and_at_most_its_length(
    clip: float,
) -> None:
    """One plain step of SGD moves the weights by rate x gradient."""
    rate = 0.1
    plain: dict[str, Any] = {
        "backbone": "mlp",
        "epochs": 1,
        "batch_size": 200,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "warm_up": 0.0,
    }

    def weights(peak_rate: float, clip: float = 0.0) -> np.ndarray:
        network, _ = trained(**plain, peak_rate=peak_rate, clip=clip)
        return np.concatenate([each.detach().numpy().ravel() for each in network.parameters()])

    start = weights(0.0)
    step = weights(rate) - start
    length = np.linalg.norm(step)
    assert length > rate * 0.1  # else 0.01 would clip nothing
    clipped = weights(rate, clip) - start
    expected = step * min(1.0, rate * clip / length)
    np.testing.assert_allclose(clipped, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_early_stopping_ends_the_run_with_the_best_weights() -> None:
    from cbir.training.network.prediction import predict

    # A rate so low that nothing is learnt: the first epoch stays the best.
    network, log = trained(patience=2, peak_rate=1e-12, epochs=9)
    assert len(log) == 3
    network, log = trained(patience=3, epochs=4)
    images, labels = blobs(40, 1)
    reached = (predict(network, images, fast=True)[1].argmax(1) == labels).mean()
    assert reached == pytest.approx(max(result.held_out_accuracy for result in log))


def test_a_fixed_backbone_keeps_its_weights_and_its_features_are_kept(tmp_path: Path) -> None:
    from cbir.training.network.loop import features_file

    checkpoint = tmp_path / "state.safetensors"
    before, _ = trained(freeze=1.0, epochs=1, peak_rate=0.0)
    after, _ = trained(checkpoint, freeze=1.0, epochs=3)
    for name, value in before.backbone.state_dict().items():
        np.testing.assert_array_equal(after.backbone.state_dict()[name].numpy(), value.numpy())
    assert not np.array_equal(
        before.classifier.weight.detach().numpy(), after.classifier.weight.detach().numpy()
    )
    assert features_file(checkpoint).exists()


def test_a_mirroring_model_does_not_tell_an_image_from_its_mirror_image() -> None:
    from cbir.training.network.prediction import predict

    network, _ = trained(mirror=True, epochs=1)
    images, _ = blobs(10)
    embeddings, logits = predict(network, images)
    mirrored, mirrored_logits = predict(network, images[:, :, ::-1].copy())
    np.testing.assert_allclose(mirrored, embeddings, atol=1e-5)
    np.testing.assert_allclose(mirrored_logits, logits, atol=1e-5)
    plain, _ = trained(epochs=1)
    one, other = predict(plain, images)[0], predict(plain, images[:, :, ::-1].copy())[0]
    assert np.abs(one - other).max() > 1e-3


def test_every_image_is_mirrored_in_one_of_two_epochs() -> None:
    from cbir.training.network.loop import _mirrored

    first, second = (_mirrored(1000, 0, epoch, flips=True) for epoch in (0, 1))
    assert (first ^ second).all()
    assert 400 < int(first.sum()) < 600


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_learns_the_same() -> None:
    losses = [[result.loss for result in trained(compile=which)[1]] for which in (True, False)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
