"""Finds models: shipped in the package, in the model store, or stored with an index."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, Literal

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.cards import CARD_FILE, Model, ModelCard, card_fields, split_variant
from cbir.descriptors.composed import (
    KIND,
    ComposedDescriptor,
    named_parts,
    part_files,
    parts_of_card,
)
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.packaged import PACKAGED, is_outdated, packaged_files
from cbir.errors import CbirError, write_hint
from cbir.files import LINKED_BYTES, content, model_faults, place, replacing, sha256_of, size_of
from cbir.home import cbir_home
from cbir.index.base import Index
from cbir.registry import entry_point, resolve
from cbir.types import DescriptorSpec, ModelFile
from cbir.wording import shell_word

ENTRY_POINTS = "cbir.descriptors"
SHIPPED_FOLDER = Path(__file__).parent / "shipped"
SHIPPED = (
    "cifar10-cnn",
    "cifar10-cnn-2",
    "cifar10-cnn-large",
    "cifar10-cnn-large-2",
    "cifar10-cnn-large-3",
    "cifar10-bovw",
    "classic",
)
ENSEMBLES = {
    "cifar10-ensemble": "cifar10-cnn-large+cifar10-cnn-large-2+cifar10-cnn-large-3+cifar10-cnn-2"
}
"""Compositions of shipped models by a name of their own."""
KINDS: Mapping[str, type[OnnxDescriptor] | type[BovwDescriptor]] = {
    "onnx": OnnxDescriptor,
    "bovw": BovwDescriptor,
}
"""The descriptor class by the card's "kind" (default "onnx")."""

log = logging.getLogger(__name__)
"""Where nothing else is set up, Python prints its warnings on standard error, as plain lines."""


@dataclass(frozen=True)
class StoredModel:
    """An available model: its descriptor, origin and folder."""

    descriptor: Model
    origin: Literal["shipped", "store"]
    place: str


def load_descriptor(name: str) -> Descriptor:
    """Load the descriptor called `name`.

    `name` is a shipped model (`cifar10-cnn`), a model in the store (the newest of that name, or
    `NAME@FINGERPRINT`), or a model's folder (with a path separator: `./my-model`); each may end in
    `:embedding` for vectors without the posterior. It may be one of `ENSEMBLES`. A packaged model
    (`efficientnet-lite0`) is made and kept in the store at its first use. Otherwise it is an entry
    point of the group `cbir.descriptors`, or `module:attribute`. Several of these names, joined by
    "+" and each with an optional `:WEIGHT`, make a composition (see `composed.named_parts`).
    """
    if parts := named_parts(ENSEMBLES.get(name, name)):
        names, weights = zip(*parts, strict=True)
        return ComposedDescriptor([_single(part) for part in names], weights)
    return _single(name)


def _single(name: str) -> Descriptor:
    model_name, variant = split_variant(name)
    if Path(model_name).name != model_name:
        return _verified(_stored(read_files(Path(model_name)), variant))
    for model in models(model_name.partition("@")[0]):
        card = model.descriptor.card
        if model_name in _names(model.descriptor) and not is_outdated(model_name, card):
            return _as(variant, model.descriptor)
    if model_name in PACKAGED:
        return _as(variant, _made(model_name))
    known = [*PACKAGED, *ENSEMBLES, *(model.descriptor.card.name for model in models())]
    return _descriptor(name, resolve(name, ENTRY_POINTS, known))


def model_of(files: Mapping[str, ModelFile], variant: str = "fused") -> Model:
    """Create a model from its files; the card gives its kind."""
    if CARD_FILE not in files:
        raise CbirError(f"the model lacks {CARD_FILE}")
    card = card_fields(content(files[CARD_FILE]))
    made = _kind(card)(files, variant)
    if others := sorted(set(files) - set(made.file_names(card, files))):
        raise CbirError(
            f"the model {made.card.name} has files that it does not use: {others[0]!r}",
            "restore the model's files",
        )
    return made


