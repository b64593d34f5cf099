"""Finds the files of a network: in a folder, or in one with the layout of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.onnx import NETWORK_FILE, PROJECTION_FILE
from cbir.descriptors.onnx_weights import weight_files
from cbir.descriptors.text_network import TEXT_FILE, TOKENIZER_FILE
from cbir.descriptors.text_towers import tokenizer_file
from cbir.errors import CbirError
from cbir.files import lies_in, require_regular, special_kind
from cbir.wording import listed

IMAGE_NETWORKS = ("vision_model.onnx", "model.onnx")
TEXT_NETWORK = "text_model.onnx"
INNER = "onnx"
"""The folder of the networks; configuration files lie above it."""

BLOBS = "blobs"
"""The folder of the hub's cache that holds the content of files."""

_RESERVED = (NETWORK_FILE, PROJECTION_FILE, TEXT_FILE, TOKENIZER_FILE, CARD_FILE)
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class NetworkFiles:
    """The files of a model to be, by the names that they get.

    `image` are the network and the files that it keeps weights in (external data); `text` are
    those of the text tower and its tokenizer, if there is one. `folder` holds the configuration
    files.
    """

    folder: Path
    image: dict[str, Path]
    text: dict[str, Path]


def find_network(path: Path) -> NetworkFiles:
    """Find the networks at `path`, an ONNX file or a folder with one, and all that they need.

    A text network is found beside `vision_model*.onnx`. Nothing but names, links and locations of
    weights is read. Raises `CbirError` if there is no network or one of its files is missing, and
    for links and weights that lead out of the folder.
    """
    image = path if path.is_file() else _image_network(path)
    folder = image.parent.parent if image.parent.name == INNER else image.parent
    for file in [*folder.glob("*.json"), *folder.glob("*/*.json"), image]:
        if file != path:  # a person may name a link
            check_inside(file, folder)
    text, tokenizer = image.with_name(TEXT_NETWORK), tokenizer_file(folder)
    texts: dict[str, Path] = {}
    if image.name.startswith("vision_model") and text.is_file():
        check_inside(text, folder)
        texts = {TEXT_FILE: text, **_weights(text, folder)}
        texts |= {TOKENIZER_FILE: tokenizer} if tokenizer else {}
    return NetworkFiles(folder, {NETWORK_FILE: image, **_weights(image, folder)}, texts)


def check_inside(file: Path, folder: Path) -> None:
    """Raise `CbirError` if `file` is a link that leads out of `folder`.

    The hub's cache is an exception: links in `snapshots/COMMIT` lead to `blobs`.
    """
    if not (lies_in(file, folder) or lies_in(file, folder.resolve().parent.parent / BLOBS)):
        raise CbirError(
            f"{file} is a link to {file.resolve()}, outside its folder",
            "replace it with a copy of the file",
        )


def _image_network(folder: Path) -> Path:
    if not folder.is_dir():
        kind = special_kind(folder.stat().st_mode) if folder.exists() else None
        what = f"{folder} is a {kind}" if kind else f"no file or folder {folder}"
        raise CbirError(what, "give an ONNX file, or a folder with one")
    for name in IMAGE_NETWORKS:
        for place in (folder / INNER, folder):
            if (place / name).is_file():
                return place / name
    found = sorted([*folder.glob("*.onnx"), *folder.glob(f"{INNER}/*.onnx")])
    if len(found) == 1:
        return found[0]
    if not found:
        raise CbirError(f"{folder} has no ONNX file", "export the model to ONNX first")
    names = listed([file.relative_to(folder).as_posix() for file in found])
    raise CbirError(f"{folder} has {len(found)} ONNX files: {names}", "give one of them")


def _weights(network: Path, folder: Path) -> dict[str, Path]:
    """The files in which `network` keeps weights, by name."""
    require_regular(network)
    with network.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CbirError(f"{network} is a Git LFS pointer, not the file itself", "git lfs pull")
    try:
        names = sorted(weight_files(network))
    except ValueError as error:
        raise CbirError(
            f"{network} cannot be used: {error}",
            "export it again, with its weights in a file beside it, such as model.onnx_data",
        ) from error
    files = {}
    for name in names:
        if name in _RESERVED:
            raise CbirError(
                f"{network} keeps weights in {name}, which cannot be a file beside it",
                "export it again, with its weights in a file such as model.onnx_data",
            )
        files[name] = network.with_name(name)
        if not files[name].is_file():
            raise CbirError(
                f"{network} lacks {name}, which holds its weights", f"put {name} beside it"
            )
        check_inside(files[name], folder)
    return files
