"""What stays fixed while a network is fine-tuned, and how fast the rest learns."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.network.backbones.support_backbones import built, fitted, network_of

pytestmark = pytest.mark.training


def settings(**chosen: Any) -> Any:
    from cbir.training.network.settings import TrainSettings

    return TrainSettings(**{"optimizer": "adamw", "peak_rate": 0.01, "batch_size": 16, **chosen})


@pytest.mark.parametrize("name", ["airbench96", "timm:test_resnet", "efficientnet-lite0"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_fixed_stages_stay_as_they_are(name: str, share: float) -> None:
    from cbir.training.network.fine_tuning import freeze

    network = network_of(built(name, width=0.25 if name == "airbench96" else 1))
    freeze(network, share)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fitted(network, settings(), 2)
    stages = network.backbone.stages()
    fixed = round(share * len(stages))
    assert fixed > 0
    for number, stage in enumerate(stages):
        ours = {id(tensor) for tensor in stage.state_dict(keep_vars=True).values()}
        changed = [
            name
            for name, tensor in network.state_dict(keep_vars=True).items()
            if id(tensor) in ours and not tensor.equal(before[name])
        ]
        assert bool(changed) == (number >= fixed), changed
    assert not network.embedding.weight.equal(before["embedding.weight"])


def test_without_freezing_batch_norm_learns_its_statistics() -> None:
    network = network_of(built("timm:test_resnet"))
    before = network.backbone.network.bn1.running_mean.clone()
    fitted(network, settings(), 1)
    assert not network.backbone.network.bn1.running_mean.equal(before)


def test_every_trained_parameter_is_in_one_group() -> None:
    from cbir.training.network.fine_tuning import freeze, parameter_groups

    network = network_of(built("timm:test_vit"))
    freeze(network, 0.3)
    groups = parameter_groups(network, settings(layer_decay=0.7))
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trained = [id(p) for p in network.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert len(trained) < len(list(network.parameters()))


def test_earlier_stages_learn_more_slowly() -> None:
    from cbir.training.network.fine_tuning import parameter_groups

    network = network_of(built("mlp", width=0.1, depth=3))
    rates = {}
    for group in parameter_groups(network, settings(layer_decay=0.5, peak_rate=1.0)):
        rates |= {id(parameter): group["peak"] for parameter in group["params"]}
    expected = [0.125, 0.25, 0.5]
    for stage, rate in zip(network.backbone.stages(), expected, strict=True):
        assert {rates[id(parameter)] for parameter in stage.parameters()} == {rate}
    assert rates[id(network.embedding.weight)] == rates[id(network.classifier.weight)] == 1


def test_adamw_does_not_shrink_biases_and_scales() -> None:
    from torch import nn

    from cbir.training.network.fine_tuning import parameter_groups

    network = network_of(built("timm:test_resnet"))
    decays = {}
    for group in parameter_groups(network, settings(weight_decay=0.1)):
        decays |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    of_norm = {id(parameter) for norm in norms for parameter in norm.parameters()}
    for name, parameter in network.named_parameters():
        still = id(parameter) in of_norm or name.endswith(".bias")
        assert decays[id(parameter)] == (0 if still else 0.1), name


def test_sgd_trains_the_biases_of_batch_norm_faster() -> None:
    from cbir.training.network.fine_tuning import parameter_groups
    from cbir.training.network.settings import TrainSettings

    network = network_of(built("airbench94"))
    chosen = TrainSettings(peak_rate=0.5, weight_decay=0.02, bias_rate_factor=64)
    weights, biases = parameter_groups(network, chosen)
    assert (weights["peak"], weights["weight_decay"]) == (0.5, 0.02)
    assert (biases["peak"], biases["weight_decay"]) == (32, 0.02 / 64)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    of_norm = {f"backbone.blocks.{block}.{norm}.bias" for block in range(3) for norm in (2, 5)}
    assert {names[id(parameter)] for parameter in biases["params"]} == of_norm
    assert "backbone.whiten.bias" in {names[id(parameter)] for parameter in weights["params"]}
