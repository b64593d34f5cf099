"""Token ids equal those of transformers and open_clip, for texts in five scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference.texts import FAMILIES, TEXTS, clip_of_open_clip, write
from cbir.descriptors.text import TextTokenizer, TextTower, cleaned
from cbir.descriptors.text_towers import read_text_tower, tokenizer_file

pytestmark = pytest.mark.reference

CALLS: dict[str, dict[str, Any]] = {
    "clip": {"padding": True},
    "siglip": {"padding": "max_length"},
    "siglip_multilingual": {"padding": "max_length"},
    "siglip2": {"padding": "max_length", "max_length": 64},
    "bert": {"padding": True},
}
"""How the model cards of the families call the reference tokenizer."""

Made = dict[str, tuple[Path, dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made: Made = {}
    for name, build in FAMILIES.items():
        folder = tmp_path_factory.mktemp(name)
        expected = build(folder)(TEXTS, truncation=True, return_tensors="np", **CALLS[name])
        made[name] = folder, dict(expected)
    return made


def tower(folder: Path) -> TextTower:
    found = read_text_tower(folder)
    assert found.value is not None, found.questions
    return found.value


def differing(folder: Path, own: TextTower, expected: dict[str, np.ndarray]) -> int:
    """How many texts have other inputs than the reference's."""
    file = tokenizer_file(folder)
    assert file is not None
    made = TextTokenizer(file, own).encode(TEXTS, list(expected))
    wrong = np.zeros(len(TEXTS), dtype=bool)
    for name, values in expected.items():
        if made[name].shape != values.shape:
            return len(TEXTS)
        assert made[name].dtype == np.int64
        wrong |= (made[name] != values).any(axis=1)
    return int(wrong.sum())


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_transformers(name: str, families: Made) -> None:
    folder, expected = families[name]
    assert len(TEXTS) == 100
    assert len(np.unique(expected["input_ids"], axis=0)) > 85
    assert differing(folder, tower(folder), expected) == 0


def test_each_family_has_its_own_rules(families: Made) -> None:
    towers = {name: tower(folder) for name, (folder, _) in families.items()}
    assert {name: (own.context, own.padding, own.pad) for name, own in towers.items()} == {
        "clip": (77, "longest", 1),
        "siglip": (64, "context", 1),
        "siglip_multilingual": (64, "context", 1),
        "siglip2": (64, "context", 0),
        "bert": (128, "longest", 0),
    }
    assert [name for name, own in towers.items() if own.lower] == ["siglip2"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("clip", {"pad": 0}),
        ("clip", {"context": 76}),
        ("clip", {"padding": "context", "context": 40}),
        ("siglip", {"pad": 0}),
        ("siglip", {"padding": "longest", "context": 63}),
        ("siglip2", {"lower": False}),
        ("siglip2", {"side": "left"}),
        ("siglip2", {"clean": "canonicalize"}),
        ("bert", {"lower": True}),
    ],
)
def test_wrong_rules_are_noticed(name: str, wrong: dict[str, Any], families: Made) -> None:
    folder, expected = families[name]
    assert differing(folder, replace(tower(folder), **wrong), expected) > 5


def test_ids_are_those_of_open_clip(tmp_path: Path) -> None:
    """CLIP's real vocabulary comes with open_clip, whose tokenizer is its own."""
    import open_clip

    own = open_clip.SimpleTokenizer()
    clip_of_open_clip(tmp_path, own)
    write(
        tmp_path,
        open_clip_config={
            "model_cfg": {"embed_dim": 512, "text_cfg": {"context_length": 77}},
            "preprocess_cfg": {},
        },
    )
    expected = np.asarray(own(TEXTS))
    made = tower(tmp_path)
    assert (made.context, made.padding, made.pad, made.lower) == (77, "context", 0, False)
    assert made.clean == "lower"
    assert differing(tmp_path, made, {"input_ids": expected}) == 0
    # Python lower-cases words, the library letters: they differ in a last sigma.
    assert differing(tmp_path, replace(made, clean="none"), {"input_ids": expected}) == 6


@pytest.mark.parametrize("how", ["whitespace", "lower", "canonicalize"])
def test_texts_are_cleaned_as_by_open_clip(how: str) -> None:
    from open_clip.tokenizer import get_clean_fn

    clean = get_clean_fn(how)
    texts = [*TEXTS, "Tom &amp;amp; <b>Jerry</b>"]
    assert [cleaned(text, how) for text in texts] == [clean(text) for text in texts]
