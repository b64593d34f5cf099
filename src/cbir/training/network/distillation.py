"""Learning from a teacher: a trained model, or several averaged.

The student's class probabilities follow the teacher's (Hinton et al. 2015, arXiv:1503.02531), and
its similarities between the images of a batch the teacher's similarities (Tung and Mori 2019,
arXiv:1907.09682), so the two embeddings may differ in dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cbir.descriptors.contract import batches
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.errors import CbirError
from cbir.types import OnStage

TEMPERATURE = 2.0
AT_ONCE = 500


@dataclass(frozen=True)
class Answers:
    """What the teachers say of each image.

    `probabilities` (n, classes) at TEMPERATURE, averaged; `embeddings` (n, dim) are the teachers'
    unit vectors side by side, scaled so that products are mean cosines. `fingerprints` are those of
    the teachers.
    """

    probabilities: Tensor
    embeddings: Tensor
    fingerprints: Sequence[str]

    def of(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Probabilities and embeddings of the images `rows` (n,)."""
        return self.probabilities[rows].to(device), self.embeddings[rows].to(device)


def teacher_answers(
    teachers: Sequence[OnnxDescriptor],
    images: NDArray[np.uint8],
    flip: bool,
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> Answers:
    """The answers of `teachers` to `images` (n, size, size, 3).

    `flip`: a student that sees mirror images as well learns the mean of the answers to both, which
    are better than the answers to one.
    """
    probabilities, embeddings, done = [], [], 0
    for some in batches(images, AT_ONCE):
        shares, vectors = [], []
        for teacher in teachers:
            said = [teacher.classified(list(some))]
            if flip:
                said.append(teacher.classified(list(some[:, :, ::-1])))
            logits = torch.from_numpy(np.stack([scores for _, scores in said]))
            shares.append((logits / TEMPERATURE).softmax(-1).mean(0))
            seen = torch.from_numpy(np.stack([rows for rows, _ in said])).mean(0)
            vectors.append(functional.normalize(seen))
        probabilities.append(torch.stack(shares).mean(0))
        embeddings.append(torch.cat(vectors, dim=1) / len(teachers) ** 0.5)
        done += len(some)
        on_stage("asking the teacher", done, len(images))
    fingerprints = [teacher.spec.fingerprint for teacher in teachers]
    return Answers(torch.cat(probabilities), torch.cat(embeddings), fingerprints)


def distillation_loss(logits: Tensor, embedding: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
    """How far a batch is from the teacher's answers: logits (n, classes), embedding (n, dim).

    The sum of the cross-entropy with its probabilities (`wanted[0]`), in the scale of plain
    cross-entropy, and the mean squared difference from the cosines of its embeddings (`wanted[1]`).
    """
    probabilities, embeddings = wanted
    soft = functional.cross_entropy(logits / TEMPERATURE, probabilities) * TEMPERATURE**2
    unit = functional.normalize(embedding)
    difference = unit @ unit.T - embeddings @ embeddings.T
    return soft + difference.square().mean()


def load_teachers(names: Sequence[str]) -> list[OnnxDescriptor]:
    """The models `names`; raises `CbirError` for one that is not a network with classes."""
    teachers = []
    for name in names:
        teacher = load_descriptor(name)
        if not isinstance(teacher, OnnxDescriptor) or not teacher.card.classes:
            raise CbirError(f"{name} is not a network with classes", "choose another teacher")
        teachers.append(teacher)
    return teachers


def require_classes(teachers: Sequence[OnnxDescriptor], classes: Sequence[str]) -> None:
    """Raise `CbirError` unless all `teachers` know exactly these `classes`."""
    for teacher in teachers:
        if tuple(teacher.card.classes) != tuple(classes):
            raise CbirError(
                f"the teacher {teacher.card.name} was trained on other classes",
                "train a teacher on these images first",
            )
