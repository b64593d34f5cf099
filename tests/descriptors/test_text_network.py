"""A model with a text tower describes words in the space of its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe, describe_texts, has_text
from cbir.descriptors.models import keep_model
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard, OnnxDescriptor
from cbir.descriptors.text_network import TEXT_FILE, TOKENIZER_FILE
from cbir.errors import CbirError, QueryError
from cbir.files import sha256_of
from cbir.index.open import open_index
from cbir.ingest.indexing import index_images
from cbir.search.query import Query
from cbir.search.searcher import Searcher
from cbir.testing import check_descriptor

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")
tokenizers = pytest.importorskip("tokenizers", reason="needs the `hub` extra")

WORDS = {"?": 0, "red": 1, "green": 2, "blue": 3, "end": 4}
COLOURS = np.float32([[1, 1, 1], [9, 0, 0], [0, 9, 0], [0, 0, 9], [0.5, 0.5, 0.5]])
"""What each word adds to a text's vector."""
TOWER: dict[str, Any] = {"context": 4, "padding": "longest", "lower": True, "output": "words"}


def graph_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> bytes:
    from onnx import helper

    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return made


def image_network() -> bytes:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["averages"]),
        helper.make_node("Flatten", ["averages"], ["embedding"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 4, 4])
    return graph_of(
        nodes,
        [pixels],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [],
    )


def text_network() -> bytes:
    """`words`: the sum of the words' colours, without those that the mask hides."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["colours", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["each", "column"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "places"], ["words"], keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(COLOURS, "colours"),
        numpy_helper.from_array(np.int64([2]), "last"),
        numpy_helper.from_array(np.int64([1]), "places"),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("words", TensorProto.FLOAT, ["n", 3])
    return graph_of(nodes, inputs, [output], weights)


def tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A end", special_tokens=[("end", WORDS["end"])]
    )
    return made.to_str().encode()


def model(tower: dict[str, Any] | None = None, **changes: Any) -> dict[str, bytes]:
    files = {
        NETWORK_FILE: image_network(),
        TEXT_FILE: text_network(),
        TOKENIZER_FILE: tokenizer(),
    }
    card = {
        "name": "worded",
        "classes": [],
        "trained_on": "nothing",
        "licence": "MIT",
        "training": {"images": "none/"},
        "quality": {},
        "preprocessing": {"height": 4, "width": 4},
        "dim": 3,
        "files": {name: sha256_of(file) for name, file in files.items()},
        "text": {**TOWER, **(tower or {})},
    } | changes
    return {
        **files,
        CARD_FILE: json.dumps({k: v for k, v in card.items() if v is not None}).encode(),
    }


def test_words_are_described_among_the_images() -> None:
    made = OnnxDescriptor(model())
    check_descriptor(made)
    assert has_text(made)
    red, green = (np.full((5, 7, 3), colour, np.uint8) for colour in ([255, 0, 0], [0, 255, 0]))
    scores = describe(made, [red, green]) @ describe_texts(made, ["Red", "GREEN green"]).T
    assert scores[0, 0] > 0.98 > 0.1 > scores[0, 1] and scores[1, 1] > 0.98 > 0.1 > scores[1, 0]
    # Three words and the end fit into the context.
    long = describe_texts(made, ["red red red " + "blue " * 100])
    np.testing.assert_allclose(long, describe_texts(made, ["red red red"]), atol=1e-6)


def test_the_text_network_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of tokens have gigabytes."""
    import onnxruntime

    opened: list[object] = []
    session = onnxruntime.InferenceSession

    def counted(file: object, *args: Any, **options: Any) -> Any:
        opened.append(file)
        return session(file, *args, **options)

    monkeypatch.setattr("cbir.descriptors.runtime.usable_cores", lambda: 2)
    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    describe_texts(OnnxDescriptor(model()), ["red", "blue"])
    assert len(opened) == 1


def test_the_text_tower_is_part_of_the_fingerprint() -> None:
    seen = [OnnxDescriptor(model(text=None))]
    assert not has_text(seen[0])
    with pytest.raises(QueryError, match="has no text tower"):
        describe_texts(seen[0], ["red"])
    seen += [OnnxDescriptor(model(change)) for change in ({}, {"context": 5}, {"lower": False})]
    assert len({made.spec.fingerprint for made in seen}) == len(seen)
    card = OnnxCard.parse(model()[CARD_FILE])
    assert OnnxCard.parse(json.dumps(card.to_json()).encode()) == card


def test_an_index_is_searched_by_words_without_the_store(tmp_path: Path) -> None:
    folder = keep_model(model())
    for name, colour in {"red": (250, 5, 0), "green": (0, 240, 9), "blue": (0, 0, 255)}.items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(tmp_path / "photos" / f"{name}.png")
    place = tmp_path / "x.cbir"
    index_images([tmp_path / "photos"], place, descriptor="worded")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    searcher = Searcher.open(place)
    for name in ("red", "green", "blue"):
        assert searcher.search(Query(text=name), k=1)[0].id == f"photos/{name}.png"
    assert open_index(str(place)).verify() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.0, 0.0, 0.0], "dim": None}, "a text tower beside a mean"),
        ({"files": {NETWORK_FILE: "0" * 64}}, "'files' lacks text.onnx, tokenizer.json"),
        ({"text": {"context": 4}}, "no JSON object with 'context' and 'padding'"),
        ({"text": {**TOWER, "context": -1}}, "context is -1"),
    ],
)
def test_cards_that_fit_no_text_tower_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CbirError, match=message):
        OnnxDescriptor(model(**changes))


@pytest.mark.parametrize(
    ("tower", "files", "message"),
    [
        ({"output": "nothing"}, {}, "text.onnx of worded fails"),
        ({}, {TEXT_FILE: b"no network"}, "text.onnx of worded cannot be loaded"),
        ({}, {TOKENIZER_FILE: b"{}"}, "the tokenizer cannot be used"),
    ],
)
def test_files_that_fit_no_text_tower_fail_in_one_line(
    tower: dict[str, Any], files: dict[str, bytes], message: str
) -> None:
    made = OnnxDescriptor({**model(tower), **files})
    describe(made, [np.zeros((4, 4, 3), dtype=np.uint8)])  # pictures do not need the tower
    with pytest.raises(CbirError, match=message) as caught:
        describe_texts(made, ["red"])
    assert "\n" not in str(caught.value)
