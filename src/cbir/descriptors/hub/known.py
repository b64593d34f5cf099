"""Models of the hub by name, and names of all its other repositories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cbir.descriptors.about import NOT_STATED
from cbir.errors import CbirError
from cbir.wording import did_you_mean

PREFIX = "hf:"
MAIN = "main"
_REPOSITORY = re.compile(r"[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)
_REVISION = re.compile(r"[a-z0-9][\w./-]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class HubModel:
    """A model of the hub: the name that it gets, its repository, and what its files do not say.

    `licence` is the weights' own, for repositories that state none.
    """

    name: str
    repository: str
    licence: str = NOT_STATED
    trained_on: str = NOT_STATED


_DINOV2 = ("Apache-2.0", "LVD-142M: 142M images without labels")
_CLIP = ("MIT", "WIT: 400M images with texts (OpenAI, not published)")
_SIGLIP = ("Apache-2.0", "WebLI: images with texts in 109 languages (Google, not published)")

KNOWN: Mapping[str, HubModel] = {
    model.name: model
    for model in (
        HubModel("dinov2-small", "onnx-community/dinov2-small", *_DINOV2),
        HubModel("dinov2-base", "onnx-community/dinov2-base", *_DINOV2),
        HubModel("clip-vit-b32", "Xenova/clip-vit-base-patch32", *_CLIP),
        HubModel(
            "siglip2-b16-256",
            "onnx-community/siglip2-base-patch16-256-ONNX",
            *_SIGLIP,
        ),
        HubModel(
            "siglip-b16-256-multilingual",
            "Xenova/siglip-base-patch16-256-multilingual",
            *_SIGLIP,
        ),
    )
}


def hub_model(name: str) -> tuple[HubModel, str]:
    """The model and the revision that `name` means: a known name, or `hf:OWNER/NAME[@REVISION]`.

    The repository of a known model is that model. Raises `CbirError` for any other name.
    """
    if name in KNOWN:
        return KNOWN[name], MAIN
    repository, at, revision = name.removeprefix(PREFIX).partition("@")
    revision = revision if at else MAIN
    valid = _REPOSITORY.fullmatch(repository) and _REVISION.fullmatch(revision)
    if not valid or ".." in repository + revision:
        raise _unknown(name, "names of repositories have the form hf:OWNER/NAME[@REVISION]")
    if not name.startswith(PREFIX):
        raise _unknown(name, f"for the repository: {PREFIX}{name}")
    for model in KNOWN.values():
        if model.repository.casefold() == repository.casefold():
            return model, revision
    return HubModel(repository.rpartition("/")[2], repository), revision


def _unknown(name: str, form: str) -> CbirError:
    if name.startswith(PREFIX) or "/" in name:
        return CbirError(f"'{name}' is no model of the hub", form)
    others = f"known: {', '.join(KNOWN)}; any other: {PREFIX}OWNER/NAME"
    return CbirError(f"'{name}' is no model of the hub", did_you_mean(name, KNOWN, others))
