"""Where models lie: shipped in the package, kept in the model store, or beside an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.cards import CARD_FILE, VARIANTS, Model, ModelCard, card_fields
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.errors import CbirError
from cbir.files import replacing
from cbir.home import cbir_home
from cbir.index.base import Index
from cbir.registry import entry_point, resolve
from cbir.types import DescriptorSpec

ENTRY_POINTS = "cbir.descriptors"
SHIPPED = ("cifar10-cnn", "cifar10-bovw", "classic")
KINDS: Mapping[str, type[OnnxDescriptor] | type[BovwDescriptor]] = {
    "onnx": OnnxDescriptor,
    "bovw": BovwDescriptor,
}
"""What makes a descriptor of a model's files, by the "kind" in its card; without one: "onnx"."""


@dataclass(frozen=True)
class StoredModel:
    """A model at hand: its descriptor, where it lies, and since when (seconds since 1970)."""

    descriptor: Model
    origin: Literal["shipped", "store"]
    place: str
    modified: float


def load_descriptor(name: str) -> Descriptor:
    """The descriptor called `name`.

    `name` is a shipped model (`cifar10-cnn`), one of the model store (the newest of that name, or
    `NAME@FINGERPRINT`), a model's folder (with a path separator: `./my-model`), each of them with
    `:embedding` for the vector without the posterior, or else an entry point of the group
    `cbir.descriptors`, or `module:attribute`.
    """
    model_name, variant = _split_variant(name)
    if Path(model_name).name != model_name:
        return model_of(read_files(Path(model_name)), variant)
    for model in models(model_name.partition("@")[0]):
        if model_name in _names(model.descriptor):
            return _as(variant, model.descriptor)
    return _descriptor(name, resolve(name, ENTRY_POINTS, _known()))


def model_of(files: Mapping[str, bytes], variant: str = "fused") -> Model:
    """The model that `files` make, of the kind that their card says."""
    if CARD_FILE not in files:
        raise CbirError(f"the model lacks {CARD_FILE}")
    return _kind(files[CARD_FILE])(files, variant)


def descriptor_of(spec: DescriptorSpec, kept: Mapping[str, bytes]) -> Descriptor:
    """The descriptor that made the vectors of an index with `spec`.

    `kept` are the model's files beside the index, if it keeps any; otherwise the package, the
    model store and the entry points are asked. A name of the form `module:attribute` is not
    imported: an index from elsewhere must not choose code to run. Raises `CbirError` when nothing
    has that fingerprint.
    """
    model_name, variant = _split_variant(spec.name)
    if kept:
        candidates: list[Descriptor] = [model_of(kept, variant)]
    else:
        candidates = [_as(variant, model.descriptor) for model in models(model_name)]
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
    for model in models(model_name):
        current = _as(variant, model.descriptor).spec
        return current if current.fingerprint != spec.fingerprint else None
    return None


def models(name: str | None = None) -> Iterator[StoredModel]:
    """Shipped models, then those of the model store, newest first; damaged ones are passed over.

    With `name` only those of that name; of the others no more than the card is read.
    """
    for shipped in SHIPPED:
        if name in (None, shipped):
            folder = _shipped_folder(shipped)
            yield StoredModel(model_of(read_files(folder)), "shipped", str(folder), 0.0)
    for kept in _stored_folders():
        # `damaged_models` says what is wrong with the others.
        with suppress(CbirError):
            if name in (None, _name_in(kept)):
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
    spec = model_of(model_files).spec
    folder = _store() / f"{spec.name}@{spec.fingerprint[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as draft:
            draft.mkdir()
            for name, data in model_files.items():
                (draft / name).write_bytes(data)
    return folder


def keep_model_of(index: Index, files: Mapping[str, bytes]) -> None:
    """Keep a model in the store if `index` does not keep its files itself."""
    if files and not index.model_files():
        keep_model(files)


def read_files(folder: Path | Traversable) -> dict[str, bytes]:
    """The bytes of a model's files, by name; raises `CbirError` where one is missing."""
    card = _read(folder, CARD_FILE)
    return {name: _read(folder, name) for name in _kind(card).FILES}


def card_of(descriptor: Descriptor) -> ModelCard | None:
    """The model card of a descriptor that has one."""
    return descriptor.card if isinstance(descriptor, Model) else None


def files_of(descriptor: Descriptor) -> Mapping[str, bytes]:
    """The files that an index should keep, so that it can be searched without this package."""
    return descriptor.files if isinstance(descriptor, Model) else {}


def _kind(card: bytes) -> type[OnnxDescriptor] | type[BovwDescriptor]:
    kind = card_fields(card).get("kind", "onnx")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CbirError(f"{CARD_FILE} is of a model of unknown kind {kind!r}", "update cbir")
    return KINDS[kind]


def _as(variant: str, model: Model) -> Model:
    """`model` in its other variant, where it is not in this one."""
    return model if model.variant == variant else model_of(model.files, variant)


def _read(folder: Path | Traversable, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CbirError(
            f"the model in {folder} is damaged: {name}: {error.strerror}"
            if folder.is_dir()
            else f"no model in {folder}",
            f"a model's folder holds {CARD_FILE} and {_data_files()}",
        ) from error


def _data_files() -> str:
    return " or ".join(kind.FILES[0] for kind in KINDS.values())


def _known() -> set[str]:
    """The names of all models at hand."""
    known = set(SHIPPED)
    for folder in _stored_folders():
        with suppress(CbirError):
            known.add(_name_in(folder))
    return known


def _name_in(folder: Path) -> str:
    return str(card_fields(_read(folder, CARD_FILE)).get("name"))


def _names(descriptor: Model) -> set[str]:
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
    descriptor = model_of(read_files(folder))
    return StoredModel(descriptor, "store", str(folder), folder.stat().st_mtime)


def _shipped_folder(name: str) -> Traversable:
    return files("cbir.descriptors") / "shipped" / name


def _store() -> Path:
    return cbir_home() / "models"
