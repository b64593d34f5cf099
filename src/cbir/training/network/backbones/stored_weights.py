"""Weights of a backbone from a file, which may hold tensors and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from safetensors.torch import load
from torch import Tensor, nn

from cbir.errors import CbirError
from cbir.files import read_regular, require_regular
from cbir.wording import counted

Tensors = dict[str, Tensor]


def load_weights(
    network: nn.Module,
    tensors: Tensors,
    source: str,
    name: str,
    classifier: tuple[str, ...] = (),
    adapted: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> None:
    """Load `tensors`, which come from `source`, into `network`, the backbone `name`.

    Those whose names begin with one of `classifier` are left out. `adapted` may change the others
    to fit, once their names are known to be right. Raises `CbirError` if they are other weights.
    """
    wanted = network.state_dict()
    found = {
        key: t for key, t in tensors.items() if key in wanted or not key.startswith(classifier)
    }
    # Old files lack the counters of batch norm, which nothing here uses.
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unknown = [key for key in found if key not in wanted]
    if not missing and not unknown:
        found = adapted(found)
    misfits = [k for k in found if k in wanted and found[k].shape != wanted[k].shape]
    for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misfits)):
        if keys:
            raise CbirError(
                f"{source} does not hold the weights of {name}: "
                f"{counted(len(keys), 'tensor')} {what}, such as {keys[0]}",
                "name a file of the same network; only its classifier may differ",
            )
    network.load_state_dict(found)


def read_weights(path: str) -> Tensors:
    """The tensors by name in a .safetensors or .pth file; no other pickled object is read."""
    try:
        if path.endswith(".safetensors"):
            return load(read_regular(path))
        require_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are refused if unreadable
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CbirError(
            f"cannot read the weights {path}: {error.strerror or error}",
            "give a .safetensors or .pth file, 'pretrained', or '' for random weights",
        ) from error
    except Exception as error:  # foreign bytes make the unpickler raise anything
        raise CbirError(
            f"{path} is not a file of tensors",
            "weights come as .safetensors, or as .pth with the state dict of a network alone",
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CbirError(
            f"{path} holds something else than tensors by name",
            "save the state dict of the network alone",
        )
    return tensors
