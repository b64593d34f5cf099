"""Where models lie: shipped in the package, kept in the model store, or beside an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from cbir.descriptors.base import Descriptor
from cbir.descriptors.onnx import CARD_FILE, NETWORK_FILE, VARIANTS, ModelCard, OnnxDescriptor
from cbir.errors import CbirError
from cbir.home import cbir_home
from cbir.registry import entry_point, resolve
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
    `NAME@FINGERPRINT`), a model's folder (with a path separator: `./my-model`), each of them with
    `:embedding` for the unfused vector, or else an entry point of the group `cbir.descriptors`, or
    `module:attribute`.
    """
    model_name, variant = _split_variant(name)
    if Path(model_name).name != model_name:
        return OnnxDescriptor(read_files(Path(model_name)), variant)
    for model in models():
        if model_name in _names(model.descriptor):
            return OnnxDescriptor(model.descriptor.files, variant)
    known = {model.descriptor.card.name for model in models()}
    return _descriptor(name, resolve(name, ENTRY_POINTS, known))


def descriptor_of(spec: DescriptorSpec, kept: Mapping[str, bytes]) -> Descriptor:
    """The descriptor that made the vectors of an index with `spec`.

    `kept` are the model's files beside the index, if it keeps any; otherwise the package, the
    model store and the entry points are asked. A name of the form `module:attribute` is not
    imported: an index from elsewhere must not choose code to run. Raises `CbirError` when nothing
    has that fingerprint.
    """
    model_name, variant = _split_variant(spec.name)
    if kept:
        candidates: list[Descriptor] = [OnnxDescriptor(kept, variant)]
    else:
        candidates = [
            OnnxDescriptor(model.descriptor.files, variant)
            for model in models()
            if model.descriptor.card.name == model_name
        ]
        installed = entry_point(spec.name, ENTRY_POINTS)
        candidates += [_descriptor(spec.name, installed)] if installed else []
    for candidate in candidates:
        if candidate.spec.fingerprint == spec.fingerprint:
            return candidate
    if not candidates:
        raise CbirError(
            f"the index was built with {spec.short}, which is not installed",
            "say what it is: --descriptor MODULE:ATTRIBUTE",
        )
    raise CbirError(
        f"the index was built with {spec.short}, but only {candidates[0].spec.short} is at hand",
        "restore the model's files, or index again into a new place",
    )


def newer_model(spec: DescriptorSpec) -> DescriptorSpec | None:
    """The spec of the model that `spec.name` loads now, if it is another one."""
    model_name, variant = _split_variant(spec.name)
    for model in models():
        if model.descriptor.card.name == model_name:
            current = OnnxDescriptor(model.descriptor.files, variant).spec
            return current if current.fingerprint != spec.fingerprint else None
    return None


def models() -> Iterator[StoredModel]:
    """Shipped models, then those of the model store, newest first; damaged ones are passed over."""
    for name in SHIPPED:
        folder = files("cbir.descriptors") / "shipped" / name
        yield StoredModel(OnnxDescriptor(read_files(folder)), "shipped", str(folder), 0.0)
    for kept in _stored_folders():
        # `damaged_models` says what is wrong with the others.
        with suppress(CbirError):
            yield _stored(kept)


def damaged_models() -> dict[str, str]:
    """Folders of the model store that hold no whole model, and why not."""
    found = {}
    for kept in _stored_folders():
        try:
            _stored(kept)
        except CbirError as error:
            found[str(kept)] = error.message
    return found


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
    """The bytes of a model's files, by name; raises `CbirError` where one is missing."""
    try:
        return {name: (folder / name).read_bytes() for name in (NETWORK_FILE, CARD_FILE)}
    except OSError as error:
        what = f"{Path(str(error.filename)).name}: {error.strerror}"
        raise CbirError(
            f"the model in {folder} is damaged: {what}"
            if folder.is_dir()
            else f"no model in {folder}",
            f"a model's folder holds {NETWORK_FILE} and {CARD_FILE}",
        ) from error


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


def _descriptor(name: str, factory: Callable[[], object]) -> Descriptor:
    try:
        made = factory()
    except Exception as error:
        raise CbirError(f"'{name}' makes no descriptor: {error}") from error
    if not isinstance(made, Descriptor):
        raise CbirError(f"'{name}' is not a descriptor", "it needs `spec` and `describe(images)`")
    return made


def _stored_folders() -> list[Path]:
    """The model store's folders, newest first; those being written are hidden."""
    store = _store()
    folders = [f for f in store.iterdir() if not f.name.startswith(".")] if store.is_dir() else []
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _stored(folder: Path) -> StoredModel:
    descriptor = OnnxDescriptor(read_files(folder))
    return StoredModel(descriptor, "store", str(folder), folder.stat().st_mtime)


def _store() -> Path:
    return cbir_home() / "models"
