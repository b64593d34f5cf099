"""Exports a trained network to `model.onnx`: folds normalisation, quantises to int8.

The exported network takes uint8 (n, 32, 32, 3) RGB and returns `embedding` and `logits`. Every
layer except the first convolution and the two final linear layers runs in int8 (static QDQ, per
channel).
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cbir.descriptors.contract import batches
from cbir.training.network.backbones import HEAD_SCALE, Block, EmbeddingNet

CALIBRATION_BATCH = 100


class _Deployed(nn.Module):
    """The same function as the trained network, on raw pixels and without batch norm."""

    def __init__(self, network: EmbeddingNet, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        self.first = _with_normalisation(network.whiten, mean, std)
        blocks = [module for module in network.features if isinstance(module, Block)]
        self.body = nn.Sequential(*[_folded(block) for block in blocks], nn.MaxPool2d(3))
        self.embedding = network.embedding
        self.classifier = network.classifier
        self.embedding.weight.data *= HEAD_SCALE
        self.classifier.weight.data *= HEAD_SCALE

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float()
        features = self.body(torch.relu(self.first(pixels))).flatten(1)
        embedding = self.embedding(features)
        return embedding, self.classifier(embedding)


def export_float(network: EmbeddingNet, mean: Tensor, std: Tensor) -> bytes:
    """The network as float32 ONNX, dynamic batch size; `mean` and `std` (3,) as in training."""
    deployed = _Deployed(network, mean, std).eval()
    example = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter warns about its own deprecations, which do not concern users.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed,
            (example,),
            input_names=["images"],
            output_names=["embedding", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    for noted in (*model.graph.node, *model.graph.value_info, model.graph):
        # Remove stack traces: they contain local paths.
        noted.ClearField("metadata_props")
    return cast(bytes, model.SerializeToString())


def quantise(model: bytes, images: NDArray[np.uint8]) -> bytes:
    """`model` with its inner convolutions in static int8, calibrated on `images` (n, 32, 32, 3).

    ONNX Runtime's quantizer: QDQ format, per-channel weights, min-max activation ranges.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, source, target = (Path(folder) / name for name in ("plain", "prepared", "int8"))
        plain.write_bytes(model)
        quant_pre_process(plain, source, skip_symbolic_shape=True)
        quantize_static(
            source,
            target,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Relu", "MaxPool"],
            nodes_to_exclude=_first_convolution(source),
        )
        return target.read_bytes()


class _Calibration:
    """Calibration data for the quantizer: `get_next` returns a batch, or None at the end."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches = ({"images": some} for some in batches(images, CALIBRATION_BATCH))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def _first_convolution(model: Path) -> list[str]:
    import onnx

    graph = onnx.load(model).graph
    return [next(node.name for node in graph.node if node.op_type == "Conv")]


def _with_normalisation(conv: nn.Conv2d, mean: Tensor, std: Tensor) -> nn.Conv2d:
    """conv((pixels / 255 - mean) / std) as one convolution; exact, because it has no padding."""
    scale = 1 / (255 * std)
    shift = -mean / std
    bias = cast(Tensor, conv.bias)
    bias.data = bias.data + (conv.weight * shift[None, :, None, None]).sum((1, 2, 3))
    conv.weight.data = conv.weight.data * scale[None, :, None, None]
    return conv


def _folded(block: Block) -> nn.Sequential:
    """The block with batch norm folded into its convolutions and pooling after the first ReLU.

    Batch norm scales are positive, so batch norm and ReLU commute with max pooling; int8 inference
    can fuse a convolution that is followed by ReLU.
    """
    first, pool, norm_1, _, second, norm_2, _ = block
    fuse = cast(Any, nn.utils.fusion.fuse_conv_bn_eval)
    return nn.Sequential(fuse(first, norm_1), nn.ReLU(), pool, fuse(second, norm_2), nn.ReLU())
