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
    """What the teachers say of each image (row 0) and its mirror image (row 1).

    `probabilities` (2, n, classes) at TEMPERATURE, averaged; `embeddings` (2, n, dim) are the
    teachers' unit vectors side by side, scaled so that products are mean cosines. `fingerprints`
    are those of the teachers.
    """

    probabilities: Tensor
    embeddings: Tensor
    fingerprints: Sequence[str]

    def of(self, rows: Tensor, mirrored: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Probabilities and embeddings of the images `rows` (n,), some of them mirrored."""
        ways = mirrored.long()
        said = (self.probabilities[ways, rows], self.embeddings[ways, rows])
        return said[0].to(device), said[1].to(device)


def teacher_answers(
    teachers: Sequence[OnnxDescriptor],
    images: NDArray[np.uint8],
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> Answers:
    """The answers of `teachers` to `images` (n, size, size, 3)."""
    probabilities, embeddings = [], []
    for mirrored in (False, True):
        shares, vectors = [], []
        for some in batches(images, AT_ONCE):
            seen = list(some[:, :, ::-1] if mirrored else some)
            said = [teacher.classified(seen) for teacher in teachers]
            logits = torch.from_numpy(np.stack([scores for _, scores in said]))
            shares.append((logits / TEMPERATURE).softmax(-1).mean(0))
            beside = np.concatenate([rows for rows, _ in said], axis=1)
            vectors.append(torch.from_numpy(beside / len(said) ** 0.5))
            done = sum(map(len, vectors)) + len(images) * mirrored
            on_stage("asking the teacher", done, 2 * len(images))
        probabilities.append(torch.cat(shares))
        embeddings.append(torch.cat(vectors))
    fingerprints = [teacher.spec.fingerprint for teacher in teachers]
    return Answers(torch.stack(probabilities), torch.stack(embeddings), fingerprints)


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
