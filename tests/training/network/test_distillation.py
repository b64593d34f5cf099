from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.models import keep_model
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard
from cbir.images.sources import open_source
from tests.training.network.test_train_cnn import CLASSES, blobs, one_thread

pytestmark = pytest.mark.training

_ = one_thread
NAMES = tuple(f"class {number}" for number in range(CLASSES))


def keep_teacher(name: str, seed: int) -> None:
    """Train a small network on blobs and keep it in the model store."""
    from cbir.training.network.export import export_float
    from cbir.training.network.loop import train
    from cbir.training.network.settings import settings_for

    images, labels = blobs(400)
    settings = settings_for(400, width=0.5, epochs=6, seed=seed)
    network, _ = train(images, labels, blobs(50, 1), settings, CLASSES)
    card = OnnxCard(
        name=name,
        size=32,
        mean=(0.0,) * network.dim,
        classes=NAMES,
        trained_on="blobs",
        licence="MIT",
        training={"images": "blobs/"},
        quality={},
    )
    data = json.dumps(card.to_json()).encode()
    keep_model({NETWORK_FILE: export_float(network, 32), CARD_FILE: data})


def test_a_student_learns_from_the_teacher_and_not_from_wrong_labels() -> None:
    from cbir.training.network.distillation import load_teachers, teacher_answers
    from cbir.training.network.loop import train
    from cbir.training.network.prediction import predict
    from cbir.training.network.settings import settings_for

    keep_teacher("teacher", seed=0)
    images, truth = blobs(300, seed=5)
    teachers = load_teachers(["teacher"])
    answers = teacher_answers(teachers, images, flip=False)
    assert (answers.probabilities.argmax(1).numpy() == truth).mean() > 0.9
    wrong = (truth + 1) % CLASSES
    settings = settings_for(
        300, width=0.25, epochs=8, teacher=("teacher",), teacher_weight=1.0, flip=False
    )
    student, _ = train(images, wrong, blobs(50, 1), settings, CLASSES, answers=answers)
    tested, labels = blobs(200, seed=6)
    embeddings, logits = predict(student, tested)
    assert (logits.argmax(1) == labels).mean() > 0.9
    # Similarities follow the teacher's, which a student of labels alone does not know.
    alone = settings_for(300, width=0.25, epochs=8, flip=False)
    other = predict(train(images, truth, blobs(50, 1), alone, CLASSES)[0], tested)[0]
    wanted = teacher_answers(teachers, tested, flip=False).embeddings.numpy()

    def distance(rows: np.ndarray) -> float:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float(np.square(unit @ unit.T - wanted @ wanted.T).mean())

    assert distance(embeddings) < 0.7 * distance(other)


def test_answers_are_the_mean_over_teachers_and_over_both_mirror_images() -> None:
    import torch

    from cbir.training.network.distillation import load_teachers, teacher_answers

    keep_teacher("one", seed=0)
    keep_teacher("two", seed=1)
    images, _ = blobs(20, seed=5)
    one, two, both = (
        teacher_answers(load_teachers(names), images, flip=False)
        for names in (("one",), ("two",), ("one", "two"))
    )
    torch.testing.assert_close(both.probabilities, (one.probabilities + two.probabilities) / 2)
    cosines = [said.embeddings @ said.embeddings.T for said in (one, two, both)]
    torch.testing.assert_close(cosines[2], (cosines[0] + cosines[1]) / 2)
    probabilities, embeddings = both.of(torch.tensor([3, 4]), torch.device("cpu"))
    torch.testing.assert_close(probabilities, both.probabilities[3:5])
    torch.testing.assert_close(embeddings, both.embeddings[3:5])

    turned = teacher_answers(load_teachers(["one"]), images[:, :, ::-1].copy(), flip=False)
    ways = teacher_answers(load_teachers(["one"]), images, flip=True)
    torch.testing.assert_close(ways.probabilities, (one.probabilities + turned.probabilities) / 2)
    middle = torch.nn.functional.normalize(one.embeddings + turned.embeddings)
    torch.testing.assert_close(ways.embeddings, middle)


def test_the_card_of_a_student_names_all_data_once(tmp_path: Path) -> None:
    from cbir.training.network.recipe import train_model

    keep_teacher("one", seed=0)
    keep_teacher("two", seed=1)
    for number, (image, label) in enumerate(zip(*blobs(60, seed=5), strict=True)):
        folder = tmp_path / "mine" / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    source = open_source(str(tmp_path / "mine"), label_from_folder=True)
    chosen = {"width": 0.25, "epochs": 1, "teacher": ("one", "two")}
    files = train_model(source, "student", chosen)
    card = json.loads(files[CARD_FILE])
    assert card["trained_on"] == "mine, 54 images; blobs (teacher one)"
    assert card["training"]["settings"]["teacher"] == ["one", "two"]
