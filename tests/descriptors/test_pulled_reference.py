"""A pulled model equals the reference library: inputs, token ids, and vectors of images and words.

Each architecture is real and has random weights; it is exported once, served and pulled. The same
bounds must notice wrong settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from benchmarks.reference.comparing import (
    INPUTS,
    SIZES,
    Reference,
    difference,
    drawn,
    ids_apart,
    inputs_apart,
    pulled,
    reference_of,
    vectors,
)
from benchmarks.reference.exports import FAMILIES, Export
from benchmarks.reference.texts import TEXTS
from cbir.descriptors.about import About
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe_texts
from cbir.descriptors.importing.input_settings import Changes
from cbir.descriptors.importing.model_import import import_model
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.preprocessing import Preprocessing
from cbir.testing import check_descriptor
from cbir.types import RgbImage
from tools.hub_server import Hub, serve_hub

pytestmark = [
    pytest.mark.reference,
    pytest.mark.xdist_group("reference"),  # one worker, so that each is exported once
]

WITH_WORDS = ("clip", "siglip", "siglip_multilingual", "siglip2", "open_clip")


@dataclass(frozen=True)
class Family:
    """An export, what was pulled of it, and what the reference makes of `images` and `TEXTS`."""

    name: str
    export: Export
    model: OnnxDescriptor
    images: list[RgbImage]
    reference: Reference

    def changed(self, **fields: Any) -> OnnxDescriptor:
        """The model with another card."""
        card = json.dumps(replace(self.model.card, **fields).to_json()).encode()
        return OnnxDescriptor({**self.model.files, CARD_FILE: card})


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub({}) as served:
        yield served


@pytest.fixture(scope="module")
def images() -> list[RgbImage]:
    assert len(SIZES) == len(set(SIZES)) == 50
    return drawn(SIZES)


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    hub: Hub,
    images: list[RgbImage],
) -> Family:
    folder = tmp_path_factory.mktemp(request.param)
    export = FAMILIES[request.param](folder)
    hub.repositories[f"reference/{request.param}"] = folder
    home = tmp_path_factory.mktemp("home")
    model = pulled(f"hf:reference/{request.param}", hub.endpoint, home)
    return Family(request.param, export, model, images, reference_of(export, images, TEXTS))


def test_images_are_described_as_by_the_reference(family: Family) -> None:
    reference = family.reference
    assert inputs_apart(family.model, family.images, reference.pixels) <= INPUTS
    found = difference(vectors(family.model, family.images), reference.images)
    assert found.small, found
    check_descriptor(family.model)


def test_words_are_described_as_by_the_reference(family: Family) -> None:
    assert family.model.has_text == (family.name in WITH_WORDS)
    if not family.model.has_text:
        return
    assert len(TEXTS) == 100 and len(family.reference.texts) == 100
    assert ids_apart(family.model, TEXTS, family.reference.tokens) == 0
    found = difference(describe_texts(family.model, TEXTS), family.reference.texts)
    assert found.small, found


def wrong_preprocessing(right: Preprocessing) -> Iterator[tuple[str, Preprocessing]]:
    """What a wrong card would say."""
    for resize in {"shortest", "stretch", "fit"} - {right.resize}:
        side = max(right.height, right.width) if resize == "shortest" else None
        yield resize, replace(right, resize=resize, side=side)
    if right.resize == "fit":
        yield "padding", replace(right, fill=0)
    yield "mean", replace(right, mean=(0.4, 0.5, 0.6))
    yield "interpolation", replace(right, interpolation="nearest")


def test_wrong_images_are_noticed(family: Family) -> None:
    for what, wrong in wrong_preprocessing(family.model.card.input):
        model = family.changed(preprocessing=wrong)
        assert inputs_apart(model, family.images, family.reference.pixels) > INPUTS, what
        found = difference(vectors(model, family.images), family.reference.images)
        assert found.large, (what, found)


def test_wrong_words_are_noticed(family: Family) -> None:
    card = family.model.card
    if card.text is None:
        return
    left = replace(card.text, padding="context", side="left")
    wrong = {"side": left}
    if card.text.padding == "context" and family.name != "open_clip":
        wrong["token"] = replace(card.text, pad=3)
        wrong["length"] = replace(card.text, padding="longest")
    for what, tower in wrong.items():
        model = family.changed(text=tower)
        assert ids_apart(model, TEXTS, family.reference.tokens) > 50, what
        found = difference(describe_texts(model, TEXTS), family.reference.texts)
        assert found.large, (what, found)


def test_a_pulled_model_is_the_imported_folder(family: Family) -> None:
    about = About("MIT", "nothing: random weights", "test")
    folder = family.export.folder
    image = next(path for path in (folder / "onnx").iterdir() if path.name != "text_model.onnx")
    for path in (folder, image):
        made = import_model(path, "random", about, Changes())
        assert made.spec.dim == family.model.spec.dim
        assert made.spec.fingerprint == family.model.spec.fingerprint
        assert "embedding: output '" in made.assumptions[0]
    if family.name == "vit":
        assert "'last_hidden_state' (17x48), the first of its tokens (CLS)" in made.assumptions[0]
