"""A card names a network's input, output, pooling and head, and each of them changes vectors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.arrays import npz_bytes
from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.contract import describe
from cbir.descriptors.fusion import Posterior, fit_projection, unit_rows
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import NETWORK_FILE, PROJECTION_FILE, OnnxCard, OnnxDescriptor
from cbir.descriptors.pooling import pooled
from cbir.errors import CbirError
from cbir.files import sha256_of
from cbir.testing import check_descriptor
from cbir.types import RgbImage
from tests.support_files import contents

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")

SIDE = 4
PREPROCESSING = {"height": SIDE, "width": SIDE, "scale": 1.0, "mean": [90.0, 100.0, 110.0]}
PIXELS = np.random.default_rng(3).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
IMAGES: list[RgbImage] = list(PIXELS)
VALUES = PIXELS.astype(np.float32) - np.float32([90, 100, 110])
"""What the network gets, channels last."""


def network(inputs: int = 1) -> bytes:
    """`map` is the input, `tokens` its places in rows, `logits` the mean of each channel."""
    from onnx import TensorProto, helper

    shape = ["n", 3, SIDE, SIDE]
    kinds = [("map", shape), ("tokens", ["n", SIDE * SIDE, 3]), ("logits", ["n", 3])]
    nodes = [
        helper.make_node("Identity", ["pixels"], ["map"]),
        helper.make_node("Constant", [], ["rows"], value_ints=[0, 3, -1]),
        helper.make_node("Reshape", ["pixels", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("GlobalAveragePool", ["pixels"], ["averages"]),
        helper.make_node("Flatten", ["averages"], ["logits"]),
    ]
    names = ["pixels", "more"][:inputs]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, its) for name, its in kinds],
    )
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return made


NETWORK = network()


def files(**changes: Any) -> dict[str, bytes]:
    card = {
        "name": "small",
        "classes": [],
        "trained_on": "nothing",
        "licence": "MIT",
        "training": {"images": "none/"},
        "quality": {},
        "preprocessing": PREPROCESSING,
        "output": "map",
        "pooling": "mean",
        "dim": 3,
    } | changes
    kept = {name: value for name, value in card.items() if value is not None}
    return {NETWORK_FILE: NETWORK, CARD_FILE: json.dumps(kept).encode()}


def vectors(**changes: Any) -> np.ndarray:
    return describe(OnnxDescriptor(files(**changes)), IMAGES)


@pytest.mark.parametrize("output", ["map", "tokens"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "gem"])
def test_a_map_and_tokens_are_pooled_alike(output: str, pooling: str) -> None:
    places = VALUES.reshape(len(VALUES), -1, 3).astype(np.float64)
    expected = {
        "cls": places[:, 0],
        "mean": places.mean(axis=1),
        "gem": np.cbrt((np.maximum(places, 1e-6) ** 3).mean(axis=1)),
    }[pooling]
    made = vectors(output=output, pooling=pooling)
    np.testing.assert_allclose(made, unit_rows(expected), atol=1e-5)


def test_an_output_of_rows_is_taken_as_it_is() -> None:
    expected = unit_rows(VALUES.mean(axis=(1, 2)))
    np.testing.assert_allclose(vectors(output="logits", pooling="none"), expected, atol=1e-5)
    rows = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(pooled(rows, "mean"), rows)


def test_a_mean_centres_the_embedding() -> None:
    mean = np.float32([5, -3, 1])
    expected = unit_rows(VALUES.mean(axis=(1, 2)) - mean)
    made = vectors(dim=None, mean=mean.tolist())
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_a_head_adds_its_posterior_and_none_is_needed() -> None:
    head = {"classes": ["a", "b", "c"], "temperature": 20.0, "posterior_weight": 0.4}
    fused = OnnxDescriptor(files(**head))
    means = VALUES.mean(axis=(1, 2))
    expected = Posterior(20.0, 0.4).fused(unit_rows(means), means)
    np.testing.assert_allclose(describe(fused, IMAGES), expected, atol=1e-5)
    np.testing.assert_array_equal(fused.predicted(expected), means.argmax(axis=1))
    alone = OnnxDescriptor(files(**head), "embedding")
    assert (fused.spec.dim, alone.spec.dim, alone.spec.name) == (6, 3, "small:embedding")
    unused = OnnxDescriptor(files(**head | {"posterior_weight": 0.0}))
    assert unused.predicted(describe(unused, IMAGES)) is None
    headless = OnnxDescriptor(files(), "embedding")
    assert headless.predicted(vectors()) is None
    assert (headless.spec, headless.spec.name) == (OnnxDescriptor(files()).spec, "small")
    check_descriptor(fused)
    check_descriptor(headless)


def test_every_field_that_changes_a_vector_changes_the_fingerprint() -> None:
    head = {"classes": ["a", "b", "c"], "temperature": 20.0, "posterior_weight": 0.4}
    changes: list[dict[str, Any]] = [
        {},
        head,
        head | {"temperature": 2.0},
        head | {"posterior_weight": 0.5},
        head | {"posterior_power": 1.0},
        {"output": "tokens"},
        {"pooling": "gem"},
        {"dim": None, "mean": [0.0, 0.0, 0.0]},
    ]
    for name, value in {
        "height": 5, "width": 5, "resize": "fit", "interpolation": "bilinear", "reducing_gap": 2.0,
        "fill": 9, "scale": 0.5, "mean": [90.0, 100.0, 111.0], "std": [1.0, 1.0, 2.0],
        "layout": "NHWC", "dtype": "uint8",
    }.items():  # fmt: skip
        changes.append({"preprocessing": PREPROCESSING | {name: value}})
    cropped = PREPROCESSING | {"resize": "shortest"}
    changes += [{"preprocessing": cropped | {"side": side}} for side in (4, 5)]
    seen = {OnnxDescriptor(files(**change)).spec.fingerprint for change in changes}
    assert len(seen) == len(changes)
    told = OnnxDescriptor(files(quality={"loss": 1.0})).spec
    assert told.fingerprint == OnnxDescriptor(files()).spec.fingerprint


def test_a_card_is_written_as_it_was_read() -> None:
    for made in (files(), contents(load_descriptor("cifar10-cnn").files)):  # type: ignore[attr-defined]
        card = OnnxCard.parse(made[CARD_FILE])
        again = json.dumps(card.to_json()).encode()
        assert OnnxCard.parse(again) == card
        assert json.loads(again).keys() == json.loads(made[CARD_FILE]).keys()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": SIDE}, "either 'size' or 'preprocessing'"),
        ({"preprocessing": None}, "either 'size' or 'preprocessing'"),
        ({"dim": None}, "either 'mean' or 'dim'"),
        ({"pooling": "max"}, "pooling 'max'; known: none, cls, mean, gem"),
        ({"temperature": 1.0}, "a posterior needs classes"),
        ({"temperature": 1.0, "posterior_weight": 0.5}, "a posterior needs classes"),
        ({"preprocessing": {"height": 4}}, "width"),
        ({"preprocessing": PREPROCESSING | {"sise": 4}}, "sise"),
        ({"preprocessing": PREPROCESSING | {"height": "tall"}}, "an input of"),
        ({"preprocessing": [4, 4]}, "not a model card"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CbirError, match=message):
        OnnxDescriptor(files(**wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"output": "features"}, r"model\.onnx of small fails: .*features"),
        ({"pooling": "none"}, r"output 'map' of small has shape \(5, 3, 4, 4\)"),
        ({"dim": 4}, "makes no 4 dimensions by pooling 'mean'"),
        ({"preprocessing": PREPROCESSING | {"dtype": "uint8"}}, r"model\.onnx of small fails"),
        ({"preprocessing": PREPROCESSING | {"height": 5}}, r"model\.onnx of small fails"),
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(CbirError, match=message):
        vectors(**wrong)


def test_a_network_of_two_inputs_is_refused() -> None:
    with pytest.raises(CbirError, match=r"model\.onnx of small fails"):
        describe(OnnxDescriptor({**files(), NETWORK_FILE: network(inputs=2)}), IMAGES)


def with_projection(arrays: dict[str, Any], **changes: Any) -> dict[str, bytes]:
    data = npz_bytes(arrays)
    digests = {NETWORK_FILE: sha256_of(NETWORK), PROJECTION_FILE: sha256_of(data)}
    return {**files(files=digests, **changes), PROJECTION_FILE: data}


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_an_embedding_is_centred_projected_and_whitened(whitening: float) -> None:
    raw = VALUES.mean((1, 2))
    from sklearn.decomposition import PCA

    mean, projection = fit_projection(raw, 2, whitening)
    made = with_projection({"mean": mean, "projection": projection})
    descriptor = OnnxDescriptor(made)
    check_descriptor(descriptor)
    found = describe(descriptor, IMAGES)
    reference = PCA(2, whiten=bool(whitening)).fit_transform(raw.astype(np.float64))
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(found), np.abs(reference), atol=1e-4)
    assert descriptor.spec.dim == 2 and "projected to 2" in descriptor.spec.preprocessing["vector"]
    other = with_projection({"mean": mean + 1, "projection": projection})
    assert OnnxDescriptor(other).spec.fingerprint != descriptor.spec.fingerprint


@pytest.mark.parametrize(
    "shapes",
    [{"mean": 3}, {"mean": 2, "projection": (2, 1)}, {"mean": 3, "beside_posterior": (3, 2)}],
    ids=["no projection", "two dimensions", "beside a posterior that is not there"],
)
def test_a_projection_of_other_dimensions_is_refused(shapes: dict[str, Any]) -> None:
    arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
    with pytest.raises(CbirError, match=r"projection\.npz of small does not fit 3 dimensions"):
        OnnxDescriptor(with_projection(arrays))
    with pytest.raises(CbirError, match="has a mean of its own"):
        OnnxDescriptor(with_projection(arrays, mean=[0.0, 0.0, 0.0], dim=None))


ODD: list[tuple[str, Any]] = [
    *(("name", value) for value in (5, ["a"], {})),
    *(("trained_on", value) for value in (5, [])),
    *(("licence", value) for value in (5, {})),
    *(("training", value) for value in ("x", 5, {}, {"images": 5}, {"images": ""})),
    *(("dim", value) for value in ("x", 0, -3, 1.5, [1])),
    *(("mean", value) for value in ("abc", ["a"], [float("nan")] * 3, [10**400] * 3)),
    *(("temperature", value) for value in ("x", 0, -1, [], 10**400)),
    *(("posterior_weight", value) for value in ("x", 1.5, -0.5, {})),
    *(("posterior_power", value) for value in ("x", 2, [])),
    *(("reducing_gap", value) for value in ("x", 0.5, -1, [], 10**400)),
]


@pytest.mark.parametrize(("field", "value"), ODD, ids=lambda value: repr(value)[:20])
def test_an_odd_value_is_refused_in_one_line(field: str, value: Any) -> None:
    """Also by the model store, whose other models must stay in sight."""
    head = {"classes": ["a", "b", "c"], "temperature": 20.0, "posterior_weight": 0.4}
    changes = {**head, field: value}
    if field == "mean":
        changes["dim"] = None
    if field == "reducing_gap":
        changes["preprocessing"] = {**PREPROCESSING, field: value}
    with pytest.raises(CbirError) as caught:
        OnnxDescriptor(files(**changes))
    assert "\n" not in str(caught.value)


def test_a_card_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(CbirError, match="not a model card"):
        OnnxDescriptor({NETWORK_FILE: NETWORK, CARD_FILE: b"[" * 200_000})


def test_a_projection_that_the_card_does_not_name_is_no_part_of_the_model() -> None:
    """The fingerprint would not cover it."""
    mean, projection = fit_projection(vectors(), 2)
    extra = {PROJECTION_FILE: npz_bytes({"mean": mean, "projection": projection})}
    made = OnnxDescriptor({**files(), **extra})
    assert (made.spec.dim, made.spec) == (3, OnnxDescriptor(files()).spec)
    np.testing.assert_array_equal(describe(made, IMAGES), vectors())
