"""Composed descriptors: their names, their vectors, and how an index keeps all parts."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cbir
from cbir.descriptors.bovw import ARRAYS_FILE
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.composed import ComposedDescriptor
from cbir.descriptors.contract import describe, describe_texts, has_text
from cbir.descriptors.models import (
    ENSEMBLES,
    SHIPPED,
    descriptor_of,
    files_of,
    keep_model,
    keep_model_of,
    load_descriptor,
    newer_model,
)
from cbir.errors import CbirError, QueryError
from cbir.files import write_files
from cbir.index.embedded.checksums import row_checksum
from cbir.index.open import open_index
from cbir.search.searcher import Searcher
from cbir.testing import check_descriptor
from cbir.types import DescriptorSpec
from tests.cli.support_cli import call
from tests.descriptors.support_bovw import small_model
from tests.descriptors.support_composed import COLOUR, HERE, SPREAD, MeanColour, Spread, Worded
from tests.descriptors.support_photos import picture, write_photos

IMAGES = [picture((200, 20 * n, 90), seed=n, size=(20 + n, 30)) for n in range(6)]
NAMES = [COLOUR, SPREAD, "cifar10-cnn:embedding", "cifar10-cnn"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def mean_colour_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """MeanColour as an entry point."""
    entry = importlib.metadata.EntryPoint("mean-colour", COLOUR, "cbir.descriptors")
    found = importlib.metadata.EntryPoints([entry])
    monkeypatch.setattr("cbir.registry.entry_points", lambda **wanted: found.select(**wanted))


shares = st.lists(st.integers(1, 97), min_size=2, max_size=4)


@given(shares=shares, names=st.permutations(NAMES))
@settings(max_examples=25, deadline=None)
def test_the_cosine_is_the_weighted_sum_of_the_cosines(shares: list[int], names: list[str]) -> None:
    names = names[: len(shares)]
    weights = [round(share / sum(shares), 3) for share in shares[1:]]
    weights = [1 - sum(weights), *weights]
    joined = "+".join(
        [names[0], *(f"{n}:{w:g}" for n, w in zip(names[1:], weights[1:], strict=True))]
    )
    if min(weights) <= 0:
        with pytest.raises(CbirError):
            load_descriptor(joined)
        return
    vectors = describe(load_descriptor(joined), IMAGES).astype(np.float64)
    parts = [describe(load_descriptor(name), IMAGES).astype(np.float64) for name in names]
    wanted = sum(w * part @ part.T for w, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(vectors @ vectors.T, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("classic+cifar10-cnn", "classic+cifar10-cnn:0.5"),
        ("classic:0.3+cifar10-cnn", "classic+cifar10-cnn:0.7"),
        ("classic:.25+cifar10-cnn:0.75", "classic+cifar10-cnn:0.75"),
        ("cifar10-cnn:embedding:0.6+classic", "cifar10-cnn:embedding+classic:0.4"),
        ("cifar10-cnn@6149e3b8+classic:3e-1", "cifar10-cnn+classic:0.3"),
        (f"{COLOUR}:0.9+classic", "mean-colour+classic:0.1"),
        (
            "classic+cifar10-cnn+cifar10-bovw",
            "classic+cifar10-cnn:0.333333+cifar10-bovw:0.333333",
        ),
        (
            "classic:0.2+cifar10-cnn+cifar10-bovw",
            "classic+cifar10-cnn:0.4+cifar10-bovw:0.4",
        ),
    ],
)
def test_a_name_has_one_canonical_form(name: str, canonical: str) -> None:
    made = load_descriptor(name)
    assert made.spec.name == canonical
    if "mean-colour" not in canonical:
        assert load_descriptor(canonical).spec == made.spec


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("classic+clasic:0.3", "unknown name 'clasic'", "did you mean 'classic'?"),
        ("classic+", "'classic+' has an empty part", "efficientnet-lite0+classic:0.3"),
        ("classic++cifar10-cnn", "has an empty part", ""),
        ("classic+:0.3", "has an empty part", ""),
        ("classic:0.3+cifar10-cnn:0.3", "add up to 0.6, not 1", "omit one"),
        ("classic:0.8+cifar10-cnn:0.8", "add up to 1.6, not 1", "omit one"),
        ("classic:0.5+cifar10-cnn:0.5+cifar10-bovw", "add up to 1 and leave nothing", "lower"),
        ("classic+cifar10-cnn:0", "is not between 0 and 1", "for example"),
        ("classic+cifar10-cnn:-0.2", "is not between 0 and 1", "for example"),
        ("classic+cifar10-cnn:1", "is not between 0 and 1", "for example"),
        ("classic+cifar10-cnn:1e999", "is not between 0 and 1", "for example"),
        ("classic:1e-9+cifar10-cnn", "weights are 1e-09, 1", "positive"),
        ("classic+classic", "is in 'classic+classic:0.5' twice", "may occur once"),
        ("cifar10-cnn+cifar10-cnn@6149e3b8", "twice", "once"),
        ("classic+./nowhere", "no model in nowhere", "cbir models add"),
        ("os:path", "failed to create a descriptor", "without arguments"),
    ],
)
def test_a_wrong_name_is_one_line_and_a_cure(name: str, message: str, hint: str) -> None:
    with pytest.raises(CbirError) as caught:
        load_descriptor(name)
    assert message in caught.value.message and "\n" not in caught.value.message
    assert hint in caught.value.hint


def test_a_plus_sign_in_the_path_of_a_folder_joins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "my+models" / "a+b+c"
    write_files(small_model(head=True), place)
    words = load_descriptor(str(place))
    assert words.spec.name == "words"
    name = load_descriptor(f"{place}:embedding:0.2+cifar10-cnn").spec.name
    assert name == "words:embedding+cifar10-cnn:0.8"
    assert load_descriptor(f"cifar10-cnn+{place}:0.3").spec.name == "cifar10-cnn+words:0.3"
    monkeypatch.chdir(place)
    assert load_descriptor("../a+b+c+classic").spec.name == "words+classic:0.5"


def test_the_fingerprint_says_parts_weights_and_order() -> None:
    def fingerprint(name: str) -> str:
        return load_descriptor(name).spec.fingerprint

    same = {fingerprint(f"classic{a}+cifar10-cnn{b}") for a in ("", ":0.5") for b in ("", ":0.5")}
    others = [
        fingerprint(name)
        for name in (
            "cifar10-cnn+classic",
            "classic+cifar10-cnn:0.500001",
            "classic+cifar10-cnn:0.3",
            "classic:0.3+cifar10-cnn",
            "classic+cifar10-cnn:embedding",
            "classic",
        )
    ]
    assert len(same) == 1 and len({*same, *others}) == 1 + len(others)


def test_the_spec_joins_those_of_the_parts() -> None:
    spec = load_descriptor(f"{SPREAD}+cifar10-cnn:0.4").spec
    cnn = load_descriptor("cifar10-cnn").spec
    assert spec.dim == 6 + cnn.dim
    assert spec.trained_on == f"nothing; {cnn.trained_on}"
    assert spec.licence == "MIT"
    assert spec.preprocessing["vector"] == f"0.6 spread@cdcdcdcd + 0.4 {cnn.short}"
    assert spec.preprocessing["part 2 resize"] == cnn.preprocessing["resize"]


def test_it_is_a_descriptor_like_any_other() -> None:
    check_descriptor(load_descriptor(f"cifar10-bovw+{COLOUR}:0.2+cifar10-cnn:0.3"))


def test_a_composition_of_compositions_is_one_of_their_parts() -> None:
    a, b, c = MeanColour(), Spread(), load_descriptor("cifar10-cnn")
    nested = ComposedDescriptor([ComposedDescriptor([a, b], [0.6, 0.4]), c], [0.5, 0.5])
    flat = ComposedDescriptor([a, b, c], [0.3, 0.2, 0.5])
    assert nested.spec == flat.spec
    np.testing.assert_array_equal(describe(nested, IMAGES), describe(flat, IMAGES))
    blocks = flat.blocks(describe(flat, IMAGES))
    for part, block in zip(flat.parts, blocks, strict=True):
        np.testing.assert_allclose(block, describe(part, IMAGES), atol=1e-6)


def test_a_name_that_would_mean_other_parts_is_refused() -> None:
    for name in ("sift+hog", "words:0.3"):
        odd = MeanColour()
        odd.spec = DescriptorSpec(name, 4, "ee" * 32)
        with pytest.raises(CbirError, match="ambiguous"):
            ComposedDescriptor([odd, Spread()], [0.5, 0.5])


def test_words_are_described_by_the_parts_that_can() -> None:
    silent, speaking = ComposedDescriptor([MeanColour(), Spread()], [0.5, 0.5]), Worded()
    assert not has_text(silent)
    with pytest.raises(QueryError, match="it has no text tower"):
        describe_texts(silent, ["red"])
    for parts, weights in (([speaking, Spread()], [0.4, 0.6]), ([Spread(), speaking], [0.6, 0.4])):
        composed = ComposedDescriptor(parts, weights)
        assert has_text(composed)
        texts = ["a red car", "", "green and blue"]
        scores = describe_texts(composed, texts) @ describe(composed, IMAGES).T
        own = describe_texts(speaking, texts) @ describe(speaking, IMAGES).T
        # Only the speaking part counts, scaled: all queries keep the order of their hits.
        np.testing.assert_allclose(scores, np.sqrt(0.4) * own, atol=1e-6)
    second = Worded()
    second.spec = DescriptorSpec("second", 4, "ef" * 32)
    both = ComposedDescriptor([speaking, second], [0.3, 0.7])
    wanted = describe_texts(speaking, ["red"]) @ describe(speaking, IMAGES).T
    found = describe_texts(both, ["red"]) @ describe(both, IMAGES).T
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_index_keeps_all_parts_and_works_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_model(small_model(head=True))
    place, name = tmp_path / "made" / "photos.cbir", "words+cifar10-cnn:embedding:0.4"
    place.parent.mkdir()
    assert call("index", photos, "--into", place, "--descriptor", name).code == 0
    info = call("info", place, "--json").json
    assert info["descriptor"]["name"] == name and info["newer_descriptor"] is None
    query = photos / "red" / "0.png"
    before = call("search", query, "--in", place, "--json").json[0]["hits"]
    assert before[0]["score"] == pytest.approx(1, abs=1e-6)
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "elsewhere"))
    moved = tmp_path / "moved.cbir"
    shutil.move(place, moved)
    assert call("search", query, "--in", moved, "--json").json[0]["hits"] == before
    assert call("verify", moved).code == 0
    assert call("copy", moved, tmp_path / "copy.cbir").code == 0
    copied = call("search", query, "--in", tmp_path / "copy.cbir", "--json").json[0]["hits"]
    assert copied == before
    opened = Searcher.open(moved).descriptor
    assert opened.spec == load_descriptor(str(moved / "model")).spec
    (moved / "model" / "1" / ARRAYS_FILE).unlink()
    message, _ = call("search", query, "--in", moved).error
    assert "lacks its model" in message and ARRAYS_FILE in message


def test_networks_with_weights_of_the_same_file_name_do_not_mix(
    photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs the `photos` extra")
    from tests.descriptors.test_model_files import DATA_FILE, folder_of

    one, two = (folder_of(tmp_path / name) for name in ("one", "two"))
    (two / DATA_FILE).write_bytes(np.float32([[9, 1, 0], [0, 2, 2], [1, 1, 0]]).tobytes())
    card = json.loads((two / CARD_FILE).read_text())
    (two / CARD_FILE).write_text(json.dumps({**card, "name": "other"}))
    wanted = describe(load_descriptor(f"{one}+{two}:0.3"), IMAGES)
    index = tmp_path / "x.cbir"
    cbir.index_images([photos], index, descriptor=f"{one}+{two}:0.3")
    shutil.rmtree(one)
    shutil.rmtree(two)
    np.testing.assert_array_equal(describe(Searcher.open(index).descriptor, IMAGES), wanted)


@pytest.mark.usefixtures("mean_colour_installed")
def test_a_part_that_is_no_model_is_loaded_by_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_model(small_model())
    index = tmp_path / "photos.cbir"
    made = call("index", photos, "--into", index, "--descriptor", "mean-colour+words:0.4")
    assert made.code == 0, made.err
    assert not (index / "model" / "1").exists()
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "elsewhere"))
    query = photos / "red" / "0.png"
    assert call("search", query, "--in", index).code == 0
    monkeypatch.setattr("cbir.registry.entry_points", lambda **_: ())
    message, hint = call("search", query, "--in", index).error
    assert message == "the index was built with mean-colour@abababab, which is not installed"
    assert hint == "name it: --descriptor MODULE:ATTRIBUTE+words:0.4"
    named = f"{COLOUR}+{index / 'model' / '2'}:0.4"
    assert call("search", query, "--in", index, "--descriptor", named).code == 0


def test_without_files_the_kept_versions_of_the_parts_are_found() -> None:
    """As an Elasticsearch index names its descriptor: no version of a part is lost."""

    class Server:
        def model_files(self) -> dict[str, bytes]:
            return {}

    specs = []
    for seed in (0, 1):
        keep_model(small_model(seed=seed))
        composed = load_descriptor("words+cifar10-cnn:0.3")
        specs.append(composed.spec)
        keep_model_of(Server(), files_of(composed))  # type: ignore[arg-type]
    assert specs[0].fingerprint != specs[1].fingerprint
    for spec in specs:
        assert descriptor_of(spec, {}).spec == spec
    newer = newer_model(specs[0])
    assert newer == specs[1] and newer_model(specs[1]) is None
    listed = call("models", "list", "--json").json
    assert {model["name"] for model in listed} >= {"words", "cifar10-cnn"}
    assert not [model for model in listed if "+" in model["name"]]
    with pytest.raises(CbirError) as caught:
        descriptor_of(DescriptorSpec("words+gone:0.5", 80, "0" * 64), {})
    assert "of which 'gone' is not installed" in caught.value.message
    assert caught.value.hint == "name it: --descriptor words+MODULE:ATTRIBUTE:0.5"
    with pytest.raises(CbirError, match=r"but only words\+cifar10-cnn:0.4@"):
        descriptor_of(DescriptorSpec("words+cifar10-cnn:0.4", 80, "0" * 64), {})


def test_the_ensemble_is_the_composition_of_its_shipped_networks(
    tmp_path: Path, photos: Path
) -> None:
    ensemble = load_descriptor("cifar10-ensemble")
    parts = ENSEMBLES["cifar10-ensemble"].split("+")
    assert set(parts) <= set(SHIPPED)
    assert isinstance(ensemble, ComposedDescriptor)
    assert [part.spec.name for part in ensemble.parts] == parts
    assert ensemble.weights == (1 / len(parts),) * len(parts)
    place = tmp_path / "e.cbir"
    assert call("index", photos, "--into", place, "--descriptor", "cifar10-ensemble").code == 0
    with Searcher.open(place) as searcher:
        assert searcher.descriptor.spec == ensemble.spec
    assert "one of cbir's own" in call("train", "cnn", photos, "--name", "cifar10-ensemble").err


def test_a_model_shows_its_parts() -> None:
    shown = " ".join(call("models", "show", "cifar10-cnn+classic:0.3").out.split())
    cnn = load_descriptor("cifar10-cnn").spec
    for told in (
        "name cifar10-cnn+classic:0.3",
        f"vector 0.7 {cnn.short} + 0.3 classic@",
        f"part 1 resize {cnn.preprocessing['resize']}",
        "2/model.npz",
    ):
        assert told in shown, told
    as_json = call("models", "show", "cifar10-cnn+classic:0.3", "--json").json
    assert as_json["spec"]["dim"] == 778 and "1/model.onnx" in as_json["files"]


CARD = {"kind": "composed", "name": "x", "parts": [{"name": "a", "fingerprint": "", "weight": 1}]}


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"parts": "cifar10-cnn"},
        {"parts": [{"name": "cifar10-cnn"}] * 2},
        {"parts": CARD["parts"]},
        {"parts": [{"name": "a", "fingerprint": "", "weight": "heavy"}] * 2},
        {"parts": [{"name": "../x", "fingerprint": "", "weight": 0.5}] * 2},
        {"parts": [{"name": COLOUR, "fingerprint": "ab" * 32, "weight": 0.5}] * 2},
    ],
)
def test_a_strangers_card_is_refused_and_runs_nothing(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HERE}.MeanColour", lambda: pytest.fail("ran a stranger's code"))
    (tmp_path / CARD_FILE).write_text(json.dumps({**CARD, **change}))
    with pytest.raises(CbirError) as caught:
        load_descriptor(f"{tmp_path}/")
    assert "\n" not in caught.value.message


def test_an_index_from_a_stranger_reads_no_model_outside_its_folder(
    photos: Path, tmp_path: Path
) -> None:
    index = tmp_path / "photos.cbir"
    cbir.index_images([photos], index, descriptor="cifar10-cnn+cifar10-bovw")
    with closing(sqlite3.connect(index / "index.sqlite")) as database:
        ((model,),) = database.execute("SELECT value FROM meta WHERE name = 'model'")
        outside = json.dumps({**json.loads(model), "../../photos/red/0.png": "0" * 64})
        sealed = [outside, row_checksum(("model", outside))]
        database.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = 'model'", sealed)
        database.commit()
    with closing(open_index(str(index))) as opened, pytest.raises(CbirError, match="lacks"):
        opened.model_files()


def test_evaluation_says_if_a_part_was_trained_on_indexed_images(
    photos: Path, tmp_path: Path
) -> None:
    keep_model(small_model())  # fitted to photos/
    for name, known in (("classic+words:0.5", True), ("classic+cifar10-cnn:0.5", False)):
        index = tmp_path / f"{known}.cbir"
        made = call("index", photos, "--into", index, "--descriptor", name, "--label-from-folder")
        assert made.code == 0
        asked = ("--in", index, "--queries", photos, "--label-from-folder", "--json")
        measured = call("evaluate", *asked).json
        assert measured["training_images_indexed"] is known
        assert measured["accuracy"] is None


def test_words_find_pictures_by_the_part_that_knows_them(photos: Path, tmp_path: Path) -> None:
    composed = ComposedDescriptor([Spread(), Worded()], [0.5, 0.5])
    index = tmp_path / "photos.cbir"
    cbir.index_images([photos], index, descriptor=composed, label_from_folder=True)
    with closing(Searcher.open(index, composed)) as searcher:
        for colour in ("red", "green", "blue"):
            hits = searcher.search(cbir.Query(text=f"something {colour}"), k=4)
            assert {hit.record.label for hit in hits} == {colour}


@pytest.mark.parametrize("weight", [10**400, "x", None, float("nan"), -1])
def test_an_odd_weight_on_a_card_is_refused(weight: object, tmp_path: Path) -> None:
    parts = [{"name": name, "fingerprint": "0" * 64, "weight": weight} for name in ("a", "b")]
    card = {"kind": "composed", "name": "a+b", "parts": parts}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(CbirError) as caught:
        load_descriptor(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_composition_is_no_part_in_a_folder(tmp_path: Path) -> None:
    """Folders that link to themselves would be read for ever."""
    parts = [{"name": name, "fingerprint": "0" * 64, "weight": 0.5} for name in ("a", "b")]
    card = {"kind": "composed", "name": "a+b:0.5", "parts": parts}
    (tmp_path / "model.json").write_text(json.dumps(card))
    for number in ("1", "2"):
        (tmp_path / number).symlink_to(tmp_path)
    with pytest.raises(CbirError, match="unknown model kind 'composed'"):
        load_descriptor(str(tmp_path))
