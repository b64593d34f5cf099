"""Trains a complete model from labelled images, for `cbir train cnn`.

Splits, trains, exports to int8, checks the export, chooses on held-out images how vectors are made,
measures, and writes the card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cbir.descriptors.about import NOT_STATED
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.onnx import OnnxCard, OnnxDescriptor, square_input
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.machine import processor
from cbir.training.choose import MEASURE
from cbir.training.classification import CLASSIFICATION, classification
from cbir.training.labelled import (
    Say,
    accuracy,
    prefix_of,
    read_labelled,
    read_test,
    split,
)
from cbir.training.network.backbones import plan_of
from cbir.training.network.backbones.libraries import PRETRAINED
from cbir.training.network.distillation import load_teachers, require_classes, teacher_answers
from cbir.training.network.export import export_float, quantise
from cbir.training.network.loop import train
from cbir.training.network.network import EmbeddingNet
from cbir.training.network.parity import FLOAT32, INT8, choose_export, outputs
from cbir.training.network.prediction import device, predict
from cbir.training.network.settings import TrainSettings, settings_for
from cbir.training.network.state import EpochResult
from cbir.training.projections import fit_after_network
from cbir.types import OnStage

CALIBRATION_IMAGES = 1000
PARITY_IMAGES = 1000


def train_model(
    source: ImageSource,
    name: str,
    chosen: Mapping[str, Any],
    *,
    licence: str = NOT_STATED,
    command: str = "",
    test: ImageSource | None = None,
    checkpoint: Path | None = None,
    say: Say = lambda _: None,
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> dict[str, bytes]:
    """Train on `source` and return the model's files: `model.onnx`, `model.json` and, if the
    vectors are projected, `projection.npz`.

    `chosen` are the fields of `TrainSettings` that differ from the defaults of the backbone. A
    tenth of the images is held out for the accuracy after each epoch, and to choose (half as index,
    half as queries) how vectors are made. `test` is used only for the final measurement. With
    `checkpoint`, an interrupted run resumes. `licence` is that of the weights, and `command` what
    the person typed. `on_stage` is a progress callback inside an epoch. Raises `CbirError` for
    settings that are unknown or impossible.
    """
    first = settings_for(1, **chosen)
    teachers = _rehearse(first)  # before the images are read
    size, prepare = first.size, square_input(first.size).prepare
    everything = read_labelled(source, prepare, say=say)
    classes = everything.classes
    require_classes(teachers, classes)
    tested = None if test is None else read_test(test, prepare, classes, say)
    held_out, training = split(everything, first.seed)
    held_images, images = held_out.stacked(), training.stacked()
    held_labels, labels, origin = held_out.labels, training.labels, everything.origin
    del everything, held_out, training  # their images are a second copy in memory
    settings = settings_for(len(images), **chosen)
    say(f"{len(images):,} training images, {len(held_images):,} held out")
    network, log = train(
        images,
        labels,
        (held_images, held_labels),
        settings,
        len(classes),
        checkpoint,
        lambda result: say(_epoch_line(result, settings.epochs)),
        on_stage,
        teacher_answers(teachers, images, settings.flip, on_stage) if teachers else None,
        say,
    )
    model, exported = _exported(network, images, held_images, held_labels, say)
    trained_embeddings, trained_logits = outputs(model, images)
    held_embeddings, held_logits = outputs(model, held_images)
    after = fit_after_network(
        trained_embeddings, held_embeddings, held_logits, held_labels, say, on_stage
    )
    files = after.files(model)
    quality = {
        "training_accuracy": accuracy(trained_logits, labels),
        "held_out_accuracy": accuracy(held_logits, held_labels),
        f"held_out_{MEASURE}": after.score,
        **exported["quality"],
    }
    if tested is not None:
        quality["test_accuracy"] = accuracy(outputs(model, tested.stacked())[1], tested.labels)
        say(f"test accuracy {quality['test_accuracy']:.4f}")
    card = OnnxCard(
        name=name,
        size=size,
        **after.card_fields(files),
        classes=classes,
        trained_on=_trained_on(origin, len(images), settings, teachers),
        licence=licence,
        training={
            "images": prefix_of(source),
            "command": command,
            "precision": exported["precision"],
            "vectors": after.recorded(),
            "settings": settings.recorded(),
            "log": [asdict(result) for result in log],
            CLASSIFICATION: classification(held_logits, held_labels, classes).to_json(),
            "seconds": round(sum(result.seconds for result in log)),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "device": str(device()),
            "torch": torch.__version__,
        },
        quality={key: round(value, 5) for key, value in quality.items()},
    )
    return {**files, CARD_FILE: json.dumps(card.to_json(), indent=1).encode()}


def _exported(
    network: EmbeddingNet,
    images: NDArray[np.uint8],
    held_images: NDArray[np.uint8],
    held_labels: NDArray[np.int64],
    say: Say,
) -> tuple[bytes, dict[str, Any]]:
    """The network as ONNX in the best precision that passes; its `precision` and `quality`."""
    network = network.to("cpu")
    float_model = export_float(network, images.shape[1])
    models = {FLOAT32: float_model}
    try:
        models[INT8] = quantise(float_model, images[:CALIBRATION_IMAGES])
    except Exception as error:  # noqa: BLE001 - the quantizer raises what it likes
        say(f"ONNX Runtime cannot quantise this network: {type(error).__name__}: {error}")
    some, labels = held_images[:PARITY_IMAGES], held_labels[:PARITY_IMAGES]
    precision, found = choose_export(predict(network, some), models, some, labels)
    for kind, one in found.items():
        say(f"export in {kind}: {one}")
    if precision == FLOAT32 and INT8 in models:
        say("int8 would change the results: keeping float32, which is slower")
    quality = {f"{kind}_{key}": v for kind, one in found.items() for key, v in asdict(one).items()}
    return models[precision], {"precision": precision, "quality": quality}


def _rehearse(settings: TrainSettings) -> list[OnnxDescriptor]:
    """The teachers; raises `CbirError` for what would fail later.

    Builds the network, which may refuse its size or its weights, and exports it if it comes from a
    library: after hours of training would be too late.
    """
    teachers = load_teachers(settings.teacher)
    backbone = plan_of(settings.backbone).build(
        settings.size, settings.width, settings.depth, settings.weights
    )
    if ":" in settings.backbone:
        half = torch.full((3,), 0.5)
        network = EmbeddingNet(backbone, settings.embedding, 2, half, half)
        try:
            export_float(network, settings.size)
        except Exception as error:
            raise CbirError(
                f"{settings.backbone} cannot be exported to ONNX: {type(error).__name__}",
                "choose another backbone",
            ) from error
    return teachers


def _trained_on(
    origin: str, count: int, settings: TrainSettings, teachers: Sequence[OnnxDescriptor]
) -> str:
    """All data that the weights have seen, also through teachers."""
    named = [f"{origin}, {count:,} images"]
    if settings.weights == PRETRAINED:
        data = plan_of(settings.backbone).pretrained_on
        named.append(f"pre-trained {settings.backbone}" + (f" ({data})" if data else ""))
    elif settings.weights:
        named.append(f"weights of {Path(settings.weights).name}")
    seen: dict[str, str] = {}
    for teacher in teachers:
        for data in teacher.card.trained_on.split("; "):
            seen.setdefault(data, teacher.card.name)
    named += [f"{data} (teacher {name})" for data, name in seen.items() if data not in named]
    return "; ".join(named)


def _epoch_line(result: EpochResult, epochs: int) -> str:
    return (
        f"epoch {result.epoch}/{epochs}: loss {result.loss:.4f}, "
        f"training accuracy {result.train_accuracy:.4f}, "
        f"held-out accuracy {result.held_out_accuracy:.4f}, {result.seconds:.0f} s"
    )
