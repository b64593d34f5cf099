"""The whole way from labelled images to a model that can be shipped, as `cbir train` runs it.

Split, train, export to int8, check the export, choose temperature and fusion weight on held-out
images, measure, write the card.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.fusion import centred, fuse, sqrt_posterior
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard, OnnxDescriptor
from cbir.errors import CbirError
from cbir.evaluation.relevance import class_measures
from cbir.images.decode import load_pixels
from cbir.images.items import ImageSource
from cbir.index.exact import Space, nearest
from cbir.pipeline import usable_cores
from cbir.training.export import export_float, quantise
from cbir.training.train import EpochResult, normalisation, predict, settings_for, train

SIZE = 32
HELD_OUT = 0.1
CALIBRATION_IMAGES = 1000
PARITY_IMAGES = 1000
FLOAT32_COSINE, INT8_COSINE = 0.9999, 0.99
TEMPERATURES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
WEIGHTS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 1.0)
MEASURE = "nAP@100"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (n, 32, 32, 3) RGB, their class numbers int64 (n,), and where they are from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    origin: str

    def take(self, rows: NDArray[np.intp]) -> Labelled:
        return Labelled(self.images[rows], self.labels[rows], self.origin)


@dataclass(frozen=True)
class Choice:
    """What was chosen on the held-out images, and what it scored there."""

    temperature: float
    weight: float
    score: float


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
    everything, classes = read_labelled(source)
    held_out, training = split(everything, seed)
    settings = settings_for(len(training.images), epochs, seed)
    say(f"{len(training.images):,} images to train on, {len(held_out.images):,} held out")
    network, log = train(
        training.images,
        training.labels,
        (held_out.images, held_out.labels),
        settings,
        len(classes),
        checkpoint,
        lambda result: say(_epoch_line(result, settings.epochs)),
    )
    mean, std = normalisation(training.images)
    float_model = export_float(network, mean, std)
    int8_model = quantise(float_model, training.images[:CALIBRATION_IMAGES])
    parity = check_parity(
        predict(network, held_out.images[:PARITY_IMAGES], mean, std),
        {"float32": float_model, "int8": int8_model},
        held_out.images[:PARITY_IMAGES],
    )
    say("export: " + ", ".join(f"{k} {v:.5f}" for k, v in parity.items()))
    faithful = parity["int8_cosine"] >= INT8_COSINE
    if not faithful:
        say("int8 would change the answers: the model is kept in float32, which is slower")
    model = int8_model if faithful else float_model
    raw = _Network(model)
    trained_embeddings, trained_logits = raw.outputs(training.images)
    centre = trained_embeddings.mean(axis=0)
    held_embeddings, held_logits = raw.outputs(held_out.images)
    choice = choose_fusion(held_embeddings, held_logits, held_out.labels, centre)
    say(
        f"fusion: temperature {choice.temperature:g}, posterior weight {choice.weight:g}, "
        f"held-out {MEASURE} {choice.score:.4f}"
    )
    quality = {
        "training_accuracy": _accuracy(trained_logits, training.labels),
        "held_out_accuracy": _accuracy(held_logits, held_out.labels),
        f"held_out_{MEASURE}": choice.score,
        **parity,
    }
    if test is not None:
        tested, test_classes = read_labelled(test)
        if test_classes != classes:
            raise CbirError("the test images have other classes than the training images")
        quality["test_accuracy"] = _accuracy(raw.outputs(tested.images)[1], tested.labels)
        say(f"test accuracy {quality['test_accuracy']:.4f}")
    card = OnnxCard(
        name=name,
        size=SIZE,
        mean=tuple(float(value) for value in centre),
        temperature=choice.temperature,
        posterior_weight=choice.weight,
        classes=classes,
        trained_on=f"{everything.origin}, {len(training.images):,} images",
        licence="MIT",
        training={
            "images": f"{source.name}/{source.scope}",
            "precision": "int8" if faithful else "float32",
            "settings": asdict(settings),
            "log": [asdict(result) for result in log],
            "processor": _processor(),
            "cores": usable_cores(),
            "torch": torch.__version__,
        },
        quality={key: round(value, 5) for key, value in quality.items()},
    )
    return {NETWORK_FILE: model, CARD_FILE: json.dumps(asdict(card), indent=1).encode()}


def read_labelled(source: ImageSource) -> tuple[Labelled, tuple[str, ...]]:
    """All images of `source` at 32x32 with their class numbers, and the class names in order."""
    images, labels, files = [], [], 0
    for item in source.items():
        if item.label is None:
            raise CbirError(
                f"{item.location} has no label", "train needs labels: --label-from-folder"
            )
        data = item.read()
        files += isinstance(data, bytes)
        images.append(_resized(load_pixels(data)))
        labels.append(item.label)
    if len(set(labels)) < 2:
        raise CbirError("training needs images of at least two labels")
    classes = tuple(sorted(set(labels)))
    numbers = {label: number for number, label in enumerate(classes)}
    origin = source.name
    if source.uri == "cifar10":
        # Canonical CIFAR-10 is pixels; files are a re-encoded copy, which lowers every figure.
        origin = "CIFAR-10 (JPEG copy)" if files else "CIFAR-10"
    return Labelled(np.stack(images), np.array([numbers[x] for x in labels]), origin), classes


def split(everything: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """(held out, training): a tenth at random, and the rest."""
    order = np.random.default_rng(seed).permutation(len(everything.images))
    held = round(len(order) * HELD_OUT)
    return everything.take(order[:held]), everything.take(order[held:])


def choose_fusion(
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    centre: NDArray[np.float32],
) -> Choice:
    """The temperature and posterior weight that rank best, one half searched by the other."""
    unit = centred(embeddings, centre)
    half = len(unit) // 2
    relevant = np.bincount(labels[:half], minlength=int(labels.max()) + 1)[labels[half:]]
    choices = []
    for temperature in TEMPERATURES:
        posterior = sqrt_posterior(logits, temperature)
        for weight in WEIGHTS:
            vectors = fuse([unit, posterior], [1 - weight, weight])
            space = Space(np.ascontiguousarray(vectors[:half]), np.arange(half + 1))
            found = nearest(space, np.ascontiguousarray(vectors[half:]), 100)
            ranked = labels[:half][found.records]
            values = class_measures(ranked, labels[half:], relevant, [MEASURE])[MEASURE]
            choices.append(Choice(temperature, weight, float(values.mean())))
    return max(choices, key=lambda choice: choice.score)


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


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape == (SIZE, SIZE, 3):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _epoch_line(result: EpochResult, epochs: int) -> str:
    return (
        f"epoch {result.epoch}/{epochs}: loss {result.loss:.4f}, "
        f"training accuracy {result.train_accuracy:.4f}, "
        f"held-out accuracy {result.held_out_accuracy:.4f}, {result.seconds:.0f} s"
    )
