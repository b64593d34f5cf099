"""Networks are opened from their files: with external data, listed by digest, linked if large."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe
from cbir.descriptors.models import keep_model, load_descriptor, model_of, read_files
from cbir.descriptors.onnx import NETWORK_FILE
from cbir.descriptors.onnx_weights import weight_files
from cbir.errors import CbirError
from cbir.files import LINKED_BYTES, sha256_of
from cbir.index.embedded.checksums import row_checksum
from cbir.index.open import open_index
from cbir.ingest.copy import copy_index
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")

DATA_FILE = "model.onnx_data"
WEIGHTS = np.float32([[1, 0, 2], [0, 1, -1], [3, 0, 1]])
IMAGES = [np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)]


def network(location: str) -> bytes:
    """The mean colour times weights that are kept outside the network's file."""
    from onnx import TensorProto, helper

    outside = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
    outside.data_location = TensorProto.EXTERNAL
    facts = {"location": location, "offset": "0", "length": str(WEIGHTS.nbytes)}
    for key, value in facts.items():
        outside.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["pixels"], ["averages"]),
            helper.make_node("Flatten", ["averages"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        "outside",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [outside],
    )
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return made


def folder_of(
    place: Path, location: str = DATA_FILE, listed: bool = False, padding: int = 0
) -> Path:
    """A model folder, with the digests of its files in the card if `listed`."""
    place.mkdir(parents=True)
    (place / NETWORK_FILE).write_bytes(network(location))
    (place / DATA_FILE).write_bytes(WEIGHTS.tobytes() + bytes(padding))
    digests = {name: sha256_of(place / name) for name in (NETWORK_FILE, DATA_FILE)}
    card = {
        "name": "outside",
        "classes": [],
        "trained_on": "nothing",
        "licence": "MIT",
        "training": {"images": "none/"},
        "quality": {},
        "preprocessing": {"height": 4, "width": 4},
        "dim": 3,
        **({"files": digests} if listed else {}),
    }
    (place / CARD_FILE).write_text(json.dumps(card))
    return place


@pytest.mark.parametrize("listed", [False, True])
def test_weights_outside_the_network_file_belong_to_the_model(listed: bool, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", listed=listed)
    model = load_descriptor(str(folder))
    mean = describe(model, [np.full((4, 4, 3), 255, dtype=np.uint8)])
    np.testing.assert_allclose(mean[0], WEIGHTS.sum(0) / np.linalg.norm(WEIGHTS.sum(0)), atol=1e-6)
    kept = keep_model(read_files(folder))
    assert {file.name for file in kept.iterdir()} == {NETWORK_FILE, DATA_FILE, CARD_FILE}
    again = load_descriptor("outside")
    assert again.spec.fingerprint == model.spec.fingerprint
    np.testing.assert_array_equal(describe(again, IMAGES), describe(model, IMAGES))


@pytest.mark.parametrize("listed", [False, True])
def test_other_weights_are_another_model(listed: bool, tmp_path: Path) -> None:
    spec = load_descriptor(str(folder_of(tmp_path / "one", listed=listed))).spec
    other = folder_of(tmp_path / "two", listed=listed, padding=4)
    assert load_descriptor(str(other)).spec.fingerprint != spec.fingerprint


def indexed(place: Path, folder: Path) -> tuple[Path, Path]:
    """An index of one picture by the model in `folder`, and the picture."""
    (place / "photos").mkdir()
    Image.fromarray(IMAGES[0]).save(picture := place / "photos" / "one.png")
    index_images([picture.parent], place / "x.cbir", descriptor=str(folder))
    return place / "x.cbir", picture


def test_an_index_keeps_all_files_and_links_large_ones(tmp_path: Path) -> None:
    folder = keep_model(read_files(folder_of(tmp_path / "model", padding=LINKED_BYTES)))
    index, picture = indexed(tmp_path, folder)
    inside = {path.name: path.stat().st_ino for path in (index / "model").iterdir()}
    given = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert inside.keys() == given.keys()
    assert {n for n in inside if inside[n] == given[n]} == {DATA_FILE}  # small files are copies
    for file in folder.iterdir():
        file.unlink()
    searcher = Searcher.open(index)
    assert searcher.search(picture, k=1)[0].score == pytest.approx(1, abs=1e-6)
    assert open_index(str(index)).verify() == []


@pytest.mark.parametrize("use", [indexed, lambda _, folder: keep_model(read_files(folder))])
def test_a_persons_own_large_files_are_copied(use: Callable[..., object], tmp_path: Path) -> None:
    """An exporter that writes to them again, in place, changes neither index nor store."""
    folder = folder_of(tmp_path / "model", padding=LINKED_BYTES)
    use(tmp_path, folder)
    assert (folder / DATA_FILE).stat().st_nlink == 1


@pytest.mark.parametrize("location", ["../secret", "{absolute}", "link", "folder/secret"])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    folder = folder_of(tmp_path / "model", location.replace("{absolute}", str(tmp_path / "secret")))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    with pytest.raises(CbirError, match="cannot be loaded") as caught:
        describe(load_descriptor(str(folder)), IMAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [NETWORK_FILE, DATA_FILE, CARD_FILE])
def test_a_link_in_a_strangers_folder_or_index_leads_nowhere(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model")
    index, picture = indexed(tmp_path, folder)
    for inside in (folder, index / "model"):
        outside = tmp_path / f"{inside.parent.name}-{name}"
        (inside / name).rename(outside)
        (inside / name).symlink_to(outside)
    for use in (lambda: load_descriptor(str(folder)), lambda: Searcher.open(index).search(picture)):
        with pytest.raises(CbirError, match=f"{name} is a link out of"):
            use()


def test_a_missing_or_unlisted_file_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", listed=True)
    (folder / DATA_FILE).unlink()
    with pytest.raises(CbirError, match=f"lacks {DATA_FILE}"):
        load_descriptor(str(folder))
    with pytest.raises(CbirError, match=f"lacks {DATA_FILE}"):
        model_of({n: folder / n for n in (NETWORK_FILE, CARD_FILE)})
    card = json.loads((folder / CARD_FILE).read_text())
    for names in (["../x"], [f"sub/{DATA_FILE}"], [CARD_FILE], [""], ["a\0b"]):
        card["files"] = {NETWORK_FILE: "0" * 64, **dict.fromkeys(names, "0" * 64)}
        (folder / CARD_FILE).write_text(json.dumps(card))
        with pytest.raises(CbirError, match=r"is not a model card|it lacks") as caught:
            load_descriptor(str(folder))
        assert caught.value.hint == "restore the model's files"


def test_files_must_be_those_that_the_card_names(tmp_path: Path) -> None:
    """Else vectors of two networks would have one fingerprint."""
    folder = folder_of(tmp_path / "model", listed=True)
    (folder / DATA_FILE).write_bytes((WEIGHTS + 1).tobytes())
    for use in (load_descriptor, lambda name: keep_model(read_files(Path(name)))):
        with pytest.raises(CbirError, match=f"{DATA_FILE} of outside has another sha256"):
            use(str(folder))


@pytest.mark.parametrize("name", ["../outside", "/a/b", "a/b", "..", "", "a\0b"])
def test_a_strangers_model_is_kept_nowhere_but_in_the_store(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model")
    card = {**json.loads((folder / CARD_FILE).read_text()), "name": name}
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(CbirError, match="is not a valid name"):
        keep_model(read_files(folder))


def odd_index(tmp_path: Path, name: str) -> Path:
    """An index whose list of model files has `name`, too."""
    index, _ = indexed(tmp_path, folder_of(tmp_path / "model"))
    with closing(sqlite3.connect(index / "index.sqlite")) as database:
        ((model,),) = database.execute("SELECT value FROM meta WHERE name = 'model'")
        more = json.dumps({**json.loads(model), name: "0" * 64})
        sealed = [more, row_checksum(("model", more))]
        database.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = 'model'", sealed)
        database.commit()
    return index


@pytest.mark.parametrize(
    "name", ["../secret", "{absolute}", "a/b", "1/../../secret", ".bashrc", "model.onnx/../x", ""]
)
def test_an_index_names_no_file_outside_its_model(name: str, tmp_path: Path) -> None:
    """`verify` read any file, and `copy` wrote wherever the name led."""
    (tmp_path / "secret").write_text("mine")
    index = odd_index(tmp_path, name.replace("{absolute}", str(tmp_path / "secret")))
    with closing(open_index(index)) as opened:
        (problem,) = opened.verify()
        assert problem.endswith("has a name that no file of a model has")
    for use in (
        lambda: Searcher.open(index).search(IMAGES[0]),
        lambda: copy_index(str(index), str(tmp_path / "copy.cbir")),
        lambda: index_images([tmp_path / "photos"], index),
    ):
        with pytest.raises(CbirError, match="has a name that no file of a model has"):
            use()
    assert not (tmp_path / "copy.cbir").exists()


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes")
def test_a_model_is_of_regular_files_of_bounded_size(tmp_path: Path) -> None:
    """A pipe was waited for, and a card of any size was read."""
    index, _ = indexed(tmp_path, folder_of(tmp_path / "model"))
    for folder in (tmp_path / "model", index / "model"):
        card = folder / CARD_FILE
        known = card.read_bytes()
        for make, said in (
            (lambda path: os.mkfifo(path), "is not a regular file"),
            (lambda path: sparse(path, 2**26 + 1), "is larger than 64 MiB"),
        ):
            card.unlink()
            make(card)
            with pytest.raises(CbirError, match=said):
                load_descriptor(str(folder))
            if folder.parent == index:
                with pytest.raises(CbirError, match=said):
                    Searcher.open(index).search(IMAGES[0])
        card.unlink()
        card.write_bytes(known)
        sparse(folder / NETWORK_FILE, 2**32 + 1)
    with pytest.raises(CbirError, match="is larger than 4096 MiB"):
        load_descriptor(str(tmp_path / "model"))
    with closing(open_index(index)) as opened:
        assert opened.verify() == ["model/model.onnx is larger than 4096 MiB"]


def test_a_model_has_no_files_but_those_of_its_kind(tmp_path: Path) -> None:
    index = odd_index(tmp_path, "notes.txt")
    (index / "model" / "notes.txt").write_text("hidden")
    with pytest.raises(CbirError, match=r"files that it does not use: 'notes\.txt'"):
        Searcher.open(index).search(IMAGES[0])


@pytest.mark.parametrize("kept", ["path", "bytes"])
def test_weights_are_only_in_files_of_the_model(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of any file in the working directory came back through scores."""
    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(WEIGHTS.tobytes())
    folder = folder_of(tmp_path / "model", "secret")
    (folder / "secret").write_bytes(WEIGHTS.tobytes())  # there, but no file of the model
    files = read_files(folder)
    if kept == "bytes":
        files = {name: Path(file).read_bytes() for name, file in files.items()}
    with pytest.raises(CbirError, match="keeps weights in secret, which the model lacks"):
        describe(model_of(files), IMAGES)


@pytest.mark.parametrize("wrong", [b"", b"\xff" * 30, b"location", b"\x3a\xff\x7flocation"])
def test_what_is_no_protobuf_is_not_loaded(wrong: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model")
    (folder / NETWORK_FILE).write_bytes(wrong)
    with pytest.raises(CbirError, match="cannot be loaded"):
        describe(load_descriptor(str(folder)), IMAGES)


def test_every_place_of_a_tensor_is_looked_at(tmp_path: Path) -> None:
    """Weights of nodes, of graphs in nodes, and of functions, as onnx itself writes them."""
    from onnx import GraphProto, ModelProto, TensorProto

    def outside(name: str) -> TensorProto:
        tensor = TensorProto()
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=name)
        return tensor

    model = ModelProto()
    model.graph.initializer.append(outside("a"))
    model.graph.sparse_initializer.add().values.CopyFrom(outside("b"))
    attribute = model.graph.node.add().attribute
    attribute.add().t.CopyFrom(outside("c"))
    attribute.add().tensors.append(outside("d"))
    inner = GraphProto(initializer=[outside("e")])
    attribute.add().g.CopyFrom(inner)
    attribute.add().graphs.append(GraphProto(initializer=[outside("f")]))
    attribute.add().sparse_tensor.indices.CopyFrom(outside("g"))
    function = model.functions.add()
    function.node.add().attribute.add().t.CopyFrom(outside("h"))
    function.attribute_proto.add().t.CopyFrom(outside("i"))
    model.training_info.add().algorithm.initializer.append(outside("j"))
    data = model.SerializeToString()
    assert weight_files(data) == set("abcdefghij")
    # Numbers may be longer than needed, so a search for one encoding finds too little.
    entry = b"\n\x88\x80\x80\x00location\x12\x82\x00zz"
    tensor = b"j" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    longer = b"\x3a" + bytes([len(graph)]) + graph
    assert ModelProto.FromString(longer).graph.initializer[0].external_data[0].value == "zz"
    assert weight_files(longer) == {"zz"}
