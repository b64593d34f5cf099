"""Networks in int8 without images: like the float32 networks, and the same on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.photos import answers, read_photos
from benchmarks.setting import photos_archive
from cbir.descriptors.contract import describe
from cbir.descriptors.int8 import Values
from cbir.descriptors.models import files_of, load_descriptor
from cbir.descriptors.packaged import PACKAGED
from cbir.files import content

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")
onnxruntime = pytest.importorskip("onnxruntime")

LARGEST = {"efficientnet-lite0-int8": 3_800_000, "efficientnet-lite2-int8": 5_400_000}


@pytest.fixture(params=LARGEST)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGED[request.param].module, reason="needs the `photos` extra")
    return str(request.param)


def network_of(name: str) -> bytes:
    return content(files_of(load_descriptor(name))["model.onnx"])


def rounded_weights(network: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(network).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    return {key: array for key, array in arrays.items() if array.ndim == 4}


def test_the_file_is_a_quarter_and_every_convolution_has_int8_weights(name: str) -> None:
    network = network_of(name)
    assert len(network) <= LARGEST[name]
    full = onnx.load_from_string(network_of(name.removesuffix("-int8"))).graph
    convolutions = [node for node in full.node if node.op_type == "Conv"]
    weights = rounded_weights(network)
    assert len(weights) == len(convolutions)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.int8)}


def test_no_two_neighbouring_products_overflow_16_bits(name: str) -> None:
    """`vpmaddubsw` adds two products of uint8 and int8 with saturation at -32,768 and 32,767."""
    for key, kernel in rounded_weights(network_of(name)).items():
        rows = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1).astype(int)
        if kernel.shape[1] == 1:
            continue  # of each channel alone, which kernels sum in 32 bits
        for sign in (1, -1):
            one = np.maximum(sign * rows, 0)
            assert 255 * (one[:, 1:] + one[:, :-1]).max() <= 32_767, key


def test_integer_kernels_compute_what_the_graph_says(name: str) -> None:
    """Without optimisation, ONNX Runtime computes the rounded values in float32."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96)).astype(np.float32)
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(network_of(name), options)
        found.append(session.run(["features"], {"images": (images - 127) / 128})[0])
    plain, fast = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in found)
    assert (plain * fast).sum(axis=1).min() > 0.995


@pytest.mark.photos
@pytest.mark.slow
def test_on_photos_the_vectors_and_the_hits_are_those_of_float32(name: str) -> None:
    photos = read_photos(photos_archive())
    full, rounded = (
        describe(load_descriptor(each), photos.images)
        for each in (name.removesuffix("-int8"), name)
    )
    cosines = (full * rounded).sum(axis=1)
    assert cosines.mean() >= 0.995 and cosines.min() >= 0.96
    for some in (photos.test, ~photos.test):
        rows = np.flatnonzero(some)
        exact, near = (
            answers(each, photos.labels, rows, rows)["nAP@10"].mean() for each in (full, rounded)
        )
        assert near >= exact - 0.005


def test_clipping_moves_the_mean_as_it_moves_that_of_samples() -> None:
    mean, deviation = np.array([-4.0, -0.5, 2.0, 5.5, 9.0]), np.array([1.0, 2.0, 0.0, 3.0, 2.0])
    samples = np.random.default_rng(0).normal(mean, deviation, (200_000, 5))
    clipped = Values.normal(mean, deviation**2).clipped(0, 6)
    assert clipped.mean == pytest.approx(np.clip(samples, 0, 6).mean(axis=0), abs=0.02)
    assert (clipped.low, clipped.high) == (0, 6)


def test_a_sum_has_the_mean_and_the_spread_of_its_parts() -> None:
    one, other = (Values.normal(np.array([m]), np.array([v])) for m, v in ((1, 9), (-3, 16)))
    both = one.plus(other)
    assert (both.mean, both.variance) == (np.array([-2]), np.array([25]))
    assert (both.low, both.high) == (-32, 28)
    assert one.zero * one.step == pytest.approx(-one.low, abs=float(one.step))


def convolved(values: np.ndarray, known: dict[str, Values], kernel: np.ndarray, bias: Any) -> Any:
    """The means of a 1 x 1 convolution of `values` in float32 and in int8, averaged over places."""
    from cbir.descriptors.int8 import int8_graph

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shape = ["n", values.shape[1], None, None]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["y"]),
            helper.make_node("GlobalAveragePool", ["y"], ["mean"]),
        ],
        "test",
        [helper.make_tensor_value_info("x", float32, shape)],
        [helper.make_tensor_value_info("mean", float32, ["n", len(kernel), 1, 1])],
        [
            onnx.numpy_helper.from_array(kernel.astype(np.float32), "w"),
            onnx.numpy_helper.from_array(np.asarray(bias, dtype=np.float32), "b"),
        ],
    )
    for made in (graph, int8_graph(graph, known)):
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        yield session.run(None, {"x": values.astype(np.float32)})[0].ravel()


def test_the_bias_takes_back_the_mean_error_of_rounded_weights() -> None:
    draw = np.random.default_rng(0)
    inputs, outputs = 64, 32
    mean, deviation = draw.uniform(2, 6, inputs), draw.uniform(0.1, 0.5, inputs)
    values = draw.normal(mean[:, None, None], deviation[:, None, None], (1, inputs, 50, 50))
    kernel = draw.normal(size=(outputs, inputs, 1, 1))
    kernel[:, 0] = 30  # coarse steps for all others
    spread = Values.normal(np.full(outputs, 180.0), np.full(outputs, 900.0))
    known = {"x": Values.normal(mean, deviation**2), "y": spread}
    exact, right = convolved(values, known, kernel, np.zeros(outputs))
    nothing = Values(np.zeros(inputs), deviation**2, known["x"].low, known["x"].high)
    _, wrong = convolved(values, {**known, "x": nothing}, kernel, np.zeros(outputs))
    assert np.abs(right - exact).mean() < 0.1 * np.abs(wrong - exact).mean()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    values = np.random.default_rng(0).uniform(0, 6, (1, 4, 8, 8))
    kernel, bias = np.zeros((2, 4, 1, 1)), np.array([5.0, 0.0])
    known = {
        "x": Values.normal(np.full(4, 3.0), np.ones(4)),
        "y": Values.normal(bias, np.ones(2)),
    }
    exact, rounded = convolved(values, known, kernel, bias)
    assert exact == pytest.approx(bias)
    assert rounded == pytest.approx(bias, abs=float(known["y"].step))
