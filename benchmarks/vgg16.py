"""A network of the shape of VGG-16 with random weights, to measure running time, not quality.

Thirteen 3x3 convolutions in five blocks with max pooling between them, as in configuration D of
Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(2015), without the classifier: the last 512 maps, averaged, are the vector.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import unit_rows
from cbir.types import DescriptorSpec, RgbImage, Vectors

if TYPE_CHECKING:
    import onnxruntime

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class UntrainedVgg16:
    """A descriptor of 512 dimensions from images of `size` x `size` pixels."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._loading = threading.Lock()

    @cached_property
    def spec(self) -> DescriptorSpec:
        name = f"untrained-vgg16-{self._size}"
        return DescriptorSpec(name, BLOCKS[-1][-1], hashlib.sha256(name.encode()).hexdigest())

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """Unit vectors (n, 512)."""
        with self._loading:
            session = self._session
        parts = [session.run(None, {"images": batch})[0] for batch in self._batches(images)]
        return unit_rows(np.concatenate(parts))

    def _batches(self, images: Sequence[RgbImage]) -> Iterator[NDArray[np.float32]]:
        from PIL import Image

        size = (self._size, self._size)
        for some in batches(images, 16):
            batch = [np.asarray(Image.fromarray(image).resize(size)) for image in some]
            pixels = np.stack(batch).transpose(0, 3, 1, 2)
            yield (pixels / 255).astype(np.float32)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # indexing runs one batch per core
        return onnxruntime.InferenceSession(_network(), options, ["CPUExecutionProvider"])


def _network() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []
    before, channels = "images", 3
    for block, widths in enumerate(BLOCKS):
        for number, width in enumerate(widths):
            here = f"conv{block + 1}_{number + 1}"
            spread = np.sqrt(2 / (9 * channels))  # keeps the variance under ReLU
            kernel = (spread * draw.normal(size=(width, channels, 3, 3))).astype(np.float32)
            weights.append(numpy_helper.from_array(kernel, f"{here}_w"))
            pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
            nodes.append(helper.make_node("Conv", [before, f"{here}_w"], [here], **pads))
            nodes.append(helper.make_node("Relu", [here], [f"{here}_relu"]))
            before, channels = f"{here}_relu", width
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("MaxPool", [before], [f"pool{block + 1}"], **pool))
        before = f"pool{block + 1}"
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["embedding"]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])
    vectors = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", channels])
    graph = helper.make_graph(nodes, "vgg16", [images], [vectors], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised
