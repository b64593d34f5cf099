"""Every backbone by name: it learns, its stages own it, and what it cannot do is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cbir.errors import CbirError
from tests.training.network.backbones.support_backbones import (
    built,
    features,
    fitted,
    images,
    network_of,
)

pytestmark = pytest.mark.training

OWN = ("airbench94", "airbench96", "mlp", "lenet", "alexnet", "efficientnet-lite0")
OTHERS = ("timm:test_resnet", "timm:test_vit", "torchvision:squeezenet1_1")


@pytest.mark.parametrize("name", [*OWN, *OTHERS])
def test_learns_a_small_batch_by_heart(name: str) -> None:
    from cbir.training.network.settings import TrainSettings

    width = 0.25 if name in OWN and name != "efficientnet-lite0" else 1
    settings = TrainSettings(optimizer="adamw", peak_rate=1e-3)
    losses = fitted(network_of(built(name, width=width)), settings, 30)
    assert losses[0] > 1
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", [*OWN, *OTHERS])
def test_defaults_are_settings(name: str) -> None:
    from cbir.training.network.backbones import plan_of
    from cbir.training.network.settings import TrainSettings

    for weights in ("", "pretrained"):
        settings = TrainSettings(
            backbone=name, **plan_of(name).defaults_for(weights) | {"weights": weights}
        )
        assert settings.size >= 32
    own = plan_of(name).defaults_for(None)
    assert own == plan_of(name).defaults_for(own.get("weights", ""))


@pytest.mark.parametrize(
    "name", [*OWN, *OTHERS, "timm:test_convnext", "torchvision:vit_b_32", "torchvision:googlenet"]
)
def test_stages_own_every_parameter_once(name: str) -> None:
    backbone = built(name, 224 if "vit" in name else 32)
    owned = [id(p) for stage in backbone.stages() for p in stage.parameters()]
    assert sorted(owned) == sorted(id(p) for p in backbone.parameters())
    assert len(backbone.stages()) >= 2


@pytest.mark.parametrize("name", [*OWN, *OTHERS])
@pytest.mark.parametrize("size", [32, 48])
def test_returns_the_features_it_announces(name: str, size: int) -> None:
    assert features(built(name, size), images(2, size)).shape == (2, built(name, size).features)


@pytest.mark.parametrize("name", OWN)
def test_every_input_size_from_the_smallest_on_works(name: str) -> None:
    from cbir.training.network.backbones import plan_of

    for size in (plan_of(name).smallest, plan_of(name).smallest + 1):
        backbone = built(name, size)
        assert features(backbone, images(2, size)).shape == (2, backbone.features)


@pytest.mark.parametrize("name", ["airbench94", "airbench96", "mlp", "lenet", "alexnet"])
def test_width_scales_the_network(name: str) -> None:
    narrow, own = built(name, width=0.5), built(name)
    assert narrow.features == pytest.approx(own.features / 2, abs=4)


@pytest.mark.parametrize(("name", "own"), [("airbench94", 2), ("airbench96", 1), ("mlp", 2)])
def test_depth_counts_layers(name: str, own: int) -> None:
    def layers(depth: int) -> int:
        return sum(tensor.ndim > 1 for tensor in built(name, depth=depth).parameters())

    assert layers(0) == layers(own)
    assert layers(own + 2) - layers(own + 1) == layers(own + 1) - layers(own) > 0


@pytest.mark.parametrize(
    ("name", "width", "depth", "message"),
    [
        ("lenet", 1, 3, "lenet comes in one depth only"),
        ("alexnet", 1, 3, "alexnet comes in one depth only"),
        ("efficientnet-lite0", 2, 0, "efficientnet-lite0 comes in one width only"),
        ("timm:test_resnet", 0.5, 0, "timm:test_resnet comes in one width only"),
        ("torchvision:resnet18", 1, 2, "torchvision:resnet18 comes in one depth only"),
    ],
)
def test_a_width_or_depth_that_does_not_exist_is_refused(
    name: str, width: float, depth: int, message: str
) -> None:
    with pytest.raises(CbirError, match=message):
        built(name, width=width, depth=depth)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("airbench95", "did you mean 'airbench9"),
        ("alexnett", "did you mean 'alexnet'?"),
        ("resnet50", "did you mean 'timm:resnet50'?"),
        ("googlenet", "did you mean 'torchvision:googlenet'?"),
        ("timm:", "name a network of timm, such as timm:resnet50"),
        ("torchvision:", "name a network of torchvision, such as torchvision:resnet50"),
        ("timm:????????", "such as timm:resnet50"),
        ("timm:resnet5O", "did you mean 'timm:resnet50"),
        ("timm:test_resnet.r224_in1k", "did you mean 'timm:test_resnet.r160_in1k'?"),
        ("torchvision:vgg61", "did you mean 'torchvision:vgg"),
        ("torchvision:raft_small", "did you mean 'torchvision:"),
        ("????", "known: airbench94, airbench96, mlp"),
        ("keras:vgg16", "timm:NAME, torchvision:NAME"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    from cbir.training.network.backbones import plan_of

    with pytest.raises(CbirError, match=f"unknown backbone '{name.replace('?', '.')}'") as caught:
        plan_of(name)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "size", "larger"),
    [("torchvision:inception_v3", 32, 75), ("timm:deepseek_vit_412m", 32, 42)],
)
def test_an_input_that_is_too_small_is_refused(name: str, size: int, larger: int) -> None:
    with pytest.raises(CbirError, match=f"does not take an input of {size} pixels") as caught:
        built(name, size)
    assert caught.value.hint == f"choose a size of {larger}"


def test_the_residual_network_adds_what_comes_in() -> None:
    """With zeros in the last batch norm of each residual part, that part does nothing."""
    import torch

    from cbir.training.network.backbones.residual import Residual

    part = Residual(8).eval()
    torch.nn.init.zeros_(part.later[-1].weight)
    given = images(2).repeat(1, 3, 1, 1)[:, :8]
    np.testing.assert_array_equal(features(part, given), given.clamp(min=0).numpy())


def test_airbench94_computes_what_it_did_when_cifar10_cnn_was_trained() -> None:
    import torch
    from torch.nn import functional

    backbone = built("airbench94").eval()
    state = backbone.state_dict()
    maps = torch.relu(functional.conv2d(images(3), state["whiten.weight"], state["whiten.bias"]))
    for block in range(3):
        for conv, norm in ((0, 2), (4, 5)):
            maps = functional.conv2d(maps, state[f"blocks.{block}.{conv}.weight"], padding=1)
            maps = functional.max_pool2d(maps, 2) if conv == 0 else maps
            names = ("running_mean", "running_var", "weight", "bias")
            own = (state[f"blocks.{block}.{norm}.{name}"] for name in names)
            maps = torch.relu(functional.batch_norm(maps, *own, eps=1e-12))
    np.testing.assert_allclose(features(backbone, images(3)), maps.amax((2, 3)), rtol=1e-5)
