"""Weights of a file: only tensors, and only those of the network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.errors import CbirError
from tests.training.network.backbones.support_backbones import built

pytestmark = pytest.mark.training


def tensors_of(backbone: Any) -> dict[str, Any]:
    """By the names that a library gives them."""
    tensors: dict[str, Any] = getattr(backbone, "network", backbone).state_dict()
    return tensors


def stored(path: Path, tensors: dict[str, Any]) -> str:
    import torch
    from safetensors.torch import save_file

    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["airbench94", "mlp", "efficientnet-lite0"])
def test_weights_come_back_from_a_file(name: str, ending: str, tmp_path: Path) -> None:
    import torch

    saved = {key: torch.full_like(t, 2) for key, t in tensors_of(built(name)).items()}
    path = stored(tmp_path / f"weights.{ending}", saved)
    for key, tensor in tensors_of(built(name, weights=path)).items():
        np.testing.assert_array_equal(tensor, saved[key], err_msg=key)


@pytest.mark.parametrize("name", ["mlp", "timm:test_resnet", "torchvision:squeezenet1_1"])
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    import torch

    tensors = tensors_of(built(name))
    first = next(iter(tensors))
    for what, wrong in (
        ("1 tensor missing", {key: t for key, t in tensors.items() if key != first}),
        ("1 tensor unknown, such as more.weight", {**tensors, "more.weight": torch.zeros(2)}),
        (f"1 tensor of another shape, such as {first}", {**tensors, first: torch.zeros(2, 2)}),
    ):
        path = stored(tmp_path / "weights.pth", wrong)
        with pytest.raises(
            CbirError, match=f"weights.pth does not hold the weights of {name}: {what}"
        ):
            built(name, weights=path)


def test_the_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "weights.pth", built("airbench94", width=0.5).state_dict())
    with pytest.raises(CbirError, match="of another shape"):
        built("airbench94", weights=path)


class Trap:
    """What unpickling would call, were it allowed to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    import torch

    for number, save in enumerate(
        (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))
    ):
        path = tmp_path / f"{number}.pth"
        save({"weight": Trap(tmp_path / "sprung")}, path)
        with pytest.raises(CbirError, match="is not a file of tensors"):
            built("mlp", weights=str(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_what_is_no_file_of_tensors_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{ending}"
    with pytest.raises(CbirError, match=f"cannot read the weights .*{ending}: No such file"):
        built("mlp", weights=str(path))
    stored(path, built("mlp").state_dict())
    whole = path.read_bytes()
    for damaged in (b"", b"weights", whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CbirError, match="is not a file of tensors"):
            built("mlp", weights=str(path))


def test_a_checkpoint_with_more_than_weights_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"epoch": 3, "state_dict": built("mlp").state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(CbirError, match="holds something else than tensors by name"):
        built("mlp", weights=str(tmp_path / "weights.pth"))


def test_small_networks_have_no_pre_trained_weights() -> None:
    with pytest.raises(CbirError, match="airbench94 has no pre-trained weights"):
        built("airbench94", weights="pretrained")
