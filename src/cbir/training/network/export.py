"""Exports a trained network of any backbone to ONNX, in float32 and in static int8.

The exported network takes `images`, uint8 (n, size, size, 3) RGB, and returns `embedding` and
`logits`. The work is that of libraries, which need no list of layers here: onnxscript folds batch
norm into the layer before it, and ONNX Runtime's quantizer takes every operation that it knows.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cbir.descriptors.contract import batches
from cbir.descriptors.int8 import TOP, steps_of
from cbir.training.network.network import EmbeddingNet

if TYPE_CHECKING:
    from onnx import GraphProto
    from onnxscript.rewriter.pattern import RewriteRule

CALIBRATION_BATCH = 100

LINEAR = ("Gemm", "MatMul")
WEIGHTED = ("Conv", "ConvTranspose", *LINEAR)
INCREASING = ("BatchNormalization", "Relu", "Clip")
"""Operations that keep the order of a channel's values; batch norm unless its scale is negative."""


class _Deployed(nn.Module):
    """The trained network on images as they are stored."""

    def __init__(self, network: EmbeddingNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.network.embed(images.permute(0, 3, 1, 2).float())
        return embedding, self.network.classify(embedding)


def export_float(network: EmbeddingNet, size: int) -> bytes:
    """`network` for images of `size` x `size` pixels as float32 ONNX, with dynamic batch size.

    Batch norm is folded into convolutions and linear layers, max pooling in between or not.
    """
    deployed = _Deployed(copy.deepcopy(network).cpu()).eval()
    with _silence():
        program = torch.onnx.export(
            deployed,
            (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
            input_names=["images"],
            output_names=["embedding", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    from onnxscript.rewriter import rewrite

    with _silence():
        rewrite(program.model, [_before_pooling(kind) for kind in INCREASING])
        program.optimize()
    model = program.model_proto
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
        # Remove stack traces: they contain local paths.
        noted.ClearField("metadata_props")
    return cast(bytes, model.SerializeToString())


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings of the exporter: they concern its own code, not what users do."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantise(model: bytes, images: NDArray[np.uint8]) -> bytes:
    """`model` in static int8, calibrated on `images` (n, size, size, 3).

    ONNX Runtime's quantizer: QDQ format, per-channel weights, min-max activation ranges. Three
    parts stay float32 for the sake of accuracy: normalisation, a first convolution, and what makes
    the outputs of the backbone's vectors.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, source, target = (Path(folder) / name for name in ("plain", "prepared", "int8"))
        plain.write_bytes(model)
        quant_pre_process(plain, source, skip_symbolic_shape=True)
        graph = onnx.load(source).graph
        quantize_static(
            source,
            target,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_outer(graph),
            extra_options={"TensorQuantOverrides": _ranges(graph)},
        )
        return target.read_bytes()


class _Calibration:
    """Calibration data for the quantizer: `get_next` returns a batch, or None at the end."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches = ({"images": some} for some in batches(images, CALIBRATION_BATCH))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def _before_pooling(kind: str) -> RewriteRule:
    """The rule that moves an operation `kind` from behind max pooling to before it.

    The result is the same, because max pooling keeps the largest value of a channel; and there,
    it can be fused with a convolution.
    """
    from onnxscript.rewriter.pattern import RewriteRule

    def found(op: Any, x: Any) -> Any:
        pooled = op.MaxPool(x, _allow_other_attributes=True, _outputs=["pooled"])
        anything: Mapping[str, Any] = {
            "_allow_other_inputs": True,
            "_allow_other_attributes": True,
            "_outputs": ["result"],
        }
        return getattr(op, kind)(pooled, **anything)

    def increasing(_: Any, result: Any, **_values: Any) -> bool:
        if kind != "BatchNormalization":
            return True
        scale = result.producer().inputs[1].const_value
        return scale is not None and bool((scale.numpy() >= 0).all())

    def moved(op: Any, x: Any, pooled: Any, result: Any) -> Any:
        node = result.producer()
        first = getattr(op, kind)(x, *node.inputs[1:], **node.attributes)
        return op.MaxPool(first, **pooled.producer().attributes)

    return RewriteRule(found, moved, increasing)


def _ranges(graph: GraphProto) -> dict[str, list[dict[str, Any]]]:
    """The range of each output channel of the weights, as the quantizer's option has them.

    It is as wide as `cbir.descriptors.int8` makes it, so that every processor computes the same.
    """
    from onnx import numpy_helper

    weights = {one.name: one for one in graph.initializer}
    ranges = {}
    for node in graph.node:
        by_output = node.op_type == "Conv" or (
            node.op_type == "Gemm" and any(one.name == "transB" and one.i for one in node.attribute)
        )
        if by_output and node.input[1] in weights:
            kernel = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
            tops = (TOP * steps_of(kernel.reshape(*kernel.shape[:2], -1, 1))).astype(np.float32)
            ranges[node.input[1]] = [
                {"axis": 0, "symmetric": True, "rmin": -top, "rmax": top} for top in tops
            ]
    return ranges


def _outer(graph: GraphProto) -> list[str]:
    """Names of the nodes up to a first convolution, and of those that make vectors into outputs."""
    return [*_from_input(graph), *_to_output(graph)]


def _from_input(graph: GraphProto) -> Iterator[str]:
    behind: set[str] = set()
    for node in graph.node:  # in the order of computation
        if node.op_type in WEIGHTED or behind.intersection(node.input):
            behind.update(node.output)
        if node.op_type not in LINEAR and not behind.intersection(node.input):
            yield node.name


def _to_output(graph: GraphProto) -> Iterator[str]:
    makers = {name: node for node in graph.node for name in node.output}
    shapes = {one.name: one.type.tensor_type.shape for one in (*graph.value_info, *graph.output)}
    wanted = [output.name for output in graph.output]
    while wanted:
        name = wanted.pop()
        if name in makers and name in shapes and len(shapes[name].dim) <= 2:
            yield makers[name].name
            wanted += [] if makers[name].op_type in WEIGHTED else makers[name].input
