"""Static int8 of a convolutional network without images, from the statistics of its batch norms.

Nagel et al., "Data-free quantization through weight equalization and bias correction" (ICCV 2019).
Batch norm says how each convolution's output is distributed: normal, with a mean and a standard
deviation a channel. These give the ranges of the activations, and the mean error that rounded
weights make, which the bias takes back. The graph has the QDQ format: uint8 activations, int8
weights with a scale a channel, int32 biases. Needs the package onnx.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

DEVIATIONS = 6
"""Half the range of an activation, in standard deviations; 6 as in the paper."""

TOP = 127
BIAS_TOP = 2**30

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """What is known of a tensor: mean and variance of each channel (c,), and its range."""

    mean: Doubles
    variance: Doubles
    low: float
    high: float

    @classmethod
    def normal(cls, mean: Doubles, variance: Doubles) -> Values:
        """Normal distributions, one a channel."""
        reach = DEVIATIONS * np.sqrt(variance)
        return cls(mean, variance, float((mean - reach).min()), float((mean + reach).max()))

    def plus(self, other: Values) -> Values:
        """The sum of two independent tensors."""
        return Values.normal(self.mean + other.mean, self.variance + other.variance)

    def clipped(self, low: float, high: float) -> Values:
        """These normal distributions, clipped."""
        deviation = np.sqrt(self.variance) + 1e-9
        below, above = (low - self.mean) / deviation, (high - self.mean) / deviation
        within = _share(above) - _share(below)
        mean = (
            low * _share(below)
            + self.mean * within
            + deviation * (_density(below) - _density(above))
            + high * (1 - _share(above))
        )
        return Values(mean, self.variance, low, high)

    @property
    def step(self) -> np.float32:
        """The difference between neighbouring uint8 values."""
        return np.float32((max(self.high, 0) - min(self.low, 0)) / 255)

    @property
    def zero(self) -> np.uint8:
        """The uint8 value that stands for 0."""
        return np.uint8(round(-min(self.low, 0) / float(self.step)))


def int8_graph(graph: GraphProto, known: Mapping[str, Values]) -> GraphProto:
    """`graph` with its convolutions, sums and average pooling in int8.

    `known` has the graph's input, and the output of each `Conv` before its activation, by name. Of
    other nodes, `graph` has `Clip`, `Add`, `GlobalAveragePool`, and nodes that stay float32.
    """
    from onnx import helper

    made = _Int8(graph, known)
    for node in graph.node:
        made.add(node)
    used = {name for node in made.nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    weights = [*kept, *made.weights]
    return helper.make_graph(made.nodes, graph.name, list(graph.input), list(graph.output), weights)


class _Int8:
    """The nodes and weights of the int8 graph under construction."""

    def __init__(self, graph: GraphProto, known: Mapping[str, Values]) -> None:
        from onnx import numpy_helper

        self.nodes: list[NodeProto] = []
        self.weights: list[Any] = []
        self._floats = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._known = dict(known)
        self._made: dict[str, str] = {}

    def add(self, node: NodeProto) -> None:
        """Add `node`, with its inputs in int8 where it has a place for them."""
        from onnx import NodeProto

        inputs, (output,) = list(node.input), node.output
        if node.op_type == "Clip":
            low, high = (float(self._floats[name]) for name in inputs[1:])
            self._known[output] = self._known[inputs[0]].clipped(low, high)
        elif node.op_type == "Add":
            self._known[output] = self._known[inputs[0]].plus(self._known[inputs[1]])
            inputs = [self._activation(name) for name in inputs]
        elif node.op_type == "GlobalAveragePool":
            inputs = [self._activation(inputs[0])]
        elif node.op_type == "Conv":
            inputs = [self._activation(inputs[0]), *self._convolution(*inputs)]
        copied = NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(inputs)
        self.nodes.append(copied)

    def _activation(self, name: str) -> str:
        """The tensor `name`, rounded to uint8."""
        if name not in self._made:
            values = self._known[name]
            rounded = self._node("QuantizeLinear", name, name, values.step, values.zero)
            self._made[name] = self._node("DequantizeLinear", rounded, name)
        return self._made[name]

    def _convolution(self, source: str, kernel: str, bias: str) -> tuple[str, str]:
        """The weights of a convolution of `source`: its kernel in int8, its bias in int32."""
        exact = self._floats[kernel].astype(np.float64)
        values, shift = self._known[source], self._floats[bias].astype(np.float64)
        steps = np.maximum(steps_of(exact), np.abs(shift) / (float(values.step) * BIAS_TOP))
        steps = np.maximum(steps, np.finfo(np.float32).tiny).astype(np.float32)
        each = steps.astype(np.float64)[:, None, None, None]
        rounded = np.clip(np.rint(exact / each), -TOP, TOP)
        error = (rounded * each - exact).sum(axis=(2, 3))
        depthwise = exact.shape[1] == 1
        shift -= error[:, 0] * values.mean if depthwise else error @ values.mean
        of_bias = steps * values.step
        return (
            self._constant(kernel, rounded.astype(np.int8), steps),
            self._constant(bias, np.rint(shift / of_bias).astype(np.int32), of_bias),
        )

    def _constant(self, name: str, rounded: NDArray[Any], steps: NDArray[np.float32]) -> str:
        self._keep(f"{name}:int", rounded)
        zero = np.zeros(len(steps), rounded.dtype)
        return self._node("DequantizeLinear", f"{name}:int", name, steps, zero, axis=0)

    def _node(self, kind: str, source: str, name: str, *own: Any, **attributes: int) -> str:
        """A node with the step and zero of `name`, which are `own` at their first use."""
        from onnx import helper

        names = [f"{name}:step", f"{name}:zero"]
        for each, value in zip(names, own, strict=False):
            self._keep(each, value)
        output = f"{name}:{'uint8' if kind == 'QuantizeLinear' else 'rounded'}"
        self.nodes.append(helper.make_node(kind, [source, *names], [output], **attributes))
        return output

    def _keep(self, name: str, value: Any) -> None:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.asarray(value), name))


def steps_of(kernel: Doubles) -> Doubles:
    """The int8 step of each output channel of `kernel` (out, in, height, width).

    Processors without VNNI add the products of two neighbouring inputs in 16 bits, which
    255 * 127 + 255 * 127 overflows. Neighbours of one sign add up to 128 at most here, so that
    every processor computes the same. Kernels of one input channel are summed in 32 bits.
    """
    steps: Doubles = np.abs(kernel).max(axis=(1, 2, 3)) / TOP
    if kernel.shape[1] > 1:
        rows = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)  # ONNX Runtime's order
        for one in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            steps = np.maximum(steps, (one[:, 1:] + one[:, :-1]).max(axis=1) / TOP)
    return steps


def _share(z: Doubles) -> Doubles:
    """The standard normal distribution up to `z`."""
    return np.array([(1 + math.erf(one / math.sqrt(2))) / 2 for one in z])


def _density(z: Doubles) -> Doubles:
    """The density of the standard normal distribution at `z`."""
    return np.asarray(np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
