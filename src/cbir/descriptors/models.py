"""Where models lie: shipped in the package, kept in the model store, or beside an index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from cbir.descriptors.base import Descriptor
from cbir.descriptors.onnx import CARD_FILE, NETWORK_FILE, VARIANTS, ModelCard, OnnxDescriptor
from cbir.errors import CbirError
from cbir.home import cbir_home
from cbir.registry import resolve
from cbir.types import DescriptorSpec

ENTRY_POINTS = "cbir.descriptors"
SHIPPED = ("cifar10-cnn",)


@dataclass(frozen=True)
class StoredModel:
    """A model at hand: its descriptor, where it lies, and since when (seconds since 1970)."""

    descriptor: OnnxDescriptor
    origin: Literal["shipped", "store"]
    place: str
    modified: float


def load_descriptor(name: str) -> Descriptor:
    """The descriptor called `name`.

    `name` is a shipped model (`cifar10-cnn`), one of the model store (the newest of that name, or
    `NAME@FINGERPRINT`), either with `:embedding` for the unfused vector, a model's folder, an
    entry point of the group `cbir.descriptors`, or `module:attribute`.
    """
    model_name, variant = _split_variant(name)
    if (Path(model_name) / CARD_FILE).is_file():
        return OnnxDescriptor(read_files(Path(model_name)), variant)
    for model in models():
        if model_name in _names(model.descriptor):
            return OnnxDescriptor(model.descriptor.files, variant)
    known = {model.descriptor.card.name: "" for model in models()}
    descriptor = resolve(name, known, ENTRY_POINTS)()
    if not isinstance(descriptor, Descriptor):
        raise CbirError(f"'{name}' is not a descriptor", "it needs `spec` and `describe(images)`")
    return descriptor


def descriptor_of(spec: DescriptorSpec, kept: Mapping[str, bytes]) -> Descriptor:
    """The descriptor that made the vectors of an index with `spec`.

    `kept` are the model's files beside the index, if it keeps any; otherwise the model store, the
    package and the entry points are asked. Raises `CbirError` when none has that fingerprint.
    """
    model_name, variant = _split_variant(spec.name)
    if kept:
        found: Descriptor = OnnxDescriptor(kept, variant)
    else:
        same = [
            descriptor
            for model in models()
            if model.descriptor.card.name == model_name
            for descriptor in [OnnxDescriptor(model.descriptor.files, variant)]
            if descriptor.spec.fingerprint == spec.fingerprint
        ]
        found = same[0] if same else load_descriptor(spec.name)
    if found.spec.fingerprint != spec.fingerprint:
        raise CbirError(
            f"the index was built with {spec.short}, but only {found.spec.short} is at hand",
            "restore the model's files, or index again into a new place",
        )
    return found


def newer_model(spec: DescriptorSpec) -> DescriptorSpec | None:
    """The spec that `load_descriptor` gives for the same name now, if it is another one."""
    try:
        current = load_descriptor(spec.name).spec
    except CbirError:
        # A descriptor that is no longer installed has no newer version.
        return None
    return current if current.fingerprint != spec.fingerprint else None


def models() -> Iterator[StoredModel]:
    """Shipped models, then those of the model store, newest first."""
    for name in SHIPPED:
        folder = files("cbir.descriptors") / "shipped" / name
        yield StoredModel(OnnxDescriptor(read_files(folder)), "shipped", str(folder), 0.0)
    store = _store()
    folders = [f for f in store.iterdir() if _is_model(f)] if store.is_dir() else []
    for kept in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        descriptor = OnnxDescriptor(read_files(kept))
        yield StoredModel(descriptor, "store", str(kept), kept.stat().st_mtime)


def keep_model(model_files: Mapping[str, bytes]) -> Path:
    """Write a model's files to the store as `NAME@FINGERPRINT`; returns that folder."""
    spec = OnnxDescriptor(model_files).spec
    folder = _store() / f"{spec.name}@{spec.fingerprint[:16]}"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    if not folder.is_dir():
        temporary.mkdir(parents=True, exist_ok=True)
        for name, data in model_files.items():
            (temporary / name).write_bytes(data)
        temporary.replace(folder)
    return folder


def read_files(folder: Path | Traversable) -> dict[str, bytes]:
    """The bytes of a model's files, by name."""
    return {name: (folder / name).read_bytes() for name in (NETWORK_FILE, CARD_FILE)}


def card_of(descriptor: Descriptor) -> ModelCard | None:
    """The model card of a descriptor that has one."""
    return descriptor.card if isinstance(descriptor, OnnxDescriptor) else None


def files_of(descriptor: Descriptor) -> Mapping[str, bytes]:
    """The files that an index should keep, so that it can be searched without this package."""
    return descriptor.files if isinstance(descriptor, OnnxDescriptor) else {}


def _names(descriptor: OnnxDescriptor) -> set[str]:
    name, fingerprint = descriptor.card.name, descriptor.spec.fingerprint
    return {
        name,
        f"{name}@{fingerprint}",
        f"{name}@{fingerprint[:16]}",
        f"{name}@{fingerprint[:8]}",
    }


def _split_variant(name: str) -> tuple[str, str]:
    stem, _, variant = name.rpartition(":")
    return (stem, variant) if stem and variant in VARIANTS else (name, "fused")


def _store() -> Path:
    return cbir_home() / "models"


def _is_model(folder: Path) -> bool:
    return not folder.name.startswith(".") and (folder / CARD_FILE).is_file()
