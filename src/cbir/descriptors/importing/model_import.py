"""Turns an ONNX file, or a folder with one, into a model of the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cbir.descriptors.about import About
from cbir.descriptors.cards import CARD_FILE, Model
from cbir.descriptors.composed import KIND
from cbir.descriptors.configs import OpenQuestionError, Read, read_config
from cbir.descriptors.contract import has_text
from cbir.descriptors.hub.known import PREFIX
from cbir.descriptors.importing.input_settings import Changes, OpenQuestionsError, decided
from cbir.descriptors.importing.network_files import (
    BLOBS,
    NetworkFiles,
    check_inside,
    find_network,
)
from cbir.descriptors.importing.network_ports import chosen_embedding, image_input, text_embedding
from cbir.descriptors.importing.trial import (
    check_words,
    described_one_by_one,
    images_per_second,
    pictures,
)
from cbir.descriptors.models import (
    check_name,
    damaged_models,
    keep_model,
    model_of,
    model_store,
    models,
    not_kept,
    read_files,
)
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard, OnnxDescriptor
from cbir.descriptors.pooling import pooled
from cbir.descriptors.processors import read_preprocessing
from cbir.descriptors.pulled import hub_source
from cbir.descriptors.removing import remove_model
from cbir.descriptors.runtime import Network
from cbir.descriptors.text_network import TEXT_FILE
from cbir.descriptors.text_towers import read_text_tower
from cbir.errors import CbirError, how_to_install
from cbir.files import content, model_faults, place, sha256_of, size_of, write_whole
from cbir.registry import installed
from cbir.types import DescriptorSpec, ModelFile


@dataclass(frozen=True)
class Imported:
    """A model that is in the store now.

    `images_per_second` is on one core, None if it was not tried now; `size` is in bytes; `has_text`
    means that words can be searched. `assumptions` are one line each.
    """

    spec: DescriptorSpec
    folder: Path
    size: int
    has_text: bool
    images_per_second: float | None
    assumptions: tuple[str, ...]


def import_model(path: Path, name: str, about: About, changes: Changes) -> Imported:
    """Make a model of the network at `path`, try it on pictures, and keep it in the store.

    `path` is an ONNX file or a folder with one (see `network_files.find_network`). Nothing in it
    is run but the networks' own operators. Raises `OpenQuestionsError` with all that neither the
    files nor `changes` say, and `CbirError` if a network cannot be used.
    """
    check_name(name)
    found = find_network(path)
    with _draft({**found.image, **found.text}) as files:
        card, assumptions = _card(found, files, name, about, changes)
        if found.text:
            card, lines = _with_text(card, found, files)
            assumptions += lines
        if described_one_by_one(_model(card, files)):
            card = replace(card, batch=1)
            assumptions.append("batches change vectors or fail: images are described one by one")
        return _kept(_model(card, files), assumptions)


def import_folder(folder: Path, name: str | None) -> Imported:
    """Keep a folder that is a model already, with its card, in the store; `name` renames it.

    Nothing in the folder is run but the operators of a network. Raises `CbirError` if the model is
    damaged or does not work.
    """
    card = read_config(folder / CARD_FILE)
    if card is not None and card.values.get("kind") == KIND:
        raise CbirError(f"{folder} is a composition", "add its parts, and compose them by name")
    files = {name: folder / name for name in read_files(folder, links=True)}
    for file in files.values():
        check_inside(file, folder)
    with _draft(files) as drafted:
        if card is not None:
            drafted[CARD_FILE] = json.dumps(_added(card.values, name), indent=1).encode()
        model = model_of(drafted)
        check_name(model.card.name)
        if described_one_by_one(model):
            raise CbirError(
                f"batches change the vectors of {model.card.name} or fail",
                f'say "batch": 1 in its {CARD_FILE}',
            )
        return _kept(model, [])


def imported_before(about: About) -> Imported | None:
    """The model that was made of `about.source`, if it is in the store; now the newest of all."""
    for model in models():
        own = model.descriptor
        if model.origin == "store" and hub_source(own.card) == about.source:
            os.utime(model.place)
            size = sum(map(size_of, own.files.values()))
            return Imported(own.spec, Path(model.place), size, has_text(own), None, ())
    return None


def _added(card: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The card of a folder that a person adds; it makes no default, as what was pulled does."""
    made = {**card, **({} if name is None else {"name": name})}
    training = card.get("training")
    if isinstance(training, dict) and str(training.get("source")).startswith(PREFIX):
        made["training"] = {**training, "source": f"copy of {training['source']}"}
    return made


