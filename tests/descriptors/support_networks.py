"""Small ONNX networks, and what they must return, computed without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cbir.types import Floats

PATCH = 8
DIM = 6
WEIGHTS = np.random.default_rng(1).normal(size=(DIM, 3, PATCH, PATCH)).astype(np.float32) / PATCH
DYNAMIC = ("n", 3, "height", "width")
FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10


def features(inputs: Floats) -> Floats:
    """The map (n, dim, rows, columns) of `inputs` (n, 3, height, width): one place a patch."""
    n, channels, height, width = inputs.shape
    rows, columns = height // PATCH, width // PATCH
    patches = inputs.reshape(n, channels, rows, PATCH, columns, PATCH)
    return np.asarray(np.einsum("ncrpsq,dcpq->ndrs", patches, WEIGHTS), dtype=np.float32)


def network(
    outputs: Sequence[str] = ("embedding",),
    shape: Sequence[int | str] | None = DYNAMIC,
    kind: int = FLOAT,
    *,
    layout: str = "NCHW",
    weights_in: str | None = None,
    nodes: Sequence[Any] = (),
    declared: int = FLOAT,
) -> bytes:
    """A network of one image input with some of these outputs, made of its `features` (the map).

    `rows`: the mean of the map; `tokens`: its places; `cls_tokens`: `rows` and then `tokens`;
    `chosen_map`: the map. Any other name, such as `logits`, is a copy of `rows`. `nodes` may make
    outputs of their own, of type `declared`. `weights_in` names the file that holds the weights.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(WEIGHTS, "weights")
    if weights_in is not None:
        weights = TensorProto(name="weights", data_type=FLOAT, dims=WEIGHTS.shape)
        weights.data_location = TensorProto.EXTERNAL
        facts = {"location": weights_in, "offset": "0", "length": str(WEIGHTS.nbytes)}
        for key, value in facts.items():
            weights.external_data.add(key=key, value=value)
    node = helper.make_node
    cast = [node("Cast", ["pixels"], ["floats"], to=FLOAT)]
    turn = [node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2])]
    graph = [
        *cast,
        *(turn if layout == "NHWC" else [node("Identity", ["floats"], ["first"])]),
        node("Conv", ["first", "weights"], ["chosen_map"], strides=[PATCH, PATCH]),
        node("ReduceMean", ["chosen_map"], ["rows"], axes=[2, 3], keepdims=0),
        node("Constant", [], ["flat"], value_ints=[0, DIM, -1]),
        node("Reshape", ["chosen_map", "flat"], ["places"]),
        node("Transpose", ["places"], ["tokens"], perm=[0, 2, 1]),
        node("Constant", [], ["second"], value_ints=[1]),
        node("Unsqueeze", ["rows", "second"], ["cls"]),
        node("Concat", ["cls", "tokens"], ["cls_tokens"], axis=1),
        *nodes,
    ]
    made = {name for one in graph for name in one.output}
    copies = {"last_hidden_state": "cls_tokens", "map": "chosen_map"}
    graph += [
        node("Identity", [copies.get(name, "rows")], [name]) for name in outputs if name not in made
    ]
    return model(
        graph,
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info(name, declared, None) for name in outputs],
        [weights],
    )


def text_network(output: str = "text_embeds", dim: int = DIM) -> bytes:
    """The mean of one row of `table` a token, of tokens 0 to 9."""
    from onnx import helper, numpy_helper

    return model(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], [output], axes=[1], keepdims=0),
        ],
        [helper.make_tensor_value_info("input_ids", INT64, ("n", "tokens"))],
        [helper.make_tensor_value_info(output, FLOAT, ("n", dim))],
        [numpy_helper.from_array(table(dim), "table")],
    )


def table(dim: int = DIM) -> Floats:
    """Rows (10, dim), one a token."""
    return np.random.default_rng(2).normal(size=(10, dim)).astype(np.float32)


def model(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], tensors: Sequence[Any] = ()
) -> bytes:
    """Any graph as an ONNX file."""
    from onnx import helper

    graph = helper.make_graph(nodes, "small", inputs, outputs, list(tensors))
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return made
