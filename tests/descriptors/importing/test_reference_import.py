"""An imported model describes pictures as the reference does, with the reference's own files.

The real architectures have random weights, which map all pictures to nearly one direction:
rows are compared after their mean is subtracted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors.about import About
from cbir.descriptors.contract import describe, describe_texts, prepare
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.importing.model_import import Imported, import_model
from cbir.descriptors.importing.settings import Changes
from cbir.descriptors.models import load_descriptor
from cbir.testing import check_descriptor
from cbir.types import Floats, RgbImage
from tests.descriptors.support_exports import FAMILIES, Export
from tests.descriptors.support_texts import TEXTS

pytestmark = pytest.mark.reference

ABOUT = About("MIT", "nothing: random weights", "test")
SIZES = [(1, 1), (1, 9), (3, 2), (7, 300), (60, 61), (63, 64), (64, 64), (64, 65), (65, 64),
         (73, 73), (90, 200), (128, 128), (333, 500), (480, 640), (300, 5000),
         (5000, 300)]  # fmt: skip
"""Height and width."""


def drawn(size: tuple[int, int], seed: int) -> RgbImage:
    """Coloured areas and noise."""
    random = np.random.default_rng(seed)
    height, width = size
    areas = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    smooth = np.asarray(areas.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = random.integers(-40, 41, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


IMAGES = [drawn(size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module", params=FAMILIES)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def worst(own: Floats, reference: Floats) -> tuple[float, float]:
    """The smallest centred cosine, and the largest error by the median distance of two rows."""
    mean = reference.mean(axis=0)
    cosines = np.sum(unit_rows(own - mean) * unit_rows(reference - mean), axis=1)
    gaps = [np.linalg.norm(one - other) for one in reference for other in reference]
    errors = np.linalg.norm(own - reference, axis=1)
    return float(cosines.min()), float(errors.max() / np.median([gap for gap in gaps if gap > 0]))


def imported(export: Export, **changes: object) -> tuple[Imported, Floats]:
    made = import_model(export.folder, "random", ABOUT, Changes(**changes))  # type: ignore[arg-type]
    model = load_descriptor(f"random@{made.spec.fingerprint[:16]}")
    return made, describe(model, [prepare(model, image) for image in IMAGES])


def test_vectors_are_those_of_the_reference(export: Export) -> None:
    reference = unit_rows(export.images(IMAGES))
    made, own = imported(export)
    assert own.shape[1] == made.spec.dim == reference.shape[1]
    cosine, error = worst(own, reference)
    assert cosine >= 0.999 and error < 0.01, (cosine, error, made.assumptions)
    check_descriptor(load_descriptor("random"))


def test_words_are_those_of_the_reference(export: Export) -> None:
    made, _ = imported(export)
    model = load_descriptor("random")
    assert made.has_text == (export.texts is not None)
    if export.texts is None:
        return
    reference = unit_rows(export.texts(TEXTS))
    cosine, error = worst(describe_texts(model, TEXTS), reference)
    assert cosine >= 0.999 and error < 0.01, (cosine, error, made.assumptions)
    files = {file.name for file in made.folder.iterdir()}
    assert files == {"model.onnx", "model.json", "text.onnx", "tokenizer.json"}


def test_a_wrong_setting_would_be_noticed(export: Export) -> None:
    reference = unit_rows(export.images(IMAGES))
    for changes in ({"mean": (0.4, 0.5, 0.6)}, {"interpolation": "nearest"}, {"resize": "fit"}):
        cosine, error = worst(imported(export, **changes)[1], reference)
        assert cosine < 0.999 and error > 0.01, (changes, cosine, error)


def test_the_choice_of_the_embedding_is_told(export: Export) -> None:
    lines = "\n".join(imported(export)[0].assumptions)
    assert "embedding: output '" in lines
    if (export.folder / "onnx" / "vision_model.onnx").is_file():
        assert "CLS" not in lines
    elif "ViT" in (export.folder / "config.json").read_text():
        assert "output 'last_hidden_state' (17x48), the first of its tokens (CLS)" in lines


def test_a_file_is_taken_like_its_folder(export: Export) -> None:
    networks = [export.folder / "onnx" / name for name in ("vision_model.onnx", "model.onnx")]
    one = import_model(next(filter(Path.is_file, networks)), "random", ABOUT, Changes())
    assert one.spec.fingerprint == imported(export)[0].spec.fingerprint
