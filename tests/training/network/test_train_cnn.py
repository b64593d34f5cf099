from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cbir
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.errors import CbirError

pytestmark = pytest.mark.training

CLASSES = 3


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a brighter square whose place is the class: learnt in a few steps."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    images = random.integers(0, 120, (count, 32, 32, 3))
    for image, label in zip(images, labels, strict=True):
        image[8:24, 10 * label : 10 * label + 10] += 120
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def test_a_network_learns() -> None:
    from cbir.training.network.loop import train
    from cbir.training.network.settings import settings_for

    images, labels = blobs(400)
    _, log = train(images, labels, blobs(100, seed=1), settings_for(400, epochs=4), CLASSES)
    assert [result.epoch for result in log] == [1, 2, 3, 4]
    assert log[-1].held_out_accuracy > 0.9


def test_a_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    from cbir.training.network.loop import train
    from cbir.training.network.settings import TrainSettings

    settings = TrainSettings(epochs=1, batch_size=50)
    checkpoint = tmp_path / "state.safetensors"
    train(*blobs(100), blobs(20, 1), settings, CLASSES, checkpoint)
    with pytest.raises(CbirError, match="of other settings or images"):
        train(*blobs(100, seed=5), blobs(20, 1), settings, CLASSES, checkpoint)


def test_small_sets_get_small_batches_and_rates() -> None:
    from cbir.training.network.settings import TrainSettings, settings_for

    assert settings_for(45_000, epochs=16, seed=0) == TrainSettings()
    small = settings_for(1_298, epochs=3, seed=0)
    assert small.batch_size == 16
    assert small.peak_rate == pytest.approx(TrainSettings().peak_rate * 16 / 512)


def test_fusion_is_chosen_by_what_ranks_best() -> None:
    from cbir.descriptors.fusion import unit_rows
    from cbir.training.choose import choose_fusion

    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 400)
    noise = random.normal(size=(400, 8)).astype(np.float32)
    telling = (4 * np.eye(4)[labels] + 0.1 * random.normal(size=(400, 4))).astype(np.float32)
    by_posterior, score = choose_fusion(unit_rows(noise), telling, labels)
    assert by_posterior.weight > 0.5
    assert score > 0.95
    telling_embedding = np.hstack([telling, np.zeros((400, 4), dtype=np.float32)])
    by_embedding, _ = choose_fusion(unit_rows(telling_embedding), noise[:, :4], labels)
    assert by_embedding.weight < 0.5


@pytest.mark.slow
def test_training_from_the_command_line_survives_a_kill(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "cbir", "train", "cnn", "digits:train", "--name", "digits"),
        *("--test", "digits:test", "--epochs", "3"),
    ]
    killed = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("epoch 1/3"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    killed.stderr.close()
    time.sleep(0.1)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "epoch 1/3" not in again.stderr and "epoch 3/3" in again.stderr
    folder = Path(again.stdout.strip())
    card = json.loads((folder / CARD_FILE).read_text())
    assert len(card["training"]["log"]) == 3
    assert len(card["training"]["classification"]["by_class"]) == 10
    assert {"curves.png", "confusion.png", "classes.png"} <= {p.name for p in folder.iterdir()}
    assert card["training"]["command"].startswith("cbir train cnn digits:train --name digits")
    quality = card["quality"]
    close = (
        quality["int8_cosine"] >= 0.99
        and quality["int8_same_class"] >= 0.95
        and (quality["int8_nap_difference"] >= -0.01 or quality["int8_p"] >= 0.05)
        and (quality["int8_accuracy_difference"] >= -0.01 or quality["int8_accuracy_p"] >= 0.05)
    )
    assert (card["training"]["precision"] == "int8") == close
    assert quality["test_accuracy"] > 0.6
    assert card["trained_on"].startswith("digits, 1,298 images")
    place = str(tmp_path / "d.cbir")
    report = cbir.index_images(["digits:train"], place, descriptor="digits")
    assert report.added == 1442
    searcher = cbir.Searcher.open(place)
    assert isinstance(searcher.descriptor, OnnxDescriptor)
    result = cbir.evaluate(searcher, cbir.open_source("digits:test"), ["P@10"])
    assert result.measures["P@10"] > 0.6
    assert result.training_images_indexed
    assert result.accuracy is not None
    assert result.accuracy["queries"] == pytest.approx(card["quality"]["test_accuracy"], abs=0.01)
    searcher.close()


def test_unlabelled_images_cannot_be_trained_on(tmp_path: Path) -> None:
    from cbir.training.labelled import read_labelled
    from tests.descriptors.support_photos import write_photos

    photos = write_photos(tmp_path / "photos", per_colour=1)
    with pytest.raises(CbirError) as caught:
        read_labelled(cbir.open_source(str(photos)), lambda image: image)
    assert "--label-from-folder" in caught.value.hint


def test_a_class_that_only_the_held_out_images_have_is_no_damage() -> None:
    from cbir.training.network.loop import train
    from cbir.training.network.settings import settings_for

    images, labels = blobs(100)
    network, _ = train(images, labels, (images[:5], labels[:5]), settings_for(100, epochs=1), 7)
    assert network.classifier.out_features == 7
