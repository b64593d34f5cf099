from __future__ import annotations

import collections
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.errors import CbirError
from tests.training.network.test_train_cnn import CLASSES, blobs, one_thread

pytestmark = pytest.mark.training

__all__ = ["one_thread"]  # a fixture


def embedding_net(backbone: Any, embedding: int = 16, **options: Any) -> Any:
    import torch

    from cbir.training.network.network import EmbeddingNet

    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    return EmbeddingNet(backbone, embedding, CLASSES, mean, std, **options)


def featured(features: int, *layers: Any) -> Any:
    """A backbone of layers in sequence."""
    from torch import nn

    backbone = nn.Sequential(*layers)
    backbone.features = features
    backbone.stages = lambda: list(layers)
    return backbone


def airbench() -> Any:
    from torch import nn

    from cbir.training.network.backbones.airbench import Airbench94

    backbone = Airbench94(0.25, 0)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            # The identity that training starts from is one large weight among small ones, which
            # eight bits cannot tell apart; training wears it off.
            nn.init.kaiming_normal_(module.weight)
    return backbone


def residual() -> Any:
    import torch
    from torch import nn

    class Residual(nn.Module):
        features = 24

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16))
            self.same = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
            self.wider = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24))
            self.short = nn.Conv2d(16, 24, 1, 2)

        def stages(self) -> list[nn.Module]:
            return list(self.children())

        def forward(self, images: Any) -> Any:
            maps = torch.relu(self.stem(images))
            maps = torch.relu(maps + self.same(maps))
            return torch.relu(self.short(maps) + self.wider(maps)).mean((2, 3))

    return Residual()


def perceptron() -> Any:
    from torch import nn

    hidden = [nn.Linear(3 * 32 * 32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32)]
    return featured(32, nn.Flatten(), *hidden, nn.BatchNorm1d(32), nn.ReLU())


def mobile() -> Any:
    """Depthwise convolutions, squeeze-and-excitation, hard swish."""
    import timm

    network = timm.create_model("mobilenetv3_small_050", num_classes=0)
    network.features = 1024
    network.stages = lambda: list(network.children())
    return network


def settled(network: Any, images: np.ndarray) -> Any:
    """The network in evaluation mode, with statistics of batch norm from `images`."""
    import torch

    with torch.no_grad():
        for _ in range(15):
            network.train()(tensor(images))
    return network.eval()