def _kept(model: Model, assumptions: list[str]) -> Imported:
    if has_text(model):
        if installed("tokenizers"):
            check_words(model)
        else:
            cure = how_to_install("hub")
            assumptions.append(f"searching by words needs the 'hub' extra: {cure}")
    speed = images_per_second(model)
    folder = keep_model(model.files)
    if str(folder) in damaged_models():
        remove_model(folder)
        keep_model(model.files)
    # Added once more, it is the newest of its name, with the licence that was given now.
    write_whole(folder / CARD_FILE, content(model.files[CARD_FILE]))
    size = sum(map(size_of, model.files.values()))
    return Imported(model.spec, folder, size, has_text(model), speed, tuple(assumptions))


def _card(
    found: NetworkFiles,
    files: Mapping[str, ModelFile],
    name: str,
    about: About,
    changes: Changes,
) -> tuple[OnnxCard, list[str]]:
    """The card of the model without words, and what was assumed."""
    network = Network(files[NETWORK_FILE], found.image[NETWORK_FILE].name, found.image)
    inputs, outputs = network.ports()
    taken = image_input(inputs, changes.layout)
    preprocessing, assumed = decided(read_preprocessing(found.folder), taken, changes)
    names = [port.name for port in outputs if port.type == "tensor(float)"]
    if not names:
        raise CbirError("the network has no output of type float32", "export it with one")
    values = network.outputs(preprocessing.inputs(pictures()[:1]), names)
    config = read_config(found.folder / "config.json")
    try:
        embedding = chosen_embedding(
            dict(zip(names, values, strict=True)),
            (config and config.text("model_type")) or "",
            changes.output,
            changes.pooling,
        )
    except OpenQuestionError as question:
        raise OpenQuestionsError([str(question)]) from question
    row = pooled(values[names.index(embedding.output)], embedding.pooling)
    card = OnnxCard(
        name=name,
        classes=(),
        trained_on=about.trained_on,
        licence=about.licence,
        training={"images": f"{name}:train/", "source": about.source},
        quality={},
        preprocessing=preprocessing,
        output=embedding.output,
        pooling=embedding.pooling,
        dim=row.shape[1],
        batch=taken.batch,
        files=_digests(found.image, files),
    )
    one = ["the network takes one image at a time"] if taken.batch else []
    return card, [*embedding.assumptions, *assumed, *one]


def _with_text(
    card: OnnxCard, found: NetworkFiles, files: Mapping[str, ModelFile]
) -> tuple[OnnxCard, list[str]]:
    """The card with the text tower, if words can be searched, and what was assumed."""
    if card.pooling != "none":
        return card, [f"words cannot be searched: output '{card.output}' is not in their space"]
    _, outputs = Network(files[TEXT_FILE], found.text[TEXT_FILE].name, found.text).ports()
    try:
        output = text_embedding([port.name for port in outputs])
        read = read_text_tower(found.folder, output)
    except OpenQuestionError as question:
        read = Read(None, (), (str(question),))
    if read.value is None:
        return card, [f"words cannot be searched: {question}" for question in read.questions]
    digests = {**(card.files or {}), **_digests(found.text, files)}
    assumed = [f"words: {line}" for line in read.assumptions]
    return replace(card, text=read.value, files=digests), assumed


def _digests(names: Iterable[str], files: Mapping[str, ModelFile]) -> dict[str, str]:
    return {name: sha256_of(files[name]) for name in names}


def _model(card: OnnxCard, files: Mapping[str, ModelFile]) -> OnnxDescriptor:
    own = {name: files[name] for name in card.files or ()}
    return OnnxDescriptor({**own, CARD_FILE: json.dumps(card.to_json(), indent=1).encode()})


@contextmanager
def _draft(files: Mapping[str, Path]) -> Iterator[dict[str, ModelFile]]:
    """The files of the model to be, under their new names in a hidden folder of the store.

    ONNX Runtime opens a network only where its weights lie beside it, and not through links. Only
    files of the hub's cache may be linked: a person's own may be written again in place.
    """
    store = model_store()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=store, prefix=".import-") as draft:
            for name, file in files.items():
                beside = file.resolve().parent
                place(file, Path(draft) / name, beside if beside.name == BLOBS else store)
            for name, fault in model_faults(Path(draft), files).items():
                raise CbirError(f"{files[name]} {fault}", "choose another network")
            yield {name: Path(draft) / name for name in files}
    except OSError as error:
        raise not_kept(error) from error
