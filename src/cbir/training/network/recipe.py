"""The whole way from labelled images to a model that can be shipped, as `cbir train cnn` runs it.

Split, train, export to int8, check the export, choose temperature and fusion weight on held-out
images, measure, write the card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.fusion import centred
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard, OnnxDescriptor
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.machine import processor, usable_cores
from cbir.training.choose import MEASURE, choose_fusion
from cbir.training.labelled import Say, accuracy, read_labelled, split
from cbir.training.network.export import export_float, quantise
from cbir.training.network.loop import EpochResult, normalisation, predict, settings_for, train
from cbir.types import RgbImage

SIZE = 32
CALIBRATION_IMAGES = 1000
PARITY_IMAGES = 1000
FLOAT32_COSINE, INT8_COSINE = 0.9999, 0.99


def train_model(
    source: ImageSource,
    name: str,
    *,
    epochs: int = 16,
    seed: int = 0,
    test: ImageSource | None = None,
    checkpoint: Path | None = None,
    say: Say = lambda _: None,
) -> dict[str, bytes]:
    """Train on `source` and return the model's files (`model.onnx`, `model.json`).

    A tenth of the images is held out: for the accuracy of each epoch, and (half as index, half
    as queries) to choose temperature and fusion weight. `test` is only measured, at the end.
    With `checkpoint` an interrupted run goes on where it stopped.
    """
    everything = read_labelled(source, _resized, say=say)
    classes = everything.classes
    held_out, training = split(everything, seed)
    held_images, images = held_out.stacked(), training.stacked()
    settings = settings_for(len(images), epochs, seed)
    say(f"{len(images):,} images to train on, {len(held_images):,} held out")
    network, log = train(
        images,
        training.labels,
        (held_images, held_out.labels),
        settings,
        len(classes),
        checkpoint,
        lambda result: say(_epoch_line(result, settings.epochs)),
    )
    mean, std = normalisation(images)
    float_model = export_float(network, mean, std)
    int8_model = quantise(float_model, images[:CALIBRATION_IMAGES])
    parity = check_parity(
        predict(network, held_images[:PARITY_IMAGES], mean, std),
        {"float32": float_model, "int8": int8_model},
        held_images[:PARITY_IMAGES],
    )
    say("export: " + ", ".join(f"{k} {v:.5f}" for k, v in parity.items()))
    faithful = parity["int8_cosine"] >= INT8_COSINE
    if not faithful:
        say("int8 would change the answers: the model is kept in float32, which is slower")
    model = int8_model if faithful else float_model
    raw = _Network(model)
    trained_embeddings, trained_logits = raw.outputs(images)
    centre = trained_embeddings.mean(axis=0)
    held_embeddings, held_logits = raw.outputs(held_images)
    choice = choose_fusion(centred(held_embeddings, centre), held_logits, held_out.labels)
    say(
        f"fusion: temperature {choice.temperature:g}, posterior weight {choice.weight:g}, "
        f"held-out {MEASURE} {choice.score:.4f}"
    )
    quality = {
        "training_accuracy": accuracy(trained_logits, training.labels),
        "held_out_accuracy": accuracy(held_logits, held_out.labels),
        f"held_out_{MEASURE}": choice.score,
        **parity,
    }
    if test is not None:
        tested = read_labelled(test, _resized, say=say)
        if tested.classes != classes:
            raise CbirError("the test images have other classes than the training images")
        quality["test_accuracy"] = accuracy(raw.outputs(tested.stacked())[1], tested.labels)
        say(f"test accuracy {quality['test_accuracy']:.4f}")
    card = OnnxCard(
        name=name,
        size=SIZE,
        mean=tuple(float(value) for value in centre),
        temperature=choice.temperature,
        posterior_weight=choice.weight,
        classes=classes,
        trained_on=f"{everything.origin}, {len(images):,} images",
        licence="MIT",
        training={
            "images": f"{source.name}/{source.scope}",
            "precision": "int8" if faithful else "float32",
            "settings": asdict(settings),
            "log": [asdict(result) for result in log],
            "processor": processor(),
            "cores": usable_cores(),
            "torch": torch.__version__,
        },
        quality={key: round(value, 5) for key, value in quality.items()},
    )
    return {NETWORK_FILE: model, CARD_FILE: json.dumps(asdict(card), indent=1).encode()}


def check_parity(
    expected: tuple[NDArray[np.float32], NDArray[np.float32]],
    models: Mapping[str, bytes],
    images: NDArray[np.uint8],
) -> dict[str, float]:
    """How near the exports come to the trained network: mean cosine of embeddings, same class.

    Raises `CbirError` when the float export is not the same function.
    """
    figures = {}
    for kind, model in models.items():
        embeddings, logits = _Network(model).outputs(images)
        products = np.sum(embeddings * expected[0], axis=1)
        norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected[0], axis=1)
        figures[f"{kind}_cosine"] = float(np.mean(products / norms))
        figures[f"{kind}_same_class"] = float(np.mean(logits.argmax(1) == expected[1].argmax(1)))
    if figures["float32_cosine"] < FLOAT32_COSINE:
        raise CbirError(f"the exported network answers otherwise than the trained one: {figures}")
    return figures


class _Network:
    """An ONNX network run on all cores."""

    def __init__(self, model: bytes) -> None:
        card = OnnxCard(
            name="",
            classes=(),
            trained_on="",
            licence="",
            training={},
            quality={},
            size=SIZE,
            mean=(0.0,),
            temperature=1.0,
            posterior_weight=0.0,
        )
        self._descriptor = OnnxDescriptor(
            {NETWORK_FILE: model, CARD_FILE: json.dumps(asdict(card)).encode()}
        )

    def outputs(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with ThreadPoolExecutor(usable_cores()) as pool:
            answers = list(pool.map(self._descriptor.outputs, _batches(images)))
        embeddings, logits = zip(*answers, strict=True)
        return np.concatenate(embeddings), np.concatenate(logits)


def _batches(images: NDArray[np.uint8], size: int = 100) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _resized(image: RgbImage) -> RgbImage:
    if image.shape == (SIZE, SIZE, 3):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _epoch_line(result: EpochResult, epochs: int) -> str:
    return (
        f"epoch {result.epoch}/{epochs}: loss {result.loss:.4f}, "
        f"training accuracy {result.train_accuracy:.4f}, "
        f"held-out accuracy {result.held_out_accuracy:.4f}, {result.seconds:.0f} s"
    )