def tensor(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def expected(network: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.no_grad():
        embeddings = network.embed(tensor(images))
        return embeddings.numpy(), network.classify(embeddings).numpy()


def run(model: bytes, images: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["embedding", "logits"], {"images": images})


def operations(model: bytes) -> dict[str, int]:
    import onnx

    nodes = onnx.load_from_string(model).graph.node
    return collections.Counter(node.op_type for node in nodes)


@pytest.mark.parametrize(
    ("backbone", "mirror"),
    [
        (airbench, False),
        (airbench, True),
        (residual, False),
        (perceptron, False),
        pytest.param(mobile, False, marks=pytest.mark.slow),
    ],
)
def test_the_export_is_the_same_function_without_batch_norm(
    backbone: Callable[[], Any], mirror: bool
) -> None:
    import torch

    from cbir.training.network.export import export_float

    torch.manual_seed(0)
    images, _ = blobs(60)
    network = settled(embedding_net(backbone(), mirror=mirror), images)
    model = export_float(network, 32)
    assert "BatchNormalization" not in operations(model)
    for count in (1, 2, 7):
        for got, wanted in zip(
            run(model, images[:count]), expected(network, images[:count]), strict=True
        ):
            assert got == pytest.approx(wanted, abs=1e-4 * float(np.abs(wanted).max()))


def test_the_export_leaves_the_network_as_it_was() -> None:
    import torch

    from cbir.training.network.export import export_float

    network = embedding_net(residual(), mirror=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_float(network, 32)
    assert network.training and network.backbone.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("sign", [1, -1])
def test_batch_norm_passes_max_pooling_only_if_it_keeps_the_order(sign: int) -> None:
    import torch
    from torch import nn

    from cbir.training.network.export import export_float

    torch.manual_seed(0)
    images, _ = blobs(60)
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.weight, 0.5, 2)
    norm.weight.data[3] *= sign
    pool = nn.MaxPool2d(3, 2, padding=1)
    backbone = featured(8 * 256, nn.Conv2d(3, 8, 3, padding=1), pool, norm, nn.ReLU(), nn.Flatten())
    network = settled(embedding_net(backbone), images)
    model = export_float(network, 32)
    assert ("BatchNormalization" in operations(model)) == (sign < 0)
    wanted = expected(network, images)[0]
    assert run(model, images)[0] == pytest.approx(wanted, abs=1e-4 * float(np.abs(wanted).max()))


def trained(network: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    import torch

    optimizer = torch.optim.Adam(network.train().parameters(), 0.01)
    pixels, targets = tensor(images), torch.from_numpy(labels)
    for _ in range(3):
        for rows in torch.arange(len(images)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(pixels[rows]), targets[rows]).backward()
            optimizer.step()
    return network.eval()


@pytest.mark.parametrize("mirror", [False, True])
def test_int8_keeps_the_answers_of_a_trained_network(mirror: bool) -> None:
    import torch

    from cbir.training.network.export import export_float, quantise
    from cbir.training.network.parity import choose_export

    torch.manual_seed(0)
    images, labels = blobs(600)
    network = trained(embedding_net(airbench(), mirror=mirror), images[:400], labels[:400])
    exact = export_float(network, 32)
    models = {"float32": exact, "int8": quantise(exact, images[:200])}
    for model in models.values():
        assert not re.search(rb"\w\.py\b", model)  # no paths of this installation
    wanted = expected(network, images[400:])
    assert (wanted[1].argmax(1) == labels[400:]).mean() > 0.9
    kept, found = choose_export(wanted, models, images[400:], labels[400:])
    assert found["float32"].error < 1e-4
    assert 0 < found["int8"].error < 0.2
    assert kept == "int8"


@pytest.mark.parametrize("backbone", [airbench, residual, perceptron])
def test_int8_is_near_to_networks_of_all_kinds(backbone: Callable[[], Any]) -> None:
    import torch

    from cbir.training.network.export import export_float, quantise
    from cbir.training.network.parity import parity

    torch.manual_seed(0)
    images, labels = blobs(300)
    network = settled(embedding_net(backbone()), images)
    model = quantise(export_float(network, 32), images[:200])
    embeddings, logits = run(model, images[200:])
    found = parity(expected(network, images[200:]), (embeddings, logits), labels[200:])
    assert 0 < found.error < 0.15
    assert found.cosine > 0.97


@pytest.mark.parametrize("embedding", [0, 16])
def test_int8_computes_the_backbone_in_integers(embedding: int, tmp_path: Path) -> None:
    import onnxruntime

    from cbir.training.network.export import export_float, quantise

    images, _ = blobs(60)
    network = settled(embedding_net(airbench(), embedding), images)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # such a file fits only this processor, it warns
    exact = export_float(network, 32)
    model = quantise(exact, images)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    assert len(model) < 0.4 * len(exact)
    counted = operations((tmp_path / "optimised.onnx").read_bytes())
    assert counted["QLinearConv"] == 6
    assert counted["Conv"] == 1
    assert counted["Gemm"] == (2 if embedding else 1)
    assert counted["QuantizeLinear"] == counted["DequantizeLinear"] == 1


@pytest.mark.parametrize("backbone", [airbench, perceptron])
def test_int8_weights_do_not_overflow_where_products_add_up_in_16_bits(
    backbone: Callable[[], Any],
) -> None:
    import onnx

    from cbir.training.network.export import export_float, quantise

    images, _ = blobs(60)
    network = settled(embedding_net(backbone()), images)
    graph = onnx.load_from_string(quantise(export_float(network, 32), images)).graph
    weights = [onnx.numpy_helper.to_array(one).astype(int) for one in graph.initializer]
    weights = [one for one in weights if one.ndim > 1 and one.min() < 0 and one.max() > 64]
    assert len(weights) >= 2
    for one in weights:
        # In the order in which products are summed: channels innermost.
        rows = np.moveaxis(one, 1, -1).reshape(len(one), -1)
        assert np.abs(rows[:, 1:] + rows[:, :-1]).max() <= 128


def test_a_network_that_eight_bits_cannot_hold_stays_float32() -> None:
    import torch
    from torch import nn

    from cbir.training.network.export import export_float, quantise
    from cbir.training.network.parity import choose_export

    torch.manual_seed(0)
    images, labels = blobs(120)
    first, second, third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, 3)
    first.weight.data[0] *= 1e5  # one channel fills the range, and the rest is rounded to nothing
    second.weight.data[:, 0] = 0
    layers = [first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Flatten()]
    network = settled(embedding_net(featured(8 * 81, *layers)), images)
    exact = export_float(network, 32)
    models = {"float32": exact, "int8": quantise(exact, images)}
    kept, found = choose_export(expected(network, images), models, images, labels)
    assert kept == "float32"
    assert found["int8"].cosine < 0.9 < found["float32"].cosine


def test_an_export_of_another_network_is_refused() -> None:
    import torch

    from cbir.training.network.export import export_float
    from cbir.training.network.parity import choose_export

    images, labels = blobs(50)
    torch.manual_seed(0)
    one, other = (settled(embedding_net(residual()), images) for _ in range(2))
    models = {"float32": export_float(other, 32)}
    with pytest.raises(CbirError, match="differs from the trained one"):
        choose_export(expected(one, images), models, images, labels)
    undefined = tuple(np.full_like(values, np.nan) for values in expected(other, images))
    with pytest.raises(CbirError, match="differs from the trained one"):
        choose_export(undefined, models, images, labels)


@pytest.mark.parametrize("wrong", ["all classes", "one class"])
def test_a_wrong_classifier_is_refused_although_the_embedding_is_right(wrong: str) -> None:
    import torch

    from cbir.training.network.export import export_float
    from cbir.training.network.parity import choose_export

    torch.manual_seed(0)
    images, labels = blobs(600)
    network = trained(embedding_net(residual()), images[:400], labels[:400])
    right = export_float(network, 32)
    images, labels = images[400:], labels[400:]
    wanted = expected(network, images)
    with torch.no_grad():
        rows = slice(None) if wrong == "all classes" else slice(1)
        network.classifier.weight[rows].neg_()
    broken = export_float(network, 32)
    with pytest.raises(CbirError, match="differs from the trained one"):
        choose_export(wanted, {"float32": broken}, images, labels)
    kept, found = choose_export(wanted, {"float32": right, "int8": broken}, images, labels)
    assert kept == "float32"
    assert found["int8"].cosine > 0.999 and found["int8"].nap_difference == 0
    assert choose_export(wanted, {"float32": right, "int8": right}, images, labels)[0] == "int8"


def test_undefined_logits_are_an_error_of_their_own() -> None:
    from cbir.training.network.parity import parity

    random = np.random.default_rng(0)
    embeddings = random.normal(size=(20, 4)).astype(np.float32)
    logits = random.normal(size=(20, 3)).astype(np.float32)
    undefined = np.full_like(logits, np.nan)
    found = parity((embeddings, logits), (embeddings, undefined), np.arange(20) % 3)
    assert np.isnan(found.error)


def test_parity_is_what_it_says() -> None:
    from cbir.training.network.parity import parity

    random = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 1, 2, 0, 1, 1, 0, 2])
    before = random.normal(1, 1, (10, 4)).astype(np.float32)
    logits = random.normal(size=(10, 3)).astype(np.float32)
    after = before.copy()
    after[2:8] = random.normal(1, 1, (6, 4))
    changed = logits.copy()
    changed[7] = -changed[7]
    got = parity((before, logits), (after, changed), labels)

    def unit(row: np.ndarray) -> np.ndarray:
        row = row - before.mean(axis=0)
        return row / np.linalg.norm(row)

    def precision(rows: np.ndarray, query: int) -> float:
        """nAP of a query: all five indexed images are within the first 100."""
        order = sorted(range(5), key=lambda other: -(unit(rows[query]) @ unit(rows[other])))
        relevant = [labels[other] == labels[query] for other in order]
        found = [sum(relevant[: n + 1]) / (n + 1) for n in range(5) if relevant[n]]
        return sum(found) / len(found)

    assert got.error == pytest.approx(
        max(
            np.abs(after - before).max() / np.abs(before).max(),
            np.abs(changed - logits).max() / np.abs(logits).max(),
        )
    )
    assert got.cosine == pytest.approx(
        np.mean([unit(a) @ unit(b) for a, b in zip(before, after, strict=True)]), abs=1e-5
    )
    assert got.same_class == pytest.approx(0.9)
    queries = range(5, 10)
    difference = np.mean([precision(after, q) - precision(before, q) for q in queries])
    assert got.nap_difference == pytest.approx(difference, abs=1e-6)
    assert got.nap_difference != 0
    correct = [(values.argmax(1) == labels).mean() for values in (changed, logits)]
    assert got.accuracy_difference == pytest.approx(correct[0] - correct[1])
    assert got.accuracy_p == 1  # one image decides nothing