def descriptor_of(spec: DescriptorSpec, kept: Mapping[str, ModelFile]) -> Descriptor:
    """Find the descriptor for an index with `spec`.

    `kept` are the model files stored with the index, if any; otherwise searches the package, the
    model store and the entry points. Does not import a `module:attribute` name, because an
    untrusted index must not choose which code runs. Raises `CbirError` if no descriptor has that
    fingerprint.
    """
    if kept:
        candidates = [_verified(_stored(kept, split_variant(spec.name)[1]), LINKED_BYTES)]
    else:
        candidates = _installed(spec.name)
    return _matching(spec, candidates, spec.name)


def newer_model(spec: DescriptorSpec) -> DescriptorSpec | None:
    """The spec of the model or composition that `spec.name` now loads, if it differs."""
    newest = _newest(spec.name)
    return newest.spec if newest and newest.spec.fingerprint != spec.fingerprint else None


def models(name: str | None = None) -> Iterator[StoredModel]:
    """Yield the shipped models, then those in the store, newest first; skip damaged ones.

    With `name`, yield only models of that name; for the others, only read the card.
    """
    for shipped in SHIPPED:
        if name in (None, shipped):
            folder = SHIPPED_FOLDER / shipped
            yield StoredModel(model_of(read_files(folder, links=True)), "shipped", str(folder))
    for kept in stored_folders():
        with suppress(CbirError):  # `damaged_models` reports the others
            if name in (None, _name_in(kept)):
                yield StoredModel(model_of(read_files(kept)), "store", str(kept))


def damaged_models() -> dict[str, str]:
    """The folders of the model store without a complete model, and the reasons."""
    found = {}
    for kept in stored_folders():
        try:
            model_of(read_files(kept))
        except CbirError as error:
            found[str(kept)] = error.message
    return found


