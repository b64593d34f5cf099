"""EfficientNet-Lite (Tan and Le, ICML 2019; Lite: 2020) as an ONNX graph, from its weights.

The Lite networks have no squeeze-and-excitation, ReLU6 instead of swish, and a stem and head of
one width in all sizes. Batch norm is folded into the convolutions. The graph takes float32
(n, 3, height, width) and returns `features` (n, 1280), the head's activations averaged over the
picture, and `embedding` (n, 1280), the same at unit length and centred. Needs the package onnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.int8 import Values, int8_graph
from cbir.descriptors.torch_file import Tensors

FEATURES, EMBEDDING = "features", "embedding"
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
"""The input is (pixel - mean) / std."""

EPSILON = 1e-3
STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Stride of the first block of each stage (all sizes)."""

REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks a stage of Lite0; larger sizes repeat the inner stages more often."""

OPSET = 17


def efficientnet_lite(tensors: Tensors, depth: float, side: int, int8: bool = False) -> bytes:
    """The ONNX model of a network of `depth` times the blocks of Lite0 for pictures of `side` px.

    `side` matters for the asymmetric padding of strided convolutions ("same", as in TensorFlow).
    With `int8`, the layers compute in int8 (`cbir.descriptors.int8`).
    Raises `KeyError` if a tensor is missing, `ValueError` if one does not fit.
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph(tensors)
    strides = [1] * sum(repeats := _repeats(depth))
    for stage, first in enumerate(np.cumsum([0, *repeats[:-1]])):
        strides[first] = STRIDES[stage]
    value = graph.clip(graph.conv("images", "_conv_stem", "_bn0", side, stride=2))
    side = -(-side // 2)
    for number, stride in enumerate(strides):
        value = graph.block(value, f"_blocks.{number}", side, stride)
        side = -(-side // stride)
    value = graph.clip(graph.conv(value, "_conv_head", "_bn1", side))
    graph.embed(graph.node("GlobalAveragePool", [value]), mean_features(tensors))
    width = tensors["_conv_head.weight"].shape[0]
    images, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("images", ["n", 3, None, None]),
            (FEATURES, ["n", width]),
            (EMBEDDING, ["n", width]),
        )
    )
    made = helper.make_graph(graph.nodes, "efficientnet-lite", [images], outputs, graph.weights)
    if int8:
        made = int8_graph(made, graph.known)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def mean_features(tensors: Tensors) -> NDArray[np.float32]:
    """The mean (1280,) of the features over ImageNet, as the last batch norm knows it."""
    return _after(tensors, "_bn1").clipped(0, 6).mean.astype(np.float32)


def _after(tensors: Tensors, norm: str) -> Values:
    """What the output of a batch norm is like: its mean and deviation are its bias and weight."""
    mean, deviation = (tensors[f"{norm}.{part}"].astype(np.float64) for part in ("bias", "weight"))
    return Values.normal(mean, deviation**2)


def _repeats(depth: float) -> list[int]:
    """Blocks a stage; the first and the last stage are never repeated."""
    inner = [int(np.ceil(count * depth)) for count in REPEATS[1:-1]]
    return [REPEATS[0], *inner, REPEATS[-1]]


class _Graph:
    """Nodes and weights of a graph under construction; each call returns its output's name."""

    def __init__(self, tensors: Tensors) -> None:
        from onnx import numpy_helper

        self.tensors = tensors
        self.nodes: list[Any] = []
        low, high = (float((pixel - PIXEL_MEAN) / PIXEL_STD) for pixel in (0, 255))
        self.known = {"images": Values(np.zeros(3), np.ones(3), low, high)}
        """The input, and the outputs of batch norm, for int8."""
        self._constant = numpy_helper.from_array
        self.weights = [
            self._constant(np.float32(0), "zero"),
            self._constant(np.float32(6), "six"),
        ]

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def clip(self, value: str) -> str:
        """ReLU6."""
        return self.node("Clip", [value, "zero", "six"])

    def embed(self, pooled: str, mean: NDArray[np.float32]) -> None:
        """The outputs: the features, and their unit vectors minus that of their `mean`."""
        from onnx import helper

        self.weights.append(self._constant((mean / np.linalg.norm(mean))[None], "mean"))
        self.nodes.append(helper.make_node("Flatten", [pooled], [FEATURES], axis=1))
        unit = self.node("LpNormalization", [FEATURES], axis=1, p=2)
        self.nodes.append(helper.make_node("Sub", [unit, "mean"], [EMBEDDING]))

    def conv(self, value: str, conv: str, norm: str, side: int, stride: int = 1) -> str:
        """A convolution with its batch norm folded in."""
        weight, bias = self._folded(conv, norm)
        kernel = weight.shape[2]
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before, after = missing // 2, missing - missing // 2
        names = [f"{conv}.weight", f"{conv}.bias"]
        self.weights += [
            self._constant(array, name) for array, name in zip((weight, bias), names, strict=True)
        ]
        depthwise = weight.shape[1] == 1
        output = self.node(
            "Conv",
            [value, *names],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=weight.shape[0] if depthwise else 1,
        )
        self.known[output] = _after(self.tensors, norm)
        return output

    def block(self, value: str, name: str, side: int, stride: int) -> str:
        """An inverted residual: expand, filter each channel, project; plus the input if it fits."""
        start = value
        if f"{name}._expand_conv.weight" in self.tensors:
            value = self.clip(self.conv(value, f"{name}._expand_conv", f"{name}._bn0", side))
        value = self.clip(self.conv(value, f"{name}._depthwise_conv", f"{name}._bn1", side, stride))
        value = self.conv(value, f"{name}._project_conv", f"{name}._bn2", -(-side // stride))
        return self.node("Add", [start, value]) if self._residual(name, stride) else value

    def _residual(self, name: str, stride: int) -> bool:
        first = self.tensors.get(f"{name}._expand_conv.weight")
        last = self.tensors[f"{name}._project_conv.weight"]
        return stride == 1 and first is not None and first.shape[1] == last.shape[0]

    def _folded(self, conv: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = self.tensors[f"{conv}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self.tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        bias = beta - mean * scale
        return (weight * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)