def check_name(name: str, stored: bool = True) -> None:
    """Raise `CbirError` if a model cannot have this `name`, or cbir's own have it (`stored`)."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{,99}", name):
        raise CbirError(
            f"'{name}' is not a valid name", "use letters, digits, dots, dashes and underscores"
        )
    if stored and name in (*SHIPPED, *ENSEMBLES, *PACKAGED):
        raise CbirError(f"'{name}' is one of cbir's own models", "choose another --name")


def keep_model(model_files: Mapping[str, ModelFile]) -> Path:
    """Write a model's files to the store as `NAME@FINGERPRINT` and return the folder.

    Raises `CbirError` if the name is none, or if a file is not the one that the card names.
    """
    spec = _verified(model_of(model_files)).spec
    check_name(spec.name, stored=False)
    folder = model_store() / f"{spec.name}@{spec.fingerprint[:16]}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with replacing(folder) as draft:
                draft.mkdir()
                for name, file in model_files.items():
                    place(file, draft / name, shared=cbir_home())
        except OSError as error:
            if not folder.is_dir():  # another process may have kept it meanwhile
                raise not_kept(error) from error
    return folder


def not_kept(error: OSError) -> CbirError:
    """The error if a model cannot be written to the store."""
    return CbirError(
        f"the model cannot be kept in {model_store()}: {error.strerror or error}",
        write_hint(error, "free some space, or set CBIR_HOME to a folder on another disk"),
    )


def keep_model_of(index: Index, files: Mapping[str, ModelFile]) -> None:
    """Save a model, or each part of a composition, unless `index` stores its files itself."""
    if files and not index.model_files():
        for own in part_files(files).values() or [files]:
            keep_model(own)


def read_files(folder: Path, *, links: bool = False) -> dict[str, ModelFile]:
    """The files of the model in `folder` by name, which may be a stranger's.

    Raises `CbirError` if one is missing or must not be opened, see `files.model_faults`.
    """
    card = card_fields(_read_card(folder, links))
    if card.get("kind") != KIND:
        return _own_files(folder, card, links)
    numbers = range(1, len(parts_of_card(card)) + 1)
    folders = {n: part for n in numbers if (part := folder / str(n)).is_dir()}
    names = [CARD_FILE] + [
        f"{number}/{name}"
        for number, part in folders.items()
        for name in _own_files(part, card_fields(_read_card(part, links, folder)), links)
    ]
    _check_files(folder, names, links)
    return {name: folder / name for name in names}


def _own_files(folder: Path, card: Mapping[str, Any], links: bool) -> dict[str, ModelFile]:
    """The files of one model, no composition, in `folder`."""
    present = {path.name for path in folder.iterdir() if path.is_file()}
    names = [str(name) for name in _kind(card).file_names(card, present)]
    if missing := sorted(set(names) - present):
        raise CbirError(
            f"the model in {folder} is damaged: it lacks {', '.join(missing)}",
            "restore the model's files",
        )
    _check_files(folder, names, links)
    return {name: folder / name for name in names}


def card_of(descriptor: Descriptor) -> ModelCard | None:
    """The model card of a descriptor, if it has one."""
    return descriptor.card if isinstance(descriptor, Model) else None


def cards_of(descriptor: Descriptor) -> list[ModelCard]:
    """The model cards of a descriptor or of its parts."""
    parts = descriptor.parts if isinstance(descriptor, ComposedDescriptor) else [descriptor]
    return [part.card for part in parts if isinstance(part, Model)]


def files_of(descriptor: Descriptor) -> Mapping[str, ModelFile]:
    """The model files to store with an index, so that searches do not need an installed model."""
    return descriptor.files if isinstance(descriptor, Model | ComposedDescriptor) else {}


def _stored(files: Mapping[str, ModelFile], variant: str) -> Descriptor:
    """The model or composition with these files; parts without files must be installed."""
    card = card_fields(content(files[CARD_FILE])) if CARD_FILE in files else {}
    if card.get("kind") != KIND:
        return model_of(files, variant)
    own = part_files(files)
    parts, weights = zip(*parts_of_card(card), strict=True)
    return ComposedDescriptor(
        [
            model_of(own[str(number)], split_variant(part.name)[1])
            if str(number) in own
            else _matching(part, _installed(part.name), str(card.get("name")))
            for number, part in enumerate(parts, 1)
        ],
        weights,
    )


def _check_files(folder: Path, names: Iterable[str], links: bool) -> None:
    """Raise `CbirError` if a file of the model in `folder` must not be opened."""
    for name, fault in model_faults(folder, names, links=links).items():
        raise CbirError(f"{folder / name} {fault}", "restore the model's files")


def _verified(descriptor: Descriptor, most: float = inf) -> Descriptor:
    """`descriptor`, if its files have the digests on their cards; raises `CbirError`.

    Fingerprints rely on these digests. Files of `most` bytes or more are not read: those of an
    index were checked when it got them, and `cbir verify` does so again.
    """
    parts = descriptor.parts if isinstance(descriptor, ComposedDescriptor) else [descriptor]
    for model in (part for part in parts if isinstance(part, OnnxDescriptor)):
        for name, digest in (model.card.files or {}).items():
            file = model.files[name]
            if size_of(file) < most and sha256_of(file) != digest:
                raise CbirError(
                    f"{name} of {model.card.name} has another sha256 than its {CARD_FILE} says",
                    "restore the file (in an index: cbir verify --repair), or give the network "
                    "itself: cbir models add",
                )
    return descriptor


def _matching(spec: DescriptorSpec, candidates: Sequence[Descriptor], whole: str) -> Descriptor:
    """The candidate with the fingerprint of `spec`, which is (part of) the descriptor `whole`."""
    for candidate in candidates:
        if candidate.spec.fingerprint == spec.fingerprint:
            return candidate
    if not candidates:
        lacking = [part for part, _ in named_parts(spec.name) if not _installed(part)]
        named = whole.replace(lacking[0] if lacking else spec.name, "MODULE:ATTRIBUTE")
        raise CbirError(
            f"the index was built with {spec.short}, "
            f"{f'of which {lacking[0]!r}' if lacking else 'which'} is not installed",
            f"name it: --descriptor {shell_word(named)}",
        )
    raise CbirError(
        f"the index was built with {spec.short}, but only {candidates[0].spec.short} is available",
        "restore the model's files, or index again into a new index",
    )


def _installed(name: str) -> list[Descriptor]:
    """Every installed version of the descriptor called `name`; imports no `module:attribute`."""
    model_name, variant = split_variant(name)
    kept = [model.descriptor for model in models(model_name)]
    found: list[Descriptor] = [_as(variant, model) for model in kept]
    registered = entry_point(name, ENTRY_POINTS)
    found += [_descriptor(name, registered)] if registered else []
    if model_name in PACKAGED and all(is_outdated(model_name, model.card) for model in kept):
        found.append(_as(variant, _made(model_name)))
    return found or _compositions(name)


def _compositions(name: str) -> list[Descriptor]:
    """The composition called `name`, of every installed version of its parts."""
    found: list[Descriptor] = []
    if parts := named_parts(name):
        names, weights = zip(*parts, strict=True)
        for versions in product(*map(_installed, names)):
            with suppress(CbirError):  # of two parts of one name: the same version twice
                found.append(ComposedDescriptor(versions, weights))
    return found


def _newest(name: str) -> Descriptor | None:
    """The newest model called `name`, or the composition of the newest of its parts."""
    model_name, variant = split_variant(name)
    for model in models(model_name):
        return _as(variant, model.descriptor)
    parts = [(_newest(part), weight) for part, weight in named_parts(name)]
    known = [(part, weight) for part, weight in parts if part]
    if not known or len(known) < len(parts):
        return None
    newest, weights = zip(*known, strict=True)
    return ComposedDescriptor(newest, weights)


def _kind(card: Mapping[str, Any]) -> type[OnnxDescriptor] | type[BovwDescriptor]:
    kind = card.get("kind", "onnx")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CbirError(f"{CARD_FILE} has the unknown model kind {kind!r}", "update cbir")
    return KINDS[kind]


def _made(name: str) -> Model:
    """The packaged model `name`, which is kept in the store from now on."""
    made = packaged_files(name)
    folder = keep_model(made)
    log.warning("built %s from its package's weights; saved in %s", name, folder)
    return model_of(made)


def _as(variant: str, model: Model) -> Model:
    return model if model.variant == variant else model_of(model.files, variant)


def _read_card(folder: Path, links: bool = False, within: Path | None = None) -> bytes:
    """The card of the model in `folder`, which is a part of the composition `within`."""
    if (folder / CARD_FILE).exists():
        inside = within or folder
        _check_files(inside, [(folder / CARD_FILE).relative_to(inside).as_posix()], links)
    try:
        return (folder / CARD_FILE).read_bytes()
    except OSError as error:
        data_files = " or ".join(kind.FILES[0] for kind in KINDS.values())
        raise CbirError(
            f"the model in {folder} is damaged: {CARD_FILE}: {error.strerror}"
            if folder.is_dir()
            else f"no model in {folder}",
            f"a model folder contains {CARD_FILE} and {data_files}; "
            "cbir models add makes one of an ONNX network",
        ) from error


def _name_in(folder: Path) -> str:
    return str(card_fields(_read_card(folder)).get("name"))


def _names(model: Model) -> set[str]:
    name, fingerprint = model.card.name, model.spec.fingerprint
    return {name, *(f"{name}@{fingerprint[:length]}" for length in (8, 16, None))}


def _descriptor(name: str, factory: Callable[[], object]) -> Descriptor:
    try:
        made = factory()
    except Exception as error:
        raise CbirError(
            f"'{name}' failed to create a descriptor: {error}",
            "name a class or function that can be called without arguments",
        ) from error
    if not isinstance(made, Descriptor):
        raise CbirError(f"'{name}' is not a descriptor", "it needs `spec` and `describe(images)`")
    return made


def stored_folders() -> list[Path]:
    """The folders of the model store, newest first; unfinished ones are hidden."""
    store = model_store()
    folders = [f for f in store.iterdir() if not f.name.startswith(".")] if store.is_dir() else []
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def model_store() -> Path:
    """The folder of the models that were trained, added, or built; it may not exist yet."""
    return cbir_home() / "models"
